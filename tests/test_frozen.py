"""The frozen form gives what its network gives, keeps nothing that does not matter, and has two ways to do it."""

import copy

import numpy as np
import pytest
from networks import prune_at

import fastprune as fp
from fastprune import frozen as frozen_module
from fastprune.kernels.constants import COLUMNS, PANELS

SIZES = [50, 40, 30, 20, 5]


def network(sizes=SIZES, **settings):
    """One with biases that are not 0, so that units without inputs give something."""
    settings = {"dtype": "float64", "loss": "softmax_cross_entropy", "seed": 1} | settings
    made = fp.MLP(sizes, **settings)
    first = made.state.storage.layout.biases[0]
    made.state.values[first:] = np.random.default_rng(0).normal(size=made.state.values.size - first)
    return made


def pruned(made, sparsity):
    fp.Pruner(fp.Trainer(made), schedule=[0.0], scope="global").step(sparsity=sparsity)
    return made


def samples(count, features=SIZES[0], dtype="float64"):
    x = np.random.default_rng(2).normal(size=(count, features)).astype(dtype)
    return np.where(np.random.default_rng(3).random(x.shape) < 0.5, 0, x).astype(dtype)


def assert_same_predictions(frozen, made, x, **tolerance):
    np.testing.assert_allclose(frozen.logits(x), made.logits(x), **tolerance)
    one_by_one = np.vstack([frozen.logits(x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(one_by_one, made.logits(x), **tolerance)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.97, 0.995])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("execution", ["dense", "auto"])
def test_it_gives_what_the_network_gives(activation, sparsity, execution):
    made = pruned(network(activation=activation, execution=execution), sparsity)
    assert_same_predictions(made.freeze(), made, samples(40), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [COLUMNS, PANELS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [[50, 40, 30, 5], [3, 200, 130, 1], [130, 1, 70, 65]])
def test_both_ways_for_single_samples_give_it(monkeypatch, form, dtype, sizes):
    monkeypatch.setattr(frozen_module, "_INPUT_COST", 1e9 if form == PANELS else -1e9)
    made = network(sizes, dtype=dtype, density=0.3, loss="mean_squared_error")
    frozen = made.freeze()
    layers = len(sizes) - 1
    assert list(frozen._structure[layers + 2 : 2 * layers + 2]) == [form] * layers
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}
    assert_same_predictions(frozen, made, samples(20, sizes[0], dtype), **tolerance)


def test_units_that_reach_no_output_and_constant_ones_are_dropped():
    made = network([3, 4, 3, 2], activation="tanh")
    masks = [np.zeros(mask.shape, bool) for mask in made.masks]
    masks[0][[0, 1], [0, 1]] = True  # unit 2 and 3 of the first hidden level have no input
    masks[1][[0, 1, 2], [0, 2, 1]] = True  # so unit 1 of the second is constant
    masks[2][[0, 1], [0, 1]] = True  # and unit 2 of it, which unit 1 of the first leads to, reaches no output
    gone = np.flatnonzero(~np.concatenate([mask.ravel() for mask in masks]))
    prune_at(made, gone)
    frozen = made.freeze()
    assert frozen.sizes == [3, 1, 1, 2]
    assert frozen.live_weights == 3
    assert_same_predictions(frozen, made, samples(20, 3), rtol=1e-12, atol=1e-12)


def test_hidden_units_are_sorted():
    """By their number of weights, then by the first; so frozen again, in any order, they come out the same."""
    made = pruned(network([20, 30, 25, 5]), 0.8)
    frozen = made.freeze()
    assert_same_predictions(frozen, made, samples(20, 20), rtol=1e-12, atol=1e-12)
    for mask in frozen.masks[:-1]:
        keys = list(zip(-mask.sum(1), mask.argmax(1), strict=True))
        assert keys == sorted(keys)
        assert len(set(keys)) > 5
    again = fp.MLP.from_weights(frozen.weights, frozen.biases, frozen.masks, dtype="float64").freeze()
    np.testing.assert_array_equal(again.state.values, frozen.state.values)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_an_emptied_layer_leaves_a_constant(layer):
    made = network()
    fp.Pruner(fp.Trainer(made)).apply([np.zeros_like(m) if i == layer else None for i, m in enumerate(made.masks)])
    frozen = made.freeze()
    assert frozen.live_weights == 0
    assert_same_predictions(frozen, made, samples(20), rtol=1e-12, atol=1e-12)


def test_it_is_frozen_and_its_network_is_not():
    made = pruned(network(loss=None), 0.9)
    x, y = samples(40), np.arange(40) % 5
    before = made.weights
    frozen, then = made.freeze(), made.logits(x)
    np.testing.assert_array_equal(
        np.concatenate([w.ravel() for w in made.weights]), np.concatenate([w.ravel() for w in before])
    )
    fp.Trainer(made).fit(x, y, 3)
    np.testing.assert_allclose(frozen.logits(x), then, rtol=1e-12, atol=1e-12)
    assert not np.allclose(made.logits(x), then)
    with pytest.raises(ValueError, match="the loss of this network is not known yet"):
        frozen.predict(x)


def test_predictions_and_probabilities():
    made = pruned(network(), 0.9)
    frozen = copy.deepcopy(made.freeze())
    for x in (samples(1), samples(40)):
        np.testing.assert_array_equal(frozen.predict(x), made.predict(x))
        np.testing.assert_allclose(frozen.predict_proba(x), made.predict_proba(x), rtol=1e-12)
    assert "FrozenMLP([50, " in repr(frozen)


def test_bad_samples_are_refused():
    frozen = network().freeze()
    with pytest.raises(ValueError, match=r"x: expected finite numbers of shape \(N, 50\), got shape \(1, 49\)"):
        frozen.predict(np.zeros((1, 49)))
    with pytest.raises(ValueError, match=r"x: expected finite numbers .* got NaN or infinity"):
        frozen.logits(np.full((1, 50), np.nan))
