"""What kernels are given: the named tuples that keep their signatures short."""

from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]
"""float32 or float64: all float arrays of one call share the dtype."""


Array = TypeVar("Array", Ints, Indices, Floats)


class Lines(NamedTuple):
    """The sparse layers' weights, in the order in which a pass walks them: line by line, a line being one unit's.

    The weights of layer l have the `entries` from entries[l] to entries[l + 1]. Its `starts`, those from offsets[l] to
    offsets[l + 1], are a table (B + 1, lines), counted from entries[l]: block b of a line reaches from starts[b, line]
    to starts[b + 1, line]. A block is a range of the units at the other end; there is one, or so many that the rows of
    one stay in the nearest cache.
    """

    offsets: Ints  # (L + 1,)
    starts: Ints
    entries: Ints  # (L + 1,)
    others: Indices  # the unit at the other end of the weight
    positions: Indices  # where the weight stands among the layer's; empty where that is the order of the lines


class Layout(NamedTuple):
    """Where the layers lie in the flat parameter vector and in a stack of activations.

    Layer l maps `sizes[l]` inputs to `sizes[l + 1]` outputs. Its stored weights start at `weights[l]` of the parameter
    vector: all of (O, I) in C order, or, if it is `sparse`, the live ones in that order. Its O biases start at
    `biases[l]`; all biases come after all weights, so `biases[0]` is W. Its output occupies the rows from `rows[l]` to
    `rows[l + 1]` of the stack. `activation` is the code of the hidden layers' activation; the output layer has none,
    because losses are computed from logits.

    Level l is the inputs of layer l, level L the outputs. The `units` of level l that are computed are those from
    levels[l] to levels[l + 1]: those from which a path of live weights leads to an output. Rows of others are never
    written and never read. `outputs` and `inputs` have the sparse layers' weights by output and by input unit, the
    lines being these units; the first layer, whose inputs need no gradient, has none by input.
    """

    sizes: Ints  # (L + 1,)
    weights: Ints  # (L + 1,)
    biases: Ints  # (L + 1,)
    rows: Ints  # (L + 1,)
    activation: int
    sparse: Bytes  # (L,)
    levels: Ints  # (L + 2,)
    units: Indices
    blocks: Indices  # of 16 inputs in which one is read
    outputs: Lines
    inputs: Lines


class Parameters(NamedTuple):
    """The parameters and all that training keeps beside each of them: vectors of length P."""

    values: Floats
    live: Bytes  # 1: trained; 0: pruned, and value, velocity and square are exactly 0. Biases are always live.
    gradient: Floats  # begins as 0: that of a weight on no path to an output is never written
    velocity: Floats  # SGD's momentum, Adam's first moment
    square: Floats  # Adam's second moment; empty for SGD


class Samples(NamedTuple):
    """The training data. Of `labels` and `targets` the loss reads one; the other is empty."""

    x: Floats  # (N, F)
    labels: Ints  # (N,) classes, for softmax cross-entropy
    targets: Floats  # (N, K), for sigmoid cross-entropy and mean squared error


class Workspace(NamedTuple):
    """Scratch memory of one training run, for the tiles of one batch: one row a tile, its first F * T or rows * T used.

    Rows start on a 64-byte boundary: vectors that straddle two cache lines cost half as much again.
    """

    order: Ints  # (N,) the epoch's order of the samples
    offsets: Ints  # (tiles, 4, 32) where samples begin; see tile.gather
    keep: npt.NDArray[np.float64]  # (levels,) 1 - dropout; the outputs' is 1
    inputs: Floats  # (tiles, F * 64)
    activations: Floats  # (tiles, rows * 64)
    deltas: Floats  # (tiles, rows * 64) gradients with respect to `activations`
    losses: npt.NDArray[np.float64]  # (tiles,) summed over the tile's samples
    hits: Ints  # (tiles,)


class Batch(NamedTuple):
    """The samples of one step: order[start] to order[stop]; tiles hold 64 of them."""

    start: int
    stop: int
    key: np.uint64  # of what is dropped


class Team(NamedTuple):
    """The threads that run a kernel together, and which of them this is."""

    thread: int
    threads: int
    barrier: Ints  # see team.wait


class Update(NamedTuple):
    """What one update of the parameters does, apart from its learning rate."""

    optimizer: int
    momentum: float  # Adam: beta_1
    nesterov: bool
    l1: float
    l2: float


class Training(NamedTuple):
    """The settings of one training run."""

    loss: int
    batch: int
    seed: np.uint64
    update: Update


class Span(NamedTuple):
    """Steps to be made in one call, S of them, and what they came to."""

    rates: npt.NDArray[np.float64]  # (S,) learning rates
    losses: npt.NDArray[np.float64]  # (S,) receive each batch's summed loss and right answers,
    hits: Ints  # (S,) both from before the update
    step: int  # the first step takes batch number `step` modulo the batches of an epoch
    updates: Ints  # (1,) the optimizer's updates so far, counted up by each step; keys what is random
