"""The folder of a sweep: the progress of each cell, written so that no finished round is ever lost.

    store/lock.db           locked by the command that works on the folder; store/holder.json names that command
    store/dense/D.npz       dense networks, named by the digest of the settings they depend on
    store/rounds/C-R.npz    cells in progress: the states after the last round and after the best round
    store/cells/C.jsonl     finished cells: settings and records
    networks/C.npz          finished cells: the best network, for `fastprune.load`
    networks/C-R.npz        cells with several stages: the network at the end of each stage

C and D are digests, R is a round. Files are written atomically, and a round is synced before the next one starts.
"""

import dataclasses
import functools
import json
import os
import re
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastprune.files import atomic_write, read_npz, remove_parts, write_text
from fastprune.sweep.cell import Record, saved_network
from fastprune.sweep.settings import DENSE, FIELDS, Settings

_TRIES = 20


@dataclass(frozen=True)
class Cell:
    """The progress of a cell; `key` is the `Data.key` of its data.

    `lines` has the records as JSON, one per line, from round 0. They are parsed only when needed: those of ten thousand
    cells take some seconds and half a gigabyte.
    """

    settings: Settings
    key: str
    lines: str = ""

    @functools.cached_property
    def records(self) -> list[Record]:
        """The record of each round, from 0."""
        return [Record(*json.loads(line)) for line in self.lines.splitlines()]

    @property
    def count(self) -> int:
        """The number of records."""
        return self.lines.count("\n")

    @property
    def last(self) -> Record:
        """The last record."""
        return Record(*json.loads(self.lines[self.lines.rfind("\n", 0, -1) + 1 :]))

    @functools.cached_property
    def finished(self) -> bool:
        """Whether the last round is done, or one has failed that others would go on from."""
        last = self.last
        return self.count > self.settings.last or (last.failed and not self.settings.shares(last.round))

    @property
    def best(self) -> int:
        """The smallest round that did not fail and whose held-out accuracy, if any, is within `max_drop` of round 0's.

        The one with the smallest coded file, if any shares weights, else the last.
        """
        bar = held_out_accuracy(self.records[0]) - self.settings.max_drop
        good = [record for record in self.records if not record.failed and held_out_accuracy(record) >= bar]
        sizes = [(record.coded_bytes, record.round) for record in good if record.coded_bytes is not None]
        return min(sizes)[1] if sizes else good[-1].round

    def with_(self, *records: Record) -> "Cell":
        """Return this progress with more records."""
        return dataclasses.replace(self, lines=self.lines + "".join(json.dumps(record) + "\n" for record in records))

    def to_text(self) -> str:
        """Write the cell as text: a line that describes it, and the lines of its records."""
        head = {"settings": _plain(self.settings), "data": self.key, "columns": Record._fields}
        return f"{json.dumps(head)}\n{self.lines}"

    @classmethod
    def from_text(cls, text: str, settings: Settings) -> "Cell":
        """Read what `to_text` wrote for settings with the same dense network; raise ValueError for any other text."""
        first, _, lines = text.partition("\n")
        head = json.loads(first)
        if not isinstance(head, dict) or head.keys() != {"settings", "data", "columns"}:
            raise ValueError("not a record of a sweep")
        if head["columns"] != list(Record._fields):
            raise ValueError("the record of another version of fastprune")
        progress = cls(settings, head["data"], lines)
        if progress.count == 0 or progress.last.round != progress.count - 1:
            raise ValueError("an incomplete record")
        theirs, ours = _DEFAULTS | head["settings"], _plain(settings)  # an older version may lack new settings
        if theirs != ours:
            for name in FIELDS if progress.count > 1 else DENSE:
                if theirs[name] != ours[name]:
                    raise ValueError(f"the record of a cell with {name} = {theirs[name]!r}, not {ours[name]!r}")
        return progress


def _plain(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON gives them back: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(settings.values))
    return plain


_DEFAULTS = _plain(Settings())


def held_out_accuracy(record: Record) -> float:
    """Return the held-out accuracy, in [0, 1]; without held-out samples it is 0 for all rounds."""
    return record.after_validation_accuracy or 0.0


