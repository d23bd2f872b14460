"""The training loop: spans of steps in compiled code, and between them what a person or a decision needs."""

import functools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.blas import one_blas_thread
from fastprune.evaluation import Evaluation, TrainingSet, evaluate, evaluate_training
from fastprune.inference import workspace
from fastprune.kernels.layout import Floats, Ints, Parameters, Recipe, Samples, Span, Team, Update
from fastprune.kernels.random import WATCH, derive, shuffle
from fastprune.kernels.steps import train_steps
from fastprune.kernels.tile import LANES, all_finite
from fastprune.kernels.update import ADAM, SGD
from fastprune.network import LOSSES, MLP
from fastprune.schedules import LearningRates, learning_rates
from fastprune.state import State
from fastprune.team import Threads, count_threads

OPTIMIZERS = {"sgd": SGD, "adam": ADAM}

# Work of one kernel call, in floating-point operations: some 50 ms. A fixed number, never a measured time: where a
# span ends decides which state can be restored, and that must be the same on every run.
_SPAN_FLOP = 2e9
_STEP_FLOP = 1e6  # what a step costs besides its products

_WATCHED = 2048  # samples that tell a state from another: 2 % of an MNIST epoch, where all would take a third of it

HELP = "A smaller learning rate helps, or features scaled to about 1, or another seed"


class TrainingWarning(UserWarning):
    """What a person should know of a training that has come to its end."""


class DivergenceError(ArithmeticError):
    """The loss, or a weight, became NaN or infinite; the network is back in the last state in which all was finite.

    Attributes
    ----------
    epoch : int
        The epoch in which it did, from 1.
    """

    def __init__(self, what: str, value: str, epoch: int, epochs: int) -> None:
        super().__init__(what, value, epoch, epochs)  # as `args`, so that it comes whole from another process
        self.epoch = epoch

    def __str__(self) -> str:
        what, value, epoch, epochs = self.args
        return f"{what} became {value} in epoch {epoch} of {epochs}; the last finite state is restored. {HELP}"


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


@dataclass(frozen=True)
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
    restored: bool
    collapsed: bool
    seconds: float


@dataclass(frozen=True)
class Progress:
    """What a callback is told.

    Attributes
    ----------
    step, steps : int
        Steps done in this fit, and all there are to do.
    loss : float
        Mean of the last step's batch.
    """

    step: int
    steps: int
    loss: float


Callback = Callable[[Progress], None]
LabelledSet = tuple[npt.ArrayLike, npt.ArrayLike]


