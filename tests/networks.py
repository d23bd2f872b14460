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
