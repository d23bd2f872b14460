"""One seed of a sweep: dense training, then the rounds."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from fastprune import check
from fastprune.datasets import Dataset
from fastprune.network import MLP
from fastprune.pruner import Pruner, RoundRecord, Scores
from fastprune.sweep.config import Config
from fastprune.trainer import LabelledSet, Progress, Trainer


class Observer(Protocol):
    """Whoever is to be told how a seed gets on."""

    def begin(self, seed: int, network: MLP) -> None:
        """A seed begins."""

    def progress(self, progress: Progress) -> None:
        """Training goes on."""

    def dense(self, scores: Scores, seconds: float) -> None:
        """Dense training is over."""

    def round(self, record: RoundRecord) -> None:
        """The network has been pruned (`record.after` is None), or retrained."""


@dataclass(frozen=True)
class Candidate:
    """A network that a seed has come to, with what choosing among them needs."""

    seed: int
    round: int
    accuracy: float  # held out
    network: MLP


@dataclass(frozen=True)
class SeedResult:
    """All of one seed: the dense network's scores, the rounds, and the smallest network that is good enough."""

    seed: int
    dense: Scores
    dense_seconds: float
    rounds: list[RoundRecord]
    best: Candidate


def run_seeds(config: Config, data: Dataset, observer: Observer) -> Iterator[SeedResult]:
    """Run the seeds one after the other.

    Raises
    ------
    ValueError
        If a setting is not as the classes it is given to want it; before anything is trained.
    DivergenceError
        If dense training diverges.
    """
    if data.y_train.dtype.kind == "f":
        raise ValueError("dataset: expected classes as labels (whole numbers), got values to meet")
    check.number("holdout", config.holdout, "(0, 1)")
    check.number("tolerance", config.tolerance, "[0, 1]")
    if not config.seeds:
        raise ValueError("seeds: expected at least one, got none")
    jobs = [(seed, *_prepare(config, data, seed)) for seed in config.seeds]
    return (_run_seed(config, data, seed, trainer, pruner, observer) for seed, trainer, pruner in jobs)


def _prepare(config: Config, data: Dataset, seed: int) -> tuple[Trainer, Pruner]:
    network = MLP([data.features, *config.hidden, data.outputs], activation=config.activation, seed=seed)
    trainer = Trainer(
        network,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        learning_rate_schedule=config.learning_rate_schedule,
        momentum=config.momentum,
        l1=config.l1,
        l2=config.l2,
        dropout=config.dropout,
        batch_size=config.batch_size or None,
        seed=seed,
    )
    pruner = Pruner(
        trainer,
        rule=config.rule,
        schedule=config.schedule,
        scope=config.scope,
        ignored_layers=config.ignored_layers,
        min_keep=config.min_keep,
    )
    check.integer("epochs", config.epochs, 0)
    check.integer("retrain_epochs", config.retrain_epochs, 0)
    check.number("retrain_learning_rate", config.retrain_learning_rate, "(0, inf)")
    return trainer, pruner


def _run_seed(
    config: Config, data: Dataset, seed: int, trainer: Trainer, pruner: Pruner, observer: Observer
) -> SeedResult:
    (x, y), held_out = _hold_out(data, config.holdout, seed)
    test = (data.x_test, data.y_test)
    observer.begin(seed, trainer.network)
    history = trainer.fit(x, y, config.epochs, callback=observer.progress)
    dense = Scores(history.train, trainer.evaluate(*held_out), trainer.evaluate(*test))
    observer.dense(dense, history.seconds)
    best = Candidate(seed, 0, _accuracy(dense), copy.deepcopy(trainer.network))
    rounds: list[RoundRecord] = []

    def on_round(record: RoundRecord) -> None:
        nonlocal best
        observer.round(record)
        if record.after is not None:
            record = replace(record, after=replace(record.after, validation=trainer.evaluate(*held_out)))
            if not record.failed and _accuracy(record.after) >= _accuracy(dense) - config.tolerance:
                best = Candidate(seed, record.round, _accuracy(record.after), copy.deepcopy(trainer.network))
        if record.after is not None or record.failed:
            rounds.append(record)

    pruner.run(
        x,
        y,
        config.retrain_epochs,
        learning_rate=config.retrain_learning_rate,
        test=test,
        callback=observer.progress,
        on_round=on_round,
    )
    return SeedResult(seed, dense, history.seconds, rounds, best)


def _hold_out(data: Dataset, fraction: float, seed: int) -> tuple[LabelledSet, LabelledSet]:
    """The training samples in two sets, drawn by the seed: to train on, and held out."""
    order = np.random.default_rng([seed, len(data.x_train)]).permutation(len(data.x_train))
    count = max(1, round(fraction * order.size))
    if count == order.size:
        raise ValueError(f"holdout: expected to leave samples to train on, got {fraction} of {order.size}")
    train, held_out = np.sort(order[count:]), np.sort(order[:count])
    return (data.x_train[train], data.y_train[train]), (data.x_train[held_out], data.y_train[held_out])


def _accuracy(scores: Scores | None) -> float:
    """Held-out accuracy."""
    assert scores is not None
    assert scores.validation is not None
    assert scores.validation.accuracy is not None
    return scores.validation.accuracy
