"""Shared weights: few values a layer, trained as one."""

import copy
import pickle
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import fastprune as fp
from fastprune import spans
from fastprune.sharing import _clusters

# Networks of a few units, seven tenths of their weights gone, may well collapse.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in ("training collapsed", "round ", "after round")]

SIZES = [20, 30, 12, 4]


def made(density=0.3, dtype="float64", execution="auto", bits=2, bias_bits=None, seed=1, **settings):
    """A trainer whose network has shared weights, units on no path among them, and samples to train on."""
    rng = np.random.default_rng(seed)
    network = fp.MLP(SIZES, dtype=dtype, loss="softmax_cross_entropy", execution=execution, seed=seed)
    biases = [rng.normal(size=size) for size in SIZES[1:]]
    masks = [rng.random((above, below)) < density for below, above in pairwise(SIZES)]
    masks[1][:, :5] = masks[1][:3] = False
    network.set_weights(network.weights, biases, masks)
    fp.share_weights(network, bits, bias_bits=bias_bits)
    trainer = fp.Trainer(network, **{"learning_rate": 0.01, "batch_size": 16} | settings)
    x, y = rng.normal(size=(50, 20)), np.arange(50) % 4
    x[np.arange(50), y] += 3
    return trainer, x, y


def values_of(network):
    """The distinct values of each layer's live weights."""
    return [np.unique(network.layer(index).csr.data).size for index in range(network.n_layers)]


