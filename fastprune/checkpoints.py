"""Bookkeeping of a fit: the states it can go back to, and whether it has converged."""

import math

from fastprune.kernels.tile import all_finite
from fastprune.records import Evaluation
from fastprune.state import State


class Checkpoints:
    """The last and the best state of a fit, with their evaluations."""

    def __init__(self, state: State, evaluation: Evaluation) -> None:
        self.last = self.best = state
        self.last_evaluation = self.best_evaluation = evaluation

    def add(self, state: State, evaluation: Evaluation) -> None:
        """Add a later state."""
        self.last, self.last_evaluation = state, evaluation
        if not self.best_evaluation.loss <= evaluation.loss:
            self.best, self.best_evaluation = self.last, evaluation


class Convergence:
    """`reached` once the loss has not fallen by more than `tolerance` for `patience` epochs."""

    def __init__(self, tolerance: float | None, patience: int) -> None:
        self._tolerance, self._patience = tolerance, patience
        self._target, self._stale = math.inf, 0
        self.reached = False

    def add(self, loss: float) -> None:
        """Add the loss of one more epoch."""
        improved = loss < self._target - (self._tolerance or 0.0)
        self._target, self._stale = (loss, 0) if improved else (self._target, self._stale + 1)
        self.reached = self.reached or (self._tolerance is not None and self._stale >= self._patience)


def fault_of(state: State, evaluation: Evaluation) -> tuple[str, str] | None:
    """Return what is not finite and its value, or None. A weight can be infinite while the loss is finite."""
    if not math.isfinite(evaluation.loss):
        return "the loss", str(evaluation.loss)
    if not all(all_finite(vector) for vector in state.vectors):
        return "a weight or its optimizer state", "infinite or NaN"
    return None
