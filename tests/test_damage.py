"""Damaged files, drawn at random: each is refused in one ValueError that names it, or what it holds can be used."""

import io
import json
import zipfile

import numpy as np
import pytest

import fastprune as fp
from fastprune.files import read_npz

COUNTS = pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.long)])  # of each kind

NUMBERS = [0, 1, -1, 2, 3, 2**31, 2**40, 2**60, 2**63, 2**64, 10**400, 0.5, float("nan"), True]
TEXTS = ["", "relu", "float64", "O", "f4,f4", "x" * 2000, "\x00", "{", "[1]", '"a"', "null", "1e999", "[" * 100_000]
DTYPES = ["<f4", ">f4", "<f8", "<f2", "<i8", "<u8", "|u1", "|b1", "<c8", "<U3", "|S3", "|V4", "|O", "<f16", "<M8[s]"]
KEPT = DTYPES[:10]  # those that numbers can be turned into
SHAPES = [
    "()",
    "(0,)",
    "(-1,)",
    "(-4, -4)",
    "(2, 2)",
    f"({2**60},)",
    f"({2**62}, 4)",
    f"({10**30},)",
    "(1,) * 9",
    "(1.5,)",
]
HEADERS = [
    "",
    "{}",
    "[]",
    "None",
    "(" * 5000,
    "-" * 9000 + "1",
    "1L",
    r"'\d'",
    "\x00",
    "{" * 200,
    "9" * 5000,
    "{'descr': '<f4'",
]


def written(arrays):
    """An archive of these arrays; of bytes, as they are."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content if isinstance(content, bytes) else npy(content))
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def mutants(arrays, count, seed=0):
    """So many damaged archives of these arrays."""
    rng = np.random.default_rng(seed)
    whole = written(arrays)
    ways = [flipped, cut, flipped_inside, header, array, array, members]
    if "settings" in arrays:
        ways += [settings] * 3
    for _ in range(count):
        way = one(rng, ways)
        yield way(rng, bytearray(whole)) if way in (flipped, cut) else written(way(rng, arrays))


def one(rng, choices):
    return choices[rng.integers(len(choices))]


def flipped(rng, content):
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(content)


def cut(rng, content):
    start, stop = sorted(rng.integers(len(content), size=2))
    return bytes(content[:start] + content[stop:] if rng.random() < 0.5 else content[:start])


def flipped_inside(rng, arrays):
    """Other bytes in an array's header or data, of which the archive knows nothing."""
    name = one(rng, list(arrays))
    content = bytearray(npy(arrays[name]))
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(128 if rng.random() < 0.7 else len(content))] = rng.integers(256)
    return arrays | {name: bytes(content)}


def header(rng, arrays):
    """A header that is nonsense, or claims another dtype or shape."""
    name = one(rng, list(arrays))
    dtype = one(rng, DTYPES) if rng.random() < 0.5 else arrays[name].dtype.str
    shape = one(rng, SHAPES) if rng.random() < 0.7 else arrays[name].shape
    text = f"{{'descr': {dtype!r}, 'fortran_order': {rng.random() < 0.3}, 'shape': {shape}}}"
    line = (one(rng, HEADERS) if rng.random() < 0.3 else text).encode() + b"\n"
    number, width = one(rng, [(1, 2), (1, 2), (2, 4), (3, 4), (9, 2)])
    start = b"\x93NUMPY" + bytes([number, 0]) + len(line).to_bytes(width, "little")
    return arrays | {name: start + line + npy(arrays[name])[128:]}


def array(rng, arrays):
    """Other numbers, another dtype or another shape."""
    name = one(rng, list(arrays))
    flat = arrays[name].reshape(-1)
    changes = [
        lambda: flat[: rng.integers(flat.size + 1)],
        lambda: flat.reshape(1, -1),
        lambda: flat[::-1],
        lambda: np.repeat(flat, 2),
        lambda: np.array(one(rng, NUMBERS)),
        lambda: np.array(one(rng, TEXTS)),
        lambda: np.zeros((0, 3)),
        lambda: np.zeros(2, "u1,f4"),
    ]
    if flat.dtype.kind != "U":
        changes += [lambda: flat.astype(one(rng, KEPT)), lambda: np.full_like(arrays[name], one(rng, [0, 1, 100]))]
        changes.append(lambda: np.full(arrays[name].shape, one(rng, [np.nan, np.inf, 1e300])))
    return arrays | {name: one(rng, changes)()}


