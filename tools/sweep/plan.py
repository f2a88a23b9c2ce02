"""Read a sweep file: which runs there are, and what has become of each."""

import glob
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from yacs.config import CfgNode

from configs import get_config
from configs.continuing import MAY_CHANGE
from configs.loading import pair
from configs.resume import check_resume
from configs.yaml_file import read_yaml
from tools.sweep.program import arguments, run_folder
from utils.run.errors import UserError, shown
from utils.run.folder import CONFIG, RESULTS

KEYS = ("base", "output_dir", "seeds", "trials", "overrides", "rows")
MAX_NAME = 100  # characters of a row's folder


@dataclass(frozen=True)
class Job:
    """One run of a sweep: a row with one seed, and one RegDB trial if the sweep has trials."""

    row: str
    seed: int
    trial: int | None
    base: Path
    folder: Path  # output_dir of its run folder
    overrides: dict[str, str]  # may hold {seed} and {trial}; a resume may be a pattern

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.seed}" + (f", trial {self.trial}" if self.trial else "")

    @property
    def words(self) -> list[str]:
        """The overrides as ``KEY VALUE ...``, with seed and trial filled in."""
        filled = {key: _filled(key, value, seed=self.seed, trial=self.trial) for key, value in self.overrides.items()}
        return [word for pair in filled.items() for word in pair]

    def begin(self, gpu: str) -> list[str]:
        """Arguments of ``main.py`` that begin the run."""
        return ["--cfg", str(self.base), "--gpu", gpu, "--seed", str(self.seed), "--desc", self.name, *self.words]

    def command(self, gpu: str) -> list[str]:
        """Arguments of ``main.py`` that begin the run, or continue it if it was stopped."""
        return arguments(self.folder, self.begin(gpu), gpu)

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
        """Raise ``UserError`` if the configuration is wrong, or an earlier run had another one."""
        wanted, run = get_config(self.base, self.words), self.run_folder()
        if run and (key := _difference(wanted, get_config(run / CONFIG))):
            raise UserError(
                f"{run}: was made with another {key} than row {shown(self.row)} has now; remove the folder, or give the"
                " row another name"
            )
        if wanted.resume and not run:
            check_resume(wanted)


@dataclass(frozen=True)
class Sweep:
    """The content of a sweep file, with the overrides of the command line."""

    base: Path
    output_dir: Path
    rows: dict[str, dict[str, str]]  # name -> overrides
    seeds: list[int]
    trials: list[int | None]  # of RegDB; [None] if the sweep has none

    def jobs(self) -> list[Job]:
        """All runs. Those of one seed come together, so that the rows can be compared early."""
        return [self._job(row, seed, trial) for seed, trial, row in product(self.seeds, self.trials, self.rows)]

    def _job(self, row: str, seed: int, trial: int | None) -> Job:
        folder = self.output_dir / folder_name(row) / (f"seed{seed}" + (f"-trial{trial}" if trial else ""))
        shared = {"output_dir": str(folder), "cache_dir": str(self.output_dir / "cache")}
        if trial:
            shared["trial"] = str(trial)
        return Job(row, seed, trial, self.base, folder, shared | self.rows[row])


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
    given = pair(overrides)
    output_dir = Path(given.pop("output_dir", content.get("output_dir", f"sweeps/{path.stem}")))
    base = base or Path(content.get("base", ""))
    if base == Path():
        raise UserError(f"{path}: base should name the configuration of the rows, such as configs/SYSU_MCJA.yml")
    seeds = _numbers(content, "seeds", path, default=[8], low=0, high=2**32 - 1)
    trials = _numbers(content, "trials", path, default=[None], low=1, high=10)
    return Sweep(base, output_dir, _rows(content, path, given), seeds, trials)


def _rows(content: dict, path: Path, given: dict[str, str]) -> dict[str, dict[str, str]]:
    """The overrides of each row: those for all rows, its own, and those of the command line."""
    rows = content.get("rows")
    if not isinstance(rows, dict) or not rows:
        raise UserError(f"{path}: rows should map a name to overrides, such as 'no MDA: {{mda_layers: [0, 0, 0, 0]}}'")
    common = _words(content.get("overrides") or {}, path)
    folders = [folder_name(str(row)) for row in rows]
    for row, folder in zip(rows, folders, strict=True):
        if folders.count(folder) > 1 or not folder:
            raise UserError(f"{path}: row {shown(row)}: its folder would be {folder!r}; give it another name")
    return {str(row): common | _words(values or {}, path) | given for row, values in rows.items()}


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
    """A row's name with only characters that belong in a file name."""
    return re.sub(r"[^\w.+=,-]+", "-", row).strip("-.")[:MAX_NAME]


def _words(overrides: object, path: Path) -> dict[str, str]:
    """Overrides of a YAML file as the words of a command line."""
    if not isinstance(overrides, Mapping):
        raise UserError(f"{path}: {shown(overrides)} should map configuration keys to values")
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in overrides.items()}


def _filled(key: str, value: str, *, seed: int, trial: int | None) -> str:
    """``value`` with the seed and trial of a job, and ``resume`` with the one file that its pattern matches."""
    value = value.replace("{seed}", str(seed)).replace("{trial}", str(trial))
    if key != "resume" or not glob.has_magic(value):
        return value
    found = glob.glob(value)  # noqa: PTH207 - the pattern may be absolute
    if len(found) != 1:
        raise UserError(f"resume: {value} matches {len(found)} files, and should match one")
    return found[0]


def _difference(wanted: CfgNode, found: CfgNode) -> str:
    """The first key that differs and may change results; empty if none does."""
    return next((key for key in wanted if key not in (*MAY_CHANGE, "output_dir") and wanted[key] != found[key]), "")
