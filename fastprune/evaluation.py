"""How a network does on checked samples, and whether it has collapsed."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune.inference import forward
from fastprune.kernels.layout import Floats, Samples
from fastprune.kernels.loss import loss_and_gradient
from fastprune.kernels.tile import LANES
from fastprune.network import LOSSES
from fastprune.state import State
from fastprune.team import Threads

_LOGITS = 2**18  # that are evaluated together

_COLLAPSE = 0.99  # of what there is to learn from the labels


@dataclass(frozen=True)
class Evaluation:
    """How a network does on a set of samples.

    Attributes
    ----------
    loss : float
        Mean over the samples, without penalties.
    accuracy : float or None
        Fraction of samples that are right, in [0, 1] (in every output, where there are several sigmoid outputs);
        None for a regression.
    collapsed : bool
        Whether the network has learned nothing: it has `one_answer` although labels differ, and its loss is at least
        99 % of the labels' entropy, which is the best that one answer can reach. For labels between 0 and 1, both are
        measured above the loss that no network can beat.
    one_answer : bool
        Whether the network predicts one and the same class, or set of classes, for all samples; False for a regression.
    """

    loss: float
    accuracy: float | None
    collapsed: bool
    one_answer: bool


class TrainingSet(NamedTuple):
    """Checked training samples, and those that are looked at between steps: all, or as many as tell states apart."""

    samples: Samples
    watched: Samples


def evaluate(state: State, samples: Samples, loss: str, threads: Threads) -> Evaluation:
    """Evaluate a state on checked samples."""
    count, values, layout = len(samples.x), state.values, state.storage.layout
    order = np.arange(count)
    total, right = 0.0, 0
    predicted = []
    # In parts: with many outputs, all logits would take more memory than a pruned network.
    size = max(LANES, _LOGITS // int(layout.sizes[-1]) // LANES * LANES)
    for start in range(0, count, size):
        stop = min(start + size, count)
        logits = forward(samples.x[start:stop], values, layout, threads)
        out = np.ascontiguousarray(logits.T)
        part = loss_and_gradient(np.empty_like(out), out, samples, order, start, stop, 1.0, LOSSES[loss])
        total, right = total + part[0], right + part[1]
        if loss != "mean_squared_error":
            predicted.append(logits.argmax(axis=1) if loss == "softmax_cross_entropy" else logits > 0)
    mean = total / count
    if loss == "mean_squared_error":
        return Evaluation(mean, None, collapsed=False, one_answer=False)
    first = predicted[0][0]
    one_answer = all(bool((part == first).all()) for part in predicted)
    collapsed = one_answer and labels_differ(samples) and _has_learned_nothing(mean, samples, loss)
    return Evaluation(mean, right / count, collapsed, one_answer)


def evaluate_training(
    state: State, data: TrainingSet, loss: str, threads: Threads, known: Evaluation | None = None
) -> Evaluation:
    """Evaluate a state on the watched samples; decide `collapsed` and `one_answer` on all of them.

    A rare class may not be among the watched ones. `known` is their evaluation, if it has been made.
    """
    evaluation = known or evaluate(state, data.watched, loss, threads)
    if evaluation.one_answer and data.watched is not data.samples:
        whole = evaluate(state, data.samples, loss, threads)
        evaluation = replace(evaluation, collapsed=whole.collapsed, one_answer=whole.one_answer)
    return evaluation


def labels_differ(samples: Samples) -> bool:
    """Whether no single answer can be right for all samples."""
    labels = samples.labels if samples.labels.size else samples.targets
    return bool((labels != labels[0]).any())


def _has_learned_nothing(mean: float, samples: Samples, loss: str) -> bool:
    """Whether the loss is no lower than one answer for all samples could have it."""
    if loss == "softmax_cross_entropy":
        frequencies = np.bincount(samples.labels) / len(samples.labels)
        return mean >= _COLLAPSE * float(_entropy(frequencies).sum())
    yes = samples.targets.mean(axis=0, dtype=np.float64)
    entropy = float((_entropy(yes) + _entropy(1 - yes)).mean())
    targets = samples.targets.astype(np.float64)
    least = float((_entropy(targets) + _entropy(1 - targets)).mean())  # 0, unless labels lie between 0 and 1
    return mean - least >= _COLLAPSE * (entropy - least)


def _entropy(frequencies: npt.NDArray[Any]) -> Floats:
    from scipy.special import entr  # here, because importing it takes as long as importing all of fastprune

    return entr(frequencies)  # type: ignore[no-any-return]
