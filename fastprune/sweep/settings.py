"""The settings of a cell, each defined once: flags, keys of files, help texts, checks and names are derived from it."""

import bisect
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastprune import check, schedules
from fastprune.base import ACTIVATIONS
from fastprune.criteria import CRITERIA
from fastprune.growers import GROWERS
from fastprune.network import INITIALIZATIONS
from fastprune.records import Amount
from fastprune.rounds import ADAPTIVE
from fastprune.rules import RULES
from fastprune.schedules import LEARNING_RATES
from fastprune.selection import LAYER_RATES, SCOPES
from fastprune.spans import OPTIMIZERS

SCHEDULES: dict[str, Callable[[float, float, int], Sequence[Amount]]] = {
    "polynomial": schedules.PolynomialDecay,
    "linear": schedules.LinearSparsity,
    "geometric": schedules.GeometricDecay,
    "constant": lambda _, sparsity, rounds: schedules.ConstantSparsity(sparsity, rounds),
}

_MOST = 1_000_000  # values in a range
_BITS = 64  # of a whole number: TOML has no limit, and Python refuses to print a much larger one
_DIGITS = 12  # of a digest: in a sweep of a million cells, two coincide with a probability of 1 in 500


@dataclass(frozen=True)
class Kind:
    """How the values of a setting are read."""

    name: str
    parse: Callable[[str], Any]  # raises ValueError
    native: Callable[[Any], Any] | None = None  # converts a value in a file that is not text; None if it is invalid
    ranges: bool = False  # whether start:stop:count means several values


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError(text)
    text.encode()  # raises a ValueError for lone surrogates, which no file of a sweep could hold
    return text


def _whole(value: Any) -> int | None:
    known = isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= _BITS
    return value if known else None


