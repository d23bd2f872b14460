"""Data sets: what is loaded, from where, and what is refused."""

import functools
import gzip
import http.server
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastprune as fp
from fastprune import kernels
from fastprune.datasets import dataset, mnist

MNIST = Path(__file__).parents[1] / "bench" / "mnist"


def test_digits():
    data = fp.load_dataset("digits")
    assert (data.x_train.shape, data.x_test.shape) == ((1437, 64), (360, 64))
    assert (data.y_train.shape, data.y_test.shape) == ((1437,), (360,))
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int64)
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    classes = np.bincount(np.concatenate([data.y_train, data.y_test]))
    assert classes.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as its source says
    assert all(size // 5 <= n <= size // 5 + 1 for size, n in zip(classes, np.bincount(data.y_test), strict=True))
    assert data.y_test[:10].tolist() == [3, 5, 7, 3, 6, 7, 9, 9, 8, 3], "the split never changes"
    assert (data.features, data.outputs) == (64, 10)


@pytest.fixture(scope="module")
def mnist_data():
    return fp.load_dataset("mnist", data_dir=MNIST)


def test_mnist(mnist_data):
    data = mnist_data
    assert (data.x_train.shape, data.x_test.shape) == ((60000, 784), (10000, 784))
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int64)
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    assert data.y_train[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert data.y_test[:4].tolist() == [7, 2, 1, 0]
    assert round(float(data.x_train.mean()), 4) == 0.1307
    assert data.outputs == 10


def test_mnist_plain_files_and_the_environment(tmp_path, monkeypatch, mnist_data):
    for name in mnist.DIGESTS:
        (tmp_path / name).write_bytes(gzip.decompress((MNIST / f"{name}.gz").read_bytes()))
    monkeypatch.setenv("FASTPRUNE_DATA", str(tmp_path))
    np.testing.assert_array_equal(fp.load_dataset("mnist").x_test, mnist_data.x_test)


def test_mnist_refuses_what_is_not_mnist(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTPRUNE_DATA", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"FASTPRUNE_DATA: expected the MNIST files, got a folder .* without train-images"
    ):
        fp.load_dataset("mnist")
    for name in mnist.DIGESTS:
        (tmp_path / f"{name}.gz").write_bytes((MNIST / f"{name}.gz").read_bytes())
    fp.load_dataset("mnist")
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    labels = bytearray(gzip.decompress(content))
    labels[100] ^= 1
    for bad in (content[:1000], content + b"?", gzip.compress(bytes(labels)), b"", b"\x1f\x8b"):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"data_dir: expected MNIST's t10k-labels-idx1-ubyte"):
            fp.load_dataset("mnist", data_dir=tmp_path)


needs_fashion = pytest.mark.skipif(not mnist.DEBIAN.is_dir(), reason="the package dataset-fashion-mnist is missing")


@pytest.mark.long
@needs_fashion
def test_fashion_mnist(tmp_path, monkeypatch):
    """From Debian's folder, also beside MNIST; from a folder of its own, or from a subfolder of one with MNIST."""
    monkeypatch.delenv("FASTPRUNE_DATA", raising=False)
    data = fp.load_dataset("fashion_mnist")
    assert (data.x_train.shape, data.x_test.shape) == ((60000, 784), (10000, 784))
    assert (data.x_train.dtype, data.y_train.dtype, data.name) == (np.float32, np.int64, "fashion_mnist")
    assert np.bincount(data.y_train).tolist() == [6000] * 10
    assert round(float(data.x_train.mean()), 4) == 0.2860
    assert np.array_equal(fp.load_dataset("fashion_mnist", MNIST).x_test, data.x_test)
    monkeypatch.setattr(mnist, "DEBIAN", tmp_path / "nowhere")
    (tmp_path / "fashion_mnist").mkdir()
    for name in mnist.FASHION_DIGESTS:
        content = Path("/usr/share/datasets/fashion-mnist", f"{name}.gz").read_bytes()
        (tmp_path / "fashion_mnist" / f"{name}.gz").write_bytes(content)
        (tmp_path / f"{name}.gz").write_bytes((MNIST / f"{name}.gz").read_bytes())
    for folder in (tmp_path, tmp_path / "fashion_mnist"):
        assert np.array_equal(fp.load_dataset("fashion_mnist", folder).y_test, data.y_test)
    assert fp.load_dataset("mnist", tmp_path).y_test[:4].tolist() == [7, 2, 1, 0]


