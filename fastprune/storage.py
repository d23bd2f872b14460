"""How the parameters of a network are stored: which layers are dense or sparse, and where everything lies.

A storage never changes. Pruning and regrowing make a new one, which knows where each of its parameters was in the old.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fastprune.kernels.constants import ACTIVATIONS, FEW_OUTPUTS, STEP
from fastprune.kernels.layout import Bytes, Floats, Indices, Ints, Layout, Lines
from fastprune.processor import this_favors_blas

EXECUTIONS = ("auto", "dense", "sparse")

# The rule, from bench/test_rule.py: a layer is stored sparse below these densities, by its number of weights. Sparse
# passes take little longer a weight than BLAS, so they win once a fair part of the weights is pruned; later in layers
# that outgrow the caches. On an AMD EPYC (Zen 3), both take the same time at density 0.62 to 0.72 for 784-300, 0.62
# for 1024-1024, and 0.42 to 0.50 for 4096-1024 and 4096-4096.
_DENSITIES = {2**19: 0.65, 2**21: 0.6, math.inf: 0.4}
# Where the processor favors BLAS, they are multiplied by this: on an Intel server (November 2026, version
# 0.1), 1024-1024 was slower sparse than dense at 0.5, and 784-300 at 0.68.
_BLAS_FAVORED = 0.65

# A layer is visited in blocks of _BLOCK_UNITS units of the other end if a line has on average _BLOCK_WEIGHTS weights in
# each. 128 rows of 64 float32 lanes fill 32 KiB and stay in the nearest cache from line to line. On an AMD EPYC (Zen 3,
# 512 KiB of L2), a step of 784-1024-1024-10 without blocks takes 1.16 to 1.21 times as long at density 0.5, but one of
# 4096-4096-1000 at 0.2 only 0.81 to 0.85. Always in blocks, both take 1.16 to 1.28 at 0.1, 1.23 to 1.30 at 0.05.
_BLOCK_UNITS = 128
_BLOCK_WEIGHTS = 24

# A layer with few lines is always visited in blocks, as small ones as have _BLOCK_WEIGHTS weights a line on average, so
# that lines share what they read. 10800 to 5 units at densities 1 / 0.14 / 0.02 take 1.1 / 1.05 / 1.1 to 1.5 times as
# long with 128 units a block, and 1.5 to 1.8 / 1.2 to 1.35 / 1 times in one (AMD EPYC, Zen 3).
_FEW_LINES_UNITS = 64

_INDEX = np.int32
_NO_INDICES = np.empty(0, _INDEX)
_NOTHING = np.empty(0, np.int64), _NO_INDICES, _NO_INDICES
_MOST = 2**31 - 1


def runs_sparse(fan_in: int, fan_out: int, live: int, blas_favored: Callable[[], bool] = this_favors_blas) -> bool:
    """The rule of "auto": whether a layer of this shape with `live` live weights is stored sparse."""
    weights = fan_in * fan_out
    most = weights * next(density for size, density in _DENSITIES.items() if weights <= size)
    return fan_out <= FEW_OUTPUTS or live < _BLAS_FAVORED * most or (live < most and not blas_favored())


class Pattern(NamedTuple):
    """Which weights a sparse layer stores, in C order: output o has weights pointers[o] to pointers[o + 1]."""

    pointers: Ints  # (O + 1,)
    columns: Indices  # input of each weight


class Paths(NamedTuple):
    """What is on paths of live weights from an input to an output."""

    weights: int  # their number
    units: list[npt.NDArray[np.bool_]]  # marks of each level

    @property
    def dead_units(self) -> list[int]:
        """Number of units in each hidden level that are on no path."""
        return [int(np.count_nonzero(~level)) for level in self.units[1:-1]]


@dataclass(frozen=True)
class Storage:
    """Where the parameters lie. Sparse layers store only live weights."""

    sizes: list[int]  # units of each level
    execution: list[str]  # how each layer should be stored: "dense", "sparse", or "auto" (by the rule)
    patterns: list[Pattern | None]  # of each sparse layer; None for a dense layer
    live: Bytes  # (P,): 1 where a stored parameter is live
    layout: Layout  # the same information in the form that kernels take

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only what the rest can be rebuilt from."""
        return Storage.from_arrays, (self.to_arrays(),)

    @property
    def layer_total_weights(self) -> list[int]:
        """Number of weights of each layer, live or pruned."""
        return [fan_in * fan_out for fan_in, fan_out in pairwise(self.sizes)]

    @property
    def layer_live_weights(self) -> list[int]:
        """Number of live weights of each layer."""
        return [int(np.count_nonzero(self.live[low:high])) for low, high in pairwise(self.layout.weights.tolist())]

    @property
    def runs(self) -> list[str]:
        """How each layer runs: "dense" or "sparse"."""
        return ["dense" if pattern is None else "sparse" for pattern in self.patterns]

    def positions(self, layer: int) -> Ints:
        """Return the layer's live weights as ascending indices into its (fan_out, fan_in) array in C order."""
        pattern, fan_in = self.patterns[layer], self.sizes[layer]
        if pattern is None:
            low, high = self.layout.weights[layer : layer + 2]
            return np.flatnonzero(self.live[low:high])
        rows = np.repeat(np.arange(pattern.pointers.size - 1), np.diff(pattern.pointers))
        return rows * fan_in + pattern.columns

    def pattern(self, layer: int) -> Pattern:
        """Return which of the layer's weights are live, however it is stored."""
        return self.patterns[layer] or _by_position(self.positions(layer), *self.sizes[layer : layer + 2])

    def same_live(self, other: "Storage") -> bool:
        """Whether the same weights are live in another storage of the network."""
        return self is other or (
            self.layer_live_weights == other.layer_live_weights
            and all(np.array_equal(self.positions(i), other.positions(i)) for i in range(len(self.patterns)))
        )

    def matrix(self, layer: int, vector: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the layer's part of a vector (P,) as a new (fan_out, fan_in) array, 0 where nothing is stored."""
        low, high = self.layout.weights[layer : layer + 2]
        fan_in, fan_out = self.sizes[layer : layer + 2]
        if self.patterns[layer] is None:
            return vector[low:high].reshape(fan_out, fan_in).copy()
        full = np.zeros(fan_out * fan_in, vector.dtype)
        full[self.positions(layer)] = vector[low:high]
        return full.reshape(fan_out, fan_in)

    def with_live(self, positions: Sequence[Ints | None]) -> "Storage":
        """Return the network's storage with the live weights of each layer at these ascending positions.

        None means all weights. "auto" layers are stored as the rule says for the new number of live weights.
        """
        return from_positions(self.sizes, self.execution, self.layout.activation, positions)

    def sources(self, old: "Storage") -> Ints:
        """Return the index of each stored parameter in `old`, another storage of the network: (P,).

        It is -1 for weights that `old` does not store. Weights that `old` stores but that are not live are 0 there.
        """
        parts: list[Ints] = []
        for layer, (low, high) in enumerate(pairwise(self.layout.weights.tolist())):
            first, past = old.layout.weights[layer : layer + 2].tolist()
            if old.patterns[layer] is None:
                mine = np.arange(high - low) if self.patterns[layer] is None else self.positions(layer)
                parts.append(first + mine)
                continue
            theirs, index = old.positions(layer), np.arange(first, past)
            if self.patterns[layer] is None:
                part = np.full(high - low, -1)
                part[theirs] = index
            else:
                mine = self.positions(layer)
                at = np.searchsorted(theirs, mine)
                part = np.append(index, -1)[at]
                part[np.append(theirs, -1)[at] != mine] = -1
            parts.append(part)
        parts.append(np.arange(old.layout.biases[0], old.live.size))
        return np.concatenate(parts)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays from which `from_arrays` rebuilds this storage."""
        return {
            "sizes": np.array(self.sizes),
            "execution": np.array(self.execution),
            "activation": np.array(self.layout.activation),
            **self.gaps(),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> "Storage":
        """Rebuild a storage from the output of `to_arrays`, which is checked; other arrays are ignored."""
        sizes, execution, activation = (arrays[name].tolist() for name in ("sizes", "execution", "activation"))
        if arrays["sizes"].dtype.kind not in "iu" or arrays["sizes"].ndim != 1 or len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes: expected the units of at least two levels, got {sizes}")
        if len(execution) != len(sizes) - 1 or not set(execution) <= set(EXECUTIONS):
            raise ValueError(f"execution: expected one of {EXECUTIONS} for each layer, got {execution}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {[*ACTIVATIONS]}, got {activation}")
        positions = positions_of(arrays, [fan_in * fan_out for fan_in, fan_out in pairwise(sizes)])
        return from_positions(sizes, execution, int(activation), positions)

    def gaps(self) -> dict[str, Ints]:
        """Return the distances between the live weights of layers that are pruned, in the smallest type that fits."""
        found = {}
        for layer, total in enumerate(self.layer_total_weights):
            positions = self.positions(layer)
            if positions.size < total:
                gaps = np.diff(positions, prepend=-1)
                found[f"gaps_{layer}"] = gaps.astype(np.min_scalar_type(int(gaps.max(initial=0))))
        return found

    def paths(self) -> Paths:
        """Find the weights and units on paths of live weights from an input to an output."""
        ends = [np.divmod(self.positions(layer), fan_in) for layer, fan_in in enumerate(self.sizes[:-1])]
        reached, leading = [np.ones(self.sizes[0], bool)], [np.ones(self.sizes[-1], bool)]
        for size, (rows, columns) in zip(self.sizes[1:], ends, strict=True):
            reached.append(_marked(size, rows[reached[-1][columns]]))
        for size, (rows, columns) in zip(self.sizes[-2::-1], ends[::-1], strict=True):
            leading.insert(0, _marked(size, columns[leading[0][rows]]))
        count = sum(
            int(np.count_nonzero(below[columns] & above[rows]))
            for (rows, columns), below, above in zip(ends, reached[:-1], leading[1:], strict=True)
        )
        return Paths(count, [to & on for to, on in zip(reached, leading, strict=True)])


def _marked(size: int, indices: Ints | Indices) -> npt.NDArray[np.bool_]:
    marks = np.zeros(size, bool)
    marks[indices] = True
    return marks


def from_positions(
    sizes: list[int], execution: list[str], activation: int, positions: Sequence[Ints | None]
) -> Storage:
    """Make the storage in which each layer has the live weights at these ascending positions (see `Storage.positions`).

    None means all weights. In a dense layer, `live` is 1 at these positions only.
    """
    patterns: list[Pattern | None] = []
    marks: list[Bytes] = []
    for (fan_in, fan_out), how, where in zip(pairwise(sizes), execution, positions, strict=True):
        count = fan_in * fan_out if where is None else where.size
        if stored_sparsely(how, fan_in, fan_out, count):
            patterns.append(_by_position(np.arange(count) if where is None else where, fan_in, fan_out))
            marks.append(np.ones(count, np.uint8))
        else:
            patterns.append(None)
            mark = np.zeros(fan_in * fan_out, np.uint8)
            mark[slice(None) if where is None else where] = 1
            marks.append(mark)
    units = _units(sizes, patterns)
    by_output, by_input = [_NOTHING] * len(patterns), [_NOTHING] * len(patterns)
    for layer, w in enumerate(patterns):
        if w is not None:
            starts = _table(w.pointers, w.columns, sizes[layer])[:, units[layer + 1]]
            by_output[layer] = starts, w.columns, _NO_INDICES
            if layer > 0:
                by_input[layer] = _mirror(w, sizes[layer], units[layer], units[layer + 1])
    outputs = _lines(by_output)
    # Views, so that the indices are stored only once.
    columns_of = [outputs.others[low:high] for low, high in pairwise(outputs.entries)]
    patterns = [w and Pattern(w.pointers, columns) for w, columns in zip(patterns, columns_of, strict=True)]
    weights, rows = _bounds(marks), np.cumsum([0, *sizes[1:]], dtype=np.int64)
    layout = Layout(
        sizes=np.array(sizes, np.int64),
        weights=weights,
        biases=weights[-1] + rows,
        rows=rows,
        activation=activation,
        sparse=np.array([w is not None for w in patterns], np.uint8),
        levels=_bounds(units),
        units=np.concatenate(units),
        blocks=np.unique(units[0] // STEP),
        outputs=outputs,
        inputs=_lines(by_input),
    )
    live = np.concatenate([*marks, np.ones(rows[-1], np.uint8)])
    return Storage(sizes, execution, patterns, live, layout)


def positions_of(arrays: Mapping[str, npt.NDArray[Any]], layer_total_weights: Sequence[int]) -> list[Ints | None]:
    """Return the positions of each layer's live weights from the arrays `gaps_0`, `gaps_1`, ...; None if all are live.

    Positions outside their layer are refused.
    """
    positions: list[Ints | None] = []
    for layer, size in enumerate(layer_total_weights):
        gaps = arrays.get(f"gaps_{layer}")
        if gaps is not None and gaps.dtype.kind not in "iu":
            raise ValueError(f"gaps_{layer}: expected whole numbers, got {gaps.dtype}")
        where = None if gaps is None else np.cumsum(gaps, dtype=np.int64) - 1
        if where is not None and where.size and (where[0] < 0 or where[-1] >= size or (where[1:] <= where[:-1]).any()):
            raise ValueError(f"gaps_{layer} points outside the layer")
        positions.append(where)
    return positions


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Floats:
    """Allocate an array that begins on a 64-byte boundary, so that vectors do not straddle two cache lines."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def stored_sparsely(execution: str, fan_in: int, fan_out: int, live: int) -> bool:
    """Whether a layer is stored sparse, by `execution` or the rule; refuses one too large for 32-bit indices."""
    sparse = runs_sparse(fan_in, fan_out, live) if execution == "auto" else execution == "sparse"
    if sparse and max(live, fan_in, fan_out) > _MOST:
        raise ValueError(
            f"sizes: expected at most {_MOST:,} units and weights in a sparse layer, got {live:,} weights in a layer "
            f"of {fan_in:,} to {fan_out:,} units"
        )
    return sparse


def _by_position(positions: Ints, fan_in: int, fan_out: int) -> Pattern:
    rows, columns = np.divmod(positions, fan_in)
    return Pattern(np.searchsorted(rows, np.arange(fan_out + 1)), columns.astype(_INDEX))


def _units(sizes: list[int], patterns: list[Pattern | None]) -> list[Indices]:
    """Return the computed units of each level; see `Layout`."""
    units = [np.arange(sizes[-1], dtype=_INDEX)]
    for layer in range(len(patterns) - 1, -1, -1):
        w = patterns[layer]
        if w is None or (layer > 0 and patterns[layer - 1] is None):
            units.insert(0, np.arange(sizes[layer], dtype=_INDEX))
            continue
        used = _marked(sizes[layer + 1], units[0])
        reached = _marked(sizes[layer], w.columns[np.repeat(used, np.diff(w.pointers))])
        units.insert(0, np.flatnonzero(reached).astype(_INDEX))
    return units


def _table(pointers: Ints, others: Indices, ends: int) -> Ints:
    """Return where each line's blocks begin and end, (B + 1, lines); `others` ascend within a line, below `ends`."""
    lines = pointers.size - 1
    if lines <= FEW_OUTPUTS:
        units = min(ends, max(_FEW_LINES_UNITS, -(-_BLOCK_WEIGHTS * ends * lines // max(others.size, 1))))
    else:
        enough = others.size >= _BLOCK_WEIGHTS * -(-ends // _BLOCK_UNITS) * lines
        units = _BLOCK_UNITS if enough else ends
    blocks = -(-ends // units)
    if blocks == 1:
        return np.stack([pointers[:-1], pointers[1:]])
    cells = np.repeat(np.arange(lines) * blocks, np.diff(pointers)) + others // units
    starts = np.searchsorted(cells, np.arange(lines * blocks + 1))
    return np.vstack([starts[:-1].reshape(lines, blocks).T, pointers[1:]])


def _mirror(w: Pattern, fan_in: int, below: Indices, above: Indices) -> tuple[Ints, Indices, Indices]:
    """Return table, output units and positions of a layer's weights by input unit, for computed units only."""
    used = _marked(w.pointers.size - 1, above)
    positions = np.flatnonzero(np.repeat(used, np.diff(w.pointers)))
    # Sorted by input, then by position, as one number. For 4 million weights, SciPy would take 57 ms and this 145, but
    # importing SciPy takes 250, before a sweep can begin to check its settings (AMD EPYC).
    inputs, positions = np.divmod(np.sort(w.columns[positions] * np.int64(2**32) + positions), 2**32)
    rows = np.repeat(np.arange(used.size, dtype=_INDEX), np.diff(w.pointers))
    outputs = rows[positions]
    pointers = np.searchsorted(inputs, np.arange(fan_in + 1))
    return _table(pointers, outputs, used.size)[:, below], outputs, positions.astype(_INDEX)


def _lines(layers: Sequence[tuple[Ints, Indices, Indices]]) -> Lines:
    """Join table, other units and positions of each layer."""
    starts, others, positions = zip(*layers, strict=True)
    return Lines(_bounds(starts), _flat(starts), _bounds(others), _flat(others), _flat(positions))


def _bounds(parts: Sequence[npt.NDArray[Any]]) -> Ints:
    return np.cumsum([0, *(part.size for part in parts)], dtype=np.int64)


def _flat(parts: Sequence[npt.NDArray[Any]]) -> Any:
    return np.concatenate([part.reshape(-1) for part in parts])
