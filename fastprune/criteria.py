"""What a weight is worth: functions that score the live weights of a layer. The lowest scores go first."""

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
    """What a criterion is told of one layer.

    Attributes
    ----------
    layer : int
        Its number, from 0.
    values : ndarray of float64 (n,)
        Its live weights.
    rng : numpy.random.Generator
        For criteria that draw lots: the layer's own, seeded by the pruner's `seed`.
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
        """Where the live weights stand in the (fan_out, fan_in) array, counted in C order, ascending: (n,)."""
        return self._state.storage.positions(self.layer)

    @property
    def gradient(self) -> Floats:
        """Of the mean loss by each live weight, float64 (n,), over the samples that the prune is given.

        Raises
        ------
        ValueError
            If it is given none.
        """
        low, high = self._state.storage.layout.weights[self.layer : self.layer + 2]
        values: Floats = self._needed_gradient().stored.values[low:high].astype(np.float64)
        return values[self._state.storage.live[low:high] > 0]

    @property
    def full_gradient(self) -> Floats:
        """Of the mean loss by every weight, live or not, float64 (fan_out, fan_in).

        It takes the time and memory of the dense network.

        Raises
        ------
        ValueError
            If the prune is given no samples.
        """
        full = self._needed_gradient().full
        return full.storage.matrix(self.layer, full.values).astype(np.float64)

    def _needed_gradient(self) -> MeanGradient:
        if self._mean_gradient is None:
            raise ValueError("samples: expected a pair (x, y) to compute gradients by: step(..., samples=(x, y))")
        return self._mean_gradient


Criterion = Callable[[Context], Floats]
"""Gives a score (n,) to each of a layer's live weights."""


def magnitude(context: Context) -> Floats:
    """|w| (Han et al. 2015)."""
    return np.abs(context.values)


def random(context: Context) -> Floats:
    """Lots: the baseline that a criterion has to beat."""
    return context.rng.random(context.values.size)


def gradient(context: Context) -> Floats:
    """|w dL/dw|: to first order, what the loss changes by if the weight goes (Mozer and Smolensky 1989)."""
    scores: Floats = np.abs(context.values * context.gradient)
    return scores


CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "random": random, "gradient": gradient}


def criterion(name: str, value: Any) -> str | Criterion:
    """`value`, if it is the name of a criterion or can be one; errors call it `name`."""
    if isinstance(value, str) or not callable(value):
        return check.one_of(name, value, CRITERIA)
    function: Criterion = check.function(name, value, "a function of a Context")
    return function


def scores(criterion: str | Criterion, context: Context) -> Floats:
    """The scores by a criterion of the table, or by a user's own, which is checked."""
    if isinstance(criterion, str):
        return CRITERIA[criterion](context)
    return check.scores("criterion", criterion(context), context.values.size)
