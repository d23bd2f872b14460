"""How the parameters of a network are stored: each layer dense or sparse, and where everything lies.

A storage never changes. Pruning makes a new one, and tells which of the old one's parameters are left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune.kernels.activation import CODES
from fastprune.kernels.layout import Bytes, Floats, Indices, Ints, Layout, Lines
from fastprune.kernels.tile import STEP

EXECUTIONS = ("auto", "dense", "sparse")

# The rule, from bench/test_rule.py: a sparse pass does what it does nearly as fast as BLAS, so that it wins as soon as
# a fair part of the weights is gone; with few outputs BLAS is slow, and loses at any density.
_DENSITY = 0.7
_FEW_OUTPUTS = 32

# A layer is walked in blocks of so many units of the other end if its lines have on average so many weights in each.
# 128 rows of 64 lanes of float32 fill 32 KiB, and stay in the nearest cache from line to line.
_BLOCK_UNITS = 128
_BLOCK_WEIGHTS = 24

_INDEX = np.int32
_NOTHING, _NO_INDICES = np.empty(0, np.int64), np.empty(0, _INDEX)
_MOST = 2**31 - 1


def runs_sparse(fan_in: int, fan_out: int, live: int) -> bool:
    """The rule of "auto": whether a layer of this shape with so many live weights is stored sparsely."""
    return fan_out <= _FEW_OUTPUTS or live < _DENSITY * fan_in * fan_out


class Weights(NamedTuple):
    """The stored weights of a sparse layer in C order: those of output o are pointers[o] to pointers[o + 1]."""

    pointers: Ints  # (O + 1,)
    columns: Indices  # the input


@dataclass(frozen=True)
class Storage:
    """Where the parameters lie.

    Attributes
    ----------
    sizes : list of int
        Units of each level.
    execution : list of str
        How each layer is to be stored: "dense", "sparse", or "auto", by the rule.
    weights : list of Weights or None
        Pointers and columns of each sparse layer's weights; None for a dense layer.
    live : ndarray of uint8 (P,)
        1 where a stored parameter is live. Sparse layers store no others.
    layout : Layout
        The same for the kernels.
    """

    sizes: list[int]
    execution: list[str]
    weights: list[Weights | None]
    live: Bytes
    layout: Layout

    @property
    def layer_sizes(self) -> list[int]:
        """Number of weights of each layer, live or pruned."""
        return [fan_in * fan_out for fan_in, fan_out in pairwise(self.sizes)]

    @property
    def layer_live_weights(self) -> list[int]:
        """Number of live weights of each layer."""
        return [int(np.count_nonzero(self.live[low:high])) for low, high in pairwise(self.layout.weights.tolist())]

    @property
    def runs(self) -> list[str]:
        """How each layer runs: "dense" or "sparse"."""
        return ["dense" if weights is None else "sparse" for weights in self.weights]

    def positions(self, layer: int) -> Ints:
        """The layer's live weights as indices into its (fan_out, fan_in) array in C order, ascending."""
        weights, fan_in = self.weights[layer], self.sizes[layer]
        if weights is None:
            low, high = self.layout.weights[layer : layer + 2]
            return np.flatnonzero(self.live[low:high])
        return self._rows(weights) * fan_in + weights.columns

    @staticmethod
    def _rows(weights: Weights) -> Ints:
        return np.repeat(np.arange(weights.pointers.size - 1), np.diff(weights.pointers))

    def without(self, removed: Ints) -> tuple["Storage", list[Any]]:
        """The storage after these weights are gone, by position among the stored ones; and what of it is left.

        What is left is a list of indices (or slices) into a vector of parameters, to be joined for the new one.
        """
        live = self.live.copy()
        live[removed] = 0
        left: list[Any] = []
        weights: list[Weights | None] = []
        for layer, (low, high) in enumerate(pairwise(self.layout.weights.tolist())):
            fan_in, fan_out = self.sizes[layer : layer + 2]
            stored = self.weights[layer]
            marks = live[low:high]
            if stored is None and not stored_sparsely(
                self.execution[layer], fan_in, fan_out, int(np.count_nonzero(marks))
            ):
                left.append(slice(low, high))
                weights.append(None)
                continue
            stay = np.flatnonzero(marks)
            left.append(low + stay)
            if stored is None:
                weights.append(_by_position(stay, fan_in, fan_out))
            else:
                weights.append(Weights(np.searchsorted(stay, stored.pointers), stored.columns[stay]))
        left.append(slice(self.layout.biases[0], live.size))
        fresh = _storage(self.sizes, self.execution, weights, join(live, left), self.layout.activation)
        return fresh, left

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `from_arrays` makes the same storage of."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "sizes": np.array(self.sizes),
            "execution": np.array(self.execution),
            "activation": np.array(self.layout.activation),
        }
        for layer in range(len(self.weights)):
            if (gaps := self.gaps(layer)) is not None:
                arrays[f"gaps_{layer}"] = gaps
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> "Storage":
        """The storage that `to_arrays` wrote down, among other arrays.

        Raises
        ------
        ValueError, KeyError
            If these are no such arrays.
        """
        sizes, execution, activation = (arrays[name].tolist() for name in ("sizes", "execution", "activation"))
        if arrays["sizes"].dtype.kind not in "iu" or arrays["sizes"].ndim != 1 or len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes: expected units of at least two levels, got {sizes}")
        if len(execution) != len(sizes) - 1 or not set(execution) <= set(EXECUTIONS):
            raise ValueError(f"execution: expected one of {EXECUTIONS} for each layer, got {execution}")
        if activation not in CODES:
            raise ValueError(f"activation: expected one of {[*CODES]}, got {activation}")
        positions = positions_of(arrays, [fan_in * fan_out for fan_in, fan_out in pairwise(sizes)])
        return from_positions(sizes, execution, int(activation), positions)

    def gaps(self, layer: int) -> Ints | None:
        """The distances between the layer's live weights, in as few bytes each as hold them; None if all are live."""
        positions = self.positions(layer)
        if positions.size == self.sizes[layer] * self.sizes[layer + 1]:
            return None
        gaps = np.diff(positions, prepend=-1)
        return gaps.astype(np.min_scalar_type(int(gaps.max(initial=0))))

    def find(self, other: "Storage") -> Ints:
        """Where among this storage's parameters those of `other` stand, which has been pruned further.

        Raises
        ------
        ValueError
            If some of them are not stored here, or are live there and not here.
        """
        found: list[Ints] = []
        for layer, low in enumerate(self.layout.weights[:-1].tolist()):
            wanted = np.arange(self.sizes[layer] * self.sizes[layer + 1])
            if other.weights[layer] is not None:
                wanted = other.positions(layer)
            if self.weights[layer] is not None:
                stored = self.positions(layer)
                if not np.isin(wanted, stored).all():
                    raise ValueError(f"weights of layer {layer}")
                wanted = np.searchsorted(stored, wanted)
            start, stop = other.layout.weights[layer : layer + 2]
            if not self.live[low + wanted][other.live[start:stop] > 0].all():
                raise ValueError(f"weights of layer {layer}")
            found.append(low + wanted)
        found.append(np.arange(self.layout.biases[0], self.live.size))
        return np.concatenate(found)

    def paths(self) -> tuple[int, list[int]]:
        """How many live weights lie on a path of live weights from an input to an output; dead units of each level.

        A hidden unit is dead if no such path leads through it.
        """
        from scipy.sparse import csr_array  # here, because importing it takes long

        matrices: list[Any] = []
        for layer, weights in enumerate(self.weights):
            shape = self.sizes[layer + 1], self.sizes[layer]
            if weights is None:
                low, high = self.layout.weights[layer : layer + 2]
                matrices.append(self.live[low:high].reshape(shape).astype(np.float32))
            else:
                ones = np.ones(weights.columns.size, np.float32)
                matrices.append(csr_array((ones, weights.columns, weights.pointers), shape))
        reached, leading = [np.ones(self.sizes[0], np.float32)], [np.ones(self.sizes[-1], np.float32)]
        for matrix in matrices:
            reached.append((matrix @ reached[-1] > 0).astype(np.float32))
        for matrix in reversed(matrices):
            leading.insert(0, (matrix.T @ leading[0] > 0).astype(np.float32))
        count = sum(
            int((matrix @ below)[above > 0].sum(dtype=np.float64))
            for matrix, below, above in zip(matrices, reached[:-1], leading[1:], strict=True)
        )
        dead = [int(np.count_nonzero(to * on == 0)) for to, on in zip(reached, leading, strict=True)]
        return count, dead[1:-1]


