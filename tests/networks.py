"""Networks as tests want them."""

from itertools import pairwise

import numpy as np

import fastprune as fp


def prune_at(network, removed):
    """Prune weights by their numbers among all weights, layer after layer, each in C order."""
    keep = np.ones(network.total_weights, bool)
    keep[removed] = False
    parts = np.split(keep, np.cumsum(network.layer_total_weights)[:-1])
    shapes = [(fan_out, fan_in) for fan_in, fan_out in pairwise(network.sizes)]
    fp.Pruner(fp.Trainer(network)).apply([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])


def same(ours, theirs):
    """Whether lists of arrays are equal, bit for bit."""
    for one, other in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_array_equal(one, other)


def parts(network):
    """All that can be seen of a network."""
    return network.weights + network.biases + network.masks


def matrices(network, vector):
    """A vector of the state as one array a layer."""
    return [network.state.storage.matrix(layer, vector) for layer in range(network.n_layers)]


def bits(trainer):
    """All that training changes."""
    return [*trainer.network.state.vectors, trainer.network.state.updates]
