"""The training loop: what is learned, what is kept, what is repeated, and what is refused."""

import pickle
import threading

import numpy as np
import pytest
import reference
import threadpoolctl

import fastprune as fp
from fastprune import blas, evaluation, spans


@pytest.fixture(scope="module")
def digits():
    return fp.load_dataset("digits")


def blobs(count=60, features=4, classes=3, seed=0):
    """Classes around different points: easy to learn."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(count) % classes)
    centres = 3 * rng.standard_normal((classes, features))
    return (centres[y] + rng.standard_normal((count, features))).astype("float32"), y


def trained(epochs=5, sizes=(4, 8, 3), network_settings=None, fit=None, **settings):
    x, y = blobs()
    network = fp.MLP(list(sizes), **(network_settings or {}))
    history = fp.Trainer(network, **{"batch_size": 16, **settings}).fit(x, y, epochs, **(fit or {}))
    return network, history


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("batch_size", [None, 7, 1000])
def test_it_learns(optimizer, activation, batch_size):
    rate = {"sgd": 0.1, "adam": 0.02}[optimizer]
    network, history = trained(
        40, network_settings={"activation": activation}, optimizer=optimizer, learning_rate=rate, batch_size=batch_size
    )
    x, y = blobs()
    assert history.train.accuracy > 0.9
    assert history.train.accuracy == (network.predict(x) == y).mean()
    assert network.loss == "softmax_cross_entropy"
    assert not history.train.collapsed


def test_momentum_and_nesterov_and_decay_are_the_twins():
    x, y = blobs()
    network = fp.MLP([4, 8, 3], dtype="float64", activation="tanh")
    settings = {"momentum": 0.8, "nesterov": True, "l1": 0.002, "l2": 0.03}
    w, v = network.state.values.copy(), np.zeros_like(network.state.values)
    decay = np.arange(w.size) < network.total_weights
    bounds = network.state.storage.layout
    for step in range(6):
        weights = [
            w[a:b].reshape(shape)
            for a, b, shape in zip(bounds.weights[:-1], bounds.weights[1:], [(8, 4), (3, 8)], strict=True)
        ]
        biases = [w[a:b] for a, b in zip(bounds.biases[:-1], bounds.biases[1:], strict=True)]
        _, _, *parts = reference.gradients(x.astype(float), y, weights, biases, "tanh", "softmax_cross_entropy")
        g = np.concatenate([part.reshape(-1) for group in parts for part in group])
        rate = 0.2 * (1 - step / 6)
        w, v = reference.sgd_step(w, v, g, np.ones(w.size), rate, 0.8, True, 0.002 * decay, 0.03 * decay)
    fp.Trainer(network, learning_rate=0.2, learning_rate_schedule="linear", batch_size=None, **settings).fit(x, y, 6)
    np.testing.assert_allclose(network.state.values, w, rtol=1e-10, atol=1e-13)


def test_regression_and_binary_labels():
    x, _ = blobs()
    y = (x[:, :1] - x[:, 1:2]).astype("float32")
    network = fp.MLP([4, 16, 1])
    history = fp.Trainer(network, learning_rate=0.01).fit(x, y, 200)
    assert network.loss == "mean_squared_error"
    assert history.train.accuracy is None
    assert history.epochs[-1].accuracy is None
    assert history.train.loss == pytest.approx(((network.predict(x) - y[:, 0]) ** 2).mean(), rel=1e-4)
    assert history.train.loss < 0.1 * y.var()

    for labels in ((y[:, 0] > 0), (y[:, 0] > 0).astype(float), (y > 0).astype(int)):
        network = fp.MLP([4, 8, 1])
        history = fp.Trainer(network, learning_rate=0.1).fit(x, labels, 60)
        assert network.loss == "sigmoid_cross_entropy"
        assert history.train.accuracy > 0.95

    network = fp.MLP([4, 8, 2])
    history = fp.Trainer(network, learning_rate=0.1).fit(x, np.hstack([y > 0, x[:, 2:3] > 0]).astype(int), 60)
    assert network.loss == "sigmoid_cross_entropy"
    assert history.train.accuracy == (network.predict(x) == np.hstack([y > 0, x[:, 2:3] > 0])).all(axis=1).mean()


def test_a_given_loss_is_not_inferred():
    x, y = blobs(classes=2)
    network = fp.MLP([4, 1], loss="mean_squared_error")
    fp.Trainer(network, learning_rate=0.01).fit(x, y, 1)
    assert network.loss == "mean_squared_error"


def test_history_tells_each_epoch():
    _, history = trained(4, learning_rate=0.2, learning_rate_schedule="linear")
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3, 4]
    assert [epoch.learning_rate for epoch in history.epochs] == pytest.approx([0.2, 0.15, 0.1, 0.05])
    assert history.epochs[0].loss > history.epochs[-1].loss
    assert all(0 <= epoch.accuracy <= 1 and epoch.validation is None for epoch in history.epochs)
    assert history.seconds > 0


def test_the_loss_of_an_epoch_is_the_mean_over_all_samples():
    # A learning rate next to nothing: each batch sees the same network.
    network, history = trained(1, learning_rate=1e-12, batch_size=7, network_settings={"dtype": "float64"})
    x, y = blobs()
    evaluation = fp.Trainer(network).evaluate(x, y)
    assert history.epochs[0].loss == pytest.approx(evaluation.loss, rel=1e-9)
    assert history.epochs[0].accuracy == evaluation.accuracy


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("step", [1, 1, 0.1, 0.01]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, 0.853553, 0.5, 0.146447]),
        (lambda progress: 1 - progress**2, [1, 0.9375, 0.75, 0.4375]),
    ],
)
def test_learning_rate_schedules(name, factors):
    _, history = trained(4, learning_rate=0.1, learning_rate_schedule=name)
    assert [epoch.learning_rate for epoch in history.epochs] == pytest.approx([0.1 * f for f in factors], rel=1e-5)


def test_same_seed_same_bits():
    runs = [trained(3, dropout=0.3, seed=seed)[0].state.values for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_same_bits_whatever_the_length_of_spans(monkeypatch):
    values = []
    for flop in (1, 3e6, 1e9):
        monkeypatch.setattr(spans, "_SPAN_FLOP", flop)
        network, history = trained(6, dropout=0.3, learning_rate=0.02)
        assert not history.restored  # where it can go back to does depend on the spans
        values.append(network.state.values)
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


def test_same_bits_beside_another_training():
    """Trainings in threads of one process do not disturb each other."""

    def train(epochs):
        # A rate at which the loss falls: at one at which it explodes, rounding would decide what comes out.
        return trained(epochs, sizes=(4, 200, 200, 3), learning_rate=0.001)

    network, history = train(30)
    assert history.train.loss < 0.8 * train(2)[1].train.loss
    found = []
    threads = [
        threading.Thread(target=lambda epochs=epochs: found.append(train(epochs)[0].state.values))
        for epochs in (2, 30, 30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same = [np.array_equal(values, network.state.values) for values in found]
    assert sorted(same) == [False, True, True]
    assert not blas._users


def blas_threads():
    import scipy.linalg.cython_blas  # noqa: F401

    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def test_blas_has_one_thread_inside_and_its_own_outside():
    before = blas_threads()
    assert before
    with blas.one_blas_thread():
        with blas.one_blas_thread():
            pass
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_blas_gets_its_threads_back_whoever_leaves_last():
    """With threadpoolctl 3.8 one thread was left for good where the user that came first did not leave last."""
    before = blas_threads()
    came, left = threading.Event(), threading.Event()

    def first():
        with blas.one_blas_thread():
            came.wait(10)
        left.set()
        done.wait(10)  # alive, and so in control of BLAS, for all that threadpoolctl knows

    done = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    with blas.one_blas_thread():
        came.set()
        assert left.wait(10)
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
    with blas.one_blas_thread():
        assert set(blas_threads()) == {1}
    done.set()
    thread.join()


def scattered(network, vector):
    """The weights of a vector of stored parameters, in full; what is not stored is 0."""
    return [network.state.storage.matrix(layer, vector) for layer in range(network.n_layers)]


@pytest.mark.parametrize("execution", ["dense", "sparse", ["sparse", "dense"]])
def test_pruned_weights_and_their_state_stay_zero(execution):
    """Invariant 1, through momentum, Nesterov, Adam and decay."""
    x, y = blobs()
    for settings in ({}, {"nesterov": True}, {"optimizer": "adam", "learning_rate": 0.01}):
        network = fp.MLP([4, 8, 3], execution=execution)
        trainer = fp.Trainer(network, batch_size=16, l1=0.001, l2=0.001, **settings)
        trainer.fit(x, y, 3)  # momentum is under way
        fp.Pruner(trainer, schedule=[0.0]).step(sparsity=0.6)
        masks = network.masks
        for _ in range(3):
            for vector in trainer.snapshot().vectors:
                full = scattered(network, vector) if vector.size else []
                assert not any(w[~mask].any() for w, mask in zip(full, masks, strict=False))
            trainer.fit(x, y, 2)
        assert all(w[mask].all() for w, mask in zip(network.weights, masks, strict=True))
        for now, then in zip(network.masks, masks, strict=True):
            np.testing.assert_array_equal(now, then)
        assert network.sparsity == pytest.approx(0.6, abs=0.01)


@pytest.mark.filterwarnings("ignore:training collapsed")
def test_the_best_state_is_kept(monkeypatch):
    """A learning rate that grows: the loss falls, then rises; the end is worse than the middle."""
    monkeypatch.setattr(spans, "_SPAN_FLOP", 1)
    x, y = blobs()
    network = fp.MLP([4, 8, 3])
    rate = {"learning_rate": 0.05, "learning_rate_schedule": lambda progress: 1 if progress < 0.7 else 60}
    history = fp.Trainer(network, batch_size=None, momentum=0.0, **rate).fit(x, y, 30)
    losses = [epoch.loss for epoch in history.epochs]
    assert losses[-1] > 2 * min(losses)
    assert history.restored
    assert history.train.loss == pytest.approx(min(losses), rel=1e-6)
    assert fp.Trainer(network).evaluate(x, y) == history.train


@pytest.mark.filterwarnings("ignore:training collapsed")
@pytest.mark.parametrize(
    "settings", [{"batch_size": 8}, {"batch_size": 8, "dropout": 0.3}, {"batch_size": 8, "l2": 0.01}]
)
def test_the_best_state_of_mini_batches_is_the_best_of_those_it_ended_epochs_with(monkeypatch, settings):
    """Not the one that began the epoch with the best mean: that mean is of what the epoch learned, under dropout."""
    monkeypatch.setattr(spans, "_SPAN_FLOP", 1e6)
    x, y = blobs()
    network = fp.MLP([4, 8, 3])
    # A jump by 100 let the loss grow to 1e27 times the best.
    rate = {"learning_rate": 0.05, "learning_rate_schedule": lambda progress: 1 if progress < 0.5 else 30}
    trainer_ = fp.Trainer(network, **rate, **settings)
    seen = []

    def look(progress):
        if progress.step % 8 == 0:
            seen.append((trainer_.evaluate(x, y), trainer_.snapshot()))

    history = trainer_.fit(x, y, 4, callback=look)
    assert len(seen) == 4
    evaluation, state = min(seen, key=lambda pair: pair[0].loss)
    assert seen[-1][0].loss > 1.2 * evaluation.loss
    assert history.restored
    assert history.train == evaluation == trainer_.evaluate(x, y)
    for now, then in zip(trainer_.snapshot().vectors, state.vectors, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.filterwarnings("ignore:training collapsed")
def test_states_of_large_sets_are_compared_by_a_part_of_them(monkeypatch):
    monkeypatch.setattr(evaluation, "_WATCHED", 20)
    monkeypatch.setattr(spans, "_SPAN_FLOP", 1)
    rate = {"learning_rate": 0.05, "learning_rate_schedule": lambda progress: 1 if progress < 0.5 else 100}
    network, history = trained(6, **rate)
    assert history.restored
    x, y = blobs()
    some = evaluation.training_set(network, x, y, "softmax_cross_entropy", 0).watched
    assert history.train == fp.Trainer(network).evaluate(some.features.dense, some.labels)
    assert len(some.features.dense) == len(some.labels) == 20
    assert {(*row, label) for row, label in zip(some.features.dense, some.labels, strict=True)} < {
        (*row, label) for row, label in zip(x, y, strict=True)
    }


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
def test_large_sets_are_evaluated_in_parts(monkeypatch, loss):
    x, y = blobs(150)
    y = y if loss == "softmax_cross_entropy" else np.eye(3)[y]
    network = fp.MLP([4, 8, 3], loss=loss, dtype="float64", seed=1)
    whole = fp.Trainer(network).evaluate(x, y)
    monkeypatch.setattr(evaluation, "_LOGITS", 1)
    parts = fp.Trainer(network).evaluate(x, y)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-12)
    assert (parts.accuracy, parts.collapsed) == (whole.accuracy, whole.collapsed)


def test_a_collapse_is_one_of_all_parts(monkeypatch):
    """Each part has one answer, and a loss of the entropy; that is a collapse if the answers are the same."""
    monkeypatch.setattr(evaluation, "_LOGITS", 1)
    y = np.arange(128) % 2
    network = fp.MLP([1, 2], dtype="float64", loss="softmax_cross_entropy")
    network.state.values[:] = 0
    x = np.repeat([[1.0], [-1.0]], 64, axis=0)
    assert fp.Trainer(network).evaluate(x, y).collapsed
    network.state.values[0] = 1e-9
    assert not fp.Trainer(network).evaluate(x, y).collapsed


def test_the_best_state_is_the_best_on_held_out_samples():
    """Labels of noise: what is learned of them does not hold for others, and the start is the best."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 10)).astype("float32"), rng.integers(0, 2, 40)
    other = rng.normal(size=(200, 10)).astype("float32"), rng.integers(0, 2, 200)
    network = fp.MLP([10, 64, 2])
    history = fp.Trainer(network, learning_rate=0.1).fit(x, y, 40, validation=other)
    held_out = [epoch.validation.loss for epoch in history.epochs]
    assert history.restored
    assert history.validation.loss <= min(held_out)
    assert held_out[-1] > history.validation.loss
    assert history.validation == fp.Trainer(network).evaluate(*other)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_restored_state_includes_masks_momentum_and_the_count_of_updates(optimizer):
    x, y = blobs()
    trainer = fp.Trainer(fp.MLP([4, 8, 3]), optimizer=optimizer, learning_rate=0.01, batch_size=16, dropout=0.2)
    trainer.fit(x, y, 2)
    state = trainer.snapshot()
    ends = []
    for _ in range(2):
        trainer.restore(state)
        assert trainer.network.sparsity == 0
        for now, then in zip(trainer.snapshot().vectors, state.vectors, strict=True):
            np.testing.assert_array_equal(now, then)
        trainer.fit(x, y, 2)
        ends.append(trainer.network.state.values.copy())
        fp.Pruner(trainer, schedule=[0.0]).step(sparsity=0.9)
        trainer.fit(x, y, 2)
    np.testing.assert_array_equal(*ends)
    assert state.vectors[1].any(), "momentum"


