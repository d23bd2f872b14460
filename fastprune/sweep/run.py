"""One seed of a sweep: dense training, then the rounds."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
        """The network has been pruned, or the round is done."""


@dataclass(frozen=True)
class Candidate:
    """A network that a seed has come to, after so many rounds."""

    seed: int
    round: int
    scores: Scores
    network: MLP


@dataclass
class SeedResult:
    """What a seed has come to so far: dense scores, rounds, and the smallest network that is good enough."""

    seed: int
    dense: Scores
    dense_seconds: float
    best: Candidate
    rounds: list[RoundRecord] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One seed, ready to run: its trainer and pruner, the samples to train on, and the held-out ones."""

    seed: int
    trainer: Trainer
    pruner: Pruner
    train: LabelledSet
    held_out: LabelledSet


def prepare(config: Config, data: Dataset) -> list[Job]:
    """Make a job for each seed.

    Raises
    ------
    ValueError
        If a setting is not as the classes it is given to want it.
    """
    if data.y_train.dtype.kind == "f" or data.y_train.ndim != 1:
        came = "values to meet" if data.y_train.dtype.kind == "f" else f"labels of shape {data.y_train.shape}"
        raise ValueError(f"dataset: expected one class a sample (a whole number), got {came}")
    check.integer("rounds", config.rounds, 1)
    check.number("holdout", config.holdout, "(0, 1)")
    check.number("max_drop", config.max_drop, "[0, 1]")
    check.integer("epochs", config.epochs, 0)
    check.integer("retrain_epochs", config.retrain_epochs, 0)
    check.number("retrain_learning_rate", config.retrain_learning_rate, "(0, inf)")
    check.integer("batch_size", config.batch_size, 0)
    return [_job(config, data, seed) for seed in config.seeds]


def _job(config: Config, data: Dataset, seed: int) -> Job:
    network = MLP([data.features, *config.hidden, data.outputs], activation=config.activation, seed=seed)
    trainer = Trainer(
        network,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        learning_rate_schedule=config.learning_rate_schedule,
        momentum=config.momentum,
        l1=config.l1,
        l2=config.l2,
        input_dropout=config.input_dropout,
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
        criterion=config.criterion,
        layer_rates=config.layer_rates,
        min_keep=config.min_keep,
        seed=seed,
    )
    order = np.random.default_rng([seed, len(data.x_train)]).permutation(len(data.x_train))
    count = max(1, round(config.holdout * order.size))
    if count == order.size:
        raise ValueError(f"holdout: expected to leave samples to train on, got {config.holdout} of {order.size}")
    train, held_out = np.sort(order[count:]), np.sort(order[:count])
    return Job(
        seed,
        trainer,
        pruner,
        (data.x_train[train], data.y_train[train]),
        (data.x_train[held_out], data.y_train[held_out]),
    )


def run(config: Config, job: Job, test: LabelledSet, observer: Observer, keep: Callable[[SeedResult], None]) -> None:
    """Run one seed. `keep` is given its result as soon as there is one; every round is added to it.

    Raises
    ------
    DivergenceError
        If dense training diverges.
    """
    seed, trainer, held_out = job.seed, job.trainer, job.held_out
    observer.begin(seed, trainer.network)
    history = trainer.fit(*job.train, config.epochs, callback=observer.progress)
    dense = Scores(history.train, trainer.evaluate(*held_out), trainer.evaluate(*test))
    observer.dense(dense, history.seconds)
    result = SeedResult(seed, dense, history.seconds, Candidate(seed, 0, dense, copy.deepcopy(trainer.network)))
    keep(result)

    def on_round(record: RoundRecord) -> None:
        if record.after is not None and not record.failed:
            # Held-out samples choose the best network, and nothing in training: so they are no `validation` of it.
            scores = replace(record.after, validation=trainer.evaluate(*held_out))
            record = replace(record, after=scores)
            if accuracy(scores) >= accuracy(dense) - config.max_drop:
                result.best = Candidate(seed, record.round, scores, copy.deepcopy(trainer.network))
        if record.done:
            result.rounds.append(record)
        observer.round(record)

    job.pruner.run(
        *job.train,
        config.retrain_epochs,
        learning_rate=config.retrain_learning_rate,
        test=test,
        callback=observer.progress,
        on_round=on_round,
    )


def best(results: Sequence[SeedResult], max_drop: float) -> Candidate:
    """The smallest of the seeds' best networks that hold up against the best of all dense ones, on held-out samples.

    Each seed's best is no more than `max_drop` below its own dense network; a seed that trained badly has a low bar.
    """
    bar = max(accuracy(result.dense) for result in results) - max_drop
    good = [result.best for result in results if accuracy(result.best.scores) >= bar]
    return min(good, key=lambda c: (c.network.live_weights, -accuracy(c.scores)))


def accuracy(scores: Scores) -> float:
    """Held-out accuracy, in [0, 1]."""
    assert scores.validation is not None
    assert scores.validation.accuracy is not None
    return scores.validation.accuracy
