"""What do two threads give? The same network, the same bits, and less time."""

from concurrent.futures import ThreadPoolExecutor

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
    np.testing.assert_array_equal(first.network.state.values, second.network.state.values)

    def side_by_side():
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(apart)
            one()
            other.result()

    apart = stepper(pruned(trainer, density), x, y)
    with one_blas_thread():
        ratios = compare(
            benchmark,
            "two threads",
            f"step of {'-'.join(map(str, sizes))}, density {density:g}",
            two,
            # What the machine can give: two separate trainings at once, which is twice the work.
            {"fastprune, one thread": one, "two trainings side by side": side_by_side},
            threads=2,
            repeats=one.steps,
        )
    ideal = 2 * ratios["fastprune, one thread"] / ratios["two trainings side by side"]
    benchmark.extra_info["notes"]["two trainings side by side have this times the pace of one"] = round(ideal, 2)
