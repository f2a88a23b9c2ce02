"""A small training: a tiny model on 26 random images."""

import csv
import os
import signal
from pathlib import Path

import pytest
import torch

from data.augment import BatchAugment
from data.loaders import Batch, ProcessLoader
from data.samplers import EpochSampler, Sizes
from engine.evaluator import Evaluation
from engine.precision import TorchPrecision
from engine.step import Training, build_step
from engine.trainer import Schedule, train
from tests.helpers.losses import mcja_criterion
from utils.results import TrialScore
from utils.run.errors import Stopped

CPU = torch.device("cpu")
EPOCHS = 3
SIZES = Sizes(p_size=2, k_size=2, batch_size=6)


class TinyModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)
        self.classifier = torch.nn.Linear(4, 4, bias=False)

    def forward(self, images, is_infrared=None):
        return self.embed(images)[1]

    def embed(self, images, is_infrared=None):
        features = self.layer(images.mean(dim=(2, 3)))
        return features, features


class TinyConvolutions(TinyModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3))

    def embed(self, images, is_infrared=None):
        features = self.layer(images).mean(dim=(2, 3))
        return features, features


class TinyData(torch.utils.data.Dataset):
    """Four identities of different brightness; their numbers of images make epochs differ in length."""

    labels = torch.tensor([0] * 9 + [1] * 7 + [2] * 5 + [3] * 5)
    infrared = torch.arange(26) % 2 == 1
    paths = [f"{number:02d}.jpg" for number in range(26)]
    fingerprint = "tiny"

    def __len__(self):
        return 26

    def __getitem__(self, index):
        random = torch.Generator().manual_seed(index)
        image = torch.randint(0, 40, (3, 8, 6), generator=random) + 50 * self.labels[index]
        return Batch(image.to(torch.uint8), self.labels[index], self.infrared[index], index)


def make_training(*, lr=0.01, workers=0, sizes=SIZES, method="norm_triplet") -> Training:
    torch.manual_seed(0)
    model, data = TinyModel(), TinyData()
    sampler = EpochSampler(data.labels.numpy(), data.infrared.numpy(), method=method, sizes=sizes, seed=3)
    return Training(
        model=model,
        criterion=mcja_criterion(),
        optimizer=torch.optim.Adam(model.parameters(), lr=lr),
        augment=BatchAugment(seed=0, padding=1),
        dataset=data,
        sampler=sampler,
        source=None,
        loader=ProcessLoader(data, batch_sampler=sampler, num_workers=workers),
        device=CPU,
        precision=TorchPrecision(CPU),
    )


def make_convolutional_training(memory_format: torch.memory_format) -> Training:
    """A training of a small convolutional network in ``memory_format``: channels-last as on a GPU, or contiguous."""
    training = make_training()
    torch.manual_seed(1)
    training.model = TinyConvolutions().to(memory_format=memory_format)
    training.optimizer = torch.optim.Adam(training.model.parameters(), lr=0.01, fused=True)
    return training


def make_schedule(**changes) -> Schedule:
    evaluation = Evaluation(TrialScore(10, 20, 30, 40, 5, 1))
    defaults = {
        "lr": 0.01,
        "num_epoch": 3,
        "lr_step": [2],
        "log_period": 2,
        "start_eval": 0,
        "eval_interval": 1,
        "evaluate": lambda model: evaluation,
    }
    return Schedule(**{**defaults, **changes})


def score_of(model) -> Evaluation:
    """An evaluation that depends on the weights, and goes up and down."""
    value = 100 * model.layer.weight.detach().double().sum().sin().abs().item()
    return Evaluation(TrialScore(value, value, value, value, value, value))


def stop_at(training: Training, when: int, number: int = signal.SIGTERM) -> None:
    """Send the process a signal while it works on its ``when``-th batch."""
    augment, calls = training.augment, []

    def interrupted(images, is_infrared):
        calls.append(1)
        if len(calls) == when:
            os.kill(os.getpid(), number)
        return augment(images, is_infrared)

    interrupted.state_dict, interrupted.load_state_dict = augment.state_dict, augment.load_state_dict
    training.augment = interrupted


def rows(folder: Path) -> list[dict[str, str]]:
    """The lines of ``metrics.csv``, without what depends on the clock."""
    with (folder / "metrics.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_second", "data_wait")}
            for row in csv.DictReader(file)
        ]


def train_whole_and_in_parts(whole: Training, stopped: Training, again: Training, schedule: Schedule, folder: Path):
    """Train ``whole`` without a stop; stop ``stopped`` in its fourth step, and let ``again`` continue it."""
    for name in ("whole", "parts"):
        (folder / name).mkdir()
    train(whole, schedule, folder / "whole")
    stop_at(stopped, 4)
    with pytest.raises(Stopped):
        train(stopped, schedule, folder / "parts")
    train(again, schedule, folder / "parts")


def assert_same(training: Training, expected: Training, folder: Path, expected_folder: Path) -> None:
    """Weights, metrics and checkpoints of two trainings are equal, bit for bit."""
    for name, value in expected.model.state_dict().items():
        assert torch.equal(training.model.state_dict()[name], value), name
    assert rows(folder) == rows(expected_folder)
    models = sorted(path.name for path in expected_folder.glob("[!s]*.pth"))
    assert sorted(path.name for path in folder.glob("[!s]*.pth")) == models
    for name in models:
        ours, theirs = (torch.load(f / name, weights_only=True) for f in (folder, expected_folder))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def losses_of(training: Training, epochs: int = 2) -> list[float]:
    """The sum of the losses at each step."""
    step, sampler, found = build_step(training), training.sampler, []
    for epoch in range(1, epochs + 1):
        sampler.set_epoch(epoch)
        for batch in training.loader:
            found.append(sum(value.item() for name, value in step(batch).items() if name.startswith("loss")))
    return found
