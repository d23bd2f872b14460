"""The estimators, with scikit-learn's own checks and the tools that its users have."""

import io
import pickle
import re
import shutil

import joblib
import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    make_classification,
    make_multilabel_classification,
    make_regression,
)
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastprune as fp
from fastprune.sklearn import PrunedMLPClassifier, PrunedMLPRegressor

ESTIMATORS = [PrunedMLPClassifier, PrunedMLPRegressor]
CHECKED = [
    *(make(max_iter=100) for make in ESTIMATORS),
    *(
        make((20, 20), "tanh", sparsity=0.5, solver="sgd", learning_rate_init=0.1, scope="global", standardize=False)
        for make in ESTIMATORS
    ),
]


@pytest.mark.filterwarnings("ignore::fastprune.TrainingWarning")
@parametrize_with_checks(CHECKED)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def fitted(digits):
    return PrunedMLPClassifier(random_state=0, max_iter=30).fit(*digits)


# Tasks


def test_two_classes_in_text():
    x, y = load_breast_cancer(return_X_y=True)
    y = np.array(["benign", "malignant"])[y]
    classifier = PrunedMLPClassifier(random_state=0).fit(x[::2], y[::2])
    assert classifier.classes_.tolist() == ["benign", "malignant"]
    assert classifier.n_outputs_ == 1
    assert classifier.score(x[1::2], y[1::2]) > 0.94
    probabilities = classifier.predict_proba(x)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(classifier.classes_[probabilities.argmax(axis=1)], classifier.predict(x))
    np.testing.assert_allclose(classifier.predict_log_proba(x[:5]), np.log(probabilities[:5]))


def test_more_classes(fitted, digits):
    assert fitted.score(*digits) > 0.95
    assert fitted.predict_proba(digits[0]).shape == (1797, 10)
    assert [coefs.shape for coefs in fitted.coefs_] == [(64, 100), (100, 10)]
    assert [biases.shape for biases in fitted.intercepts_] == [(100,), (10,)]
    assert fitted.sparsity_ == pytest.approx(0.9, abs=1e-4)
    assert sum(mask.sum() for mask in fitted.masks_) == fitted.network_.live_weights == 740
    for mask, coefs in zip(fitted.masks_, fitted.coefs_, strict=True):
        assert not coefs[~mask].any()
    assert len(fitted.loss_curve_) == fitted.n_iter_ <= 30
    assert [round(record.sparsity, 2) for record in fitted.history_] == [0.28, 0.48, 0.63, 0.73, 0.81, 0.86, 0.9]


@pytest.mark.parametrize("sparse", [False, True])
def test_several_labels_per_sample(sparse):
    x, y = make_multilabel_classification(400, n_classes=4, random_state=0)
    given = scipy.sparse.csr_matrix(y) if sparse else y
    classifier = PrunedMLPClassifier(sparsity=0.5, random_state=0).fit(x, given)
    found = classifier.predict(x)
    assert found.shape == y.shape
    assert (found == y).mean() > 0.9
    np.testing.assert_array_equal(found, classifier.predict_proba(x) > 0.5)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("scale", [1, 1e6])
def test_targets_of_any_scale(outputs, scale):
    x, y = make_regression(400, 20, n_informative=3, n_targets=outputs, random_state=0)
    regressor = PrunedMLPRegressor(random_state=0).fit(x, scale * (y + 1000))
    assert regressor.predict(x).shape == y.shape
    assert regressor.score(x, scale * (y + 1000)) > 0.95


def test_features_of_any_scale(digits):
    x, y = digits
    scales, shifts = 10.0 ** np.random.default_rng(0).integers(-3, 4, 64), np.random.default_rng(1).normal(0, 100, 64)
    plain, scaled = (PrunedMLPClassifier(random_state=0, max_iter=10).fit(z, y) for z in (x, x * scales + shifts))
    np.testing.assert_allclose(plain.predict_proba(x), scaled.predict_proba(x * scales + shifts), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(plain.feature_importances_, scaled.feature_importances_, rtol=1e-4, atol=1e-9)


def test_float32_is_trained_in_float32(digits):
    x, y = digits
    classifier = PrunedMLPClassifier(max_iter=30, random_state=0).fit(x.astype("float32"), y)
    assert classifier.network_.dtype == classifier.predict_proba(x).dtype == "float32"
    assert classifier.score(x, y) > 0.95


def test_sparse_features_are_those_of_the_dense_matrix(digits):
    """Unless they are standardized: then only dense ones are centered."""
    x, y = digits
    ends = []
    for form in (np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_array):
        classifier = PrunedMLPClassifier(max_iter=5, standardize=False, random_state=0).fit(form(x / 16), y)
        ends.append(classifier.predict_proba(form(x / 16)))
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])
    classifier = PrunedMLPClassifier(max_iter=30, random_state=0).fit(scipy.sparse.csr_array(x), y)
    assert classifier.score(x, y) > 0.94


