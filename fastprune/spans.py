"""Spans: runs of training steps in one kernel call each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fastprune import kernels
from fastprune.blas import one_blas_thread
from fastprune.inference import workspace
from fastprune.kernels.constants import ADAM, LANES, SGD
from fastprune.kernels.layout import Floats, Ints, Parameters, Samples, Span, Training, Update
from fastprune.network import LOSSES
from fastprune.state import State
from fastprune.team import Threads

if TYPE_CHECKING:
    from fastprune.trainer import Trainer

OPTIMIZERS = {"sgd": SGD, "adam": ADAM}

# Work of one kernel call, in floating-point operations: 25 to 121 ms with batches of 128 on an AMD EPYC. It must not
# depend on measured time: the ends of spans decide which state can be restored, and must be the same on every run. Fits
# take 1.0 to 1.25 times as long with 2e8, 1.1 to 2.3 with 2e7, and 0.94 to 1.06 with 2e10, at 2 to 13 calls a second.
_SPAN_FLOP = 2e9

# Fixed cost of a step. Without it, 60,000 steps of 8-4-2 (1.1 s) were a single call; with 1e7, spans were so short that
# fits took 1.13 times as long.
_STEP_FLOP = 1e6

# Work of a step that is worth a thread, in floating-point operations. On two threads, steps with less than twice this
# are 0.76 to 1.3 times as fast as on one, with more 1.0 to 1.6 times (LeNet-300-100 and smaller networks, Zen 3).
_THREAD_FLOP = 4e6


def span_length(trainer: Trainer, batch: int, batches: int, every_epoch: bool) -> int:
    """Number of steps in one kernel call: whole epochs, or less than one epoch."""
    span = max(1, int(_SPAN_FLOP / (_flop(trainer.network.state, batch) + _STEP_FLOP)))
    if span < batches:
        return span
    if every_epoch:
        return batches
    most = span if trainer.tolerance is None else min(span, trainer.patience * batches)
    return most // batches * batches


def prepare(
    trainer: Trainer, state: State, samples: Samples, batch: int, loss: str, threads: Threads
) -> Callable[[Floats, Ints, Floats, int], int]:
    """Return a function that runs a span of steps on `state` with the trainer's present settings."""
    layout = state.storage.layout
    space = workspace(np.arange(samples.weights.size), -(-batch // LANES), layout, state.values.dtype, training=True)
    gradient = np.zeros_like(state.values)
    named, firsts, groups = np.unique(state.groups, return_index=True, return_inverse=True)
    unshared = int(named.size > 0 and named[0] < 0)  # the number -1, if it is there, comes first
    parameters = Parameters(
        state.values,
        state.storage.live,
        gradient,
        state.velocity,
        state.square,
        (groups - unshared).astype(np.int32),
        firsts[unshared:],
        np.empty(named.size - unshared),
    )
    update = Update(OPTIMIZERS[trainer.optimizer], trainer.momentum, trainer.nesterov, trainer.l1, trainer.l2)
    training = Training(LOSSES[loss], batch, np.uint64(trainer.seed), update)
    space.keep[:] = _keep(trainer)
    most = max(1, int(_flop(state, batch) / _THREAD_FLOP))

    def run(losses: Floats, hits: Ints, rates: Floats, step: int) -> int:
        span = Span(rates, losses, hits, step, state.updates)
        with one_blas_thread():
            return threads.run(partial(kernels.train_steps, parameters, space, layout, samples, training, span), most)

    return run


def _flop(state: State, batch: int) -> float:
    """Floating-point operations of a step's products: three passes over the stored weights."""
    return 6.0 * float(state.storage.layout.biases[0]) * batch


def _keep(trainer: Trainer) -> Floats:
    """Probability of keeping a unit, for each level; see `Workspace.keep`."""
    density = 1 - np.array(trainer.network.layer_sparsity[:-1])
    hidden = trainer.dropout * (np.sqrt(density) if trainer.scale_dropout else np.ones_like(density))
    return 1 - np.concatenate([[trainer.input_dropout], hidden, [0.0]])
