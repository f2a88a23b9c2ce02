"""Run folders (new, inside ``output_dir``, locked), their log and the errors of a program."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import get_config
from main import parse_arguments
from utils.run.cli import run_program
from utils.run.errors import Stopped, UserError
from utils.run.files import FolderLock, write_text
from utils.run.folder import make_folder
from utils.run.interruption import Interruption
from utils.run.logs import set_up_logging

ROOT = Path(__file__).resolve().parents[2]

NAMES = (
    "..", "../..", "/", "/tmp/elsewhere", "a/b", "a\\b", "..\\..", "\0", "a\0b", "-", "--", "-rf", ".", ".hidden", "~",
    "~root", "$HOME", "`id`", "$(id)", ";id", "|", "*", "?", "CON", "NUL", "C:", "C:\\x", "\n", "a\nb", "\x1b[31m", " ",
    "\u202e", "\u2025", "\uff0f", "\u2044", "é" * 300, "漢" * 300, "x" * 5000, "🙂" * 100, "\udcff", "a" * 99 + "é",
)  # fmt: skip


def make_checked(output: Path, prefix: str, desc: str) -> Path:
    """Make a run folder; nothing else may be made, and it must be directly inside ``output/sysu``."""
    before = set(output.rglob("*"))
    folder = make_folder(output, "sysu", prefix, desc)
    assert set(output.rglob("*")) - before - {output / "sysu"} == {folder}
    assert folder.resolve().parent == (output / "sysu").resolve()
    assert len(os.fsencode(folder.name)) <= 255
    assert folder.name.isprintable()
    return folder


@pytest.mark.parametrize("desc", NAMES)
def test_any_description_gives_a_folder_inside(desc, tmp_path):
    folder = make_checked(tmp_path / "out", "SYSU", desc)
    assert not set(folder.name) & set('/\\:*?"<>|$`; \0')
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize("prefix", NAMES)
def test_a_prefix_gives_a_folder_inside_or_is_refused(prefix, tmp_path):
    cfg = tmp_path / "x.yml"
    cfg.write_text("")
    try:
        allowed = get_config(cfg, ["prefix", prefix]).prefix
        make_checked(tmp_path / "out", allowed, "x" * 500)
    except UserError as error:
        assert str(error).startswith("prefix: ") or "File name too long" in str(error)
        assert str(error).isprintable()
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "x.yml"}


def test_refused_and_allowed_prefixes(tmp_path):
    cfg = tmp_path / "x.yml"
    cfg.write_text("")
    for prefix in ("..", "/x", "a/b", "a\\b", "-x", ".x", "C:", "a\nb", "\u202e", "\udcff"):
        with pytest.raises(UserError, match="^prefix: "):
            get_config(cfg, ["prefix", prefix])
    for prefix in ("SYSU", "x" * 100, "é" * 50, "漢字", "a b", "1.5", "~", "CON"):
        assert get_config(cfg, ["prefix", prefix]).prefix == prefix


@settings(max_examples=100, deadline=None)
@given(desc=st.text(max_size=120))
def test_random_descriptions(desc, tmp_path_factory):
    make_checked(tmp_path_factory.mktemp("any"), "SYSU", desc)


def test_every_run_gets_a_new_folder(tmp_path):
    folders = {make_checked(tmp_path, "x" * 100, "é" * 200) for _ in range(12)}
    assert len(folders) == 12


@pytest.mark.parametrize("desc", ["-x", "--cfg", "--=", ""])
def test_descriptions_that_look_like_options(desc):
    assert parse_arguments(["--cfg", "x.yml", f"--desc={desc}"]).desc == desc


def test_bytes_that_are_not_utf8_are_written_as_escapes(tmp_path):
    """A command line may contain any bytes, and results.md shows it."""
    write_text(tmp_path / "results.md", "--desc \udcff é")
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == "--desc \\udcff é"


def test_signals_at_the_same_time_count_as_one(monkeypatch):
    """A scheduler signals each process of a job, and the program that started this one may send the signal on."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    interruption = Interruption()
    with interruption.noted():
        os.kill(os.getpid(), signal.SIGTERM)
        now += 1
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.received == signal.SIGTERM
        now += 2
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def lockf(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("utils.run.files.fcntl.lockf", lockf)
    with pytest.raises(UserError, match=r"cannot be locked \(No locks available\)"):
        FolderLock(tmp_path)


def test_a_folder_is_locked_until_its_process_ends(tmp_path):
    code = "import sys; from pathlib import Path; from utils.run.files import FolderLock; FolderLock(Path(sys.argv[1]))"
    lock = FolderLock(tmp_path)
    command = [sys.executable, "-c", code, str(tmp_path)]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "another process is using this folder" in refused.stderr
    lock.release()
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    FolderLock(tmp_path).release()  # the process has ended


def test_errors_print_no_control_characters(capsys):
    def main():
        raise UserError("a\x1b[31m\udcff é.jpg: cannot be decoded")

    assert run_program(main) == 2
    assert capsys.readouterr().err == "error: a\\x1b[31m\\udcff é.jpg: cannot be decoded\n"


def test_a_program_runs_without_standard_output_and_error(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tqdm import tqdm; from utils.run.cli import run_program\n"
        "sys.exit(run_program(lambda: print('x') or Path(sys.argv[1]).write_text('y' * len(list(tqdm(range(3))))) - 3))"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" "$2" >&- 2>&-', sys.executable, code, str(tmp_path / "file")]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert (tmp_path / "file").read_text() == "yyy"


def test_a_log_that_cannot_be_written_does_not_stop_a_program(capsys):
    """The line is missing from the file, and there is no traceback."""
    set_up_logging(Path("/dev/full"))
    logging.getLogger("test").info("a line")
    with suppress(OSError):  # the line is still in the file's buffer
        logging.getLogger().handlers[-1].close()
    printed = capsys.readouterr()
    assert "a line" in printed.out
    assert printed.err == ""


def test_errors_are_printed_once(tmp_path, capsys):
    set_up_logging(tmp_path / "log.txt")

    def main() -> int:
        raise UserError("no such file")

    assert run_program(main) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "error: no such file\n")
    assert (tmp_path / "log.txt").read_text().endswith(" error: no such file\n")
