"""One sample at a time: no tile, and no work for inputs and activations that are 0."""

from fastprune.kernels.activation import activate_forward
from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats, Indices


@kernel
def forward_one(
    out: Floats, scratch: Floats, x: Floats, sample: int, structure: Indices, values: Floats, activation: int
) -> None:
    """Fill row `sample` of `out` with its logits. out (N, K), x (N, F).

    A network in two vectors, each of few arguments being costly in so short a call. `structure`: the number of layers
    L; the sizes of the L + 1 levels; for each layer, I + 1 pointers, then the outputs of its weights input by input.
    `values`: for each layer, its O biases, then its weights in that order. `scratch` (twice the widest level) is
    overwritten.
    """
    layers = structure[0]
    width = scratch.size // 2
    pointers, value = layers + 2, 0
    for i in range(structure[1]):
        scratch[i] = x[sample, i]
    for layer in range(layers):
        inputs, outputs = structure[1 + layer], structure[2 + layer]
        below, above = layer % 2 * width, (layer + 1) % 2 * width
        for o in range(outputs):
            scratch[above + o] = values[value + o]
        value += outputs
        first = pointers + inputs + 1
        for i in range(inputs):
            a = scratch[below + i]
            if a != 0:
                for k in range(structure[pointers + i], structure[pointers + i + 1]):
                    scratch[above + structure[first + k]] += a * values[value + k]
        weights = structure[pointers + inputs]
        pointers, value = first + weights, value + weights
        if layer < layers - 1:
            activate_forward(scratch[above : above + outputs].reshape(1, outputs), 0, activation)
        else:
            for k in range(outputs):
                out[sample, k] = scratch[above + k]
