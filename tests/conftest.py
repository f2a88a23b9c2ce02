"""Shared fixtures: golden values and small synthetic data sets, rendered once per test run."""

import logging
import shutil
import threading
from pathlib import Path

import utils  # noqa: F401 - before torch, see there

import pytest  # isort: skip
import torch  # isort: skip

from tools.synthetic import make_synthetic  # isort: skip
from data.datasets import RegDB, SYSU  # isort: skip
from engine.state import newest_state  # isort: skip
from engine.trainer import train  # isort: skip
from tests.helpers.runs import arguments, run  # isort: skip
from tests.helpers.training import EPOCHS, make_schedule, make_training, score_of  # isort: skip
from utils.features import Features  # isort: skip
from utils.protocols import Search  # isort: skip
from utils.rerank import MSER  # isort: skip
from tests.helpers.golden import GOLDEN  # isort: skip


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA GPU")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture
def tally(record_property):
    """``tally(cases, what)`` counts what was tried; the counts stand at the end of the output."""
    return lambda cases, what: record_property("tally", (cases, what))


def pytest_terminal_summary(terminalreporter):
    passed = terminalreporter.stats.get("passed", [])
    tallies = [value for report in passed for name, value in report.user_properties if name == "tally"]
    if tallies:
        terminalreporter.section("cases tried and survived")
        for cases, what in tallies:
            terminalreporter.write_line(f"{cases:>7,}  {what}")
        terminalreporter.write_line(f"{sum(cases for cases, _ in tallies):>7,}  in all")


@pytest.fixture(scope="session")
def sysu_root(tmp_path_factory) -> Path:
    """A synthetic SYSU-MM01 of 16 identities."""
    root = tmp_path_factory.mktemp("data") / "sysu"
    make_synthetic("sysu", root, identities=16, images_per_camera=5, size=(64, 32), seed=1)
    return root


@pytest.fixture(scope="session")
def regdb_root(tmp_path_factory) -> Path:
    """A synthetic RegDB of 12 identities."""
    root = tmp_path_factory.mktemp("data") / "regdb"
    make_synthetic("regdb", root, identities=12, images_per_camera=6, size=(64, 32), seed=1)
    return root


@pytest.fixture(scope="session")
def llcm_root(tmp_path_factory) -> Path:
    """A synthetic LLCM of 12 identities."""
    root = tmp_path_factory.mktemp("data") / "llcm"
    make_synthetic("llcm", root, identities=12, images_per_camera=2, size=(64, 32), seed=1)
    return root


@pytest.fixture
def sysu(sysu_root, tmp_path) -> Path:
    """A copy of the synthetic SYSU-MM01, to damage."""
    return Path(shutil.copytree(sysu_root, tmp_path / "sysu"))


@pytest.fixture
def regdb(regdb_root, tmp_path) -> Path:
    """A copy of the synthetic RegDB, to damage."""
    return Path(shutil.copytree(regdb_root, tmp_path / "regdb"))


@pytest.fixture
def llcm(llcm_root, tmp_path) -> Path:
    """A copy of the synthetic LLCM, to damage."""
    return Path(shutil.copytree(llcm_root, tmp_path / "llcm"))


@pytest.fixture(scope="session")
def golden_root(tmp_path_factory):
    """A data root with the golden permutations."""
    root = tmp_path_factory.mktemp("golden")
    (root / "exp").mkdir()
    shutil.copy(GOLDEN / "rand_perm_cam.mat", root / "exp")
    return root


@pytest.fixture(scope="session")
def sysu_case(golden_root) -> tuple[Features, tuple[Search, ...], MSER]:
    """Golden features, their protocol, and the published hyper-parameters."""
    features = Features.load(GOLDEN / "sysu_features.npz")
    return features, SYSU.chosen_protocol(features, golden_root, {}), MSER(40, 20, 0.3)


@pytest.fixture(scope="session")
def regdb_case(golden_root) -> tuple[Features, tuple[Search, ...], MSER]:
    features = Features.load(GOLDEN / "regdb_features.npz")
    return features, RegDB.protocol(features, golden_root), MSER(50, 10, 0.2)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """A training that was never stopped: itself, its folder, its best epoch and its number of iterations."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    training = make_training()
    best = train(training, make_schedule(num_epoch=EPOCHS, evaluate=score_of), folder)
    return training, folder, best, newest_state(folder)[0]["progress"]["iteration"]


@pytest.fixture(scope="session")
def whole_run(regdb_root, tmp_path_factory) -> Path:
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder, *arguments(folder, "regdb", regdb_root))


KERNELS = ["utils.kernels.torch_kernels", "utils.kernels.numba_kernels"]


@pytest.fixture(params=KERNELS)
def kernels(request, monkeypatch):
    """Each implementation of the scoring loops in turn, as the one that scoring uses."""
    module = pytest.importorskip(request.param, exc_type=ImportError)
    monkeypatch.setattr("utils.kernels.on_cpu", module)
    return module


@pytest.fixture(autouse=True)
def _restore_logging():
    """A run replaces the handlers of the log and of errors in threads; give pytest's back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hook = threading.excepthook
    yield
    threading.excepthook = hook
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = True
    logging.captureWarnings(False)