def _real(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer too large for a float
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


def _sparsity(text: str) -> float:
    """Parse a fraction or a compression: 12x is 1 - 1/12."""
    if not text.endswith("x"):
        return float(text)
    compression = float(text[:-1])
    if not compression >= 1:
        raise ValueError(text)
    return 1 - 1 / compression


def _or(kind: Kind, word: str, value: Any) -> Kind:
    """Extend a kind by a word that stands for `value`."""
    return dataclasses.replace(
        kind, name=f"{kind.name} or {word}", parse=lambda text: value if text == word else kind.parse(text)
    )


TEXT = Kind("text", _text)
FLAG = Kind("true or false", {"true": True, "false": False}.__getitem__, lambda v: v if isinstance(v, bool) else None)
WHOLE = Kind("whole numbers", int, _whole, ranges=True)
REAL = Kind("numbers", float, _real, ranges=True)
SPARSITY = Kind("numbers (or compressions: 12x)", _sparsity, _real, ranges=True)
LIST = Kind("whole numbers joined by dashes (in a file also [[300, 100]]), or none", _dashed, _list)
BITS = Kind(
    "whole numbers joined by dashes, or none", _dashed, lambda v: _list(v if isinstance(v, list | tuple) else [v])
)


def setting(
    default: Any,
    kind: Kind,
    help: str,
    choices: Iterable[str] | None = None,
    *,
    group: str = "",
    key: str = "",
    of: str = "",
    stage: bool = False,
    dense: bool = True,
    **only: str | bool | tuple[()],
) -> Any:
    """Make the field of a setting, with its description.

    `group` starts a group of flags in the help. `key` is the name in flags and files, if it is not the field's. `of` is
    the class that takes an argument of this name. `stage` says whether a stage may have its own value, and `dense`
    whether dense training depends on it. The other keywords are conditions: the setting applies only if these settings
    have one of these values (separated by |).
    """
    needed = {name: tuple(v.split("|")) if isinstance(v, str) else (v,) for name, v in only.items()}
    known = {"kind": kind, "help": help, "choices": choices and list(choices), "group": group, "key": key}
    return dataclasses.field(
        default=default, metadata=known | {"only": needed, "of": of, "stage": stage, "dense": dense}
    )


_trains = functools.partial(setting, of="Trainer", stage=True)
_runs = functools.partial(setting, stage=True, dense=False)
_number = functools.partial(_runs, prune=True, weight_bits=())
_prunes = functools.partial(_number, of="Pruner")

Stage = tuple[tuple[str, Any], ...]  # names and values of the settings that a stage changes


@dataclass(frozen=True)
class Settings:
    """The settings of one cell: for its dense training, and for each of its stages, which may change some."""

    dataset: str = setting(
        "digits",
        TEXT,
        "digits, mnist, fashion_mnist, breast_cancer, wine, binary_images, or a path ending in .npz or .csv (classes)",
        group="what to train (settings here and below take several values, separated by commas; numbers "
        "also take a range, start:stop:count; the sweep runs all combinations)",
    )
    holdout: float = setting(0.1, REAL, "fraction of training samples held out to choose the best network; 0 for none")
    hidden: tuple[int, ...] = setting((300, 100), LIST, "units of each hidden layer: 300-100 is one network")
    activation: str = setting("relu", TEXT, "activation of the hidden layers", ACTIVATIONS, of="MLP")
    initialization: str = setting("he", TEXT, "initial weights", INITIALIZATIONS, of="MLP")
    epochs: int = setting(30, WHOLE, "epochs of dense training", group="how to train")
    optimizer: str = setting("sgd", TEXT, "optimizer", OPTIMIZERS, of="Trainer")
    learning_rate: float = setting(0.1, REAL, "learning rate at the start of dense training", of="Trainer")
    learning_rate_schedule: str = _trains("cosine", TEXT, "how the rate falls in each training", LEARNING_RATES)
    momentum: float = _trains(0.9, REAL, "momentum; Adam's beta_1")
    nesterov: bool = _trains(False, FLAG, "Nesterov's momentum", optimizer="sgd")
    batch_size: int = _trains(64, WHOLE, "samples per step; 0 for all at once")
    l1: float = _trains(0.0, REAL, "L1 decay of the weights")
    l2: float = _trains(1e-4, REAL, "L2 decay of the weights")
    input_dropout: float = _trains(0.0, REAL, "fraction of features dropped: helps images, can hurt few features")
    dropout: float = _trains(0.0, REAL, "fraction of hidden units dropped in training")
    scale_dropout: bool = _trains(True, FLAG, "lower a layer's dropout as its weights are pruned (Eq. 3)")
    tolerance: float | None = _trains(None, _or(REAL, "none", None), "loss decrease below which training stops")
    patience: int = _trains(10, WHOLE, "epochs without such a decrease before training stops")
    restore_best: bool = _trains(True, FLAG, "end each training with its best state, not its last")
    prune: bool = _runs(
        True, FLAG, "false: train for as many epochs without pruning", group="how to prune and retrain", weight_bits=()
    )
    rule: str = _number("percentile", TEXT, "how a round's number (q, quality or sparsity) gives masks", RULES)
    rounds: int = _runs(22, WHOLE, "rounds of pruning")
    q: float = _number(20.0, REAL, "percent of live weights to prune in the first round", rule="percentile")
    delta: float = _number(0.0, REAL, "growth of q: q[i+1] = q[i] + delta * i", rule="percentile")
    quality: float = _number(0.5, REAL, "threshold in standard deviations of the live weights", rule="std")
    final_sparsity: float = _number(0.98, SPARSITY, "sparsity of the last round", key="sparsity", rule="sparsity")
    schedule: str = _number("polynomial", TEXT, "how sparsity rises over the rounds", SCHEDULES, rule="sparsity")
    scope: str = _prunes("global", TEXT, "rank weights within each layer, or all together", SCOPES)
    criterion: str = _prunes("magnitude", TEXT, "score to rank weights by", CRITERIA, rule="percentile|sparsity")
    layer_rates: str = _prunes("uniform", TEXT, "what each layer keeps", LAYER_RATES, rule="sparsity", scope="layer")
    ignored_layers: tuple[int, ...] = _prunes((), LIST, "layers not to prune, from 0; =-1 is the output layer")
    min_keep: int = _prunes(0, WHOLE, "minimum number of live weights in each layer")
    grower: str | None = _prunes(
        None, _or(TEXT, "none", None), "choice of weights to grow back", GROWERS, rule="sparsity", scope="layer"
    )
    drop_fraction: float = _prunes(
        0.3, REAL, "fraction of live weights that the grower replaces, falling to 0", grower="|".join(GROWERS)
    )
    weight_bits: tuple[int, ...] = _runs(
        (), BITS, "bits of the weights that a stage of one round shares in place of pruning: one number, or one a layer"
    )
    bias_bits: int | None = _runs(None, _or(WHOLE, "none", None), "bits of the biases that such a stage shares")
    retrain_epochs: int = _runs(15, WHOLE, "epochs of retraining in each round")
    fine_tune_epochs: int = _runs(0, WHOLE, "additional epochs in the last round")
    retrain_learning_rate: float | str = _runs(0.1, _or(REAL, ADAPTIVE, ADAPTIVE), "learning rate of each retraining")
    restarts: bool = _runs(True, FLAG, "restart the learning-rate schedule in each round; false: one over all rounds")
    rewind_to: int | None = setting(
        None, _or(WHOLE, "none", None), "epoch of dense training that each round rewinds to"
    )
    max_drop: float = setting(0.01, REAL, "held-out accuracy that the best network may lose", dense=False)
    seed: int = setting(0, WHOLE, "seeds for initial weights, sample order and dropout", key="seeds")
    stage: tuple[Stage, ...] = dataclasses.field(default=(), metadata={"dense": False, "of": "", "only": {}})

    @property
    def values(self) -> dict[str, Any]:
        """All settings, by name."""
        kept = vars(self)
        return {name: kept[name] for name in FIELDS}

    @functools.cached_property
    def plan(self) -> list["Settings"]:
        """The settings of each stage; without stages, these settings."""
        whole = dataclasses.replace(self, stage=())
        return [dataclasses.replace(whole, **dict(own)) for own in self.stage] or [self]

    @functools.cached_property
    def _ends(self) -> list[int]:
        """The last round of each stage."""
        return list(itertools.accumulate(now.rounds for now in self.plan))

    @property
    def ends(self) -> list[int]:
        """The last round of each stage; without stages, all rounds."""
        return self._ends if self.stage else list(range(1, self.rounds + 1))

    @property
    def last(self) -> int:
        """The number of the last round."""
        return self._ends[-1]

    def place(self, round: int) -> tuple[int, int]:
        """Return the stage of a round (from 1) and the position of the round within it, both from 0."""
        stage = bisect.bisect_left(self._ends, round)
        return stage, round - 1 - (self._ends[stage - 1] if stage else 0)

    def at(self, round: int) -> "Settings":
        """Return the settings of a round; round 0 is dense training."""
        return self.plan[self.place(round)[0]] if round else self

    def shares(self, round: int) -> bool:
        """Whether the network of a round shares weights."""
        return round > 0 and bool(self.at(round).weight_bits)

    def amounts(self, stage: int) -> tuple[str, Sequence[Amount]]:
        """Return the rule of a stage and the number for each round; sparsities continue from the stage before."""
        now = self.plan[stage]
        if not now.prune or now.weight_bits:
            return "sparsity", schedules.ConstantSparsity(0.0, now.rounds)
        if now.rule == "percentile":
            return now.rule, schedules.PercentileRamp(now.q, now.delta, now.rounds)
        if now.rule == "sparsity":
            before = next((past for past in reversed(self.plan[:stage]) if not past.weight_bits), None)
            begin = before.final_sparsity if before and before.prune and before.rule == "sparsity" else 0.0
            return now.rule, SCHEDULES[now.schedule](begin, now.final_sparsity, now.rounds)
        return now.rule, [now.quality] * now.rounds

    def epochs_of(self, round: int) -> int:
        """Return the epochs of training in a round."""
        if not round:
            return self.epochs
        stage, number = self.place(round)
        return self.lengths(stage)[number]

    def lengths(self, stage: int) -> list[int]:
        """Return the epochs of each round of a stage."""
        now = self.plan[stage]
        return [now.retrain_epochs] * (now.rounds - 1) + [now.retrain_epochs + now.fine_tune_epochs]

    def arguments(self, of: str) -> dict[str, Any]:
        """Return the settings that are arguments of a class of the library, by name."""
        return {name: getattr(self, name) for name, field in FIELDS.items() if field.metadata["of"] == of}

    @functools.cached_property
    def _changed(self) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if value != DEFAULTS[name]}

    @functools.cached_property
    def digest(self) -> str:
        """The name of the cell: a digest of the values that differ from defaults, so new settings keep old names."""
        return digest(self._changed)

    @functools.cached_property
    def dense_digest(self) -> str:
        """The name of its dense network: a digest of the settings that dense training depends on."""
        return digest({name: value for name, value in self._changed.items() if name in DENSE} | {"rounds": 0})

    def applies(self, name: str) -> bool:
        """Whether dense training or a stage uses a setting, given the values of the others."""
        about = FIELDS[name].metadata
        users = [now for now, own in zip(self.plan, self.stage or ((),), strict=True) if name not in dict(own)]
        users += [self] * about["dense"]
        return any(all(getattr(now, other) in ok for other, ok in about["only"].items()) for now in users)

    def plain(self) -> "Settings":
        """Return these settings, with defaults for all that do not apply."""
        return dataclasses.replace(self, **{name: DEFAULTS[name] for name in FIELDS if not self.applies(name)})


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
DEFAULTS: dict[str, Any] = {name: field.default for name, field in FIELDS.items()}
DENSE = [name for name, field in FIELDS.items() if field.metadata["dense"]]
KEYS = {(field.metadata.get("key") or name): name for name, field in FIELDS.items()}


