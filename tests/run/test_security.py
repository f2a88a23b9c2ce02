"""What SECURITY.md says."""

import ast
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision.models import WeightsEnum

from configs import get_config
from data.datasets.regdb import RegDB
from data.datasets.sysu import read_permutations
from models import resnet
from models.reading import read_state_dict
from models.resnet import BACKBONES, build_resnet
from utils.features import Features
from utils.run.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for path in [ROOT / "main.py", *sorted(ROOT.glob("*/**/*.py"))]
    if not {"tests", "demo"} & set(path.relative_to(ROOT).parts) and not path.relative_to(ROOT).parts[0].startswith(".")
]

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "codeop", "pty"}
BUILT_IN = {"eval", "exec", "__import__"}
NEVER = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "torch.hub.load", "torch.jit.load",
    "torch.package.PackageImporter", "numpy.fromregex", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.Loader",
    "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.CLoader",
}  # fmt: skip
NEEDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def unsafe(code: str) -> list[str]:
    """What in ``code`` could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name in {*NEVER, *NEEDED} or name.split(".")[0] in MODULES]
        elif isinstance(node, ast.Name) and node.id in BUILT_IN:
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in NEVER:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            if name == "compile":  # a call alone, because fields and arguments may have that name
                found.append(name)
            if given.get("shell", False) is not False:
                found.append(f"{name} with a shell")
            if name in NEEDED and given.get(NEEDED[name][0]) is not NEEDED[name][1]:
                found.append(f"{name} without {NEEDED[name][0]}={NEEDED[name][1]}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_that_could_run_what_it_reads(path):
    assert unsafe(path.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import torch; torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=flag)",
        "from torch import load",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f, Loader=yaml.SafeLoader)",
        "yaml.unsafe_load(f)",
        "class L(yaml.FullLoader): pass",
        "eval('1')",
        "f = exec",
        "compile('1', 'f', 'eval')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
        "torch.hub.load('a', 'b')",
    ],
)
def test_such_code_would_be_found(code):
    assert unsafe(code)


def test_what_is_allowed_is_not_found():
    assert not unsafe(
        "torch.load(f, weights_only=True); np.load(f, allow_pickle=False); model.eval(); torch.compile(f)"
    )


def test_the_sources_are_all_looked_at():
    names = {path.relative_to(ROOT).as_posix() for path in SOURCES}
    assert {"main.py", "models/reading.py", "configs/default/strategy.py", "tools/score.py", "data/cache.py"} <= names


class Payload:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _checkpoint(path: Path, payload: Payload) -> None:
    torch.save({"x": payload}, path)


def _pickle(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps(payload))


def _features(path: Path, payload: Payload) -> None:
    values = np.array([payload], dtype=object)
    with path.open("wb") as file:
        np.savez(file, paths=values, identities=values, cameras=values, original=values)


def _array(path: Path, payload: Payload) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([payload], dtype=object))


def _yaml(path: Path, payload: Payload) -> None:
    path.write_text(f"lr: !!python/object/apply:os.mkdir ['{payload.path}']\n")


def _python(path: Path, payload: Payload) -> None:
    path.write_text(f"import os\nos.mkdir('{payload.path}')\n")


READERS = {
    "checkpoint.pth": read_state_dict,
    "features.npz": Features.load,
    "cfg.yml": get_config,
    "cfg.py": get_config,
    "exp/rand_perm_cam.mat": lambda path: read_permutations(path.parent.parent),
}


@pytest.mark.parametrize("write", [_checkpoint, _pickle, _features, _array, _yaml, _python])
@pytest.mark.parametrize("name", READERS)
def test_no_reader_runs_code(name, write, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path, Payload(tmp_path / "made"))
    with pytest.raises(UserError, match=re.escape(str(path))):
        READERS[name](path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("value", ["__import__('os').mkdir('made')", "!!python/object/apply:os.mkdir [made]"])
def test_overrides_are_not_evaluated(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yml").write_text("")
    with pytest.raises(UserError, match="lr"):
        get_config("x.yml", ["lr", value])
    assert get_config("x.yml", ["data_root", value]).data_root == value
    assert not Path("made").exists()


def test_a_matlab_file_of_pickled_bytes_is_data(tmp_path):
    (tmp_path / "exp").mkdir()
    content = np.frombuffer(pickle.dumps(Payload(tmp_path / "made")), np.uint8)
    scipy.io.savemat(tmp_path / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": content})
    with pytest.raises(UserError, match="rand_perm_cam should be"):
        read_permutations(tmp_path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", [name for name, (_, _, weights) in BACKBONES.items() if weights])
def test_weights_come_over_https_with_a_hash(name):
    assert re.fullmatch(r"https://download\.pytorch\.org/models/\w+-[0-9a-f]{8}\.pth", BACKBONES[name][2].url)


def test_weights_that_are_not_those_of_their_name_are_refused(monkeypatch, tmp_path):
    """Through torchvision's own code, from a server that gives out something else."""
    served = tmp_path / "server" / "resnet18-f37072fd.pth"
    served.parent.mkdir()
    torch.save(build_resnet("resnet18").state_dict(), served)

    class Served:
        url = served.as_uri()
        get_state_dict = WeightsEnum.get_state_dict

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    block, blocks, _ = BACKBONES["resnet18"]
    monkeypatch.setitem(resnet.BACKBONES, "resnet18", (block, blocks, Served()))
    with pytest.raises(UserError, match="invalid hash value"):
        build_resnet("resnet18", pretrained="imagenet")
    assert not list((tmp_path / "cache").rglob("*.pth"))  # and it is not there the next time


def test_no_index_leads_out_of_the_data_set(regdb_root, tmp_path):
    root = tmp_path / "regdb"
    for name in ("idx", "Visible", "Thermal"):
        (root / name).mkdir(parents=True)
    for path in ("../secret/1/a.bmp", "/etc/1/a.bmp", "Visible/../../1/a.bmp", "C:/Visible/1/a.bmp"):
        for split in ("train_visible", "train_thermal"):
            (root / "idx" / f"{split}_1.txt").write_text(f"{path} 1\n")
        with pytest.raises(UserError, match="leads outside the data set"):
            RegDB(root, "train", (64, 32))
