"""Spans of training steps, each one call of the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fastprune.blas import one_blas_thread
from fastprune.inference import workspace
from fastprune.kernels.layout import Floats, Ints, Parameters, Samples, Span, Team, Training, Update
from fastprune.kernels.steps import train_steps
from fastprune.kernels.tile import LANES
from fastprune.kernels.update import ADAM, SGD
from fastprune.network import LOSSES
from fastprune.state import State
from fastprune.team import Threads

if TYPE_CHECKING:
    from fastprune.trainer import Trainer

OPTIMIZERS = {"sgd": SGD, "adam": ADAM}

# Work of one kernel call, in floating-point operations: with batches of 128, 25 to 121 ms on an AMD EPYC. A fixed
# number, never a measured time: where a span ends decides which state can be restored, the same on every run. Whole
# fits take 1.0 to 1.25 times as long with 2e8, 1.1 to 2.3 with 2e7, and 0.94 to 1.06 with 2e10, 2 to 13 calls a second.
_SPAN_FLOP = 2e9

# What a step costs besides its products. Without it, 60,000 steps of 8-4-2 (1.1 s) were one call; with 1e7, spans were
# so short that they took 1.13 times as long.
_STEP_FLOP = 1e6


def span_length(trainer: Trainer, batch: int, batches: int, every_epoch: bool) -> int:
    """Steps of one kernel call: a multiple of the epoch's batches, or fewer than these."""
    weights = trainer.network.state.storage.layout.biases[0]
    span = max(1, int(_SPAN_FLOP / (6 * weights * batch + _STEP_FLOP)))
    if span < batches:
        return span
    if every_epoch:
        return batches
    most = span if trainer.tolerance is None else min(span, trainer.patience * batches)
    return most // batches * batches


def prepare(
    trainer: Trainer, state: State, samples: Samples, batch: int, loss: str, threads: Threads
) -> Callable[[Floats, Ints, Floats, int], int]:
    """What makes a span of steps on a state, with a trainer's settings as they are now."""
    layout = state.storage.layout
    space = workspace(np.arange(len(samples.x)), -(-batch // LANES), layout, state.values.dtype, training=True)
    gradient = np.zeros_like(state.values)
    parameters = Parameters(state.values, state.storage.live, gradient, state.velocity, state.square)
    update = Update(OPTIMIZERS[trainer.optimizer], trainer.momentum, trainer.nesterov, trainer.l1, trainer.l2)
    training = Training(LOSSES[loss], batch, np.uint64(trainer.seed), update)
    space.keep[:] = _keep(trainer)

    def run(losses: Floats, hits: Ints, rates: Floats, step: int) -> int:
        span = Span(rates, losses, hits, step, state.updates)

        def call(team: Team) -> int:
            return train_steps(parameters, space, layout, samples, training, span, team)

        with one_blas_thread():
            return threads.run(call)

    return run


def _keep(trainer: Trainer) -> Floats:
    """The probability with which each level's units are kept; see `Workspace.keep`."""
    density = 1 - np.array(trainer.network.layer_sparsity[:-1])
    hidden = trainer.dropout * (np.sqrt(density) if trainer.scale_dropout else np.ones_like(density))
    return 1 - np.concatenate([[trainer.input_dropout], hidden, [0.0]])
