"""How good are networks that are sparse from the first step? MNIST, 784-300-100-10, one weight in ten, ten seeds.

Static: a random graph that stays. SET and RigL: half a cosine of drops, once an epoch. Gradual: a dense network pruned
over the epochs. All make the same 40 epochs under one cosine. The last state counts; test data choose nothing.

    python bench/growers.py FILE     # writes a Markdown table, 20 minutes on one core
"""

import statistics
import sys
from pathlib import Path

from harness import MNIST

import fastprune as fp

SIZES, SPARSITY, EPOCHS, SEEDS = [784, 300, 100, 10], 0.9, 40, range(10)


def error(method, seed, data):
    """Test error in percent."""
    density = 1.0 if method == "gradual" else 1 - SPARSITY
    network = fp.MLP(SIZES, density=density, seed=seed)
    trainer = fp.Trainer(network, learning_rate_schedule="cosine", restore_best=False, seed=seed)
    if method == "static":
        trainer.fit(data.x_train, data.y_train, EPOCHS)
    else:
        schedule = fp.schedules.ConstantSparsity(network.sparsity, rounds=EPOCHS)
        if method == "gradual":
            schedule = [*fp.schedules.PolynomialDecay(0.0, SPARSITY, rounds=EPOCHS * 3 // 4), *[SPARSITY] * 10]
        grower = {"SET": "random", "RigL": "gradient"}.get(method)
        pruner = fp.Pruner(trainer, schedule=schedule, grower=grower, seed=seed)
        pruner.run(data.x_train, data.y_train, 1, restarts=False)
    assert network.live_weights == round((1 - SPARSITY) * network.total_weights)
    return 100 * (1 - trainer.evaluate(data.x_test, data.y_test).accuracy)


def main(path):
    data = fp.load_dataset("mnist", data_dir=MNIST)
    lines = ["| 10 % of 784-300-100-10 | test error, % | behind static |", "| --- | --- | --- |"]
    static = []
    for method in ("static", "SET", "RigL", "gradual"):
        errors = [error(method, seed, data) for seed in SEEDS]
        static = static or errors
        gains = [one - other for one, other in zip(errors, static, strict=True)]
        row = [f"{statistics.mean(part):.2f} ± {statistics.stdev(part):.2f}" for part in (errors, gains)]
        lines.append(f"| {method} | {row[0]} | {row[1] if errors is not static else ''} |")
        print(lines[-1], flush=True)
    Path(path).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
