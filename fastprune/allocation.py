"""How a number of weights is divided among layers, and how weights are chosen in a layer."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fastprune import kernels
from fastprune.kernels.layout import Floats, Ints


def share_out(total: int, weights: Sequence[int], most: Sequence[int]) -> list[int]:
    """Divide `total` in proportion to `weights`; no share exceeds its entry in `most`.

    The shares add up to `total`; each is within one of its proportion, or at its bound. Units left over by the division
    go to the largest remainders, the first among equals.
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
    """Divide `total` live weights so that a layer's density is proportional to (n_in + n_out) / (n_in n_out).

    Units then have about the same number of live weights in every layer (Mocanu et al. 2018, equation 3). A layer that
    would get more weights than it has gets all of them.
    """
    shapes = list(pairwise(sizes))
    ends = [fan_in + fan_out for fan_in, fan_out in shapes]
    return share_out(total, ends, [fan_in * fan_out for fan_in, fan_out in shapes])


def choose(size: int, count: int, rng: np.random.Generator) -> Ints:
    """Draw `count` distinct numbers of 0 .. size - 1 uniformly, ascending; memory is O(count), not O(size)."""
    if 2 * count > size:
        return np.sort(rng.choice(size, count, replace=False, shuffle=False))
    chosen = np.empty(0, np.int64)
    while chosen.size < count:
        chosen = distinct(np.concatenate([chosen, rng.integers(size, size=count - chosen.size)]))
    return chosen


def distinct(numbers: Ints) -> Ints:
    """Return the distinct values of numbers of at least 0, ascending.

    np.unique hashes since NumPy 2.3: it takes 4.8 s for four million numbers, sorting takes 0.08 s (AMD EPYC).
    """
    numbers = np.sort(numbers)
    return numbers[np.diff(numbers, prepend=-1) > 0]


def lowest(scores: Floats, positions: Ints, count: int) -> Ints:
    """Return the `count` positions with the lowest scores (the first among equals), in ascending order."""
    if count == positions.size:
        return positions
    marks = np.empty(positions.size, np.uint8)
    kernels.mark_smallest(marks, np.empty(positions.size), scores[positions], count)
    return positions[marks > 0]
