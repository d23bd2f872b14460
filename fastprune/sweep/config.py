"""The settings of a sweep: typed once, from which flags, the keys of a file, help, checks and names are made."""

import argparse
import dataclasses
import difflib
import functools
import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fastprune import check, schedules
from fastprune.base import ACTIVATIONS
from fastprune.criteria import CRITERIA
from fastprune.files import regular
from fastprune.records import Amount
from fastprune.rules import RULES
from fastprune.schedules import LEARNING_RATES
from fastprune.selection import LAYER_RATES, SCOPES
from fastprune.spans import OPTIMIZERS

SCHEDULES: dict[str, Callable[[float, int], Sequence[Amount]]] = {
    "polynomial": lambda sparsity, rounds: schedules.PolynomialDecay(0.0, sparsity, rounds),
    "linear": lambda sparsity, rounds: schedules.LinearSparsity(0.0, sparsity, rounds),
    "geometric": lambda sparsity, rounds: schedules.GeometricDecay(0.0, sparsity, rounds),
    "constant": schedules.ConstantSparsity,
}
PRESETS = ("han2015",)
PRESET_TAKES = ("seeds", "data_dir", "out")

_MOST = 1_000_000  # values of a range
_BITS = 64  # of a whole number: TOML has no bound, and what is far beyond cannot even be shown
_NAME = 255  # bytes of a folder's name, at the most
_DIGITS = 12  # of a name: two of a million cells are alike once in 500 sweeps


@dataclass(frozen=True)
class Kind:
    """How the values of a setting are written."""

    name: str
    parse: Callable[[str], Any]  # raises ValueError
    native: Callable[[Any], Any] | None = None  # from what a file holds instead of text; None if it is none
    ranges: bool = False  # whether start:stop:count stands for several


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError(text)
    text.encode()  # a ValueError, if it is no Unicode: no file of a sweep could hold it
    return text


def _whole(value: Any) -> int | None:
    known = isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= _BITS
    return value if known else None


