"""C files compute what their networks compute, on this machine and on a Cortex-M3, in floats and in 8-bit integers."""

import re
import sys

import boards
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastprune as fp
from fastprune.export import to_c
from fastprune.export.packed import pack
from fastprune.frozen import Part

pytestmark = pytest.mark.skipif(not boards.has("gcc"), reason="gcc is not installed")
needs_m3 = pytest.mark.skipif(
    not boards.has("arm-none-eabi-gcc", "qemu-system-arm"), reason="the tools of a Cortex-M3 are not installed"
)
LOSSES = {"predict": "softmax_cross_entropy"}
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-static-libasan")


def network(sizes=(20, 30, 12, 5), *, density=0.3, values=16, loss="softmax_cross_entropy", seed=0, **settings):
    """A network of few distinct weights, with biases, in which some units have no weights."""
    made = fp.MLP([*sizes], density=density, loss=loss, seed=seed, **settings)
    rng = np.random.default_rng(seed)
    weights = [rng.choice(rng.normal(size=values), w.shape) * np.sqrt(2 / w.shape[1] / density) for w in made.weights]
    made.set_weights(weights, [rng.normal(size=b.shape) * 0.1 for b in made.biases])
    return made


def samples(count, features, seed=1):
    """A third of the features is 0."""
    rng = np.random.default_rng(seed)
    return (rng.random((count, features)) * (rng.random((count, features)) < 0.67)).astype(np.float32)


def compiled(folder, made, *, options=("-O2",), **settings):
    to_c(made, folder / "net.c", logits=True, **settings)
    return boards.Library(folder / "net.c", options=options)


# A twin in NumPy of the integer arithmetic: dense, and all samples at once.


def rounded(x):
    """To the nearest integer, halves away from 0, in float32 as C does it."""
    half = np.float32(0.5)
    return np.trunc(np.where(x < 0, x - half, x + half)).astype(np.int64)


def twin(source, made, x):
    """Logits of samples from what is written in a C file: weights as a matrix, then sums, shifts and limits."""
    frozen = made if isinstance(made, fp.FrozenMLP) else made.freeze()
    slope = frozen.activation == "leaky_relu"
    if x.dtype == np.uint8:
        level = x.astype(np.int64)
    else:
        factor, most = re.search(r"scaled = x \* (.*)f;\s+if \(scaled >= (\d+)\)", source).groups()
        least = -int(most) if "scaled - 0.5f" in source else 0
        with np.errstate(over="ignore"):
            scaled = x * np.float32(factor)
        level = rounded(np.clip(scaled, least, int(most)))
    for index, (fan_in, fan_out) in enumerate(zip(frozen.sizes[:-1], frozen.sizes[1:], strict=True)):
        matrix = unpacked(source, index, fan_in, fan_out)
        live = frozen.layer(index).mask
        assert not matrix[~live].any()
        sums = level @ matrix.T + numbers(source, f"biases_{index}")
        assert abs(level) @ abs(matrix).T.max(initial=0) is not None
        assert (abs(sums) < 2**31).all()
        shift = re.search(rf"void layer_{index}\(.*?activated\(.*?, (\d+)\)", source.replace("\n", " "))
        if index == frozen.n_layers - 1:
            return sums
        shift = int(shift.group(1))
        half = 2**shift // 2
        if slope:
            sizes = np.minimum((np.where(sums < 0, -sums // 100, sums) + half) >> shift, 127)
            level = np.where(sums < 0, -sizes, sizes)
        else:
            level = np.minimum(np.maximum(sums, 0) + half * (sums > 0) >> shift, 255)
    raise AssertionError


def numbers(source, name):
    found = re.search(rf" {name}\[\d+\] = \{{(.*?)\}}", source, re.DOTALL)
    return None if found is None else np.array([int(one) for one in found.group(1).split(",")])


def unpacked(source, index, fan_in, fan_out):
    """The matrix of a layer, read from the arrays of the C file."""
    lines, groups, counts, values = (numbers(source, f"{n}_{index}") for n in ("lines", "groups", "counts", "values"))
    blocks = numbers(source, f"blocks_{index}")
    lines = lines + 256 * np.repeat(np.zeros(groups.size, int) if blocks is None else blocks, groups)
    steps, codes = numbers(source, f"steps_{index}"), numbers(source, f"codes_{index}")
    function = re.search(rf"static void layer_{index}\(.*?\n\}}", source, re.DOTALL).group()
    joint = re.search(rf"\(unsigned\)steps_{index}\[k\] >> (\d)", function)
    if joint:
        steps, codes = steps >> int(joint.group(1)), steps & 2 ** int(joint.group(1)) - 1
    elif codes is not None and (packed := re.search(rf"codes_{index}\[k / (\d)\]", function)):
        bits = 8 // int(packed.group(1))
        codes = ((codes[:, np.newaxis] >> np.arange(0, 8, bits)) & 2**bits - 1).reshape(-1)[: steps.size]
    weights = values if codes is None else values[codes]
    by_input = "used[" in function
    matrix, k = np.zeros((fan_in, fan_out) if by_input else (fan_out, fan_in), np.int64), 0
    for line, count in zip(lines, np.repeat(counts, groups), strict=True):
        ends = np.cumsum(steps[k : k + count])
        np.add.at(matrix[line], ends, weights[k : k + count])
        k += count
    assert k == steps.size
    return matrix.T if by_input else matrix


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("density", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("values", [2, 4, 16, 100, 1000])
def test_floats_give_what_the_network_gives(tmp_path, activation, density, values):
    made = network((40, 60, 33, 7), density=density, values=values, activation=activation)
    library, x = compiled(tmp_path, made, probabilities=True), samples(50, 40)
    np.testing.assert_allclose(library("logits", x), made.logits(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(library("probabilities", x), made.predict_proba(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(library("predict", x), made.predict(x))


@given(
    sizes=st.lists(st.integers(1, 300), min_size=2, max_size=5),
    density=st.floats(0.002, 1),
    values=st.sampled_from([1, 2, 3, 16, 17, 256, 300]),
    activation=st.sampled_from(["relu", "leaky_relu"]),
    dtype=st.sampled_from(["float32", "float64"]),
    arithmetic=st.sampled_from(["float", "int8"]),
    as_bytes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_network(tmp_path_factory, sizes, density, values, activation, dtype, arithmetic, as_bytes, seed):
    """The float network to rounding, and the twin bit for bit; nothing is read or written beside the arrays."""
    made = network(sizes, density=density, values=values, activation=activation, dtype=dtype, seed=seed)
    folder, x = tmp_path_factory.mktemp("c"), samples(20, sizes[0]) - (0 if as_bytes else 0.1)
    settings = {"byte_scale": 1 / 255} if as_bytes else {}
    given_x = np.rint(x * 255).astype(np.uint8) if as_bytes else x.astype(np.float32)
    if as_bytes:
        x = given_x * np.float32(1 / 255)
    if arithmetic == "int8":
        settings |= {"arithmetic": "int8", "calibration": x}
    if not made.freeze().live_weights:
        with pytest.raises(ValueError, match="network: expected live weights in every layer"):
            to_c(made, folder / "net.c", **settings)
        return
    library = compiled(folder, made, options=("-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"), **settings)
    logits = library("logits", given_x)
    if arithmetic == "float":
        np.testing.assert_allclose(logits, made.logits(x), rtol=2e-5, atol=2e-5)
    else:
        np.testing.assert_array_equal(logits, twin((folder / "net.c").read_text(), made, given_x))
