"""Sweeps: train, prune and retrain over seeds and a grid of settings; `python -m fastprune.sweep`, or `run_sweep`."""

from fastprune.sweep.config import Sweep
from fastprune.sweep.run import run_sweep

__all__ = ["Sweep", "run_sweep"]
