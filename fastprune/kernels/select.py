"""Exact selection by score in expected linear time; ties are broken by index."""

from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Bytes, Floats


@kernel
def partition(scores: Floats, k: int) -> float:
    """Reorder `scores` so that scores[k] is the (k+1)-th smallest and nothing after it is smaller; return it.

    Hoare's FIND (1961) with the median of three as pivot; equal scores are split between both sides.
    """
    low, high = 0, scores.size - 1
    while low < high:
        first, middle, last = scores[low], scores[(low + high) // 2], scores[high]
        pivot = max(min(first, middle), min(max(first, middle), last))
        i, j = low, high
        while i <= j:
            while scores[i] < pivot:
                i += 1
            while pivot < scores[j]:
                j -= 1
            if i <= j:
                scores[i], scores[j] = scores[j], scores[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return float(scores[k])


@kernel
def mark_smallest(marks: Bytes, scratch: Floats, scores: Floats, count: int) -> None:
    """marks = 1 at the `count` smallest scores (the first by index among equals), 0 elsewhere.

    All (n,); scratch is overwritten; 0 <= count <= n.
    """
    marks[:] = 0
    if count == 0:
        return
    for i in range(scores.size):  # Numba takes two seconds to compile scratch[:] = scores
        scratch[i] = scores[i]
    threshold = partition(scratch, count - 1)
    spare = count
    for i in range(scores.size):
        if scores[i] < threshold:
            marks[i] = 1
            spare -= 1
    for i in range(scores.size):
        if spare > 0 and scores[i] == threshold:
            marks[i] = 1
            spare -= 1
