"""A training that goes on elsewhere: its state as bytes, and a run of some rounds at a time."""

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
    for ours, theirs in zip(state.storage.weights, other.storage.weights, strict=True):
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
        with pytest.raises(ValueError, match=r"content: expected what State.to_bytes gave, got something else"):
            fp.State.from_bytes(one)


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
