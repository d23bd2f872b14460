"""The command `python -m fastprune.sweep`."""

import os
import signal
import sys


def _end(*_: object) -> None:
    print("fastprune.sweep: interrupted", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(130)


if __name__ == "__main__":
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # elsewhere it is ignored
    if ours:
        # The end at once: an exception in the middle of an import gets lost, or comes out as another one.
        signal.signal(signal.SIGINT, _end)
    from fastprune.sweep.command import main  # it takes a second

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main()
    if code == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would find nothing left to stop
    sys.exit(code)
