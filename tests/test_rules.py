"""Which weights go: exact counts, ties, thresholds, scopes, kept weights. Small matrices with the mask written out."""

import math

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from networks import prune_at

import fastprune as fp
from fastprune.rules import count_for, percentile


def network_of(*layers):
    """A float64 network with these weights, one (fan_out, fan_in) list a layer."""
    arrays = [np.array(layer, float) for layer in layers]
    network = fp.MLP([arrays[0].shape[1], *(len(array) for array in arrays)], dtype="float64")
    network.state.values[: network.total_weights] = np.concatenate([array.reshape(-1) for array in arrays])
    return network


def prune(network, *, scope="layer", ignored_layers=(), min_keep=0, **number):
    pruner = fp.Pruner(
        fp.Trainer(network), schedule=[0.0], scope=scope, ignored_layers=ignored_layers, min_keep=min_keep
    )
    return pruner.step(**number)


def masks(network):
    return [mask.astype(int).tolist() for mask in network.masks]


def events(record):
    return [str(event) for event in record.events]


def test_the_smallest_go_whatever_their_sign():
    network = network_of([[3.0, -1.0], [-4.0, 2.0]])
    record = prune(network, sparsity=0.5)
    assert masks(network) == [[[1, 0], [1, 0]]]
    assert network.weights[0].tolist() == [[3.0, 0.0], [-4.0, 0.0]]
    assert (record.requested, record.requested_sparsity, record.sparsity, record.removed, record.live) == (
        0.5,
        0.5,
        0.5,
        2,
        2,
    )


def test_ties_are_broken_by_index():
    network = network_of([[1.0, -1.0, 1.0], [2.0, -1.0, 1.0]])
    prune(network, sparsity=0.5)
    assert masks(network) == [[[0, 0, 0], [1, 1, 1]]]


def test_scope_layer_ranks_each_layer_and_global_all_together():
    layers = [[[1.0, 2.0, 3.0, 4.0]] * 2, [[10.0, 20.0]] * 2]
    by_layer, together = network_of(*layers), network_of(*layers)
    prune(by_layer, sparsity=0.5)
    prune(together, sparsity=0.5, scope="global")
    assert masks(by_layer) == [[[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 1], [0, 1]]]
    assert masks(together) == [[[0, 0, 0, 1], [0, 0, 0, 1]], [[1, 1], [1, 1]]]


def test_percentile_removes_at_most_q_percent_of_the_live_weights():
    network = network_of([[1.0, -2.0, 3.0, -4.0, 5.0]])
    record = prune(network, q=50.0)
    assert masks(network) == [[[0, 0, 1, 1, 1]]]
    assert record.requested_sparsity == pytest.approx(0.5)
    assert record.sparsity == pytest.approx(0.4)
    assert record.thresholds == (2.0,)
    record = prune(network, q=50.0)
    assert masks(network) == [[[0, 0, 0, 1, 1]]], "a half of the three that were live"
    assert record.thresholds == (3.0,)


