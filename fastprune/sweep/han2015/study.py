"""The tasks of the study. Each is a pure function from a recipe and a seed to rows, and to arrays for the figures."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastprune.datasets import Dataset, load_dataset
from fastprune.network import MLP
from fastprune.pruner import Pruner
from fastprune.sweep.han2015.recipes import Level, Recipe, Stage, chain
from fastprune.trainer import Trainer

PAPER = 12.0  # the compression of the paper's Tables 1 and 2
HELD_OUT = 5000  # of MNIST's training samples
SMALL_SETS = ("digits", "breast_cancer", "wine")
GRADUAL, RANDOM = "gradual", "random"


@dataclass(frozen=True)
class Row:
    """One network: what it is, and how it does.

    Attributes
    ----------
    dataset, method : str
        What it was trained on, and how it came about.
    seed : int
        Of initialization, order, dropout and held-out samples.
    target, compression, effective_compression : float
        All weights by live weights: as asked for (1: dense), as reached, and with live paths only.
    live : int
        Live weights.
    layer_density, layer_active : tuple of float
        Of each layer, the fraction of its weights that is live, and of its units that are not 0, on average over the
        test samples (all of the outputs).
    dead_units : tuple of int
        Of each hidden layer.
    test_error, held_out_error : float
        Fractions of samples; NaN where none were held out.
    seconds : float
        Training time up to here, on one thread.
    """

    dataset: str
    method: str
    seed: int
    target: float
    compression: float
    effective_compression: float
    live: int
    layer_density: tuple[float, ...]
    layer_active: tuple[float, ...]
    dead_units: tuple[int, ...]
    test_error: float
    held_out_error: float
    seconds: float


@dataclass(frozen=True)
class Result:
    """What a task comes to."""

    rows: list[Row]
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _data(name: str, data_dir: str | None) -> Dataset:
    return load_dataset(name, data_dir)


def _row(data: Dataset, method: str, seed: int, stage: Stage, held_out: tuple[Any, Any] | None = None) -> Row:
    network = stage.trainer.network
    return Row(
        dataset=data.name,
        method=method,
        seed=seed,
        target=stage.compression,
        compression=network.compression,
        effective_compression=1 / (1 - network.effective_sparsity) if network.effective_sparsity < 1 else math.inf,
        live=network.live_weights,
        layer_density=tuple(1 - sparsity for sparsity in network.layer_sparsity),
        layer_active=tuple(_active(network, data.x_test)),
        dead_units=tuple(network.dead_units),
        test_error=_error(stage.trainer, data.x_test, data.y_test),
        held_out_error=float("nan") if held_out is None else _error(stage.trainer, *held_out),
        seconds=stage.seconds,
    )


def _error(trainer: Trainer, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    accuracy = trainer.evaluate(x, y).accuracy
    assert accuracy is not None
    return 1 - accuracy


def _active(network: MLP, x: npt.NDArray[Any]) -> Iterator[float]:
    """Fraction of each layer's units that are not 0, on average over the samples; all of the outputs."""
    below = x
    for weights, biases in list(zip(network.weights, network.biases, strict=True))[:-1]:
        below = np.maximum(below @ weights.T + biases, 0)
        yield float(np.mean(below > 0))
    yield 1.0


def split(data: Dataset, count: int, seed: int) -> tuple[Dataset, tuple[Any, Any]]:
    """The data set without `count` of its training samples, drawn by the seed; and these."""
    order = np.random.default_rng([seed, len(data.x_train)]).permutation(len(data.x_train))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    less = replace(data, x_train=data.x_train[kept], y_train=data.y_train[kept])
    return less, (data.x_train[held], data.y_train[held])


def gradual(recipe: Recipe, seed: int, data_dir: str | None) -> Result:
    """The recipe on all training samples of MNIST."""
    data = _data("mnist", data_dir)
    rows, arrays = [], {}
    for stage in chain(recipe, data, seed):
        rows.append(_row(data, GRADUAL, seed, stage))
        if stage.compression in (1.0, PAPER):
            arrays[f"weights_{stage.compression:g}"] = stage.trainer.network.weights[0]
    return Result(rows, arrays)


def random(recipe: Recipe, seed: int, data_dir: str | None) -> Result:
    """The same recipe, but for which weights go: any. Layers get what Erdos-Renyi graphs have."""
    data = _data("mnist", data_dir)
    recipe = replace(recipe, criterion="random", layer_rates="erdos_renyi")
    return Result([_row(data, RANDOM, seed, stage) for stage in chain(recipe, data, seed)])


def regularization(recipe: Recipe, seed: int, data_dir: str | None, penalty: str) -> Result:
    """The counterpart of Figure 5: one penalty, without retraining, with it, and with iterations of both."""
    data = _data("mnist", data_dir)
    dense = next(chain(recipe, data, seed))
    rows = [_row(data, penalty, seed, dense)]
    trainer = dense.trainer
    whole = trainer.snapshot()

    def retrained(level: Level) -> float:
        """Seconds of one prune and the retraining after it; infinite if that collapsed."""
        started = time.perf_counter()
        pruner = Pruner(trainer, schedule=[1 - 1 / level.compression], layer_rates=recipe.layer_rates)
        failed = pruner.run(data.x_train, data.y_train, level.retraining)[-1].failed
        return math.inf if failed else time.perf_counter() - started

    for level in recipe.levels:
        Pruner(trainer, schedule=[1 - 1 / level.compression], layer_rates=recipe.layer_rates).step()
        stage = Stage(level.compression, trainer, dense.seconds)
        rows.append(_row(data, f"{penalty}, not retrained", seed, stage))
        trainer.restore(whole)
        stage = replace(stage, seconds=dense.seconds + retrained(level))
        if stage.seconds < math.inf:
            rows.append(_row(data, f"{penalty}, retrained", seed, stage))
        trainer.restore(whole)
    seconds = dense.seconds
    for level in recipe.levels if penalty == "l2" else ():
        seconds += retrained(level)
        if seconds == math.inf:
            break
        rows.append(_row(data, f"{penalty}, iterative", seed, Stage(level.compression, trainer, seconds)))
    return Result(rows)


def sensitivity(recipe: Recipe, seed: int, data_dir: str | None) -> Result:
    """The counterpart of Figure 6: the accuracy on held-out samples when one layer alone is pruned."""
    less, held_out = split(_data("mnist", data_dir), HELD_OUT, seed)
    dense = next(chain(recipe, less, seed))
    scan = Pruner(dense.trainer, schedule=[0.0]).sensitivity(*held_out)
    accuracy = [[point.accuracy for point in curve] for curve in scan.evaluations]
    curves = {"sparsities": scan.sparsities, "accuracy": accuracy, "baseline": scan.baseline.accuracy}
    return Result([], {name: np.array(values) for name, values in curves.items()})


def small(recipe: Recipe, seed: int, data_dir: str | None, name: str) -> Result:
    """A small set, a fifth of its training samples held out, down to where it is of no use."""
    data = _data(name, data_dir)
    less, held_out = split(data, round(len(data.x_train) / 5), seed)
    return Result([_row(less, GRADUAL, seed, stage, held_out) for stage in chain(recipe, less, seed)])
