"""MNIST and Fashion-MNIST: four IDX files each, from a folder; MNIST also downloaded into the user's cache."""

import gzip
import hashlib
import os
import textwrap
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastprune.datasets.dataset import Dataset
from fastprune.files import atomic_write, is_file

# SHA-256 of the decompressed files, because copies are compressed differently.
DIGESTS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_DIGESTS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist puts the files
MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"]
_TIMEOUT = 30  # seconds without a response


def load_mnist(data_dir: str | os.PathLike[str] | None) -> Dataset:
    """Load MNIST from `data_dir`, else from the folder FASTPRUNE_DATA names, else from the cache or the network."""
    source, folder = _folder(data_dir)
    files = (_cached(name) if folder is None else _found(name, source, folder, DIGESTS) for name in DIGESTS)
    return _dataset("mnist", files)


def load_fashion_mnist(data_dir: str | os.PathLike[str] | None) -> Dataset:
    """Load Fashion-MNIST from `data_dir` or the folder FASTPRUNE_DATA names, else from Debian's.

    The files have the same names as MNIST's: both can be in one folder if these are in a subfolder `fashion_mnist`.
    """
    source, folder = _folder(data_dir)
    failures = []
    for place in [*([folder / "fashion_mnist", folder] if folder else []), DEBIAN]:
        try:
            return _dataset("fashion_mnist", (_found(n, source, place, FASHION_DIGESTS) for n in FASHION_DIGESTS))
        except ValueError as error:
            failures.append(str(error).partition("got ")[2])
    raise ValueError(
        f"{source}: expected the Fashion-MNIST files (Debian's package dataset-fashion-mnist has them), got "
        f"{'; '.join(failures)}"
    )


def _folder(data_dir: str | os.PathLike[str] | None) -> tuple[str, Path | None]:
    """Whose folder it is, and the folder."""
    if data_dir is not None:
        return "data_dir", Path(data_dir)
    folder = os.environ.get("FASTPRUNE_DATA")
    return "FASTPRUNE_DATA" if folder else "data_dir", Path(folder) if folder else None


def _dataset(name: str, files: Iterable[bytes]) -> Dataset:
    x_train, y_train, x_test, y_test = map(_array, files)
    return Dataset(name, _scaled(x_train), y_train.astype(np.int64), _scaled(x_test), y_test.astype(np.int64))


def _scaled(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _found(name: str, source: str, folder: Path, digests: Mapping[str, str]) -> bytes:
    """The decompressed bytes of a file in the user's folder."""
    for path in (folder / name, folder / f"{name}.gz"):
        if is_file(path):
            return _checked(name, source, path, path.read_bytes, digests)
    raise ValueError(f"{source}: expected the MNIST files, got a folder {os.fspath(folder)!r} without {name}[.gz]")


def _cached(name: str) -> bytes:
    """Return the decompressed bytes of a file in the user's cache; download it if it is missing."""
    try:
        import pooch
        import tqdm  # noqa: F401 - pooch's progress bar
    except ImportError:
        raise ValueError(
            "data_dir: pass a folder with the MNIST files, or set FASTPRUNE_DATA to one; downloading them needs an "
            'extra: pip install "fastprune[download]"'
        ) from None
    path = Path(pooch.os_cache("fastprune")) / f"{name}.gz"
    if path.is_file():
        return _checked(name, "cache", path, path.read_bytes)
    failures = []
    for mirror in MIRRORS:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:  # a file that fails the check is not kept
                download = pooch.HTTPDownloader(progressbar=True, timeout=_TIMEOUT)
                download(f"{mirror}{name}.gz", file, None)
                file.seek(0)
                return _checked(name, "download", path, file.read)
        except (OSError, ValueError) as error:  # errors of requests are OSErrors
            failures.append(f"{mirror}: {textwrap.shorten(str(error), 120)}")
    raise ValueError(f"data_dir: MNIST could not be downloaded; pass a folder with its files ({'; '.join(failures)})")


def _checked(
    name: str, source: str, path: Path, read: Callable[[], bytes], digests: Mapping[str, str] = DIGESTS
) -> bytes:
    """Read the content of `path`, gunzipped if need be; refuse it if it is not the right one."""
    try:
        content = read()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{source}: expected MNIST's {name}, got {os.fspath(path)!r} ({error})") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != digests[name]:
        raise ValueError(
            f"{source}: expected MNIST's {name} (SHA-256 {digests[name][:12]}...), got {os.fspath(path)!r} with "
            f"SHA-256 {digest[:12]}..."
        )
    return content


def _array(content: bytes) -> npt.NDArray[np.uint8]:
    """Parse an IDX file of unsigned bytes: two zeros, type 8, number of dimensions, their sizes, data."""
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
