"""Records of evaluations, epochs and rounds, which print briefly and convert to flat tables."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

Amount = float | Mapping[int, float]
"""The number of a round: one for all layers, or a dict with one for each named layer."""

HELP = "Try a smaller learning rate, features scaled to about 1, or another seed"


class TrainingWarning(UserWarning):
    """Warning about how a training or a run of rounds ended, or about its data."""


class DivergenceError(ArithmeticError):
    """The loss or a weight became NaN or infinite; the network is back in its last finite state.

    Attributes
    ----------
    epoch : int
        Epoch in which this happened, from 1.
    stopped : bool
        Whether the callback had just ended the fit.
    """

    def __init__(self, what: str, value: str, epoch: int, epochs: int, stopped: bool = False) -> None:
        super().__init__(what, value, epoch, epochs, stopped)  # as `args`, so that it can be pickled
        self.epoch, self.stopped = epoch, stopped

    def __str__(self) -> str:
        what, value, epoch, epochs, _ = self.args
        return f"{what} became {value} in epoch {epoch} of {epochs}; the last finite state was restored. {HELP}"


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Loss and accuracy of a network on a set of samples.

    Attributes
    ----------
    loss : float
        Mean loss over the samples, without penalties.
    accuracy : float or None
        Fraction of samples that are right, in [0, 1] (for several sigmoid outputs, right in every output); None for a
        regression.
    collapsed : bool
        Whether the network has learned nothing: it has `one_answer` although labels differ, and its loss is at least
        99 % of the labels' entropy, the best that one answer can reach. For labels between 0 and 1, both are measured
        above the loss that no network can beat.
    one_answer : bool
        Whether the network predicts the same class, or set of classes, for all samples; False for a regression.
    """

    loss: float
    accuracy: float | None
    collapsed: bool
    one_answer: bool

    def __repr__(self) -> str:
        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:.4f}"
        return f"Evaluation(loss {self.loss:.4g}{accuracy}{', collapsed' if self.collapsed else ''})"


@dataclass(frozen=True)
class Epoch:
    """One epoch of training.

    Attributes
    ----------
    epoch : int
        Number of the epoch in this fit, from 1.
    learning_rate : float
        Learning rate of its first step.
    loss : float
        Mean training loss, measured before each batch's update (and with dropout, if any).
    accuracy : float or None
        Training accuracy, measured likewise; None for a regression.
    validation : Evaluation or None
        Evaluation on the held-out set after the epoch.
    """

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float | None
    validation: Evaluation | None


@dataclass(frozen=True, repr=False)
class History:
    """Record of a fit.

    Attributes
    ----------
    epochs : tuple of Epoch
        One record per epoch.
    train : Evaluation
        Evaluation of the final network on the training set, or on 2,048 samples of it; `collapsed` and `one_answer`
        refer to all samples.
    validation : Evaluation or None
        Evaluation of the final network on the held-out set.
    converged : bool
        Whether the loss stopped improving before all epochs were done.
    stopped : bool
        Whether the callback ended the fit.
    restored : bool
        Whether a state before the last was the best and was restored.
    collapsed : bool
        Whether the last state had collapsed on the training set (see `Evaluation`); a restored state may not have.
    seconds : float
        Wall time of the whole fit.
    """

    epochs: tuple[Epoch, ...]
    train: Evaluation
    validation: Evaluation | None
    converged: bool
    stopped: bool
    restored: bool
    collapsed: bool
    seconds: float

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per epoch, for a data frame.

        Examples
        --------
        >>> import fastprune as fp
        >>> history = fp.Trainer(fp.MLP([1, 1])).fit([[0.0], [1.0]], [0.5, 1.5], epochs=2)
        >>> [(row["epoch"], row["learning_rate"]) for row in history.to_dicts()]
        [(1, 0.1), (2, 0.1)]
        """
        return [_flat("", epoch) for epoch in self.epochs]

    def __repr__(self) -> str:
        held_out = "" if self.validation is None else f", validation {self.validation!r}"
        ends = [name for name in ("converged", "stopped", "restored", "collapsed") if getattr(self, name)]
        return (
            f"History({len(self.epochs)} epochs in {self.seconds:.2f} s, train {self.train!r}{held_out}"
            f"{''.join(f', {end}' for end in ends)})"
        )

    def _repr_html_(self) -> str:
        return _table(self.to_dicts())


@dataclass(frozen=True)
class Progress:
    """Argument of a callback.

    Attributes
    ----------
    step, steps : int
        Steps done in this fit, and in total.
    epoch, epochs : int
        Whole epochs done in this fit, and in total.
    loss : float
        Mean loss of the last step's batch.
    train : Epoch or None
        The last whole epoch; None during the first one.
    validation : Evaluation or None
        Evaluation on the held-out set after that epoch.
    epoch_ended : bool
        Whether an epoch has just ended, so that `train` and `validation` are new. Without a held-out set, one call may
        cover several short epochs.
    round, rounds : int or None
        Pruning round, from 1, and number of rounds in the schedule; None for `Trainer.fit`.
    seconds : float
        Time since this fit began.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    train: Epoch | None
    validation: Evaluation | None
    epoch_ended: bool
    seconds: float
    round: int | None = None
    rounds: int | None = None


