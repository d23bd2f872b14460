"""How much memory does retraining take? 4096-4096-1000 at 98 %, the data aside, by Python's own count of allocations.

Against the dense weights, their gradients and their momentum, which training with masks needs at least.
"""

import gc
import tracemalloc

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


def test_sparse_from_the_start(benchmark):
    """Ten million live weights between layers of half a million units."""
    sizes = [784, 500_000, 500_000, 10]
    x, y = noise(BATCH, sizes[0], sizes[-1])

    def train():
        network = fp.MLP(sizes, density=10_000_000 / (784 * 500_000 + 500_000**2 + 5_000_000))
        assert network.live_weights == 10_000_000
        # Outputs are sums over hundreds of thousands of units.
        history = fp.Trainer(network, learning_rate=1e-6).fit(x, y, 2)
        assert history.train.loss < history.epochs[0].loss

    peak = benchmark.pedantic(lambda: peak_of(train), rounds=1)
    dense = 3 * 4 * (784 * 500_000 + 500_000**2 + 5_000_000)
    assert peak < 4 * 2**30
    record(
        benchmark,
        "memory",
        "784-500000-500000-10, ten million live weights, made and trained",
        peak / 2**20,
        {"dense weights, gradients, momentum": (dense / 2**20, dense / peak)},
        unit="MiB",
    )
