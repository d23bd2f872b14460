"""The gradient of the loss, without an update."""

import functools
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastprune import kernels
from fastprune.blas import one_blas_thread
from fastprune.evaluation import part_of
from fastprune.inference import workspace
from fastprune.kernels.constants import LANES
from fastprune.kernels.layout import Floats, Samples
from fastprune.network import LOSSES
from fastprune.state import State
from fastprune.storage import from_positions
from fastprune.team import Threads

_TILES = 64  # at most this many tiles of activations are in memory together
_BYTES = 2**26  # and at most this many bytes of them


class Gradient(NamedTuple):
    """Gradient of `weights`, one (fan_out, fan_in) array per layer, and of `biases`, one (fan_out,) array per layer."""

    weights: list[Floats]
    biases: list[Floats]


class MeanGradient:
    """Gradient of the mean loss over samples, without penalties and dropout, at one state of a network."""

    def __init__(self, state: State, name: str, samples: Samples, loss: str, threads: int) -> None:
        self._state, self._name, self._samples, self._loss, self._threads = state, name, samples, loss, threads

    @cached_property
    def stored(self) -> State:
        """The gradient by each parameter that the state stores, as `values` of a state."""
        return self._of(self._state)

    @cached_property
    def full(self) -> State:
        """The gradient by every weight, live or not; it takes the time and memory of the dense network."""
        old, nothing = self._state.storage, self._state.values[:0]
        positions = [old.positions(layer) for layer in range(len(old.execution))]
        dense = from_positions(old.sizes, ["dense"] * len(old.execution), old.layout.activation, positions)
        return self._of(replace(self._state, velocity=nothing, square=nothing).stored_in(dense))

    def by_layer(self, pruned: bool) -> Gradient:
        """The gradient as one array per layer; it is 0 for pruned weights unless `pruned`."""
        gradient = self.full if pruned else self.stored
        storage, values = gradient.storage, gradient.values if pruned else gradient.values * gradient.storage.live
        weights = [storage.matrix(layer, values) for layer in range(len(storage.execution))]
        return Gradient(weights, [values[low:high].copy() for low, high in pairwise(storage.layout.biases.tolist())])

    def _of(self, state: State) -> State:
        layout, values, count = state.storage.layout, state.values, self._samples.weights.size
        total, part = np.zeros(values.size), np.zeros_like(values)
        tiles = min(_TILES, max(1, _BYTES // (2 * int(layout.rows[-1]) * LANES * values.itemsize)))
        space = workspace(np.arange(count), tiles, layout, values.dtype, training=True)
        with Threads(self._threads) as threads, one_blas_thread():
            for start in range(0, count, tiles * LANES):
                batch = part_of(self._samples, slice(start, start + tiles * LANES))
                size = batch.weights.size
                code = LOSSES[self._loss]
                threads.run(functools.partial(kernels.batch_gradient, part, space, layout, values, batch, code))
                total += part * (size / count)
        gradient = total.astype(values.dtype)
        if not kernels.all_finite(gradient):
            raise ValueError(f"{self._name}: the gradient overflows {values.dtype}; scale the features down")
        return replace(state, values=gradient)
