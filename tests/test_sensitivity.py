"""The sensitivity scan: its curves, against pruning by hand, and the rates it recommends."""

import numpy as np
import pytest

import fastprune as fp
from fastprune.evaluation import Evaluation
from fastprune.sensitivity import Sensitivity


@pytest.fixture(scope="module")
def digits():
    return fp.load_dataset("digits")


@pytest.fixture
def pruner(digits):
    trainer = fp.Trainer(fp.MLP([64, 40, 20, 10], seed=0), batch_size=32)
    trainer.fit(digits.x_train, digits.y_train, 5)
    return fp.Pruner(trainer, schedule=[0.5])


def test_curves_are_those_of_layers_pruned_alone(digits, pruner):
    trainer = pruner.trainer
    values, masks = trainer.network.state.values.copy(), trainer.network.masks
    data = digits.x_test, digits.y_test
    scan = pruner.sensitivity(*data, sparsities=[0.5, 0.9])
    np.testing.assert_array_equal(trainer.network.state.values, values)
    assert all((now == then).all() for now, then in zip(trainer.network.masks, masks, strict=True))
    assert pruner.round == 0
    assert (scan.layers, scan.sparsities) == ((0, 1, 2), (0.5, 0.9))
    assert scan.baseline == trainer.evaluate(*data)
    whole = trainer.snapshot()
    for layer in range(3):
        for i, sparsity in enumerate((0.5, 0.9)):
            fp.Pruner(trainer, schedule=[{layer: sparsity}]).step()
            assert scan.evaluations[layer][i] == trainer.evaluate(*data)
            trainer.restore(whole)


def test_ignored_layers_are_not_scanned_and_pruned_ones_start_where_they_are(digits, pruner):
    trainer = pruner.trainer
    fp.Pruner(trainer, schedule=[{0: 0.7}]).step()
    scan = fp.Pruner(trainer, schedule=[0.9], ignored_layers=[-1]).sensitivity(
        digits.x_test, digits.y_test, sparsities=[0.5, 0.95]
    )
    assert scan.layers == (0, 1)
    assert scan.layer_sparsity == (0.7, 0.0, 0.0)
    assert scan.evaluations[0][0] == scan.baseline, "nothing to remove at 0.5"
    rates = scan.recommend(0.8)
    assert rates[0] >= 0.7
    record = fp.Pruner(trainer, schedule=[rates]).step()
    assert record.sparsity == pytest.approx(0.8, abs=1e-3)
    assert record.layer_sparsity[2] == 0


def scan_of(*curves, sizes=(100, 100), baseline=1.0, sparsities=(0.5, 0.9), layer_sparsity=(0.0, 0.0)):
    """A scan with these losses."""
    rows = tuple(tuple(Evaluation(loss, 0.5, False, False) for loss in curve) for curve in curves)
    return Sensitivity((0, 1), sizes, layer_sparsity, sparsities, Evaluation(baseline, 0.5, False, False), rows)


def test_layers_that_lose_the_same_get_the_same():
    assert scan_of([2, 3], [2, 3]).recommend(0.7) == pytest.approx({0: 0.7, 1: 0.7})
    assert scan_of([2, 3], [2, 3]).recommend(0.25) == pytest.approx({0: 0.25, 1: 0.25})


def test_the_loss_rises_by_the_same_amount_in_all_layers():
    # Rises of 1 and 2 at 0.5 and 0.9, and of 2 and 6: at a rise of 1 the rates are 0.5 and 0.25.
    assert scan_of([2, 3], [3, 7]).recommend(0.375) == pytest.approx({0: 0.5, 1: 0.25})
    assert scan_of([2, 3], [3, 7]).recommend(0.7) == pytest.approx({0: 0.9, 1: 0.5})
    assert scan_of([2, 3], [3, 7], sizes=(300, 100)).recommend(0.8) == pytest.approx({0: 0.9, 1: 0.5})


