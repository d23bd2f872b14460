"""The loop of rounds: prune, retrain, and go back if retraining fails."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fastprune.evaluation import TrainingSet, evaluate, evaluate_training, labels_differ
from fastprune.gradients import MeanGradient
from fastprune.kernels.layout import Floats, Samples
from fastprune.progress import Callback, ends
from fastprune.records import (
    Amount,
    DivergenceError,
    Evaluation,
    Event,
    History,
    Progress,
    PruneHistory,
    PruneRecord,
    RoundRecord,
    Scores,
)
from fastprune.rules import RULES, to_unit
from fastprune.schedules import LearningRates, part_of
from fastprune.selection import Selection
from fastprune.state import State
from fastprune.team import Threads
from fastprune.training import train

if TYPE_CHECKING:
    from fastprune.pruner import Pruner

OnRound = Callable[[RoundRecord], bool | None]
"""Called by `run` with the record of a round; returning True ends the run."""

ADAPTIVE = "adaptive"
RETRY = 0.1  # factor on the learning rate for the second attempt at retraining


@dataclass(frozen=True)
class Plan:
    """The arguments of `Pruner.run`, which checks them."""

    data: TrainingSet
    loss: str
    validation: Samples | None
    test: Samples | None
    epochs: list[int]  # of each round of the schedule
    stop: int  # the first round not to run
    learning_rate: float | None  # None: adaptive
    schedule: LearningRates
    restarts: bool
    rewind_to: State | None
    on_round: OnRound | None


def run_rounds(pruner: Pruner, plan: Plan, callback: Callback | None) -> PruneHistory:
    """Prune and retrain for each remaining number of the schedule."""
    trainer, network = pruner.trainer, pruner.trainer.network
    history = PruneHistory()

    def scores(fit: History | None = None) -> Scores:
        """Evaluate the present network, reusing the evaluations of a fit that has just ended."""
        with Threads(trainer.n_jobs) as threads:

            def of(samples: Samples | None) -> Evaluation | None:
                return None if samples is None else evaluate(network.state, samples, plan.loss, threads)

            if fit is not None:
                return Scores(fit.train, fit.validation, of(plan.test))
            train = evaluate_training(network.state, plan.data, plan.loss, threads)
            return Scores(train, of(plan.validation), of(plan.test))

    def told(progress: Progress) -> bool | None:
        assert callback is not None
        return callback(replace(progress, round=pruner.round, rounds=len(pruner.schedule)))

    ended = False
    while pruner.round < plan.stop and not ended:
        number, back = pruner.round, goes_back_to(pruner, network.state.copy())
        try:
            pruned = pruner._next(MeanGradient(network.state, "x", plan.data.watched, plan.loss, trainer.n_jobs))
            if plan.rewind_to is not None:
                network.state = trainer._rewound("rewind_to", plan.rewind_to)
            rate, length = plan.learning_rate, plan.epochs[number]
            if rate is None:
                rate = trainer.learning_rate * _adapted(pruned, length, trainer.dense_epochs)
            record = RoundRecord(**vars(pruned), round=pruner.round, before=scores())
            stopped = plan.on_round is not None and ends(plan.on_round(record))
            fit = functools.partial(
                train,
                trainer,
                plan.data,
                plan.loss,
                length,
                schedule=plan.schedule if plan.restarts else part_of(plan.schedule, plan.epochs, number),
                held_out=plan.validation,
                callback=callback and told,
            )
            record = _retrain(pruner, record, fit, rate, scores)
            if record.failed:
                back()
            elif record.after and record.after.train.one_answer and labels_differ(plan.data.samples):
                record = replace(record, events=(*record.events, Event("one answer")))
            record = _stopped(record) if stopped else record
            if plan.on_round is not None and ends(plan.on_round(record)):
                record = _stopped(record)
        except BaseException:
            back()
            raise
        history.append(record)
        ended = record.failed or Event("stopped") in record.events
    return history


def goes_back_to(pruner: Pruner, state: State) -> Callable[[], None]:
    """Return a function that puts the network back in `state` and the pruner in its present round.

    A second Ctrl-C cannot interrupt it: Python handles signals between calls, not between stores in plain dictionaries.
    """
    network, of_pruner = vars(pruner.trainer.network), vars(pruner)
    number, loss = pruner.round, pruner.trainer.network.loss

    def back() -> None:
        network["state"], network["loss"], of_pruner["round"] = state, loss, number

    return back


def _stopped(record: RoundRecord) -> RoundRecord:
    """Return the record with the event "stopped"."""
    event = Event("stopped")
    return record if event in record.events else replace(record, events=(*record.events, event))


def _retrain(
    pruner: Pruner, record: RoundRecord, fit: Callable[..., History], rate: float, scores: Callable[[History], Scores]
) -> RoundRecord:
    """Return the record of a round after one or two attempts at retraining."""
    network = pruner.trainer.network
    pruned, known = network.state.copy(), record.before.validation or record.before.train
    record = _attempt(record, functools.partial(fit, known=known), rate, scores)
    if record.failed and Event("stopped") not in record.events:
        if record.events[-1].kind != "restored":
            network.state = pruned
        record = _attempt(record, fit, rate * RETRY, scores)
    return replace(record, events=(*record.events, Event("failed"))) if record.failed else record


def _attempt(
    record: RoundRecord, fit: Callable[..., History], rate: float, scores: Callable[[History], Scores]
) -> RoundRecord:
    """Return the record after one attempt at retraining; `failed` if it ended collapsed or diverged."""
    started = time.perf_counter()
    try:
        history = fit(learning_rate=rate)
    except DivergenceError as error:
        after, made, stopped, events = None, error.epoch, error.stopped, [Event("diverged")]
        seconds = time.perf_counter() - started
    else:
        after, made, stopped, events = scores(history), len(history.epochs), history.stopped, []
        seconds = history.seconds
        if history.collapsed or history.train.collapsed:
            events = [Event("collapsed")] if history.train.collapsed else [Event("collapsed"), Event("restored")]
    return replace(
        record,
        after=after,
        learning_rate=rate,
        epochs=record.epochs + made,
        seconds=record.seconds + seconds,
        failed=bool(events),
        events=(*record.events, *events, *([Event("stopped")] if stopped else [])),
    )


def prune(pruner: Pruner, selection: Selection, rule: str, scope: str, requested: Amount | None) -> PruneRecord:
    """Remove and bring back the selected weights; return the record."""
    network, state, layers = pruner.trainer.network, pruner.trainer.network.state, pruner.prunable_layers
    pruned = selection.apply(state)
    before, after, sizes = network.layer_live_weights, pruned.storage.layer_live_weights, network.layer_total_weights
    total, removed = network.total_weights, selection.removed

    events = [] if removed.size or selection.grown else [Event("nothing removed")]
    events += [Event("kept more than asked", layer) for layer in selection.held_back]
    emptied = [layer for layer, live in enumerate(after) if live == 0 < before[layer]]
    events += [Event("layer emptied", layer) for layer in emptied]
    paths = pruned.storage.paths()
    prunable, live = sum(sizes[layer] for layer in layers), sum(after[layer] for layer in layers)
    weights = state.values[: state.storage.layout.biases[0]]
    record = PruneRecord(
        rule=rule,
        scope=scope,
        requested=requested,
        requested_sparsity=_requested_sparsity(rule, requested, before, layers, total),
        sparsity=(total - sum(after)) / total,
        prunable_sparsity=(prunable - live) / prunable if prunable else 0.0,
        layer_sparsity=tuple((size - left) / size for size, left in zip(sizes, after, strict=True)),
        effective_sparsity=(total - paths.weights) / total,
        dead_units=tuple(paths.dead_units),
        removed=int(removed.size),
        grown=sum(positions.size for positions in selection.grown.values()),
        live=sum(after),
        removed_norm=_norm_ratio(weights[removed], weights),
        thresholds=tuple(selection.thresholds.get(layer) for layer in range(network.n_layers)),
        execution=tuple(pruned.storage.runs),
        events=tuple(events),
    )
    network.state = pruned
    return record


def _requested_sparsity(
    rule: str, requested: Amount | None, live: list[int], layers: list[int], total: int
) -> float | None:
    """Return the sparsity of all weights that a number means, or None if it means none."""
    if requested is None or isinstance(requested, Mapping):
        return None
    if rule == "sparsity":
        return requested
    fraction = RULES[rule].fraction
    if fraction is None:
        return None
    asked = fraction(requested) * sum(live[layer] for layer in layers)
    return 1 - (sum(live) - asked) / total


def _norm_ratio(part: Floats, whole: Floats) -> float:
    """Euclidean norm of `part` divided by that of `whole`, or 0 if that is 0; squares cannot overflow."""
    (part, of_part), (whole, of_whole) = to_unit(part), to_unit(whole)
    norm = float(np.linalg.norm(whole))
    return math.ldexp(float(np.linalg.norm(part)) / norm, of_part - of_whole) if norm else 0.0


def _adapted(record: PruneRecord, epochs: int, dense_epochs: int) -> float:
    """Return the adaptive factor on the learning rate for so many epochs of retraining; see `Pruner.run`."""
    went = record.removed / (record.removed - record.grown + record.live) if record.removed else 1.0
    share = epochs / dense_epochs if dense_epochs and epochs else 1.0
    return min(1.0, max(share, record.removed_norm / math.sqrt(went)))