def _marked(size: int, indices: Ints | Indices) -> npt.NDArray[np.bool_]:
    marks = np.zeros(size, bool)
    marks[indices] = True
    return marks


def join(vector: npt.NDArray[Any], left: list[Any]) -> npt.NDArray[Any]:
    """The parts of a vector that `Storage.without` says are left, as one."""
    return np.concatenate([vector[part] for part in left])


def from_positions(
    sizes: list[int], execution: list[str], activation: int, positions: Sequence[Ints | None]
) -> Storage:
    """The storage in which each layer has the live weights at these ascending positions (see `Storage.positions`).

    None stands for all. A layer that is stored densely has `live` set only there.

    Raises
    ------
    ValueError
        See `stored_sparsely`.
    """
    weights: list[Weights | None] = []
    marks: list[Bytes] = []
    for (fan_in, fan_out), where in zip(pairwise(sizes), positions, strict=True):
        count = fan_in * fan_out if where is None else where.size
        if stored_sparsely(execution[len(weights)], fan_in, fan_out, count):
            weights.append(_by_position(np.arange(count) if where is None else where, fan_in, fan_out))
            marks.append(np.ones(count, np.uint8))
        else:
            weights.append(None)
            mark = np.full(fan_in * fan_out, where is None, np.uint8)
            if where is not None:
                mark[where] = 1
            marks.append(mark)
    marks.append(np.ones(sum(sizes[1:]), np.uint8))
    return _storage(sizes, execution, weights, np.concatenate(marks), activation)