def test_fashion_mnist_refuses_mnist_and_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "DEBIAN", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"data_dir: expected the Fashion-MNIST files \(Debian's package dataset-fash"):
        fp.load_dataset("fashion_mnist", MNIST)
    monkeypatch.setenv("FASTPRUNE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"FASTPRUNE_DATA: expected the Fashion-MNIST files .*without train-images"):
        fp.load_dataset("fashion_mnist")


@pytest.fixture
def server():
    """A web server on this machine, its address, and the requests it has had."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=str(MNIST.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", requests
        web.shutdown()
        thread.join()


@pytest.mark.long
def test_mnist_download(tmp_path, monkeypatch, server, mnist_data, capfd):
    address, requests = server
    monkeypatch.delenv("FASTPRUNE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mnist, "MIRRORS", [f"{address}/nowhere/", f"{address}/mnist/"])
    data = fp.load_dataset("mnist")
    np.testing.assert_array_equal(data.x_train, mnist_data.x_train)
    np.testing.assert_array_equal(data.y_test, mnist_data.y_test)
    assert len(requests) == 8, "each file from the second mirror, the first having failed"
    assert "100%" in capfd.readouterr().err, "a progress bar"
    fp.load_dataset("mnist")
    assert len(requests) == 8, "the second time from the cache"
    cached = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert cached == sorted(f"{name}.gz" for name in mnist.DIGESTS)


def test_mnist_download_refuses_what_is_not_mnist(tmp_path, monkeypatch, server):
    address, _ = server
    monkeypatch.delenv("FASTPRUNE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mnist, "MIRRORS", [f"{address}/nowhere/", "http://127.0.0.1:9/"])
    with pytest.raises(
        ValueError,
        match=r"data_dir: MNIST could not be downloaded; .*404.*; http://127.0.0.1:9/",
    ):
        fp.load_dataset("mnist")
    monkeypatch.setattr(mnist, "MIRRORS", [f"{address}/mnist/"])
    monkeypatch.setitem(mnist.DIGESTS, "t10k-labels-idx1-ubyte", "0" * 64)
    with pytest.raises(ValueError, match=r"expected MNIST's t10k-labels-idx1-ubyte \(SHA-256 000000000000"):
        fp.load_dataset("mnist")
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert "t10k-labels-idx1-ubyte.gz" not in files
    assert not any(name.endswith(".part") for name in files)


def test_binary_images():
    data = fp.make_binary_images(seed=0)
    assert np.bincount(data.y_train).tolist() == [107, 74]
    assert np.bincount(data.y_test).tolist() == [37, 23]
    assert (data.x_train.shape, data.x_test.shape) == ((181, 10800), (60, 10800))
    assert data.x_train.dtype == np.float32
    assert 0 <= data.x_train.min() < data.x_train.max() <= 1
    assert data.outputs == 1
    np.testing.assert_array_equal(data.x_train, fp.make_binary_images(seed=0).x_train)
    np.testing.assert_array_equal(data.x_train, fp.load_dataset("binary_images").x_train)
    assert (fp.make_binary_images(seed=1).x_train != data.x_train).any()
    with pytest.raises(ValueError, match="seed: expected an integer of at least 0, got -1"):
        fp.make_binary_images(seed=-1)


def test_values_to_meet_that_are_whole_in_the_test_set_stay_values(tmp_path):
    x, y = np.ones((6, 2)), np.arange(6) / 2
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:2], y_test=np.array([1.0, 2.0]))
    assert fp.load_dataset(tmp_path / "own.npz").y_test.dtype == np.float32


@pytest.mark.parametrize("count", [0, 1, 2, 1797])
def test_the_split_draws_as_the_kernel_does(count):
    order = np.empty(count, np.int64)
    kernels.shuffle(order, np.uint64(0))
    assert dataset._shuffled(count).tolist() == order.tolist()


def test_npz_with_a_split_and_without(tmp_path):
    x, y = np.arange(120).reshape(10, 3, 4), np.arange(10) % 3
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2].astype("uint8"))
    data = fp.load_dataset(tmp_path / "own.npz")
    assert (data.name, data.x_train.shape, data.x_test.shape, data.outputs) == ("own", (10, 12), (2, 12), 3)
    assert (data.x_train.dtype, data.y_test.dtype) == (np.float32, np.int64)
    np.savez(tmp_path / "own.npz", x=x, y=y / 2)
    data = fp.load_dataset(str(tmp_path / "own.npz"))
    assert data.y_train.dtype == np.float32
    assert data.outputs == 1
    together = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    assert len(data.x_test) == 2
    assert sorted(map(tuple, np.column_stack(together))) == list(
        map(tuple, np.column_stack([x.reshape(10, 12), y / 2]))
    )


@pytest.mark.parametrize("header", ["", "width,height,class\n", "\ufeffwidth,height,class\n", "\ufeff"])
def test_csv(tmp_path, header):
    rows = "".join(f"{i}.5,{i * i},{i % 2}\n" for i in range(10))
    (tmp_path / "own.csv").write_text(header + rows, encoding="utf-8")
    data = fp.load_dataset(tmp_path / "own.csv")
    assert (data.x_train.shape, data.x_test.shape, data.outputs) == ((8, 2), (2, 2), 1)
    x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    assert sorted(x.tolist()) == [[i + 0.5, i * i] for i in range(10)]
    assert y.tolist() == [int(value) % 2 for value in x[:, 0]]
    assert y.dtype == np.int64
    (tmp_path / "own.csv").write_text(header + rows.replace(",1\n", ",1.25\n"), encoding="utf-8")
    assert fp.load_dataset(tmp_path / "own.csv").y_test.dtype == np.float32


def test_what_is_loaded_can_be_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(size=(50, 3)), rng.integers(0, 3, 50)])
    np.savetxt(tmp_path / "own.csv", table, delimiter=",")
    data = fp.load_dataset(tmp_path / "own.csv")
    network = fp.MLP([data.features, 5, data.outputs])
    fp.Trainer(network).fit(data.x_train, data.y_train, 2, validation=(data.x_test, data.y_test))


TRAIN = {"x_train": np.ones((6, 2)), "y_train": np.arange(6) % 2}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "cifar",
            None,
            "name: expected 'digits', 'mnist', 'fashion_mnist', .*, 'binary_images' or a path .*, got 'cifar'",
        ),
        ("missing.csv", None, "which is not a file"),
        ("bad.csv", "1,2,0\n3,4,b\n", "line 2: expected numbers, got 'b'"),
        ("bad.csv", "a,b,c\n1,2,0\n3,,0\n", "line 3: expected numbers, got ''"),
        ("bad.csv", "NA,2,0\n" + "1,2,0\n" * 6, "line 1: expected numbers, got 'NA'"),
        ("bad.csv", "1,2,0\n1,2\n" * 6, "line 2: expected 3 numbers, got 2"),
        ("bad.csv", "", "expected rows of numbers, got none"),
        ("bad.csv", "a,b\n", "expected rows of numbers, got none"),
        ("bad.csv", "1,2,0\n" * 4, "expected at least 5 samples"),
        ("bad.csv", "1\n" * 6, "at least one feature and a label"),
        ("bad.csv", "1,nan,0\n" * 6, "x: expected finite numbers"),
        ("bad.csv", "1,2,-1\n" * 6, "y: expected classes from 0, fewer than samples .* got -1 to -1"),
        ("bad.csv", "1,2,1\n" * 6, "y: expected classes from 0"),
        ("bad.csv", "1,2,0\n1,2,9000000000000\n" * 6, "y: expected classes from 0, fewer than samples .* got 0 to 9e"),
        ("bad.npz", {"x": np.ones((9, 2))}, "expected arrays x_train, y_train, x_test, y_test, or x and y, got x"),
        ("bad.npz", {"x": np.ones((9, 2)), "y": np.ones(8)}, r"got shapes \(9, 2\) and \(8,\)"),
        ("bad.npz", {"x": np.ones((9, 2)), "y": np.full(9, np.inf)}, "y: expected finite numbers"),
        ("bad.npz", {"x": np.ones((9, 2)), "y": np.full(9, "a")}, "y: expected numbers, got dtype <U1"),
        ("bad.npz", {**TRAIN, "x_test": np.ones((2, 3)), "y_test": np.zeros(2)}, "x_test, y_test: expected shapes"),
        (
            "bad.npz",
            {**TRAIN, "x_test": np.ones((2, 2)), "y_test": np.full(2, -1)},
            "y: expected classes from 0, .* got -1 to 1",
        ),
        ("bad.npz", {"x": np.full((9, 2), 1e300), "y": np.arange(9) % 2}, "x: expected finite numbers"),
        ("bad.npz", {"x": np.ones((9, 2)), "y": np.full(9, 1e300)}, "y: expected finite numbers"),
        (
            "bad.npz",
            {**TRAIN, "x_test": np.ones((2, 2)), "y_test": np.full(2, 7)},
            "y: expected classes from 0, .* got 0 to 7",
        ),
        ("bad.npz", {"x": np.array([[object()] * 2] * 9), "y": np.ones(9)}, "x.npy: .* got pickled objects"),
        ("bad.npz", b"PK\x03\x04 not really", "bad.npz"),
        (f"{'long' * 75}.npz", None, "which is not a file"),
        ("nul\0.npz", None, "name: expected a valid file name"),
        ("lone\ud800.npz", None, "name: expected a valid file name"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    if isinstance(name, str) and "." in name:
        name = tmp_path / name
    if isinstance(content, str):
        name.write_text(content)
    elif isinstance(content, bytes):
        name.write_bytes(content)
    elif content is not None:
        np.savez(name, **content)
    with pytest.raises(ValueError, match=message):
        fp.load_dataset(name)


@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_only_regular_files_are_read(tmp_path, suffix):
    """Nobody writes to the pipe: to open it would take for ever."""
    path = tmp_path / f"pipe.{suffix}"
    os.mkfifo(path)
    (tmp_path / f"folder.{suffix}").mkdir()
    for name in (path, tmp_path / f"folder.{suffix}"):
        with pytest.raises(ValueError, match="which is not a file"):
            fp.load_dataset(name)


def test_names_are_texts_or_paths(tmp_path):
    for bad, came in ((7, "int"), (b"digits", "bytes"), (None, "NoneType"), (sys.stdin, type(sys.stdin).__name__)):
        with pytest.raises(ValueError, match=f"name: expected a str or os.PathLike, got {came}"):
            fp.load_dataset(bad)
        if bad is not None:
            with pytest.raises(ValueError, match=f"data_dir: expected a str or os.PathLike, got {came}"):
                fp.load_dataset("digits", data_dir=bad)


@pytest.mark.parametrize("folder", ["long" * 75, "nul\0", "lone\ud800"])
def test_a_folder_that_cannot_be_has_no_mnist(folder):
    with pytest.raises(ValueError, match=r"data_dir: expected (the MNIST files, got a folder|a valid file name)"):
        fp.load_dataset("mnist", data_dir=folder)


@pytest.mark.parametrize(
    ("name", "samples", "features", "outputs"), [("breast_cancer", 569, 30, 1), ("wine", 178, 13, 3)]
)
def test_tables_of_scikit_learn(name, samples, features, outputs):
    data = fp.load_dataset(name)
    assert (data.name, data.features, data.outputs) == (name, features, outputs)
    assert len(data.x_train) + len(data.x_test) == samples
    assert len(data.x_test) == pytest.approx(samples / 5, abs=2)
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(data.x_train.std(axis=0), 1, atol=1e-5)
    assert 0 < np.abs(data.x_test.mean(axis=0)).max() < 0.5, "scaled by what the training samples tell"
    assert data.x_train.dtype == np.float32
    assert set(data.y_train) == set(data.y_test)


def test_tables_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r'name: \'wine\' needs an extra: pip install "fastprune\[sklearn\]"'):
        fp.load_dataset("wine")
