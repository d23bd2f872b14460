"""How does a step's cost grow: with live weights, batch, width, layers, and threads? One thread but for the last.

`bench/growth.py` draws what is recorded here and in test_memory.py.
"""

import os

import pytest
from harness import BATCH, compare, mnist, noise, pruned, stepper, trainer_of

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
        live=live,
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
        batch=batch,
    )


@pytest.mark.parametrize("width", [64, 256, 1024, 4096, 16384, 65536, 262144])
def test_width(benchmark, width):
    """Against a quarter of the width: 0.25 is in proportion; below, the activations have left a cache.

    24 live weights a unit, two thirds of them in the first layer. A tile of activations has 256 bytes a unit.
    """

    def steps_of(units):
        x, y = noise(BATCH * 2, units, 10)
        network = fp.MLP([units, units, 10], density=24 / (units + 10), execution="sparse")
        return network.live_weights, stepper(trainer_of(network), x, y)

    (live, ours), (_, quarter) = steps_of(width), steps_of(width // 4)
    compare(
        benchmark,
        "width",
        f"{width}-{width}-10, {live:,} live",
        ours,
        {"a quarter of the width": quarter},
        repeats=ours.steps,
        width=width,
        live=live,
    )


@pytest.mark.parametrize("layers", [1, 2, 4, 8])
def test_layers(benchmark, layers):
    """Against twice the hidden layers: 2 is in proportion, less the first layer, whose inputs need no gradient."""
    x, y = mnist(BATCH * 10)

    def steps_of(hidden):
        return stepper(trainer_of(fp.MLP([784, *[256] * hidden, 10], density=0.1)), x, y)

    ours = steps_of(layers)
    compare(
        benchmark,
        "layers",
        f"784-256-...-10, density 0.1, {layers} hidden",
        ours,
        {"twice the hidden layers": steps_of(2 * layers)},
        repeats=ours.steps,
        layers=layers,
    )


@pytest.mark.parametrize("threads", range(2, os.cpu_count() + 1))
def test_threads(benchmark, trained, threads):
    """Against one thread: as many times as there are threads is ideal."""
    trainer, x, y = trained
    one, many = pruned(trainer, 0.1), pruned(trainer, 0.1)
    calls = stepper(one, x[:2560], y[:2560]), stepper(many, x[:2560], y[:2560], threads=threads)
    compare(
        benchmark,
        "threads",
        f"784-1024-1024-10, density 0.1, {threads} threads",
        calls[1],
        {"one thread": calls[0]},
        threads=threads,
        repeats=calls[0].steps,
    )