def positions_of(arrays: Mapping[str, npt.NDArray[Any]], layer_sizes: Sequence[int]) -> list[Ints | None]:
    """The live weights of layers of these sizes, from their `gaps_0` and so on, where not all are live.

    Raises
    ------
    ValueError
        If they are not within the layer.
    """
    positions: list[Ints | None] = []
    for layer, size in enumerate(layer_sizes):
        gaps = arrays.get(f"gaps_{layer}")
        if gaps is not None and gaps.dtype.kind not in "iu":
            raise ValueError(f"gaps_{layer}: expected whole numbers, got {gaps.dtype}")
        where = None if gaps is None else np.cumsum(gaps, dtype=np.int64) - 1
        if where is not None and where.size and (where[0] < 0 or where[-1] >= size or (where[1:] <= where[:-1]).any()):
            raise ValueError(f"gaps_{layer} lead out of the layer")
        positions.append(where)
    return positions


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Floats:
    """An array that begins on a 64-byte boundary, where a vector does not straddle two cache lines."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def stored_sparsely(execution: str, fan_in: int, fan_out: int, live: int) -> bool:
    """Whether a layer is stored sparsely: as `execution` has it, or by the rule.

    Raises
    ------
    ValueError
        If 32-bit indices do not reach so far.
    """
    sparse = runs_sparse(fan_in, fan_out, live) if execution == "auto" else execution == "sparse"
    if sparse and max(live, fan_in, fan_out) > _MOST:
        raise ValueError(
            f"sizes: expected at most {_MOST:,} units and weights in a sparse layer, got {live:,} weights in one of "
            f"{fan_in:,} to {fan_out:,} units"
        )
    return sparse


def _by_position(positions: Ints, fan_in: int, fan_out: int) -> Weights:
    rows, columns = np.divmod(positions, fan_in)
    return Weights(np.searchsorted(rows, np.arange(fan_out + 1)), columns.astype(_INDEX))


def _storage(
    sizes: list[int], execution: list[str], weights: list[Weights | None], live: Bytes, activation: int
) -> Storage:
    units = _units(sizes, weights)
    starts_out, others_out, starts_in, others_in, positions_in = [], [], [], [], []
    for layer, w in enumerate(weights):
        starts, columns = _NOTHING, _NO_INDICES
        back = _NOTHING, _NO_INDICES, _NO_INDICES
        if w is not None:
            starts, columns = _table(w.pointers, w.columns, sizes[layer])[:, units[layer + 1]], w.columns
            if layer > 0:
                back = _mirror(w, sizes[layer], units[layer], units[layer + 1])
        starts_out.append(starts)
        others_out.append(columns)
        starts_in.append(back[0])
        others_in.append(back[1])
        positions_in.append(back[2])
    outputs = Lines(_bounds(starts_out), _flat(starts_out), _bounds(others_out), _flat(others_out), _NO_INDICES)
    inputs = Lines(_bounds(starts_in), _flat(starts_in), _bounds(others_in), _flat(others_in), _flat(positions_in))
    # The indices are kept once: these are views.
    columns_of = [outputs.others[low:high] for low, high in pairwise(outputs.entries)]
    weights = [w and Weights(w.pointers, columns) for w, columns in zip(weights, columns_of, strict=True)]

    stored = [a * b if w is None else w.columns.size for (a, b), w in zip(pairwise(sizes), weights, strict=True)]
    offsets = np.cumsum([0, *stored], dtype=np.int64)
    rows = np.cumsum([0, *sizes[1:]], dtype=np.int64)
    layout = Layout(
        sizes=np.array(sizes, np.int64),
        weights=offsets,
        biases=offsets[-1] + rows,
        rows=rows,
        activation=activation,
        sparse=np.array([w is not None for w in weights], np.uint8),
        levels=_bounds(units),
        units=np.concatenate(units),
        blocks=np.unique(units[0] // STEP),
        outputs=outputs,
        inputs=inputs,
    )
    return Storage(sizes, execution, weights, live, layout)


def _units(sizes: list[int], weights: list[Weights | None]) -> list[Indices]:
    """The units of each level that are computed; see `Layout`."""
    units = [np.arange(sizes[-1], dtype=_INDEX)]
    for layer in range(len(weights) - 1, -1, -1):
        w = weights[layer]
        if w is None or (layer > 0 and weights[layer - 1] is None):
            units.insert(0, np.arange(sizes[layer], dtype=_INDEX))
            continue
        used = _marked(sizes[layer + 1], units[0])
        reached = _marked(sizes[layer], w.columns[np.repeat(used, np.diff(w.pointers))])
        units.insert(0, np.flatnonzero(reached).astype(_INDEX))
    return units


def _table(pointers: Ints, others: Indices, ends: int) -> Ints:
    """Where each line's blocks begin and end, (B + 1, lines); `others`, ascending within a line, are below `ends`."""
    lines = pointers.size - 1
    blocks = -(-ends // _BLOCK_UNITS)
    if others.size < _BLOCK_WEIGHTS * blocks * lines:
        return np.stack([pointers[:-1], pointers[1:]])
    cells = np.repeat(np.arange(lines) * blocks, np.diff(pointers)) + others // _BLOCK_UNITS
    starts = np.searchsorted(cells, np.arange(lines * blocks + 1))
    return np.vstack([starts[:-1].reshape(lines, blocks).T, pointers[1:]])


def _mirror(w: Weights, fan_in: int, below: Indices, above: Indices) -> tuple[Ints, Indices, Indices]:
    """Table, output units and positions of a layer's weights by input unit; of units that are computed only."""
    from scipy.sparse import csr_array  # here, because importing it takes long

    used = _marked(w.pointers.size - 1, above)
    positions = np.flatnonzero(np.repeat(used, np.diff(w.pointers))).astype(_INDEX)
    pointers = np.concatenate([[0], np.cumsum(np.where(used, np.diff(w.pointers), 0))])
    shape = (used.size, fan_in)
    by_input = csr_array((positions, w.columns[positions], pointers.astype(_INDEX)), shape).tocsc()
    outputs = by_input.indices.astype(_INDEX)
    return _table(by_input.indptr.astype(np.int64), outputs, used.size)[:, below], outputs, by_input.data


def _bounds(parts: Sequence[npt.NDArray[Any]]) -> Ints:
    return np.cumsum([0, *(part.size for part in parts)], dtype=np.int64)


def _flat(parts: Sequence[npt.NDArray[Any]]) -> Any:
    return np.concatenate([part.reshape(-1) for part in parts])