def test_percentile_that_is_less_than_one_weight_removes_none():
    """A layer of six weights lost one a round, whatever q, and was soon empty."""
    network = network_of([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    for _ in range(39):
        record = prune(network, q=16.6)
        assert (record.removed, record.thresholds, events(record)) == (0, (None,), ["nothing removed"])
    assert prune(network, q=16.7).removed == 1


def test_percentile_0_removes_none_and_100_all():
    network = network_of([[1.0, 0.0, 3.0, 1.0]])
    record = prune(network, q=0.0)
    assert masks(network) == [[[1, 1, 1, 1]]]
    assert (events(record), record.thresholds) == (["nothing removed"], (None,))
    record = prune(network, q=100.0)
    assert masks(network) == [[[0, 0, 0, 0]]]
    assert events(record) == ["layer emptied (layer 0)"]
    assert (record.sparsity, network.sparsity, network.compression) == (1, 1, math.inf)
    assert record.thresholds == (3.0,)


def test_percentile_leaves_equals_together():
    network = network_of([[1.0, 2.0, -2.0, 2.0, 3.0]])
    assert prune(network, q=60.0).thresholds == (1.0,), "with all that are 2 it would be 80 percent"
    assert masks(network) == [[[0, 1, 1, 1, 1]]]
    assert prune(network, q=75.0).thresholds == (2.0,)
    assert masks(network) == [[[0, 0, 0, 0, 1]]]


@given(st.lists(st.integers(0, 8).map(float), min_size=1, max_size=60), st.integers(0, 1000).map(lambda q: q / 10))
def test_the_percentile_is_the_twin(scores, q):
    array = np.array(scores)
    assert percentile(array, array.copy(), q) == reference.percentile(scores, q)
    network = network_of([scores])
    record = prune(network, q=q)
    assert record.removed <= q / 100 * len(scores) * (1 + 1e-12)
    gone, stay = array[~network.masks[0][0]], array[network.masks[0][0]]
    assert not gone.size or gone.max() == record.thresholds[0]
    assert not gone.size or not stay.size or stay.min() > gone.max()


def test_decimals_are_no_pitfall():
    """0.57 percent of 10,000 weights are 57, though 0.57 * 10,000 / 100 is a little less."""
    for q in (29.0, 57.0, 58.0, 1.1, 2.3, 0.57, 4.35, 0.29):
        scores = np.arange(1.0, 10001.0)
        assert percentile(scores, scores, q) == round(100 * q), "of 10,000"


def test_thresholds_are_told_by_layer():
    layers = [[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]
    assert prune(network_of(*layers), q=50.0, ignored_layers=[1]).thresholds == (2.0, None)
    assert prune(network_of(*layers), q=50.0, scope="global").thresholds == (3.0, 3.0)
    assert prune(network_of(*layers), sparsity=0.5).thresholds == (None, None)
    deviation = np.std([5.0, 6.0])
    assert prune(network_of(*layers), quality={1: 2.0}).thresholds == (None, pytest.approx(2 * deviation))


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-200, 1e200])
def test_the_size_of_weights_is_of_no_matter(scale):
    """Their squares overflow or vanish."""
    dtype = "float32" if 1e-40 < scale < 1e40 else "float64"
    rng = np.random.default_rng(0)
    values = rng.normal(size=12).astype(dtype)
    outcomes = []
    for factor in (1, scale):
        for number, settings in ({"quality": 0.5}, {}), ({"sparsity": 0.5}, {"layer_rates": "lamp"}):
            network = fp.MLP([4, 2, 2], dtype=dtype)
            network.state.values[:12] = values * np.dtype(dtype).type(factor)
            record = fp.Pruner(fp.Trainer(network), schedule=[0.0], **settings).step(**number)
            outcomes.append((masks(network), pytest.approx(record.removed_norm, rel=1e-6)))
    assert outcomes[:2] == outcomes[2:]
    assert all(0 < norm.expected < 1 for _, norm in outcomes)


def test_std_is_measured_around_the_mean_of_the_live_weights():
    network = network_of([[0.5, -3.0, 3.0, 100.0]])
    prune_at(network, [3])
    deviation = np.std([0.5, -3.0, 3.0])
    assert 0.5 < 0.25 * deviation < 3
    record = prune(network, quality=0.25)
    assert masks(network) == [[[0, 1, 1, 0]]]
    assert record.requested_sparsity is None
    prune(network, quality=1.0)  # |w| = 3 is not above 3
    assert network.live_weights == 0


def test_threshold_rules_of_global_scope_share_one_threshold():
    network = network_of([[1.0, 2.0]], [[3.0]])
    prune(network, scope="global", q=70.0)
    assert masks(network) == [[[0, 0]], [[1]]]
    network = network_of([[1.0, -1.0]], [[0.9]])
    prune(network, scope="global", quality=0.95 / np.std([1.0, -1.0, 0.9]))
    assert masks(network) == [[[1, 1]], [[0]]]


def test_ignored_layers_stay_whole_and_count():
    network = network_of([[1.0, 2.0, 3.0, 4.0]] * 2, [[0.1, 0.2]])
    record = prune(network, sparsity=0.5, ignored_layers=[-1])
    assert network.live_weights == 5
    assert network.masks[1].all()
    assert record.sparsity == 0.5
    assert record.prunable_sparsity == 5 / 8
    with pytest.raises(ValueError, match=r"sparsity: expected a sparsity of at most 0.8, .* got 0.9"):
        prune(network, sparsity=0.9, ignored_layers=[-1])


def test_numbers_by_layer():
    network = network_of([[1.0, 2.0, 3.0, 4.0]] * 2, [[1.0, 2.0]], [[5.0]])
    record = prune(network, sparsity={0: 0.25, 1: 0.5})
    assert record.layer_sparsity == (0.25, 0.5, 0.0)
    assert record.requested == {0: 0.25, 1: 0.5}
    assert record.requested_sparsity is None
    prune(network, q={-1: 100.0})
    assert network.layer_live_weights == [6, 1, 0]


def test_min_keep_of_global_scope_takes_the_next_smallest():
    network = network_of([[1.0, 2.0, 3.0, 4.0]] * 2, [[0.1, 0.2]])
    record = prune(network, sparsity=0.2, scope="global", min_keep=1)
    assert masks(network) == [[[0, 1, 1, 1], [1, 1, 1, 1]], [[0, 1]]]
    assert (record.sparsity, events(record)) == (pytest.approx(0.2), [])


def test_min_keep_of_layer_scope_removes_less_and_says_so():
    network = network_of([[1.0, 2.0, 3.0, 4.0]] * 2, [[20.0, 10.0]])
    record = prune(network, sparsity=0.9, min_keep=2)
    assert network.layer_live_weights == [2, 2]
    assert "kept more than asked (layer 1)" in events(record)
    assert record.requested == 0.9
    assert record.sparsity == pytest.approx(0.6)


def test_min_keep_holds_against_thresholds():
    for scope in ("layer", "global"):
        network = network_of([[1.0, 2.0, 3.0, 4.0]] * 2, [[0.1, 0.2]])
        record = prune(network, q=100.0, min_keep=1, scope=scope)
        assert masks(network) == [[[0, 0, 0, 0], [0, 0, 0, 1]], [[0, 1]]]
        assert events(record) == ["kept more than asked (layer 0)", "kept more than asked (layer 1)"]


def test_a_request_below_what_is_pruned_removes_nothing_and_says_so():
    network = network_of([[1.0, 2.0, 3.0, 4.0]])
    prune(network, sparsity=0.5)
    for number in ({"sparsity": 0.25}, {"sparsity": 0.0}, {"sparsity": 0.5}, {"quality": 0.0}):
        record = prune(network, **number)
        assert (record.removed, record.sparsity, events(record)) == (0, 0.5, ["nothing removed"])


def test_all_weights_equal():
    network = network_of([[2.0] * 4, [-2.0] * 4])
    prune(network, sparsity=0.5)
    assert masks(network) == [[[0, 0, 0, 0], [1, 1, 1, 1]]], "by index"
    assert events(prune(network, q=99.0)) == ["nothing removed"], "all of them would be more than 99 percent"
    prune(network, q=100.0)
    assert network.live_weights == 0


def test_all_weights_zero():
    network = network_of([[0.0] * 4])
    prune(network, sparsity=0.5)
    assert masks(network) == [[[0, 0, 1, 1]]]
    prune(network, quality=1.0)
    assert network.live_weights == 0, "the threshold is 0, and 0 is not above it"


def test_a_live_zero_is_not_a_pruned_weight():
    network = network_of([[0.0, 1.0, 2.0, 3.0]])
    assert network.sparsity == 0
    prune(network, sparsity=0.25)
    assert masks(network) == [[[0, 1, 1, 1]]]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("number", [{"q": 50.0}, {"quality": 1.0}, {"sparsity": 0.5}])
def test_nothing_left_to_prune(scope, number):
    network = network_of([[1.0, 2.0]], [[3.0]])
    prune(network, q=100.0)
    record = prune(network, scope=scope, **number)
    assert (record.removed, record.sparsity, events(record)) == (0, 1, ["nothing removed"])


def test_a_layer_of_one_weight():
    network = network_of([[1.0]], [[2.0]])
    prune(network, sparsity=0.5)
    assert network.layer_live_weights == [1, 0], "of one half each, what is left goes to the first"
    network = network_of([[1.0]], [[0.5]])
    prune(network, sparsity=0.5, scope="global")
    assert network.layer_live_weights == [1, 0]


# Counts, for any sizes, numbers and scopes

shapes = st.lists(st.integers(1, 6), min_size=2, max_size=5)


@given(
    shapes, st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4), st.sampled_from(["layer", "global"])
)
def test_counts_are_exact_and_masks_nested(sizes, targets, scope):
    network = fp.MLP(sizes)
    weights, before = network.total_weights, network.masks
    reached = 0
    for sparsity in targets:
        record = prune(network, sparsity=sparsity, scope=scope)
        reached = max(reached, math.floor(sparsity * weights + 0.5))
        assert network.live_weights == record.live == weights - reached
        for values, mask, old in zip(network.weights, network.masks, before, strict=True):
            assert (mask <= old).all()
            assert not values[~mask].any()
        before = network.masks