def _real(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return None


def _list(value: Any) -> tuple[int, ...] | None:
    whole = isinstance(value, list | tuple) and all(_whole(part) is not None for part in value)
    return tuple(value) if whole else None


def _dashed(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    if not re.fullmatch(r"-?\d+(--?\d+)*", text):
        raise ValueError(text)
    return tuple(int(part) for part in re.findall(r"(?:^|-)(-?\d+)", text))


TEXT = Kind("text", _text)
WHOLE = Kind("whole numbers", int, _whole, ranges=True)
REAL = Kind("numbers", float, _real, ranges=True)
LIST = Kind("whole numbers with dashes between (in a file also [[300, 100]]), or none", _dashed, _list)


def _setting(
    default: Any,
    kind: Kind,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    group: str = "",
    key: str = "",
    only: Mapping[str, Sequence[str]] | None = None,
    pruning: bool = False,
) -> Any:
    """A field, and what is to be known of it.

    `group` opens a group of flags in the help; `key` is the setting's name in flags and files, if not the field's;
    `only` names the settings with which alone it does anything; dense training is the same whatever `pruning` ones say.
    """
    metadata = {"kind": kind, "help": help, "choices": choices, "group": group, "key": key, "only": only or {}}
    return dataclasses.field(default=default, metadata=metadata | {"pruning": pruning})


_prunes = functools.partial(_setting, pruning=True)
_PERCENTILE, _STD, _SPARSITY = ({"rule": (rule,)} for rule in ("percentile", "std", "sparsity"))


@dataclass(frozen=True)
class Settings:
    """The settings of one cell: of one network, from its first weights to its last round."""

    dataset: str = _setting(
        "digits",
        TEXT,
        "digits, mnist, breast_cancer, wine, binary_images, or a path ending in .npz or .csv (classes only)",
        group="the grid: what to train and prune; each of these takes several values, with commas between, and numbers "
        "also a range, start:stop:count",
    )
    holdout: float = _setting(0.1, REAL, "fraction of the training samples that only choose the best network")
    hidden: tuple[int, ...] = _setting((300, 100), LIST, "units of the hidden layers: 300-100 is one network")
    activation: str = _setting("relu", TEXT, "of the hidden layers", choices=list(ACTIVATIONS))
    epochs: int = _setting(30, WHOLE, "epochs of dense training")
    optimizer: str = _setting("sgd", TEXT, "how weights are updated", choices=list(OPTIMIZERS))
    learning_rate: float = _setting(0.1, REAL, "at the start of dense training")
    learning_rate_schedule: str = _setting(
        "cosine", TEXT, "fall of the learning rate in each training", choices=list(LEARNING_RATES)
    )
    momentum: float = _setting(0.9, REAL, "of the updates")
    batch_size: int = _setting(64, WHOLE, "samples of a step; 0 for all at once")
    l1: float = _setting(0.0, REAL, "L1 decay of the weights")
    l2: float = _setting(1e-4, REAL, "L2 decay of the weights")
    input_dropout: float = _setting(0.0, REAL, "fraction of features dropped in training")
    dropout: float = _setting(0.0, REAL, "fraction of hidden units dropped, less as their layer thins (Eq. 3)")
    rule: str = _prunes("percentile", TEXT, "how a round's number becomes a mask", choices=list(RULES))
    rounds: int = _prunes(22, WHOLE, "rounds of pruning")
    q: float = _prunes(
        20.0, REAL, "rule percentile: that of the live weights that goes in the first round", only=_PERCENTILE
    )
    delta: float = _prunes(0.0, REAL, "rule percentile: growth of q, q[i+1] = q[i] + delta * i", only=_PERCENTILE)
    quality: float = _prunes(0.5, REAL, "rule std: threshold in standard deviations of the live weights", only=_STD)
    final_sparsity: float = _prunes(0.98, REAL, "rule sparsity: the last round's", key="sparsity", only=_SPARSITY)
    schedule: str = _prunes("polynomial", TEXT, "rule sparsity: the way there", choices=list(SCHEDULES), only=_SPARSITY)
    scope: str = _prunes("global", TEXT, "rank the weights of each layer alone, or all together", choices=SCOPES)
    criterion: str = _prunes(
        "magnitude",
        TEXT,
        "rules percentile, sparsity: what weights are ranked by",
        choices=list(CRITERIA),
        only={"rule": ("percentile", "sparsity")},
    )
    layer_rates: str = _prunes(
        "uniform",
        TEXT,
        "rule sparsity, scope layer: what each layer keeps",
        choices=LAYER_RATES,
        only={**_SPARSITY, "scope": ("layer",)},
    )
    ignored_layers: tuple[int, ...] = _prunes((), LIST, "layers left whole, from 0; =-1 is the output layer")
    min_keep: int = _prunes(0, WHOLE, "live weights that each layer keeps at least")
    retrain_epochs: int = _prunes(15, WHOLE, "epochs of retraining in each round")
    retrain_learning_rate: float = _prunes(0.1, REAL, "at the start of each retraining")
    max_drop: float = _prunes(0.01, REAL, "held-out accuracy that the best network may lose against the dense one")
    seed: int = _setting(0, WHOLE, "seeds of weights, order of samples and dropout", key="seeds")

    @property
    def values(self) -> dict[str, Any]:
        """All of them, by name."""
        kept = vars(self)
        return {name: kept[name] for name in FIELDS}

    @functools.cached_property
    def _changed(self) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if value != FIELDS[name].default}

    @functools.cached_property
    def digest(self) -> str:
        """The cell's name: a digest of what differs from the defaults, so that new settings leave old names alone."""
        return _digest(self._changed)

    @functools.cached_property
    def dense_digest(self) -> str:
        """The name of its dense network: that of a cell of no rounds, by what it depends on."""
        return _digest({name: value for name, value in self._changed.items() if name in DENSE} | {"rounds": 0})

    @property
    def amounts(self) -> Sequence[Amount]:
        """The numbers of the rounds, for the rule."""
        if self.rule == "percentile":
            return schedules.PercentileRamp(self.q, self.delta, self.rounds)
        if self.rule == "sparsity":
            return SCHEDULES[self.schedule](self.final_sparsity, self.rounds)
        return [self.quality] * self.rounds


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
DENSE = [name for name, field in FIELDS.items() if not field.metadata["pruning"]]


@dataclass(frozen=True)
class Sweep:
    """What a sweep is to do, where its files go, and by how many workers.

    Attributes
    ----------
    grid : dict
        The values given of each setting, by the name of the field of `Settings`.
    data_dir, out, jobs, threads, cluster
        See the command's help.
    """

    grid: Mapping[str, tuple[Any, ...]]
    data_dir: str | None = _setting(
        None,
        TEXT,
        "folder of the MNIST files (else FASTPRUNE_DATA, the cache, a download)",
        group="where, and on what",
    )
    out: str | None = _setting(None, TEXT, "folder of the results (default: runs/<data set, digest of the grid>)")
    jobs: int = _setting(-1, WHOLE, "processes that run cells; -1 for one a core")
    threads: int | None = _setting(None, WHOLE, "threads of each (default: its share of the cores)")
    cluster: str | None = _setting(None, TEXT, "run on the Dask cluster whose scheduler is at tcp://HOST:PORT instead")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Sweep":
        """Check values of settings, each one or a list of them, text as on the command line.

        Raises
        ------
        ValueError
            If there is no such setting, or the values are not as described.
        """
        grid = {KEYS[key]: _values(key, FIELDS[KEYS[key]], given) for key, given in values.items() if key in KEYS}
        options = {}
        for key, given in values.items():
            if key in OPTIONS:
                options[key], *more = _values(key, OPTIONS[key], [given])
                if more:
                    raise ValueError(f"{key}: expected one value, got {given!r}")
            elif key not in KEYS:
                raise ValueError(f"{key}: expected the name of a setting{_nearest(key, [*KEYS, *OPTIONS])}")
        sweep = cls(grid, **options)
        sweep._check()
        return sweep

    @functools.cached_property
    def cells(self) -> list[Settings]:
        """The cells of the grid, the seeds of one network side by side.

        A setting that does nothing with the cell's others (say, `q` with the rule "std") has its default there: such
        cells would be the same ones several times over.
        """
        axes = [self.axis(name) for name in FIELDS]
        cells: dict[Settings, None] = {}
        for values in itertools.product(*axes):
            given = dict(zip(FIELDS, values, strict=True))
            used = {name: value for name, value in given.items() if _applies(name, given)}
            cells[Settings(**used)] = None
        return list(cells)

    @property
    def varying(self) -> list[str]:
        """The settings, but the seed, of which several values are given."""
        return [name for name in FIELDS if name != "seed" and len(self.axis(name)) > 1]

    @property
    def folder(self) -> Path:
        """Where its files go."""
        if self.out is not None:
            return Path(self.out)
        changed = {name: values for name in FIELDS if (values := self.axis(name)) != _default_axis(name)}
        names = "-".join("_".join(p for p in Path(name).parts if p not in ("/", "..")) for name in self.axis("dataset"))
        plain = changed.keys() <= {"dataset"} and len(names.encode()) <= _NAME
        return Path("runs", names if plain else f"{names[:60]}-{_digest(changed)}")

    def to_toml(self) -> str:
        """The sweep as a file for `--config`: what was given, but for the folder, in which this stands."""
        lines: dict[str, Any] = {FIELDS[name].metadata["key"] or name: values for name, values in self.grid.items()}
        lines |= {
            name: getattr(self, name)
            for name, field in OPTIONS.items()
            if name != "out" and getattr(self, name) != field.default
        }
        return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in lines.items())

    def label(self, cell: Settings, without: str = "") -> str:
        """What tells a cell from the others, but for its seed, and for the setting `without`."""
        names = [name for name in self.varying if name != without and _applies(name, vars(cell))]
        return " ".join(f"{FIELDS[name].metadata['key'] or name}={written(getattr(cell, name))}" for name in names)

    def axis(self, name: str) -> tuple[Any, ...]:
        """The values of a setting."""
        return self.grid.get(name, _default_axis(name))

    def _check(self) -> None:
        """Refuse values that no cell would come to use, and data sets that could be taken for one another."""
        for name, values in self.grid.items():
            field = FIELDS[name]
            for other, names in field.metadata["only"].items():
                if any(value != field.default for value in values) and not set(names) & set(self.axis(other)):
                    came = ", ".join(map(str, self.axis(other)))
                    key = field.metadata["key"] or name
                    raise ValueError(f"{key}: expected --{other} {' or '.join(names)} with it, got --{other} {came}")
        for seed in self.axis("seed"):
            check.integer("seeds", seed, 0, 2**64 - 1)
        names = [Path(name).stem for name in self.axis("dataset")]
        if len(set(names)) < len(names):
            raise ValueError(f"dataset: expected different names, got {', '.join(self.axis('dataset'))}")
        if self.jobs < 1 and self.jobs != -1:
            raise ValueError(f"jobs: expected a number of processes, or -1 for one a core, got {self.jobs}")
        if self.jobs != -1 and self.cluster is not None:
            raise ValueError(f"jobs: expected no cluster with it, got {self.cluster!r}")
        if self.threads is not None:
            check.integer("threads", self.threads, 1)


