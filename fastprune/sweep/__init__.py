"""Sweeps: train, prune and retrain over seeds and a grid of settings; `python -m fastprune.sweep`, or `run_sweep`."""

from fastprune.sweep.config import Settings, Sweep
from fastprune.sweep.run import run_sweep

__all__ = ["Settings", "Sweep", "run_sweep"]
