"""A read-only view of one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from fastprune.base import Network
    from fastprune.kernels.layout import Floats, Indices, Ints
    from fastprune.state import State


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


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
