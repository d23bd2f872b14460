"""Wide inputs, few outputs, full batch: the network of the NumPy programs that fastprune takes after.

10800-5-4-3-2-1 with a sigmoid output, 181 samples, against the same loop in NumPy: in float64, as these programs have
it, and in float32.
"""

import numpy as np
import peers
import pytest
from harness import check_same_steps, compare, layer_densities, pruned, stepper, trainer_of

import fastprune as fp
from fastprune.blas import one_blas_thread

SIZES, SAMPLES, STEPS = [10800, 5, 4, 3, 2, 1], 181, 20


def against_numpy(benchmark, density):
    data = fp.make_binary_images(seed=0)
    x, y = data.x_train[:SAMPLES].astype(np.float32), data.y_train[:SAMPLES]
    assert x.shape == (SAMPLES, SIZES[0])
    network = fp.MLP(SIZES, loss="sigmoid_cross_entropy", initialization="glorot", seed=1)
    trainer = pruned(trainer_of(network), density)
    trainer.batch_size = None
    everything = [slice(None)] * STEPS  # in place, as these programs have it
    rivals = {f"NumPy, {kind.__name__}": peers.NumPy(trainer.network, kind) for kind in (np.float64, np.float32)}
    for rival in rivals.values():
        check_same_steps(trainer, rival, x, y, batch=SAMPLES, steps=1)
    samples = {name: x.astype(rival.b[0].dtype) for name, rival in rivals.items()}
    calls = {name: lambda name=name: rivals[name].steps(samples[name], y, everything) for name in rivals}
    with one_blas_thread():
        return compare(
            benchmark,
            "full-batch step",
            f"{'-'.join(map(str, SIZES))}, {SAMPLES} samples, density {density:g}",
            stepper(trainer, x, y),
            calls,
            repeats=STEPS,
            densities=layer_densities(trainer.network),
            execution=trainer.network.execution,
        )


@pytest.mark.parametrize("density", [1, 0.5, 0.2, 0.14, 0.1, 0.05, 0.02, 0.01])
def test_full_batch(benchmark, density):
    against_numpy(benchmark, density)


@pytest.mark.quick
# 0.6 of the least that a processor showed: 2.18 and 4.62, an Intel server with AVX-512. (AMD: at least 2.3 and 8.)
@pytest.mark.parametrize(("density", "floor"), [(1, 1.3), (0.14, 2.8)])
def test_quick_full_batch(benchmark, density, floor):
    assert against_numpy(benchmark, density)["NumPy, float64"] >= floor
