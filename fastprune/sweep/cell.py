"""The unit of work of a sweep: one round of one cell, a pure function that any process can be given."""

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.blas import one_blas_thread
from fastprune.datasets import Dataset
from fastprune.kernels.layout import Floats
from fastprune.network import MLP
from fastprune.pruner import Pruner
from fastprune.records import Evaluation, RoundRecord, Scores, TrainingWarning
from fastprune.rounds import ADAPTIVE
from fastprune.schedules import part_of
from fastprune.state import State
from fastprune.sweep.settings import Settings
from fastprune.trainer import Trainer

Labelled = tuple[Floats, npt.NDArray[Any]]  # samples and their classes


class Record(NamedTuple):
    """What is known of one round; round 0 is the dense network. None is unknown or does not apply.

    docs/sweeps.md says what each field means: they are columns of the results.
    """

    round: int
    stage: int
    requested: float | None
    requested_sparsity: float | None
    sparsity: float
    prunable_sparsity: float
    layer_sparsity: list[float]
    effective_sparsity: float
    compression: float | None
    live: int
    removed: int
    grown: int
    thresholds: list[float | None] | None
    dead_units: list[int]
    active_units: list[float] | None
    sensitivity: list[list[float]] | None
    execution: list[str]
    before_train_accuracy: float | None
    before_train_loss: float | None
    before_test_accuracy: float | None
    before_test_loss: float | None
    after_train_accuracy: float | None
    after_train_loss: float | None
    after_validation_accuracy: float | None
    after_validation_loss: float | None
    validation_samples: int
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
    held_out: Labelled | None
    test: Labelled

    @classmethod
    def of(cls, data: Dataset, holdout: float) -> "Data":
        """Hold out a part of the training samples, at random but always the same ones; none if `holdout` is 0.

        Raises ValueError if the labels are not one class a sample, or the part leaves nothing to train on.
        """
        if data.y_train.dtype.kind == "f" or data.y_train.ndim != 1:
            came = "values to meet" if data.y_train.dtype.kind == "f" else f"labels of shape {data.y_train.shape}"
            raise ValueError(f"dataset: expected one class a sample (a whole number), got {came}")
        check.number("holdout", holdout, "[0, 1)")
        order = np.random.default_rng(0).permutation(len(data.x_train))
        count = max(1, round(holdout * order.size)) if holdout else 0
        if count == order.size:
            raise ValueError(f"holdout: expected to leave samples to train on, got {holdout} of {order.size}")
        parts = [np.sort(order[count:]), np.sort(order[:count])]
        train, held_out = ((data.x_train[part], data.y_train[part]) for part in parts)
        digest = hashlib.sha256()
        for array in (*train, *held_out, data.x_test, data.y_test):
            digest.update(f"{array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).data)
        test, outputs = (data.x_test, data.y_test), data.outputs
        return cls(digest.hexdigest(), data.features, outputs, train, held_out if count else None, test)


@dataclass(frozen=True)
class Task:
    """A round to be done somewhere: all that it depends on. `data` is None where they are hoped to be there already."""

    settings: Settings
    round: int
    state: bytes | None
    threads: int
    key: str
    data: Data | None = None


_SCANNED = 5000  # training samples for sensitivity curves, where none are held out
_MOST = 4
_MOST_ROUNDS = 1_000_000
_known: dict[str, Data] = {}  # by key, to this process; the latest last


def work(task: Task) -> tuple[bytes, Record] | None:
    """Do a task, in whatever process this is; None, if that process has not been given the data yet.

    So data cross to a worker once, and it needs no disk in common with whoever sends tasks.
    """
    data = task.data or _known.pop(task.key, None)
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

    Raises ValueError if a setting is not as the classes it is given to want it; DivergenceError if dense training
    diverges.
    """
    leave_it_to_records()
    trainer = _trainer(settings.at(round), network(settings, data))
    trainer.n_jobs = threads
    if state is None:
        return _dense(settings, trainer, data)
    stage, number = settings.place(round)
    pruner = _pruner(settings, stage, trainer)
    now, (current, early) = settings.plan[stage], _unpacked(state)
    trainer.restore(State.from_bytes(current))
    trainer.dense_epochs, pruner.round = settings.epochs, number
    (record,) = pruner.run(
        *data.train,
        settings.lengths(stage),
        learning_rate=now.retrain_learning_rate,
        restarts=now.restarts,
        rewind_to=State.from_bytes(early) if early else None,
        rounds=1,
        test=data.test,
    )
    # Held-out samples choose the best network, and nothing in training: so they are no `validation` of it.
    held_out = None if record.failed or data.held_out is None else trainer.evaluate(*data.held_out)
    known: dict[str, Any] = {"round": round, "stage": stage + 1, "validation_samples": _held(data)}
    if round in settings.ends:
        known["active_units"] = active_units(trainer.network, data.test[0])
    return _packed(trainer.snapshot(), early), _record(trainer.network, record, held_out)._replace(**known)


def _dense(settings: Settings, trainer: Trainer, data: Data) -> tuple[bytes, Record]:
    """Round 0: dense training, and how much each layer of its network can lose."""
    schedule, epochs = trainer.learning_rate_schedule, settings.epochs
    lengths = [epochs] if settings.rewind_to is None else [settings.rewind_to, epochs - settings.rewind_to]
    early, made, seconds = b"", 0, 0.0
    for number, length in enumerate(lengths):
        if number:
            early = trainer.snapshot().to_bytes()
        history = trainer.fit(*data.train, length, learning_rate_schedule=part_of(schedule, lengths, number))
        made, seconds = made + len(history.epochs), seconds + history.seconds
    held_out = None if data.held_out is None else trainer.evaluate(*data.held_out)
    scores = Scores(history.train, held_out, trainer.evaluate(*data.test))
    x, y = data.held_out or [part[:_SCANNED] for part in data.train]
    scan = Pruner(trainer).sensitivity(x, y)
    network = trainer.network
    known = {
        "round": 0,
        "stage": 0,
        "sparsity": 0.0,
        "prunable_sparsity": 0.0,
        "layer_sparsity": [0.0] * network.n_layers,
        "effective_sparsity": 0.0,
        "compression": 1.0,
        "live": network.total_weights,
        "removed": 0,
        "grown": 0,
        "dead_units": [0] * (network.n_layers - 1),
        "active_units": active_units(network, data.test[0]),
        "validation_samples": _held(data),
        "sensitivity": [[point.accuracy for point in curve] for curve in scan.evaluations],
        "execution": network.execution,
        "fit_learning_rate": settings.learning_rate,
        "fit_epochs": made,
        "failed": False,
        "events": ["collapsed"] if scores.train.collapsed else [],
        "seconds": seconds,
    }
    return _packed(trainer.snapshot(), early), Record(**_UNKNOWN | known | _scores("after", scores))


def _held(data: Data) -> int:
    return 0 if data.held_out is None else len(data.held_out[0])


def _packed(state: State, early: bytes) -> bytes:
    """A state, and the bytes of the one to go back to, if there is any."""
    current = state.to_bytes()
    return len(current).to_bytes(8, "little") + current + early


def _unpacked(packed: bytes) -> tuple[bytes, bytes]:
    end = 8 + int.from_bytes(packed[:8], "little")
    return packed[8:end], packed[end:]


def active_units(network: MLP, x: Floats) -> list[float]:
    """Fraction of each hidden layer's units that are not 0, on average over samples (Han et al. 2015, table 2)."""
    if network.activation != "relu":
        return [1.0] * (network.n_layers - 1)
    active, below = [], np.asarray(x, network.dtype)
    with one_blas_thread():  # more would change the last bits
        for weights, biases in zip(network.weights[:-1], network.biases[:-1], strict=True):
            below = np.maximum(below @ weights.T + biases, 0)
            active.append(float(np.mean(below > 0)))
    return active


def network(settings: Settings, data: Data) -> MLP:
    """The network of a cell, before training."""
    sizes = [data.features, *settings.hidden, data.outputs]
    return MLP(sizes, **settings.arguments("MLP"), seed=settings.seed)


def saved_network(settings: Settings, state: bytes) -> MLP:
    """The network of a cell in a state that `advance` returned, fit for `MLP.save`."""
    restored = State.from_bytes(_unpacked(state)[0])
    sizes = restored.storage.sizes
    loss = "softmax_cross_entropy" if sizes[-1] > 1 else "sigmoid_cross_entropy"
    network = MLP(sizes, activation=settings.activation, loss=loss)
    Trainer(network, optimizer=settings.optimizer).restore(restored)
    return network


def check_settings(cells: Sequence[Settings], data: Callable[[Settings], Data]) -> None:
    """Refuse settings before anything is run.

    Raises ValueError if one is not as described, or not as the classes it is given to want it.
    """
    networks: dict[Any, MLP] = {}  # made once each: that takes longer than all checks
    for cell in {replace(cell, seed=0) for cell in cells}:
        check.integer("rounds", cell.last, 1, _MOST_ROUNDS)
        check.number("max_drop", cell.max_drop, "[0, 1]")
        check.integer("epochs", cell.epochs, 0)
        if cell.rewind_to is not None:
            check.integer("rewind_to", cell.rewind_to, 0, cell.epochs)
        for units in cell.hidden:
            check.integer("hidden", units, 1)
        shape = data(cell).key, cell.hidden, cell.activation, cell.initialization
        if shape not in networks:
            networks[shape] = network(cell, data(cell))
        _trainer(cell, networks[shape])
        for stage, now in enumerate(cell.plan):
            try:
                _check_stage(now)
                _pruner(cell, stage, _trainer(now, networks[shape]))
            except ValueError as error:
                raise ValueError(f"{f'stage {stage + 1}, ' if cell.stage else ''}{error}") from None


def _check_stage(now: Settings) -> None:
    check.integer("rounds", now.rounds, 1, _MOST_ROUNDS)
    check.integer("retrain_epochs", now.retrain_epochs, 0)
    check.integer("fine_tune_epochs", now.fine_tune_epochs, 0)
    check.number("sparsity", now.final_sparsity, "[0, 1)")
    if now.retrain_learning_rate != ADAPTIVE:
        check.number("retrain_learning_rate", now.retrain_learning_rate, "(0, inf)")
    elif not now.restarts:
        raise ValueError("restarts: expected true with --retrain-learning-rate adaptive, got false")


def _trainer(now: Settings, network: MLP) -> Trainer:
    batch = check.integer("batch_size", now.batch_size, 0)
    return Trainer(network, **now.arguments("Trainer") | {"batch_size": batch or None}, seed=now.seed)


def _pruner(settings: Settings, stage: int, trainer: Trainer) -> Pruner:
    now, (rule, amounts) = settings.plan[stage], settings.amounts(stage)
    given = now.arguments("Pruner") if now.prune else {}
    return Pruner(trainer, rule=rule, schedule=amounts, **given, seed=now.seed)


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