class Trainer(check.Checked):
    """Trains a network; pruned weights stay exactly 0.

    All settings but the network and the optimizer can be changed later.

    Parameters
    ----------
    network : MLP
        Trained in place.
    optimizer : {"sgd", "adam"}, default "sgd"
        Adam takes `momentum` as its beta_1; beta_2 is 0.999 and epsilon 1e-8.
    learning_rate : float, default 0.1
        Of the first step, above 0.
    learning_rate_schedule : {"constant", "step", "linear", "cosine"} or callable, default "constant"
        Factor of the learning rate over one fit; each begins anew. A callable is given the part that is done, in
        [0, 1), and returns the factor, at least 0.
    momentum : float, default 0.9
        In [0, 1).
    nesterov : bool, default False
        Nesterov's momentum (SGD only).
    l1, l2 : float, default 0.0
        Decay, at least 0: l1 * sign(w) + l2 * w joins the gradient of each weight, not of biases. `l2` is PyTorch's
        `weight_decay`.
    input_dropout : float, default 0.0
        Probability with which each feature of a sample is set to 0 in training, in [0, 1); the others are scaled up.
        Srivastava et al. 2014 drop inputs, too; pruned networks, which rest on few of them, gain most by it.
    dropout : float, default 0.0
        The same for hidden units.
    scale_dropout : bool, default True
        Whether a hidden layer's dropout is multiplied by the square root of its weights' density, that of all its
        weights being 1 (Han et al. 2015, equation 3), in each fit anew.
    batch_size : int or None, default 128
        Samples of a step; the last batch of an epoch takes what is left. None: all samples, in their order.
    tolerance : float or None, default None
        If given, a fit ends when the loss has not fallen by more than this for `patience` epochs (the paper's "while
        not converged"): the held-out loss if there is a held-out set, else the training loss.
    patience : int, default 10
        Epochs without improvement until a fit is converged. Short epochs are looked at together, at most `patience` of
        them: so a fit may go on for that many more.
    restore_best : bool, default True
        Whether a fit ends in the best state it has been in, see `fit`; if not, in the last one.
    n_jobs : int, default 1
        Number of threads; -1 for one a core. Results do not depend on it.
    seed : int, default 0
        Of shuffling and dropout. The same seed gives the same result, bit for bit, on the same machine.

    Attributes
    ----------
    dense_epochs : int
        Epochs made before the first prune, all fits together.

    Raises
    ------
    ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import fastprune as fp
    >>> data = fp.load_dataset("digits")
    >>> network = fp.MLP([64, 32, 10], seed=0)
    >>> trainer = fp.Trainer(network, learning_rate=0.1, batch_size=64, seed=0)
    >>> history = trainer.fit(data.x_train, data.y_train, epochs=20)
    >>> history.train.accuracy > 0.98
    True
    """

    def __init__(
        self,
        network: MLP,
        *,
        optimizer: str = "sgd",
        learning_rate: float = 0.1,
        learning_rate_schedule: str | LearningRates = "constant",
        momentum: float = 0.9,
        nesterov: bool = False,
        l1: float = 0.0,
        l2: float = 0.0,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        scale_dropout: bool = True,
        batch_size: int | None = 128,
        tolerance: float | None = None,
        patience: int = 10,
        restore_best: bool = True,
        n_jobs: int = 1,
        seed: int = 0,
    ) -> None:
        if not isinstance(network, MLP):
            raise ValueError(f"network: expected an MLP, got {type(network).__name__}")
        self._network = network
        self.learning_rate = learning_rate
        self.learning_rate_schedule = learning_rates("learning_rate_schedule", learning_rate_schedule)
        self.momentum = momentum
        self.nesterov = nesterov
        self.l1, self.l2 = l1, l2
        self.input_dropout, self.dropout, self.scale_dropout = input_dropout, dropout, scale_dropout
        self.batch_size = batch_size
        self.tolerance, self.patience, self.restore_best = tolerance, patience, restore_best
        self.n_jobs = n_jobs
        self.seed = seed
        self._optimizer = check.one_of("optimizer", optimizer, OPTIMIZERS)  # what it keeps is laid out for it
        self._check_nesterov()
        self._owner = object()  # see `State`
        self.dense_epochs, self._whole = 0, network.live_weights

    @property
    def network(self) -> MLP:
        """The network that is trained."""
        return self._network

    learning_rate_schedule: LearningRates
    _checks = {  # noqa: RUF012
        "learning_rate": functools.partial(check.number, interval="(0, inf)"),
        "learning_rate_schedule": learning_rates,
        "momentum": functools.partial(check.number, interval="[0, 1)"),
        "nesterov": check.boolean,
        "l1": functools.partial(check.number, interval="[0, inf)"),
        "l2": functools.partial(check.number, interval="[0, inf)"),
        "input_dropout": functools.partial(check.number, interval="[0, 1)"),
        "dropout": functools.partial(check.number, interval="[0, 1)"),
        "scale_dropout": check.boolean,
        "batch_size": check.optional(functools.partial(check.integer, low=1)),
        "tolerance": check.optional(functools.partial(check.number, interval="[0, inf)")),
        "patience": functools.partial(check.integer, low=1),
        "restore_best": check.boolean,
        "n_jobs": count_threads,
        "seed": functools.partial(check.integer, low=0, high=2**64 - 1),
    }

    def fit(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        epochs: int,
        *,
        learning_rate: float | None = None,
        learning_rate_schedule: str | LearningRates | None = None,
        loss: str | None = None,
        validation: LabelledSet | None = None,
        callback: Callback | None = None,
    ) -> History:
        """Train for a number of epochs, or until converged if the trainer has a tolerance, and keep the best state.

        The best state is the one with the lowest loss: of the held-out set if there is one, else of the training set,
        or of 2,048 samples of it. States are compared at the start and after every epoch (after several, where these
        take a few milliseconds and there is no held-out set). With `restore_best` off, the last one is kept. Momentum,
        and what else the optimizer keeps, lasts from one fit to the next, unless another trainer trains the network in
        between. Ctrl-C and exceptions of the callback leave the network with what it has learned.

        Parameters
        ----------
        x : array_like (N, F)
            Training samples: any real numbers, converted to the network's dtype.
        y : array_like
            Their labels: whole numbers (N,) in 0 .. K-1, or floats or 0/1 labels, (N, K) or, for one output, (N,).
            See `MLP` for the loss they choose if it is not named.
        epochs : int
            Passes over the samples, at least 0; the most that are made if the trainer has a tolerance.
        learning_rate : float or None, default None
            Used instead of the trainer's in this fit.
        learning_rate_schedule : str, callable or None, default None
            Likewise.
        loss : {"softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"} or None, default None
            What the outputs mean, for a network that has no loss yet.
        validation : (x, y) or None, default None
            A held-out set.
        callback : callable or None, default None
            Called with a `Progress` after each span of steps, some 20 times a second.

        Returns
        -------
        History

        Raises
        ------
        ValueError
            If an argument is not as described, or the loss or a weight is not finite to begin with. Nothing has then
            been changed.
        RuntimeError
            If the callback pruned, restored or trained the network.
        DivergenceError
            If the loss, of training or held-out samples, or a weight becomes NaN or infinite. The network is then in
            the last state that was compared.

        Warns
        -----
        TrainingWarning
            If the training ends collapsed (see `Evaluation`), or the features are far from scale 1.

        Examples
        --------
        >>> import fastprune as fp
        >>> trainer = fp.Trainer(fp.MLP([1, 1]), learning_rate=0.1)
        >>> history = trainer.fit([[0.0], [1.0], [2.0]], [0.5, 1.5, 2.5], epochs=200)
        >>> round(history.train.loss, 3), len(history.epochs)
        (0.0, 200)
        """
        epochs = check.integer("epochs", epochs, 0)
        rate = self.learning_rate if learning_rate is None else learning_rate
        rate = check.number("learning_rate", rate, "(0, inf)")
        schedule = self.learning_rate_schedule
        if learning_rate_schedule is not None:
            schedule = learning_rates("learning_rate_schedule", learning_rate_schedule)
        check.callback("callback", callback, "a Progress")
        loss = self.loss_for(y, loss)
        data = self.training_set((x, y), loss)
        held_out = None if validation is None else self.samples("validation", validation, loss)
        if fault := check.scale(data.watched.x):
            warnings.warn(f"x: {fault}", TrainingWarning, stacklevel=2)
        history = self.fit_samples(data, loss, epochs, rate, schedule, held_out, callback)
        if history.collapsed or history.train.collapsed:
            end = "the best state before that is restored"
            if history.train.collapsed:
                end = "the network gives one answer to all samples, and knows no more than how frequent labels are"
            warnings.warn(
                f"training collapsed: {end} (loss {history.train.loss:.4g}). {HELP}", TrainingWarning, stacklevel=2
            )
        return history

    def fit_samples(
        self,
        data: TrainingSet,
        loss: str,
        epochs: int,
        learning_rate: float,
        schedule: LearningRates,
        held_out: Samples | None,
        callback: Callback | None,
    ) -> History:
        """Do what `fit` does with what is checked, without its warnings; not part of the interface."""
        self._check_nesterov()
        network, samples = self.network, data.samples
        count = len(samples.x)
        batch = count if self.batch_size is None else min(self.batch_size, count)
        batches = -(-count // batch)
        steps = epochs * batches
        rates = _rates(learning_rate, schedule, steps)
        started = time.perf_counter()

        with Threads(self.n_jobs) as threads:
            span = self._span(batch, batches, held_out is not None)
            losses, hits = np.empty(steps), np.empty(steps, np.int64)
            watched = held_out or data.watched  # what states are compared by
            start = self.snapshot()
            checkpoints = _Checkpoints(start, evaluate(start, watched, loss, threads))
            if fault := _fault(start, checkpoints.last_evaluation):
                what, value = fault
                raise ValueError(f"network: expected a finite loss and weights to begin with, got {value} for {what}")
            dense = network.live_weights == self._whole
            run = self._prepare(samples, batch, loss, threads)
            convergence = _Convergence(self.tolerance, self.patience)
            records: list[Epoch] = []
            step = 0
            network.loss = loss
            while step < steps and not convergence.reached:
                # Whole epochs, or a part of one: never the end of one epoch and the start of the next.
                stop = min(step + span, steps if span >= batches else (step // batches + 1) * batches)
                done = run(losses[step:stop], hits[step:stop], rates[step:stop], step)
                if step + done < stop:
                    network.state = checkpoints.last
                    raise DivergenceError("the loss", str(losses[step + done]), (step + done) // batches + 1, epochs)
                if dense:
                    self.dense_epochs += stop // batches - step // batches
                step = stop
                if callback is not None:
                    size = batch if step % batches else count - (batches - 1) * batch
                    state, updates = network.state, network.state.updates[0]
                    callback(Progress(step, steps, float(losses[step - 1] / size)))
                    if network.state is not state or state.updates[0] != updates:
                        raise RuntimeError("the callback pruned, restored or trained the network, which is in training")
                if step % batches:
                    continue

                now = evaluate(network.state, watched, loss, threads)
                if fault := _fault(network.state, now):
                    network.state = checkpoints.last
                    raise DivergenceError(*fault, step // batches, epochs)
                checkpoints.add(network.state.copy(), now)
                for epoch in range(len(records), step // batches):
                    part = slice(epoch * batches, (epoch + 1) * batches)
                    mean = float(losses[part].sum() / count)
                    accuracy = None if loss == "mean_squared_error" else float(hits[part].sum() / count)
                    validated = None if held_out is None else now
                    records.append(Epoch(epoch + 1, float(rates[part.start]), mean, accuracy, validated))
                    convergence.add(mean if validated is None else validated.loss)

            def train_of(known: Evaluation) -> Evaluation:
                return evaluate_training(network.state, data, loss, threads, None if held_out else known)

            last, best = checkpoints.last_evaluation, checkpoints.best_evaluation
            train = train_of(last)
            collapsed = train.collapsed
            if restored := self.restore_best and best.loss < last.loss:
                network.state = checkpoints.best
                train = train_of(best)
        return History(
            epochs=tuple(records),
            train=train,
            validation=None if held_out is None else best if restored else last,
            converged=convergence.reached,
            restored=restored,
            collapsed=collapsed,
            seconds=time.perf_counter() - started,
        )

    def evaluate(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Evaluation:
        """Loss and accuracy of the network on labelled samples.

        Parameters
        ----------
        x : array_like (N, F)
            Samples.
        y : array_like
            Their labels, as for `fit`.

        Returns
        -------
        Evaluation

        Raises
        ------
        ValueError
            If an argument is not as described.

        Examples
        --------
        >>> import fastprune as fp
        >>> trainer = fp.Trainer(fp.MLP([2, 3], loss="softmax_cross_entropy", initialization=1e-9))
        >>> evaluation = trainer.evaluate([[1.0, 2.0], [3.0, 4.0]], [0, 2])
        >>> round(evaluation.loss, 4)  # log(3): it knows nothing
        1.0986
        """
        loss = self.loss_for(y)
        samples = self.samples(("x", "y"), (x, y), loss)
        with Threads(self.n_jobs) as threads:
            return evaluate(self.network.state, samples, loss, threads)

    def prune(self, removed: npt.NDArray[np.int64]) -> None:
        """Remove weights: value, mask and optimizer state become exactly 0, for good. `Pruner` chooses them.

        Parameters
        ----------
        removed : ndarray of int64 (n,)
            Their positions among the weights that the network stores: layer after layer, each row by row.

        Raises
        ------
        ValueError
            If a position is not that of a stored weight. Nothing is then removed.
        """
        state = self.network.state
        weights = state.storage.layout.biases[0]
        removed = check.positions("removed", removed)
        if removed.size and not 0 <= removed.min() <= removed.max() < weights:
            raise ValueError(
                f"removed: expected positions in 0 .. {weights - 1}, got {removed.min()} .. {removed.max()}"
            )
        if removed.size:
            self.network.state = state.without(removed)

    def rewind(self, state: State) -> None:
        """Set the weights that are live, and the biases, to what they were in an earlier state; masks stay.

        Parameters
        ----------
        state : State
            What `snapshot` of this trainer returned, before any weight went that is live now.

        Raises
        ------
        ValueError
            If it is no such state. Nothing is then changed.

        Examples
        --------
        >>> import fastprune as fp
        >>> trainer = fp.Trainer(fp.MLP([4, 3]))
        >>> state = trainer.snapshot()
        >>> _ = trainer.fit([[1.0, 2.0, 3.0, 4.0]], [2], epochs=5)
        >>> _ = fp.Pruner(trainer, schedule=[0.5]).step()
        >>> trainer.rewind(state)
        >>> trainer.network.sparsity, int(trainer.network.biases[0].any())
        (0.5, 0)
        """
        self.network.state = self.rewound("state", state)

    def rewound(self, name: str, state: State) -> State:
        """What `rewind` would make of the network; errors call the state by `name`. Not part of the interface."""
        self._check_state(name, state)
        try:
            return replace(self.network.state.rewound(state), owner=self._owner)
        except ValueError as error:
            raise ValueError(f"{name}: expected a state from before the pruning, got one without {error}") from None

    def snapshot(self) -> State:
        """Copy all that training and pruning change: parameters, masks and the optimizer's state.

        Returns
        -------
        State
            For `restore`.

        Examples
        --------
        >>> import fastprune as fp
        >>> trainer = fp.Trainer(fp.MLP([4, 3]))
        >>> state = trainer.snapshot()
        >>> _ = fp.Pruner(trainer, schedule=[0.5]).step()
        >>> trainer.restore(state)
        >>> trainer.network.sparsity
        0.0
        """
        return self._state().copy()

    def restore(self, state: State) -> None:
        """Go back to an earlier state.

        Parameters
        ----------
        state : State
            What `snapshot` of this trainer returned.

        Raises
        ------
        ValueError
            If it is no such state. Nothing is then changed.
        """
        self._check_state("state", state)
        self.network.state = replace(state.copy(), owner=self._owner)

    def _state(self) -> State:
        """The network's state; what the optimizer keeps is 0, if another trainer trained the network last."""
        state = self.network.state
        return state if state.owner is self._owner else state.begun(self._owner, self._optimizer == "adam")

    def _check_state(self, name: str, state: State) -> None:
        network = self.network
        if not isinstance(state, State):
            raise ValueError(f"{name}: expected a snapshot of this trainer, got {type(state).__name__}")
        try:
            state.check()
        except ValueError as error:
            raise ValueError(f"{name}: expected a snapshot of this trainer, got a damaged one: {error}") from None
        if (
            state.storage.sizes != network.sizes
            or state.storage.layout.activation != network.layout.activation
            or state.values.dtype != network.dtype
            or state.velocity.size == 0
            or (state.square.size > 0) != (self._optimizer == "adam")
        ):
            raise ValueError(f"{name}: expected a snapshot of this trainer, got one of another network or optimizer")

    def _check_nesterov(self) -> None:
        if self.nesterov and self._optimizer != "sgd":
            raise ValueError(f"nesterov: expected optimizer 'sgd', got {self._optimizer!r}")

    def loss_for(self, y: npt.ArrayLike, named: str | None = None) -> str:
        """The loss that the network has, or that is named, or that the labels choose; not part of the interface."""
        known = self.network.loss
        if named is not None and check.one_of("loss", named, LOSSES) != (known or named):
            raise ValueError(f"loss: expected {known!r}, which the network has, got {named!r}")
        return known or named or check.infer_loss("y", y, self.network.sizes[-1])

    def training_set(self, pair: LabelledSet, loss: str) -> TrainingSet:
        """Check x and y; not part of the interface."""
        samples = self.samples(("x", "y"), pair, loss)
        return TrainingSet(samples, self._watched(samples))

    def samples(self, name: str | tuple[str, str], pair: LabelledSet, loss: str) -> Samples:
        """A checked set, for the loss given; errors name it, or its two parts, so; not part of the interface."""
        x_name, y_name = name if isinstance(name, tuple) else (f"{name}[0]", f"{name}[1]")
        x, y = check.pair(name if isinstance(name, str) else name[0], pair)
        sizes, dtype = self.network.sizes, self.network.dtype
        checked = check.samples(x_name, x, sizes[0], dtype)
        return Samples(checked, *check.labels(y_name, y, len(checked), sizes[-1], loss, dtype))

    def _watched(self, samples: Samples) -> Samples:
        """All samples, or of many as many as tell one state from another."""
        count = len(samples.x)
        if count <= _WATCHED:
            return samples
        order = np.empty(count, np.int64)
        # Compiled code gives back a Python integer, of which the next call would take the type from its size.
        shuffle(order, np.uint64(derive(np.uint64(self.seed), WATCH)))
        some = np.sort(order[:_WATCHED])
        labels, targets = samples.labels, samples.targets
        return Samples(
            samples.x[some], labels[some] if labels.size else labels, targets[some] if targets.size else targets
        )

    def _span(self, batch: int, batches: int, every_epoch: bool) -> int:
        """Steps of one kernel call: a multiple of the epoch's batches, or fewer than these."""
        span = max(1, int(_SPAN_FLOP / (6 * self.network.layout.biases[0] * batch + _STEP_FLOP)))
        if span < batches:
            return span
        if every_epoch:
            return batches
        most = span if self.tolerance is None else min(span, self.patience * batches)
        return most // batches * batches

    def _keep(self) -> Floats:
        """The probability with which each level's units are kept; see `Workspace.keep`."""
        density = 1 - np.array(self.network.layer_sparsity[:-1])
        hidden = self.dropout * (np.sqrt(density) if self.scale_dropout else np.ones_like(density))
        return 1 - np.concatenate([[self.input_dropout], hidden, [0.0]])

    def _prepare(
        self, samples: Samples, batch: int, loss: str, threads: Threads
    ) -> Callable[[Floats, Ints, Floats, int], int]:
        """What makes a span of steps on the network, from its present state on."""
        network, state = self.network, self._state()
        layout = state.storage.layout
        space = workspace(np.arange(len(samples.x)), -(-batch // LANES), layout, network.dtype, training=True)
        gradient = np.zeros_like(state.values)
        parameters = Parameters(state.values, state.storage.live, gradient, state.velocity, state.square)
        update = Update(OPTIMIZERS[self._optimizer], self.momentum, self.nesterov, self.l1, self.l2)
        recipe = Recipe(LOSSES[loss], batch, np.uint64(self.seed), update)
        space.keep[:] = self._keep()

        def run(losses: Floats, hits: Ints, rates: Floats, step: int) -> int:
            span = Span(rates, losses, hits, step, state.updates)

            def call(team: Team) -> int:
                return train_steps(parameters, space, layout, samples, recipe, span, team)

            network.state = state  # from now on it is this trainer's
            with one_blas_thread():
                return threads.run(call)

        return run


def _fault(state: State, evaluation: Evaluation) -> tuple[str, str] | None:
    """What is not finite, and its value. A weight can be infinite while the loss is finite."""
    if not math.isfinite(evaluation.loss):
        return "the loss", str(evaluation.loss)
    if not all(all_finite(vector) for vector in state.vectors):
        return "a weight, or what the optimizer keeps of it,", "infinite or NaN"
    return None


def _rates(rate: float, schedule: LearningRates, steps: int) -> Floats:
    """The learning rate of each step."""
    expected = "learning_rate_schedule: expected factors in [0, inf)"
    try:
        values = [schedule(step / steps) for step in range(steps)]
    except TypeError as error:  # it takes no number
        raise ValueError(f"{expected}, got an error: {error}") from error
    try:
        factors = np.array(values or np.empty(0))
    except ValueError:  # lists of different lengths
        factors = np.empty(0, object)
    if factors.dtype.kind not in "biuf" or factors.shape != (steps,):
        raise ValueError(f"{expected}, got {check.shown(values[0])}")
    with np.errstate(over="ignore"):
        factors = factors.astype(np.float64)
        rates = rate * factors
    bad = factors[~((factors >= 0) & (factors < np.inf))]
    if bad.size:
        raise ValueError(f"{expected}, got {bad[0]:g}")
    if not np.isfinite(rates).all():
        raise ValueError(f"learning_rate: expected a finite one after the schedule's factor, got {rate:g}")
    return rates


class _Checkpoints:
    """The states a fit can go back to, with their evaluations: the last one, and the best one."""

    def __init__(self, state: State, evaluation: Evaluation) -> None:
        self.last = self.best = state
        self.last_evaluation = self.best_evaluation = evaluation

    def add(self, state: State, evaluation: Evaluation) -> None:
        """Take in a later state."""
        self.last, self.last_evaluation = state, evaluation
        if not self.best_evaluation.loss <= evaluation.loss:
            self.best, self.best_evaluation = self.last, evaluation


class _Convergence:
    """Reached once the loss has not fallen by more than `tolerance` for `patience` epochs."""

    def __init__(self, tolerance: float | None, patience: int) -> None:
        self._tolerance, self._patience = tolerance, patience
        self._target, self._stale = math.inf, 0
        self.reached = False

    def add(self, loss: float) -> None:
        """Take in the loss of one more epoch."""
        improved = loss < self._target - (self._tolerance or 0.0)
        self._target, self._stale = (loss, 0) if improved else (self._target, self._stale + 1)
        self.reached = self.reached or (self._tolerance is not None and self._stale >= self._patience)
