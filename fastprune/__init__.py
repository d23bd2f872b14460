"""Train neural networks on the CPU, prune their small weights, retrain, repeat."""

from typing import TYPE_CHECKING

from fastprune.lazy import attach

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "Dataset",
    "DivergenceError",
    "Epoch",
    "Evaluation",
    "Event",
    "FrozenMLP",
    "History",
    "Progress",
    "PruneRecord",
    "Pruner",
    "RoundRecord",
    "Scores",
    "Sensitivity",
    "State",
    "Trainer",
    "TrainingWarning",
    "load",
    "load_dataset",
    "make_binary_images",
    "schedules",
]

if TYPE_CHECKING:
    from fastprune import schedules
    from fastprune.datasets import Dataset, load_dataset, make_binary_images
    from fastprune.evaluation import Evaluation
    from fastprune.frozen import FrozenMLP
    from fastprune.network import MLP, load
    from fastprune.pruner import Event, Pruner, PruneRecord, RoundRecord, Scores
    from fastprune.sensitivity import Sensitivity
    from fastprune.state import State
    from fastprune.trainer import DivergenceError, Epoch, History, Progress, Trainer, TrainingWarning
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "schedules": [],
            "datasets": ["Dataset", "load_dataset", "make_binary_images"],
            "evaluation": ["Evaluation"],
            "frozen": ["FrozenMLP"],
            "network": ["MLP", "load"],
            "pruner": ["Event", "PruneRecord", "Pruner", "RoundRecord", "Scores"],
            "sensitivity": ["Sensitivity"],
            "state": ["State"],
            "trainer": ["DivergenceError", "Epoch", "History", "Progress", "Trainer", "TrainingWarning"],
        },
    )
