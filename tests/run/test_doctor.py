"""The doctor: it prints all findings, one per line, and its exit code says whether a run would start."""

import shutil
from pathlib import Path

import pytest
import torch

from data.datasets import SYSU, RegDB
from main import main as run_main
from models import MCJA
from tests.helpers.runs import arguments, refused
from tests.helpers.users import ordinary_user
from tools import doctor
from tools.doctor import main
from utils.run.cli import run_program

SIZE = (48, 24)


def words_of(tmp_path: Path, dataset: str, root: Path, **changes: str) -> list[str]:
    """The doctor's command line: the same as a run's."""
    words = arguments(tmp_path, dataset, root, **changes)
    at = words.index("--seed")
    return words[:at] + words[at + 2 :]


def examine(capsys, *words: str) -> tuple[int, dict[str, list[str]]]:
    """Run the doctor; returns the exit code and the findings of each level."""
    capsys.readouterr()
    code = run_program(lambda: main(list(words)))
    output = capsys.readouterr()
    assert output.err == ""
    *lines, verdict = output.out.splitlines()
    found: dict[str, list[str]] = {"ok": [], "warning": [], "error": []}
    for line in lines:
        level, text = line.split(maxsplit=1)
        found[level].append(text)
    assert (code == 2) == bool(found["error"])
    assert verdict.endswith("can start" if code == 0 else "cannot start, or would fail")
    assert verdict.startswith(f"{len(found['error'])} error") or "more like these" in output.out
    return code, found


def mentions(lines: list[str], *words: str) -> bool:
    return any(all(word in line for word in words) for line in lines)


@pytest.mark.parametrize("dataset", ["sysu", "regdb", "llcm"])
def test_what_can_start(dataset, sysu_root, regdb_root, llcm_root, tmp_path, capsys):
    root = {"sysu": sysu_root, "regdb": regdb_root, "llcm": llcm_root}[dataset]
    before = sorted(tmp_path.rglob("*"))
    words = words_of(tmp_path, dataset, root, cache="disk")
    code, found = examine(capsys, *words, "--full")
    assert code == 0
    assert mentions(found["ok"], "train images:", "decoded")
    assert mentions(found["ok"], "test images:", "decoded")
    assert mentions(found["ok"], "soft rank: ")
    assert mentions(found["ok"], "cache_dir", "free", "needed")
    assert mentions(found["warning"], "train", "the published data set has")  # a smaller data set is no error
    assert mentions(found["warning"], "test", "the published data set has")
    after = sorted(tmp_path.rglob("*"))
    assert [path for path in after if path not in before and path.suffix != ".yml"] == []  # no files are left behind
    assert mentions(examine(capsys, *words)[1]["ok"], "none was decoded")


def test_all_that_is_missing_is_listed(sysu, tmp_path, capsys):
    words = words_of(tmp_path, "sysu", sysu)
    shutil.rmtree(sysu / "cam3")
    shutil.rmtree(sysu / "cam4")
    (sysu / "cam4").write_text("")
    for name in ("val_id.txt", "rand_perm_cam.mat", "test_id.txt"):
        (sysu / "exp" / name).unlink()
    code, found = examine(capsys, *words)
    assert code == 2
    for name, text in {
        "cam3": "no such folder; SYSU-MM01 has cam1 ... cam6",
        "cam4": "not a folder",
        "exp/val_id.txt": "expected: identities in one line, such as 1,2,4 (part of SYSU-MM01)",
        "exp/test_id.txt": "expected: identities in one line, such as 1,2,4 (part of SYSU-MM01)",
        "exp/rand_perm_cam.mat": "expected: a (6, 1) cell",
    }.items():
        lines = [line for line in found["error"] if line.startswith(f"{sysu / name}: ")]
        assert len(lines) == 1, name  # once, though both splits need it
        assert text in lines[0]
    assert len(found["error"]) == 5


def test_indices_of_regdb(regdb, tmp_path, capsys):
    words = words_of(tmp_path, "regdb", regdb)
    for modality in ("visible", "thermal"):
        (regdb / f"idx/train_{modality}_1.txt").unlink()
    shutil.rmtree(regdb / "Thermal")
    _, found = examine(capsys, *words)
    assert mentions(found["error"], "train_visible_1.txt: no such file; expected: ", "'relative/path label'")
    assert mentions(found["error"], "train_thermal_1.txt: no such file")
    assert mentions(found["error"], "Thermal: no such folder; RegDB has Visible and Thermal")


