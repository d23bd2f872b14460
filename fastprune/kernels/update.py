"""In-place updates of the live parameters; where `live` is 0, all state stays exactly 0."""

import math

from fastprune.kernels.constants import SGD
from fastprune.kernels.jit import inner_kernel, kernel
from fastprune.kernels.layout import Bytes, Floats, Parameters, Team, Update
from fastprune.kernels.team import share

BETA_2, EPSILON = 0.999, 1e-8  # Adam's usual values


@kernel
def sgd_step(
    values: Floats, velocity: Floats, gradient: Floats, live: Bytes, update: Update, l1: float, l2: float, rate: float
) -> None:
    """Gradient descent with momentum (Sutskever et al. 2013, in PyTorch's form); all vectors share one length.

    g = gradient + l2 w + l1 sign(w);  v = momentum v + g;  w -= rate v, with Nesterov rate (g + momentum v).
    """
    dtype = values.dtype.type
    zero, one = dtype(0), dtype(1)
    momentum, l1_, l2_, rate_ = dtype(update.momentum), dtype(l1), dtype(l2), dtype(rate)
    # One expression for Nesterov's step (a g + b v) and the plain step (v) avoids a branch in the loop.
    of_gradient = one if update.nesterov else zero
    of_velocity = momentum if update.nesterov else one
    for p in range(values.size):
        w = values[p]
        sign = (one if w > zero else zero) - (one if w < zero else zero)
        g = gradient[p] + l2_ * w + l1_ * sign
        v = momentum * velocity[p] + g
        step = rate_ * (of_gradient * g + of_velocity * v)
        # A select, not a branch, so that the loop is vectorized.
        velocity[p] = v if live[p] else zero
        values[p] = w - step if live[p] else zero


@kernel
def adam_step(
    values: Floats,
    velocity: Floats,
    square: Floats,
    gradient: Floats,
    live: Bytes,
    beta_1: float,
    l1: float,
    l2: float,
    rate: float,
    step: int,
) -> None:
    """Adam (Kingma and Ba 2015, algorithm 1) with the penalties added to the gradient; `step` counts from 0."""
    dtype = values.dtype.type
    zero, one = dtype(0), dtype(1)
    b1, b2, l1_, l2_ = dtype(beta_1), dtype(BETA_2), dtype(l1), dtype(l2)
    rate_ = dtype(rate / (1 - beta_1 ** (step + 1)))
    correction, epsilon = dtype(1 / (1 - BETA_2 ** (step + 1))), dtype(EPSILON)
    for p in range(values.size):
        w = values[p]
        sign = (one if w > zero else zero) - (one if w < zero else zero)
        g = gradient[p] + l2_ * w + l1_ * sign
        m = b1 * velocity[p] + (one - b1) * g
        s = b2 * square[p] + (one - b2) * g * g
        velocity[p] = m if live[p] else zero
        square[p] = s if live[p] else zero
        values[p] = w - rate_ * m / (math.sqrt(s * correction) + epsilon) if live[p] else zero


@inner_kernel
def share_gradient(parameters: Parameters) -> None:
    """Give each parameter of a group the sum of the group's gradients (Han, Mao, Dally 2016, section 3.3)."""
    groups, gradient, sums = parameters.groups, parameters.gradient, parameters.sums
    sums[:] = 0
    for p in range(groups.size):
        if groups[p] >= 0:
            sums[groups[p]] += gradient[p]
    for p in range(groups.size):
        if groups[p] >= 0:
            gradient[p] = sums[groups[p]]


@inner_kernel
def share_update(parameters: Parameters) -> None:
    """Give each parameter of a group, and what the optimizer keeps of it, the numbers of the group's first.

    An update rounds differently in a vector and in the remainder of a loop. Gradients become 0, because the next step
    does not write those of weights on no path to an output.
    """
    groups, firsts, square = parameters.groups, parameters.firsts, parameters.square
    for p in range(groups.size):
        if groups[p] >= 0:
            first = firsts[groups[p]]
            parameters.gradient[p] = 0
            parameters.values[p], parameters.velocity[p] = parameters.values[first], parameters.velocity[first]
            if square.size > 0:
                square[p] = square[first]


@inner_kernel
def update_range(
    parameters: Parameters, low: int, high: int, decays: bool, update: Update, rate: float, step: int
) -> None:
    """Update the parameters `low` to `high`, which are weights if they decay, else biases."""
    l1, l2 = (update.l1, update.l2) if decays else (0.0, 0.0)
    values, live = parameters.values[low:high], parameters.live[low:high]
    gradient, velocity = parameters.gradient[low:high], parameters.velocity[low:high]
    if update.optimizer == SGD:
        sgd_step(values, velocity, gradient, live, update, l1, l2, rate)
    else:
        adam_step(values, velocity, parameters.square[low:high], gradient, live, update.momentum, l1, l2, rate, step)


@inner_kernel
def update_step(
    parameters: Parameters, first: int, weights: int, update: Update, rate: float, step: int, team: Team
) -> None:
    """Update this thread's share of the parameters from `first` on; those before `weights` decay."""
    for part in range(2):
        begin, end = (first, weights) if part == 0 else (weights, parameters.values.size)
        # Align shares with the start of the part: the compiled loop handles its remainder with other instructions.
        low, high = share(end - begin, 64, team)
        update_range(parameters, begin + low, begin + high, part == 0, update, rate, step)
