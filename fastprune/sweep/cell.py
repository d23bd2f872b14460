"""The unit of work of a sweep: one round of one cell, a pure function that any process can be given."""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.datasets import Dataset, load_dataset
from fastprune.kernels.layout import Floats
from fastprune.network import MLP
from fastprune.pruner import Pruner
from fastprune.records import Evaluation, RoundRecord, Scores, TrainingWarning
from fastprune.state import State
from fastprune.sweep.config import Settings
from fastprune.trainer import Trainer

Labelled = tuple[Floats, npt.NDArray[Any]]  # samples and their classes


class Record(NamedTuple):
    """What is known of one round; round 0 is the dense network. None is unknown or does not apply.

    README.md says what each field means: they are columns of the results.
    """

    round: int
    requested: float | None
    requested_sparsity: float | None
    sparsity: float
    prunable_sparsity: float
    layer_sparsity: list[float]
    effective_sparsity: float
    compression: float | None
    live: int
    removed: int
    thresholds: list[float | None] | None
    dead_units: list[int]
    execution: list[str]
    before_train_accuracy: float | None
    before_train_loss: float | None
    before_test_accuracy: float | None
    before_test_loss: float | None
    after_train_accuracy: float | None
    after_train_loss: float | None
    after_validation_accuracy: float | None
    after_validation_loss: float | None
    after_test_accuracy: float | None
    after_test_loss: float | None
    fit_learning_rate: float | None
    fit_epochs: int
    failed: bool
    events: list[str]
    seconds: float


_UNKNOWN: dict[str, Any] = dict.fromkeys(Record._fields)


