"""Checkpoints that are broken, foreign or hostile: each is read, or refused in one line, and runs nothing."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from main import main
from models import MCJA, load_weights
from models.pickles import require_shallow
from models.reading import read_state_dict
from tests.helpers.fuzzing import mutations
from tests.helpers.limits import within
from tests.helpers.runs import arguments, refused, run
from utils.run.cli import run_program
from utils.run.errors import UserError

NAME = "bn_neck.weight"
FAST, MANY = 60, 5000  # fuzzed files per kind


def saved(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def legacy(content: object) -> bytes:
    return saved(content, _use_new_zipfile_serialization=False)


def archive(content: bytes, change: Callable[[str, bytes], bytes | None], kind: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint with changed records and right checksums; None leaves a record out."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", kind) as new:
        for name in old.namelist():
            record = change(name, old.read(name))
            if record is not None:
                new.writestr(name, record)
    return file.getvalue()


class Payload:
    """Pickled, a call that makes a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return MCJA(6, backbone="resnet10").state_dict()  # as many classes as the data set has identities to train on


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.frozensets(st.text())
    ),
    max_leaves=20,
)


def script() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


def old_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(content := pickle.dumps(Payload(Path("made-by-a-checkpoint"))))
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def with_value(change: Callable[[torch.Tensor], object]) -> Callable[[dict], bytes]:
    return lambda state: saved({**state, NAME: change(state[NAME])})


# what it is -> (how it is made from a good state dict, what the line says)
REFUSED: dict[str, tuple[Callable[[dict], bytes], str]] = {
    "nothing": (lambda s: b"", "empty file"),
    "text": (lambda s: b"weights\n" * 50, "not a readable checkpoint"),
    "gzip": (lambda s: gzip.compress(saved({})), "not a readable checkpoint"),
    "half": (lambda s: saved(s)[:5_000_000], "not a complete checkpoint"),
    "half of an old one": (lambda s: legacy(s)[:5_000_000], "not a readable checkpoint"),
    "one changed byte": (lambda s: (b := saved(s))[:3_000_000] + bytes([b[3_000_000] ^ 1]) + b[3_000_001:], "damaged"),
    "a record too short": (lambda s: archive(saved(s), lambda n, r: r[:4] if "/data/" in n else r), "not a readable"),
    "a record left out": (lambda s: archive(saved(s), lambda n, r: None if n.endswith("/data/3") else r), "data/3"),
    "compressed": (lambda s: archive(saved(s), lambda n, r: r, zipfile.ZIP_DEFLATED), "compressed archive"),
    "a zip bomb": (
        lambda s: archive(saved({}), lambda n, r: bytes(10**8) if "pkl" in n else r, zipfile.ZIP_DEFLATED),
        "compressed archive",
    ),
    "a program": (lambda s: script(), "TorchScript"),
    "a tar": (lambda s: old_tar(), "is a tar file"),
    "a list": (lambda s: saved([1, 2]), "holds a list"),
    "a number": (lambda s: saved(3), "holds a int"),
    "a tensor": (lambda s: saved(torch.zeros(3)), "holds a Tensor"),
    "an empty dict": (lambda s: saved({}), "empty state dict"),
    "a nested dict": (lambda s: saved({"a": {"b": {"c": torch.zeros(1)}}}), "a is of type dict"),
    "state_dict": (lambda s: saved({"state_dict": s}), "lies under state_dict; save it alone"),
    "a training state": (lambda s: saved({"epoch": 3, "model": s, "optimizer": {}}), "lies under model; save it alone"),
    "a whole model": (lambda s: saved(nn.Linear(2, 2)), "asks for torch.nn.modules.linear.Linear"),
    "names that are numbers": (lambda s: saved({1: torch.zeros(1)}), "the name 1 is not text"),
    "a name that is a tuple": (lambda s: saved({**s, ("a",): torch.zeros(1)}), "('a',) is not text"),
    "a name of two lines": (lambda s: saved({**s, "a\n\x1b[31mb": torch.zeros(1)}), r"'a\n\x1b[31mb'"),
    "a name without an end": (lambda s: saved({**s, "a" * 10**5: torch.zeros(1)}), "unknown to this model"),
    "some names wrapped": (
        lambda s: saved({n.replace("MDA", "module.MDA"): v for n, v in s.items()}),
        "module.",
    ),
    "NaN": (with_value(lambda v: v * float("nan")), f"{NAME} holds NaN or infinite"),
    "infinite": (with_value(lambda v: v.double() * float("inf")), f"{NAME} holds NaN or infinite"),
    "overflowing": (with_value(lambda v: v.double() * 1e300), f"{NAME} holds NaN or infinite"),
    "sparse": (with_value(lambda v: v.to_sparse()), "layout sparse_coo"),
    "sparse rows": (with_value(lambda v: torch.eye(3).to_sparse_csr()), "layout sparse_csr"),
    "quantized": (with_value(lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8)), "quantized"),
    "without numbers": (with_value(lambda v: v.to("meta")), "meta device"),
    "complex": (with_value(lambda v: v.to(torch.complex64)), "complex"),
    "whole numbers": (with_value(lambda v: v.int()), f"another shape or type of {NAME}"),
    "of dimension 0": (with_value(lambda v: v[0]), f"another shape or type of {NAME}"),
    "text for a tensor": (with_value(str), f"{NAME} is of type str"),
    "one number repeated": (with_value(lambda v: torch.ones(1).expand(512)), "larger than the numbers saved"),
    "repeated without end": (lambda s: saved({**s, "x": torch.ones(1).expand(10**12)}), "larger than the numbers"),
    "another backbone": (lambda s: saved(MCJA(5, backbone="resnet18").state_dict()), "of this architecture"),
    "another mda_m": (lambda s: saved(MCJA(5, backbone="resnet10", mda_m=7).state_dict()), "mda_m"),
    "a foreign network": (lambda s: saved(nn.Linear(2, 2).state_dict()), "no name in it belongs to this model"),
}


