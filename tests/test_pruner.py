"""Rounds of pruning and retraining: records, nesting, and what becomes of a collapse."""

import itertools

import numpy as np
import pytest

import fastprune as fp
from fastprune import check, evaluation, rounds, spans, training


@pytest.fixture(scope="module")
def digits():
    return fp.load_dataset("digits")


def dense(digits, **settings):
    network = fp.MLP([64, 40, 10], seed=0)
    trainer = fp.Trainer(network, **{"batch_size": 32, "seed": 0, **settings})
    trainer.fit(digits.x_train, digits.y_train, 10)
    return network, trainer


def events(record):
    return [str(event) for event in record.events]


def test_the_loop(digits):
    network, trainer = dense(digits)
    pruner = fp.Pruner(trainer, rule="percentile", schedule=fp.schedules.PercentileRamp(q=30.0, rounds=4))
    masks, records = [network.masks], []

    def on_round(record):
        records.append(record)
        if record.after is not None:
            masks.append(network.masks)

    test = (digits.x_test, digits.y_test)
    history = pruner.run(digits.x_train, digits.y_train, 5, test=test, on_round=on_round)

    assert [record.round for record in history] == [1, 2, 3, 4]
    assert pruner.round == 4
    assert [record.after is None for record in records] == [True, False] * 4
    assert records[1::2] == history
    for earlier, later in itertools.pairwise(masks):
        assert all((new <= old).all() and (new < old).any() for old, new in zip(earlier, later, strict=True))
    for record, before in zip(history, [0, *(r.sparsity for r in history)], strict=False):
        assert record.requested == 30.0
        assert record.requested_sparsity == pytest.approx(1 - 0.7 * (1 - before))
        assert record.sparsity == pytest.approx(record.requested_sparsity, abs=2 / network.total_weights)
        assert record.sparsity == record.prunable_sparsity
        assert record.live + round(record.sparsity * network.total_weights) == network.total_weights
        assert record.after.train.accuracy > 0.99
        assert record.after.test.accuracy > 0.93
        assert record.after.validation is None
        assert record.before.train.loss > record.after.train.loss
        assert (record.epochs, record.failed, record.events) == (5, False, ())
        assert record.seconds > 0
    assert history[-1].layer_sparsity == tuple(network.layer_sparsity)
    assert history[-1].after.test == trainer.evaluate(*test)


def test_pruning_beats_pruning_without_retraining(digits):
    network, trainer = dense(digits)
    history = fp.Pruner(trainer, schedule=[0.9]).run(digits.x_train, digits.y_train, 10)
    assert history[0].before.train.accuracy < 0.8 < 0.98 < history[0].after.train.accuracy
    assert network.sparsity == pytest.approx(0.9, abs=1e-4)


def test_run_without_retraining_only_evaluates(digits):
    network, trainer = dense(digits)
    weights, biases = network.weights, network.biases
    history = fp.Pruner(trainer, schedule=[0.3, 0.5]).run(digits.x_train, digits.y_train, 0)
    assert [record.sparsity for record in history] == [0.3, 0.5]
    assert all(record.before == record.after for record in history)
    for now, then, mask in zip(network.weights, weights, network.masks, strict=True):
        np.testing.assert_array_equal(now, then * mask)
    for now, then in zip(network.biases, biases, strict=True):
        np.testing.assert_array_equal(now, then)


def test_step_by_step_is_run(digits):
    run, step = dense(digits), dense(digits)
    schedule = fp.schedules.PolynomialDecay(0.0, 0.9, rounds=3)
    fp.Pruner(run[1], schedule=schedule).run(digits.x_train, digits.y_train, 2)
    pruner = fp.Pruner(step[1], schedule=schedule)
    for _ in schedule:
        pruner.step()
        step[1].fit(digits.x_train, digits.y_train, 2)
    np.testing.assert_array_equal(run[0].state.values, step[0].state.values)
    with pytest.raises(ValueError, match="all 3 rounds of the schedule are done; give a longer schedule, or a number"):
        pruner.step()


