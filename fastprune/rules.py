"""How a round's number is read: a table of rules, and the functions that give thresholds."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from fastprune.kernels.layout import Floats


class Rule(NamedTuple):
    """A way to read the number of a round.

    `keyword` names the number, `interval` says where it lies. `threshold` maps live weights (float64), their scores and
    the number to the largest score that still goes, or None if none goes; there is no such function for the rule that
    counts. `fraction` maps the number to the fraction of the live weights that it stands for, if there is one.
    """

    keyword: str
    interval: str
    threshold: Callable[[Floats, Floats, float], float | None] | None = None
    fraction: Callable[[float], float] | None = None


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
    "sparsity": Rule("sparsity", "[0, 1)"),
    "percentile": Rule("q", "[0, 100]", percentile, lambda q: q / 100),
    "std": Rule("quality", "[0, inf)", deviation),
}


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
