"""A reader of coded files in plain Python, written from docs/coded-format.md, without fastprune or NumPy."""

import struct
import zlib
from itertools import pairwise

KNOTS = [22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768]
KNOTS += [65536 - knot for knot in KNOTS[-2::-1]]
ACTIVATIONS = ["relu", "leaky_relu", "tanh", "sigmoid"]
LOSSES = [None, "softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"]


def squash(t):
    i = t + 2048
    return KNOTS[i >> 7] + ((KNOTS[(i >> 7) + 1] - KNOTS[i >> 7]) * (i & 127) >> 7)


def stretch(q):
    return next((t for t in range(-2048, 2047) if squash(t) >= 16 * q), 2047)


STRETCH = [stretch(q) for q in range(4096)]


class Slots(dict):
    """Slots by any key, made when they are first used."""

    def __init__(self, p=1 << 21, n=0):
        self.new = p, n

    def __missing__(self, key):
        return self.new

    def learn(self, key, bit):
        p, n = self[key]
        self[key] = p + 2 * (bit * (2**22 - 1) - p) // (2 * n + 3), min(n + 1, 1000)


class Mixer:
    def __init__(self):
        self.weights = {}

    def bit(self, reader, given, chosen, key):
        """Read a bit mixed of log-odds and of (slots, key)s."""
        x = given + [STRETCH[slots[slot][0] >> 10] for slots, slot in chosen]
        w = self.weights.setdefault(key, [1 << 14] * len(x))
        t = (32768 + sum(a * b for a, b in zip(w, x, strict=True))) >> 16
        c = squash(max(-2048, min(2047, t)))
        bit = reader.bit(c)
        for i, one in enumerate(x):
            w[i] += (one * ((bit << 16) - c) * 4 + 2**17) >> 18
        for slots, slot in chosen:
            slots.learn(slot, bit)
        return bit