@dataclass(frozen=True)
class Data:
    """What a cell trains on and is measured by, and its key: a digest of all of it."""

    key: str
    features: int
    outputs: int
    train: Labelled
    held_out: Labelled
    test: Labelled

    @classmethod
    def of(cls, data: Dataset, holdout: float) -> "Data":
        """Hold out a part of the training samples: at random, but always the same ones.

        Raises
        ------
        ValueError
            If the labels are not one class a sample, or the part leaves nothing to train on.
        """
        if data.y_train.dtype.kind == "f" or data.y_train.ndim != 1:
            came = "values to meet" if data.y_train.dtype.kind == "f" else f"labels of shape {data.y_train.shape}"
            raise ValueError(f"dataset: expected one class a sample (a whole number), got {came}")
        check.number("holdout", holdout, "(0, 1)")
        order = np.random.default_rng(0).permutation(len(data.x_train))
        count = max(1, round(holdout * order.size))
        if count == order.size:
            raise ValueError(f"holdout: expected to leave samples to train on, got {holdout} of {order.size}")
        parts = [np.sort(order[count:]), np.sort(order[:count])]
        train, held_out = ((data.x_train[part], data.y_train[part]) for part in parts)
        digest = hashlib.sha256()
        for array in (*train, *held_out, data.x_test, data.y_test):
            digest.update(f"{array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).data)
        return cls(digest.hexdigest(), data.features, data.outputs, train, held_out, (data.x_test, data.y_test))


@dataclass(frozen=True)
class Task:
    """A round to be done somewhere: all that it depends on. `data` is None where they are hoped to be there already."""

    settings: Settings
    round: int
    state: bytes | None
    threads: int
    key: str
    data: Data | None = None


@dataclass(frozen=True)
class Source:
    """Where data can be read: a data set's name, its folder, and the part held out."""

    dataset: str
    data_dir: str | None
    holdout: float

    def read(self) -> Data:
        """Read them.

        Raises
        ------
        ValueError
            If there is no such data set, or it is not for classification.
        """
        try:
            dataset = load_dataset(self.dataset, self.data_dir)
        except ValueError as error:
            message = str(error)
            raise ValueError(f"dataset{message[4:]}" if message.startswith("name:") else message) from None
        return Data.of(dataset, self.holdout)


_MOST = 4
_MOST_ROUNDS = 1_000_000
_known: dict[str, Data] = {}  # by key, to this process; the latest last
_sources: dict[str, Source] = {}


def read_here(sources: Mapping[str, Source]) -> None:
    """Let this process read data itself: it is on the machine of whoever sends tasks, who has just read them."""
    _sources.update(sources)


def work(task: Task) -> tuple[bytes, Record] | None:
    """Do a task, in whatever process this is; None, if that process has not been given the data yet.

    So data cross to a worker once, and it needs no disk in common with whoever sends tasks.
    """
    data = task.data or _known.pop(task.key, None)
    if data is None and task.key in _sources:
        data = _sources[task.key].read()
    if data is None or data.key != task.key:
        return None
    _known[task.key] = data
    if len(_known) > _MOST:
        del _known[next(iter(_known))]
    return advance(task.settings, task.round, task.state, data, task.threads)


def leave_it_to_records() -> None:
    """Print no warning of trainings that a sweep makes: its records say the same.

    Filters belong to the process, not to the thread, so this one is for the sweep's own modules only, and it stays.
    """
    warnings.filterwarnings("ignore", category=TrainingWarning, module=r"fastprune\.sweep\.")


def advance(settings: Settings, round: int, state: bytes | None, data: Data, threads: int) -> tuple[bytes, Record]:
    """Make one round of a cell: a pure function, but for the record's seconds.

    Parameters
    ----------
    settings : Settings
        Of the cell.
    round : int
        0 for dense training.
    state : bytes or None
        What the round before returned; None for dense training.
    data : Data
        Of `settings.dataset`.
    threads : int
        To compute with; the result does not depend on it.

    Returns
    -------
    bytes
        The state after the round, see `State.to_bytes`; if the round failed, the one it was given.
    Record

    Raises
    ------
    ValueError
        If a setting is not as the classes it is given to want it.
    DivergenceError
        If dense training diverges.
    """
    leave_it_to_records()
    trainer, pruner = _prepare(settings, network(settings, data))
    trainer.n_jobs = threads
    if state is None:
        history = trainer.fit(*data.train, settings.epochs)
        scores = Scores(history.train, trainer.evaluate(*data.held_out), trainer.evaluate(*data.test))
        return trainer.snapshot().to_bytes(), _dense_record(trainer.network, scores, settings, history.seconds)
    trainer.restore(State.from_bytes(state))
    pruner.round = round - 1
    (record,) = pruner.run(
        *data.train, settings.retrain_epochs, learning_rate=settings.retrain_learning_rate, rounds=1, test=data.test
    )
    # Held-out samples choose the best network, and nothing in training: so they are no `validation` of it.
    held_out = None if record.failed else trainer.evaluate(*data.held_out)
    return trainer.snapshot().to_bytes(), _record(trainer.network, record, held_out)


def network(settings: Settings, data: Data) -> MLP:
    """The network of a cell, before training."""
    sizes = [data.features, *settings.hidden, data.outputs]
    return MLP(sizes, activation=settings.activation, seed=settings.seed)


def saved_network(settings: Settings, state: bytes) -> MLP:
    """The network of a cell in a state that `advance` returned, fit for `MLP.save`."""
    restored = State.from_bytes(state)
    sizes = restored.storage.sizes
    loss = "softmax_cross_entropy" if sizes[-1] > 1 else "sigmoid_cross_entropy"
    network = MLP(sizes, activation=settings.activation, loss=loss)
    Trainer(network, optimizer=settings.optimizer).restore(restored)
    return network


def check_settings(cells: Sequence[Settings], data: Callable[[Settings], Data]) -> None:
    """Refuse settings before anything is run.

    Raises
    ------
    ValueError
        If one is not as described, or not as the classes it is given to want it.
    """
    networks: dict[Any, MLP] = {}  # made once each: that takes longer than all checks
    for cell in {replace(cell, seed=0) for cell in cells}:
        check.integer("rounds", cell.rounds, 1, _MOST_ROUNDS)
        check.number("max_drop", cell.max_drop, "[0, 1]")
        check.integer("epochs", cell.epochs, 0)
        check.integer("retrain_epochs", cell.retrain_epochs, 0)
        check.number("retrain_learning_rate", cell.retrain_learning_rate, "(0, inf)")
        check.integer("batch_size", cell.batch_size, 0)
        check.number("sparsity", cell.final_sparsity, "[0, 1)")
        for units in cell.hidden:
            check.integer("hidden", units, 1)
        shape = data(cell).key, cell.hidden, cell.activation
        if shape not in networks:
            networks[shape] = network(cell, data(cell))
        _prepare(cell, networks[shape])


def _prepare(settings: Settings, network: MLP) -> tuple[Trainer, Pruner]:
    trainer = Trainer(
        network,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        learning_rate_schedule=settings.learning_rate_schedule,
        momentum=settings.momentum,
        l1=settings.l1,
        l2=settings.l2,
        input_dropout=settings.input_dropout,
        dropout=settings.dropout,
        batch_size=settings.batch_size or None,
        seed=settings.seed,
    )
    pruner = Pruner(
        trainer,
        rule=settings.rule,
        schedule=settings.amounts,
        scope=settings.scope,
        ignored_layers=settings.ignored_layers,
        criterion=settings.criterion,
        layer_rates=settings.layer_rates,
        min_keep=settings.min_keep,
        seed=settings.seed,
    )
    return trainer, pruner


def _dense_record(network: MLP, scores: Scores, settings: Settings, seconds: float) -> Record:
    known = {
        "round": 0,
        "sparsity": 0.0,
        "prunable_sparsity": 0.0,
        "layer_sparsity": [0.0] * network.n_layers,
        "effective_sparsity": 0.0,
        "compression": 1.0,
        "live": network.total_weights,
        "removed": 0,
        "dead_units": [0] * (network.n_layers - 1),
        "execution": network.execution,
        "fit_learning_rate": settings.learning_rate,
        "fit_epochs": settings.epochs,
        "failed": False,
        "events": ["collapsed"] if scores.train.collapsed else [],
        "seconds": seconds,
    }
    return Record(**_UNKNOWN | known | _scores("after", scores))


def _record(network: MLP, record: RoundRecord, held_out: Evaluation | None) -> Record:
    """A round's record; a failed one tells of the network that was given up."""
    known = {name: value for name, value in vars(record).items() if name in Record._fields}
    known |= {name: list(value) for name, value in known.items() if isinstance(value, tuple)}
    known |= {
        "compression": network.total_weights / record.live if record.live else None,
        "fit_learning_rate": record.learning_rate,
        "fit_epochs": record.epochs,
        "events": [str(event) for event in record.events],
    }
    known |= _scores("before", record.before)
    if record.after is not None:
        known |= _scores("after", replace(record.after, validation=held_out))
    return Record(**_UNKNOWN | known)


def _scores(when: str, scores: Scores) -> dict[str, Any]:
    """Accuracies and losses, by the names of a record; None where a loss is no number."""
    parts = {which: part for which, part in vars(scores).items() if part is not None}
    return {f"{when}_{which}_accuracy": part.accuracy for which, part in parts.items()} | {
        f"{when}_{which}_loss": part.loss if math.isfinite(part.loss) else None for which, part in parts.items()
    }
