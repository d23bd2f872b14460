"""The training loop: spans of steps in compiled code, and between them what a person or a decision needs."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.blas import one_blas_thread
from fastprune.kernels.layout import Floats, Ints, Parameters, Recipe, Samples, Update, Workspace
from fastprune.kernels.loss import loss_and_gradient
from fastprune.kernels.steps import train_steps
from fastprune.kernels.update import ADAM, SGD
from fastprune.network import LOSSES, MLP, lanes_for
from fastprune.schedules import LEARNING_RATES

OPTIMIZERS = {"sgd": SGD, "adam": ADAM}

# Work of one kernel call, in floating-point operations: some 50 ms. A fixed number, never a measured time: where a
# span ends decides which state can be restored, and that must be the same on every run.
_SPAN_FLOP = 2e9
_STEP_FLOP = 1e6  # what a step costs besides its products

_AFTER_DIVERGENCE = "the last finite state is restored. A smaller learning rate helps, and inputs scaled to about 1"

_COLLAPSE = 0.99  # of the labels' entropy


class DivergenceError(ArithmeticError):
    """The training loss became NaN or infinite; the network is back in the last state whose loss was finite."""


@dataclass(frozen=True)
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
        Whether the network predicts one and the same class for all samples, and its loss is not below 99 % of the
        labels' entropy, on labels of two or more classes: it does no better than the classes' frequencies.
    """

    loss: float
    accuracy: float | None
    collapsed: bool


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
        Of the training set, by the network as the fit leaves it.
    validation : Evaluation or None
        Of the held-out set, likewise.
    converged : bool
        Whether the loss stopped improving before the epochs were over.
    restored : bool
        Whether an earlier state than the last was the best one, and was restored.
    collapsed : bool
        Whether the last state had collapsed, see `Evaluation`; what is restored then may not have.
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
    """What a callback is told: `step` of `steps` are done, and the mean `loss` of the last step's batch."""

    step: int
    steps: int
    loss: float


Callback = Callable[[Progress], None]
LabelledSet = tuple[npt.ArrayLike, npt.ArrayLike]
State = list[npt.NDArray[Any]]


