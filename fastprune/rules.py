"""What goes: how a round's number becomes the set of weights to remove. Nothing here changes a network."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune.allocation import share_out
from fastprune.kernels.layout import Floats
from fastprune.kernels.select import mark_smallest
from fastprune.state import State
from fastprune.storage import Storage

Amount = float | Mapping[int, float]
"""The number of a round: one for all layers, or one for each layer that is named."""

Positions = npt.NDArray[np.int64]
"""Where weights stand among the stored ones, ascending."""

SCOPES = ("layer", "global")
CRITERIA = ("magnitude", "random")
LAYER_RATES = ("uniform", "erdos_renyi", "lamp")


class Rule(NamedTuple):
    """A way to read the number of a round.

    `keyword` names the number, `interval` says where it lies. `threshold` maps live weights (float64), their scores and
    the number to the largest score that still goes, or None if none goes; there is no such function for the rule that
    counts.
    """

    keyword: str
    interval: str
    threshold: Callable[[Floats, Floats, float], float | None] | None


def percentile(live: Floats, scores: Floats, q: float) -> float | None:
    """The largest score such that those not above it are at most q percent of all."""
    count = int(Fraction(repr(q)) * scores.size / 100)  # 0.57 percent of 10,000 are 57, but 56.999... in floats
    if count == scores.size:
        return float(scores.max(initial=0))
    order = np.partition(scores, count)
    lowest = order[:count]
    lowest = lowest[lowest < order[count]]  # what equals the first one that stays, stays with it
    return float(lowest.max()) if lowest.size else None


def deviation(live: Floats, scores: Floats, quality: float) -> float:
    """The quality times the standard deviation (Han et al. 2015, section 3)."""
    if live.size == 0:
        return 0.0
    scaled, exponent = to_unit(live)
    return quality * math.ldexp(float(scaled.std()), exponent)


RULES = {
    "sparsity": Rule("sparsity", "[0, 1)", None),
    "percentile": Rule("q", "[0, 100]", percentile),
    "std": Rule("quality", "[0, inf)", deviation),
}


class Selection(NamedTuple):
    """What goes, and why."""

    removed: Positions
    held_back: list[int]  # layers that `min_keep` made keep more than was asked
    thresholds: dict[int, float | None]  # of each layer that was ranked, under a rule that has one


@dataclass(frozen=True)
class Selector:
    """Which weights go; see `fastprune.Pruner`, which checks the fields."""

    criterion: str
    scope: str
    layer_rates: str
    layers: list[int]
    min_keep: int
    seed: int

    def select(self, state: State, rule: str, amount: Amount) -> Selection:
        """Find the live weights that the rule removes."""
        storage = state.storage
        values = state.values[: storage.layout.biases[0]].astype(np.float64)
        scores = np.abs(values)
        live = [low + np.flatnonzero(storage.live[low:high]) for low, high in pairwise(storage.layout.weights)]
        if self.criterion == "random":
            # Drawn for the live weights alone, in their order: the same however layers are stored.
            count = sum(positions.size for positions in live)
            scores[storage.live[: values.size] > 0] = np.random.default_rng([self.seed, count]).random(count)
        # The best of a layer, where some are to stay, are not free to go.
        free = [_lowest(scores, positions, max(0, positions.size - self.min_keep)) for positions in live]
        removed: list[Positions] = [np.empty(0, np.int64)]
        held_back: list[int] = []
        thresholds: dict[int, float | None] = {}

        threshold = RULES[rule].threshold
        if threshold is not None:
            for group, number in self._groups(amount):
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
        else:
            for group, count in self._counts(storage, amount, values, live):
                candidates = _union(free, group)
                removed.append(_lowest(scores, candidates, min(count, candidates.size)))
                if candidates.size < count:
                    held_back += group
        return Selection(np.concatenate(removed), held_back, thresholds)

    def _groups(self, amount: Amount) -> list[tuple[list[int], float]]:
        """Which layers are ranked together, and the number of each such group."""
        if isinstance(amount, Mapping):
            return [([layer], number) for layer, number in amount.items()]
        return [(self.layers, amount)] if self.scope == "global" else [([layer], amount) for layer in self.layers]

    def _counts(
        self, storage: Storage, amount: Amount, values: Floats, live: list[Positions]
    ) -> list[tuple[list[int], int]]:
        """How many weights each group loses for its sparsity."""
        sizes = storage.layer_sizes
        left = [positions.size for positions in live]
        if isinstance(amount, Mapping):
            return [([i], max(0, left[i] - sizes[i] + count_for(sparsity, sizes[i]))) for i, sparsity in amount.items()]
        more = max(0, sum(left) - sum(sizes) + count_for(amount, sum(sizes)))
        if self.scope == "global":
            return [(self.layers, more)]
        caps = [left[i] for i in self.layers]
        total = sum(caps) - more
        if self.layer_rates == "lamp":
            shares = _lamp([values[live[i]] for i in self.layers], total)
        elif self.layer_rates == "erdos_renyi":
            shares = share_out(total, [sum(storage.sizes[i : i + 2]) for i in self.layers], caps)
        else:
            shares = share_out(total, [sizes[i] for i in self.layers], caps)
        return [([layer], cap - share) for layer, cap, share in zip(self.layers, caps, shares, strict=True)]


def count_for(sparsity: float, weights: int) -> int:
    """How many of `weights` weights are pruned at `sparsity`: the nearest whole number, halves upward."""
    return math.floor(sparsity * weights + 0.5)


def to_unit(values: Floats) -> tuple[Floats, int]:
    """Values divided by a power of two, 2**exponent, so that the largest is about 1; and the exponent.

    Squares of float32 weights beyond 1e19 would overflow, and those of weights below 1e-23 vanish. So only what is
    nothing beside the largest can vanish; all other digits stay.
    """
    exponent = int(np.frexp(np.abs(values).max(initial=0))[1])
    return np.ldexp(values, -exponent), exponent


def _lamp(layers: list[Floats], total: int) -> list[int]:
    """Which share of `total` weights each of these layers keeps, if all are ranked together by their LAMP score.

    A weight's score is its square by the sum of the squares that are at least as large in its layer, each weight
    counting once (Lee et al. 2021, equation 2).
    """
    scores = []
    for values in layers:
        squares = np.sort(to_unit(values)[0] ** 2)[::-1]
        scores.append(squares / np.maximum(np.cumsum(squares), np.finfo(float).tiny))
    joined = np.concatenate(scores)
    lost = _lowest(joined, np.arange(joined.size), joined.size - total)
    bounds = np.cumsum([0, *(values.size for values in layers)])
    return [values.size - int(n) for values, n in zip(layers, np.diff(np.searchsorted(lost, bounds)), strict=True)]


def _lowest(scores: Floats, positions: Positions, count: int) -> Positions:
    """Those `count` of `positions` whose scores are lowest, in ascending order; the first of equals."""
    if count == positions.size:
        return positions
    marks = np.empty(positions.size, np.uint8)
    mark_smallest(marks, np.empty(positions.size), scores[positions], count)
    return positions[marks > 0]


def _union(positions: list[Positions], layers: list[int]) -> Positions:
    return np.concatenate([positions[layer] for layer in layers])
