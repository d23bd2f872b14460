"""The forward pass over checked samples."""

from contextlib import nullcontext
from typing import Any

import numpy as np

from fastprune import kernels
from fastprune.blas import one_blas_thread
from fastprune.kernels.constants import LANES, STEP
from fastprune.kernels.layout import Floats, Ints, Layout, Team, Workspace
from fastprune.storage import aligned_empty
from fastprune.team import Threads


def workspace(order: Ints, tiles: int, layout: Layout, dtype: np.dtype[Any], training: bool) -> Workspace:
    """Allocate scratch memory for batches of `tiles` tiles, with room for gradients only if `training`."""
    rows = int(layout.rows[-1]) * LANES
    offsets = np.empty((tiles, LANES // STEP, 2 * STEP), np.int64)
    inputs = aligned_empty((tiles, int(layout.sizes[0]) * LANES), dtype)
    activations, deltas = (aligned_empty((count, rows), dtype) for count in (tiles, tiles if training else 0))
    mirrored = np.empty(layout.inputs.positions.size if training else 0, dtype)
    keep, losses, hits = np.ones(layout.sizes.size), np.empty(tiles), np.empty(tiles, np.int64)
    return Workspace(order, offsets, keep, inputs, activations, deltas, mirrored, losses, hits)


def forward(x: Floats, values: Floats, layout: Layout, threads: Threads) -> Floats:
    """Compute the logits (N, K) of checked samples."""
    out = np.empty((len(x), layout.sizes[-1]), values.dtype)
    order = np.arange(len(x))

    def run(team: Team) -> None:
        kernels.forward_samples(out, workspace(order, 1, layout, values.dtype, training=False), x, values, layout, team)

    with one_blas_thread() if layout.sparse.min() == 0 else nullcontext():  # it takes as long as a small network
        threads.run(run)
    return out
