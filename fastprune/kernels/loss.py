"""Losses from logits: the sum over one tile's samples, the gradient of the batch mean, and the number of hits.

Each sample's loss is multiplied by its weight; hits count every sample once.
"""

import math

import numpy as np

from fastprune.kernels.constants import SIGMOID_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats, Ints, Samples


@kernel
def softmax_cross_entropy(
    dout: Floats, out: Floats, samples: Samples, order: Ints, start: int, stop: int, scale: float
) -> tuple[float, int]:
    """Return the sum of -weight log softmax(out)[label], and how many samples have their largest logit at the label.

    dout (K, T) = scale * weight * (softmax - one-hot), 0 in the spare lanes; out (K, T); order (N,). Lane t holds
    sample order[start + t]; scale is 1 / samples of the batch.
    """
    outputs = out.shape[0]
    dout[:, :] = 0
    loss, hits = 0.0, 0
    for t in range(stop - start):
        label, weight = samples.labels[order[start + t]], samples.weights[order[start + t]]
        best = 0
        for k in range(1, outputs):
            if out[k, t] > out[best, t]:
                best = k
        total = 0.0
        for k in range(outputs):
            exponential = math.exp(out[k, t] - out[best, t])
            dout[k, t] = exponential
            total += exponential
        for k in range(outputs):
            dout[k, t] *= dout.dtype.type(scale * weight / total)
        dout[label, t] -= dout.dtype.type(scale * weight)
        loss += weight * (math.log(total) + np.float64(out[best, t]) - np.float64(out[label, t]))
        hits += best == label
    return loss, hits


@kernel
def sigmoid_cross_entropy(
    dout: Floats, out: Floats, samples: Samples, order: Ints, start: int, stop: int, scale: float
) -> tuple[float, int]:
    """Return the sum over samples of weight mean(log(1 + e^z) - y z), and how many are right in every output.

    The mean is over outputs. dout (K, T) = scale * weight / K * (sigmoid - target), 0 in the spare lanes; out (K, T);
    targets (N, K) in [0, 1]. A probability above 1/2 counts as 1.
    """
    targets, outputs = samples.targets, out.shape[0]
    dout[:, :] = 0
    loss, hits = 0.0, 0
    for t in range(stop - start):
        sample = order[start + t]
        weight, right = samples.weights[sample], True
        for k in range(outputs):
            z, y = np.float64(out[k, t]), np.float64(targets[sample, k])
            # The exponential of a positive number could overflow.
            small = math.exp(-abs(z))
            loss += weight * (max(z, 0.0) - z * y + math.log1p(small)) / outputs
            probability = (1.0 if z > 0 else small) / (1.0 + small)
            dout[k, t] = scale * weight / outputs * (probability - y)
            right = right and (z > 0) == (y > 0.5)
        hits += right
    return loss, hits


@kernel
def mean_squared_error(
    dout: Floats, out: Floats, samples: Samples, order: Ints, start: int, stop: int, scale: float
) -> tuple[float, int]:
    """Return the sum over samples of weight times the mean over outputs of (out - target)^2, and 0 right answers.

    dout (K, T) = 2 scale * weight / K * (out - target), 0 in the spare lanes; out (K, T); targets (N, K).
    """
    targets, outputs = samples.targets, out.shape[0]
    dout[:, :] = 0
    loss = 0.0
    for t in range(stop - start):
        sample = order[start + t]
        weight = samples.weights[sample]
        for k in range(outputs):
            difference = np.float64(out[k, t]) - np.float64(targets[sample, k])
            loss += weight * difference * difference / outputs
            dout[k, t] = 2.0 * scale * weight / outputs * difference
    return loss, 0


@kernel
def loss_and_gradient(
    dout: Floats, out: Floats, samples: Samples, order: Ints, start: int, stop: int, scale: float, loss: int
) -> tuple[float, int]:
    """Compute the loss with code `loss`; see the functions above."""
    if loss == SOFTMAX_CROSS_ENTROPY:
        return softmax_cross_entropy(dout, out, samples, order, start, stop, scale)
    if loss == SIGMOID_CROSS_ENTROPY:
        return sigmoid_cross_entropy(dout, out, samples, order, start, stop, scale)
    return mean_squared_error(dout, out, samples, order, start, stop, scale)