def test_weights_of_classes():
    x, y = make_classification(1000, weights=[0.9], flip_y=0.1, random_state=0)
    found = [
        (PrunedMLPClassifier(class_weight=weight, random_state=0, max_iter=30).fit(x, y).predict(x) == 1).mean()
        for weight in ({0: 3, 1: 1}, None, "balanced", {0: 1, 1: 20})
    ]
    assert found == sorted(found)
    assert found[0] < found[-1] / 3


# Ways to train


def test_no_pruning_is_the_network_of_a_trainer(digits):
    x, y = digits
    classifier = PrunedMLPClassifier(sparsity=0, max_iter=5, standardize=False, alpha=0, random_state=3).fit(x / 16, y)
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    network = fp.MLP([64, 100, 10], seed=seed, dtype="float64")
    trainer = fp.Trainer(network, optimizer="adam", learning_rate=0.001, batch_size=200, seed=seed, tolerance=1e-4)
    trainer.fit(x / 16, y, 5)
    np.testing.assert_array_equal(classifier.coefs_[0].T, network.weights[0])
    assert classifier.history_ == []


def test_a_schedule_of_ones_own(digits):
    classifier = PrunedMLPClassifier(schedule=[0.5, 0.8], layer_rates="uniform", max_iter=4, random_state=0).fit(
        *digits
    )
    assert [record.sparsity for record in classifier.history_] == pytest.approx([0.5, 0.8], abs=1e-3)
    assert [mask.mean() for mask in classifier.masks_] == pytest.approx([0.2, 0.2], abs=1e-3)


def test_partial_fit_goes_on_with_optimizer_and_masks(digits):
    x, y = (part[np.random.default_rng(0).permutation(1797)] for part in digits)
    parts = PrunedMLPClassifier(learning_rate_init=0.01, random_state=0, standardize=False)
    for _ in range(4):
        for start in range(0, 1700, 200):
            parts.partial_fit(x[start : start + 200] / 16, y[start : start + 200], classes=range(10))
    x = x / 16
    assert parts.score(x, y) > 0.9
    assert parts.sparsity_ == 0
    assert len(parts.loss_curve_) == parts.n_iter_ == 36
    assert parts._trainer.snapshot().updates[0] == 36
    loaded = pickle.loads(pickle.dumps(parts))
    np.testing.assert_array_equal(loaded.partial_fit(x, y).predict_proba(x), parts.partial_fit(x, y).predict_proba(x))

    pruned = PrunedMLPClassifier(sparsity=0.8, max_iter=5, random_state=0).fit(x, y)
    masks = pruned.masks_
    pruned.partial_fit(x, y)
    for mask, before in zip(pruned.masks_, masks, strict=True):
        np.testing.assert_array_equal(mask, before)


def test_warm_start_goes_on(digits):
    x, y = digits
    classifier = PrunedMLPClassifier(sparsity=0.5, max_iter=5, warm_start=True, random_state=0).fit(x, y)
    before, loss = classifier.masks_, classifier.loss_
    classifier.set_params(sparsity=0.8).fit(x, y)
    assert classifier.sparsity_ == pytest.approx(0.8, abs=1e-3)
    assert all((after <= mask).all() for after, mask in zip(classifier.masks_, before, strict=True))
    assert classifier.loss_ < loss
    with pytest.raises(ValueError, match=r"y: expected the classes .* which the network knows"):
        classifier.fit(x, y + 1)
    for setting in ({"hidden_layer_sizes": (50,)}, {"activation": "tanh"}):
        with pytest.raises(ValueError, match="which the network that goes on has"):
            clone(classifier).set_params(max_iter=1).fit(x, y).set_params(**setting).fit(x, y)


