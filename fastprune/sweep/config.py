"""The settings of a sweep: one dataclass, from which the command's flags, its help and the run's name are made."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastprune import check, schedules
from fastprune.network import ACTIVATIONS
from fastprune.rules import CRITERIA, LAYER_RATES, RULES, SCOPES, Amount
from fastprune.schedules import LEARNING_RATES
from fastprune.trainer import OPTIMIZERS

PRESETS = ("han2015",)
PRESET_TAKES = ("seeds", "data_dir")


def _setting(
    default: Any, help: str, parse: Callable[[str], Any] = str, choices: Sequence[str] | None = None, group: str = ""
) -> Any:
    """A field with what its flag needs; `group` opens a group of flags in the help."""
    metadata = {"help": help, "parse": parse, "choices": choices, "group": group}
    return dataclasses.field(default=default, metadata=metadata)


def integers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between."""
    return tuple(int(part) for part in text.split(",") if part.strip())


@dataclass(frozen=True)
class Config:
    """What a sweep is to do; the fields are the command's flags."""

    dataset: str = _setting(
        "digits",
        "digits, mnist, breast_cancer, wine, binary_images, or a path ending in .npz or .csv (classes only)",
        group="data",
    )
    data_dir: str | None = _setting(None, "folder of the MNIST files (else FASTPRUNE_DATA, the cache, a download)")
    seeds: tuple[int, ...] = _setting((0, 1, 2, 3, 4), "seeds to run, with commas between", integers)
    holdout: float = _setting(0.1, "fraction of the training samples that only choose the best network", float)
    max_drop: float = _setting(0.01, "accuracy on these that the best network may lose against dense ones", float)
    hidden: tuple[int, ...] = _setting(
        (300, 100), "units of the hidden layers, with commas between", integers, group="network and dense training"
    )
    activation: str = _setting("relu", "of the hidden layers", choices=list(ACTIVATIONS))
    epochs: int = _setting(30, "epochs of dense training", int)
    optimizer: str = _setting("sgd", "how weights are updated", choices=list(OPTIMIZERS))
    learning_rate: float = _setting(0.1, "at the start of dense training", float)
    learning_rate_schedule: str = _setting(
        "cosine", "fall of the learning rate in each training", choices=list(LEARNING_RATES)
    )
    momentum: float = _setting(0.9, "of the updates", float)
    batch_size: int = _setting(64, "samples of a step; 0 for all at once", int)
    l1: float = _setting(0.0, "L1 decay of the weights", float)
    l2: float = _setting(1e-4, "L2 decay of the weights", float)
    input_dropout: float = _setting(0.0, "fraction of features dropped in training", float)
    dropout: float = _setting(0.0, "fraction of hidden units dropped, less as their layer thins (Eq. 3)", float)
    rule: str = _setting("percentile", "how a round's number becomes a mask", choices=list(RULES), group="rounds")
    rounds: int = _setting(22, "rounds of pruning", int)
    q: float = _setting(20.0, "rule percentile: the percentile of the live weights that goes in the first round", float)
    delta: float = _setting(0.0, "rule percentile: growth of q, q[i+1] = q[i] + delta * i", float)
    quality: float = _setting(0.5, "rule std: threshold in standard deviations of the live weights", float)
    sparsity: float = _setting(0.98, "rule sparsity: the last round's, reached by a cubic schedule", float)
    scope: str = _setting("global", "rank the weights of each layer alone, or all together", choices=SCOPES)
    criterion: str = _setting("magnitude", "what weights are ranked by", choices=CRITERIA)
    layer_rates: str = _setting("uniform", "rule sparsity, scope layer: what each layer keeps", choices=LAYER_RATES)
    ignored_layers: tuple[int, ...] = _setting((), "layers left whole, from 0; =-1 is the output layer", integers)
    min_keep: int = _setting(0, "live weights that each layer keeps at least", int)
    retrain_epochs: int = _setting(15, "epochs of retraining in each round", int)
    retrain_learning_rate: float = _setting(0.1, "at the start of each retraining", float)

    def __post_init__(self) -> None:
        """Refuse seeds that are none, and what another rule would ignore."""
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected at least one, none of them twice, got {self.seeds}")
        for seed in self.seeds:
            check.integer("seeds", seed, 0, 2**64 - 1)
        for name, rule in {"q": "percentile", "delta": "percentile", "quality": "std", "sparsity": "sparsity"}.items():
            given = getattr(self, name) != self.__dataclass_fields__[name].default
            if given and self.rule != rule:
                raise ValueError(f"{name}: expected --rule {rule} with it, got --rule {self.rule}")

    @property
    def schedule(self) -> Sequence[Amount]:
        """The numbers of the rounds, for the rule."""
        if self.rule == "percentile":
            return schedules.PercentileRamp(self.q, self.delta, self.rounds)
        if self.rule == "sparsity":
            return schedules.PolynomialDecay(0.0, self.sparsity, self.rounds)
        return [self.quality] * self.rounds

    @property
    def name(self) -> str:
        """The data set and all settings that differ from the defaults, fit for a folder's name."""
        parts = ["_".join(part for part in Path(self.dataset).parts if part not in ("/", ".."))]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default and field.name not in ("dataset", "data_dir"):
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                parts.append(f"{field.name}={text}")
        return "-".join(parts)