@given(shapes, st.floats(0, 1, exclude_max=True))
def test_scope_layer_gives_all_layers_the_same_sparsity(sizes, sparsity):
    network = fp.MLP(sizes)
    prune(network, sparsity=sparsity)
    total = count_for(sparsity, network.total_weights)
    for size, live in zip(network.layer_total_weights, network.layer_live_weights, strict=True):
        assert abs((size - live) - total * size / network.total_weights) < 1


@given(shapes, st.floats(0, 100), st.sampled_from(["layer", "global"]), st.integers(0, 3))
def test_thresholds_remove_what_is_not_above_and_no_more(sizes, q, scope, min_keep):
    network = fp.MLP(sizes, dtype="float64", initialization=1.0)
    before = network.weights
    record = prune(network, q=q, scope=scope, min_keep=min_keep)
    parts = [np.concatenate([w.reshape(-1) for w in before])] * len(before) if scope == "global" else before
    for weights, mask, part, threshold in zip(before, network.masks, parts, record.thresholds, strict=True):
        limit = reference.percentile(np.abs(part).reshape(-1).tolist(), q)
        assert limit == threshold
        limit = -1.0 if limit is None else limit
        kept = np.sort(np.abs(weights).reshape(-1))[::-1][:min_keep]
        expected = (np.abs(weights) > limit) | np.isin(np.abs(weights), kept)
        np.testing.assert_array_equal(mask, expected)