def test_a_round_that_fails_is_told_with_what_was_reached():
    x, y = make_classification(200, random_state=0)
    with pytest.warns(fp.TrainingWarning) as caught:
        classifier = PrunedMLPClassifier(sparsity=0.999, random_state=0).fit(x[:, :1], y)
    assert f"sparsity: reached {classifier.sparsity_:.4f}, because" in str(caught[-1].message)
    assert classifier.sparsity_ < 0.999


def test_partial_fit_warns_of_no_collapse():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 20))
    y = (x[:, 0] + x[:, 1] > 2.2).astype(int)
    classifier = PrunedMLPClassifier(random_state=0)
    for start in range(0, 2000, 50):
        classifier.partial_fit(x[start : start + 50], y[start : start + 50], classes=[0, 1])


def test_early_stopping_holds_samples_out():
    x, y = make_classification(600, 50, flip_y=0.3, random_state=0)
    classifier = PrunedMLPClassifier(early_stopping=True, max_iter=500, random_state=0).fit(x, y)
    assert classifier.n_iter_ < 200
    assert all(record.after.validation is not None for record in classifier.history_)


@pytest.mark.parametrize("make", ESTIMATORS)
def test_same_seed_same_bits(make, digits):
    x, y = digits
    one, two, other = (make(max_iter=3, random_state=seed).fit(x, y) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.predict(x), two.predict(x))
    assert (one.coefs_[0] == two.coefs_[0]).all()
    assert (one.coefs_[0] != other.coefs_[0]).any()


# Tools


