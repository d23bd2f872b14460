"""How pruned networks are retrained: rewinding, schedules over rounds, adaptive rates, dropout that follows density."""

import math

import numpy as np
import pytest

import fastprune as fp
from fastprune import evaluation, rounds, spans
from fastprune.schedules import PolynomialDecay, linear
from fastprune.training import train


@pytest.fixture(scope="module")
def digits():
    return fp.load_dataset("digits")


def made(**settings):
    network = fp.MLP([64, 40, 10], seed=0)
    return network, fp.Trainer(network, **{"batch_size": 32, "seed": 0, **settings})


def dense(digits, epochs=10, **settings):
    network, trainer = made(**settings)
    trainer.fit(digits.x_train, digits.y_train, epochs)
    return network, trainer


# Learning rates


def test_a_fit_may_have_a_schedule_of_its_own(digits):
    _, trainer = made(learning_rate_schedule="cosine")
    own = trainer.fit(digits.x_train, digits.y_train, 2, learning_rate_schedule=lambda progress: 1 + progress)
    assert [epoch.learning_rate for epoch in own.epochs] == pytest.approx([0.1, 0.15])
    named = trainer.fit(digits.x_train, digits.y_train, 2, learning_rate_schedule="linear")
    assert [epoch.learning_rate for epoch in named.epochs] == pytest.approx([0.1, 0.05])
    with pytest.raises(ValueError, match=r"learning_rate_schedule: expected one of 'constant', .* got 'fast'"):
        trainer.fit(digits.x_train, digits.y_train, 2, learning_rate_schedule="fast")


def rates_of(trainer, monkeypatch):
    """Record the learning rate of each epoch that the trainer makes."""
    rates = []

    def recorded(by, *arguments, **settings):
        history = train(by, *arguments, **settings)
        if by is trainer:
            rates.append([epoch.learning_rate for epoch in history.epochs])
        return history

    monkeypatch.setattr(rounds, "train", recorded)
    return rates


def test_the_schedule_restarts_in_each_round_or_runs_on_over_all(digits, monkeypatch):
    data = digits.x_train, digits.y_train
    _, trainer = dense(digits, learning_rate_schedule="linear")
    rates = rates_of(trainer, monkeypatch)
    fp.Pruner(trainer, schedule=[0.2, 0.4]).run(*data, 2)
    assert rates == [pytest.approx([0.1, 0.05])] * 2

    rates.clear()
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.6, 0.7])
    pruner.run(*data, [1, 1, 3], restarts=False, learning_rate=1.0, learning_rate_schedule="cosine")
    cosine = [(1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)]
    assert rates == [pytest.approx(cosine[:1]), pytest.approx(cosine[1:2]), pytest.approx(cosine[2:])]


def test_a_run_that_goes_on_takes_up_the_schedule_where_it_was(digits, monkeypatch):
    _, trainer = dense(digits, learning_rate_schedule="linear")
    rates = rates_of(trainer, monkeypatch)
    pruner = fp.Pruner(trainer, schedule=[0.2, 0.4, 0.5])
    pruner.step()
    pruner.run(digits.x_train, digits.y_train, [2, 1, 1], restarts=False)
    assert rates == [pytest.approx([0.05]), pytest.approx([0.025])]


def test_gradual_pruning_is_one_training_with_prunes_in_it(digits):
    """Rounds of one epoch under one schedule, against a fit an epoch by hand."""
    schedule = PolynomialDecay(0.0, 0.9, rounds=4)
    by_run, by_hand = dense(digits, restore_best=False), dense(digits, restore_best=False)
    fp.Pruner(by_run[1], schedule=schedule).run(
        digits.x_train, digits.y_train, 1, restarts=False, learning_rate_schedule="linear"
    )
    pruner = fp.Pruner(by_hand[1], schedule=schedule)
    for epoch in range(4):
        pruner.step()
        by_hand[1].fit(
            digits.x_train,
            digits.y_train,
            1,
            learning_rate_schedule=lambda progress, epoch=epoch: linear((epoch + progress) / 4),
        )
    np.testing.assert_array_equal(by_run[0].state.values, by_hand[0].state.values)
    assert by_run[0].sparsity == pytest.approx(0.9, abs=1e-3)


