"""Tests that need a CUDA GPU; skipped without one."""

import csv

import numpy as np
import pytest
import torch

from data.augment import BatchAugment
from engine.device import place, select_device
from engine.precision import TorchPrecision, inference_dtype
from engine.step import build_step
from engine.trainer import train
from losses.soft_rank import soft_rank
from models import AGW, MCJA
from tests.helpers.losses import mcja_criterion
from tests.helpers.training import (
    losses_of,
    make_convolutional_training,
    make_schedule,
    make_training,
    train_whole_and_in_parts,
)
from utils.protocols import score

pytestmark = pytest.mark.gpu


def on_gpu(training=None, **options):
    training = training or make_training()
    training.device = select_device("0")  # turns TF32 off, as in a run
    training.model.cuda()
    training.optimizer = torch.optim.Adam(training.model.parameters(), lr=0.01, fused=True)
    training.precision = TorchPrecision(training.device, **options)
    return training


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-3), (torch.float16, 0.05), (torch.bfloat16, 0.05)])
def test_curves_agree_with_the_cpu(dtype, tolerance):
    assert losses_of(on_gpu(dtype=dtype)) == pytest.approx(losses_of(make_training()), rel=tolerance)


def test_compiled_curve_agrees_with_the_cpu():
    torch._dynamo.reset()
    training = on_gpu(dtype=None)
    training.criterion, training.compile = mcja_criterion("builtin"), True
    assert losses_of(training) == pytest.approx(losses_of(make_training()), rel=1e-3)


@pytest.mark.parametrize("network", [MCJA, AGW])
def test_embeddings_agree_with_the_cpu(network):
    torch.backends.cudnn.allow_tf32 = False
    model = network(5, backbone="resnet18").eval()
    images, is_infrared = torch.randn(4, 3, 96, 48), torch.tensor([True, False, False, True])
    with torch.no_grad():
        found = model.cuda()(images.cuda(), is_infrared.cuda()).cpu()
        torch.testing.assert_close(found, model.cpu()(images, is_infrared), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", [MCJA, AGW])
def test_a_network_never_waits_for_the_device(network):
    device = select_device("0")
    model = place(network(5, backbone="resnet18"), device)
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(module.weight.is_contiguous(memory_format=torch.channels_last) for module in convolutions)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)
    images, is_infrared = torch.randn(8, 3, 96, 48, device=device), (torch.arange(8) % 3 == 0).to(device)
    precision = TorchPrecision(device, torch.bfloat16)
    for mode in ("default", "error"):  # the first step is a warm-up
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with precision.autocast():
                embeddings = model(images, is_infrared)
            precision.step(model.classifier(embeddings.float()).square().mean(), optimizer)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert embeddings.isfinite().all()


def test_a_step_never_waits_for_the_device():
    training = on_gpu(dtype=torch.float16)
    assert training.criterion.losses["loss_cmr"].backend == "auto"
    step, batches = build_step(training), list(training.loader)
    step(batches[0])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        output = step(batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(value.isfinite() for value in output.values())


def test_augmentation_is_that_of_the_cpu():
    images = torch.randint(0, 256, (40, 3, 64, 32), dtype=torch.uint8)
    infrared = torch.arange(40) % 3 == 0
    ours, theirs = (BatchAugment(seed=3)(images.to(device), infrared).cpu() for device in ("cuda", "cpu"))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1.01 / 255 / 0.224)  # a grey level may truncate either way
    assert (ours - theirs).abs().gt(1e-5).float().mean() < 1e-3


@pytest.mark.parametrize("network", [MCJA, AGW])
def test_mixed_precision_embeddings(network):
    model = place(network(5, backbone="resnet18"), torch.device("cuda")).eval()
    is_infrared = torch.arange(8, device="cuda") % 2 == 1
    images = torch.randn(8, 3, 96, 48, device="cuda").to(memory_format=torch.channels_last)
    with torch.inference_mode():
        exact = model(images, is_infrared)
        with torch.autocast("cuda", dtype=inference_dtype(torch.device("cuda"), fp16=True, amp_dtype="float16")):
            mixed = model(images, is_infrared).float()
    assert ((mixed - exact).norm(dim=1) / exact.norm(dim=1)).max() < 1e-2


@pytest.mark.parametrize("dataset", ["sysu", "regdb"])
def test_scores_are_those_of_the_cpu(dataset, request):
    features, protocol, mser = request.getfixturevalue(f"{dataset}_case")
    expected = score(features, protocol, mser=mser)
    found = score(features, protocol, mser=mser, device=torch.device("cuda"))
    for name, result in expected.items():
        assert np.abs(np.subtract(found[name].trials, result.trials)).max() < 1e-3
    again = score(features, protocol, mser=mser, device=torch.device("cuda"))
    assert again == found  # the result does not depend on the order of additions


def test_a_stopped_training_goes_on_on_the_gpu(tmp_path):
    """GPU kernels are not bit-identical between runs, so the weights are compared with a tolerance."""
    expected, stopped, again = (on_gpu(dtype=torch.float16) for _ in range(3))
    train_whole_and_in_parts(expected, stopped, again, make_schedule(num_epoch=2), tmp_path)
    for name, value in expected.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_a_training_goes_on_on_another_kind_of_device(first, tmp_path):
    def make(device):
        if device == "cpu":
            return make_convolutional_training(torch.contiguous_format)
        return on_gpu(make_convolutional_training(torch.channels_last))

    expected, stopped, again = make("cpu"), make(first), make("cuda" if first == "cpu" else "cpu")
    train_whole_and_in_parts(expected, stopped, again, make_schedule(num_epoch=2, eval_interval=0), tmp_path)
    for name, value in expected.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name].cpu(), value, rtol=0, atol=2e-3)


def test_the_share_of_time_waited_for_data(tmp_path):
    train(on_gpu(), make_schedule(num_epoch=2), tmp_path)
    for row in csv.DictReader((tmp_path / "metrics.csv").open()):
        assert 0 <= float(row["data_wait"]) < 1


def test_soft_ranks_agree_with_the_cpu():
    values = torch.rand(6, 50)
    torch.testing.assert_close(soft_rank(values.cuda()).cpu(), soft_rank(values, backend="builtin"), rtol=0, atol=1e-3)
