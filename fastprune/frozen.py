"""The frozen form of a network, for inference only."""

from typing import Any, NamedTuple, Self

import numpy as np

from fastprune import kernels
from fastprune.allocation import distinct
from fastprune.base import Layer, Network
from fastprune.inference import features_of, forward
from fastprune.kernels.constants import BYTES, COLUMNS, PANELS, WIDE
from fastprune.kernels.layout import Floats, Ints
from fastprune.state import State
from fastprune.storage import aligned_empty
from fastprune.team import Threads

# Up to this many samples are faster one by one than in a tile, which has at least 16 lanes. On an AMD EPYC, eight MNIST
# samples take 0.29 to 0.85 of a tile's time for 784-300-100-10 and 0.44 to 1.17 for 784-1024-1024-10, but 6 times as
# long for 4096-4096-1000 at density 0.1 with nonzero inputs.
_SINGLES = 8

# Fixed cost of an input in the form COLUMNS, in 64-byte multiplications; from timings with 1024 inputs and 300 to 4096
# outputs at densities from 0.003 to 0.1.
_INPUT_COST = 20


class Part(NamedTuple):
    """The live weights of a layer, row by row, and its biases."""

    rows: Ints
    columns: Ints
    values: Floats
    biases: Floats

    @classmethod
    def of(cls, layer: Layer) -> Self:
        """Return the parts of `layer`."""
        values, columns, pointers = layer.csr
        rows = np.repeat(np.arange(pointers.size - 1), np.diff(pointers))
        return cls(rows, columns.astype(np.int64), values, layer.bias)


