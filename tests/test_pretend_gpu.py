"""What is meant for a GPU, without one: devices are not mixed, the CPU finds the same, and nothing waits in vain."""

import logging
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from ignite.engine import Events
from pretend_gpu import DEVICE, PretendGPU
from test_trainer import make_training

from data.augment import BatchAugment
from engine.finite import FiniteLoss
from engine.progress import Progress
from engine.trainer import build_trainer
from losses.criterion import Criterion
from utils.protocols import score
from utils.rerank import QueryReranker


def test_devices_are_not_mixed():
    with PretendGPU():
        there, here = torch.ones(3, device=DEVICE), torch.ones(3)
        assert there.device == DEVICE
        assert (there + 1).cpu().tolist() == [2, 2, 2]
        assert (there + torch.tensor(1)).cpu().tolist() == [2, 2, 2]  # a number comes along
        for mixed in (lambda: there + here, lambda: there[torch.tensor([0])], lambda: torch.cat([there, here])):
            with pytest.raises(RuntimeError, match="both devices"):
                mixed()


def test_waits_are_counted():
    with PretendGPU() as gpu:
        values = torch.arange(4.0).to(DEVICE)
        values += values.sum()
        assert not gpu.waits
        values.nonzero()
        float(values[0])
        values.cpu()
        torch.empty(4).copy_(values)
    assert gpu.waits == {"aten.nonzero": 1, "aten._local_scalar_dense": 1, "aten._to_copy": 1, "aten.copy_": 1}


@pytest.mark.parametrize("dataset", ["sysu", "regdb"])
def test_scores_are_those_of_the_cpu(dataset, request):
    features, search, mser = request.getfixturevalue(f"{dataset}_case")
    if len(search.galleries) > 1:
        trials = {name: galleries[:2] for name, galleries in search.galleries.items()}
        search = replace(search, galleries=trials)
    expected = score(features, search, mser=mser)
    with PretendGPU():
        found = score(features, search, mser=mser, device=DEVICE)
    assert found.keys() == expected.keys()
    for name, result in expected.items():
        np.testing.assert_allclose(found[name].trials, result.trials, atol=1e-3)


def test_scoring_goes_on_on_the_cpu_where_memory_is_short(sysu_case, monkeypatch, caplog):
    features, search, mser = sysu_case
    search = search.only(["indoor/1-shot"])
    expected = score(features, search, mser=mser)
    distance = QueryReranker.distance

    def short_of_memory(self, columns):
        if columns.device == DEVICE:
            raise torch.OutOfMemoryError
        return distance(self, columns)

    monkeypatch.setattr(QueryReranker, "distance", short_of_memory)
    with PretendGPU(), caplog.at_level(logging.WARNING):
        assert score(features, search, mser=mser, device=DEVICE) == expected
    assert "too little memory" in caplog.text


def test_augmentation_is_that_of_the_cpu_and_waits_for_nothing():
    images = torch.randint(0, 256, (40, 3, 64, 32), dtype=torch.uint8)
    infrared = torch.arange(40) % 3 == 0
    expected = BatchAugment(seed=3)(images, infrared)
    with PretendGPU() as gpu:
        augment = BatchAugment(seed=3)
        there = images.to(DEVICE)
        found = augment(there, infrared)
        assert not gpu.waits
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)


def test_training_waits_for_nothing_within_an_epoch(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no pretended device
    with PretendGPU() as gpu:
        training = make_training()
        training.device = DEVICE
        training.model = training.model.to(DEVICE)
        training.optimizer = torch.optim.Adam(training.model.parameters(), lr=0.01)
        training.criterion = Criterion(soft_rank="builtin")
        progress = Progress()
        trainer = build_trainer(training, progress)
        finite = FiniteLoss(training.loader, progress, tmp_path, DEVICE)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, finite.look)
        trainer.run(training.loader, max_epochs=1, epoch_length=len(training.loader))
        assert not gpu.waits
        finite.ask()
        found = progress.means()
        assert gpu.waits

    training = make_training()
    training.criterion = Criterion(soft_rank="builtin")
    progress = Progress()
    build_trainer(training, progress).run(training.loader, max_epochs=1, epoch_length=len(training.loader))
    assert found == pytest.approx(progress.means(), rel=1e-5)
