"""Activations and dropout, in place on a unit's row of lanes, (T,), and backwards from that output alone."""

import numpy as np

from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats
from fastprune.kernels.random import derive

RELU, LEAKY_RELU, TANH, SIGMOID = range(4)
SLOPE = 0.01  # of leaky ReLU below zero (PyTorch's default)


@kernel
def activate_forward(row: Floats, activation: int) -> None:
    """row = f(row)."""
    one = row.dtype.type(1)
    if activation == RELU:
        for i in range(row.size):
            row[i] = max(row[i], row.dtype.type(0))
    elif activation == LEAKY_RELU:
        for i in range(row.size):
            row[i] = max(row[i], row[i] * row.dtype.type(SLOPE))
    elif activation == TANH:
        for i in range(row.size):
            row[i] = np.tanh(row[i])
    else:
        for i in range(row.size):
            row[i] = one / (one + np.exp(-row[i]))


@kernel
def activate_backward(drow: Floats, row: Floats, activation: int, keep: float) -> None:
    """drow *= f', expressed by f's value, which `row` holds divided by `keep` (1 where there is no dropout)."""
    one, scale = drow.dtype.type(1), drow.dtype.type(keep)
    if activation == RELU:
        for i in range(drow.size):
            drow[i] = drow[i] if row[i] > 0 else drow.dtype.type(0)
    elif activation == LEAKY_RELU:
        for i in range(drow.size):
            drow[i] *= one if row[i] > 0 else drow.dtype.type(SLOPE)
    elif activation == TANH:
        for i in range(drow.size):
            f = row[i] * scale
            drow[i] *= one - f * f
    else:
        for i in range(drow.size):
            f = row[i] * scale
            drow[i] *= f * (one - f)


@kernel
def dropout(row: Floats, key: np.uint64, first: int, keep: float) -> None:
    """Zero each value with probability 1 - keep and divide the others by `keep` (inverted dropout).

    What is dropped depends on `key` and the number of the sample in its batch: lane t of `row` (T,) holds sample
    first + t. So the same call on the gradient is the backward pass, and nothing has to be stored.
    """
    scale = row.dtype.type(1 / keep)
    threshold = np.uint64(keep * 2.0**32)
    for t in range(row.size):
        kept = (derive(key, first + t) >> np.uint64(32)) < threshold
        row[t] = row[t] * scale if kept else row.dtype.type(0)
