"""GPU code on a simulated GPU: devices are not mixed, results equal the CPU's, nothing waits needlessly."""

import logging
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch.overrides import TorchFunctionMode

from data.augment import BatchAugment, normalise
from engine.data_wait import DataWait
from engine.finite import FiniteLoss
from engine.progress import Progress
from engine.step import build_step
from models import AGW, MCJA
from models.mda import MDA
from tests.helpers.losses import mcja_criterion
from tests.helpers.pretend_gpu import DEVICE, PretendGPU
from tests.helpers.training import make_convolutional_training, make_schedule, make_training, train_whole_and_in_parts
from utils.kernels import torch_kernels
from utils.protocols import score
from utils.rerank import Reranker
from utils.tensors import GPU_BLOCK


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


@pytest.mark.parametrize("dataset", [pytest.param("sysu", marks=pytest.mark.faults), "regdb"])
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
        gpu.calls.clear()
        found = BatchAugment(seed=3)(there, infrared)
        assert not gpu.waits
        indexing = ("index", "index_select", "index_copy_", "index_put_", "gather", "scatter")
        assert 0 < sum(gpu.calls[f"aten.{name}"] for name in indexing) <= 15
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)


def test_query_weights_are_listed_once_for_all_blocks_of_a_gallery(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    neighbours = torch.stack([torch.randperm(30, generator=generator)[:4] for _ in range(30)])
    weights = torch.rand(30, 4, generator=generator) / 4
    queries, gallery = (torch.randint(0, 30, shape, generator=generator) for shape in ((10, 3), (40, 4, 3)))
    expected = torch_kernels.jaccard(neighbours, weights, queries, gallery)
    monkeypatch.setattr("utils.tensors.BLOCK_BYTES", 4 * 4 * 30)  # one image on a CPU
    with PretendGPU() as gpu:
        found = torch_kernels.jaccard(*(values.to(DEVICE) for values in (neighbours, weights, queries, gallery)))
        torch.testing.assert_close(found.cpu(), expected)
    assert gpu.calls["aten.nonzero"] == 1 + 40 / GPU_BLOCK


def test_gradients_of_an_adapter_stay_channels_last():
    adapter, formats = MDA(8, 2).to(memory_format=torch.channels_last), []
    x = torch.rand(3, 8, 6, 4).to(memory_format=torch.channels_last).requires_grad_() * 1

    class Watch(TorchFunctionMode):
        """Watch the gradients of x that come from each function alone."""

        def __torch_function__(self, function, types, arguments=(), options=None):
            def watched(value):
                if value is not x:
                    return value
                value = value.view_as(value)
                value.register_hook(
                    lambda gradient: formats.append(gradient.is_contiguous(memory_format=torch.channels_last))
                )
                return value

            return function(*map(watched, arguments), **options or {})

    with Watch():
        output = adapter(x)
    output.backward(torch.ones_like(output))
    assert formats == [True] * len(formats)
    assert len(formats) == 4  # from the attention, the contexts, the gate and the residual


@pytest.mark.parametrize("network", [MCJA, AGW])
def test_a_network_waits_for_nothing(network, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # refuses the simulated device
    with PretendGPU() as gpu:
        model = network(5, backbone="resnet10").to(DEVICE)
        images, is_infrared = torch.randn(6, 3, 64, 32).to(DEVICE), (torch.arange(6) % 3 == 0).to(DEVICE)
        gpu.waits.clear()
        for mode in (True, False):
            pooled, embeddings = model.train(mode).embed(images, is_infrared)
            (pooled.sum() + model.classifier(embeddings).sum()).backward()
        assert not gpu.waits


def test_a_step_does_not_walk_through_a_model_that_is_training(monkeypatch):
    training, walks = make_training(), []
    train_mode = training.model.train
    monkeypatch.setattr(training.model, "train", lambda mode=True: walks.append(mode) or train_mode(mode))
    step = build_step(training)
    batches = list(training.loader)
    step(batches[0])
    step(batches[1])
    assert not walks
    training.model.eval()
    walks.clear()
    step(batches[2])
    assert walks == [True]


@pytest.mark.parametrize(
    "formats", [(torch.contiguous_format, torch.channels_last), (torch.channels_last, torch.contiguous_format)]
)
def test_a_training_goes_on_on_another_kind_of_device(formats, tmp_path):
    """Fused Adam steps through memory: moments in another memory format than the weights would be permuted."""
    expected, stopped, again = (make_convolutional_training(memory_format) for memory_format in (formats[0], *formats))
    train_whole_and_in_parts(expected, stopped, again, make_schedule(num_epoch=2, eval_interval=0), tmp_path)
    for name, value in expected.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=0, atol=1e-5)


def test_a_wait_for_data_counts_while_the_gpu_has_nothing_to_do(monkeypatch):
    clock = SimpleNamespace(cpu=0.0, gpu=0.0)  # in ms; the GPU's is when it will have done all that is queued

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.time = clock.gpu = max(clock.cpu, clock.gpu)

        def elapsed_time(self, end):
            return end.time - self.time

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    wait, engine = DataWait(torch.device("cuda")), Engine(lambda engine, batch: None)
    wait.attach(engine)

    def step(milliseconds):
        clock.gpu = max(clock.cpu, clock.gpu) + milliseconds

    def load():
        for milliseconds in (30, 10, 50, 10):
            clock.cpu += milliseconds
            yield milliseconds

    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: step(25))
    engine.run(load(), epoch_length=4)
    # the first batch comes at 30, the GPU works until 55; the second at 40 and the third at 90, when it works until 80
    assert wait.seconds() == pytest.approx(0.030 + 0 + 0.010 + 0)
    again = DataWait(torch.device("cuda"))
    again.load_state_dict(wait.state_dict())
    assert again.seconds() == wait.seconds()
    again.reset()
    assert again.seconds() == 0


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
