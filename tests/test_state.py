"""A training that goes on elsewhere: its state as bytes, and a run of some rounds at a time."""

import dataclasses
import io
import itertools

import numpy as np
import pytest

import fastprune as fp


@pytest.fixture(scope="module")
def digits():
    return fp.load_dataset("digits")


def made(seed=0, **settings):
    network = fp.MLP([64, 40, 20, 10], seed=seed, execution=settings.pop("execution", "auto"))
    return fp.Trainer(network, batch_size=32, seed=0, **settings)


def same(state, other):
    for ours, theirs in zip(state.vectors, other.vectors, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(state.storage.live, other.storage.live)
    for ours, theirs in zip(state.storage.patterns, other.storage.patterns, strict=True):
        assert (ours is None) == (theirs is None)
        for one, another in zip(ours or (), theirs or (), strict=True):
            assert one.dtype == another.dtype
            np.testing.assert_array_equal(one, another)
    assert state.storage.layout.activation == other.storage.layout.activation
    assert state.updates == other.updates


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("execution", ["auto", "dense", "sparse"])
@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.9])
def test_a_state_comes_back_whole_from_its_bytes(digits, optimizer, execution, sparsity):
    trainer = made(optimizer=optimizer, execution=execution, learning_rate=0.01)
    trainer.fit(digits.x_train, digits.y_train, 1)
    fp.Pruner(trainer, schedule=[sparsity]).step()
    trainer.fit(digits.x_train, digits.y_train, 1)
    state = trainer.snapshot()
    same(fp.State.from_bytes(state.to_bytes()), state)
    assert state.to_bytes() == trainer.snapshot().to_bytes()


def test_training_goes_on_in_another_trainer_as_it_would_have_here(digits):
    here, there = made(dropout=0.1), made(seed=9, dropout=0.1)
    here.fit(digits.x_train, digits.y_train, 2)
    fp.Pruner(here, schedule=[0.8], scope="global").step()
    there.restore(fp.State.from_bytes(here.snapshot().to_bytes()))
    for trainer in (here, there):
        trainer.fit(digits.x_train, digits.y_train, 2)
        fp.Pruner(trainer, schedule=[0.9], scope="global").step()
        trainer.fit(digits.x_train, digits.y_train, 2)
    same(here.snapshot(), there.snapshot())


def test_the_bytes_shrink_as_weights_go(digits):
    trainer = made()
    whole = len(trainer.snapshot().to_bytes())
    fp.Pruner(trainer, schedule=[0.9], scope="global").step()
    assert len(trainer.snapshot().to_bytes()) < 0.3 * whole


def test_what_is_no_state_is_refused():
    content = made().snapshot().to_bytes()
    arrays = dict(np.load(io.BytesIO(content)))
    bad = [b"", b"nonsense", content[:-100]]
    for change in (
        {"values": arrays["values"][:-1]},
        {"velocity": arrays["velocity"][1:]},
        {"updates": np.zeros(2)},
        {"gaps_0": np.array([3, 0], np.uint8)},
        {"gaps_0": np.array([5000], np.uint16)},
        {"sizes": np.array(["a"])},
    ):
        file = io.BytesIO()
        np.savez(file, **(arrays | change))
        bad.append(file.getvalue())
    for name in ("sizes", "values", "updates"):
        file = io.BytesIO()
        np.savez(file, **{key: value for key, value in arrays.items() if key != name})
        bad.append(file.getvalue())
    for one in bad:
        with pytest.raises(ValueError, match=r"content: expected bytes from State.to_bytes, got something else"):
            fp.State.from_bytes(one)


def rewritten(content, **changes):
    """The bytes of a state of which some arrays are others."""
    file = io.BytesIO()
    np.savez(file, **(dict(np.load(io.BytesIO(content))) | changes))
    return file.getvalue()


@pytest.fixture(scope="module")
def adam(digits):
    """A pruned state of a trainer in full swing: layers dense and sparse, two vectors beside the parameters."""
    trainer = made(optimizer="adam", learning_rate=0.01)
    trainer.fit(digits.x_train, digits.y_train, 1)
    fp.Pruner(trainer, schedule=[{0: 0.2, 1: 0.9}]).step()
    trainer.fit(digits.x_train, digits.y_train, 1)
    assert trainer.network.execution == ["dense", "sparse", "sparse"]
    return trainer


