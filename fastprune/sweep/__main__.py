"""The command `python -m fastprune.sweep`."""

import sys
import tempfile
import time
from collections.abc import Sequence

from fastprune.datasets import load_dataset
from fastprune.sweep.config import Command, parse
from fastprune.sweep.display import Display
from fastprune.sweep.results import best, rows, write_csv
from fastprune.sweep.run import run_seeds
from fastprune.trainer import DivergenceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0: done; 1: training failed; 2: bad input, or a folder that cannot be written to; 130: interrupted. Results of
    finished seeds are written whatever comes after them.
    """
    command = parse(arguments)
    try:
        _sweep(command)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    except DivergenceError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return 0


def _sweep(command: Command) -> None:
    config, out = command.config, command.out
    started = time.perf_counter()
    data = load_dataset(config.dataset, config.data_dir)
    display = Display(command.quiet)
    results = []
    seeds = run_seeds(config, data, display)
    out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=out).close()  # a folder that cannot be written to is found before the work, not after
    display.say(
        f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test samples; {config.rounds} rounds of "
        f"{config.rule} pruning; seeds {', '.join(map(str, config.seeds))}. The first run compiles for some 15 seconds."
    )
    with display:
        for result in seeds:
            results.append(result)
            write_csv(out / "results.csv", results)
            best(results).network.save(out / "best.npz")
    display.table(rows(results), data.name)
    chosen = best(results)
    network = chosen.network
    display.say(
        f"Best: seed {chosen.seed}, round {chosen.round}, {network.live_weights:,} of {network.total_weights:,} "
        f"weights ({network.compression:.1f}x): the smallest that is within {100 * config.tolerance:g} points of its "
        "dense network's accuracy on held-out samples."
    )
    display.say(f"Wrote {out / 'results.csv'} and {out / 'best.npz'} in {time.perf_counter() - started:.1f} s.")
    display.say(f'Use it: fastprune.load("{out / "best.npz"}").predict(x)')


def _fail(error: object, code: int) -> int:
    print(f"fastprune.sweep: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
