"""What do two threads give? The same network, the same bits, and less time."""

import numpy as np
import pytest
from harness import BATCH, compare, mnist, pruned, stepper, trainer_of

import fastprune as fp
from fastprune.blas import one_blas_thread


@pytest.mark.parametrize("density", [1, 0.1, 0.02])
@pytest.mark.parametrize(
    "sizes", [(784, 300, 100, 10), (784, 1024, 1024, 10)], ids=lambda sizes: "-".join(map(str, sizes))
)
def test_two_threads(benchmark, sizes, density):
    x, y = mnist(BATCH * 60)
    trainer = trainer_of(fp.MLP(sizes))
    trainer.fit(x, y, 1)
    first, second = pruned(trainer, density), pruned(trainer, density)
    one, two = stepper(first, x, y), stepper(second, x, y, threads=2)
    one()
    two()
    np.testing.assert_array_equal(first.network.values, second.network.values)
    with one_blas_thread():
        compare(
            benchmark,
            "two threads",
            f"step of {'-'.join(map(str, sizes))}, density {density:g}",
            two,
            {"fastprune, one thread": one},
            threads=2,
            repeats=one.steps,
        )
