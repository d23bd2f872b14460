"""A sweep: grids of settings, from flags and files, and where its files go."""

import argparse
import dataclasses
import difflib
import functools
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fastprune import check
from fastprune.files import regular
from fastprune.sweep.settings import (
    DEFAULTS,
    FIELDS,
    KEYS,
    TEXT,
    WHOLE,
    Settings,
    Stage,
    digest,
    key,
    setting,
    values_of,
    written,
)

_PRESETS = Path(__file__).with_name("presets")
_NAME = 255  # bytes of a folder's name, at the most


@dataclass(frozen=True)
class Grid:
    """Values of settings, of which all combinations are cells.

    Attributes
    ----------
    axes : dict
        The values given of each setting, by the name of the field of `Settings`.
    name : str
        What the report calls it; empty if it is a sweep's only one.
    section : str
        Heading under which the report shows it: grids with the same one share charts. The data set's name, if empty.
    """

    axes: Mapping[str, tuple[Any, ...]]
    name: str = ""
    section: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Grid":
        """Check values of settings, each one or a list of them, text as on the command line.

        Raises ValueError if there is no such setting, or the values are not as described.
        """
        axes: dict[str, tuple[Any, ...]] = {}
        texts = {}
        for name, given in values.items():
            if name == "stage":
                axes["stage"] = (_stages(given),)
            elif name in KEYS:
                axes[KEYS[name]] = values_of(name, FIELDS[KEYS[name]], given)
            elif name in ("name", "section"):
                texts[name] = _text(f"grid.{name}", given)
            else:
                raise ValueError(f"{name}: expected the name of a setting{_nearest(name, [*KEYS, *OPTIONS])}")
        for seed in axes.get("seed", ()):
            check.integer("seeds", seed, 0, 2**64 - 1)
        return cls(axes, **texts)

    @functools.cached_property
    def cells(self) -> list[Settings]:
        """The cells, the seeds of one network side by side.

        A setting that does nothing with the cell's others (say, `q` with the rule "std") has its default there, so
        that its values do not multiply the cells.
        """
        products = itertools.product(*map(self.axis, FIELDS))
        return list(dict.fromkeys(Settings(*values).plain() for values in products))

    @functools.cached_property
    def varying(self) -> list[str]:
        """The settings, but the seed, of which several values are given."""
        return [name for name in FIELDS if name != "seed" and len(self.axis(name)) > 1]

    def label(self, cell: Settings, without: Iterable[str] = ()) -> str:
        """What tells a cell from the others, but for its seed and the settings `without`."""
        names = [name for name in self.varying if name not in without and cell.applies(name)]
        return " ".join(
            [*filter(None, [self.name]), *(f"{key(name)}={written(getattr(cell, name))}" for name in names)]
        )

    def axis(self, name: str) -> tuple[Any, ...]:
        """The values of a setting."""
        return self.axes.get(name, (0, 1, 2, 3, 4) if name == "seed" else (DEFAULTS[name],))

    def to_toml(self, without: Iterable[str] = ()) -> str:
        """The settings as lines of a file, but for some."""
        texts = {"name": self.name, "section": self.section}
        lines: dict[str, Any] = {name: text for name, text in texts.items() if text}
        lines |= {key(name): values for name, values in self.axes.items() if name not in without and name != "stage"}
        text = "".join(f"{name} = {_toml(value)}\n" for name, value in lines.items())
        if "stage" in self.axes and "stage" not in without:
            tables = (
                {key(name): written(value) if isinstance(value, tuple) else value for name, value in own}
                for own in self.axes["stage"][0]
            )
            text += "stage = [\n" + "".join(f"  {_toml(table)},\n" for table in tables) + "]\n"
        return text

    def uses(self, name: str) -> bool:
        """Whether some cell uses the values given of a setting; the default needs no use."""
        return set(self.axis(name)) == {DEFAULTS[name]} or any(cell.applies(name) for cell in self.cells)

    def refuse(self, name: str) -> NoReturn:
        """Say why no cell uses the values given of a setting."""
        for other, needed in FIELDS[name].metadata["only"].items():
            if not set(needed) & set(self.axis(other)):
                needs, came = " or ".join(map(written, needed)), ", ".join(map(written, self.axis(other)))
                raise ValueError(f"{key(name)}: expected --{key(other)} {needs} with it, got --{key(other)} {came}")
        raise ValueError(f"{key(name)}: expected a stage that takes it, got stages with their own, or without a use")


