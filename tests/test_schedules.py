"""Schedules: pure functions of the round."""

import itertools
import math

import pytest

from fastprune.schedules import ConstantSparsity, GeometricDecay, LinearSparsity, PercentileRamp, PolynomialDecay


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (PercentileRamp(q=10.0, rounds=3), [10, 10, 10]),
        (PercentileRamp(q=10.0, delta=20.0, rounds=6), [10, 10, 30, 70, 100, 100]),
        (ConstantSparsity(0.9, rounds=2), [0.9, 0.9]),
        (PolynomialDecay(0.0, 0.8, rounds=4), [0.8 * (1 - (3 / 4) ** 3), 0.7, 0.8 * (1 - 1 / 64), 0.8]),
        (PolynomialDecay(0.2, 0.8, rounds=2, power=1), [0.5, 0.8]),
        (LinearSparsity(0.2, 0.8, rounds=2), [0.5, 0.8]),
        (GeometricDecay(0.5, 0.98, rounds=2), [0.9, 0.98]),
    ],
)
def test_values(schedule, expected):
    assert list(schedule) == pytest.approx(expected)
    assert len(schedule) == len(expected)
    assert schedule[-1] == schedule[len(expected) - 1]
    assert schedule[1:] == list(schedule)[1:]
    with pytest.raises(IndexError):
        schedule[len(expected)]


def test_geometric_decay_prunes_one_share_of_the_live_weights():
    densities = [1.0] + [1 - sparsity for sparsity in GeometricDecay(0.0, 0.98, rounds=10)]
    ratios = [after / before for before, after in itertools.pairwise(densities)]
    assert ratios == pytest.approx([0.02**0.1] * 10)


def test_the_ramp_is_the_recurrence():
    q, expected = 2.0, []
    for i in range(12):
        expected.append(q)
        q = min(100.0, q + 1.5 * i)
    assert list(PercentileRamp(q=2.0, delta=1.5, rounds=12)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PercentileRamp(q=101.0), r"q: expected a number in \[0, 100\], got 101.0"),
        (lambda: PercentileRamp(q=20.0, delta=-1.0), "delta: expected a number"),
        (lambda: PercentileRamp(q=20.0, rounds=0), "rounds: expected an integer of at least 1, got 0"),
        (lambda: ConstantSparsity(1.0), r"target_sparsity: expected a number in \[0, 1\), got 1.0"),
        (lambda: PolynomialDecay(0.5, 0.4, 3), r"final_sparsity: expected a number in \[0.5, 1\), got 0.4"),
        (lambda: PolynomialDecay(0.0, math.nan, 3), "final_sparsity: expected a number"),
        (lambda: PolynomialDecay(0.0, 0.9, 3, power=0), "power: expected a number"),
        (lambda: LinearSparsity(-0.1, 0.9, 3), "initial_sparsity: expected a number"),
        (lambda: GeometricDecay(0.0, 0.9, 2.5), "rounds: expected an integer"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
