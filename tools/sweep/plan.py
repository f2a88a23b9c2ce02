"""Read a sweep file: which runs there are, and what has become of each."""

import glob
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from yacs.config import CfgNode

from configs import get_config
from configs.continuing import MAY_CHANGE
from configs.loading import COMMAND_LINE, pair
from configs.resume import check_resume
from configs.yaml_file import read_yaml
from data.datasets import DATASETS
from tools.sweep.program import continuation, run_folder
from utils.run.errors import UserError, shown
from utils.run.folder import CONDITIONS, CONFIG, RESULTS, plain_name, read_conditions

KEYS = ("base", "output_dir", "seeds", "trials", "overrides", "rows")
PLACEHOLDER = re.compile(r"\{(\w*)\}")  # {seed} and {trial}


@dataclass(frozen=True)
class Job:
    """One run of a sweep: a row with one seed, and one RegDB trial if the sweep has trials."""

    row: str
    seed: int
    trial: int | None
    base: Path
    folder: Path  # output_dir of its run folder
    overrides: dict[str, str]  # may hold {seed} and {trial}; a resume may be a pattern
    sources: dict[str, str]  # where each override was given, for messages
    where: str  # sweep file and row, for messages

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.seed}" + (f", trial {self.trial}" if self.trial else "")

    @property
    def words(self) -> list[str]:
        """The overrides as ``KEY VALUE ...``, with seed and trial filled in."""
        numbers = {"seed": str(self.seed), "trial": str(self.trial)}
        filled = {key: PLACEHOLDER.sub(lambda found: numbers[found[1]], value) for key, value in self.overrides.items()}
        return [word for override in filled.items() for word in override]

    def config(self) -> CfgNode:
        """The configuration; ``resume`` may still be a pattern."""
        return get_config(self.base, self.words, sources=self.sources)

    @property
    def changes(self) -> list[str]:
        """The overrides that a run may get when it is continued, as ``KEY VALUE ...``."""
        words = iter(self.words)
        return [word for key, value in zip(words, words, strict=True) if key in MAY_CHANGE for word in (key, value)]

    def begin(self, gpu: str) -> list[str]:
        """Arguments of ``main.py`` that begin the run.

        Raises:
            UserError: ``resume`` is a pattern that does not match one file.
        """
        words = list(self.words)
        if "resume" in words[::2]:
            position = 2 * words[::2].index("resume") + 1
            words[position] = _one_file(words[position])
        return ["--cfg", str(self.base), "--gpu", gpu, "--seed", str(self.seed), f"--desc={self.name}", *words]

    def command(self, gpu: str) -> list[str]:
        """Arguments of ``main.py`` that begin the run, or continue it if it was stopped."""
        return continuation(self.folder, gpu, self.changes) or self.begin(gpu)

    def run_folder(self) -> Path | None:
        return run_folder(self.folder)

    def results(self) -> dict | None:
        """The content of ``results.json``, None if the run is not complete."""
        run = self.run_folder()
        return json.loads((run / RESULTS).read_text()) if run and (run / RESULTS).is_file() else None

    def is_complete(self) -> bool:
        run = self.run_folder()
        return run is not None and (run / RESULTS).is_file()

    def check(self) -> None:
        """Raise ``UserError`` if the configuration is wrong, or if an earlier run had another configuration or seed."""
        try:
            self._check()
        except UserError as error:
            raise UserError(f"{self.where}: {error}") from None

    def _check(self) -> None:
        wanted, run = self.config(), self.run_folder()
        if self.trial and DATASETS[wanted.dataset].num_splits == 1:
            raise UserError(f"trials: {DATASETS[wanted.dataset].name} has one split only; remove them")
        if run:
            keys = _differences(wanted, get_config(run / CONFIG))
            if read_conditions(run / CONDITIONS)["seed"] != self.seed:
                keys.append("seed")
            if keys:
                raise UserError(
                    f"{run}: was made with another {', '.join(keys)} than the row has now; remove the folder, or give"
                    " the row another name"
                )
        if wanted.resume and not self.is_complete() and not continuation(self.folder, "cpu", []):
            path = _one_file(wanted.resume)
            if not Path(path).is_file():
                raise UserError(f"resume: {path}: no such file")
            check_resume(get_config(self.base, [*self.words, "resume", path], sources=self.sources))


@dataclass(frozen=True)
class Sweep:
    """The content of a sweep file, with the overrides of the command line.

    Values of the file keep their YAML types; those of the command line are text.
    """

    path: Path
    base: Path
    output_dir: Path
    overrides: dict[str, object]  # of all rows
    rows: dict[str, dict[str, object]]  # name -> its own overrides, without those that the command line replaces
    seeds: list[int]
    trials: list[int | None]  # of RegDB; [None] if the sweep has none
    given: frozenset[str]  # keys of the command line

    def jobs(self) -> list[Job]:
        """All runs. Those of one seed come together, so that the rows can be compared early."""
        return [self._job(row, seed, trial) for seed, trial, row in product(self.seeds, self.trials, self.rows)]

    def _job(self, row: str, seed: int, trial: int | None) -> Job:
        folder = self.output_dir / folder_name(row) / (f"seed{seed}" + (f"-trial{trial}" if trial else ""))
        words = {"output_dir": str(folder), "cache_dir": str(self.output_dir / "cache")}
        if trial:
            words["trial"] = str(trial)
        words |= {key: _word(value) for key, value in {**self.overrides, **self.rows[row]}.items()}
        sources = {key: COMMAND_LINE if key in self.given else "sweep file" for key in words}
        return Job(row, seed, trial, self.base, folder, words, sources, f"{self.path}, row {shown(row)}")