@pytest.mark.parametrize("flop", [1, 1e9])
def test_convergence(monkeypatch, flop):
    monkeypatch.setattr(spans, "_SPAN_FLOP", flop)
    tolerance, patience = 1e-3, 5
    _, history = trained(2000, tolerance=tolerance, patience=patience, batch_size=None, learning_rate=0.3)
    assert history.converged
    target, stale, expected = np.inf, 0, None
    for epoch in history.epochs:
        improved = epoch.loss < target - tolerance
        target, stale = (epoch.loss, 0) if improved else (target, stale + 1)
        if stale == patience and expected is None:
            expected = epoch.epoch
    assert expected <= len(history.epochs) < expected + patience
    assert flop > 1 or len(history.epochs) == expected
    _, history = trained(20, tolerance=0.0, patience=15, batch_size=None)
    assert not history.converged
    assert len(history.epochs) == 20


@pytest.mark.parametrize("flop", [1, 1e9])
def test_divergence_names_the_epoch_and_restores(monkeypatch, flop):
    monkeypatch.setattr(spans, "_SPAN_FLOP", flop)
    x, y = blobs()
    y = y.astype("float32")
    network = fp.MLP([4, 16, 1])
    tame = fp.Trainer(network, learning_rate=1e-3)
    tame.fit(x, y, 3)
    before = tame.evaluate(x, y)
    wild = fp.Trainer(
        network, learning_rate=1e-3, batch_size=None, learning_rate_schedule=lambda p: 1 if p < 0.5 else 1e9
    )
    with pytest.raises(
        fp.DivergenceError, match=r"the loss became (nan|inf) in epoch (\d+) of 40; .*restored"
    ) as error:
        wild.fit(x, y, 40)
    assert f"epoch {error.value.epoch} of 40" in str(error.value)
    assert 20 < error.value.epoch < 30
    after = tame.evaluate(x, y)
    assert np.isfinite(network.state.values).all()
    assert np.isfinite(after.loss)
    if flop == 1:  # a state a step: the last finite one is the one just before
        assert after.loss > before.loss
    assert np.isfinite(tame.fit(x, y, 1).train.loss), "training can go on"


