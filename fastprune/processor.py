"""What the choice between dense and sparse storage has to know of the processor, from what it says of itself.

A measurement, made once and kept, would suit each machine better. But machines of one kind could then choose
differently, and so could one machine after its cache was cleared: the same seed would give other bits.
"""

from collections.abc import Mapping
from functools import cache


def has_wide_units(name: str, features: Mapping[str, bool]) -> bool:
    """Whether BLAS gains more from the processor's 512-bit units than sparse kernels do, by LLVM's description of it.

    So it is on Intel's AVX-512 servers, where BLAS is 1.8 times as fast as on AMD's processors, and sparse kernels are
    as fast as there.
    """
    return features.get("avx512f", False) and not name.startswith("znver")


@cache
def this_has_wide_units() -> bool:
    """Whether the processor that this process runs on has them."""
    from llvmlite import binding  # imported here because it takes 0.07 s, and Numba is not always there already

    return has_wide_units(binding.get_host_cpu_name(), binding.get_host_cpu_features())
