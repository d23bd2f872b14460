"""What weights are ranked by: the criteria of the table and of users, on matrices worked out by hand."""

import numpy as np
import pytest
import reference

import fastprune as fp
from fastprune.criteria import CRITERIA

DATA = fp.load_dataset("digits")


def linear(*matrices, loss="mean_squared_error"):
    return fp.MLP.from_weights(matrices, activation="relu", loss=loss, dtype="float64")


def kept(network):
    return [mask.astype(int).tolist() for mask in network.masks]


def test_gradient_ranks_by_what_the_loss_changes_by():
    """Outputs are [2 + 6, 1 - 3] for the input [1, 3]; targets [8, 0] leave errors of [0, -2]."""
    network = linear([[2.0, 2.0], [1.0, -1.0]])
    # The mean over two outputs: dL/dw = error * x, so [[0, 0], [-2, -6]], and |w dL/dw| = [[0, 0], [2, 6]].
    pruner = fp.Pruner(fp.Trainer(network), criterion="gradient")
    record = pruner.step(sparsity=0.75, samples=([[1.0, 3.0]], [[8.0, 0.0]]))
    assert kept(network) == [[[0, 0], [0, 1]]]
    assert record.removed == 3
    assert fp.Pruner(fp.Trainer(linear([[2.0, 2.0], [1.0, -1.0]]))).step(sparsity=0.5).removed == 2


def test_gradient_takes_other_weights_than_magnitude_and_needs_samples():
    network = linear([[2.0, 2.0], [1.0, -1.0]])
    fp.Pruner(fp.Trainer(network)).step(sparsity=0.5)
    assert kept(network) == [[[1, 1], [0, 0]]]
    with pytest.raises(ValueError, match=r"samples: a pair \(x, y\) is needed to compute gradients"):
        fp.Pruner(fp.Trainer(network), criterion="gradient").step(sparsity=0.75)
    with pytest.raises(ValueError, match=r"samples\[0\]: expected finite numbers of shape \(N, 2\)"):
        fp.Pruner(fp.Trainer(network), criterion="gradient").step(sparsity=0.75, samples=([[1.0]], [[1.0, 0.0]]))
    assert network.sparsity == 0.5


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_function_of_the_users_own_ranks(scope):
    """By the input that a weight reads: the first inputs go first, and what is live is told without what is pruned."""
    network = linear([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[7.0, 8.0]])
    told = []

    def by_input(context):
        told.append((context.layer, context.shape, context.values.tolist(), context.live.tolist()))
        return context.live % context.shape[1] + 10 * context.layer

    pruner = fp.Pruner(fp.Trainer(network), criterion=by_input, scope=scope, ignored_layers=[-1])
    pruner.step(sparsity=2 / 8)
    pruner.step(sparsity=4 / 8)
    assert kept(network) == [[[0, 0, 1], [0, 0, 1]], [[1, 1]]]
    assert told == [
        (0, (2, 3), [1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5]),
        (0, (2, 3), [2, 3, 5, 6], [1, 2, 4, 5]),
    ]


@pytest.mark.parametrize("execution", ["dense", "sparse"])
def test_a_function_that_ranks_as_the_table_does_is_the_same(execution):
    """Magnitude and |w g|, over whole runs, with what layers store dense or sparse."""
    own = {
        "magnitude": lambda context: abs(context.values),
        "random": lambda context: context.rng.random(context.live.size),
        "gradient": lambda context: abs(context.values * context.full_gradient.reshape(-1)[context.live]),
    }
    assert own.keys() == CRITERIA.keys()
    masks = {}
    for name, function in own.items():
        for criterion in (name, function):
            network = fp.MLP([64, 30, 10], execution=execution)
            trainer = fp.Trainer(network)
            trainer.fit(DATA.x_train, DATA.y_train, 3)
            pruner = fp.Pruner(trainer, schedule=[0.5, 0.8], criterion=criterion, scope="global")
            pruner.run(DATA.x_train, DATA.y_train, 2)
            masks.setdefault(name, []).append(np.concatenate([mask.reshape(-1) for mask in network.masks]))
    assert all((one == other).mean() > 0.999 for one, other in masks.values())
    assert (masks["magnitude"][0] != masks["gradient"][0]).mean() > 0.05


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (lambda context: np.zeros(3), r"criterion: expected a function that returns 6 scores, .* got shape \(3,\)"),
        (lambda context: np.full(context.values.size, np.nan), "criterion: expected .*, got NaN"),
        (lambda context: "high", "criterion: expected .*, got text"),
        (lambda context: None, "criterion: expected .*, got dtype object"),
    ],
)
def test_bad_scores_change_nothing(criterion, message):
    network = fp.MLP([3, 2])
    with pytest.raises(ValueError, match=message):
        fp.Pruner(fp.Trainer(network), criterion=criterion).step(sparsity=0.5)
    assert network.sparsity == 0


