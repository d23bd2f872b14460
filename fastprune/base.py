"""What a network and its frozen form share: layers to look at, predictions, and saving."""

from __future__ import annotations

import json
import os
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from fastprune import check, kernels
from fastprune.coded import encode
from fastprune.files import atomic_write
from fastprune.kernels.constants import LEAKY_RELU, RELU, SIGMOID, TANH
from fastprune.kernels.layout import Floats, Indices, Ints
from fastprune.state import State

ACTIVATIONS = {"relu": RELU, "leaky_relu": LEAKY_RELU, "tanh": TANH, "sigmoid": SIGMOID}
FORMAT = 2  # docs/file-format.md describes it
_NAMES = {code: name for name, code in ACTIVATIONS.items()}


class CSR(NamedTuple):
    """Live weights as compressed sparse rows, one per output: `scipy.sparse.csr_array(layer.csr, layer.shape)`."""

    data: Floats
    indices: Indices
    indptr: Ints


class Layer:
    """A layer of an `MLP` or a `FrozenMLP`, made by `network.layer(i)`.

    It follows the network: after training or pruning it shows the new weights. Its arrays are read-only copies; use
    `MLP.set_weights` to change weights, and a `Pruner` to change masks.

    Attributes
    ----------
    shape : tuple of int
        (fan_out, fan_in).
    activation : str
        Function applied to the layer's outputs: "identity" in the last layer, which yields logits.

    Examples
    --------
    >>> import fastprune as fp
    >>> layer = fp.MLP([4, 3, 2], density=0.5).layer(0)
    >>> layer
    Layer(4 -> 3, 'relu', 5 of 12 weights live, sparse)
    >>> layer.weights.shape, layer.bias.shape, layer.mask.sum(), layer.csr.data.size
    ((3, 4), (3,), np.int64(5), 5)
    """

    def __init__(self, network: Network, index: int, activation: str) -> None:
        self._network, self._index, self.activation = network, index, activation
        fan_in, fan_out = network.state.storage.sizes[index : index + 2]
        self.shape = fan_out, fan_in

    @property
    def _state(self) -> State:
        return self._network.state

    @property
    def weights(self) -> Floats:
        """Weights (fan_out, fan_in); pruned ones are 0."""
        return _read_only(self._state.storage.matrix(self._index, self._state.values))

    @property
    def bias(self) -> Floats:
        """Biases (fan_out,)."""
        low, high = self._state.storage.layout.biases[self._index : self._index + 2]
        return _read_only(self._state.values[low:high].copy())

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Boolean mask (fan_out, fan_in): True where a weight is live."""
        storage = self._state.storage
        return _read_only(storage.matrix(self._index, storage.live).astype(bool))

    @property
    def csr(self) -> CSR:
        """Live weights as compressed sparse rows: `data` and `indices` (n,), `indptr` (fan_out + 1,)."""
        state, pattern = self._state, self._state.storage.pattern(self._index)
        low, high = state.storage.layout.weights[self._index : self._index + 2]
        data = state.values[low:high][state.storage.live[low:high] > 0]
        return CSR(*(_read_only(part) for part in (data, pattern.columns.copy(), pattern.pointers.copy())))

    @property
    def live_weights(self) -> int:
        """Number of live weights."""
        return self._state.storage.layer_live_weights[self._index]

    @property
    def sparsity(self) -> float:
        """Fraction of weights that are pruned, in [0, 1]."""
        total = self.shape[0] * self.shape[1]
        return (total - self.live_weights) / total

    @property
    def execution(self) -> str:
        """How the layer is stored and computed: "dense" or "sparse"."""
        return self._state.storage.runs[self._index]

    def __repr__(self) -> str:
        fan_out, fan_in = self.shape
        return (
            f"Layer({fan_in} -> {fan_out}, {self.activation!r}, {self.live_weights} of {fan_in * fan_out} weights "
            f"live, {self.execution})"
        )


class Network:
    """Base of `MLP` and `FrozenMLP`."""

    state: State  # the parameters and everything else that training and pruning change
    loss: str | None  # says what the outputs mean; None if it is not known yet
    _frozen: ClassVar[bool]

    @cached_property  # because a prediction of one sample takes a few microseconds
    def _features(self) -> int:
        return self.state.storage.sizes[0]

    @property
    def sizes(self) -> list[int]:
        """Units of each level, from inputs to outputs."""
        return list(self.state.storage.sizes)

    @property
    def n_layers(self) -> int:
        """Number of layers of weights, one less than `len(sizes)`."""
        return len(self.state.storage.sizes) - 1

    @property
    def activation(self) -> str:
        """Activation of the hidden layers."""
        return _NAMES[self.state.storage.layout.activation]

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the parameters and of all arithmetic."""
        return self.state.values.dtype

    @property
    def execution(self) -> list[str]:
        """How each layer is currently stored and computed: "dense" or "sparse"."""
        return self.state.storage.runs

    def layer(self, index: int) -> Layer:
        """Return one layer for inspection: weights, bias, mask, CSR, activation.

        Parameters
        ----------
        index : int
            Index of the layer, from 0; -1 is the output layer.

        Returns
        -------
        Layer

        Raises
        ------
        ValueError
            If there is no such layer.

        Examples
        --------
        >>> import fastprune as fp
        >>> fp.MLP([4, 3, 2]).layer(-1)
        Layer(3 -> 2, 'identity', 6 of 6 weights live, sparse)
        """
        index = check.layer("index", index, self.n_layers)
        return Layer(self, index, "identity" if index == self.n_layers - 1 else self.activation)

    @property
    def weights(self) -> list[Floats]:
        """Read-only copies of the weights, one (fan_out, fan_in) array per layer; pruned weights are 0."""
        return [self.layer(index).weights for index in range(self.n_layers)]

    @property
    def biases(self) -> list[Floats]:
        """Read-only copies of the biases, one (fan_out,) array per layer."""
        return [self.layer(index).bias for index in range(self.n_layers)]

    @property
    def masks(self) -> list[npt.NDArray[np.bool_]]:
        """Read-only copies of the masks, one boolean (fan_out, fan_in) array per layer: True where a weight is live."""
        return [self.layer(index).mask for index in range(self.n_layers)]

    @property
    def total_weights(self) -> int:
        """Number of weights W, live or pruned; biases are not counted."""
        return sum(self.layer_total_weights)

    @property
    def live_weights(self) -> int:
        """Number of live weights."""
        return sum(self.layer_live_weights)

    @property
    def layer_total_weights(self) -> list[int]:
        """Number of weights of each layer, live or pruned."""
        return self.state.storage.layer_total_weights

    @property
    def layer_live_weights(self) -> list[int]:
        """Number of live weights of each layer."""
        return self.state.storage.layer_live_weights

    @property
    def live_inputs(self) -> Ints:
        """Indices of the inputs that an output depends on, ascending: those on a path of live weights to one."""
        return np.flatnonzero(self.state.storage.paths().units[0])

    @property
    def sparsity(self) -> float:
        """Fraction of all weights that are pruned, in [0, 1]; 1 only if no weight is live."""
        return (self.total_weights - self.live_weights) / self.total_weights

    @property
    def layer_sparsity(self) -> list[float]:
        """Fraction of each layer's weights that are pruned, in [0, 1]."""
        counts = zip(self.layer_live_weights, self.layer_total_weights, strict=True)
        return [(total - live) / total for live, total in counts]

    @property
    def compression(self) -> float:
        """Total weights divided by live weights; infinite if no weight is live."""
        return self.total_weights / self.live_weights if self.live_weights else float("inf")

    def logits(self, x: ArrayLike) -> Floats:
        """Compute the outputs before softmax or sigmoid.

        Parameters
        ----------
        x : array_like or SciPy sparse array (N, F)
            Samples.

        Returns
        -------
        ndarray (N, K) of the network's dtype

        Raises
        ------
        ValueError
            If `x` has another shape, is empty, holds NaN or infinity, or is so large that the outputs overflow.

        Examples
        --------
        >>> import fastprune as fp
        >>> fp.MLP([2, 3]).logits([[0.0, 0.0]])  # the biases
        array([[0., 0., 0.]], dtype=float32)
        """
        logits = self._logits(check.samples("x", x, self._features, self.dtype))
        # For NaN, argmax would return an arbitrary class: it treats NaN as the largest.
        if not kernels.all_finite(logits.reshape(-1)):
            raise ValueError(f"x: the outputs overflow {self.dtype}; scale the features down")
        return logits

    def predict_proba(self, x: ArrayLike) -> Floats:
        """Predict class probabilities.

        Parameters
        ----------
        x : array_like or SciPy sparse array (N, F)
            Samples.

        Returns
        -------
        ndarray
            (N, K) for softmax (rows sum to 1) and for K > 1 independent sigmoid outputs; (N, 2) for a single sigmoid
            output: the probabilities of 0 and of 1.

        Raises
        ------
        ValueError
            If `x` is not as described, for a regression, or if the loss is not known yet.

        Examples
        --------
        >>> import fastprune as fp
        >>> fp.MLP([2, 4], loss="softmax_cross_entropy").predict_proba([[0.0, 0.0]])
        array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
        """
        if self._known_loss() == "mean_squared_error":
            raise ValueError("predict_proba: expected a classifier, got a network with loss 'mean_squared_error'")
        logits = self.logits(x)
        if self.loss == "softmax_cross_entropy":
            with np.errstate(over="ignore"):  # exp(-inf) is 0
                exponentials: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
            exponentials /= exponentials.sum(axis=1, keepdims=True)
            return exponentials
        small = np.exp(-abs(logits))
        positive: Floats = np.where(logits > 0, 1, small) / (1 + small)
        return np.hstack([1 - positive, positive]) if self.sizes[-1] == 1 else positive

    def predict(self, x: ArrayLike) -> npt.NDArray[Any]:
        """Predict classes or values.

        Parameters
        ----------
        x : array_like or SciPy sparse array (N, F)
            Samples.

        Returns
        -------
        ndarray
            Classification: int64 classes (N,); 0 or 1, (N, K), for K > 1 sigmoid outputs. Regression: values (N, K),
            or (N,) for one output.

        Raises
        ------
        ValueError
            If `x` is not as described, or the loss is not known yet.

        Examples
        --------
        >>> import fastprune as fp
        >>> network = fp.MLP([2, 2], loss="softmax_cross_entropy", seed=1)
        >>> network.predict([[1.0, 0.0], [0.0, 1.0]]).shape
        (2,)
        """
        loss = self._known_loss()
        result: npt.NDArray[Any] = self.logits(x)
        if loss == "softmax_cross_entropy":
            result = result.argmax(axis=1)
        elif loss == "sigmoid_cross_entropy":
            result = (result > 0).astype(np.int64)
        return result[:, 0] if result.ndim == 2 and result.shape[1] == 1 else result

    def _known_loss(self) -> str:
        if self.loss is None:
            raise ValueError("the loss of this network is not known yet: train it, or make it with MLP(..., loss=...)")
        return self.loss

    def _logits(self, x: Floats) -> Floats:
        """Compute the logits of checked samples."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str], *, coded: bool = False) -> None:
        """Write weights, masks and settings to a file without pickles. The write is atomic. See also `load`.

        Only live weights and the distances between them are stored, so the file shrinks as the network is pruned.
        `execution` is not stored; `load` uses "auto". Optimizer state is not stored either; see `State.to_bytes`.

        Parameters
        ----------
        path : str or path
            Name of the file, used without change. An existing file is replaced.
        coded : bool, default False
            False: an `.npz` archive. True: a coded file, the smallest there is. It holds the frozen form of the network
            (see `MLP.freeze`), whose predictions it keeps bit for bit. It pays most if the weights of a layer have few
            distinct values: up to 256 are stored once, in a table.

        Raises
        ------
        ValueError
            If `path` is not the name of a file, or weights or biases are not finite, which `load` would refuse.
        OSError
            If the file cannot be written.
        """
        path = check.file_name("path", path)
        state = self._used() if check.boolean("coded", coded) else self.state
        if not np.isfinite(state.values).all():
            raise ValueError("network: only finite weights can be saved, but some are NaN or infinite")
        content = encode(state, self.loss) if coded else None
        with atomic_write(path) as file:
            if content is not None:
                file.write(content)
            else:
                np.savez_compressed(file, **self._arrays())  # type: ignore[arg-type]  # an array for `allow_pickle`

    def _used(self) -> State:
        """Return the state of the frozen form."""
        raise NotImplementedError

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of the network's `.npz` file."""
        state = self.state
        storage = state.storage
        settings = {
            "sizes": storage.sizes,
            "activation": self.activation,
            "loss": self.loss,
            "dtype": self.dtype.name,
            "frozen": self._frozen,
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "fastprune_format": np.array(FORMAT),
            "settings": np.array(json.dumps(settings)),
            "biases": state.values[storage.layout.biases[0] :],
        }
        gaps = storage.gaps()
        for layer, (low, high) in enumerate(pairwise(storage.layout.weights.tolist())):
            arrays[f"weights_{layer}"] = state.values[low:high][storage.live[low:high] > 0]
            if (name := f"gaps_{layer}") in gaps:
                arrays[name] = gaps[name]
        return arrays

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.sizes}, activation={self.activation!r}, dtype={self.dtype.name!r}, "
            f"loss={self.loss!r}, live={self.live_weights}/{self.total_weights})"
        )


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
