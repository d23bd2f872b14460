"""What comes back: functions that choose weights of a layer that were pruned, to be live again from 0."""

from collections.abc import Callable

from fastprune.criteria import Context
from fastprune.kernels.layout import Ints

Grower = Callable[[Context, int], Ints]
"""Chooses so many of a layer's pruned weights: positions in its (fan_out, fan_in) array, ascending."""

GROWERS: dict[str, Grower] = {}
