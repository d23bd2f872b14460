"""A round as a pure function, and the network it makes as the library itself makes it."""

import functools
import pickle
from dataclasses import replace

import numpy as np
import pytest

import fastprune as fp
from fastprune.sweep import cell, engine
from fastprune.sweep.cell import Data, Task, advance, saved_network, work
from fastprune.sweep.settings import DEFAULTS, FIELDS, Settings

SHORT = Settings(hidden=(20, 10), epochs=4, rounds=4, q=40.0, retrain_epochs=2)


@pytest.fixture(scope="module")
def data():
    return Data.of(fp.load_dataset("digits"), 0.1)


def unpacked(state):
    """The bytes of the network's state, without those of the one to go back to."""
    return cell._unpacked(state)[0]


def rounds(settings, data, threads=1):
    states, records = [], []
    for number in range(settings.last + 1):
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
        {"nesterov": True, "tolerance": 0.1, "patience": 1, "initialization": "glorot", "restarts": False},
        {"retrain_learning_rate": "adaptive", "fine_tune_epochs": 2, "scale_dropout": False, "dropout": 0.2},
        {"grower": "gradient", "drop_fraction": 0.2, "scope": "layer", "rule": "sparsity", "final_sparsity": 0.8},
    ],
)
def test_rounds_in_turn_are_one_run_of_the_library_bit_for_bit(data, settings):
    """Nothing that training depends on is left out of the state: not momentum, not the place in the random numbers."""
    settings = replace(SHORT, **{"q": 20.0} if "rule" in settings else {}, **settings)
    states, records = rounds(settings, data)
    given = {"learning_rate": 0.1, "learning_rate_schedule": "cosine", "l2": 1e-4, "batch_size": 64}
    given |= {name: value for name, value in settings.arguments("Trainer").items() if value != DEFAULTS[name]}
    network = fp.MLP([64, 20, 10, 10], **settings.arguments("MLP"), seed=settings.seed)
    trainer = fp.Trainer(network, **given | {"batch_size": settings.batch_size or None}, seed=settings.seed)
    trainer.fit(*data.train, settings.epochs)
    assert unpacked(states[0]) == trainer.snapshot().to_bytes()
    rule, amounts = settings.amounts(0)
    pruner = fp.Pruner(trainer, rule=rule, schedule=amounts, **settings.arguments("Pruner"), seed=settings.seed)
    rate, restarts = settings.retrain_learning_rate, settings.restarts
    lengths = [settings.retrain_epochs] * 3 + [settings.retrain_epochs + settings.fine_tune_epochs]
    history = pruner.run(*data.train, lengths, learning_rate=rate, restarts=restarts, test=data.test)
    assert unpacked(states[-1]) == trainer.snapshot().to_bytes()
    for record, of_library in zip(records[1:], history, strict=True):
        assert record.round == of_library.round
        assert record.sparsity == of_library.sparsity
        assert record.after_test_loss == of_library.after.test.loss
        assert record.before_train_accuracy == of_library.before.train.accuracy
        assert record.layer_sparsity == list(of_library.layer_sparsity)


def test_stages_in_turn_are_runs_of_the_library_bit_for_bit(data):
    """Each stage has its own settings and one learning-rate schedule, and goes on from where the one before ended."""
    shared = {"rule": "sparsity", "scope": "layer", "restarts": False, "retrain_epochs": 1, "input_dropout": 0.2}
    stages = [
        {"final_sparsity": 0.75, "rounds": 3, "fine_tune_epochs": 2, "layer_rates": "lamp"},
        {"prune": False, "rounds": 2, "l1": 1e-4},
        {"final_sparsity": 0.9, "rounds": 2, "input_dropout": 0.0, "criterion": "random"},
    ]
    settings = Settings(hidden=(20, 10), epochs=4, **shared, stage=tuple(tuple(own.items()) for own in stages))
    assert (settings.last, settings.ends) == (7, [3, 5, 7])
    states, records = rounds(settings, data)
    network = fp.MLP([64, 20, 10, 10])
    given = {"learning_rate_schedule": "cosine", "l2": 1e-4, "batch_size": 64, "input_dropout": 0.2}
    trainer = fp.Trainer(network, **given)
    trainer.fit(*data.train, 4)
    first = fp.Pruner(trainer, schedule=fp.schedules.PolynomialDecay(0.0, 0.75, 3), layer_rates="lamp")
    first.run(*data.train, [1, 1, 3], restarts=False)
    assert unpacked(states[3]) == trainer.snapshot().to_bytes()
    trainer.l1 = 1e-4
    fp.Pruner(trainer, schedule=[0.0, 0.0]).run(*data.train, 1, restarts=False)
    trainer.l1, trainer.input_dropout = 0.0, 0.0
    last = fp.Pruner(trainer, schedule=fp.schedules.PolynomialDecay(0.0, 0.9, 2), criterion="random")
    last.run(*data.train, 1, restarts=False)
    assert unpacked(states[7]) == trainer.snapshot().to_bytes()
    assert [record.stage for record in records] == [0, 1, 1, 1, 2, 2, 3, 3]
    assert [record.round for record in records] == list(range(8))
    assert [record.fit_epochs for record in records] == [4, 1, 1, 3, 1, 1, 1, 1]
    assert [record.active_units is not None for record in records] == [
        True,
        False,
        False,
        True,
        False,
        True,
        False,
        True,
    ]


