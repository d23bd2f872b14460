"""Train neural networks on the CPU, prune their small weights, retrain them, and repeat."""

from typing import TYPE_CHECKING

from fastprune.lazy import attach

__version__ = "0.2.0"

__all__ = [
    "MLP",
    "Dataset",
    "DivergenceError",
    "Epoch",
    "Evaluation",
    "Event",
    "FrozenMLP",
    "Gradient",
    "History",
    "Layer",
    "Progress",
    "PruneHistory",
    "PruneRecord",
    "Pruner",
    "RoundRecord",
    "Scores",
    "Sensitivity",
    "State",
    "Trainer",
    "TrainingWarning",
    "criteria",
    "load",
    "load_dataset",
    "make_binary_images",
    "schedules",
]

if TYPE_CHECKING:
    from fastprune import criteria, schedules
    from fastprune.base import Layer
    from fastprune.datasets import Dataset, load_dataset, make_binary_images
    from fastprune.frozen import FrozenMLP
    from fastprune.gradients import Gradient
    from fastprune.network import MLP, load
    from fastprune.pruner import Pruner
    from fastprune.records import (
        DivergenceError,
        Epoch,
        Evaluation,
        Event,
        History,
        Progress,
        PruneHistory,
        PruneRecord,
        RoundRecord,
        Scores,
        TrainingWarning,
    )
    from fastprune.sensitivity import Sensitivity
    from fastprune.state import State
    from fastprune.trainer import Trainer
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "criteria": [],
            "schedules": [],
            "base": ["Layer"],
            "datasets": ["Dataset", "load_dataset", "make_binary_images"],
            "frozen": ["FrozenMLP"],
            "gradients": ["Gradient"],
            "network": ["MLP", "load"],
            "pruner": ["Pruner"],
            "records": [
                "DivergenceError",
                "Epoch",
                "Evaluation",
                "Event",
                "History",
                "Progress",
                "PruneHistory",
                "PruneRecord",
                "RoundRecord",
                "Scores",
                "TrainingWarning",
            ],
            "sensitivity": ["Sensitivity"],
            "state": ["State"],
            "trainer": ["Trainer"],
        },
    )
