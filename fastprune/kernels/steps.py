"""Whole passes: many training steps in one call, and the forward pass over any number of samples."""

import math

import numpy as np

from fastprune.kernels.activation import activate_backward, activate_forward, dropout
from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats, Ints, Layout, Parameters, Recipe, Samples, Workspace
from fastprune.kernels.linear import dense_forward, dense_input_gradient, dense_weight_gradient
from fastprune.kernels.loss import loss_and_gradient
from fastprune.kernels.random import DROPOUT, SHUFFLE, derive, shuffle
from fastprune.kernels.tile import gather
from fastprune.kernels.update import update_step


@kernel
def layer_weights(values: Floats, layout: Layout, layer: int) -> Floats:
    """View of the layer's weights, (O, I), in a flat vector of length P."""
    flat = values[layout.weights[layer] : layout.weights[layer + 1]]
    return flat.reshape(layout.sizes[layer + 1], layout.sizes[layer])


@kernel
def layer_biases(values: Floats, layout: Layout, layer: int) -> Floats:
    """View of the layer's biases, (O,), in a flat vector of length P."""
    return values[layout.biases[layer] : layout.biases[layer + 1]]


@kernel
def tile_forward(
    activations: Floats, tile: Floats, values: Floats, layout: Layout, key: np.uint64, first: int, keep: float
) -> None:
    """Fill `activations` (rows, T), layer below layer, from `tile` (F, T). With keep = 1 nothing is dropped."""
    layers = layout.sizes.size - 1
    below = tile
    for layer in range(layers):
        out = activations[layout.rows[layer] : layout.rows[layer + 1]]
        dense_forward(out, below, layer_weights(values, layout, layer), layer_biases(values, layout, layer))
        if layer < layers - 1:
            activate_forward(out, layout.activation)
            if keep < 1:
                dropout(out, derive(key, layer), first, keep)
        below = out


@kernel
def tile_backward(
    gradient: Floats,
    workspace: Workspace,
    tile: Floats,
    values: Floats,
    layout: Layout,
    key: np.uint64,
    first: int,
    keep: float,
) -> None:
    """Add this tile's part to `gradient` (P,), or start it where first = 0, from the output layer's rows of `deltas`.

    `activations` are as tile_forward left them; the other rows of `deltas` are overwritten.
    """
    layers = layout.sizes.size - 1
    for layer in range(layers - 1, -1, -1):
        low, high = layout.rows[layer], layout.rows[layer + 1]
        dout = workspace.deltas[low:high]
        if layer < layers - 1:
            if keep < 1:
                dropout(dout, derive(key, layer), first, keep)
            activate_backward(dout, workspace.activations[low:high], layout.activation, keep)
        below = tile if layer == 0 else workspace.activations[layout.rows[layer - 1] : low]
        dense_weight_gradient(
            layer_weights(gradient, layout, layer),
            layer_biases(gradient, layout, layer),
            workspace.products,
            dout,
            below,
            first == 0,
        )
        if layer > 0:
            dtile = workspace.deltas[layout.rows[layer - 1] : low]
            dense_input_gradient(dtile, dout, layer_weights(values, layout, layer))


@kernel
def train_steps(
    losses: Floats,
    hits: Ints,
    parameters: Parameters,
    workspace: Workspace,
    layout: Layout,
    samples: Samples,
    recipe: Recipe,
    rates: Floats,
    step: int,
    updates: int,
) -> int:
    """Run one step for each learning rate in `rates` (S,) and return how many were made.

    They are fewer than S if a loss was not finite, which ends the call before that step's update. `losses`, `hits`
    (S,) receive each batch's summed loss and right answers, both from before the update. The first step takes batch
    number `step` modulo the batches of an epoch; `updates` counts the optimizer's updates before it, and keys what is
    random.
    """
    count = samples.x.shape[0]
    lanes = workspace.inputs.shape[2]
    batches = (count + recipe.batch - 1) // recipe.batch
    keep = 1 - recipe.dropout
    shuffles, drops = derive(recipe.seed, SHUFFLE), derive(recipe.seed, DROPOUT)
    output = workspace.activations[layout.rows[-2] :]
    doutput = workspace.deltas[layout.rows[-2] :]
    for s in range(rates.size):
        batch = (step + s) % batches
        if batches > 1 and (s == 0 or batch == 0):
            shuffle(workspace.order, derive(shuffles, updates + s - batch))
        start = batch * recipe.batch
        stop = min(start + recipe.batch, count)
        loss, right = 0.0, 0
        for first in range(start, stop, lanes):
            last = min(first + lanes, stop)
            tile = workspace.inputs[(first - start) // lanes]
            if batches > 1 or s == 0:  # a batch of all samples is the same at each step
                gather(tile, samples.x, workspace.order, first, last)
            key = derive(drops, updates + s)
            tile_forward(workspace.activations, tile, parameters.values, layout, key, first - start, keep)
            part, correct = loss_and_gradient(
                doutput, output, samples, workspace.order, first, last, 1 / (stop - start), recipe.loss
            )
            loss += part
            right += correct
            tile_backward(parameters.gradient, workspace, tile, parameters.values, layout, key, first - start, keep)
        losses[s], hits[s] = loss, right
        if not math.isfinite(loss):
            return s
        update_step(parameters, layout.biases[0], recipe.update, rates[s], updates + s)
    return rates.size


@kernel
def forward_samples(
    out: Floats, activations: Floats, tile: Floats, x: Floats, order: Ints, values: Floats, layout: Layout
) -> None:
    """out = the logits of all samples. out (N, K), x (N, F); order (N,) = 0 .. N-1; the rest is scratch."""
    count, lanes = x.shape[0], tile.shape[1]
    output = activations[layout.rows[-2] :]
    for first in range(0, count, lanes):
        last = min(first + lanes, count)
        gather(tile, x, order, first, last)
        tile_forward(activations, tile, values, layout, np.uint64(0), 0, 1.0)
        for t in range(last - first):
            for k in range(out.shape[1]):
                out[first + t, k] = output[k, t]