def test_run_goes_on_where_steps_left_off(digits):
    _, trainer = dense(digits)
    pruner = fp.Pruner(trainer, schedule=[0.2, 0.4, 0.6])
    pruner.step()
    assert [record.round for record in pruner.run(digits.x_train, digits.y_train, 1)] == [2, 3]
    assert pruner.run(digits.x_train, digits.y_train, 1) == []


def test_same_seed_same_bits(digits):
    values = []
    for _ in range(2):
        network, trainer = dense(digits, dropout=0.1)
        fp.Pruner(trainer, schedule=[0.5, 0.8], scope="global").run(digits.x_train, digits.y_train, 3)
        values.append(network.state.values)
    np.testing.assert_array_equal(*values)


def test_test_data_changes_nothing(digits):
    """Nothing is ever chosen by looking at test data (invariant 7)."""
    values = []
    for test in (None, (digits.x_test, digits.y_test), (digits.x_test, digits.y_test[::-1])):
        network, trainer = dense(digits)
        fp.Pruner(trainer, schedule=[0.8, 0.95]).run(digits.x_train, digits.y_train, 3, test=test)
        values.append(network.state.values)
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


def test_retraining_rate(digits):
    _, trainer = dense(digits)
    history = fp.Pruner(trainer, schedule=[0.5]).run(digits.x_train, digits.y_train, 1, learning_rate=0.01)
    assert history[0].learning_rate == 0.01
    assert trainer.learning_rate == 0.1


def test_a_round_that_removes_nothing_says_so(digits):
    _, trainer = dense(digits)
    history = fp.Pruner(trainer, schedule=[0.5, 0.5, 0.4]).run(digits.x_train, digits.y_train, 1)
    assert [events(record) for record in history] == [[], ["nothing removed"], ["nothing removed"]]
    assert [record.sparsity for record in history] == [0.5, 0.5, 0.5]
    assert [record.requested for record in history] == [0.5, 0.5, 0.4]


def test_an_emptied_layer_fails_the_round_and_the_last_good_network_stays(digits):
    """Failure (b) of the seed program, and the end of every loop that prunes too much."""
    network, trainer = dense(digits)
    pruner = fp.Pruner(trainer, rule="percentile", schedule=[50.0, {0: 100.0}, 10.0])
    with pytest.warns(fp.TrainingWarning, match=r"round 2 failed .*: retraining collapsed, then collapsed\. The net"):
        history = pruner.run(digits.x_train, digits.y_train, 3)
    assert [record.failed for record in history] == [False, True]
    assert events(history[1]) == ["layer emptied (layer 0)", "collapsed", "collapsed", "failed"]
    assert history[1].after.train.collapsed
    assert history[1].learning_rate == pytest.approx(0.01)
    assert history[1].epochs == 6
    assert history[1].layer_sparsity[0] == 1, "the record tells what was tried"
    assert network.sparsity == history[0].sparsity
    assert trainer.evaluate(digits.x_train, digits.y_train) == history[0].after.train
    assert pruner.round == 1


def test_an_emptied_network_is_defined(digits):
    network, trainer = dense(digits)
    pruner = fp.Pruner(trainer, rule="percentile", schedule=[100.0])
    record = pruner.step()
    assert events(record) == ["layer emptied (layer 0)", "layer emptied (layer 1)"]
    assert (network.sparsity, network.live_weights) == (1, 0)
    with pytest.warns(fp.TrainingWarning, match="training collapsed: the network gives one answer"):
        history = trainer.fit(digits.x_train, digits.y_train, 5)
    assert history.train.collapsed
    assert len(set(network.predict(digits.x_test))) == 1
    assert not any(weights.any() for weights in network.weights)


def test_a_collapse_at_the_first_rate_is_retried_at_a_tenth(digits):
    """At the first rate all ReLUs die; at a tenth of it they do not."""
    network, trainer = dense(digits)
    history = fp.Pruner(trainer, schedule=[0.97]).run(digits.x_train, digits.y_train, 4, learning_rate=10.0)
    assert events(history[0]) == ["collapsed"] or events(history[0]) == ["collapsed", "restored"]
    assert not history[0].failed
    assert not history[0].after.train.collapsed
    assert history[0].learning_rate == pytest.approx(1.0)
    assert history[0].epochs == 8
    assert network.sparsity == pytest.approx(0.97, abs=1e-4)


