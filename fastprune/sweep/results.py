"""The results of a sweep: the rows of its CSV file and of its table, and the best network."""

import csv
import io
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fastprune.files import atomic_write
from fastprune.pruner import Scores
from fastprune.sweep.run import SeedResult

COLUMNS = [
    "seed",
    "round",
    "rule",
    "scope",
    "requested",
    "requested_sparsity",
    "sparsity",
    "prunable_sparsity",
    "compression",
    "live",
    "removed",
    "layer_sparsity",
    "effective_sparsity",
    "dead_units",
    *(
        f"{which}_{what}"
        for which in ("before_train", "before_test", "after_train", "after_validation", "after_test")
        for what in ("accuracy", "loss")
    ),
    "learning_rate",
    "epochs",
    "seconds",
    "failed",
    "events",
]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds, as fractions; a single seed has no deviation."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value a seed."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Row:
    """One round over the seeds that came through it, in test accuracies; round 0 is the dense network.

    `before` is None for the dense network, and all three are None if no seed came through. `difference` is `after`
    less the same seed's dense network.
    """

    round: int
    seeds: int
    failed: int
    sparsity: float
    before: Spread | None
    after: Spread | None
    difference: Spread | None

    @property
    def compression(self) -> float:
        """All weights by live weights."""
        return 1 / (1 - self.sparsity) if self.sparsity < 1 else float("inf")


def rows(results: Sequence[SeedResult]) -> list[Row]:
    """Make the table of a sweep. Failed rounds are counted, and left out of the means."""
    dense = {result.seed: _test(result.dense) for result in results}
    table = [Row(0, len(results), 0, 0.0, None, Spread.of(list(dense.values())), None)]
    for number in range(1, max((len(result.rounds) for result in results), default=0) + 1):
        reached = [(r.seed, r.rounds[number - 1]) for r in results if len(r.rounds) >= number]
        good = [(seed, record) for seed, record in reached if not record.failed]
        before = [_test(record.before) for _, record in good]
        after = [_test(record.after) for _, record in good]
        difference = [value - dense[seed] for (seed, _), value in zip(good, after, strict=True)]
        spreads = [Spread.of(values) if values else None for values in (before, after, difference)]
        sparsity = statistics.fmean(record.sparsity for _, record in good or reached)
        table.append(Row(number, len(good), len(reached) - len(good), sparsity, *spreads))
    return table


def write_csv(path: str | os.PathLike[str], results: Sequence[SeedResult]) -> None:
    """Write one line a seed and round, the dense network as round 0; empty fields are unknown or do not apply."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        network = result.best.network  # any of them: for the size
        writer.writerow(
            {
                "seed": result.seed,
                "round": 0,
                "sparsity": 0.0,
                "prunable_sparsity": 0.0,
                "compression": 1.0,
                "live": network.total_weights,
                "removed": 0,
                "layer_sparsity": ";".join(["0.0"] * network.layers),
                "effective_sparsity": 0.0,
                "dead_units": ";".join(["0"] * (network.layers - 1)),
                **_scores("after", result.dense),
                "seconds": result.dense_seconds,
                "failed": False,
            }
        )
        for record in result.rounds:
            writer.writerow(
                {
                    **{name: value for name, value in vars(record).items() if name in COLUMNS},
                    "seed": result.seed,
                    "compression": network.total_weights / record.live if record.live else float("inf"),
                    "layer_sparsity": ";".join(map(str, record.layer_sparsity)),
                    "dead_units": ";".join(map(str, record.dead_units)),
                    **_scores("before", record.before),
                    **_scores("after", record.after),
                    "events": ";".join(map(str, record.events)),
                }
            )
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _scores(when: str, scores: Scores | None) -> dict[str, float | None]:
    named = {} if scores is None else {which: value for which, value in vars(scores).items() if value is not None}
    return {
        f"{when}_{which}_{what}": getattr(evaluation, what)
        for which, evaluation in named.items()
        for what in ("accuracy", "loss")
    }


def _test(scores: Scores | None) -> float:
    assert scores is not None
    assert scores.test is not None
    assert scores.test.accuracy is not None
    return scores.test.accuracy
