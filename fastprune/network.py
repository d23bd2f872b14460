"""The network that is trained and pruned: how it is made, and what comes in from elsewhere."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike, DTypeLike

from fastprune import check
from fastprune.allocation import choose, erdos_renyi
from fastprune.base import ACTIVATIONS, FORMAT, Network
from fastprune.files import read_npz
from fastprune.frozen import FrozenMLP, freeze
from fastprune.inference import forward
from fastprune.kernels.layout import Floats, Ints
from fastprune.kernels.loss import MEAN_SQUARED_ERROR, SIGMOID_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from fastprune.kernels.tile import all_finite
from fastprune.state import State
from fastprune.storage import EXECUTIONS, positions_of, stored_sparsely
from fastprune.team import Threads

INITIALIZATIONS = ("he", "glorot")
LOSSES = {
    "softmax_cross_entropy": SOFTMAX_CROSS_ENTROPY,
    "sigmoid_cross_entropy": SIGMOID_CROSS_ENTROPY,
    "mean_squared_error": MEAN_SQUARED_ERROR,
}


class MLP(check.Checked, Network):
    """A multilayer perceptron whose weights can be pruned.

    Parameters
    ----------
    sizes : sequence of int
        Units of each layer, the input features first and the outputs last; at least two numbers.
    activation : {"relu", "leaky_relu", "tanh", "sigmoid"}, default "relu"
        Of the hidden layers. The output layer yields logits; softmax or sigmoid follow from the loss.
    initialization : {"he", "glorot"} or float, default "he"
        Weights are drawn from N(0, 2 / fan_in) (He et al. 2015, equation 10), from U(-a, a) with
        a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16), or, given a number sigma > 0, from
        N(0, sigma^2). Biases start at 0.
    loss : {"softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"}, optional
        What the outputs mean. If not given, it follows from the labels at the first training. With several outputs,
        whole numbers (N,) are classes (softmax). With a single output, or as many labels a sample as outputs, labels
        that are all 0 or 1 are yes or no (sigmoid), and other floats are values to meet (mean squared error). One-hot
        rows are refused: they might be either of the first two.
    dtype : {"float32", "float64"}, default "float32"
        Of parameters and arithmetic.
    seed : int, default 0
        Seed for the initialization.
    density : float, default 1.0
        Fraction of all weights that is live from the start, in (0, 1]: chosen at random, shared out among layers as
        Erdos-Renyi graphs are (Mocanu et al. 2018, equation 3). A unit's fans count live weights only, on average.
        What is not live takes no memory in layers that run sparsely, not even at first.
    execution : {"auto", "dense", "sparse"} or a sequence of these, one a layer, default "auto"
        How layers are stored and run. "auto" decides by density and shape after every prune, and is what to use; the
        others are for experiments. Results agree to rounding.

    Attributes
    ----------
    sizes : list of int
        As given.
    activation : str
        As given.
    loss : str or None
        As given, or as the first training found it.
    dtype : numpy.dtype
        As given.

    Raises
    ------
    ValueError
        If an argument is not as described, or the weights are more than can be counted.

    Examples
    --------
    >>> import fastprune as fp
    >>> network = fp.MLP([64, 300, 100, 10])
    >>> network
    MLP([64, 300, 100, 10], activation='relu', dtype='float32', loss=None, live=50200/50200)
    """

    _frozen = False
    _checks = {"loss": check.optional(functools.partial(check.one_of, choices=LOSSES))}  # noqa: RUF012

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str = "relu",
        initialization: str | float = "he",
        loss: str | None = None,
        dtype: DTypeLike = "float32",
        seed: int = 0,
        density: float = 1.0,
        execution: str | Sequence[str] = "auto",
    ) -> None:
        units = _sizes(sizes)
        total = [fan_in * fan_out for fan_in, fan_out in pairwise(units)]
        if isinstance(initialization, str):
            check.one_of("initialization", initialization, INITIALIZATIONS)
        else:
            check.number("initialization", initialization, "(0, inf)")
        seed = check.integer("seed", seed, 0, 2**64 - 1)
        density = check.number("density", density, "(0, 1]")
        counts = erdos_renyi(max(1, round(density * sum(total))), units)
        how = _executions(execution, len(total))
        for one, (fan_in, fan_out), count in zip(how, pairwise(units), counts, strict=True):
            stored_sparsely(one, fan_in, fan_out, count)  # refuses what cannot be, before memory is taken
        positions = [
            None if count == size else choose(size, count, np.random.default_rng([seed, layer, 1]))
            for layer, (count, size) in enumerate(zip(counts, total, strict=True))
        ]
        self._begin(units, activation, loss, dtype, how, positions)
        values = (
            _initial(count, units[layer : layer + 2], initialization, np.random.default_rng([seed, layer]))
            for layer, count in enumerate(counts)
        )
        with np.errstate(over="ignore"):  # what overflows is found below
            state = self.state.with_values(values, [np.zeros(size) for size in units[1:]])
        if not all_finite(state.values):
            raise ValueError(f"initialization: expected weights that {self.dtype} can hold, got {initialization!r}")
        self.state = state

    def _begin(
        self,
        sizes: list[int],
        activation: str,
        loss: str | None,
        dtype: DTypeLike,
        execution: str | Sequence[str],
        positions: Sequence[Ints | None],
    ) -> None:
        """Make room for these live weights, which are 0."""
        code = ACTIVATIONS[check.one_of("activation", activation, ACTIVATIONS)]
        how = _executions(execution, len(sizes) - 1)
        self.loss = loss
        self.state = State.empty(sizes, how, code, _dtype(dtype)).with_live(positions)

    @classmethod
    def from_weights(
        cls,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike] | None = None,
        masks: Sequence[ArrayLike | None] | None = None,
        *,
        activation: str = "relu",
        loss: str | None = None,
        dtype: DTypeLike = "float32",
        execution: str | Sequence[str] = "auto",
    ) -> MLP:
        """Make a network of weights from elsewhere.

        Parameters
        ----------
        weights : sequence of array_like (fan_out, fan_in)
            One matrix a layer, as PyTorch's `Linear.weight` has it (scikit-learn's `coefs_` are transposed).
        biases : sequence of array_like (fan_out,), optional
            0, if not given.
        masks : sequence of array_like (fan_out, fan_in) or None, optional
            Which weights are live: booleans, or zeros and ones; None stands for all. What is written in `weights` for
            the others does not matter.
        activation, loss, dtype, execution
            As for `MLP`.

        Returns
        -------
        MLP

        Raises
        ------
        ValueError
            If an argument is not as described, or the layers do not fit together.

        Examples
        --------
        >>> import fastprune as fp
        >>> fp.MLP.from_weights([[[1.0, -2.0]]], [[0.5]], loss="mean_squared_error").predict([[3.0, 1.0]])
        array([1.5], dtype=float32)
        """
        weights = check.listed("weights", weights)
        shapes = [np.shape(check.matrix(f"weights[{index}]", matrix)) for index, matrix in enumerate(weights)]
        for index, (below, above) in enumerate(pairwise(shapes)):
            if above[1] != below[0]:
                raise ValueError(f"weights[{index + 1}]: expected ({above[0]}, {below[0]}), got shape {above}")
        network = cls.__new__(cls)
        sizes = _sizes([shapes[0][1], *(shape[0] for shape in shapes)])
        network._begin(sizes, activation, loss, dtype, execution, [None] * len(shapes))
        zeros = [np.zeros(size) for size in sizes[1:]]
        network.set_weights(weights, zeros if biases is None else biases, masks)
        return network

    def set_weights(
        self,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike] | None = None,
        masks: Sequence[ArrayLike | None] | None = None,
    ) -> None:
        """Replace all weights, and with them biases and masks, if these are given.

        What an optimizer keeps of a weight stays, if the weight was live before and still is.

        Parameters
        ----------
        weights : sequence of array_like (fan_out, fan_in)
            One matrix a layer. What is written for weights that are not live does not matter.
        biases : sequence of array_like (fan_out,), optional
            As they are, if not given.
        masks : sequence of array_like (fan_out, fan_in) or None, optional
            Which weights are live from now on: booleans, or zeros and ones. Where there is None, or no masks are given,
            the present mask stays.

        Raises
        ------
        ValueError
            If an argument is not as described. Nothing is then changed.

        Examples
        --------
        >>> import fastprune as fp
        >>> network = fp.MLP([2, 2], seed=0)
        >>> network.set_weights([[[1.0, 2.0], [3.0, 4.0]]], masks=[[[1, 0], [0, 1]]])
        >>> network.weights[0].tolist(), network.sparsity
        ([[1.0, 0.0], [0.0, 4.0]], 0.5)
        """
        shapes = [self.layer(index).shape for index in range(self.n_layers)]
        vectors = self.biases
        if biases is not None:
            vectors = check.arrays("biases", biases, [(fan_out,) for fan_out, _ in shapes], self.dtype)
        state = self.state
        if masks is not None:
            marks = check.masks("masks", masks, shapes)
            present = [state.storage.positions(index) for index in range(self.n_layers)]
            chosen = zip(marks, present, strict=True)
            state = state.with_live([live if mask is None else np.flatnonzero(mask) for mask, live in chosen])
        live = [state.storage.positions(index) for index in range(self.n_layers)]
        self.state = state.with_values(check.arrays("weights", weights, shapes, self.dtype, live), vectors)

    @property
    def effective_sparsity(self) -> float:
        """Like `sparsity`, with weights counted as pruned that lie on no path of live weights from input to output.

        What pruning methods are to be compared by (Vysogorets and Kempe 2023): the other weights do no work.
        """
        return (self.total_weights - self.state.storage.paths()[0]) / self.total_weights

    @property
    def dead_units(self) -> list[int]:
        """How many units of each hidden layer no path of live weights leads through; `freeze` drops them."""
        return self.state.storage.paths()[1]

    def freeze(self) -> FrozenMLP:
        """A form for inference only, of what the outputs depend on.

        Units that reach no output are dropped. Units that no input reaches are constant: they are dropped, too, and
        what they give is added to the biases of the next layer. This network stays as it is.

        Returns
        -------
        FrozenMLP
            With `logits`, `predict` and `predict_proba`, equal to this network's but for rounding.

        Examples
        --------
        >>> import fastprune as fp
        >>> network = fp.MLP([64, 300, 10], density=0.02, loss="softmax_cross_entropy")
        >>> network.freeze().sizes[1] < 300
        True
        """
        return freeze(self)

    def _logits(self, x: Floats) -> Floats:
        state = self.state
        return forward(x, state.values, state.storage.layout, Threads(1))


class _Settings(NamedTuple):
    """What a file says of the network besides its arrays."""

    sizes: list[int]
    activation: str
    loss: str | None
    dtype: str
    frozen: bool = False


def load(path: str | os.PathLike[str]) -> MLP | FrozenMLP:
    """Read a network that `MLP.save` or `FrozenMLP.save` wrote.

    Parameters
    ----------
    path : str or path
        Name of the file.

    Returns
    -------
    MLP or FrozenMLP
        With the weights, masks and settings it was saved with; what was saved frozen is frozen.

    Raises
    ------
    ValueError
        If there is no such file, or it is not one of fastprune's, truncated, or damaged.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import fastprune as fp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "net.npz")
    ...     fp.MLP([4, 3, 2]).save(path)
    ...     fp.load(path)
    MLP([4, 3, 2], activation='relu', dtype='float32', loss=None, live=18/18)
    """
    path = check.path("path", path)
    try:
        return _from_arrays(read_npz(path))
    except Exception as error:  # of whatever kind: the file may hold any nonsense
        fault = f"no array {error} in it" if isinstance(error, KeyError) else error or type(error).__name__
        raise ValueError(f"path: expected a network saved by fastprune, got {path!r} ({fault})") from error


def _from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> MLP | FrozenMLP:
    """The network of a file's arrays; memory is taken only for what these have been found to hold."""
    if arrays["fastprune_format"] not in range(1, FORMAT + 1):
        raise ValueError(f"format {arrays['fastprune_format']}, this version reads 1 to {FORMAT}")
    settings = _Settings(**json.loads(str(arrays["settings"])))
    sizes, dtype = _sizes(settings.sizes), _dtype(settings.dtype)
    total = [fan_in * fan_out for fan_in, fan_out in pairwise(sizes)]
    positions = positions_of(arrays, total)
    counts = [size if where is None else where.size for size, where in zip(total, positions, strict=True)]
    weights = [_stored(arrays, f"weights_{layer}", count, dtype) for layer, count in enumerate(counts)]
    biases = _stored(arrays, "biases", sum(sizes[1:]), dtype)
    network = MLP.__new__(MLP)
    network._begin(sizes, settings.activation, settings.loss, dtype, "auto", positions)
    network.state = network.state.with_values(weights, [biases])
    return FrozenMLP(network.state, network.loss) if check.boolean("frozen", settings.frozen) else network


