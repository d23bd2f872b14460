"""Threads that run one kernel together: each does its share of a pass, then waits if the next pass needs all of it."""

import sys
from typing import Any

from llvmlite import ir
from numba import types

from fastprune.kernels.constants import ABANDONED, ARRIVED, PASSED
from fastprune.kernels.jit import intrinsic, kernel
from fastprune.kernels.layout import Team
from fastprune.kernels.numba_internals import array_of, call

# 14 us on an AMD EPYC. With more threads than cores, a long spin delays the thread it waits for. On two free cores,
# 0 to 200,000 spins make no difference; on busy ones, 200,000 take 1.5 to 7 times as long, and 1,000 take 0.4 to 0.96.
_SPINS = 20_000
_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


@intrinsic
def _fetch_add(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Add to an element atomically and return its old value."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = array_of(context, builder, array, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), arguments[2], "seq_cst")

    return types.int64(array, types.int64, types.int64), codegen


@intrinsic
def _read(typing_context: Any, array: Any, index: Any) -> Any:
    """Return an element, with acquire ordering: everything written before it is visible."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = array_of(context, builder, array, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "acquire", 8)

    return types.int64(array, types.int64), codegen


@intrinsic
def _yield_thread(typing_context: Any) -> Any:
    """Let another thread run on this core."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, _YIELD, ir.IntType(32), [], [])
        return context.get_dummy_value()

    return types.void(), codegen


@kernel
def share(total: int, step: int, team: Team) -> tuple[int, int]:
    """Return the thread's part of 0 .. total; its ends are multiples of `step`, or `total`."""
    steps = (total + step - 1) // step
    low, high = steps * team.thread // team.threads, steps * (team.thread + 1) // team.threads
    return min(low * step, total), min(high * step, total)


@kernel
def wait(team: Team) -> bool:
    """Wait until all threads of the team have called this; return False if one never will."""
    if team.threads == 1:
        return True
    barrier = team.barrier
    round_ = _read(barrier, PASSED)
    if _fetch_add(barrier, ARRIVED, 1) == team.threads - 1:
        _fetch_add(barrier, ARRIVED, -team.threads)
        _fetch_add(barrier, PASSED, 1)
        return True
    spins = 0
    while _read(barrier, PASSED) == round_:
        spins += 1
        if spins > _SPINS:
            if _read(barrier, ABANDONED) != 0:
                return False
            _yield_thread()
    return True
