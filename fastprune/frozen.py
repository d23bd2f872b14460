"""The frozen form of a network, for inference only."""

from typing import Any, NamedTuple

import numpy as np

from fastprune.inference import Predictor, forward
from fastprune.kernels.activation import activate_forward
from fastprune.kernels.layout import Floats, Ints
from fastprune.kernels.simd import BYTES, WIDE
from fastprune.kernels.single import COLUMNS, PANELS, forward_one
from fastprune.storage import aligned_empty, from_positions
from fastprune.team import Threads

# So many samples are done faster one by one than in a tile, which has at least 16 lanes.
_SINGLES = 8

# What an input of a layer in columns costs besides its blocks, in multiplications of 64 bytes: from timings with
# 1024 inputs and 300 to 4096 outputs, at densities from 0.003 to 0.1.
_INPUT_COST = 20


class Part(NamedTuple):
    """The live weights of a layer, row by row, and its biases."""

    rows: Ints
    columns: Ints
    values: Floats
    biases: Floats


class FrozenMLP(Predictor):
    """A network of which only what the outputs depend on is left, for inference. `MLP.sparsify` makes it.

    Attributes
    ----------
    sizes : list of int
        Units of each level that are left; the inputs and the outputs are all there.
    live_weights : int
        Number of weights that are left.
    loss : str or None
        What the outputs mean, as the network knew it.
    dtype : numpy.dtype
        The network's.

    Examples
    --------
    >>> import fastprune as fp
    >>> network = fp.MLP([64, 300, 10], density=0.02, loss="softmax_cross_entropy")
    >>> frozen = network.sparsify()
    >>> frozen.predict([[0.5] * 64]).shape
    (1,)
    """

    def __init__(
        self, sizes: list[int], parts: list[Part], activation: int, loss: str | None, dtype: np.dtype[Any]
    ) -> None:
        self.sizes, parts = _fold_constants(*_drop_unread(sizes, parts), activation)
        self.loss, self.dtype = loss, dtype
        self.live_weights = sum(part.values.size for part in parts)

        # By row, for tiles.
        positions = [part.rows * fan_in + part.columns for part, fan_in in zip(parts, self.sizes[:-1], strict=True)]
        storage = from_positions(self.sizes, ["auto"] * len(parts), activation, positions)
        self._layout = storage.layout
        self._values = np.zeros(storage.live.size, dtype)
        self._values[storage.live > 0] = np.concatenate([*(p.values for p in parts), *(p.biases for p in parts)])

        # By input, for single samples.
        self._narrow = BYTES // dtype.itemsize
        panel = WIDE * self._narrow
        self._widest = max(_filled(size, panel) for size in self.sizes)
        forms, structure, values = [], [], []
        for part, fan_in, fan_out in zip(parts, self.sizes[:-1], self.sizes[1:], strict=True):
            filled = _filled(fan_out, panel)
            values.append(np.pad(part.biases, (0, filled - fan_out)))
            cells = part.columns * filled + part.rows // self._narrow * self._narrow
            cells, block = np.unique(cells, return_inverse=True)
            if filled * fan_in <= self._narrow * (cells.size + _INPUT_COST * fan_in):
                forms.append(PANELS)
                panels = np.zeros((filled // panel, fan_in, panel), dtype)
                panels[part.rows // panel, part.columns, part.rows % panel] = part.values
                values.append(panels.reshape(-1))
            else:
                forms.append(COLUMNS)
                blocks = np.zeros((cells.size, self._narrow), dtype)
                blocks[block, part.rows % self._narrow] = part.values
                structure += [np.searchsorted(cells, np.arange(fan_in + 1) * filled), cells % filled]
                values.append(blocks.reshape(-1))
        self._structure = np.concatenate([[len(parts), *self.sizes, *forms], *structure]).astype(np.int32)
        self._columns = aligned_empty((sum(part.size for part in values),), dtype)
        np.concatenate(values, out=self._columns, casting="same_kind")

    def _logits(self, x: Floats) -> Floats:
        if len(x) > _SINGLES:
            return forward(x, self._values, self._layout, Threads(1))
        out = np.empty((len(x), self.sizes[-1]), self.dtype)
        scratch, active = np.empty(2 * self._widest + self._narrow, self.dtype), np.empty(self._widest, np.int32)
        for sample in range(len(x)):
            forward_one(out, scratch, active, x, sample, self._structure, self._columns, self._layout.activation)
        return out

    def __repr__(self) -> str:
        return f"FrozenMLP({self.sizes}, dtype={self.dtype.name!r}, loss={self.loss!r}, live={self.live_weights})"


def _filled(size: int, panel: int) -> int:
    return -(-size // panel) * panel


def _drop_unread(sizes: list[int], parts: list[Part]) -> tuple[list[int], list[Part]]:
    """Without the hidden units from which no live weight leads on, the last level first."""
    sizes, parts = list(sizes), list(parts)
    for level in range(len(parts) - 1, 0, -1):
        kept = np.unique(parts[level].columns)
        parts[level - 1], parts[level] = _keep(kept, sizes[level], parts[level - 1], parts[level])
        sizes[level] = max(1, kept.size)
    return sizes, parts


def _fold_constants(sizes: list[int], parts: list[Part], activation: int) -> tuple[list[int], list[Part]]:
    """Without the hidden units to which no live weight leads, the first level first; biases take what they gave."""
    sizes, parts = list(sizes), list(parts)
    for level in range(1, len(parts)):
        below, above = parts[level - 1], parts[level]
        reached = np.zeros(sizes[level], bool)
        reached[below.rows] = True
        given = below.biases.astype(np.float64)[np.newaxis]
        activate_forward(given, 0, activation)
        given[0, reached] = 0
        biases = above.biases.astype(np.float64)
        np.add.at(biases, above.rows, above.values * given[0, above.columns])
        kept = np.flatnonzero(reached)
        parts[level - 1], parts[level] = _keep(kept, sizes[level], below, above._replace(biases=biases))
        sizes[level] = max(1, kept.size)
    return sizes, parts


def _keep(kept: Ints, size: int, below: Part, above: Part) -> tuple[Part, Part]:
    """The layers on both sides of a level of `size` units, of which only those `kept` stay, numbered anew.

    A level is never empty: if none are kept, one unit stays, without weights.
    """
    number = np.full(size, -1)
    number[kept] = np.arange(kept.size)
    rows, columns = number[below.rows], number[above.columns]
    into, out_of = rows >= 0, columns >= 0
    return (
        Part(rows[into], below.columns[into], below.values[into], below.biases[kept if kept.size else [0]]),
        Part(above.rows[out_of], columns[out_of], above.values[out_of], above.biases),
    )