def test_what_costs_nothing_goes_first_and_only_as_far_as_it_has_to():
    free, dear = [1.0, 1.0], [3.0, 7.0]
    assert scan_of(free, dear).recommend(0.45) == pytest.approx({0: 0.9, 1: 0.0})
    assert scan_of(free, dear).recommend(0.2) == pytest.approx({0: 0.4, 1: 0.0})
    assert scan_of(free, free).recommend(0.3) == pytest.approx({0: 0.3, 1: 0.3})


def test_a_loss_that_falls_on_pruning_is_no_reason_to_go_back():
    assert scan_of([0.9, 0.8], [3.0, 2.0]).recommend(0.9) == pytest.approx({0: 0.9, 1: 0.9})
    # Rises of 0 and 1, and of 2 and 2: the second layer's falls no more.
    assert scan_of([0.9, 2.0], [3.0, 2.0]).recommend(0.6) == pytest.approx({0: 0.9, 1: 0.3})


def test_the_ends_of_the_scan():
    scan = scan_of([2, 3], [3, 7], layer_sparsity=(0.2, 0.0))
    assert scan.recommend(0.1) == pytest.approx({0: 0.2, 1: 0.0})
    assert scan.recommend(0.9) == pytest.approx({0: 0.9, 1: 0.9})
    for sparsity in (0.05, 0.95):
        with pytest.raises(ValueError, match=r"sparsity: expected a number in \[0.1, 0.9\], got"):
            scan.recommend(sparsity)


def test_the_end_of_any_scan_is_within_reach():
    rng = np.random.default_rng(0)
    for _ in range(100):
        sizes = tuple(rng.integers(1, 1000, 2).tolist())
        scan = scan_of([2, 3], [3, 7], sizes=sizes, sparsities=(0.5, 0.999), layer_sparsity=(rng.random() / 2, 0.0))
        assert scan.recommend(0.999) == pytest.approx({0: 0.999, 1: 0.999})
        now = (scan.layer_sparsity[0] * sizes[0]) / sum(sizes)
        assert scan.recommend(now)[1] == pytest.approx(0, abs=1e-6)


def test_layers_without_weights_get_no_rate():
    assert scan_of([1, 1], [3, 7], layer_sparsity=(1.0, 0.0)).recommend(0.75) == pytest.approx({1: 0.5})


def test_a_scan_needs_a_finite_loss_to_compare_with():
    trainer = fp.Trainer(fp.MLP([6, 5, 1], initialization=1e30))
    with pytest.raises(ValueError, match=r"network: the loss is (inf|nan) before pruning"):
        fp.Pruner(trainer, schedule=[0.1]).sensitivity(np.ones((2, 6)), [0.5, 1.5])


def test_the_scan_knows_no_weights_that_are_kept():
    trainer = fp.Trainer(fp.MLP([6, 5, 3]))
    x, y = np.eye(6), [0, 1, 2, 0, 1, 2]
    held_back = fp.Pruner(trainer, schedule=[0.1], min_keep=12).sensitivity(x, y, sparsities=[0.9])
    assert held_back == fp.Pruner(trainer, schedule=[0.1]).sensitivity(x, y, sparsities=[0.9])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsities": []}, "sparsities: expected a sequence of at least one number"),
        ({"sparsities": 0.5}, "sparsities: expected a sequence"),
        ({"sparsities": [0.5, 1.0]}, r"sparsities\[1\]: expected a number in \[0, 1\), got 1.0"),
        ({"sparsities": [0.5, 0.2]}, "sparsities: expected ascending numbers"),
        ({"y": [0]}, "y: expected"),
    ],
)
def test_bad_arguments(digits, pruner, settings, message):
    with pytest.raises(ValueError, match=message):
        pruner.sensitivity(**{"x": digits.x_test, "y": digits.y_test, **settings})
    assert pruner.trainer.network.sparsity == 0
