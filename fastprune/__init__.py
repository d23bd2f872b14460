"""Train neural networks on the CPU, prune their small weights, retrain them, and repeat."""

from typing import TYPE_CHECKING

from fastprune.lazy import attach

__version__ = "0.2.0"

if TYPE_CHECKING:  # `as` tells type checkers that a name is public
    from fastprune import criteria as criteria
    from fastprune import export as export
    from fastprune import schedules as schedules
    from fastprune.base import Layer as Layer
    from fastprune.datasets import Dataset as Dataset
    from fastprune.datasets import load_dataset as load_dataset
    from fastprune.datasets import make_binary_images as make_binary_images
    from fastprune.frozen import FrozenMLP as FrozenMLP
    from fastprune.gradients import Gradient as Gradient
    from fastprune.network import MLP as MLP
    from fastprune.network import load as load
    from fastprune.pruner import Pruner as Pruner
    from fastprune.records import DivergenceError as DivergenceError
    from fastprune.records import Epoch as Epoch
    from fastprune.records import Evaluation as Evaluation
    from fastprune.records import Event as Event
    from fastprune.records import History as History
    from fastprune.records import Progress as Progress
    from fastprune.records import PruneHistory as PruneHistory
    from fastprune.records import PruneRecord as PruneRecord
    from fastprune.records import RoundRecord as RoundRecord
    from fastprune.records import Scores as Scores
    from fastprune.records import TrainingWarning as TrainingWarning
    from fastprune.sensitivity import Sensitivity as Sensitivity
    from fastprune.sharing import share_weights as share_weights
    from fastprune.sizes import FileSizes as FileSizes
    from fastprune.sizes import file_sizes as file_sizes
    from fastprune.state import State as State
    from fastprune.trainer import Trainer as Trainer
else:
    _NAMES = {
        "criteria": [],
        "export": [],
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
        "sharing": ["share_weights"],
        "sizes": ["FileSizes", "file_sizes"],
        "state": ["State"],
        "trainer": ["Trainer"],
    }
    __getattr__, __dir__ = attach(__name__, _NAMES)
    __all__ = [name for module, names in _NAMES.items() for name in names or [module]]
