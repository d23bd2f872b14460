"""The command `python -m fastprune.sweep`."""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fastprune.datasets import load_dataset
from fastprune.kernels.jit import is_compiled
from fastprune.kernels.steps import train_steps
from fastprune.sweep.config import Command, parse
from fastprune.sweep.display import Display
from fastprune.sweep.results import rows, write_csv
from fastprune.sweep.run import SeedResult, best, prepare, run
from fastprune.trainer import DivergenceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0: done; 1: a dense training diverged, or a part of a study failed, and the others are done; 2: bad input, or a
    folder that cannot be written to; 130: interrupted. What was finished by then is written in each case.
    """
    try:
        command = parse(arguments)
        return _study(command) if command.preset else _sweep(command)
    except (ValueError, OSError, MemoryError) as error:
        return _fail(str(error) or "out of memory", 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _study(command: Command) -> int:
    from fastprune.sweep.han2015 import preset, recipes  # here, because the other commands do not need it

    _make(command.out)
    config = command.config
    say = Display(command.quiet).say
    try:
        failures = preset.run(recipes.HAN2015, config.seeds, config.data_dir, command.full, command.out, say)
    except KeyboardInterrupt:
        kept = command.out / "results.csv"
        return _fail(f"interrupted{f'; the rows of finished tasks are in {kept}' if kept.exists() else ''}", 130)
    return _fail(f"failed: {'; '.join(failures)}", 1) if failures else 0


def _make(out: Path) -> None:
    """Make the folder of the results. One that cannot be written to is found before the work, not after."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder, got the file {str(out)!r}")
    out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=out).close()


def _sweep(command: Command) -> int:
    config, out = command.config, command.out
    started = time.perf_counter()
    data = load_dataset(config.dataset, config.data_dir)
    jobs = prepare(config, data)
    _make(out)

    display = Display(command.quiet)
    display.say(
        f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test samples; {config.rounds} rounds of "
        f"{config.rule} pruning; seeds {', '.join(map(str, config.seeds))}"
    )
    if not is_compiled(train_steps):
        display.say("Compiling, once: this takes some 15 seconds.")
    results: list[SeedResult] = []
    code = 0
    try:
        with display:
            for job in jobs:
                try:
                    run(config, job, (data.x_test, data.y_test), display, results.append)
                except DivergenceError as error:
                    code = _fail(f"seed {job.seed}, dense training: {error}", 1)
    except KeyboardInterrupt:
        kept = f"; finished rounds of {len(results)} seeds are in {out}" if results else ""
        code = _fail(f"interrupted{kept}", 130)
    finally:
        if results:
            write_csv(out / "results.csv", results)
            chosen = best(results, config.max_drop)
            chosen.network.save(out / "best.npz")
    if results and code != 130:
        display.table(rows(results), data.name)
        display.best(chosen, config.max_drop)
        display.say(f"Wrote {out / 'results.csv'} and {out / 'best.npz'} in {time.perf_counter() - started:.1f} s.")
        display.say(f'Use it: fastprune.load("{out / "best.npz"}").predict(x)')
    return code


def _fail(message: str, code: int) -> int:
    print(f"fastprune.sweep: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
