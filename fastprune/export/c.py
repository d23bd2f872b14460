"""C: a pruned network as one C99 file that allocates nothing and needs no library, for microcontrollers."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastprune import check
from fastprune.base import Network
from fastprune.export.packed import (
    BLOCK,
    BYTE,
    SIGNED,
    Integers,
    Packed,
    Scale,
    bits_for,
    pack,
    scales,
    size_of,
    to_integers,
)
from fastprune.files import write_text
from fastprune.frozen import FrozenMLP, Part, freeze
from fastprune.kernels.constants import SLOPE
from fastprune.kernels.layout import Ints
from fastprune.network import MLP

ARITHMETIC = ("float", "int8")
_TINY = float(np.finfo(np.float32).tiny)
_SLOPES = {"relu": 0.0, "leaky_relu": SLOPE}  # of activations that integers can compute, below 0


def to_c(
    network: Network,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    arithmetic: str = "float",
    calibration: ArrayLike | None = None,
    byte_scale: float | None = None,
    logits: bool = False,
    probabilities: bool = False,
    arduino: bool = False,
) -> None:
    """Write a network as a C99 file and its header, which predict one sample without allocating memory.

    The frozen form is written (see `MLP.freeze`). A layer whose live weights take few distinct values gets a table of
    these values and a code of 1, 2, 4 or 8 bits a weight. Positions are distances between live weights, of 4, 8 or 16
    bits. The same network gives the same bytes. The guide to microcontrollers (docs/microcontrollers.md) describes the
    files and what they cost.

    Parameters
    ----------
    network : MLP or FrozenMLP
        The network, which is unchanged. Its weights are written as float32.
    path : str or path
        Name of the C file, which ends in ".c"; the header gets the same name with ".h". Existing files are replaced;
        each write is atomic.
    name : str, optional
        Beginning of the functions' names, an identifier of C such as "digits" for `digits_predict`. By default the
        name of the file.
    arithmetic : {"float", "int8"}, default "float"
        Either float32, with the predictions of `network.predict`, or 8-bit activations and 32-bit sums, for
        processors that compute integers only. Sums cannot overflow, whatever the input is.
    calibration : array_like or SciPy sparse array (N, F), optional
        Samples such as those to be predicted, for arithmetic "int8": the largest values they give to inputs and units
        are the largest that 8 bits stand for. Larger ones count as these.
    byte_scale : float, optional
        If given, a sample is an array of bytes (`uint8_t`), and a feature is its byte times this number: 1/255 for
        pixels that were scaled to [0, 1]. By default, a sample is an array of `float`.
    logits : bool, default False
        Whether there is a function `name_logits`, too. There always is one if outputs are no classes.
    probabilities : bool, default False
        Whether there is a function `name_probabilities`, which needs `<math.h>`.
    arduino : bool, default False
        Whether to write a sketch, too, which predicts a sample; `path` is to be "folder/folder.c", as Arduino asks,
        and the folder is made if there is none.

    Raises
    ------
    ValueError
        If an argument is not as described, the network's loss is not known yet or its outputs are constant, float32
        cannot hold its weights, or if 8-bit integers cannot compute it: because of its activation, or because biases
        are too large beside the weights.
    OSError
        If a file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import fastprune as fp
    >>> from fastprune.export import to_c
    >>> network = fp.MLP([64, 30, 10], density=0.1, loss="softmax_cross_entropy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_c(network, pathlib.Path(folder, "digits.c"))
    ...     print(pathlib.Path(folder, "digits.h").read_text().splitlines()[-7])
    int digits_predict(const float x[DIGITS_INPUTS]);
    """
    if not isinstance(network, MLP | FrozenMLP):
        raise ValueError(f"network: expected an MLP or a FrozenMLP, got {type(network).__name__}")
    file = _file(path, check.boolean("arduino", arduino))
    name = _identifier("path", file.stem) if name is None else _identifier("name", name)
    check.one_of("arithmetic", arithmetic, ARITHMETIC)
    if byte_scale is not None:
        byte_scale = check.number("byte_scale", byte_scale, "[1e-9, 1e9]")
    if (calibration is None) != (arithmetic == "float"):
        got = "none" if calibration is None else f"samples with arithmetic {arithmetic!r}"
        raise ValueError(f"calibration: expected samples if arithmetic is 'int8', and only then, got {got}")
    integer = arithmetic == "int8"
    frozen = network if isinstance(network, FrozenMLP) else freeze(network)
    loss = frozen._known_loss()
    if check.boolean("probabilities", probabilities) and loss == "mean_squared_error":
        raise ValueError("probabilities: expected False for a network with loss 'mean_squared_error', got True")
    if not frozen.live_weights:
        raise ValueError("network: expected live weights in every layer, got a network whose outputs are constant")
    with np.errstate(over="ignore"):  # an overflow is found here
        if not np.isfinite(frozen.state.values.astype(np.float32)).all():
            raise ValueError("network: expected finite weights and biases that float32 can hold, got others")
    levels: list[Scale] = []
    if integer:
        if frozen.activation not in _SLOPES:
            raise ValueError(
                f"network: expected the activation 'relu' or 'leaky_relu' with arithmetic 'int8', got "
                f"{frozen.activation!r}"
            )
        x = check.samples("calibration", calibration, frozen.sizes[0], frozen.dtype)
        levels = scales(frozen, x, _SLOPES[frozen.activation], byte_scale)
    layers = [
        pack(
            Part.of(frozen.layer(index)),
            fan_in,
            fan_out,
            value_bytes=1 if integer else 4,
            table_bytes=2 if integer else 4,
            by_input=index == 0 and integer and byte_scale is None,  # so that each input is rounded once
        )
        for index, (fan_in, fan_out) in enumerate(pairwise(frozen.sizes))
    ]
    writer = _Writer(
        name=name,
        header=file.with_suffix(".h").name,
        network=frozen,
        layers=layers,
        integers=to_integers(layers, levels) if integer else [],
        levels=levels,
        byte_scale=byte_scale,
        classes=loss == "softmax_cross_entropy" or (loss == "sigmoid_cross_entropy" and frozen.sizes[-1] == 1),
        logits=check.boolean("logits", logits),
        probabilities=probabilities,
    )
    texts = {file.with_suffix(".h"): writer.declarations(), file: writer.definitions()}
    if arduino:
        file.parent.mkdir(exist_ok=True)
        sketch = file.with_suffix(".ino")
        if not sketch.exists():  # it is the user's, to be changed
            texts[sketch] = writer.sketch()
    for target, text in texts.items():
        write_text(target, text)


def _file(path: str | os.PathLike[str], arduino: bool) -> Path:
    file = Path(check.path("path", path))
    if file.suffix != ".c" or re.search(r'["\\\n\r]', file.name):
        raise ValueError(f"path: expected the name of a file that ends in '.c', got {os.fspath(path)!r}")
    if arduino and file.absolute().parent.name != file.stem:
        raise ValueError(
            f"path: expected a file in a folder of its name for Arduino, such as "
            f"{str(file.parent / file.stem / file.name)!r}, got {os.fspath(path)!r}"
        )
    return file


def _identifier(name: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", value):
        expected = "an identifier of C that begins with a letter"
        advice = "; name= gives another" if name == "path" else ""
        raise ValueError(f"{name}: expected {expected}, got {check.shown(value)}{advice}")
    return value


@dataclass(frozen=True)
class _Writer:
    """Writes the text of the files."""

    name: str
    header: str  # name of the header
    network: FrozenMLP
    layers: list[Packed]
    integers: list[Integers]  # of each layer, with integer arithmetic
    levels: list[Scale]  # likewise
    byte_scale: float | None
    classes: bool  # whether an output is one class
    logits: bool
    probabilities: bool

    @property
    def number(self) -> str:
        """Type of activations and sums."""
        return "int32_t" if self.integers else "float"

    @property
    def feature(self) -> str:
        """Type of a feature."""
        return "float" if self.byte_scale is None else "uint8_t"

    def declarations(self) -> str:
        """Return the header."""
        big = self.name.upper()
        functions = []
        if self.classes:
            functions += [f"/* Returns the class of a sample. */\nint {self.signature('predict')};\n"]
        if self.has_logits:
            values = {
                "softmax_cross_entropy": "outputs before softmax",
                "sigmoid_cross_entropy": "outputs before sigmoid",
                "mean_squared_error": "values",
            }[str(self.network.loss)]
            divided = f", in units of {big}_UNIT" if self.integers else ""
            functions += [f"/* Writes the {values}{divided}. */\nvoid {self.signature('logits')};\n"]
        if self.probabilities:
            functions += [f"/* Writes the probability of each class. */\nvoid {self.signature('probabilities')};\n"]
        macros = [f"#define {big}_INPUTS {self.network.sizes[0]}", f"#define {big}_OUTPUTS {self.network.sizes[-1]}"]
        if self.integers:
            unit = self.integers[-1].unit
            if not _TINY <= unit <= 1 / _TINY:
                raise ValueError(
                    f"network: expected weights whose outputs are floats, got outputs in units of {unit:.3g}"
                )
            macros += [f"#define {big}_UNIT {_float(unit)}"]
        return "\n".join(
            [
                self.comment(),
                f"#ifndef {big}_H",
                f"#define {big}_H",
                "",
                *(["#include <stdint.h>", ""] if "_t" in self.number + self.feature else []),
                *macros,
                "",
                "#ifdef __cplusplus",
                'extern "C" {',
                "#endif",
                "",
                *functions,
                "#ifdef __cplusplus",
                "}",
                "#endif",
                "",
                "#endif",
                "",
            ]
        )

    @property
    def has_logits(self) -> bool:
        """Whether the function of logits is public."""
        return self.logits or not self.classes

    def signature(self, what: str) -> str:
        """Return the declarator of a public function."""
        name, big = self.name, self.name.upper()
        count = f"{big}_OUTPUTS"
        if what == "probabilities" and self.network.sizes[-1] == 1 and self.network.loss == "sigmoid_cross_entropy":
            count = "2"
        outputs = {
            "predict": "",
            "logits": f", {self.number} logits[{count}]",
            "probabilities": f", float probabilities[{count}]",
        }[what]
        return f"{name}_{what}(const {self.feature} x[{big}_INPUTS]{outputs})"

    def comment(self) -> str:
        """Return what the head of the header says: the network, and what it costs."""
        network = self.network
        held = 4 * (sum(self.buffers) + (network.sizes[-1] if self.classes or self.probabilities else 0))
        held += max((int(layer.groups.max()) for layer in self.layers if layer.by_input), default=0)
        flash = sum(array.size for layer in range(len(self.layers)) for array in self.arrays(layer))
        lines = [
            f"A pruned network, {'-'.join(map(str, network.sizes))}, {network.activation}, written by fastprune.",
            "",
            f"Weights:       {network.live_weights}; a dense network of these sizes has {network.total_weights}",
            f"Arithmetic:    {'8-bit integers, sums of 32 bits' if self.integers else 'float'}",
            f"A feature:     {self.feature}" + (f", times {self.byte_scale!r}" if self.byte_scale is not None else ""),
            f"Flash:         {flash} bytes of constants, and the code",
            f"RAM:           about {held} bytes on the stack, beside the sample",
            f"Multiply-adds: at most {sum(layer.steps.size for layer in self.layers)} a sample",
        ]
        return "\n".join(["/*", *(f" * {line}".rstrip() for line in lines), " */"])

    @property
    def buffers(self) -> list[int]:
        """Numbers that each of the arrays between layers holds; hidden levels alternate between two."""
        hidden = self.network.sizes[1:-1]
        return [max(part) for part in (hidden[::2], hidden[1::2]) if part]

    def definitions(self) -> str:
        """Return the C file."""
        network = self.network
        parts = [f'#include "{self.header}"', "\n".join(self.includes())]
        parts += [self.quantized()] if self.levels and self.byte_scale is None else []
        parts += [self.activated()] if network.n_layers > 1 else []
        for index in range(network.n_layers):
            parts += ["\n".join(array.text() for array in self.arrays(index)), self.layer(index)]
        parts += [self.outputs()]
        parts += [self.predict()] if self.classes else []
        parts += [self.probability()] if self.probabilities else []
        return "\n\n".join(filter(None, parts)) + "\n"

    def includes(self) -> Iterable[str]:
        """Return the standard headers that the code needs."""
        if self.probabilities or (self.network.n_layers > 1 and self.network.activation in ("tanh", "sigmoid")):
            yield "#include <math.h>"
        yield "#include <stdint.h>"

    def quantized(self) -> str:
        """Return the function that rounds a feature."""
        level = self.levels[0]
        most = level.most
        scaled = f"const float scaled = x * {_float(1 / level.unit)};"
        rounded = "scaled < 0 ? scaled - 0.5f : scaled + 0.5f" if level.signed else "scaled + 0.5f"
        return _function(
            "static int32_t quantized(float x)",
            scaled,
            f"if (scaled >= {most})",
            f"    return {most};",
            f"return scaled > {-most if level.signed else 0} ? (int32_t)({rounded}) : {-most if level.signed else 0};",
        )

    def activated(self) -> str:
        """Return the function that makes an activation of a sum."""
        activation, head = self.network.activation, "static float activated(float sum)"
        if not self.integers:
            slope = _float(SLOPE)
            body = {
                "relu": "return sum > 0 ? sum : 0;",
                "leaky_relu": f"return sum > 0 ? sum : {slope} * sum;",
                "tanh": "return tanhf(sum);",
                "sigmoid": "return 1 / (1 + expf(-sum));",
            }
            return _function(head, body[activation])
        head = "static int32_t activated(int32_t sum, int shift)"
        half = "const int32_t half = ((int32_t)1 << shift) >> 1;"
        if activation == "relu":
            return _function(
                head,
                half,
                "const int32_t positive = sum > 0 ? sum : 0; /* a branch around the shift would take longer */",
                "const int32_t size = (positive + half) >> shift;",
                f"return size < {BYTE} ? size : {BYTE};",
            )
        return _function(
            head,
            half,
            f"const int32_t size = ((sum < 0 ? -sum / {round(1 / SLOPE)} : sum) + half) >> shift;",
            f"const int32_t most = size < {SIGNED} ? size : {SIGNED};",
            "return sum < 0 ? -most : most;",
        )

    def arrays(self, index: int) -> list[_Array]:
        """Return the constants of a layer."""
        layer = self.layers[index]
        values, biases = self.numbers(index)
        steps = [(f"steps_{index}", layer.steps, layer.step_bits)]
        if layer.weights.codes is not None:
            steps += [(f"codes_{index}", layer.codes_by_line, layer.weights.bits)]
            if layer.step_bits < 8:
                steps = [(f"steps_{index}", layer.steps << layer.weights.bits | layer.weights.codes, 8)]
        blocks = [_Array.packed(f"blocks_{index}", layer.blocks, bits_for(layer.blocks))] if layer.blocks.any() else []
        shared = []
        if layer.biases.codes is not None:
            shared = [_Array.packed(f"bias_codes_{index}", layer.biases.codes, layer.biases.bits)]
        return [
            _Array.packed(f"lines_{index}", layer.lines, bits_for(layer.lines)),
            *blocks,
            _Array.packed(f"groups_{index}", layer.groups, bits_for(layer.groups)),
            _Array.packed(f"counts_{index}", layer.counts, bits_for(layer.counts)),
            *(_Array.packed(name, numbers, bits) for name, numbers, bits in steps),
            _Array(f"values_{index}", self.value_type(index), values),
            _Array(f"biases_{index}", self.number, biases),
            *shared,
        ]

    def value_type(self, index: int) -> str:
        """Return the type of a layer's values."""
        if not self.integers:
            return "float"
        return "int8_t" if self.layers[index].weights.codes is None else "int16_t"

    def numbers(self, index: int) -> tuple[list[str], list[str]]:
        """Return values and biases of a layer as they are written."""
        layer = self.layers[index]
        if self.integers:
            integers = self.integers[index]
            return [str(value) for value in integers.values], [str(bias) for bias in integers.biases]
        values = layer.weights.values
        if index == 0 and self.byte_scale is not None:
            values = values.astype(np.float64) * self.byte_scale
        return [_float(value) for value in values], [_float(bias) for bias in layer.biases.values]

    def layer(self, index: int) -> str:
        """Return the function that computes a layer."""
        body = self.by_input(index) if self.layers[index].by_input else self.by_output(index)
        return _function(f"static void layer_{index}(const {self.source(index)} *x, {self.number} *y)", *body)

    def by_input(self, index: int) -> Iterable[str]:
        """Return the body of a layer that adds what each input that is not 0 gives to the outputs."""
        layer, walk, fan_out = self.layers[index], self.walk(index), self.layers[index].sizes[1]
        read = "quantized(in[{}])" if index == 0 and self.levels and self.byte_scale is None else "in[{}]"
        block = f" + {BLOCK} * blocks_{index}[group]" if layer.blocks.any() else ""
        yield f"uint8_t used[{layer.groups.max()}]; /* inputs of a group that are not 0 */"
        yield "unsigned o, group;"
        yield f"const uint8_t *line = lines_{index};"
        yield from (f"const {kind} *{name}s = {name}s_{index};" for kind, name, _ in walk.pointers)
        yield f"for (o = 0; o < {fan_out}; ++o)"
        yield f"    y[o] = {self.bias(index, 'o')};"
        yield f"for (group = 0; group < {layer.groups.size}; ++group) {{"
        yield f"    const unsigned count = counts_{index}[group], lines = groups_{index}[group];"
        yield from _indented(1, walk.widths)
        yield f"    const {self.source(index)} *in = x{block};"
        yield "    uint8_t *last = used;"
        yield "    const uint8_t *i;"
        yield "    unsigned n;"
        yield "    for (n = 0; n < lines; ++n) {"
        yield "        *last = (uint8_t)n;"
        yield "        last += in[line[n]] != 0;"
        yield "    }"
        yield "    for (i = used; i != last; ++i) {"
        yield f"        const {self.number} input = {read.format('line[*i]')};"
        for kind, name, length in walk.pointers:
            end = ", *const end = step + count" if name == "step" else ""
            yield f"        const {kind} *{name} = {name}s + *i * {length}{end};"
        yield f"        {self.number} *sum = y;"
        yield from _indented(2, walk.begin)
        yield "        do {"
        yield from _indented(3, walk.fetch)
        yield f"            sum += {walk.step};"
        yield f"            *sum += input * {walk.value};"
        yield from _indented(3, walk.drop)
        yield "        } while (step != end);"
        yield "    }"
        yield from (f"    {name}s += lines * {length};" for _, name, length in walk.pointers)
        yield "    line += lines;"
        yield "}"
        if index < len(self.layers) - 1:
            yield f"for (o = 0; o < {fan_out}; ++o)"
            yield f"    y[o] = {self.activation(index, 'y[o]')};"

    def by_output(self, index: int) -> Iterable[str]:
        """Return the body of a layer that computes one output after the other."""
        layer, walk, several = self.layers[index], self.walk(index), self.layers[index].blocks.any()
        wide = "(int32_t)" if self.levels and self.source(index) == "uint8_t" else ""  # where int has 16 bits
        yield "unsigned group, line = 0;"
        yield from (f"const {kind} *{name} = {name}s_{index};" for kind, name, _ in walk.pointers)
        yield f"for (group = 0; group < {layer.groups.size}; ++group) {{"
        yield f"    const unsigned count = counts_{index}[group], last = line + groups_{index}[group];"
        if several:
            yield f"    const unsigned from = {BLOCK}u * blocks_{index}[group];"
        yield "    for (; line < last; ++line) {"
        yield f"        const unsigned out = {'from + ' if several else ''}lines_{index}[line];"
        yield f"        const {walk.pointers[0].kind} *const end = step + count;"
        yield f"        const {self.source(index)} *input = x;"
        yield f"        {self.number} sum = {self.bias(index, 'out')};"
        yield from _indented(2, walk.begin)
        yield "        while (step != end) {"
        yield from _indented(3, walk.fetch)
        yield f"            input += {walk.step};"
        yield f"            sum += {wide}*input * {walk.value};"
        yield from _indented(3, walk.drop)
        yield "        }"
        yield f"        y[out] = {self.activation(index, 'sum')};"
        yield "    }"
        yield "}"

    def walk(self, index: int) -> _Walk:
        """Return the code that goes along a line of a layer."""
        layer, weights = self.layers[index], self.layers[index].weights
        mask, table = 2**weights.bits - 1, f"values_{index}[{{}}]"
        if layer.step_bits < 8:
            fetch = ["const unsigned both = *step++;"]
            value = table.format(f"both & {mask}")
            return _Walk([_Pointer("uint8_t", "step")], fetch=fetch, step=f"both >> {weights.bits}", value=value)
        step = _Pointer(_type(layer.step_bits), "step")
        if weights.codes is None:
            return _Walk([step, _Pointer(self.value_type(index), "value")], value="*value++")
        if weights.bits == 8:
            return _Walk([step, _Pointer("uint8_t", "code")], value=table.format("*code++"))
        return _Walk(
            [step, _Pointer("uint8_t", "code", "width")],
            widths=[f"const unsigned width = (count * {weights.bits} + 7) / 8;"],
            begin=["unsigned left = 1;"],
            # The 1 above the bits of a byte says when all its codes are used.
            fetch=["if (left == 1)", "    left = *code++ | 256u;"],
            value=table.format(f"left & {mask}"),
            drop=[f"left >>= {weights.bits};"],
        )

    def source(self, index: int) -> str:
        """Return the type of a layer's inputs."""
        return self.feature if index == 0 else self.number

    def bias(self, index: int, output: str) -> str:
        """Return the expression of an output's bias."""
        biases = self.layers[index].biases
        return (
            f"biases_{index}[{output if biases.codes is None else _read(f'bias_codes_{index}', biases.bits, output)}]"
        )

    def activation(self, index: int, total: str) -> str:
        """Return the expression of what a layer makes of a sum."""
        if index == len(self.layers) - 1:
            return total
        return f"activated({total}{f', {self.integers[index].shift}' if self.integers else ''})"

    def outputs(self) -> str:
        """Return the function that computes the outputs of the last layer."""
        names = ["even", "odd"]
        levels = ["x", *(names[level % 2] for level in range(self.network.n_layers - 1)), "logits"]
        return _function(
            f"{'' if self.has_logits else 'static '}void {self.signature('logits')}",
            *(f"{self.number} {name}[{size}];" for name, size in zip(names, self.buffers, strict=False)),
            *(f"layer_{index}({below}, {above});" for index, (below, above) in enumerate(pairwise(levels))),
        )

    def predict(self) -> str:
        """Return the function that gives a class."""
        big, outputs = self.name.upper(), self.network.sizes[-1]
        head = f"int {self.signature('predict')}", f"{self.number} logits[{big}_OUTPUTS];"
        if self.network.loss == "sigmoid_cross_entropy" or outputs == 1:
            positive = "logits[0] > 0" if self.network.loss == "sigmoid_cross_entropy" else "0"
            return _function(*head, f"{self.name}_logits(x, logits);", f"return {positive};")
        return _function(
            *head,
            "int o, best = 0;",
            f"{self.name}_logits(x, logits);",
            f"for (o = 1; o < {big}_OUTPUTS; ++o)",
            "    if (logits[o] > logits[best])",
            "        best = o;",
            "return best;",
        )

    def probability(self) -> str:
        """Return the function that gives probabilities."""
        outputs = f"{self.name.upper()}_OUTPUTS"
        unit = f" * {self.name.upper()}_UNIT" if self.integers else ""
        head = (
            f"void {self.signature('probabilities')}",
            f"{self.number} logits[{outputs}];",
        )
        compute = f"{self.name}_logits(x, logits);"
        if self.network.loss == "softmax_cross_entropy":
            return _function(
                *head,
                "float most, sum = 0;",
                "int o;",
                compute,
                f"most = (float)logits[0]{unit};",
                f"for (o = 1; o < {outputs}; ++o)",
                f"    most = fmaxf(most, (float)logits[o]{unit});",
                f"for (o = 0; o < {outputs}; ++o)",
                f"    sum += probabilities[o] = expf((float)logits[o]{unit} - most);",
                f"for (o = 0; o < {outputs}; ++o)",
                "    probabilities[o] /= sum;",
            )
        positive = f"1 / (1 + expf(-(float)logits[{{}}]{unit}))"
        if self.network.sizes[-1] == 1:
            return _function(
                *head,
                compute,
                f"probabilities[1] = {positive.format(0)};",
                "probabilities[0] = 1 - probabilities[1];",
            )
        return _function(
            *head,
            "int o;",
            compute,
            f"for (o = 0; o < {outputs}; ++o)",
            f"    probabilities[o] = {positive.format('o')};",
        )

    def sketch(self) -> str:
        """Return the sketch of Arduino."""
        name, big = self.name, self.name.upper()
        show = [f"  Serial.println({name}_predict(sample));"]
        if not self.classes:
            show = [
                f"  {self.number} logits[{big}_OUTPUTS];",
                f"  {name}_logits(sample, logits);",
                f"  for (int o = 0; o < {big}_OUTPUTS; ++o)",
                "    Serial.println(logits[o]);",
            ]
        return "\n".join(
            [
                f'#include "{self.header}"',
                "",
                f"static {self.feature} sample[{big}_INPUTS];",
                "",
                "void setup() {",
                "  Serial.begin(115200);",
                "}",
                "",
                "void loop() {",
                "  // Read your sensors into `sample` here.",
                *show,
                "  delay(1000);",
                "}",
                "",
            ]
        )


class _Pointer(NamedTuple):
    """A pointer that goes along a line."""

    kind: str  # what it points to
    name: str
    length: str = "count"  # how far it goes


class _Walk(NamedTuple):
    """C code that goes along a line, and gives the step and the value of each weight."""

    pointers: list[_Pointer]  # that of the steps comes first
    value: str
    step: str = "*step++"
    widths: Sequence[str] = ()  # for each group
    begin: Sequence[str] = ()  # for each line
    fetch: Sequence[str] = ()  # before each weight
    drop: Sequence[str] = ()  # after it


@dataclass(frozen=True)
class _Array:
    """A constant of the C file."""

    name: str
    kind: str
    items: list[str]

    @classmethod
    def packed(cls, name: str, numbers: Ints, bits: int) -> _Array:
        """Return numbers of less than 8 bits in bytes, the first in the lowest bits; others in a type of their own."""
        if bits < 8:
            padded = np.zeros((size_of(numbers.size, bits), 8 // bits), np.int64)
            padded.reshape(-1)[: numbers.size] = numbers
            numbers, bits = (padded << np.arange(0, 8, bits)).sum(axis=1), 8
        return cls(name, _type(bits), [str(number) for number in numbers])

    @property
    def size(self) -> int:
        """Bytes."""
        return {"uint8_t": 1, "int8_t": 1, "uint16_t": 2, "int16_t": 2}.get(self.kind, 4) * len(self.items)

    def text(self) -> str:
        """Return the definition."""
        items = textwrap.fill(", ".join(self.items), 120, initial_indent="    ", subsequent_indent="    ")
        return f"static const {self.kind} {self.name}[{len(self.items)}] = {{\n{items}\n}};"


def _read(array: str, bits: int, index: str) -> str:
    """Return the expression of a number of a packed array."""
    if bits >= 8:
        return f"{array}[{index}]"
    each = 8 // bits
    return f"{array}[{index} / {each}] >> {index} % {each} * {bits} & {2**bits - 1}"


def _type(bits: int) -> str:
    return f"uint{bits}_t"


def _float(value: float | np.floating[Any]) -> str:
    """Return the shortest literal that is this number in float32."""
    with np.errstate(over="ignore"):  # an overflow is found here
        number = np.float32(value)
    if not np.isfinite(number):
        raise ValueError(f"network: expected weights that float32 can hold, also times byte_scale, got {value!s}")
    return f"{number!s}f"


def _indented(levels: int, lines: Iterable[str]) -> Iterable[str]:
    return (f"{'    ' * levels}{line}" for line in lines)


def _function(head: str, *body: str) -> str:
    return "\n".join([head, "{", *(f"    {line}" for line in body), "}"])
