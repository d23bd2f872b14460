"""From the number of a round to the weights to remove and to bring back. Nothing here changes a network."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastprune import check
from fastprune.allocation import lowest, share_out
from fastprune.criteria import Context, Criterion
from fastprune.criteria import scores as score
from fastprune.gradients import MeanGradient
from fastprune.growers import GROWERS
from fastprune.kernels.layout import Floats, Ints
from fastprune.network import MLP
from fastprune.records import Amount
from fastprune.rules import RULES, count_for, to_unit
from fastprune.state import State
from fastprune.storage import Storage

SCOPES = ("layer", "global")
LAYER_RATES = ("uniform", "erdos_renyi", "lamp")

Positions = Ints
"""Ascending indices of weights among the stored ones."""


class Selection(NamedTuple):
    """The weights to remove and to bring back, with the reasons."""

    removed: Positions
    grown: dict[int, Ints]  # by layer: positions in its (fan_out, fan_in) array
    held_back: list[int]  # layers that keep more than requested because of `min_keep`
    thresholds: dict[int, float | None]  # of each ranked layer, if the rule has thresholds

    def apply(self, state: State) -> State:
        """Return the state after this selection."""
        if not self.removed.size and not self.grown:
            return state
        stay = state.storage.live > 0
        stay[self.removed] = False
        positions = []
        for layer, (low, high) in enumerate(pairwise(state.storage.layout.weights.tolist())):
            live = state.storage.live[low:high] > 0
            kept = state.storage.positions(layer)[stay[low:high][live]]
            grown = self.grown.get(layer)
            positions.append(kept if grown is None else np.sort(np.concatenate([kept, grown])))
        return state.with_live(positions)


@dataclass(frozen=True)
class Selector:
    """Selects weights to remove and to bring back; see `fastprune.Pruner`, which checks the fields."""

    criterion: str | Criterion
    scope: str
    layer_rates: str
    layers: list[int]
    min_keep: int
    seed: int
    grower: str | None = None
    drop_fraction: float = 0.0  # in this round

    def check(self, rule: str, of_schedule: str) -> None:
        """Check that the settings are compatible with each other and with the rule of a prune."""
        if self.layer_rates != "uniform" and (of_schedule != "sparsity" or self.scope != "layer"):
            raise ValueError(
                f"layer_rates: expected rule 'sparsity' and scope 'layer' with {self.layer_rates!r}, got "
                f"{of_schedule!r}, {self.scope!r}"
            )
        if self.grower is not None and (rule != "sparsity" or self.scope != "layer"):
            raise ValueError(
                f"grower: expected rule 'sparsity' and scope 'layer' with {self.grower!r}, got {rule!r}, {self.scope!r}"
            )
        if rule == "std" and self.criterion != "magnitude":
            raise ValueError(f"criterion: expected 'magnitude' with rule 'std', got {self.criterion!r}")
        if not self.layers:
            raise ValueError("ignored_layers: expected at least one layer left to prune, got all layers")

    def select(self, state: State, rule: str, amount: Amount, gradient: MeanGradient | None = None) -> Selection:
        """Find the live weights that the rule removes, and the pruned ones that the grower brings back."""
        storage = state.storage
        values = state.values[: storage.layout.biases[0]].astype(np.float64)
        live = [low + np.flatnonzero(storage.live[low:high]) for low, high in pairwise(storage.layout.weights)]
        threshold = RULES[rule].threshold
        groups = self._groups(amount) if threshold else self._losses(storage, amount, values, live)
        contexts: dict[int, Context] = {}
        free: dict[int, Positions] = {}
        scores = np.zeros(values.size)
        for layer in sorted(layer for group, _ in groups for layer in group):
            where, rng = live[layer], self._lots(state, layer, live)
            contexts[layer] = Context(layer, values[where], rng, state, gradient)
            scores[where] = score(self.criterion, contexts[layer])
            # The best `min_keep` weights of a layer cannot be removed.
            free[layer] = lowest(scores, where, max(0, where.size - self.min_keep))
        removed: list[Positions] = [np.empty(0, np.int64)]
        grown: dict[int, Ints] = {}
        held_back: list[int] = []
        thresholds: dict[int, float | None] = {}

        for group, number in groups:
            if threshold is None:
                candidates, count = _union(free, group), int(number)
                if candidates.size < count:
                    held_back += group
                leave = min(max(count, 0), candidates.size)
                if self.grower is not None:
                    (layer,) = group
                    comes, pruned = max(-count, 0), storage.layer_total_weights[layer] - live[layer].size
                    moved = round(self.drop_fraction * (live[layer].size - max(count, 0)))
                    moved = min(moved, candidates.size - leave, pruned - comes)
                    leave, comes = leave + moved, comes + moved
                    if comes:
                        grown[layer] = GROWERS[self.grower](contexts[layer], comes)
                removed.append(lowest(scores, candidates, leave))
                continue
            candidates = _union(live, group)
            limit = threshold(values[candidates], scores[candidates], number)
            thresholds |= dict.fromkeys(group, limit)
            if limit is None:
                continue
            for layer in group:
                goes = free[layer][scores[free[layer]] <= limit]
                removed.append(goes)
                if goes.size < np.count_nonzero(scores[live[layer]] <= limit):
                    held_back.append(layer)
        return Selection(np.concatenate(removed), grown, held_back, thresholds)

    def _lots(self, state: State, layer: int, live: list[Positions]) -> np.random.Generator:
        """Random generator of a layer; it depends neither on how layers are stored nor on which others are ranked."""
        if self.grower is not None:  # the number of live weights may stay, so key by which weights are live
            digest = zlib.crc32(state.storage.positions(layer).tobytes())
            return np.random.default_rng([self.seed, layer, int(state.updates[0]), digest])
        counts = [positions.size for positions in live]
        generator = np.random.PCG64([self.seed, sum(counts)])
        return np.random.Generator(generator.advance(sum(counts[:layer])))  # skip one number per earlier live weight

    def _groups(self, amount: Amount) -> Sequence[tuple[list[int], float]]:
        """Return the groups of layers that are ranked together, with the number of each group."""
        if isinstance(amount, Mapping):
            return [([layer], number) for layer, number in amount.items()]
        return [(self.layers, amount)] if self.scope == "global" else [([layer], amount) for layer in self.layers]

    def _losses(
        self, storage: Storage, amount: Amount, values: Floats, live: list[Positions]
    ) -> Sequence[tuple[list[int], float]]:
        """Return how many weights each group loses to reach its sparsity; negative if a grower adds weights."""
        sizes = storage.layer_total_weights
        left = [positions.size for positions in live]
        least = 0 if self.grower is None else -sum(sizes)
        if isinstance(amount, Mapping):
            return [
                ([i], max(least, left[i] - sizes[i] + count_for(sparsity, sizes[i]))) for i, sparsity in amount.items()
            ]
        more = max(least, sum(left) - sum(sizes) + count_for(amount, sum(sizes)))
        if self.scope == "global":
            return [(self.layers, more)]
        caps = [left[i] for i in self.layers]
        total = sum(caps) - more
        ends = self.layer_rates == "erdos_renyi"
        parts = [sum(storage.sizes[i : i + 2]) if ends else sizes[i] for i in self.layers]
        if more < 0:
            gains = share_out(-more, parts, [sizes[i] - left[i] for i in self.layers])
            shares = [cap + gain for cap, gain in zip(caps, gains, strict=True)]
        elif self.layer_rates == "lamp":
            shares = _lamp([values[live[i]] for i in self.layers], total)
        else:
            shares = share_out(total, parts, caps)
        return [([layer], cap - share) for layer, cap, share in zip(self.layers, caps, shares, strict=True)]


def _lamp(layers: list[Floats], total: int) -> list[int]:
    """Return how many of `total` weights each layer keeps if all are ranked together by LAMP score.

    A weight's score is its square divided by the sum of all squares in its layer that are at least as large, itself
    included; ties are ordered (Lee et al. 2021, equation 2).
    """
    scores = []
    for values in layers:
        squares = np.sort(to_unit(values)[0] ** 2)[::-1]
        scores.append(squares / np.maximum(np.cumsum(squares), np.finfo(float).tiny))
    joined = np.concatenate(scores)
    lost = lowest(joined, np.arange(joined.size), joined.size - total)
    bounds = np.cumsum([0, *(values.size for values in layers)])
    return [values.size - int(n) for values, n in zip(layers, np.diff(np.searchsorted(lost, bounds)), strict=True)]


def _union(positions: Mapping[int, Positions] | list[Positions], layers: list[int]) -> Positions:
    return np.concatenate([positions[layer] for layer in layers])


def check_amount(name: str, rule: str, amount: Amount, selector: Selector, network: MLP) -> Amount:
    """Return `amount` if it suits the rule and every layer it names can be pruned."""
    interval = RULES[rule].interval
    if not isinstance(amount, Mapping):
        number = check.number(name, amount, interval)
        if rule == "sparsity":
            _check_reach(name, number, selector, network)
        return number
    if selector.scope != "layer":
        raise ValueError(f"{name}: expected one number in scope {selector.scope!r}, got {amount!r}")
    if not amount:
        raise ValueError(f"{name}: expected a number for at least one layer, got {amount!r}")
    checked: dict[int, float] = {}
    for layer, value in amount.items():
        index = check.layer(name, layer, network.n_layers)
        if index in checked:
            raise ValueError(f"{name}: expected each layer once, got {amount!r}")
        if index not in selector.layers:
            raise ValueError(f"{name}: expected layers that are not ignored, got layer {layer}")
        checked[index] = check.number(f"{name}[{layer}]", value, interval)
    return checked


def _check_reach(name: str, sparsity: float, selector: Selector, network: MLP) -> None:
    weights, live, prunable = network.total_weights, network.layer_live_weights, selector.layers
    ignored = sum(live) - sum(live[layer] for layer in prunable)
    least = ignored
    if selector.scope == "global":
        least += sum(min(live[layer], selector.min_keep) for layer in prunable)
    if count_for(sparsity, weights) > weights - least:
        raise ValueError(
            f"{name}: expected a sparsity of at most {1 - least / weights:.6g}, the most that ignored_layers and "
            f"min_keep allow, got {sparsity!r}"
        )
    most = ignored + sum(network.layer_total_weights[layer] for layer in prunable)
    if selector.grower is not None and count_for(sparsity, weights) < weights - most:
        raise ValueError(
            f"{name}: expected a sparsity of at least {1 - most / weights:.6g}, because ignored_layers do not grow, "
            f"got {sparsity!r}"
        )
