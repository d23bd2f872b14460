"""The rule by which a layer runs dense or sparse: does it choose the faster way? See fastprune/storage.py.

A layer of each shape stands between two small ones, and is trained with it dense, and sparse.
"""

import numpy as np
import pytest
from harness import BATCH, compare, noise, stepper, trainer_of

import fastprune as fp
from fastprune.blas import one_blas_thread
from fastprune.storage import runs_sparse

SHAPES = [(784, 300), (300, 100), (1024, 1024), (4096, 1024), (1024, 64), (1024, 16), (100, 10)]


@pytest.mark.parametrize("density", [1, 0.8, 0.65, 0.55, 0.4])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_rule(benchmark, shape, density):
    fan_in, fan_out = shape
    live = round(density * fan_in * fan_out)
    chosen = "sparse" if runs_sparse(fan_in, fan_out, live) else "dense"
    x, y = noise(BATCH * 8, 8, 10)
    calls = {}
    for execution in ("dense", "sparse"):
        trainer = trainer_of(fp.MLP([8, fan_in, fan_out, 10], execution=["dense", execution, "dense"]))
        mask = np.random.default_rng(0).permutation(fan_in * fan_out).reshape(fan_out, fan_in) < live
        fp.Pruner(trainer).apply([None, mask, None])
        calls[execution] = stepper(trainer, x, y)
    ours = calls.pop(chosen)
    (other,) = calls
    with one_blas_thread():
        compare(
            benchmark,
            "dense or sparse",
            f"{fan_in}-{fan_out}, density {density:g}",
            ours,
            {f"fastprune, {other}": calls[other]},
            repeats=ours.steps,
            rounds=3,
        )