@given(shapes, st.floats(0, 0.99), st.integers(0, 3))
def test_min_keep_of_global_scope_is_exact_or_refused(sizes, sparsity, min_keep):
    network = fp.MLP(sizes)
    possible = sum(max(0, size - min_keep) for size in network.layer_total_weights)
    wanted = count_for(sparsity, network.total_weights)
    if wanted > possible:
        with pytest.raises(ValueError, match="sparsity: expected a sparsity of at most"):
            prune(network, sparsity=sparsity, scope="global", min_keep=min_keep)
        assert network.sparsity == 0
        return
    prune(network, sparsity=sparsity, scope="global", min_keep=min_keep)
    assert network.total_weights - network.live_weights == wanted
    for size, live in zip(network.layer_total_weights, network.layer_live_weights, strict=True):
        assert live >= min(size, min_keep)


# Criteria and rates of layers


def pruned(sizes, sparsity, seed=0, **settings):
    network = fp.MLP(sizes, seed=3)
    record = fp.Pruner(fp.Trainer(network), schedule=[sparsity], seed=seed, **settings).step()
    return network, record


def test_random_pruning_is_exact_drawn_by_the_seed_and_blind_to_magnitude():
    network, record = pruned([40, 30, 10], 0.7, criterion="random")
    assert record.live == 450
    again, other = pruned([40, 30, 10], 0.7, criterion="random")[0], pruned([40, 30, 10], 0.7, 1, criterion="random")[0]
    np.testing.assert_array_equal(network.masks[0], again.masks[0])
    assert (network.masks[0] != other.masks[0]).any()
    dense = fp.MLP([40, 30, 10], seed=3).weights[0]
    assert np.abs(dense[network.masks[0]]).mean() == pytest.approx(np.abs(dense).mean(), rel=0.1)
    assert np.abs(pruned([40, 30, 10], 0.7)[0].weights[0]).max() == np.abs(dense).max()


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_random_pruning_goes_on_with_what_is_left(scope):
    network = fp.MLP([20, 20, 5])
    pruner = fp.Pruner(fp.Trainer(network), schedule=[0.3, 0.6, 0.9], criterion="random", scope=scope)
    before = network.masks
    for sparsity in (0.3, 0.6, 0.9):
        assert pruner.step().sparsity == sparsity
        assert all((mask <= old).all() for mask, old in zip(network.masks, before, strict=True))
        before = network.masks