def test_collapse_is_told_by_the_training_set(digits):
    """Held-out samples choose the best state; of one class alone, they know of no collapse."""
    _, trainer = dense(digits)
    threes = digits.y_test == 3
    held_out = (digits.x_test[threes], digits.y_test[threes])
    pruner = fp.Pruner(trainer, schedule=[{0: 0.999999}])
    with pytest.warns(fp.TrainingWarning, match="round 1 failed"):
        history = pruner.run(digits.x_train, digits.y_train, 2, validation=held_out)
    assert history[0].failed
    assert "collapsed" in events(history[0])

    # Two samples that a good network takes for the same class, one of them wrongly, are no collapse.
    network, trainer = dense(digits)
    found, margin = network.predict(digits.x_train), network.predict_proba(digits.x_train)
    mistakes = np.flatnonzero(found != digits.y_train)
    wrong = mistakes[margin[mistakes, digits.y_train[mistakes]].argmin()]
    right = np.flatnonzero((digits.y_train == found[wrong]) & (found == digits.y_train))[0]
    two = digits.x_train[[wrong, right]], digits.y_train[[wrong, right]]
    assert trainer.evaluate(*two).collapsed
    assert not trainer.fit(digits.x_train, digits.y_train, 0, validation=two).collapsed


def test_a_best_state_that_is_collapsed_is_no_success(digits, monkeypatch):
    """A fit may end with another state than it keeps: what is kept counts, too."""
    _, trainer = dense(digits)
    collapsed = fp.Evaluation(2.3, 0.1, collapsed=True, one_answer=True)
    history = fp.History(
        (), collapsed, None, converged=False, stopped=False, restored=True, collapsed=False, seconds=0.0
    )
    monkeypatch.setattr(rounds, "train", lambda *_, **__: history)
    with pytest.warns(fp.TrainingWarning, match="round 1 failed"):
        record = fp.Pruner(trainer, schedule=[0.5]).run(digits.x_train, digits.y_train, 1)[0]
    assert record.failed
    assert events(record) == ["collapsed", "collapsed", "failed"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_round_is_undone_and_can_be_run_again(digits, error):
    network, trainer = dense(digits)
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.9])
    calls = []

    def interrupt(_):
        calls.append(network.sparsity)
        if network.sparsity > 0.8:
            raise error

    with pytest.raises(error):
        pruner.run(digits.x_train, digits.y_train, 2, callback=interrupt)
    assert calls[-1] > 0.8
    assert network.sparsity == 0.5
    assert pruner.round == 1
    assert trainer.evaluate(digits.x_train, digits.y_train).accuracy > 0.98
    assert [record.round for record in pruner.run(digits.x_train, digits.y_train, 2)] == [2]


