"""The peers: the same network, optimizer and loss as others do it. Each has `steps` and `weights`.

Those that are not installed are left out, and a line says so.
"""

import importlib.util
import os
import warnings

import numpy as np
import scipy.sparse
from harness import BATCH, MOMENTUM, RATE
from threadpoolctl import threadpool_limits

_rng = np.random.default_rng(0)
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # without this, torch.compile leaves processes behind


def installed(*names):
    """Which of the packages are there; says which are not."""
    found = [name for name in names if importlib.util.find_spec(name)]
    for name in sorted(set(names) - set(found)):
        print(f"\n{name} is not installed: no comparison with it")
    return found


class NumPy:
    """Dense products, and `weights *= mask` after each step: the way of programs written for a paper."""

    def __init__(self, network, dtype=np.float32):
        self.w = [w.astype(dtype) for w in network.weights]
        self.b = [b.astype(dtype)[:, np.newaxis] for b in network.biases]
        self.masks = [m.astype(dtype) for m in network.masks]
        self.state = [np.zeros_like(p) for p in (*self.w, *self.b)]
        self.rate = RATE

    def weights(self):
        return self.w

    def forward(self, layer, a):
        return self.w[layer] @ a

    def weight_gradient(self, layer, d, a):
        return d @ a.T

    def input_gradient(self, layer, d):
        return self.w[layer].T @ d

    def mask(self):
        for w, mask in zip(self.w, self.masks, strict=True):
            w *= mask

    def values(self):
        return [*self.w, *self.b]

    def steps(self, x, y, batches):
        for rows in batches:
            activations = [x[rows].T.astype(self.b[0].dtype, copy=False)]
            for layer, b in enumerate(self.b):
                z = self.forward(layer, activations[-1]) + b
                activations.append(np.maximum(z, 0) if layer < len(self.b) - 1 else z)
            d = self.loss_gradient(activations.pop(), y[rows]) / activations[0].shape[1]
            gradients_w, gradients_b = [], []
            for layer in reversed(range(len(self.b))):
                gradients_w.insert(0, self.weight_gradient(layer, d, activations[layer]))
                gradients_b.insert(0, d.sum(axis=1, keepdims=True))
                if layer:
                    d = self.input_gradient(layer, d) * (activations[layer] > 0)
            for value, velocity, gradient in zip(self.values(), self.state, gradients_w + gradients_b, strict=True):
                velocity *= MOMENTUM
                velocity += gradient
                value -= self.rate * velocity
            self.mask()

    def loss_gradient(self, z, y):
        if len(z) == 1:
            return 1 / (1 + np.exp(-z)) - y
        p = np.exp(z - z.max(axis=0))
        p /= p.sum(axis=0)
        p[y, np.arange(len(y))] -= 1
        return p


class SciPy(NumPy):
    """CSR products; the gradient of the weights, for which SciPy has nothing sparse, by a dense one."""

    def __init__(self, network):
        super().__init__(network)
        self.rows, self.columns = zip(*[np.nonzero(mask) for mask in self.masks], strict=True)
        self.csr = [
            scipy.sparse.csr_array((w[m > 0], np.nonzero(m)), w.shape) for w, m in zip(self.w, self.masks, strict=True)
        ]
        self.state = [np.zeros_like(p) for p in self.values()]

    def weights(self):
        return [csr.toarray() for csr in self.csr]

    def forward(self, layer, a):
        return self.csr[layer] @ a

    def weight_gradient(self, layer, d, a):
        # A dense product and its live entries: products of rows for each live weight take longer.
        return (d @ a.T)[self.rows[layer], self.columns[layer]]

    def input_gradient(self, layer, d):
        return self.csr[layer].T @ d

    def mask(self):
        pass

    def values(self):
        return [*(csr.data for csr in self.csr), *self.b]


