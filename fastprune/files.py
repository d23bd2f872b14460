"""Files that are whole or not there, and archives that are whole or refused."""

import errno
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

# The third is the second with field names in UTF-8.
_HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0, (3, 0): read_array_header_2_0}


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place, synced, once the block has succeeded.

    Raises
    ------
    OSError
        If the folder cannot be written to. What stood at `path` is then untouched.
    """
    target = Path(path)
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, os.fspath(part)):
            raise OSError(error.errno, error.strerror, os.fspath(target)) from error  # the name the caller knows
        raise
    _sync_folder(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file by `atomic_write`."""
    with atomic_write(path) as file:
        file.write(text.encode())


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_parts(folder: Path) -> None:
    """Remove what `atomic_write` left in a folder when its process was killed; nobody else may be writing there."""
    for part in folder.glob(f".{'[0-9a-f]' * 16}.part"):
        part.unlink()


def regular(path: str | os.PathLike[str]) -> Path:
    """The path, if a regular file is there; to read from another kind, such as a pipe, may never end.

    Raises
    ------
    OSError, ValueError
        If there is none, or no file can have that name.
    """
    file = Path(path)
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(file))
    return file


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a regular file is there; unlike with `Path.is_file`, any name may be asked for."""
    try:
        regular(path)
    except (OSError, ValueError):  # too long a name, for one
        return False
    return True


def read_npz(
    source: str | os.PathLike[str] | IO[bytes], names: Sequence[str] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of these names, or all, of an `.npz` file, given its name or opened; pickles are refused.

    Raises
    ------
    ValueError
        If there is no such file, or it is no archive, truncated or damaged, whatever the damage.
    """
    try:
        with regular(source).open("rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("no .npz archive, or not a whole one")
            with zipfile.ZipFile(file) as archive:
                members = {m.filename[:-4]: m for m in archive.infolist() if m.filename.endswith(".npy")}
                return {name: _read_array(archive, members[name]) for name in names or members}
    except (ValueError, OSError) as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # there is hardly any that zipfile, NumPy and Python's parser do not raise on nonsense
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """An array of an archive. What its header claims takes no memory until so many bytes have been read."""
    with archive.open(member) as file:
        version = read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename}: expected an array of format 1.0 to 3.0, got {version}")
        shape, by_columns, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename}: expected numbers or text, got pickled objects")
        size, stored = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if size != stored:
            raise ValueError(f"{member.filename}: expected {stored} bytes, as are stored, got {dtype} {shape}")
        content = bytearray(file.read(size))
    return np.ndarray(shape, dtype, content, order="F" if by_columns else "C")
