"""Rules: what the number of a round means, and the functions that turn it into a threshold."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from fastprune.kernels.layout import Floats


class Rule(NamedTuple):
    """What the number of a round means.

    `keyword` names the number and `interval` bounds it. `threshold` maps live weights (float64), their scores and the
    number to the largest score that is removed, or None if none is; the rule "sparsity", which counts, has no such
    function. `fraction` maps the number to the fraction of live weights it removes, if there is one.
    """

    keyword: str
    interval: str
    threshold: Callable[[Floats, Floats, float], float | None] | None = None
    fraction: Callable[[float], float] | None = None


def percentile(live: Floats, scores: Floats, q: float) -> float | None:
    """Return the largest score such that at most q percent of all scores are not above it."""
    count = int(Fraction(repr(q)) * scores.size / 100)  # 0.57 percent of 10,000 is 57, but 56.999... in floats
    if count == scores.size:
        return float(scores.max(initial=0))
    order = np.partition(scores, count)
    lowest = order[:count]
    lowest = lowest[lowest < order[count]]  # scores equal to the first one that stays also stay
    return float(lowest.max()) if lowest.size else None


def deviation(live: Floats, scores: Floats, quality: float) -> float:
    """Return quality times the standard deviation (Han et al. 2015, section 3)."""
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
    """Number of `weights` weights that are pruned at `sparsity`, rounded to nearest, halves up."""
    return math.floor(sparsity * weights + 0.5)


def to_unit(values: Floats) -> tuple[Floats, int]:
    """Divide values by 2**exponent so that the largest is about 1; return them and the exponent.

    Squares of float32 weights overflow beyond 1e19 and vanish below 1e-23. After scaling, only values that are
    negligible beside the largest can vanish, and no other digits are lost.
    """
    exponent = int(np.frexp(np.abs(values).max(initial=0))[1])
    return np.ldexp(values, -exponent), exponent
