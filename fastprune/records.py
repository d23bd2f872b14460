"""What happened: evaluations, epochs, rounds. Short to print, and flat as a table."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

Amount = float | Mapping[int, float]
"""The number of a round: one for all layers, or one for each layer that is named."""

HELP = "A smaller learning rate helps, or features scaled to about 1, or another seed"


class TrainingWarning(UserWarning):
    """What a person should know of a training that has come to its end."""


class DivergenceError(ArithmeticError):
    """The loss, or a weight, became NaN or infinite; the network is back in the last state in which all was finite.

    Attributes
    ----------
    epoch : int
        The epoch in which it did, from 1.
    stopped : bool
        Whether the callback had just ended the fit.
    """

    def __init__(self, what: str, value: str, epoch: int, epochs: int, stopped: bool = False) -> None:
        super().__init__(what, value, epoch, epochs, stopped)  # as `args`, so that it comes whole from another process
        self.epoch, self.stopped = epoch, stopped

    def __str__(self) -> str:
        what, value, epoch, epochs, _ = self.args
        return f"{what} became {value} in epoch {epoch} of {epochs}; the last finite state is restored. {HELP}"


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How a network does on a set of samples.

    Attributes
    ----------
    loss : float
        Mean over the samples, without penalties.
    accuracy : float or None
        Fraction of samples that are right, in [0, 1] (in every output, where there are several sigmoid outputs);
        None for a regression.
    collapsed : bool
        Whether the network has learned nothing: it has `one_answer` although labels differ, and its loss is at least
        99 % of the labels' entropy, which is the best that one answer can reach. For labels between 0 and 1, both are
        measured above the loss that no network can beat.
    one_answer : bool
        Whether the network predicts one and the same class, or set of classes, for all samples; False for a regression.
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
        Its number in this fit, from 1.
    learning_rate : float
        Of its first step.
    loss : float
        Mean over its samples, each measured before its batch's update (and under dropout, if there is any).
    accuracy : float or None
        Likewise; None for a regression.
    validation : Evaluation or None
        Of the held-out set, after the epoch.
    """

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float | None
    validation: Evaluation | None


