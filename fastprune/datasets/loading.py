"""Load data sets by name or from files."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.datasets.binary_images import make_binary_images
from fastprune.datasets.dataset import Dataset
from fastprune.datasets.mnist import load_fashion_mnist, load_mnist
from fastprune.files import is_file, read_npz
from fastprune.kernels.layout import Floats

TABLES = {"breast_cancer": "load_breast_cancer", "wine": "load_wine"}  # that come with scikit-learn
_KEYS = {"x_train", "y_train", "x_test", "y_test"}


def load_dataset(name: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by name or from a file.

    Parameters
    ----------
    name : str or path
        "digits": 1,797 handwritten digits of 8x8 pixels in [0, 1], ten classes, shipped with the package (UCI Optical
        Recognition of Handwritten Digits). A fixed fifth of each class is the test set: 1,437 and 360 samples.

        "mnist": 60,000 and 10,000 handwritten digits of 28x28 pixels in [0, 1]. The four IDX files, plain or gzipped,
        are read from `data_dir`, else from the folder in the environment variable FASTPRUNE_DATA, else from the user's
        cache, else downloaded into it (extra `download`). Their SHA-256 is checked.

        "fashion_mnist": as many images of clothes (Xiao, Rasul, Vollgraf 2017), in files with the same names, checked
        likewise: from `data_dir` or its subfolder `fashion_mnist`, else from FASTPRUNE_DATA likewise, else from where
        Debian's package `dataset-fashion-mnist` puts them.

        "breast_cancer", "wine": tables from scikit-learn (extra `sklearn`): 569 samples of 30 features in two classes,
        and 178 of 13 in three. A fixed fifth of each class is the test set. Features are standardized to mean 0 and
        standard deviation 1 over the training samples.

        "binary_images": the output of `make_binary_images()`.

        A path ending in `.npz`: arrays `x_train`, `y_train`, `x_test` and `y_test`, or `x` and `y`, of which a fixed
        fifth of each class is the test set. A path ending in `.csv`: comma-separated numbers, with or without a header
        line, labels in the last column; split likewise. Labels that are all whole numbers are classes from 0; others
        are regression targets. Features are not scaled; for training they should be scaled to about 1.
    data_dir : str or path, optional
        Folder with the MNIST or Fashion-MNIST files.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If there is no such data set or file, or the file is not as described, is truncated or is damaged.

    Examples
    --------
    >>> import fastprune as fp
    >>> data = fp.load_dataset("digits")
    >>> data.x_train.shape, data.y_train.shape, data.x_test.shape
    ((1437, 64), (1437,), (360, 64))
    """
    name = check.path("name", name)
    if data_dir is not None:
        data_dir = check.path("data_dir", data_dir)
    if name == "digits":
        arrays = read_npz(Path(__file__).with_name("digits.npz"))
        return Dataset.split("digits", arrays["x"].astype(np.float32) / 16, arrays["y"].astype(np.int64))
    if name == "mnist":
        return load_mnist(data_dir)
    if name == "fashion_mnist":
        return load_fashion_mnist(data_dir)
    if name in TABLES:
        return _load_table(name)
    if name == "binary_images":
        return make_binary_images()
    expected = (
        "'digits', 'mnist', 'fashion_mnist', 'breast_cancer', 'wine', 'binary_images' or a path ending in .npz or .csv"
    )
    path = Path(name)
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"name: expected {expected}, got {name!r}")
    if not is_file(path):
        raise ValueError(f"name: expected {expected}, got {name!r}, which is not a file")
    try:
        return _from_npz(path) if path.suffix == ".npz" else _from_csv(path)
    except Exception as error:  # a damaged file can raise almost anything
        raise ValueError(f"name: expected a data set, got {name!r}: {error}") from error


def _load_table(name: str) -> Dataset:
    """Load one of `TABLES`, split it, and standardize it by the training samples."""
    try:
        import sklearn.datasets
    except ImportError:
        raise ValueError(f'name: {name!r} needs an extra: pip install "fastprune[sklearn]"') from None
    x, y = getattr(sklearn.datasets, TABLES[name])(return_X_y=True)
    data = Dataset.split(name, x, y.astype(np.int64))
    mean, deviation = data.x_train.mean(axis=0), data.x_train.std(axis=0)
    scaled = {part: ((getattr(data, part) - mean) / deviation).astype(np.float32) for part in ("x_train", "x_test")}
    return replace(data, **scaled)


