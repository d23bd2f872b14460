"""All compiled functions of fastprune, and nothing else: loops over numbers, in place, without allocation.

Letters used in all files:

    N  samples          T  lanes of a tile        L  layers of weights
    I  fan-in           O  fan-out                W  stored weights
    F  input features   K  outputs of the network P  parameters: W weights, then the biases

A tile holds up to 64 samples feature-major, shape (features, T): each feature is a contiguous row of lanes. The last
tile of a batch may hold fewer samples than lanes; the spare lanes hold zeros and get a zero gradient.

Signatures list written arrays first, then the upstream gradient, then read arrays, then scalars.

Names are imported from here when they are first used, and Numba with them. Importing Numba and loading a first kernel
takes 0.8 s, NumPy and the rest of fastprune 0.2 s (AMD EPYC); the command of a sweep hands out rounds without it.
"""

from typing import TYPE_CHECKING

from fastprune.lazy import attach

if TYPE_CHECKING:
    from fastprune.kernels.activation import activate_forward as activate_forward
    from fastprune.kernels.coding import code_codes as code_codes
    from fastprune.kernels.coding import code_counts as code_counts
    from fastprune.kernels.coding import code_floats as code_floats
    from fastprune.kernels.coding import code_layer as code_layer
    from fastprune.kernels.coding import code_marks as code_marks
    from fastprune.kernels.coding import code_number as code_number
    from fastprune.kernels.jit import is_compiled as is_compiled
    from fastprune.kernels.loss import loss_and_gradient as loss_and_gradient
    from fastprune.kernels.random import derive as derive
    from fastprune.kernels.random import shuffle as shuffle
    from fastprune.kernels.select import mark_smallest as mark_smallest
    from fastprune.kernels.single import forward_one as forward_one
    from fastprune.kernels.steps import batch_gradient as batch_gradient
    from fastprune.kernels.steps import forward_samples as forward_samples
    from fastprune.kernels.steps import train_steps as train_steps
    from fastprune.kernels.tile import all_finite as all_finite
else:
    _NAMES = {
        "activation": ["activate_forward"],
        "coding": ["code_codes", "code_counts", "code_floats", "code_layer", "code_marks", "code_number"],
        "jit": ["is_compiled"],
        "loss": ["loss_and_gradient"],
        "random": ["derive", "shuffle"],
        "select": ["mark_smallest"],
        "single": ["forward_one"],
        "steps": ["batch_gradient", "forward_samples", "train_steps"],
        "tile": ["all_finite"],
    }
    __getattr__, __dir__ = attach(__name__, _NAMES)
    __all__ = [name for names in _NAMES.values() for name in names]
