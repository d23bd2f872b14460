"""The type that every loader returns."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastprune.kernels.layout import Floats
from fastprune.kernels.random import shuffle


@dataclass(frozen=True)
class Dataset:
    """Training and test samples with their labels.

    Attributes
    ----------
    name : str
        Name of the data set or file.
    x_train, x_test : ndarray of float32 (N, F)
        Samples.
    y_train, y_test : ndarray (N,)
        Labels: int64 classes from 0, or float32 values. Labels from a file may also have shape (N, K).
    """

    name: str
    x_train: Floats = field(repr=False)
    y_train: npt.NDArray[Any] = field(repr=False)
    x_test: Floats = field(repr=False)
    y_test: npt.NDArray[Any] = field(repr=False)

    @classmethod
    def split(cls, name: str, x: Floats, y: npt.NDArray[Any]) -> Self:
        """Split off a fifth of each class as the test set: chosen at random, but always the same samples."""
        order = np.empty(len(x), np.int64)
        shuffle(order, np.uint64(0))
        by_class = order[np.argsort(y.reshape(len(y), -1)[order, 0], kind="stable")]
        test = np.isin(np.arange(len(x)), by_class[::5])
        return cls(name, x[~test], y[~test], x[test], y[test])

    @property
    def features(self) -> int:
        """Number of input features F."""
        return int(self.x_train.shape[1])

    @property
    def outputs(self) -> int:
        """Outputs a network needs for the labels: 1 for two classes or one value, else one per class or value."""
        if self.y_train.ndim == 2:
            return int(self.y_train.shape[1])
        if self.y_train.dtype.kind == "f":
            return 1
        classes = int(max(self.y_train.max(), self.y_test.max())) + 1
        return classes if classes > 2 else 1