def test_random_pruning_does_not_depend_on_how_layers_are_stored():
    masks = []
    for execution in ("dense", "sparse"):
        network = fp.MLP([20, 20, 5], execution=execution)
        pruner = fp.Pruner(fp.Trainer(network), schedule=[0.3, 0.6], criterion="random")
        for _ in range(2):
            pruner.step()
        masks.append(np.concatenate([mask.reshape(-1) for mask in network.masks]))
    np.testing.assert_array_equal(*masks)


def test_percentiles_of_random_pruning_are_shares():
    _, record = pruned([50, 40, 10], 25.0, rule="percentile", criterion="random")
    assert record.sparsity == pytest.approx(0.25, abs=0.002)


def test_erdos_renyi_rates():
    network, record = pruned([100, 50, 10], 0.8, layer_rates="erdos_renyi")
    assert record.live == 1100
    # In proportion to 150 and 60 live weights: 785.7 and 314.3.
    assert network.layer_live_weights == [786, 314]
    network, record = pruned([100, 50, 10], 0.5, layer_rates="erdos_renyi")
    assert network.layer_live_weights == [2250, 500], "no layer gets more than it has"


def lamp_scores(weights):
    """Lee et al. 2021, equation 2, as it is written."""
    order = np.argsort(weights.reshape(-1) ** 2, kind="stable")
    squares = weights.reshape(-1)[order].astype(float) ** 2
    scores = np.empty(order.size)
    scores[order] = [squares[u] / squares[u:].sum() for u in range(order.size)]
    return scores.reshape(weights.shape)


@pytest.mark.parametrize("sparsity", [0.3, 0.8, 0.95])
def test_lamp_rates_are_those_of_a_global_ranking_by_score(sparsity):
    scores = [lamp_scores(weights) for weights in fp.MLP([30, 20, 10], seed=3).weights]
    network, record = pruned([30, 20, 10], sparsity, layer_rates="lamp")
    joined = np.sort(np.concatenate([score.reshape(-1) for score in scores]))
    bar = joined[-record.live]
    for mask, score in zip(network.masks, scores, strict=True):
        np.testing.assert_array_equal(mask, score >= bar)


