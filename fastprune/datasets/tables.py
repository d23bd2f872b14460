"""Tables that come with scikit-learn."""

from dataclasses import replace

import numpy as np

from fastprune.datasets.dataset import Dataset

TABLES = {"breast_cancer": "load_breast_cancer", "wine": "load_wine"}


def load_table(name: str) -> Dataset:
    """Load one of `TABLES`, split it, and standardize it by the training samples."""
    try:
        import sklearn.datasets
    except ImportError:
        raise ValueError(f'name: {name!r} needs an extra: pip install "fastprune[datasets]"') from None
    x, y = getattr(sklearn.datasets, TABLES[name])(return_X_y=True)
    data = Dataset.split(name, x, y.astype(np.int64))
    mean, deviation = data.x_train.mean(axis=0), data.x_train.std(axis=0)
    scaled = {part: ((getattr(data, part) - mean) / deviation).astype(np.float32) for part in ("x_train", "x_test")}
    return replace(data, **scaled)
