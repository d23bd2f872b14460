"""Schedules of pruning and of the learning rate: pure functions of the round and of the progress.

A pruning schedule is a sequence with one number per round: a class of this module, or any list or tuple. The rule (see
`fastprune.Pruner`) decides what the number means: a percentile, a quality or a sparsity.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

import numpy as np

from fastprune import check
from fastprune.kernels.layout import Floats
from fastprune.records import Amount

LearningRates = Callable[[float], float]
"""Maps the fraction of a training that is done, in [0, 1), to a factor on the learning rate."""


class Schedule(Sequence[float]):
    """Base of the schedules: a sequence that computes its items, which are numbers for `rule`."""

    rule: ClassVar[str] = "sparsity"
    rounds: int

    def at(self, round: int) -> float:
        """Return the number of round `round`, 0 <= round < rounds."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.rounds

    @overload
    def __getitem__(self, round: int) -> float: ...

    @overload
    def __getitem__(self, round: slice) -> list[float]: ...

    def __getitem__(self, round: int | slice) -> float | list[float]:
        if isinstance(round, slice):
            return [self.at(i) for i in range(*round.indices(self.rounds))]
        return self.at(range(self.rounds)[round])


@dataclass(frozen=True)
class PercentileRamp(Schedule):
    """A percentile that grows from round to round: q[i+1] = q[i] + delta * i, at most 100.

    Parameters
    ----------
    q : float
        Percentile of the first two rounds, in [0, 100].
    delta : float, default 0.0
        Growth of the step between rounds, at least 0. If 0, all rounds use the same q.
    rounds : int
        Number of rounds.

    Examples
    --------
    >>> from fastprune.schedules import PercentileRamp
    >>> list(PercentileRamp(q=20.0, delta=5.0, rounds=5))
    [20.0, 20.0, 25.0, 35.0, 50.0]
    """

    rule: ClassVar[str] = "percentile"
    q: float
    delta: float = 0.0
    rounds: int = 1

    def __post_init__(self) -> None:
        check.number("q", self.q, "[0, 100]")
        check.number("delta", self.delta, "[0, inf)")
        check.integer("rounds", self.rounds, 1)

    def at(self, round: int) -> float:
        """Return the percentile of round `round`, in closed form."""
        return min(100.0, self.q + self.delta * (round * (round - 1) // 2))


@dataclass(frozen=True)
class ConstantSparsity(Schedule):
    """The same sparsity in each round: the first one prunes, and the others only retrain.

    Parameters
    ----------
    target_sparsity : float
        Fraction of all weights that are pruned, in [0, 1).
    rounds : int, default 1
        Number of rounds.

    Examples
    --------
    >>> from fastprune.schedules import ConstantSparsity
    >>> list(ConstantSparsity(0.9, rounds=2))
    [0.9, 0.9]
    """

    target_sparsity: float
    rounds: int = 1

    def __post_init__(self) -> None:
        check.number("target_sparsity", self.target_sparsity, "[0, 1)")
        check.integer("rounds", self.rounds, 1)

    def at(self, round: int) -> float:
        """Return the target."""
        return self.target_sparsity


@dataclass(frozen=True)
class _Rise(Schedule):
    """Sparsity that rises from one value before the first round to another after the last."""

    initial_sparsity: float
    final_sparsity: float
    rounds: int

    def __post_init__(self) -> None:
        check.number("initial_sparsity", self.initial_sparsity, "[0, 1)")
        check.number("final_sparsity", self.final_sparsity, f"[{float(self.initial_sparsity)}, 1)")
        check.integer("rounds", self.rounds, 1)


@dataclass(frozen=True)
class PolynomialDecay(_Rise):
    """Density that falls as a polynomial, by default a cubic (Zhu and Gupta 2017, equation 1).

    s[i] = final + (initial - final) * (1 - (i + 1) / rounds) ** power: the first round already prunes, and the last one
    reaches `final_sparsity`. Power 1 is linear.

    Parameters
    ----------
    initial_sparsity, final_sparsity : float
        Sparsity before the first round and after the last, 0 <= initial <= final < 1.
    rounds : int
        Number of rounds.
    power : float, default 3.0
        Degree of the polynomial, above 0.

    Examples
    --------
    >>> from fastprune.schedules import PolynomialDecay
    >>> list(PolynomialDecay(0.0, 0.96, rounds=2))
    [0.84, 0.96]
    """

    power: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check.number("power", self.power, "(0, inf)")

    def at(self, round: int) -> float:
        """The sparsity of round `round`."""
        remaining: float = (1 - (round + 1) / self.rounds) ** self.power
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * remaining


@dataclass(frozen=True)
class LinearSparsity(_Rise):
    """Sparsity that grows by the same amount in each round.

    Parameters
    ----------
    initial_sparsity, final_sparsity : float
        Sparsity before the first round and after the last, 0 <= initial <= final < 1.
    rounds : int
        Number of rounds.

    Examples
    --------
    >>> from fastprune.schedules import LinearSparsity
    >>> list(LinearSparsity(0.0, 0.75, rounds=3))
    [0.25, 0.5, 0.75]
    """

    def at(self, round: int) -> float:
        """The sparsity of round `round`."""
        return self.initial_sparsity + (self.final_sparsity - self.initial_sparsity) * (round + 1) / self.rounds


@dataclass(frozen=True)
class GeometricDecay(_Rise):
    """Density that falls by the same factor in each round, so each round prunes the same fraction of live weights.

    Parameters
    ----------
    initial_sparsity, final_sparsity : float
        Sparsity before the first round and after the last, 0 <= initial <= final < 1.
    rounds : int
        Number of rounds.

    Examples
    --------
    >>> from fastprune.schedules import GeometricDecay
    >>> list(GeometricDecay(0.0, 0.9375, rounds=4))
    [0.5, 0.75, 0.875, 0.9375]
    """

    def at(self, round: int) -> float:
        """The sparsity of round `round`."""
        ratio = (1 - self.final_sparsity) / (1 - self.initial_sparsity)
        left: float = ratio ** ((round + 1) / self.rounds)
        return 1 - (1 - self.initial_sparsity) * left


def constant(progress: float) -> float:
    """Constant learning rate: 1."""
    return 1.0


def step(progress: float) -> float:
    """Learning rate divided by 10 at one half and again at three quarters (as in He et al. 2016)."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def linear(progress: float) -> float:
    """Learning rate that falls linearly to 0."""
    return 1 - progress


def cosine(progress: float) -> float:
    """Learning rate that falls to 0 along half a cosine (Loshchilov and Hutter 2017, equation 5, without restarts)."""
    return (1 + math.cos(math.pi * progress)) / 2


LEARNING_RATES: dict[str, LearningRates] = {f.__name__: f for f in (constant, step, linear, cosine)}
"""Learning-rate schedules by name; they are evaluated at each step."""


def learning_rates(name: str, schedule: str | LearningRates) -> LearningRates:
    """Return the schedule of that name, or the callable itself; error messages call the argument `name`."""
    if isinstance(schedule, str):
        return LEARNING_RATES[check.one_of(name, schedule, LEARNING_RATES)]
    function: LearningRates = check.function(
        name, schedule, f"one of {', '.join(map(repr, LEARNING_RATES))}, or a function of the fraction done"
    )
    return function


def rates_of(rate: float, schedule: LearningRates, steps: int) -> Floats:
    """Compute the learning rate of each step."""
    expected = "learning_rate_schedule: expected factors in [0, inf)"
    try:
        values = [schedule(step / steps) for step in range(steps)]
    except TypeError as error:  # it does not take a number
        raise ValueError(f"{expected}, got an error: {error}") from error
    try:
        factors = np.array(values or np.empty(0))
    except ValueError:  # lists of different lengths
        factors = np.empty(0, object)
    if factors.dtype.kind not in "biuf" or factors.shape != (steps,):
        raise ValueError(f"{expected}, got {check.shown(values[0])}")
    with np.errstate(over="ignore"):
        factors = factors.astype(np.float64)
        rates = rate * factors
    bad = factors[~((factors >= 0) & (factors < np.inf))]
    if bad.size:
        raise ValueError(f"{expected}, got {bad[0]:g}")
    if not np.isfinite(rates).all():
        raise ValueError(f"learning_rate: expected a rate that stays finite under the schedule, got {rate:g}")
    return rates


def amounts(name: str, value: Any) -> Sequence[Amount]:
    """Return `value` if it can be a schedule (None is an empty one); error messages call it `name`."""
    if value is None:
        return ()
    value = value.tolist() if isinstance(value, np.ndarray) else value
    try:
        numbers = 0 if isinstance(value, str | Mapping | type) or not hasattr(value, "__getitem__") else len(value)
    except TypeError:  # no length
        numbers = 0
    if not numbers:
        raise ValueError(f"{name}: expected a sequence of at least one number, got {value!r}")
    schedule: Sequence[Amount] = value
    return schedule


def part_of(schedule: LearningRates, lengths: Sequence[int], number: int) -> LearningRates:
    """Return the part of a schedule over several trainings, of so many epochs, that falls to one of them, from 0."""
    done, length, total = sum(lengths[:number]), lengths[number], sum(lengths)
    return lambda progress: schedule((done + length * progress) / total)
