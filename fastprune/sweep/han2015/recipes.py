"""How the networks of the study are trained, pruned and retrained. Chosen on held-out training samples, then frozen."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fastprune import schedules
from fastprune.datasets import Dataset
from fastprune.network import MLP
from fastprune.pruner import Pruner
from fastprune.sweep.cell import leave_it_to_records
from fastprune.trainer import Trainer

HIDDEN = (300, 100)


@dataclass(frozen=True)
class Level:
    """One compression to reach: gradually, over so many epochs, and with others after the last prune.

    The learning rate falls over all of them together, from the recipe's to 0.
    """

    compression: float
    pruning: int
    retraining: int
    input_dropout: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Dense training, then level after level, each from where the one before ended."""

    epochs: int
    levels: tuple[Level, ...]
    input_dropout: float = 0.0
    learning_rate: float = 0.1
    batch_size: int = 64
    l2: float = 1e-4
    l1: float = 0.0
    criterion: str = "magnitude"
    layer_rates: str = "lamp"


@dataclass(frozen=True)
class Study:
    """The recipes of a study: for MNIST, for each penalty of the paper's Figure 5, and for small data sets."""

    mnist: Recipe
    penalties: dict[str, Recipe]
    small: Recipe


@dataclass(frozen=True)
class Stage:
    """What a recipe has come to: the trainer, with its network, and the seconds of training up to here."""

    compression: float
    trainer: Trainer
    seconds: float


def chain(recipe: Recipe, data: Dataset, seed: int) -> Iterator[Stage]:
    """Follow a recipe; yields the dense network, at compression 1, and each level's. They are one network.

    It ends early where retraining collapses.
    """
    leave_it_to_records()
    network = MLP([data.features, *HIDDEN, data.outputs], seed=seed)
    trainer = Trainer(
        network,
        learning_rate=recipe.learning_rate,
        learning_rate_schedule="cosine",
        input_dropout=recipe.input_dropout,
        batch_size=recipe.batch_size,
        l1=recipe.l1,
        l2=recipe.l2,
        restore_best=False,
        seed=seed,
    )
    x, y = data.x_train, data.y_train
    started = time.perf_counter()
    trainer.fit(x, y, recipe.epochs)
    seconds = time.perf_counter() - started
    yield Stage(1.0, trainer, seconds)
    for level in recipe.levels:
        trainer.input_dropout = level.input_dropout
        pruner = Pruner(
            trainer,
            schedule=schedules.PolynomialDecay(network.sparsity, 1 - 1 / level.compression, level.pruning),
            criterion=recipe.criterion,
            layer_rates=recipe.layer_rates,
            seed=seed,
        )
        started = time.perf_counter()
        history = pruner.run(x, y, [1] * (level.pruning - 1) + [1 + level.retraining], restarts=False)
        if history[-1].failed:
            return
        seconds += time.perf_counter() - started
        yield Stage(level.compression, trainer, seconds)


_MNIST = Recipe(
    epochs=16,
    input_dropout=0.2,
    levels=(
        Level(2, 4, 6, 0.2),
        Level(4, 6, 6, 0.2),
        Level(8, 10, 10, 0.18),
        Level(12, 10, 15, 0.17),
        Level(16, 10, 20, 0.16),
        Level(20, 10, 30, 0.15),
        Level(32, 20, 60, 0.13),
        Level(56, 30, 100, 0.12),
        Level(68, 30, 100, 0.11),
        Level(80, 30, 100, 0.1),
        Level(100, 30, 100, 0.1),
    ),
)

# For the counterpart of the paper's Figure 5: a penalty and nothing else, one prune a level.
_L2 = Recipe(
    epochs=12,
    levels=tuple(Level(compression, 0, 6) for compression in (1.25, 1.6, 2.5, 4, 6, 8, 10, 14, 20, 32, 50)),
)

_SMALL = Recipe(
    epochs=40,
    levels=tuple(Level(2 ** (step / 2), 5, 15) for step in range(2, 19)),
    learning_rate=0.05,
    batch_size=32,
)

HAN2015 = Study(_MNIST, {"l1": replace(_L2, l1=1e-5, l2=0.0), "l2": _L2}, _SMALL)
