"""Files that are whole or not there, and archives that are whole or refused."""

import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place, synced, once the block has succeeded.

    Raises
    ------
    OSError
        If the folder cannot be written to. What stood at `path` is then untouched.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        with part.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, os.fspath(part)):
            error.filename = os.fspath(target)  # the name the caller knows
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_npz(
    source: str | os.PathLike[str] | IO[bytes], names: Sequence[str] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of these names, or all, of an `.npz` file, given its name or opened; pickles are refused.

    Raises
    ------
    ValueError
        If there is no such file, or it is no archive, truncated or damaged.
    """
    try:
        with Path(source).open("rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("no .npz archive, or not a whole one")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in names or archive.files}
    except (
        ValueError,
        TypeError,
        KeyError,
        OSError,
        EOFError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(str(error)) from error
