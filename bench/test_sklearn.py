"""Do the estimators cost time? Fits of as many epochs as scikit-learn's MLPClassifier, and predictions when pruned."""

import warnings

import numpy as np
import pytest
from harness import compare, mnist
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from fastprune.blas import one_blas_thread
from fastprune.sklearn import PrunedMLPClassifier


@pytest.mark.parametrize("name", ["digits", "MNIST"])
def test_fit(benchmark, name):
    x, y = load_digits(return_X_y=True) if name == "digits" else mnist(20_000)
    epochs = 50 if name == "digits" else 5
    estimators = {
        "scikit-learn, MLPClassifier": MLPClassifier(max_iter=epochs, tol=0, n_iter_no_change=epochs, random_state=0),
        "fastprune, scaled inside": PrunedMLPClassifier(sparsity=0, max_iter=epochs, tol=None, random_state=0),
    }
    plain = PrunedMLPClassifier(sparsity=0, max_iter=epochs, tol=None, standardize=False, random_state=0)
    x = x / x.max()
    with one_blas_thread(), warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        scores = [estimator.fit(x, y).score(x, y) for estimator in (plain, *estimators.values())]
        assert min(scores) > 0.95
        assert {estimator.n_iter_ for estimator in (plain, *estimators.values())} == {epochs}
        compare(
            benchmark,
            "fit of an estimator",
            f"{name}, {len(x):,} samples, {epochs} epochs, {x.dtype}",
            lambda: plain.fit(x, y),
            {label: lambda estimator=estimator: estimator.fit(x, y) for label, estimator in estimators.items()},
        )


@pytest.mark.parametrize("samples", [1, 10_000])
@pytest.mark.parametrize("hidden", [(100,), (300, 100)])
def test_predict(benchmark, samples, hidden):
    x, y = mnist(20_000)
    pruned = PrunedMLPClassifier(hidden, max_iter=10, standardize=False, random_state=0).fit(x, y)
    peer = pruned.to_sklearn()
    x, repeats = x[:samples].copy(), 200 if samples == 1 else 1
    np.testing.assert_allclose(peer.predict_proba(x), pruned.predict_proba(x), rtol=1e-3, atol=1e-5)
    with one_blas_thread():
        compare(
            benchmark,
            "prediction of an estimator",
            f"MNIST, 784-{'-'.join(map(str, hidden))}-10, 90 % pruned, {samples:,} samples",
            lambda: [pruned.predict(x) for _ in range(repeats)],
            {"scikit-learn, MLPClassifier": lambda: [peer.predict(x) for _ in range(repeats)]},
            repeats=repeats,
        )
