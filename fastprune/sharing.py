"""Shared weights: a layer's live weights take few values, which later training moves together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastprune import check
from fastprune.kernels.layout import Floats, Ints
from fastprune.network import MLP

_MOST = 8  # bits: 256 values


def share_weights(network: MLP, bits: int | Sequence[int], *, bias_bits: int | None = None) -> None:
    """Replace the live weights of each layer by at most 2**bits values, which are trained as one from now on.

    The values are found by k-means with linear initialization (Han, Mao, Dally 2016, "Deep Compression", section 3).
    Training then moves the values and keeps the assignment: the gradient of a value is the sum of its weights'. Pruning
    takes weights out of their groups. What optimizers keep is reset. `MLP.set_weights` ends the sharing.

    Parameters
    ----------
    network : MLP
        Network to change in place.
    bits : int or sequence of int
        Bits of each layer's weights, 1 to 8; one number for all layers, or one for each.
    bias_bits : int or None, default None
        Bits of each layer's biases, 1 to 8. None: biases do not share values.

    Raises
    ------
    ValueError
        If an argument is not as described. The network is then unchanged.

    Examples
    --------
    >>> import fastprune as fp
    >>> import numpy as np
    >>> network = fp.MLP([64, 30, 10], density=0.1)
    >>> fp.share_weights(network, bits=2)
    >>> [np.unique(network.layer(i).csr.data).size for i in range(2)]
    [4, 4]
    """
    if not isinstance(network, MLP):
        raise ValueError(f"network: expected an MLP, got {type(network).__name__}")
    given = bits if isinstance(bits, Sequence) and not isinstance(bits, str) else [bits] * network.n_layers
    if len(given) != network.n_layers:
        raise ValueError(f"bits: expected one number for each of {network.n_layers} layers, got {len(given)}")
    of_weights = [check.integer("bits", number, 1, _MOST) for number in given]
    of_biases = None if bias_bits is None else check.integer("bias_bits", bias_bits, 1, _MOST)
    state, layers = network.state, [network.layer(index) for index in range(network.n_layers)]
    weights, biases, parts, count = [], [], [], 0
    for layer, number in zip(layers, of_weights, strict=True):
        values, groups = _clusters(layer.csr.data, 2**number)
        weights.append(values[groups])
        parts.append(groups + count)
        count += values.size
    for layer in layers:
        if of_biases is None:
            biases.append(layer.bias)
            parts.append(np.full(layer.bias.size, -1))
        else:
            values, groups = _clusters(layer.bias, 2**of_biases)
            biases.append(values[groups])
            parts.append(groups + count)
            count += values.size
    shared = np.full(state.values.size, -1, np.int32)
    shared[state.storage.live > 0] = np.concatenate(parts)
    network.state = replace(state.with_values(weights, biases), groups=shared, owner=None)


def _clusters(numbers: Floats, count: int) -> tuple[Floats, Ints]:
    """Return at most `count` values, ascending, and the index of the one nearest to each number: k-means."""
    distinct, index, times = np.unique(numbers, return_inverse=True, return_counts=True)
    if distinct.size <= count:
        return distinct, index
    points = distinct.astype(np.float64)
    values = np.linspace(points[0], points[-1], count)
    nearest = None
    while True:
        found = np.searchsorted((values[1:] + values[:-1]) / 2, points)
        if nearest is not None and np.array_equal(found, nearest):
            return values.astype(numbers.dtype), nearest[index]
        nearest = np.unique(found, return_inverse=True)[1]  # a value without numbers is dropped
        values = np.bincount(nearest, times * points) / np.bincount(nearest, times)