def test_divergence_of_the_last_update_is_found(monkeypatch):
    x, y = blobs()
    network = fp.MLP([4, 16, 1])
    before = network.state.values.copy()
    with pytest.raises(fp.DivergenceError, match=r"the loss became (nan|inf) in epoch 1 of 1; .*restored"):
        fp.Trainer(network, learning_rate=1e38, batch_size=None).fit(x, y.astype("float32"), 1)
    np.testing.assert_array_equal(network.state.values, before)


def test_weights_that_become_infinite_at_a_finite_loss_are_found():
    """A saturated unit is 1 whatever its weight; that one is multiplied by 1 - 3 at each step."""
    network = fp.MLP([1, 1, 1], activation="tanh")
    network.state.values[:] = [-3e38, 0.1, 0.0, 0.0]
    before = network.state.values.copy()
    trainer = fp.Trainer(network, learning_rate=3.0, l2=1.0, momentum=0.0, batch_size=None, restore_best=False)
    with pytest.raises(fp.DivergenceError, match="a weight or its optimizer state became infinite"):
        trainer.fit([[1.0]], [0.5], 1)
    np.testing.assert_array_equal(network.state.values, before)
    network.state.values[0] = -np.inf
    with pytest.raises(ValueError, match=r"network: a weight .* is infinite or NaN before training"):
        trainer.fit([[1.0]], [0.5], 1)