def test_a_round_interrupted_before_it_retrains_is_undone_too(digits, monkeypatch):
    network, trainer = dense(digits)
    pruner = fp.Pruner(trainer, schedule=[0.5])
    real = rounds.evaluate_training

    def interrupted(*arguments):
        if network.sparsity > 0:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(rounds, "evaluate_training", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pruner.run(digits.x_train, digits.y_train, 1)
    assert (network.sparsity, pruner.round) == (0, 0)


def test_the_second_attempt_starts_from_the_pruned_weights(digits, monkeypatch):
    """After a divergence half way, the second attempt is what a first one at its learning rate would have been."""
    monkeypatch.setattr(spans, "_SPAN_FLOP", 1)
    x, y = digits.x_train, digits.y_train.astype("float32") / 2

    def pruned(rate):
        network = fp.MLP([64, 40, 1], activation="tanh")
        trainer = fp.Trainer(network, learning_rate=1e-3, learning_rate_schedule=lambda p: 0.1 if p < 0.5 else 1)
        trainer.fit(x, y, 3)
        history = fp.Pruner(trainer, schedule=[0.5]).run(x, y, 20, learning_rate=rate)
        return network, history[0]

    second, record = pruned(0.5)
    assert events(record) == ["diverged"]
    assert not record.failed
    assert 30 < record.epochs < 40, "ten epochs and some, then twenty"
    first, record = pruned(0.5 * 0.1)
    assert events(record) == []
    np.testing.assert_array_equal(first.state.values, second.state.values)


def test_divergence_in_both_attempts_fails_the_round(digits):
    x, y = digits.x_train, digits.y_train.astype("float32") / 2
    network = fp.MLP([64, 40, 1])
    trainer = fp.Trainer(network, learning_rate=1e-3)
    trainer.fit(x, y, 3)
    before = trainer.snapshot()
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.6])
    with pytest.warns(fp.TrainingWarning, match=r"round 1 failed .* diverged, then diverged"):
        history = pruner.run(x, y, 20, learning_rate=1e6)
    assert [(record.failed, record.after, events(record)) for record in history] == [
        (True, None, ["diverged", "diverged", "failed"])
    ]
    for now, then in zip(trainer.snapshot().vectors, before.vectors, strict=True):
        np.testing.assert_array_equal(now, then)
    assert before.vectors[1].any(), "momentum"
    assert history[0].epochs >= 2
    assert np.isfinite(pruner.run(x, y, 2)[-1].after.train.loss), "a gentler run takes up at the same round"
    assert network.sparsity == pytest.approx(0.6, abs=1e-3)


