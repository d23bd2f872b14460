"""Estimators for scikit-learn, an extra: `PrunedMLPClassifier` and `PrunedMLPRegressor`.

They take most parameters of scikit-learn's `MLPClassifier` and `MLPRegressor`, train, prune in rounds, and retrain.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import LabelBinarizer, StandardScaler
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from fastprune import check, kernels
from fastprune.base import ACTIVATIONS
from fastprune.evaluation import training_set
from fastprune.kernels.layout import Floats, Ints
from fastprune.network import MLP
from fastprune.pruner import Pruner
from fastprune.records import Amount, History, PruneHistory, TrainingWarning
from fastprune.schedules import GeometricDecay, constant
from fastprune.spans import OPTIMIZERS
from fastprune.trainer import Trainer
from fastprune.training import train

_ACTIVATIONS = {"logistic": "sigmoid"} | {name: name for name in ACTIVATIONS}
_KEPT = 0.5**0.5  # what a round of the default schedule keeps of the live weights


class _Data(NamedTuple):
    """Checked training data."""

    x: Any  # array or csr_array (N, F), standardized
    y: npt.NDArray[Any]  # labels (N,) or targets (N, K), as the network's loss takes them
    weights: Floats | None  # (N,)


class _PrunedMLP(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What the estimators share. `_network` is trained on standardized data; `network_` takes data as it comes."""

    n_outputs_: int
    loss_curve_: list[float]
    _network: MLP
    _scaler: StandardScaler | None
    _trainer: Trainer | None  # of `partial_fit`, whose optimizer goes on from call to call

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        sparsity: float = 0.9,
        schedule: Sequence[Amount] | None = None,
        scope: str = "layer",
        layer_rates: str = "erdos_renyi",
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        random_state: int | np.random.RandomState | None = None,
        tol: float | None = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        standardize: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self.hidden_layer_sizes, self.activation = hidden_layer_sizes, activation
        self.sparsity, self.schedule, self.scope, self.layer_rates = sparsity, schedule, scope, layer_rates
        self.solver, self.alpha, self.batch_size = solver, alpha, batch_size
        self.learning_rate, self.learning_rate_init, self.max_iter = learning_rate, learning_rate_init, max_iter
        self.random_state, self.tol, self.verbose, self.warm_start = random_state, tol, verbose, warm_start
        self.momentum, self.nesterovs_momentum = momentum, nesterovs_momentum
        self.early_stopping, self.validation_fraction = early_stopping, validation_fraction
        self.n_iter_no_change, self.standardize, self.n_jobs = n_iter_no_change, standardize, n_jobs

    def fit(self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None) -> Self:  # noqa: N803
        """Train, prune in rounds, and retrain.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features. float32 is trained in float32, everything else in float64. A sparse matrix is never made dense.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Factor on each sample's loss, at least 0.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or an argument is not as described.
        """
        with self._unchanged_by_failure():
            return self._fit(X, y, sample_weight)

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Self:  # noqa: N803
        begun = self.warm_start and hasattr(self, "network_")
        if begun:
            self._network = copy.copy(self._network)  # the present one stays as it is if this fails
        data = self._prepared(X, y, sample_weight, None, begun)
        seed = self._seed()
        held_out = None
        if self.early_stopping:
            classes = data.y if isinstance(self, ClassifierMixin) and data.y.ndim == 1 else None
            weights = np.ones(len(data.y)) if data.weights is None else data.weights
            parts = train_test_split(
                data.x, data.y, weights, test_size=self.validation_fraction, random_state=seed, stratify=classes
            )
            data, held_out = _Data(*parts[::2]), (parts[1], parts[3])
        trainer = self._configured(Trainer(self._network, optimizer=self.solver, seed=seed), data)
        shared: dict[str, Any] = {
            "learning_rate_schedule": self.learning_rate,
            "sample_weight": data.weights,
            "validation": held_out,
            "progress": bool(self.verbose),  # scikit-learn takes numbers, too
        }
        history = trainer.fit(data.x, data.y, self.max_iter, **shared)
        self.history_, loss = PruneHistory(), history.train.loss
        schedule = self._schedule()
        if len(schedule) > 0:
            rates = self.layer_rates if self.scope == "layer" else "uniform"
            pruner = Pruner(trainer, schedule=schedule, scope=self.scope, layer_rates=rates)
            self.history_ = pruner.run(data.x, data.y, max(1, self.max_iter // len(schedule)), **shared)
            loss = next((record.after.train.loss for record in reversed(self.history_) if record.after), loss)
            if self.history_ and self.history_[-1].failed:
                reached = f"sparsity: reached {self._network.sparsity:.4f}, because retraining failed with more pruned"
                warnings.warn(f"{reached}. A larger max_iter may help", TrainingWarning, stacklevel=3)
        self._trainer = None
        self._finish(history, loss, [])
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any) -> Self:  # noqa: N803
        begun = hasattr(self, "network_")
        data = self._prepared(X, y, sample_weight, classes, begun)
        if not begun:
            self._trainer, self.history_ = None, PruneHistory()
        if self._trainer is None:
            # A part of the samples is no judge of whether the network was better before.
            self._trainer = Trainer(self._network, optimizer=self.solver, restore_best=False, seed=self._seed())
        trainer = self._configured(self._trainer, data)
        samples = training_set(self._network, data.x, data.y, self._loss, trainer.seed, data.weights)
        # Not `fit`, which warns of a collapse: a step on a few samples is no training.
        history = train(trainer, samples, self._loss, 1, trainer.learning_rate, constant, None, None)
        self._finish(history, history.train.loss, self.loss_curve_ if begun else [])
        return self

    @contextmanager
    def _unchanged_by_failure(self) -> Iterator[None]:
        """Set all attributes back if a fit fails, so that they always belong to one network."""
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _prepared(self, X: Any, y: Any, sample_weight: Any, classes: Any, begun: bool) -> _Data:  # noqa: N803
        """Check everything; begin a new network unless one has `begun`."""
        hidden = self._checked_parameters()
        if begun and (hidden, _ACTIVATIONS[self.activation]) != (self._network.sizes[1:-1], self._network.activation):
            raise ValueError(
                f"hidden_layer_sizes, activation: expected {self._network.sizes[1:-1]}, {self._network.activation!r}, "
                f"which the network that goes on has, got {hidden}, {self.activation!r}"
            )
        X, y = _validated(self, X, y, reset=not begun)  # noqa: N806
        if issparse(X):
            if begun and self._scaler is not None and self._scaler.with_mean:
                raise ValueError("X: expected dense features, as those that gave the scales, got a sparse matrix")
            if not X.has_canonical_format:  # the scaler takes each entry for a number of its own
                X = X.copy()  # noqa: N806
                X.sum_duplicates()
        check.sample_weight("sample_weight", sample_weight, X.shape[0])
        weights = None if sample_weight is None else np.array(sample_weight, np.float64)
        weights, y = self._labelled(y, weights, classes, begun)
        if not begun:
            scaler = StandardScaler(with_mean=not issparse(X)) if self.standardize else None
            self._scaler = None if scaler is None else scaler.fit(X, sample_weight=weights)
            self._begin_targets(y, weights)
        x = X if self._scaler is None else self._scaler.transform(X)
        y = self._targets(y)
        if not begun:
            self._network = MLP(
                [x.shape[1], *hidden, self.n_outputs_],
                activation=_ACTIVATIONS[self.activation],
                initialization="he" if self.activation in ("relu", "leaky_relu") else "glorot",
                loss=self._loss,
                dtype=x.dtype,
                seed=self._seed(),
            )
        return _Data(x, y, weights)

    def _checked_parameters(self) -> list[int]:
        """Check the parameters that the trainer knows by other names; return the sizes of the hidden layers."""
        sizes: Any = self.hidden_layer_sizes
        sizes = sizes.tolist() if isinstance(sizes, np.ndarray | np.generic) else sizes
        sizes = [sizes] if isinstance(sizes, int) else sizes
        if not isinstance(sizes, Sequence) or isinstance(sizes, str):
            raise ValueError(f"hidden_layer_sizes: expected an int or a sequence of int, got {check.shown(sizes)}")
        check.one_of("activation", self.activation, _ACTIVATIONS)
        check.one_of("solver", self.solver, OPTIMIZERS)
        check.number("sparsity", self.sparsity, "[0, 1)")
        check.number("alpha", self.alpha, "[0, inf)")
        check.number("learning_rate_init", self.learning_rate_init, "(0, inf)")
        check.integer("max_iter", self.max_iter, 1)
        check.number("validation_fraction", self.validation_fraction, "(0, 1)")
        check.integer("n_iter_no_change", self.n_iter_no_change, 1)
        for name in ("warm_start", "nesterovs_momentum", "early_stopping", "standardize"):
            check.boolean(name, getattr(self, name))
        if self.tol is not None:
            check.number("tol", self.tol, "[0, inf)")
        if self.batch_size != "auto":
            check.integer("batch_size", self.batch_size, 1)
        return [check.integer(f"hidden_layer_sizes[{i}]", size, 1) for i, size in enumerate(sizes)]

    def _configured(self, trainer: Trainer, data: _Data) -> Trainer:
        """Return the trainer with the present parameters."""
        batch = min(200 if isinstance(self.batch_size, str) else self.batch_size, len(data.y))
        trainer.learning_rate, trainer.batch_size = self.learning_rate_init, batch
        # scikit-learn divides the penalty by the weight of the batch's samples.
        trainer.l2 = self.alpha / (batch * (1.0 if data.weights is None else float(data.weights.mean())))
        trainer.momentum = self.momentum if self.solver == "sgd" else 0.9
        trainer.nesterov = self.solver == "sgd" and self.nesterovs_momentum
        trainer.tolerance, trainer.patience = self.tol, self.n_iter_no_change
        trainer.n_jobs = 1 if self.n_jobs is None else self.n_jobs
        return trainer

    def _schedule(self) -> Sequence[Amount]:
        if self.schedule is not None:
            return self.schedule
        if self.sparsity == 0:
            return []
        return GeometricDecay(0.0, self.sparsity, math.ceil(math.log(1 - self.sparsity, _KEPT)))

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _finish(self, history: History, loss: float, losses: list[float]) -> None:
        """Set what depends on the trained network."""
        self._derive()
        self.loss_, self.loss_curve_ = loss, losses + [epoch.loss for epoch in history.epochs]
        self.n_iter_, self.n_layers_ = len(self.loss_curve_), len(self._network.sizes)

    def _derive(self) -> None:
        """Make the networks for features (and targets) as they come: weights and biases absorb the scaling."""
        network = self._network
        layers = [network.layer(index) for index in range(network.n_layers)]
        weights, biases = [layer.csr.data.astype(np.float64) for layer in layers], [*network.biases]
        if self._scaler is not None:
            first = layers[0].csr
            weights[0] = weights[0] / self._scaler.scale_[first.indices]
            if self._scaler.mean_ is not None and self._scaler.with_mean:
                matrix = csr_array((weights[0], first.indices, first.indptr), layers[0].shape)
                biases[0] = biases[0] - matrix @ self._scaler.mean_
        weights[-1], biases[-1] = self._unscaled_outputs(weights[-1], layers[-1].csr.indptr, biases[-1])
        self.network_ = copy.copy(network)
        self.network_.state = network.state.with_values(weights, biases)
        self._frozen = self.network_.freeze()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what `_derive` makes."""
        kept: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in kept.items() if name not in ("network_", "_frozen")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "_network"):
            self._derive()

    @property
    def coefs_(self) -> list[Floats]:
        """Weights of each layer, (inputs, outputs); 0 where pruned."""
        return [weights.T for weights in self.network_.weights]

    @property
    def intercepts_(self) -> list[Floats]:
        """Biases of each layer."""
        return list(self.network_.biases)

    @property
    def masks_(self) -> list[npt.NDArray[np.bool_]]:
        """Which weights of each layer are left, (inputs, outputs)."""
        return [mask.T for mask in self.network_.masks]

    @property
    def sparsity_(self) -> float:
        """Fraction of all weights that are pruned."""
        return self.network_.sparsity

    @property
    def feature_importances_(self) -> Floats:
        """Sum of the absolute weights of each feature, standardized if it is, as a part of 1; 0 for an unread one."""
        layer, read = self._network.layer(0).csr, self.get_support(indices=True)
        sums = np.bincount(layer.indices, abs(layer.data), minlength=self._network.sizes[0])
        importances = np.zeros(sums.size)
        importances[read] = sums[read]
        total: float = importances.sum()
        return importances / total if total else importances

    def get_support(self, indices: bool = False) -> npt.NDArray[np.bool_] | Ints:
        """Return which features the predictions depend on, as a mask (n_features,) or as indices."""
        check_is_fitted(self)
        read = self.network_.live_inputs
        return read if indices else np.isin(np.arange(self.network_.sizes[0]), read)

    def _features(self, X: Any) -> Any:  # noqa: N803
        check_is_fitted(self)
        return _validated(self, X, reset=False)

    def _as_sklearn(self, estimator: Any) -> Any:
        """Return scikit-learn's estimator with this network."""
        check_is_fitted(self)
        if self._network.activation == "leaky_relu":
            raise ValueError("activation: scikit-learn has 'relu', 'tanh' and 'logistic', got 'leaky_relu'")
        shared = set(estimator.get_params()) & set(self.get_params()) - {"learning_rate"}
        activation = "logistic" if self._network.activation == "sigmoid" else self._network.activation
        estimator.set_params(**{name: getattr(self, name) for name in shared} | {"activation": activation})
        estimator.coefs_ = [weights.copy() for weights in self.coefs_]
        estimator.intercepts_ = [biases.copy() for biases in self.intercepts_]
        for name in ("n_features_in_", "feature_names_in_", "n_layers_", "n_outputs_", "n_iter_", "loss_"):
            if hasattr(self, name):
                setattr(estimator, name, getattr(self, name))
        estimator.loss_curve_, estimator.best_loss_, estimator.t_ = list(self.loss_curve_), math.inf, 0
        estimator._no_improvement_count = 0
        estimator.out_activation_ = self.out_activation_
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # What depends on the task.

    def _labelled(self, y: Any, weights: Floats | None, classes: Any, begun: bool) -> tuple[Floats | None, Any]:
        """Return the samples' weights and labels; set `n_outputs_`."""
        raise NotImplementedError

    def _begin_targets(self, y: Any, weights: Floats | None) -> None:
        """Learn the scale of the targets."""

    def _targets(self, y: Any) -> Any:
        """Return the labels as the network is trained on them."""
        return y

    @property
    def _loss(self) -> str:
        raise NotImplementedError

    def _unscaled_outputs(self, weights: Floats, starts: Ints, biases: Floats) -> tuple[Floats, Floats]:
        """Return the last layer, its live weights row by row, for outputs as they come."""
        return weights, biases

    @property
    def out_activation_(self) -> str:
        """Activation of the outputs, by scikit-learn's name."""
        raise NotImplementedError


class PrunedMLPClassifier(ClassifierMixin, _PrunedMLP):  # type: ignore[misc]
    """A multilayer perceptron for classification, pruned by magnitude, which predicts faster the more is pruned.

    Takes the place of `sklearn.neural_network.MLPClassifier`: two classes, more, or several labels per sample, in
    numbers or text. Trains for at most `max_iter` epochs; then each round of the schedule prunes and retrains, together
    for as many epochs again (Han et al. 2015).

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units of each hidden layer.
    activation : {"relu", "leaky_relu", "tanh", "logistic"}, default="relu"
        Activation of the hidden layers.
    sparsity : float, default=0.9
        Fraction of all weights to prune, in [0, 1). It is reached in rounds that each leave 71 % of the weights.
    schedule : sequence of float, default=None
        Sparsity after each round, instead; a schedule of `fastprune.schedules` or a list. An empty one prunes nothing.
    scope : {"layer", "global"}, default="layer"
        Whether each layer is ranked alone, or all weights together.
    layer_rates : {"uniform", "erdos_renyi", "lamp"}, default="erdos_renyi"
        How scope "layer" distributes the live weights, as in `fastprune.Pruner`. The default leaves small layers, such
        as the last, a larger part of theirs.
    solver : {"adam", "sgd"}, default="adam"
        Optimizer.
    alpha : float, default=0.0001
        Strength of the L2 penalty, divided by the samples of a batch as in scikit-learn.
    batch_size : int or "auto", default="auto"
        Samples per step; "auto" is min(200, n_samples).
    learning_rate : {"constant", "step", "linear", "cosine"} or callable, default="constant"
        Learning-rate schedule of the training and of each round; see `fastprune.Trainer`.
    learning_rate_init : float, default=0.001
        Learning rate of the first step.
    max_iter : int, default=200
        Most epochs before pruning; the rounds share as many.
    random_state : int, RandomState instance or None, default=None
        Seed of the initialization, the shuffling, and the held-out samples.
    tol, n_iter_no_change : float or None, default=0.0001; int, default=10
        A training, or a round, ends once the loss has not fallen by more than `tol` for `n_iter_no_change` epochs. It
        is the loss of held-out samples with `early_stopping`. None: never.
    verbose : bool, default=False
        Whether to show a progress bar.
    warm_start : bool, default=False
        Whether `fit` goes on with the present network and its masks.
    momentum, nesterovs_momentum : float, default=0.9; bool, default=True
        Momentum of "sgd".
    early_stopping : bool, default=False
        Whether to hold samples out, to stop by and to keep the best state by.
    validation_fraction : float, default=0.1
        Fraction of the samples to hold out.
    standardize : bool, default=True
        Whether features are scaled inside to mean 0 and standard deviation 1 (a sparse matrix: to standard deviation
        1). Weights and biases absorb the scales after training, so that they apply to features as they come.
    n_jobs : int, default=None
        Most threads; None means 1, -1 one per core. Results do not depend on it.
    class_weight : dict, "balanced" or None, default=None
        Factor on the weight of each class's samples.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels of the classes.
    coefs_, intercepts_, masks_ : list of ndarray
        Weights (inputs, outputs), biases and masks of each layer.
    sparsity_ : float
        Fraction of all weights that are pruned.
    network_ : fastprune.MLP
        The network, for features as they come.
    history_ : fastprune.PruneHistory
        A record of each round.
    loss_, loss_curve_ : float, list of float
        Training loss at the end, and of each epoch before pruning.
    n_iter_ : int
        Epochs before pruning.
    n_layers_, n_outputs_, out_activation_ : int, int, str
        Number of levels, number of outputs, activation of the outputs.
    feature_importances_ : ndarray of shape (n_features,)
        Sum of the absolute weights of each feature, as a part of 1; 0 for features that are not read.
    n_features_in_, feature_names_in_ : int, ndarray of str
        As in all of scikit-learn.

    Examples
    --------
    >>> from fastprune.sklearn import PrunedMLPClassifier
    >>> from sklearn.datasets import load_digits
    >>> x, y = load_digits(return_X_y=True)
    >>> classifier = PrunedMLPClassifier(sparsity=0.9, random_state=0).fit(x[:1000], y[:1000])
    >>> round(classifier.sparsity_, 3), classifier.score(x[1000:], y[1000:]) > 0.9
    (0.9, True)
    """

    classes_: npt.NDArray[Any]
    _kind: str  # "binary", "multiclass" or "multilabel-indicator", as scikit-learn names it

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        sparsity: float = 0.9,
        schedule: Sequence[Amount] | None = None,
        scope: str = "layer",
        layer_rates: str = "erdos_renyi",
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        random_state: int | np.random.RandomState | None = None,
        tol: float | None = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        standardize: bool = True,
        n_jobs: int | None = None,
        class_weight: dict[Any, float] | str | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            sparsity=sparsity,
            schedule=schedule,
            scope=scope,
            layer_rates=layer_rates,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            standardize=standardize,
            n_jobs=n_jobs,
        )
        self.class_weight = class_weight

    def partial_fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        classes: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch, without pruning; what an earlier `fit` pruned stays pruned.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`. The first call, if `fit` was not called before, decides how features are scaled: its samples
            should be typical ones.
        classes : array-like of shape (n_classes,), default=None
            All labels that will come; only read by the first call. By default those in `y`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or an argument is not as described, or a label is new.
        """
        with self._unchanged_by_failure():
            return self._partial_fit(X, y, sample_weight, classes)

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Predict the probability of each class: (n_samples, n_classes)."""
        x = self._features(X)
        return self._frozen.predict_proba(x)

    def predict_log_proba(self, X: Any) -> Floats:  # noqa: N803
        """Predict the logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Predict labels: (n_samples,), or 0 and 1, (n_samples, n_outputs), for several labels per sample."""
        x = self._features(X)
        found = self._frozen.predict(x)
        return found if self._kind == "multilabel-indicator" else self.classes_[found]

    def to_sklearn(self) -> MLPClassifier:
        """Return a `sklearn.neural_network.MLPClassifier` with the same predictions, for tools that know it."""
        estimator = self._as_sklearn(MLPClassifier())
        binarizer = LabelBinarizer()
        ones = np.eye(self.classes_.size, dtype=int)
        estimator._label_binarizer = binarizer.fit(ones if self._kind == "multilabel-indicator" else self.classes_)
        estimator.classes_ = self.classes_
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _labelled(self, y: Any, weights: Floats | None, classes: Any, begun: bool) -> tuple[Floats | None, Any]:
        check_classification_targets(y)
        y = y.toarray() if issparse(y) else y
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        kind = type_of_target(y, input_name="y")
        if kind == "multiclass-multioutput":
            raise ValueError("y: expected one class per sample, or 0 or 1 for each label, got several classes")
        if self.class_weight is not None:
            of_classes: Floats = compute_sample_weight(self.class_weight, y)
            weights = of_classes if weights is None else weights * of_classes
        found = np.arange(y.shape[1]) if kind == "multilabel-indicator" else np.unique(y)
        if begun:
            new = np.setdiff1d(found, self.classes_)
            if new.size or (kind == "multilabel-indicator") != (self._kind == "multilabel-indicator"):
                raise ValueError(f"y: expected the classes {self.classes_}, which the network knows, got {found}")
        else:
            self.classes_ = found if classes is None or kind == "multilabel-indicator" else np.unique(classes)
            if np.setdiff1d(found, self.classes_).size:
                raise ValueError(f"classes: expected all labels that come, got {self.classes_}, and in y {found}")
            if self.classes_.size < 2 and kind != "multilabel-indicator":
                raise ValueError(f"y: expected at least two classes, got one class: {found}")
            self._kind = kind
            if kind != "multilabel-indicator":  # `classes` may name more than are in y
                self._kind = "binary" if self.classes_.size == 2 else "multiclass"
            self.n_outputs_ = 1 if self._kind == "binary" else self.classes_.size
        if kind == "multilabel-indicator":
            return weights, y.astype(np.float64)
        return weights, np.searchsorted(self.classes_, y)

    @property
    def _loss(self) -> str:
        return "softmax_cross_entropy" if self._kind == "multiclass" else "sigmoid_cross_entropy"

    @property
    def out_activation_(self) -> str:
        """Activation of the outputs, by scikit-learn's name."""
        return "softmax" if self._kind == "multiclass" else "logistic"


class PrunedMLPRegressor(RegressorMixin, _PrunedMLP):  # type: ignore[misc]
    """A multilayer perceptron for regression, of one value or several, pruned by magnitude.

    Takes the place of `sklearn.neural_network.MLPRegressor`. Targets are standardized inside.

    Parameters
    ----------
    hidden_layer_sizes, activation, sparsity, schedule, scope, layer_rates, solver, alpha, batch_size, learning_rate, \
learning_rate_init, max_iter, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, \
validation_fraction, n_iter_no_change, standardize, n_jobs
        As for `PrunedMLPClassifier`.

    Attributes
    ----------
    coefs_, intercepts_, masks_, sparsity_, network_, history_, loss_, loss_curve_, n_iter_, n_layers_, n_outputs_, \
out_activation_, feature_importances_, n_features_in_, feature_names_in_
        As for `PrunedMLPClassifier`; losses are of standardized targets.

    Examples
    --------
    >>> from fastprune.sklearn import PrunedMLPRegressor
    >>> from sklearn.datasets import make_regression
    >>> x, y = make_regression(500, 20, n_informative=3, random_state=0)
    >>> regressor = PrunedMLPRegressor(sparsity=0.95, random_state=0).fit(x, y)
    >>> regressor.score(x, y) > 0.95
    True
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None) -> Self:  # noqa: N803
        """Train for one epoch, without pruning; see `PrunedMLPClassifier.partial_fit`."""
        with self._unchanged_by_failure():
            return self._partial_fit(X, y, sample_weight, None)

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Predict values: (n_samples,), or (n_samples, n_outputs) for several outputs."""
        x = self._features(X)
        return self._frozen.predict(x)

    def to_sklearn(self) -> MLPRegressor:
        """Return a `sklearn.neural_network.MLPRegressor` with the same predictions, for tools that know it."""
        return self._as_sklearn(MLPRegressor())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _labelled(self, y: Any, weights: Floats | None, classes: Any, begun: bool) -> tuple[Floats | None, Any]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if begun and outputs != self.n_outputs_:
            raise ValueError(f"y: expected {self.n_outputs_} values per sample, as the network has, got {outputs}")
        self.n_outputs_ = outputs
        return weights, y.reshape(len(y), outputs).astype(np.float64)

    def _begin_targets(self, y: Any, weights: Floats | None) -> None:
        self._target_scaler = StandardScaler().fit(y, sample_weight=weights)

    def _targets(self, y: Any) -> Any:
        return self._target_scaler.transform(y)

    @property
    def _loss(self) -> str:
        return "mean_squared_error"

    def _unscaled_outputs(self, weights: Floats, starts: Ints, biases: Floats) -> tuple[Floats, Floats]:
        scale, mean = self._target_scaler.scale_, self._target_scaler.mean_
        return weights * np.repeat(scale, np.diff(starts)), biases * scale + mean

    @property
    def out_activation_(self) -> str:
        """Activation of the outputs, by scikit-learn's name."""
        return "identity"


def _validated(estimator: Any, X: Any, y: Any = "no_validation", *, reset: bool) -> Any:  # noqa: N803
    """Check features and labels as scikit-learn does; of a frame, an error about NaN also names the columns."""
    of_labels = {} if isinstance(y, str) else {"multi_output": True, "y_numeric": isinstance(estimator, RegressorMixin)}
    how: Any = {"reset": reset, "accept_sparse": "csr", "dtype": (np.float64, np.float32), **of_labels}
    # Its own look for NaN would take a third of a prediction's time.
    found = validate_data(estimator, X, y, ensure_all_finite=False, **how)
    x = found[0] if of_labels else found
    if kernels.all_finite(x.data if issparse(x) else np.ravel(x, "K")):
        return found
    try:
        return validate_data(estimator, X, y, **how)
    except ValueError as error:
        if hasattr(X, "columns"):
            columns = x.indices[~np.isfinite(x.data)] if issparse(x) else np.nonzero(~np.isfinite(x))[1]
            names = ", ".join(repr(X.columns[index]) for index in np.unique(columns).tolist())
            raise ValueError(f"{str(error).splitlines()[0]} Columns: {names}.") from error
        raise
