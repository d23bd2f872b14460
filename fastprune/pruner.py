"""The pruner: what a network is pruned by, one prune, and a run of rounds."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastprune import check
from fastprune.criteria import Criterion, criterion
from fastprune.evaluation import LabelledSet, checked_samples, loss_of
from fastprune.gradients import MeanGradient
from fastprune.growers import GROWERS
from fastprune.progress import Callback, shown
from fastprune.records import Amount, PruneHistory, PruneRecord
from fastprune.rounds import OnRound, Plan, goes_back_to, prune, run_rounds
from fastprune.rules import RULES
from fastprune.schedules import LearningRates, amounts, cosine
from fastprune.selection import LAYER_RATES, SCOPES, Selection, Selector, check_amount
from fastprune.sensitivity import SCAN, Sensitivity, scan
from fastprune.state import State
from fastprune.trainer import Trainer


class Pruner(check.Checked):
    """Prunes a trainer's network, round by round, and retrains it.

    Pruning is cumulative: what was pruned stays pruned, unless a grower brings it back. Once a
    layer is sparse enough, only its live weights are stored and computed, so that rounds get faster.

    Parameters
    ----------
    trainer : Trainer
        Its network is pruned, and its settings retrain.
    schedule : sequence of float, optional
        The number of each round: of `fastprune.schedules`, any list, or an object of your own with `__len__` and
        `__getitem__`. Numbers may also be dicts {layer: number}, in scope "layer": layers not named are left alone.
        Single steps with a number, `step(sparsity=0.9)`, need none.
    rule : {"sparsity", "percentile", "std"}, optional
        What a number means; if not given, what the schedule's `rule` says, or "sparsity", if it says nothing.
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
    criterion : {"magnitude", "random", "gradient"} or callable, default "magnitude"
        What weights are ranked by; the lowest go. "random" is the baseline that a method has to beat. "gradient" is
        |w dL/dw|, what the loss changes by to first order, on at most 2,048 training samples, or on the `samples` of a
        step. A function of your own is called for each layer that is pruned, with a `fastprune.criteria.Context`, and
        gives a score (n,) to each of its n live weights. The rule "std" takes magnitudes only.
    layer_rates : {"uniform", "erdos_renyi", "lamp"}, default "uniform"
        How the rule "sparsity", in scope "layer", shares out what is left: to all layers the same density; a density
        in proportion to (fan_in + fan_out) / (fan_in * fan_out) (Mocanu et al. 2018, equation 3); or what a ranking of
        all weights by LAMP scores leaves (Lee et al. 2021, equation 2). A layer gets no more than it still has. Rates
        of your own are dicts in the schedule, also those that `sensitivity` recommends.
    min_keep : int, default 0
        Live weights that each layer keeps at least (all it has, if these are fewer). In scope "global" an exact count
        stays exact, and the next smallest weights go instead; otherwise the layer removes less, and the record says so.
    grower : {"random", "gradient"}, optional
        What brings weights back when a round prunes. Each layer then loses more than its number asks for, by
        `drop_fraction`, and as many weights that were pruned become live, from 0: the number of live weights is exactly
        the one asked for, also if that is higher than before; what is grown for that is shared out by the layers'
        sizes. "random" draws lots, as SET does (Mocanu et al. 2018); "gradient" takes those with the largest gradients,
        as RigL does (Evci et al. 2020), on the samples of the criterion "gradient": to find them takes the time and
        memory of the dense network. Unlike in these papers, weights that have just gone do not come back at once, and
        all new ones start at 0. For rule "sparsity" and scope "layer".
    drop_fraction : float, default 0.3
        The fraction of a layer's live weights that is exchanged, in [0, 1]; fewer, if fewer are pruned. Over the rounds
        of the schedule it falls to 0 along half a cosine (Evci et al. 2020, section 3); steps with a number of their
        own take all of it.
    seed : int, default 0
        Seed for the criterion "random" and for growers.

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
    >>> pruner = fp.Pruner(trainer, schedule=[0.5, 0.8])
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
        schedule: Sequence[Amount] | None = None,
        rule: str | None = None,
        scope: str = "layer",
        ignored_layers: Iterable[int] = (),
        criterion: str | Criterion = "magnitude",
        layer_rates: str = "uniform",
        min_keep: int = 0,
        grower: str | None = None,
        drop_fraction: float = 0.3,
        seed: int = 0,
    ) -> None:
        if not isinstance(trainer, Trainer):
            raise ValueError(f"trainer: expected a Trainer, got {type(trainer).__name__}")
        self._trainer = trainer
        self.schedule, self.rule, self.scope = schedule, rule, scope  # type: ignore[assignment]
        self.criterion, self.layer_rates, self.min_keep = criterion, layer_rates, min_keep
        self.grower, self.drop_fraction, self.seed = grower, drop_fraction, seed
        self.ignored_layers = ignored_layers
        self.round = 0
        self._check(self.rule)
        self._check_schedule()

    schedule: Sequence[Amount]
    _checks = {  # noqa: RUF012
        "rule": check.optional(functools.partial(check.one_of, choices=RULES)),
        "scope": functools.partial(check.one_of, choices=SCOPES),
        "criterion": criterion,
        "layer_rates": functools.partial(check.one_of, choices=LAYER_RATES),
        "min_keep": functools.partial(check.integer, low=0),
        "grower": check.optional(functools.partial(check.one_of, choices=GROWERS)),
        "drop_fraction": functools.partial(check.number, interval="[0, 1]"),
        "seed": functools.partial(check.integer, low=0, high=2**64 - 1),
        "ignored_layers": lambda name, value: _layers(name, value),
        "schedule": amounts,
        "round": functools.partial(check.integer, low=0),
    }

    @property
    def trainer(self) -> Trainer:
        """The trainer whose network is pruned."""
        return self._trainer

    @property
    def rule(self) -> str:
        """As given, or the schedule's."""
        return self._rule or check.one_of("schedule.rule", getattr(self.schedule, "rule", "sparsity"), RULES)

    @rule.setter
    def rule(self, rule: str | None) -> None:
        self._rule = rule

    @property
    def prunable_layers(self) -> list[int]:
        """The layers that are not ignored."""
        count = self.trainer.network.n_layers
        ignored = {check.layer("ignored_layers", layer, count) for layer in self.ignored_layers}
        return [layer for layer in range(count) if layer not in ignored]

    def step(self, *, samples: LabelledSet | None = None, **number: Amount) -> PruneRecord:
        """Prune once, without retraining.

        Parameters
        ----------
        samples : (x, y), optional
            What a criterion or a grower that asks for gradients computes them by.
        **number : float or {layer: float}, optional
            `q`, `quality` or `sparsity`: the number for the rule "percentile", "std" or "sparsity", whatever the
            pruner's own rule is; at most one of them. With none, the schedule's next number is taken, and `round` goes
            up.

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
        >>> pruner = fp.Pruner(fp.Trainer(fp.MLP([4, 5])))
        >>> record = pruner.step(sparsity=0.25)
        >>> record.removed, record.sparsity
        (5, 0.25)
        >>> pruner.step(q=20.0).live  # a fifth of the 15 that were left
        12
        """
        rules = {rule.keyword: name for name, rule in RULES.items()}
        names = ", ".join(f"{keyword}=" for keyword in rules)
        if unknown := number.keys() - rules.keys():
            raise ValueError(f"step: expected one of {names}, got {', '.join(f'{name}=' for name in sorted(unknown))}")
        given = {keyword: amount for keyword, amount in number.items() if amount is not None}
        if len(given) > 1:
            raise ValueError(f"step: expected at most one of {names}, got {', '.join(f'{name}=' for name in given)}")
        network, gradient = self.trainer.network, None
        if samples is not None:
            x, y = check.pair("samples", samples)
            loss = loss_of(network, y)
            checked = checked_samples(network, "samples", (x, y), loss)
            gradient = MeanGradient(network.state, "samples", checked, loss, self.trainer.n_jobs)
        if not given:
            return self._next(gradient)
        ((keyword, amount),) = given.items()
        self._check(rules[keyword])
        amount = self._checked(keyword, rules[keyword], amount)
        return self._prune(rules[keyword], amount, gradient, self.drop_fraction)

    def apply(self, masks: Sequence[ArrayLike | None]) -> PruneRecord:
        """Prune the weights that masks leave out, whatever the pruner's settings are.

        Parameters
        ----------
        masks : sequence of array_like (fan_out, fan_in) or None
            One a layer: booleans, or zeros and ones. False prunes, True leaves as it is, None leaves the whole layer.

        Returns
        -------
        PruneRecord

        Raises
        ------
        ValueError
            If the masks are not as described. Nothing is then changed.

        Examples
        --------
        >>> import fastprune as fp
        >>> network = fp.MLP([2, 2, 1])
        >>> fp.Pruner(fp.Trainer(network)).apply([[[1, 0], [0, 1]], None])
        PruneRecord(sparsity 0.3333, 4 live)
        """
        network, state = self.trainer.network, self.trainer.network.state
        marks = check.masks("masks", masks, [network.layer(index).shape for index in range(network.n_layers)])
        removed = [np.empty(0, np.int64)]
        for layer, mask in enumerate(marks):
            if mask is not None:
                low, high = state.storage.layout.weights[layer : layer + 2]
                stored = low + np.flatnonzero(state.storage.live[low:high])
                removed.append(stored[~mask.reshape(-1)[state.storage.positions(layer)]])
        selection = Selection(np.concatenate(removed), {}, [], {})
        return prune(self, selection, rule="mask", scope="layer", requested=None)

    def run(
        self,
        x: ArrayLike,
        y: ArrayLike,
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
        on_round: OnRound | None = None,
        progress: bool = False,
    ) -> PruneHistory:
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
            Called as `Trainer.fit` calls it. If it returns True, the retraining ends there, and the run with it.
        on_round : callable, optional
            Called with the record twice a round: once pruned, and once retrained or given up, when it is `done`. If it
            returns True, the run ends with this round.
        progress : bool, default False
            Whether to show a bar: round, epoch, loss, accuracy, pace, time left.

        Returns
        -------
        PruneHistory
            A list of `RoundRecord`, one a round. If a round failed, it is the last; its record tells of the network
            that was given up.

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
        self._check(self.rule)
        self._check_schedule()
        check.callback("callback", callback, "a Progress")
        plan = Plan.of(
            self,
            (x, y),
            epochs,
            learning_rate=learning_rate,
            learning_rate_schedule=learning_rate_schedule,
            restarts=restarts,
            rewind_to=rewind_to,
            rounds=rounds,
            validation=validation,
            test=test,
            on_round=on_round,
        )
        with shown(check.boolean("progress", progress), callback) as told:
            history = run_rounds(self, plan, told)
        history.warn(stacklevel=3)
        return history

    def sensitivity(self, x: ArrayLike, y: ArrayLike, *, sparsities: Sequence[float] | None = None) -> Sensitivity:
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
        self._check(self.rule)
        return scan(self.trainer, self._selector(), x, y, SCAN if sparsities is None else sparsities)

    def __repr__(self) -> str:
        done = f"round {self.round} of {len(self.schedule)}" if len(self.schedule) else "no schedule"
        return f"Pruner({self.trainer.network!r}, rule={self.rule!r}, scope={self.scope!r}, {done})"

    def _next(self, gradient: MeanGradient | None) -> PruneRecord:
        """Prune by the schedule's next number."""
        self._check(self.rule)
        rounds = len(self.schedule)
        if not rounds:
            raise ValueError("step: expected a number, step(sparsity=...), or a schedule in the pruner, got neither")
        if self.round >= rounds:
            raise ValueError(
                f"{'the one round' if rounds == 1 else f'all {rounds} rounds'} of the schedule "
                f"{'is' if rounds == 1 else 'are'} done; give a longer schedule, or a number: step(sparsity=...)"
            )
        state, number = self.trainer.network.state, self.round
        back = goes_back_to(self, state)
        try:
            amount = self._checked(f"schedule[{number}]", self.rule, self.schedule[number])
            record = self._prune(self.rule, amount, gradient, self.drop_fraction * cosine(number / rounds))
            self.round = number + 1
        except BaseException:  # Ctrl-C between prune and count
            back()
            raise
        return record

    def _prune(self, rule: str, amount: Amount, gradient: MeanGradient | None, drop_fraction: float) -> PruneRecord:
        state = self.trainer.network.state
        selection = self._selector(drop_fraction).select(state, rule, amount, gradient)
        if self.trainer.network.state is not state:
            raise RuntimeError("the criterion pruned, restored or trained the network, which is being pruned")
        return prune(self, selection, rule=rule, scope=self.scope, requested=amount)

    def _selector(self, drop_fraction: float = 0.0) -> Selector:
        return Selector(
            criterion=self.criterion,
            scope=self.scope,
            layer_rates=self.layer_rates,
            layers=self.prunable_layers,
            min_keep=self.min_keep,
            seed=self.seed,
            grower=self.grower,
            drop_fraction=drop_fraction,
        )

    def _check(self, rule: str) -> None:
        """Refuse settings that do not go together; each by itself is as described."""
        self._selector().check(rule, self.rule)

    def _check_schedule(self) -> None:
        """Refuse a schedule of which a number that is still to come cannot be taken."""
        schedule = self.schedule
        if check.one_of("schedule.rule", getattr(schedule, "rule", self.rule), RULES) != self.rule:
            raise ValueError(
                f"schedule: expected numbers for rule {self.rule!r}, got {schedule!r}, for {schedule.rule!r}"  # type: ignore[attr-defined]
            )
        for number in range(self.round, len(schedule)):
            self._checked(f"schedule[{number}]", self.rule, schedule[number])

    def _checked(self, name: str, rule: str, amount: Amount) -> Amount:
        return check_amount(name, rule, amount, self._selector(), self.trainer.network)


def _layers(name: str, value: Any) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        raise ValueError(f"{name}: expected a list of layers, got {value!r}") from None