def test_the_adaptive_rate_is_the_larger_of_what_the_prune_did_and_the_budget(digits):
    """Zimmer et al. 2023: |W - W'| / (|W| sqrt(s)), and epochs by those of the dense training."""
    network, trainer = dense(digits, epochs=10)
    before = np.concatenate([w.reshape(-1) for w in network.weights]).astype(float)
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.9])
    records = []
    pruner.run(digits.x_train, digits.y_train, 1, learning_rate="adaptive", on_round=records.append)
    smallest = np.sort(np.abs(before[: 64 * 40]))[:1280], np.sort(np.abs(before[64 * 40 :]))[:200]
    norm = np.linalg.norm(np.concatenate(smallest)) / np.linalg.norm(before)
    assert records[0].removed_norm == pytest.approx(norm)
    assert 0.1 < norm / math.sqrt(0.5) < 1
    assert records[1].learning_rate == pytest.approx(0.1 * norm / math.sqrt(0.5))
    # The second round removes 0.8 of what was live.
    assert records[3].learning_rate == pytest.approx(0.1 * records[3].removed_norm / math.sqrt(0.8))

    network, trainer = dense(digits, epochs=10)
    (record,) = fp.Pruner(trainer, schedule=[0.01]).run(digits.x_train, digits.y_train, 4, learning_rate="adaptive")
    assert record.removed_norm / math.sqrt(0.01) < 0.4
    assert record.learning_rate == pytest.approx(0.04), "four epochs, of ten"


def test_the_adaptive_rate_of_a_network_that_was_not_trained_here_is_the_whole_one(digits):
    _, trainer = made()
    (record,) = fp.Pruner(trainer, schedule=[0.2]).run(digits.x_train, digits.y_train, 1, learning_rate="adaptive")
    assert record.learning_rate == 0.1


def test_the_adaptive_rate_is_that_of_the_dense_training_whenever_the_pruner_was_made(digits):
    _, trainer = made()
    pruner = fp.Pruner(trainer, schedule=[0.01])
    trainer.fit(digits.x_train, digits.y_train, 10)
    dense = trainer.snapshot()
    for _ in range(2):
        (record,) = pruner.run(digits.x_train, digits.y_train, 5, learning_rate="adaptive")
        assert record.learning_rate == pytest.approx(0.05), "and again after a restoration"
        trainer.restore(dense)
        pruner = fp.Pruner(trainer, schedule=[0.01])
    assert trainer.dense_epochs == 10


def test_the_adaptive_rate_of_no_epochs_is_of_no_matter(digits):
    _, trainer = dense(digits, epochs=1)
    history = fp.Pruner(trainer, schedule=[0.5, 0.5]).run(digits.x_train, digits.y_train, 0, learning_rate="adaptive")
    assert [record.failed for record in history] == [False, False]


def test_epochs_may_be_an_array(digits):
    _, trainer = made()
    history = fp.Pruner(trainer, schedule=[0.5, 0.6]).run(digits.x_train, digits.y_train, np.array([1, 2]))
    assert [record.epochs for record in history] == [1, 2]
    assert trainer.dense_epochs == 0


def test_a_round_interrupted_while_it_prunes_is_undone(digits, monkeypatch):
    network, trainer = dense(digits, epochs=1)
    pruner = fp.Pruner(trainer, rule="percentile", schedule=[20.0, 20.0])

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(network.state.storage), "paths", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pruner.run(digits.x_train, digits.y_train, 1)
    assert (network.sparsity, pruner.round) == (0, 0)
    history = pruner.run(digits.x_train, digits.y_train, 0)
    assert [record.sparsity for record in history] == pytest.approx([0.2, 0.36], abs=1e-3)


