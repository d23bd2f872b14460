"""The trainer: training settings, and the operations on a network that use them."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace

from numpy.typing import ArrayLike

from fastprune import check
from fastprune.evaluation import LabelledSet, checked_samples, evaluate, loss_of, training_set
from fastprune.gradients import Gradient, MeanGradient
from fastprune.network import MLP
from fastprune.progress import Callback, shown
from fastprune.records import HELP, Evaluation, History, TrainingWarning
from fastprune.schedules import LearningRates, learning_rates
from fastprune.spans import OPTIMIZERS
from fastprune.state import State
from fastprune.team import Threads, count_threads
from fastprune.training import train


class Trainer(check.Checked):
    """Train a network; pruned weights stay exactly 0.

    All settings except the network and the optimizer can be changed later.

    Parameters
    ----------
    network : MLP
        Network to train in place.
    optimizer : {"sgd", "adam"}, default "sgd"
        Optimizer. Adam uses `momentum` as its beta_1; beta_2 is 0.999 and epsilon 1e-8.
    learning_rate : float, default 0.1
        Learning rate of the first step, above 0.
    learning_rate_schedule : {"constant", "step", "linear", "cosine"} or callable, default "constant"
        Factor on the learning rate over one fit; every fit starts it anew. A callable takes the fraction of the fit
        that is done, in [0, 1), and returns the factor, at least 0.
    momentum : float, default 0.9
        Momentum, in [0, 1).
    nesterov : bool, default False
        Whether to use Nesterov momentum (SGD only).
    l1, l2 : float, default 0.0
        Decay, at least 0: l1 * sign(w) + l2 * w is added to the gradient of each weight, but not of biases. `l2` is
        PyTorch's `weight_decay`.
    input_dropout : float, default 0.0
        Probability of setting a feature of a sample to 0 in training, in [0, 1); the others are scaled up (Srivastava
        et al. 2014). It helps with images, most of all pruned networks, and can do harm where few features are left.
    dropout : float, default 0.0
        The same for hidden units.
    scale_dropout : bool, default True
        Whether to multiply a hidden layer's dropout by the square root of the density of its weights, at the start of
        each fit (Han et al. 2015, equation 3).
    batch_size : int or None, default 128
        Samples per step; the last batch of an epoch may be smaller. None: all samples, in their given order.
    tolerance : float or None, default None
        If given, a fit ends once the loss has not fallen by more than this for `patience` epochs (the paper's "while
        not converged"). It is the held-out loss if there is a held-out set, else the training loss.
    patience : int, default 10
        Epochs without improvement until a fit has converged. Short epochs are checked in groups of up to `patience`
        epochs, so a fit may run for that many more.
    restore_best : bool, default True
        Whether a fit ends in its best state (see `fit`) instead of its last.
    n_jobs : int, default 1
        Most threads to use; -1 means one per core. Small steps use fewer. Results do not depend on it.
    seed : int, default 0
        Seed for shuffling and dropout. The same seed gives the same result, bit for bit, on the same machine.

    Attributes
    ----------
    dense_epochs : int
        Epochs trained before the first prune, over all fits.

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
        """The network to train."""
        return self._network

    @property
    def optimizer(self) -> str:
        """The optimizer; it cannot be changed, because the state is laid out for it."""
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
        sample_weight: ArrayLike | None = None,
        validation: LabelledSet | None = None,
        callback: Callback | None = None,
        progress: bool = False,
    ) -> History:
        """Train for a number of epochs, or until convergence if the trainer has a tolerance; keep the best state.

        The best state is the one with the lowest loss on the held-out set or, without one, on the training set (or
        2,048 samples of it). States are compared at the start and after every epoch; without a held-out set, epochs of
        a few milliseconds are grouped. If `restore_best` is False, the last state is kept. Momentum and other optimizer
        state carry over to the next fit, unless another trainer trains the network in between. After Ctrl-C or an
        exception in the callback, the network keeps what it has learned.

        Parameters
        ----------
        x : array_like or SciPy sparse array (N, F)
            Training samples: any real numbers, converted to the network's dtype. A sparse array is never made dense.
        y : array_like
            Labels: whole numbers (N,) in 0 .. K-1, or floats or 0/1 labels, (N, K) or, for one output, (N,). If no loss
            is named, the labels decide it; see `MLP`.
        epochs : int
            Number of passes over the samples, at least 0; the maximum if the trainer has a tolerance.
        learning_rate : float or None, default None
            Learning rate of this fit, instead of the trainer's.
        learning_rate_schedule : str, callable or None, default None
            Learning-rate schedule of this fit, instead of the trainer's.
        loss : {"softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"} or None, default None
            Loss for a network that has none yet.
        sample_weight : array_like (N,) or None, default None
            Factor on each sample's loss, at least 0. Only ratios count: weights are scaled to be 1 on average. A weight
            of 2 is like a second copy of the sample, but accuracies count each sample once.
        validation : (x, y) or None, default None
            Held-out set.
        callback : callable or None, default None
            Function called with a `Progress` about 20 times a second, and after each epoch if there is a held-out set.
            If it returns True, the fit ends.
        progress : bool, default False
            Whether to show a progress bar with epoch, loss, accuracy, pace and time left.

        Returns
        -------
        History

        Raises
        ------
        ValueError
            If an argument is not as described, or the loss or a weight is not finite at the start. The network is then
            unchanged.
        RuntimeError
            If the callback pruned, restored or trained the network.
        DivergenceError
            If the training or held-out loss, or a weight, becomes NaN or infinite. The network is then in the last
            state that was compared.

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
        rate, schedule = self._rate(learning_rate, learning_rate_schedule)
        check.callback("callback", callback, "a Progress")
        loss = loss_of(self.network, y, loss)
        data = training_set(self.network, x, y, loss, self.seed, sample_weight)
        held_out = None if validation is None else checked_samples(self.network, "validation", validation, loss)
        if fault := check.scale(data.watched.features):
            warnings.warn(f"x: {fault}", TrainingWarning, stacklevel=2)
        with shown(check.boolean("progress", progress), callback) as told:
            history = train(self, data, loss, epochs, rate, schedule, held_out, told)
        if history.collapsed or history.train.collapsed:
            end = "the best earlier state was restored"
            if history.train.collapsed:
                end = "the network gives one answer for all samples and has learned only the label frequencies"
            warnings.warn(
                f"training collapsed: {end} (loss {history.train.loss:.4g}). {HELP}", TrainingWarning, stacklevel=2
            )
        return history

    def evaluate(self, x: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> Evaluation:
        """Compute loss and accuracy of the network on labelled samples.

        Parameters
        ----------
        x : array_like or SciPy sparse array (N, F)
            Samples.
        y : array_like
            Labels, as for `fit`.
        sample_weight : array_like (N,) or None, default None
            Factor on each sample's loss, as for `fit`.

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
        >>> round(evaluation.loss, 4)  # log(3): it has learned nothing
        1.0986
        """
        loss = loss_of(self.network, y)
        samples = checked_samples(self.network, ("x", "y"), (x, y), loss, sample_weight)
        with Threads(self.n_jobs) as threads:
            return evaluate(self.network.state, samples, loss, threads)

    def gradient(
        self, x: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, pruned: bool = False
    ) -> Gradient:
        """Compute the gradient of the mean loss on labelled samples, without penalties and dropout.

        Parameters
        ----------
        x : array_like or SciPy sparse array (N, F)
            Samples.
        y : array_like
            Labels, as for `fit`.
        sample_weight : array_like (N,) or None, default None
            Factor on each sample's loss, as for `fit`.
        pruned : bool, default False
            Whether to compute the gradient of pruned weights too, which is 0 otherwise. This takes as long as for a
            dense network. The returned arrays take a dense network's memory either way.

        Returns
        -------
        Gradient
            `weights`, one (fan_out, fan_in) array per layer, and `biases`, one (fan_out,) array per layer.

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
        samples = checked_samples(self.network, ("x", "y"), (x, y), loss, sample_weight)
        found = MeanGradient(self.network.state, "x", samples, loss, self.n_jobs)
        return found.by_layer(check.boolean("pruned", pruned))

    def rewind(self, state: State) -> None:
        """Reset the live weights, the biases and the optimizer to an earlier state, but keep the present masks.

        Parameters
        ----------
        state : State
            Snapshot of this trainer in which every weight that is live now was live.

        Raises
        ------
        ValueError
            If `state` is not such a snapshot. The network is then unchanged.

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
        """Copy everything that training and pruning change: parameters, masks and optimizer state.

        Returns
        -------
        State
            Snapshot for `restore` or `rewind`.

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
            Snapshot of this trainer.

        Raises
        ------
        ValueError
            If `state` is not such a snapshot. The network is then unchanged.
        """
        self._check_state("state", state)
        self.network.state = replace(state.copy(), owner=self._owner)

    def _rate(self, rate: float | None, schedule: str | LearningRates | None) -> tuple[float, LearningRates]:
        """Return the learning rate and its schedule, the trainer's where None is given."""
        rate = self.learning_rate if rate is None else check.number("learning_rate", rate, "(0, inf)")
        schedule = self.learning_rate_schedule if schedule is None else schedule
        return rate, learning_rates("learning_rate_schedule", schedule)

    def _rewound(self, name: str, state: State) -> State:
        """Return the network's state after `rewind`; error messages call the earlier state `name`."""
        self._check_state(name, state)
        try:
            return replace(self.network.state.rewound(state), owner=self._owner)
        except ValueError as error:
            raise ValueError(f"{name}: {error} are live now but were not in this state; use an earlier one") from None

    def __repr__(self) -> str:
        return f"Trainer({self.network!r}, optimizer={self.optimizer!r}, learning_rate={self.learning_rate:g})"

    def _state(self) -> State:
        """The network's state, with a fresh optimizer state if another trainer trained the network last."""
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
