"""Every kernel against its float64 twin, against finite differences, and against writing where it should only read."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import fastprune as fp
from fastprune.blas import one_blas_thread
from fastprune.kernels import activation, linear, loss, random, select, steps, tile, update
from fastprune.kernels.layout import Parameters, Recipe, Samples, Update, Workspace
from fastprune.network import ACTIVATIONS, LOSSES
from fastprune.trainer import OPTIMIZERS

DTYPES = ["float32", "float64"]
TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-11, "atol": 1e-12}}


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


class Frozen:
    """Copies of arrays that a kernel may only read, to be compared afterwards."""

    def __init__(self, *arrays):
        self.arrays, self.copies = arrays, [array.copy() for array in arrays]

    def check(self):
        for array, copy in zip(self.arrays, self.copies, strict=True):
            np.testing.assert_array_equal(array, copy)


# Random numbers


def test_derive_is_splitmix64():
    # The published test vector of SplitMix64 with seed 1234567 (its state grows by the golden gamma each time).
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [int(random.derive(np.uint64(1234567), i)) for i in range(5)] == expected
    assert [reference.derive(1234567, i) for i in range(5)] == expected


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_shuffle(count):
    order = np.empty(count, np.int64)
    random.shuffle(order, np.uint64(5))
    np.testing.assert_array_equal(order, reference.shuffle(count, 5))
    assert sorted(order) == list(range(count))


def test_shuffle_is_uniform():
    orders = np.empty((6000, 3), np.int64)
    for key, order in enumerate(orders):
        random.shuffle(order, np.uint64(key))
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert abs(counts - 1000).max() < 150  # five standard deviations


# Tiles


@pytest.mark.parametrize(("features", "start", "stop"), [(1, 0, 1), (17, 3, 19), (40, 10, 26), (16, 0, 5)])
def test_gather(dtype, features, start, stop):
    x, order = normal(30, features, dtype=dtype), reference.shuffle(30, 1)
    frozen = Frozen(x, order)
    out = np.full((features, 16), np.nan, dtype)
    tile.gather(out, x, order, start, stop)
    np.testing.assert_array_equal(out, reference.gather(x, order, start, stop, 16).astype(dtype))
    frozen.check()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite(dtype, bad):
    x = normal(1000, dtype=dtype)
    assert tile.all_finite(x)
    x[777] = bad
    assert not tile.all_finite(x)


# Linear layers

SHAPES = [(1, 1), (5, 3), (3, 40)]


@pytest.mark.parametrize(("fan_out", "fan_in"), SHAPES)
def test_dense_forward(dtype, fan_out, fan_in):
    x, w, b = normal(fan_in, 16, dtype=dtype), normal(fan_out, fan_in, dtype=dtype), normal(fan_out, dtype=dtype)
    frozen = Frozen(x, w, b)
    out = np.full((fan_out, 16), np.nan, dtype)
    linear.dense_forward(out, x, w, b)
    np.testing.assert_allclose(out, reference.dense_forward(x, w, b), **TOLERANCE[dtype])
    frozen.check()


@pytest.mark.parametrize(("fan_out", "fan_in"), SHAPES)
@pytest.mark.parametrize("first", [True, False])
def test_dense_weight_gradient(dtype, fan_out, fan_in, first):
    dout, x = normal(fan_out, 16, dtype=dtype), normal(fan_in, 16, dtype=dtype)
    dw, db = normal(fan_out, fan_in, dtype=dtype), normal(fan_out, dtype=dtype)
    expected_dw, expected_db = reference.dense_weight_gradient(dout.astype(float), x.astype(float))
    if not first:
        expected_dw, expected_db = expected_dw + dw, expected_db + db
    frozen = Frozen(dout, x)
    linear.dense_weight_gradient(dw, db, np.full(200, np.nan, dtype), dout, x, first)
    np.testing.assert_allclose(dw, expected_dw, **TOLERANCE[dtype])
    np.testing.assert_allclose(db, expected_db, **TOLERANCE[dtype])
    frozen.check()


@pytest.mark.parametrize(("fan_out", "fan_in"), SHAPES)
def test_dense_input_gradient(dtype, fan_out, fan_in):
    dout, w = normal(fan_out, 16, dtype=dtype), normal(fan_out, fan_in, dtype=dtype)
    frozen = Frozen(dout, w)
    dtile = np.full((fan_in, 16), np.nan, dtype)
    linear.dense_input_gradient(dtile, dout, w)
    np.testing.assert_allclose(dtile, reference.dense_input_gradient(dout, w), **TOLERANCE[dtype])
    frozen.check()


# Activations


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(dtype, name):
    z = normal(5, 16, dtype=dtype)
    z[0, 0], z[0, 1], z[0, 2] = 0, 80, -80
    out = z.copy()
    activation.activate_forward(out, ACTIVATIONS[name])
    np.testing.assert_allclose(out, reference.activate(z.astype(float), name), **TOLERANCE[dtype])

    upstream = normal(5, 16, dtype=dtype, seed=1)
    frozen, dout = Frozen(out), upstream.copy()
    activation.activate_backward(dout, out, ACTIVATIONS[name], 1.0)
    np.testing.assert_allclose(dout, upstream * reference.derivative(z.astype(float), name), **TOLERANCE[dtype])
    frozen.check()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_gradient_is_the_slope(name):
    z, h = normal(4, 16), 1e-6
    high, low, out, dout = z + h, z - h, z.copy(), np.ones_like(z)
    for values in (high, low, out):
        activation.activate_forward(values, ACTIVATIONS[name])
    activation.activate_backward(dout, out, ACTIVATIONS[name], 1.0)
    np.testing.assert_allclose(dout, (high - low) / (2 * h), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_gradient_under_dropout(dtype, name):
    z, keep = normal(4, 16, dtype=dtype), 0.75
    out, dout = z.copy(), np.ones_like(z)
    activation.activate_forward(out, ACTIVATIONS[name])
    out /= np.array(keep, dtype)
    activation.activate_backward(dout, out, ACTIVATIONS[name], keep)
    np.testing.assert_allclose(dout, reference.derivative(z.astype(float), name), **TOLERANCE[dtype])


def test_dropout(dtype):
    values = normal(6, 16, dtype=dtype)
    dropped = values.copy()
    activation.dropout(dropped, np.uint64(9), 32, 0.7)
    np.testing.assert_allclose(dropped, reference.dropout(values.astype(float), 9, 32, 0.7), **TOLERANCE[dtype])


def test_dropout_keeps_the_share_it_is_given_and_the_mean():
    values = np.ones((500, 64))
    activation.dropout(values, np.uint64(3), 0, 0.8)
    assert np.count_nonzero(values) / values.size == pytest.approx(0.8, abs=0.01)
    assert values.mean() == pytest.approx(1, abs=0.01)


def test_dropout_does_not_depend_on_the_tiles():
    whole, parts = np.ones((7, 64)), np.ones((7, 64))
    activation.dropout(whole, np.uint64(1), 0, 0.5)
    for first in range(0, 64, 16):
        part = np.ones((7, 16))
        activation.dropout(part, np.uint64(1), first, 0.5)
        parts[:, first : first + 16] = part
    np.testing.assert_array_equal(whole, parts)


# Losses


def labelled(name, count, outputs, dtype):
    rng = np.random.default_rng([count, outputs])
    labels = rng.integers(0, outputs, count)
    targets = {
        "softmax_cross_entropy": np.empty((0, 0)),
        "sigmoid_cross_entropy": rng.integers(0, 2, (count, outputs)),
        "mean_squared_error": rng.standard_normal((count, outputs)),
    }[name]
    return labels, targets.astype(dtype)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("outputs", [1, 2, 7])
def test_loss(dtype, name, outputs):
    count, start, stop = 40, 20, 31
    labels, targets = labelled(name, count, outputs, dtype)
    order = reference.shuffle(count, 2)
    out = 3 * normal(outputs, 16, dtype=dtype)
    frozen = Frozen(out, labels, targets, order)
    dout = np.full_like(out, np.nan)
    samples = Samples(np.empty((count, 1), dtype), labels, targets)
    total, hits = loss.loss_and_gradient(dout, out, samples, order, start, stop, 0.25, LOSSES[name])

    y = labels if name == "softmax_cross_entropy" else targets.astype(float)
    chosen = y[order[start:stop]]
    expected = reference.LOSSES[name](out[:, : stop - start].astype(float), chosen if y.ndim == 1 else chosen.T)
    assert total == pytest.approx(expected[0], rel=1e-6 if dtype == "float32" else 1e-12)
    np.testing.assert_allclose(dout[:, : stop - start], 0.25 * expected[1], **TOLERANCE[dtype])
    assert hits == expected[2]
    assert not dout[:, stop - start :].any(), "spare lanes have no gradient"
    frozen.check()


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradient_is_the_slope(name):
    labels, targets = labelled(name, 16, 3, "float64")
    order, out, h = np.arange(16), normal(3, 16), 1e-6
    samples = Samples(np.empty((16, 1)), labels, targets)

    def summed(logits):
        return loss.loss_and_gradient(np.empty_like(logits), logits, samples, order, 0, 16, 1.0, LOSSES[name])[0]

    dout = np.empty_like(out)
    loss.loss_and_gradient(dout, out, samples, order, 0, 16, 1.0, LOSSES[name])
    for k, t in [(0, 0), (1, 7), (2, 15)]:
        step = np.zeros_like(out)
        step[k, t] = h
        assert dout[k, t] == pytest.approx((summed(out + step) - summed(out - step)) / (2 * h), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_loss_of_huge_logits_is_finite_and_right(dtype, name):
    out = np.array([[1000.0, -1000.0]], dtype).repeat(2, axis=0)
    out[1] *= -1
    samples = Samples(np.empty((2, 1), dtype), np.array([0, 0]), np.array([[1, 0], [1, 0]], dtype))
    total, _ = loss.loss_and_gradient(np.empty_like(out), out, samples, np.arange(2), 0, 2, 1.0, LOSSES[name])
    # Right by a margin of 2000 (1000) for the first sample, wrong by it for the second.
    assert total == pytest.approx(2000 if name == "softmax_cross_entropy" else 1000)


# Updates


def settings(optimizer="sgd", momentum=0.9, nesterov=False, l1=0.01, l2=0.02):
    return Update(OPTIMIZERS[optimizer], momentum, nesterov, l1, l2)


def vectors(count, dtype):
    w, v, g, s = (normal(count, dtype=dtype, seed=seed) for seed in range(4))
    live = (np.random.default_rng(0).random(count) < 0.6).astype(np.uint8)
    for vector in (w, v, s):
        vector *= live
    w[np.flatnonzero(live)[:3]] = 0  # a live weight may be 0: then L1 has no direction
    g[live == 0] = np.nan  # a dead weight's gradient is nobody's business
    return w, v, abs(s), g, live


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_step(dtype, nesterov):
    w, v, _, g, live = vectors(100, dtype)
    expected = reference.sgd_step(*(a.astype(float) for a in (w, v, g)), live, 0.1, 0.9, nesterov, 0.01, 0.02)
    frozen = Frozen(g, live)
    update.sgd_step(w, v, g, live, settings(nesterov=nesterov), 0.01, 0.02, 0.1)
    np.testing.assert_allclose(w, expected[0], **TOLERANCE[dtype])
    np.testing.assert_allclose(v, expected[1], **TOLERANCE[dtype])
    assert not w[live == 0].any()
    assert not v[live == 0].any()
    frozen.check()


def test_adam_step(dtype):
    w, v, s, g, live = vectors(100, dtype)
    expected = reference.adam_step(*(a.astype(float) for a in (w, v, s, g)), live, 0.1, 0.9, 0.01, 0.02, 4)
    frozen = Frozen(g, live)
    update.adam_step(w, v, s, g, live, 0.9, 0.01, 0.02, 0.1, 4)
    for vector, values in zip((w, v, s), expected, strict=True):
        np.testing.assert_allclose(vector, values, **TOLERANCE[dtype])
        assert not vector[live == 0].any()
    frozen.check()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_weights_decay(dtype, optimizer):
    ones, zeros = np.ones(10, dtype), np.zeros(10, dtype)
    values = ones.copy()
    parameters = Parameters(values, np.ones(10, np.uint8), zeros, zeros.copy(), zeros.copy())
    update.update_step(parameters, 6, settings(optimizer, l1=0.5, l2=0.5), 0.1, 0)
    assert (values[:6] < 1).all()
    assert (values[6:] == 1).all()


# Selection

scores = st_numpy.arrays(np.float64, st.integers(1, 60), elements=st.integers(0, 8).map(float))


@given(scores, st.data())
def test_partition(values, data):
    k = data.draw(st.integers(0, values.size - 1))
    ordered = values.copy()
    found = select.partition(ordered, k)
    assert found == ordered[k] == np.sort(values)[k]
    assert (ordered[:k] <= found).all()
    assert (ordered[k:] >= found).all()
    assert sorted(ordered) == sorted(values)


@given(scores, st.floats(0, 100))
def test_percentile(values, q):
    assert select.percentile(values.copy(), q) == pytest.approx(reference.percentile(values, q), rel=1e-14, abs=0)


def test_percentile_of_distinct_values_at_the_ends_and_of_none():
    values = normal(1001)
    for q in (0.0, 3.7, 50.0, 99.95, 100.0):
        assert select.percentile(values.copy(), q) == np.percentile(values, q)
    assert select.percentile(np.empty(0), 50.0) == 0


@given(scores, st.data())
def test_mark_smallest(values, data):
    count = data.draw(st.integers(0, values.size))
    marks, frozen = np.full(values.size, 7, np.uint8), Frozen(values)
    select.mark_smallest(marks, np.empty_like(values), values, count)
    np.testing.assert_array_equal(marks, reference.smallest(values, count))
    frozen.check()


# Whole passes


def small(name, dtype, activation="relu", sizes=(7, 6, 5, 3), count=23):
    """A network with some weights pruned, and data for one loss, spread over tiles and a ragged last batch."""
    network = fp.MLP(list(sizes), activation=activation, dtype=dtype, loss=name, seed=3)
    network.values[network.layout.biases[0] :] = normal(sum(sizes[1:]), dtype=dtype) / 4
    dead = np.random.default_rng(1).random(network.total_weights) < 0.3
    network.values[: dead.size][dead], network.live[: dead.size][dead] = 0, 0
    labels, targets = labelled(name, count, sizes[-1], dtype)
    samples = Samples(normal(count, sizes[0], dtype=dtype), labels, targets)
    return network, samples


def run_steps(network, samples, rates, *, batch, lanes=16, optimizer="sgd", dropout=0.0, step=0, velocity=None):
    """Run the kernel on fresh scratch memory full of NaN; return its parameters, losses, hits and count."""
    layout, dtype, zeros = network.layout, network.dtype, np.zeros_like(network.values)
    velocity = zeros.copy() if velocity is None else velocity
    shapes = [(-(-batch // lanes), layout.sizes[0], lanes), (layout.rows[-1], lanes), (layout.rows[-1], lanes), (999,)]
    scratch = [np.full(shape, np.nan, dtype) for shape in shapes]
    workspace = Workspace(np.arange(len(samples.x)), *scratch)
    parameters = Parameters(network.values, network.live, np.full_like(zeros, np.nan), velocity, zeros)
    recipe = Recipe(LOSSES[network.loss], batch, dropout, np.uint64(11), settings(optimizer, l1=0.001, l2=0.01))
    losses, hits = np.full(len(rates), np.nan), np.zeros(len(rates), np.int64)
    arguments = (parameters, workspace, layout, samples, recipe, np.array(rates, float), step, step)
    with one_blas_thread():
        done = steps.train_steps(losses, hits, *arguments)
    return parameters, losses, hits, done


def split(network, vector):
    bounds = network.layout
    weights = [w.astype(float) for w in network._split_weights(vector)]
    return weights, [vector[a:b].astype(float) for a, b in zip(bounds.biases[:-1], bounds.biases[1:], strict=True)]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_step_agrees_with_the_twin(dtype, name, activation):
    network, samples = small(name, dtype, activation)
    weights, biases = split(network, network.values)
    y = samples.labels if name == "softmax_cross_entropy" else samples.targets.astype(float)
    total, hits, dweights, dbiases = reference.gradients(samples.x.astype(float), y, weights, biases, activation, name)
    before, frozen = network.values.copy(), Frozen(*samples, network.live, *network.layout[:4])
    parameters, losses, right, done = run_steps(network, samples, [0.1], batch=23)
    assert done == 1
    assert losses[0] == pytest.approx(total, rel=1e-5 if dtype == "float32" else 1e-12)
    assert right[0] == hits
    gradient = np.concatenate([g.reshape(-1) for g in dweights + dbiases])
    np.testing.assert_allclose(parameters.gradient, gradient, **TOLERANCE[dtype])
    decay = np.arange(before.size) < network.total_weights
    w, v = reference.sgd_step(
        before.astype(float),
        np.zeros(before.size),
        gradient,
        network.live,
        0.1,
        0.9,
        False,
        0.001 * decay,
        0.01 * decay,
    )
    np.testing.assert_allclose(network.values, w, **TOLERANCE[dtype])
    np.testing.assert_allclose(parameters.velocity, v, **TOLERANCE[dtype])
    frozen.check()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_finite_differences(name, activation):
    network, samples = small(name, "float64", activation)
    values = network.values.copy()

    def mean_loss(changed):
        network.values[:] = changed
        return run_steps(network, samples, [1e-9], batch=23)[1][0] / 23

    gradient = run_steps(network, samples, [1e-9], batch=23)[0].gradient
    rng, h = np.random.default_rng(0), 1e-6
    for p in rng.choice(values.size, 12, replace=False):
        step = np.zeros_like(values)
        step[p] = h
        slope = (mean_loss(values + step) - mean_loss(values - step)) / (2 * h)
        assert gradient[p] == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_gradients_under_dropout_are_finite_differences():
    network, samples = small("softmax_cross_entropy", "float64", "tanh")
    values = network.values.copy()

    def mean_loss(changed):
        network.values[:] = changed
        return run_steps(network, samples, [1e-9], batch=23, dropout=0.4)[1][0] / 23

    gradient = run_steps(network, samples, [1e-9], batch=23, dropout=0.4)[0].gradient
    for p in np.random.default_rng(0).choice(values.size, 20, replace=False):
        step = np.zeros_like(values)
        step[p] = 1e-6
        slope = (mean_loss(values + step) - mean_loss(values - step)) / 2e-6
        assert gradient[p] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_batches_cover_each_epoch_in_a_new_order(optimizer):
    """Two epochs of 23 samples in batches of 10, 10 and 3, against the twin step by step."""
    network, samples = small("softmax_cross_entropy", "float64")
    weights = network.total_weights
    w, live = network.values.copy(), network.live
    v, s = np.zeros_like(w), np.zeros_like(w)
    decay = np.arange(w.size) < weights
    expected = []
    for number in range(6):
        if number % 3 == 0:
            order = reference.shuffle(23, reference.derive(reference.derive(11, random.SHUFFLE), number))
        chosen = order[10 * (number % 3) : 10 * (number % 3) + 10]
        x, y = samples.x[chosen], samples.labels[chosen]
        total, _, *gradients = reference.gradients(x, y, *split(network, w), "relu", "softmax_cross_entropy")
        g = np.concatenate([part.reshape(-1) for group in gradients for part in group])
        expected.append(total)
        if optimizer == "sgd":
            w, v = reference.sgd_step(w, v, g, live, 0.05, 0.9, False, 0.001 * decay, 0.01 * decay)
        else:
            w, v, s = reference.adam_step(w, v, s, g, live, 0.05, 0.9, 0.001 * decay, 0.01 * decay, number)
    _, losses, _, _ = run_steps(network, samples, [0.05] * 6, batch=10, optimizer=optimizer)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    np.testing.assert_allclose(network.values, w, rtol=1e-9, atol=1e-12)


def test_one_call_of_many_steps_equals_many_calls():
    once, samples = small("softmax_cross_entropy", "float32")
    often, _ = small("softmax_cross_entropy", "float32")
    run_steps(once, samples, [0.05] * 5, batch=10, dropout=0.3)
    velocity = np.zeros_like(often.values)
    for step in range(5):
        run_steps(often, samples, [0.05], batch=10, dropout=0.3, step=step, velocity=velocity)
    np.testing.assert_array_equal(once.values, often.values)


def test_lanes_do_not_matter():
    narrow, samples = small("softmax_cross_entropy", "float64")
    wide, _ = small("softmax_cross_entropy", "float64")
    run_steps(narrow, samples, [0.1] * 4, batch=23, lanes=16, dropout=0.3)
    run_steps(wide, samples, [0.1] * 4, batch=23, lanes=32, dropout=0.3)
    np.testing.assert_allclose(narrow.values, wide.values, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_ends_the_call_before_its_update(dtype, bad):
    network, samples = small("mean_squared_error", dtype)
    samples.targets[12] = bad
    done = run_steps(network, samples, [0.01] * 23, batch=1)[3]
    assert 0 < done < 23
    assert np.isfinite(network.values).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("count", [1, 16, 65, 130])
def test_forward_samples(dtype, name, count):
    network, samples = small("mean_squared_error", dtype, name, count=count)
    expected = reference.forward(samples.x.astype(float), *split(network, network.values), name)[1][-1].T
    np.testing.assert_allclose(network.logits(samples.x), expected, **TOLERANCE[dtype])