@given(
    st_numpy.arrays(np.float64, st.integers(0, 40), elements=st.floats(-100, 100, width=16)),
    st.sampled_from([2, 4, 16]),
)
def test_each_number_goes_to_the_nearest_mean(numbers, count):
    values, groups = _clusters(numbers, count)
    assert values.size == min(count, np.unique(numbers).size) or values.size < count
    assert (np.diff(values) > 0).all()
    assert sorted(set(groups.tolist())) == list(range(values.size))
    np.testing.assert_allclose(abs(numbers - values[groups]), abs(numbers[:, np.newaxis] - values).min(1, initial=1e9))
    for group in range(values.size):
        np.testing.assert_allclose(values[group], numbers[groups == group].mean(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("numbers", [1 + np.array([4, 2, 3, 5, 5, 0, 4]) * 2.3e-16, np.linspace(1e307, 1e308, 100)])
def test_numbers_of_float64_that_are_close_or_large(numbers):
    """Rounding may make assignments go round and round; sums and midpoints may overflow."""
    values, groups = _clusters(numbers, 2)
    assert values.size == 2
    assert np.isfinite(values).all()
    assert numbers.min() <= values[0] < values[1] <= numbers.max()
    assert set(groups.tolist()) == {0, 1}


def test_bits_may_be_an_array():
    network = fp.MLP([20, 30, 10])
    fp.share_weights(network, np.array([1, 2]))
    assert values_of(network) == [2, 4]


def test_values_of_a_layer_with_few_are_kept():
    network = fp.MLP.from_weights([[[1.0, 2.0, 2.0, 5.0]]], loss="mean_squared_error")
    fp.share_weights(network, 2)
    assert network.weights[0].tolist() == [[1, 2, 2, 5]]
    empty = fp.MLP([3, 2, 1], loss="mean_squared_error")
    fp.Pruner(fp.Trainer(empty)).apply([np.zeros((2, 3)), None])
    fp.share_weights(empty, 1, bias_bits=1)
    assert values_of(empty) == [0, 2]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("execution", ["dense", "sparse"])
def test_a_step_moves_a_value_by_the_sum_of_its_gradients(optimizer, execution):
    """The twin trains the values themselves: what they get is the sum over their weights."""
    trainer, x, y = made(execution=execution, optimizer=optimizer, batch_size=None, momentum=0.5, bias_bits=2)
    network = trainer.network
    velocity, square = {}, {}
    for step in range(1, 4):
        gradient = trainer.gradient(x, y)
        expected = []
        for kind, arrays, slopes in (("w", network.weights, gradient.weights), ("b", network.biases, gradient.biases)):
            masks = network.masks if kind == "w" else [np.ones(array.shape, bool) for array in arrays]
            for layer, (array, slope, mask) in enumerate(zip(arrays, slopes, masks, strict=True)):
                after = array.copy()
                for value in np.unique(array[mask]):
                    group = mask & (array == value)
                    key, total = (kind, layer, np.flatnonzero(group)[0]), slope[group].sum()
                    if optimizer == "sgd":
                        velocity[key] = 0.5 * velocity.get(key, 0) + total
                        after[group] -= 0.01 * velocity[key]
                    else:
                        velocity[key] = 0.5 * velocity.get(key, 0) + 0.5 * total
                        square[key] = 0.999 * square.get(key, 0) + 0.001 * total**2
                        root = np.sqrt(square[key] / (1 - 0.999**step)) + 1e-8
                        after[group] -= 0.01 * velocity[key] / (1 - 0.5**step) / root
                expected.append(after)
        trainer.restore_best = False
        trainer.fit(x, y, 1)
        for found, wanted in zip([*network.weights, *network.biases], expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "settings", [{}, {"batch_size": None}, {"dropout": 0.2, "l1": 1e-4, "l2": 1e-3, "nesterov": True}]
)
def test_values_stay_shared_with_any_number_of_threads(monkeypatch, dtype, optimizer, settings):
    if optimizer == "adam" and settings.get("nesterov"):
        settings = settings | {"nesterov": False}
    monkeypatch.setattr(spans, "_THREAD_FLOP", 1)
    ends = []
    for n_jobs in (1, 2):
        trainer, x, y = made(dtype=dtype, optimizer=optimizer, n_jobs=n_jobs, bits=[1, 2, 3], bias_bits=1, **settings)
        masks, counts = trainer.network.masks, values_of(trainer.network)
        assert counts[:2] == [2, 4]
        trainer.fit(x, y, 10)
        trainer.snapshot().check()
        assert values_of(trainer.network) == counts
        assert [np.unique(bias).size for bias in trainer.network.biases] == [2, 2, 2]
        for mask, before in zip(trainer.network.masks, masks, strict=True):
            np.testing.assert_array_equal(mask, before)
        ends.append(trainer.snapshot().vectors)
    for one, two in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_wide_first_layer_of_a_batch_of_all_samples():
    """Whose inputs are otherwise read once a step, with the update in the same pass."""
    network = fp.MLP([2000, 5, 2], loss="softmax_cross_entropy")
    fp.share_weights(network, 2)
    rng = np.random.default_rng(0)
    trainer = fp.Trainer(network, batch_size=None, learning_rate=1e-4)
    trainer.fit(rng.normal(size=(80, 2000)), rng.integers(2, size=80), 5)
    trainer.snapshot().check()
    assert values_of(network) == [4, 4]


def test_it_learns_what_sharing_lost():
    data = fp.load_dataset("digits")
    trainer = fp.Trainer(fp.MLP([64, 100, 10]))
    trainer.fit(data.x_train, data.y_train, 20)
    fp.Pruner(trainer, schedule=[0.6, 0.9]).run(data.x_train, data.y_train, 10)
    before = trainer.evaluate(data.x_train, data.y_train).loss
    fp.share_weights(trainer.network, 2, bias_bits=2)
    shared = trainer.evaluate(data.x_train, data.y_train).loss
    trainer.fit(data.x_train, data.y_train, 20, learning_rate=0.001)
    after = trainer.evaluate(data.x_train, data.y_train).loss
    assert before < after < 0.8 * shared


def test_sharing_comes_through_copies_states_and_prunes():
    trainer, x, y = made(bits=2)
    trainer.fit(x, y, 2)
    state = trainer.snapshot()
    again = fp.State.from_bytes(state.to_bytes())
    np.testing.assert_array_equal(again.groups, state.groups)
    others = [copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))]
    restored = made(bits=2)[0]
    restored.restore(again)
    trainer.fit(x, y, 3)
    for other in others:
        other.fit(x, y, 3)
        np.testing.assert_array_equal(other.snapshot().values, trainer.snapshot().values)
    restored.fit(x, y, 3)
    assert values_of(restored.network) == [4, 4, 4]

    fp.Pruner(trainer, schedule=[0.9]).run(x, y, 3)
    assert trainer.network.sparsity == pytest.approx(0.9, abs=1e-3)
    assert max(values_of(trainer.network)) <= 4
    trainer.snapshot().check()
    fp.Pruner(trainer, schedule=[0.8], grower="random").run(x, y, 3)
    trainer.snapshot().check()
    assert max(values_of(trainer.network)) > 4  # new weights share no value

    trainer.network.set_weights(trainer.network.weights)
    assert trainer.network.state.groups.size == 0


def test_a_rewound_network_shares_as_it_did():
    trainer, x, y = made(bits=2)
    state = trainer.snapshot()
    trainer.fit(x, y, 3)
    fp.Pruner(trainer, schedule=[0.9]).step()
    trainer.rewind(state)
    trainer.fit(x, y, 3)
    trainer.snapshot().check()
    assert max(values_of(trainer.network)) <= 4


