"""How long does a whole epoch of `fit` take, with all that it does besides, against PyTorch and scikit-learn?

One thread. Ours includes checking the data, comparing states and evaluating the training set.
"""

import copy

import numpy as np
import peers
import pytest
from harness import BATCH, MOMENTUM, RATE, check_same_steps, compare, layer_densities, mnist, pruned, trainer_of

import fastprune as fp
from fastprune.blas import one_blas_thread

EPOCHS = 3


@pytest.mark.parametrize("density", [1, 0.1, 0.02])
def test_epochs(benchmark, density):
    x, y = mnist()
    trainer = trainer_of(fp.MLP([784, 300, 100, 10]))
    trainer.fit(x[:12800], y[:12800], 1)
    trainer = pruned(trainer, density)
    network = trainer.network
    rivals = {}
    if peers.installed("torch"):
        rivals["PyTorch, torch.nn.utils.prune" if density < 1 else "PyTorch, dense"] = peers.Torch(network)
    if peers.installed("sklearn") and density == 1:
        rivals["scikit-learn MLPClassifier"] = ScikitLearn(network)
    for rival in rivals.values():
        check_same_steps(trainer, rival, x, y, steps=3)

    def epochs(rival):
        for _ in range(EPOCHS):
            rival.steps(x, y, peers.shuffled(len(x), BATCH))

    calls = {name: lambda rival=rival: epochs(rival) for name, rival in rivals.items()}
    if not calls:
        pytest.skip("neither PyTorch nor scikit-learn is installed")
    with one_blas_thread():
        compare(
            benchmark,
            "MNIST epoch",
            f"784-300-100-10, density {density:g}",
            lambda: copy.deepcopy(trainer).fit(x, y, EPOCHS),
            calls,
            repeats=EPOCHS,
            rounds=5,
            densities=layer_densities(network),
        )


class ScikitLearn:
    """MLPClassifier, begun with our weights, batch by batch: its own loop does no more."""

    def __init__(self, network):
        from sklearn.neural_network import MLPClassifier

        self.model = MLPClassifier(
            hidden_layer_sizes=network.sizes[1:-1],
            solver="sgd",
            alpha=0.0,
            nesterovs_momentum=False,
            learning_rate_init=RATE,
            momentum=MOMENTUM,
            batch_size=BATCH,
        )
        classes = np.arange(BATCH) % network.sizes[-1]
        self.model.partial_fit(np.zeros((BATCH, network.sizes[0]), np.float32), classes, classes=np.unique(classes))
        self.model.coefs_ = [weights.T.copy() for weights in network.weights]
        self.model.intercepts_ = [bias.copy() for bias in network.biases]
        # The optimizer was made with references to the first, random weights.
        self.model._optimizer = type(self.model._optimizer)(
            self.model.coefs_ + self.model.intercepts_, RATE, "constant", MOMENTUM, False
        )

    def steps(self, x, y, batches):
        for rows in batches:
            self.model.partial_fit(x[rows], y[rows])

    def weights(self):
        return [coefficients.T for coefficients in self.model.coefs_]
