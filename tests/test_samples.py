"""Samples that are not plain arrays of equal worth: weighted ones, and features in SciPy's sparse formats."""

import re
import tracemalloc

import numpy as np
import pytest
import scipy.sparse

import fastprune as fp

LOSSES = ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"]


def labelled(loss, count=40, features=6, seed=0):
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((count, features)) < 0.4, rng.standard_normal((count, features)), 0)
    labels = {
        "softmax_cross_entropy": rng.integers(3, size=count),
        "sigmoid_cross_entropy": rng.integers(2, size=(count, 3)),
        "mean_squared_error": rng.standard_normal((count, 3)),
    }
    return x, labels[loss]


def made(loss, execution="auto", dtype="float64", **settings):
    network = fp.MLP([6, 8, 3], loss=loss, dtype=dtype, execution=execution, seed=2)
    return fp.Trainer(network, **{"learning_rate": 0.05, "batch_size": None, **settings})


def vectors(trainer):
    return trainer.snapshot().vectors


# Weights


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_weight_is_a_number_of_copies(loss, optimizer):
    x, y = labelled(loss)
    copies = np.random.default_rng(1).integers(0, 4, len(x))
    ends = []
    for data, weights in [((x, y), copies), ((x.repeat(copies, axis=0), y.repeat(copies, axis=0)), None)]:
        trainer = made(loss, optimizer=optimizer, l2=0.01)
        history = trainer.fit(*data, 20, sample_weight=weights)
        pruner = fp.Pruner(trainer, schedule=[0.5], criterion="gradient")
        (record,) = pruner.run(*data, 20, sample_weight=weights)
        evaluation = trainer.evaluate(*data, sample_weight=weights)
        gradient = trainer.gradient(*data, sample_weight=weights)
        losses = [history.train.loss, *(epoch.loss for epoch in history.epochs), record.after.train.loss]
        ends.append([*trainer.network.weights, *gradient.weights, *gradient.biases, [*losses, evaluation.loss]])
    for weighted, copied in zip(*ends, strict=True):
        np.testing.assert_allclose(weighted, copied, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch_size", [None, 7])
def test_only_ratios_of_weights_count(loss, batch_size):
    x, y = labelled(loss)
    weights = np.random.default_rng(1).random(len(x))
    ends = []
    for given in [weights, 4 * weights, weights.tolist(), None, np.full(len(x), 2), np.ones(len(x), np.float32)]:
        trainer = made(loss, batch_size=batch_size)
        trainer.fit(x, y, 3, sample_weight=given)
        ends.append(vectors(trainer)[0])
    for same in (ends[1], ends[2]):
        np.testing.assert_array_equal(same, ends[0])
    for same in ends[4:]:
        np.testing.assert_array_equal(same, ends[3])
    assert (ends[0] != ends[3]).any()


def test_a_collapse_is_told_by_the_weighted_labels():
    """All weight on one class: a constant answer has learned all there is."""
    x, y = np.zeros((8, 2)), np.array([0, 1] * 4)
    trainer = fp.Trainer(fp.MLP([2, 2], loss="softmax_cross_entropy"))
    assert trainer.evaluate(x, y).collapsed
    trainer.network.set_weights([np.zeros((2, 2))], [[0.0, np.log(3)]])
    assert trainer.evaluate(x, y, sample_weight=[1, 3] * 4).collapsed  # its answer has the weights' frequencies
    trainer.network.set_weights([np.zeros((2, 2))], [[0.0, 20.0]])
    assert not trainer.evaluate(x, y, sample_weight=[0, 1] * 4).collapsed


@pytest.mark.parametrize(
    ("weights", "came"),
    [
        ([1.0] * 39, "got shape (39,)"),
        ([[1.0]] * 40, "got shape (40, 1)"),
        ([-1.0] + [1.0] * 39, "got values from -1 to 1"),
        ([0.0] * 40, "got values from 0 to 0"),
        ([np.nan] + [1.0] * 39, "got NaN or infinity"),
        (["a"] * 40, "got text"),
    ],
)
def test_bad_weights(weights, came):
    trainer = made("softmax_cross_entropy")
    x, y = labelled("softmax_cross_entropy")
    message = f"sample_weight: expected numbers of at least 0 of shape (40,), not all of them zero, {came}"
    for call in (
        lambda: trainer.fit(x, y, 1, sample_weight=weights),
        lambda: trainer.evaluate(x, y, sample_weight=weights),
        lambda: trainer.gradient(x, y, sample_weight=weights),
        lambda: fp.Pruner(trainer, schedule=[0.5]).run(x, y, 1, sample_weight=weights),
    ):
        before = vectors(trainer)[0]
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()
        np.testing.assert_array_equal(vectors(trainer)[0], before)


# Sparse features


def with_duplicates(x):
    """The same numbers, some in two halves, in columns that do not ascend."""
    rows, columns = np.nonzero(x)
    parts = x[rows, columns] / 2
    order = np.random.default_rng(0).permutation(2 * len(rows))
    coo = ((np.tile(parts, 2)[order]), (np.tile(rows, 2)[order], np.tile(columns, 2)[order]))
    csr = scipy.sparse.csr_array(scipy.sparse.coo_array(coo, x.shape))
    apart = scipy.sparse.csr_array((np.repeat(csr.data / 2, 2), np.repeat(csr.indices, 2), 2 * csr.indptr), x.shape)
    assert not apart.has_canonical_format
    return apart


FORMATS = [
    scipy.sparse.csr_array,
    scipy.sparse.csc_array,
    scipy.sparse.coo_array,
    scipy.sparse.csr_matrix,
    scipy.sparse.lil_array,
    with_duplicates,
]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("execution", ["dense", "sparse"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sparse_features_give_the_same_bits(form, execution, dtype):
    x, y = labelled("softmax_cross_entropy", 90)
    x = x.astype(dtype)
    ends = []
    for features in (x, form(x)):
        kept = features.copy()
        trainer = made("softmax_cross_entropy", execution, dtype, batch_size=17, input_dropout=0.2, dropout=0.1)
        history = trainer.fit(
            features, y, 3, validation=(features[:20] if form is not scipy.sparse.coo_array else x[:20], y[:20])
        )
        fp.Pruner(trainer, schedule=[0.4, 0.7]).run(features, y, 2, test=(features, y))
        network, frozen = trainer.network, trainer.network.freeze()
        found = [vectors(trainer)[0], network.logits(features), frozen.logits(features), frozen.predict_proba(features)]
        ends.append([*found, trainer.gradient(features, y).weights[0], history.train.loss])
        assert type(kept) is type(features)
        assert (kept != features).sum() == 0
    for sparse, dense in zip(*ends, strict=True):
        np.testing.assert_array_equal(sparse, dense)


def test_a_batch_of_all_samples_and_a_single_sample():
    x, y = labelled("softmax_cross_entropy", 90)
    ends = []
    for form in (np.asarray, scipy.sparse.csr_array):
        trainer = made("softmax_cross_entropy")
        trainer.fit(form(x), y, 5)
        frozen = trainer.network.freeze()
        ends.append([vectors(trainer)[0], trainer.network.logits(form(x[:1])), frozen.logits(form(x[:1]))])
    for sparse, dense in zip(*ends, strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=1e-12)


def test_sparse_features_are_never_made_dense():
    x = scipy.sparse.random_array((20_000, 10_000), density=1e-3, rng=np.random.default_rng(0), format="csr")
    y = np.arange(20_000) % 3
    network = fp.MLP([10_000, 30, 3], density=0.01)
    trainer = fp.Trainer(network)
    tracemalloc.start()
    try:
        trainer.fit(x, y, 1)
        network.predict(x)
        assert tracemalloc.get_traced_memory()[1] < 60e6  # 1.6 GB if dense
    finally:
        tracemalloc.stop()


EXPECTED = "x: expected finite numbers of shape (N, 6)"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (scipy.sparse.csr_array((5, 7)), f"{EXPECTED}, got shape (5, 7)"),
        (scipy.sparse.csr_array((0, 6)), "x: expected at least one sample, got none"),
        (
            scipy.sparse.csr_array([[np.nan] + [0] * 5]),
            f"{EXPECTED}, got NaN or infinity",
        ),
        (
            scipy.sparse.csr_array([[1e300] + [0] * 5]),
            f"{EXPECTED}, got NaN or infinity",
        ),
        (scipy.sparse.csr_array([[1j] + [0] * 5]), f"{EXPECTED}, got dtype complex128"),
    ],
)
def test_bad_sparse_features(x, message):
    trainer = made("softmax_cross_entropy", dtype="float32")
    for call in (lambda: trainer.fit(x, np.zeros(x.shape[0]), 1), lambda: trainer.network.predict(x)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()


def test_scales_of_sparse_features():
    x, y = labelled("softmax_cross_entropy")
    for factor, warning in [(100, "root mean square up to"), (1e-4, "at most"), (1, None)]:
        messages = []
        for form in (np.asarray, scipy.sparse.csr_array):
            trainer = made("softmax_cross_entropy", learning_rate=1e-9)
            if warning is None:
                trainer.fit(form(factor * x), y, 1)
                continue
            with pytest.warns(fp.TrainingWarning, match=warning) as caught:
                trainer.fit(form(factor * x), y, 1)
            messages.append(str(caught[0].message))
        assert len(set(messages)) <= 1