# Rewinding


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("execution", ["dense", "sparse", "auto"])
def test_rewinding_takes_back_what_is_left(digits, optimizer, execution):
    network = fp.MLP([64, 40, 10], seed=0, execution=execution)
    trainer = fp.Trainer(network, optimizer=optimizer, learning_rate=0.01, batch_size=32)
    trainer.fit(digits.x_train, digits.y_train, 1)
    early, weights, biases = trainer.snapshot(), network.weights, network.biases
    trainer.fit(digits.x_train, digits.y_train, 3)
    fp.Pruner(trainer, schedule=[0.5]).step()
    trainer.fit(digits.x_train, digits.y_train, 1)
    fp.Pruner(trainer, schedule=[0.8]).step()
    masks = network.masks
    trainer.rewind(early)
    for now, then, mask, still in zip(network.weights, weights, masks, network.masks, strict=True):
        np.testing.assert_array_equal(now, np.where(mask, then, 0))
        np.testing.assert_array_equal(mask, still)
    for now, then in zip(network.biases, biases, strict=True):
        np.testing.assert_array_equal(now, then)
    state = trainer.snapshot()
    assert state.updates == early.updates
    assert [vector.size for vector in state.vectors] == [
        network.state.values.size,
        network.state.values.size,
        network.state.values.size if optimizer == "adam" else 0,
    ]
    pruned = network.state.storage.live == 0
    assert not any(vector[pruned].any() for vector in state.vectors if vector.size)


def test_rewinding_each_round_is_a_lottery_ticket(digits):
    """Weights go back to the start, masks stay: the same as training the masked network from the start."""
    network, trainer = made()
    start, first = trainer.snapshot(), network.weights
    trainer.fit(digits.x_train, digits.y_train, 5)
    pruner = fp.Pruner(trainer, schedule=[0.4, 0.7])
    pruner.run(digits.x_train, digits.y_train, 5, rewind_to=start)

    twin, again = made()
    fp.Pruner(again).apply(network.masks)
    for weights, mask, then in zip(twin.weights, network.masks, first, strict=True):
        np.testing.assert_array_equal(weights, then * mask)
    again.fit(digits.x_train, digits.y_train, 5)
    np.testing.assert_array_equal(network.state.values, twin.state.values)


def test_rewinding_to_what_is_no_earlier_state_changes_nothing(digits):
    network, trainer = dense(digits, epochs=1)
    early = trainer.snapshot()
    fp.Pruner(trainer, schedule=[0.9]).step()
    late = trainer.snapshot()
    trainer.restore(early)
    before = network.state.values.copy()
    with pytest.raises(ValueError, match=r"state: weights of layer \d are live now but were not in this state"):
        trainer.rewind(late)
    pruner = fp.Pruner(trainer, schedule=[0.5])
    with pytest.raises(ValueError, match=r"rewind_to: weights of layer \d are live now but were not in this state"):
        pruner.run(digits.x_train, digits.y_train, 1, rewind_to=late)
    trainer.restore(early)
    masked = fp.MLP([64, 40, 10], execution="dense")
    other = fp.Trainer(masked)
    start = other.snapshot()
    fp.Pruner(other, schedule=[0.2]).step()
    later = other.snapshot()
    other.restore(start)
    with pytest.raises(ValueError, match=r"state: weights of layer \d are live now but were not in this state"):
        other.rewind(later)
    assert np.count_nonzero(masked.weights[0]) == 64 * 40
    with pytest.raises(ValueError, match="rewind_to: expected a snapshot of this trainer, got int"):
        pruner.run(digits.x_train, digits.y_train, 1, rewind_to=3)
    np.testing.assert_array_equal(network.state.values, before)
    assert pruner.round == 0