@dataclass(frozen=True)
class Reference:
    """A published result, for charts and tables.

    Attributes
    ----------
    name : str
    compression : float
        All weights by live weights, at least 1.
    error : float
        On test samples, in percent.
    section : str
        Of the report; the first one's, if empty.
    layers : tuple of (float, float)
        Of each layer, the percentage of weights that is live and of units that are active; empty if they are not known.
    """

    name: str
    compression: float
    error: float
    section: str = ""
    layers: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, table: Any) -> "Reference":
        """Check a table of a file."""
        fields = [field.name for field in dataclasses.fields(cls)]
        given = _table("reference", table, fields, needed=fields[:3])
        layers = given.get("layers", [])
        if not isinstance(layers, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in layers):
            raise ValueError(
                f"reference.layers: expected [weights, active units] of each layer, got {check.shown(layers)}"
            )
        return cls(
            _text("reference.name", given["name"]),
            check.number("reference.compression", given["compression"], "[1, inf)"),
            check.number("reference.error", given["error"], "[0, 100]"),
            _text("reference.section", given.get("section", "")),
            tuple(
                (check.number("reference.layers", a, "[0, 100]"), check.number("reference.layers", b, "[0, 100]"))
                for a, b in layers
            ),
        )

    def to_toml(self) -> str:
        """A table of a file."""
        values = {name: value for name, value in vars(self).items() if value not in ("", ())}
        return "\n[[reference]]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())


