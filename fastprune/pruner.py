"""The pruner: pruning settings, single prunes, and runs of rounds."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastprune import check
from fastprune.criteria import Criterion, criterion
from fastprune.evaluation import LabelledSet, checked_samples, loss_of, training_set
from fastprune.gradients import MeanGradient
from fastprune.growers import GROWERS
from fastprune.progress import Callback, shown
from fastprune.records import Amount, PruneHistory, PruneRecord
from fastprune.rounds import ADAPTIVE, OnRound, Plan, goes_back_to, prune, run_rounds
from fastprune.rules import RULES
from fastprune.schedules import LearningRates, amounts, cosine
from fastprune.selection import LAYER_RATES, SCOPES, Selection, Selector, check_amount
from fastprune.sensitivity import SCAN, Sensitivity, scan
from fastprune.state import State
from fastprune.trainer import Trainer


class Pruner(check.Checked):
    """Prune a trainer's network round by round, and retrain it.

    Pruning is cumulative: pruned weights stay pruned, unless a grower brings them back. Once a layer is sparse enough,
    only its live weights are stored and computed, so that rounds get faster.

    Parameters
    ----------
    trainer : Trainer
        Trainer whose network is pruned and whose settings are used to retrain it.
    schedule : sequence of float, optional
        Number for each round: a schedule from `fastprune.schedules`, a list, or any object with `__len__` and
        `__getitem__`. In scope "layer", an item may also be a dict {layer: number}; layers it does not name are left
        alone. A schedule is not needed for single steps such as `step(sparsity=0.9)`.
    rule : {"sparsity", "percentile", "std"}, optional
        Meaning of the numbers. By default the schedule's `rule` or, if it has none, "sparsity".
        "sparsity": of W weights, exactly W - floor(sparsity * W + 1/2) stay live, for a sparsity in [0, 1). W counts
        all weights of the network, including ignored layers. In scope "layer" all prunable layers end at the same
        sparsity, give or take one weight, unless one is already past it. "percentile": the threshold is the largest
        that removes at most q percent of the live weights, q in [0, 100]. q = 100 removes all; q = 0 removes none, and
        so does a q of less than one weight. "std": the threshold is quality, at least 0, times the standard deviation
        of the live weights (Han et al. 2015, section 3). Both threshold rules remove exactly the weights that are not
        above the threshold. The threshold of an empty set is 0.
    scope : {"layer", "global"}, default "layer"
        Whether each layer is ranked alone, or all weights together.
    ignored_layers : iterable of int, default ()
        Layers that are not pruned, counted from 0; -1 is the output layer.
    criterion : {"magnitude", "random", "gradient"} or callable, default "magnitude"
        Score that ranks the weights; the lowest are removed. "random" is the baseline any method should beat.
        "gradient" is |w dL/dw|, the first-order change of the loss, on at most 2,048 training samples or on the
        `samples` of a step. A callable is called with a `fastprune.criteria.Context` for each layer to prune, and
        returns scores (n,) for its n live weights. The rule "std" works with magnitudes only.
    layer_rates : {"uniform", "erdos_renyi", "lamp"}, default "uniform"
        How the rule "sparsity" distributes live weights over layers in scope "layer": the same density everywhere; a
        density proportional to (fan_in + fan_out) / (fan_in * fan_out) (Mocanu et al. 2018, equation 3); or what
        remains after ranking all weights by LAMP score (Lee et al. 2021, equation 2). No layer gets more than it still
        has. For other rates, such as those that `sensitivity` recommends, put dicts in the schedule.
    min_keep : int, default 0
        Minimum number of live weights per layer (a layer with fewer keeps them all). In scope "global" an exact count
        stays exact, and the next smallest weights are removed instead; otherwise the layer loses less than requested,
        and the record says so.
    grower : {"random", "gradient"}, optional
        How weights are brought back when a round prunes. Each layer loses a further `drop_fraction` of its live
        weights, and the same number of pruned weights becomes live with value 0. The number of live weights is exactly
        the one requested. It may be higher than before; the extra weights are then distributed by layer size. "random"
        chooses at random, as SET does (Mocanu et al. 2018). "gradient" chooses the largest gradients, as RigL does
        (Evci et al. 2020), on the same samples as the criterion "gradient"; it takes the time and memory of the dense
        network. Unlike in these papers, weights removed in a round cannot come back in it, and all new ones start at 0.
        Needs rule "sparsity" and scope "layer".
    drop_fraction : float, default 0.3
        Fraction of a layer's live weights that a grower exchanges, in [0, 1]; less if fewer are pruned. It falls to 0
        over the schedule along half a cosine (Evci et al. 2020, section 3). A step with its own number uses all of it.
    seed : int, default 0
        Seed for the criterion "random" and for growers.

    Attributes
    ----------
    round : int
        Number of rounds done; the next one uses `schedule[round]`.

    Raises
    ------
    ValueError
        If an argument is not as described, or ignored layers make a sparsity of the schedule unreachable.

    Notes
    -----
    Extreme cases are defined. A layer without live weights passes on its biases; its threshold is 0 and it loses
    nothing. A network without live weights has sparsity 1 and infinite compression, and gives one answer for all
    samples: retraining it collapses. A sparsity of 0, or below the present one, removes nothing, and the record says
    so. If all weights are equal, or all 0, a count removes the first by index, and a threshold removes all, or none if
    all are more than q percent. A weight that is 0 but was never pruned is live.

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
        """The trainer whose network is pruned and retrained."""
        return self._trainer

    @property
    def rule(self) -> str:
        """The rule given, or else the schedule's."""
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
            Samples for a criterion or a grower that needs gradients.
        **number : float or {layer: float}, optional
            At most one of `q`, `quality` and `sparsity`: the number for the rule "percentile", "std" or "sparsity",
            whatever the pruner's own rule is. Without it, the step uses the schedule's next number and increments
            `round`.

        Returns
        -------
        PruneRecord

        Raises
        ------
        ValueError
            If an argument is not as described, a sparsity is out of reach, or all rounds of the schedule are done. The
            network is then unchanged.

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
        """Prune the weights where masks are False, whatever the pruner's settings.

        Parameters
        ----------
        masks : sequence of array_like (fan_out, fan_in) or None
            One mask per layer: booleans, or zeros and ones. False prunes; True changes nothing; None skips the layer.

        Returns
        -------
        PruneRecord

        Raises
        ------
        ValueError
            If the masks are not as described. The network is then unchanged.

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
        sample_weight: ArrayLike | None = None,
        validation: LabelledSet | None = None,
        test: LabelledSet | None = None,
        callback: Callback | None = None,
        on_round: OnRound | None = None,
        progress: bool = False,
    ) -> PruneHistory:
        """Prune and retrain for each remaining number of the schedule.

        If retraining ends collapsed (see `Evaluation.collapsed`) or diverges, it is tried once more at a tenth of the
        learning rate, from its best state or, if that had collapsed too, from the pruned weights. If the second attempt
        ends no better, the round has failed: the network goes back to the end of the previous round, and the run ends.
        The same happens after Ctrl-C or an exception in a callback. Another `run` starts again with that round; if no
        rounds are left, it returns an empty list.

        Parameters
        ----------
        x, y : array_like
            Training set, as for `Trainer.fit`.
        epochs : int or sequence of int
            Epochs of retraining, at least 0: one number for all rounds, or one for each round of the schedule,
            including those already done.
        learning_rate : float or "adaptive", optional
            Learning rate of retraining; by default the trainer's. The paper retrains LeNet with a tenth of it.
            "adaptive" multiplies the trainer's by the larger of two fractions: |W - W'| / (|W| sqrt(s)), where W and W'
            are the weights before and after the prune and s is the fraction of live weights removed; and the round's
            epochs divided by the trainer's `dense_epochs`. The factor is at most 1, and 1 for a network the trainer has
            not trained (Zimmer et al. 2023, section 3, where the schedule is "linear").
        learning_rate_schedule : str or callable, optional
            Learning-rate schedule, instead of the trainer's.
        restarts : bool, default True
            Whether the learning-rate schedule restarts in each round. With rounds as long as the dense training, this
            is learning-rate rewinding (Renda et al. 2020). Otherwise it runs once over the epochs of all rounds; with
            rounds of one epoch, this is gradual pruning (Zhu and Gupta 2017).
        rewind_to : State, optional
            Snapshot from early in training, before pruning. After each prune, the remaining weights and the optimizer
            state are reset to it (weight rewinding; Frankle et al. 2020, Renda et al. 2020).
        rounds : int, optional
            Maximum number of rounds, at least 0; by default all that are left.
        sample_weight : array_like (N,), optional
            Factor on each sample's loss, as for `Trainer.fit`.
        validation : (x, y), optional
            Held-out set. It is evaluated and selects the best state of each retraining, as in `Trainer.fit`.
        test : (x, y), optional
            Test set. It is only evaluated.
        callback : callable, optional
            Function called as in `Trainer.fit`. If it returns True, the retraining and the run end.
        on_round : callable, optional
            Function called with the record twice per round: after the prune, and when the round is `done` (retrained or
            given up). If it returns True, the run ends with this round.
        progress : bool, default False
            Whether to show a progress bar with round, epoch, loss, accuracy, pace and time left.

        Returns
        -------
        PruneHistory
            List of `RoundRecord`, one per round. A failed round is the last; its record describes the network that was
            given up.

        Raises
        ------
        ValueError
            If an argument is not as described.

        Warns
        -----
        TrainingWarning
            If a failed round ended the run, or a round's network gives one answer for all training samples.

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
        check.callback("on_round", on_round, "a RoundRecord")
        trainer, network, length = self.trainer, self.trainer.network, len(self.schedule)
        adaptive = learning_rate == ADAPTIVE
        if isinstance(learning_rate, str):
            check.one_of("learning_rate", learning_rate, [ADAPTIVE])
            learning_rate = None
        rate, schedule = trainer._rate(learning_rate, learning_rate_schedule)
        if not check.boolean("restarts", restarts) and adaptive:
            raise ValueError("restarts: expected True with the learning rate 'adaptive', got False")
        if rewind_to is not None:
            trainer._rewound("rewind_to", rewind_to)
            live, total = rewind_to.storage.layer_live_weights, rewind_to.storage.layer_total_weights
            if self.grower and any(live[layer] < total[layer] for layer in self.prunable_layers):
                raise ValueError("rewind_to: with a grower, expected a state with all weights live, got a pruned one")
        loss = loss_of(network, y)
        plan = Plan(
            data=training_set(network, x, y, loss, trainer.seed, sample_weight),
            loss=loss,
            validation=None if validation is None else checked_samples(network, "validation", validation, loss),
            test=None if test is None else checked_samples(network, "test", test, loss),
            epochs=_lengths(epochs, length),
            stop=length if rounds is None else min(length, self.round + check.integer("rounds", rounds, 0)),
            learning_rate=None if adaptive else rate,
            schedule=schedule,
            restarts=restarts,
            rewind_to=rewind_to,
            on_round=on_round,
        )
        with shown(check.boolean("progress", progress), callback) as told:
            history = run_rounds(self, plan, told)
        history.warn(stacklevel=3)
        return history

    def sensitivity(self, x: ArrayLike, y: ArrayLike, *, sparsities: Sequence[float] | None = None) -> Sensitivity:
        """Evaluate the network with each layer alone pruned to a series of sparsities; the network is unchanged.

        Parameters
        ----------
        x, y : array_like
            Samples to evaluate on, as for `Trainer.evaluate`. Use a held-out set to choose rates.
        sparsities : sequence of float, optional
            Sparsities of the pruned layer, ascending, each in [0, 1). A layer already past one is left as it is. By
            default 0.1 to 0.9, then on to 0.999 in ever smaller steps.

        Returns
        -------
        Sensitivity
            Sensitivity curves (Han et al. 2015, figure 6), with the method `recommend`, which has an example.

        Raises
        ------
        ValueError
            If an argument is not as described.
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
            raise ValueError("step: pass a number, such as step(sparsity=0.9), or give the pruner a schedule")
        if self.round >= rounds:
            done = "the one round of the schedule is" if rounds == 1 else f"all {rounds} rounds of the schedule are"
            raise ValueError(f"{done} done; give a longer schedule, or a number: step(sparsity=...)")
        state, number = self.trainer.network.state, self.round
        back = goes_back_to(self, state)
        try:
            amount = self._checked(f"schedule[{number}]", self.rule, self.schedule[number])
            record = self._prune(self.rule, amount, gradient, self.drop_fraction * cosine(number / rounds))
            self.round = number + 1
        except BaseException:  # including Ctrl-C between the prune and the count
            back()
            raise
        return record

    def _prune(self, rule: str, amount: Amount, gradient: MeanGradient | None, drop_fraction: float) -> PruneRecord:
        state = self.trainer.network.state
        selection = self._selector(drop_fraction).select(state, rule, amount, gradient)
        if self.trainer.network.state is not state:
            raise RuntimeError("the criterion pruned, restored or trained the network during the prune")
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
        """Refuse settings that are valid by themselves but not together."""
        self._selector().check(rule, self.rule)

    def _check_schedule(self) -> None:
        """Refuse a schedule with an invalid number in a remaining round."""
        schedule = self.schedule
        if check.one_of("schedule.rule", getattr(schedule, "rule", self.rule), RULES) != self.rule:
            raise ValueError(
                f"schedule: expected numbers for rule {self.rule!r}, got {schedule!r} for {schedule.rule!r}"  # type: ignore[attr-defined]
            )
        for number in range(self.round, len(schedule)):
            self._checked(f"schedule[{number}]", self.rule, schedule[number])

    def _checked(self, name: str, rule: str, amount: Amount) -> Amount:
        return check_amount(name, rule, amount, self._selector(), self.trainer.network)


def _lengths(epochs: int | Sequence[int], rounds: int) -> list[int]:
    """Epochs of each round of the schedule."""
    if isinstance(epochs, np.ndarray):
        epochs = epochs.tolist()
    if not isinstance(epochs, Sequence) or isinstance(epochs, str):
        return [check.integer("epochs", epochs, 0)] * rounds
    if len(epochs) != rounds:
        raise ValueError(f"epochs: expected one number for each of {rounds} rounds, got {len(epochs)}")
    return [check.integer(f"epochs[{i}]", number, 0) for i, number in enumerate(epochs)]


def _layers(name: str, value: Any) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        raise ValueError(f"{name}: expected a list of layers, got {value!r}") from None
