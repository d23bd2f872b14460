"""The training loop: spans of steps in compiled code, and between them what a person or a decision needs."""

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.blas import one_blas_thread
from fastprune.files import read_npz
from fastprune.inference import workspace
from fastprune.kernels.layout import Floats, Ints, Parameters, Recipe, Samples, Span, Team, Update
from fastprune.kernels.loss import loss_and_gradient
from fastprune.kernels.random import WATCH, derive, shuffle
from fastprune.kernels.steps import train_steps
from fastprune.kernels.tile import LANES
from fastprune.kernels.update import ADAM, SGD
from fastprune.network import LOSSES, MLP
from fastprune.schedules import LearningRates, learning_rates
from fastprune.storage import Storage, join
from fastprune.team import Threads, count_threads

OPTIMIZERS = {"sgd": SGD, "adam": ADAM}

# Work of one kernel call, in floating-point operations: some 50 ms. A fixed number, never a measured time: where a
# span ends decides which state can be restored, and that must be the same on every run.
_SPAN_FLOP = 2e9
_STEP_FLOP = 1e6  # what a step costs besides its products

_WATCHED = 2048  # samples that tell a state from another: 2 % of an MNIST epoch, where all would take a third of it

_LOGITS = 2**18  # that are evaluated together

_COLLAPSE = 0.99  # of the labels' entropy

_VECTORS = ("values", "velocity", "square")  # the parameters, and what the optimizer keeps of each; see `State`


