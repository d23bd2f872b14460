"""Every kernel against its float64 twin, against finite differences, and against writing where it should only read."""

import numba
import numpy as np
import pytest
import reference
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from networks import prune_at

import fastprune as fp
from fastprune.base import ACTIVATIONS
from fastprune.blas import one_blas_thread
from fastprune.inference import features_of, workspace
from fastprune.kernels import activation, linear, loss, random, select, simd, steps, tile, update
from fastprune.kernels.constants import DROPOUT, LENGTH, SHUFFLE
from fastprune.kernels.layout import Parameters, Samples, Span, Team, Training, Update
from fastprune.network import LOSSES
from fastprune.spans import OPTIMIZERS

DTYPES = ["float32", "float64"]
UNSHARED = np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0)  # no parameters share values
TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-11, "atol": 1e-12}}


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def team(thread=0, threads=1):
    return Team(thread, threads, np.zeros(LENGTH, np.int64))


class Frozen:
    """Copies of arrays that a kernel may only read, to be compared afterwards."""

    def __init__(self, *arrays):
        self.arrays, self.copies = arrays, [array.copy() for array in arrays]

    def check(self):
        for array, copy in zip(self.arrays, self.copies, strict=True):
            np.testing.assert_array_equal(array, copy)


# Random numbers


def test_derive_is_splitmix64():
    # The published test vector of SplitMix64 with seed 1234567 (its state grows by the golden gamma each time).
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [int(random.derive(np.uint64(1234567), i)) for i in range(5)] == expected
    assert [reference.derive(1234567, i) for i in range(5)] == expected


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_shuffle(count):
    order = np.empty(count, np.int64)
    random.shuffle(order, np.uint64(5))
    np.testing.assert_array_equal(order, reference.shuffle(count, 5))
    assert sorted(order) == list(range(count))


def test_shuffle_is_uniform():
    orders = np.empty((6000, 3), np.int64)
    for key, order in enumerate(orders):
        random.shuffle(order, np.uint64(key))
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert abs(counts - 1000).max() < 150  # five standard deviations


# Tiles


def gather(out, x, order, blocks, start, stop, first, last):
    offsets, blocks = np.full((4, 32), -1, np.int64), np.array(blocks, np.int32)
    frozen = Frozen(x, order, blocks)
    tile.gather(out, offsets, x, order, blocks, start, stop, first, last)
    frozen.check()