@pytest.fixture(scope="module")
def words(regdb_root, tmp_path_factory) -> list[str]:
    return arguments(tmp_path_factory.mktemp("cfg"), "regdb", regdb_root)


@pytest.mark.parametrize("test_only", ["true", "false"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case, test_only, state, words, tmp_path, capsys):
    make, message = REFUSED[case]
    path = tmp_path / "given.pth"
    path.write_bytes(make(state))
    changes = ("output_dir", str(tmp_path / "runs"), "resume", str(path), "test_only", test_only)
    with within(20):
        error = refused(capsys, tmp_path, *words, *changes)
    assert message in error
    assert str(path) in error
    assert error.rstrip("\n").isprintable()
    assert len(error) < 800


@pytest.mark.parametrize("save", [saved, legacy, lambda content: pickle.dumps(content), lambda c: pickle.dumps(c, 0)])
@pytest.mark.parametrize("place", ["a value", "a name", "all"])
def test_code_is_never_run(save, place, tmp_path):
    payload = Payload(tmp_path / "made")
    (tmp_path / "evil.pth").write_bytes(
        save({"a value": {"x": payload}, "a name": {payload: torch.zeros(1)}, "all": payload}[place])
    )
    with pytest.raises(UserError, match="asks for posix.mkdir|not a readable checkpoint"):
        read_state_dict(tmp_path / "evil.pth")
    assert not (tmp_path / "made").exists()
    # the payload works where it is let
    pickle.loads(pickle.dumps(payload))
    assert (tmp_path / "made").is_dir()


def nested(tuples: bytes) -> bytes:
    """A pickled dict whose one key is made by these operations."""
    return b"\x80\x02}" + tuples + b"Ns."


DEEP = b")" + b"\x85" * 3_000_000  # (((...)))
DOUBLED = b")q\x00" + b"0h\x00h\x00\x86q\x00" * 60  # x = (x, x), sixty times


WIDE = b"(" + b")" * 2000 + b"t"


@pytest.mark.parametrize("tuples", [DEEP, DOUBLED, WIDE], ids=["deep", "doubled", "wide"])
@pytest.mark.parametrize("kind", ["archive", "old"])
def test_names_that_would_crash_or_hang_are_refused(tuples, kind, tmp_path):
    if kind == "archive":
        content = archive(saved({}), lambda n, r: nested(tuples) if n.endswith("data.pkl") else r)
    else:
        good = io.BytesIO(legacy({}))
        for _ in range(3):
            pickle.load(good)
        content = good.getvalue()[: good.tell()] + nested(tuples) + pickle.dumps([], 2)
    (tmp_path / "a.pth").write_bytes(content)
    with within(20), pytest.raises(UserError, match="nests too many tuples"):
        read_state_dict(tmp_path / "a.pth")


@given(content=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
@settings(max_examples=200, deadline=None)
def test_any_plain_pickle_is_looked_through(content, protocol):
    file = io.BytesIO(pickle.dumps(content, protocol) + b"next")
    require_shallow(file)
    assert file.read() == b"next"


def test_folders_and_files_that_cannot_be_opened(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is a folder; name the checkpoint in it"):
        read_state_dict(tmp_path)
    with pytest.raises(UserError, match="no such checkpoint"):
        read_state_dict(tmp_path / "absent.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    with within(5), pytest.raises(UserError, match="no such checkpoint"):
        read_state_dict(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="File name too long"):
        read_state_dict(tmp_path / ("x" * 300))
    (tmp_path / "closed.pth").write_bytes(saved({}))
    # whoever runs the tests may be allowed to read anything
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(UserError, match="closed.pth: the checkpoint cannot be read .Permission denied."):
        read_state_dict(tmp_path / "closed.pth")


@pytest.mark.parametrize("save", [saved, legacy])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_wrapped_names_are_read_and_told(save, prefix, state, tmp_path):
    (tmp_path / "a.pth").write_bytes(save({prefix + name: value for name, value in state.items()}))
    model = MCJA(6, backbone="resnet10")
    report = load_weights(model, tmp_path / "a.pth")
    report.require_same_network("a.pth")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert ("names without their" in str(report)) == bool(prefix)
    assert report.wrapper == prefix


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(dtype, state, tmp_path):
    other = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    (tmp_path / "a.pth").write_bytes(saved(other))
    model = MCJA(6, backbone="resnet10")
    load_weights(model, tmp_path / "a.pth").require_same_network("a.pth")
    torch.testing.assert_close(model.state_dict()[NAME], state[NAME])


def beside(tmp_path: Path, state: dict, text: str | bytes | None) -> str:
    """A checkpoint with this config.yml in its folder."""
    folder = tmp_path / "trained"
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "best.pth")
    if text is not None:
        (folder / "config.yml").write_bytes(text.encode() if isinstance(text, str) else text)
    return str(folder / "best.pth")


@pytest.mark.parametrize("test_only", ["true", "false"])
def test_another_trial_is_refused(test_only, state, words, tmp_path, capsys):
    path = beside(tmp_path, state, "dataset: regdb\ntrial: 7\n")
    error = refused(capsys, tmp_path, *words, "test_only", test_only, "resume", path)
    assert "was trained on RegDB's trial 7" in error
    assert "half of trial 1's test identities" in error
    assert "set trial 7" in error


def test_another_data_set_with_other_classes_is_refused(state, words, tmp_path, capsys):
    path = beside(tmp_path, state, "dataset: sysu\nnum_id: 395\n")
    error = refused(capsys, tmp_path, *words, "test_only", "true", "resume", path)
    assert "was trained on 'sysu' with 395 classes" in error
    assert "num_id 395" in error


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("dataset: regdb\ntrial: '1'\nimage_size: (64, 32)\n", ""),
        ("dataset: sysu\nnum_id: 6\n", "trained with dataset 'sysu', now 'regdb'"),
        ("dataset: regdb\ntrial: 1\ndrop_last_stride: true\n", "trained with drop_last_stride True, now False"),
        (None, "there is no"),
        ("anything: 1", "says nothing of a data set"),
        (b"\xff\xfe\x00", "cannot be read as text"),
        ("[" * 3000, "nested too deeply"),
        ("dataset: !!python/name:os.system\n", "not valid YAML"),
    ],
)
def test_what_is_known_of_the_training_is_logged(text, note, state, words, tmp_path):
    path = beside(tmp_path, state, text)
    output = ("output_dir", str(tmp_path / "runs"))
    log = (run(tmp_path, *words, "test_only", "true", "mser", "false", "resume", path, *output) / "log.txt").read_text()
    assert note in log
    assert note or "trained with" not in log
    assert ("make sure that" in log) == bool(note and "trained" not in note)


def damaged(kind: str, network: nn.Module, seed: int, count: int) -> Iterator[bytes]:
    """Fuzzed checkpoints of ``network``."""
    good = saved(network.state_dict())
    if kind == "archive":
        yield from mutations(good, seed, count)
    elif kind == "old":
        yield from mutations(legacy(network.state_dict()), seed, count)
    else:  # right checksums, so that torch gets to see the damaged pickle
        with zipfile.ZipFile(io.BytesIO(good)) as old:
            (name,) = (name for name in old.namelist() if name.endswith("data.pkl"))
            pickled = old.read(name)
        for changed in mutations(pickled, seed, count):
            yield archive(good, lambda n, r, name=name, changed=changed: changed if n == name else r)


def fuzz(kind: str, count: int, tmp_path: Path, tally) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    path = tmp_path / "fuzzed.pth"
    outcomes = {"read": 0, "refused": 0}
    for content in damaged(kind, network, 11, count):
        path.write_bytes(content)
        with within(10):
            try:
                load_weights(network, path)
                outcomes["read"] += 1
            except UserError as error:
                assert str(error).isprintable()
                outcomes["refused"] += 1
        assert all(value.float().isfinite().all() for value in network.state_dict().values())
    tally(count, f"damaged checkpoints ({kind}): {outcomes['read']} read, {outcomes['refused']} refused")
    assert outcomes["refused"] > count / 2


KINDS = ["archive", "old", "pickle"]
# of torch and pickletools, on what is outdated or damaged
pytestmark = pytest.mark.filterwarnings(*(f"ignore::{kind}Warning" for kind in ("Future", "User", "Deprecation")))


@pytest.mark.parametrize("kind", KINDS)
def test_fuzzed(kind, tmp_path, tally):
    fuzz(kind, FAST, tmp_path, tally)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_fuzzed_at_length(kind, tmp_path, tally):
    fuzz(kind, MANY, tmp_path, tally)


def test_as_the_program_ends(words, tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(saved({"x": Payload(tmp_path / "made")}))
    assert run_program(lambda: main([*words, "test_only", "true", "resume", str(tmp_path / "evil.pth")])) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
