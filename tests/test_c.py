"""C files compute what their networks compute, on this machine and on a Cortex-M3, in floats and in 8-bit integers."""

import re

import boards
import numpy as np
import pytest
from harness import MNIST
from hypothesis import given
from hypothesis import strategies as st

import fastprune as fp
from fastprune.export import to_c

pytestmark = pytest.mark.skipif(not boards.has("gcc"), reason="gcc is not installed")
needs_m3 = pytest.mark.skipif(
    not boards.has("arm-none-eabi-gcc", "qemu-system-arm"), reason="the tools of a Cortex-M3 are not installed"
)


def network(
    sizes=(20, 30, 12, 5), *, density=0.3, values=16, biases=300, loss="softmax_cross_entropy", seed=0, **settings
):
    """A network of few distinct weights and biases, in which some units have no weights."""
    made = fp.MLP([*sizes], density=density, loss=loss, seed=seed, **settings)
    rng = np.random.default_rng(seed)
    weights = [rng.choice(rng.normal(size=values), w.shape) * np.sqrt(2 / w.shape[1] / density) for w in made.weights]
    made.set_weights(weights, [rng.choice(rng.normal(size=biases), b.shape) * 0.1 for b in made.biases])
    return made


def samples(count, features, seed=1):
    """A third of the features is 0."""
    rng = np.random.default_rng(seed)
    return (rng.random((count, features)) * (rng.random((count, features)) < 0.67)).astype(np.float32)


def compiled(folder, made, **settings):
    to_c(made, folder / "net.c", logits=True, **settings)
    return boards.Library(folder / "net.c", options=("-O1", *boards.STRICT))


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
        sums = level @ matrix.T + biases_of(source, index, fan_out)
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


def bits_of(numbers, bits):
    return ((numbers[:, np.newaxis] >> np.arange(0, 8, bits)) & 2**bits - 1).reshape(-1)


