"""One dense layer on one tile, through BLAS (Numba's `np.dot` calls SciPy's)."""

import numpy as np

from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats


@kernel
def dense_forward(out: Floats, tile: Floats, weights: Floats, bias: Floats) -> None:
    """out = weights @ tile + bias. out (O, T), tile (I, T), weights (O, I), bias (O,)."""
    np.dot(weights, tile, out)
    for o in range(out.shape[0]):
        b = bias[o]
        for t in range(out.shape[1]):
            out[o, t] += b


@kernel
def dense_weight_gradient(
    dweights: Floats, dbias: Floats, products: Floats, dout: Floats, tile: Floats, first: bool
) -> None:
    """dweights = dout @ tile.T and dbias = dout's row sums; added to what is there unless `first`.

    dweights (O, I), dbias (O,), dout (O, T), tile (I, T); products (>= O * I,) is overwritten unless `first`.
    """
    if first:
        np.dot(dout, tile.T, dweights)
        dbias[:] = 0
    else:
        # np.dot cannot add to its output.
        product = products[: dweights.size].reshape(dweights.shape)
        np.dot(dout, tile.T, product)
        for o in range(dweights.shape[0]):
            for i in range(dweights.shape[1]):
                dweights[o, i] += product[o, i]
    for o in range(dout.shape[0]):
        total = dbias[o]
        for t in range(dout.shape[1]):
            total += dout[o, t]
        dbias[o] = total


@kernel
def dense_input_gradient(dtile: Floats, dout: Floats, weights: Floats) -> None:
    """dtile = weights.T @ dout. dtile (I, T), dout (O, T), weights (O, I)."""
    np.dot(weights.T, dout, dtile)
