"""Where parameters lie: tables, mirrors, computed units and compaction, against masks and brute force."""

import json
import re
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import fastprune as fp
from fastprune import processor, storage
from fastprune.kernels.constants import TANH
from fastprune.processor import favors_blas

EXECUTION = st.sampled_from(["dense", "sparse"])


@st.composite
def layers(draw):
    """Sizes of a small network, how each layer is stored, and masks."""
    sizes = draw(st.lists(st.integers(1, 7), min_size=2, max_size=5))
    execution = [draw(EXECUTION) for _ in sizes[1:]]
    masks = [
        draw(st_numpy.arrays(bool, shape)) & (draw(st.integers(0, 9)) > 0)
        for shape in zip(sizes[1:], sizes[:-1], strict=True)
    ]
    return sizes, execution, masks


def stored(sizes, execution, masks):
    return storage.from_positions(sizes, execution, TANH, [np.flatnonzero(mask) for mask in masks])


def part(array, bounds, index):
    return array[bounds[index] : bounds[index + 1]]


def lines_of(lines, layer):
    """The layer's table, flat, and the units at the other ends."""
    return part(lines.starts, lines.offsets, layer), part(lines.others, lines.entries, layer)


def assert_lines(found, mask, units, block):
    starts, others = reference.sparse_table(mask, units, block)
    np.testing.assert_array_equal(found[0], starts.reshape(-1))
    np.testing.assert_array_equal(found[1], others)


@given(layers())
def test_positions_and_marks_are_those_of_the_masks(network):
    sizes, execution, masks = network
    found = stored(*network)
    for layer, mask in enumerate(masks):
        np.testing.assert_array_equal(found.positions(layer), np.flatnonzero(mask))
        live = part(found.live, found.layout.weights, layer)
        assert live.sum() == mask.sum()
        assert live.size == (mask.size if execution[layer] == "dense" else mask.sum())
        assert found.layout.sparse[layer] == (found.patterns[layer] is not None) == (execution[layer] == "sparse")
    assert found.live[found.layout.biases[0] :].all()
    assert found.live.size == found.layout.biases[-1] == found.layout.weights[-1] + sum(sizes[1:])
    np.testing.assert_array_equal(np.diff(found.layout.biases), sizes[1:])
    np.testing.assert_array_equal(found.layout.rows, np.cumsum([0, *sizes[1:]]))
    np.testing.assert_array_equal(found.layout.sizes, sizes)
    assert found.layout.activation == TANH