def by_line(codes, bits, counts):
    """The codes of all lines, without what fills up the last byte of each."""
    lines = np.split(codes, np.cumsum(-(-counts * bits // 8))[:-1])
    return np.concatenate([bits_of(line, bits)[:count] for line, count in zip(lines, counts, strict=True)])


def biases_of(source, index, fan_out):
    biases, codes = numbers(source, f"biases_{index}"), numbers(source, f"bias_codes_{index}")
    packed = re.search(rf"bias_codes_{index}\[\w+ / (\d)\]", source)
    if packed:
        codes = bits_of(codes, 8 // int(packed.group(1)))[:fan_out]
    return biases if codes is None else biases[codes]


def unpacked(source, index, fan_in, fan_out):
    """The matrix of a layer, read from the arrays of the C file."""
    lines, groups, counts, values = (numbers(source, f"{n}_{index}") for n in ("lines", "groups", "counts", "values"))
    blocks = numbers(source, f"blocks_{index}")
    lines = lines + 256 * np.repeat(np.zeros(groups.size, int) if blocks is None else blocks, groups)
    steps, codes = numbers(source, f"steps_{index}"), numbers(source, f"codes_{index}")
    function = re.search(rf"static void layer_{index}\(.*?\n\}}", source, re.DOTALL).group()
    joint = re.search(r"both >> (\d)", function)
    if joint:
        steps, codes = steps >> int(joint.group(1)), steps & 2 ** int(joint.group(1)) - 1
    elif codes is not None and (packed := re.search(r"left >>= (\d);", function)):
        codes = by_line(codes, int(packed.group(1)), np.repeat(counts, groups))
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
@pytest.mark.parametrize(("density", "values"), [(0.1, 16), (1.0, 1000)])
def test_floats_give_what_the_network_gives(tmp_path, activation, density, values):
    made = network((40, 60, 33, 7), density=density, values=values, activation=activation)
    library, x = compiled(tmp_path, made, probabilities=True), samples(50, 40)
    np.testing.assert_allclose(library("logits", x), made.logits(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(library("probabilities", x), made.predict_proba(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(library("predict", x), made.predict(x))


def flat(sizes):
    return [sizes[0], *sizes[1]]


@given(
    sizes=st.tuples(st.integers(1, 600), st.lists(st.integers(1, 50), min_size=1, max_size=4)).map(flat),
    density=st.floats(0.002, 1),
    values=st.sampled_from([1, 2, 3, 8, 16, 17, 256, 300]),
    biases=st.sampled_from([1, 4, 5, 16, 300]),
    activation=st.sampled_from(["relu", "leaky_relu"]),
    dtype=st.sampled_from(["float32", "float64"]),
    arithmetic=st.sampled_from(["float", "int8"]),
    as_bytes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_network(tmp_path_factory, sizes, density, values, biases, activation, dtype, arithmetic, as_bytes, seed):
    """The float network up to rounding, and the twin bit for bit."""
    about = {"density": density, "values": values, "biases": biases, "activation": activation, "dtype": dtype}
    made = network(sizes, seed=seed, **about)
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
    library = compiled(folder, made, **settings)
    logits = library("logits", given_x)
    if arithmetic == "float":
        np.testing.assert_allclose(logits, made.logits(x), rtol=2e-5, atol=2e-5)
    else:
        np.testing.assert_array_equal(logits, twin((folder / "net.c").read_text(), made, given_x))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("settings", [{}, {"byte_scale": 1 / 255}, {"arithmetic": "int8"}], ids=str)
def test_sanitizers_find_nothing(tmp_path, activation, settings):
    """Also with the largest and smallest inputs there are, and NaN in integers: they count as the next limit."""
    made, x = network((300, 270, 20, 3), density=0.2, activation=activation), samples(30, 300) - np.float32(0.2)
    if "arithmetic" in settings:
        settings = settings | {"calibration": x.copy()}
        most = np.finfo(np.float32).max
        x[0], x[1], x[2, ::2], x[2, 1::2] = most, -most, most, -most
        x[3], x[4] = np.inf, -np.inf
    if "byte_scale" in settings:
        x = np.clip(x * 255, 0, 255).astype(np.uint8)
    library = compiled(tmp_path, made, **settings)
    logits = library.sanitized(x)
    np.testing.assert_array_equal(logits, library("logits", x))
    if "arithmetic" in settings:
        source = (tmp_path / "net.c").read_text()
        np.testing.assert_array_equal(logits, twin(source, made, x))
        nan = np.full((1, 300), np.nan, np.float32)
        np.testing.assert_array_equal(library.sanitized(nan), library("logits", np.full((1, 300), -most)))


@pytest.mark.parametrize("bias", [0.0, 50.0, -2000.0])
def test_sums_come_close_to_what_32_bits_hold_and_not_beyond(tmp_path, bias):
    """600 of the largest weights times the largest inputs, with all signs alike, and a bias."""
    weights = np.repeat([[1.0], [-1.0]], 600, axis=1)
    made = fp.MLP.from_weights([weights], [[bias, -bias]], loss="softmax_cross_entropy")
    library = compiled(tmp_path, made, arithmetic="int8", calibration=np.ones((1, 600)))
    x = np.vstack([np.ones((1, 600)), np.zeros((1, 600))]).astype(np.float32)
    logits = library.sanitized(x)
    np.testing.assert_array_equal(logits, twin((tmp_path / "net.c").read_text(), made, x))
    assert 2**30 < abs(logits).max() < 2**31
    assert (library("predict", x) == made.predict(x)).all()


def test_integers_predict_what_floats_do(tmp_path):
    """Few of 2,000 samples are so close to a border that 8 bits change their class."""
    data = fp.load_dataset("digits")
    trainer = fp.Trainer(fp.MLP([64, 100, 50, 10]), learning_rate=0.1)
    trainer.fit(data.x_train, data.y_train, 20)
    fp.Pruner(trainer, schedule=fp.schedules.PolynomialDecay(0.0, 0.9, rounds=4)).run(data.x_train, data.y_train, 5)
    made, x = trainer.network, np.vstack([data.x_train, data.x_test])
    for settings in ({}, {"byte_scale": 1 / 16}):
        library = compiled(tmp_path, made, arithmetic="int8", calibration=data.x_train, **settings)
        given_x = np.rint(x * 16).astype(np.uint8) if settings else x
        assert (library("predict", given_x) == made.predict(x)).mean() >= 0.995
        unit = float(re.search(r"NET_UNIT (.*)f", (tmp_path / "net.h").read_text()).group(1))
        error = abs(library("logits", given_x) * unit - made.logits(x))
        assert error.max() < 0.05 * abs(made.logits(x)).max()


@pytest.mark.parametrize(
    ("loss", "outputs"), [("sigmoid_cross_entropy", 1), ("sigmoid_cross_entropy", 3), ("mean_squared_error", 2)]
)
@pytest.mark.parametrize("arithmetic", ["float", "int8"])
def test_what_outputs_mean(tmp_path, loss, outputs, arithmetic):
    made, x = network((9, 8, outputs), density=0.9, loss=loss), samples(40, 9)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if arithmetic == "float" else {"atol": 0.05}
    settings = {"arithmetic": arithmetic, "calibration": x if arithmetic == "int8" else None}
    classifies = loss != "mean_squared_error"
    to_c(made, tmp_path / "net.c", probabilities=classifies, **settings)
    library = boards.Library(tmp_path / "net.c")
    assert library.has == {"predict": outputs == 1, "logits": outputs > 1, "probabilities": classifies}
    if classifies:
        np.testing.assert_allclose(library("probabilities", x), made.predict_proba(x), **tolerance)
    if outputs == 1 and arithmetic == "float":
        np.testing.assert_array_equal(library("predict", x), made.predict(x))
    if outputs > 1 and arithmetic == "float":
        np.testing.assert_allclose(library("logits", x), made.logits(x), **tolerance)


def test_a_weight_takes_few_bytes(tmp_path):
    """A byte for its step; for its value a bit of that byte, half a byte, a byte, or a float."""
    found = {}
    for values in (2, 16, 200, 5000):
        made = network((500, 200, 4), density=0.05, values=values).freeze()
        to_c(made, tmp_path / "net.c")
        sizes = dict(re.findall(r" (\w+)_0\[(\d+)\]", (tmp_path / "net.c").read_text()))
        each = int(sizes["steps"]) + int(sizes.get("codes", 0)) + (4 * int(sizes["values"]) if values == 5000 else 0)
        found[values] = each / made.layer_live_weights[0]
    assert found == {2: pytest.approx(1, abs=0.1), 16: pytest.approx(1.5, abs=0.1), 200: 2, 5000: 5}


def test_the_same_network_gives_the_same_bytes(tmp_path):
    made = network()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        to_c(
            made if name == "one" else made.freeze(),
            tmp_path / name / "net.c",
            arithmetic="int8",
            calibration=[[1] * 20],
        )
    for suffix in (".c", ".h"):
        assert (tmp_path / "one" / f"net{suffix}").read_bytes() == (tmp_path / "two" / f"net{suffix}").read_bytes()


@pytest.mark.parametrize("arithmetic", ["float", "int8"])
def test_the_head_says_what_it_costs(tmp_path, arithmetic):
    made = network((300, 40, 5))
    to_c(made, tmp_path / "net.c", arithmetic=arithmetic, calibration=[[1.0] * 300] if arithmetic == "int8" else None)
    library = boards.Library(tmp_path / "net.c")
    constants = sum(
        int(size) * {"8": 1, "16": 2}.get(bits, 4)
        for bits, size in re.findall(r"static const (?:u?int|float)(\d*)\S* \w+\[(\d+)\]", library.file.read_text())
    )
    head = (tmp_path / "net.h").read_text()
    assert f"Flash:         {constants} bytes of constants" in head
    assert f"{made.freeze().live_weights}; a dense network of these sizes has {made.freeze().total_weights}" in head
    assert "RAM:           about " in head


def test_biases_of_few_values_are_codes(tmp_path):
    sizes = []
    for biases in (4, 3000):
        to_c(network((20, 200, 5), biases=biases), tmp_path / "net.c")
        assert ("bias_codes_0" in (tmp_path / "net.c").read_text()) == (biases == 4)
        head = (tmp_path / "net.h").read_text()
        sizes.append(int(re.search(r"Flash: +(\d+) bytes", head).group(1)))
    assert sizes[1] - sizes[0] > 600  # 200 biases of 4 bytes; 200 codes of 2 bits, and 4 values


@needs_m3
def test_the_ram_of_the_head_is_that_of_the_compiler(tmp_path):
    to_c(network((300, 40, 30, 20, 5)), tmp_path / "net.c")
    said = int(re.search(r"about (\d+) bytes on the stack", (tmp_path / "net.h").read_text()).group(1))
    assert said <= boards.ram_of(tmp_path / "net.c") <= said + 160  # registers


def test_a_sketch_compiles_and_is_left_alone(tmp_path):
    made, folder = network(), tmp_path / "net"
    to_c(made, folder / "net.c", arduino=True)
    assert sorted(path.name for path in folder.iterdir()) == ["net.c", "net.h", "net.ino"]
    (tmp_path / "Arduino.h").write_text(
        "struct Out { void begin(long); template <class T> void println(T); };\nextern Out Serial;\nvoid delay(int);\n"
    )
    options = ["-x", "c++", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-include", tmp_path / "Arduino.h"]
    if boards.has("g++"):
        boards.run("g++", *options, folder / "net.ino")
    (folder / "net.ino").write_text("void setup() {}")
    to_c(made, folder / "net.c", arduino=True)
    assert (folder / "net.ino").read_text() == "void setup() {}"


@pytest.mark.skipif(not boards.has("riscv64-unknown-elf-gcc"), reason="the tools of RISC-V are not installed")
@pytest.mark.parametrize(
    "settings", [{}, {"arithmetic": "int8", "calibration": np.ones((1, 20))}], ids=["float", "int8"]
)
def test_it_compiles_for_risc_v(tmp_path, settings):
    to_c(network(activation="relu" if settings else "tanh"), tmp_path / "net.c", probabilities=True, **settings)
    target = ["-march=rv32imac", "-mabi=ilp32", "--specs=picolibc.specs"]
    boards.run(
        "riscv64-unknown-elf-gcc", *boards.STRICT, *target, "-Os", "-c", tmp_path / "net.c", "-o", tmp_path / "o"
    )


@needs_m3
@pytest.mark.parametrize("arithmetic", ["float", "int8"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_cortex_m3_predicts_the_same(tmp_path, arithmetic, as_bytes):
    data = fp.load_dataset("digits")
    made = network((64, 50, 30, 10))
    x = (np.rint(data.x_test * 16).astype(np.uint8) if as_bytes else data.x_test)[:300]
    settings = {"byte_scale": 1 / 16} if as_bytes else {}
    settings |= {"arithmetic": "int8", "calibration": data.x_train} if arithmetic == "int8" else {}
    library = compiled(tmp_path, made, **settings)
    classes, instructions = boards.on_cortex_m3(library.file, x)
    np.testing.assert_array_equal(classes, library("predict", x))
    assert 1000 < instructions < 300_000


@needs_m3
@pytest.mark.long
@pytest.mark.parametrize("arithmetic", ["float", "int8"])
def test_a_cortex_m3_reads_ten_thousand_digits(tmp_path, arithmetic):
    data = fp.load_dataset("mnist", data_dir=MNIST)
    trainer = fp.Trainer(fp.MLP([784, 300, 100, 10]), learning_rate_schedule="cosine", restore_best=False)
    trainer.fit(data.x_train, data.y_train, 1)
    pruner = fp.Pruner(trainer, schedule=fp.schedules.PolynomialDecay(0.0, 0.9875, rounds=6), layer_rates="lamp")
    pruner.run(data.x_train, data.y_train, 1, restarts=False)
    made = trainer.network
    fp.share_weights(made, [2, 3, 4], bias_bits=4)
    settings = {"arithmetic": "int8", "calibration": data.x_train[:1000]} if arithmetic == "int8" else {}
    to_c(made, tmp_path / "net.c", byte_scale=1 / 255, **settings)
    pixels = np.rint(data.x_test * 255).astype(np.uint8)
    classes, instructions = boards.on_cortex_m3(tmp_path / "net.c", pixels)
    assert len(classes) == 10_000
    agree = (classes == made.predict(data.x_test)).mean()
    assert agree == 1 if arithmetic == "float" else agree >= 0.995
    assert instructions < 300_000
    assert boards.flash_of(tmp_path / "net.c") <= 9 * 1024
    assert boards.ram_of(tmp_path / "net.c") <= 2 * 1024


@pytest.mark.parametrize("name", ["1st", "a-b", "", "_net", "é", None, 3])
def test_names_are_identifiers(tmp_path, name):
    if name is None:
        with pytest.raises(
            ValueError, match=r"path: expected an identifier of C .*, got 'my-net'; name= gives another"
        ):
            to_c(network(), tmp_path / "my-net.c")
        return
    with pytest.raises(ValueError, match=r"name: expected an identifier of C that begins with a letter"):
        to_c(network(), tmp_path / "net.c", name=name)


def test_a_keyword_of_c_may_begin_names(tmp_path):
    to_c(network(), tmp_path / "int.c")
    assert boards.Library(tmp_path / "int.c")("predict", samples(3, 20)).size == 3


def test_products_of_bytes_have_32_bits_where_int_has_16(tmp_path):
    """As on AVR: 255 times a value of a table would not fit."""
    made = fp.MLP([64, 2], density=0.5, loss="softmax_cross_entropy", seed=1)
    fp.share_weights(made, 2)
    x = samples(50, 64)
    to_c(made, tmp_path / "net.c", arithmetic="int8", calibration=x, byte_scale=1 / 255)
    source = (tmp_path / "net.c").read_text()
    assert "sum += (int32_t)*input * values_0" in source
    assert "used[" not in source  # by output


BAD = [
    ({"network": [1]}, "network: expected an MLP or a FrozenMLP, got list"),
    ({"network": network(loss=None)}, "the loss of this network is not known yet"),
    ({"network": network(activation="tanh"), "arithmetic": "int8", "calibration": np.ones((1, 20))}, "got 'tanh'"),
    ({"path": "net.h"}, r"path: expected the name of a file that ends in '\.c', got 'net\.h'"),
    (
        {"path": "net.c", "arduino": True},
        r"path: expected a file in a folder of its name for Arduino, such as 'net/net\.c'",
    ),
    ({"arithmetic": "int4"}, "arithmetic: expected one of 'float', 'int8', got 'int4'"),
    ({"arithmetic": "int8"}, "calibration: expected samples if arithmetic is 'int8', and only then, got none"),
    ({"calibration": np.ones((1, 20))}, "got samples with arithmetic 'float'"),
    (
        {"arithmetic": "int8", "calibration": np.ones((1, 19))},
        r"calibration: expected finite numbers of shape \(N, 20\)",
    ),
    ({"byte_scale": 0}, r"byte_scale: expected a number in \[1e-9, 1e9\], got 0"),
    ({"byte_scale": 1e39}, r"byte_scale: expected a number in \[1e-9, 1e9\], got 1e\+39"),
    ({"path": 'a"b.c'}, r"path: expected the name of a file that ends in '\.c', got 'a\"b\.c'"),
    (
        {"arithmetic": "int8", "calibration": np.full((1, 20), 2), "byte_scale": 1 / 255},
        r"calibration: expected features from 0 to 255 \* byte_scale, which is 1, got 2 to 2",
    ),
    (
        {"arithmetic": "int8", "calibration": -np.ones((1, 20)), "byte_scale": 1 / 255},
        r"calibration: expected features from 0 to 255 \* byte_scale, which is 1, got -1 to -1",
    ),
    ({"arithmetic": "int8", "calibration": np.zeros((1, 20))}, "calibration: expected samples that are not all 0"),
    ({"arithmetic": "int8", "calibration": np.full((1, 20), 1e-37)}, "got largest values of 1e-37"),
    ({"arithmetic": "int8", "calibration": np.full((1, 20), 3e38)}, r"got largest values of 3e\+38"),
    ({"logits": 1}, "logits: expected True or False, got 1"),
    ({"probabilities": 1}, "probabilities: expected True or False, got 1"),
    (
        {"network": network(loss="mean_squared_error"), "probabilities": True},
        "probabilities: expected False for a network",
    ),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_refused(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        to_c(**{"network": network(), "path": "net.c"} | settings)
    assert not [*tmp_path.iterdir()]


def test_networks_that_do_not_fit_are_refused(tmp_path):
    large = fp.MLP.from_weights([[[1e39]]], loss="mean_squared_error", dtype="float64")
    with pytest.raises(ValueError, match="network: expected finite weights and biases that float32 can hold"):
        to_c(large, tmp_path / "net.c")
    scaled = fp.MLP.from_weights([[[1e37, 1]]], loss="mean_squared_error")
    with pytest.raises(
        ValueError, match=r"network: expected weights that float32 can hold, also times byte_scale, got 9\.99"
    ):
        to_c(scaled, tmp_path / "net.c", byte_scale=1e3)
    for weight in (1e38, 1e-36):
        extreme = fp.MLP.from_weights([[[weight]]], loss="mean_squared_error")
        with pytest.raises(
            ValueError, match="network: expected weights whose outputs are floats, got outputs in units"
        ):
            to_c(extreme, tmp_path / "net.c", arithmetic="int8", calibration=[[1e5 if weight > 1 else 1]])
    assert not [*tmp_path.iterdir()]
    biased = fp.MLP.from_weights([[[1e-6, 2e-6]]], [[1e6]], loss="mean_squared_error")
    with pytest.raises(ValueError, match=r"network: 32-bit sums leave the weights of layer 0 only 0 steps"):
        to_c(biased, tmp_path / "net.c", arithmetic="int8", calibration=[[1, 1]])
    empty = fp.MLP.from_weights([[[1.0, 2.0]]], masks=[[[0, 0]]], loss="mean_squared_error")
    with pytest.raises(ValueError, match="network: expected live weights in every layer"):
        to_c(empty, tmp_path / "net.c")
