"""The trainer: settings of a training, and what can be asked of one."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace

from numpy.typing import ArrayLike

from fastprune import check
from fastprune.evaluation import LabelledSet, checked_samples, evaluate, loss_of, training_set
from fastprune.gradients import Gradient, MeanGradient, by_layer
from fastprune.network import MLP
from fastprune.progress import Callback, shown
from fastprune.records import HELP, Evaluation, History, TrainingWarning
from fastprune.schedules import LearningRates, learning_rates
from fastprune.spans import OPTIMIZERS
from fastprune.state import State
from fastprune.team import Threads, count_threads
from fastprune.training import train


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
        Seed for shuffling and dropout. The same seed gives the same result, bit for bit, on the same machine.

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
        self._optimizer = check.one_of("optimizer", optimizer, OPTIMIZERS)
        self._check_nesterov()
        self._owner = object()  # see `State`
        self.dense_epochs, self._whole = 0, network.state.storage

    @property
    def network(self) -> MLP:
        """The network that is trained."""
        return self._network

    @property
    def optimizer(self) -> str:
        """The optimizer: what it keeps of each parameter is laid out for it."""
        return self._optimizer

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
        x: ArrayLike,
        y: ArrayLike,
        epochs: int,
        *,
        learning_rate: float | None = None,
        learning_rate_schedule: str | LearningRates | None = None,
        loss: str | None = None,
        validation: LabelledSet | None = None,
        callback: Callback | None = None,
        progress: bool = False,
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
            Called with a `Progress` some 20 times a second, and after each epoch if there is a held-out set. If it
            returns True, the fit ends there.
        progress : bool, default False
            Whether to show a bar: epoch, loss, accuracy, pace, time left.

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
        loss = loss_of(self.network, y, loss)
        data = training_set(self.network, x, y, loss, self.seed)
        held_out = None if validation is None else checked_samples(self.network, "validation", validation, loss)
        if fault := check.scale(data.watched.x):
            warnings.warn(f"x: {fault}", TrainingWarning, stacklevel=2)
        with shown(check.boolean("progress", progress), callback) as told:
            history = train(self, data, loss, epochs, rate, schedule, held_out, told)
        if history.collapsed or history.train.collapsed:
            end = "the best state before that is restored"
            if history.train.collapsed:
                end = "the network gives one answer to all samples, and knows no more than how frequent labels are"
            warnings.warn(
                f"training collapsed: {end} (loss {history.train.loss:.4g}). {HELP}", TrainingWarning, stacklevel=2
            )
        return history

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Evaluation:
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
        loss = loss_of(self.network, y)
        samples = checked_samples(self.network, ("x", "y"), (x, y), loss)
        with Threads(self.n_jobs) as threads:
            return evaluate(self.network.state, samples, loss, threads)

    def gradient(self, x: ArrayLike, y: ArrayLike, *, pruned: bool = False) -> Gradient:
        """The gradient of the mean loss on labelled samples, without penalties and dropout. Nothing is changed.

        Parameters
        ----------
        x : array_like (N, F)
            Samples.
        y : array_like
            Their labels, as for `fit`.
        pruned : bool, default False
            Whether to give the gradient by pruned weights, too, which is 0 otherwise. It takes the time of the dense
            network; the memory of one is taken in any case, by the arrays.

        Returns
        -------
        Gradient
            `weights`, one (fan_out, fan_in) array a layer, and `biases`, one (fan_out,) array a layer.

        Raises
        ------
        ValueError
            If an argument is not as described, or the gradient overflows.

        Examples
        --------
        >>> import fastprune as fp
        >>> network = fp.MLP.from_weights([[[2.0]]], loss="mean_squared_error")
        >>> gradient = fp.Trainer(network).gradient([[3.0]], [5.0])  # 2 (2 * 3 - 5) 3, and 2 (2 * 3 - 5)
        >>> gradient.weights[0].item(), gradient.biases[0].item()
        (6.0, 2.0)
        """
        loss = loss_of(self.network, y)
        samples = checked_samples(self.network, ("x", "y"), (x, y), loss)
        found = MeanGradient(self.network.state, "x", samples, loss, self.n_jobs)
        pruned = check.boolean("pruned", pruned)
        return by_layer(found.full if pruned else found.stored, pruned)

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
        self.network.state = self._rewound("state", state)

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

    def _rewound(self, name: str, state: State) -> State:
        """What `rewind` makes of the network's state; errors call the earlier one by `name`."""
        self._check_state(name, state)
        try:
            return replace(self.network.state.rewound(state), owner=self._owner)
        except ValueError as error:
            raise ValueError(
                f"{name}: expected a state in which all weights were live that are live now, got one without {error}"
            ) from None

    def __repr__(self) -> str:
        return f"Trainer({self.network!r}, optimizer={self.optimizer!r}, learning_rate={self.learning_rate:g})"

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
            or state.storage.layout.activation != network.state.storage.layout.activation
            or state.values.dtype != network.dtype
            or state.velocity.size == 0
            or (state.square.size > 0) != (self._optimizer == "adam")
        ):
            raise ValueError(f"{name}: expected a snapshot of this trainer, got one of another network or optimizer")

    def _check_nesterov(self) -> None:
        if self.nesterov and self._optimizer != "sgd":
            raise ValueError(f"nesterov: expected optimizer 'sgd', got {self._optimizer!r}")
