"""tools.demo and tools.gallery take no arguments; they train, and write over the pictures of the docs."""

import subprocess

import pytest

from utils.run.cli import run_program

for name in ("matplotlib", "jinja2", "sklearn"):  # for the report, which the gallery draws
    pytest.importorskip(name)

from tools import demo, gallery  # noqa: E402


@pytest.fixture(params=[demo, gallery], ids=["demo", "gallery"])
def tool(request, tmp_path, monkeypatch):
    """The program, in an empty folder that nothing may be written to."""

    def never(*arguments, **options):
        raise AssertionError("it has started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "render", never)
    monkeypatch.setattr(subprocess, "run", never)
    monkeypatch.setattr(gallery.rank_list, "main", never)
    yield request.param
    assert not list(tmp_path.iterdir())


def test_help_starts_nothing(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(["--help"])
    assert stop.value.code == 0
    assert f"usage: python -m {tool.__name__} [-h]" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--epochs", "again"])
def test_arguments_are_refused(word, tool, capsys):
    assert run_program(lambda: tool.main([word])) == 2
    assert capsys.readouterr().err == f"error: unrecognized arguments: {word} (see --help)\n"
