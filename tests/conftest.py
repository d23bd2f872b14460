"""Settings of all tests."""

from hypothesis import settings

# The first example of a test compiles a kernel: no deadline. The same examples each time: a failure can be repeated.
settings.register_profile("fastprune", deadline=None, derandomize=True)
settings.load_profile("fastprune")
