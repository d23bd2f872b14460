"""Coded files: the smallest form of a pruned network whose weights share values. docs/coded-format.md describes them.

Most functions both write and read: what a writer passes to the stream, a reader gets from it. So the two sides cannot
differ.
"""

import functools
import zlib
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune import kernels
from fastprune.kernels.constants import ACTIVATIONS, LOW, NUMBER, PLACE, PLACES
from fastprune.kernels.layout import Bytes, Coder, Floats, Ints, Lattice, Mixer
from fastprune.state import State

MAGIC = b"\xf5pc"  # the byte after it is the version
VERSION = 1
_LOSSES = (None, "softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error")
_DTYPES = ("float32", "float64")
_HEADS, _TAILS = (9, 12), (23, 52)  # bits of sign and exponent, and of the fraction, of these

# A payload has a byte for so many units and live weights, and one for each layer. So a small file never asks for much
# memory or time. The files of pruned networks are far above it; others are filled up with zeros.
_PER_BYTE = 128
_MOST_DISTINCT = 256

# 65536 / (1 + exp(-x)) for x from -8 to 8 in steps of 1/2, rounded.
_LOGISTIC = [22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768]
_LOGISTIC += [65536 - chance for chance in _LOGISTIC[-2::-1]]
_NEW = 1 << 31  # a slot that has seen nothing: chance 1/2
# Slots of positions begin with the layer's density, within bounds, as if they had seen so many bits.
_LEAST, _TRUST = 64, 6

# How a writer looks for the period of the inputs: of so many inputs, up to so many apart, in rows of so many weights.
_TRIED_INPUTS, _LONGEST_PERIOD, _TRIED_WEIGHTS = 2**16, 512, 2**14


class _Part(NamedTuple):
    """A layer: its live weights row by row, and its biases; floats as their bit patterns."""

    counts: Ints  # (fan_out,): live weights of each row
    columns: Ints
    weights: Ints
    biases: Ints


def encode(state: State, loss: str | None) -> bytes:
    """Return a network as the content of a coded file."""
    storage = state.storage
    dtype = _DTYPES.index(state.values.dtype.name)
    parts = []
    for layer, (first, past) in enumerate(pairwise(storage.layout.biases.tolist())):
        low, high = storage.layout.weights[layer : layer + 2]
        pattern = storage.pattern(layer)
        weights = state.values[low:high][storage.live[low:high] > 0]
        counts, columns = np.diff(pattern.pointers), pattern.columns.astype(np.int64)
        parts.append(_Part(counts, columns, _bits(weights), _bits(state.values[first:past])))
    header = [storage.layout.activation, _LOSSES.index(loss), dtype, len(parts) - 1]
    payload, room = b"", 0
    while len(payload) + 8 > room:
        room = len(payload) + 8 * state.values.size
        stream = _Stream(np.zeros(room, np.uint8), True)
        for number in header:
            stream.number("header", number)
        for size in storage.sizes:
            stream.number("size", size - 1)
        below = np.zeros(storage.sizes[0], np.int64)
        for part in parts:
            _exchange(stream, dtype, below, part, 0)
            below = part.counts
        payload = stream.end()
    payload = payload.ljust(_least(storage.sizes, sum(part.columns.size for part in parts)), b"\0")
    return MAGIC + bytes([VERSION]) + zlib.crc32(payload).to_bytes(4, "little") + payload


def decode(content: bytes) -> tuple[State, str | None]:
    """Return the state and the loss of the network in a coded file.

    Raises
    ------
    ValueError
        If the content is damaged, or of a version that is not known.
    """
    if content[3:4] != bytes([VERSION]):
        raise ValueError(f"version {content[3:4].hex()} of the coded format; this one reads {VERSION:02x}")
    payload = content[8:]
    if zlib.crc32(payload) != int.from_bytes(content[4:8], "little"):
        raise ValueError("the checksum differs")
    stream = _Stream(np.frombuffer(bytearray(payload), np.uint8), False)
    activation, loss, dtype, layers = (stream.number("header") for _ in range(4))
    if activation not in ACTIVATIONS or loss >= len(_LOSSES) or dtype >= len(_DTYPES) or layers >= len(payload):
        raise ValueError("settings that do not exist")
    sizes = [stream.number("size") + 1 for _ in range(layers + 2)]
    room = _PER_BYTE * (len(payload) - layers - 1) - sum(sizes)
    below = np.zeros(sizes[0] if room >= 0 else 0, np.int64)
    parts = []
    for fan_out in sizes[1:]:
        if room < 0:
            raise ValueError("more units than the file can hold")
        nothing = np.zeros(0, np.int64)
        part = _Part(np.zeros(fan_out, np.int64), nothing, nothing, np.zeros(fan_out, np.int64))
        part = _exchange(stream, dtype, below, part, room)
        room -= part.columns.size
        parts.append(part)
        below = part.counts
    if stream.left():
        raise ValueError("it goes on behind its end")
    positions = [
        np.repeat(np.arange(part.counts.size) * fan_in, part.counts) + part.columns
        for part, fan_in in zip(parts, sizes[:-1], strict=True)
    ]
    weights, biases = ([_floats(part[i], dtype) for part in parts] for i in (2, 3))
    if not all(np.isfinite(values).all() for values in weights + biases):
        raise ValueError("values that are not finite")
    state = State.zeros(sizes, ["auto"] * len(parts), activation, positions, _DTYPES[dtype])
    return state.with_values(weights, biases), _LOSSES[loss]


