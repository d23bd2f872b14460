"""The type that every loader returns."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastprune.kernels.layout import Floats


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
        order = _shuffled(len(x))
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


def _shuffled(count: int) -> npt.NDArray[np.int64]:
    """Return what `kernels.shuffle` fills in for the key 0.

    For the samples of digits, importing Numba and loading the kernel would take 500 times as long as this.
    """
    places = np.arange(1, count + 1, dtype=np.uint64)
    bits = places * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    drawn = ((bits ^ (bits >> np.uint64(31))) >> np.uint64(32)) * places >> np.uint64(32)
    order, others = list(range(count)), drawn.tolist()
    for i in range(count - 1, 0, -1):
        j = others[i]
        order[i], order[j] = order[j], order[i]
    return np.array(order, np.int64)
