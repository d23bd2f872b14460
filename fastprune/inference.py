"""From samples to predictions: what the network and its frozen form share."""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.blas import one_blas_thread
from fastprune.kernels.layout import Floats, Ints, Layout, Team, Workspace
from fastprune.kernels.steps import forward_samples
from fastprune.kernels.tile import LANES, STEP, all_finite
from fastprune.storage import aligned_empty
from fastprune.team import Threads


def workspace(order: Ints, tiles: int, layout: Layout, dtype: np.dtype[Any], training: bool) -> Workspace:
    """Scratch memory for batches of so many tiles; without room for gradients, if it is not for training."""
    rows = int(layout.rows[-1]) * LANES
    offsets = np.empty((tiles, LANES // STEP, 2 * STEP), np.int64)
    inputs = aligned_empty((tiles, int(layout.sizes[0]) * LANES), dtype)
    activations, deltas = (aligned_empty((count, rows), dtype) for count in (tiles, tiles if training else 0))
    keep = np.ones(layout.sizes.size)
    return Workspace(order, offsets, keep, inputs, activations, deltas, np.empty(tiles), np.empty(tiles, np.int64))


def forward(x: Floats, values: Floats, layout: Layout, threads: Threads) -> Floats:
    """The logits of checked samples, (N, K), by so many threads."""
    out = np.empty((len(x), layout.sizes[-1]), values.dtype)
    order = np.arange(len(x))

    def run(team: Team) -> None:
        forward_samples(out, workspace(order, 1, layout, values.dtype, training=False), x, values, layout, team)

    with one_blas_thread() if layout.sparse.min() == 0 else nullcontext():  # which takes as long as a small network
        threads.run(run)
    return out


class Predictor(ABC):
    """Predictions from logits."""

    sizes: list[int]
    dtype: np.dtype[Any]
    loss: str | None

    def logits(self, x: npt.ArrayLike) -> Floats:
        """The output layer's values before softmax or sigmoid.

        Parameters
        ----------
        x : array_like (N, F)
            Samples.

        Returns
        -------
        ndarray (N, K) of the network's dtype

        Raises
        ------
        ValueError
            If `x` has another shape, is empty, or holds NaN or infinity, or is so large that the outputs overflow.

        Examples
        --------
        >>> import fastprune as fp
        >>> fp.MLP([2, 3]).logits([[0.0, 0.0]])  # the biases
        array([[0., 0., 0.]], dtype=float32)
        """
        logits = self._logits(check.samples("x", x, self.sizes[0], self.dtype))
        if not all_finite(logits.reshape(-1)):  # any class would do: argmax takes NaN for the largest
            raise ValueError(f"x: expected numbers for which the outputs fit {self.dtype}, got an overflow")
        return logits

    def predict_proba(self, x: npt.ArrayLike) -> Floats:
        """Probabilities of the classes.

        Parameters
        ----------
        x : array_like (N, F)
            Samples.

        Returns
        -------
        ndarray
            (N, K) for softmax, rows summing to 1, and for K > 1 independent sigmoid outputs; (N, 2) for a single
            sigmoid output: the probabilities of 0 and of 1.

        Raises
        ------
        ValueError
            For a bad `x`, for a regression, and before the loss is known.

        Examples
        --------
        >>> import fastprune as fp
        >>> fp.MLP([2, 4], loss="softmax_cross_entropy").predict_proba([[0.0, 0.0]])
        array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
        """
        if self._known_loss() == "mean_squared_error":
            raise ValueError("predict_proba: expected a classification, got a network trained on mean_squared_error")
        logits = self.logits(x)
        if self.loss == "softmax_cross_entropy":
            with np.errstate(over="ignore"):  # exp(-inf) is 0
                exponentials: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
            exponentials /= exponentials.sum(axis=1, keepdims=True)
            return exponentials
        small = np.exp(-abs(logits))
        positive: Floats = np.where(logits > 0, 1, small) / (1 + small)
        return np.hstack([1 - positive, positive]) if self.sizes[-1] == 1 else positive

    def predict(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        """Predicted classes or values.

        Parameters
        ----------
        x : array_like (N, F)
            Samples.

        Returns
        -------
        ndarray
            Classification: int64 classes (N,); 0 or 1, (N, K), for K > 1 sigmoid outputs. Regression: values (N, K),
            or (N,) for one output.

        Raises
        ------
        ValueError
            For a bad `x`, and before the loss is known.

        Examples
        --------
        >>> import fastprune as fp
        >>> network = fp.MLP([2, 2], loss="softmax_cross_entropy", seed=1)
        >>> network.predict([[1.0, 0.0], [0.0, 1.0]]).shape
        (2,)
        """
        loss = self._known_loss()
        result: npt.NDArray[Any] = self.logits(x)
        if loss == "softmax_cross_entropy":
            result = result.argmax(axis=1)
        elif loss == "sigmoid_cross_entropy":
            result = (result > 0).astype(np.int64)
        return result[:, 0] if result.ndim == 2 and result.shape[1] == 1 else result

    def _known_loss(self) -> str:
        if self.loss is None:
            raise ValueError("network: expected a trained network or MLP(..., loss=...), got one that has no loss yet")
        return self.loss

    @abstractmethod
    def _logits(self, x: Floats) -> Floats:
        """The logits of checked samples."""
