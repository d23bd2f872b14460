"""The arithmetic coder of coded files, and the models that predict positions, codes and floats bit by bit.

Every function both writes and reads. A writer passes what it has; a reader passes anything and gets what was written.
So both sides make the same predictions, in integers only, which are the same on all machines. docs/coded-format.md
describes the stream.

Slots are adaptive probabilities: the chance of a 1 in 22 bits, above 10 bits that count how often it was adapted.
"""

from fastprune.kernels.constants import CODED_FAR, HIGH, LOW, NUMBER, PLACE, WORD, WRITES
from fastprune.kernels.jit import inner_kernel, kernel
from fastprune.kernels.layout import Bytes, Coder, Ints, Lattice, Mixer

_LIMIT = 1000  # a slot adapts by 1 / (n + 1.5) until it has seen so many bits
_RATE = 4  # of the weights of a mixer
_LONGEST = 40  # bits of a number


@inner_kernel
def code_bit(coder: Coder, chance: int, bit: int) -> int:
    """Write or read a bit whose chance of being 1 is `chance` / 65536, from 1 to 65535; return it."""
    state, data = coder.state, coder.data
    low, high = state[LOW], state[HIGH]
    middle = low + ((high - low) * chance >> 16)
    if state[WRITES] == 0:
        bit = 1 if state[WORD] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) >> 24 == 0:
        place = state[PLACE]
        if state[WRITES]:
            if place < data.size:
                data[place] = high >> 24
        else:
            state[WORD] = (state[WORD] << 8 & 0xFFFFFFFF) | (data[place] if place < data.size else 0)
        state[PLACE] = place + 1
        low, high = low << 8 & 0xFFFFFFFF, (high << 8 & 0xFFFFFFFF) | 0xFF
    state[LOW], state[HIGH] = low, high
    return bit


@inner_kernel
def adapt(slots: Ints, slot: int, bit: int) -> None:
    """Move the probability of a slot towards `bit`, the less the more bits it has seen."""
    chance, seen = slots[slot] >> 10, slots[slot] & 1023
    chance += 2 * (bit * 0x3FFFFF - chance) // (2 * seen + 3)
    slots[slot] = chance << 10 | min(seen + 1, _LIMIT)


@inner_kernel
def code_adaptive(coder: Coder, slots: Ints, slot: int, bit: int) -> int:
    """Write or read a bit, predicted by one slot; return it."""
    bit = code_bit(coder, min(max(slots[slot] >> 16, 32), 65504), bit)
    adapt(slots, slot, bit)
    return bit


@inner_kernel
def code_mixed(coder: Coder, mixer: Mixer, weights: int, bit: int) -> int:
    """Write or read a bit, predicted by all slots `chosen` with the given set of weights; return it."""
    total = 32768
    for i in range(mixer.chosen.size):
        if mixer.chosen[i] >= 0:
            mixer.inputs[i] = coder.stretch[mixer.slots[mixer.chosen[i]] >> 20]
        total += mixer.weights[weights, i] * mixer.inputs[i]
    chance = coder.squash[min(max(total >> 16, -2048), 2047) + 2048]
    bit = code_bit(coder, chance, bit)
    error = ((bit << 16) - chance) * _RATE
    for i in range(mixer.chosen.size):
        mixer.weights[weights, i] += (mixer.inputs[i] * error + (1 << 17)) >> 18
        if mixer.chosen[i] >= 0:
            adapt(mixer.slots, mixer.chosen[i], bit)
    return bit


@kernel
def code_number(coder: Coder, slots: Ints, number: int) -> int:
    """Write or read a number of at least 0 (Elias's gamma code of number + 1, of adaptive bits); return it.

    `slots` (NUMBER,) belong to numbers of this kind. What is read can be as large as 2^40.
    """
    length = 0
    while length < _LONGEST and code_adaptive(coder, slots, length, 1 if (number + 1) >> (length + 1) else 0):
        length += 1
    result = 1
    for i in range(length - 1, -1, -1):
        # The two bits below the leading one are predicted, the others are not worth it.
        one = (number + 1) >> i & 1
        if i >= length - 2:
            slot = 41 + 2 * length if i == length - 1 else 42 + 2 * length
            result = result * 2 + code_adaptive(coder, slots, slot, one)
        else:
            result = result * 2 + code_bit(coder, 32768, one)
    return result - 1


@kernel
def code_marks(marks: Bytes, coder: Coder, slots: Ints, period: int) -> None:
    """Write or read marks (I,), each predicted by the two before it and the one `period` before; `slots` is (8,)."""
    for i in range(marks.size):
        context = 0
        if i >= 1:
            context += marks[i - 1]
        if i >= 2:
            context += 2 * marks[i - 2]
        if i >= period:
            context += 4 * marks[i - period]
        marks[i] = code_adaptive(coder, slots, context, marks[i])


@kernel
def code_counts(counts: Ints, coder: Coder, slots: Ints, most: int, total: int) -> bool:
    """Write or read counts (O,) as differences, with the slots of `code_number` and the last one.

    Returns False, and stops, if what is read is below 0 or above `most`, or their sum is above `total`.
    """
    before = 0
    for i in range(counts.size):
        step = code_number(coder, slots, abs(counts[i] - before))
        if step and code_adaptive(coder, slots, NUMBER - 1, 1 if counts[i] > before else 0):
            step = -step
        counts[i] = before - step
        before = counts[i]
        total -= before
        if before < 0 or before > most or total < 0:
            return False
    return True


