"""Copies, pickles and other processes: whatever is public comes through, and goes on as if nothing had been."""

import copy
import dataclasses
import inspect
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from types import ModuleType

import numpy as np
import pytest
from networks import bits, parts, same
from tasks import fitted

import fastprune as fp
import fastprune.sweep

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 6)).astype("float32"), np.arange(60) % 3
X[np.arange(60), Y] += 2


def made(optimizer="sgd"):
    """A pruner in the middle of its rounds, with layers of either kind, and a trainer with something to remember."""
    network = fp.MLP([6, 70, 40, 3], execution=["auto", "dense", "sparse"], seed=1)
    trainer = fp.Trainer(network, optimizer=optimizer, learning_rate=0.01, dropout=0.1, batch_size=16)
    pruner = fp.Pruner(trainer, schedule=fp.schedules.LinearSparsity(0.0, 0.6, rounds=3), criterion="random")
    return pruner, pruner.run(X, Y, 2, rounds=1, validation=(X[::5], Y[::5]))


@pytest.fixture(scope="module")
def examples():
    """One of each public class, by name."""
    pruner, rounds = made()
    trainer, network = pruner.trainer, pruner.trainer.network
    told = []
    history = copy.deepcopy(trainer).fit(X, Y, 2, validation=(X[::5], Y[::5]), callback=told.append)
    schedules = [
        fp.schedules.PercentileRamp(q=20.0, delta=5.0, rounds=5),
        fp.schedules.ConstantSparsity(0.9, rounds=2),
        fp.schedules.LinearSparsity(0.0, 0.9, rounds=3),
        fp.schedules.PolynomialDecay(0.0, 0.9, rounds=3),
        fp.schedules.GeometricDecay(0.0, 0.9, rounds=3),
    ]
    things = [
        pruner,
        trainer,
        network,
        network.freeze(),
        network.layer(0),
        trainer.snapshot(),
        trainer.gradient(X, Y),
        pruner.sensitivity(X, Y, sparsities=[0.5, 0.9]),
        history,
        history.epochs[0],
        history.train,
        told[-1],
        rounds,
        rounds[0],
        rounds[0].after,
        fp.Pruner(fp.Trainer(fp.MLP([2, 2]))).step(sparsity=0.5),
        fp.records.Event("layer emptied", 1),
        fp.TrainingWarning("training collapsed"),
        fp.DivergenceError("the loss", "inf", 2, 5),
        fp.make_binary_images(),
        fp.sweep.Sweep.of({"rule": ["percentile", "std"], "seeds": "0,1", "stage": [{"rounds": 2}, {"rounds": 3}]}),
        fp.file_sizes(fp.MLP([2, 2])),
        *schedules,
    ]
    return {type(thing).__name__: thing for thing in things}


def public():
    """All public objects by name: of the package, of sweeps, and of the modules that are public themselves."""
    found = {name: getattr(package, name) for package in (fp, fastprune.sweep) for name in package.__all__}
    for module in [one for one in found.values() if isinstance(one, ModuleType)]:
        own = {name: one for name, one in vars(module).items() if getattr(one, "__module__", None) == module.__name__}
        found |= {name: one for name, one in own.items() if not name.startswith("_")}
    return {name: one for name, one in found.items() if not isinstance(one, ModuleType)}


# A context is only lent to a criterion; a schedule is one of the other classes.
CLASSES = {name for name, one in public().items() if inspect.isclass(one)} - {"Context", "Schedule"}


def test_every_public_class_has_an_example(examples):
    assert {*examples} == CLASSES


def plain(thing):
    """All that can be seen of a thing, as arrays, numbers and text."""
    if isinstance(thing, np.ndarray | int):
        return thing
    if isinstance(thing, fp.Pruner):
        return [plain(thing.trainer), thing.round, list(thing.schedule), repr(thing)]
    if isinstance(thing, fp.Trainer):
        return [plain(thing.network), *bits(thing), thing.dense_epochs, thing.seed, repr(thing)]
    if isinstance(thing, fp.MLP | fp.FrozenMLP):
        return [*parts(thing), thing.execution, thing.loss, repr(thing), thing.logits(X)]
    if isinstance(thing, fp.Layer):
        return [thing.weights, thing.bias, thing.mask, *thing.csr, repr(thing)]
    if isinstance(thing, fp.State):
        return [*thing.vectors, thing.updates, *map(thing.storage.positions, range(3)), thing.storage.runs]
    if isinstance(thing, Exception):
        return [str(thing), thing.args, vars(thing)]
    if isinstance(thing, list | tuple) and type(thing) is not tuple:
        return [type(thing).__name__, *map(plain, thing)]
    return [repr(thing), *(getattr(thing, f.name) for f in dataclasses.fields(thing))]