def test_a_collapse_with_a_good_state_before_it_is_restored_under_the_mask():
    """The learning rate jumps near the end, and all ReLUs die; a tenth of the jump does no harm."""
    data = fp.make_binary_images(seed=0)
    network = fp.MLP([10800, 5, 4, 3, 2, 1], seed=2)
    fp.Trainer(network, learning_rate=0.0075, momentum=0.0, batch_size=None).fit(data.x_train, data.y_train, 600)
    jump = {"learning_rate_schedule": lambda progress: 1 if progress < 0.6 else 20}
    trainer = fp.Trainer(network, learning_rate=0.0075, momentum=0.0, batch_size=None, **jump)
    pruner = fp.Pruner(trainer, schedule=[0.3], scope="global", ignored_layers=[-1])
    history = pruner.run(data.x_train, data.y_train, 100)
    assert events(history[0])[:2] == ["collapsed", "restored"]
    assert not history[0].failed
    assert not history[0].after.train.collapsed
    assert history[0].after.train.loss < history[0].before.train.loss
    assert history[0].learning_rate == pytest.approx(0.00075)
    assert history[0].epochs == 200
    assert network.sparsity == pytest.approx(0.3, abs=1e-4)
    assert not any(weights[~mask].any() for weights, mask in zip(network.weights, network.masks, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trainer": None}, "trainer: expected a Trainer, got NoneType"),
        ({"rule": "l1"}, "rule: expected one of 'sparsity', 'percentile', 'std', got 'l1'"),
        ({"scope": "local"}, "scope: expected one of 'layer', 'global', got 'local'"),
        ({"schedule": []}, "schedule: expected a sequence of at least one number"),
        ({"schedule": 0.5}, "schedule: expected a sequence"),
        ({"schedule": [0.5, 1.0]}, r"schedule\[1\]: expected a number in \[0, 1\), got 1.0"),
        ({"schedule": [float("nan")]}, r"schedule\[0\]: expected a number"),
        (
            {"schedule": fp.schedules.PercentileRamp(q=20.0), "rule": "sparsity"},
            r"schedule: expected numbers for rule 'sparsity', got Perc",
        ),
        (
            {"schedule": fp.schedules.LinearSparsity(0, 0.9, 2), "rule": "percentile"},
            "expected numbers for rule 'percentile'",
        ),
        ({"schedule": [20.0]}, r"schedule\[0\]: expected a number in \[0, 1\), got 20.0"),
        ({"schedule": [{0: 0.5, -2: 0.6}]}, r"schedule\[0\]: expected each layer once"),
        ({"schedule": [0.1, 0.9], "min_keep": 2, "scope": "global"}, r"schedule\[1\]: .* at most 0.833333, .*min_keep"),
        ({"ignored_layers": -1}, "ignored_layers: expected a list of layers, got -1"),
        ({"ignored_layers": np.array(1)}, "ignored_layers: expected a list of layers"),
        ({"schedule": [101.0], "rule": "percentile"}, r"schedule\[0\]: expected a number in \[0, 100\], got 101.0"),
        ({"schedule": [-1.0], "rule": "std"}, r"schedule\[0\]: expected a number in \[0, inf\), got -1.0"),
        ({"schedule": [{5: 0.5}]}, r"schedule\[0\]: expected layers in -2 .. 1, got 5"),
        ({"schedule": [{0: 2}]}, r"schedule\[0\]\[0\]: expected a number in \[0, 1\), got 2"),
        ({"schedule": [{}]}, r"schedule\[0\]: expected a number for at least one layer"),
        ({"schedule": [{0: 0.5}], "scope": "global"}, r"schedule\[0\]: expected one number in scope 'global'"),
        (
            {"schedule": [{0: 0.5}], "ignored_layers": [0]},
            r"schedule\[0\]: expected layers that are not ignored, got layer 0",
        ),
        ({"ignored_layers": [2]}, "ignored_layers: expected layers in -2 .. 1, got 2"),
        ({"ignored_layers": [0, 1]}, "ignored_layers: expected at least one layer left to prune, got all"),
        ({"ignored_layers": [0]}, r"schedule\[0\]: expected a sparsity of at most 0.375.*got 0.5"),
        ({"min_keep": -1}, "min_keep: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    trainer = fp.Trainer(fp.MLP([5, 3, 3]))
    with pytest.raises(ValueError, match=message):
        fp.Pruner(**{"trainer": trainer, "schedule": [0.5], **arguments})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rule", "l1", "rule: expected one of"),
        ("scope", "local", "scope: expected one of 'layer', 'global', got 'local'"),
        ("criterion", "hessian", "criterion: expected one of"),
        ("layer_rates", "mine", "layer_rates: expected one of"),
        ("min_keep", -1, "min_keep: expected an integer"),
        ("seed", 0.5, "seed: expected an integer"),
        ("round", -1, "round: expected an integer"),
        ("ignored_layers", [7], "ignored_layers: expected layers in"),
        ("ignored_layers", 1, "ignored_layers: expected a list of layers"),
        ("schedule", [0.5, 2.0], r"schedule\[1\]: expected a number in \[0, 1\), got 2.0"),
        ("schedule", 0.5, "schedule: expected a sequence"),
    ],
)
def test_settings_that_are_set_later_are_checked_before_anything_is_pruned(name, value, message):
    network = fp.MLP([5, 3, 3])
    pruner = fp.Pruner(fp.Trainer(network), schedule=[0.5, 0.6])

    def change_and_run():
        setattr(pruner, name, value)
        pruner.run(np.eye(3, 5), [0, 1, 2], 0)

    with pytest.raises(ValueError, match=message):
        change_and_run()
    assert (network.sparsity, pruner.round) == (0, 0)


def test_settings_that_are_set_later_have_to_go_together():
    network = fp.MLP([5, 3, 3])
    pruner = fp.Pruner(fp.Trainer(network), schedule=[0.5, 0.6])
    with pytest.raises(AttributeError):
        pruner.trainer = fp.Trainer(network)
    pruner.layer_rates, pruner.scope = "lamp", "global"
    for call in (pruner.step, lambda: pruner.run(np.eye(3, 5), [0, 1, 2], 0)):
        with pytest.raises(ValueError, match="layer_rates: expected rule 'sparsity' and scope 'layer' with 'lamp'"):
            call()
    pruner.scope = "layer"
    assert pruner.step().removed == 12
    pruner.schedule = np.array([0.1, 0.75])
    assert pruner.step().removed == 6


def test_dense_epochs_are_those_of_the_whole_network(digits):
    """Adaptive rates go by them; whoever prunes, and whatever is undone."""
    data = digits.x_train, digits.y_train
    network, trainer = dense(digits)
    other = fp.Trainer(network, batch_size=32)
    assert (trainer.dense_epochs, other.dense_epochs) == (10, 0)
    whole = trainer.snapshot()
    fp.Pruner(other, schedule=[0.5]).step()
    trainer.fit(*data, 1)
    assert trainer.dense_epochs == 10
    pruned = trainer.snapshot()
    trainer.restore(whole)
    with pytest.warns(fp.TrainingWarning, match="round 1 failed"):
        fp.Pruner(trainer, schedule=[{0: 0.999999}]).run(*data, 1)
    trainer.fit(*data, 1)
    assert trainer.dense_epochs == 11
    trainer.restore(pruned)
    trainer.fit(*data, 1)
    assert trainer.dense_epochs == 11


def test_a_run_that_is_undone_leaves_no_loss():
    network = fp.MLP([5, 3, 3])

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fp.Pruner(fp.Trainer(network), schedule=[0.5]).run(np.eye(3, 5), [0, 1, 2], 3, callback=stop)
    assert (network.loss, network.sparsity) == (None, 0)


def test_numbers_of_numpy_are_numbers():
    trainer = fp.Trainer(fp.MLP([30, 30]))
    pruner = fp.Pruner(trainer, schedule=[0.9], min_keep=np.uint8(200), seed=np.int8(3))
    assert (pruner.step().live, type(pruner.round)) == (200, int)


def test_a_round_that_is_undone_leaves_the_momentum_of_other_trainers(digits):
    data = digits.x_train, digits.y_train
    network, trainer = dense(digits)
    before = trainer.snapshot()
    other = fp.Pruner(fp.Trainer(network), schedule=[{0: 0.999999}])
    with pytest.warns(fp.TrainingWarning, match="round 1 failed"):
        other.run(*data, 1)
    fp.Trainer(network).fit(*data, 0)
    for now, then in zip(trainer.snapshot().vectors, before.vectors, strict=True):
        np.testing.assert_array_equal(now, then)
    assert before.velocity.any()


def test_an_error_of_the_second_on_round_undoes_the_round(digits):
    """It stood outside of what is undone, against what is promised."""
    network, trainer = dense(digits)
    before = trainer.snapshot()
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.9])

    def stop(record):
        if record.done and record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pruner.run(digits.x_train, digits.y_train, 1, on_round=stop)
    assert (network.sparsity, pruner.round) == (0.5, 1)
    trainer.restore(before)
    pruner.round = 0
    again = pruner.run(digits.x_train, digits.y_train, 1, rounds=1)
    assert [record.round for record in again] == [1]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity: expected a number in \[0, 1\), got 1.0"),
        ({"sparsity": -0.1}, "sparsity: expected a number"),
        ({"q": 101}, r"q: expected a number in \[0, 100\], got 101"),
        ({"quality": "high"}, r"quality: expected a number in \[0, inf\), got 'high'"),
        ({"q": 5, "sparsity": 0.5}, "step: expected at most one of sparsity=, q=, quality=, got q=, sparsity="),
    ],
)
def test_a_bad_step_changes_nothing(number, message):
    network = fp.MLP([5, 3, 3])
    pruner = fp.Pruner(fp.Trainer(network), schedule=[0.5])
    with pytest.raises(ValueError, match=message):
        pruner.step(**number)
    assert network.sparsity == 0
    assert pruner.round == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": -1}, "epochs: expected an integer"),
        ({"learning_rate": 0}, "learning_rate: expected a number"),
        ({"test": (np.ones((2, 4)), [0, 1])}, r"test\[0\]: expected finite numbers of shape"),
        ({"validation": (np.ones((2, 5)), [0, 9])}, r"validation\[1\]: expected integers"),
        ({"test": np.ones((2, 4))}, r"test: expected a pair \(x, y\), got ndarray"),
        ({"y": [0, 1, 7]}, "y: expected integers"),
    ],
)
def test_a_bad_run_changes_nothing(arguments, message):
    network = fp.MLP([5, 3, 3])
    pruner = fp.Pruner(fp.Trainer(network), schedule=[0.5])
    with pytest.raises(ValueError, match=message):
        pruner.run(**{"x": np.ones((3, 5)), "y": [0, 1, 2], "epochs": 1, **arguments})
    assert network.sparsity == 0
    assert pruner.round == 0


