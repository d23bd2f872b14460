"""How does a step's cost grow with the live weights, and with the batch? 784-1024-1024-10, one thread."""

import pytest
from harness import compare, mnist, pruned, stepper, trainer_of

import fastprune as fp

SIZES = (784, 1024, 1024, 10)


@pytest.fixture(scope="module")
def trained():
    x, y = mnist(12800)
    trainer = trainer_of(fp.MLP(SIZES))
    trainer.fit(x, y, 1)
    return trainer, x, y


@pytest.mark.parametrize("density", [0.32, 0.16, 0.08, 0.04, 0.02, 0.01, 0.005])
def test_live_weights(benchmark, trained, density):
    """Against the same step at twice the density: 2 is in proportion, 1 is no gain."""
    trainer, x, y = trained
    less, more = pruned(trainer, density), pruned(trainer, 2 * density)
    calls = [stepper(one, x[:2560], y[:2560]) for one in (less, more)]
    live = less.network.live_weights
    compare(
        benchmark,
        "live weights",
        f"784-1024-1024-10, density {density:g}: {live:,} live",
        calls[0],
        {"twice the density": calls[1]},
        repeats=calls[0].steps,
    )


@pytest.mark.parametrize("batch", [16, 32, 64, 100, 128, 256, 512])
def test_batch(benchmark, trained, batch):
    """Against a step of twice the batch: 2 is in proportion; below, small batches are dear."""
    trainer, x, y = trained
    one, other = pruned(trainer, 0.1), pruned(trainer, 0.1)
    one.batch_size, other.batch_size = batch, 2 * batch
    calls = stepper(one, x[: 8 * batch], y[: 8 * batch]), stepper(other, x[: 16 * batch], y[: 16 * batch])
    compare(
        benchmark,
        "batch",
        f"784-1024-1024-10, density 0.1, batch {batch}",
        calls[0],
        {"twice the batch": calls[1]},
        repeats=calls[0].steps,
    )
