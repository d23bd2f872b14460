"""The forward pass of a single sample: no tile, and no work for inputs and activations that are 0."""

import numpy as np

from fastprune.kernels.activation import activate_forward
from fastprune.kernels.constants import BYTES, PANELS, WIDE
from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats, Indices
from fastprune.kernels.simd import item, load, load_wide, multiply_add, store


@kernel
def forward_one(
    out: Floats, scratch: Floats, x: Floats, sample: int, structure: Indices, values: Floats, code: int
) -> None:
    """Fill row `sample` of `out` with its logits. out (N, K), x (N, F); `code` is the hidden layers' activation.

    The network is packed into two vectors, because each argument is expensive in such a short call. `structure` holds
    the number of layers L, the sizes of the L + 1 levels, the form of each layer, the features that are read (the
    first level), and what each layer's form needs. `values` holds, layer by layer, the biases, padded to panels, and
    the weights. A panel is as many outputs as 256 bytes hold. `scratch` (three rows of the widest level, padded to
    panels, plus 64 bytes) is overwritten.
    """
    layers = structure[0]
    narrow = BYTES // scratch.itemsize
    panel = WIDE * narrow
    width = (scratch.size - narrow) // 3
    active = scratch[:width].view(np.int32)
    # Start at a 64-byte boundary: a sum that straddles two cache lines is slow to store and reload.
    aligned = width + -(scratch[width:].ctypes.data // scratch.itemsize) % narrow
    at, value = 2 * layers + 2, 0
    for i in range(structure[1]):
        scratch[aligned + i] = item(x, sample * x.shape[1] + item(structure, at + i))
    at += structure[1]
    for layer in range(layers):
        inputs, outputs = structure[1 + layer], structure[2 + layer]
        below, above = aligned + layer % 2 * width, aligned + (layer + 1) % 2 * width
        panels = (outputs + panel - 1) // panel
        # List the inputs that are not 0 first: a branch on each would be mispredicted too often.
        count = 0
        for i in range(inputs):
            active[count] = i
            count += item(scratch, below + i) != 0
        if structure[2 + layers + layer] == PANELS:
            # All weights, panel by panel, input by input.
            weights = value + panels * panel
            for p in range(panels):
                total = load_wide(values, value + p * panel)
                for i in active[:count]:
                    column = load_wide(values, weights + (p * inputs + i) * panel)
                    total = multiply_add(item(scratch, below + i), column, total)
                store(scratch, above + p * panel, total)
            value = weights + panels * inputs * panel
        else:
            # For each input, the 64-byte blocks of outputs with a live weight: I + 1 pointers, then first outputs.
            for p in range(panels):
                store(scratch, above + p * panel, load_wide(values, value + p * panel))
            value += panels * panel
            blocks = at + inputs + 1
            for i in active[:count]:
                a = item(scratch, below + i)
                for k in range(item(structure, at + i), item(structure, at + i + 1)):
                    row = above + item(structure, blocks + k)
                    store(scratch, row, multiply_add(a, load(values, value + k * narrow), load(scratch, row)))
            number = structure[at + inputs]
            at, value = blocks + number, value + number * narrow
        if layer < layers - 1:
            activate_forward(scratch[above : above + outputs].reshape(1, outputs), 0, code)
        else:
            for k in range(outputs):
                out[sample, k] = scratch[above + k]
