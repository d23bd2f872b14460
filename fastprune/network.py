"""The network that is trained and pruned: making one, setting its weights, loading it."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike, DTypeLike

from fastprune import check, coded
from fastprune.allocation import choose, erdos_renyi
from fastprune.base import ACTIVATIONS, FORMAT, Network
from fastprune.files import read_npz, regular
from fastprune.frozen import FrozenMLP, freeze
from fastprune.inference import features_of, forward
from fastprune.kernels.constants import MEAN_SQUARED_ERROR, SIGMOID_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from fastprune.kernels.layout import Floats, Ints
from fastprune.state import State
from fastprune.storage import EXECUTIONS, positions_of, stored_sparsely
from fastprune.team import Threads

INITIALIZATIONS = ("he", "glorot")
LOSSES = {
    "softmax_cross_entropy": SOFTMAX_CROSS_ENTROPY,
    "sigmoid_cross_entropy": SIGMOID_CROSS_ENTROPY,
    "mean_squared_error": MEAN_SQUARED_ERROR,
}


# What to do with files of other programs, which `load` is given by mistake.
_TORCH = "; fastprune.export.from_torch takes the torch.nn.Sequential that PyTorch loads from it"
_KERAS = "; MLP.from_weights takes the kernels that Keras loads from it, transposed"
_PICKLE = "; fastprune opens no pickles, which can run any code: if you trust this one, open it with pickle.load"
_ADVICE = {
    ".onnx": "; fastprune.export.from_onnx reads ONNX models",
    ".safetensors": "; fastprune.export.from_safetensors reads these files",
    **dict.fromkeys([".pt", ".pth"], _TORCH),
    **dict.fromkeys([".h5", ".hdf5", ".keras"], _KERAS),
    **dict.fromkeys([".pkl", ".pickle"], _PICKLE),
}


class MLP(check.Checked, Network):
    """A multilayer perceptron whose weights can be pruned.

    Parameters
    ----------
    sizes : sequence of int
        Units of each level, from input features to outputs; at least two numbers.
    activation : {"relu", "leaky_relu", "tanh", "sigmoid"}, default "relu"
        Activation of the hidden layers. The output layer yields logits; the loss decides between softmax and sigmoid.
    initialization : {"he", "glorot"} or float, default "he"
        Distribution of the initial weights: N(0, 2 / fan_in) (He et al. 2015, equation 10), U(-a, a) with
        a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16), or, for a number sigma > 0,
        N(0, sigma^2). Biases start at 0.
    loss : {"softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"}, optional
        Loss, which says what the outputs mean. If not given, the first training infers it from the labels. With several
        outputs, whole numbers (N,) are classes (softmax). With one output, or as many labels per sample as outputs,
        labels that are all 0 or 1 are yes or no (sigmoid), and other floats are regression targets (mean squared
        error). One-hot rows are refused, because they could mean softmax or sigmoid.
    dtype : {"float32", "float64"}, default "float32"
        Dtype of the parameters and of all arithmetic.
    seed : int, default 0
        Seed for the initialization.
    density : float, default 1.0
        Fraction of all weights that are live from the start, in (0, 1]. They are chosen at random and distributed over
        the layers as in Erdos-Renyi graphs (Mocanu et al. 2018, equation 3). The initialization uses each layer's mean
        live fan-in and fan-out. In layers that run sparse, other weights never take any memory.
    execution : {"auto", "dense", "sparse"} or a sequence of these, one per layer, default "auto"
        How layers are stored and computed. "auto", the recommended setting, decides by density and shape after every
        prune; the others are for experiments. Results agree up to rounding.

    Attributes
    ----------
    sizes, activation, dtype : list of int, str, numpy.dtype
        As given.
    loss : str or None
        As given, or as inferred by the first training.

    Raises
    ------
    ValueError
        If an argument is not as described, or there are more than 2**60 weights.

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
            stored_sparsely(one, fan_in, fan_out, count)  # raises before memory is allocated
        positions = [
            None if count == size else choose(size, count, np.random.default_rng([seed, layer, 1]))
            for layer, (count, size) in enumerate(zip(counts, total, strict=True))
        ]
        self._begin(units, activation, loss, dtype, how, positions)
        values = (
            _initial(count, units[layer : layer + 2], initialization, np.random.default_rng([seed, layer]))
            for layer, count in enumerate(counts)
        )
        with np.errstate(over="ignore"):  # an overflow is found below
            state = self.state.with_values(values, [np.zeros(size) for size in units[1:]])
        if not np.isfinite(state.values).all():
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
        """Set up the network with these live weights, all 0."""
        code = ACTIVATIONS[check.one_of("activation", activation, ACTIVATIONS)]
        how = _executions(execution, len(sizes) - 1)
        self.loss = loss
        self.state = State.zeros(sizes, how, code, positions, check.dtype("dtype", dtype))

    @classmethod
    def _of_live(
        cls,
        sizes: list[int],
        activation: str,
        loss: str | None,
        dtype: DTypeLike,
        positions: Sequence[Ints | None],
        weights: Sequence[Floats],
        biases: Sequence[Floats],
    ) -> MLP:
        """Make a network from its live weights alone, without matrices: their positions and values, and the biases."""
        network = cls.__new__(cls)
        network._begin(_sizes(sizes), activation, loss, dtype, "auto", positions)
        network.state = network.state.with_values(weights, biases)
        return network

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
        """Make a network from existing weights.

        Parameters
        ----------
        weights : sequence of array_like (fan_out, fan_in)
            One matrix per layer, laid out like PyTorch's `Linear.weight` (scikit-learn's `coefs_` are transposed).
        biases : sequence of array_like (fan_out,), optional
            One vector per layer; zeros if not given.
        masks : sequence of array_like (fan_out, fan_in) or None, optional
            Which weights are live: booleans, or zeros and ones; None means all. Values of other weights are ignored.
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
        """Replace all weights, and the biases and masks if given.

        Weights that were live before and still are keep their optimizer state.

        Parameters
        ----------
        weights : sequence of array_like (fan_out, fan_in)
            One matrix per layer. Values of pruned weights are ignored.
        biases : sequence of array_like (fan_out,), optional
            One vector per layer. If not given, biases are unchanged.
        masks : sequence of array_like (fan_out, fan_in) or None, optional
            Which weights are live from now on: booleans, or zeros and ones. If not given, or None for a layer, the
            present mask stays.

        Raises
        ------
        ValueError
            If an argument is not as described. The network is then unchanged.

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
        """Like `sparsity`, but weights on no path of live weights from an input to an output also count as pruned.

        The fair measure for comparing pruning methods (Vysogorets and Kempe 2023), because such weights do no work.
        """
        return (self.total_weights - self.state.storage.paths().weights) / self.total_weights

    @property
    def dead_units(self) -> list[int]:
        """Number of units in each hidden layer that are on no path of live weights; `freeze` drops them."""
        return self.state.storage.paths().dead_units

    def __copy__(self) -> Self:
        """Copy the network and its weights: training changes them in place, so two networks cannot share them."""
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self), state=self.state.copy())
        return twin

    def freeze(self) -> FrozenMLP:
        """Return an inference-only copy of the parts that the outputs depend on.

        Units with no path to an output are dropped. Units that no input reaches are constant; they are dropped too, and
        their contribution is added to the biases of the next layer. The units left in a hidden layer are sorted by
        their number of incoming live weights. This network is unchanged.

        Returns
        -------
        FrozenMLP
            Its `logits`, `predict` and `predict_proba` equal this network's up to rounding.

        Examples
        --------
        >>> import fastprune as fp
        >>> network = fp.MLP([64, 300, 10], density=0.02, loss="softmax_cross_entropy")
        >>> network.freeze().sizes[1] < 300
        True
        """
        return freeze(self)

    def _used(self) -> State:
        return self.freeze().state

    def _logits(self, x: Floats) -> Floats:
        state = self.state
        return forward(features_of(x), state.values, state.storage.layout, Threads(1))


