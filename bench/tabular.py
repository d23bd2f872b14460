"""How good is a pruned network on tables? Six data sets, nested cross-validation, against scikit-learn's estimators.

python bench/tabular.py            # some 20 minutes; writes the table into docs/sklearn.md

Each outer fold is predicted by an estimator whose settings an inner cross-validation chose on the other folds. No
setting and no row was chosen by test data.
"""

import pickle
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_classification,
)
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastprune.sklearn import PrunedMLPClassifier, PrunedMLPRegressor

PAGE = Path(__file__).parent.parent / "docs" / "sklearn.md"
BEGIN, END = "<!-- tabular: python bench/tabular.py -->\n", "<!-- end of tabular -->"
SPARSITIES = 0, 0.9, 0.97


def noisy(samples, features, informative, weights=None):
    return make_classification(
        samples,
        features,
        n_informative=informative,
        n_redundant=0,
        n_clusters_per_class=4,
        weights=weights,
        flip_y=0.02,
        random_state=0,
    )


# Name, samples, outer folds, score.
SETS = {
    "breast cancer": (load_breast_cancer(return_X_y=True), 5, "accuracy"),
    "wine": (load_wine(return_X_y=True), 5, "accuracy"),
    "digits": (load_digits(return_X_y=True), 5, "accuracy"),
    "diabetes": (load_diabetes(return_X_y=True), 5, "r2"),
    "synthetic, 20,000 x 100, 10 of them informative": (noisy(20_000, 100, 10), 3, "accuracy"),
    "imbalanced, 5,000 x 30, 3 % positive": (noisy(5_000, 30, 8, [0.97]), 5, "average_precision"),
}


def estimators(score):
    """The estimators and what each may choose from."""
    regression = score == "r2"
    pruned, peer = (PrunedMLPRegressor, MLPRegressor) if regression else (PrunedMLPClassifier, MLPClassifier)
    trees = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    alphas = [1e-4, 1.0]
    found = {
        f"fastprune, {sparsity:.0%} pruned": (pruned(sparsity=sparsity, random_state=0), {"alpha": alphas})
        for sparsity in SPARSITIES
    }
    found[peer.__name__] = (
        make_pipeline(StandardScaler(), peer(random_state=0)),
        {f"{peer.__name__.lower()}__alpha": alphas},
    )
    line, grid = (
        (Ridge(), {"ridge__alpha": [0.1, 1.0, 10.0]})
        if regression
        else (
            LogisticRegression(max_iter=5_000),
            {"logisticregression__C": [0.01, 0.1, 1.0]},
        )
    )
    found[type(line).__name__] = (make_pipeline(StandardScaler(), line), grid)
    found[trees.__name__] = (trees(random_state=0), {"learning_rate": [0.03, 0.1]})
    return found


def measured(estimator, grid, data, folds, score):
    """Scores, and medians of seconds to fit, microseconds a sample to predict, and bytes."""
    x, y = data
    split = KFold if score == "r2" else StratifiedKFold
    scores, seconds, micros, sizes = [], [], [], []
    for train, test in split(folds, shuffle=True, random_state=0).split(x, y):
        search = GridSearchCV(estimator, grid, scoring=score, cv=split(3, shuffle=True, random_state=1))
        search.fit(x[train], y[train])
        scores.append(search.score(x[test], y[test]))
        seconds.append(search.refit_time_)
        best = search.best_estimator_
        best.predict(x[test])
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            best.predict(x[test])
            times.append((time.perf_counter() - begun) / len(test))
        micros.append(1e6 * statistics.median(times))
        sizes.append(len(pickle.dumps(best)))
    return scores, statistics.median(seconds), statistics.median(micros), statistics.median(sizes)


def main(names):
    lines = []
    for name, (data, folds, score) in SETS.items():
        if names and name.split(",")[0] not in names:
            continue
        lines += [
            f"**{name}** ({score}, {folds} folds)",
            "",
            "| | score | fit | predict | size |",
            "| --- | --- | --- | --- | --- |",
        ]
        for label, (estimator, grid) in estimators(score).items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scikit-learn's, that 200 epochs are few
                scores, seconds, micros, size = measured(estimator, grid, data, folds, score)
            lines.append(
                f"| {label} | {np.mean(scores):.3f} ± {np.std(scores):.3f} | {seconds:.2g} s | {micros:.3g} µs "
                f"| {size / 1000:,.0f} KB |"
            )
            print(name, lines[-1], flush=True)
        lines.append("")
    if not names:
        text = PAGE.read_text()
        begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        PAGE.write_text(text[:begin] + "\n" + "\n".join(lines) + text[end:])


if __name__ == "__main__":
    main(sys.argv[1:])