class Torch:
    """The loop of PyTorch's tutorials, on tensors in memory; with `torch.nn.utils.prune`, or dense."""

    def __init__(self, network, prune=True):
        import torch
        from torch.nn.utils import prune as torch_prune

        self.torch, self.inputs = torch, network.sizes[0]
        torch.set_num_threads(1)
        layers = []
        for weights, biases, mask in zip(network.weights, network.biases, network.masks, strict=True):
            layers += [self.linear(weights, biases, mask), torch.nn.ReLU()]
            if prune and not mask.all() and isinstance(layers[-2], torch.nn.Linear):
                torch_prune.custom_from_mask(layers[-2], "weight", torch.tensor(mask))
        self.model = torch.nn.Sequential(*layers[:-1])
        self.forward = self.model
        self.loss = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE, momentum=MOMENTUM)

    def linear(self, weights, biases, mask):
        linear = self.torch.nn.Linear(weights.shape[1], weights.shape[0])
        linear.weight.data, linear.bias.data = self.torch.tensor(weights), self.torch.tensor(biases)
        return linear

    def steps(self, x, y, batches):
        x, y = self.torch.from_numpy(x), self.torch.from_numpy(y)
        for rows in batches:
            rows = self.torch.as_tensor(rows)
            self.optimizer.zero_grad()
            self.loss(self.forward(x[rows]), y[rows]).backward()
            self.optimizer.step()

    def weights(self):
        self.model(self.torch.zeros(1, self.inputs))  # which is when masks are multiplied
        return [layer.weight.detach().numpy() for layer in self.model if isinstance(layer, self.torch.nn.Linear)]


class SparseProp(Torch):
    """SparseProp's layers (Nikdan et al. 2023) in PyTorch's loop; those more than half full are PyTorch's, masked."""

    def linear(self, weights, biases, mask):
        from sparseprop.modules import SparseLinear

        if mask.mean() > 0.5:
            return super().linear(weights, biases, mask)
        pattern = self.torch.from_numpy(mask.astype(np.float32))
        layer = SparseLinear(pattern, bias=self.torch.nn.Parameter(self.torch.tensor(biases)))
        layer.W_val.data = self.torch.from_numpy(weights[mask])
        return layer

    def weights(self):
        super().weights()
        dense = [layer.to_dense() if hasattr(layer, "to_dense") else layer for layer in self.model]
        return [layer.weight.detach().numpy() for layer in dense if hasattr(layer, "weight")]


class Compiled(Torch):
    """The masked network by `torch.compile`, which needs a C++ compiler; a new network takes it up to a minute."""

    def __init__(self, network):
        super().__init__(network)
        self.torch.compiler.reset()  # or the ninth network of a process would run as it is, and nothing would say so
        self.forward = self.torch.compile(self.model, fullgraph=True)
        x, y = self.torch.zeros(BATCH, self.inputs), self.torch.zeros(BATCH, dtype=self.torch.int64)
        with warnings.catch_warnings(action="ignore"):  # PyTorch's compiler uses what PyTorch has deprecated
            self.loss(self.forward(x), y).backward()  # which compiles


class SparseLab(Torch):
    """SparseLab's layers (padded CSR) in PyTorch's loop; those more than half full are PyTorch's, masked."""

    def linear(self, weights, biases, mask):
        import sparselab

        if mask.mean() > 0.5:
            return super().linear(weights, biases, mask)
        threadpool_limits(1, user_api="openmp")  # which it brings with it, besides PyTorch's
        outputs, inputs = weights.shape
        with warnings.catch_warnings(action="ignore"):  # PyTorch's own CSR, which it goes through, is in beta
            layer = sparselab.SparseLinear(inputs, outputs, sparsity=1 - 1 / inputs)
            layer._csr = sparselab.PaddedCSR.from_dense(self.torch.from_numpy(weights))
        layer._values = self.torch.nn.Parameter(self.torch.from_numpy(np.asarray(layer._csr.values)))
        layer.bias.data = self.torch.tensor(biases)
        return layer

    def weights(self):
        super().weights()
        dense = [layer._csr.to_dense() if hasattr(layer, "_csr") else layer.weight for layer in self.model[::2]]
        return [weights.detach().numpy() for weights in dense]


def compiled(network):
    """The peer by its name, or nothing where `torch.compile` does not run; then a line says why."""
    try:
        return {"PyTorch, torch.compile": Compiled(network)}
    except Exception as error:
        print(f"\ntorch.compile does not run: {type(error).__name__}: {error}")
        return {}


def shuffled(count, batch):
    order = _rng.permutation(count)
    return [order[low : low + batch] for low in range(0, count - batch + 1, batch)]
