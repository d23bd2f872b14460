from fastprune import schedules
from fastprune.network import MLP, load
from fastprune.trainer import Trainer
