"""Whole passes: many training steps in one call, and the forward pass over any number of samples.

All threads of a team run the same code. Each does its share of every pass, and waits for the others before a pass that
reads what they write. The operands of each result and their order never depend on the shares.
"""

import math

import numpy as np

from fastprune.kernels.activation import activate_backward, activate_forward, dropout
from fastprune.kernels.constants import DROPOUT, FEW_OUTPUTS, LANES, SHUFFLE, STEP
from fastprune.kernels.jit import inner_kernel, kernel
from fastprune.kernels.layout import (
    Array,
    Batch,
    Features,
    Floats,
    Indices,
    Ints,
    Layout,
    Parameters,
    Samples,
    Span,
    Team,
    Training,
    Update,
    Workspace,
)
from fastprune.kernels.linear import (
    bias_gradient,
    dense_forward,
    dense_input_gradient,
    dense_weight_gradient,
    fill_row,
    sparse_product,
    sparse_weight_gradient,
)
from fastprune.kernels.loss import loss_and_gradient
from fastprune.kernels.random import derive, shuffle
from fastprune.kernels.simd import item
from fastprune.kernels.team import share, wait
from fastprune.kernels.tile import as_tile, gather, gather_sparse, lanes_for
from fastprune.kernels.update import share_gradient, share_update, update_range, update_step

# Rows of a dense product that are never divided. On an AMD EPYC (Zen 3), dense steps take 1.01 to 1.02 times as long
# with 256 on one thread, and 1.04 to 1.12 times on two, where 784 rows make three chunks. With 512 they make one:
# 784-300-100-10 then gains nothing from a second thread's share of the first layer's gradient, and takes 1.25 times.
_CHUNK = 384

# Most tiles of a batch for `step_first_layer`: one block of inputs of all tiles has to stay in the second-level cache.
_FEW_TILES = 16

# Fixed cost of a sparse line, in weights, for sharing lines among threads. The value hardly matters: 0, 2 and 32 take
# 0.94 to 1.03 of a step's time (AMD EPYC, two threads, densities 0.1 and 0.02), within the noise.
_LINE = 8


@inner_kernel
def tiles_of(batch: Batch) -> int:
    """Number of tiles of a batch."""
    return (batch.stop - batch.start + LANES - 1) // LANES


@inner_kernel
def lanes_of(batch: Batch, tile: int) -> int:
    """Lanes of tile number `tile` of a batch."""
    return lanes_for(min(LANES, batch.stop - batch.start - tile * LANES))


@inner_kernel
def segment(array: Array, bounds: Ints, index: int) -> Array:
    """View of segment number `index` of a vector divided at `bounds`."""
    return array[bounds[index] : bounds[index + 1]]


@inner_kernel
def rows_of(stack: Floats, rows: Ints, level: int, lanes: int) -> Floats:
    """View of a level's rows (units, lanes) in one tile's row of a workspace; level 1 is the first layer's output."""
    first, last = rows[level - 1], rows[level]
    return stack[first * lanes : last * lanes].reshape(last - first, lanes)