@pytest.mark.parametrize("fault", ["number", "pruned", "unequal", "dtype"])
def test_states_with_wrong_groups_are_refused(fault):
    trainer, _, _ = made(execution="dense")
    state = trainer.snapshot()
    state.check()
    groups = state.groups.copy()
    first = np.flatnonzero(groups >= 0)[0]
    if fault == "number":
        groups[first] = groups.size
    elif fault == "pruned":
        groups[np.flatnonzero(state.storage.live == 0)[0]] = 0
    elif fault == "unequal":
        state.values[first] += 1
    object.__setattr__(state, "groups", groups.astype(np.int64) if fault == "dtype" else groups)
    with pytest.raises(ValueError, match="groups: expected"):
        state.check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("network", 2), "network: expected an MLP, got str"),
        ((fp.MLP([2, 2]).freeze(), 2), "network: expected an MLP, got FrozenMLP"),
        ((fp.MLP([2, 2]), 0), "bits: expected an integer of at least 1, got 0"),
        ((fp.MLP([2, 2]), 9), "bits: expected an integer of at most 8, got 9"),
        ((fp.MLP([2, 2]), [2, 2]), "bits: expected one number for each of 1 layers, got 2"),
        ((fp.MLP([2, 2, 2]), b"22"), "bits: expected an integer of at least 1, got b'22'"),
        ((fp.MLP([2, 2]), "4"), "bits: expected an integer of at least 1, got '4'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fp.share_weights(*arguments)


@pytest.mark.parametrize("max_increase", [0.0, 0.02, 0.3])
def test_auto_takes_the_fewest_bits_that_the_held_out_loss_allows(max_increase):
    data = fp.load_dataset("digits")
    trainer = fp.Trainer(fp.MLP([64, 30, 10]))
    trainer.fit(data.x_train, data.y_train, 20)
    network, held_out = trainer.network, (data.x_test, data.y_test)
    bar = trainer.evaluate(*held_out).loss * (1 + max_increase)

    def loss(layer, bits):
        """Of a network with one layer's weights shared, by hand."""
        weights = network.weights
        values, groups = _clusters(weights[layer].ravel(), 2**bits)
        weights[layer] = values[groups].reshape(weights[layer].shape)
        other = fp.MLP.from_weights(weights, network.biases, loss="softmax_cross_entropy")
        return fp.Trainer(other).evaluate(*held_out).loss

    expected = [next((b for b in range(1, 8) if loss(layer, b) <= bar), 8) for layer in range(2)]
    fp.share_weights(network, "auto", validation=held_out, max_increase=max_increase, bias_bits=3)
    assert all(values <= 2**bits for values, bits in zip(values_of(network), expected, strict=True))
    again = fp.MLP.from_weights(network.weights, network.biases)
    fp.share_weights(again, expected)
    for ours, theirs in zip(network.weights, again.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for bits, weights in zip(expected, network.weights, strict=True):
        assert np.unique(weights).size > 2 ** (bits - 1) or bits == 1  # no fewer would do
    assert [np.unique(bias).size for bias in network.biases] == [8, 8]


@pytest.mark.parametrize(
    ("bits", "given", "message"),
    [
        ("auto", {}, "validation: expected samples if bits is 'auto', and only then, got none"),
        (2, {"validation": ([[1, 2]], [0])}, "validation: .* only then, got samples with bits 2"),
        ("auto", {"validation": ([[1]], [0])}, r"validation\[0\]: expected finite numbers of shape"),
        ("auto", {"validation": ([[1, 2]], [0]), "max_increase": -1}, r"max_increase: expected a number in \[0, inf\)"),
        ("Auto", {}, "bits: expected an integer of at least 1, got 'Auto'"),
    ],
)
def test_bad_choices_of_bits(bits, given, message):
    network = fp.MLP([2, 2], loss="softmax_cross_entropy")
    before = network.state
    with pytest.raises(ValueError, match=message):
        fp.share_weights(network, bits, **given)
    assert network.state is before


def test_bad_bits_of_biases():
    with pytest.raises(ValueError, match="bias_bits: expected an integer of at most 8, got 16"):
        fp.share_weights(fp.MLP([2, 2]), 2, bias_bits=16)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_steps_of_one_fit_are_those_of_many(optimizer):
    """Weights on no path to an output are in groups, too; their gradients are not written, and must not add up."""
    ends = []
    for fits in (1, 4):
        trainer, x, y = made(optimizer=optimizer, batch_size=None, restore_best=False)
        assert sum(trainer.network.dead_units) > 0
        for _ in range(fits):
            trainer.fit(x, y, 4 // fits)
        ends.append(trainer.snapshot().values)
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_group_is_equal_to_the_bit_wherever_its_weights_lie(optimizer, dtype):
    """In vectors of the update, or in what is left of a loop, where sums are rounded otherwise."""
    rng = np.random.default_rng(0)
    network = fp.MLP([37, 53, 3], loss="softmax_cross_entropy", dtype=dtype)
    fp.share_weights(network, 3)
    trainer = fp.Trainer(network, optimizer=optimizer, learning_rate=0.003, l2=1e-3, restore_best=False)
    trainer.fit(rng.normal(size=(100, 37)), rng.integers(3, size=100), 50)
    trainer.snapshot().check()
