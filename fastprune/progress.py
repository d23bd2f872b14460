"""The progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from fastprune.records import Progress

Callback = Callable[[Progress], bool | None]
"""Called by `fit` and `run` with their progress; returning True ends them."""


def ends(answer: object) -> bool:
    """Whether a callback returned True: Python's, or NumPy's (from comparing arrays)."""
    return isinstance(answer, bool | np.bool_) and bool(answer)


@contextmanager
def shown(progress: bool, callback: Callback | None) -> Iterator[Callback | None]:
    """Yield the callback, or with `progress` one that also shows a bar (see `Trainer.fit` and `Pruner.run`)."""
    if not progress:
        yield callback
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn  # imported here because it takes 0.1 s
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(10), TextColumn("{task.fields[said]}"), TimeRemainingColumn()
    bar = Bar(*columns)
    try:  # not `with bar`: Ctrl-C during its start would leave the bar behind
        bar.start()
        task = bar.add_task("", total=None, said="")

        def told(now: Progress) -> bool | None:
            part, where, total = now.step / now.steps, f"epoch {min(now.epoch + 1, now.epochs)}/{now.epochs}", 1
            if now.round is not None and now.rounds is not None:
                part, total, where = now.round - 1 + part, now.rounds, f"round {now.round}/{now.rounds} {where}"
            bar.update(task, description=where, completed=part, total=total, said=_said(now))
            return None if callback is None else callback(now)

        yield told
    finally:
        bar.stop()


def _said(now: Progress) -> str:
    """Format loss, accuracy, held-out accuracy (or loss) and steps per second, to fit terminals of 80 columns."""
    said = [f"loss {now.loss:.4f}"]
    if now.train is not None and now.train.accuracy is not None:
        said.append(f"acc {now.train.accuracy:.3f}")
    if now.validation is not None:
        of_validation = now.validation.loss if now.validation.accuracy is None else now.validation.accuracy
        said.append(f"val {of_validation:.3f}")
    pace = now.step / now.seconds if now.seconds else 0.0
    return " ".join([*said, f"{pace:.0f}/s"])
