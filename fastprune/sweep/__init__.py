"""Sweeps: train, prune and retrain over seeds and a grid of settings; `python -m fastprune.sweep`, or `run_sweep`."""

from typing import TYPE_CHECKING

from fastprune.lazy import attach

__all__ = ["Sweep", "run_sweep"]

if TYPE_CHECKING:
    from fastprune.sweep.config import Sweep
    from fastprune.sweep.run import run_sweep
else:
    __getattr__, __dir__ = attach(__name__, {"config": ["Sweep"], "run": ["run_sweep"]})
