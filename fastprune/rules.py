"""What goes: how a round's number becomes the set of weights to remove. Nothing here changes a network."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune.allocation import share_out
from fastprune.kernels.layout import Floats
from fastprune.kernels.select import mark_smallest, percentile
from fastprune.network import MLP

Amount = float | Mapping[int, float]
"""The number of a round: one for all layers, or one for each layer that is named."""

Positions = npt.NDArray[np.int64]
"""Where weights stand among the stored ones, ascending."""

SCOPES = ("layer", "global")


class Rule(NamedTuple):
    """A way to read the number of a round.

    `keyword` names the number, `interval` says where it lies. `threshold` maps live weights (float64) and the number
    to the largest absolute value that still goes; None for the rule that counts.
    """

    keyword: str
    interval: str
    threshold: Callable[[Floats, float], float] | None


RULES = {
    "sparsity": Rule("sparsity", "[0, 1)", None),
    "percentile": Rule("q", "[0, 100]", lambda live, q: percentile(np.abs(live), q)),
    "std": Rule("quality", "[0, inf)", lambda live, quality: quality * float(live.std()) if live.size else 0.0),
}


class Selection(NamedTuple):
    """The weights that go, and the layers that `min_keep` made keep more than was asked."""

    removed: Positions
    held_back: list[int]


def select(network: MLP, rule: str, amount: Amount, scope: str, layers: list[int], min_keep: int) -> Selection:
    """Find the live weights of `layers` that the rule removes; see `fastprune.Pruner`, which checks the arguments."""
    values = network.values[: network.layout.biases[0]].astype(np.float64)
    magnitudes = np.abs(values)
    live = [low + np.flatnonzero(network.live[low:high]) for low, high in pairwise(network.layout.weights)]
    # The largest of a layer, where some are to stay, are not free to go.
    free = [_smallest(magnitudes, positions, max(0, positions.size - min_keep)) for positions in live]
    removed, held_back = [], []

    threshold = RULES[rule].threshold
    if threshold is not None:
        for group, number in _groups(amount, scope, layers):
            limit = threshold(values[_union(live, group)], number)
            for layer in group:
                goes = free[layer][magnitudes[free[layer]] <= limit]
                removed.append(goes)
                if goes.size < np.count_nonzero(magnitudes[live[layer]] <= limit):
                    held_back.append(layer)
    else:
        for group, count in _counts(network, amount, scope, layers):
            candidates = _union(free, group)
            removed.append(_smallest(magnitudes, candidates, min(count, candidates.size)))
            if candidates.size < count:
                held_back += group
    return Selection(np.concatenate(removed), held_back)


def count_for(sparsity: float, weights: int) -> int:
    """How many of `weights` weights are pruned at `sparsity`: the nearest whole number, halves upward."""
    return math.floor(sparsity * weights + 0.5)


def _groups(amount: Amount, scope: str, layers: list[int]) -> list[tuple[list[int], float]]:
    """Which layers are ranked together, and the number of each such group."""
    if isinstance(amount, Mapping):
        return [([layer], number) for layer, number in amount.items()]
    return [(layers, amount)] if scope == "global" else [([layer], amount) for layer in layers]


def _counts(network: MLP, amount: Amount, scope: str, layers: list[int]) -> list[tuple[list[int], int]]:
    """How many weights each group loses for its sparsity."""
    sizes = network.layer_sizes
    pruned = [size - live for size, live in zip(sizes, network.layer_live_weights, strict=True)]
    if isinstance(amount, Mapping):
        return [([i], max(0, count_for(sparsity, sizes[i]) - pruned[i])) for i, sparsity in amount.items()]
    more = max(0, count_for(amount, sum(sizes)) - sum(pruned))
    if scope == "global":
        return [(layers, more)]
    before = [pruned[i] for i in layers]
    after = share_out(sum(before) + more, [sizes[i] for i in layers], least=before)
    return [([layer], new - old) for layer, new, old in zip(layers, after, before, strict=True)]


def _smallest(scores: Floats, positions: Positions, count: int) -> Positions:
    """Those `count` of `positions` whose scores are smallest, in ascending order; the first of equals."""
    if count == positions.size:
        return positions
    marks = np.empty(positions.size, np.uint8)
    mark_smallest(marks, np.empty(positions.size), scores[positions], count)
    return positions[marks > 0]


def _union(positions: list[Positions], layers: list[int]) -> Positions:
    return np.concatenate([positions[layer] for layer in layers])
