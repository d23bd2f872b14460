"""The forward pass over checked samples."""

from contextlib import nullcontext
from typing import Any

import numpy as np

from fastprune import kernels
from fastprune.blas import one_blas_thread
from fastprune.kernels.constants import LANES, STEP
from fastprune.kernels.layout import Features, Floats, Ints, Layout, Team, Workspace
from fastprune.storage import aligned_empty
from fastprune.team import Threads


def features_of(x: Any) -> Features:
    """Return checked samples, an array or a SciPy `csr_array`, as the kernels take them."""
    if isinstance(x, np.ndarray):
        return Features(x, np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, x.dtype))
    return Features(np.empty((x.shape[0], 0), x.dtype), x.indptr.astype(np.int64), x.indices.astype(np.int32), x.data)


def rows_of(features: Features, index: Ints | slice) -> Features:
    """Return the features of some of the samples."""
    if not features.starts.size:
        return features._replace(dense=features.dense[index])
    begins, lengths = features.starts[:-1][index], np.diff(features.starts)[index]
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    taken = np.repeat(begins - starts[:-1], lengths) + np.arange(starts[-1])
    return Features(features.dense[index], starts, features.columns[taken], features.values[taken])


def workspace(order: Ints, tiles: int, layout: Layout, dtype: np.dtype[Any], training: bool) -> Workspace:
    """Allocate scratch memory for batches of `tiles` tiles, with room for gradients only if `training`."""
    rows = int(layout.rows[-1]) * LANES
    offsets = np.empty((tiles, LANES // STEP, 2 * STEP), np.int64)
    inputs = aligned_empty((tiles, int(layout.sizes[0]) * LANES), dtype)
    activations, deltas = (aligned_empty((count, rows), dtype) for count in (tiles, tiles if training else 0))
    mirrored = np.empty(layout.inputs.positions.size if training else 0, dtype)
    keep, losses, hits = np.ones(layout.sizes.size), np.empty(tiles), np.empty(tiles, np.int64)
    return Workspace(order, offsets, keep, inputs, activations, deltas, mirrored, losses, hits)


def forward(features: Features, values: Floats, layout: Layout, threads: Threads) -> Floats:
    """Compute the logits (N, K) of checked samples."""
    order = np.arange(len(features.dense))
    out = np.empty((order.size, layout.sizes[-1]), values.dtype)

    def run(team: Team) -> None:
        space = workspace(order, 1, layout, values.dtype, training=False)
        kernels.forward_samples(out, space, features, values, layout, team)

    with one_blas_thread() if layout.sparse.min() == 0 else nullcontext():  # it takes as long as a small network
        threads.run(run)
    return out
