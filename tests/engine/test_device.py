"""Choice of the device, and the error messages if it is missing or has too little memory."""

import os

import pytest
import torch

import main as program
from engine.device import place, select_device
from tests.helpers.runs import arguments, run
from utils.run.cli import run_program
from utils.run.errors import UserError
from utils.tensors import send


@pytest.fixture
def two_gpus(monkeypatch) -> list[torch.device]:
    """Make torch report two GPUs. Returns the list that records each torch.cuda.set_device."""
    current: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", current.append)
    return current


@pytest.mark.parametrize(("gpu", "index"), [("auto", 0), ("0", 0), ("1", 1), ("01", 1)])
def test_a_gpu_is_the_current_one(gpu, index, two_gpus):
    device = select_device(gpu)
    assert device == torch.device("cuda", index)
    assert two_gpus == [device]


@pytest.mark.parametrize("gpu", ["2", "9" * 5000, "-1", "cuda:0", "", "²", "1.0"])
def test_what_is_no_gpu_is_refused(gpu, two_gpus):
    with pytest.raises(UserError, match="--gpu: "):
        select_device(gpu)
    assert not two_gpus


def test_float32_is_float32(monkeypatch):
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    select_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_convolutions_are_channels_last_on_a_gpu(kind, monkeypatch):
    convolution = torch.nn.Conv2d(3, 4, 3)
    to = convolution.to
    monkeypatch.setattr(convolution, "to", lambda *device, **options: to(**options))  # there may be no GPU
    place(convolution, torch.device(kind))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last) == (kind == "cuda")


@pytest.mark.parametrize("pinned", [True, False])
def test_only_pinned_memory_is_sent_to_a_gpu(pinned, monkeypatch):
    sent, tensor, copy = [], torch.zeros(2), torch.zeros(2)  # there may be no GPU
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: pinned or self is copy)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: copy)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking: sent.append((self, non_blocking)))
    send(tensor, torch.device("cuda"))
    ((found, non_blocking),) = sent
    assert found is (tensor if pinned else copy)
    assert non_blocking


def test_too_little_memory_is_no_defect(capsys):
    def main() -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")

    assert run_program(main) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: out of GPU memory; lower ")
    assert message.count("\n") == 1


@pytest.mark.parametrize("own", ["", ":16:8"])
@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_a_deterministic_run_sets_the_workspace_of_cublas_before_its_first_use(
    deterministic, own, regdb_root, tmp_path, monkeypatch
):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", own)
    if not own:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    found = []

    def watch(*model_and_device):  # nothing is computed on the device before the model is there
        found.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
        return place(*model_and_device)

    monkeypatch.setattr(program, "place", watch)
    words = arguments(tmp_path, "regdb", regdb_root, deterministic=deterministic, num_epoch="0", mser="false")
    try:
        run(tmp_path, *words)
        assert found[0] == (own or {"true": ":4096:8", "false": ""}[deterministic])
        assert torch.are_deterministic_algorithms_enabled() == (deterministic == "true")
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