NONSENSE = {
    "values cut to nothing": lambda a: {"values": a["values"][:0]},
    "velocity cut to nothing": lambda a: {"velocity": a["velocity"][:0]},
    "a scalar": lambda a: {"velocity": a["velocity"][0]},
    "one number more": lambda a: {"square": np.append(a["square"], 0).astype("float32")},
    "another shape": lambda a: {"values": a["values"][:, np.newaxis]},
    "another dtype": lambda a: {"velocity": a["velocity"].astype("float64")},
    "integers": lambda a: {name: a[name].astype("int32") for name in ("values", "velocity", "square")},
    "NaN": lambda a: {"values": np.where(np.arange(a["values"].size) == 3, np.nan, a["values"]).astype("float32")},
    "infinity": lambda a: {"velocity": np.full_like(a["velocity"], np.inf)},
    "negative squares": lambda a: {"square": -a["square"]},
    "negative updates": lambda a: {"updates": np.array(-1)},
    "half an update": lambda a: {"updates": np.array(1.5)},
    "updates beyond counting": lambda a: {"updates": np.array(2**64 - 1, np.uint64)},
    "an unknown execution": lambda a: {"execution": np.array(["auto", "fast", "auto"])},
    "few executions": lambda a: {"execution": a["execution"][:1]},
    "execution in numbers": lambda a: {"execution": np.arange(3)},
    "no units": lambda a: {"sizes": np.array([64, 0, 20, 10])},
    "negative units": lambda a: {"sizes": -a["sizes"]},
    "half a unit": lambda a: {"sizes": a["sizes"] + 0.5},
    "one level": lambda a: {"sizes": a["sizes"][:1]},
    "an unknown activation": lambda a: {"activation": np.array(9)},
    "several activations": lambda a: {"activation": np.array([0, 1])},
    "an absurd layer": lambda a: {"sizes": np.array([2**62, 40, 20, 10])},
}


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE)
def test_bytes_that_no_training_left_are_refused(adam, change):
    """Vectors of other lengths were taken, and training then wrote out of bounds."""
    content = adam.snapshot().to_bytes()
    changed = rewritten(content, **change(dict(np.load(io.BytesIO(content)))))
    with pytest.raises(ValueError, match=r"content: expected bytes from State.to_bytes, got something else"):
        fp.State.from_bytes(changed)


def test_what_is_not_pruned_in_the_bytes_is_nowhere_else(adam):
    """Gaps that name other weights than there are numbers for."""
    content = adam.snapshot().to_bytes()
    gaps = dict(np.load(io.BytesIO(content)))["gaps_0"]
    with pytest.raises(ValueError, match="values: expected one number for each live parameter"):
        fp.State.from_bytes(rewritten(content, gaps_0=gaps[:-1]))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {"velocity": s.velocity[:0]},
        lambda s: {"values": s.values[:-1]},
        lambda s: {"values": s.values[0]},
        lambda s: {"square": s.square.astype("float64")},
        lambda s: {"square": -1 - s.square},
        lambda s: {"values": np.full_like(s.values, np.nan)},
        lambda s: {"velocity": np.ones_like(s.velocity)},  # of pruned weights, too
        lambda s: {"velocity": s.velocity.tolist()},
        lambda s: {"updates": -1 - s.updates},
        lambda s: {"updates": s.updates + 0.5},
        lambda s: {"updates": s.updates[:0]},
        lambda s: {"updates": 3},
        lambda s: {"updates": None},
        lambda s: {"storage": None},
    ],
)
def test_states_that_no_training_left_are_not_put_back(adam, change):
    before = adam.snapshot()
    bad = dataclasses.replace(before, **change(before))
    for put in (adam.restore, adam.rewind):
        with pytest.raises(ValueError, match="state: expected a snapshot of this trainer, got"):
            put(bad)
    same(adam.snapshot(), before)


@pytest.mark.filterwarnings("ignore:training collapsed")
def test_damaged_states_end_in_one_error_or_in_a_state_that_works(adam, digits):
    """Bytes that are flipped, cut or repeated."""
    content = adam.snapshot().to_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            where = int(rng.integers(len(damaged) - 200, len(damaged)) if rng.random() < 0.5 else rng.integers(3000))
            damaged[where] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.2:
            del damaged[int(rng.integers(len(damaged))) :]
        try:
            state = fp.State.from_bytes(bytes(damaged))
        except ValueError:
            refused += 1
            continue
        state.check()
        if state.storage.sizes == adam.network.sizes:
            other = made(optimizer="adam", learning_rate=0.01)
            other.restore(state)
            other.fit(digits.x_train[:64], digits.y_train[:64], 1)
    assert refused > 200


def test_some_rounds_at_a_time_are_the_same_as_all(digits):
    parts, whole = made(), made()
    histories = []
    for trainer, steps in ((parts, (1, 0, 2, None, 5)), (whole, (None,))):
        trainer.fit(digits.x_train, digits.y_train, 2)
        pruner = fp.Pruner(trainer, schedule=[0.3, 0.5, 0.7, 0.8])
        made_ = [pruner.run(digits.x_train, digits.y_train, 1, restarts=False, rounds=number) for number in steps]
        histories.append(made_)
    assert [len(history) for history in histories[0]] == [1, 0, 2, 1, 0]
    one_by_one = itertools.chain(*histories[0])
    assert [r.after for r in one_by_one] == [r.after for r in histories[1][0]]
    same(parts.snapshot(), whole.snapshot())
    with pytest.raises(ValueError, match="rounds: expected an integer of at least 0, got -1"):
        pruner.run(digits.x_train, digits.y_train, 1, rounds=-1)
