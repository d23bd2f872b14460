"""Sweeps: grids of settings, read from flags and files, and the folder for their results."""

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
from typing import Any, NamedTuple, NoReturn

from fastprune import check
from fastprune.export.c import ARITHMETIC
from fastprune.files import regular
from fastprune.sweep.delivery import FORMS
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
_NAME = 255  # most bytes in the name of a folder


@dataclass(frozen=True)
class Grid:
    """A grid of settings: each combination of the values in `axes`, by field of `Settings`, is a cell.

    The report shows a grid by `name`, under the heading `section` (by default the data set's name). Grids with the same
    section share charts. The only grid of a sweep needs no name.
    """

    axes: Mapping[str, tuple[Any, ...]]
    name: str = ""
    section: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Grid":
        """Check settings by name: each is a value or a list of values, or text as on the command line."""
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
        """The cells, in an order that keeps the seeds of one network together.

        A setting that does not apply to a cell (such as `q` with the rule "std") has its default there, so that its
        values do not multiply the grid.
        """
        products = itertools.product(*map(self.axis, FIELDS))
        return list(dict.fromkeys(Settings(*values).plain() for values in products))

    @functools.cached_property
    def varying(self) -> list[str]:
        """The settings with several values, other than the seed."""
        return [name for name in FIELDS if name != "seed" and len(self.axis(name)) > 1]

    def label(self, cell: Settings, without: Iterable[str] = ()) -> str:
        """Name the settings in which a cell differs from the others, except its seed and those in `without`."""
        names = [name for name in self.varying if name not in without and cell.applies(name)]
        return " ".join(
            [*filter(None, [self.name]), *(f"{key(name)}={written(getattr(cell, name))}" for name in names)]
        )

    def axis(self, name: str) -> tuple[Any, ...]:
        """Return the values of a setting."""
        return self.axes.get(name, (0, 1, 2, 3, 4) if name == "seed" else (DEFAULTS[name],))

    def to_toml(self, without: Iterable[str] = ()) -> str:
        """Write the settings as lines of a settings file, except those in `without`."""
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
        """Whether any cell uses the values given for a setting; a default counts as used."""
        return set(self.axis(name)) == {DEFAULTS[name]} or any(cell.applies(name) for cell in self.cells)

    def refuse(self, name: str) -> NoReturn:
        """Raise the ValueError that says why no cell uses the values given for a setting."""
        for other, needed in FIELDS[name].metadata["only"].items():
            if not set(needed) & set(self.axis(other)):
                needs, came = " or ".join(map(written, needed)), ", ".join(map(written, self.axis(other)))
                flag = f"--{key(other).replace('_', '-')}"
                raise ValueError(f"{key(name)}: needs {flag} {needs}, got {flag} {came}")
        raise ValueError(f"{key(name)}: no stage uses it: they set their own values, or do not need it")


@dataclass(frozen=True)
class Reference:
    """A published result, for charts and tables."""

    name: str
    compression: float  # all weights divided by live weights
    error: float  # on test samples, in percent
    section: str = ""  # of the report; by default the first one
    layers: tuple[tuple[float, float], ...] = ()  # by layer, if known: percent of live weights and of active units

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Reference":
        """Check the values of a table from `_tables`."""
        layers = table.get("layers", [])
        if not isinstance(layers, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in layers):
            raise ValueError(
                f"reference.layers: expected [weights, active units] of each layer, got {check.shown(layers)}"
            )
        percent = functools.partial(check.number, "reference.layers", interval="[0, 100]")
        return cls(
            _text("reference.name", table["name"]),
            check.number("reference.compression", table["compression"], "[1, inf)"),
            check.number("reference.error", table["error"], "[0, 100]"),
            _text("reference.section", table.get("section", "")),
            tuple((percent(live), percent(active)) for live, active in layers),
        )

    def to_toml(self) -> str:
        """Write the reference as a table of a settings file."""
        values = {name: value for name, value in vars(self).items() if value not in ("", ())}
        return "\n[[reference]]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())


