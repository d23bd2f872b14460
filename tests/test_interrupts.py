"""Ctrl-C at every moment at which it can come: nothing is left in two halves, and everything can go on.

Python looks for signals when a function begins and when a call of compiled code returns. A profiler sees both, and can
send one at the first of them, the second, and so on, each time in the same call made anew. What is interrupted has been
called before: Numba, where it compiles, is not safe against Ctrl-C itself.
"""

import signal
import sys
import threading

import numpy as np
import pytest
import scipy.linalg.cython_blas  # noqa: F401 - so that threadpoolctl sees it
import threadpoolctl

import fastprune as fp
from fastprune.blas import one_blas_thread

# Where a generator is closed, Python itself ignores what is raised.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 8)).astype("float32"), np.arange(60) % 3
X[np.arange(60), Y] += 2


def each_interrupt(call, stride=1, first=1):
    """Yield after each call that Ctrl-C ended; `stride` moments lie between one and the next."""
    moment = first
    while True:
        count = 0

        def profile(frame, event, argument, moment=moment):
            nonlocal count
            if event in ("call", "c_return"):
                count += 1
                if count == moment:
                    signal.raise_signal(signal.SIGINT)

        try:
            sys.setprofile(profile)
            call()
        except KeyboardInterrupt:
            pass
        else:
            if count < moment:
                break
        finally:
            sys.setprofile(None)
        yield moment
        moment += stride
    assert moment > first, "it came to an end before it could be interrupted"


def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture(params=["sgd", "adam"])
def trainer(request):
    network = fp.MLP([8, 16, 12, 3], seed=0, execution=["sparse", "dense", "auto"])
    trainer = fp.Trainer(network, optimizer=request.param, learning_rate=0.01, batch_size=20)
    trainer.fit(X, Y, 3)
    return trainer


@pytest.fixture
def work(tmp_path):
    """What a whole trainer can do."""
    before = blas_threads()

    def assert_whole(trainer):
        network = trainer.network
        network.state.check()
        assert all(w.shape == m.shape for w, m in zip(network.weights, network.masks, strict=True))
        assert np.isfinite(network.predict_proba(X)).all()
        network.save(tmp_path / "net.npz")
        np.testing.assert_array_equal(fp.load(tmp_path / "net.npz").predict(X), network.predict(X))
        state = trainer.snapshot()
        assert np.isfinite(trainer.fit(X, Y, 1).train.loss)
        trainer.restore(state)
        assert blas_threads() == before

    return assert_whole


def test_blas_is_never_held_for_good():
    before = blas_threads()

    def hold():
        with one_blas_thread(), one_blas_thread():
            pass

    hold()
    moments = 0
    for _ in each_interrupt(hold):
        assert blas_threads() == before
        moments += 1
    assert moments > 20


def test_a_restoration_is_whole_or_not_at_all(trainer, work):
    dense = trainer.snapshot()
    fp.Pruner(trainer, schedule=[0.7], scope="global").step()
    trainer.fit(X, Y, 1)
    pruned = trainer.snapshot()
    ends = set()
    for moment in each_interrupt(lambda: trainer.restore(dense)):
        state = trainer.network.state
        expected = dense if state.storage is dense.storage else pruned
        ends.add(expected is dense)
        for vector, twin in zip(state.vectors, expected.vectors, strict=True):
            np.testing.assert_array_equal(vector, twin)
        assert state.updates == expected.updates
        if moment % 5 == 0:
            work(trainer)
        trainer.restore(pruned)
    assert False in ends


def test_a_prune_is_whole_or_not_at_all(trainer, work):
    dense = trainer.snapshot()
    masks = [np.arange(mask.size).reshape(mask.shape) % 3 > 0 for mask in trainer.network.masks]
    left, pruner = sum(int(mask.sum()) for mask in masks), fp.Pruner(trainer)
    for moment in each_interrupt(lambda: pruner.apply(masks), stride=7):
        assert trainer.network.live_weights in (trainer.network.total_weights, left)
        if moment % 20 == 1:
            work(trainer)
        trainer.restore(dense)


def test_a_step_counts_or_does_nothing(trainer, work):
    dense = trainer.snapshot()
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.8], layer_rates="lamp")
    for moment in each_interrupt(pruner.step, stride=7):
        assert (trainer.network.sparsity, pruner.round) in ((0, 0), (0.5, 1))
        if moment % 40 == 1:
            work(trainer)
        trainer.restore(dense)
        pruner.round = 0


def test_the_last_moments_of_a_step(trainer):
    """Between the prune and the count, where one without the other was left."""
    dense = trainer.snapshot()
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.8])
    moments = 0

    def count(frame, event, argument):
        nonlocal moments
        moments += event in ("call", "c_return")

    sys.setprofile(count)
    pruner.step()
    sys.setprofile(None)
    trainer.restore(dense)
    pruner.round = 0
    for _ in each_interrupt(pruner.step, first=moments - 60):
        assert (trainer.network.sparsity, pruner.round) in ((0, 0), (0.5, 1))
        trainer.restore(dense)
        pruner.round = 0


@pytest.mark.parametrize("stride", [97, pytest.param(23, marks=pytest.mark.long)])
def test_a_scan_never_prunes(trainer, work, stride):
    pruner = fp.Pruner(trainer, schedule=[0.5])
    values = trainer.network.state.values.copy()
    pruner.sensitivity(X, Y)
    for _ in each_interrupt(lambda: pruner.sensitivity(X, Y, sparsities=[0.5, 0.9]), stride=stride):
        assert trainer.network.sparsity == 0
        np.testing.assert_array_equal(trainer.network.state.values, values)
    work(trainer)


@pytest.mark.filterwarnings("ignore::fastprune.TrainingWarning")
def test_a_run_stands_between_rounds(trainer, work):
    dense = trainer.snapshot()
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.8])
    ends = set()
    for moment in each_interrupt(lambda: pruner.run(X, Y, 1), stride=97):
        ends.add(pruner.round)
        assert trainer.network.sparsity == pytest.approx((0, 0.5, 0.8)[pruner.round], abs=0.002)
        if moment % 10 == 1:
            work(trainer)
        trainer.restore(dense)
        pruner.round = 0
    assert ends >= {0, 1}


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_fit_leaves_what_it_has_learned(trainer, work, n_jobs):
    trainer.n_jobs = n_jobs
    before = set(threading.enumerate())
    start = trainer.snapshot()
    learned = set()
    for moment in each_interrupt(lambda: trainer.fit(X, Y, 2, validation=(X[:9], Y[:9])), stride=29):
        trainer.network.state.check()
        updates = int((trainer.network.state.updates - start.updates)[0])
        learned.add(updates)
        for thread in set(threading.enumerate()) - before:
            thread.join(10)  # a pool that was cut off before its end lets go of its threads in a moment
            assert not thread.is_alive()
        assert (updates > 0) == (trainer.network.state.values != start.values).any()
        if moment % 10 == 1:
            work(trainer)
        trainer.restore(start)
    assert learned == {0, 3, 6}, "steps, of an epoch each"