def key(name: str) -> str:
    """Return a setting's name in flags and files."""
    return FIELDS[name].metadata.get("key") or name


def digest(values: Any) -> str:
    """Return a short name for values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def written(value: Any) -> str:
    """Format a value as on the command line."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    return ("-".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def values_of(key: str, field: Any, given: Any) -> tuple[Any, ...]:
    """Read the values given for a setting. Raises ValueError if one is invalid or given twice."""
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
                except (ValueError, KeyError, TypeError):  # TypeError: a range to a word
                    raise refused(part) from None
        else:
            native = kind.native(entry) if kind.native else None
            if native is None:
                raise refused(entry)
            values.append(native)
    for value in values if field.metadata["choices"] else ():
        if value is not None:
            check.one_of(key, value, field.metadata["choices"])
    values = [check.number(key, v, "(-inf, inf)") + 0.0 if isinstance(v, float) else v for v in values]  # -0.0 is 0.0
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{key}: expected at least one value and no duplicates, got {given!r}")
    return tuple(values)


def _range(kind: Kind, text: str) -> list[Any]:
    """Expand start:stop:count to `count` values in equal steps, including both ends."""
    start, stop, count = text.split(":")
    first, last, number = kind.parse(start), kind.parse(stop), int(count)
    if not 1 <= number <= _MOST or not math.isfinite(last - first):
        raise ValueError(text)
    if isinstance(first, float):  # rounded to 12 digits: 0.3, not 0.30000000000000004
        return [float(f"{value:.12g}") for value in np.linspace(first, last, number)]
    step, rest = divmod(last - first, max(1, number - 1))
    if rest:
        raise ValueError(text)
    return [first + step * i for i in range(number)]