@dataclass(frozen=True)
class Sweep:
    """Grids of settings to run, the folder for the results, and the workers to use.

    Make one with `Sweep.of`, and run it with `run_sweep`.

    Attributes
    ----------
    grids : tuple of Grid
        At least one grid of settings.
    references : tuple of Reference
        Published results that the report shows beside its own.
    data_dir, out, jobs, threads, cluster
        Options of the command; see `python -m fastprune.sweep --help`.
    """

    grids: tuple[Grid, ...]
    references: tuple[Reference, ...] = ()
    data_dir: str | None = setting(
        None,
        TEXT,
        "folder with the MNIST or Fashion-MNIST files (default: FASTPRUNE_DATA, the cache, or a download)",
        group="where to run (one value each)",
    )
    out: str | None = setting(None, TEXT, "folder for the results (default: runs/<data set, digest of the settings>)")
    jobs: int = setting(-1, WHOLE, "worker processes; -1 for one per core")
    threads: int | None = setting(None, WHOLE, "threads per process (default: its share of the cores)")
    cluster: str | None = setting(None, TEXT, "run on a Dask cluster instead: the scheduler's address, tcp://HOST:PORT")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Sweep":
        """Make a sweep from settings by name, as in a settings file.

        Parameters
        ----------
        values : dict
            For each setting, one value or a list of values, or text as on the command line. `stage` is a list of dicts
            with the settings of each stage. `grid` is a list of dicts with the settings of each grid, its `name` and
            its `section`. `reference` is a list of dicts with the keys `name`, `compression`, `error` (in percent) and,
            optionally, `section` and `layers`.

        Returns
        -------
        Sweep

        Raises
        ------
        ValueError
            If a name or a value is invalid, or no cell uses a value.

        Examples
        --------
        >>> from fastprune.sweep import Sweep
        >>> sweep = Sweep.of({"hidden": "300-100,50", "q": [10, 20], "seeds": "0:9:10"})
        >>> len(sweep.cells)
        40
        """
        options = {name: _one(name, OPTIONS[name], values[name]) for name in OPTIONS.keys() & values.keys()}
        shared = {name: given for name, given in values.items() if name not in (*OPTIONS, "grid", "reference")}
        grids = [Grid.of({**shared, **table}) for table in _tables("grid", values.get("grid", [{}]), 1)]
        fields = [field.name for field in dataclasses.fields(Reference)]
        references = _tables("reference", values.get("reference", []), keys=fields, needed=fields[:3])
        sweep = cls(tuple(grids), tuple(map(Reference.of, references)), **options)
        sweep._check()
        return sweep

    @functools.cached_property
    def cells(self) -> list[Settings]:
        """The cells of all grids, without duplicates."""
        return list(dict.fromkeys(cell for grid in self.grids for cell in grid.cells))

    @functools.cached_property
    def _owners(self) -> dict[Settings, Grid]:
        return {cell: grid for grid in reversed(self.grids) for cell in grid.cells}

    @property
    def folder(self) -> Path:
        """The folder for all files of the sweep."""
        if self.out is not None:
            return Path(self.out)
        empty = Grid({})
        changed = [{n: grid.axis(n) for n in FIELDS if grid.axis(n) != empty.axis(n)} for grid in self.grids]
        names = "-".join("_".join(p for p in Path(name).parts if p not in ("/", "..")) for name in self.axis("dataset"))
        if len(changed) == 1 and changed[0].keys() <= {"dataset"} and len(names.encode()) <= _NAME:
            return Path("runs", names)
        return Path("runs", f"{names[:60]}-{digest(changed if len(changed) > 1 else changed[0])}")

    def to_toml(self) -> str:
        """Write the sweep as a file for `--config`: all that was given except `out`, the folder that holds the file."""
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
        """Name the settings in which a cell differs from the others, except its seed."""
        return self._owners[cell].label(cell)

    def axis(self, name: str) -> tuple[Any, ...]:
        """Return the values of a setting in all grids."""
        return tuple(dict.fromkeys(value for grid in self.grids for value in grid.axis(name)))

    def _check(self) -> None:
        """Raise ValueError for values that no cell uses, for ambiguous names, and for invalid numbers of workers."""
        for name in dict.fromkeys(name for grid in self.grids for name in grid.axes):
            if not any(grid.uses(name) for grid in self.grids if name in grid.axes):
                next(grid for grid in self.grids if name in grid.axes).refuse(name)
        stems = [Path(name).stem for name in self.axis("dataset")]
        if len(set(stems)) < len(stems):
            raise ValueError(f"dataset: expected different names, got {', '.join(self.axis('dataset'))}")
        names = [grid.name for grid in self.grids]
        if len(names) > 1 and (not all(names) or len(set(names)) < len(names)):
            raise ValueError(f"grid.name: expected a different name for each grid, got {', '.join(map(repr, names))}")
        if self.jobs < 1 and self.jobs != -1:
            raise ValueError(f"jobs: expected a number of processes, or -1 for one per core, got {self.jobs}")
        if self.jobs != -1 and self.cluster is not None:
            raise ValueError("jobs: has no effect with a cluster; leave it out")
        if self.threads is not None:
            check.integer("threads", self.threads, 1)


