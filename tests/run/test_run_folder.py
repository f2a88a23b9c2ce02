"""Whatever names are given, a run stays below its output folder."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import get_config
from main import parse_arguments
from utils.run.errors import UserError
from utils.run.files import write_text
from utils.run.folder import create_run_folder

NAMES = (
    "..", "../..", "/", "/tmp/elsewhere", "a/b", "a\\b", "..\\..", "\0", "a\0b", "-", "--", "-rf", ".", ".hidden", "~",
    "~root", "$HOME", "`id`", "$(id)", ";id", "|", "*", "?", "CON", "NUL", "C:", "C:\\x", "\n", "a\nb", "\x1b[31m", " ",
    "\u202e", "\u2025", "\uff0f", "\u2044", "é" * 300, "漢" * 300, "x" * 5000, "🙂" * 100, "\udcff", "a" * 99 + "é",
)  # fmt: skip


def made(output: Path, prefix: str, desc: str) -> Path:
    """The folder, which must be the only thing that was made, directly below ``output/sysu``."""
    before = set(output.rglob("*"))
    folder = create_run_folder(output, "sysu", prefix, desc)
    assert set(output.rglob("*")) - before - {output / "sysu"} == {folder}
    assert folder.resolve().parent == (output / "sysu").resolve()
    assert len(os.fsencode(folder.name)) <= 255
    assert folder.name.isprintable()
    return folder


@pytest.mark.parametrize("desc", NAMES)
def test_descriptions_stay_inside(desc, tmp_path):
    folder = made(tmp_path / "out", "SYSU", desc)
    assert not set(folder.name) & set('/\\:*?"<>|$`; \0')
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize("prefix", NAMES)
def test_prefixes_stay_inside_or_are_refused(prefix, tmp_path):
    cfg = tmp_path / "x.yml"
    cfg.write_text("")
    try:
        allowed = get_config(cfg, ["prefix", prefix]).prefix
    except UserError as error:
        assert str(error).startswith("prefix: ")
        assert str(error).isprintable()
        return
    made(tmp_path / "out", allowed, "x" * 500)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "x.yml"}


def test_which_prefixes_are_refused(tmp_path):
    cfg = tmp_path / "x.yml"
    cfg.write_text("")
    for prefix in ("..", "/x", "a/b", "a\\b", "-x", ".x", "C:", "x" * 101, "é" * 51, "a\nb", "\u202e", "\udcff"):
        with pytest.raises(UserError, match="^prefix: "):
            get_config(cfg, ["prefix", prefix])
    for prefix in ("SYSU", "x" * 100, "é" * 50, "漢字", "a b", "1.5", "~", "CON"):
        assert get_config(cfg, ["prefix", prefix]).prefix == prefix


@settings(max_examples=100, deadline=None)
@given(desc=st.text(max_size=120))
def test_any_description(desc, tmp_path_factory):
    made(tmp_path_factory.mktemp("any"), "SYSU", desc)


def test_no_two_runs_share_a_folder(tmp_path):
    folders = {made(tmp_path, "x" * 100, "é" * 200) for _ in range(12)}
    assert len(folders) == 12


@pytest.mark.parametrize("desc", ["-x", "--cfg", "--=", ""])
def test_descriptions_that_look_like_options(desc):
    assert parse_arguments(["--cfg", "x.yml", f"--desc={desc}"]).desc == desc


def test_names_that_no_character_stands_for_can_be_written(tmp_path):
    """A command line may hold any bytes; the results name it."""
    write_text(tmp_path / "results.md", "--desc \udcff é")
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == "--desc \\udcff é"