def _sizes(sizes: Sequence[int]) -> list[int]:
    if isinstance(sizes, np.ndarray):
        sizes = sizes.tolist()
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or len(sizes) < 2:
        raise ValueError(f"sizes: expected at least two layer sizes, got {sizes!r}")
    checked = [check.integer(f"sizes[{i}]", size, 1) for i, size in enumerate(sizes)]
    if sum(fan_in * fan_out for fan_in, fan_out in pairwise(checked)) > 2**60:
        raise ValueError(f"sizes: expected weights that can be counted, got {sizes}")
    return checked


def _stored(arrays: dict[str, npt.NDArray[Any]], name: str, size: int, dtype: np.dtype[Any]) -> Floats:
    array = arrays[name]
    if array.shape != (size,) or array.dtype != dtype or not all_finite(array):
        raise ValueError(f"{name}: expected finite {dtype} ({size},), got {array.dtype} {array.shape}")
    return array


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        result = np.dtype("O" if dtype is None else dtype)
    except TypeError:
        result = np.dtype(object)
    if result.name not in ("float32", "float64"):
        raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
    return np.dtype(result.name)  # in this machine's order of bytes


def _executions(execution: str | Sequence[str], layers: int) -> list[str]:
    given = [execution] * layers if isinstance(execution, str) else execution
    if not isinstance(given, Sequence):
        raise ValueError(f"execution: expected a name, or one for each layer, got {execution!r}")
    if len(given) != layers:
        raise ValueError(f"execution: expected one for each of {layers} layers, got {len(given)}")
    return [check.one_of("execution", one, EXECUTIONS) for one in given]


def _initial(count: int, shape: list[int], initialization: str | float, rng: np.random.Generator) -> Floats:
    """Values of the `count` weights of a layer of this shape, (fan_in, fan_out), that are live."""
    if count == 0:
        return np.empty(0)
    # A unit's live weights are what its sum is made of.
    fan_in, fan_out = (end * count / (shape[0] * shape[1]) for end in shape)
    if initialization == "glorot":
        bound = (6 / (fan_in + fan_out)) ** 0.5
        return rng.uniform(-bound, bound, count)
    sigma = (2 / fan_in) ** 0.5 if isinstance(initialization, str) else initialization
    return rng.normal(0, sigma, count)