OPTIONS = {field.name: field for field in dataclasses.fields(Sweep) if field.metadata}


def _stages(given: Any) -> tuple[Stage, ...]:
    """Check the settings of each stage."""
    names = [k for k, name in KEYS.items() if FIELDS[name].metadata.get("stage")]
    return tuple(
        tuple(sorted((KEYS[k], _one(f"stage.{k}", FIELDS[KEYS[k]], value)) for k, value in table.items()))
        for table in _tables("stage", given, keys=names)
    )


def _one(name: str, field: Any, given: Any) -> Any:
    """Check a setting that takes a single value."""
    value, *more = values_of(name, field, [given])
    if more:
        raise ValueError(f"{name}: expected one value, got {given!r}")
    return value


def _tables(
    name: str, given: Any, least: int = 0, keys: Sequence[str] = (), needed: Sequence[str] = ()
) -> Sequence[Mapping[str, Any]]:
    """Check a list of tables and, if `keys` are given, the keys of each table."""
    if not isinstance(given, list | tuple) or len(given) < least:
        raise ValueError(f"{name}: expected a list of tables, got {check.shown(given)}")
    for table in given:
        if not isinstance(table, Mapping):
            raise ValueError(f"{name}: expected a table, got {check.shown(table)}")
        if missing := [entry for entry in needed if entry not in table]:
            raise ValueError(f"{name}: expected {' and '.join(missing)}, got {', '.join(table) or 'nothing'}")
        for entry in table if keys else ():
            if entry not in keys:
                raise ValueError(f"{name}.{entry}: expected a setting that a {name} has{_nearest(entry, keys)}")
    return given


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {check.shown(value)}")
    return value