@dataclass(frozen=True)
class Sweep:
    """What a sweep is to do, where its files go, and by how many workers.

    Attributes
    ----------
    grids : tuple of Grid
        At least one.
    references : tuple of Reference
        What the report shows beside the results.
    data_dir, out, jobs, threads, cluster
        See the command's help.
    """

    grids: tuple[Grid, ...]
    references: tuple[Reference, ...] = ()
    data_dir: str | None = setting(
        None,
        TEXT,
        "folder of the MNIST or Fashion-MNIST files (else FASTPRUNE_DATA, the cache, a download)",
        group="where to run (one value each)",
    )
    out: str | None = setting(None, TEXT, "folder of the results (default: runs/<data set, digest of the settings>)")
    jobs: int = setting(-1, WHOLE, "processes that run cells; -1 for one a core")
    threads: int | None = setting(None, WHOLE, "threads of each process (default: its share of the cores)")
    cluster: str | None = setting(None, TEXT, "run on the Dask cluster whose scheduler is at tcp://HOST:PORT instead")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Sweep":
        """Make a sweep from settings by name, as in a settings file.

        Parameters
        ----------
        values : dict
            Of each setting one value or a list of them, text as on the command line. `stage`: a list of dicts of what
            differs in each stage. `grid`: a list of dicts of what differs in each grid, and its `name` and `section`.
            `reference`: a list of dicts, see `Reference`.

        Raises
        ------
        ValueError
            If there is no such setting, or the values are not as described.
        """
        options = {}
        for name in OPTIONS.keys() & values.keys():
            options[name], *more = values_of(name, OPTIONS[name], [values[name]])
            if more:
                raise ValueError(f"{name}: expected one value, got {values[name]!r}")
        shared = {name: given for name, given in values.items() if name not in (*OPTIONS, "grid", "reference")}
        tables = _tables("grid", values.get("grid", [{}]))
        grids = [Grid.of({**shared, **table}) for table in tables]
        references = [Reference.of(table) for table in _tables("reference", values.get("reference", []), 0)]
        sweep = cls(tuple(grids), tuple(references), **options)
        sweep._check()
        return sweep

    @functools.cached_property
    def cells(self) -> list[Settings]:
        """The cells of all grids, each once."""
        return list(dict.fromkeys(cell for grid in self.grids for cell in grid.cells))

    @functools.cached_property
    def _owners(self) -> dict[Settings, Grid]:
        return {cell: grid for grid in reversed(self.grids) for cell in grid.cells}

    @property
    def folder(self) -> Path:
        """Where its files go."""
        if self.out is not None:
            return Path(self.out)
        grids = [{name: grid.axis(name) for name in FIELDS} for grid in self.grids]
        empty = Grid({})
        changed = [{n: values for n, values in grid.items() if values != empty.axis(n)} for grid in grids]
        names = "-".join("_".join(p for p in Path(name).parts if p not in ("/", "..")) for name in self.axis("dataset"))
        if len(changed) == 1 and changed[0].keys() <= {"dataset"} and len(names.encode()) <= _NAME:
            return Path("runs", names)
        return Path("runs", f"{names[:60]}-{digest(changed if len(changed) > 1 else changed[0])}")

    def to_toml(self) -> str:
        """The sweep as a file for `--config`: what was given, but for the folder, in which this stands."""
        options = {name: getattr(self, name) for name, field in OPTIONS.items() if name != "out"}
        lines = {name: value for name, value in options.items() if value != OPTIONS[name].default}
        text = "".join(f"{name} = {_toml(value)}\n" for name, value in lines.items())
        first = self.grids[0]
        if len(self.grids) == 1:
            text += first.to_toml()
        else:
            same = [n for n, v in first.axes.items() if all(grid.axes.get(n) == v for grid in self.grids)]
            text += Grid({name: first.axes[name] for name in same}).to_toml()
            text += "".join(f"\n[[grid]]\n{grid.to_toml(same)}" for grid in self.grids)
        return text + "".join(reference.to_toml() for reference in self.references)

    def label(self, cell: Settings) -> str:
        """What tells a cell from the others, but for its seed."""
        return self._owners[cell].label(cell)

    def axis(self, name: str) -> tuple[Any, ...]:
        """The values of a setting, in all grids."""
        return tuple(dict.fromkeys(value for grid in self.grids for value in grid.axis(name)))

    def _check(self) -> None:
        """Refuse values without a use, data sets and grids that could be taken for one another, and odd workers."""
        for name in dict.fromkeys(name for grid in self.grids for name in grid.axes):
            if not any(grid.uses(name) for grid in self.grids if name in grid.axes):
                next(grid for grid in self.grids if name in grid.axes).refuse(name)
        stems = [Path(name).stem for name in self.axis("dataset")]
        if len(set(stems)) < len(stems):
            raise ValueError(f"dataset: expected different names, got {', '.join(self.axis('dataset'))}")
        names = [grid.name for grid in self.grids]
        if len(names) > 1 and (not all(names) or len(set(names)) < len(names)):
            raise ValueError(f"grid.name: expected a different one for each grid, got {', '.join(map(repr, names))}")
        if self.jobs < 1 and self.jobs != -1:
            raise ValueError(f"jobs: expected a number of processes, or -1 for one a core, got {self.jobs}")
        if self.jobs != -1 and self.cluster is not None:
            raise ValueError(f"jobs: expected no cluster with it, got {self.cluster!r}")
        if self.threads is not None:
            check.integer("threads", self.threads, 1)


OPTIONS = {field.name: field for field in dataclasses.fields(Sweep) if field.metadata}


def _stages(given: Any) -> tuple[Stage, ...]:
    """The settings of each stage that are its own."""
    stages = []
    for table in _tables("stage", given, 0):
        names = [k for k, name in KEYS.items() if FIELDS[name].metadata.get("stage")]
        own = {}
        for name, value in _table("stage", table, names).items():
            own[KEYS[name]], *more = values_of(f"stage.{name}", FIELDS[KEYS[name]], [value])
            if more:
                raise ValueError(f"stage.{name}: expected one value, got {value!r}")
        stages.append(tuple(sorted(own.items())))
    return tuple(stages)


def _tables(name: str, given: Any, least: int = 1) -> list[Any]:
    if not isinstance(given, list | tuple) or len(given) < least:
        raise ValueError(f"{name}: expected a list of tables, got {check.shown(given)}")
    return list(given)


