"""What `kernels/numba_internals.py` takes for granted of Numba: if a new version differs, these tests say in what."""

from types import SimpleNamespace

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba import _helperlib, types
from numba.core.compiler import Flags
from numba.np.linalg import _BLAS

from fastprune.kernels import numba_internals
from fastprune.kernels.jit import is_compiled
from fastprune.kernels.linear import matrix_product
from fastprune.kernels.tile import all_finite

NUMBA = f"Numba {numba.__version__}"


def test_an_entry_of_the_cache_is_good_for_its_stamp_alone():
    all_finite(np.ones(3, np.float32))  # in the cache, if it was not
    file = all_finite._cache._cache_file
    stamp = file._source_stamp
    try:
        assert is_compiled(all_finite), f"{NUMBA} reads the index of its cache in another way: see is_cached"
        numba_internals.stamp(all_finite, "another")
        assert not is_compiled(all_finite), f"{NUMBA} does not compare stamps: edited kernels would run as they were"
    finally:
        numba_internals.stamp(all_finite, stamp)


@pytest.mark.parametrize(
    "dispatcher",
    [
        SimpleNamespace(),
        SimpleNamespace(_cache=None),
        SimpleNamespace(_cache=SimpleNamespace(_cache_file=SimpleNamespace(_source_stamp=1))),
        SimpleNamespace(_cache=SimpleNamespace(_cache_file=SimpleNamespace(_load_index=dict))),
    ],
)
def test_a_numba_that_keeps_its_cache_in_another_way_is_refused(dispatcher):
    """To set a stamp that nothing reads would go unnoticed, until a kernel runs as it was."""
    for use in (numba_internals.is_cached, lambda one: numba_internals.stamp(one, "ours")):
        with pytest.raises(ImportError, match=f"does not know how {NUMBA} caches machine code"):
            use(dispatcher)


def test_inner_kernels_have_no_wrapper():
    (option,) = numba_internals.INNER
    assert hasattr(Flags(), option), f"{NUMBA} has no option {option}: inner kernels need another"
    inner = numba.njit(**numba_internals.INNER)(lambda x: x + 1)
    outer = numba.njit(lambda x: inner(x))
    assert outer(1) == 2


def test_gemm_takes_these_arguments():
    """Numba declares the function once more, for kernels in Python; a wrong argument would be a crash or wrong sums."""
    theirs = _BLAS.numba_xxgemm(types.float32).sig
    kinds = {
        types.char: ir.IntType(8),
        types.intp: numba_internals.SIZE,
        types.CPointer(types.float32): numba_internals.POINTER,
    }
    assert theirs.return_type == types.intc
    ours = [str(one) for one in numba_internals.GEMM]
    assert ours == [str(kinds[one]) for one in theirs.args], f"{NUMBA} calls numba_xxgemm with other arguments"


def test_the_function_for_gemm_is_there():
    address = _helperlib.c_helpers.get("xxgemm")
    assert address, f"{NUMBA} has no numba_xxgemm: dense layers need another way to BLAS"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_arrive_with_their_strides(dtype):
    """Parts of matrices, and transposed ones: a changed order of the arguments of gemm would show here, too."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(9, 7)).astype(dtype), rng.normal(size=(5, 8)).astype(dtype)
    out = np.ones((6, 4), dtype)
    expected = 1 + left[1:7, 2:7] @ right[:4, 1:6].T
    matrix_product(out, left[1:7, 2:7], right[:4, 1:6].T, True)
    np.testing.assert_allclose(out, expected, rtol=1e-5, err_msg=f"{NUMBA} hands arrays to intrinsics in another way")