EventKind = (
    Literal["nothing removed", "kept more than asked", "layer emptied"]  # of a prune
    | Literal["diverged", "collapsed", "restored", "failed", "one answer", "stopped"]  # of its retraining
)


@dataclass(frozen=True)
class Event:
    """Something noteworthy in a prune or a round; `layer` is None if it concerns the whole network.

    Kinds: "nothing removed" (the prune changed no mask), "kept more than asked" (`min_keep` held weights back),
    "layer emptied" (its last live weight was removed), "diverged" and "collapsed" (how an attempt at retraining ended),
    "restored" (the attempt's best state had not collapsed, and was restored), "failed" (both attempts failed, and the
    network is the previous round's), "one answer" (the round counts, but its network predicts the same class for all
    training samples; only its probabilities differ), "stopped" (a callback ended the run with this round).
    """

    kind: EventKind
    layer: int | None = None

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind} (layer {self.layer})"


@dataclass(frozen=True, repr=False)
class PruneRecord:
    """Record of one prune: what was requested and what was done. Sparsities are fractions pruned, without biases.

    Attributes
    ----------
    rule, scope : str
        As given to the pruner; "mask" and "layer" if masks were applied.
    requested : float, dict or None
        Number for the rule: q, quality or sparsity; None if masks were applied.
    requested_sparsity : float or None
        Sparsity of all weights that this number means; None for "std", for numbers by layer, and for masks.
    sparsity : float
        Achieved sparsity of all weights.
    prunable_sparsity : float
        Achieved sparsity of the layers that are not ignored; some programs call it "parameter pruning degree".
    layer_sparsity : tuple of float
        Achieved sparsity of each layer.
    effective_sparsity : float
        Achieved sparsity if weights on no path of live weights from an input to an output also count as pruned.
    dead_units : tuple of int
        Number of units in each hidden layer that are on no such path.
    removed, grown, live : int
        Number of weights that were removed, that were brought back, and that are live afterwards.
    removed_norm : float
        Euclidean norm of the removed weights divided by the norm of all weights before; 0 if these were all 0.
    thresholds : tuple of float or None
        Threshold of each layer: weights whose score (by default their absolute value) is not above it were removed,
        unless `min_keep` held them back. None if there was none: in layers left alone, under the rule "sparsity", and
        if q percent are less than one weight.
    execution : tuple of str
        How each layer is computed from then on: "dense" or "sparse".
    events : tuple of Event
        Anything else noteworthy.
    """

    rule: str
    scope: str
    requested: Amount | None
    requested_sparsity: float | None
    sparsity: float
    prunable_sparsity: float
    layer_sparsity: tuple[float, ...]
    effective_sparsity: float
    dead_units: tuple[int, ...]
    removed: int
    grown: int
    live: int
    removed_norm: float
    thresholds: tuple[float | None, ...]
    execution: tuple[str, ...]
    events: tuple[Event, ...]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._said())})"

    def _said(self) -> list[str]:
        grown = [f"{self.grown:,} grown"] if self.grown else []
        return [f"sparsity {self.sparsity:.4f}", f"{self.live:,} live", *grown, *map(str, self.events)]


@dataclass(frozen=True)
class Scores:
    """Evaluations of one state of the network.

    Attributes
    ----------
    train : Evaluation
        On the training set, or 2,048 samples of it; `collapsed` and `one_answer` refer to all samples.
    validation, test : Evaluation or None
        On the held-out and the test set; None if not given.
    """

    train: Evaluation
    validation: Evaluation | None
    test: Evaluation | None


