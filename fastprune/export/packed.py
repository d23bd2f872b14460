"""A frozen layer in few bytes: its live weights line by line, as distances and shared values, and as integers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastprune.frozen import FrozenMLP, Part
from fastprune.kernels.layout import Floats, Ints

BYTE = 255  # the largest byte, and the largest 8-bit activation if none is negative
SIGNED = 127  # the largest of 8 bits with a sign
_TABLE = 2**15 - 1  # the largest integer in a table of shared values: 16 bits there cost little
_SUM = 2**31 - 1
_SHIFT = 30  # that of 1 << 31 is not defined
_LARGEST = 1e20  # of features and activations; units, and what is computed of them, are then floats
Vector = TypeVar("Vector", Floats, Ints)
Count = TypeVar("Count", int, Ints)
_FINE = 32  # steps of a layer's largest weight: with fewer, an integer network predicts something else

_CODE_BITS = (1, 2, 4, 8)  # of which several fill a byte
_STEP_BITS = (4, 5, 6, 7, 8, 16)  # below 8, step and code share a byte
BLOCK = 256  # lines of a group are of one block, so that a byte says which one

# By input, zeros are skipped. For LeNet-300-100 on MNIST, pruned 68 times, by output takes as much flash, but 1.4 times
# (8 bits) to 1.7 times (floats) the instructions on a Cortex-M3. More flash than this is not worth it.
_FLASH_OF_BY_INPUT = 1.25


class Numbers(NamedTuple):
    """Numbers of a layer, each by itself, or as a code that tells which of few distinct values it is."""

    values: Floats
    codes: Ints | None
    bits: int  # of a code; 0 without codes

    def each(self, values: Vector) -> Vector:
        """Return what `values`, in the order of `self.values`, are for each number."""
        return values if self.codes is None else values[self.codes]


class Packed(NamedTuple):
    """A layer, line by line: a line is an input, or an output.

    Along a line, each weight is a step from the end of the weight before it, or from 0, and a value. Where a distance
    is larger than a step can be, weights of 0 stand between. Lines of a block that have as many weights are a group:
    loops of one length are what processors predict.
    """

    by_input: bool
    sizes: tuple[int, int]  # (fan_in, fan_out)
    lines: Ints  # which input or output of its block each line is, group by group; inputs without weights are left out
    blocks: Ints  # block of each group
    groups: Ints  # lines of each group
    counts: Ints  # weights of each line of a group
    steps: Ints
    step_bits: int
    weights: Numbers
    biases: Numbers

    @property
    def codes_by_line(self) -> Ints:
        """The codes of weights, with zeros behind those of each line, so that the next line begins with a byte."""
        assert self.weights.codes is not None
        counts, each = np.repeat(self.counts, self.groups), max(1, 8 // max(1, self.weights.bits))
        filled = -(-counts // each) * each
        codes = np.zeros(filled.sum(), np.int64)
        shifts = np.repeat(np.cumsum(filled - counts) - (filled - counts), counts)
        codes[np.arange(self.weights.codes.size) + shifts] = self.weights.codes
        return codes

    @property
    def outputs(self) -> Ints:
        """Output of each weight."""
        counts = np.repeat(self.counts, self.groups)
        if not self.by_input:
            return np.repeat(self.lines + BLOCK * np.repeat(self.blocks, self.groups), counts)
        total = np.cumsum(self.steps)
        starts = np.cumsum(counts) - counts
        outputs: Ints = total - np.repeat(np.append(0, total)[starts], counts)
        return outputs


class Scale(NamedTuple):
    """What the integers of a level stand for."""

    unit: float  # what 1 stands for
    most: int  # the largest integer
    signed: bool  # whether the smallest is -most, or 0


class Integers(NamedTuple):
    """A layer in integers: sums of `values` times integers, and of `biases`, stand for multiples of `unit`."""

    values: Ints  # of the packed layer's
    biases: Ints
    unit: float
    shift: int  # a sum divided by 2**shift is what the next level's integers are; 0 in the last layer


def pack(part: Part, fan_in: int, fan_out: int, *, value_bytes: int, table_bytes: int, by_input: bool) -> Packed:
    """Choose the form of a layer that takes the least flash, or little more and less time.

    `value_bytes` is what a value takes that stands for itself, `table_bytes` one in a table. With `by_input`, no other
    form is considered.
    """

    def smallest(lines: bool) -> tuple[int, Packed]:
        forms = [_packed(part, fan_in, fan_out, lines, bits, value_bytes, table_bytes) for bits in _STEP_BITS]
        return min(filter(None, forms), key=lambda form: form[0])

    (flash, packed), (other, by_output) = smallest(True), smallest(False)
    return packed if by_input or flash <= _FLASH_OF_BY_INPUT * other else by_output


def _packed(
    part: Part, fan_in: int, fan_out: int, by_input: bool, step_bits: int, value_bytes: int, table_bytes: int
) -> tuple[int, Packed] | None:
    """Return the bytes of a form of a layer, and the form; None if steps and codes do not fit into a byte."""
    count, lines, ends = (fan_in, part.columns, part.rows) if by_input else (fan_out, part.rows, part.columns)
    along = np.lexsort((ends, lines))
    lines, ends, values = lines[along], ends[along], part.values[along].astype(np.float32)
    gaps = np.diff(ends, prepend=0)
    first = np.diff(lines, prepend=-1) != 0
    gaps[first] = ends[first]
    most = 2**step_bits - 1
    between = np.maximum(gaps - 1, 0) // most  # weights of 0 before each
    counts = np.bincount(lines, between + 1, minlength=count).astype(np.int64)

    used = np.flatnonzero(counts) if by_input else np.arange(count)
    keys = used // BLOCK * (counts.max() + 1) + counts[used]
    order = np.argsort(keys, kind="stable")
    keys, groups = np.unique(keys, return_counts=True)
    blocks, sizes = np.divmod(keys, counts.max() + 1)
    rank = np.empty(count, np.int64)
    rank[used[order]] = np.arange(used.size)
    along = np.argsort(rank[lines], kind="stable")
    where = np.cumsum(between[along] + 1) - 1
    steps, stored = np.full(counts.sum(), most), np.zeros(counts.sum(), np.float32)
    steps[where], stored[where] = (gaps - between * most)[along], values[along]

    distinct, codes = np.unique(stored, return_inverse=True)
    code_bits = 8 - step_bits if step_bits < 8 else _bits_of_codes(distinct.size)
    where_lines = (used[order] % BLOCK, blocks, groups, sizes)
    flash = sum(size_of(one.size, bits_for(one)) for one in where_lines) + size_of(steps.size, step_bits)
    # Codes with bytes of their own begin with a byte in each line.
    shared = size_of(steps.size, code_bits) if step_bits < 8 else int(groups @ size_of(sizes, code_bits))
    shared, plain = shared + distinct.size * table_bytes, steps.size * value_bytes
    if distinct.size <= 2**code_bits and (shared < plain or step_bits < 8):
        flash, kept, coded = flash + shared, distinct, codes
    elif step_bits >= 8:
        flash, kept, coded, code_bits = flash + plain, stored, None, 0
    else:
        return None
    of_biases, biases = _biases(part.biases.astype(np.float32))
    weights = Numbers(kept, coded, code_bits)
    return flash + of_biases, Packed(by_input, (fan_in, fan_out), *where_lines, steps, step_bits, weights, biases)


def _bits_of_codes(distinct: int) -> int:
    """Bits of a code for so many values; 0 if they are too many."""
    return next((bits for bits in _CODE_BITS if distinct <= 2**bits), 0)


def _biases(biases: Floats) -> tuple[int, Numbers]:
    """Return the bytes that biases take, and how they are stored."""
    distinct, codes = np.unique(biases, return_inverse=True)
    bits = _bits_of_codes(distinct.size)
    plain, shared = 4 * biases.size, 4 * distinct.size + size_of(biases.size, bits)
    return (shared, Numbers(distinct, codes, bits)) if bits and shared < plain else (plain, Numbers(biases, None, 0))


def size_of(count: Count, bits: int) -> Count:
    """Bytes of so many numbers of so many bits."""
    return -(-count * bits // 8)


def bits_for(numbers: Ints) -> int:
    """Bits of the smallest unsigned type that holds all numbers: 8, 16 or 32."""
    return 8 * int(np.min_scalar_type(int(numbers.max(initial=0))).itemsize)


def scales(network: FrozenMLP, x: Any, slope: float, byte_scale: float | None) -> list[Scale]:
    """Return the scale of each level but the last, from the activations of checked samples `x`.

    Negative values are multiplied by `slope`. With a `byte_scale`, inputs are bytes already.
    """
    from scipy.sparse import csr_array  # imported here because it takes as long as importing all of fastprune

    least, most = float(x.min()), float(x.max())
    if byte_scale is not None and not 0 <= least <= most <= BYTE * byte_scale * (1 + 1e-5):
        expected = f"features from 0 to {BYTE} * byte_scale, which is {BYTE * byte_scale:g}"
        raise ValueError(f"calibration: expected {expected}, got {least:g} to {most:g}")
    signed = byte_scale is None and least < 0
    largest, level = [max(-least, most)], x.T.astype(np.float64)
    for layer in map(network.layer, range(network.n_layers - 1)):
        sums = csr_array(layer.csr, shape=layer.shape) @ level
        sums = (sums.toarray() if hasattr(sums, "toarray") else sums) + layer.bias[:, np.newaxis]
        level = np.maximum(sums, slope * sums)
        largest.append(float(abs(level).max()))
    if not largest[0] or not all(value == 0 or 1 / _LARGEST < value < _LARGEST for value in largest):
        raise ValueError(
            "calibration: expected samples that are not all 0, and that give no unit a value beyond "
            f"{_LARGEST:g} or {1 / _LARGEST:g}, got largest values of {', '.join(f'{value:.3g}' for value in largest)}"
        )
    found = []
    for index, value in enumerate(largest):
        negative = signed if index == 0 else slope > 0
        most = SIGNED if negative else BYTE
        found.append(Scale(value / most or 1.0, most, negative))
    return [Scale(byte_scale, BYTE, False), *found[1:]] if byte_scale is not None else found


def to_integers(layers: Iterable[Packed], levels: list[Scale]) -> list[Integers]:
    """Return all layers in integers such that no sum can overflow 32 bits, whatever the inputs are.

    The unit of a layer's weights makes the unit of its sums that of its outputs divided by a power of 2. So a shift is
    all that lies between two layers.
    """
    found: list[Integers] = []
    unit = levels[0].unit
    for index, (layer, level) in enumerate(zip(layers, levels, strict=True)):
        above = levels[index + 1].unit if index + 1 < len(levels) else None
        made = _integers(index, layer, unit, level.most, above)
        found.append(made)
        unit = made.unit * 2.0**made.shift
    return found


def _integers(index: int, layer: Packed, unit: float, most: int, above: float | None) -> Integers:
    values, biases = layer.weights.values.astype(np.float64), layer.biases.values.astype(np.float64)
    largest = abs(values).max()
    each = largest / (SIGNED if layer.weights.codes is None else _TABLE)  # what 1 stands for in a weight
    sums = np.bincount(layer.outputs, layer.weights.each(abs(values)), minlength=layer.sizes[1])
    each = max(each, float((sums * most + layer.biases.each(abs(biases)) / unit).max()) / _SUM) or 1.0
    while True:
        shift, fitted = 0, each
        if above is not None:
            shift = min(_SHIFT, max(0, math.floor(math.log2(above / (unit * each)))))
            fitted = max(each, above / (unit * 2.0**shift))
        whole, added = np.rint(values / fitted).astype(np.int64), np.rint(biases / (unit * fitted)).astype(np.int64)
        # Sums of floats are exact here: far below 2**53.
        weights = np.bincount(layer.outputs, layer.weights.each(abs(whole)), minlength=layer.sizes[1])
        highest = weights * most + layer.biases.each(abs(added))
        if highest.max() + 2**shift // 2 <= _SUM:
            break
        each *= 2
    if 0 < largest < _FINE * fitted:
        raise ValueError(
            f"network: 32-bit sums leave the weights of layer {index} only {int(largest / fitted)} steps, because its "
            "biases or its number of weights are too large; expected arithmetic 'float'"
        )
    return Integers(whole, added, unit * fitted, shift)
