"""The command line of `python -m fastprune.sweep`: errors are one line on stderr and an exit code."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fastprune.files import is_file
from fastprune.sweep.cell import check_settings
from fastprune.sweep.config import Command, Sweep, parse, parse_export
from fastprune.sweep.display import Display
from fastprune.sweep.engine import load_data
from fastprune.sweep.run import export_best, make_report, run_sweep
from fastprune.sweep.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 if cells failed, 2 for bad input or files, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = None
    try:
        if given[:1] == ["report"]:
            return _report(given[1:])
        if given[:1] == ["export"]:
            return _export(given[1:])
        command = parse(given)
        if command.dry_run:
            return _show(command.sweep)
        return _sweep(command)
    except (ValueError, MemoryError) as error:
        return _fail(str(error) or "out of memory", 2)
    except OSError as error:
        begun = command is not None and is_file(command.sweep.folder / "sweep.toml")
        kept = "; finished rounds are kept: repeat the command to resume" if begun else ""
        return _fail(f"{error}{kept}", 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _sweep(command: Command) -> int:
    try:
        _, failures = run_sweep(command.sweep, quiet=command.quiet)
    except KeyboardInterrupt:
        folder = command.sweep.folder
        flags = shlex.join(["--config", str(folder / "sweep.toml"), "--out", str(folder)])
        again = f"; resume with: python -m fastprune.sweep {flags}" if is_file(folder / "sweep.toml") else ""
        return _fail(f"interrupted{again}", 130)
    for failure in failures:
        names = ", ".join(f"{command.sweep.label(cell)} seed={cell.seed}".strip() for cell in failure.cells)
        _fail(f"{names}, {f'round {failure.round}' if failure.round else 'dense training'}: {failure.message}", 1)
    return 1 if failures else 0


def _show(sweep: Sweep) -> int:
    """Print the cells and their progress."""
    data = load_data(sweep)
    check_settings(sweep.cells, data)
    store = Store(sweep.folder)
    store.check()
    display, done = Display(quiet=False), store.load(sweep.cells)
    for cell in sweep.cells:
        progress = done.get(cell.digest)
        rounds = 0 if progress is None else progress.count - 1
        state = "finished" if progress and progress.finished else f"{rounds} of {cell.last} rounds"
        display.say(f"{cell.digest}  {state:15}  {f'{sweep.label(cell)} seed={cell.seed}'.strip()}")
    display.say(f"{len(sweep.cells)} cells, in {sweep.folder}")
    return 0


def _report(arguments: Sequence[str]) -> int:
    """Write the results and the report of a folder again; a sweep may be running there."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise ValueError(f"report: expected one folder of a sweep, got {shlex.join(arguments) or 'nothing'}")
    display = Display(quiet=False)
    for path in make_report(Path(arguments[0])):
        display.say(f"Wrote {path}")
    return 0


def _export(arguments: Sequence[str]) -> int:
    """Write the best networks of a folder in another form."""
    folder, form, options = parse_export(arguments)
    display = Display(quiet=False)
    for path in export_best(folder, form, options):
        display.say(f"Wrote {path}")
    return 0


def _fail(message: str, code: int) -> int:
    print(f"fastprune.sweep: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return code
