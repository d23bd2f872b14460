"""How a number of weights is shared out among layers, and chosen in one."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fastprune.kernels.layout import Floats, Ints
from fastprune.kernels.select import mark_smallest


def share_out(total: int, weights: Sequence[int], most: Sequence[int]) -> list[int]:
    """Share `total` out in proportion to `weights`, where none gets more than `most`.

    Exact in the sum; each share is within one of the proportion, or at its bound. What the division leaves over goes
    to the largest remainders, the first of equals.
    """
    shares = list(most)
    rest = list(range(len(weights)))
    while True:
        left = total - sum(shares[i] for i in range(len(weights)) if i not in rest)
        weight = sum(weights[i] for i in rest)
        past = [i for i in rest if most[i] * weight < left * weights[i]]
        if not past:
            break
        rest = [i for i in rest if i not in past]
    for i in rest:
        shares[i] = left * weights[i] // weight
    for i in sorted(rest, key=lambda i: -(left * weights[i] % weight))[: total - sum(shares)]:
        shares[i] += 1
    return shares


def erdos_renyi(total: int, sizes: Sequence[int]) -> list[int]:
    """Share `total` live weights out so that a layer's density is in proportion to (n_in + n_out) / (n_in n_out).

    So a unit has about as many live weights in each layer (Mocanu et al. 2018, equation 3). Layers that would have
    more weights than there are have all of them.
    """
    shapes = list(pairwise(sizes))
    ends = [fan_in + fan_out for fan_in, fan_out in shapes]
    return share_out(total, ends, [fan_in * fan_out for fan_in, fan_out in shapes])


def choose(size: int, count: int, rng: np.random.Generator) -> Ints:
    """So many of 0 .. size - 1, ascending, each set as likely as any other; in memory for `count`, not for `size`."""
    if 2 * count > size:
        return np.sort(rng.choice(size, count, replace=False, shuffle=False))
    chosen = np.empty(0, np.int64)
    while chosen.size < count:
        chosen = distinct(np.concatenate([chosen, rng.integers(size, size=count - chosen.size)]))
    return chosen


def distinct(numbers: Ints) -> Ints:
    """Each of these numbers of at least 0 once, ascending.

    As np.unique, which hashes since NumPy 2.3: 4.8 s for four million numbers, and 0.08 to sort them (AMD EPYC).
    """
    numbers = np.sort(numbers)
    return numbers[np.diff(numbers, prepend=-1) > 0]


def lowest(scores: Floats, positions: Ints, count: int) -> Ints:
    """Those `count` of `positions` whose scores are lowest, in ascending order; the first of equals."""
    if count == positions.size:
        return positions
    marks = np.empty(positions.size, np.uint8)
    mark_smallest(marks, np.empty(positions.size), scores[positions], count)
    return positions[marks > 0]