class _Settings(NamedTuple):
    """The settings in a network file."""

    sizes: list[int]
    activation: str
    loss: str | None
    dtype: str
    frozen: bool = False


def load(path: str | os.PathLike[str]) -> MLP | FrozenMLP:
    """Load a network that `MLP.save` or `FrozenMLP.save` wrote.

    Parameters
    ----------
    path : str or path
        Name of the file.

    Returns
    -------
    MLP or FrozenMLP
        The network with its weights, masks and settings; a `FrozenMLP` if one was saved, or a coded file.

    Raises
    ------
    ValueError
        If the file does not exist, was not written by fastprune, or is truncated or damaged.

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
        with regular(path).open("rb") as file:
            if file.read(len(coded.MAGIC)) == coded.MAGIC:
                return FrozenMLP(*coded.decode(coded.MAGIC + file.read()))
        return _from_arrays(read_npz(path))
    except Exception as error:  # a damaged file can raise almost anything
        fault = f"array {error} is missing" if isinstance(error, KeyError) else error or type(error).__name__
        advice = _ADVICE.get(Path(path).suffix.lower(), "")
        raise ValueError(f"path: expected a network saved by fastprune, got {path!r} ({fault}){advice}") from error


def _from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> MLP | FrozenMLP:
    """Build the network from a file's arrays; memory is allocated only for what they are known to hold."""
    if arrays["fastprune_format"] not in range(1, FORMAT + 1):
        raise ValueError(f"format {arrays['fastprune_format']}; this version reads 1 to {FORMAT}")
    settings = _Settings(**json.loads(str(arrays["settings"])))
    sizes, dtype = _sizes(settings.sizes), check.dtype("dtype", settings.dtype)
    total = [fan_in * fan_out for fan_in, fan_out in pairwise(sizes)]
    positions = positions_of(arrays, total)
    counts = [size if where is None else where.size for size, where in zip(total, positions, strict=True)]
    weights = [_stored(arrays, f"weights_{layer}", count, dtype) for layer, count in enumerate(counts)]
    biases = _stored(arrays, "biases", sum(sizes[1:]), dtype)
    network = MLP._of_live(sizes, settings.activation, settings.loss, dtype, positions, weights, [biases])
    return FrozenMLP(network.state, network.loss) if check.boolean("frozen", settings.frozen) else network