class DivergenceError(ArithmeticError):
    """The loss became NaN or infinite; the network is back in the last state whose loss was finite.

    Attributes
    ----------
    epoch : int
        The epoch in which it did, from 1.
    """

    def __init__(self, loss: float, epoch: int, epochs: int) -> None:
        super().__init__(loss, epoch, epochs)  # as `args`, so that it comes whole from another process
        self.epoch = epoch

    def __str__(self) -> str:
        loss, epoch, epochs = self.args
        return (
            f"the loss became {loss} in epoch {epoch} of {epochs}; the last finite state is restored. A smaller "
            "learning rate helps, and inputs scaled to about 1"
        )


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
        Of the training set, or of 2,048 samples of it, by the network as the fit leaves it.
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
        self.network = network
        self._optimizer = check.one_of("optimizer", optimizer, OPTIMIZERS)  # what it keeps is laid out for it below
        self.learning_rate = check.number("learning_rate", learning_rate, "(0, inf)")
        self.learning_rate_schedule = learning_rates(learning_rate_schedule)
        self.momentum = check.number("momentum", momentum, "[0, 1)")
        self.nesterov = check.boolean("nesterov", nesterov)
        if nesterov and optimizer != "sgd":
            raise ValueError(f"nesterov: expected optimizer 'sgd', got {optimizer!r}")
        self.l1 = check.number("l1", l1, "[0, inf)")
        self.l2 = check.number("l2", l2, "[0, inf)")
        self.input_dropout = check.number("input_dropout", input_dropout, "[0, 1)")
        self.dropout = check.number("dropout", dropout, "[0, 1)")
        self.scale_dropout = check.boolean("scale_dropout", scale_dropout)
        self.batch_size = None if batch_size is None else check.integer("batch_size", batch_size, 1)
        self.tolerance = None if tolerance is None else check.number("tolerance", tolerance, "[0, inf)")
        self.patience = check.integer("patience", patience, 1)
        self.restore_best = check.boolean("restore_best", restore_best)
        self.n_jobs = count_threads("n_jobs", n_jobs)
        self.seed = check.integer("seed", seed, 0, 2**64 - 1)

        self.dense_epochs, self._pruned = 0, False
        self._updates = 0
        # What is kept of each parameter is laid out as these are stored.
        self._storage = network.storage
        self._velocity: Floats = np.zeros_like(network.values)
        self._square: Floats = np.zeros(network.values.size if optimizer == "adam" else 0, network.dtype)

    def fit(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        epochs: int,
        *,
        learning_rate: float | None = None,
        learning_rate_schedule: str | LearningRates | None = None,
        validation: LabelledSet | None = None,
        callback: Callback | None = None,
    ) -> History:
        """Train for a number of epochs, or until converged if the trainer has a tolerance, and keep the best state.

        The best state is the one with the lowest loss: of the held-out set if there is one, else of the training set,
        or of 2,048 samples of it. States are compared at the start and after every epoch (after several, where these
        take a few milliseconds and there is no held-out set). With `restore_best` off, the last one is kept. Momentum,
        and what else the optimizer keeps, lasts from one fit to the next. Ctrl-C and exceptions of the callback leave
        the network with what it has learned.

        Parameters
        ----------
        x : array_like (N, F)
            Training samples: any real numbers, converted to the network's dtype.
        y : array_like
            Their labels: whole numbers (N,) in 0 .. K-1, or floats or 0/1 labels, (N, K) or, for one output, (N,).
            See `MLP` for what they choose.
        epochs : int
            Passes over the samples, at least 0; the most that are made if the trainer has a tolerance.
        learning_rate : float or None, default None
            Used instead of the trainer's in this fit.
        learning_rate_schedule : str, callable or None, default None
            Likewise.
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
            If an argument is not as described, the loss is not finite to begin with, or another trainer pruned or
            restored the network. Nothing has then been changed.
        RuntimeError
            If the callback pruned or restored the network.
        DivergenceError
            If the loss, of training or held-out samples, becomes NaN or infinite. The network is then in the last
            state that was compared.

        Examples
        --------
        >>> import fastprune as fp
        >>> trainer = fp.Trainer(fp.MLP([1, 1]), learning_rate=0.1)
        >>> history = trainer.fit([[0.0], [1.0], [2.0]], [0.5, 1.5, 2.5], epochs=200)
        >>> round(history.train.loss, 3), len(history.epochs)
        (0.0, 200)
        """
        self._check_storage()
        epochs = check.integer("epochs", epochs, 0)
        rate = self.learning_rate if learning_rate is None else learning_rate
        rate = check.number("learning_rate", rate, "(0, inf)")
        loss = self.loss_for(y)
        samples = self.samples(("x", "y"), (x, y), loss)
        held_out = None
        if validation is not None:
            held_out = self.samples("validation", validation, loss)
        count = len(samples.x)
        batch = count if self.batch_size is None else min(self.batch_size, count)
        batches = -(-count // batch)
        steps = epochs * batches
        schedule = self.learning_rate_schedule
        if learning_rate_schedule is not None:
            schedule = learning_rates(learning_rate_schedule)
        rates = rate * _factors(schedule, steps)
        self.network.loss = loss
        started = time.perf_counter()

        with Threads(self.n_jobs) as threads:
            span = self._span(batch, batches, held_out is not None)
            run = self._prepare(samples, batch, loss, threads)
            values = self.network.values
            losses, hits = np.empty(steps), np.empty(steps, np.int64)
            seen = self.some(samples)
            watched = held_out or seen  # what states are compared by
            checkpoints = _Checkpoints(self, self._evaluate(watched, loss, threads))
            if not math.isfinite(checkpoints.last_evaluation.loss):
                raise ValueError(
                    f"network: expected a finite loss to begin with, got {checkpoints.last_evaluation.loss}"
                )
            convergence = _Convergence(self.tolerance, self.patience)
            records: list[Epoch] = []
            step = 0
            while step < steps and not convergence.reached:
                # Whole epochs, or a part of one: never the end of one epoch and the start of the next.
                stop = min(step + span, steps if span >= batches else (step // batches + 1) * batches)
                done = run(losses[step:stop], hits[step:stop], rates[step:stop], step)
                if step + done < stop:
                    self.restore(checkpoints.last)
                    raise DivergenceError(losses[step + done], (step + done) // batches + 1, epochs)
                if not self._pruned:
                    self.dense_epochs += stop // batches - step // batches
                step = stop
                if callback is not None:
                    size = batch if step % batches else count - (batches - 1) * batch
                    callback(Progress(step, steps, float(losses[step - 1] / size)))
                    if self.network.values is not values:  # a prune and a restore both make new ones
                        raise RuntimeError(
                            "callback: expected it to leave the network alone, got it pruned or restored"
                        )
                if step % batches:
                    continue

                now = self._evaluate(watched, loss, threads)
                if not math.isfinite(now.loss):
                    self.restore(checkpoints.last)
                    raise DivergenceError(now.loss, step // batches, epochs)
                checkpoints.add(now)
                for epoch in range(len(records), step // batches):
                    part = slice(epoch * batches, (epoch + 1) * batches)
                    mean = float(losses[part].sum() / count)
                    accuracy = None if loss == "mean_squared_error" else float(hits[part].sum() / count)
                    validated = None if held_out is None else now
                    records.append(Epoch(epoch + 1, float(rates[part.start]), mean, accuracy, validated))
                    convergence.add(mean if validated is None else validated.loss)

            last, best = checkpoints.last_evaluation, checkpoints.best_evaluation
            train = last if watched is seen else self._evaluate(seen, loss, threads)
            collapsed = train.collapsed
            if restored := self.restore_best and best.loss < last.loss:
                self.restore(checkpoints.best)
                train = best if watched is seen else self._evaluate(seen, loss, threads)
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
        return self.evaluate_samples(self.samples(("x", "y"), (x, y), loss), loss)

    def prune(self, removed: npt.NDArray[np.int64]) -> None:
        """Remove weights: value, mask and optimizer state become exactly 0, for good. `Pruner` chooses them.

        Parameters
        ----------
        removed : ndarray of int64 (n,)
            Their positions among the weights that the network stores: layer after layer, each row by row.

        Raises
        ------
        ValueError
            If a position is not that of a stored weight, or another trainer pruned or restored the network. Nothing is
            then removed.
        """
        self._check_storage()
        network = self.network
        weights = network.layout.biases[0]
        if removed.dtype.kind not in "iu":
            raise ValueError(f"removed: expected integers, got dtype {removed.dtype}")
        if removed.size and not 0 <= removed.min() <= removed.max() < weights:
            raise ValueError(
                f"removed: expected positions in 0 .. {weights - 1}, got {removed.min()} .. {removed.max()}"
            )
        storage, left = network.storage.without(removed)
        vectors = self._vectors()
        for vector in vectors:
            if vector.size:  # SGD keeps no squares
                vector[removed] = 0
        self._pruned = self._pruned or removed.size > 0
        network.storage = self._storage = storage
        network.values, self._velocity, self._square = (join(v, left) if v.size else v for v in vectors)

    def rewind(self, state: "State") -> None:
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
        found = self.find_in("state", state)
        live = self.network.live
        for vector, old in zip(self._vectors(), state.vectors, strict=True):
            if vector.size:
                vector[:] = np.where(live, old[found], 0)
        self._updates = state.updates

    def find_in(self, name: str, state: "State") -> Ints:
        """Where the present parameters stand in an earlier state; not part of the interface.

        Errors call the state by `name`.
        """
        self._check_storage()
        self._check_state(name, state)
        try:
            return state.storage.find(self._storage)
        except ValueError as error:
            raise ValueError(f"{name}: expected a state from before the pruning, got one without {error}") from None

    def snapshot(self) -> "State":
        """Copy all that training and pruning change: parameters, masks and the optimizer's state.

        Returns
        -------
        State
            For `restore`.

        Raises
        ------
        ValueError
            If another trainer pruned or restored the network.

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
        self._check_storage()
        return State(self.network.storage, [vector.copy() for vector in self._vectors()], self._updates)

    def restore(self, state: "State") -> None:
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
        network = self.network
        network.storage = self._storage = state.storage
        network.values, self._velocity, self._square = (vector.copy() for vector in state.vectors)
        self._updates = state.updates

    def _vectors(self) -> list[Floats]:
        """The parameters, and what the optimizer keeps of each."""
        return [self.network.values, self._velocity, self._square]

    def _check_state(self, name: str, state: "State") -> None:
        network = self.network
        if (
            not isinstance(state, State)
            or state.storage.sizes != network.sizes
            or state.storage.layout.activation != network.layout.activation
            or [vector.dtype for vector in state.vectors] != [network.dtype] * 3
            or (state.vectors[2].size > 0) != (self._square.size > 0)  # Adam's, or not
        ):
            raise ValueError(f"{name}: expected a snapshot of this trainer, got {type(state).__name__}")

    def _check_storage(self) -> None:
        if self.network.storage is not self._storage:
            raise ValueError("network: expected it as this trainer left it, got it pruned or restored by another one")

    def loss_for(self, y: npt.ArrayLike) -> str:
        """The loss that the network has, or that the labels stand for (see `MLP`); not part of the interface."""
        return self.network.loss or check.infer_loss("y", y, self.network.sizes[-1])

    def samples(self, name: str | tuple[str, str], pair: LabelledSet, loss: str) -> Samples:
        """A checked set, for the loss given; errors name it, or its two parts, so; not part of the interface."""
        x_name, y_name = name if isinstance(name, tuple) else (f"{name}[0]", f"{name}[1]")
        x, y = check.pair(name if isinstance(name, str) else name[0], pair)
        sizes, dtype = self.network.sizes, self.network.dtype
        checked = check.samples(x_name, x, sizes[0], dtype)
        return Samples(checked, *check.labels(y_name, y, len(checked), sizes[-1], loss, dtype))

    def evaluate_samples(self, samples: Samples, loss: str) -> Evaluation:
        """Like `evaluate`, of a checked set, by the loss given; not part of the interface."""
        with Threads(self.n_jobs) as threads:
            return self._evaluate(samples, loss, threads)

    def some(self, samples: Samples) -> Samples:
        """All samples, or of many as many as tell one state from another; not part of the interface."""
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
        """All that the kernel needs for a fit but what changes from span to span."""
        network, layout = self.network, self.network.layout
        space = workspace(np.arange(len(samples.x)), -(-batch // LANES), layout, network.dtype, training=True)
        gradient = np.zeros_like(network.values)
        parameters = Parameters(network.values, network.live, gradient, self._velocity, self._square)
        update = Update(OPTIMIZERS[self._optimizer], self.momentum, self.nesterov, self.l1, self.l2)
        recipe = Recipe(LOSSES[loss], batch, np.uint64(self.seed), update)
        space.keep[:] = self._keep()

        def run(losses: Floats, hits: Ints, rates: Floats, step: int) -> int:
            span = Span(rates, losses, hits, step, self._updates)

            def call(team: Team) -> int:
                return train_steps(parameters, space, layout, samples, recipe, span, team)

            self._updates += len(rates)  # before the call: Ctrl-C comes as soon as it returns
            with one_blas_thread():
                done = threads.run(call)
            self._updates -= len(rates) - done
            return done

        return run

    def _evaluate(self, samples: Samples, loss: str, threads: Threads) -> Evaluation:
        count = len(samples.x)
        order = np.arange(count)
        total, right = 0.0, 0
        predicted = []
        # In parts: with many outputs, all logits would take more memory than a pruned network.
        size = max(LANES, _LOGITS // self.network.sizes[-1] // LANES * LANES)
        for start in range(0, count, size):
            stop = min(start + size, count)
            logits = self.network.forward(samples.x[start:stop], threads)
            out = np.ascontiguousarray(logits.T)
            part = loss_and_gradient(np.empty_like(out), out, samples, order, start, stop, 1.0, LOSSES[loss])
            total, right = total + part[0], right + part[1]
            if loss != "mean_squared_error":
                predicted.append(logits.argmax(axis=1) if loss == "softmax_cross_entropy" else logits > 0)
        mean = total / count
        if loss == "mean_squared_error":
            return Evaluation(mean, None, False)
        first = predicted[0][0]
        same = all((part == first).all() for part in predicted)
        entropy = _entropy(samples, loss)
        return Evaluation(mean, right / count, same and entropy > 0 and mean >= _COLLAPSE * entropy)


def _factors(schedule: LearningRates, steps: int) -> Floats:
    """The schedule's factor of the learning rate, for each step."""
    values = [schedule(step / steps) for step in range(steps)]
    try:
        factors = np.array(values, np.float64).reshape(steps)
    except (TypeError, ValueError):
        raise ValueError(f"learning_rate_schedule: expected factors in [0, inf), got {values[0]!r}") from None
    bad = factors[~((factors >= 0) & (factors < np.inf))]
    if bad.size:
        raise ValueError(f"learning_rate_schedule: expected factors in [0, inf), got {bad[0]:g}")
    return factors


def _entropy(samples: Samples, loss: str) -> float:
    """The lowest loss that one answer for all samples can have: the entropy of the labels, the mean over outputs."""
    from scipy.special import entr  # here, because importing it takes as long as importing all of fastprune

    if loss == "softmax_cross_entropy":
        return float(entr(np.bincount(samples.labels) / len(samples.labels)).sum())
    positive = samples.targets.mean(axis=0, dtype=np.float64)
    return float((entr(positive) + entr(1 - positive)).mean())


@dataclass(frozen=True)
class State:
    """What `Trainer.snapshot` copies and `Trainer.restore` puts back."""

    storage: Storage
    vectors: list[Floats]
    updates: int

    def to_bytes(self) -> bytes:
        """The state as the content of an `.npz` file without pickles, of the size of its live parameters.

        Returns
        -------
        bytes
            For `from_bytes`. The same state gives the same bytes.

        Examples
        --------
        >>> import fastprune as fp
        >>> trainer = fp.Trainer(fp.MLP([4, 3], seed=1))
        >>> kept = trainer.snapshot().to_bytes()  # to be written to a file, say
        >>> other = fp.Trainer(fp.MLP([4, 3], seed=2))
        >>> other.restore(fp.State.from_bytes(kept))
        >>> bool((other.network.weights[0] == trainer.network.weights[0]).all())
        True
        """
        file = io.BytesIO()
        live = self.storage.live > 0
        vectors = [vector[live] if vector.size else vector for vector in self.vectors]
        arrays = self.storage.to_arrays() | dict(zip(_VECTORS, vectors, strict=True))
        arrays["updates"] = np.array(self.updates)
        np.savez(file, **arrays)  # type: ignore[arg-type]  # taken for `allow_pickle`
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "State":
        """The state that `to_bytes` wrote.

        Raises
        ------
        ValueError
            If it is not the whole of what `to_bytes` gave.
        """
        try:
            arrays = read_npz(io.BytesIO(content))
            storage = Storage.from_arrays(arrays)
            vectors = []
            for name in _VECTORS:
                vector = np.zeros(storage.live.size if arrays[name].size else 0, arrays[name].dtype)
                vector[storage.live[: vector.size] > 0] = arrays[name]
                vectors.append(vector)
            return cls(storage, vectors, int(arrays["updates"]))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"content: expected what State.to_bytes gave, got something else ({error})") from error


class _Checkpoints:
    """The states a fit can go back to, with their evaluations: the last one, and the best one."""

    def __init__(self, trainer: Trainer, evaluation: Evaluation) -> None:
        self._trainer = trainer
        self.last = self.best = trainer.snapshot()
        self.last_evaluation = self.best_evaluation = evaluation

    def add(self, evaluation: Evaluation) -> None:
        """Take in the trainer's present state, which has this evaluation."""
        self.last, self.last_evaluation = self._trainer.snapshot(), evaluation
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