def test_no_data_at_all(tmp_path, sysu_root, capsys):
    words = words_of(tmp_path, "sysu", sysu_root)
    _, found = examine(capsys, *words, "data_root", str(tmp_path / "nowhere"))
    assert found["error"] == [
        f"{tmp_path}/nowhere: no such folder; set data_root to the folder that SYSU-MM01 was unpacked to"
    ]


def test_every_undecodable_image_is_listed(regdb, tmp_path, capsys, monkeypatch):
    words = words_of(tmp_path, "regdb", regdb)
    train, test = (RegDB(regdb, split) for split in ("train", "test"))
    broken = [regdb / path for path in [*train.paths[[2, 40]], *test.paths[[0, 9]]]]
    for path in broken:
        path.write_bytes(path.read_bytes()[:99])
    assert examine(capsys, *words)[0] == 0  # only --full looks at images
    for workers in ("0", "2"):
        code, found = examine(capsys, *words, "num_workers", workers, "--full")
        assert code == 2
        assert [line.split(": ")[0] for line in found["error"]] == [str(path) for path in broken]
    monkeypatch.setattr(doctor, "MAX_LINES", 1)
    _, found = examine(capsys, *words, "--full")
    assert [line for line in found["error"] if "more" in line] == ["... and 1 more like these 1"] * 2

    _, found = examine(capsys, *words, "skip_unreadable", "true")
    assert mentions(found["warning"], str(broken[0]), "skip_unreadable leaves it out")
    assert found["error"] == []  # the test images are not looked at


def test_an_identity_that_would_lose_its_images(regdb, tmp_path, capsys):
    words = words_of(tmp_path, "regdb", regdb, skip_unreadable="true")
    dataset = RegDB(regdb, "train")
    for sample in dataset.samples:
        if (sample.label, sample.camera) == (0, 3):
            (regdb / sample.path).write_bytes(b"")
    _, found = examine(capsys, *words)
    assert mentions(found["error"], "skip_unreadable would leave no infrared image")


def test_published_counts(sysu_root, tmp_path, capsys, monkeypatch):
    published = {}
    for split in ("train", "test"):
        dataset = SYSU(sysu_root, split)
        published[split] = dataset.counts
    monkeypatch.setattr(SYSU, "published", published)
    _, found = examine(capsys, *words_of(tmp_path, "sysu", sysu_root))
    assert sum("as published" in line for line in found["ok"]) == 2
    assert not mentions(found["warning"], "published")


def test_one_modality_only(sysu, tmp_path, capsys):
    import numpy as np
    from scipy.io import loadmat, savemat

    words = words_of(tmp_path, "sysu", sysu)
    identity = SYSU(sysu, "train").samples[0].identity
    path = sysu / "exp/rand_perm_cam.mat"
    content = loadmat(path)["rand_perm_cam"]
    for camera in (3, 6):
        shutil.rmtree(sysu / f"cam{camera}/{identity:04d}", ignore_errors=True)
        if identity <= len(content[camera - 1, 0]):
            content[camera - 1, 0][identity - 1, 0] = np.zeros((10, 0))
    savemat(path, {"rand_perm_cam": content})
    code, found = examine(capsys, *words)
    assert code == 0
    assert mentions(found["warning"], f"images of one modality only: 1, the first is {identity};")
    _, found = examine(capsys, *words, "sample_method", "cross_modality_identity")
    assert mentions(found["error"], "sample_method", "only one")


