"""One round of pruning, and the loop of rounds that survives a collapse."""

import functools
import math
import numbers
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.evaluation import Evaluation, evaluate, evaluate_training, labels_differ
from fastprune.kernels.layout import Floats
from fastprune.rules import CRITERIA, LAYER_RATES, RULES, SCOPES, Amount, Selector, count_for, to_unit
from fastprune.schedules import LearningRates, Schedule, learning_rates
from fastprune.sensitivity import Sensitivity
from fastprune.state import State
from fastprune.team import Threads
from fastprune.trainer import (
    HELP,
    Callback,
    DivergenceError,
    History,
    LabelledSet,
    Trainer,
    TrainingWarning,
)

ADAPTIVE = "adaptive"
SCAN = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
RETRY = 0.1  # times the learning rate, for the second attempt of a round whose retraining failed


EventKind = Literal[
    "nothing removed",
    "kept more than asked",
    "layer emptied",
    "diverged",
    "collapsed",
    "restored",
    "failed",
    "one answer",
]


@dataclass(frozen=True)
class Event:
    """Something a reader of the record should know; `layer` is None where it concerns the whole network.

    Kinds: "nothing removed" (the prune changed no mask), "kept more than asked" (`min_keep` held weights back),
    "layer emptied" (its last live weight went), "diverged" and "collapsed" (so an attempt at retraining ended),
    "restored" (the attempt's best state had not collapsed, and was restored), "failed" (both attempts came to nothing:
    the network is the previous round's), "one answer" (the round holds, but its network predicts the same class for all
    training samples: only its probabilities tell them apart).
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
    effective_sparsity : float
        Achieved, with weights counted as pruned that lie on no path of live weights from an input to an output.
    dead_units : tuple of int
        Units of each hidden layer that no such path leads through.
    removed, live : int
        Weights that went, and that are left.
    removed_norm : float
        Euclidean norm of the weights that went, by that of all before; 0 where these were all 0.
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
    requested: Amount
    requested_sparsity: float | None
    sparsity: float
    prunable_sparsity: float
    layer_sparsity: tuple[float, ...]
    effective_sparsity: float
    dead_units: tuple[int, ...]
    removed: int
    live: int
    removed_norm: float
    thresholds: tuple[float | None, ...]
    execution: tuple[str, ...]
    events: tuple[Event, ...]


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


def _layers(name: str, value: Any) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        raise ValueError(f"{name}: expected a list of layers, got {value!r}") from None


def _amounts(name: str, value: Any) -> Sequence[Amount]:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, Sequence) or isinstance(value, str) or not len(value):
        raise ValueError(f"{name}: expected a sequence of at least one number, got {value!r}")
    return value


class Pruner(check.Checked):
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
        sparsity, give or take one weight, unless one is already past it. "percentile": the threshold is the largest
        one that removes at most q percent of the live weights, q in [0, 100]: q = 0 removes none, nor does any q that
        is less than one weight, and q = 100 all of them. "std": it is quality, at least 0, times the standard deviation
        of the live weights (Han et al. 2015, section 3). Both remove all that is not above the threshold, no more and
        no less. An empty set's threshold is 0.
    scope : {"layer", "global"}, default "layer"
        Whether each layer is ranked alone, or all weights together.
    ignored_layers : iterable of int, default ()
        Layers that are not pruned, from 0; -1 is the output layer.
    criterion : {"magnitude", "random"}, default "magnitude"
        What weights are ranked by. "random" is the baseline that a method has to beat; the rule "std" knows none.
    layer_rates : {"uniform", "erdos_renyi", "lamp"}, default "uniform"
        How the rule "sparsity", in scope "layer", shares out what is left: to all layers the same density; a density
        in proportion to (fan_in + fan_out) / (fan_in * fan_out) (Mocanu et al. 2018, equation 3); or what a ranking of
        all weights by LAMP scores leaves (Lee et al. 2021, equation 2). A layer gets no more than it still has. Rates
        of your own are dicts in the schedule, also those that `sensitivity` recommends.
    min_keep : int, default 0
        Live weights that each layer keeps at least (all it has, if these are fewer). In scope "global" an exact count
        stays exact, and the next smallest weights go instead; otherwise the layer removes less, and the record says so.
    seed : int, default 0
        Of the criterion "random".

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
    Of weights that are all equal, also all 0, a count takes the first ones by index, and a threshold takes all, or none
    where all are more than q percent. A weight that is 0 but was never pruned is live.

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
        criterion: str = "magnitude",
        layer_rates: str = "uniform",
        min_keep: int = 0,
        seed: int = 0,
    ) -> None:
        if not isinstance(trainer, Trainer):
            raise ValueError(f"trainer: expected a Trainer, got {type(trainer).__name__}")
        self._trainer = trainer
        self.rule, self.scope, self.criterion, self.layer_rates = rule, scope, criterion, layer_rates
        self.min_keep, self.seed = min_keep, seed
        self.ignored_layers = ignored_layers
        self.schedule = schedule
        self.round = 0
        self._check(self.rule)
        self._check_schedule()

    schedule: Sequence[Amount]
    _checks = {  # noqa: RUF012
        "rule": functools.partial(check.one_of, choices=RULES),
        "scope": functools.partial(check.one_of, choices=SCOPES),
        "criterion": functools.partial(check.one_of, choices=CRITERIA),
        "layer_rates": functools.partial(check.one_of, choices=LAYER_RATES),
        "min_keep": functools.partial(check.integer, low=0),
        "seed": functools.partial(check.integer, low=0, high=2**64 - 1),
        "ignored_layers": _layers,
        "schedule": _amounts,
        "round": functools.partial(check.integer, low=0),
    }

    @property
    def trainer(self) -> Trainer:
        """The trainer whose network is pruned."""
        return self._trainer

    @property
    def prunable_layers(self) -> list[int]:
        """The layers that are not ignored."""
        count = self.trainer.network.layers
        ignored = {_layer("ignored_layers", layer, count) for layer in self.ignored_layers}
        return [layer for layer in range(count) if layer not in ignored]

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
            self._check(rule)
            return self._prune(rule, self._checked(RULES[rule].keyword, rule, amount))
        self._check(self.rule)
        rounds = len(self.schedule)
        if self.round >= rounds:
            raise ValueError(
                f"{'the one round' if rounds == 1 else f'all {rounds} rounds'} of the schedule "
                f"{'is' if rounds == 1 else 'are'} done; give a longer schedule, or a number: step(sparsity=...)"
            )
        network, state, number = self.trainer.network, self.trainer.network.state, self.round
        try:
            record = self._prune(self.rule, self._checked(f"schedule[{number}]", self.rule, self.schedule[number]))
            self.round = number + 1
        except BaseException:  # Ctrl-C between prune and count
            network.state, self.round = state, number
            raise
        return record

    def run(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        epochs: int | Sequence[int],
        *,
        learning_rate: float | str | None = None,
        learning_rate_schedule: str | LearningRates | None = None,
        restarts: bool = True,
        rewind_to: State | None = None,
        rounds: int | None = None,
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
        epochs : int or sequence of int
            Epochs of retraining, at least 0: the same in each round, or one number for each of the schedule, also for
            rounds that are done already.
        learning_rate : float or "adaptive", optional
            Of retraining; the trainer's, if not given. The paper retrains LeNet with a tenth of it. "adaptive" takes
            a part of the trainer's, by what the prune did: the larger of |W - W'| / (|W| sqrt(s)), with W the weights
            before, W' those after and s the fraction of the live ones that went, and of the round's epochs by the
            trainer's `dense_epochs`; at most all of it, and all for a network that it has not trained (Zimmer et al.
            2023, section 3, where the schedule is "linear").
        learning_rate_schedule : str or callable, optional
            Used instead of the trainer's.
        restarts : bool, default True
            Whether the learning-rate schedule begins anew in each round: learning-rate rewinding (Renda et al. 2020),
            if the round is as long as the dense training. Otherwise it runs once over the epochs of all rounds: with
            rounds of one epoch this is gradual pruning (Zhu and Gupta 2017).
        rewind_to : State, optional
            What `Trainer.snapshot` copied before pruning, early in training: after each prune, the weights that are
            left and the optimizer's state go back to it (weight rewinding; Frankle et al. 2020, Renda et al. 2020).
        rounds : int, optional
            Rounds to make at the most, at least 0; all that are left, if not given.
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

        Warns
        -----
        TrainingWarning
            If a round failed, and so ended the run, or its network gives one answer to all training samples.

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
        trainer, network = self.trainer, self.trainer.network
        self._check(self.rule)
        self._check_schedule()
        adaptive = learning_rate == ADAPTIVE
        rate = trainer.learning_rate
        if isinstance(learning_rate, str):
            check.one_of("learning_rate", learning_rate, [ADAPTIVE])
        elif learning_rate is not None:
            rate = check.number("learning_rate", learning_rate, "(0, inf)")
        schedule = trainer.learning_rate_schedule
        if learning_rate_schedule is not None:
            schedule = learning_rates("learning_rate_schedule", learning_rate_schedule)
        lengths = self._lengths(epochs)
        stop = len(self.schedule)
        if rounds is not None:
            stop = min(stop, self.round + check.integer("rounds", rounds, 0))
        if not check.boolean("restarts", restarts) and adaptive:
            raise ValueError("restarts: expected True with the learning rate 'adaptive', got False")
        if rewind_to is not None:
            trainer.rewound("rewind_to", rewind_to)
        check.callback("callback", callback, "a Progress")
        check.callback("on_round", on_round, "a RoundRecord")
        loss = trainer.loss_for(y)
        data = trainer.training_set((x, y), loss)
        held_out = None if validation is None else trainer.samples("validation", validation, loss)
        unseen = None if test is None else trainer.samples("test", test, loss)

        def scores(train: Evaluation | None = None) -> Scores:
            state = network.state
            with Threads(trainer.n_jobs) as threads:
                return Scores(
                    train or evaluate_training(state, data, loss, threads),
                    None if held_out is None else evaluate(state, held_out, loss, threads),
                    None if unseen is None else evaluate(state, unseen, loss, threads),
                )

        history: list[RoundRecord] = []
        while self.round < stop:
            previous, number, known = network.state.copy(), self.round, network.loss
            length = lengths[number]
            part = schedule if restarts else _part(schedule, sum(lengths[:number]), length, sum(lengths))
            try:
                pruned = self.step()
                if rewind_to is not None:
                    trainer.rewind(rewind_to)
                if adaptive:
                    rate = trainer.learning_rate * self._adapted(pruned, length)
                record = RoundRecord(**vars(pruned), round=self.round, before=scores())
                if on_round is not None:
                    on_round(record)
                fit = functools.partial(
                    trainer.fit_samples, data, loss, length, schedule=part, held_out=held_out, callback=callback
                )
                record = self._retrain(record, fit, rate, scores)
                if record.failed:
                    network.state, self.round, network.loss = previous, number, known
                elif record.after and record.after.train.one_answer and labels_differ(data.samples):
                    record = replace(record, events=(*record.events, Event("one answer")))
                if on_round is not None:
                    on_round(record)
            except BaseException:
                network.state, self.round, network.loss = previous, number, known
                raise
            history.append(record)
            if record.failed:
                break
        _warn(history)
        return history

    def sensitivity(self, x: npt.ArrayLike, y: npt.ArrayLike, *, sparsities: Sequence[float] = SCAN) -> Sensitivity:
        """Prune each layer alone, to one sparsity after the other, and evaluate; the network stays as it is.

        Parameters
        ----------
        x, y : array_like
            Samples to evaluate on, as for `Trainer.evaluate`: held-out ones, if the rates are to be chosen by them.
        sparsities : sequence of float, optional
            Of the layer, ascending, each in [0, 1); a layer that is past one already stays as it is. If not given,
            0.1 to 0.9, and on to 0.999 in ever smaller steps.

        Returns
        -------
        Sensitivity
            The curves (Han et al. 2015, figure 6), and `Sensitivity.recommend`.

        Raises
        ------
        ValueError
            If an argument is not as described.

        Examples
        --------
        See `Sensitivity.recommend`.
        """
        if isinstance(sparsities, np.ndarray):
            sparsities = sparsities.tolist()
        if not isinstance(sparsities, Sequence) or isinstance(sparsities, str) or not len(sparsities):
            raise ValueError(f"sparsities: expected a sequence of at least one number, got {sparsities!r}")
        checked = [check.number(f"sparsities[{i}]", sparsity, "[0, 1)") for i, sparsity in enumerate(sparsities)]
        if sorted(set(checked)) != checked:
            raise ValueError(f"sparsities: expected ascending numbers, got {sparsities!r}")
        self._check(self.rule)
        trainer, state = self.trainer, self.trainer.network.state
        loss = trainer.loss_for(y)
        samples = trainer.samples(("x", "y"), (x, y), loss)
        selector = replace(self._selector(), min_keep=0)  # the curves are those of the rates, not of what holds back
        evaluations = []
        with Threads(trainer.n_jobs) as threads:
            baseline = evaluate(state, samples, loss, threads)
            if not math.isfinite(baseline.loss):
                raise ValueError(f"network: expected a finite loss to compare with, got {baseline.loss}")
            for layer in self.prunable_layers:
                pruned, row = state, []
                for sparsity in checked:
                    pruned = pruned.without(selector.select(pruned, "sparsity", {layer: sparsity}).removed)
                    row.append(evaluate(pruned, samples, loss, threads))
                evaluations.append(tuple(row))
        return Sensitivity(
            layers=tuple(self.prunable_layers),
            layer_sizes=tuple(trainer.network.layer_sizes),
            layer_sparsity=tuple(trainer.network.layer_sparsity),
            sparsities=tuple(checked),
            baseline=baseline,
            evaluations=tuple(evaluations),
        )

    def _retrain(
        self, record: RoundRecord, fit: Callable[..., History], rate: float, scores: Callable[[Evaluation], Scores]
    ) -> RoundRecord:
        """The record of a round after one attempt at retraining, or two."""
        pruned = self.trainer.network.state.copy()
        record = _attempt(record, fit, rate, scores)
        if not record.failed:
            return record
        if record.events[-1].kind != "restored":
            self.trainer.network.state = pruned
        record = _attempt(record, fit, rate * RETRY, scores)
        return replace(record, events=(*record.events, Event("failed"))) if record.failed else record

    def _lengths(self, epochs: int | Sequence[int]) -> list[int]:
        """Epochs of each round of the schedule."""
        rounds = len(self.schedule)
        if isinstance(epochs, np.ndarray):
            epochs = epochs.tolist()
        if not isinstance(epochs, Sequence) or isinstance(epochs, str):
            return [check.integer("epochs", epochs, 0)] * rounds
        if len(epochs) != rounds:
            raise ValueError(f"epochs: expected a number for each of {rounds} rounds, got {len(epochs)}")
        return [check.integer(f"epochs[{i}]", number, 0) for i, number in enumerate(epochs)]

    def _adapted(self, record: PruneRecord, epochs: int) -> float:
        """The part of the learning rate with which to retrain for so many epochs; see `run`."""
        went = record.removed / (record.removed + record.live) if record.removed else 1.0
        dense = self.trainer.dense_epochs
        share = epochs / dense if dense and epochs else 1.0
        return min(1.0, max(share, record.removed_norm / math.sqrt(went)))

    def _selector(self) -> Selector:
        return Selector(self.criterion, self.scope, self.layer_rates, self.prunable_layers, self.min_keep, self.seed)

    def _prune(self, rule: str, amount: Amount) -> PruneRecord:
        network, state = self.trainer.network, self.trainer.network.state
        removed, held_back, thresholds = self._selector().select(state, rule, amount)
        pruned = state.without(removed) if removed.size else state
        storage = pruned.storage
        before, after, sizes = state.storage.layer_live_weights, storage.layer_live_weights, storage.layer_sizes

        events = [Event("nothing removed")] if removed.size == 0 else []
        events += [Event("kept more than asked", layer) for layer in held_back]
        emptied = [layer for layer, live in enumerate(after) if live == 0 < before[layer]]
        events += [Event("layer emptied", layer) for layer in emptied]
        working, dead = storage.paths()
        prunable = sum(sizes[layer] for layer in self.prunable_layers)
        live = sum(after[layer] for layer in self.prunable_layers)
        weights = state.values[: state.storage.layout.biases[0]]
        record = PruneRecord(
            rule=rule,
            scope=self.scope,
            requested=amount,
            requested_sparsity=self._requested_sparsity(rule, amount, before),
            sparsity=(network.total_weights - sum(after)) / network.total_weights,
            prunable_sparsity=(prunable - live) / prunable,
            layer_sparsity=tuple((size - left) / size for size, left in zip(sizes, after, strict=True)),
            effective_sparsity=(network.total_weights - working) / network.total_weights,
            dead_units=tuple(dead),
            removed=int(removed.size),
            live=sum(after),
            removed_norm=_norm_ratio(weights[removed], weights),
            thresholds=tuple(thresholds.get(layer) for layer in range(network.layers)),
            execution=tuple(storage.runs),
            events=tuple(events),
        )
        network.state = pruned
        return record

    def _requested_sparsity(self, rule: str, amount: Amount, live: list[int]) -> float | None:
        if isinstance(amount, Mapping) or rule == "std":
            return None
        if rule == "sparsity":
            return amount
        asked = amount / 100 * sum(live[layer] for layer in self.prunable_layers)
        return 1 - (sum(live) - asked) / self.trainer.network.total_weights

    def _check(self, rule: str) -> None:
        """Refuse settings that do not go together; each by itself is as described."""
        if self.layer_rates != "uniform" and (self.rule != "sparsity" or self.scope != "layer"):
            raise ValueError(
                f"layer_rates: expected rule 'sparsity' and scope 'layer' with {self.layer_rates!r}, got "
                f"{self.rule!r}, {self.scope!r}"
            )
        if rule == "std" and self.criterion != "magnitude":
            raise ValueError(f"criterion: expected 'magnitude' with rule 'std', got {self.criterion!r}")
        if not self.prunable_layers:
            count = self.trainer.network.layers
            raise ValueError(f"ignored_layers: expected to leave a layer to prune, got all {count}")

    def _check_schedule(self) -> None:
        """Refuse a schedule of which a number that is still to come cannot be taken."""
        schedule = self.schedule
        if isinstance(schedule, Schedule) and schedule.rule != self.rule:
            raise ValueError(
                f"schedule: expected numbers for rule {self.rule!r}, got {schedule!r}, for {schedule.rule!r}"
            )
        for number in range(self.round, len(schedule)):
            self._checked(f"schedule[{number}]", self.rule, schedule[number])

    def _checked(self, name: str, rule: str, amount: Amount) -> Amount:
        """`amount`, if the rule can take it and every layer it names can be pruned."""
        interval = RULES[rule].interval
        if not isinstance(amount, Mapping):
            number = check.number(name, amount, interval)
            if rule != "sparsity":
                return number
            weights = self.trainer.network.total_weights
            live, prunable = self.trainer.network.layer_live_weights, self.prunable_layers
            whole = sum(live) - sum(live[layer] for layer in prunable)
            if self.scope == "global":
                whole += sum(min(live[layer], self.min_keep) for layer in prunable)
            if count_for(number, weights) > weights - whole:
                raise ValueError(
                    f"{name}: expected a sparsity of at most {1 - whole / weights:.6g}, all that ignored_layers and "
                    f"min_keep leave, got {amount!r}"
                )
            return number
        if self.scope != "layer":
            raise ValueError(f"{name}: expected one number in scope {self.scope!r}, got {amount!r}")
        if not amount:
            raise ValueError(f"{name}: expected a number for at least one layer, got {amount!r}")
        checked: dict[int, float] = {}
        for layer, value in amount.items():
            index = _layer(name, layer, self.trainer.network.layers)
            if index in checked:
                raise ValueError(f"{name}: expected each layer once, got {amount!r}")
            if index not in self.prunable_layers:
                raise ValueError(f"{name}: expected layers that are not ignored, got layer {layer}")
            checked[index] = check.number(f"{name}[{layer}]", value, interval)
        return checked


def _norm_ratio(part: Floats, whole: Floats) -> float:
    """Euclidean norm of one vector by that of another, also where their squares are beyond all floats; or 0."""
    (part, of_part), (whole, of_whole) = to_unit(part), to_unit(whole)
    norm = float(np.linalg.norm(whole))
    return math.ldexp(float(np.linalg.norm(part)) / norm, of_part - of_whole) if norm else 0.0


def _warn(history: Sequence[RoundRecord]) -> None:
    """Tell whoever called `run` what they should know."""
    if history and history[-1].failed:
        record = history[-1]
        ends = ", then ".join(event.kind for event in record.events if event.kind in ("collapsed", "diverged"))
        warnings.warn(
            f"round {record.round} failed and ended the run: retraining {ends}. The network is as it was before this "
            f"round. {HELP}, or a smaller step of pruning",
            TrainingWarning,
            stacklevel=3,
        )
    rounds = [str(record.round) for record in history if Event("one answer") in record.events]
    if rounds:
        warnings.warn(
            f"after {'round' if len(rounds) == 1 else 'rounds'} {', '.join(rounds)} the network gives one answer to "
            "all training samples, though its probabilities tell them apart",
            TrainingWarning,
            stacklevel=3,
        )


def _part(schedule: LearningRates, done: int, length: int, total: int) -> LearningRates:
    """The schedule from when `done` of `total` epochs are over, for `length` of them."""
    return lambda progress: schedule((done + length * progress) / total)


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