@pytest.mark.parametrize("criterion", ["size", None, 3, lambda: 0])
def test_what_is_no_criterion_is_refused(criterion):
    with pytest.raises(ValueError, match="criterion: expected"):
        fp.Pruner(fp.Trainer(fp.MLP([3, 2])), criterion=criterion)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("execution", ["dense", "sparse"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_gradient_is_that_of_the_reference(loss, execution, n_jobs):
    """And the full one has that of pruned weights, from and to units without live weights, too."""
    rng = np.random.default_rng(0)
    network = fp.MLP([6, 5, 4, 3], activation="tanh", loss=loss, dtype="float64", execution=execution, seed=1)
    masks = [rng.random(mask.shape) < 0.4 for mask in network.masks]
    masks[1][2], masks[2][:, 1], masks[0][3] = False, False, False
    trainer = fp.Trainer(network, n_jobs=n_jobs)
    fp.Pruner(trainer).apply(masks)
    x = rng.standard_normal((5000, 6))  # more than are in memory together
    y = rng.integers(3, size=5000) if loss == "softmax_cross_entropy" else rng.random((5000, 3))
    weights, biases = [w.copy() for w in network.weights], [b.copy() for b in network.biases]
    _, _, dweights, dbiases = reference.gradients(x, y, weights, biases, "tanh", loss)
    given, full = trainer.gradient(x, y), trainer.gradient(x, y, pruned=True)
    for mask, mine, all_of_it, twin in zip(masks, given.weights, full.weights, dweights, strict=True):
        np.testing.assert_allclose(all_of_it, twin, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(mine, twin * mask, rtol=1e-9, atol=1e-12)
        assert abs(twin[~mask]).max() > 1e-4, "there is something to be seen"
    for gradient in (given, full):
        for mine, twin in zip(gradient.biases, dbiases, strict=True):
            np.testing.assert_allclose(mine, twin, rtol=1e-9, atol=1e-12)


def test_a_gradient_changes_nothing():
    network = fp.MLP([64, 20, 10], density=0.2)
    trainer = fp.Trainer(network)
    trainer.fit(DATA.x_train, DATA.y_train, 1)
    state, before = network.state, trainer.snapshot()
    trainer.gradient(DATA.x_train, DATA.y_train, pruned=True)
    assert network.state is state
    for now, then in zip(state.vectors, before.vectors, strict=True):
        np.testing.assert_array_equal(now, then)
    with pytest.raises(ValueError, match="pruned: expected True or False, got 1"):
        trainer.gradient(DATA.x_train, DATA.y_train, pruned=1)


@pytest.mark.parametrize("execution", ["dense", "sparse"])
def test_random_draws_one_lot_for_each_live_weight_in_their_order(execution):
    """However layers are stored; layers draw from one row of numbers, so that no two draw the same."""
    network = fp.MLP([4, 3, 2], execution=execution)
    pruner = fp.Pruner(fp.Trainer(network), criterion="random", scope="global", seed=7)
    pruner.step(sparsity=0.5)
    lots = np.random.default_rng([7, 18]).random(18)
    expected = lots >= np.sort(lots)[9]
    assert np.concatenate([mask.reshape(-1) for mask in network.masks]).tolist() == expected.tolist()
    pruner.step(sparsity=12 / 18)
    again = np.random.default_rng([7, 9]).random(9)
    expected[np.flatnonzero(expected)[again < np.sort(again)[3]]] = False
    assert np.concatenate([mask.reshape(-1) for mask in network.masks]).tolist() == expected.tolist()
