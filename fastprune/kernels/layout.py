"""Named tuples that kernels take as arguments, to keep their signatures short."""

from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]
"""float32 or float64; all float arrays of one call have the same dtype."""


Array = TypeVar("Array", Ints, Indices, Floats)


class Lines(NamedTuple):
    """Weights of the sparse layers in the order in which a pass visits them: one line for each unit.

    Layer l owns others[entries[l]:entries[l + 1]]. starts[offsets[l]:offsets[l + 1]] is its table (B + 1, lines),
    counted from entries[l]: block b of a line runs from starts[b, line] to starts[b + 1, line]. A block is a range of
    units at the other end. There is one block, or as many as it takes for the rows of one to stay in a near cache.
    """

    offsets: Ints  # (L + 1,)
    starts: Ints
    entries: Ints  # (L + 1,)
    others: Indices  # unit at the other end of each weight
    positions: Indices  # index of each weight within its layer; empty where lines are stored in that order


class Layout(NamedTuple):
    """Where each layer lies in the flat parameter vector and in a stack of activations.

    Layer l maps `sizes[l]` inputs to `sizes[l + 1]` outputs. Its stored weights start at `weights[l]` of the parameter
    vector: all of (O, I) in C order or, if the layer is `sparse`, only the live ones in that order. Its O biases start
    at `biases[l]`; all biases follow all weights, so `biases[0]` is W. Its output occupies rows `rows[l]` to
    `rows[l + 1]` of the stack. `activation` is the code of the hidden layers' activation; the output layer has none,
    because losses are computed from logits.

    Level l is the inputs of layer l; level L is the outputs. units[levels[l]:levels[l + 1]] are the units of level l
    that are computed: the ones with a path of live weights to an output. Other rows are never written or read.
    `outputs` and `inputs` hold the weights of sparse layers by output and by input unit, one line for each computed
    unit. The first layer is not in `inputs`: its inputs need no gradient.
    """

    sizes: Ints  # (L + 1,)
    weights: Ints  # (L + 1,)
    biases: Ints  # (L + 1,)
    rows: Ints  # (L + 1,)
    activation: int
    sparse: Bytes  # (L,)
    levels: Ints  # (L + 2,)
    units: Indices
    blocks: Indices  # blocks of 16 inputs of which at least one is read
    outputs: Lines
    inputs: Lines


class Parameters(NamedTuple):
    """The parameters and what training keeps for each: vectors of length P."""

    values: Floats
    live: Bytes  # 1: trained; 0: pruned, with value, velocity and square exactly 0. Biases are always live.
    gradient: Floats  # starts as zeros, because weights on no path to an output are never written
    velocity: Floats  # SGD's momentum, Adam's first moment
    square: Floats  # Adam's second moment; empty for SGD
    groups: Indices  # group of each parameter that shares its value, else -1; empty if none does
    firsts: Ints  # (G,) the first parameter of each group
    sums: npt.NDArray[np.float64]  # (G,) scratch memory


class Features(NamedTuple):
    """The features of N samples: in `dense`, or as compressed sparse rows, where `dense` has no columns."""

    dense: Floats  # (N, F) or (N, 0)
    starts: Ints  # (N + 1,) where each sample's nonzero features begin in the two vectors below; empty if dense
    columns: Indices
    values: Floats


class Samples(NamedTuple):
    """The training data. The loss reads either `labels` or `targets`; the other is empty."""

    features: Features
    labels: Ints  # (N,) classes, for softmax cross-entropy
    targets: Floats  # (N, K), for sigmoid cross-entropy and mean squared error
    weights: npt.NDArray[np.float64]  # (N,) factor on each sample's loss, 1 on average over the training set


class Workspace(NamedTuple):
    """Scratch memory of one training run: one row for each tile of a batch; F * T or rows * T elements of it are used.

    If a batch has all samples, `inputs` stay from step to step and from call to call, and so do the outputs of a first
    layer that `steps.step_first_layer` has computed for the following step.

    Rows start on a 64-byte boundary: vectors that straddle two cache lines cost half as much again.
    """

    order: Ints  # (N,) order of the samples in this epoch
    offsets: Ints  # (tiles, 4, 32) where samples begin; see tile.gather
    keep: npt.NDArray[np.float64]  # (levels,) 1 - dropout; 1 for the outputs
    inputs: Floats  # (tiles, F * 64)
    activations: Floats  # (tiles, rows * 64)
    deltas: Floats  # (tiles, rows * 64) gradients with respect to `activations`
    mirrored: Floats  # values of sparse layers in the order of layout.inputs
    losses: npt.NDArray[np.float64]  # (tiles,) sum over the tile's samples
    hits: Ints  # (tiles,) right answers


class Batch(NamedTuple):
    """The samples of one step, order[start:stop], in tiles of 64."""

    start: int
    stop: int
    key: np.uint64  # key of the step's dropout


class Team(NamedTuple):
    """The threads that run a kernel together, and the number of this one."""

    thread: int
    threads: int
    barrier: Ints  # see team.wait


class Update(NamedTuple):
    """Settings of the parameter update, except its learning rate."""

    optimizer: int
    momentum: float  # beta_1 for Adam
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
    """S steps to run in one call, and their results."""

    rates: npt.NDArray[np.float64]  # (S,) learning rates
    losses: npt.NDArray[np.float64]  # (S,) written: summed loss of each batch before its update
    hits: Ints  # (S,) written: right answers of each batch before its update
    step: int  # steps that were run on the workspace before; the next takes batch `step` modulo the epoch's batches
    updates: Ints  # (1,) updates of the optimizer so far, incremented by each step; part of the random keys


class Coder(NamedTuple):
    """A binary arithmetic coder: an interval of 32-bit numbers that each bit narrows."""

    state: Ints  # (5,): bounds of the interval, the number read, place in `data`, whether it writes
    data: Bytes  # what is read, or room for what is written
    squash: Ints  # (4096,): chance in 16 bits by log-odds in units of 1/256, from -2048
    stretch: Ints  # (4096,): the inverse


class Mixer(NamedTuple):
    """Several predictions of a bit, mixed with weights that are learned (logistic mixing, Mahoney 2005)."""

    slots: Ints
    chosen: Ints  # (n,): slot of each prediction; -1 for one that is given as log-odds
    inputs: Ints  # (n,): log-odds of the predictions
    weights: Ints  # (sets, n), in units of 1/65536


class Lattice(NamedTuple):
    """What is known of a layer before its positions."""

    counts: Ints  # (O,): live weights of each row
    live: Ints  # columns with a live weight, ascending
    below: Ints  # (I,): live weights that lead into the unit of each column; zeros for inputs
    period: int  # columns so far apart are neighbours, too
    distinct: int  # number of values; 1 if codes are not stored