def test_lamp_never_empties_a_layer_before_the_others():
    network = network_of(np.full((20, 20), 5.0) + np.arange(20), [[1e-3] * 20, [2e-3] * 20])
    pruner = fp.Pruner(fp.Trainer(network), schedule=[0.995], layer_rates="lamp")
    pruner.step()
    assert min(network.layer_live_weights) >= 1
    network = network_of(np.zeros((2, 4)), np.ones((1, 2)))
    assert fp.Pruner(fp.Trainer(network), schedule=[0.5], layer_rates="lamp").step().live == 5, "zeros have scores, too"


@pytest.mark.parametrize("layer_rates", ["uniform", "erdos_renyi", "lamp"])
def test_rates_keep_to_what_is_left_to_ignored_layers_and_to_min_keep(layer_rates):
    network = fp.MLP([30, 20, 10], seed=1)
    trainer = fp.Trainer(network)
    fp.Pruner(trainer, schedule=[{0: 0.9}]).step()
    record = fp.Pruner(trainer, schedule=[0.8], layer_rates=layer_rates).step()
    assert record.live == 160
    if layer_rates != "lamp":  # 120 and 40, or 100 and 60, if the first layer still had them
        assert network.layer_live_weights == [60, 100]

    network = fp.MLP([30, 20, 10], seed=1)
    settings = {"layer_rates": layer_rates, "ignored_layers": [1]}
    assert fp.Pruner(fp.Trainer(network), schedule=[0.7], **settings).step().live == 240
    assert network.layer_live_weights == [40, 200]

    network = fp.MLP([30, 20, 10], seed=1)
    record = fp.Pruner(fp.Trainer(network), schedule=[0.99], layer_rates=layer_rates, min_keep=50).step()
    assert network.layer_live_weights == [50, 50]
    assert {event.layer for event in record.events} == {0, 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "hessian"}, "criterion: expected one of 'magnitude', 'random', 'gradient', got 'hessian'"),
        ({"layer_rates": "erk"}, "layer_rates: expected one of 'uniform', 'erdos_renyi', 'lamp', got 'erk'"),
        ({"layer_rates": "lamp", "scope": "global"}, "layer_rates: expected rule 'sparsity' and scope 'layer' with"),
        ({"layer_rates": "lamp", "rule": "percentile"}, "layer_rates: expected rule 'sparsity' and scope 'layer'"),
        ({"criterion": "random", "rule": "std"}, "criterion: expected 'magnitude' with rule 'std', got 'random'"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_criteria_and_rates(settings, message):
    with pytest.raises(ValueError, match=message):
        fp.Pruner(fp.Trainer(fp.MLP([4, 3])), schedule=[0.5], **settings)


def test_a_step_by_deviations_knows_no_random_criterion():
    network = fp.MLP([4, 3])
    with pytest.raises(ValueError, match="criterion: expected 'magnitude' with rule 'std', got 'random'"):
        fp.Pruner(fp.Trainer(network), schedule=[0.5], criterion="random").step(quality=1.0)
    assert network.sparsity == 0


# Paths


def test_weights_on_no_path_are_not_effective_and_units_without_path_are_dead():
    network = network_of([[1.0, 0.0], [0.0, 0.0], [2.0, 1.0], [3.0, 0.0]], [[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    trainer = fp.Trainer(network)
    fp.Pruner(trainer).apply([weights != 0 for weights in network.weights])
    # Unit 0 leads nowhere, unit 1 is not reached, unit 2 leads nowhere; unit 3 works: one weight in, two out.
    assert network.live_weights == 7
    assert network.dead_units == [3]
    assert network.effective_sparsity == pytest.approx(1 - 3 / 16)
    record = fp.Pruner(trainer, schedule=[0.0]).step(q={0: 0.0})
    assert record.dead_units == (3,)
    assert record.effective_sparsity == network.effective_sparsity
    assert network.freeze().sizes == [2, 1, 2]