def test_callback_sees_progress_and_may_stop(monkeypatch):
    monkeypatch.setattr(spans, "_SPAN_FLOP", 1)
    seen = []
    trained(2, batch_size=16, fit={"callback": seen.append})
    assert [p.step for p in seen] == list(range(1, 9))
    assert {p.steps for p in seen} == {8}
    assert all(np.isfinite(p.loss) and 0 < p.loss < 10 for p in seen)

    def stop(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    x, y = blobs()
    network = fp.MLP([4, 8, 3])
    start = network.state.values.copy()
    with pytest.raises(KeyboardInterrupt):
        fp.Trainer(network, batch_size=16).fit(x, y, 2, callback=stop)
    assert (network.state.values != start).any()
    assert np.isfinite(network.state.values).all()


def test_a_callback_that_trains_the_network_is_found(monkeypatch):
    """By the same trainer, too: both trainings would write into the same arrays."""
    monkeypatch.setattr(spans, "_SPAN_FLOP", 1)
    x, y = blobs()
    network = fp.MLP([4, 8, 3])
    first = fp.Trainer(network, batch_size=16, restore_best=False)
    for other in (first, fp.Trainer(network, batch_size=16)):
        with pytest.raises(RuntimeError, match="the callback pruned, restored or trained the network"):
            first.fit(x, y, 2, callback=lambda _, other=other: other.fit(x, y, 1))
    assert np.isfinite(first.fit(x, y, 1).train.loss)


@pytest.mark.filterwarnings("ignore:training collapsed")
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("features", [1, 3])
def test_one_sample_and_one_feature(samples, features):
    x, y = np.ones((samples, features)), np.arange(samples)
    network = fp.MLP([features, 1, 2])
    history = fp.Trainer(network).fit(x, y, 3)
    assert np.isfinite(history.train.loss)
    assert network.predict(x).shape == (samples,)


@pytest.mark.parametrize("outputs", [1, 2])
def test_one_class_is_no_collapse(outputs):
    x, _ = blobs()
    history = fp.Trainer(fp.MLP([4, 8, outputs])).fit(x, np.zeros(60, int), 20)
    assert history.train.accuracy == 1
    assert not history.train.collapsed


@pytest.mark.parametrize("outputs", [1, 2])
def test_collapse_is_the_entropy_of_the_labels_or_worse(outputs):
    """Failure (a) of the seed program: 107:74 labels, cost 0.6764, accuracy 59.1 %."""
    y = np.repeat([0, 1], [107, 74])
    x = np.random.default_rng(0).normal(size=(181, 3))
    network = fp.MLP([3, outputs])
    network.state.values[:] = 0
    biases = network.state.values[network.state.storage.layout.biases[0] :]
    tell = fp.Trainer(network).evaluate
    biases[-1] = np.log(74 / 107)
    evaluation = tell(x, y)
    assert evaluation.loss == pytest.approx(0.6764, abs=5e-5)
    assert evaluation.accuracy == pytest.approx(0.591, abs=5e-4)
    assert evaluation.collapsed
    biases[-1] = -3.0  # surer of the same answer, and wrong more dearly
    assert tell(x, y).loss > 1
    assert tell(x, y).collapsed
    network.state.values[0 if outputs == 1 else 3] = 5.0  # answers differ, however badly
    assert not tell(x, y).collapsed


def test_a_constant_answer_with_a_loss_below_the_entropy_is_no_collapse():
    """All samples are put into the larger class, but with probabilities that tell the classes apart."""
    y = np.repeat([0, 1], [107, 74])
    network = fp.MLP([1, 1], dtype="float64", loss="sigmoid_cross_entropy")
    network.state.values[:] = [2.0, -2.1]
    evaluation = fp.Trainer(network).evaluate(y.reshape(-1, 1), y)
    assert len(set(network.predict(y.reshape(-1, 1)))) == 1
    assert not evaluation.collapsed


def test_epochs_0_only_evaluates():
    x, y = blobs()
    network = fp.MLP([4, 8, 3])
    before = network.state.values.copy()
    history = fp.Trainer(network).fit(x, y, 0)
    np.testing.assert_array_equal(network.state.values, before)
    assert history.epochs == ()
    assert history.train == fp.Trainer(network).evaluate(x, y)


def test_digits(digits):
    network = fp.MLP([64, 50, 10])
    trainer = fp.Trainer(network, batch_size=32)
    trainer.fit(digits.x_train, digits.y_train, 30)
    assert trainer.evaluate(digits.x_test, digits.y_test).accuracy > 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "mlp"}, "network: expected an MLP, got str"),
        ({"optimizer": "rmsprop"}, "optimizer: expected one of 'sgd', 'adam', got 'rmsprop'"),
        ({"learning_rate": 0}, r"learning_rate: expected a number in \(0, inf\), got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number"),
        ({"learning_rate": float("inf")}, "learning_rate: expected a number"),
        ({"learning_rate": "fast"}, "learning_rate: expected a number"),
        ({"learning_rate": True}, "learning_rate: expected a number"),
        ({"learning_rate_schedule": "exponential"}, "learning_rate_schedule: expected one of 'constant', 'step'"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\), got 1.0"),
        ({"nesterov": 1}, "nesterov: expected True or False, got 1"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov: expected optimizer 'sgd', got 'adam'"),
        ({"l1": -1}, r"l1: expected a number in \[0, inf\), got -1"),
        ({"l2": -0.1}, "l2: expected a number"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"batch_size": 2.0}, "batch_size: expected an integer"),
        ({"tolerance": -1e-9}, "tolerance: expected a number"),
        ({"patience": 0}, "patience: expected an integer of at least 1"),
        ({"n_jobs": 0}, "n_jobs: expected a number of threads, or -1 for all cores, got 0"),
        ({"n_jobs": -2}, "n_jobs: expected a number of threads, or -1 for all cores, got -2"),
        ({"n_jobs": 1.5}, "n_jobs: expected"),
        ({"n_jobs": True}, "n_jobs: expected"),
        ({"n_jobs": None}, "n_jobs: expected"),
        ({"seed": -1}, "seed: expected an integer of at least 0"),
        ({"seed": 2**64}, "seed: expected an integer of at most 18446744073709551615"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        fp.Trainer(**{"network": fp.MLP([4, 3]), **arguments})


X, Y = np.ones((6, 4)), np.arange(6) % 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", -1.0, r"learning_rate: expected a number in \(0, inf\), got -1.0"),
        ("learning_rate_schedule", "fast", "learning_rate_schedule: expected one of 'constant'"),
        ("momentum", 5.0, r"momentum: expected a number in \[0, 1\), got 5.0"),
        ("nesterov", 1, "nesterov: expected True or False"),
        ("l1", -1, "l1: expected a number"),
        ("l2", np.nan, "l2: expected a number"),
        ("input_dropout", 1.0, "input_dropout: expected a number"),
        ("dropout", 1.0, "dropout: expected a number"),
        ("scale_dropout", None, "scale_dropout: expected True or False"),
        ("batch_size", 0, "batch_size: expected an integer of at least 1, got 0"),
        ("tolerance", "0", "tolerance: expected a number"),
        ("patience", 0, "patience: expected an integer"),
        ("restore_best", 0, "restore_best: expected True or False"),
        ("n_jobs", 0, "n_jobs: expected a number of threads"),
        ("seed", -1, "seed: expected an integer"),
    ],
)
def test_settings_that_are_set_later_are_checked_then(name, value, message):
    trainer = fp.Trainer(fp.MLP([4, 3]))
    before = getattr(trainer, name)
    with pytest.raises(ValueError, match=message):
        setattr(trainer, name, value)
    assert getattr(trainer, name) == before
    setattr(trainer, name, before)


