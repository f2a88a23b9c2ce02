import os
import sys
from pathlib import Path

import pytest

from tools import setup_environment


def test_nvcc_is_hidden_and_all_else_is_kept(tmp_path, monkeypatch):
    """A folder that holds the C++ compiler beside nvcc must not be lost with it."""
    both, other = tmp_path / "both", tmp_path / "other"
    for folder, names in ((both, ("nvcc", "g++")), (other, ("ninja",))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(both), str(other)]))
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda")
    shadows = tmp_path / "shadows"
    shadows.mkdir()
    environment = setup_environment.without_nvcc(shadows)
    found = {path.name for folder in environment["PATH"].split(os.pathsep) for path in Path(folder).iterdir()}
    assert found == {"g++", "ninja"}
    assert "CUDA_HOME" not in environment


def test_an_old_python_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    assert setup_environment.main(tmp_path / "env") == 2
    assert "Python 3.10 or newer is needed" in capsys.readouterr().err


def test_a_half_made_environment_is_removed(monkeypatch, tmp_path, capsys):
    def fail(folder, with_pip):
        (folder / "bin").mkdir(parents=True)
        raise setup_environment.subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(setup_environment.venv, "create", fail)
    assert setup_environment.main(tmp_path / "env") == 2
    assert "python3-venv" in capsys.readouterr().err
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("builds", [True, False])
def test_a_torchsort_that_cannot_be_built_is_no_failure(builds, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    calls = []
    monkeypatch.setattr(setup_environment, "pip", lambda python, *words, **options: calls.append(words))
    monkeypatch.setattr(setup_environment, "create", lambda folder: (folder / "bin").mkdir(parents=True))
    monkeypatch.setattr(setup_environment, "sees_gpu", lambda python: False)
    imported = iter([False, builds])
    monkeypatch.setattr(setup_environment, "imports", lambda python, module: next(imported))
    assert setup_environment.main(tmp_path / "env") == 0
    assert ("built-in soft rank is used instead" in capsys.readouterr().out) == (not builds)
    assert "--no-build-isolation" in calls[-1]
    assert (tmp_path / "env" / ".mcja-ready").exists()