class FrozenMLP(Network):
    """An inference-only network with just the parts that the outputs depend on, made by `MLP.freeze`.

    Attributes
    ----------
    sizes : list of int
        Remaining units of each level; inputs and outputs are complete.
    live_weights : int
        Number of remaining weights.
    sparsity, compression : float
        Relative to the weights between remaining units.
    loss, dtype : str or None, numpy.dtype
        As of the network.

    Examples
    --------
    >>> import fastprune as fp
    >>> network = fp.MLP([64, 300, 10], density=0.02, loss="softmax_cross_entropy")
    >>> frozen = network.freeze()
    >>> frozen.predict([[0.5] * 64]).shape
    (1,)
    """

    _frozen = True

    def __init__(self, state: State, loss: str | None) -> None:
        self.state, self.loss = state, loss
        self._outputs, self._code = self.sizes[-1], state.storage.layout.activation

        # For single samples, store weights by input instead of by output, for the inputs that are read.
        parts = [Part.of(self.layer(index)) for index in range(self.n_layers)]
        read = distinct(parts[0].columns)
        parts[0] = parts[0]._replace(columns=np.searchsorted(read, parts[0].columns))
        sizes = [read.size, *self.sizes[1:]]
        narrow = BYTES // self.dtype.itemsize
        panel = WIDE * narrow
        self._scratch = 3 * max(_filled(size, panel) for size in sizes) + narrow
        forms, structure, values = [], [read], []
        for part, fan_in, fan_out in zip(parts, sizes[:-1], sizes[1:], strict=True):
            filled = _filled(fan_out, panel)
            values.append(np.pad(part.biases, (0, filled - fan_out)))
            cells = part.columns * filled + part.rows // narrow * narrow
            cells, block = np.unique(cells, return_inverse=True)
            if filled * fan_in <= narrow * (cells.size + _INPUT_COST * fan_in):
                forms.append(PANELS)
                panels = np.zeros((filled // panel, fan_in, panel), self.dtype)
                panels[part.rows // panel, part.columns, part.rows % panel] = part.values
                values.append(panels.reshape(-1))
            else:
                forms.append(COLUMNS)
                blocks = np.zeros((cells.size, narrow), self.dtype)
                blocks[block, part.rows % narrow] = part.values
                structure += [np.searchsorted(cells, np.arange(fan_in + 1) * filled), cells % filled]
                values.append(blocks.reshape(-1))
        self._structure = np.concatenate([[self.n_layers, *sizes, *forms], *structure]).astype(np.int32)
        self._columns = aligned_empty((sum(part.size for part in values),), self.dtype)
        np.concatenate(values, out=self._columns, casting="same_kind")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only what the rest can be rebuilt from."""
        return FrozenMLP, (self.state, self.loss)

    def _used(self) -> State:
        return self.state

    def _logits(self, x: Floats) -> Floats:
        if x.shape[0] > _SINGLES or not isinstance(x, np.ndarray):
            return forward(features_of(x), self.state.values, self.state.storage.layout, Threads(1))
        out, scratch = np.empty((len(x), self._outputs), self.dtype), np.empty(self._scratch, self.dtype)
        for sample in range(len(x)):
            kernels.forward_one(out, scratch, x, sample, self._structure, self._columns, self._code)
        return out


def freeze(network: Network) -> FrozenMLP:
    """Return the parts of a network that its outputs depend on; see `MLP.freeze`."""
    code = network.state.storage.layout.activation
    sizes, parts = network.sizes, [Part.of(network.layer(index)) for index in range(network.n_layers)]
    for level in range(len(parts) - 1, 0, -1):  # drop hidden units without outgoing live weights, from the last level
        _keep(distinct(parts[level].columns), level, sizes, parts)
    for level in range(1, len(parts)):  # then those without incoming live weights, from the first level
        _fold_constants(level, sizes, parts, code)
    for level in range(1, len(parts)):
        _sort(level, parts)
    positions = [part.rows * fan_in + part.columns for part, fan_in in zip(parts, sizes[:-1], strict=True)]
    state = State.zeros(sizes, ["auto"] * len(parts), code, positions, network.dtype)
    return FrozenMLP(state.with_values([part.values for part in parts], [part.biases for part in parts]), network.loss)


def _filled(size: int, panel: int) -> int:
    return -(-size // panel) * panel


def _fold_constants(level: int, sizes: list[int], parts: list[Part], activation: int) -> None:
    """Drop a level's units without incoming live weights; the biases above absorb their constant output."""
    below, above = parts[level - 1], parts[level]
    reached = np.zeros(sizes[level], bool)
    reached[below.rows] = True
    given = below.biases.astype(np.float64)[np.newaxis]
    kernels.activate_forward(given, 0, activation)
    given[0, reached] = 0
    biases = above.biases.astype(np.float64)
    np.add.at(biases, above.rows, above.values * given[0, above.columns])
    parts[level] = above._replace(biases=biases)
    _keep(np.flatnonzero(reached), level, sizes, parts)


def _sort(level: int, parts: list[Part]) -> None:
    """Sort a level's units by their number of incoming live weights, falling, then by the first one's column.

    Any order gives the same outputs, up to rounding; with this one, coded files are smaller.
    """
    below, above = parts[level - 1], parts[level]
    counts = np.bincount(below.rows, minlength=below.biases.size)
    starts = np.cumsum(counts) - counts
    first = np.append(below.columns, 0)[np.where(counts > 0, starts, -1)]
    order = np.lexsort((first, -counts))
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    parts[level - 1] = _by_row(below._replace(rows=rank[below.rows], biases=below.biases[order]))
    parts[level] = _by_row(above._replace(columns=rank[above.columns]))


def _by_row(part: Part) -> Part:
    order = np.lexsort((part.columns, part.rows))
    return Part(part.rows[order], part.columns[order], part.values[order], part.biases)


def _keep(kept: Ints, level: int, sizes: list[int], parts: list[Part]) -> None:
    """Keep only the units `kept` of a level, renumbered, in the layers on both sides.

    A level is never empty: if `kept` is, one unit without weights stays.
    """
    below, above = parts[level - 1], parts[level]
    number = np.full(sizes[level], -1)
    number[kept] = np.arange(kept.size)
    rows, columns = number[below.rows], number[above.columns]
    into, out_of = rows >= 0, columns >= 0
    biases = below.biases[kept if kept.size else [0]]
    parts[level - 1] = Part(rows[into], below.columns[into], below.values[into], biases)
    parts[level] = Part(above.rows[out_of], columns[out_of], above.values[out_of], above.biases)
    sizes[level] = max(1, kept.size)