def test_a_stage_takes_up_the_sparsity_of_the_one_before():
    own = ({"final_sparsity": 0.5, "rounds": 2}, {"final_sparsity": 0.75, "rounds": 4})
    settings = Settings(rule="sparsity", schedule="linear", stage=tuple(tuple(stage.items()) for stage in own))
    assert list(settings.amounts(1)[1]) == [0.5625, 0.625, 0.6875, 0.75]


@pytest.mark.parametrize("epoch", [0, 2])
def test_each_round_goes_back_to_an_epoch_of_dense_training(data, epoch):
    settings = replace(SHORT, rewind_to=epoch, retrain_epochs=0, restore_best=False)
    states, _ = rounds(settings, data)
    trainer = fp.Trainer(
        cell.network(settings, data), learning_rate_schedule="cosine", l2=1e-4, batch_size=64, restore_best=False
    )
    trainer.fit(*data.train, epoch, learning_rate_schedule=lambda part: 0.5 + 0.5 * np.cos(np.pi * part * epoch / 4))
    early = trainer.network
    whole = saved_network(SHORT, rounds(replace(SHORT, restore_best=False), data)[0][0])
    assert np.array_equal(saved_network(SHORT, states[0]).weights[1], whole.weights[1])
    for state in states[1:]:
        network = saved_network(settings, state)
        for layer in range(3):
            assert np.array_equal(network.weights[layer], np.where(network.masks[layer], early.weights[layer], 0))


def test_every_setting_of_training_and_pruning_does_something(data):
    """A setting that is read from a file and lost on the way would leave all weights as they are."""
    base = replace(SHORT, rule="sparsity", scope="layer", final_sparsity=0.8, rounds=2, dropout=0.1, grower="random")
    others = {
        "initialization": "glorot", "activation": "tanh", "epochs": 5, "optimizer": "adam", "learning_rate": 0.05,
        "learning_rate_schedule": "linear", "momentum": 0.5, "nesterov": True, "batch_size": 32, "l1": 1e-3, "l2": 0.0,
        "input_dropout": 0.1, "dropout": 0.0, "scale_dropout": False, "tolerance": 10.0, "restore_best": False,
        "patience": 1, "prune": False, "rule": "std", "rounds": 3, "final_sparsity": 0.7, "schedule": "linear",
        "scope": "global", "criterion": "gradient", "layer_rates": "lamp", "ignored_layers": (-1,), "min_keep": 90,
        "grower": None, "drop_fraction": 0.1, "retrain_epochs": 3, "fine_tune_epochs": 1, "seed": 1, "hidden": (20,),
        "retrain_learning_rate": 0.05, "restarts": False, "rewind_to": 1, "weight_bits": (2,), "bias_bits": 2,
    }  # fmt: skip
    only = {
        "restore_best": {"retrain_learning_rate": 1.5, "learning_rate_schedule": "constant", "retrain_epochs": 6},
        "patience": {"tolerance": 10.0},
        "tolerance": {"patience": 1},
        "q": {"rule": "percentile"},
        "delta": {"rule": "percentile", "rounds": 3},
        "quality": {"rule": "std"},
        "weight_bits": {"rounds": 1},
        "bias_bits": {"rounds": 1, "weight_bits": (2,)},
    }
    no_grower = {"q", "delta", "quality", "rule", "scope"}
    others |= {"q": 30.0, "delta": 5.0, "quality": 0.9}
    chooses = {"dataset", "holdout", "max_drop", "stage"}
    assert others.keys() | chooses == FIELDS.keys()

    @functools.cache
    def last(settings):
        return rounds(settings, data)[0][-1]

    for name, value in others.items():
        settings = replace(base, **{**({"grower": None} if name in no_grower else {}), **only.get(name, {})})
        assert value != getattr(settings, name)
        one, other = last(settings), last(replace(settings, **{name: value}))
        assert unpacked(one) != unpacked(other), name


def test_active_units_are_those_above_0(data):
    network = fp.MLP([64, 20, 10, 10], seed=1)
    hidden = np.maximum(data.test[0] @ network.weights[0].T, 0)
    second = np.maximum(hidden @ network.weights[1].T, 0)
    assert cell.active_units(network, data.test[0]) == [(hidden > 0).mean(), (second > 0).mean()]
    assert cell.active_units(fp.MLP([64, 20, 10], activation="tanh"), data.test[0]) == [1.0]


def test_the_dense_record_tells_how_much_each_layer_can_lose(data):
    states, records = rounds(replace(SHORT, rounds=1), data)
    trainer = fp.Trainer(saved_network(SHORT, states[0]))
    scan = fp.Pruner(trainer).sensitivity(*data.held_out)
    assert records[0].sensitivity == [[point.accuracy for point in curve] for curve in scan.evaluations]
    assert records[1].sensitivity is None


def test_without_held_out_samples_all_are_trained_on():
    everything = fp.load_dataset("digits")
    whole = Data.of(everything, 0.0)
    assert whole.held_out is None
    assert np.array_equal(whole.train[0], everything.x_train)
    _, records = rounds(replace(SHORT, rounds=1), whole)
    assert [record.after_validation_accuracy for record in records] == [None, None]
    assert [record.validation_samples for record in records] == [0, 0]
    assert len(records[0].sensitivity) == 3


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
    rounds(replace(SHORT, rule="sparsity", q=20.0), data, threads=2)
    rounds(replace(SHORT, rule="std", q=20.0), data)
    assert [len(dispatcher.signatures) for dispatcher in dispatchers] == before
