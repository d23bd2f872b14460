"""Sensitivity scans: how much each layer can lose, and the pruning rates that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fastprune import check
from fastprune.evaluation import checked_samples, evaluate, loss_of
from fastprune.gradients import MeanGradient
from fastprune.kernels.layout import Floats
from fastprune.records import Evaluation
from fastprune.selection import Selector
from fastprune.team import Threads

if TYPE_CHECKING:
    from fastprune.trainer import Trainer

SCAN = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
_HALVINGS = 60  # bisection steps when searching for a tolerance; enough to reach rounding


@dataclass(frozen=True)
class Sensitivity:
    """Effect of pruning one layer alone, without retraining (Han et al. 2015, figure 6).

    Attributes
    ----------
    layers : tuple of int
        Layers that were pruned, each alone.
    layer_total_weights : tuple of int
        Number of weights of each layer of the network, live or pruned.
    layer_sparsity : tuple of float
        Sparsity of each layer of the network, which the scan does not change.
    sparsities : tuple of float
        Sparsities to which the layers were pruned, ascending.
    baseline : Evaluation
        Evaluation of the unchanged network.
    evaluations : tuple of tuple of Evaluation
        Evaluations for each of `layers`, at each of `sparsities`.
    """

    layers: tuple[int, ...]
    layer_total_weights: tuple[int, ...]
    layer_sparsity: tuple[float, ...]
    sparsities: tuple[float, ...]
    baseline: Evaluation
    evaluations: tuple[tuple[Evaluation, ...], ...]

    def recommend(self, sparsity: float) -> dict[int, float]:
        """Recommend a sparsity for each scanned layer such that each alone raises the loss by about the same amount.

        Parameters
        ----------
        sparsity : float
            Sparsity of all weights of the network, between its present one and the highest the scan can reach.

        Returns
        -------
        dict of int to float
            Sparsity of each scanned layer with live weights, for use in a schedule with rule "sparsity" and scope
            "layer".

        Raises
        ------
        ValueError
            If the sparsity is outside this range.

        Examples
        --------
        >>> import fastprune as fp
        >>> data = fp.load_dataset("digits")
        >>> trainer = fp.Trainer(fp.MLP([64, 32, 10]), batch_size=64)
        >>> _ = trainer.fit(data.x_train, data.y_train, epochs=10)
        >>> pruner = fp.Pruner(trainer)
        >>> rates = pruner.sensitivity(data.x_train, data.y_train).recommend(0.8)
        >>> round(rates[0], 1) > round(rates[1], 1)  # the output layer is more sensitive
        True
        >>> round(pruner.step(sparsity=rates).sparsity, 2)
        0.8
        """
        nothing = -1.0  # below any rise of the loss, so no layer loses anything
        now, most = self._total(self._rates(nothing)), self._total(self._rates(np.inf))
        # Round outwards, so that both ends are accepted.
        ends = f"[{math.floor(now * 1e9) / 1e9!r}, {math.ceil(most * 1e9) / 1e9!r}]"
        sparsity = min(max(now, check.number("sparsity", sparsity, ends)), most)
        low, high = nothing, max(float(curve[-1]) for curve in self._curves())
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._total(self._rates(middle)) < sparsity else (low, middle)
        # The rates jump where a curve is flat; interpolate within the jump.
        below, above = self._rates(low), self._rates(high)
        leap = self._total(above) - self._total(below)
        part = (sparsity - self._total(below)) / leap if leap > 0 else 1.0
        rates = zip(self.layers, (below + part * (above - below)).tolist(), strict=True)
        return {layer: rate for layer, rate in rates if self.layer_sparsity[layer] < 1}

    def _curves(self) -> list[Floats]:
        """Rise of the loss for each layer, made monotone."""
        rises = [np.array([e.loss for e in row]) - self.baseline.loss for row in self.evaluations]
        return [np.maximum.accumulate(np.maximum(rise, 0)) for rise in rises]

    def _rates(self, tolerance: float) -> Floats:
        """Highest sparsity of each layer at which the loss rises by at most `tolerance`."""
        rates = []
        for layer, curve in zip(self.layers, self._curves(), strict=True):
            now = self.layer_sparsity[layer]
            x, y = np.array([now, *np.maximum(self.sparsities, now)]), np.array([0.0, *curve])
            last = int(np.searchsorted(y, tolerance, side="right")) - 1  # the last point within the tolerance
            if last < 0 or last == y.size - 1:
                rates.append(x[last] if last >= 0 else now)
            else:
                part = (tolerance - y[last]) / (y[last + 1] - y[last])
                rates.append(x[last] + part * (x[last + 1] - x[last]))
        return np.array(rates)

    def _total(self, rates: Floats) -> float:
        """Sparsity of the network with these rates."""
        all_rates = np.array(self.layer_sparsity)
        all_rates[list(self.layers)] = rates
        return float(all_rates @ np.array(self.layer_total_weights) / sum(self.layer_total_weights))


def scan(trainer: Trainer, selector: Selector, x: ArrayLike, y: ArrayLike, sparsities: Sequence[float]) -> Sensitivity:
    """Prune each layer alone and evaluate; see `Pruner.sensitivity`."""
    if isinstance(sparsities, np.ndarray):
        sparsities = sparsities.tolist()
    if not isinstance(sparsities, Sequence) or isinstance(sparsities, str) or not len(sparsities):
        raise ValueError(f"sparsities: expected a sequence of at least one number, got {sparsities!r}")
    checked = [check.number(f"sparsities[{i}]", sparsity, "[0, 1)") for i, sparsity in enumerate(sparsities)]
    if sorted(set(checked)) != checked:
        raise ValueError(f"sparsities: expected ascending numbers, got {sparsities!r}")
    network, state = trainer.network, trainer.network.state
    loss = loss_of(network, y)
    samples = checked_samples(network, ("x", "y"), (x, y), loss)
    # The curves show the effect of the rates alone, without min_keep and growers.
    selector = replace(selector, min_keep=0, grower=None)
    evaluations = []
    with Threads(trainer.n_jobs) as threads:
        baseline = evaluate(state, samples, loss, threads)
        if not math.isfinite(baseline.loss):
            raise ValueError(f"network: the loss is {baseline.loss} before pruning; there is nothing to compare with")
        for layer in selector.layers:
            pruned, row = state, []
            for sparsity in checked:
                gradient = MeanGradient(pruned, "x", samples, loss, trainer.n_jobs)
                pruned = selector.select(pruned, "sparsity", {layer: sparsity}, gradient).apply(pruned)
                row.append(evaluate(pruned, samples, loss, threads))
            evaluations.append(tuple(row))
    return Sensitivity(
        layers=tuple(selector.layers),
        layer_total_weights=tuple(network.layer_total_weights),
        layer_sparsity=tuple(network.layer_sparsity),
        sparsities=tuple(checked),
        baseline=baseline,
        evaluations=tuple(evaluations),
    )
