"""The statements of SECURITY.md."""

import ast
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import WeightsEnum

from configs import get_config
from data.datasets.permutations import read_permutations
from data.datasets.sysu import SYSU
from models.loading import read_state_dict
from models.resnet import BACKBONES, build_resnet
from utils.features import Features
from utils.run.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for path in [ROOT / "main.py", *sorted(ROOT.glob("*/**/*.py"))]
    if not {"tests", "demo"} & set(path.relative_to(ROOT).parts) and not path.relative_to(ROOT).parts[0].startswith(".")
]

MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BUILT_IN = {"eval", "exec", "__import__"}
NEVER = {
    "os.system", "os.popen", "subprocess.getoutput", "torch.hub.load", "torch.jit.load",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader",
}  # fmt: skip
NEEDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def unsafe(code: str) -> list[str]:
    """Names and calls in ``code`` that can run code read from a file."""
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
            if given.get("shell", False) is not False:
                found.append(f"{name} with a shell")
            if name in NEEDED and given.get(NEEDED[name][0]) is not NEEDED[name][1]:
                found.append(f"{name} without {NEEDED[name][0]}={NEEDED[name][1]}")
    return found


def test_no_source_runs_what_it_reads():
    found = {str(path.relative_to(ROOT)): unsafe(path.read_text()) for path in SOURCES}
    assert {"main.py", "models/loading.py", "utils/features.py", "tools/score.py"} <= found.keys()
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(f)",
        "torch.load(f, weights_only=flag)",
        "from torch import load",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f, Loader=yaml.Loader)",
        "eval('1')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_unsafe_code_is_found(code):
    assert unsafe(code)


class Payload:
    """Creates a folder if it is unpickled without restriction."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _checkpoint(path: Path, payload: Payload) -> None:
    torch.save({"x": payload}, path)


def _old_checkpoint(path: Path, payload: Payload) -> None:
    torch.save({"x": payload}, path, _use_new_zipfile_serialization=False)


def _pickle(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps(payload))


def _features(path: Path, payload: Payload) -> None:
    values = np.array([payload], dtype=object)
    with path.open("wb") as file:
        np.savez(file, paths=values, identities=values, cameras=values, original=values)


def _yaml(path: Path, payload: Payload) -> None:
    path.write_text(f"lr: !!python/object/apply:os.mkdir ['{payload.path}']\n")


def _python(path: Path, payload: Payload) -> None:
    path.write_text(f"import os\nos.mkdir('{payload.path}')\n")


def _read_permutations(path: Path) -> object:
    return read_permutations(path, SYSU.cameras_of())


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("new.pth", _checkpoint, read_state_dict),
        ("old.pth", _old_checkpoint, read_state_dict),
        ("pickle.pth", _pickle, read_state_dict),
        ("features.npz", _features, Features.load),
        ("pickle.npz", _pickle, Features.load),
        ("cfg.yml", _yaml, get_config),
        ("cfg.py", _python, get_config),
        ("pickle.mat", _pickle, _read_permutations),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch warns about plain pickles
def test_no_reader_runs_code(name, write, read, tmp_path):
    path = tmp_path / name
    write(path, Payload(tmp_path / "made"))
    with pytest.raises(UserError, match=re.escape(str(path))):
        read(path)
    assert not (tmp_path / "made").exists()


def test_the_payload_works(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("value", ["__import__('os').mkdir('made')", "!!python/object/apply:os.mkdir [made]"])
def test_overrides_are_not_evaluated(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yml").write_text("")
    with pytest.raises(UserError, match="lr"):
        get_config("x.yml", ["lr", value])
    assert get_config("x.yml", ["data_root", value]).data_root == value
    assert not Path("made").exists()


@pytest.mark.parametrize("name", [name for name, backbone in BACKBONES.items() if backbone.weights])
def test_imagenet_weights_come_over_https_with_a_hash(name):
    assert re.fullmatch(r"https://download\.pytorch\.org/models/\w+-[0-9a-f]{8}\.pth", BACKBONES[name].weights.url)


def test_imagenet_weights_with_another_hash_are_refused(monkeypatch, tmp_path):
    """torchvision's own download, from a server with other weights."""
    served = tmp_path / "server" / "resnet18-f37072fd.pth"
    served.parent.mkdir()
    torch.save(build_resnet("resnet18").state_dict(), served)

    class Served:
        url = served.as_uri()
        get_state_dict = WeightsEnum.get_state_dict

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(BACKBONES, "resnet18", BACKBONES["resnet18"]._replace(weights=Served()))
    with pytest.raises(UserError, match="invalid hash value"):
        build_resnet("resnet18", pretrained="imagenet")
    assert not list((tmp_path / "cache").rglob("*.pth"))  # nothing to find the next time
