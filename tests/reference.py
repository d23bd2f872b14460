"""A plain NumPy twin, in float64, of every kernel: written to be read, not to be fast.

Twins return what their kernels write. Arrays have the shapes the kernels want, so that outputs can be compared as
they are; a step of training is done on whole batches, without tiles.
"""

from fractions import Fraction

import numpy as np

MASK64 = 2**64 - 1
SLOPE = 0.01


def derive(key, index):
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def shuffle(count, key):
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        j = (derive(key, i) >> 32) * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return np.array(order, dtype=np.int64)


def gather(x, order, start, stop, lanes):
    tile = np.zeros((x.shape[1], lanes))
    tile[:, : stop - start] = x[order[start:stop]].T
    return tile


def dense_forward(tile, weights, bias):
    return weights @ tile + bias[:, np.newaxis]


def dense_weight_gradient(dout, tile):
    return dout @ tile.T, dout.sum(axis=1)


def dense_input_gradient(dout, weights):
    return weights.T @ dout


def sparse_table(mask, units, block):
    """Where the blocks of the lines `units` begin and end, (B + 1, lines), and the columns of a mask's weights."""
    rows, columns = np.nonzero(mask)
    edges = range(0, mask.shape[1] + block, block)
    starts = [[((rows < unit) | ((rows == unit) & (columns < edge))).sum() for unit in units] for edge in edges]
    return np.array(starts, np.int64).reshape(len(edges), len(units)), columns.astype(np.int32)


def sparse_product(out, tile, weights, units):
    """`out` with the products of the rows `units` of a matrix added to it."""
    out = out.copy()
    out[units] += weights[units] @ tile
    return out


def sparse_weight_gradient(dout, tile, mask):
    return (dout @ tile.T)[mask]


def line_of(starts, weight):
    return max(np.flatnonzero(starts[0] <= weight), default=0)


def computed_units(masks, dense):
    """The units of each level from which live weights lead to an output; beside dense layers all."""
    units = [np.arange(len(masks[-1]))]
    for layer in reversed(range(len(masks))):
        beside_dense = dense[layer] or (layer > 0 and dense[layer - 1])
        reached = beside_dense | masks[layer][units[0]].any(axis=0)
        units.insert(0, np.flatnonzero(reached))
    return units


def activate(z, activation):
    return {
        "relu": lambda: np.maximum(z, 0),
        "leaky_relu": lambda: np.where(z > 0, z, SLOPE * z),
        "tanh": lambda: np.tanh(z),
        "sigmoid": lambda: 1 / (1 + np.exp(-z)),
    }[activation]()


def derivative(z, activation):
    sigmoid = 1 / (1 + np.exp(-z))
    return {
        "relu": lambda: (z > 0).astype(float),
        "leaky_relu": lambda: np.where(z > 0, 1, SLOPE),
        "tanh": lambda: 1 - np.tanh(z) ** 2,
        "sigmoid": lambda: sigmoid * (1 - sigmoid),
    }[activation]()


def dropout(tile, key, first, keep):
    scaled = np.zeros_like(tile)
    for f in range(tile.shape[0]):
        for t in range(tile.shape[1]):
            if derive(derive(key, f), first + t) >> 32 < int(keep * 2**32):
                scaled[f, t] = tile[f, t] / keep
    return scaled


def softmax_cross_entropy(logits, labels):
    """Summed loss, gradient of the sum, hits. logits (K, n), labels (n,)."""
    shifted = logits - logits.max(axis=0)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=0)
    one_hot = (np.arange(len(logits))[:, np.newaxis] == labels).astype(float)
    return (
        -np.log((probabilities * one_hot).sum(axis=0)).sum(),
        probabilities - one_hot,
        (logits.argmax(0) == labels).sum(),
    )


def sigmoid_cross_entropy(logits, targets):
    """The same; targets (K, n)."""
    probabilities = 1 / (1 + np.exp(-logits))
    losses = -(targets * np.log(probabilities) + (1 - targets) * np.log(1 - probabilities))
    hits = ((logits > 0) == (targets > 0.5)).all(axis=0).sum()
    return losses.mean(axis=0).sum(), (probabilities - targets) / len(logits), hits


def mean_squared_error(logits, targets):
    """The same; there are no hits."""
    return ((logits - targets) ** 2).mean(axis=0).sum(), 2 * (logits - targets) / len(logits), 0


LOSSES = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "mean_squared_error": mean_squared_error,
}


def sgd_step(w, v, g, live, rate, momentum, nesterov, l1, l2):
    g = g + l2 * w + l1 * np.sign(w)
    v = momentum * v + g
    step = g + momentum * v if nesterov else v
    return np.where(live, w - rate * step, 0), np.where(live, v, 0)


def adam_step(w, m, s, g, live, rate, beta_1, l1, l2, step):
    g = g + l2 * w + l1 * np.sign(w)
    m = beta_1 * m + (1 - beta_1) * g
    s = 0.999 * s + 0.001 * g**2
    w = w - rate * (m / (1 - beta_1 ** (step + 1))) / (np.sqrt(s / (1 - 0.999 ** (step + 1))) + 1e-8)
    return np.where(live, w, 0), np.where(live, m, 0), np.where(live, s, 0)


def smallest(scores, count):
    """Marks of the `count` smallest, the first of equals."""
    marks = np.zeros(len(scores), dtype=np.uint8)
    marks[np.argsort(scores, kind="stable")[:count]] = 1
    return marks


def percentile(scores, q):
    """The largest threshold such that what is not above it is at most q percent; None if there is none."""
    most = Fraction(str(q)) / 100 * len(scores)
    found = [limit for limit in scores if sum(score <= limit for score in scores) <= most]
    return max(found, default=None)


def forward(x, weights, biases, activation):
    """Every layer's value before its activation, and its output; (O, N) each."""
    values, outputs = [], [x.T]
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        values.append(dense_forward(outputs[-1], w, b))
        outputs.append(values[-1] if layer == len(weights) - 1 else activate(values[-1], activation))
    return values, outputs


def gradients(x, y, weights, biases, activation, loss):
    """Summed loss, hits, and the gradients of the mean loss with respect to weights and biases."""
    values, outputs = forward(x, weights, biases, activation)
    total, dout, hits = LOSSES[loss](outputs[-1], y if loss == "softmax_cross_entropy" else y.T)
    dout = dout / len(x)
    dweights, dbiases = [], []
    for layer in reversed(range(len(weights))):
        if layer < len(weights) - 1:
            dout = dout * derivative(values[layer], activation)
        dweight, dbias = dense_weight_gradient(dout, outputs[layer])
        dweights.insert(0, dweight)
        dbiases.insert(0, dbias)
        dout = dense_input_gradient(dout, weights[layer])
    return total, hits, dweights, dbiases