class Store:
    """The folder of a sweep; it is created once something is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.networks, self.plots = (folder / name for name in ("store", "networks", "plots"))
        self._dense, self._rounds, self._cells = (self.store / name for name in ("dense", "rounds", "cells"))

    def check(self) -> None:
        """Raise ValueError if the folder holds other files, which a sweep could overwrite, or is itself a file."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"out: expected a folder, got the file {str(self.folder)!r}")
        if self.folder.is_dir() and not self.store.is_dir() and any(self.folder.iterdir()):
            raise ValueError(f"out: expected a new folder or one of a sweep, got {str(self.folder)!r} with other files")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other commands, create it if needed, and remove half-written files.

        Raises ValueError if another command works on it or it holds other files; OSError if it cannot be written to.
        """
        self.check()
        folders = self._dense, self._rounds, self._cells, self.networks
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self.store).close()  # raises an OSError that says why the folder is not writable
        lock = _lock(self.store / "lock.db", self._holder)
        try:
            for folder in (self.folder, self.store, *folders, self.plots):
                remove_parts(folder)
            finished = {path.stem for path in self._cells.iterdir()}
            for path in self._rounds.iterdir():
                if path.stem.rpartition("-")[0] in finished:
                    path.unlink()
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            holder = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
            write_text(self.store / "holder.json", json.dumps(holder))
            yield
        finally:
            lock.close()

    def load(self, cells: Sequence[Settings]) -> dict[str, Cell]:
        """Load the progress of the cells that have begun, by digest; without a round, that of their dense networks.

        Raises ValueError if a file is damaged.
        """
        for _ in range(_TRIES):
            try:
                return self._load(cells)
            except FileNotFoundError:  # the command that works on the folder has just replaced it
                continue
        raise ValueError(f"{str(self.folder)!r}: the folder keeps changing; gave up after {_TRIES} tries")

    def _load(self, cells: Sequence[Settings]) -> dict[str, Cell]:
        finished, dense_networks = _names(self._cells), _names(self._dense)
        last: dict[str, int] = {}
        for name in _names(self._rounds):
            if found := re.fullmatch(r"([0-9a-f]+)-(\d+)\.npz", name):
                last[found[1]] = max(last.get(found[1], 0), int(found[2]))
        done: dict[str, Cell] = {}
        for cell in cells:
            if f"{cell.digest}.jsonl" in finished:
                done[cell.digest] = self._read(self._cells / f"{cell.digest}.jsonl", cell)
            elif cell.digest in last:
                done[cell.digest] = self._read(self._path(cell, last[cell.digest]), cell)
            elif f"{cell.dense_digest}.npz" in dense_networks and cell.dense_digest not in done:
                done[cell.dense_digest] = self._read(self._path(cell, 0), cell)
        return done

    def reopen(self, done: Mapping[str, Cell]) -> int:
        """Drop the records of cells with missing files, so that they run again; return their number. Needs the lock."""
        there = {path for folder in (self._dense, self._rounds, self.networks) for path in folder.iterdir()}
        count = 0
        for progress in done.values():
            cell = progress.settings
            result = self.network(cell) if progress.finished else self._path(cell, progress.best)
            done_ends = [end for end in cell.ends if end < progress.count] if cell.stage else []
            ends = {self.network(cell, end) for end in done_ends if not progress.records[end].failed}
            if progress.count > 1 and not {self._path(cell, 0), result} | ends <= there:
                (self._cells / f"{cell.digest}.jsonl").unlink(missing_ok=True)
                for path in self._rounds.glob(f"{cell.digest}-*.npz"):
                    path.unlink()
                count += 1
        return count

    def others(self, cells: Sequence[Settings]) -> int:
        """Count the finished cells other than these."""
        return len({Path(name).stem for name in _names(self._cells)} - {cell.digest for cell in cells})

    def state(self, cell: Settings, round: int) -> bytes:
        """Read the state of a cell after a round. Raises ValueError if its file is damaged or missing."""
        path = self._path(cell, round)
        try:
            return read_npz(path)["state"].tobytes()
        except (ValueError, KeyError) as error:
            raise _damaged(path, error) from error

    def add(self, progress: Cell, state: bytes) -> None:
        """Write the last round of a cell and delete the files it replaces; after an OSError, those are still there."""
        cell, last, best = progress.settings, progress.count - 1, progress.best
        keep = {self._path(cell, last), self._path(cell, best)}
        if cell.stage and last in cell.ends and not progress.last.failed:
            saved_network(cell, state).save(self.network(cell, last))
        if last and progress.finished:
            network = saved_network(cell, state if best == last else self.state(cell, best))
            network.save(self.network(cell))
            write_text(self._cells / f"{cell.digest}.jsonl", progress.to_text())
            keep = set()
        else:
            with atomic_write(self._path(cell, last)) as file:
                np.savez(file, progress=np.array(progress.to_text()), state=np.frombuffer(state, np.uint8))
        if last:
            for path in self._rounds.glob(f"{cell.digest}-*.npz"):
                if path not in keep:
                    path.unlink()

    def network(self, cell: Settings, end: int = 0) -> Path:
        """Return the path of a finished cell's best network, or of its network at the end of a stage, round `end`."""
        return self.networks / (f"{cell.digest}-{end}.npz" if end else f"{cell.digest}.npz")

    def _path(self, cell: Settings, round: int) -> Path:
        return self._rounds / f"{cell.digest}-{round}.npz" if round else self._dense / f"{cell.dense_digest}.npz"

    def _read(self, path: Path, cell: Settings) -> Cell:
        try:
            text = path.read_text() if path.suffix == ".jsonl" else str(read_npz(path, ["progress"])["progress"])
            return Cell.from_text(text, cell)
        except MemoryError:
            raise  # the file may be fine
        except Exception as error:  # of any kind: the file may hold anything
            if not path.exists():
                raise FileNotFoundError(path) from error
            raise _damaged(path, error) from error

    def _holder(self) -> str:
        """Say which command works on the folder, if its note is already there: the lock comes a moment earlier."""
        try:
            note = json.loads((self.store / "holder.json").read_bytes())
            who = f"process {note['process']} on {note['host']}, since {note['since']}"
        except (OSError, ValueError, KeyError):
            who = "a command that has just begun"
        return f"{str(self.folder)!r}, which is held by {who}"


def _lock(path: Path, holder: Callable[[], str]) -> sqlite3.Connection:
    """Lock a file until the connection is closed. SQLite's lock works on every platform and ends with its process."""
    lock = None
    try:
        lock = sqlite3.connect(path, timeout=0, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if lock is not None:
            lock.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise ValueError(f"out: expected a folder that no other command works on, got {holder()}") from None
        raise OSError(f"{str(path)!r}: the file cannot be locked: {error}") from error
    return lock


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{str(path)!r}: the file cannot be used ({error}); if you delete it, its rounds run again")