def test_grid_search_in_a_pipeline_on_two_processes():
    x, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(FunctionTransformer(), PrunedMLPClassifier(max_iter=20, random_state=0))
    grid = {"prunedmlpclassifier__sparsity": [0.5, 0.95], "prunedmlpclassifier__hidden_layer_sizes": [(20,), (50, 20)]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(x, y)
    assert search.best_score_ > 0.93
    assert search.best_estimator_[-1].sparsity_ > 0.4


def test_calibration_voting_and_cross_validation():
    x, y = load_breast_cancer(return_X_y=True)
    classifier = PrunedMLPClassifier(max_iter=20, random_state=0)
    assert CalibratedClassifierCV(classifier, cv=3).fit(x, y).score(x, y) > 0.94
    voting = VotingClassifier([("pruned", classifier), ("line", LogisticRegression(max_iter=10_000))], voting="soft")
    assert voting.fit(x, y).score(x, y) > 0.9
    assert cross_val_score(PrunedMLPRegressor(random_state=0), *load_diabetes(return_X_y=True)).mean() > 0.35


def test_joblib_and_pickle(fitted, digits):
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    for copy in (joblib.load(file), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(copy.predict_proba(digits[0]), fitted.predict_proba(digits[0]))
        assert copy.sparsity_ == fitted.sparsity_


@pytest.mark.parametrize("threshold", [1e-12, "mean"])
def test_features_are_selected(threshold):
    x, y = make_classification(
        1000, 200, n_informative=4, n_redundant=0, n_clusters_per_class=1, class_sep=2, shuffle=False, random_state=0
    )
    classifier = PrunedMLPClassifier(sparsity=0.998, random_state=0)
    selector = SelectFromModel(classifier, threshold=threshold).fit(x, y)
    chosen = selector.get_support(indices=True)
    assert set(range(4)) & set(chosen.tolist())
    assert chosen.size <= 40 == selector.estimator_.network_.live_weights
    if threshold != "mean":
        np.testing.assert_array_equal(selector.get_support(), selector.estimator_.get_support())
        np.testing.assert_array_equal(chosen, selector.estimator_.get_support(indices=True))
        other = x.copy()
        other[:, np.setdiff1d(np.arange(200), chosen)] = 7
        np.testing.assert_array_equal(selector.estimator_.predict_proba(x), selector.estimator_.predict_proba(other))
    assert selector.estimator_.feature_importances_.sum() == pytest.approx(1)


# Ways out


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
@pytest.mark.parametrize("task", ["binary", "classes", "labels", "value", "values"])
def test_the_same_network_in_scikit_learn(task, activation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) * 5 + 3
    y = {
        "binary": np.where(x[:, 0] > 3, "yes", "no"),
        "classes": np.digitize(x[:, 0], [0, 4]) * 10,
        "labels": (x[:, :3] > 3).astype(int),
        "value": x[:, 0] * 100,
        "values": x[:, :2] * [1, 100],
    }[task]
    make, peer = (PrunedMLPRegressor, MLPRegressor) if "value" in task else (PrunedMLPClassifier, MLPClassifier)
    mine = make((30, 20), activation, sparsity=0.5, learning_rate_init=0.01, max_iter=30, random_state=0).fit(x, y)
    other = mine.to_sklearn()
    assert type(other) is peer
    np.testing.assert_array_equal(other.predict(x), mine.predict(x)) if make is PrunedMLPClassifier else (
        np.testing.assert_allclose(other.predict(x), mine.predict(x))
    )
    assert other.predict(x).dtype == mine.predict(x).dtype
    if make is PrunedMLPClassifier:
        np.testing.assert_allclose(other.predict_proba(x), mine.predict_proba(x), atol=1e-12)
    assert other.score(x, y) == pytest.approx(mine.score(x, y))
    assert other.get_params()["hidden_layer_sizes"] == (30, 20)
    pickle.dumps(other)


def test_scikit_learn_has_no_leaky_relu(digits):
    leaky = PrunedMLPClassifier(activation="leaky_relu", max_iter=1, random_state=0).fit(*digits)
    with pytest.raises(
        ValueError, match="activation: scikit-learn has 'relu', 'tanh' and 'logistic', got 'leaky_relu'"
    ):
        leaky.to_sklearn()


def test_skops(fitted, digits):
    skops = pytest.importorskip("skops.io")
    content = skops.dumps(fitted.to_sklearn())
    loaded = skops.loads(content, trusted=skops.get_untrusted_types(data=content))
    np.testing.assert_array_equal(loaded.predict(digits[0]), fitted.predict(digits[0]))


def test_skl2onnx(fitted, digits):
    skl2onnx, onnxruntime = pytest.importorskip("skl2onnx"), pytest.importorskip("onnxruntime")
    model = skl2onnx.to_onnx(fitted.to_sklearn(), digits[0][:1].astype("float32"), options={"zipmap": False})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(None, {"X": digits[0].astype("float32")})
    np.testing.assert_array_equal(labels, fitted.predict(digits[0]))
    np.testing.assert_allclose(probabilities, fitted.predict_proba(digits[0]), atol=1e-4)


def test_emlearn(fitted, digits, tmp_path, monkeypatch):
    emlearn = pytest.importorskip("emlearn")
    if shutil.which("gcc") is None:
        pytest.skip("emlearn predicts with the C it writes")
    monkeypatch.chdir(tmp_path)  # where it compiles
    model = emlearn.convert(fitted.to_sklearn(), method="loadable")
    np.testing.assert_array_equal(model.predict(digits[0][:200]), fitted.predict(digits[0][:200]))
    assert "digits_predict" in model.save(name="digits", inference=["loadable"])


# Bad input


def test_missing_values_of_a_frame_are_named():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame({"age": [1.0, 2, np.nan], "sex": [0, 1, 1], "pay": [1.0, np.inf, 3]})
    with pytest.raises(ValueError, match=r"^Input X contains NaN\. Columns: 'age', 'pay'\.$"):
        PrunedMLPClassifier().fit(x, [0, 1, 1])
    classifier = PrunedMLPClassifier(sparsity=0, random_state=0).fit(x.fillna(0).clip(upper=9), [0, 1, 1])
    assert classifier.feature_names_in_.tolist() == ["age", "sex", "pay"]
    with pytest.raises(ValueError, match=r"^Input X contains NaN\. Columns: 'age', 'pay'\.$"):
        classifier.predict(x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_layer_sizes": (10, 0)}, "hidden_layer_sizes[1]: expected an integer of at least 1, got 0"),
        ({"hidden_layer_sizes": None}, "hidden_layer_sizes: expected an int or a sequence of int, got None"),
        ({"hidden_layer_sizes": 5.0}, "hidden_layer_sizes: expected an int or a sequence of int, got 5.0"),
        ({"hidden_layer_sizes": "100"}, "hidden_layer_sizes: expected an int or a sequence of int, got '100'"),
        ({"hidden_layer_sizes": (3, (4,))}, "hidden_layer_sizes[1]: expected an integer of at least 1, got (4,)"),
        ({"activation": "identity"}, "activation: expected one of 'logistic', 'relu', 'leaky_relu', 'tanh', 'sigmoid'"),
        ({"solver": "lbfgs"}, "solver: expected one of 'sgd', 'adam', got 'lbfgs'"),
        ({"sparsity": 1.0}, "sparsity: expected a number in [0, 1), got 1.0"),
        ({"schedule": [0.5, 2]}, "schedule[1]: expected a number in [0, 1), got 2"),
        ({"scope": "all"}, "scope: expected one of 'layer', 'global', got 'all'"),
        ({"layer_rates": "even"}, "layer_rates: expected one of"),
        ({"alpha": -1}, "alpha: expected a number in [0, inf), got -1"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"learning_rate": "adaptive"}, "learning_rate_schedule: expected one of"),
        ({"learning_rate_init": 0}, "learning_rate_init: expected a number in (0, inf), got 0"),
        ({"max_iter": 0}, "max_iter: expected an integer of at least 1, got 0"),
        ({"tol": -1}, "tol: expected a number in [0, inf), got -1"),
        ({"n_iter_no_change": 0}, "n_iter_no_change: expected an integer of at least 1, got 0"),
        ({"standardize": 1}, "standardize: expected True or False, got 1"),
        ({"validation_fraction": 1.0}, "validation_fraction: expected a number in (0, 1), got 1.0"),
        ({"n_jobs": 0}, "n_jobs: expected"),
    ],
)
@pytest.mark.parametrize("make", ESTIMATORS)
def test_bad_parameters(make, settings, message, digits):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make(**{"max_iter": 1} | settings).fit(digits[0][:50], digits[1][:50])


