"""How a number of weights is shared out among layers: exact, within bounds, in proportion."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fastprune.allocation import erdos_renyi, share_out

shapes = st.lists(st.integers(1, 6), min_size=2, max_size=5)


@given(st.data())
def test_share_out(data):
    sizes = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=6))
    pruned = [data.draw(st.integers(0, size)) for size in sizes]
    total = data.draw(st.integers(sum(pruned), sum(sizes)))
    shares = share_out(total, sizes, least=pruned)
    assert sum(shares) == total
    assert all(old <= new <= size for old, new, size in zip(pruned, shares, sizes, strict=True))
    # No layer that lost weights is left with a higher sparsity than another could have taken, give or take one weight.
    for size, share, old in zip(sizes, shares, pruned, strict=True):
        others = zip(sizes, shares, strict=True)
        assert share == old or all((share - 1) / size <= (new + 1) / other for other, new in others)


def test_share_out_leaves_alone_what_is_past_the_common_sparsity():
    assert share_out(60, [100, 100], least=[50, 0]) == [50, 10]
    assert share_out(60, [100, 100], least=[10, 0]) == [30, 30]
    assert share_out(3, [2, 2, 2, 2], least=[0, 0, 0, 0]) == [1, 1, 1, 0]


@given(st.data())
def test_share_out_under_caps(data):
    """Exact, within the caps, and in proportion: who is below the cap has no less of its weight than any other."""
    weights = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=6))
    most = [data.draw(st.integers(0, 40)) for _ in weights]
    total = data.draw(st.integers(0, sum(most)))
    shares = share_out(total, weights, most=most)
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
    loose = share_out(total, weights, most=[total] * len(weights))
    assert loose == share_out(total, weights, least=[0] * len(weights))
    assert all(abs(share - part) < 1 for share, part in zip(loose, exact, strict=True))


def test_share_out_gives_what_is_left_over_to_the_largest_remainders():
    assert share_out(10, [1, 1, 4], most=[10, 10, 10]) == [2, 2, 6]
    assert share_out(4, [3, 3, 4], most=[4, 4, 4]) == [1, 1, 2]
    assert share_out(10, [5, 5], most=[2, 9]) == [2, 8]


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
