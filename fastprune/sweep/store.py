"""A sweep's folder: what is done of each cell, written so that nothing that is done is ever lost.

    store/lock.db           held by the command that works on the folder; store/holder.json says which one that is
    store/dense/D.npz       each dense network, by the digest of what it depends on
    store/rounds/C-R.npz    of cells in progress: the state after the last round, and after the best one
    store/cells/C.jsonl     of finished cells: settings and records
    networks/C.npz          of finished cells: the best network, as `fastprune.load` reads it
    networks/C-R.npz        of cells with several stages: the network at the end of each

C and D are digests, R is a round. Each file is whole or not there; a round's is synced before the next one starts.
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
    """What is done of a cell.

    Attributes
    ----------
    settings : Settings
        Of the cell.
    key : str
        Of the data, see `Data`.
    lines : str
        Its records as JSON, a line each, the dense network's first. They are read when they are wanted: ten thousand
        cells of them take some seconds and half a gigabyte.
    """

    settings: Settings
    key: str
    lines: str = ""

    @functools.cached_property
    def records(self) -> list[Record]:
        """What is known of each round, from 0."""
        return [Record(*json.loads(line)) for line in self.lines.splitlines()]

    @property
    def count(self) -> int:
        """How many records there are."""
        return self.lines.count("\n")

    @property
    def last(self) -> Record:
        """The last record."""
        return Record(*json.loads(self.lines[self.lines.rfind("\n", 0, -1) + 1 :]))

    @functools.cached_property
    def finished(self) -> bool:
        """Whether no round is left, or one has failed."""
        return self.count > self.settings.last or self.last.failed

    @property
    def best(self) -> int:
        """The last round whose held-out accuracy is within `max_drop` of round 0's; without held-out samples, the last.

        A round that failed is neither.
        """
        good = [record for record in self.records if not record.failed]
        bar = held_out_accuracy(self.records[0]) - self.settings.max_drop
        return [record.round for record in good if held_out_accuracy(record) >= bar][-1]

    def with_(self, *records: Record) -> "Cell":
        """With so many rounds more."""
        return dataclasses.replace(self, lines=self.lines + "".join(json.dumps(record) + "\n" for record in records))

    def to_text(self) -> str:
        """As a line of what the cell is, and those of the records."""
        head = {"settings": _plain(self.settings), "data": self.key, "columns": Record._fields}
        return f"{json.dumps(head)}\n{self.lines}"

    @classmethod
    def from_text(cls, text: str, settings: Settings) -> "Cell":
        """What `to_text` wrote, for a cell of these settings or for another one that shares its dense network.

        Raises ValueError if it did not write this.
        """
        first, _, lines = text.partition("\n")
        head = json.loads(first)
        if not isinstance(head, dict) or head.keys() != {"settings", "data", "columns"}:
            raise ValueError("no record of a sweep")
        if head["columns"] != list(Record._fields):
            raise ValueError("the record of another version of fastprune")
        progress = cls(settings, head["data"], lines)
        if progress.count == 0 or progress.last.round != progress.count - 1:
            raise ValueError("a part of a record")
        theirs, ours = _DEFAULTS | head["settings"], _plain(settings)  # which it may not have known all of
        if theirs != ours:
            for name in FIELDS if progress.count > 1 else DENSE:
                if theirs[name] != ours[name]:
                    raise ValueError(f"the record of a cell with {name} = {theirs[name]!r}, not {ours[name]!r}")
        return progress


def _plain(settings: Settings) -> dict[str, Any]:
    """Settings as they come back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(settings.values))
    return plain


_DEFAULTS = _plain(Settings())


def held_out_accuracy(record: Record) -> float:
    """Held-out accuracy, in [0, 1]; 0 if no samples are held out, which makes all rounds alike."""
    return record.after_validation_accuracy or 0.0