@inner_kernel
def as_table(starts: Ints, lines: int) -> Ints:
    """View of a sparse layer's `starts` as a table (B + 1, lines)."""
    return starts.reshape(starts.size // max(lines, 1), lines)


@inner_kernel
def chunks_of(rows: int) -> int:
    """Number of chunks of a dense product with `rows` rows."""
    return max(1, rows // _CHUNK)


@inner_kernel
def work_of(starts: Ints) -> int:
    """Total cost of a sparse layer's lines, in weights."""
    lines = starts.shape[1]
    return 0 if lines == 0 else starts[-1, -1] - starts[0, 0] + _LINE * lines


@inner_kernel
def line_at(starts: Ints, work: int) -> int:
    """The first line such that the lines before it cost at least `work`."""
    low, high = 0, starts.shape[1]
    while low < high:
        middle = (low + high) // 2
        if starts[0, middle] - starts[0, 0] + _LINE * middle < work:
            low = middle + 1
        else:
            high = middle
    return low


@inner_kernel
def gather_batch(workspace: Workspace, layout: Layout, features: Features, batch: Batch, team: Team) -> None:
    """Fill the batch's input tiles and apply input dropout. The unit of work is sixteen lanes."""
    tiles = tiles_of(batch)
    lanes = (tiles - 1) * LANES + lanes_of(batch, tiles - 1)
    low, high = share(lanes, STEP, team)
    keep, key = workspace.keep[0], derive(batch.key, 0)
    for tile in range(low // LANES, (high + LANES - 1) // LANES):
        start = batch.start + tile * LANES
        first, last = max(low - tile * LANES, 0), min(high - tile * LANES, LANES)
        inputs = as_tile(workspace.inputs[tile], layout.sizes[0], lanes_of(batch, tile))
        stop = min(start + LANES, batch.stop)
        if features.starts.size > 0:
            gather_sparse(inputs, features, workspace.order, layout.blocks, start, stop, first, last)
        else:
            x, offsets = features.dense, workspace.offsets[tile]
            gather(inputs, offsets, x, workspace.order, layout.blocks, start, stop, first, last)
        if keep < 1:
            for unit in segment(layout.units, layout.levels, 0):
                dropout(inputs, unit, key, tile * LANES, first, last, keep)


@inner_kernel
def begin_rows(out: Floats, units: Indices, bias: Floats) -> None:
    """Fill the rows `units` of out (O, T) with their biases."""
    for unit in units:
        fill_row(out, unit, bias[unit])


@inner_kernel
def finish_rows(
    out: Floats, units: Indices, workspace: Workspace, layout: Layout, layer: int, batch: Batch, tile: int
) -> None:
    """Apply the layer's activation and dropout to the rows `units` of its output in one tile."""
    keep = workspace.keep[layer + 1]
    if layer < layout.sparse.size - 1:
        for unit in units:
            activate_forward(out, unit, layout.activation)
            if keep < 1:
                dropout(out, unit, derive(batch.key, layer + 1), tile * LANES, 0, out.shape[1], keep)


@inner_kernel
def forward_layer(workspace: Workspace, layout: Layout, layer: int, values: Floats, batch: Batch, team: Team) -> None:
    """Fill the layer's rows of `activations`, dropout applied."""
    sparse = layout.sparse[layer] == 1
    units, bias = segment(layout.units, layout.levels, layer + 1), segment(values, layout.biases, layer)
    starts = as_table(segment(layout.outputs.starts, layout.outputs.offsets, layer), units.size)
    work = work_of(starts) if sparse else chunks_of(bias.size)
    # Line up the work of all tiles and cut it into equal parts, so that few tiles leave no thread idle.
    low, high = share(tiles_of(batch) * work, 1, team)
    for tile in range(tiles_of(batch)):
        start, stop = max(low - tile * work, 0), min(high - tile * work, work)
        if start >= stop:
            continue
        lanes = lanes_of(batch, tile)
        if layer == 0:
            below = as_tile(workspace.inputs[tile], layout.sizes[0], lanes)
        else:
            below = rows_of(workspace.activations[tile], layout.rows, layer, lanes)
        out = rows_of(workspace.activations[tile], layout.rows, layer + 1, lanes)
        if sparse:
            first, last = line_at(starts, start), line_at(starts, stop)
            begin_rows(out, units[first:last], bias)
            weights, others = (
                segment(values, layout.weights, layer),
                segment(layout.outputs.others, layout.outputs.entries, layer),
            )
            sparse_product(out, below, weights, others, starts, units, first, last)
        else:
            first, last = start * bias.size // work, stop * bias.size // work
            matrix = segment(values, layout.weights, layer).reshape(layout.sizes[layer + 1], layout.sizes[layer])
            for chunk in range(start, stop):
                dense_forward(out, below, matrix, bias, chunk * bias.size // work, (chunk + 1) * bias.size // work)
        finish_rows(out, units[first:last], workspace, layout, layer, batch, tile)


@inner_kernel
def loss_of_batch(workspace: Workspace, layout: Layout, samples: Samples, batch: Batch, loss: int, team: Team) -> None:
    """Fill the output rows of `deltas`, and each tile's entry of `losses` and `hits`. The unit of work is a tile."""
    level = layout.sizes.size - 1
    scale = 1 / (batch.stop - batch.start)
    for tile in range(team.thread, tiles_of(batch), team.threads):
        lanes = lanes_of(batch, tile)
        start = batch.start + tile * LANES
        workspace.losses[tile], workspace.hits[tile] = loss_and_gradient(
            rows_of(workspace.deltas[tile], layout.rows, level, lanes),
            rows_of(workspace.activations[tile], layout.rows, level, lanes),
            samples,
            workspace.order,
            start,
            min(start + LANES, batch.stop),
            scale,
            loss,
        )


@inner_kernel
def mirror_values(workspace: Workspace, layout: Layout, values: Floats, team: Team) -> None:
    """Copy the values of sparse layers into the order in which `input_gradient` reads them, once for all tiles."""
    for layer in range(1, layout.sparse.size):
        mirrored = segment(workspace.mirrored, layout.inputs.entries, layer)
        positions = segment(layout.inputs.positions, layout.inputs.entries, layer)
        weights = segment(values, layout.weights, layer)
        first, last = share(positions.size, STEP, team)
        for k in range(first, last):
            mirrored[k] = item(weights, item(positions, k))


@inner_kernel
def weight_gradient(
    workspace: Workspace, layout: Layout, layer: int, gradient: Floats, batch: Batch, team: Team
) -> None:
    """Fill the layer's weights in `gradient` (P,) from its rows of `deltas` and its inputs."""
    sparse = layout.sparse[layer] == 1
    units = segment(layout.units, layout.levels, layer + 1)
    starts, others = (
        as_table(segment(layout.outputs.starts, layout.outputs.offsets, layer), units.size),
        segment(layout.outputs.others, layout.outputs.entries, layer),
    )
    chunks = chunks_of(layout.sizes[layer])
    low, high = share(others.size, 1, team) if sparse else share(chunks, 1, team)
    for tile in range(tiles_of(batch)):
        lanes = lanes_of(batch, tile)
        if layer == 0:
            below = as_tile(workspace.inputs[tile], layout.sizes[0], lanes)
        else:
            below = rows_of(workspace.activations[tile], layout.rows, layer, lanes)
        dout = rows_of(workspace.deltas[tile], layout.rows, layer + 1, lanes)
        if sparse:
            dweights = segment(gradient, layout.weights, layer)
            sparse_weight_gradient(dweights, dout, below, others, starts, units, low, high, tile > 0)
        else:
            dmatrix = segment(gradient, layout.weights, layer).reshape(layout.sizes[layer + 1], layout.sizes[layer])
            inputs = layout.sizes[layer]
            for chunk in range(low, high):
                dense_weight_gradient(
                    dmatrix, dout, below, chunk * inputs // chunks, (chunk + 1) * inputs // chunks, tile > 0
                )


@inner_kernel
def biases_gradient(
    workspace: Workspace, layout: Layout, layer: int, gradient: Floats, batch: Batch, team: Team
) -> None:
    """Fill the layer's biases in `gradient` (P,) from its rows of `deltas`."""
    units = segment(layout.units, layout.levels, layer + 1)
    first, last = share(units.size, 1, team)
    for tile in range(tiles_of(batch)):
        dout = rows_of(workspace.deltas[tile], layout.rows, layer + 1, lanes_of(batch, tile))
        bias_gradient(segment(gradient, layout.biases, layer), dout, units, first, last, tile > 0)


@inner_kernel
def input_gradient(workspace: Workspace, layout: Layout, layer: int, values: Floats, batch: Batch, team: Team) -> None:
    """Fill the rows of `deltas` of the layer below (gradient before its activation) from the layer's own rows."""
    sparse, keep = layout.sparse[layer] == 1, workspace.keep[layer]
    units = segment(layout.units, layout.levels, layer)
    starts = as_table(segment(layout.inputs.starts, layout.inputs.offsets, layer), units.size)
    inputs = layout.sizes[layer]
    work = work_of(starts) if sparse else chunks_of(inputs)
    low, high = share(tiles_of(batch) * work, 1, team)
    for tile in range(tiles_of(batch)):
        start, stop = max(low - tile * work, 0), min(high - tile * work, work)
        if start >= stop:
            continue
        lanes = lanes_of(batch, tile)
        dout = rows_of(workspace.deltas[tile], layout.rows, layer + 1, lanes)
        dbelow = rows_of(workspace.deltas[tile], layout.rows, layer, lanes)
        if sparse:
            first, last = line_at(starts, start), line_at(starts, stop)
            for unit in units[first:last]:
                fill_row(dbelow, unit, 0)
            weights, others = (
                segment(workspace.mirrored, layout.inputs.entries, layer),
                segment(layout.inputs.others, layout.inputs.entries, layer),
            )
            sparse_product(dbelow, dout, weights, others, starts, units, first, last)
        else:
            first, last = start * inputs // work, stop * inputs // work
            matrix = segment(values, layout.weights, layer).reshape(layout.sizes[layer + 1], layout.sizes[layer])
            for chunk in range(start, stop):
                dense_input_gradient(dbelow, dout, matrix, chunk * inputs // work, (chunk + 1) * inputs // work)
        below = rows_of(workspace.activations[tile], layout.rows, layer, lanes)
        for unit in units[first:last]:
            if keep < 1:
                dropout(dbelow, unit, derive(batch.key, layer), tile * LANES, 0, lanes, keep)
            activate_backward(dbelow, below, unit, layout.activation, keep)


@inner_kernel
def reads_once(workspace: Workspace, layout: Layout, batch: Batch) -> bool:
    """Whether `step_first_layer` does the first layer's share of a step whose batch is the same in each step.

    The inputs have to be what they were, the layer walked in two blocks or more, and its rows few, or they would be
    read more often than the inputs less. All units have to be computed: weights of the others only decay.
    """
    lines, starts = layout.levels[2] - layout.levels[1], layout.outputs.offsets[1]
    return (
        workspace.keep[0] == 1
        and layout.sparse[0] == 1
        and starts > 2 * lines
        and lines <= FEW_OUTPUTS
        and lines == layout.sizes[1]
        and tiles_of(batch) <= _FEW_TILES
    )


@inner_kernel
def step_first_layer(
    parameters: Parameters,
    workspace: Workspace,
    layout: Layout,
    batch: Batch,
    following: Batch,
    update: Update,
    rate: float,
    step: int,
    team: Team,
) -> None:
    """The gradient of the first layer's weights, their update, and the layer's forward pass of the following step.

    All three are done for one block of inputs after the other, so that a step reads its inputs from memory once.
    """
    units = segment(layout.units, layout.levels, 1)
    starts = as_table(segment(layout.outputs.starts, layout.outputs.offsets, 0), units.size)
    others = segment(layout.outputs.others, layout.outputs.entries, 0)
    bias, values = segment(parameters.values, layout.biases, 0), segment(parameters.values, layout.weights, 0)
    gradient = segment(parameters.gradient, layout.weights, 0)
    low, high = share(work_of(starts), 1, team)
    first, last = line_at(starts, low), line_at(starts, high)
    if first == last:
        return
    low, high = starts[0, first], starts[-1, last - 1]
    tiles, level = tiles_of(batch), 1
    for tile in range(tiles):
        out = rows_of(workspace.activations[tile], layout.rows, level, lanes_of(batch, tile))
        begin_rows(out, units[first:last], bias)
    for block in range(starts.shape[0] - 1):
        part = starts[block : block + 2]
        for tile in range(tiles):
            lanes = lanes_of(batch, tile)
            dout = rows_of(workspace.deltas[tile], layout.rows, level, lanes)
            inputs = as_tile(workspace.inputs[tile], layout.sizes[0], lanes)
            sparse_weight_gradient(gradient, dout, inputs, others, part, units, low, high, tile > 0)
        for line in range(first, last):
            update_range(parameters, part[0, line], part[1, line], True, update, rate, step)
        for tile in range(tiles):
            lanes = lanes_of(batch, tile)
            out = rows_of(workspace.activations[tile], layout.rows, level, lanes)
            inputs = as_tile(workspace.inputs[tile], layout.sizes[0], lanes)
            sparse_product(out, inputs, values, others, part, units, first, last)
    for tile in range(tiles):
        out = rows_of(workspace.activations[tile], layout.rows, level, lanes_of(batch, tile))
        finish_rows(out, units[first:last], workspace, layout, 0, following, tile)


@inner_kernel
def forward_batch(
    workspace: Workspace,
    layout: Layout,
    values: Floats,
    samples: Samples,
    batch: Batch,
    loss: int,
    first: int,
    team: Team,
) -> tuple[float, int]:
    """Fill `activations`, `mirrored` and the output rows of `deltas` from gathered tiles; return loss sum and hits.

    The outputs of layers before `first` are there already.
    """
    for layer in range(first, layout.sparse.size):
        forward_layer(workspace, layout, layer, values, batch, team)
        wait(team)
    mirror_values(workspace, layout, values, team)
    loss_of_batch(workspace, layout, samples, batch, loss, team)
    wait(team)
    total, hits = 0.0, 0
    for tile in range(tiles_of(batch)):
        total += workspace.losses[tile]
        hits += workspace.hits[tile]
    return total, hits


@inner_kernel
def backward_batch(
    gradient: Floats, workspace: Workspace, layout: Layout, values: Floats, batch: Batch, first: int, team: Team
) -> None:
    """After `forward_batch`, fill `gradient` (P,): the mean loss differentiated by each stored parameter.

    The weights of layers before `first` are left out.
    """
    for layer in range(layout.sparse.size - 1, -1, -1):
        if layer >= first:
            weight_gradient(workspace, layout, layer, gradient, batch, team)
        biases_gradient(workspace, layout, layer, gradient, batch, team)
        if layer > 0:
            input_gradient(workspace, layout, layer, values, batch, team)
        wait(team)


@kernel
def batch_gradient(
    gradient: Floats, workspace: Workspace, layout: Layout, values: Floats, samples: Samples, loss: int, team: Team
) -> bool:
    """Fill `gradient` (P,): the mean loss over all samples differentiated by each stored parameter, live or not.

    The workspace needs a tile for each 64 samples. Returns False if another thread of the team never came.
    """
    batch = Batch(0, samples.weights.size, np.uint64(0))
    if not wait(team):
        return False
    gather_batch(workspace, layout, samples.features, batch, team)
    wait(team)
    forward_batch(workspace, layout, values, samples, batch, loss, 0, team)
    backward_batch(gradient, workspace, layout, values, batch, 0, team)
    return True


@kernel
def train_steps(
    parameters: Parameters,
    workspace: Workspace,
    layout: Layout,
    samples: Samples,
    training: Training,
    span: Span,
    team: Team,
) -> int:
    """Run one step for each of the span's learning rates and return the number of steps done.

    The call ends early, before the step's update, if a loss is not finite. It does no step if another thread of the
    team never came.
    """
    updates = span.updates[0]  # all threads read it before one can increment it
    if not wait(team):
        return 0
    count = samples.weights.size
    batches = (count + training.batch - 1) // training.batch
    shuffles, drops = derive(training.seed, SHUFFLE), derive(training.seed, DROPOUT)
    for s in range(span.rates.size):
        number = (span.step + s) % batches
        if batches > 1 and (s == 0 or number == 0):
            if team.thread == 0:
                shuffle(workspace.order, derive(shuffles, updates + s - number))
            wait(team)
        start = number * training.batch
        stop = min(start + training.batch, count)
        batch = Batch(start, stop, derive(drops, updates + s))
        # A batch of all samples is the same in each step, and stays in the workspace from one call to the next.
        fresh = batches > 1 or workspace.keep[0] < 1 or span.step + s == 0
        if fresh:
            gather_batch(workspace, layout, samples.features, batch, team)
            wait(team)
        shared = parameters.groups.size > 0
        first = 1 if batches == 1 and not shared and reads_once(workspace, layout, batch) else 0
        begun = 0 if fresh else first
        loss, hits = forward_batch(workspace, layout, parameters.values, samples, batch, training.loss, begun, team)
        if team.thread == 0:
            span.losses[s], span.hits[s] = loss, hits
        if not math.isfinite(loss):
            return s
        backward_batch(parameters.gradient, workspace, layout, parameters.values, batch, first, team)
        if shared:
            if team.thread == 0:
                share_gradient(parameters)
            wait(team)
        rate = span.rates[s]
        update_step(parameters, layout.weights[first], layout.biases[0], training.update, rate, updates + s, team)
        if first == 1:
            wait(team)
            following = Batch(start, stop, derive(drops, updates + s + 1))
            step_first_layer(parameters, workspace, layout, batch, following, training.update, rate, updates + s, team)
        if shared:
            wait(team)
            if team.thread == 0:
                share_update(parameters)
        if team.thread == 0:
            span.updates[0] = updates + s + 1
        wait(team)
    return span.rates.size


@kernel
def forward_samples(
    out: Floats, workspace: Workspace, features: Features, values: Floats, layout: Layout, team: Team
) -> None:
    """Fill out (N, K) with the logits. The workspace has one tile and belongs to this thread alone."""
    alone = Team(0, 1, team.barrier)
    first, last = share(out.shape[0], LANES, team)
    for start in range(first, last, LANES):
        batch = Batch(start, min(start + LANES, last), np.uint64(0))
        gather_batch(workspace, layout, features, batch, alone)
        for layer in range(layout.sparse.size):
            forward_layer(workspace, layout, layer, values, batch, alone)
        output = rows_of(workspace.activations[0], layout.rows, layout.sizes.size - 1, lanes_of(batch, 0))
        for t in range(batch.stop - batch.start):
            for k in range(out.shape[1]):
                out[start + t, k] = output[k, t]