# Schedules


class Own:
    """A schedule of a user's: two methods, and the rule its numbers are for."""

    rule = "percentile"

    def __len__(self):
        return 3

    def __getitem__(self, number):
        if number >= 3:
            raise IndexError
        return 10.0 * (number + 1)


def test_a_class_of_the_users_is_a_schedule_and_sets_the_rule(digits):
    runs = []
    for schedule, settings in ((Own(), {}), ([10.0, 20.0, 30.0], {"rule": "percentile"})):
        network, trainer = dense(digits)
        pruner = fp.Pruner(trainer, schedule=schedule, **settings)
        assert pruner.rule == "percentile"
        history = pruner.run(digits.x_train, digits.y_train, [1, 1, 2])
        assert [record.requested for record in history] == [10.0, 20.0, 30.0]
        runs.append(network.state.values)
    np.testing.assert_array_equal(*runs)


def test_a_schedule_that_knows_its_rule_sets_it_and_may_be_set_later():
    pruner = fp.Pruner(fp.Trainer(fp.MLP([5, 4])), schedule=fp.schedules.PercentileRamp(q=50.0))
    assert pruner.rule == "percentile"
    assert pruner.step().removed == 10
    pruner.schedule = [0.1, 0.9]
    assert pruner.rule == "sparsity"
    assert pruner.step().live == 2
    with pytest.raises(ValueError, match=r"schedule.rule: expected one of .*, got 'lottery'"):
        fp.Pruner(fp.Trainer(fp.MLP([5, 4])), schedule=type("Lottery", (Own,), {"rule": "lottery"})())


