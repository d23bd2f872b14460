"""The command `python -m fastprune.sweep`, which is installed as `fastprune`, too."""

import os
import signal
import sys


def _end(*_: object) -> None:
    print("fastprune.sweep: interrupted", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(130)


def main() -> int:
    """Run the command and return its exit code."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not if the parent had it ignored
    if ours:
        # Exit at once: an exception during an import could be swallowed or turned into another one.
        signal.signal(signal.SIGINT, _end)
    from fastprune.sweep import command  # takes about a second

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = command.main()
    if code == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop
    return code


if __name__ == "__main__":
    sys.exit(main())