class Trainer:
    """Trains a network; pruned weights stay exactly 0.

    Parameters
    ----------
    network : MLP
        Trained in place.
    optimizer : {"sgd", "adam"}, default "sgd"
        Adam takes `momentum` as its beta_1; beta_2 is 0.999 and epsilon 1e-8.
    learning_rate : float, default 0.1
        Of the first step, above 0.
    learning_rate_schedule : {"constant", "step", "linear", "cosine"} or callable, default "constant"
        Factor of the learning rate over one fit. A callable is given the part that is done, in [0, 1), and returns
        the factor, at least 0.
    momentum : float, default 0.9
        In [0, 1).
    nesterov : bool, default False
        Nesterov's momentum (SGD only).
    l1, l2 : float, default 0.0
        Decay, at least 0: l1 * sign(w) + l2 * w joins the gradient of each weight, not of biases. `l2` is PyTorch's
        `weight_decay`.
    dropout : float, default 0.0
        Probability with which each hidden unit is dropped in training, in [0, 1).
    batch_size : int or None, default 128
        Samples of a step; the last batch of an epoch takes what is left. None: all samples, in their order.
    tolerance : float or None, default None
        If given, a fit ends once the loss has not fallen by more than this for `patience` epochs (the paper's "while
        not converged"): the held-out loss if there is a held-out set, else the training loss.
    patience : int, default 10
        Epochs without improvement until a fit is converged.
    n_jobs : int, default 1
        Number of threads. Only 1 is available so far.
    seed : int, default 0
        Of shuffling and dropout. The same seed gives the same result, bit for bit, on the same machine.

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
        learning_rate_schedule: str | Callable[[float], float] = "constant",
        momentum: float = 0.9,
        nesterov: bool = False,
        l1: float = 0.0,
        l2: float = 0.0,
        dropout: float = 0.0,
        batch_size: int | None = 128,
        tolerance: float | None = None,
        patience: int = 10,
        n_jobs: int = 1,
        seed: int = 0,
    ) -> None:
        if not isinstance(network, MLP):
            raise ValueError(f"network: expected an MLP, got {type(network).__name__}")
        self.network = network
        self.optimizer = check.one_of("optimizer", optimizer, OPTIMIZERS)
        self.learning_rate = check.number("learning_rate", learning_rate, "(0, inf)")
        if not callable(learning_rate_schedule):
            learning_rate_schedule = LEARNING_RATES[
                check.one_of("learning_rate_schedule", learning_rate_schedule, LEARNING_RATES)
            ]
        self.learning_rate_schedule = learning_rate_schedule
        self.momentum = check.number("momentum", momentum, "[0, 1)")
        if not isinstance(nesterov, bool):
            raise ValueError(f"nesterov: expected True or False, got {nesterov!r}")
        if nesterov and optimizer != "sgd":
            raise ValueError(f"nesterov: expected optimizer 'sgd', got {optimizer!r}")
        self.nesterov = nesterov
        self.l1 = check.number("l1", l1, "[0, inf)")
        self.l2 = check.number("l2", l2, "[0, inf)")
        self.dropout = check.number("dropout", dropout, "[0, 1)")
        self.batch_size = None if batch_size is None else check.integer("batch_size", batch_size, 1)
        self.tolerance = None if tolerance is None else check.number("tolerance", tolerance, "[0, inf)")
        self.patience = check.integer("patience", patience, 1)
        if check.integer("n_jobs", n_jobs, 1) != 1:
            raise ValueError(f"n_jobs: expected 1 (more threads are not available yet), got {n_jobs}")
        self.n_jobs = n_jobs
        self.seed = check.integer("seed", seed, 0)

        self._updates = 0
        self._velocity: Floats = np.zeros_like(network.values)
        self._square: Floats = np.zeros(network.values.size if optimizer == "adam" else 0, network.dtype)

    def fit(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        epochs: int,
        *,
        learning_rate: float | None = None,
        validation: LabelledSet | None = None,
        callback: Callback | None = None,
    ) -> History:
        """Train for a number of epochs, or until converged if the trainer has a tolerance, and keep the best state.

        The best state is the one with the lowest loss: of the held-out set if there is one, else of the training set.
        States are compared where a span of steps begins (an epoch, or several where these are short; every epoch with
        a held-out set) and at the end. Momentum, and what else the optimizer keeps, lasts from one fit to the next.
        Interrupted by Ctrl-C or by an exception of the callback, the network keeps what it has learned.

        Parameters
        ----------
        x : array_like (N, F)
            Training samples.
        y : array_like
            Their labels: integers (N,) in 0 .. K-1, or floats or 0/1 labels, (N, K) or, for one output, (N,).
        epochs : int
            Passes over the samples, at least 0; the most that are made if the trainer has a tolerance.
        learning_rate : float, optional
            Used instead of the trainer's in this fit.
        validation : (x, y), optional
            A held-out set.
        callback : callable, optional
            Called with a `Progress` after each span of steps, some 20 times a second.

        Returns
        -------
        History

        Raises
        ------
        ValueError
            If an argument is not as described; nothing has then been changed.
        DivergenceError
            If the loss becomes NaN or infinite. The network is then in the last state known to have a finite loss.
        """
        epochs = check.integer("epochs", epochs, 0)
        rate = self.learning_rate if learning_rate is None else learning_rate
        rate = check.number("learning_rate", rate, "(0, inf)")
        loss = self._loss(y)
        samples = self._samples("x", "y", x, y, loss)
        held_out = None
        if validation is not None:
            held_out = self._samples("validation[0]", "validation[1]", *_pair("validation", validation), loss)
        self.network.loss = loss
        started = time.perf_counter()

        count = len(samples.x)
        batch = count if self.batch_size is None else min(self.batch_size, count)
        batches = -(-count // batch)
        steps = epochs * batches
        span = self._span(batch, batches, held_out is not None)
        run = self._prepare(samples, batch, loss)
        losses, hits = np.empty(steps), np.empty(steps, np.int64)

        records: list[Epoch] = []
        checkpoints = _Checkpoints(self)
        convergence = _Convergence(self.tolerance, self.patience)
        validated = None if held_out is None else self._evaluate(held_out, loss)
        step = begun = 0
        while step < steps and not convergence.reached:
            if step % batches == 0:
                begun, validated_before = step, validated
                checkpoints.mark()
            # Whole epochs, or a part of one: never the end of one epoch and the start of the next.
            stop = min(step + span, steps if span >= batches else (step // batches + 1) * batches)
            rates = rate * self._factors(step, stop, steps)
            done = run(losses[step:stop], hits[step:stop], rates, step)
            if step == begun and done > 0:
                checkpoints.prove()
            if step + done < stop:
                self.restore(checkpoints.last)
                raise DivergenceError(
                    f"the loss became {losses[step + done]} in epoch {(step + done) // batches + 1} of {epochs} (step "
                    f"{step + done + 1} of {steps}, learning rate {rates[done]:g}); {_AFTER_DIVERGENCE}"
                )
            step = stop
            if callback is not None:
                size = batch if step % batches else count - (batches - 1) * batch
                callback(Progress(step, steps, float(losses[step - 1] / size)))
            if step % batches:
                continue

            if held_out is not None:
                validated = self._evaluate(held_out, loss)
            for epoch in range(begun // batches, step // batches):
                part = slice(epoch * batches, (epoch + 1) * batches)
                accuracy = None if loss == "mean_squared_error" else float(hits[part].sum() / count)
                at = rate * float(self._factors(part.start, part.start + 1, steps)[0])
                records.append(Epoch(epoch + 1, at, float(losses[part].sum() / count), accuracy, validated))
                convergence.add(records[-1].loss if validated is None else validated.loss)
            checkpoints.rate(records[begun // batches].loss if validated_before is None else validated_before.loss)

        train = self._evaluate(samples, loss)
        validated = None if held_out is None else self._evaluate(held_out, loss)
        if not math.isfinite(train.loss):
            self.restore(checkpoints.last)
            raise DivergenceError(f"the loss became {train.loss} at the end of epoch {len(records)}; {_AFTER_DIVERGENCE}")
        collapsed = train.collapsed
        restored = not (validated or train).loss <= checkpoints.best_loss
        if restored:
            self.restore(checkpoints.best)
            train = self._evaluate(samples, loss)
            validated = None if held_out is None else self._evaluate(held_out, loss)
        seconds = time.perf_counter() - started
        return History(tuple(records), train, validated, convergence.reached, restored, collapsed, seconds)

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
        """
        loss = self._loss(y)
        return self._evaluate(self._samples("x", "y", x, y, loss), loss)

    def prune(self, removed: npt.NDArray[np.int64]) -> None:
        """Remove weights: value, mask and optimizer state become exactly 0, for good.

        Parameters
        ----------
        removed : ndarray of int64 (n,)
            Positions in `MLP.values` of the weights to remove.
        """
        for vector in self._state():
            if vector.size:  # SGD keeps no squares
                vector[removed] = 0

    def snapshot(self) -> State:
        """Copies of all that training and pruning change: parameters, masks and optimizer state."""
        return [vector.copy() for vector in self._state()]

    def restore(self, state: State) -> None:
        """Go back to what `snapshot` returned."""
        _copy(self._state(), state)

    def _state(self) -> State:
        return [self.network.values, self.network.live, self._velocity, self._square]

    def _loss(self, y: npt.ArrayLike) -> str:
        """The network's loss; before the first training, the one that the labels stand for."""
        return self.network.loss or check.infer_loss("y", y, self.network.sizes[-1])

    def _samples(self, x_name: str, y_name: str, x: npt.ArrayLike, y: npt.ArrayLike, loss: str) -> Samples:
        sizes, dtype = self.network.sizes, self.network.dtype
        checked = check.samples(x_name, x, sizes[0], dtype)
        return Samples(checked, *check.labels(y_name, y, len(checked), sizes[-1], loss, dtype))

    def _span(self, batch: int, batches: int, every_epoch: bool) -> int:
        """Steps of one kernel call: a multiple of the epoch's batches, or fewer than these."""
        flop = 6 * self.network.total_weights * batch + _STEP_FLOP
        span = max(1, int(_SPAN_FLOP / flop))
        return span if span < batches else batches if every_epoch else span // batches * batches

    def _factors(self, start: int, stop: int, steps: int) -> Floats:
        """The schedule's factors of the learning rate for the steps from `start` to `stop`."""
        factors = [
            check.number("learning_rate_schedule", self.learning_rate_schedule(i / steps), "[0, inf)")
            for i in range(start, stop)
        ]
        return np.array(factors)

    def _prepare(self, samples: Samples, batch: int, loss: str) -> Callable[[Floats, Ints, Floats, int], int]:
        """All that the kernel needs for a fit but what changes from span to span."""
        network, layout = self.network, self.network.layout
        lanes = lanes_for(batch)
        empty = [(-(-batch // lanes), layout.sizes[0], lanes), (layout.rows[-1], lanes), (layout.rows[-1], lanes)]
        inputs, activations, deltas = (np.empty(shape, network.dtype) for shape in empty)
        products = np.empty(np.diff(layout.weights).max(), network.dtype)
        workspace = Workspace(np.arange(len(samples.x)), inputs, activations, deltas, products)
        gradient = np.empty_like(network.values)
        parameters = Parameters(network.values, network.live, gradient, self._velocity, self._square)
        update = Update(OPTIMIZERS[self.optimizer], self.momentum, self.nesterov, self.l1, self.l2)
        recipe = Recipe(LOSSES[loss], batch, self.dropout, np.uint64(self.seed), update)

        def run(losses: Floats, hits: Ints, rates: Floats, step: int) -> int:
            with one_blas_thread():
                done = train_steps(
                    losses, hits, parameters, workspace, layout, samples, recipe, rates, step, self._updates
                )
            self._updates += done
            return done

        return run

    def _evaluate(self, samples: Samples, loss: str) -> Evaluation:
        count = len(samples.x)
        logits = self.network.logits(samples.x)
        out = np.ascontiguousarray(logits.T)
        order = np.arange(count)
        total, right = loss_and_gradient(np.empty_like(out), out, samples, order, 0, count, 1.0, LOSSES[loss])
        mean = total / count
        if loss == "mean_squared_error":
            return Evaluation(mean, None, False)
        predicted = logits.argmax(axis=1) if loss == "softmax_cross_entropy" else logits > 0
        entropy = _entropy(samples, loss)
        collapsed = bool((predicted == predicted[0]).all()) and entropy > 0 and mean >= _COLLAPSE * entropy
        return Evaluation(mean, right / count, collapsed)


def _entropy(samples: Samples, loss: str) -> float:
    """The lowest loss that one answer for all samples can have: the entropy of the labels, the mean over outputs."""
    from scipy.special import entr  # here, because importing it takes as long as importing all of fastprune

    if loss == "softmax_cross_entropy":
        return float(entr(np.bincount(samples.labels) / len(samples.labels)).sum())
    positive = samples.targets.mean(axis=0, dtype=np.float64)
    return float((entr(positive) + entr(1 - positive)).mean())


class _Checkpoints:
    """The states a fit can go back to: the last one whose loss was finite, and the best one."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._marked, self.last, self.best = (trainer.snapshot() for _ in range(3))
        self.best_loss = np.inf

    def mark(self) -> None:
        """Remember the present state, of which nothing is known yet."""
        _copy(self._marked, self._trainer._state())

    def prove(self) -> None:
        """The marked state's loss turned out finite: it is the last good one."""
        self._marked, self.last = self.last, self._marked

    def rate(self, loss: float) -> None:
        """Keep the last good state, which has this loss, if it is the best one."""
        if loss < self.best_loss:
            self.best_loss = loss
            _copy(self.best, self.last)


class _Convergence:
    """Reached once the loss has not fallen by more than `tolerance` for `patience` epochs."""

    def __init__(self, tolerance: float | None, patience: int) -> None:
        self._tolerance, self._patience = tolerance, patience
        self._target, self._stale = np.inf, 0

    def add(self, loss: float) -> None:
        improved = loss < self._target - (self._tolerance or 0.0)
        self._target, self._stale = (loss, 0) if improved else (self._target, self._stale + 1)

    @property
    def reached(self) -> bool:
        return self._tolerance is not None and self._stale >= self._patience


def _copy(target: State, source: State) -> None:
    for to, of in zip(target, source, strict=True):
        to[:] = of


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name}: expected a pair (x, y), got {type(value).__name__}")
    return value[0], value[1]
