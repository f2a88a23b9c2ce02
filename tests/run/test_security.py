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
from data.datasets.regdb import RegDB
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

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "codeop", "pty"}
BUILT_IN = {"eval", "exec", "__import__"}
NEVER = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "torch.hub.load", "torch.jit.load",
    "torch.package.PackageImporter", "numpy.fromregex", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.Loader",
    "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.CLoader",
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
            if name == "compile":  # only a call: fields and arguments may have this name
                found.append(name)
            if given.get("shell", False) is not False:
                found.append(f"{name} with a shell")
            if name in NEEDED and given.get(NEEDED[name][0]) is not NEEDED[name][1]:
                found.append(f"{name} without {NEEDED[name][0]}={NEEDED[name][1]}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_it_reads(path):
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
def test_unsafe_code_is_found(code):
    assert unsafe(code)


def test_safe_code_is_not_found():
    assert not unsafe(
        "torch.load(f, weights_only=True); np.load(f, allow_pickle=False); model.eval(); torch.compile(f)"
    )


def test_all_sources_are_searched():
    names = {path.relative_to(ROOT).as_posix() for path in SOURCES}
    assert {"main.py", "models/loading.py", "configs/default/strategy.py", "tools/score.py", "data/cache.py"} <= names


class Payload:
    """Unpickled without restriction, it makes a folder."""

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
    "exp/rand_perm_cam.mat": lambda path: read_permutations(path, SYSU.cameras_of()),
}


@pytest.mark.filterwarnings("ignore")  # torch warns about plain pickles
@pytest.mark.parametrize("write", [_checkpoint, _old_checkpoint, _pickle, _features, _array, _yaml, _python])
@pytest.mark.parametrize("name", READERS)
def test_no_reader_runs_code(name, write, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path, Payload(tmp_path / "made"))
    with pytest.raises(UserError, match=re.escape(str(path))):
        READERS[name](path)
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


def test_image_lists_cannot_name_files_outside_the_data_set(tmp_path):
    root = tmp_path / "regdb"
    for name in ("idx", "Visible", "Thermal"):
        (root / name).mkdir(parents=True)
    for path in ("../secret/1/a.bmp", "/etc/1/a.bmp", "Visible/../../1/a.bmp", "C:/Visible/1/a.bmp"):
        for split in ("train_visible", "train_thermal"):
            (root / "idx" / f"{split}_1.txt").write_text(f"{path} 1\n")
        with pytest.raises(UserError, match="leads outside the data set"):
            RegDB(root, "train")
