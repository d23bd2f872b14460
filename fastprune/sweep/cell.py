"""The unit of work of a sweep: one round of one cell, as a pure function that any process can run."""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune import check, coded, kernels
from fastprune.blas import one_blas_thread
from fastprune.datasets import Dataset
from fastprune.kernels.layout import Floats
from fastprune.network import MLP
from fastprune.pruner import Pruner
from fastprune.records import Evaluation, RoundRecord, Scores, TrainingWarning
from fastprune.rounds import ADAPTIVE
from fastprune.schedules import part_of
from fastprune.sharing import MOST_BITS, bits_of_layers, share_weights
from fastprune.state import State
from fastprune.sweep.settings import FIELDS, Settings, key
from fastprune.trainer import Trainer

Labelled = tuple[Floats, npt.NDArray[Any]]  # samples and their classes


class Record(NamedTuple):
    """The record of one round; round 0 is the dense network. None means unknown or not applicable.

    The fields are columns of the results, described in docs/sweeps.md. Files hold them by position: keep their order.
    The defaults are the dense network's.
    """

    round: int = 0
    stage: int = 0
    requested: float | None = None
    requested_sparsity: float | None = None
    sparsity: float = 0.0
    prunable_sparsity: float = 0.0
    layer_sparsity: Sequence[float] = ()
    effective_sparsity: float = 0.0
    compression: float | None = 1.0
    live: int = 0
    removed: int = 0
    grown: int = 0
    thresholds: list[float | None] | None = None
    dead_units: Sequence[int] = ()
    active_units: list[float] | None = None
    sensitivity: list[list[float]] | None = None
    execution: Sequence[str] = ()
    coded_bytes: int | None = None
    before_train_accuracy: float | None = None
    before_train_loss: float | None = None
    before_test_accuracy: float | None = None
    before_test_loss: float | None = None
    after_train_accuracy: float | None = None
    after_train_loss: float | None = None
    after_validation_accuracy: float | None = None
    after_validation_loss: float | None = None
    validation_samples: int = 0
    after_test_accuracy: float | None = None
    after_test_loss: float | None = None
    fit_learning_rate: float | None = None
    fit_epochs: int = 0
    failed: bool = False
    events: Sequence[str] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Data:
    """The training, held-out and test samples of a cell; `key` is a digest of them all."""

    key: str
    features: int
    outputs: int
    train: Labelled
    held_out: Labelled | None
    test: Labelled

    @classmethod
    def of(cls, data: Dataset, holdout: float) -> "Data":
        """Check the labels, and hold out a random part of the training samples, the same every time; none for 0."""
        if data.y_train.dtype.kind == "f" or data.y_train.ndim != 1:
            came = "numbers to predict" if data.y_train.dtype.kind == "f" else f"labels of shape {data.y_train.shape}"
            raise ValueError(f"dataset: expected one class per sample (a whole number), got {came}")
        check.number("holdout", holdout, "[0, 1)")
        order = np.random.default_rng(0).permutation(len(data.x_train))
        count = max(1, round(holdout * order.size)) if holdout else 0
        if count == order.size:
            raise ValueError(f"holdout: expected to leave samples to train on, got {holdout} of {order.size}")
        parts = [np.sort(order[count:]), np.sort(order[:count])]
        train, held_out = ((data.x_train[part], data.y_train[part]) for part in parts)
        test = data.x_test, data.y_test
        digest = hashlib.sha256()
        for array in (*train, *held_out, *test):
            digest.update(f"{array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).data)
        return cls(digest.hexdigest(), data.features, data.outputs, train, held_out if count else None, test)


@dataclass(frozen=True)
class Task:
    """One round to run, with all that it depends on; `data` is None if the worker should already have it."""

    settings: Settings
    round: int
    state: bytes | None
    threads: int
    key: str
    data: Data | None = None


_SCANNED = 5000  # training samples for the sensitivity curves if none are held out
_MOST = 4  # data sets that a worker keeps
_MOST_ROUNDS = 1_000_000
_known: dict[str, Data] = {}  # the data this process has been sent, by key, the most recently used last


def is_compiled() -> bool:
    """Whether the kernels are in the cache; the answer imports all that a round needs."""
    return kernels.is_compiled(kernels.train_steps)


def work(task: Task) -> tuple[bytes, Record] | None:
    """Run a task; return None if this process lacks the data, which each worker is sent only once."""
    data = task.data or _known.pop(task.key, None)
    if data is None or data.key != task.key:
        return None
    _known[task.key] = data
    if len(_known) > _MOST:
        del _known[next(iter(_known))]
    return advance(task.settings, task.round, task.state, data, task.threads)


def advance(settings: Settings, round: int, state: bytes | None, data: Data, threads: int) -> tuple[bytes, Record]:
    """Run one round of a cell, given the state that the round before returned; return the new state and the record.

    Round 0 is dense training, without a state. A failed round returns the state it was given. The result depends on
    nothing but the arguments; only the record's seconds vary. `threads` does not change it either.

    Raises ValueError if a setting is invalid, and DivergenceError if dense training diverges.
    """
    # The records say the same as these warnings. Filters are global to the process: this one is for the sweep's modules
    # only, and it stays.
    warnings.filterwarnings("ignore", category=TrainingWarning, module=r"fastprune\.sweep\.")
    trainer = _trainer(settings.at(round), network(settings, data))
    trainer.n_jobs = threads
    if state is None:
        return _dense(settings, trainer, data)
    stage, number = settings.place(round)
    pruner = _pruner(settings, stage, trainer)
    now, (current, early, unshared) = settings.plan[stage], _unpacked(state)
    current = unshared or current
    trainer.restore(State.from_bytes(current))
    trainer.dense_epochs, pruner.round = settings.epochs, number
    if now.weight_bits:
        share_weights(trainer.network, _bits_of(now, trainer.network), bias_bits=now.bias_bits)
    (record,) = pruner.run(
        *data.train,
        settings.lengths(stage),
        learning_rate=now.retrain_learning_rate,
        restarts=now.restarts,
        rewind_to=State.from_bytes(early) if early and not now.weight_bits else None,
        rounds=1,
        test=data.test,
    )
    # Held-out samples only choose the best network. They must not influence training, so they are not its `validation`.
    held_out = None if record.failed or data.held_out is None else trainer.evaluate(*data.held_out)
    known = _known_of(record, trainer.network, held_out) | {
        "round": round,
        "stage": stage + 1,
        "validation_samples": len(data.held_out[0]) if data.held_out else 0,
        "active_units": active_units(trainer.network, data.test[0]) if round in settings.ends else None,
    }
    if now.weight_bits:
        known["events"] = [event for event in known["events"] if event != "nothing removed"]
    if record.failed:
        return state, Record(**known)
    if now.weight_bits:
        known["coded_bytes"] = len(coded.encode(trainer.network.freeze().state, trainer.network.loss))
    return _packed(trainer.snapshot(), early, current if now.weight_bits else b""), Record(**known)


def _dense(settings: Settings, trainer: Trainer, data: Data) -> tuple[bytes, Record]:
    """Run round 0: train the dense network, and measure how well each layer bears pruning."""
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
    evaluations = Pruner(trainer).sensitivity(x, y).evaluations
    curves: list[list[Any]] = [[point.accuracy for point in curve] for curve in evaluations]
    network = trainer.network
    record = Record(
        layer_sparsity=[0.0] * network.n_layers,
        live=network.total_weights,
        dead_units=[0] * (network.n_layers - 1),
        active_units=active_units(network, data.test[0]),
        validation_samples=len(x) if data.held_out else 0,
        sensitivity=curves,
        execution=network.execution,
        fit_learning_rate=settings.learning_rate,
        fit_epochs=made,
        events=["collapsed"] if scores.train.collapsed else [],
        seconds=seconds,
        **_scores("after", scores),
    )
    return _packed(trainer.snapshot(), early, b""), record


def _packed(state: State, early: bytes, unshared: bytes) -> bytes:
    """Join a state, the early one that rounds rewind to, and the one that the next round goes on from.

    The second is empty if rounds do not rewind; the third, if the next round goes on from the first.
    """
    parts = state.to_bytes(), early, unshared
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _unpacked(packed: bytes) -> list[bytes]:
    parts = []
    while packed:
        end = 8 + int.from_bytes(packed[:8], "little")
        parts.append(packed[8:end])
        packed = packed[end:]
    return parts


def active_units(network: MLP, x: Floats) -> list[float]:
    """Return the mean fraction of nonzero units in each hidden layer over the samples (Han et al. 2015, table 2)."""
    if network.activation != "relu":
        return [1.0] * (network.n_layers - 1)
    active, below = [], np.asarray(x, network.dtype)
    with one_blas_thread():  # more threads would change the last bits
        for weights, biases in zip(network.weights[:-1], network.biases[:-1], strict=True):
            below = np.maximum(below @ weights.T + biases, 0)
            active.append(float(np.mean(below > 0)))
    return active


def network(settings: Settings, data: Data) -> MLP:
    """Build the network of a cell, before training."""
    sizes = [data.features, *settings.hidden, data.outputs]
    return MLP(sizes, **settings.arguments("MLP"), seed=settings.seed)


def saved_network(settings: Settings, state: bytes) -> MLP:
    """Build the network of a cell from a state that `advance` returned, ready for `MLP.save`."""
    restored = State.from_bytes(_unpacked(state)[0])
    sizes = restored.storage.sizes
    loss = "softmax_cross_entropy" if sizes[-1] > 1 else "sigmoid_cross_entropy"
    network = MLP(sizes, activation=settings.activation, loss=loss)
    Trainer(network, optimizer=settings.optimizer).restore(restored)
    return network


def check_settings(cells: Sequence[Settings], data: Callable[[Settings], Data]) -> None:
    """Check all settings before anything runs. Raises ValueError if one is invalid."""
    networks: dict[Any, MLP] = {}  # each is built once: that takes longer than all checks
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
        if all(not now.weight_bits for now in cell.plan) and any(now.bias_bits is not None for now in cell.plan):
            raise ValueError("bias_bits: needs weight_bits")
        for stage, now in enumerate(cell.plan):
            try:
                _check_stage(now, dict(cell.stage[stage]) if cell.stage else {})
                if now.weight_bits:
                    _bits_of(now, networks[shape])
                _pruner(cell, stage, _trainer(now, networks[shape]))
            except ValueError as error:
                raise ValueError(f"{f'stage {stage + 1}, ' if cell.stage else ''}{error}") from None


def _check_stage(now: Settings, own: Mapping[str, Any]) -> None:
    check.integer("rounds", now.rounds, 1, _MOST_ROUNDS)
    if "bias_bits" in own and not now.weight_bits:
        raise ValueError("bias_bits: needs weight_bits")
    if now.weight_bits:
        if now.rounds > 1:
            raise ValueError(f"rounds: expected 1 with weight_bits, got {now.rounds}")
        if idle := [name for name in own if "weight_bits" in FIELDS[name].metadata["only"]]:
            raise ValueError(f"{key(idle[0])}: has no effect beside weight_bits; leave it out")
        if now.bias_bits is not None:
            check.integer("bias_bits", now.bias_bits, 1, MOST_BITS)
    check.integer("retrain_epochs", now.retrain_epochs, 0)
    check.integer("fine_tune_epochs", now.fine_tune_epochs, 0)
    check.number("sparsity", now.final_sparsity, "[0, 1)")
    if now.retrain_learning_rate != ADAPTIVE:
        check.number("retrain_learning_rate", now.retrain_learning_rate, "(0, inf)")
    elif not now.restarts:
        raise ValueError("restarts: expected true with --retrain-learning-rate adaptive, got false")


def _bits_of(now: Settings, network: MLP) -> list[int]:
    bits = now.weight_bits if len(now.weight_bits) > 1 else now.weight_bits * network.n_layers
    return bits_of_layers("weight_bits", bits, network.n_layers)


def _trainer(now: Settings, network: MLP) -> Trainer:
    batch = check.integer("batch_size", now.batch_size, 0)
    return Trainer(network, **now.arguments("Trainer") | {"batch_size": batch or None}, seed=now.seed)


def _pruner(settings: Settings, stage: int, trainer: Trainer) -> Pruner:
    now, (rule, amounts) = settings.plan[stage], settings.amounts(stage)
    given = now.arguments("Pruner") if now.prune and not now.weight_bits else {}
    return Pruner(trainer, rule=rule, schedule=amounts, **given, seed=now.seed)


def _known_of(record: RoundRecord, network: MLP, held_out: Evaluation | None) -> dict[str, Any]:
    """Return the fields of a `Record` that a `RoundRecord` knows; a failed one describes the network it gave up."""
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
    return known


def _scores(when: str, scores: Scores) -> dict[str, Any]:
    """Return accuracies and losses under the names of a record; a loss that is not finite is None."""
    parts = {which: part for which, part in vars(scores).items() if part is not None}
    return {f"{when}_{which}_accuracy": part.accuracy for which, part in parts.items()} | {
        f"{when}_{which}_loss": part.loss if math.isfinite(part.loss) else None for which, part in parts.items()
    }