def test_single_steps_need_no_schedule():
    pruner = fp.Pruner(fp.Trainer(fp.MLP([5, 4])))
    assert pruner.step(sparsity=0.5).live == 10
    assert pruner.step(q=50.0).live == 5
    with pytest.raises(ValueError, match=r"step: pass a number, such as step\(sparsity=0.9\), or give"):
        pruner.step()
    assert pruner.run([[0.0] * 5], [0], 1) == []
    assert (pruner.round, pruner.trainer.network.live_weights) == (0, 5)
    for bad in ([], {}, "0.5", 0.5, iter([0.5])):
        with pytest.raises(ValueError, match="schedule: expected a sequence of at least one number"):
            fp.Pruner(fp.Trainer(fp.MLP([5, 4])), schedule=bad)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_state_is_evaluated_once(digits, monkeypatch, held_out):
    """After a prune and after each epoch, on what states are compared by; the training set is not looked at twice."""
    seen = []
    for module in (rounds, training, evaluation):
        real = module.evaluate

        def counted(state, samples, *rest, real=real):
            seen.append((int(state.updates[0]), len(state.storage.live), samples.weights.size))
            return real(state, samples, *rest)

        monkeypatch.setattr(module, "evaluate", counted)
    monkeypatch.setattr(spans, "_SPAN_FLOP", 1)
    _, trainer = dense(digits)
    seen.clear()
    more = {"validation": (digits.x_test, digits.y_test)} if held_out else {}
    fp.Pruner(trainer, schedule=[0.5, 0.8]).run(digits.x_train, digits.y_train, 3, **more)
    assert len(seen) == len(set(seen))
    assert len(seen) == 2 * (1 + 3) + (2 * 2 if held_out else 0)


def test_samples_are_checked_once_a_run(digits, monkeypatch):
    calls = []
    for name in ("samples", "labels"):
        real = getattr(check, name)
        monkeypatch.setattr(check, name, lambda *rest, real=real, name=name: calls.append(name) or real(*rest))
    _, trainer = dense(digits)
    calls.clear()
    fp.Pruner(trainer, schedule=[0.2, 0.4, 0.6]).run(digits.x_train, digits.y_train, 1)
    assert calls == ["samples", "labels"]
