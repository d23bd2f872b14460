"""Weights that come back: which, how many, and with what; on matrices worked out by hand, and on whole runs."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastprune as fp
from fastprune import gradients
from fastprune.growers import GROWERS

DATA = fp.load_dataset("digits")
TRAIN = DATA.x_train, DATA.y_train


def linear(matrix, mask, loss="mean_squared_error"):
    return fp.MLP.from_weights([matrix], masks=[mask], loss=loss, dtype="float64")


def live(network):
    return [int(mask.sum()) for mask in network.masks]


def test_the_smallest_go_and_as_many_come_back_at_0():
    """Eight weights, four live; a half of these is exchanged: the two smallest go, two of the four pruned come."""
    mask = [[1, 1, 0, 0], [0, 0, 1, 1]]
    came = set()
    for seed in range(20):
        network = linear([[4.0, 1.0, 0, 0], [0, 0, 2.0, 3.0]], mask)
        pruner = fp.Pruner(fp.Trainer(network), grower="random", drop_fraction=0.5, seed=seed)
        record = pruner.step(sparsity=0.5)
        assert (record.removed, record.grown, record.live, record.sparsity) == (2, 2, 4, 0.5)
        assert network.weights[0].tolist() == [[4, 0, 0, 0], [0, 0, 0, 3]]
        assert not network.masks[0][[0, 1], [1, 2]].any(), "what has just gone does not come back"
        came.add(tuple(np.flatnonzero(network.masks[0])))
    assert all(0 in one and 7 in one for one in came)
    assert len(came) == 6, "any two of the four that were pruned"


def test_gradient_brings_back_where_the_loss_falls_fastest():
    """Outputs are [4 + 1, 4 + 9] for the input [1, 1, 2, 3]; errors are [2, -1], so dL/dw = error * x."""
    network = linear([[4.0, 1.0, 0, 0], [0, 0, 2.0, 3.0]], [[1, 1, 0, 0], [0, 0, 1, 1]])
    pruner = fp.Pruner(fp.Trainer(network), grower="gradient", drop_fraction=0.5)
    x, y = [[1.0, 1.0, 2.0, 3.0]], [[3.0, 14.0]]
    full = fp.Trainer(network).gradient(x, y, pruned=True).weights[0]
    assert full.tolist() == [[2, 2, 4, 6], [-1, -1, -2, -3]]
    pruner.step(sparsity=0.5, samples=(x, y))
    assert network.weights[0].tolist() == [[4, 0, 0, 0], [0, 0, 0, 3]]
    assert network.masks[0].astype(int).tolist() == [[1, 0, 1, 1], [0, 0, 0, 1]]


def test_gradients_that_are_equal_bring_back_the_first():
    network = linear([[4.0, 1.0, 0, 0], [0, 0, 2.0, 3.0]], [[1, 1, 0, 0], [0, 0, 1, 1]])
    pruner = fp.Pruner(fp.Trainer(network), grower="gradient", drop_fraction=0.5)
    pruner.step(sparsity=0.5, samples=([[1.0, 1.0, 1.0, 1.0]], [[4.0, 4.0]]))  # errors of 1 and 1
    assert network.masks[0].astype(int).tolist() == [[1, 0, 1, 1], [0, 0, 0, 1]]


def test_the_full_gradient_is_computed_only_for_a_grower_that_asks_for_it(monkeypatch):
    found = []
    real = gradients.MeanGradient._of

    def counted(self, state):
        found.append("full" if state is not self._state else "stored")
        return real(self, state)

    monkeypatch.setattr(gradients.MeanGradient, "_of", counted)
    for settings, expected in (
        ({}, []),
        ({"criterion": "gradient"}, ["stored"]),
        ({"grower": "random"}, []),
        ({"grower": "gradient"}, ["full"]),
        ({"grower": "gradient", "criterion": "gradient"}, ["stored", "full"]),
    ):
        found.clear()
        network = fp.MLP([64, 40, 10], density=0.2)
        schedule = fp.schedules.ConstantSparsity(network.sparsity, rounds=2)
        fp.Pruner(fp.Trainer(network), schedule=schedule, **settings).run(*TRAIN, 1, rounds=1)
        assert found == expected


def test_the_number_of_live_weights_is_the_one_asked_for_also_if_it_is_higher():
    network = linear(np.arange(1.0, 9).reshape(2, 4), [[1, 1, 0, 0], [0, 0, 0, 0]])
    pruner = fp.Pruner(fp.Trainer(network), grower="random", drop_fraction=0.5)
    record = pruner.step(sparsity=0.25)
    assert (record.removed, record.grown, record.live) == (1, 5, 6)
    record = pruner.step(sparsity=0.5)
    assert (record.removed, record.grown, record.live) == (4, 2, 4)
    record = pruner.step(sparsity={0: 0.0})
    assert (record.removed, record.grown, record.live) == (0, 4, 8), "with all live there is nothing to exchange"


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=4),
    st.floats(0.05, 1.0),
    st.lists(st.floats(0, 0.99), min_size=1, max_size=4),
    st.floats(0, 1),
    st.sampled_from(sorted(GROWERS)),
    st.integers(0, 3),
)
def test_counts_are_exact(sizes, density, targets, drop_fraction, grower, min_keep):
    network = fp.MLP(sizes, density=density, loss="mean_squared_error", dtype="float64")
    settings = {"grower": grower, "drop_fraction": drop_fraction, "min_keep": min_keep}
    pruner = fp.Pruner(fp.Trainer(network), **settings)
    samples = np.ones((3, sizes[0])), np.zeros((3, sizes[-1]))
    for target in targets:
        before = network.masks
        record = pruner.step(sparsity=target, samples=samples)
        total = network.total_weights
        asked = total - int(np.floor(target * total + 0.5))
        held = any(event.kind == "kept more than asked" for event in record.events)
        assert record.live == network.live_weights == sum(live(network))
        assert record.live == asked or (held and record.live > asked)
        assert record.live == sum(int(mask.sum()) for mask in before) - record.removed + record.grown
        new = [mask & ~old for mask, old in zip(network.masks, before, strict=True)]
        gone = [old & ~mask for mask, old in zip(network.masks, before, strict=True)]
        assert (sum(int(m.sum()) for m in new), sum(int(m.sum()) for m in gone)) == (record.grown, record.removed)
        assert all((weights[mask] == 0).all() for weights, mask in zip(network.weights, new, strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("execution", ["auto", "dense", "sparse"])
def test_new_weights_begin_without_optimizer_state_and_the_others_keep_theirs(optimizer, execution):
    network = fp.MLP([64, 40, 10], density=0.3, execution=execution)
    trainer = fp.Trainer(network, optimizer=optimizer, learning_rate=0.01)
    trainer.fit(*TRAIN, 2)
    before, masks = trainer.snapshot(), network.masks
    fp.Pruner(trainer, grower="random", drop_fraction=0.2).step(sparsity=0.7)
    after = trainer.snapshot()
    assert after.updates == before.updates
    for old, new in zip(before.vectors, after.vectors, strict=True):
        for layer, (was, now) in enumerate(zip(masks, network.masks, strict=True)):
            if old.size:
                then, here = before.storage.matrix(layer, old), after.storage.matrix(layer, new)
                assert not here[~was].any()
                np.testing.assert_array_equal(here[was & now], then[was & now])
    trainer.fit(*TRAIN, 1)
    new = network.masks[1] & ~masks[1]
    assert (network.weights[1][new] != 0).mean() > 0.5, "they are trained (those that read units that are 0 are not)"


def test_a_run_keeps_the_density_and_exchanges_ever_fewer():
    network = fp.MLP([64, 40, 10], density=0.2, seed=1)
    before = live(network)
    trainer = fp.Trainer(network, learning_rate_schedule="cosine")
    schedule = fp.schedules.ConstantSparsity(network.sparsity, rounds=6)
    pruner = fp.Pruner(trainer, schedule=schedule, grower="random", drop_fraction=0.4)
    history = pruner.run(*TRAIN, 2, restarts=False)
    assert live(network) == before, "layer by layer: an Erdos-Renyi graph stays one"
    assert all(record.sparsity == network.sparsity for record in history)
    cosine = [0.4 * (1 + np.cos(np.pi * number / 6)) / 2 for number in range(6)]
    assert [record.removed for record in history] == [sum(round(part * n) for n in before) for part in cosine]
    assert [record.grown for record in history] == [record.removed for record in history]
    assert history[-1].after.train.accuracy > 0.8


def test_rounds_draw_other_lots_and_the_same_seed_the_same():
    def masks(seed):
        network = fp.MLP([64, 40, 10], density=0.1, seed=1)
        schedule = fp.schedules.ConstantSparsity(network.sparsity, rounds=3)
        found = []
        pruner = fp.Pruner(fp.Trainer(network), schedule=schedule, grower="random", seed=seed)
        pruner.run(*TRAIN, 1, on_round=lambda record: found.append(network.masks[0].copy()))
        return found[::2]

    one, again, other = masks(0), masks(0), masks(1)
    np.testing.assert_array_equal(one, again)
    assert (one[-1] != other[-1]).any()
    came = [set(np.flatnonzero(new & ~old)) for old, new in pairwise(one)]
    assert came[0] != came[1]


@pytest.mark.parametrize(("units", "moved"), [(4_000, 30), pytest.param(20_000, 1000, marks=pytest.mark.long)])
def test_wide_layers_grow_without_a_list_of_their_weights(units, moved):
    """Between two layers of 20,000 units, there are 4 * 10^8."""
    network = fp.MLP([10, units, units, 10], density=1e-5)
    before = live(network)
    record = fp.Pruner(fp.Trainer(network), grower="random").step(sparsity=network.sparsity)
    assert live(network) == before
    assert record.grown == record.removed > moved


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grower": "moss"}, "grower: expected one of .*, got 'moss'"),
        ({"grower": "random", "rule": "std"}, "grower: expected rule 'sparsity' and scope 'layer' with 'random'"),
        ({"grower": "random", "scope": "global"}, "got 'sparsity', 'global'"),
        ({"drop_fraction": 1.5}, r"drop_fraction: expected a number in \[0, 1\], got 1.5"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        fp.Pruner(fp.Trainer(fp.MLP([5, 3, 3])), **settings)


def test_what_cannot_grow_is_out_of_reach():
    network = fp.MLP([4, 4, 4])
    trainer = fp.Trainer(network)
    fp.Pruner(trainer).step(sparsity=0.75)
    pruner = fp.Pruner(trainer, grower="random", ignored_layers=[0])
    with pytest.raises(ValueError, match=r"sparsity: expected a sparsity of at least 0.375, because ignored_layers do"):
        pruner.step(sparsity=0.3)
    assert pruner.step(sparsity=0.375).live == 20
