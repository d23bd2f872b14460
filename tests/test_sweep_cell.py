"""A round as a pure function, and the network it makes as the library itself makes it."""

import pickle

import numpy as np
import pytest

import fastprune as fp
from fastprune.sweep import cell, engine
from fastprune.sweep.cell import Data, Task, advance, saved_network, work
from fastprune.sweep.config import Settings

SHORT = Settings(hidden=(20, 10), epochs=4, rounds=4, q=40.0, retrain_epochs=2)


@pytest.fixture(scope="module")
def data():
    return Data.of(fp.load_dataset("digits"), 0.1)


def rounds(settings, data, threads=1):
    states, records = [], []
    for number in range(settings.rounds + 1):
        state, record = advance(settings, number, states[-1] if states else None, data, threads)
        states.append(state)
        records.append(record)
    return states, records


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adam", "learning_rate": 0.003, "retrain_learning_rate": 0.003, "dropout": 0.2},
        {"rule": "sparsity", "final_sparsity": 0.9, "scope": "layer", "layer_rates": "lamp", "input_dropout": 0.1},
        {"rule": "sparsity", "final_sparsity": 0.9, "criterion": "random", "seed": 7, "batch_size": 0},
        {"rule": "std", "ignored_layers": (-1,), "min_keep": 3, "activation": "leaky_relu"},
    ],
)
def test_rounds_in_turn_are_one_run_of_the_library_bit_for_bit(data, settings):
    """Nothing that training depends on is left out of the state: not momentum, not the place in the random numbers."""
    settings = Settings(**{**vars(SHORT), **({"q": 20.0} if "rule" in settings else {}), **settings})
    states, records = rounds(settings, data)
    trainer, pruner = cell._prepare(settings, cell.network(settings, data))
    trainer.fit(*data.train, settings.epochs)
    assert trainer.snapshot().to_bytes() == states[0]
    rate = settings.retrain_learning_rate
    history = pruner.run(*data.train, settings.retrain_epochs, learning_rate=rate, test=data.test)
    assert trainer.snapshot().to_bytes() == states[-1]
    for record, of_library in zip(records[1:], history, strict=True):
        assert record.round == of_library.round
        assert record.sparsity == of_library.sparsity
        assert record.after_test_loss == of_library.after.test.loss
        assert record.before_train_accuracy == of_library.before.train.accuracy
        assert record.layer_sparsity == list(of_library.layer_sparsity)


def test_threads_make_no_difference(data):
    one, two = rounds(SHORT, data), rounds(SHORT, data, threads=2)
    assert one[0] == two[0]
    assert [r._replace(seconds=0) for r in one[1]] == [r._replace(seconds=0) for r in two[1]]


def test_what_is_held_out_is_not_trained_on_and_chooses_nothing_in_training(data):
    everything = fp.load_dataset("digits")
    x, y = (np.concatenate([a, b]) for a, b in zip(data.train, data.held_out, strict=True))
    assert sorted(map(bytes, x)) == sorted(map(bytes, everything.x_train))
    assert len(data.held_out[1]) == 144
    assert not set(map(bytes, data.train[0])) & set(map(bytes, data.held_out[0]))
    noise = Data(data.key, 64, 10, data.train, (data.held_out[0], np.zeros(144, np.int64)), data.test)
    assert rounds(SHORT, noise)[0] == rounds(SHORT, data)[0]
    assert np.array_equal(data.test[0], everything.x_test)
    assert y.size == everything.y_train.size


def test_the_key_of_data_is_of_all_of_it(data):
    digits = fp.load_dataset("digits")
    assert Data.of(digits, 0.1).key == data.key
    assert Data.of(digits, 0.2).key != data.key
    for name in ("x_train", "y_train", "x_test", "y_test"):
        changed = {key: value.copy() for key, value in vars(digits).items() if key != "name"}
        changed[name].reshape(-1)[-1] = 1 - changed[name].reshape(-1)[-1]
        assert Data.of(fp.Dataset("digits", **changed), 0.1).key != data.key, name


