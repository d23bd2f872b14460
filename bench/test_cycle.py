"""How long does the whole loop take? MNIST, 784-300-100-10: 15 dense epochs, 40 with cubic pruning to 12x, 15 more.

Against the same recipe in PyTorch, dense products and masks (its momentum begins anew each round). Ours includes the
evaluations of `run`, which PyTorch's loop does not make. One thread on both sides, one run of each.
"""

import numpy as np
import peers
import pytest
from harness import BATCH, MOMENTUM, RATE, compare, mnist, record, trainer_of

import fastprune as fp
from fastprune.blas import one_blas_thread

SIZES, DENSE, PRUNING, MORE, SPARSITY = [784, 300, 100, 10], 15, 40, 15, 1 - 1 / 12


def ours(x, y, result):
    trainer = trainer_of(fp.MLP(SIZES, seed=0))
    trainer.fit(x, y, DENSE)
    pruner = fp.Pruner(trainer, schedule=fp.schedules.PolynomialDecay(0.0, SPARSITY, PRUNING), scope="global")
    pruner.run(x, y, [1] * (PRUNING - 1) + [1 + MORE])
    result["fastprune"] = trainer.network


def theirs(x, y, result):
    import torch
    from torch.nn.utils import prune

    peer = peers.Torch(fp.MLP(SIZES, seed=0))
    linear = [(layer, "weight") for layer in peer.model if isinstance(layer, torch.nn.Linear)]
    total = sum(layer.weight.numel() for layer, _ in linear)

    def epoch():
        peer.steps(x, y, peers.shuffled(len(x), BATCH))

    for _ in range(DENSE):
        epoch()
    pruned = 0
    for sparsity in fp.schedules.PolynomialDecay(0.0, SPARSITY, PRUNING):
        target = round(sparsity * total)
        prune.global_unstructured(linear, prune.L1Unstructured, amount=target - pruned)
        # Masks are joined into one, or each round would multiply by one more.
        for layer, _ in linear:
            mask = layer.weight_mask
            prune.remove(layer, "weight")
            prune.custom_from_mask(layer, "weight", mask)
        peer.optimizer = torch.optim.SGD(peer.model.parameters(), lr=RATE, momentum=MOMENTUM)
        pruned = target
        epoch()
    for _ in range(MORE):
        epoch()
    result["torch"] = peer.weights()


def test_whole_run(benchmark):
    if not peers.installed("torch"):
        pytest.skip("PyTorch is not installed")
    x, y = mnist()
    trainer_of(fp.MLP(SIZES)).fit(x[:128], y[:128], 1)  # the kernels are compiled before the clock runs
    result = {}
    with one_blas_thread():
        compare(
            benchmark,
            "whole MNIST run",
            f"784-300-100-10, {DENSE} + {PRUNING} + {MORE} epochs, to 12x",
            lambda: ours(x, y, result),
            {"PyTorch, torch.nn.utils.prune": lambda: theirs(x, y, result)},
            rounds=1,
        )
    weights = result["fastprune"].weights, result["torch"]
    live = [sum(np.count_nonzero(layer) for layer in layers) for layers in weights]
    assert abs(live[0] - live[1]) <= 1


def test_rounds_get_faster(benchmark):
    """Ten rounds to 98 %: seconds of each round's retraining, beside those of a dense epoch."""
    x, y = mnist()
    trainer = trainer_of(fp.MLP(SIZES, seed=0))
    trainer.fit(x, y, 1)
    dense = trainer.fit(x, y, 2).seconds
    pruner = fp.Pruner(trainer, schedule=fp.schedules.GeometricDecay(0.0, 0.98, rounds=10), scope="global")
    history = benchmark.pedantic(pruner.run, args=(x, y, 2), rounds=1)
    seconds = [one.seconds for one in history]
    record(
        benchmark,
        "rounds to 98 %",
        "784-300-100-10, two MNIST epochs a round: the last round",
        seconds[-1],
        {"dense": (dense, dense / seconds[-1])},
        seconds=" ".join(f"{one.seconds:.2f} (at {one.sparsity:.3f})" for one in history),
    )
    assert seconds[-1] < seconds[0]