REFUSED = {
    "identities": ({"num_id": "3"}, "num_id: 3"),
    "batches": ({"p_size": "1000"}, "p_size"),
    "cameras": ({"num_cam": "2"}, "num_cam: 2"),
    "checkpoint": ({"resume": "/nowhere/x.pth"}, "/nowhere/x.pth"),
    "weights": ({"pretrained": "/nowhere/x.pth"}, "/nowhere/x.pth"),
    "apex": ({"amp_backend": "apex"}, "amp_backend"),
    "output": ({"output_dir": "/proc/nowhere"}, "output_dir"),
    "key": ({"p_sise": "3"}, "did you mean 'p_size'"),
    "test": ({"test_only": "true"}, "test_only"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_run_refuses_is_an_error(what, sysu_root, tmp_path, capsys):
    changes, words = REFUSED[what]
    code, found = examine(capsys, *words_of(tmp_path, "sysu", sysu_root, **changes))
    assert code == 2
    assert mentions(found["error"], words)
    assert words in refused(capsys, tmp_path, *arguments(tmp_path, "sysu", sysu_root, **changes))


def test_checkpoints(sysu_root, tmp_path, capsys):
    words = words_of(tmp_path, "sysu", sysu_root, test_only="true")
    torch.save(MCJA(3, backbone="resnet10").state_dict(), tmp_path / "whole.pth")
    _, found = examine(capsys, *words, "resume", str(tmp_path / "whole.pth"))
    assert mentions(found["error"], "whole.pth", "another number of classes")
    code, found = examine(capsys, *words, "resume", str(tmp_path / "whole.pth"), "num_id", "3")
    assert code == 0
    assert mentions(found["ok"], "whole.pth", "0 mismatched")
    assert not mentions(found["ok"] + found["warning"], "SYSU-MM01 train")  # a test needs no training data
    torch.save(MCJA(3, backbone="resnet18").state_dict(), tmp_path / "other.pth")
    _, found = examine(capsys, *words, "resume", str(tmp_path / "other.pth"))
    assert mentions(found["error"], "other.pth", "architecture")


def test_a_gpu_that_is_not_there(sysu_root, tmp_path, capsys):
    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has a GPU 7")
    words = words_of(tmp_path, "sysu", sysu_root)
    words[words.index("--gpu") + 1] = "7"
    assert mentions(examine(capsys, *words)[1]["error"], "there is no GPU 7")


def test_too_small_disks(sysu_root, tmp_path, capsys, monkeypatch):
    words = words_of(tmp_path, "sysu", sysu_root, cache="disk")
    assert examine(capsys, *words)[0] == 0
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: full)
    _, found = examine(capsys, *words)
    assert mentions(found["error"], "output_dir", "0.00 GB free", "on another disk")
    assert mentions(found["error"], "cache_dir", "0.00 GB free")
    monkeypatch.setattr("data.cache.available_memory", lambda: 1000)
    _, found = examine(capsys, *words, "cache", "device")
    assert mentions(found["error"], "cache: 'device' needs")


def test_a_cache_that_is_there_needs_no_room(regdb_root, tmp_path, capsys):
    words = arguments(tmp_path, "regdb", regdb_root, cache="disk", num_epoch="0", mser="false", eval_interval="0")
    assert run_main(words) == 0
    at = words.index("--seed")
    _, found = examine(capsys, *words[:at], *words[at + 2 :])
    assert mentions(found["ok"], "cache_dir", "0.00 GB needed")


def test_folders_without_permission(sysu_root, tmp_path, capsys):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(shutil.copytree(sysu_root, Path(folder) / "sysu"))
        cfg = Path(folder) / "x.yml"
        cfg.write_text("prefix: small\nbackbone: resnet10\npretrained: none\nnum_workers: 0\n")
        for path in (root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (root / "cam5").chmod(0)
        with ordinary_user():
            _, found = examine(
                capsys, "--cfg", str(cfg), "--gpu", "cpu", "data_root", str(root), "output_dir", f"{folder}/runs"
            )
        (root / "cam5").chmod(0o755)
    assert mentions(found["error"], f"{root / 'cam5'}: cannot be read (Permission denied)")
    assert mentions(found["error"], f"output_dir: {folder} cannot be written to (Permission denied); set output_dir")


def test_what_the_environment_lacks(monkeypatch, capsys, tmp_path):
    def version(name: str) -> str:
        if name in ("numba", "yacs"):
            raise doctor.PackageNotFoundError(name)
        return {"torch": "2.10.1+cpu"}.get(name, "999.0rc1")

    monkeypatch.setattr(doctor, "version", version)
    code, found = examine(capsys, "--cfg", str(tmp_path / "absent.yml"))
    assert code == 2
    assert mentions(found["error"], "torch: 2.10.1+cpu, 2.11 or newer is needed; run `make setup`")
    assert mentions(found["error"], "yacs: not installed")
    assert mentions(found["warning"], "numba: not installed", "slower")
    assert mentions(found["error"], "absent.yml: no such configuration file")


def test_arguments(capsys):
    assert run_program(lambda: main(["--fast"])) == 2
    assert capsys.readouterr().err.count("\n") == 1
