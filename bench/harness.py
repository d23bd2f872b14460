"""What all benchmarks share: timing in turn, the record of what came out, the networks and the data.

Every figure is a ratio to a peer timed in the same run: each round times all peers, then fastprune, and the ratio is
the median over the rounds. Outputs are compared before anything is timed.
"""

import copy
import itertools
import os
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import fastprune as fp
from fastprune.evaluation import checked_samples, loss_of
from fastprune.spans import prepare
from fastprune.team import Threads

MNIST = Path(__file__).parent / "mnist"
ROUNDS = int(os.environ.get("FASTPRUNE_BENCH_ROUNDS", "7"))
BATCH, RATE, MOMENTUM = 128, 0.01, 0.9


def mnist(samples=60_000):
    data = fp.load_dataset("mnist", data_dir=MNIST)
    return data.x_train[:samples], data.y_train[:samples]


def noise(samples, features, classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((samples, features), np.float32), rng.integers(classes, size=samples)


def trainer_of(network, n_jobs=1, batch_size=BATCH):
    return fp.Trainer(network, learning_rate=RATE, momentum=MOMENTUM, batch_size=batch_size, n_jobs=n_jobs)


def pruned(trainer, density):
    """A new trainer of a copy of the network, pruned by magnitude, all layers ranked together."""
    trainer = trainer_of(copy.deepcopy(trainer.network))
    if density < 1:
        fp.Pruner(trainer, schedule=[1 - density], scope="global").step()
    return trainer


def layer_densities(network):
    return [round(1 - sparsity, 4) for sparsity in network.layer_sparsity]


def stepper(trainer, x, y, threads=1):
    """A call that makes one step for each batch of the samples, in one call of the kernel, as `fit` does."""
    network = trainer.network
    loss = loss_of(network, y)
    samples = checked_samples(network, ("x", "y"), (x, y), loss)
    batch = min(trainer.batch_size or len(x), len(x))
    steps = len(x) // batch if trainer.batch_size else 20
    network.state = trainer._state()
    run = prepare(trainer, network.state, samples, batch, loss, Threads(threads))
    losses, hits, rates = np.empty(steps), np.empty(steps, np.int64), np.full(steps, trainer.learning_rate)

    numbers = itertools.count(step=steps)

    def call():
        assert run(losses, hits, rates, next(numbers)) == steps

    call.steps = steps
    return call


def check_same_steps(trainer, peer, x, y, batch=BATCH, steps=5):
    """Both sides make the same steps over the same batches and must come to the same weights."""
    trainer = copy.deepcopy(trainer)
    trainer.batch_size = None
    for low in range(0, steps * batch, batch):
        rows = np.arange(low, min(low + batch, len(x)))
        trainer.fit(x[rows], y[rows], 1)
        peer.steps(x, y, [rows])
    for ours, theirs in zip(trainer.network.weights, peer.weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-5)


def compare(benchmark, question, case, ours, peers, *, rounds=ROUNDS, threads=1, repeats=1, **notes):
    """Time all in turn; record and give the median ratio of each peer's seconds to ours.

    `repeats` is what one call stands for (steps, say); seconds are given for one.
    """
    seconds = {name: [] for name in peers}

    def time_peers():
        for name, call in peers.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)

    benchmark.pedantic(ours, setup=time_peers, rounds=rounds, warmup_rounds=min(1, rounds - 1))
    mine = np.array(benchmark.stats.stats.data)
    ratios = {name: float(np.median(np.array(theirs[-rounds:]) / mine)) for name, theirs in seconds.items()}
    record(
        benchmark,
        question,
        case,
        statistics.median(mine) / repeats,
        {name: (statistics.median(theirs[-rounds:]) / repeats, ratios[name]) for name, theirs in seconds.items()},
        threads=threads,
        **notes,
    )
    return ratios


def record(benchmark, question, case, ours, peers, *, unit="s", threads=1, **notes):
    """Put a row of the table into the JSON file, and show it."""
    benchmark.extra_info |= {
        "question": question,
        "case": case,
        "unit": unit,
        "threads": threads,
        "fastprune": ours,
        "peers": {name: {"value": value, "ratio": ratio} for name, (value, ratio) in peers.items()},
        "notes": notes,
        "version": fp.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    against = ", ".join(f"{name} {ratio:.2f}x ({value:.3g})" for name, (value, ratio) in peers.items())
    print(f"\n{question}; {case}; fastprune {ours:.3g} {unit}; {against}; {notes or ''}")