def _from_npz(path: Path) -> Dataset:
    arrays = read_npz(path)
    if arrays.keys() >= _KEYS:
        x, y = _samples(arrays["x_train"], arrays["y_train"])
        x_test, y_test = _samples(arrays["x_test"], arrays["y_test"])
        if x.shape[1:] != x_test.shape[1:] or y.shape[1:] != y_test.shape[1:]:
            raise ValueError(f"x_test, y_test: expected shapes as for training, got {x_test.shape} and {y_test.shape}")
        y, y_test = np.split(_labels(np.concatenate([y, y_test]), len(y)), [len(y)])
        return Dataset(path.stem, x, y, x_test, y_test)
    if arrays.keys() >= {"x", "y"}:
        return _split(path, arrays["x"], arrays["y"])
    raise ValueError(f"expected arrays x_train, y_train, x_test, y_test, or x and y, got {', '.join(arrays) or 'none'}")


def _from_csv(path: Path) -> Dataset:
    with path.open(encoding="utf-8-sig") as file:  # skips a byte order mark
        first = file.readline()
        file.seek(0)
        header = bool(first.strip()) and not any(_is_number(field) for field in first.split(","))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # missing data is reported below
                table = np.loadtxt(file, delimiter=",", skiprows=int(header), ndmin=2)
        except ValueError as error:
            file.seek(0)
            raise ValueError(_first_fault(file, int(header))) from error
    if table.size == 0:
        raise ValueError("expected rows of numbers, got none")
    if table.shape[1] < 2:
        raise ValueError("expected at least one feature and a label in each row, got a single number")
    return _split(path, table[:, :-1], table[:, -1])


def _first_fault(file: Iterable[str], header: int) -> str:
    """Describe the first line, after the header, that is not a row of numbers."""
    columns = None
    for number, line in enumerate(file, 1):
        fields = line.split(",")
        if number <= header or not line.strip():
            continue
        columns = columns or len(fields)
        if len(fields) != columns:
            return f"line {number}: expected {columns} numbers, got {len(fields)}"
        for field in fields:
            if not _is_number(field):
                return f"line {number}: expected numbers, got {field.strip()!r}"
    return "expected rows of numbers"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _split(path: Path, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Dataset:
    x, y = _samples(x, y)
    if len(x) < 5:
        raise ValueError(f"expected at least 5 samples, so that a fifth can be the test set, got {len(x)}")
    return Dataset.split(path.stem, x, _labels(y, len(y)))


def _samples(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> tuple[Floats, npt.NDArray[Any]]:
    """Return samples flattened to (N, F) float32, and finite labels; refuse them if they do not match."""
    if x.ndim < 2 or y.ndim not in (1, 2) or len(x) != len(y) or x.size == 0 or y.size == 0:
        raise ValueError(f"expected samples (N, ...) and as many labels, got shapes {x.shape} and {y.shape}")
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name}: expected numbers, got dtype {array.dtype}")
        if not np.isfinite(array).all() or np.abs(array).max() > np.finfo(np.float32).max:
            raise ValueError(f"{name}: expected finite numbers, got NaN, infinity or values beyond float32")
    return x.reshape(len(x), -1).astype(np.float32), y


def _labels(y: npt.NDArray[Any], training: int) -> npt.NDArray[Any]:
    """Return whole labels as int64 classes, others as float32; the first `training` belong to the training set."""
    if not check.whole(y):
        return y.astype(np.float32)
    first, last = y[:training].min(), y[:training].max()
    if first != 0 or last >= max(2, training) or y.min() < 0 or y.max() > last:
        raise ValueError(
            f"y: expected classes from 0, fewer than samples and all in the training set, got {y.min():g} to "
            f"{y.max():g}; labels that are all whole numbers are classes"
        )
    return y.astype(np.int64)
