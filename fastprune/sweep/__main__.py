"""The command `python -m fastprune.sweep`."""

import os
import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, see `fastprune.sweep.command`."""
    from fastprune.sweep import command  # here, for what is done below until it is imported

    return command.main(arguments)


def _end(*_: object) -> None:
    print("fastprune.sweep: interrupted", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(130)


if __name__ == "__main__":
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # elsewhere it is ignored
        # The end at once: an exception in the middle of an import gets lost, or comes out as another one.
        signal.signal(signal.SIGINT, _end)
    import fastprune.sweep.command  # noqa: F401 - it takes a second

    signal.signal(signal.SIGINT, before)
    code = main()
    if code == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would find nothing left to stop
    sys.exit(code)