def members(rng, arrays):
    """Something missing, under another's name, or no array."""
    name, other = (one(rng, list(arrays)) for _ in range(2))
    changes = [{name: b"no array"}, {name: b""}, {name: arrays[other], other: arrays[name]}, {"../../x": arrays[name]}]
    changes.append({f"gaps_{rng.integers(3)}": arrays[name]})
    missing = {key: content for key, content in arrays.items() if key != name}
    return one(rng, [missing, *(arrays | change for change in changes)])


def settings(rng, arrays):
    """Settings of the wrong kind, or of no measure."""
    if rng.random() < 0.2:
        return arrays | {"settings": np.array(one(rng, TEXTS))}
    given = json.loads(str(arrays["settings"]))
    key = one(rng, [*given, "colour"])
    value = one(rng, [*NUMBERS, *TEXTS[:7], None, [], [[]], {}, {"a": 1}])
    if key == "sizes" and rng.random() < 0.8:
        value = list(given["sizes"])
        value[rng.integers(len(value))] = one(rng, NUMBERS)
        value += [3] * (rng.random() < 0.2)
    return arrays | {"settings": np.array(json.dumps(given | {key: value}))}


def saved(path, sparsity, sizes, **settings):
    network = fp.MLP(sizes, seed=1, **settings)
    fp.Pruner(fp.Trainer(network), schedule=[0.0]).step(sparsity=sparsity)
    network.save(path)
    return read_npz(path)


@pytest.mark.parametrize(
    "network",
    [
        {"sparsity": 0.6, "sizes": [5, 8, 3]},
        {"sparsity": 0.0, "sizes": [5, 40, 3], "dtype": "float64", "loss": "softmax_cross_entropy"},
    ],
)
@COUNTS
def test_networks(tmp_path, network, count):
    path = tmp_path / "net.npz"
    refused = 0
    for content in mutants(saved(path, **network), count):
        path.write_bytes(content)
        try:
            loaded = fp.load(path)
        except ValueError as error:
            assert str(error).startswith(f"path: expected a network saved by fastprune, got {str(path)!r} (")  # noqa: PT017
            refused += 1
            continue
        assert all(np.isfinite(weights).all() for weights in loaded.weights + loaded.biases)
        assert loaded.logits(np.zeros((2, loaded.sizes[0]))).shape == (2, loaded.sizes[-1])
        loaded.save(path)
        np.testing.assert_array_equal(fp.load(path).state.values, loaded.state.values)
    assert 0.7 * count < refused < count


TABLE = {"x": np.random.default_rng(0).random((20, 3)), "y": np.arange(20) % 3}


@pytest.mark.parametrize(
    "arrays", [TABLE, {f"{name}_{part}": array for part in ("train", "test") for name, array in TABLE.items()}]
)
@COUNTS
def test_data(tmp_path, arrays, count):
    path = tmp_path / "data.npz"
    refused = 0
    for content in mutants(arrays, count):
        path.write_bytes(content)
        try:
            data = fp.load_dataset(path)
        except ValueError as error:
            assert str(error).startswith(f"name: expected a data set, got {str(path)!r}: ")  # noqa: PT017
            refused += 1
            continue
        for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
            assert x.dtype == np.float32
            assert x.shape == (len(y), data.features)
            assert np.isfinite(x).all()
            assert np.isfinite(y).all()
        assert data.outputs >= 1
    assert 0.7 * count < refused < count


def test_what_a_header_claims_is_compared_with_what_is_there_before_memory_is_taken(tmp_path):
    path = tmp_path / "data.npz"
    line = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**62},)}}\n".encode()
    bomb = b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + bytes(100)
    path.write_bytes(written(TABLE | {"x": bomb}))
    with pytest.raises(
        ValueError, match=r"x\.npy: its header says uint8 \(4611686018427387904,\), but 100 bytes are stored"
    ):
        fp.load_dataset(path)


def test_what_is_beside_the_arrays_does_no_harm(tmp_path):
    """In the order of Fortran, or of another version, with a text beside: an archive like others."""
    path = tmp_path / "data.npz"
    for version in ((2, 0), (3, 0)):
        file = io.BytesIO()
        np.lib.format.write_array(file, TABLE["y"], version=version)
        path.write_bytes(written({"x": np.asfortranarray(TABLE["x"]), "y": file.getvalue()}))
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("README", "mine")
        np.testing.assert_array_equal(read_npz(path)["x"], TABLE["x"])
        assert len(fp.load_dataset(path).x_test) == 4