def test_a_worker_asks_for_data_once(data, monkeypatch):
    monkeypatch.setattr(cell, "_known", {})
    task = Task(SHORT, 0, None, 1, data.key)
    assert work(task) is None
    first = work(Task(SHORT, 0, None, 1, data.key, data))
    again = work(pickle.loads(pickle.dumps(task)))
    assert first[0] == again[0]
    assert work(Task(SHORT, 0, None, 1, "other")) is None
    for number in range(4):  # and forgets what it has not used for long
        work(Task(SHORT, 0, None, 1, f"other {number}", Data(f"other {number}", *list(vars(data).values())[1:])))
    assert work(task) is None


def test_a_worker_on_the_same_machine_reads_data_itself(data, monkeypatch):
    monkeypatch.setattr(cell, "_known", {})
    monkeypatch.setattr(cell, "_sources", {})
    cell.read_here({data.key: cell.Source("digits", None, 0.1), "other": cell.Source("wine", None, 0.1)})
    assert work(Task(SHORT, 0, None, 1, data.key)) is not None
    assert work(Task(SHORT, 0, None, 1, "other")) is None  # what is there is not what was asked for


def test_a_state_is_a_network_of_the_library(data, tmp_path):
    states, records = rounds(SHORT, data)
    network = saved_network(SHORT, states[-1])
    network.save(tmp_path / "net.npz")
    network = fp.load(tmp_path / "net.npz")
    assert network.loss == "softmax_cross_entropy"
    assert network.live_weights == records[-1].live
    assert float((network.predict(data.test[0]) == data.test[1]).mean()) == records[-1].after_test_accuracy


def test_two_classes_have_one_output(tmp_path):
    settings = Settings(dataset="breast_cancer", hidden=(5,), epochs=5)
    data = Data.of(fp.load_dataset("breast_cancer"), 0.1)
    state, record = advance(settings, 0, None, data, 1)
    saved_network(settings, state).save(tmp_path / "net.npz")
    network = fp.load(tmp_path / "net.npz")
    assert network.loss == "sigmoid_cross_entropy"
    assert float((network.predict(data.test[0]) == data.test[1]).mean()) == record.after_test_accuracy > 0.9


def test_a_failed_round_leaves_the_state_as_it_was(data):
    settings = Settings(hidden=(20, 10), epochs=4, rounds=2, q=100.0, scope="layer", retrain_epochs=2)
    state, _ = advance(settings, 0, None, data, 1)
    after, record = advance(settings, 1, state, data, 1)
    assert after == state
    assert record.failed
    assert record.after_validation_accuracy is None
    assert record.events[-1] == "failed"
    assert record.live == 0
    assert record.compression is None


def test_a_loss_that_is_no_number_is_unknown(data):
    settings = Settings(hidden=(20,), epochs=1, rounds=1, q=40.0, retrain_epochs=2, retrain_learning_rate=1e30)
    state, _ = advance(settings, 0, None, data, 1)
    _, record = advance(settings, 1, state, data, 1)
    assert record.failed
    assert "diverged" in record.events
    assert record.after_test_loss is None


def test_all_that_a_round_calls_is_compiled_by_the_warming_up(data):
    """Workers find all of it in the cache: a second compilation would be made in each of them at once."""
    from fastprune.kernels import activation, linear, loss, select, steps, tile, update

    engine.compile_kernels()
    modules = (activation, linear, loss, select, steps, tile, update)
    dispatchers = [value for module in modules for value in vars(module).values() if hasattr(value, "signatures")]
    before = [len(dispatcher.signatures) for dispatcher in dispatchers]
    rounds(Settings(**{**vars(SHORT), "rule": "sparsity", "q": 20.0}), data, threads=2)
    rounds(Settings(**{**vars(SHORT), "rule": "std", "q": 20.0}), data)
    assert [len(dispatcher.signatures) for dispatcher in dispatchers] == before
