"""Whether the processor is faster at BLAS than at sparse kernels, from what it says of itself.

A measurement, made once and kept, would suit each machine better. But machines of one kind could then choose
differently, and so could one machine after its cache was cleared: the same seed would give other bits.
"""

from collections.abc import Mapping
from functools import cache


def favors_blas(name: str, features: Mapping[str, bool]) -> bool:
    """Whether a processor is one of Intel's with AVX-512, by LLVM's description of it.

    BLAS is 1.8 times as fast there as on AMD's processors, and sparse kernels are as fast.
    """
    return features.get("avx512f", False) and not name.startswith("znver")


@cache
def this_favors_blas() -> bool:
    """Whether the processor that this process runs on does."""
    from llvmlite import binding  # imported here because it takes 0.07 s, and Numba is not always there already

    return favors_blas(binding.get_host_cpu_name(), binding.get_host_cpu_features())
