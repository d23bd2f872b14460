"""Atomic file writes, and reading of archives that refuses incomplete ones."""

import errno
import math
import os
import secrets
import stat
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

# Version 3.0 is 2.0 with field names in UTF-8.
_HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0, (3, 0): read_array_header_2_0}
_parsing = threading.Lock()  # Python's parser can fail if several threads parse at a time (CPython issue 106905)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; sync it and rename it to `path` if the block succeeds.

    If the folder cannot be written to (OSError), an existing file at `path` is untouched.
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
            raise OSError(error.errno, error.strerror, os.fspath(target)) from error  # with the name the caller knows
        raise
    if os.name == "posix":  # make the rename durable, where folders can be opened (not on Windows)
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file with `atomic_write`."""
    with atomic_write(path) as file:
        file.write(text.encode())


def remove_parts(folder: Path) -> None:
    """Remove temporary files of killed `atomic_write` calls; no other process may be writing to the folder."""
    for part in folder.glob(f".{'[0-9a-f]' * 16}.part"):
        part.unlink()


def regular(path: str | os.PathLike[str]) -> Path:
    """Return the path if it is a regular file, else raise OSError or ValueError; reading a pipe might never end."""
    file = Path(path)
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(file))
    return file


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a regular file; unlike `Path.is_file`, this accepts any name."""
    try:
        regular(path)
    except (OSError, ValueError):  # for example, if the name is too long
        return False
    return True


def read_npz(
    source: str | os.PathLike[str] | IO[bytes], names: Sequence[str] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Read the named arrays, or all, of an `.npz` file, given by name or opened.

    A ValueError says if there is no such file, or if it is no archive, truncated, damaged in any way, or holds pickles.
    """
    try:
        with regular(source).open("rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("not a complete .npz archive")
            with zipfile.ZipFile(file) as archive:
                members = {m.filename[:-4]: m for m in archive.infolist() if m.filename.endswith(".npy")}
                return {name: _read_array(archive, members[name]) for name in names or members}
    except (ValueError, OSError) as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # zipfile, NumPy and Python's parser can raise almost anything on damaged input
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Read one array of an archive. The size in its header is checked before memory is allocated."""
    with archive.open(member) as file:
        version = read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename}: expected an array of format 1.0 to 3.0, got {version}")
        with _parsing:
            shape, by_columns, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename}: expected numbers or text, got pickled objects")
        size, stored = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if size != stored:
            raise ValueError(f"{member.filename}: its header says {dtype} {shape}, but {stored} bytes are stored")
        content = bytearray(file.read(size))
    return np.ndarray(shape, dtype, content, order="F" if by_columns else "C")
