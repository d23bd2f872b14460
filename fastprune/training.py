"""The training loop: spans of steps in compiled code; between them, evaluation, records and callbacks."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from fastprune import kernels
from fastprune.evaluation import TrainingSet, evaluate, evaluate_training
from fastprune.kernels.layout import Samples
from fastprune.progress import Callback, ends
from fastprune.records import DivergenceError, Epoch, Evaluation, History, Progress
from fastprune.schedules import LearningRates, rates_of
from fastprune.spans import prepare, span_length
from fastprune.state import State
from fastprune.team import Threads

if TYPE_CHECKING:
    from fastprune.trainer import Trainer


class Checkpoint(NamedTuple):
    """A state that a training can go back to, and its evaluation."""

    state: State
    evaluation: Evaluation


class Convergence:
    """`reached` once the loss has not fallen by more than `tolerance` for `patience` epochs."""

    def __init__(self, tolerance: float | None, patience: int) -> None:
        self._tolerance, self._patience = tolerance, patience
        self._target, self._stale = math.inf, 0
        self.reached = False

    def add(self, loss: float) -> None:
        """Add the loss of one more epoch."""
        improved = loss < self._target - (self._tolerance or 0.0)
        self._target, self._stale = (loss, 0) if improved else (self._target, self._stale + 1)
        self.reached = self.reached or (self._tolerance is not None and self._stale >= self._patience)


def fault_of(state: State, evaluation: Evaluation) -> tuple[str, str] | None:
    """Return what is not finite and its value, or None. A weight can be infinite while the loss is finite."""
    if not math.isfinite(evaluation.loss):
        return "the loss", str(evaluation.loss)
    if not all(kernels.all_finite(vector) for vector in state.vectors):
        return "a weight or its optimizer state", "infinite or NaN"
    return None


def train(
    trainer: Trainer,
    data: TrainingSet,
    loss: str,
    epochs: int,
    learning_rate: float,
    schedule: LearningRates,
    held_out: Samples | None,
    callback: Callback | None,
    known: Evaluation | None = None,
) -> History:
    """Run `Trainer.fit` on checked samples, without its warnings.

    `known` is the present network's evaluation on the samples by which states are compared, if already computed.
    """
    trainer._check_nesterov()
    network, samples = trainer.network, data.samples
    count = samples.weights.size
    batch = count if trainer.batch_size is None else min(trainer.batch_size, count)
    batches = -(-count // batch)
    steps = epochs * batches
    rates = rates_of(learning_rate, schedule, steps)
    started = time.perf_counter()

    with Threads(trainer.n_jobs) as threads:
        span = span_length(trainer, batch, batches, held_out is not None)
        losses, hits = np.empty(steps), np.empty(steps, np.int64)
        watched = held_out or data.watched  # the samples by which states are compared
        start = trainer.snapshot()
        last = best = Checkpoint(start, known or evaluate(start, watched, loss, threads))
        if fault := fault_of(*last):
            what, value = fault
            raise ValueError(f"network: {what} is {value} before training; check the weights, and scale the features")
        dense = network.state.storage.same_live(trainer._whole)
        state = trainer._state()
        run = prepare(trainer, state, samples, batch, loss, threads)
        convergence = Convergence(trainer.tolerance, trainer.patience)
        records: list[Epoch] = []
        step, stopped = 0, False

        def diverge(what: str, value: str, at: int) -> NoReturn:
            network.state = last.state
            raise DivergenceError(what, value, at // batches + 1, epochs, stopped)

        def compare() -> Evaluation:
            nonlocal last, best
            now = evaluate(network.state, watched, loss, threads)
            if fault := fault_of(network.state, now):
                diverge(*fault, step - 1)
            last = Checkpoint(network.state.copy(), now)
            if not best.evaluation.loss <= now.loss:
                best = last
            return now

        network.loss = loss
        while step < steps and not convergence.reached and not stopped:
            # Whole epochs or part of one, never the end of one epoch and the start of the next.
            stop = min(step + span, steps if span >= batches else (step // batches + 1) * batches)
            network.state = state  # from now on it belongs to this trainer
            done = run(losses[step:stop], hits[step:stop], rates[step:stop], step)
            if step + done < stop:
                diverge("the loss", str(losses[step + done]), step + done)
            if dense:
                trainer.dense_epochs += stop // batches - step // batches
            step = stop
            ended = step % batches == 0
            if ended:
                now = compare()
                for epoch in range(len(records), step // batches):
                    part = slice(epoch * batches, (epoch + 1) * batches)
                    mean = float(losses[part].sum() / count)
                    accuracy = None if loss == "mean_squared_error" else float(hits[part].sum() / count)
                    validated = None if held_out is None else now
                    records.append(Epoch(epoch + 1, float(rates[part.start]), mean, accuracy, validated))
                    convergence.add(mean if validated is None else validated.loss)
            if callback is not None:
                size = count - (batches - 1) * batch if ended else batch
                latest = records[-1] if records else None
                told = Progress(
                    step=step,
                    steps=steps,
                    epoch=step // batches,
                    epochs=epochs,
                    loss=float(losses[step - 1] / size),
                    train=latest,
                    validation=None if latest is None else latest.validation,
                    epoch_ended=ended,
                    seconds=time.perf_counter() - started,
                )
                updates = state.updates[0]
                stopped = ends(callback(told))
                if network.state is not state or state.updates[0] != updates:
                    raise RuntimeError("the callback pruned, restored or trained the network during its training")
        if step % batches:
            compare()

        def train_of(known: Evaluation) -> Evaluation:
            return evaluate_training(network.state, data, loss, threads, None if held_out else known)

        of_train = train_of(last.evaluation)
        collapsed = of_train.collapsed
        if restored := trainer.restore_best and best.evaluation.loss < last.evaluation.loss:
            network.state = best.state
            of_train = train_of(best.evaluation)
    return History(
        epochs=tuple(records),
        train=of_train,
        validation=None if held_out is None else (best if restored else last).evaluation,
        converged=convergence.reached,
        stopped=stopped,
        restored=restored,
        collapsed=collapsed,
        seconds=time.perf_counter() - started,
    )