class Reader:
    def __init__(self, payload):
        self.payload, self.place = payload, 4
        self.low, self.high, self.word = 0, 2**32 - 1, int.from_bytes(payload[:4].ljust(4, b"\0"), "big")
        self.kinds = {}

    def bit(self, c):
        middle = self.low + ((self.high - self.low) * c >> 16)
        bit = int(self.word <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            following = self.payload[self.place] if self.place < len(self.payload) else 0
            self.place += 1
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = self.high << 8 & 0xFFFFFFFF | 255
            self.word = self.word << 8 & 0xFFFFFFFF | following
        return bit

    def adaptive(self, slots, key):
        bit = self.bit(max(32, min(65504, slots[key][0] >> 6)))
        slots.learn(key, bit)
        return bit

    def number(self, kind):
        return self.number_of(self.kinds.setdefault(kind, Slots()))

    def number_of(self, slots):
        m = 0
        while m < 40 and self.adaptive(slots, m):
            m += 1
        result = 1
        for i in range(m):
            result = 2 * result + (self.adaptive(slots, 41 + i + 2 * m) if i < 2 else self.bit(32768))
        return result - 1

    def floats(self, count, double):
        z, slots = self.number("zeros"), Slots()
        head, tail = (12, 52) if double else (9, 23)
        values = []
        for _ in range(count):
            node = 1
            for _ in range(head):
                node = 2 * node + self.adaptive(slots, node)
            for _ in range(tail - z):
                node = 2 * node + self.bit(32768)
            pattern = (node - (1 << (head + tail - z))) << z
            values += struct.unpack("<d" if double else "<f", pattern.to_bytes(8 if double else 4, "little"))
        return values

    def code(self, d, read):
        low, high, node = 0, d, 1
        while high - low > 1:
            bit = read(node)
            middle = (low + high) >> 1
            low, high, node = (middle, high, 2 * node + 1) if bit else (low, middle, 2 * node)
        return low


def step(row):
    if row < 4:
        return row
    e = row.bit_length() - 2
    return min(2 * e + (row >> e), 31)


def positions(reader, marks, counts, below, period, distinct):
    """Return (row, column, code) of each live weight."""
    columns, n = [i for i, mark in enumerate(marks) if mark], sum(counts)
    rows = sum(count > 0 for count in counts)
    far = rows * len(columns) > 256 * n
    density = (n << 22) // max(1, rows * len(columns))
    places = Slots(max(64, min(2**22 - 64, density)), 6)
    gaps, values, place_mixer, value_mixer = Slots(), Slots(), Mixer(), Mixer()
    sums, last, found, before, first = {}, {}, [], None, None
    for row, count in enumerate(counts):
        line, k, left = {}, -1, count
        while left:
            k += reader.number_of(gaps) + 1 if far else 1
            column = columns[k]
            a, b, c, d, e = (
                line.get(column - lag) if lag else None
                for lag in (1, period, period + 1, period - 1 if period > 1 else 0, 2)
            )
            if not far and left < len(columns) - k:
                near = [one is not None for one in (a, b, c, d, e)]
                o = 1 + (column >= first) + (column > first) if not line and count == before else 0
                odds = STRETCH[(left << 12) // (len(columns) - k)]
                s = min(sums.get(column, 0), 15)
                chosen = [
                    (places, ("row", 32 * s + step(row))),
                    (places, ("near", *near)),
                    (places, ("below", min(below[column], 31), s)),
                    (places, ("order", o, (odds + 2048) >> 7)),
                ]
                if not place_mixer.bit(reader, [odds], chosen, (o, min(sum(near), 2))):
                    continue
            nearest = next((one for one in (a, b, c, d, e) if one is not None), None)
            above = last.get(column)

            def read(node, nearest=nearest, above=above):
                keys = [("node", node), ("nearest", node, nearest), ("above", node, above)]
                return value_mixer.bit(reader, [], [(values, key) for key in keys], 0)

            code = reader.code(distinct, read)
            found.append((row, column, code))
            line[column] = last[column] = code
            sums[column] = sums.get(column, 0) + 1
            left -= 1
        if count:
            before, first = count, min(line)
    return found


def read(content):
    """Return sizes, activation, loss, dtype, and for each layer {(row, column): weight} and the biases."""
    assert content[:4] == b"\xf5pc\x01"
    assert zlib.crc32(content[8:]) == int.from_bytes(content[4:8], "little")
    reader = Reader(content[8:])
    activation, loss, double, layers = (reader.number("header") for _ in range(4))
    sizes = [reader.number("size") + 1 for _ in range(layers + 2)]
    below, network = [0] * sizes[0], []
    for fan_in, fan_out in pairwise(sizes):
        table = reader.floats(reader.number("table"), double)
        period = reader.number("period") + 1
        marks, slots = [], Slots()
        for i in range(fan_in):
            a, b, c = (marks[i - lag] if i >= lag else 0 for lag in (1, 2, period))
            marks.append(reader.adaptive(slots, a + 2 * b + 4 * c))
        counts = []
        for _ in range(fan_out):
            difference = reader.number("counts")
            if difference and not reader.adaptive(reader.kinds["counts"], 128):
                difference = -difference
            counts.append((counts[-1] if counts else 0) + difference)
        found = positions(reader, marks, counts, below, period, max(1, len(table)))
        values = [table[code] for *_, code in found] if table else reader.floats(len(found), double)
        weights = {(row, column): value for (row, column, _), value in zip(found, values, strict=True)}
        table, slots = reader.floats(reader.number("table"), double), Slots()
        if table:
            biases = [
                table[reader.code(len(table), lambda node, slots=slots: reader.adaptive(slots, node))]
                for _ in range(fan_out)
            ]
        else:
            biases = reader.floats(fan_out, double)
        network.append((weights, biases))
        below = counts
    return sizes, ACTIVATIONS[activation], LOSSES[loss], ("float32", "float64")[double], network
