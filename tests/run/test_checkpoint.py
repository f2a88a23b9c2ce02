"""Loading of checkpoints: what is read, what is refused in one line, and what a run folder says about one."""

import io
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from configs import check_resume, get_config
from models import AGW, MCJA, load_weights
from models.loading import read_state_dict, same_state
from tests.helpers.fuzzing import mutations, outcome, report
from tests.helpers.runs import arguments, refused, run
from utils.run.errors import UserError

NAME = "bn_neck.weight"
CLASSES = 6  # as many as the training identities of the synthetic RegDB
State = dict[str, Tensor]


def network(classes: int = CLASSES, **options: object) -> MCJA:
    return MCJA(classes, **({"backbone": "resnet10"} | options))


@pytest.fixture(scope="module")
def state() -> State:
    return network().state_dict()


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def saved_by_old_torch(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


# --- what fits ------------------------------------------------------------------------------------------------------


def test_report_of_what_fitted(state):
    state = {**state, "classifier.weight": torch.zeros(7, 512), "surplus": torch.zeros(1)}
    del state[NAME]
    found = load_weights(network(), state)
    assert found.mismatched == ("classifier.weight",)
    assert found.missing == (NAME,)
    assert found.unexpected == ("surplus",)
    assert len(found.loaded) == len(state) - 2
    with pytest.raises(UserError, match="holds surplus"):
        found.require_same_network("file")
    del state["surplus"]
    with pytest.raises(UserError, match=f"lacks {NAME}"):
        load_weights(network(), state).require_same_network("file")


def test_a_classifier_of_another_size_is_allowed(state):
    found = load_weights(network(classes=9), state)
    assert found.mismatched == ("classifier.weight",)
    found.require_same_network("file")


def test_a_released_checkpoint_has_an_unused_classifier(state):
    found = load_weights(network(), {**state, "backbone.fc.weight": torch.zeros(1000, 512)})
    assert (found.missing, found.unexpected, found.mismatched) == ((), (), ())


@pytest.mark.parametrize("save", [saved, saved_by_old_torch])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_names_with_the_prefix_of_a_wrapper(save, prefix, state, tmp_path):
    (tmp_path / "a.pth").write_bytes(save({prefix + name: value for name, value in state.items()}))
    model = network()
    found = load_weights(model, str(tmp_path / "a.pth"))
    found.require_same_network("a.pth")
    assert same_state(model.state_dict(), state)
    assert found.wrapper == prefix
    assert ("removed" in str(found)) == bool(prefix)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_loaded(dtype, state, tmp_path):
    other = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    torch.save(other, tmp_path / "a.pth")
    model = network()
    load_weights(model, tmp_path / "a.pth").require_same_network("a.pth")
    torch.testing.assert_close(model.state_dict()[NAME], state[NAME])


# --- AGW's released checkpoints ---------------------------------------------------------------------------------------

SCORES = {"cmc": np.array([0.4, 0.7], dtype=np.float32), "mAP": np.float64(0.4), "mINP": np.float32(0.3), "epoch": 42}
COPIES = {"visible_module.visible.layer1.0.conv1.weight", "base_resnet.base.bn1.weight"}  # two of many


def saved_with_old_numpy(content: object) -> bytes:
    """NumPy 1 calls the module that its pickles name numpy.core."""
    found = saved_by_old_torch(content)
    assert b"numpy._core.multiarray" in found
    return found.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.fixture(scope="module")
def released() -> dict:
    """Like a released checkpoint of AGW, of a smaller network."""
    return {"net": AGW(CLASSES, backbone="resnet10").state_dict() | dict.fromkeys(COPIES, torch.zeros(3)), **SCORES}


@pytest.mark.parametrize("save", [saved, saved_by_old_torch, saved_with_old_numpy])
def test_a_released_file_of_agw(save, released, tmp_path):
    (tmp_path / "agw.t").write_bytes(save(released))
    model = AGW(CLASSES, backbone="resnet10")
    found = load_weights(model, tmp_path / "agw.t")
    assert (found.missing, found.unexpected, found.mismatched) == ((), (), ())
    assert set(found.never_used) == COPIES
    assert all(name in str(found) for name in COPIES)
    found.require_same_network("agw.t")
    assert same_state({**released["net"], **model.state_dict()}, released["net"])


@pytest.mark.parametrize("content", ["whole", "net", "own", "wrapped"])
def test_what_a_released_file_of_agw_holds(content, released):
    model = AGW(CLASSES, backbone="resnet10")
    given = {
        "whole": released,
        "net": released["net"],
        "own": {name: value for name, value in released["net"].items() if name not in COPIES},
        "wrapped": {"net": {f"module.{name}": value for name, value in released["net"].items()}},
    }[content]
    found = load_weights(model, given)
    assert (found.missing, found.unexpected, found.mismatched) == ((), (), ())
    assert set(found.never_used) == (set() if content == "own" else COPIES)
    assert same_state({**released["net"], **model.state_dict()}, released["net"])


def test_what_does_not_belong_to_agw_is_reported(released):
    state = {**released["net"], "surplus": torch.zeros(1), "bottleneck.weight": torch.zeros(7)}
    del state["NL_2.0.theta.bias"]
    found = load_weights(AGW(CLASSES, backbone="resnet10"), {"net": state})
    assert found.unexpected == ("surplus",)
    assert found.missing == ("NL_2.0.theta.bias",)
    assert found.mismatched == ("bottleneck.weight",)
    assert set(found.never_used) == COPIES


def test_a_checkpoint_of_the_other_network_is_refused(state, released):
    with pytest.raises(UserError, match="no name in it belongs|unknown to this model"):
        load_weights(network(), released).require_same_network("agw.t")
    with pytest.raises(UserError, match="unknown to this model"):
        load_weights(AGW(CLASSES, backbone="resnet10"), state).require_same_network("mcja.pth")


def test_code_beside_the_weights_is_not_run(released, tmp_path):
    class Trap:
        def __reduce__(self):
            return eval, ("1 / 0",)

    torch.save({**released, "cmc": Trap()}, tmp_path / "agw.t")
    with pytest.raises(UserError, match="only tensors and plain types are loaded"):
        load_weights(AGW(CLASSES, backbone="resnet10"), tmp_path / "agw.t")
    torch.save({**released, "cmc": np.array([Trap()], dtype=object)}, tmp_path / "agw.t")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_weights(AGW(CLASSES, backbone="resnet10"), tmp_path / "agw.t")


# --- what is refused ------------------------------------------------------------------------------------------------


def with_value(change: Callable[[Tensor], object]) -> Callable[[State], bytes]:
    return lambda state: saved({**state, NAME: change(state[NAME])})


# what it is -> (how it is made from a good state dict, part of the message)
REFUSED: dict[str, tuple[Callable[[State], bytes], str]] = {
    "an empty file": (lambda s: b"", "not a readable checkpoint"),
    "text": (lambda s: b"weights\n" * 50, "not written by torch.save"),
    "an incomplete copy": (lambda s: saved(s)[:5_000_000], "copy it again if it is incomplete"),
    "a list": (lambda s: saved([1, 2]), "holds a list, not a state dict"),
    "state_dict": (lambda s: saved({"state_dict": s}), "under state_dict, not a bare state dict"),
    "a training state": (lambda s: saved({"epoch": 3, "model": s}), "holds a int under epoch, not a bare state dict"),
    "a whole model": (lambda s: saved(nn.Linear(2, 2)), "it holds torch.nn.modules.linear.Linear"),
    "NaN": (with_value(lambda v: v * float("nan")), f"{NAME} holds NaN or infinite"),
    "too large for float32": (with_value(lambda v: v.double() * 1e300), f"{NAME} holds NaN or infinite"),
    "infinite": (with_value(lambda v: v * float("inf")), f"{NAME} holds NaN or infinite"),
    "sparse": (with_value(lambda v: v.to_sparse()), f"{NAME} is not an ordinary dense tensor"),
    "whole numbers": (with_value(lambda v: v.int()), f"another shape or type of {NAME}"),
    "another shape": (with_value(lambda v: v[:5]), f"another shape or type of {NAME}"),
    "a larger backbone": (lambda s: saved(network(backbone="resnet18").state_dict()), "unknown to this model"),
    "another mda_m": (lambda s: saved(network(mda_m=7).state_dict()), "(model, backbone, mda_m"),
    "another network": (lambda s: saved(nn.Linear(2, 2).state_dict()), "no name in it belongs to this model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case, state, tmp_path):
    make, message = REFUSED[case]
    path = tmp_path / "given.pth"
    path.write_bytes(make(state))
    with pytest.raises(UserError) as error:
        load_weights(network(), path).require_same_network(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert text.isprintable()
    assert "weights_only" not in text  # torch's advice to load code


def test_paths_without_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match="is a folder; name the checkpoint in it"):
        read_state_dict(tmp_path)
    with pytest.raises(UserError, match="no such checkpoint"):
        read_state_dict(tmp_path / "absent.pth")


@pytest.mark.parametrize("test_only", ["true", "false"])
def test_main_refuses_a_bad_checkpoint_before_it_makes_a_folder(test_only, words, tmp_path, capsys):
    torch.save({"state_dict": {}}, tmp_path / "a.pth")
    changes = ("output_dir", str(tmp_path / "runs"), "resume", str(tmp_path / "a.pth"), "test_only", test_only)
    assert "not a bare state dict" in refused(capsys, tmp_path, *words, *changes)


@pytest.mark.filterwarnings("ignore")  # torch warns about some damaged files
@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.faults)])
def test_damaged_files(count, tmp_path, tally):
    """Damaged checkpoints are read or refused in one line, and never make a weight NaN."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    path, found = tmp_path / "damaged.pth", Counter()
    for content in mutations(saved(model.state_dict()), 11, count):
        path.write_bytes(content)
        found[outcome(lambda: load_weights(model, path))] += 1
        assert all(value.float().isfinite().all() for value in model.state_dict().values())
    report(tally, "checkpoint", found)
    assert found["refused"] > count / 2


# --- what the run folder of a checkpoint says -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(regdb_root, tmp_path_factory) -> list[str]:
    return arguments(tmp_path_factory.mktemp("cfg"), "regdb", regdb_root)


@pytest.fixture
def resume(tmp_path) -> Callable[..., CfgNode]:
    """The configuration of a RegDB run that resumes a checkpoint, with the given config.yml in its folder."""

    def resume(trained: str | None, *overrides: str) -> CfgNode:
        folder = tmp_path / "trained"
        folder.mkdir()
        if trained is not None:
            (folder / "config.yml").write_text(trained)
        (tmp_path / "test.yml").write_text("dataset: regdb\nimage_size: (64, 32)\n")
        return get_config(tmp_path / "test.yml", ["resume", str(folder / "best.pth"), *overrides])

    return resume


@pytest.mark.parametrize("test_only", ["true", "false"])
def test_a_checkpoint_of_another_trial_is_refused(test_only, resume):
    with pytest.raises(UserError, match="RegDB's split 7 .*half of the test identities of split 1; set trial 7"):
        check_resume(resume("dataset: regdb\ntrial: 7\n", "test_only", test_only))


def test_another_data_set_with_other_classes_is_refused(resume):
    with pytest.raises(UserError, match="was trained on 'sysu' with 395 classes .*num_id 395"):
        check_resume(resume("dataset: sysu\nnum_id: 395\n", "test_only", "true"))


@pytest.mark.parametrize(
    ("trained", "note"),
    [
        ("dataset: regdb\ntrial: '1'\nimage_size: (64, 32)\n", ""),
        ("dataset: sysu\nnum_id: 206\n", "trained with dataset 'sysu', now 'regdb'"),
        ("dataset: regdb\ntrial: 1\ndrop_last_stride: true\n", "trained with drop_last_stride True, now False"),
        (None, "make sure that"),
        ("anything: 1", "make sure that"),
        ("not: [yaml", "make sure that"),
    ],
)
def test_what_is_known_of_the_training(trained, note, resume):
    found = check_resume(resume(trained, "test_only", "true"))
    assert note in found
    assert bool(note) == bool(found)


def test_it_is_logged(words, state, tmp_path):
    torch.save(state, tmp_path / "best.pth")
    changes = ("test_only", "true", "mser", "false", "resume", str(tmp_path / "best.pth"))
    log = (run(tmp_path, *words, *changes, "output_dir", str(tmp_path / "runs")) / "log.txt").read_text()
    assert "make sure that" in log