@dataclass(frozen=True, repr=False)
class RoundRecord(PruneRecord):
    """Record of one round: a prune and the retraining after it.

    Attributes
    ----------
    round : int
        Number of the round, from 1.
    before, after : Scores or None
        Evaluations of the pruned network before and after retraining. `after` is None until the round is over and if
        retraining diverged; in a failed round it describes the last attempt.
    learning_rate : float or None
        Learning rate of the last attempt at retraining, before the schedule's factor; None until the round is over.
    epochs : int
        Epochs of retraining over all attempts; a diverged attempt counts up to the epoch in which it diverged.
    seconds : float
        Wall time of retraining over all attempts.
    failed : bool
        Whether the round was given up and the network is the previous round's.
    """

    round: int
    before: Scores
    after: Scores | None = None
    learning_rate: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    failed: bool = False

    @property
    def done(self) -> bool:
        """Whether the round is over: retrained or given up."""
        return self.after is not None or self.failed

    def _said(self) -> list[str]:
        scores, when = (self.after, "") if self.after else (self.before, " before retraining")
        sets = {name: part for name, part in vars(scores).items() if part is not None}
        said = [
            f"{name} {part.loss:.4g}" if part.accuracy is None else f"{name} accuracy {part.accuracy:.4f}"
            for name, part in sets.items()
        ]
        return [f"round {self.round}", *super()._said(), *(text + when for text in said)]


class PruneHistory(list[RoundRecord]):
    """A list of `RoundRecord`, the rounds of a run.

    Examples
    --------
    >>> import fastprune as fp
    >>> data = fp.load_dataset("digits")
    >>> pruner = fp.Pruner(fp.Trainer(fp.MLP([64, 10])), schedule=[0.5, 0.8])
    >>> rows = pruner.run(data.x_train, data.y_train, epochs=2).to_dicts()
    >>> [(row["round"], row["sparsity"], row["live"]) for row in rows]
    [(1, 0.5, 320), (2, 0.8, 128)]
    """

    def warn(self, stacklevel: int) -> None:
        """Warn the caller of `run` about a failed round or networks with one answer."""
        faults = []
        if self and self[-1].failed:
            record = self[-1]
            ends = ", then ".join(event.kind for event in record.events if event.kind in ("collapsed", "diverged"))
            faults.append(
                f"round {record.round} failed and ended the run: retraining {ends}. The network is as it was before "
                f"this round. {HELP}, or smaller pruning steps"
            )
        rounds = [str(record.round) for record in self if Event("one answer") in record.events]
        if rounds:
            faults.append(
                f"after {'round' if len(rounds) == 1 else 'rounds'} {', '.join(rounds)} the network gives one answer "
                "for all training samples, although its probabilities differ"
            )
        for fault in faults:
            warnings.warn(fault, TrainingWarning, stacklevel=stacklevel)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per round, for a data frame; nested values get keys like `after_test_loss`."""
        return [_flat("", record) for record in self]

    def __repr__(self) -> str:
        return f"[{f',{chr(10)} '.join(map(repr, self))}]"

    def _repr_html_(self) -> str:
        given = next((name for name in ("test", "validation") if self and getattr(self[0].before, name)), "train")
        return _table(self.to_dicts(), ("round", "sparsity", "live", f"before_{given}", f"after_{given}", "events"))


_SETS = {"train", "validation", "test", "after"}  # optional parts; they have no columns if they are None


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Flatten a nested value into one dictionary; names of parts are joined by underscores."""
    if is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, Mapping):
        parts = {str(key): part for key, part in value.items()}
    elif name == "events":
        return {name: ", ".join(map(str, value))}
    elif isinstance(value, tuple):
        parts = {str(index): part for index, part in enumerate(value)}
    else:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, part in parts.items():
        if part is not None or key not in _SETS:
            flat |= _flat(f"{name}_{key}" if name else key, part)
    return flat


def _table(rows: list[dict[str, Any]], begins: Iterable[str] = ("",)) -> str:
    """Format the columns whose names begin with one of `begins` as an HTML table."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(tuple(begins)))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = []
    for row in rows:
        cells = [row.get(name) for name in names]
        shown = ["" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in shown) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
