"""How long does a training step take, at which density, against which peer?

One thread, batches of 128, gathering included.

Networks are pruned by global magnitude, so that layers differ in density; the rows tell theirs.
"""

import numpy as np
import peers
import pytest
from harness import BATCH, ROUNDS, check_same_steps, compare, layer_densities, mnist, noise, pruned, stepper, trainer_of

import fastprune as fp
from fastprune.blas import one_blas_thread

DENSITIES = [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01]
# Steps of one timing: a fraction of a second for most peers.
NETWORKS = {(784, 300, 100, 10): 50, (784, 1024, 1024, 10): 12, (4096, 4096, 1000): 3}
ALEXNET, KEPT = (9216, 4096, 4096, 1000), (0.09, 0.09, 0.25)


@pytest.fixture(scope="module")
def trained():
    """Networks after 100 steps, and their data; kept, because many tests start from them."""
    cache = {}

    def get(sizes):
        if sizes not in cache:
            x, y = mnist(12800) if sizes[0] == 784 else noise(BATCH * 5, sizes[0], sizes[-1])
            trainer = trainer_of(fp.MLP(sizes))
            trainer.fit(x, y, 1)
            cache[sizes] = trainer, x, y
        return cache[sizes]

    return get


def step_against(benchmark, trainer, x, y, steps, quick=False):
    network = trainer.network
    rivals = {"NumPy, masks": peers.NumPy(network), "SciPy CSR": peers.SciPy(network)}
    found = [] if quick else peers.installed("torch", "sparseprop", "sparselab")
    if "torch" in found:
        rivals["PyTorch, dense"] = peers.Torch(network, prune=False)
    if "torch" in found and network.sparsity:
        rivals["PyTorch, torch.nn.utils.prune"] = peers.Torch(network)
        rivals |= peers.compiled(network)
    if "sparseprop" in found and network.sparsity:
        rivals["SparseProp"] = peers.SparseProp(network)
    if "sparselab" in found and network.sparsity:
        rivals["SparseLab"] = peers.SparseLab(network)
    x, y = x[: steps * BATCH], y[: steps * BATCH]
    for name, rival in rivals.items():
        if name != "PyTorch, dense" or not network.sparsity:  # which trains another network: its pruned weights return
            check_same_steps(trainer, rival, x, y, steps=min(steps, 3))

    dense = fp.MLP(network.sizes, execution="dense")
    calls = {"fastprune, dense": stepper(trainer_of(dense), x, y)}
    calls |= {
        name: lambda rival=rival: rival.steps(x, y, peers.shuffled(len(x), BATCH)) for name, rival in rivals.items()
    }
    with one_blas_thread():
        return compare(
            benchmark,
            "training step",
            f"{'-'.join(map(str, network.sizes))}, density {1 - network.sparsity:.2g}",
            stepper(trainer, x, y),
            calls,
            repeats=steps,
            rounds=ROUNDS if network.total_weights < 10**7 else 3,
            densities=layer_densities(network),
            execution=network.execution,
        )


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("sizes", NETWORKS, ids=lambda sizes: "-".join(map(str, sizes)))
def test_step(benchmark, trained, sizes, density):
    trainer, x, y = trained(sizes)
    step_against(benchmark, pruned(trainer, density), x, y, NETWORKS[sizes])


def test_alexnet(benchmark):
    """AlexNet's fully connected layers at the densities of Han et al. 2015, table 4."""
    x, y = noise(BATCH * 2, ALEXNET[0], ALEXNET[-1])
    trainer = trainer_of(fp.MLP(ALEXNET))
    fp.Pruner(trainer, schedule=[{layer: 1 - kept for layer, kept in enumerate(KEPT)}]).step()
    step_against(benchmark, trainer, x, y, 2)


@pytest.mark.quick
# Half of the least that a processor showed: 3.05 and 6.0, AMD Zen 3 with AVX2, not quiet. (With AVX-512: 5.2 and 8.4.)
@pytest.mark.parametrize(("density", "floor"), [(0.1, 1.5), (0.02, 3.0)])
def test_quick_step(benchmark, trained, density, floor):
    """Floors for peers that are always there."""
    trainer, x, y = trained((784, 300, 100, 10))
    ratios = step_against(benchmark, pruned(trainer, density), x, y, 50, quick=True)
    assert min(ratios.values()) >= floor


def test_share_of_blas(benchmark, trained):
    """Floating-point operations of live weights in a sparse step, by its whole time, to the rate of a large product."""
    trainer, x, y = trained((784, 1024, 1024, 10))
    trainer = pruned(trainer, 0.1)
    steps = 12
    live = trainer.network.layer_live_weights
    operations = 2 * BATCH * steps * (3 * sum(live) - live[0])  # the inputs need no gradient
    a = np.random.default_rng(0).random((2048, 2048), np.float32)
    with one_blas_thread():
        call = stepper(trainer, x[: steps * BATCH], y[: steps * BATCH])
        ratios = compare(
            benchmark,
            "arithmetic",
            f"784-1024-1024-10, density 0.1: {steps} steps, a product of 2048 x 2048",
            call,
            {"BLAS": lambda: a @ a},
        )
    share = ratios["BLAS"] * operations / (2 * 2048**3)
    benchmark.extra_info["notes"]["share of BLAS's rate"] = share
    print(f"share of BLAS's rate: {share:.2f}")