@dataclass(frozen=True)
class Command:
    """What the command line asks for: the sweep, where its results go, and how much is shown."""

    config: Config
    preset: str | None
    full: bool
    out: Path
    quiet: bool


def parse(arguments: Sequence[str] | None) -> Command:
    """Read the command line (that of the process, if None).

    Raises
    ------
    SystemExit
        With code 2, if it is no command line of this program; with code 0, once help is shown.
    ValueError
        If its options do not go together.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastprune.sweep",
        usage="python -m fastprune.sweep [options]",
        description="Train a dense network, prune its small weights, retrain, and repeat; over several seeds. Without "
        "arguments: the digits data set, 64-300-100-10, to 99 % sparsity, in some seconds.",
        epilog="Example: python -m fastprune.sweep --dataset mnist --data-dir bench/mnist --seeds 0 --q 30 --rounds 12",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    flags: argparse._ActionsContainer = parser
    for field in dataclasses.fields(Config):
        setting = field.metadata
        if setting["group"]:
            flags = parser.add_argument_group(setting["group"])
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        flags.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=setting["parse"],
            default=field.default,
            choices=setting["choices"],
            metavar=None if setting["choices"] else "",
            help=setting["help"] + (f" (default: {default})" if default not in (None, "") else ""),
        )
    flags = parser.add_argument_group(
        "studies with settings of their own, of which --seeds and --data-dir can be given"
    )
    flags.add_argument(
        "--preset", choices=PRESETS, help="han2015: the paper's tables and more, on MNIST and small sets"
    )
    flags.add_argument("--full", action="store_true", help="also its figures, and the baselines that these need")
    flags = parser.add_argument_group("results")
    flags.add_argument(
        "--out", type=Path, metavar="", help="folder of the results (default: runs/<what differs from the defaults>)"
    )
    flags.add_argument("--quiet", action="store_true", help="show nothing but errors")
    settings = vars(parser.parse_args(arguments))
    out, quiet, preset, full = (settings.pop(name) for name in ("out", "quiet", "preset", "full"))
    config = Config(**settings)
    if full and preset is None:
        raise ValueError("full: expected a preset with it, got none")
    if preset is not None:
        given = [field.name for field in dataclasses.fields(Config) if getattr(config, field.name) != field.default]
        if other := [name for name in given if name not in PRESET_TAKES]:
            raise ValueError(f"preset: expected its own settings to stand, got --{other[0].replace('_', '-')}")
    return Command(config, preset, full, out or Path("runs", preset or config.name), quiet)
