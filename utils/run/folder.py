"""The folder of a run: made for it alone, left, and entered again."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

from utils.run.errors import UnreadableImage, UserError
from utils.run.files import FolderLock, remove_partial_files, write_json, write_text
from utils.run.logs import set_up_logging
from utils.run.versions import commit, versions

CONFIG, CONDITIONS, RESULTS = "config.yml", "run.json", "results.json"


class Run:
    """A run's folder, in which no other process may work as long as this one lives, and what the run was started with.

    ``conditions`` are what results are reported with: command, seed, device, commit and versions; of a run that was
    continued, those of each later process, too, in the list ``continued``.
    """

    def __init__(self, folder: Path):
        self.folder, self.lock = folder, FolderLock(folder)
        self.conditions: dict[str, object] = {}

    @classmethod
    def begin(cls, folder: Path, *, config: str, command: str, seed: int, device: str) -> "Run":
        """Take possession of a fresh folder, which goes again where that fails."""
        try:
            run = cls(folder)
            run.conditions = {"command": command, "seed": seed, **_surroundings(device)}
            write_json(folder / CONDITIONS, run.conditions)
            write_text(folder / CONFIG, config)
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return run

    @classmethod
    def reopen(cls, folder: Path) -> "Run":
        """Enter the folder of an earlier run.

        Raises:
            UserError: not the folder of a run, or another process is at work there.
        """
        if not folder.is_dir():
            what = "a file" if folder.exists() else "no such folder"
            raise UserError(f"--continue: {folder}: {what}; it should be the folder of a run")
        for name in (CONFIG, CONDITIONS):
            if not (folder / name).is_file():
                raise UserError(f"--continue: {folder} is not the folder of a run: it holds no {name}")
        run = cls(folder)
        run.conditions = _read_conditions(folder / CONDITIONS)
        remove_partial_files(folder)
        return run

    def go_on(self, *, command: str, device: str) -> dict[str, tuple[object, object]]:
        """Note how the run goes on; what of it is not as it was at the beginning: name -> (then, now)."""
        now = {"command": command, **_surroundings(device)}
        self.conditions.setdefault("continued", []).append(now)
        write_json(self.folder / CONDITIONS, self.conditions)
        names = ("device", "commit", "versions")
        return {
            name: (self.conditions.get(name), now[name]) for name in names if self.conditions.get(name) != now[name]
        }


def is_complete(folder: Path) -> bool:
    """Whether nothing is left to do in a run's folder; results are written last."""
    return all((folder / name).is_file() for name in (CONFIG, CONDITIONS, RESULTS))


def _surroundings(device: str) -> dict[str, object]:
    return {"device": device, "commit": commit(), "versions": versions()}


def _read_conditions(path: Path) -> dict[str, object]:
    try:
        conditions = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); a run goes on with the seed that stands there") from None
    seed = conditions.get("seed") if isinstance(conditions, dict) else None
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise UserError(f"{path}: holds no seed, with which alone the run can go on")
    if not isinstance(conditions.get("continued", []), list):
        raise UserError(f"{path}: 'continued' should be a list; remove it")
    return conditions


BEGINNING = re.compile(r"state_0+\.pth")  # the training state before the first iteration
MOST_BYTES = 100  # of the description; file systems allow 255 for the whole name


def create_run_folder(output_dir: str | Path, dataset: str, prefix: str, desc: str = "") -> Path:
    """Make ``<output_dir>/<dataset>/<prefix>_Time-<YYYY-MM-DD_hh-mm-ss>[_<desc>]``; no two runs ever share one.

    Characters of ``desc`` that do not belong in a file name become ``-``, so that it cannot lead elsewhere.

    Raises:
        UserError: the folder cannot be made.
    """
    parent = Path(output_dir) / dataset
    name = f"{prefix}_Time-{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if desc:
        plain = re.sub(r"[^\w.+=,-]+", "-", desc).encode()[:MOST_BYTES]
        name += "_" + plain.decode(errors="ignore")  # a character that is cut in two goes
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in count(1):
            folder = parent / (name if attempt == 1 else f"{name}_{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:  # another run started in the same second
                continue
            return folder
    except OSError as error:
        raise UserError(f"{parent}: the run's folder cannot be made there ({error.strerror}); set output_dir") from None


@contextmanager
def discarded_without_model(folder: Path) -> Iterator[None]:
    """Remove the run's folder again if it fails before it holds a state or model, or over an image before it learnt."""
    try:
        yield
    except UserError as error:
        models = [path.name for path in folder.glob("*.pth")]
        if not models or (isinstance(error, UnreadableImage) and all(map(BEGINNING.fullmatch, models))):
            set_up_logging()  # closes the log
            shutil.rmtree(folder, ignore_errors=True)
        raise
