"""What kernels are given: the named tuples that keep their signatures short."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]
"""float32 or float64: all float arrays of one call share the dtype."""


class Layout(NamedTuple):
    """Where the layers lie in the flat parameter vector and in a stack of activations.

    Layer l maps `sizes[l]` inputs to `sizes[l + 1]` outputs. Its weights, (O, I) in C order, start at `weights[l]`
    of the parameter vector and its O biases at `biases[l]`; all biases come after all weights, so `biases[0]` is W.
    Its output occupies the rows from `rows[l]` to `rows[l + 1]` of the stack. `activation` is the code of the hidden
    layers' activation; the output layer has none, because losses are computed from logits.
    """

    sizes: Ints  # (L + 1,)
    weights: Ints  # (L + 1,)
    biases: Ints  # (L + 1,)
    rows: Ints  # (L + 1,)
    activation: int


class Parameters(NamedTuple):
    """The parameters and all that training keeps beside each of them: vectors of length P."""

    values: Floats
    live: Bytes  # 1: trained; 0: pruned, and value, velocity and square are exactly 0. Biases are always live.
    gradient: Floats
    velocity: Floats  # SGD's momentum, Adam's first moment
    square: Floats  # Adam's second moment; empty for SGD


class Samples(NamedTuple):
    """The training data. Of `labels` and `targets` the loss reads one; the other is empty."""

    x: Floats  # (N, F)
    labels: Ints  # (N,) classes, for softmax cross-entropy
    targets: Floats  # (N, K), for sigmoid cross-entropy and mean squared error


class Workspace(NamedTuple):
    """Scratch memory of one training run."""

    order: Ints  # (N,) the epoch's order of the samples
    inputs: Floats  # (tiles of a batch, F, T)
    activations: Floats  # (rows, T)
    deltas: Floats  # (rows, T) gradients with respect to `activations`
    products: Floats  # (largest layer's weights,) one tile's weight gradient, before it is added


class Update(NamedTuple):
    """What one update of the parameters does, apart from its learning rate."""

    optimizer: int
    momentum: float  # Adam: beta_1
    nesterov: bool
    l1: float
    l2: float


class Recipe(NamedTuple):
    """The settings of one training run."""

    loss: int
    batch: int
    dropout: float
    seed: np.uint64
    update: Update