@kernel
def code_codes(codes: Ints, coder: Coder, slots: Ints, distinct: int) -> None:
    """Write or read codes (n,) below `distinct`, each by bisection; `slots` is (512,)."""
    for i in range(codes.size):
        low, high, node = 0, distinct, 1
        while high - low > 1:
            middle = (low + high) >> 1
            bit = code_adaptive(coder, slots, node, 1 if codes[i] >= middle else 0)
            low, high, node = (middle, high, 2 * node + 1) if bit else (low, middle, 2 * node)
        codes[i] = low


@kernel
def code_floats(patterns: Ints, coder: Coder, slots: Ints, head: int, tail: int, zeros: int) -> None:
    """Write or read the bit patterns of floats (n,): sign and exponent adaptively, the fraction as it is.

    Sign and exponent have `head` bits, the fraction `tail`, of which the last `zeros` are 0. `slots` is (2^head,).
    """
    for i in range(patterns.size):
        node = 1
        for j in range(head + tail - 1, tail - 1, -1):
            node = 2 * node + code_adaptive(coder, slots, node, patterns[i] >> j & 1)
        result = node - (1 << head)
        for j in range(tail - 1, zeros - 1, -1):
            result = 2 * result + code_bit(coder, 32768, patterns[i] >> j & 1)
        patterns[i] = result << zeros


@inner_kernel
def bucket(number: int) -> int:
    """Return the magnitude of a number of at least 0, in steps of a factor of about 1.4: 0, 1, 2, 3, 4, 4, 5, 5, 6."""
    if number < 4:
        return number
    size = 0
    while number >= 4:
        number >>= 1
        size += 1
    return min(2 * size + number, 31)


@kernel
def code_layer(
    columns: Ints,
    codes: Ints,
    scratch: Ints,
    coder: Coder,
    places: Mixer,
    values: Mixer,
    gaps: Ints,
    lattice: Lattice,
) -> bool:
    """Write or read the column and the code of each live weight (n,), row by row.

    Each live column is a bit, 1 if the weight there is live. It is predicted by how many of the row's weights and
    columns are left, the column's weights so far, the neighbours in the row, the weights below, and the first column
    of the row before if that has as many weights, because `freeze` sorts such rows. After each 1 comes the code. If a
    layer is so sparse that its columns are too many to be looked at, the number of columns between weights is written.

    `scratch` (3, I) starts as zeros: the codes + 1 of the row, the columns' numbers of weights, their last codes + 1.
    Returns False, and stops, if what is read lies outside the layer.
    """
    counts, live, below, period, distinct = lattice
    line, sums, last = scratch[0], scratch[1], scratch[2]
    rows = 0
    for row in range(counts.size):
        rows += counts[row] > 0
    far = rows * live.size > CODED_FAR * columns.size
    at, before, first, step = 0, -1, -1, distinct + 1
    for row in range(counts.size):
        start, end, k = at, at + counts[row], -1
        while at < end:
            left = end - at
            if far:
                gap = 0
                while coder.state[WRITES] and live[k + 1 + gap] < columns[at]:
                    gap += 1
                k += code_number(coder, gaps, gap) + 1
                if k > live.size - left:
                    return False
            else:
                k += 1
            column = live[k]
            a = line[column - 1] if column >= 1 else 0
            b = line[column - period] if column >= period else 0
            c = line[column - period - 1] if column > period else 0
            d = line[column - period + 1] if column >= period > 1 else 0
            e = line[column - 2] if column >= 2 else 0
            if not far and left < live.size - k:
                near = (a > 0) + (b > 0) + (c > 0) + (d > 0) + (e > 0)
                order = 0
                if at == start and counts[row] == before:
                    order = 1 if column < first else 2 if column == first else 3
                places.inputs[0] = coder.stretch[(left << 12) // (live.size - k)]
                sparse = (places.inputs[0] + 2048) >> 7
                ones = min(sums[column], 15)
                places.chosen[1] = 32 * ones + bucket(row)
                places.chosen[2] = 512 + 16 * (a > 0) + 8 * (b > 0) + 4 * (c > 0) + 2 * (d > 0) + (e > 0)
                places.chosen[3] = 544 + 16 * min(below[column], 31) + ones
                places.chosen[4] = 1056 + 32 * order + sparse
                if not code_mixed(coder, places, 3 * order + min(near, 2), 1 if columns[at] == column else 0):
                    continue
            nearest = a if a else b if b else c if c else d if d else e
            low, high, node = 0, distinct, 1
            while high - low > 1:
                middle = (low + high) >> 1
                values.chosen[0] = 3 * node * step
                values.chosen[1] = (3 * node + 1) * step + nearest
                values.chosen[2] = (3 * node + 2) * step + last[column]
                bit = code_mixed(coder, values, 0, 1 if codes[at] >= middle else 0)
                low, high, node = (middle, high, 2 * node + 1) if bit else (low, middle, 2 * node)
            columns[at], codes[at] = column, low
            line[column] = last[column] = low + 1
            sums[column] += 1
            at += 1
        for i in range(start, at):
            line[columns[i]] = 0
        if at > start:
            before, first = counts[row], columns[start]
    return True
