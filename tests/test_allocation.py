"""How a number of weights is shared out among layers: exact, within bounds, in proportion."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fastprune.allocation import erdos_renyi, share_out

shapes = st.lists(st.integers(1, 6), min_size=2, max_size=5)


@given(st.data())
def test_share_out_under_caps(data):
    """Exact, within the caps, and in proportion: who is below the cap has no less of its weight than any other."""
    weights = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=6))
    most = [data.draw(st.integers(0, 40)) for _ in weights]
    total = data.draw(st.integers(0, sum(most)))
    shares = share_out(total, weights, most)
    assert sum(shares) == total
    assert all(0 <= share <= cap for share, cap in zip(shares, most, strict=True))
    for weight, share, cap in zip(weights, shares, most, strict=True):
        others = zip(weights, shares, strict=True)
        assert share == cap or all((share + 1) / weight >= (new - 1) / other for other, new in others)


@given(st.data())
def test_share_out_within_bounds_that_do_not_bind_is_within_one_of_the_proportion(data):
    weights = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=6))
    total = data.draw(st.integers(0, 200))
    exact = [total * weight / sum(weights) for weight in weights]
    loose = share_out(total, weights, [total] * len(weights))
    assert all(abs(share - part) < 1 for share, part in zip(loose, exact, strict=True))


def test_share_out_gives_what_is_left_over_to_the_largest_remainders():
    assert share_out(10, [1, 1, 4], [10, 10, 10]) == [2, 2, 6]
    assert share_out(4, [3, 3, 4], [4, 4, 4]) == [1, 1, 2]
    assert share_out(10, [5, 5], [2, 9]) == [2, 8]


@given(shapes, st.data())
def test_erdos_renyi(sizes, data):
    """Layers that are not full have live weights in proportion to the number of their units."""
    full = [fan_in * fan_out for fan_in, fan_out in pairwise(sizes)]
    total = data.draw(st.integers(0, sum(full)))
    live = erdos_renyi(total, sizes)
    assert sum(live) == total
    assert all(0 <= count <= size for count, size in zip(live, full, strict=True))
    ends = [fan_in + fan_out for fan_in, fan_out in pairwise(sizes)]
    layers = list(zip(live, full, ends, strict=True))
    assert all((a - 1) / end < (b + 1) / other for a, _, end in layers for b, size, other in layers if b < size)


def test_erdos_renyi_of_the_paper():
    """784-1000-10: the wide layer's 1784 units against the narrow one's 1010."""
    assert erdos_renyi(27940, [784, 1000, 10]) == [17940, 10000], "the narrow one is full"
    assert erdos_renyi(2794, [784, 1000, 10]) == [1784, 1010]
