"""Create, lock and reopen run folders."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from utils.run.errors import UnreadableImage, UserError
from utils.run.files import FolderLock, remove_partial_files, write_json, write_text
from utils.run.logs import set_up_logging
from utils.run.versions import commit, versions

CONFIG, CONDITIONS, RESULTS = "config.yml", "run.json", "results.json"
STATES = "state_*.pth"  # training states, see engine/state.py
INITIAL_STATE = re.compile(r"state_0+\.pth")  # the training state before the first iteration
MAX_NAME_BYTES = 100  # of a part of a file name; file systems allow 255 for the whole name


class RunFolder:
    """The locked folder of a run.

    ``conditions`` is the run information that is reported with the results: command, seed, device, commit and versions.
    If the run was continued, it also has a list ``continued`` with the information of each later process.
    """

    def __init__(self, path: Path, conditions: dict):
        self.path, self.conditions = path, conditions
        self.lock = FolderLock(path)

    @classmethod
    def create(cls, path: Path, *, config: str, command: str, seed: int, device: str) -> "RunFolder":
        """Lock a new folder and write the configuration and the run information."""
        conditions = {"command": command, "seed": seed, **_environment(device)}
        try:
            run = cls(path, conditions)
            write_json(path / CONDITIONS, conditions)
            write_text(path / CONFIG, config)
        except UserError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return run

    @classmethod
    def reopen(cls, path: Path) -> "RunFolder":
        """Lock the folder of an earlier run.

        Raises:
            UserError: not a run folder, or another process uses it.
        """
        if not path.is_dir():
            raise UserError(f"--continue: {path}: {'a file' if path.exists() else 'no such folder'}; give a run folder")
        for name in (CONFIG, CONDITIONS):
            if not (path / name).is_file():
                raise UserError(f"--continue: {path} is not a run folder: it holds no {name}")
        run = cls(path, read_conditions(path / CONDITIONS))
        remove_partial_files(path)
        return run

    def note_continuation(self, *, command: str, device: str) -> list[str]:
        """Add this process to the run information.

        Returns:
            A line for each of device, commit and versions that differs from the start of the run.
        """
        now = {"command": command, **_environment(device)}
        self.conditions.setdefault("continued", []).append(now)
        write_json(self.path / CONDITIONS, self.conditions)
        return [
            f"{name} differs from the start of the run, which may change the results: {self.conditions.get(name)} then,"
            f" {now[name]} now"
            for name in ("device", "commit", "versions")
            if self.conditions.get(name) != now[name]
        ]

    @contextmanager
    def removed_if_nothing_was_trained(self) -> Iterator[None]:
        """Remove the folder again if the run fails before it holds a checkpoint or a training state.

        If an image cannot be read, a folder that only holds the training state before the first iteration is also
        removed.
        """
        try:
            yield
        except UserError as error:
            saved = [path.name for path in self.path.glob("*.pth")]
            if not saved or (isinstance(error, UnreadableImage) and all(map(INITIAL_STATE.fullmatch, saved))):
                with suppress(OSError):  # the disk may be full
                    set_up_logging()  # closes the log
                shutil.rmtree(self.path, ignore_errors=True)
            raise


def has_states(folder: Path) -> bool:
    """Whether the folder holds training states, so that the run can be continued."""
    return any(folder.glob(STATES))


def is_complete(folder: Path) -> bool:
    """Whether the run has ended: the folder holds config.yml, run.json and results.json, which is written last."""
    return all((folder / name).is_file() for name in (CONFIG, CONDITIONS, RESULTS))


def make_folder(output_dir: str | Path, dataset: str, prefix: str, desc: str = "") -> Path:
    """Make ``<output_dir>/<dataset>/<prefix>_Time-<YYYY-MM-DD_hh-mm-ss>[_<desc>]``. Every run gets a new folder.

    Characters of ``desc`` that do not belong in a file name become ``-``.

    Raises:
        UserError: the folder cannot be made.
    """
    parent = Path(output_dir) / dataset
    name = folder_name(prefix, f"{datetime.now():%Y-%m-%d_%H-%M-%S}", desc)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in count(1):
            folder = parent / (name if attempt == 1 else f"{name}_{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:  # another run started in the same second
                continue
            break
    except OSError as error:
        raise UserError(f"{parent}: the run folder cannot be made there ({error.strerror}); set output_dir") from None
    return folder


def folder_name(prefix: str, time: str, desc: str) -> str:
    """``<prefix>_Time-<time>[_<desc>]``."""
    return f"{prefix}_Time-{time}" + (f"_{plain_name(desc)}" if desc else "")


def plain_name(text: str) -> str:
    """The beginning of ``text``, with ``-`` for what does not belong in a file name."""
    return re.sub(r"[^\w.+=,-]+", "-", text).encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _environment(device: str) -> dict[str, object]:
    return {"device": device, "commit": commit(), "versions": versions()}


def read_conditions(path: Path) -> dict:
    """The content of ``run.json``.

    Raises:
        UserError: it cannot be read, or holds no seed.
    """
    try:
        conditions = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); the run cannot be continued without its seed") from None
    seed = conditions.get("seed") if isinstance(conditions, dict) else None
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise UserError(f"{path}: holds no seed; the run cannot be continued without it")
    if not isinstance(conditions.get("continued", []), list):
        raise UserError(f"{path}: 'continued' should be a list; remove it")
    return conditions