def equal(one, other):
    if isinstance(one, np.ndarray):
        same([one], [other])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            equal(*pair)
    else:
        assert one == other


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_copy_is_the_same_and_of_the_same_class(examples, name, copied):
    thing = examples[name]
    twin = copied(thing)
    assert type(twin) is type(thing)
    equal(plain(twin), plain(thing))


@pytest.mark.parametrize("name", sorted(name for name, one in public().items() if not inspect.isclass(one)))
def test_functions_and_tables_are_themselves_elsewhere(name):
    """Settings hold functions, such as a criterion or a schedule of learning rates: they are pickled by name."""
    thing = public()[name]
    assert pickled(thing) is thing or pickled(thing) == thing


def written(thing):
    """The arrays that training writes into."""
    return [thing.network.state.values, thing.network.state.velocity, thing.network.state.square, bits(thing)[-1]]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_shares_no_memory_and_goes_on_in_the_same_round(copied, optimizer):
    pruner, _ = made(optimizer)
    before = [array.copy() for array in bits(pruner.trainer)]
    twin = copied(pruner)
    assert twin.trainer.network is not pruner.trainer.network
    for one in written(twin.trainer):
        assert not any(np.shares_memory(one, other) for other in written(pruner.trainer))
    history = twin.run(X, Y, 2)
    assert [record.round for record in history] == [2, 3]
    same(bits(pruner.trainer), before)
    assert pruner.round == 1
    again = pruner.run(X, Y, 2)
    same(bits(pruner.trainer), bits(twin.trainer))
    same(parts(pruner.trainer.network), parts(twin.trainer.network))
    assert [record.after for record in again] == [record.after for record in history]


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_trainer_and_its_network_that_are_copied_together_stay_a_pair(copied):
    """Momentum belongs to the pair: any other trainer of the network begins without."""
    trainer = made()[0].trainer
    twin, network, state = copied([trainer, trainer.network, trainer.snapshot()])
    assert twin.network is network
    assert twin._state() is network.state, "the copied trainer knows the copied momentum as its own"
    assert state.owner is twin._owner
    trainer.fit(X, Y, 2)
    twin.fit(X, Y, 2)
    same(bits(twin), bits(trainer))
    twin.restore(state)
    twin.fit(X, Y, 2)
    same(bits(twin), bits(trainer))


def test_a_shallow_copy_of_a_network_has_weights_of_its_own():
    """Training writes into weights in place, and pruning replaces them: to share them would be neither one nor two."""
    network = made()[0].trainer.network
    twin, before = copy.copy(network), parts(network)
    fp.Trainer(twin, batch_size=16).fit(X, Y, 1)
    same(parts(network), before)
    fp.Pruner(fp.Trainer(twin)).step(sparsity=0.95)
    same(parts(network), before)


def test_a_copy_whose_memory_cannot_be_written_to_can_be_trained():
    """Other libraries hand arrays to processes in memory that is shared, or mapped from a file, and read-only."""
    pruner, _ = made()
    buffers = []
    content = pickle.dumps(pruner, protocol=5, buffer_callback=buffers.append)
    assert buffers
    twin = pickle.loads(content, buffers=[bytes(buffer.raw()) for buffer in buffers])
    pruner.run(X, Y, 2)
    twin.run(X, Y, 2)
    same(bits(twin.trainer), bits(pruner.trainer))


def test_another_process_gets_the_same_and_trains_to_the_same_bits(examples):
    pruner, _ = made("adam")
    things = {name: thing for name, thing in examples.items() if not isinstance(thing, fp.Pruner | fp.Trainer)}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        back, twin, history = executor.submit(fitted, things, pruner, X, Y, 2).result()
    for name, thing in things.items():
        equal(plain(back[name]), plain(thing))
    again = pruner.run(X, Y, 2)
    assert [record.after for record in again] == [record.after for record in history]
    same(bits(twin.trainer), bits(pruner.trainer))
    twin.trainer.fit(X, Y, 1)
    pruner.trainer.fit(X, Y, 1)
    same(bits(twin.trainer), bits(pruner.trainer))