def test_settings_that_are_set_later_are_used():
    trainer = fp.Trainer(fp.MLP([4, 3]))
    with pytest.raises(AttributeError):
        trainer.network = fp.MLP([4, 3])
    trainer.learning_rate_schedule = "linear"
    assert trainer.learning_rate_schedule(0.25) == 0.75
    trainer.n_jobs = -1
    assert trainer.n_jobs >= 1
    adam = fp.Trainer(fp.MLP([4, 3]), optimizer="adam")
    adam.nesterov = True
    with pytest.raises(ValueError, match="nesterov: expected optimizer 'sgd', got 'adam'"):
        adam.fit(X, Y, 1)
    assert adam.network.loss is None


def wrapping_none(progress):
    """A function that wraps one without arguments, and says so."""


wrapping_none.__wrapped__ = lambda: None


@pytest.mark.filterwarnings("ignore:training collapsed")
@pytest.mark.parametrize("function", [print, [].append, lambda progress, more=1: None, wrapping_none, np.array, list])
def test_what_can_be_called_is_called(function):
    function = {list: type("Told", (), {"__init__": lambda self, progress: None})}.get(function, function)
    fp.Trainer(fp.MLP([4, 3])).fit(X, Y, 1, callback=function)


@pytest.mark.parametrize("function", [1, "print", lambda: 1.0, lambda progress, more: 1.0, [len]])
def test_what_cannot_be_called_is_refused_before_training(function):
    network = fp.MLP([4, 3])
    before = network.state.values.copy()
    with pytest.raises(ValueError, match="callback: expected a function that takes a Progress, got"):
        fp.Trainer(network).fit(X, Y, 1, callback=function)
    with pytest.raises(ValueError, match="learning_rate_schedule: expected one of 'constant'"):
        fp.Trainer(network, learning_rate_schedule=function)
    with pytest.raises(ValueError, match="learning_rate_schedule: expected one of 'constant'"):
        fp.Trainer(network).fit(X, Y, 1, learning_rate_schedule=function)
    pruner = fp.Pruner(fp.Trainer(network), schedule=[0.5])
    for name in ("callback", "on_round", "learning_rate_schedule"):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            pruner.run(X, Y, 1, **{name: function})
    np.testing.assert_array_equal(network.state.values, before)
    assert (network.loss, pruner.round) == (None, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.ones((6, 5))}, r"x: expected finite numbers of shape \(N, 4\), got shape \(6, 5\)"),
        ({"x": np.ones((0, 4))}, "x: expected at least one sample"),
        ({"x": np.full((6, 4), np.inf)}, "x: expected finite numbers .*got NaN or infinity"),
        ({"y": Y[:5]}, r"y: expected integers of shape \(6,\) in 0 .. 2, got shape \(5,\)"),
        ({"y": Y + 0.5}, r"y: expected finite numbers of shape \(6, 3\), got shape \(6,\)"),
        ({"y": Y + 1}, "y: expected integers .* in 0 .. 2, got values from 1 to 3"),
        ({"y": Y - 1}, "got values from -1 to 1"),
        ({"y": Y.astype(str)}, "y: expected numbers, got text; np.unique"),
        ({"y": np.full((6, 3), np.nan)}, r"y: expected finite numbers of shape \(6, 3\), got NaN or infinity"),
        ({"y": np.ones((6, 2))}, r"y: expected numbers in 0 .. 1 of shape \(6, 3\), got shape \(6, 2\)"),
        ({"epochs": -1}, "epochs: expected an integer of at least 0, got -1"),
        ({"epochs": 1.5}, "epochs: expected an integer"),
        ({"learning_rate": -1}, "learning_rate: expected a number"),
        ({"validation": X}, r"validation: expected a pair \(x, y\), got ndarray"),
        ({"validation": (X,)}, r"validation: expected a pair \(x, y\), got tuple of 1"),
        ({"validation": (X[:, :2], Y)}, r"validation\[0\]: expected finite numbers of shape \(N, 4\)"),
        ({"validation": (X, Y[:2])}, r"validation\[1\]: expected integers"),
    ],
)
def test_bad_data_changes_nothing(arguments, message):
    network = fp.MLP([4, 3])
    before = network.state.values.copy()
    with pytest.raises(ValueError, match=message):
        fp.Trainer(network).fit(**{"x": X, "y": Y, "epochs": 1, **arguments})
    np.testing.assert_array_equal(network.state.values, before)
    assert network.loss is None


