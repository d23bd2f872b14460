"""Threads that run one kernel together: shares, the barrier, and what happens if one of them never comes."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastprune as fp
from fastprune import spans
from fastprune.evaluation import checked_samples
from fastprune.kernels import team
from fastprune.kernels.constants import LENGTH
from fastprune.kernels.layout import Team
from fastprune.team import Threads, count_threads


@given(st.integers(0, 5000), st.sampled_from([1, 8, 64]), st.integers(1, 9))
def test_shares_are_disjoint_and_whole_and_even(total, step, threads):
    shares = [team.share(total, step, Team(thread, threads, np.zeros(1, np.int64))) for thread in range(threads)]
    assert shares[0][0] == 0
    assert shares[-1][1] == total
    assert all(end == start for (_, end), (start, _) in pairwise(shares))
    assert all(low <= high for low, high in shares)
    assert all(end % step == 0 for _, end in shares[:-1] if end < total)
    sizes = [-(-(high - low) // step) for low, high in shares]
    assert max(sizes) - min(sizes) <= 1


@numba.njit(nogil=True)
def in_step(seen, rounds, member):
    """Write the round's number, wait, and count those of the others that are not there yet; wait before the next."""
    late = 0
    for round_ in range(1, rounds + 1):
        seen[member.thread] = round_
        team.wait(member)
        for other in range(member.threads):
            late += seen[other] != round_
        team.wait(member)
    return late


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_none_goes_on_before_all_have_come(threads):
    seen, late = np.zeros(threads, np.int64), []
    with Threads(threads) as pool:
        pool.run(lambda member: late.append(in_step(seen, 300, member)))
    assert late == [0] * threads


def test_one_that_is_abandoned_stops_waiting():
    member = Team(0, 3, np.zeros(LENGTH, np.int64))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(team.wait, member._replace(thread=thread)) for thread in (0, 1)]
        time.sleep(0.05)
        assert not any(future.done() for future in waiting)
        member.barrier[team.ABANDONED] = 1
        assert [future.result(10) for future in waiting] == [False, False]


def test_one_thread_does_not_wait():
    assert team.wait(Team(0, 1, np.zeros(LENGTH, np.int64)))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_error_before_the_kernel_releases_the_others(error, threads):
    released = []

    def call(member):
        if member.thread == 0:
            raise error("before it enters")
        released.append(team.wait(member))

    with Threads(threads) as pool:
        with pytest.raises(error, match="before it enters"):
            pool.run(call)
        assert released == [False] * (threads - 1)
        assert pool.run(lambda member: team.wait(member)), "they can run again"


def test_an_error_of_another_thread_is_not_lost():
    def call(member):
        if member.thread == 1:
            raise RuntimeError("of another thread")

    with Threads(2) as pool, pytest.raises(RuntimeError, match="of another thread"):
        pool.run(call)


def test_run_gives_what_the_calling_thread_returns():
    with Threads(3) as pool:
        assert pool.run(lambda member: (member.thread, member.threads)) == (0, 3)
        callers = set()
        pool.run(lambda member: callers.add(threading.get_ident()) if member.thread == 0 else None)
        assert callers == {threading.get_ident()}


def test_some_of_the_threads_can_run_a_call():
    with Threads(4) as pool:
        for most, count in [(None, 4), (9, 4), (3, 3), (1, 1)]:
            seen = []

            def call(member, seen=seen):
                seen.append((member.thread, member.threads))
                team.wait(member)  # for that many, not for all

            pool.run(call, most)
            assert sorted(seen) == [(thread, count) for thread in range(count)]


@pytest.mark.parametrize(
    ("sizes", "batch_size", "density", "threads"),
    [
        ([64, 32, 10], 128, 1, 1),
        ([784, 300, 100, 10], 128, 0.01, 1),
        ([784, 300, 100, 10], 128, 0.05, 2),
        ([784, 300, 100, 10], 128, 1, 3),
        ([784, 300, 100, 10], 4, 1, 1),
    ],
)
def test_a_step_with_little_work_has_few_threads(sizes, batch_size, density, threads):
    seen = []

    class Seen(Threads):
        def run(self, call, most=None):
            return super().run(lambda member: (seen.append(member.threads), call(member))[1], most)

    network = fp.MLP(sizes, density=density)
    trainer = fp.Trainer(network, batch_size=batch_size)
    x = np.zeros((batch_size, sizes[0]), np.float32)
    samples = checked_samples(network, ("x", "y"), (x, np.arange(batch_size) % 10), "softmax_cross_entropy")
    with Seen(3) as pool:
        run = spans.prepare(trainer, trainer._state(), samples, batch_size, "softmax_cross_entropy", pool)
        assert run(np.empty(1), np.empty(1, np.int64), np.full(1, 0.1), 0) == 1
    assert seen == [threads] * threads


@pytest.mark.filterwarnings("ignore:training collapsed")
def test_no_thread_is_left_over():
    before = threading.active_count()
    with Threads(4) as pool:
        pool.run(team.wait)
        assert threading.active_count() == before + 3
    assert threading.active_count() == before
    x = np.ones((6, 4))
    for y in ([0, 1, 2] * 2, ["bad"] * 6):
        try:
            fp.Trainer(fp.MLP([4, 3]), n_jobs=4).fit(x, y, 1)
        except ValueError:
            assert y[0] == "bad"
        assert threading.active_count() == before


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself Ctrl-C there")
def test_ctrl_c_ends_a_fit_of_several_threads(monkeypatch):
    monkeypatch.setattr(spans, "_THREAD_FLOP", 1)  # or so little work is one thread's
    x, y = np.random.default_rng(0).standard_normal((2000, 20)), np.arange(2000) % 3
    trainer = fp.Trainer(fp.MLP([20, 64, 3]), n_jobs=2, batch_size=100)
    before = threading.active_count()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(x, y, 10**6)
    timer.join()
    assert threading.active_count() == before
    assert np.isfinite(trainer.fit(x, y, 1).train.loss), "training can go on"


def test_minus_one_is_a_thread_a_core():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert count_threads("n_jobs", -1) == fp.Trainer(fp.MLP([4, 3]), n_jobs=-1).n_jobs == cores
    assert count_threads("n_jobs", 3) == 3


@pytest.mark.parametrize("n_jobs", [0, -2, 1.5, True, "2", None])
def test_bad_numbers_of_threads_are_refused(n_jobs):
    with pytest.raises(ValueError, match="n_jobs: expected"):
        count_threads("n_jobs", n_jobs)
