"""Checked samples, and evaluation on them: loss, accuracy, and whether the network has collapsed."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune import check, kernels
from fastprune.inference import features_of, forward, rows_of
from fastprune.kernels.constants import LANES, WATCH
from fastprune.kernels.layout import Floats, Samples
from fastprune.network import LOSSES, MLP
from fastprune.records import Evaluation
from fastprune.state import State
from fastprune.team import Threads

LabelledSet = tuple[npt.ArrayLike, npt.ArrayLike]
"""Samples and their labels."""

# Number of logits evaluated together. On an AMD EPYC, 16,000 samples of 1,000 outputs at once take 2.2 to 2.4 times as
# long as in parts of this size, and 192 MB instead of 4; with 10 outputs, parts of 2**12 take 1.1 to 1.2 times as long.
_LOGITS = 2**18

_COLLAPSE = 0.99  # fraction of the entropy that can be learned from the labels

_WATCHED = 2048  # samples to compare states by: 2 % of the time of an MNIST epoch; all samples would take a third


class TrainingSet(NamedTuple):
    """Checked training samples, and at most 2,048 of them, enough to compare states between steps."""

    samples: Samples
    watched: Samples


def loss_of(network: MLP, y: npt.ArrayLike, named: str | None = None) -> str:
    """Return the loss to train with: the network's, else `named`, else the one inferred from the labels."""
    known = network.loss
    if named is not None and check.one_of("loss", named, LOSSES) != (known or named):
        raise ValueError(f"loss: expected the network's loss {known!r}, got {named!r}")
    return known or named or check.infer_loss("y", y, network.sizes[-1])


def checked_samples(
    network: MLP,
    name: str | tuple[str, str],
    pair: LabelledSet,
    loss: str,
    sample_weight: npt.ArrayLike | None = None,
) -> Samples:
    """Validate (x, y) for this loss; error messages use `name` for the pair or, if a tuple, for its two parts."""
    x_name, y_name = name if isinstance(name, tuple) else (f"{name}[0]", f"{name}[1]")
    x, y = check.pair(name if isinstance(name, str) else name[0], pair)
    x = check.samples(x_name, x, network.sizes[0], network.dtype)
    labels, targets = check.labels(y_name, y, x.shape[0], network.sizes[-1], loss, network.dtype)
    return Samples(features_of(x), labels, targets, check.sample_weight("sample_weight", sample_weight, x.shape[0]))


def training_set(
    network: MLP, x: npt.ArrayLike, y: npt.ArrayLike, loss: str, seed: int, sample_weight: npt.ArrayLike | None = None
) -> TrainingSet:
    """Check x, y and their weights; `seed` selects the watched samples."""
    samples = checked_samples(network, ("x", "y"), (x, y), loss, sample_weight)
    count = samples.weights.size
    if count <= _WATCHED:
        return TrainingSet(samples, samples)
    order = np.empty(count, np.int64)
    # Compiled code returns a Python integer; without np.uint64, its size would decide the type in the next call.
    kernels.shuffle(order, np.uint64(kernels.derive(np.uint64(seed), WATCH)))
    return TrainingSet(samples, part_of(samples, np.sort(order[:_WATCHED])))


def part_of(samples: Samples, index: npt.NDArray[np.int64] | slice) -> Samples:
    """Return a subset of the samples."""
    features, *others = samples
    return Samples(rows_of(features, index), *(array[index] if array.size else array for array in others))


def evaluate(state: State, samples: Samples, loss: str, threads: Threads) -> Evaluation:
    """Evaluate a state on checked samples."""
    count, values, layout = samples.weights.size, state.values, state.storage.layout
    order = np.arange(count)
    total, right = 0.0, 0
    predicted = []
    # Evaluate in parts: with many outputs, all logits would take more memory than a pruned network.
    size = max(LANES, _LOGITS // int(layout.sizes[-1]) // LANES * LANES)
    for start in range(0, count, size):
        stop = min(start + size, count)
        logits = forward(rows_of(samples.features, slice(start, stop)), values, layout, threads)
        out = np.ascontiguousarray(logits.T)
        part = kernels.loss_and_gradient(np.empty_like(out), out, samples, order, start, stop, 1.0, LOSSES[loss])
        total, right = total + part[0], right + part[1]
        if loss != "mean_squared_error":
            predicted.append(logits.argmax(axis=1) if loss == "softmax_cross_entropy" else logits > 0)
    mean = total / float(samples.weights.sum())
    if loss == "mean_squared_error":
        return Evaluation(mean, None, collapsed=False, one_answer=False)
    first = predicted[0][0]
    one_answer = all(bool((part == first).all()) for part in predicted)
    collapsed = one_answer and labels_differ(samples) and _has_learned_nothing(mean, samples, loss)
    return Evaluation(mean, right / count, collapsed, one_answer)


def evaluate_training(
    state: State, data: TrainingSet, loss: str, threads: Threads, known: Evaluation | None = None
) -> Evaluation:
    """Evaluate a state on the watched samples, but decide `collapsed` and `one_answer` on all samples.

    The watched samples may lack a rare class. `known` is their evaluation, if already computed.
    """
    evaluation = known or evaluate(state, data.watched, loss, threads)
    if evaluation.one_answer and data.watched is not data.samples:
        whole = evaluate(state, data.samples, loss, threads)
        evaluation = replace(evaluation, collapsed=whole.collapsed, one_answer=whole.one_answer)
    return evaluation


def labels_differ(samples: Samples) -> bool:
    """Whether no single answer is right for all samples."""
    labels = (samples.labels if samples.labels.size else samples.targets)[samples.weights > 0]
    return bool((labels != labels[0]).any())


def _has_learned_nothing(mean: float, samples: Samples, loss: str) -> bool:
    """Whether one answer for all samples could reach the mean loss, within 1 %."""
    if loss == "softmax_cross_entropy":
        frequencies = np.bincount(samples.labels, samples.weights) / samples.weights.sum()
        return mean >= _COLLAPSE * float(_entropy(frequencies).sum())
    targets = samples.targets.astype(np.float64)
    yes = np.average(targets, axis=0, weights=samples.weights)
    entropy = float((_entropy(yes) + _entropy(1 - yes)).mean())
    # 0, unless labels lie between 0 and 1
    least = float(np.average((_entropy(targets) + _entropy(1 - targets)).mean(axis=1), weights=samples.weights))
    return mean - least >= _COLLAPSE * (entropy - least)


def _entropy(frequencies: npt.NDArray[Any]) -> Floats:
    from scipy.special import entr  # imported here because it takes as long as importing all of fastprune

    return entr(frequencies)  # type: ignore[no-any-return]