@dataclass(frozen=True, repr=False)
class History:
    """What a fit did.

    Attributes
    ----------
    epochs : tuple of Epoch
        One an epoch.
    train : Evaluation
        Of the training set, or of 2,048 samples of it, by the network as the fit leaves it; `collapsed` and
        `one_answer` are of all samples.
    validation : Evaluation or None
        Of the held-out set, likewise.
    converged : bool
        Whether the loss stopped improving before the epochs were over.
    stopped : bool
        Whether the callback ended the fit.
    restored : bool
        Whether an earlier state than the last was the best one, and was restored.
    collapsed : bool
        Whether the last state had collapsed on the training set, see `Evaluation`; what is restored then may not have.
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
        """One flat dictionary an epoch, for a data frame.

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
    """What a callback is told.

    Attributes
    ----------
    step, steps : int
        Steps done in this fit, and all there are to do.
    epoch, epochs : int
        Whole epochs done in this fit, and all there are to do.
    loss : float
        Mean of the last step's batch.
    train : Epoch or None
        The last whole epoch; None in the first one.
    validation : Evaluation or None
        Of the held-out set after it.
    epoch_ended : bool
        Whether this call comes at the end of an epoch, with `train` and `validation` new. Short epochs without a
        held-out set come several to a call.
    round, rounds : int or None
        The round of pruning, from 1, and how many the schedule has; None in a fit of its own.
    seconds : float
        Since this fit began.
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


EventKind = Literal[
    "nothing removed",
    "kept more than asked",
    "layer emptied",
    "diverged",
    "collapsed",
    "restored",
    "failed",
    "one answer",
    "stopped",
]


@dataclass(frozen=True)
class Event:
    """Something a reader of the record should know; `layer` is None where it concerns the whole network.

    Kinds: "nothing removed" (the prune changed no mask), "kept more than asked" (`min_keep` held weights back),
    "layer emptied" (its last live weight went), "diverged" and "collapsed" (so an attempt at retraining ended),
    "restored" (the attempt's best state had not collapsed, and was restored), "failed" (both attempts came to nothing:
    the network is the previous round's), "one answer" (the round holds, but its network predicts the same class for all
    training samples: only its probabilities tell them apart), "stopped" (a callback ended the run with this round).
    """

    kind: EventKind
    layer: int | None = None

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind} (layer {self.layer})"


@dataclass(frozen=True, repr=False)
class PruneRecord:
    """What one prune asked for and what it did. Sparsities are fractions pruned, biases never counted.

    Attributes
    ----------
    rule, scope : str
        As given to the pruner; "mask" and "layer" where masks were applied.
    requested : float, dict or None
        The number of the rule: q, quality or sparsity; None where masks were applied.
    requested_sparsity : float or None
        The sparsity of all weights that this stands for; None for "std", for numbers by layer, and for masks.
    sparsity : float
        Achieved, of all weights.
    prunable_sparsity : float
        Achieved, of the layers that are not ignored: the "parameter pruning degree" of some programs.
    layer_sparsity : tuple of float
        Achieved, layer by layer.
    effective_sparsity : float
        Achieved, with weights counted as pruned that lie on no path of live weights from an input to an output.
    dead_units : tuple of int
        Units of each hidden layer that no such path leads through.
    removed, grown, live : int
        Weights that went, that came back, and that are live then.
    removed_norm : float
        Euclidean norm of the removed weights, divided by the norm of all weights before; 0 where these were all 0.
    thresholds : tuple of float or None
        Of each layer, the threshold in use: weights whose score (their absolute value, unless the criterion is another
        one) is not above it went, but for those that `min_keep` held back. None where there was none: in layers that
        are left alone, under the rule "sparsity", and where q percent are less than one weight.
    execution : tuple of str
        How each layer runs from then on: "dense" or "sparse".
    events : tuple of Event
        What else there is to know.
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
        Of the training set, or of 2,048 samples of it; `collapsed` and `one_answer` are of all samples.
    validation, test : Evaluation or None
        Of the held-out and of the test set; None where it was not given.
    """

    train: Evaluation
    validation: Evaluation | None
    test: Evaluation | None


@dataclass(frozen=True, repr=False)
class RoundRecord(PruneRecord):
    """One round: the prune, and the retraining after it.

    Attributes
    ----------
    round : int
        Its number, from 1.
    before, after : Scores or None
        Of the pruned network, before and after retraining. `after` is None while the round is not over and where
        retraining diverged; in a failed round it tells what the last attempt came to.
    learning_rate : float or None
        Of the retraining that counts, before the schedule's factor; None while the round is not over.
    epochs : int
        Epochs of retraining, all attempts together; a diverged one counts up to where it did.
    seconds : float
        Wall time of retraining, all attempts together.
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
        """Whether the round is over: retrained, or given up."""
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
    """The rounds of a run, a list of `RoundRecord`.

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
        """Tell whoever called `run` what they should know."""
        if self and self[-1].failed:
            record = self[-1]
            ends = ", then ".join(event.kind for event in record.events if event.kind in ("collapsed", "diverged"))
            warnings.warn(
                f"round {record.round} failed and ended the run: retraining {ends}. The network is as it was before "
                f"this round. {HELP}, or a smaller step of pruning",
                TrainingWarning,
                stacklevel=stacklevel,
            )
        rounds = [str(record.round) for record in self if Event("one answer") in record.events]
        if rounds:
            warnings.warn(
                f"after {'round' if len(rounds) == 1 else 'rounds'} {', '.join(rounds)} the network gives one answer "
                "to all training samples, though its probabilities tell them apart",
                TrainingWarning,
                stacklevel=stacklevel,
            )

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat dictionary a round, for a data frame: what has parts, such as `after.test`, is spread over keys."""
        return [_flat("", record) for record in self]

    def __repr__(self) -> str:
        return f"[{f',{chr(10)} '.join(map(repr, self))}]"

    def _repr_html_(self) -> str:
        given = next((name for name in ("test", "validation") if self and getattr(self[0].before, name)), "train")
        return _table(self.to_dicts(), ("round", "sparsity", "live", f"before_{given}", f"after_{given}", "events"))


_SETS = {"train", "validation", "test", "after"}  # parts that may not be there, and then have no columns


def _flat(name: str, value: Any) -> dict[str, Any]:
    """A value with parts as one dictionary, the names of parts joined by underscores."""
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
    """The columns of rows whose names begin so, as HTML."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(tuple(begins)))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = []
    for row in rows:
        cells = [row.get(name) for name in names]
        shown = ["" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in shown) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
