"""Choice of the device, and the error messages if it is missing or has too little memory."""

import pytest
import torch

from engine.device import select_device
from utils.run.cli import run_program
from utils.run.errors import UserError


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


def test_too_little_memory_is_no_defect(capsys):
    def main() -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")

    assert run_program(main) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: out of GPU memory; lower ")
    assert message.count("\n") == 1