@pytest.mark.parametrize(("features", "start", "stop"), [(1, 0, 1), (17, 3, 19), (40, 10, 26), (16, 0, 5), (33, 1, 2)])
def test_gather(dtype, features, start, stop):
    x, order = normal(30, features, dtype=dtype), reference.shuffle(30, 1)
    out = np.full((features, 16), np.nan, dtype)
    gather(out, x, order, range(-(-features // 16)), start, stop, 0, 16)
    np.testing.assert_array_equal(out, reference.gather(x, order, start, stop, 16).astype(dtype))


@pytest.mark.parametrize(("start", "stop", "lanes"), [(3, 23, 32), (0, 1, 16), (6, 70, 64), (0, 17, 32), (37, 70, 48)])
@pytest.mark.parametrize("blocks", [[0, 2], [1], [], [0, 1, 2]])
def test_gather_fills_its_lanes_of_its_blocks_and_no_others(dtype, start, stop, lanes, blocks):
    x, order = normal(70, 40, dtype=dtype), reference.shuffle(70, 1)
    whole, rows = reference.gather(x, order, start, stop, lanes), np.isin(np.arange(40) // 16, blocks)
    for first in range(0, lanes, 16):
        expected, out = np.full((40, lanes), 7, dtype), np.full((40, lanes), 7, dtype)
        expected[rows, first : first + 16] = whole[rows, first : first + 16]
        gather(out, x, order, blocks, start, stop, first, first + 16)
        np.testing.assert_array_equal(out, expected)
        sparse = np.full((40, lanes), 7, dtype)
        features = features_of(scipy.sparse.csr_array(np.where(x > 0, x, 0)))
        tile.gather_sparse(sparse, features, order, np.array(blocks, np.int32), start, stop, first, first + 16)
        np.testing.assert_array_equal(sparse[rows], np.maximum(expected[rows], 0))
        np.testing.assert_array_equal(np.delete(sparse, range(first, first + 16), 1), 7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite(dtype, bad):
    x = normal(1000, dtype=dtype)
    assert tile.all_finite(x)
    x[777] = bad
    assert not tile.all_finite(x)


# Linear layers

SHAPES = [(1, 1), (5, 3), (3, 40)]


def halves(count):
    """Both halves of a range, to be worked on one after the other."""
    return [(0, count // 2), (count // 2, count)]


@pytest.mark.parametrize(("fan_out", "fan_in"), SHAPES)
def test_dense_forward(dtype, fan_out, fan_in):
    x, w, b = normal(fan_in, 16, dtype=dtype), normal(fan_out, fan_in, dtype=dtype), normal(fan_out, dtype=dtype)
    frozen = Frozen(x, w, b)
    out = np.full((fan_out, 16), np.nan, dtype)
    for first, last in halves(fan_out):
        linear.dense_forward(out, x, w, b, first, last)
        assert np.isnan(out[last:]).all()
    np.testing.assert_allclose(out, reference.dense_forward(x, w, b), **TOLERANCE[dtype])
    frozen.check()


@pytest.mark.parametrize(("fan_out", "fan_in"), SHAPES)
@pytest.mark.parametrize("add", [False, True])
def test_dense_weight_gradient(dtype, fan_out, fan_in, add):
    dout, x = normal(fan_out, 16, dtype=dtype), normal(fan_in, 16, dtype=dtype)
    dw = normal(fan_out, fan_in, dtype=dtype)
    before, expected = dw.copy(), reference.dense_weight_gradient(dout.astype(float), x.astype(float))[0] + add * dw
    frozen = Frozen(dout, x)
    for first, last in halves(fan_in):
        linear.dense_weight_gradient(dw, dout, x, first, last, add)
        np.testing.assert_array_equal(dw[:, last:], before[:, last:])
    np.testing.assert_allclose(dw, expected, **TOLERANCE[dtype])
    frozen.check()


@pytest.mark.parametrize(("fan_out", "fan_in"), SHAPES)
def test_dense_input_gradient(dtype, fan_out, fan_in):
    dout, w = normal(fan_out, 16, dtype=dtype), normal(fan_out, fan_in, dtype=dtype)
    frozen = Frozen(dout, w)
    dtile = np.full((fan_in, 16), np.nan, dtype)
    for first, last in halves(fan_in):
        linear.dense_input_gradient(dtile, dout, w, first, last)
        assert np.isnan(dtile[last:]).all()
    np.testing.assert_allclose(dtile, reference.dense_input_gradient(dout, w), **TOLERANCE[dtype])
    frozen.check()


@pytest.mark.parametrize("add", [False, True])
def test_bias_gradient(dtype, add):
    dout, dbias, units = normal(6, 48, dtype=dtype), normal(6, dtype=dtype), np.array([0, 2, 3, 5], np.int32)
    expected = dbias.astype(float)
    expected[[2, 3]] = dout[[2, 3]].astype(float).sum(axis=1) + add * expected[[2, 3]]
    frozen = Frozen(dout, units)
    linear.bias_gradient(dbias, dout, units, 1, 3, add)
    np.testing.assert_allclose(dbias, expected, **TOLERANCE[dtype])
    frozen.check()


# Vectors


@numba.njit
def copy_vector(out, x, to, offset):
    simd.store(out, to, simd.load(x, offset))


@numba.njit
def copy_wide_vector(out, x, to, offset):
    simd.store(out, to, simd.load_wide(x, offset))


@numba.njit
def copy_half_vector(out, x, to, offset):
    simd.store(out, to, simd.load_half(x, offset))


@numba.njit
def copy_like(out, x, to, offset):
    simd.store(out, to, simd.load_like(x, offset, simd.load_half(x, 0)))


@numba.njit
def multiply_add(out, factor, x, y):
    simd.store(out, 0, simd.multiply_add(factor, simd.load(x, 0), simd.load(y, 0)))


@numba.njit
def multiply_add_wide(out, factor, x, y):
    simd.store(out, 0, simd.multiply_add(factor, simd.load_wide(x, 0), simd.load_wide(y, 0)))


@numba.njit
def dot(x, y):
    return simd.dot(simd.load(x, 0), simd.load(y, 0))


@numba.njit
def dot_wide(x, y):
    return simd.dot(simd.load_wide(x, 0), simd.load_wide(y, 0))


@numba.njit
def dot_four(out, x, y):
    left, a, b = simd.load_wide(x, 0), simd.load_wide(y, 0), simd.load_wide(y, 1)
    four = simd.dot_four(left, a, b, simd.load_wide(y, 2), simd.load_wide(y, 3))
    simd.store(out, 1, simd.plus(simd.load_four(out, 1), four))


@numba.njit
def gate(out, x, sign):
    for t in range(0, x.size, 16):
        simd.store(out, t, simd.gate(simd.load_step(x, t), simd.load_step(sign, t)))


@numba.njit
def fill(out, offset, value):
    simd.fill(out, offset, value)


@numba.njit
def items(out, x):
    for i in range(x.size):
        out[i] = simd.item(x, i)


@numba.njit
def prefetch(x):
    for i in range(x.size):
        simd.prefetch(x, i)


def lanes_in(dtype, vectors):
    return vectors * 64 // np.dtype(dtype).itemsize


@pytest.mark.parametrize(
    ("function", "vectors"), [(copy_vector, 1), (copy_half_vector, 2), (copy_like, 2), (copy_wide_vector, 4)]
)
@pytest.mark.parametrize(("to", "offset"), [(0, 0), (3, 0), (0, 5), (20, 6)])
def test_load_and_store(dtype, function, vectors, to, offset):
    lanes = lanes_in(dtype, vectors)
    x, out = normal(10, 16, dtype=dtype), np.zeros(lanes + 30, dtype)
    expected, frozen = out.copy(), Frozen(x)
    expected[to : to + lanes] = x.reshape(-1)[offset : offset + lanes]
    function(out, x, to, offset)
    np.testing.assert_array_equal(out, expected)
    frozen.check()


@pytest.mark.parametrize(("function", "vectors"), [(multiply_add, 1), (multiply_add_wide, 4)])
def test_multiply_add_rounds_once(dtype, function, vectors):
    lanes = lanes_in(dtype, vectors)
    x, y, out = normal(lanes, dtype=dtype), normal(lanes, dtype=dtype, seed=1), np.empty(lanes, dtype)
    factor = np.dtype(dtype).type(0.3)
    frozen = Frozen(x, y)
    function(out, factor, x, y)
    np.testing.assert_allclose(out, factor * x.astype(float) + y, **TOLERANCE[dtype])
    frozen.check()
    # (1 + e)^2 - (1 + 2 e) is e^2, which a product rounded by itself has lost.
    e = 2.0 ** (-12 if dtype == "float32" else -27)
    function(out, np.dtype(dtype).type(1 + e), np.full(lanes, 1 + e, dtype), np.full(lanes, -1 - 2 * e, dtype))
    np.testing.assert_array_equal(out, np.full(lanes, e * e, dtype))


@pytest.mark.parametrize(("function", "vectors"), [(dot, 1), (dot_wide, 4)])
def test_dot(dtype, function, vectors):
    lanes = lanes_in(dtype, vectors)
    x, y = normal(lanes + 8, dtype=dtype), normal(lanes + 8, dtype=dtype, seed=1)
    assert function(x, y) == pytest.approx(x[:lanes].astype(float) @ y[:lanes], rel=1e-5, abs=1e-6)
    assert function(np.arange(lanes, dtype=dtype), np.arange(lanes, dtype=dtype)) == (np.arange(lanes) ** 2).sum()


def test_four_dots_have_the_bits_of_each(dtype):
    lanes = lanes_in(dtype, 4)
    x, y, out = normal(lanes, dtype=dtype), normal(lanes + 3, dtype=dtype, seed=1), np.zeros(6, dtype)
    expected = [0, *(dot_wide(x, y[i:].copy()) for i in range(4)), 0]
    dot_four(out, x, y)
    np.testing.assert_array_equal(out, np.array(expected, dtype))
    dot_four(out, x, y)
    np.testing.assert_array_equal(out, 2 * np.array(expected, dtype))


def test_gate_keeps_what_has_a_sign_above_zero_and_nan(dtype):
    x, sign, out = normal(32, dtype=dtype), normal(32, dtype=dtype, seed=1), np.empty(32, dtype)
    sign[:4], x[:6] = [0, np.nan, -np.inf, -1], [1, 2, 3, -np.inf, np.inf, np.nan]
    gate(out, x, sign)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(out, np.where((sign > 0) | np.isnan(sign), x, x * 0))


@pytest.mark.parametrize("lanes", [16, 7])
def test_relu_keeps_what_is_not_finite_in_any_lane(dtype, lanes):
    """Overflow must not look like an inactive unit."""
    for value in (np.nan, -np.inf, np.inf):
        out = np.full((1, lanes), value, dtype)
        activation.activate_forward(out, 0, ACTIVATIONS["relu"])
        assert not np.isfinite(out).any()


def test_fill(dtype):
    out, frozen = np.zeros(30, dtype), np.zeros(30, dtype)
    fill(out, 5, np.dtype(dtype).type(0.1))
    frozen[5:21] = 0.1
    np.testing.assert_array_equal(out, frozen)


def test_item_is_an_element_in_c_order():
    for kind in (np.int32, np.int64, np.float32, np.float64):
        x = np.arange(12, dtype=kind).reshape(3, 4)
        out = np.empty(12, kind)
        items(out, x)
        np.testing.assert_array_equal(out, np.arange(12))


@numba.njit
def transpose(out, start, stride, x, rows, first, offset):
    simd.transpose(out, start, stride, x, rows, first, offset)


@pytest.mark.parametrize(("start", "stride"), [(0, 16), (5, 16), (0, 23)])
@pytest.mark.parametrize(("first", "offset"), [(0, 0), (2, 5)])
def test_transpose(dtype, start, stride, first, offset):
    side = lanes_in(dtype, 1)
    x, rows = normal(30, 30, dtype=dtype), 30 * reference.shuffle(30, 1)
    out = np.full(16 * 24, 7, dtype)
    expected, frozen = out.copy(), Frozen(x, rows)
    for column in range(side):
        there = start + column * stride
        expected[there : there + side] = x[rows[first : first + side] // 30, offset + column]
    transpose(out, start, stride, x, rows, first, offset)
    np.testing.assert_array_equal(out, expected)
    frozen.check()


def test_prefetch_changes_nothing(dtype):
    x = normal(100, dtype=dtype)
    frozen = Frozen(x)
    prefetch(x)
    frozen.check()


# Matrix products

FORMS = {
    "by rows": lambda rows, columns, dtype: np.empty((rows, columns), dtype),
    "by columns": lambda rows, columns, dtype: np.empty((columns, rows), dtype).T,
    "part, by rows": lambda rows, columns, dtype: np.empty((rows + 2, columns + 3), dtype)[1:-1, 2:-1],
    "part, by columns": lambda rows, columns, dtype: np.empty((columns + 2, rows + 3), dtype)[1:-1, 2:-1].T,
}


def in_form(form, array):
    """The same numbers, laid out in memory in that form."""
    out = FORMS[form](*array.shape, array.dtype)
    out[:] = array
    return out


@pytest.mark.parametrize("left_form", FORMS)
@pytest.mark.parametrize("right_form", FORMS)
@pytest.mark.parametrize("out_form", ["by rows", "part, by rows"])
def test_matrix_product(dtype, left_form, right_form, out_form):
    with one_blas_thread():
        for m, n, k in [(5, 7, 6), (1, 7, 6), (5, 1, 6), (5, 7, 1), (1, 1, 6), (1, 7, 1), (5, 1, 1), (1, 1, 1)]:
            left, right = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype, seed=1)
            there = normal(m, n, dtype=dtype, seed=2)
            expected = left.astype(float) @ right.astype(float)
            left, right = in_form(left_form, left), in_form(right_form, right)
            out, added = in_form(out_form, np.full((m, n), np.nan, dtype)), in_form(out_form, there)
            frozen = Frozen(left, right)
            linear.matrix_product(out, left, right, False)
            linear.matrix_product(added, left, right, True)
            np.testing.assert_allclose(out, expected, **TOLERANCE[dtype])
            np.testing.assert_allclose(added, expected + there, **TOLERANCE[dtype])
            frozen.check()


def test_matrix_product_writes_its_part_and_nothing_else(dtype):
    left, right, whole = normal(3, 6, dtype=dtype), normal(6, 4, dtype=dtype), np.full((5, 8), 7, dtype)
    linear.matrix_product(whole[1:4, 2:6], left, right, False)
    np.testing.assert_allclose(whole[1:4, 2:6], left.astype(float) @ right, **TOLERANCE[dtype])
    whole[1:4, 2:6] = 7
    assert (whole == 7).all()


def test_matrix_product_of_nothing_does_nothing(dtype):
    left, right = normal(3, 6, dtype=dtype), normal(6, 4, dtype=dtype)
    linear.matrix_product(np.empty((0, 4), dtype), left[:0], right, False)
    linear.matrix_product(np.empty((3, 0), dtype), left, right[:, :0], False)


# Sparse layers

LANES = [16, 32, 48, 64]
BLOCKS = [40, 8]  # one block of 40 inputs, and five


def sparse(dtype, block, lanes, listed=(0, 2, 3, 4, 6)):
    """A layer of 7 outputs and 40 inputs of which some units are listed; 3 and 5 have no weights."""
    mask = np.random.default_rng(1).random((7, 40)) < 0.4
    mask[[3, 5]] = False
    weights = normal(7, 40, dtype=dtype) * mask
    units = np.array(listed, np.int32)
    starts, others = reference.sparse_table(mask, units, block)
    return mask, weights, units, starts, others, normal(40, lanes, dtype=dtype), normal(7, lanes, dtype=dtype)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("listed", [(0, 2, 3, 4, 6), (1,), (3,), ()])
def test_sparse_product(dtype, block, lanes, listed):
    mask, weights, units, starts, others, x, there = sparse(dtype, block, lanes, listed)
    out, values = there.copy(), weights[mask]
    frozen = Frozen(x, values, others, starts, units)
    linear.sparse_product(out, x, values, others, starts, units, 0, units.size)
    expected = reference.sparse_product(there.astype(float), x.astype(float), weights.astype(float), units)
    np.testing.assert_allclose(out, expected, **TOLERANCE[dtype])
    frozen.check()


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("cut", range(6))
def test_sparse_product_in_parts_gives_the_same_bits(dtype, block, lanes, cut):
    mask, weights, units, starts, others, x, there = sparse(dtype, block, lanes)
    whole, parts = there.copy(), there.copy()
    linear.sparse_product(whole, x, weights[mask], others, starts, units, 0, 5)
    for first, last in [(cut, 5), (0, cut)]:
        linear.sparse_product(parts, x, weights[mask], others, starts, units, first, last)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("add", [False, True])
def test_sparse_weight_gradient(dtype, block, lanes, add):
    mask, _, units, starts, others, x, dout = sparse(dtype, block, lanes)
    there = normal(others.size, dtype=dtype, seed=3)
    if not add:
        there[::3] = np.nan
    full = reference.sparse_weight_gradient(dout.astype(float), x.astype(float), mask)
    owners = np.nonzero(mask)[0]
    # Cuts within a line, at its ends, and in the lines that are not listed.
    first_of_2, first_of_4, last_of_1 = np.searchsorted(owners, [2, 4, 2]) - [0, 0, 1]
    cuts = [0, 3, last_of_1, first_of_2, first_of_2 + 5, first_of_4, first_of_4 + 1, others.size]
    for low in cuts:
        for high in cuts:
            dvalues, expected = there.copy(), there.astype(float)
            chosen = np.isin(owners, units) & (np.arange(others.size) >= low) & (np.arange(others.size) < high)
            expected[chosen] = full[chosen] + (expected[chosen] if add else 0)
            frozen = Frozen(dout, x, others, starts, units)
            linear.sparse_weight_gradient(dvalues, dout, x, others, starts, units, low, high, add)
            np.testing.assert_allclose(dvalues, expected, **TOLERANCE[dtype])
            frozen.check()


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("add", [False, True])
def test_sparse_weight_gradient_in_parts_gives_the_same_bits(dtype, block, lanes, add):
    _, _, units, starts, others, x, dout = sparse(dtype, block, lanes)
    there = normal(others.size, dtype=dtype, seed=3)
    whole = there.copy()
    linear.sparse_weight_gradient(whole, dout, x, others, starts, units, 0, others.size, add)
    for cut in range(others.size + 1):
        parts = there.copy()
        for low, high in [(cut, others.size), (0, cut)]:
            linear.sparse_weight_gradient(parts, dout, x, others, starts, units, low, high, add)
        np.testing.assert_array_equal(parts, whole)


def test_a_layer_without_lines_or_without_weights(dtype):
    x, out = normal(40, 16, dtype=dtype), normal(7, 16, dtype=dtype)
    nothing, frozen = np.empty(0, dtype), Frozen(out)
    for units in ([], [0, 3]):
        starts, others = reference.sparse_table(np.zeros((7, 40), bool), units, 40)
        units = np.array(units, np.int32)
        linear.sparse_product(out, x, nothing, others, starts, units, 0, units.size)
        linear.sparse_weight_gradient(nothing, out, x, others, starts, units, 0, 0, False)
        frozen.check()


@pytest.mark.parametrize("starts", [[0, 3, 3, 3, 7, 9], [2, 4, 9], [0, 0, 0], [5], []])
def test_line_of(starts):
    table = np.array([starts, starts], np.int64)
    for weight in range(12):
        assert linear.line_of(table, weight) == reference.line_of(table, weight)


# Activations


def activated(z, name):
    out = z.copy()
    for unit in range(len(z)):
        activation.activate_forward(out, unit, ACTIVATIONS[name])
    return out


def activated_backward(dout, out, name, keep=1.0):
    dz = dout.copy()
    for unit in range(len(out)):
        activation.activate_backward(dz, out, unit, ACTIVATIONS[name], keep)
    return dz


def dropped(tile, key, first, keep):
    out = tile.copy()
    for unit in range(len(tile)):
        activation.dropout(out, unit, np.uint64(key), first, 0, out.shape[1], keep)
    return out


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(dtype, name):
    z = normal(5, 16, dtype=dtype)
    z[0, 0], z[0, 1], z[0, 2] = 0, 80, -80
    out = activated(z, name)
    np.testing.assert_allclose(out, reference.activate(z.astype(float), name), **TOLERANCE[dtype])

    upstream = normal(5, 16, dtype=dtype, seed=1)
    frozen = Frozen(out)
    dz = activated_backward(upstream, out, name)
    np.testing.assert_allclose(dz, upstream * reference.derivative(z.astype(float), name), **TOLERANCE[dtype])
    frozen.check()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_only_the_named_row_is_changed(dtype, name):
    z, upstream = normal(3, 16, dtype=dtype), normal(3, 16, dtype=dtype, seed=1)
    out, dz, some = z.copy(), upstream.copy(), z.copy()
    activation.activate_forward(out, 1, ACTIVATIONS[name])
    activation.activate_backward(dz, out, 1, ACTIVATIONS[name], 1.0)
    activation.dropout(some, 1, np.uint64(9), 0, 0, some.shape[1], 0.5)
    for changed, before in ((out, z), (dz, upstream), (some, z)):
        np.testing.assert_array_equal(changed[[0, 2]], before[[0, 2]])
        assert (changed[1] != before[1]).any()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_gradient_is_the_slope(name):
    z, h = normal(4, 16), 1e-6
    slope = (activated(z + h, name) - activated(z - h, name)) / (2 * h)
    dz = activated_backward(np.ones_like(z), activated(z, name), name)
    np.testing.assert_allclose(dz, slope, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_gradient_under_dropout(dtype, name):
    z, keep = normal(4, 16, dtype=dtype), 0.75
    dz = activated_backward(np.ones_like(z), activated(z, name) / np.array(keep, dtype), name, keep)
    np.testing.assert_allclose(dz, reference.derivative(z.astype(float), name), **TOLERANCE[dtype])


def test_dropout(dtype):
    values = normal(6, 16, dtype=dtype)
    expected = reference.dropout(values.astype(float), 9, 32, 0.7)
    np.testing.assert_allclose(dropped(values, 9, 32, 0.7), expected, **TOLERANCE[dtype])


def test_dropout_keeps_the_share_it_is_given_and_the_mean():
    values = dropped(np.ones((500, 64)), 3, 0, 0.8)
    assert np.count_nonzero(values) / values.size == pytest.approx(0.8, abs=0.01)
    assert values.mean() == pytest.approx(1, abs=0.01)


def test_dropout_does_not_depend_on_the_tiles():
    whole = dropped(np.ones((7, 64)), 1, 0, 0.5)
    parts = [dropped(np.ones((7, 16)), 1, first, 0.5) for first in range(0, 64, 16)]
    np.testing.assert_array_equal(whole, np.hstack(parts))


# Losses


def labelled(name, count, outputs, dtype):
    rng = np.random.default_rng([count, outputs])
    labels = rng.integers(0, outputs, count)
    targets = {
        "softmax_cross_entropy": np.empty((0, 0)),
        "sigmoid_cross_entropy": rng.integers(0, 2, (count, outputs)),
        "mean_squared_error": rng.standard_normal((count, outputs)),
    }[name]
    return labels, targets.astype(dtype)


def samples_of(x, labels, targets, weights=None):
    return Samples(features_of(x), labels, targets, np.ones(len(x)) if weights is None else weights)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("outputs", [1, 2, 7])
def test_loss(dtype, name, outputs):
    count, start, stop = 40, 20, 31
    labels, targets = labelled(name, count, outputs, dtype)
    order = reference.shuffle(count, 2)
    out = 3 * normal(outputs, 16, dtype=dtype)
    frozen = Frozen(out, labels, targets, order)
    dout = np.full_like(out, np.nan)
    weights = np.random.default_rng(3).integers(0, 4, count) / 2
    samples = samples_of(np.empty((count, 1), dtype), labels, targets, weights)
    total, hits = loss.loss_and_gradient(dout, out, samples, order, start, stop, 0.25, LOSSES[name])

    y = labels if name == "softmax_cross_entropy" else targets.astype(float)
    losses, gradients, right = [], [], 0
    for t, sample in enumerate(order[start:stop]):
        one = reference.LOSSES[name](out[:, [t]].astype(float), y[[sample]].T)
        losses.append(weights[sample] * one[0])
        gradients.append(0.25 * weights[sample] * one[1])
        right += one[2]
    assert total == pytest.approx(sum(losses), rel=1e-6 if dtype == "float32" else 1e-12)
    np.testing.assert_allclose(dout[:, : stop - start], np.hstack(gradients), **TOLERANCE[dtype])
    assert hits == right
    assert not dout[:, stop - start :].any(), "spare lanes have no gradient"
    frozen.check()


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradient_is_the_slope(name):
    labels, targets = labelled(name, 16, 3, "float64")
    order, out, h = np.arange(16), normal(3, 16), 1e-6
    samples = samples_of(np.empty((16, 1)), labels, targets)

    def summed(logits):
        return loss.loss_and_gradient(np.empty_like(logits), logits, samples, order, 0, 16, 1.0, LOSSES[name])[0]

    dout = np.empty_like(out)
    loss.loss_and_gradient(dout, out, samples, order, 0, 16, 1.0, LOSSES[name])
    for k, t in [(0, 0), (1, 7), (2, 15)]:
        step = np.zeros_like(out)
        step[k, t] = h
        assert dout[k, t] == pytest.approx((summed(out + step) - summed(out - step)) / (2 * h), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_loss_of_huge_logits_is_finite_and_right(dtype, name):
    out = np.array([[1000.0, -1000.0]], dtype).repeat(2, axis=0)
    out[1] *= -1
    samples = samples_of(np.empty((2, 1), dtype), np.array([0, 0]), np.array([[1, 0], [1, 0]], dtype))
    total, _ = loss.loss_and_gradient(np.empty_like(out), out, samples, np.arange(2), 0, 2, 1.0, LOSSES[name])
    # Right by a margin of 2000 (1000) for the first sample, wrong by it for the second.
    assert total == pytest.approx(2000 if name == "softmax_cross_entropy" else 1000)


# Updates


def settings(optimizer="sgd", momentum=0.9, nesterov=False, l1=0.01, l2=0.02):
    return Update(OPTIMIZERS[optimizer], momentum, nesterov, l1, l2)


def vectors(count, dtype):
    w, v, g, s = (normal(count, dtype=dtype, seed=seed) for seed in range(4))
    live = (np.random.default_rng(0).random(count) < 0.6).astype(np.uint8)
    for vector in (w, v, s):
        vector *= live
    w[np.flatnonzero(live)[:3]] = 0  # a live weight may be 0: then L1 has no direction
    g[live == 0] = np.nan  # a dead weight's gradient is nobody's business
    return w, v, abs(s), g, live


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_step(dtype, nesterov):
    w, v, _, g, live = vectors(100, dtype)
    expected = reference.sgd_step(*(a.astype(float) for a in (w, v, g)), live, 0.1, 0.9, nesterov, 0.01, 0.02)
    frozen = Frozen(g, live)
    update.sgd_step(w, v, g, live, settings(nesterov=nesterov), 0.01, 0.02, 0.1)
    np.testing.assert_allclose(w, expected[0], **TOLERANCE[dtype])
    np.testing.assert_allclose(v, expected[1], **TOLERANCE[dtype])
    assert not w[live == 0].any()
    assert not v[live == 0].any()
    frozen.check()


def test_adam_step(dtype):
    w, v, s, g, live = vectors(100, dtype)
    expected = reference.adam_step(*(a.astype(float) for a in (w, v, s, g)), live, 0.1, 0.9, 0.01, 0.02, 4)
    frozen = Frozen(g, live)
    update.adam_step(w, v, s, g, live, 0.9, 0.01, 0.02, 0.1, 4)
    for vector, values in zip((w, v, s), expected, strict=True):
        np.testing.assert_allclose(vector, values, **TOLERANCE[dtype])
        assert not vector[live == 0].any()
    frozen.check()


@numba.njit
def update_step(parameters, first, weights, settings, rate, step, team):
    update.update_step(parameters, first, weights, settings, rate, step, team)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("first", "count", "weights"), [(0, 10, 6), (5, 300, 70), (64, 300, 64), (0, 300, 300)])
def test_only_weights_decay(dtype, optimizer, first, count, weights):
    zeros, values = np.zeros(count, dtype), np.ones(count, dtype)
    parameters = Parameters(values, np.ones(count, np.uint8), zeros, zeros.copy(), zeros.copy(), *UNSHARED)
    for thread in range(3):  # each does its share
        before = values.copy()
        update_step(parameters, first, weights, settings(optimizer, l1=0.5, l2=0.5), 0.1, 0, team(thread, 3))
        assert ((values == before) | (before == 1)).all()
    assert (values[:first] == 1).all()
    assert (values[first:weights] < 1).all()
    assert len(set(values[first:weights])) <= 1
    assert (values[weights:] == 1).all()


# Selection

scores = st_numpy.arrays(np.float64, st.integers(1, 60), elements=st.integers(0, 8).map(float))


@given(scores, st.data())
def test_partition(values, data):
    k = data.draw(st.integers(0, values.size - 1))
    ordered = values.copy()
    found = select.partition(ordered, k)
    assert found == ordered[k] == np.sort(values)[k]
    assert (ordered[:k] <= found).all()
    assert (ordered[k:] >= found).all()
    assert sorted(ordered) == sorted(values)


@given(scores, st.data())
def test_mark_smallest(values, data):
    count = data.draw(st.integers(0, values.size))
    marks, frozen = np.full(values.size, 7, np.uint8), Frozen(values)
    select.mark_smallest(marks, np.empty_like(values), values, count)
    np.testing.assert_array_equal(marks, reference.smallest(values, count))
    frozen.check()


# Whole passes

EXECUTIONS = ["dense", "sparse"]


def small(name, dtype, activation="relu", sizes=(7, 6, 5, 3), count=23, execution="dense"):
    """A network with some weights pruned, and data for one loss, spread over tiles and a ragged last batch."""
    network = fp.MLP(list(sizes), activation=activation, dtype=dtype, loss=name, seed=3, execution=execution)
    network.state.values[network.state.storage.layout.biases[0] :] = normal(sum(sizes[1:]), dtype=dtype) / 4
    dead = np.random.default_rng(1).random(network.total_weights) < 0.3
    prune_at(network, np.flatnonzero(dead))
    labels, targets = labelled(name, count, sizes[-1], dtype)
    samples = samples_of(normal(count, sizes[0], dtype=dtype), labels, targets)
    return network, samples


def run_steps(
    network, samples, rates, *, batch, optimizer="sgd", dropout=0.0, input_dropout=0.0, step=0, velocity=None
):
    """Run the kernel on fresh scratch memory full of NaN; return its parameters, losses, hits and count."""
    zeros = np.zeros_like(network.state.values)
    velocity = zeros.copy() if velocity is None else velocity
    scratch = workspace(
        np.arange(len(samples.features.dense)),
        -(-batch // 64),
        network.state.storage.layout,
        network.dtype,
        training=True,
    )
    for array in (scratch.inputs, scratch.activations, scratch.deltas, scratch.losses):
        array[:] = np.nan
    parameters = Parameters(network.state.values, network.state.storage.live, zeros.copy(), velocity, zeros, *UNSHARED)
    scratch.keep[0] -= input_dropout
    scratch.keep[1:-1] -= dropout
    recipe = Training(LOSSES[network.loss], batch, np.uint64(11), settings(optimizer, l1=0.001, l2=0.01))
    losses, hits = np.full(len(rates), np.nan), np.zeros(len(rates), np.int64)
    span = Span(np.array(rates, float), losses, hits, step, np.array([step]))
    with one_blas_thread():
        done = steps.train_steps(parameters, scratch, network.state.storage.layout, samples, recipe, span, team())
    return parameters, losses, hits, done


def split(network, vector):
    """The weights and biases of a vector of stored parameters, in full; what is not stored is 0."""
    weights, storage, bounds = [], network.state.storage, network.state.storage.layout
    for layer, size in enumerate(network.layer_total_weights):
        part, full = vector[bounds.weights[layer] : bounds.weights[layer + 1]], np.zeros(size)
        full[storage.positions(layer) if part.size < size else slice(None)] = part
        weights.append(full.reshape(network.sizes[layer + 1], network.sizes[layer]))
    return weights, [vector[a:b].astype(float) for a, b in zip(bounds.biases[:-1], bounds.biases[1:], strict=True)]


def join(network, weights, biases):
    """The vector of stored parameters that weights and biases, in full, make."""
    flat = [w.reshape(-1) for w in weights]
    stored = [
        w if n == w.size else w[network.state.storage.positions(i)]
        for i, (w, n) in enumerate(zip(flat, np.diff(network.state.storage.layout.weights), strict=True))
    ]
    return np.concatenate(stored + biases)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("count", [23, 150])
def test_one_step_agrees_with_the_twin(dtype, name, activation, count, execution):
    network, samples = small(name, dtype, activation, count=count, execution=execution)
    weights, biases = split(network, network.state.values)
    y = samples.labels if name == "softmax_cross_entropy" else samples.targets.astype(float)
    total, hits, dweights, dbiases = reference.gradients(
        samples.features.dense.astype(float), y, weights, biases, activation, name
    )
    before, frozen = (
        network.state.values.copy(),
        Frozen(*samples.features, *samples[1:], network.state.storage.live, *network.state.storage.layout[:4]),
    )
    parameters, losses, right, done = run_steps(network, samples, [0.1], batch=count)
    assert done == 1
    assert losses[0] == pytest.approx(total, rel=1e-5 if dtype == "float32" else 1e-12)
    assert right[0] == hits
    gradient = join(network, dweights, dbiases)
    np.testing.assert_allclose(parameters.gradient, gradient, **TOLERANCE[dtype])
    decay = np.arange(before.size) < network.state.storage.layout.biases[0]
    w, v = reference.sgd_step(
        before.astype(float),
        np.zeros(before.size),
        gradient,
        network.state.storage.live,
        0.1,
        0.9,
        False,
        0.001 * decay,
        0.01 * decay,
    )
    np.testing.assert_allclose(network.state.values, w, **TOLERANCE[dtype])
    np.testing.assert_allclose(parameters.velocity, v, **TOLERANCE[dtype])
    frozen.check()


def slopes(network, samples, chosen, **settings):
    """The slopes of the mean loss along some parameters, by differences, and what the kernel says of them."""
    values, count = network.state.values.copy(), len(samples.features.dense)

    def run(changed):
        network.state.values[:] = changed
        return run_steps(network, samples, [1e-9], batch=count, **settings)

    gradient = run(values)[0].gradient
    steps_ = 1e-6 * np.eye(values.size)[chosen]
    differences = [(run(values + step)[1][0] - run(values - step)[1][0]) / (2e-6 * count) for step in steps_]
    return differences, gradient[chosen]


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_finite_differences(name, activation, execution):
    network, samples = small(name, "float64", activation, execution=execution)
    chosen = np.random.default_rng(0).choice(network.state.values.size, 12, replace=False)
    differences, gradient = slopes(network, samples, chosen)
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_gradients_under_dropout_are_finite_differences(execution):
    network, samples = small("softmax_cross_entropy", "float64", "tanh", execution=execution)
    chosen = np.random.default_rng(0).choice(network.state.values.size, 20, replace=False)
    differences, gradient = slopes(network, samples, chosen, dropout=np.array([0.4, 0.1]), input_dropout=0.3)
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_what_a_step_drops_is_what_the_twin_drops(execution):
    """150 samples in three tiles: each layer, unit and sample has a number of its own."""
    network, samples = small("softmax_cross_entropy", "float64", "tanh", count=150, execution=execution)
    key = reference.derive(reference.derive(11, DROPOUT), 0)
    out = reference.dropout(samples.features.dense.T, reference.derive(key, 0), 0, 0.8)
    for layer, (w, b) in enumerate(zip(*split(network, network.state.values), strict=True)):
        z = reference.dense_forward(out, w, b)
        keep = (0.6, 0.75, 1.0)[layer]
        out = reference.dropout(reference.activate(z, "tanh"), reference.derive(key, layer + 1), 0, keep)
    losses = run_steps(network, samples, [0.1], batch=150, dropout=np.array([0.4, 0.25]), input_dropout=0.2)[1]
    assert losses[0] == pytest.approx(reference.softmax_cross_entropy(z, samples.labels)[0], rel=1e-12)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_batches_cover_each_epoch_in_a_new_order(optimizer, execution):
    """Two epochs of 23 samples in batches of 10, 10 and 3, against the twin step by step."""
    network, samples = small("softmax_cross_entropy", "float64", execution=execution)
    w, live = network.state.values.copy(), network.state.storage.live
    v, s = np.zeros_like(w), np.zeros_like(w)
    decay = np.arange(w.size) < network.state.storage.layout.biases[0]
    expected = []
    for number in range(6):
        if number % 3 == 0:
            order = reference.shuffle(23, reference.derive(reference.derive(11, SHUFFLE), number))
        chosen = order[10 * (number % 3) : 10 * (number % 3) + 10]
        x, y = samples.features.dense[chosen], samples.labels[chosen]
        total, _, *gradients = reference.gradients(x, y, *split(network, w), "relu", "softmax_cross_entropy")
        g = join(network, *gradients)
        expected.append(total)
        if optimizer == "sgd":
            w, v = reference.sgd_step(w, v, g, live, 0.05, 0.9, False, 0.001 * decay, 0.01 * decay)
        else:
            w, v, s = reference.adam_step(w, v, s, g, live, 0.05, 0.9, 0.001 * decay, 0.01 * decay, number)
    _, losses, _, _ = run_steps(network, samples, [0.05] * 6, batch=10, optimizer=optimizer)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    np.testing.assert_allclose(network.state.values, w, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_one_call_of_many_steps_equals_many_calls(execution):
    once, samples = small("softmax_cross_entropy", "float32", execution=execution)
    often, _ = small("softmax_cross_entropy", "float32", execution=execution)
    run_steps(once, samples, [0.05] * 5, batch=10, dropout=0.3)
    velocity = np.zeros_like(often.state.values)
    for step in range(5):
        run_steps(often, samples, [0.05], batch=10, dropout=0.3, step=step, velocity=velocity)
    np.testing.assert_array_equal(once.state.values, often.state.values)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_the_order_of_samples_in_tiles_does_not_matter(execution):
    """150 samples in tiles of 64, 64 and 48 lanes: each sample in another tile and another lane."""
    one, samples = small("softmax_cross_entropy", "float64", count=150, execution=execution)
    other, _ = small("softmax_cross_entropy", "float64", count=150, execution=execution)
    run_steps(one, samples, [0.1] * 4, batch=150)
    x, labels = samples.features.dense[::-1].copy(), samples.labels[::-1].copy()
    run_steps(
        other,
        samples_of(x, labels, samples.targets),
        [0.1] * 4,
        batch=150,
    )
    np.testing.assert_allclose(one.state.values, other.state.values, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(("count", "lanes"), [(1, 16), (16, 16), (17, 32), (48, 48), (49, 64), (64, 64)])
def test_lanes(count, lanes):
    assert tile.lanes_for(count) == lanes


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_ends_the_call_before_its_update(dtype, bad):
    network, samples = small("mean_squared_error", dtype)
    samples.targets[12] = bad
    done = run_steps(network, samples, [0.01] * 23, batch=1)[3]
    assert 0 < done < 23
    assert np.isfinite(network.state.values).all()


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("count", [1, 16, 65, 130])
def test_forward_samples(dtype, name, count, execution):
    network, samples = small("mean_squared_error", dtype, name, count=count, execution=execution)
    expected = reference.forward(samples.features.dense.astype(float), *split(network, network.state.values), name)[1][
        -1
    ].T
    np.testing.assert_allclose(network.logits(samples.features.dense), expected, **TOLERANCE[dtype])
