"""What the recipe of the preset han2015 was chosen by: one setting changed at a time, on held-out samples.

    python bench/choices.py bench/mnist

trains on 55,000 of MNIST's training samples and looks at the other 5,000, which the seed draws; the test set is not
read. It prints a table in Markdown: bench/han2015/choices.md is one such run.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

import fastprune as fp
from fastprune.schedules import GeometricDecay, PolynomialDecay
from fastprune.sweep.han2015.recipes import HAN2015, chain
from fastprune.sweep.han2015.study import HELD_OUT, split
from fastprune.team import count_threads

SEEDS = (0, 1, 2)
LEVELS = (12, 56)
DENSE, ROUNDS, LENGTH = 12, 6, 10  # epochs; rounds of retraining a level, and the epochs of each


@dataclass(frozen=True)
class Choice:
    """One way to train and prune: settings of the trainer and the pruner, and how a level is reached."""

    name: str
    trainer: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    reach: str = "gradual"


def check(history: list[fp.RoundRecord]) -> None:
    if history[-1].failed:
        raise RuntimeError(f"round {history[-1].round} collapsed")


def gradual(pruner: Callable[..., fp.Pruner], trainer: fp.Trainer, level: float, data: Any, _: Any) -> None:
    """Rounds of one epoch, and as many epochs after the last, under one learning-rate schedule."""
    half = ROUNDS * LENGTH // 2
    target = PolynomialDecay(trainer.network.sparsity, 1 - 1 / level, half)
    check(pruner(schedule=target).run(*data, [1] * (half - 1) + [1 + half], restarts=False))


def rounds(**settings: Any) -> Callable[..., None]:
    """Rounds of ten epochs, each with a learning-rate schedule of its own."""

    def reach(pruner: Callable[..., fp.Pruner], trainer: fp.Trainer, level: float, data: Any, early: Any) -> None:
        target = GeometricDecay(trainer.network.sparsity, 1 - 1 / level, ROUNDS)
        more = {"rewind_to": early} if "rewind_to" in settings else {}
        check(pruner(schedule=target).run(*data, LENGTH, **{**settings, **more}))

    return reach


def scanned(_: Callable[..., fp.Pruner], trainer: fp.Trainer, level: float, data: Any, __: Any) -> None:
    """Gradual, by the rates of a sensitivity scan of the network as it is, on 5,000 training samples."""
    half = ROUNDS * LENGTH // 2
    rates = fp.Pruner(trainer, schedule=[0.0]).sensitivity(data[0][:HELD_OUT], data[1][:HELD_OUT])
    ends = rates.recommend(1 - 1 / level)
    begins = trainer.network.layer_sparsity
    paths = {layer: list(PolynomialDecay(begins[layer], end, half)) for layer, end in ends.items()}
    schedule = [{layer: path[i] for layer, path in paths.items()} for i in range(half)]
    check(fp.Pruner(trainer, schedule=schedule).run(*data, [1] * (half - 1) + [1 + half], restarts=False))


REACH = {
    "gradual": gradual,
    "scanned": scanned,
    "fine-tuning": rounds(learning_rate=0.01, learning_rate_schedule="constant"),
    "restarts": rounds(),
    "adaptive": rounds(learning_rate="adaptive", learning_rate_schedule="linear"),
    "rewinding": rounds(rewind_to=None),
}

WHOLE = "whole"
CHOICES = [
    Choice("the recipe itself: longer, input dropout that falls from 0.2", reach=WHOLE),
    Choice("its way in short: input dropout 0.15, LAMP rates, gradual"),
    Choice("no input dropout", {"input_dropout": 0.0}),
    Choice("input dropout 0.3", {"input_dropout": 0.3}),
    Choice("hidden dropout 0.15, Eq. 3", {"dropout": 0.15}),
    Choice("hidden dropout 0.15, not scaled", {"dropout": 0.15, "scale_dropout": False}),
    Choice("L2 0", {"l2": 0.0}),
    Choice("L2 5e-4", {"l2": 5e-4}),
    Choice("L1 1e-5 in place of L2", {"l2": 0.0, "l1": 1e-5}),
    Choice("best state kept, not the last", {"restore_best": True}),
    Choice("rates: uniform", {}, {"layer_rates": "uniform"}),
    Choice("rates: Erdos-Renyi", {}, {"layer_rates": "erdos_renyi"}),
    Choice("rates: global magnitude", {}, {"layer_rates": "uniform", "scope": "global"}),
    Choice("rates: sensitivity scan", reach="scanned"),
    Choice("rounds of 10 epochs, learning-rate rewinding", reach="restarts"),
    Choice("rounds of 10 epochs, adaptive linear restarts", reach="adaptive"),
    Choice("rounds of 10 epochs, fine-tuning at a tenth", reach="fine-tuning"),
    Choice("rounds of 10 epochs, weights rewound to epoch 1", reach="rewinding"),
]


@lru_cache(maxsize=1)
def mnist(folder: str) -> fp.datasets.Dataset:
    return fp.load_dataset("mnist", folder)


def run(job: tuple[Choice, int, str]) -> list[float]:
    """Held-out errors in %: dense, and at each level."""
    choice, seed, folder = job
    less, held_out = split(mnist(folder), HELD_OUT, seed)
    if choice.reach == WHOLE:
        recipe = replace(
            HAN2015.mnist, levels=[level for level in HAN2015.mnist.levels if level.compression <= LEVELS[-1]]
        )
        ends = {
            stage.compression: 100 * (1 - stage.trainer.evaluate(*held_out).accuracy)
            for stage in chain(recipe, less, seed)
        }
        return [ends[level] for level in (1, *LEVELS)]
    data = less.x_train, less.y_train
    trainer = fp.Trainer(
        fp.MLP([784, 300, 100, 10], seed=seed),
        learning_rate_schedule="cosine",
        **{"input_dropout": 0.15, "l2": 1e-4, "batch_size": 64, "restore_best": False, "seed": seed, **choice.trainer},
    )
    trainer.fit(*data, 1, learning_rate_schedule="constant")
    early = trainer.snapshot()
    trainer.fit(*data, DENSE - 1)

    def pruner(**settings: Any) -> fp.Pruner:
        return fp.Pruner(trainer, **{"layer_rates": "lamp", **choice.pruner, **settings})

    def errors() -> Iterator[float]:
        yield 100 * (1 - trainer.evaluate(*held_out).accuracy)
        for level in LEVELS:
            REACH[choice.reach](pruner, trainer, level, data, early)
            yield 100 * (1 - trainer.evaluate(*held_out).accuracy)

    return list(errors())


def main(folder: str) -> None:
    started = time.perf_counter()
    jobs = [(choice, seed, folder) for choice in CHOICES for seed in SEEDS]
    with ProcessPoolExecutor(count_threads("n_jobs", -1), get_context("spawn")) as pool:
        errors = list(pool.map(run, jobs))
    print("Held-out error in %, mean ± standard deviation over seeds " + ", ".join(map(str, SEEDS)) + ".\n")
    print(f"| changed | dense | {' | '.join(f'{level}x' for level in LEVELS)} |\n| --- |{' --- |' * (1 + len(LEVELS))}")
    for i, choice in enumerate(CHOICES):
        part = zip(*errors[i * len(SEEDS) : (i + 1) * len(SEEDS)], strict=True)
        cells = [f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}" for values in part]
        print(f"| {choice.name} | {' | '.join(cells)} |", flush=True)
    print(f"\nDense training: {DENSE} epochs, each level: {ROUNDS * LENGTH}; but not in the first row.")
    print(f"{time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main(sys.argv[1])