OPTIONS = {field.name: field for field in dataclasses.fields(Sweep) if field.metadata}
KEYS = {(field.metadata["key"] or name): name for name, field in FIELDS.items()}


def _default_axis(name: str) -> tuple[Any, ...]:
    return (0, 1, 2, 3, 4) if name == "seed" else (FIELDS[name].default,)


def _applies(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting does anything with these others."""
    return all(settings[other] in names for other, names in FIELDS[name].metadata["only"].items())


def written(value: Any) -> str:
    """A value as the command line takes it."""
    return ("-".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 1, 0.5)
    return f"; the nearest is {close[0]}" if close else ""


def _values(key: str, field: Any, given: Any) -> tuple[Any, ...]:
    """The values that are given of a setting, each once."""
    kind: Kind = field.metadata["kind"]

    def refused(value: Any) -> ValueError:
        ranges = " or start:stop:count (equal steps, both ends)" if kind.ranges else ""
        return ValueError(f"{key}: expected {kind.name}{ranges}, got {check.shown(value)}")

    values: list[Any] = []
    for entry in given if isinstance(given, list | tuple | range) else [given]:
        if isinstance(entry, str):
            for part in (part.strip() for part in entry.split(",")):
                try:
                    values += _range(kind, part) if kind.ranges and ":" in part else [kind.parse(part)]
                except ValueError:
                    raise refused(part) from None
        else:
            native = kind.native(entry) if kind.native else None
            if native is None:
                raise refused(entry)
            values.append(native)
    if field.metadata["choices"]:
        for value in values:
            check.one_of(key, value, field.metadata["choices"])
    if kind is REAL:
        values = [check.number(key, value, "(-inf, inf)") + 0.0 for value in values]  # -0.0 is 0.0
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{key}: expected at least one value, none of them twice, got {given!r}")
    return tuple(values)


def _range(kind: Kind, text: str) -> list[Any]:
    """What start:stop:count stands for: `count` values at equal distances, both ends among them."""
    start, stop, count = text.split(":")
    first, last, number = kind.parse(start), kind.parse(stop), int(count)
    if not 1 <= number <= _MOST or not math.isfinite(last - first):
        raise ValueError(text)
    if kind is REAL:
        # 0.3, where the nearest sum is 0.30000000000000004
        return [float(f"{value:.12g}") for value in np.linspace(first, last, number)]
    step, rest = divmod(last - first, max(1, number - 1))
    if rest:
        raise ValueError(text)
    return [first + step * i for i in range(number)]


@dataclass(frozen=True)
class Command:
    """What the command line asks for: the sweep or the preset, and how much is shown."""

    sweep: Sweep
    preset: str | None
    full: bool
    dry_run: bool
    quiet: bool

    @property
    def out(self) -> Path:
        """The folder of the results."""
        return Path("runs", self.preset) if self.preset and self.sweep.out is None else self.sweep.folder


class _Parser(argparse.ArgumentParser):
    """Raises what it would have printed with the usage, and names the option nearest to an unknown one."""

    def error(self, message: str) -> NoReturn:
        if unknown := re.fullmatch(r"unrecognized arguments: (--[^ =]+).*", message):
            message += _nearest(unknown[1], list(self._option_string_actions))
        raise ValueError(message)


def parse(arguments: Sequence[str] | None) -> Command:
    """Read the command line (that of the process, if None), and the file it names.

    Raises
    ------
    SystemExit
        With code 0, once help is shown.
    ValueError
        If it is no command line of this program, or its settings are not as described.
    """
    parser = _Parser(
        prog="python -m fastprune.sweep",
        usage="python -m fastprune.sweep [options]\n       python -m fastprune.sweep report FOLDER",
        description="Train dense networks, prune their small weights, retrain, and repeat: over seeds, and over a grid "
        "of settings. Without arguments: the digits data set, 64-300-100-10, five seeds, to 99 % sparsity, in some "
        "seconds. A command that was stopped goes on where it was when it is repeated. 'report FOLDER' makes the "
        "results and the report of a sweep again.",
        epilog="Example: python -m fastprune.sweep --dataset mnist --data-dir bench/mnist --rule percentile,std --q 20 "
        "--quality 0.5:1:3 --seeds 0:2:3",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
        allow_abbrev=False,
    )
    flags: argparse._ActionsContainer = parser
    for name, field in (FIELDS | OPTIONS).items():
        setting = field.metadata
        if setting["group"]:
            flags = parser.add_argument_group(setting["group"])
        defaults = _default_axis(name) if name in FIELDS else (field.default,)
        choices = f": {', '.join(setting['choices'])}" if setting["choices"] else ""
        default = "" if defaults == (None,) else f" (default: {','.join(map(written, defaults))})"
        flags.add_argument(
            f"--{(setting['key'] or name).replace('_', '-')}",
            dest=setting["key"] or name,
            default=argparse.SUPPRESS,
            metavar="",
            help=(setting["help"] + choices + default).replace("%", "%%"),
        )
    flags.add_argument("--config", type=Path, metavar="", help="a TOML file of these settings; a flag overrides it")
    flags.add_argument("--dry-run", action="store_true", help="show the cells and how far they are, and do nothing")
    flags.add_argument("--quiet", action="store_true", help="show nothing but errors")
    flags = parser.add_argument_group("studies with settings of their own, but for --seeds, --data-dir and --out")
    flags.add_argument(
        "--preset", choices=PRESETS, help="han2015: the paper's tables and more, on MNIST and small sets"
    )
    flags.add_argument("--full", action="store_true", help="also its figures, and the baselines that these need")
    given = vars(parser.parse_args(arguments))
    quiet, preset, full, dry_run, file = (given.pop(key) for key in ("quiet", "preset", "full", "dry_run", "config"))
    if full and preset is None:
        raise ValueError("full: expected a preset with it, got none")
    if preset is not None:
        other = [key for key in given if key not in PRESET_TAKES] + ["config"] * (file is not None)
        other += ["dry_run"] * dry_run
        if other:
            raise ValueError(f"preset: expected its own settings to stand, got --{other[0].replace('_', '-')}")
    return Command(Sweep.of({**(read_toml(file) if file else {}), **given}), preset, full, dry_run, quiet)


def read_toml(file: Path) -> dict[str, Any]:
    """The settings of a TOML file; their names are checked later."""
    try:
        return tomllib.loads(regular(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"config: expected a TOML file of settings, got {str(file)!r}: {error}") from error
