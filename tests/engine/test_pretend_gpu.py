"""GPU code on a simulated GPU: devices are not mixed, results equal the CPU's, nothing waits needlessly."""

import logging
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.augment import BatchAugment, normalise
from engine.finite import FiniteLoss
from engine.progress import Progress
from engine.step import Training, build_step
from engine.trainer import train
from tests.helpers.losses import mcja_criterion
from tests.helpers.pretend_gpu import DEVICE, PretendGPU
from tests.helpers.training import make_schedule, make_training, stop_at
from utils.protocols import score
from utils.rerank import Reranker
from utils.run.errors import Stopped


def test_devices_are_not_mixed():
    with PretendGPU():
        there, here = torch.ones(3, device=DEVICE), torch.ones(3)
        assert there.device == DEVICE
        assert (there + 1).cpu().tolist() == [2, 2, 2]
        assert (there + torch.tensor(1)).cpu().tolist() == [2, 2, 2]  # scalars may be on the CPU
        for mixed in (lambda: there + here, lambda: there[torch.tensor([0])], lambda: torch.cat([there, here])):
            with pytest.raises(RuntimeError, match="both devices"):
                mixed()


def test_waits_are_counted():
    with PretendGPU() as gpu:
        values = torch.arange(4.0).to(DEVICE, non_blocking=True)
        values += values.sum()
        values[:2] = values[torch.arange(2).to(DEVICE, non_blocking=True)]
        whole = values.long()
        torch.repeat_interleave(whole, output_size=30)
        assert not gpu.waits
        for operation, wait in {
            "nonzero": lambda: values.nonzero(),
            "_local_scalar_dense": lambda: float(values[0]),
            "_to_copy": lambda: values.cpu(),
            "copy_": lambda: torch.empty(4).copy_(values),
            "index": lambda: values[values > 0],
            "index_put_": lambda: values.__setitem__(values > 0, torch.ones_like(values)),
            "repeat_interleave": lambda: torch.repeat_interleave(whole),
            "_unique2": lambda: values.unique(),
            "bincount": lambda: whole.bincount(),
        }.items():
            gpu.waits.clear()
            wait()
            assert gpu.waits == {f"aten.{operation}": 1}, operation
        for wait in (lambda: torch.ones(2).to(DEVICE), lambda: values.copy_(torch.ones(4))):
            gpu.waits.clear()
            wait()
            assert gpu.waits


@pytest.mark.parametrize("dataset", ["sysu", "regdb"])
def test_scores_are_those_of_the_cpu(dataset, request):
    features, (search,), mser = request.getfixturevalue(f"{dataset}_case")
    protocol = [replace(search, galleries={name: trials[:2] for name, trials in search.galleries.items()})]
    expected = score(features, protocol, mser=mser)
    with PretendGPU():
        found = score(features, protocol, mser=mser, device=DEVICE)
    assert found.keys() == expected.keys()
    for name, result in expected.items():
        np.testing.assert_allclose(found[name].trials, result.trials, atol=1e-3)


def test_scoring_goes_on_on_the_cpu_where_memory_is_short(sysu_case, monkeypatch, caplog):
    features, (search,), mser = sysu_case
    protocol = [search.only(["indoor/1-shot"])]
    expected = score(features, protocol, mser=mser)
    distance = Reranker.distance

    def short_of_memory(self, columns):
        if columns.device == DEVICE:
            raise torch.OutOfMemoryError
        return distance(self, columns)

    monkeypatch.setattr(Reranker, "distance", short_of_memory)
    with PretendGPU(), caplog.at_level(logging.WARNING):
        assert score(features, protocol, mser=mser, device=DEVICE) == expected
    assert "too little memory" in caplog.text


def test_augmentation_is_that_of_the_cpu_and_waits_for_nothing():
    images = torch.randint(0, 256, (40, 3, 64, 32), dtype=torch.uint8)
    infrared = torch.arange(40) % 3 == 0
    expected = BatchAugment(seed=3)(images, infrared)
    with PretendGPU() as gpu:
        there = images.to(DEVICE)
        BatchAugment(seed=1)(there, infrared)  # fills the cache of constants
        gpu.waits.clear()
        found = BatchAugment(seed=3)(there, infrared)
        assert not gpu.waits
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)


def convolutional(memory_format: torch.memory_format) -> Training:
    """A training of a small convolutional network in ``memory_format``: channels-last as on a GPU, or contiguous."""
    training = make_training()
    torch.manual_seed(1)
    training.model.embed = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3))
    training.model.forward = lambda images: training.model.embed(images).mean(dim=(2, 3))
    training.model.to(memory_format=memory_format)
    training.optimizer = torch.optim.Adam(training.model.parameters(), lr=0.01, fused=True)
    return training


@pytest.mark.parametrize(
    "formats", [(torch.contiguous_format, torch.channels_last), (torch.channels_last, torch.contiguous_format)]
)
def test_a_training_goes_on_on_another_kind_of_device(formats, tmp_path):
    """Fused Adam steps through memory: moments in another memory format than the weights would be permuted."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    schedule = make_schedule(num_epoch=2, eval_interval=0)
    expected, stopped, again = (convolutional(memory_format) for memory_format in (formats[0], *formats))
    train(expected, schedule, whole)
    stop_at(stopped, 4)
    with pytest.raises(Stopped):
        train(stopped, schedule, parts)
    train(again, schedule, parts)
    for name, value in expected.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=0, atol=1e-5)


def test_training_waits_for_nothing_within_an_epoch(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # refuses the simulated device
    with PretendGPU() as gpu:
        training = make_training()
        training.device = DEVICE
        training.model = training.model.to(DEVICE)
        training.optimizer = torch.optim.Adam(training.model.parameters(), lr=0.01)
        normalise(torch.zeros(1, 3, 8, 6).to(DEVICE))  # fills the cache of constants
        gpu.waits.clear()
        progress = Progress()
        finite = FiniteLoss(training.sampler, training.dataset.paths, progress, DEVICE)
        step = build_step(training)
        for batch in training.loader:
            progress.add(step(batch))
            finite.check({"loss": progress.epoch_averages.sums["loss_cmr"]})
        assert not gpu.waits
        finite.require(tmp_path)
        found = progress.epoch_averages.means()
        assert gpu.waits

    training, progress = make_training(), Progress()
    training.criterion = mcja_criterion("builtin")
    step = build_step(training)
    for batch in training.loader:
        progress.add(step(batch))
    assert found == pytest.approx(progress.epoch_averages.means(), rel=1e-5)
