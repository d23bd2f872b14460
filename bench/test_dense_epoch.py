"""How long does dense training take, against PyTorch and scikit-learn? Three MNIST epochs, one thread, batches of 128.

Both sides run over shuffled batches, gathering included. Before anything is timed they take the same steps over the
same batches from the same weights and must end with the same weights (PyTorch), or predict the same (scikit-learn).
What `fit` does besides - checking the data, comparing states, evaluating the training set - is timed with it.
"""

import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest

import fastprune as fp

MNIST = Path(__file__).parent / "mnist"
SIZES = [784, 300, 100, 10]
BATCH, RATE, MOMENTUM, EPOCHS = 128, 0.05, 0.9, 3
PAIRS = int(os.environ.get("FASTPRUNE_BENCH_PAIRS", "7"))


@pytest.fixture(scope="module")
def data():
    return fp.load_dataset("mnist", data_dir=MNIST)


def our_trainer(batch_size=BATCH):
    network = fp.MLP(SIZES, seed=0)
    return fp.Trainer(network, learning_rate=RATE, momentum=MOMENTUM, batch_size=batch_size, seed=0)


class Torch:
    """The same network and optimizer in PyTorch, the way its tutorials write the loop, on tensors in memory."""

    def __init__(self, network):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
        torch.set_num_threads(1)
        self.torch = torch
        layers = []
        for weights, biases in zip(network.weights, network.biases, strict=True):
            linear = torch.nn.Linear(weights.shape[1], weights.shape[0])
            linear.weight.data, linear.bias.data = torch.from_numpy(weights), torch.from_numpy(biases)
            layers += [linear, torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*layers[:-1])
        self.loss = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE, momentum=MOMENTUM)

    def steps(self, x, y, batches):
        for batch in batches:
            self.optimizer.zero_grad()
            self.loss(self.model(x[batch]), y[batch]).backward()
            self.optimizer.step()

    def epochs(self, x, y):
        for _ in range(EPOCHS):
            self.steps(x, y, self.torch.randperm(len(x)).split(BATCH))

    def weights(self):
        return [layer.weight.detach().numpy() for layer in self.model if hasattr(layer, "weight")]


def paired(ours, theirs):
    """Seconds of each of both calls in turn, after a warm-up."""
    seconds = []
    for _ in range(PAIRS + 1):
        pair = []
        for call in (ours, theirs):
            start = time.perf_counter()
            call()
            pair.append(time.perf_counter() - start)
        seconds.append(pair)
    return np.array(seconds[1:])


def report(benchmark, pairs, peer, version):
    """Put the paired figures beside pytest-benchmark's own, and show them."""
    ratio = statistics.median(pairs[:, 1] / pairs[:, 0])
    ours, theirs = np.median(pairs, axis=0)
    benchmark.extra_info |= {
        "threads": 1,
        "peer": f"{peer} {version}",
        "peer_seconds": theirs,
        "ratio_to_peer": ratio,
        "numpy": np.__version__,
    }
    print(f"\n{EPOCHS} epochs: fastprune {ours:.2f} s, {peer} {version} {theirs:.2f} s; {peer} / fastprune {ratio:.2f}")
    return ratio


def test_against_torch(benchmark, data):
    x, y = data.x_train, data.y_train
    trainer = our_trainer(batch_size=None)
    peer = Torch(trainer.network)
    torch = peer.torch
    x_torch, y_torch = torch.from_numpy(x), torch.from_numpy(y)
    for low in range(0, 10 * BATCH, BATCH):
        batch = slice(low, low + BATCH)
        trainer.fit(x[batch], y[batch], 1)
        peer.steps(x_torch, y_torch, [batch])
    for ours, theirs in zip(trainer.network.weights, peer.weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)

    trainer = our_trainer()
    pairs = paired(lambda: trainer.fit(x, y, EPOCHS), lambda: peer.epochs(x_torch, y_torch))
    benchmark.pedantic(trainer.fit, args=(x, y, EPOCHS), rounds=1)
    assert report(benchmark, pairs, "torch", torch.__version__) >= 1, "a dense epoch takes no longer than PyTorch's"


def test_against_scikit_learn(benchmark, data):
    sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install scikit-learn")
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    x, y = data.x_train, data.y_train
    settings = {"hidden_layer_sizes": SIZES[1:-1], "solver": "sgd", "alpha": 0.0, "nesterovs_momentum": False}
    rates = {"learning_rate_init": RATE, "momentum": MOMENTUM, "batch_size": BATCH, "random_state": 0}
    peer = MLPClassifier(**settings, **rates)
    peer.partial_fit(x[:BATCH], y[:BATCH], classes=np.arange(10))
    network = fp.MLP(SIZES, loss="softmax_cross_entropy")
    network.values[:] = np.concatenate([w.T.reshape(-1) for w in peer.coefs_] + peer.intercepts_)
    np.testing.assert_allclose(network.predict_proba(x[:1000]), peer.predict_proba(x[:1000]), rtol=1e-3, atol=1e-5)

    trainer = our_trainer()
    with threadpool_limits(1, user_api="blas"):
        pairs = paired(lambda: trainer.fit(x, y, EPOCHS), lambda: [peer.partial_fit(x, y) for _ in range(EPOCHS)])
    benchmark.pedantic(trainer.fit, args=(x, y, EPOCHS), rounds=1)
    report(benchmark, pairs, "scikit-learn", sklearn.__version__)