class Store:
    """The folder of a sweep.

    Parameters
    ----------
    folder : path
        Need not exist: it is made once something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.networks, self.plots = (folder / name for name in ("store", "networks", "plots"))
        self._dense, self._rounds, self._cells = (self.store / name for name in ("dense", "rounds", "cells"))

    def check(self) -> None:
        """Refuse a folder of other things, which a sweep could write over. Raises ValueError if there are some."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"out: expected a folder, got the file {str(self.folder)!r}")
        if self.folder.is_dir() and not self.store.is_dir() and any(self.folder.iterdir()):
            raise ValueError(
                f"out: expected a new folder or that of a sweep, got {str(self.folder)!r}, with other files"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands off the folder, which is made if need be, and clear away what was half written.

        Raises ValueError if another command works on it, or it is not a sweep's; OSError if it cannot be written to.
        """
        self.check()
        for folder in (self._dense, self._rounds, self._cells, self.networks):
            folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self.store).close()  # an OSError that says what is wrong
        lock = _lock(self.store / "lock.db", self._holder)
        try:
            for folder in (self.folder, self.store, self._dense, self._rounds, self._cells, self.networks, self.plots):
                remove_parts(folder)
            finished = {path.stem for path in self._cells.iterdir()}
            for path in self._rounds.iterdir():
                if path.stem.rpartition("-")[0] in finished:
                    path.unlink()
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            write_text(
                self.store / "holder.json",
                json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}),
            )
            yield
        finally:
            lock.close()

    def load(self, cells: Sequence[Settings]) -> dict[str, Cell]:
        """What is done of each of these cells, by digest, and of their dense networks; those not begun are left out.

        Raises ValueError if a file is damaged.
        """
        for _ in range(_TRIES):
            try:
                return self._load(cells)
            except FileNotFoundError:  # a command that works on the folder has just gone on
                continue
        raise ValueError(f"{str(self.folder)!r}: expected files that stay for a moment, got them gone {_TRIES} times")

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
        """Drop the records of cells whose files are missing, so that they run again; return how many.

        The results will be the same. `done` is as `load` gives it, and the store is locked.
        """
        there = {path for folder in (self._dense, self._rounds, self.networks) for path in folder.iterdir()}
        count = 0
        for progress in done.values():
            cell = progress.settings
            result = self.network(cell) if progress.finished else self._path(cell, progress.best)
            failed = progress.last.failed
            ends = {self.network(cell, end) for end in cell.ends if cell.stage and end < progress.count - failed}
            if progress.count > 1 and not {self._path(cell, 0), result} | ends <= there:
                (self._cells / f"{cell.digest}.jsonl").unlink(missing_ok=True)
                for path in self._rounds.glob(f"{cell.digest}-*.npz"):
                    path.unlink()
                count += 1
        return count

    def others(self, cells: Sequence[Settings]) -> int:
        """How many finished cells there are besides these."""
        return len({Path(name).stem for name in _names(self._cells)} - {cell.digest for cell in cells})

    def state(self, cell: Settings, round: int) -> bytes:
        """The state of a cell after a round that is kept. Raises ValueError if the file is damaged, or not there."""
        path = self._path(cell, round)
        try:
            return read_npz(path)["state"].tobytes()
        except (ValueError, KeyError) as error:
            raise _damaged(path, error) from error

    def add(self, progress: Cell, state: bytes) -> None:
        """Write down a cell's last round, and let go of what is no longer needed.

        Raises OSError if it cannot be written. What was written before is still there.
        """
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
        """The file of a finished cell's best network, or of the network after the last round of a stage."""
        return self.networks / (f"{cell.digest}-{end}.npz" if end else f"{cell.digest}.npz")

    def _path(self, cell: Settings, round: int) -> Path:
        return self._rounds / f"{cell.digest}-{round}.npz" if round else self._dense / f"{cell.dense_digest}.npz"

    def _read(self, path: Path, cell: Settings) -> Cell:
        try:
            text = path.read_text() if path.suffix == ".jsonl" else str(read_npz(path, ["progress"])["progress"])
            return Cell.from_text(text, cell)
        except MemoryError:
            raise  # the file may be fine
        except Exception as error:  # of whatever kind: the file may hold any nonsense
            if not path.exists():
                raise FileNotFoundError(path) from error
            raise _damaged(path, error) from error

    def _holder(self) -> str:
        """Who works on the folder, as far as is known: the lock is there a moment before its note."""
        try:
            note = json.loads((self.store / "holder.json").read_bytes())
            who = f"process {note['process']} on {note['host']}, since {note['since']}"
        except (OSError, ValueError, KeyError):
            who = "a command that has just begun"
        return f"{str(self.folder)!r}, which is held by {who}"


def _lock(path: Path, holder: Callable[[], str]) -> sqlite3.Connection:
    """Hold a lock until the connection is closed. SQLite's knows every platform, and goes with its process."""
    lock = None
    try:
        lock = sqlite3.connect(path, timeout=0, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if lock is not None:
            lock.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise ValueError(f"out: expected a folder that no other command works on, got {holder()}") from None
        raise OSError(f"{str(path)!r}: expected a file to lock, got an error: {error}") from error
    return lock


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{str(path)!r}: expected what a sweep wrote, got something else ({error}); without the file, it is done again"
    )