def test_a_schedule_that_is_no_number_is_refused():
    network = fp.MLP([4, 3])
    before = network.state.values.copy()
    with pytest.raises(ValueError, match=r"learning_rate_schedule: expected factors in \[0, inf\), got -1"):
        fp.Trainer(network, batch_size=1, learning_rate_schedule=lambda p: -1 if p > 0.5 else 1).fit(X, Y, 2)
    np.testing.assert_array_equal(network.state.values, before)


def test_labels_that_do_not_fit_a_single_output_name_the_way_out():
    with pytest.raises(ValueError, match=r"y: expected numbers in 0 .. 1 .*from 0 to 2; .*loss='mean_squared_error'"):
        fp.Trainer(fp.MLP([4, 1])).fit(X, Y, 1)
    fp.Trainer(fp.MLP([4, 1], loss="mean_squared_error")).fit(X, Y, 1)


@pytest.mark.filterwarnings("ignore:training collapsed")
def test_whole_numbers_are_classes_whatever_their_dtype():
    values = []
    for labels in (Y, Y.astype("uint8"), Y.astype("float32"), Y.tolist()):
        network = fp.MLP([4, 3])
        fp.Trainer(network).fit(X, labels, 1)
        assert network.loss == "softmax_cross_entropy"
        values.append(network.state.values)
    assert all(np.array_equal(values[0], other) for other in values)


