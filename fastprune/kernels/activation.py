"""Activations and dropout, in place on one unit's row of a layer's output; the backward pass needs only that output.

Rows are passed as indices: counting references to a view of each row would cost as much as the work on it.
"""

import numpy as np

from fastprune.kernels.constants import LEAKY_RELU, RELU, SLOPE, STEP, TANH
from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats
from fastprune.kernels.random import derive
from fastprune.kernels.simd import gate, load_step, store


@kernel
def activate_forward(out: Floats, unit: int, activation: int) -> None:
    """Row `unit` of out (O, T) = f(row)."""
    one = out.dtype.type(1)
    if activation == RELU:
        whole, row = out.shape[1] // STEP * STEP, unit * out.shape[1]
        for t in range(row, row + whole, STEP):
            vector = load_step(out, t)
            store(out, t, gate(vector, vector))
        for t in range(whole, out.shape[1]):
            out[unit, t] *= out.dtype.type(0) if out[unit, t] <= 0 else one  # as `gate` does
    elif activation == LEAKY_RELU:
        for t in range(out.shape[1]):
            out[unit, t] = max(out[unit, t], out[unit, t] * out.dtype.type(SLOPE))
    elif activation == TANH:
        for t in range(out.shape[1]):
            out[unit, t] = np.tanh(out[unit, t])
    else:
        for t in range(out.shape[1]):
            out[unit, t] = one / (one + np.exp(-out[unit, t]))


@kernel
def activate_backward(dout: Floats, out: Floats, unit: int, activation: int, keep: float) -> None:
    """Row `unit` of dout *= f'. dout, out (O, T).

    f' is computed from f's value, which `out` holds divided by `keep` (1 without dropout). T is a multiple of STEP.
    """
    one, scale = dout.dtype.type(1), dout.dtype.type(keep)
    if activation == RELU:
        row = unit * dout.shape[1]
        for t in range(row, row + dout.shape[1], STEP):
            store(dout, t, gate(load_step(dout, t), load_step(out, t)))
    elif activation == LEAKY_RELU:
        for t in range(dout.shape[1]):
            dout[unit, t] *= one if out[unit, t] > 0 else dout.dtype.type(SLOPE)
    elif activation == TANH:
        for t in range(dout.shape[1]):
            f = out[unit, t] * scale
            dout[unit, t] *= one - f * f
    else:
        for t in range(dout.shape[1]):
            f = out[unit, t] * scale
            dout[unit, t] *= f * (one - f)


@kernel
def dropout(tile: Floats, unit: int, key: np.uint64, first: int, low: int, high: int, keep: float) -> None:
    """Inverted dropout: zero each value of a row with probability 1 - keep and divide the others by `keep`.

    Applies to lanes low .. high - 1. The choice depends only on `key`, the unit and the sample's number in its batch:
    lane t of `tile` (O, T) holds sample first + t. The same call on the gradient is the backward pass; no mask is kept.
    """
    scale = tile.dtype.type(1 / keep)
    threshold = np.uint64(keep * 2.0**32)
    row = derive(key, unit)
    for t in range(low, high):
        kept = (derive(row, first + t) >> np.uint64(32)) < threshold
        tile[unit, t] = tile[unit, t] * scale if kept else tile.dtype.type(0)