def test_bad_labels(digits):
    x, y = digits
    with pytest.raises(ValueError, match="y: expected at least two classes, got one class"):
        PrunedMLPClassifier().fit(x, np.zeros(len(x)))
    with pytest.raises(ValueError, match="y: expected one class per sample, or 0 or 1 for each label, got several"):
        PrunedMLPClassifier().fit(x, np.stack([y, y], axis=1))
    with pytest.raises(ValueError, match="classes: expected all labels that come"):
        PrunedMLPClassifier().partial_fit(x, y, classes=range(9))
    with pytest.raises(ValueError, match="y: expected the classes"):
        PrunedMLPClassifier().partial_fit(x, y).partial_fit(x, y + 1)
    with pytest.raises(ValueError, match="sample_weight: expected numbers of at least 0"):
        PrunedMLPClassifier().fit(x, y, sample_weight=-np.ones(len(x)))
    with pytest.warns(DataConversionWarning):
        PrunedMLPClassifier(max_iter=1).fit(x, y[:, np.newaxis])
    with pytest.raises(ValueError, match="y: expected 1 values per sample, as the network has, got 2"):
        PrunedMLPRegressor(max_iter=1).partial_fit(x, y).partial_fit(x, np.stack([y, y], axis=1))


@pytest.mark.parametrize("schedule", [np.array([0.3, 0.5]), np.array([])])
def test_a_schedule_in_an_array(schedule):
    x, y = load_breast_cancer(return_X_y=True)
    classifier = PrunedMLPClassifier(schedule=schedule, max_iter=2, random_state=0).fit(x, y)
    assert classifier.sparsity_ == pytest.approx(schedule[-1] if schedule.size else 0, abs=1e-3)


@pytest.mark.parametrize(
    ("sizes", "hidden"), [(7, [7]), (np.int64(7), [7]), (np.array([7, 5]), [7, 5]), ([7, 5], [7, 5]), ((), [])]
)
def test_sizes_of_hidden_layers(sizes, hidden, digits):
    classifier = PrunedMLPClassifier(sizes, sparsity=0, max_iter=1, random_state=0).fit(*digits)
    assert classifier.network_.sizes == [64, *hidden, 10]