def _toml(value: Any) -> str:
    """Format a value for a TOML file."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(part)}" for name, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps("none" if value is None else value, ensure_ascii=False)


def presets() -> list[str]:
    """List the settings files that come with the package."""
    return sorted(path.stem for path in _PRESETS.glob("*.toml"))


class Command(NamedTuple):
    """A parsed command line."""

    sweep: Sweep
    dry_run: bool
    quiet: bool


def meaning(field: Any) -> str:
    """Say what a setting means, with the other settings that it needs and its choices."""
    about = field.metadata
    needs = ", ".join(f"{key(other)} {' or '.join(v)}" for other, v in about["only"].items() if isinstance(v[0], str))
    choices = f": {', '.join(about['choices'])}" if about["choices"] else ""
    return f"{f'{needs}: ' if needs else ''}{about['help']}{choices}"


class _Parser(argparse.ArgumentParser):
    """A parser that raises ValueError instead of printing the usage, and suggests an option for an unknown one."""

    def error(self, message: str) -> NoReturn:
        if unknown := re.fullmatch(r"unrecognized arguments: (--[^ =]+).*", message):
            message += _nearest(unknown[1], list(self._option_string_actions))
        raise ValueError(message)


def parse(arguments: Sequence[str] | None) -> Command:
    """Parse the command line (by default that of this process), and read the file it names.

    Raises SystemExit with code 0 after showing help, and ValueError if the arguments are invalid.
    """
    parser = _Parser(
        prog="python -m fastprune.sweep",
        usage="python -m fastprune.sweep [options]\n       python -m fastprune.sweep report FOLDER\n"
        "       python -m fastprune.sweep export FOLDER --to FORM",
        description="Train networks, prune their small weights and retrain them, round by round, for several seeds and "
        "every combination of settings. Without arguments, this takes the digits data set, a 64-300-100-10 network and "
        "five seeds, and prunes to 99 % sparsity in a few seconds. To resume a command that was stopped, repeat it. "
        "'report FOLDER' writes the results and the report of a folder again, even while a sweep runs. 'export FOLDER' "
        "writes its best network in another form, such as C; 'export --help' tells which.",
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
        default = "" if name in OPTIONS and defaults == (None,) else f" (default: {','.join(map(written, defaults))})"
        flags.add_argument(
            f"--{(about['key'] or name).replace('_', '-')}",
            dest=about["key"] or name,
            default=argparse.SUPPRESS,
            metavar="",
            help=(meaning(field) + default).replace("%", "%%"),
        )
    files = flags.add_mutually_exclusive_group()
    files.add_argument("--config", type=Path, metavar="", help="a TOML file of these settings; a flag overrides it")
    files.add_argument(
        "--preset", choices=presets(), help="a settings file that comes with fastprune; see docs/sweeps.md"
    )
    flags.add_argument("--dry-run", action="store_true", help="show the cells and their progress, and run nothing")
    flags.add_argument("--quiet", action="store_true", help="show only errors")
    given = vars(parser.parse_args(arguments))
    quiet, dry_run, preset, file = (given.pop(name) for name in ("quiet", "dry_run", "preset", "config"))
    values = read_toml(_PRESETS / f"{preset}.toml" if preset else file) if preset or file else {}
    if isinstance(values.get("grid"), list):  # a flag also overrides the settings of a grid
        own = {name: value for name, value in given.items() if name in KEYS}
        values["grid"] = [{**table, **own} if isinstance(table, dict) else table for table in values["grid"]]
    if preset:
        given.setdefault("out", str(Path("runs", preset)))
    return Command(Sweep.of({**values, **given}), dry_run, quiet)


def parse_export(arguments: Sequence[str]) -> tuple[Path, str, dict[str, Any]]:
    """Parse the command line of an export: the folder, the form, and the options of `to_c` that were given."""
    parser = _Parser(
        prog="python -m fastprune.sweep export",
        description="Write the best network of a sweep in another form, into the folder 'exports' of its folder.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="folder of a sweep")
    parser.add_argument("--to", required=True, choices=FORMS, help="c is C99; coded is the smallest file")
    options = parser.add_argument_group("options of C, which docs/microcontrollers.md describes")
    options.add_argument("--arithmetic", choices=ARITHMETIC, help="int8 is calibrated by the training samples")
    options.add_argument(
        "--byte-scale", type=_factor, metavar="NUMBER", help="samples are bytes, times this: 1/255 for pixels"
    )
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    folder, form = given.pop("folder"), given.pop("to")
    if given and form != "c":
        raise ValueError(f"{next(iter(given)).replace('_', '-')}: needs --to c, got --to {form}")
    return folder, form, given


def _factor(text: str) -> float:
    """Parse a number, or one divided by another."""
    number, _, divisor = text.partition("/")
    try:
        return float(number) / float(divisor or 1)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected a number, or a fraction such as 1/255, got {text!r}") from None


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file of settings, whose names are checked later."""
    try:
        return tomllib.loads(regular(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"config: expected a TOML file of settings, got {str(file)!r}: {error}") from error


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f"; the nearest is {close[0]}" if close else ""