def _sizes(sizes: Sequence[int]) -> list[int]:
    if isinstance(sizes, np.ndarray):
        sizes = sizes.tolist()
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or len(sizes) < 2:
        raise ValueError(f"sizes: expected at least two layer sizes, got {sizes!r}")
    checked = [check.integer(f"sizes[{i}]", size, 1) for i, size in enumerate(sizes)]
    if sum(fan_in * fan_out for fan_in, fan_out in pairwise(checked)) > 2**60:
        raise ValueError(f"sizes: expected at most 2**60 weights, got {sizes}")
    return checked


def _stored(arrays: dict[str, npt.NDArray[Any]], name: str, size: int, dtype: np.dtype[Any]) -> Floats:
    array = arrays[name]
    if array.shape != (size,) or array.dtype != dtype or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite {dtype} ({size},), got {array.dtype} {array.shape}")
    return array


def _executions(execution: str | Sequence[str], layers: int) -> list[str]:
    given = [execution] * layers if isinstance(execution, str) else execution
    if not isinstance(given, Sequence):
        raise ValueError(f"execution: expected one of {EXECUTIONS}, or a sequence of these, got {execution!r}")
    if len(given) != layers:
        raise ValueError(f"execution: expected one for each of {layers} layers, got {len(given)}")
    return [check.one_of("execution", one, EXECUTIONS) for one in given]


def _initial(count: int, shape: list[int], initialization: str | float, rng: np.random.Generator) -> Floats:
    """Draw the values of the `count` live weights of a layer of shape (fan_in, fan_out)."""
    if count == 0:
        return np.empty(0)
    # Mean numbers of live weights per unit: only these contribute to its sum.
    fan_in, fan_out = (end * count / (shape[0] * shape[1]) for end in shape)
    if initialization == "glorot":
        bound = (6 / (fan_in + fan_out)) ** 0.5
        return rng.uniform(-bound, bound, count)
    sigma = (2 / fan_in) ** 0.5 if isinstance(initialization, str) else initialization
    return rng.normal(0, sigma, count)
