"""Criteria: functions that score the live weights of a layer. Weights with the lowest scores are removed first."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastprune import check
from fastprune.gradients import MeanGradient
from fastprune.kernels.layout import Floats, Ints
from fastprune.state import State


@dataclass(frozen=True, repr=False)
class Context:
    """Argument of a criterion: one layer.

    Attributes
    ----------
    layer : int
        Index of the layer, from 0.
    values : ndarray of float64 (n,)
        Its live weights.
    rng : numpy.random.Generator
        Generator for random criteria; each layer has its own, seeded by the pruner's `seed`.
    """

    layer: int
    values: Floats
    rng: np.random.Generator
    _state: State
    _mean_gradient: MeanGradient | None

    @property
    def shape(self) -> tuple[int, int]:
        """(fan_out, fan_in)."""
        fan_in, fan_out = self._state.storage.sizes[self.layer : self.layer + 2]
        return fan_out, fan_in

    @property
    def live(self) -> Ints:
        """Ascending positions (n,) of the live weights in the (fan_out, fan_in) array in C order."""
        return self._state.storage.positions(self.layer)

    @property
    def gradient(self) -> Floats:
        """Gradient of the mean loss by each live weight, float64 (n,), on the samples passed to the prune.

        Raises
        ------
        ValueError
            If no samples were passed.
        """
        low, high = self._state.storage.layout.weights[self.layer : self.layer + 2]
        values: Floats = self._needed_gradient().stored.values[low:high].astype(np.float64)
        return values[self._state.storage.live[low:high] > 0]

    @property
    def full_gradient(self) -> Floats:
        """Gradient of the mean loss by every weight, live or not, float64 (fan_out, fan_in).

        It takes the time and memory of the dense network.

        Raises
        ------
        ValueError
            If no samples were passed.
        """
        full = self._needed_gradient().full
        return full.storage.matrix(self.layer, full.values).astype(np.float64)

    def _needed_gradient(self) -> MeanGradient:
        if self._mean_gradient is None:
            raise ValueError("samples: a pair (x, y) is needed to compute gradients: step(..., samples=(x, y))")
        return self._mean_gradient


Criterion = Callable[[Context], Floats]
"""Returns a score for each live weight of a layer, (n,)."""


def magnitude(context: Context) -> Floats:
    """|w| (Han et al. 2015)."""
    return np.abs(context.values)


def random(context: Context) -> Floats:
    """Random scores: the baseline that any criterion should beat."""
    return context.rng.random(context.values.size)


def gradient(context: Context) -> Floats:
    """|w dL/dw|: the first-order change of the loss if the weight is removed (Mozer and Smolensky 1989)."""
    scores: Floats = np.abs(context.values * context.gradient)
    return scores


CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "random": random, "gradient": gradient}


def criterion(name: str, value: Any) -> str | Criterion:
    """Return `value` if it is the name of a criterion or a function of one argument; error messages use `name`."""
    if isinstance(value, str) or not callable(value):
        return check.one_of(name, value, CRITERIA)
    function: Criterion = check.function(name, value, "a function that takes a Context")
    return function


def scores(criterion: str | Criterion, context: Context) -> Floats:
    """Compute the scores by a criterion; the result of a user's function is checked."""
    if isinstance(criterion, str):
        return CRITERIA[criterion](context)
    return check.scores("criterion", criterion(context), context.values.size)