def _table(name: str, table: Any, keys: Sequence[str], needed: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise ValueError(f"{name}: expected a table, got {check.shown(table)}")
    if missing := [entry for entry in needed if entry not in table]:
        raise ValueError(f"{name}: expected {' and '.join(missing)}, got {', '.join(table) or 'nothing'}")
    for entry in table:
        if entry not in keys:
            raise ValueError(f"{name}.{entry}: expected a setting that a {name} has{_nearest(entry, keys)}")
    return dict(table)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {check.shown(value)}")
    return value


def _toml(value: Any) -> str:
    """A value as a file holds it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(part)}" for name, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps("none" if value is None else value, ensure_ascii=False)


def presets() -> list[str]:
    """The names of the settings files that come with the package."""
    return sorted(path.stem for path in _PRESETS.glob("*.toml"))


@dataclass(frozen=True)
class Command:
    """What the command line asks for: the sweep, and how much is shown."""

    sweep: Sweep
    dry_run: bool
    quiet: bool


class _Parser(argparse.ArgumentParser):
    """Raises what it would have printed with the usage, and names the option nearest to an unknown one."""

    def error(self, message: str) -> NoReturn:
        if unknown := re.fullmatch(r"unrecognized arguments: (--[^ =]+).*", message):
            message += _nearest(unknown[1], list(self._option_string_actions))
        raise ValueError(message)


def parse(arguments: Sequence[str] | None) -> Command:
    """Read the command line (this process's, if None), and the file it names.

    Raises SystemExit with code 0 once help is shown, and ValueError if it is no command line of this program.
    """
    parser = _Parser(
        prog="python -m fastprune.sweep",
        usage="python -m fastprune.sweep [options]\n       python -m fastprune.sweep report FOLDER",
        description="Train dense networks, prune their small weights, retrain, and repeat: over seeds, and over a grid "
        "of settings. Without arguments: the digits data set, 64-300-100-10, five seeds, to 99 % sparsity, in some "
        "seconds. To resume a command that was stopped, repeat it. 'report FOLDER' makes the results and the report of "
        "a folder again, also while a sweep runs.",
        epilog="Example: python -m fastprune.sweep --dataset mnist --data-dir bench/mnist --rule percentile,std --q 20 "
        "--quality 0.5:1:3 --seeds 0:2:3",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
        allow_abbrev=False,
    )
    flags: argparse._ActionsContainer = parser
    for name, field in ({name: FIELDS[name] for name in KEYS.values() if name != "stage"} | OPTIONS).items():
        about = field.metadata
        if about["group"]:
            flags = parser.add_argument_group(about["group"])
        defaults = Grid({}).axis(name) if name in FIELDS else (field.default,)
        needs = ", ".join(f"{key(o)} {' or '.join(v)}" for o, v in about["only"].items() if o != "prune")
        choices = f": {', '.join(about['choices'])}" if about["choices"] else ""
        default = "" if name in OPTIONS and defaults == (None,) else f" (default: {','.join(map(written, defaults))})"
        flags.add_argument(
            f"--{(about['key'] or name).replace('_', '-')}",
            dest=about["key"] or name,
            default=argparse.SUPPRESS,
            metavar="",
            help=(f"{needs}: " * bool(needs) + about["help"] + choices + default).replace("%", "%%"),
        )
    files = flags.add_mutually_exclusive_group()
    files.add_argument("--config", type=Path, metavar="", help="a TOML file of these settings; a flag overrides it")
    files.add_argument(
        "--preset", choices=presets(), help="a settings file that comes with fastprune; see docs/sweeps.md"
    )
    flags.add_argument("--dry-run", action="store_true", help="show the cells and how far they are, and do nothing")
    flags.add_argument("--quiet", action="store_true", help="show nothing but errors")
    given = vars(parser.parse_args(arguments))
    quiet, dry_run, preset, file = (given.pop(name) for name in ("quiet", "dry_run", "preset", "config"))
    values = read_toml(_PRESETS / f"{preset}.toml" if preset else file) if preset or file else {}
    if isinstance(values.get("grid"), list):  # a flag overrides what a grid says, too
        own = {name: value for name, value in given.items() if name in KEYS}
        values["grid"] = [{**table, **own} if isinstance(table, dict) else table for table in values["grid"]]
    if preset:
        given.setdefault("out", str(Path("runs", preset)))
    return Command(Sweep.of({**values, **given}), dry_run, quiet)


def read_toml(file: Path) -> dict[str, Any]:
    """The settings of a TOML file; their names are checked later."""
    try:
        return tomllib.loads(regular(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"config: expected a TOML file of settings, got {str(file)!r}: {error}") from error


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f"; the nearest is {close[0]}" if close else ""
