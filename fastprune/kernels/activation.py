"""Activations and dropout, in place on the output of a layer, (O, T), and backwards from that output alone."""

import numpy as np

from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats
from fastprune.kernels.random import derive

RELU, LEAKY_RELU, TANH, SIGMOID = range(4)
SLOPE = 0.01  # of leaky ReLU below zero (PyTorch's default)


@kernel
def activate_forward(out: Floats, activation: int) -> None:
    """out = f(out)."""
    flat = out.reshape(out.size)
    one = flat.dtype.type(1)
    if activation == RELU:
        for i in range(flat.size):
            flat[i] = max(flat[i], flat.dtype.type(0))
    elif activation == LEAKY_RELU:
        for i in range(flat.size):
            flat[i] = max(flat[i], flat[i] * flat.dtype.type(SLOPE))
    elif activation == TANH:
        for i in range(flat.size):
            flat[i] = np.tanh(flat[i])
    else:
        for i in range(flat.size):
            flat[i] = one / (one + np.exp(-flat[i]))


@kernel
def activate_backward(dout: Floats, out: Floats, activation: int, keep: float) -> None:
    """dout *= f', expressed by f's value, which `out` holds divided by `keep` (1 where there is no dropout)."""
    flat, values = dout.reshape(dout.size), out.reshape(out.size)
    one, scale = flat.dtype.type(1), flat.dtype.type(keep)
    if activation == RELU:
        for i in range(flat.size):
            flat[i] = flat[i] if values[i] > 0 else flat.dtype.type(0)
    elif activation == LEAKY_RELU:
        for i in range(flat.size):
            flat[i] *= one if values[i] > 0 else flat.dtype.type(SLOPE)
    elif activation == TANH:
        for i in range(flat.size):
            f = values[i] * scale
            flat[i] *= one - f * f
    else:
        for i in range(flat.size):
            f = values[i] * scale
            flat[i] *= f * (one - f)


@kernel
def dropout(tile: Floats, key: np.uint64, first: int, keep: float) -> None:
    """Zero each value with probability 1 - keep and divide the others by `keep` (inverted dropout).

    What is dropped depends on `key`, the feature and the number of the sample in its batch: lane t of this tile holds
    sample first + t. So the same call on the gradient is the backward pass, and nothing has to be stored.
    """
    features, lanes = tile.shape
    scale = tile.dtype.type(1 / keep)
    threshold = np.uint64(keep * 2.0**32)
    for f in range(features):
        row = derive(key, f)
        for t in range(lanes):
            kept = (derive(row, first + t) >> np.uint64(32)) < threshold
            tile[f, t] = tile[f, t] * scale if kept else tile.dtype.type(0)