class _Stream:
    """An arithmetic coder over the bytes that it reads, or that it writes into."""

    def __init__(self, data: Bytes, writes: bool) -> None:
        word = 0 if writes else int.from_bytes(data[:4].tobytes().ljust(4, b"\0"), "big")
        state = np.array([0, 0xFFFFFFFF, word, 0 if writes else 4, writes])
        self.coder, self.writes = Coder(state, data, *_tables()), writes
        self._numbers: dict[str, Ints] = {}

    def number(self, kind: str, number: int = 0) -> int:
        """Exchange a number of at least 0; numbers of one kind are predicted together."""
        return int(kernels.code_number(self.coder, self._slots(kind), number))

    def counts(self, counts: Ints, most: int, total: int) -> None:
        """Exchange the numbers of weights of each row."""
        if not kernels.code_counts(counts, self.coder, self._slots("counts"), most, total):
            raise ValueError("more weights than the file or a row can hold")

    def _slots(self, kind: str) -> Ints:
        return self._numbers.setdefault(kind, _slots(NUMBER))

    def floats(self, patterns: Ints, dtype: int) -> None:
        """Exchange the bit patterns of floats."""
        tail = _TAILS[dtype]
        zeros = tail
        if self.writes and patterns.size:
            together = int(np.bitwise_or.reduce(patterns))
            zeros = min(tail, (together & -together).bit_length() - 1) if together else tail
        zeros = self.number("zeros", zeros)
        if zeros > tail:
            raise ValueError("floats of another kind")
        kernels.code_floats(patterns, self.coder, _slots(1 << _HEADS[dtype]), _HEADS[dtype], tail, zeros)

    def table(self, patterns: Ints, dtype: int) -> tuple[Ints, Ints]:
        """Exchange the distinct values in ascending order, or none; a writer also gets the code of each value."""
        table, codes = _shared(patterns, dtype) if self.writes else (patterns[:0], patterns[:0])
        size = self.number("table", table.size)
        if size > _MOST_DISTINCT:
            raise ValueError("a table of too many values")
        table = np.resize(table, size)
        self.floats(table, dtype)
        return table, codes

    def end(self) -> bytes:
        """Return what was written, junk if there was no room, without zeros at its end, which a reader supplies."""
        low, place = int(self.coder.state[LOW]), int(self.coder.state[PLACE])
        content = self.coder.data[:place].tobytes().ljust(place, b"?")
        return (content + bytes([(low >> 24) + 1 if low else 0])).rstrip(b"\0")

    def left(self) -> bool:
        """Whether there is anything but zeros that was not read."""
        return bool(self.coder.data[self.coder.state[PLACE] :].any())


def _exchange(stream: _Stream, dtype: int, below: Ints, part: _Part, most: int) -> _Part:
    """Write a layer, or read one of at most so many weights, for which `part` gives the rows and biases."""
    table, codes = stream.table(part.weights, dtype)
    period = 1 + stream.number("period", _period(part, below) - 1 if stream.writes else 0)
    columns, codes = _positions(stream, below, part, codes, max(1, table.size), period, most)
    weights = table[codes] if table.size else np.resize(part.weights, columns.size)
    if not table.size:
        stream.floats(weights, dtype)
    table, codes = stream.table(part.biases, dtype)
    codes = np.resize(codes, part.biases.size)
    if table.size:
        kernels.code_codes(codes, stream.coder, _slots(_MOST_DISTINCT), table.size)
    biases = table[codes] if table.size else part.biases.copy()
    if not table.size:
        stream.floats(biases, dtype)
    return _Part(part.counts, columns, weights, biases)


