"""How much memory does retraining take? 4096-4096-1000 at 98 %, the data aside, by Python's own count of allocations.

Against the dense weights, their gradients and their momentum, which training with masks needs at least.
"""

import gc
import itertools
import tracemalloc

import pytest
from harness import BATCH, noise, record, trainer_of

import fastprune as fp

SIZES = (4096, 4096, 1000)


def peak_of(call):
    gc.collect()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_retraining(benchmark):
    x, y = noise(BATCH * 4, SIZES[0], SIZES[-1])
    trainer = trainer_of(fp.MLP(SIZES))
    trainer.fit(x, y, 0)  # compiles
    fp.Pruner(trainer, schedule=[0.98], scope="global").step()
    network = trainer.network
    dense = 3 * 4 * network.total_weights
    state, layout = network.state, network.state.storage.layout
    kept = state.values, state.velocity, state.storage.live, *layout.outputs, *layout.inputs, layout.units
    standing = sum(array.nbytes for array in kept)
    standing += sum(pattern.pointers.nbytes for pattern in state.storage.patterns)
    peak = benchmark.pedantic(lambda: peak_of(lambda: trainer.fit(x, y, 1)), rounds=1)
    assert (standing + peak) / dense < 0.2
    record(
        benchmark,
        "memory",
        "retraining 4096-4096-1000, density 0.02",
        (standing + peak) / 2**20,
        {"dense weights, gradients, momentum": (dense / 2**20, dense / (standing + peak))},
        unit="MiB",
    )


@pytest.mark.parametrize("live", [10_000, 100_000, 1_000_000, 10_000_000])
def test_sparse_from_the_start(benchmark, live):
    """Twenty live weights a unit of a hidden layer: ten million lie between layers of half a million units."""
    make_and_train(10_000)  # compiles
    peak = benchmark.pedantic(lambda: peak_of(lambda: make_and_train(live)), rounds=1)
    sizes = sizes_for(live)
    dense = 3 * 4 * weights_of(sizes)
    assert peak < 4 * 2**30
    record(
        benchmark,
        "memory",
        f"{'-'.join(map(str, sizes))}, {live:,} live weights, made and trained",
        peak / 2**20,
        {"dense weights, gradients, momentum": (dense / 2**20, dense / peak)},
        unit="MiB",
        live=live,
    )


def sizes_for(live):
    return [784, live // 20, live // 20, 10]


def weights_of(sizes):
    return sum(a * b for a, b in itertools.pairwise(sizes))


def make_and_train(live):
    sizes = sizes_for(live)
    x, y = noise(BATCH, sizes[0], sizes[-1])
    network = fp.MLP(sizes, density=live / weights_of(sizes))
    assert network.live_weights == live
    # Outputs are sums over as many as hundreds of thousands of units.
    history = fp.Trainer(network, learning_rate=1e-6).fit(x, y, 2)
    assert history.train.loss < history.epochs[0].loss
