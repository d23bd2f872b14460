"""One round of pruning, and the loop of rounds that survives a collapse."""

import functools
import numbers
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.rules import RULES, SCOPES, Amount, count_for, select
from fastprune.schedules import Schedule
from fastprune.trainer import Callback, DivergenceError, Evaluation, History, LabelledSet, State, Trainer

RETRY = 0.1  # times the learning rate, for the second attempt of a round whose retraining failed


EventKind = Literal[
    "nothing removed", "kept more than asked", "layer emptied", "diverged", "collapsed", "restored", "failed"
]


@dataclass(frozen=True)
class Event:
    """Something a reader of the record should know; `layer` is None where it concerns the whole network.

    Kinds: "nothing removed" (the prune changed no mask), "kept more than asked" (`min_keep` held weights back),
    "layer emptied" (its last live weight went), "diverged" and "collapsed" (so an attempt at retraining ended),
    "restored" (the attempt's best state had not collapsed, and was restored), "failed" (both attempts came to nothing:
    the network is the previous round's).
    """

    kind: EventKind
    layer: int | None = None

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind} (layer {self.layer})"


@dataclass(frozen=True)
class PruneRecord:
    """What one prune asked for and what it did. Sparsities are fractions pruned, biases never counted.

    Attributes
    ----------
    rule, scope : str
        As given to the pruner.
    requested : float or dict
        The number of the rule: q, quality or sparsity.
    requested_sparsity : float or None
        The sparsity of all weights that this stands for; None for "std", and for numbers by layer.
    sparsity : float
        Achieved, of all weights.
    prunable_sparsity : float
        Achieved, of the layers that are not ignored: the "parameter pruning degree" of some programs.
    layer_sparsity : tuple of float
        Achieved, layer by layer.
    removed, live : int
        Weights that went, and that are left.
    execution : tuple of str
        How each layer runs from then on: "dense" or "sparse".
    events : tuple of Event
        What else there is to know.
    """

    rule: str
    scope: str
    requested: Amount
    requested_sparsity: float | None
    sparsity: float
    prunable_sparsity: float
    layer_sparsity: tuple[float, ...]
    removed: int
    live: int
    execution: tuple[str, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Scores:
    """Evaluations of one state of the network.

    Attributes
    ----------
    train : Evaluation
        Of the training set.
    validation, test : Evaluation or None
        Of the held-out and of the test set; None where it was not given.
    """

    train: Evaluation
    validation: Evaluation | None
    test: Evaluation | None


@dataclass(frozen=True)
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
        Of the retraining that counts; None while the round is not over.
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


class Pruner:
    """Prunes a trainer's network by magnitude, round by round, and retrains it.

    Masks multiply up: what was pruned stays pruned. A layer of which enough is gone is stored and run sparsely from
    then on, so that rounds get faster.

    Parameters
    ----------
    trainer : Trainer
        Its network is pruned, and its settings retrain.
    schedule : sequence of float
        The number of each round, from `fastprune.schedules` or any list. Numbers may also be dicts {layer: number},
        in scope "layer": layers not named are left alone.
    rule : {"sparsity", "percentile", "std"}, default "sparsity"
        "sparsity": of W weights, exactly W - floor(sparsity * W + 1/2) stay live; W counts all weights of the network,
        those of ignored layers too, and the number is in [0, 1). In scope "layer" all prunable layers end at the same
        sparsity, give or take one weight, unless one is already past it. "percentile": the threshold is the q-th
        percentile, q in [0, 100], of the live weights' absolute values. "std": it is quality, at least 0, times the
        standard deviation of the live weights (Han et al. 2015, section 3). Both remove all that is not above the
        threshold, no more and no less: even q = 0 removes the smallest weight, and q = 100 all of them. An empty
        set's threshold is 0.
    scope : {"layer", "global"}, default "layer"
        Whether each layer is ranked alone, or all weights together.
    ignored_layers : iterable of int, default ()
        Layers that are not pruned, from 0; -1 is the output layer.
    min_keep : int, default 0
        Live weights that each layer keeps at least (all it has, if these are fewer). In scope "global" an exact count
        stays exact, and the next smallest weights go instead; otherwise the layer removes less, and the record says so.

    Attributes
    ----------
    round : int
        Number of rounds done; the next takes `schedule[round]`.

    Raises
    ------
    ValueError
        If an argument is not as described, or ignored layers put a sparsity of the schedule out of reach.

    Notes
    -----
    Extreme cases are defined. A layer without live weights passes on its biases; its threshold is 0 and nothing is
    removed from it. A network without any has sparsity 1 and infinite compression, and gives one answer to all samples:
    retraining it collapses. A sparsity of 0, or below what is pruned already, removes nothing, and the record says so.
    Of weights that are all equal, also all 0, a count takes the first ones by index and a threshold takes all, for none
    is above it. A weight that is 0 but was never pruned is live. A layer of one weight loses it as soon as its share of
    the count, rounded, is 1.

    Examples
    --------
    >>> import fastprune as fp
    >>> data = fp.load_dataset("digits")
    >>> trainer = fp.Trainer(fp.MLP([64, 32, 10]), batch_size=64)
    >>> _ = trainer.fit(data.x_train, data.y_train, epochs=10)
    >>> pruner = fp.Pruner(trainer, rule="sparsity", schedule=[0.5, 0.8])
    >>> history = pruner.run(data.x_train, data.y_train, epochs=5, test=(data.x_test, data.y_test))
    >>> [round(record.sparsity, 3) for record in history]
    [0.5, 0.8]
    >>> history[-1].after.test.accuracy > 0.9
    True
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        schedule: Sequence[Amount],
        rule: str = "sparsity",
        scope: str = "layer",
        ignored_layers: Iterable[int] = (),
        min_keep: int = 0,
    ) -> None:
        if not isinstance(trainer, Trainer):
            raise ValueError(f"trainer: expected a Trainer, got {type(trainer).__name__}")
        self.trainer = trainer
        self.rule = check.one_of("rule", rule, RULES)
        self.scope = check.one_of("scope", scope, SCOPES)
        self.min_keep = check.integer("min_keep", min_keep, 0)
        count = trainer.network.layers
        if not isinstance(ignored_layers, Iterable):
            raise ValueError(f"ignored_layers: expected a list of layers, got {ignored_layers!r}")
        self.ignored_layers = sorted({_layer("ignored_layers", layer, count) for layer in ignored_layers})
        self.prunable_layers = [layer for layer in range(count) if layer not in self.ignored_layers]
        if not self.prunable_layers:
            raise ValueError(f"ignored_layers: expected to leave a layer to prune, got all {count}")
        if isinstance(schedule, np.ndarray):
            schedule = schedule.tolist()
        if not isinstance(schedule, Sequence) or isinstance(schedule, str) or not len(schedule):
            raise ValueError(f"schedule: expected a sequence of at least one number, got {schedule!r}")
        if isinstance(schedule, Schedule) and schedule.rule != rule:
            raise ValueError(f"schedule: expected numbers for rule {rule!r}, got {schedule!r}, for {schedule.rule!r}")
        for number, amount in enumerate(schedule):
            self._checked(f"schedule[{number}]", self.rule, amount)
        self.schedule = schedule
        self.round = 0

    def step(
        self, *, q: Amount | None = None, quality: Amount | None = None, sparsity: Amount | None = None
    ) -> PruneRecord:
        """Prune once, without retraining.

        Parameters
        ----------
        q, quality, sparsity : float or {layer: float}, optional
            The number, for the rule "percentile", "std" or "sparsity", whatever the pruner's own rule is; at most one
            of them. With none, the schedule's next number is taken, and `round` goes up.

        Returns
        -------
        PruneRecord

        Raises
        ------
        ValueError
            If an argument is not as described, a sparsity is out of reach, or the schedule is used up. Nothing is then
            changed.

        Examples
        --------
        >>> import fastprune as fp
        >>> pruner = fp.Pruner(fp.Trainer(fp.MLP([4, 5])), schedule=[0.25])
        >>> record = pruner.step()
        >>> record.removed, record.sparsity
        (5, 0.25)
        >>> pruner.step(q=20.0).live  # a fifth of the 15 that were left
        12
        """
        given = {"percentile": q, "std": quality, "sparsity": sparsity}
        chosen = {rule: amount for rule, amount in given.items() if amount is not None}
        if len(chosen) > 1:
            names = ", ".join(RULES[rule].keyword for rule in chosen)
            raise ValueError(f"step: expected one number at the most, got {names}")
        for rule, amount in chosen.items():
            return self._prune(rule, self._checked(RULES[rule].keyword, rule, amount))
        if self.round >= len(self.schedule):
            raise ValueError(f"schedule: expected another round, got a schedule of {len(self.schedule)}, all done")
        record = self._prune(self.rule, self._checked("schedule", self.rule, self.schedule[self.round]))
        self.round += 1
        return record

    def run(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        epochs: int,
        *,
        learning_rate: float | None = None,
        validation: LabelledSet | None = None,
        test: LabelledSet | None = None,
        callback: Callback | None = None,
        on_round: Callable[[RoundRecord], None] | None = None,
    ) -> list[RoundRecord]:
        """Prune and retrain for each number of the schedule that is left.

        A retraining that ends collapsed (see `Evaluation.collapsed`) or diverges is tried once more at a tenth of the
        learning rate, from its best state, or from the pruned weights if that had collapsed too. If the second attempt
        ends no better, the round has failed: the network goes back to the end of the round before, and the loop ends.
        So it does, too, after Ctrl-C or an exception of a callback. Another `run` then begins with that round; with no
        rounds left it returns an empty list.

        Parameters
        ----------
        x, y : array_like
            Training set, as for `Trainer.fit`.
        epochs : int
            Epochs of retraining each round, at least 0.
        learning_rate : float, optional
            Of retraining; the trainer's, if not given. The paper retrains LeNet with a tenth of it.
        validation : (x, y), optional
            A held-out set: chooses the best state of each retraining, as in `Trainer.fit`, and is evaluated.
        test : (x, y), optional
            A test set. It is only ever evaluated.
        callback : callable, optional
            Given to `Trainer.fit`.
        on_round : callable, optional
            Called with the record twice a round: once pruned, and once retrained or given up, when it is `done`.

        Returns
        -------
        list of RoundRecord
            One a round. If a round failed, it is the last; its record tells of the network that was given up.

        Raises
        ------
        ValueError
            If an argument is not as described.

        Examples
        --------
        >>> import fastprune as fp
        >>> data = fp.load_dataset("digits")
        >>> trainer = fp.Trainer(fp.MLP([64, 10]))
        >>> pruner = fp.Pruner(trainer, schedule=fp.schedules.LinearSparsity(0.0, 0.5, rounds=2))
        >>> for record in pruner.run(data.x_train, data.y_train, epochs=10):
        ...     print(record.round, record.sparsity, record.failed)
        1 0.25 False
        2 0.5 False
        """
        trainer = self.trainer
        rate = trainer.learning_rate if learning_rate is None else learning_rate
        rate = check.number("learning_rate", rate, "(0, inf)")
        epochs = check.integer("epochs", epochs, 0)
        fit = functools.partial(trainer.fit, x, y, epochs, validation=validation, callback=callback)
        history: list[RoundRecord] = []
        loss = trainer.loss_for(y)

        def scores(train: Evaluation | None = None) -> Scores:
            return Scores(
                train or trainer.evaluate_set(("x", "y"), (x, y), loss),
                None if validation is None else trainer.evaluate_set("validation", validation, loss),
                None if test is None else trainer.evaluate_set("test", test, loss),
            )

        scores()  # finds bad arguments before anything is pruned
        while self.round < len(self.schedule):
            previous = trainer.snapshot()
            pruned = self.step()
            try:
                record = RoundRecord(**vars(pruned), round=self.round, before=scores())
                if on_round is not None:
                    on_round(record)
                record = self._retrain(record, fit, rate, scores)
            except BaseException:
                self._give_up(previous)
                raise
            if record.failed:
                self._give_up(previous)
            history.append(record)
            if on_round is not None:
                on_round(record)
            if record.failed:
                break
        return history

    def _retrain(
        self, record: RoundRecord, fit: Callable[..., History], rate: float, scores: Callable[[Evaluation], Scores]
    ) -> RoundRecord:
        """The record of a round after one attempt at retraining, or two."""
        pruned = self.trainer.snapshot()
        record = _attempt(record, fit, rate, scores)
        if not record.failed:
            return record
        if record.events[-1].kind != "restored":
            self.trainer.restore(pruned)
        record = _attempt(record, fit, rate * RETRY, scores)
        return replace(record, events=(*record.events, Event("failed"))) if record.failed else record

    def _give_up(self, previous: State) -> None:
        """Undo a round."""
        self.trainer.restore(previous)
        self.round -= 1

    def _prune(self, rule: str, amount: Amount) -> PruneRecord:
        network = self.trainer.network
        before = network.layer_live_weights
        removed, held_back = select(network, rule, amount, self.scope, self.prunable_layers, self.min_keep)
        self.trainer.prune(removed)
        after = network.layer_live_weights

        events = [Event("nothing removed")] if removed.size == 0 else []
        events += [Event("kept more than asked", layer) for layer in held_back]
        emptied = [layer for layer in range(network.layers) if after[layer] == 0 < before[layer]]
        events += [Event("layer emptied", layer) for layer in emptied]
        prunable = sum(network.layer_sizes[layer] for layer in self.prunable_layers)
        live = sum(after[layer] for layer in self.prunable_layers)
        return PruneRecord(
            rule=rule,
            scope=self.scope,
            requested=amount,
            requested_sparsity=self._requested_sparsity(rule, amount, before),
            sparsity=network.sparsity,
            prunable_sparsity=(prunable - live) / prunable,
            layer_sparsity=tuple(network.layer_sparsity),
            removed=int(removed.size),
            live=sum(after),
            execution=tuple(network.execution),
            events=tuple(events),
        )

    def _requested_sparsity(self, rule: str, amount: Amount, live: list[int]) -> float | None:
        if isinstance(amount, Mapping) or rule == "std":
            return None
        if rule == "sparsity":
            return amount
        asked = amount / 100 * sum(live[layer] for layer in self.prunable_layers)
        return 1 - (sum(live) - asked) / self.trainer.network.total_weights

    def _checked(self, name: str, rule: str, amount: Amount) -> Amount:
        """`amount`, if the rule can take it and every layer it names can be pruned."""
        interval = RULES[rule].interval
        if not isinstance(amount, Mapping):
            number = check.number(name, amount, interval)
            weights = self.trainer.network.total_weights
            live = self.trainer.network.layer_live_weights
            whole = sum(live[layer] for layer in self.ignored_layers)
            if self.scope == "global":
                whole += sum(min(live[layer], self.min_keep) for layer in self.prunable_layers)
            if rule == "sparsity" and count_for(number, weights) > weights - whole:
                raise ValueError(
                    f"{name}: expected a sparsity of at most {1 - whole / weights:.6g}, all that ignored_layers and "
                    f"min_keep leave, got {amount!r}"
                )
            return number
        if self.scope != "layer":
            raise ValueError(f"{name}: expected one number in scope {self.scope!r}, got {amount!r}")
        if not amount:
            raise ValueError(f"{name}: expected a number for at least one layer, got {amount!r}")
        checked = {}
        for layer, value in amount.items():
            index = _layer(name, layer, self.trainer.network.layers)
            if index in checked:
                raise ValueError(f"{name}: expected each layer once, got {amount!r}")
            if index in self.ignored_layers:
                raise ValueError(f"{name}: expected layers that are not ignored, got layer {layer}")
            checked[index] = check.number(f"{name}[{layer}]", value, interval)
        return checked


def _attempt(
    record: RoundRecord,
    fit: Callable[..., History],
    rate: float,
    scores: Callable[[Evaluation], Scores],
) -> RoundRecord:
    """The record after one attempt at retraining; `failed` if that ended collapsed or diverged."""
    started = time.perf_counter()
    after = None
    try:
        history = fit(learning_rate=rate)
    except DivergenceError as error:
        made, events = error.epoch, [Event("diverged")]
        seconds = time.perf_counter() - started
    else:
        made, events, seconds = len(history.epochs), [], history.seconds
        after = scores(history.train)
        if history.collapsed or history.train.collapsed:
            events.append(Event("collapsed"))
            if not history.train.collapsed:
                events.append(Event("restored"))
    return replace(
        record,
        after=after,
        learning_rate=rate,
        epochs=record.epochs + made,
        seconds=record.seconds + seconds,
        failed=bool(events),
        events=(*record.events, *events),
    )


def _layer(name: str, layer: int, count: int) -> int:
    """Number of the layer, from 0; negative ones count from the end."""
    if isinstance(layer, bool) or not isinstance(layer, numbers.Integral) or not -count <= layer < count:
        raise ValueError(f"{name}: expected layers in {-count} .. {count - 1}, got {layer!r}")
    return int(layer) % count