def _positions(
    stream: _Stream, below: Ints, part: _Part, codes: Ints, distinct: int, period: int, most: int
) -> tuple[Ints, Ints]:
    """Exchange the columns and the codes of the live weights."""
    counts = part.counts
    marks = np.zeros(below.size, np.uint8)
    marks[part.columns] = 1
    kernels.code_marks(marks, stream.coder, _slots(8), period)
    live = np.flatnonzero(marks)
    stream.counts(counts, live.size, part.columns.size if stream.writes else most)
    columns, codes = (np.resize(vector, counts.sum()) for vector in (part.columns, codes))
    chance = (columns.size << 22) // max(1, live.size * int(np.count_nonzero(counts)))
    first = min(max(chance, _LEAST), (1 << 22) - _LEAST) << 10 | _TRUST
    values = 3 * (distinct + 1) << (distinct - 1).bit_length()
    inside = kernels.code_layer(
        columns,
        codes,
        np.zeros((3, below.size), np.int64),
        stream.coder,
        _mixer(np.full(PLACES, first), [-1, 0, 0, 0, 0], 12),
        _mixer(_slots(values), [0, 0, 0], 1),
        _slots(NUMBER),
        Lattice(counts, live, below, period, distinct),
    )
    if not inside:
        raise ValueError("weights outside their layer")
    return columns, codes


def _mixer(slots: Ints, chosen: list[int], sets: int) -> Mixer:
    return Mixer(slots, np.array(chosen), np.zeros(len(chosen), np.int64), np.full((sets, len(chosen)), 1 << 14))


def _period(part: _Part, below: Ints) -> int:
    """Return the period of the inputs that makes the layer smallest: the width of the image, if inputs are one.

    Candidates are 1 and the lags at which the columns' numbers of weights are most alike, tried on the first rows.
    """
    if below.any() or not part.columns.size:  # hidden units are in the order of their weights
        return 1
    sums = np.bincount(part.columns, minlength=below.size)[:_TRIED_INPUTS]
    lags = range(1, min(_LONGEST_PERIOD, sums.size // 2) + 1)
    likeness = np.array([0, *(sums[lag:] @ sums[:-lag] for lag in lags), 0])
    peaks = 1 + np.flatnonzero((likeness[1:-1] > likeness[:-2]) & (likeness[1:-1] > likeness[2:]))
    best = peaks[np.argsort(-likeness[peaks], kind="stable")][:3]
    rows = 1 + int(np.searchsorted(np.cumsum(part.counts), _TRIED_WEIGHTS))
    first = part._replace(counts=part.counts[:rows], columns=part.columns[: part.counts[:rows].sum()])

    def length(period: int) -> int:
        stream = _Stream(np.zeros(0, np.uint8), True)
        _positions(stream, below, first, np.zeros(first.columns.size, np.int64), 1, period, 0)
        return int(stream.coder.state[PLACE])

    candidates: list[int] = [1, *best.tolist()]
    return min(candidates, key=length)


def _shared(patterns: Ints, dtype: int) -> tuple[Ints, Ints]:
    """Return the distinct values in ascending order and the code of each; neither if floats are shorter."""
    table, codes = np.unique(patterns, return_inverse=True)
    width = _HEADS[dtype] + _TAILS[dtype]
    bits = (table.size - 1).bit_length()
    if (
        not table.size
        or table.size > _MOST_DISTINCT
        or table.size * width + patterns.size * bits > patterns.size * width
    ):
        return table[:0], codes[:0]
    order = np.argsort(_floats(table, dtype), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return table[order], rank[codes]


def _least(sizes: list[int], live: int) -> int:
    return len(sizes) - 1 - -(sum(sizes) + live) // _PER_BYTE


def _slots(count: int) -> Ints:
    return np.full(count, _NEW)


def _bits(values: Floats) -> Ints:
    return values.view(np.uint32).astype(np.int64) if values.dtype == np.float32 else values.view(np.int64)


def _floats(patterns: Ints, dtype: int) -> npt.NDArray[Any]:
    return patterns.astype(np.uint32).view(np.float32) if dtype == 0 else patterns.view(np.float64)


@functools.cache
def _tables() -> tuple[Ints, Ints]:
    """Return the coder's tables `squash` and `stretch`, in integers only."""
    at = np.arange(4096)
    low = np.array(_LOGISTIC)[at >> 7]
    high = np.array(_LOGISTIC)[(at >> 7) + 1]
    squash = low + ((high - low) * (at & 127) >> 7)
    return squash, np.searchsorted(squash, at << 4).clip(0, 4095) - 2048
