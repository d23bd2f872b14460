"""What tests let other processes do: in a module of its own, which these import in no time."""

import os
import signal


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def double(value):
    return 2 * value


def fitted(things, pruner, x, y, epochs):
    """Give back what came, and a pruner after its run."""
    history = pruner.run(x, y, epochs)
    return things, pruner, history