def read_sweep(path: Path, overrides: Sequence[str] = (), *, base: Path | None = None) -> Sweep:
    """Read a sweep file.

    Args:
        base: replaces the base configuration of the file.
        overrides: ``KEY VALUE ...`` for all rows; they replace what the file says. ``output_dir`` moves the sweep.

    Raises:
        UserError: not a sweep file. The message names what is wrong.
    """
    try:
        content = read_yaml(path, nested=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such sweep file") from None
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise UserError(f"{path}: unknown key {shown(unknown[0])}; a sweep has {', '.join(KEYS)}")
    seeds = _numbers(content, "seeds", path, default=[8], low=0, high=2**32 - 1)
    trials = _numbers(content, "trials", path, default=[None], low=1, high=10)
    has_trials = trials != [None]
    given = pair(overrides)
    output_dir = given.pop("output_dir", content.get("output_dir", f"sweeps/{path.stem}"))
    if not isinstance(output_dir, str) or not output_dir:
        raise UserError(f"{path}: output_dir: {shown(output_dir)} should be a folder")
    given = _overrides(given, COMMAND_LINE, has_trials=has_trials)
    common = _overrides(content.get("overrides"), f"{path}: overrides", has_trials=has_trials)
    rows = _rows(content, path, has_trials=has_trials)
    own = {row: {key: value for key, value in rows[row].items() if key not in given} for row in rows}
    name = content.get("base", "") if base is None else str(base)
    if not isinstance(name, str) or name in ("", "."):
        raise UserError(
            f"{path}: base: {shown(name)} should name the configuration of the rows, such as configs/SYSU_MCJA.yml"
        )
    return Sweep(path, Path(name), Path(output_dir), common | given, own, seeds, trials, frozenset(given))


def _rows(content: dict, path: Path, *, has_trials: bool) -> dict[str, dict[str, object]]:
    """The overrides of each row."""
    rows = content.get("rows")
    if not isinstance(rows, dict) or not rows:
        raise UserError(f"{path}: rows should map a name to overrides, such as 'no MDA: {{mda_layers: [0, 0, 0, 0]}}'")
    for row in rows:
        if not isinstance(row, str) or not row.isprintable():
            raise UserError(f"{path}: row {shown(row)}: a name is printable text (quote it)")
    folders = [folder_name(row) for row in rows]
    for row, folder in zip(rows, folders, strict=True):
        if folders.count(folder) > 1 or not folder:
            raise UserError(f"{path}: row {shown(row)}: its folder would be {folder!r}; give it another name")
    return {row: _overrides(values, f"{path}, row {shown(row)}", has_trials=has_trials) for row, values in rows.items()}


def _numbers(content: dict, key: str, path: Path, *, default: list, low: int, high: int) -> list:
    """A list of different whole numbers."""
    if key not in content:
        return default
    numbers = content[key]
    if (
        not isinstance(numbers, list)
        or not numbers
        or not all(type(number) is int and low <= number <= high for number in numbers)
        or len(set(numbers)) < len(numbers)
    ):
        raise UserError(
            f"{path}: {key}: {shown(numbers)} should be a list of different whole numbers between {low} and {high}"
        )
    return numbers


def folder_name(row: str) -> str:
    """The folder of a row."""
    return plain_name(row).strip("-.")


def _overrides(overrides: object, where: str, *, has_trials: bool) -> dict:
    """Check overrides; ``where`` they were given begins each message. None stands for no overrides."""
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping):
        raise UserError(f"{where}: {shown(overrides)} should map configuration keys to values")
    allowed = ("seed", "trial") if has_trials else ("seed",)
    for key, value in overrides.items():
        if key == "output_dir":
            raise UserError(f"{where}: output_dir belongs to the whole sweep, beside rows or on the command line")
        if key == "trial" and has_trials:
            raise UserError(f"{where}: trial: the sweep has trials, which set it")
        try:
            names = PLACEHOLDER.findall(_word(value))
        except (TypeError, ValueError):  # a date, a set, bytes, NaN
            raise UserError(f"{where}: {shown(key)}: {shown(value)} is no value of a key (quote it)") from None
        for name in names:
            if name not in allowed:
                known = " and ".join(f"{{{one}}}" for one in allowed)
                raise UserError(f"{where}: {shown(key)}: {{{name}}} is unknown; values may hold {known}")
    return {str(key): value for key, value in overrides.items()}


def _word(value: object) -> str:
    """A value as a word of the command line."""
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _one_file(pattern: str) -> str:
    """The one file that a pattern matches; a path without wildcards as it is."""
    if not glob.has_magic(pattern):
        return pattern
    found = glob.glob(pattern)  # noqa: PTH207 - the pattern may be absolute
    if len(found) != 1:
        raise UserError(f"resume: {pattern} matches {len(found)} files, and should match one")
    return found[0]


def _differences(wanted: CfgNode, found: CfgNode) -> list[str]:
    """The keys that differ and may change results. A pattern of ``resume`` may match the file that was found."""
    keys = [key for key in wanted if key not in (*MAY_CHANGE, "output_dir") and wanted[key] != found[key]]
    return [key for key in keys if key != "resume" or not fnmatchcase(found.resume, wanted.resume)]