def test_a_run_with_bad_settings_changes_nothing(digits):
    network, trainer = dense(digits, epochs=1)
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.6])
    for settings, message in [
        ({"epochs": [1]}, "epochs: expected one number for each of 2 rounds, got 1"),
        ({"epochs": [1, -1]}, r"epochs\[1\]: expected an integer of at least 0, got -1"),
        ({"epochs": "12"}, "epochs: expected an integer"),
        ({"learning_rate": "slow"}, "learning_rate: expected one of 'adaptive', got 'slow'"),
        ({"learning_rate_schedule": 1}, "learning_rate_schedule: expected one of"),
        ({"restarts": 0}, "restarts: expected True or False, got 0"),
        ({"restarts": False, "learning_rate": "adaptive"}, "restarts: expected True with the learning rate 'adaptive'"),
    ]:
        with pytest.raises(ValueError, match=message):
            pruner.run(digits.x_train, digits.y_train, **{"epochs": 1, **settings})
    assert (network.sparsity, pruner.round) == (0, 0)


# The state that is kept, and dropout


@pytest.mark.filterwarnings("ignore:training collapsed")
def test_without_restore_best_the_last_state_stays(digits):
    rate = {"learning_rate_schedule": lambda progress: 1 if progress < 0.5 else 60}
    last, best = (dense(digits, epochs=6, restore_best=keep, **rate)[1] for keep in (False, True))
    history = last.fit(digits.x_train, digits.y_train, 0)
    assert not history.restored
    assert best.evaluate(digits.x_train, digits.y_train).loss < last.evaluate(digits.x_train, digits.y_train).loss
    for trainer, restored in ((last, False), (best, True)):
        held_out = digits.x_test, digits.y_test
        history = trainer.fit(digits.x_train, digits.y_train, 2, learning_rate=50.0, validation=held_out)
        assert history.restored is restored
        assert history.validation == trainer.evaluate(*held_out)
        assert history.train == trainer.evaluate(digits.x_train, digits.y_train)


def test_dropout_follows_the_density_of_the_layer_below():
    """Han et al. 2015, equation 3: D_r = D_o sqrt(C_r / C_o)."""
    _, trainer = made(dropout=0.4, input_dropout=0.1)
    np.testing.assert_allclose(spans._keep(trainer), [0.9, 0.6, 1.0])
    fp.Pruner(trainer, schedule=[{0: 0.75, 1: 0.5}]).step()
    np.testing.assert_allclose(spans._keep(trainer), [0.9, 1 - 0.4 / 2, 1.0])
    _, trainer = made(dropout=0.4, scale_dropout=False)
    fp.Pruner(trainer, schedule=[{0: 0.75}]).step()
    np.testing.assert_allclose(spans._keep(trainer), [1.0, 0.6, 1.0])


def test_dropout_of_inputs_is_another_training_and_the_full_batch_draws_anew(digits):
    values = []
    for rate in (0.0, 0.3):
        network, trainer = made(input_dropout=rate, batch_size=None)
        trainer.fit(digits.x_train, digits.y_train, 3)
        values.append(network.state.values)
    assert (values[0] != values[1]).any()
    network, trainer = made(input_dropout=0.3, batch_size=None)
    for _ in range(3):
        trainer.fit(digits.x_train, digits.y_train, 1)
    np.testing.assert_array_equal(network.state.values, values[1]), "a step drops by its number, in one fit or in three"


def test_input_dropout_does_not_depend_on_the_threads(monkeypatch, digits):
    monkeypatch.setattr(spans, "_THREAD_FLOP", 1)  # or so little work is one thread's
    values = []
    for n_jobs in (1, 2, 3):
        network, trainer = made(input_dropout=0.3, dropout=0.2, batch_size=150, n_jobs=n_jobs)
        trainer.fit(digits.x_train, digits.y_train, 2)
        values.append(network.state.values)
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


def test_large_sets_are_watched_alike_for_any_seed(monkeypatch):
    """The bits of a key are no signed number: half of all seeds would not fit into one."""
    monkeypatch.setattr(evaluation, "_WATCHED", 3)
    x, y = np.eye(8, dtype="float32"), np.arange(8) % 2
    loss = "softmax_cross_entropy"
    sets = [evaluation.training_set(fp.MLP([8, 2]), x, y, loss, seed) for seed in range(8)]
    some = [data.watched.features.dense.argmax(axis=1).tolist() for data in sets]
    assert all(len(set(chosen)) == 3 for chosen in some)
    assert len(set(map(tuple, some))) > 4