@given(layers())
def test_computed_units_are_those_on_a_path_to_an_output_and_all_beside_dense_layers(network):
    sizes, execution, masks = network
    layout = stored(*network).layout
    expected = reference.computed_units(masks, [how == "dense" for how in execution])
    for level in range(len(sizes)):
        np.testing.assert_array_equal(part(layout.units, layout.levels, level), expected[level])
    np.testing.assert_array_equal(layout.blocks, sorted({unit // 16 for unit in expected[0].tolist()}))


def test_inputs_are_read_in_blocks_of_16_in_which_one_is_used():
    mask = np.zeros((2, 100), bool)
    mask[[0, 1, 1], [31, 47, 99]] = True
    np.testing.assert_array_equal(stored([100, 2], ["sparse"], [mask]).layout.blocks, [1, 2, 6])
    np.testing.assert_array_equal(stored([100, 2], ["dense"], [mask]).layout.blocks, range(7))


@given(layers(), st.integers(1, 8), st.sampled_from([0, 10**9]), st.sampled_from([0, 99]))
def test_tables_walk_the_weights_of_computed_units(network, block, least, few):
    """By output and by input unit, in one block and, where a line has enough weights, in several."""
    _, execution, masks = network
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "FEW_OUTPUTS", few)
        patch.setattr(storage, "_BLOCK_UNITS", block)
        patch.setattr(storage, "_FEW_LINES_UNITS", block)
        patch.setattr(storage, "_BLOCK_WEIGHTS", least)
        layout = stored(*network).layout
    for layer, mask in enumerate(masks):
        above, below = part(layout.units, layout.levels, layer + 1), part(layout.units, layout.levels, layer)
        outputs, inputs = lines_of(layout.outputs, layer), lines_of(layout.inputs, layer)
        if execution[layer] == "dense":
            assert not any(array.size for array in outputs + inputs)
            continue
        assert_lines(outputs, mask, above, mask.shape[1] if least else block)
        if layer == 0:
            assert not any(array.size for array in inputs)
            continue
        used = np.zeros_like(mask)
        used[above] = mask[above]
        assert_lines(inputs, used.T, below, mask.shape[0] if least else block)
        positions = part(layout.inputs.positions, layout.inputs.entries, layer)
        numbers = np.zeros(mask.shape, int)
        numbers[mask] = np.arange(mask.sum())
        np.testing.assert_array_equal(positions, numbers.T[used.T])


@pytest.mark.parametrize(
    ("lines", "live", "blocks"),
    [
        (50, 50 * 3 * 24, 3),
        (50, 50 * 3 * 24 - 1, 1),
        (2, 600, 5),  # few lines: 64 units a block,
        (2, 144, 3),  # or 100, which have 24 weights a line,
        (2, 1, 1),  # or more than there are
    ],
)
def test_lines_are_walked_in_blocks_if_they_have_enough_weights_in_each(lines, live, blocks):
    mask = np.zeros((lines, 300), bool)
    mask.reshape(-1)[np.random.default_rng(0).choice(mask.size, live, replace=False)] = True
    layout = stored([300, lines], ["sparse"], [mask]).layout
    assert lines_of(layout.outputs, 0)[0].size == (blocks + 1) * lines


@given(layers(), st.data())
def test_every_number_is_traced_to_where_it_was(network, data):
    """From one storage to any other of the same sizes: weights go and come, layers become dense or sparse."""
    sizes, execution, masks = network
    old = stored(*network)
    later = [data.draw(EXECUTION) for _ in execution]
    new_masks = [data.draw(st_numpy.arrays(bool, mask.shape)) for mask in masks]
    new = stored(sizes, later, new_masks)
    sources = new.sources(old)
    assert sources.size == new.live.size
    for layer, (mask, new_mask) in enumerate(zip(masks, new_masks, strict=True)):
        kept_by_old = np.arange(mask.size) if execution[layer] == "dense" else np.flatnonzero(mask)
        kept_by_new = np.arange(mask.size) if later[layer] == "dense" else np.flatnonzero(new_mask)
        where = np.full(mask.size, -1)
        where[kept_by_old] = old.layout.weights[layer] + np.arange(kept_by_old.size)
        np.testing.assert_array_equal(part(sources, new.layout.weights, layer), where[kept_by_new])
    np.testing.assert_array_equal(sources[new.layout.biases[0] :], old.layout.biases[0] + np.arange(sum(sizes[1:])))


@given(layers(), st.data())
def test_other_live_weights_make_the_storage_that_is_made_of_them(network, data):
    sizes, execution, masks = network
    before = stored(*network)
    after = [data.draw(st_numpy.arrays(bool, mask.shape)) for mask in masks]
    old_live = before.live.copy()
    found = before.with_live([np.flatnonzero(mask) for mask in after])
    expected = stored(sizes, execution, after)
    np.testing.assert_array_equal(found.live, expected.live)
    for one, other in zip(found.layout, expected.layout, strict=True):
        for array, twin in zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]:
            np.testing.assert_array_equal(array, twin)
    np.testing.assert_array_equal(before.live, old_live)


# What LLVM says of the processors that were measured.
ZEN_3 = "znver3", {"avx2": True, "avx512f": False}
ZEN_5 = "znver5", {"avx2": True, "avx512f": True}
INTEL = "sapphirerapids", {"avx2": True, "avx512f": True}


def test_a_processor_that_favors_blas_is_known_by_what_it_says_of_itself():
    assert [favors_blas(*one) for one in (ZEN_3, ZEN_5, INTEL)] == [False, False, True]
    assert not favors_blas("apple-m1", {"neon": True})
    assert processor.this_favors_blas() == favors_blas(
        llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features()
    )


@pytest.mark.parametrize(
    ("fan_in", "fan_out", "live", "on_intel", "elsewhere"),
    [
        (100, 100, 10000, False, False),
        (100, 100, 6500, False, False),
        (100, 100, 6499, False, True),
        (100, 100, 4225, False, True),
        (100, 100, 4224, True, True),
        (100, 100, 0, True, True),
        (100, 33, 3300, False, False),
        (100, 32, 3200, True, True),
        (10000, 1, 10000, True, True),
        # In proportion to a million weights, and four: 0.6 and 0.4 of them, or 0.39 and 0.26.
        (1000, 1000, 600_000, False, False),
        (1000, 1000, 599_999, False, True),
        (1000, 1000, 389_999, True, True),
        (2000, 2000, 1_600_000, False, False),
        (2000, 2000, 1_599_999, False, True),
        (2000, 2000, 1_039_999, True, True),
    ],
)
def test_the_rule_of_density_shape_and_processor(fan_in, fan_out, live, on_intel, elsewhere):
    rest = np.arange(live)
    for described, sparse in ((INTEL, on_intel), (ZEN_3, elsewhere)):
        assert storage.runs_sparse(fan_in, fan_out, live, lambda one=described: favors_blas(*one)) == sparse
    here = on_intel if processor.this_favors_blas() else elsewhere
    assert storage.from_positions([fan_in, fan_out], ["auto"], TANH, [rest]).layout.sparse[0] == here
    whole = storage.from_positions([fan_in, fan_out], ["auto"], TANH, [None])
    assert whole.with_live([rest]).layout.sparse[0] == here


def measured():
    """The rows of bench/results: what the processor said of itself, layer, density, sparse time by dense time."""
    for path in (Path(__file__).parents[1] / "bench" / "results").glob("*.json"):
        results = json.loads(path.read_text())
        machine = results["machine_info"]
        described = machine["processor"], {"avx512f": machine["vectors"] == "AVX-512"}
        for row in (one["extra_info"] for one in results["benchmarks"]):
            if row["question"] == "dense or sparse":
                fan_in, fan_out, density = re.fullmatch(r"(\d+)-(\d+), density ([\d.]+)", row["case"]).groups()
                ((other, peer),) = row["peers"].items()
                longer = 1 / peer["ratio"] if other.endswith("dense") else peer["ratio"]
                yield described, int(fan_in), int(fan_out), float(density), longer


def test_no_layer_is_stored_sparse_where_it_was_slower():
    """By more than the spread of such measurements: no round is slower than a dense one."""
    on_intel = lambda: favors_blas(*INTEL)  # noqa: E731
    # Measured on an Intel server, 2026-11-24, version 0.1: sparse took 1.19 and 1.05 times as long as dense.
    assert not storage.runs_sparse(784, 300, round(0.68 * 784 * 300), on_intel)
    assert not storage.runs_sparse(1024, 1024, 1024 * 1024 // 2, on_intel)
    seen = list(measured())
    assert len(seen) > 30
    for described, fan_in, fan_out, density, longer in seen:
        live = round(density * fan_in * fan_out)
        if storage.runs_sparse(fan_in, fan_out, live, lambda one=described: favors_blas(*one)):
            assert longer < 1.1, (described[0], fan_in, fan_out, density)


def test_full_has_all_weights():
    found = storage.from_positions([5, 40, 3], ["auto", "auto"], TANH, [None, None])
    assert [pattern is None for pattern in found.patterns] == [True, False]
    assert found.live.all()
    assert found.live.size == 200 + 120 + 43
    np.testing.assert_array_equal(found.positions(0), np.arange(200))
    np.testing.assert_array_equal(found.positions(1), np.arange(120))


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ([4, 3], {"execution": "sparse"}),
        ([4, 3], {}),
        ([12, 1], {}),
        ([40, 40], {"density": 0.007}),
        ([2, 40, 2], {"execution": ["dense", "sparse"]}),
    ],
)
def test_sparse_layers_beyond_the_reach_of_indices_are_refused(monkeypatch, sizes, settings):
    monkeypatch.setattr(storage, "_MOST", 11)
    with pytest.raises(ValueError, match="sizes: expected at most 11 units and weights in a sparse layer, got"):
        fp.MLP(sizes, **settings)
    fp.MLP([4, 3], execution="dense")
    fp.MLP([11, 1])


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [([2**31, 1], {}), ([1, 2**31 + 10], {"density": 1e-9}), ([1, 2**31 + 10], {"execution": "sparse"})],
)
def test_they_are_refused_before_memory_is_taken(sizes, settings):
    with pytest.raises(ValueError, match="sizes: expected at most 2,147,483,647 units and weights in a sparse layer"):
        fp.MLP(sizes, **settings)


