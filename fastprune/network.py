"""The network: its layers, its parameters and masks, its predictions, and its file."""

import functools
import json
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.allocation import erdos_renyi
from fastprune.files import atomic_write, read_npz
from fastprune.frozen import FrozenMLP, Part
from fastprune.inference import Predictor, forward
from fastprune.kernels.activation import LEAKY_RELU, RELU, SIGMOID, TANH
from fastprune.kernels.layout import Bytes, Floats, Ints, Layout
from fastprune.kernels.loss import MEAN_SQUARED_ERROR, SIGMOID_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from fastprune.kernels.tile import all_finite
from fastprune.state import State
from fastprune.storage import EXECUTIONS, Storage, from_positions, positions_of, stored_sparsely
from fastprune.team import Threads

ACTIVATIONS = {"relu": RELU, "leaky_relu": LEAKY_RELU, "tanh": TANH, "sigmoid": SIGMOID}
INITIALIZATIONS = ("he", "glorot")
LOSSES = {
    "softmax_cross_entropy": SOFTMAX_CROSS_ENTROPY,
    "sigmoid_cross_entropy": SIGMOID_CROSS_ENTROPY,
    "mean_squared_error": MEAN_SQUARED_ERROR,
}
_FORMAT = 1


class MLP(check.Checked, Predictor):
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
        Of the initialization.
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

    _checks = {"loss": check.optional(functools.partial(check.one_of, choices=LOSSES))}  # noqa: RUF012

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str = "relu",
        initialization: str | float = "he",
        loss: str | None = None,
        dtype: npt.DTypeLike = "float32",
        seed: int = 0,
        density: float = 1.0,
        execution: str | Sequence[str] = "auto",
    ) -> None:
        self._configure(sizes, activation, loss, dtype)
        if isinstance(initialization, str):
            check.one_of("initialization", initialization, INITIALIZATIONS)
        else:
            check.number("initialization", initialization, "(0, inf)")
        seed = check.integer("seed", seed, 0, 2**64 - 1)
        density = check.number("density", density, "(0, 1]")
        live = erdos_renyi(max(1, round(density * self.total_weights)), self.sizes)
        how = _executions(execution, self.layers)
        for one, (fan_in, fan_out), count in zip(how, pairwise(self.sizes), live, strict=True):
            stored_sparsely(one, fan_in, fan_out, count)  # refuses what cannot be, before memory is taken
        positions = [
            None if count == size else _choose(size, count, np.random.default_rng([seed, layer, 1]))
            for layer, (count, size) in enumerate(zip(live, self.layer_sizes, strict=True))
        ]
        self._store(positions, how)
        for layer, (low, high) in enumerate(pairwise(self.layout.weights)):
            where = positions[layer] if self.storage.weights[layer] is None else None
            values = self.values[low:high]
            with np.errstate(over="ignore"):  # what overflows is found below
                values[slice(None) if where is None else where] = _initial(
                    live[layer], self.sizes[layer : layer + 2], initialization, np.random.default_rng([seed, layer])
                )
        if not all_finite(self.values):
            raise ValueError(f"initialization: expected weights that {self.dtype} can hold, got {initialization!r}")

    def _configure(self, sizes: Sequence[int], activation: str, loss: str | None, dtype: npt.DTypeLike) -> None:
        if isinstance(sizes, np.ndarray):
            sizes = sizes.tolist()
        if not isinstance(sizes, Sequence) or isinstance(sizes, str) or len(sizes) < 2:
            raise ValueError(f"sizes: expected at least two layer sizes, got {sizes!r}")
        self.sizes = [check.integer(f"sizes[{i}]", size, 1) for i, size in enumerate(sizes)]
        if self.total_weights > 2**60:
            raise ValueError(f"sizes: expected weights that can be counted, got {sizes}")
        self.activation = check.one_of("activation", activation, ACTIVATIONS)
        self.loss = loss
        self.dtype = _dtype(dtype)

    def _store(self, positions: Sequence[Ints | None], execution: list[str]) -> None:
        """Make room for the parameters; where layers are sparse, for the live weights at `positions` only."""
        # What the package's own modules share, and all that changes later. Not part of the interface.
        storage = from_positions(self.sizes, execution, ACTIVATIONS[self.activation], positions)
        self.state = State.of(storage, self.dtype)

    @property
    def storage(self) -> Storage:
        """How the parameters are stored; not part of the interface."""
        return self.state.storage

    @property
    def values(self) -> Floats:
        """The parameters as they are stored; not part of the interface."""
        return self.state.values

    @property
    def layout(self) -> Layout:
        """Where the parameters lie in `values`; not part of the interface."""
        return self.storage.layout

    @property
    def live(self) -> Bytes:
        """Which of the stored parameters are live; not part of the interface."""
        return self.storage.live

    @property
    def execution(self) -> list[str]:
        """How each layer is stored and run at present: "dense" or "sparse"."""
        return self.storage.runs

    @property
    def layers(self) -> int:
        """Number of layers of weights: one less than `sizes` names."""
        return len(self.sizes) - 1

    @property
    def weights(self) -> list[Floats]:
        """Copies of the weights, one (fan_out, fan_in) array a layer; pruned weights are 0."""
        return [self._scattered(layer, self.values[low:high]) for layer, (low, high) in self._bounds()]

    @property
    def biases(self) -> list[Floats]:
        """Copies of the biases, one (fan_out,) array a layer."""
        return [self.values[low:high].copy() for low, high in pairwise(self.layout.biases)]

    @property
    def masks(self) -> list[npt.NDArray[np.bool_]]:
        """Copies of the masks, one boolean (fan_out, fan_in) array a layer: True where a weight is live."""
        return [self._scattered(layer, self.live[low:high].astype(np.bool_)) for layer, (low, high) in self._bounds()]

    @property
    def layer_sizes(self) -> list[int]:
        """Number of weights of each layer, live or pruned."""
        return [fan_in * fan_out for fan_in, fan_out in pairwise(self.sizes)]

    @property
    def total_weights(self) -> int:
        """Number of weights W, live or pruned; biases are not counted."""
        return sum(self.layer_sizes)

    @property
    def live_weights(self) -> int:
        """Number of live weights."""
        return sum(self.layer_live_weights)

    @property
    def layer_live_weights(self) -> list[int]:
        """Number of live weights of each layer."""
        return self.storage.layer_live_weights

    @property
    def sparsity(self) -> float:
        """Fraction of all weights that is pruned, in [0, 1]; 1 only if no weight is live."""
        return (self.total_weights - self.live_weights) / self.total_weights

    @property
    def layer_sparsity(self) -> list[float]:
        """Fraction of each layer's weights that is pruned, in [0, 1]."""
        return [(size - live) / size for live, size in zip(self.layer_live_weights, self.layer_sizes, strict=True)]

    @property
    def compression(self) -> float:
        """All weights by live weights; infinite if no weight is live."""
        return self.total_weights / self.live_weights if self.live_weights else float("inf")

    @property
    def effective_sparsity(self) -> float:
        """Like `sparsity`, with weights counted as pruned that lie on no path of live weights from input to output.

        What pruning methods are to be compared by (Vysogorets and Kempe 2023): the other weights do no work.
        """
        return (self.total_weights - self.storage.paths()[0]) / self.total_weights

    @property
    def dead_units(self) -> list[int]:
        """How many units of each hidden layer no path of live weights leads through; `sparsify` drops them."""
        return self.storage.paths()[1]

    def sparsify(self) -> FrozenMLP:
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
        >>> network.sparsify().sizes[1] < 300
        True
        """
        parts, biases = [], self.biases
        for layer, (low, high) in self._bounds():
            rows, columns = np.divmod(self.storage.positions(layer), self.sizes[layer])
            parts.append(Part(rows, columns, self.values[low:high][self.live[low:high] > 0], biases[layer]))
        return FrozenMLP(self.sizes, parts, self.layout.activation, self.loss, self.dtype)

    def _logits(self, x: Floats) -> Floats:
        state = self.state
        return forward(x, state.values, state.storage.layout, Threads(1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights, masks and settings to `path`, an `.npz` file without pickles; whole or not at all.

        Only live weights are stored, with the distances between them: the file shrinks as the network is pruned. How
        layers run is not stored: `load` goes by the rule.

        Parameters
        ----------
        path : str or path
            Name of the file, taken as it is. A file of that name is replaced.

        Raises
        ------
        ValueError
            If `path` is no name of a file, or weights or biases are not finite: they could not be loaded.
        OSError
            If the file cannot be written.

        Examples
        --------
        See `load`.
        """
        path = check.path("path", path)
        if not Path(path).name:
            raise ValueError(f"path: expected the name of a file, got {path!r}")
        if not all_finite(self.values):
            raise ValueError("network: expected finite weights, got NaN or infinity")
        settings = {"sizes": self.sizes, "activation": self.activation, "loss": self.loss, "dtype": self.dtype.name}
        arrays: dict[str, npt.NDArray[Any]] = {
            "fastprune_format": np.array(_FORMAT),
            "settings": np.array(json.dumps(settings)),
            "biases": self.values[self.layout.biases[0] :],
        }
        for layer, (low, high) in self._bounds():
            arrays[f"weights_{layer}"] = self.values[low:high][self.live[low:high] > 0]
            if (gaps := self.storage.gaps(layer)) is not None:
                arrays[f"gaps_{layer}"] = gaps
        with atomic_write(path) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # taken for `allow_pickle`

    def __repr__(self) -> str:
        return (
            f"MLP({self.sizes}, activation={self.activation!r}, dtype={self.dtype.name!r}, loss={self.loss!r}, "
            f"live={self.live_weights}/{self.total_weights})"
        )

    def _bounds(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Each layer, and from where to where its weights stand in `values`."""
        return enumerate(pairwise(self.layout.weights.tolist()))

    def _scattered(self, layer: int, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A copy of a layer's part of a vector as a (fan_out, fan_in) array; 0 where nothing is stored."""
        if self.storage.weights[layer] is None:
            full = stored.copy()
        else:
            full = np.zeros(self.layer_sizes[layer], stored.dtype)
            full[self.storage.positions(layer)] = stored
        return full.reshape(self.sizes[layer + 1], self.sizes[layer])


def load(path: str | os.PathLike[str]) -> MLP:
    """Read a network that `MLP.save` wrote.

    Parameters
    ----------
    path : str or path
        Name of the file.

    Returns
    -------
    MLP
        With the weights, masks and settings it was saved with.

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


def _from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> MLP:
    """The network of a file's arrays; memory is taken only for what these have been found to hold."""
    if arrays["fastprune_format"] != _FORMAT:
        raise ValueError(f"format {arrays['fastprune_format']}, this version reads {_FORMAT}")
    network = MLP.__new__(MLP)
    network._configure(**json.loads(str(arrays["settings"])))
    positions = positions_of(arrays, network.layer_sizes)
    for layer, (size, where) in enumerate(zip(network.layer_sizes, positions, strict=True)):
        _stored(arrays, f"weights_{layer}", size if where is None else where.size, network.dtype)
    biases = _stored(arrays, "biases", sum(network.sizes[1:]), network.dtype)
    network._store(positions, ["auto"] * network.layers)
    network.values[network.layout.biases[0] :] = biases
    for layer, (low, high) in network._bounds():
        network.values[low:high][network.live[low:high] > 0] = arrays[f"weights_{layer}"]
    return network


def _stored(arrays: dict[str, npt.NDArray[Any]], name: str, size: int, dtype: np.dtype[Any]) -> Floats:
    array = arrays[name]
    if array.shape != (size,) or array.dtype != dtype or not all_finite(array):
        raise ValueError(f"{name}: expected finite {dtype} ({size},), got {array.dtype} {array.shape}")
    return array


def _dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        result = np.dtype(dtype)
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


def _choose(size: int, count: int, rng: np.random.Generator) -> Ints:
    """So many of 0 .. size - 1, ascending, each set as likely as any other; in memory for `count`, not for `size`."""
    if 2 * count > size:
        return np.sort(rng.choice(size, count, replace=False, shuffle=False))
    chosen = np.empty(0, np.int64)
    while chosen.size < count:
        chosen = np.unique(np.concatenate([chosen, rng.integers(size, size=count - chosen.size)]))
    return chosen


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