def test_divergence_comes_whole_from_another_process():
    error = fp.DivergenceError("the loss", "inf", 2, 5)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert str(error).startswith("the loss became inf in epoch 2 of 5; the last finite state was restored.")
    assert again.epoch == 2


@pytest.mark.filterwarnings("ignore:training collapsed")
def test_trainers_can_be_pickled():
    trainer = fp.Trainer(fp.MLP([4, 3]), learning_rate_schedule="cosine")
    trainer.fit(X, Y, 2)
    clone = pickle.loads(pickle.dumps(trainer))
    assert clone.fit(X, Y, 2).epochs == trainer.fit(X, Y, 2).epochs
    np.testing.assert_array_equal(clone.network.state.values, trainer.network.state.values)


def test_a_state_is_put_back_only_where_it_came_from():
    trainer = fp.Trainer(fp.MLP([4, 3]))
    before = trainer.network.state.values.copy()
    for state in (fp.Trainer(fp.MLP([5, 3])).snapshot(), fp.Trainer(fp.MLP([4, 3]), optimizer="adam").snapshot(), None):
        with pytest.raises(ValueError, match="state: expected a snapshot of this trainer"):
            trainer.restore(state)
    np.testing.assert_array_equal(trainer.network.state.values, before)


def test_a_network_that_is_not_finite_to_begin_with_is_refused():
    network = fp.MLP([4, 8, 1], initialization=1e30)
    for epochs in (0, 2):
        with pytest.raises(ValueError, match=r"network: the loss is (nan|inf) before training"):
            fp.Trainer(network).fit(X, Y / 2, epochs)
        assert network.loss is None


def test_a_rate_that_the_schedule_makes_infinite_is_refused():
    for schedule, message in (
        (lambda _: 1e308, "learning_rate: expected a rate that stays finite under the schedule, got 1e[+]10"),
        (
            len,
            r"learning_rate_schedule: expected factors in \[0, inf\), got an error: object of type 'float' has no len",
        ),
        (lambda _: np.longdouble("1e4000"), r"learning_rate_schedule: expected factors in \[0, inf\), got inf"),
    ):
        network = fp.MLP([4, 3])
        with pytest.raises(ValueError, match=message):
            fp.Trainer(network, learning_rate=1e10, learning_rate_schedule=schedule).fit(X, Y, 1)
        assert network.loss is None


@pytest.mark.parametrize("factor", ["fast", "0.5", [1.0], [1.0, 2.0], None, 10**400, np.ones((2, 2))])
def test_a_schedule_that_returns_no_number_is_refused(factor):
    with pytest.raises(ValueError, match=r"learning_rate_schedule: expected factors in \[0, inf\), got"):
        fp.Trainer(fp.MLP([4, 3]), learning_rate_schedule=lambda _: factor).fit(X, Y, 1)