def test_memory_begins_on_a_cache_line():
    for shape in [(1,), (3, 5), (0, 4), (7, 16)]:
        for dtype in ("float32", "float64"):
            array = storage.aligned_empty(shape, dtype)
            assert (array.shape, array.dtype) == (shape, dtype)
            assert array.ctypes.data % 64 == 0 or not array.size
            assert array.flags.c_contiguous
            assert array.flags.writeable


@given(layers())
def test_paths_are_those_of_the_masks(network):
    """By brute force: a weight works if some input reaches it and it leads to some output."""
    sizes, _, masks = network
    paths = stored(*network).paths()
    to = [np.ones(sizes[0], bool)]
    for mask in masks:
        to.append(np.array([any(on and at for on, at in zip(row, to[-1], strict=True)) for row in mask], bool))
    on = [np.ones(sizes[-1], bool)]
    for mask in reversed(masks):
        on.insert(
            0, np.array([any(is_ and at for is_, at in zip(column, on[0], strict=True)) for column in mask.T], bool)
        )
    assert paths.weights == sum(int((mask & np.outer(on[i + 1], to[i])).sum()) for i, mask in enumerate(masks))
    for units, reached, leading in zip(paths.units, to, on, strict=True):
        np.testing.assert_array_equal(units, reached & leading)
    assert paths.dead_units == [int((~(to[i] & on[i])).sum()) for i in range(1, len(sizes) - 1)]


@pytest.mark.long
def test_paths_of_more_weights_than_float32_can_count():
    count = 2**24 + 2
    assert storage.from_positions([count, 1], ["sparse"], TANH, [None]).paths().weights == count