def test_scikit_learn_goes_on_with_the_network_as_it_was_trained(digits):
    classifier = PrunedMLPClassifier(max_iter=3, random_state=0).fit(*digits).set_params(activation="tanh")
    other = classifier.to_sklearn()
    np.testing.assert_allclose(other.predict_proba(digits[0]), classifier.predict_proba(digits[0]), atol=1e-12)
    before = classifier.predict_proba(digits[0])
    assert (other.partial_fit(*digits).predict_proba(digits[0]) != before).any()
    np.testing.assert_array_equal(classifier.predict_proba(digits[0]), before)


def test_sparse_features_with_an_element_in_two_parts(digits):
    x = scipy.sparse.csr_array(digits[0])
    halves = scipy.sparse.csr_array((np.repeat(x.data / 2, 2), np.repeat(x.indices, 2), 2 * x.indptr), x.shape)
    whole, parts = (PrunedMLPClassifier(max_iter=2, random_state=0).fit(form, digits[1]) for form in (x, halves))
    np.testing.assert_array_equal(whole.predict_proba(x), parts.predict_proba(x))
    assert halves.nnz == 2 * x.nnz


def test_sparse_features_after_dense_ones(digits):
    x, y = digits
    classifier = PrunedMLPClassifier(max_iter=1, random_state=0).fit(x, y)
    with pytest.raises(ValueError, match="X: expected dense features, as those that gave the scales, got"):
        classifier.partial_fit(scipy.sparse.csr_array(x), y)


def test_missing_values_of_other_frames_are_named():
    pandas = pytest.importorskip("pandas")
    nullable = pandas.DataFrame({"a": pandas.array([1, None, 3], "Int64"), "b": [1.0, 2, 3]})
    sparse = pandas.DataFrame.sparse.from_spmatrix(
        scipy.sparse.csr_array([[0, 1.0], [np.nan, 2], [0, 3]]), columns=["a", "b"]
    )
    for x in (nullable, sparse):
        with pytest.raises(ValueError, match=r"^Input X contains NaN\. Columns: 'a'\.$"):
            PrunedMLPClassifier().fit(x, [0, 1, 1])


@pytest.mark.filterwarnings("ignore::fastprune.TrainingWarning")
def test_a_rare_class_is_held_out_in_proportion(monkeypatch):
    seen = []
    fit = fp.Trainer.fit

    def seeing(*data, **given):
        seen.append(given["validation"])
        return fit(*data, **given)

    monkeypatch.setattr(fp.Trainer, "fit", seeing)
    y = np.arange(200) % 20 == 0
    x = np.random.default_rng(0).standard_normal((200, 3))
    for seed in range(5):
        PrunedMLPClassifier(early_stopping=True, sparsity=0, max_iter=1, random_state=seed).fit(x, y)
    assert [held_out[1].sum() for held_out in seen] == [1] * 5


def test_verbose_may_be_a_number(digits, capsys):
    PrunedMLPClassifier(sparsity=0, max_iter=1, verbose=1).fit(*digits)
    assert "epoch 1/1" in capsys.readouterr().out


@pytest.mark.parametrize("warm", [False, True])
def test_a_failed_fit_changes_nothing(warm, digits):
    x, y = digits
    classifier = PrunedMLPClassifier(max_iter=2, random_state=0, warm_start=warm).fit(x, y)
    before = classifier.predict_proba(x)
    with pytest.raises(ValueError, match="scope: expected one of"):
        classifier.set_params(scope="all").fit(x if warm else x[:, :5], y if warm else y > 4)
    for kept in (classifier, pickle.loads(pickle.dumps(classifier))):
        np.testing.assert_array_equal(kept.predict_proba(x), before)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_failed_first_fit_leaves_nothing(method, digits):
    classifier = PrunedMLPClassifier(max_iter=1, n_jobs=0)
    with pytest.raises(ValueError, match="n_jobs: expected"):
        getattr(classifier, method)(*digits)
    for kept in (classifier, pickle.loads(pickle.dumps(classifier))):
        with pytest.raises(NotFittedError):
            kept.predict(digits[0])


@pytest.mark.parametrize("make", ESTIMATORS)
def test_before_it_is_fitted(make):
    for call in ("predict", "get_support", "to_sklearn"):
        with pytest.raises(NotFittedError):
            getattr(make(), call)(*[[[1.0]]] * (call == "predict"))
    for name in ("coefs_", "masks_", "sparsity_", "feature_importances_"):
        assert not hasattr(make(), name)
