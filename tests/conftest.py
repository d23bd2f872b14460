"""Settings of all tests."""

import signal

from hypothesis import settings

# The first example of a test compiles a kernel: no deadline. The same examples each time: a failure can be repeated.
settings.register_profile("fastprune", deadline=None, derandomize=True)
settings.load_profile("fastprune")

# In the background of a script, SIGINT is ignored, also by the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
