"""The plan of a run for ``--dry-run``: what it would do, and estimates of its time, memory and disk space.

Time and memory are measured in a few training steps and test batches, with the run's own images and device.
"""

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from data.cache import gigabytes
from data.loaders import Batch
from engine.checkpoints import run_bytes
from engine.device import describe_device, no_autotuning
from engine.evaluator import Evaluator
from engine.extract import Extractor
from engine.step import Training, build_step
from engine.trainer import Schedule
from utils.tensors import send

WARM_UP = 2  # batches that are not timed
LEAST_BATCHES, LEAST_SECONDS = 3, 5.0  # that are timed; the loader has a few batches ready at the start


Lines = list[tuple[str, str]]  # topic, text


class Timing(NamedTuple):
    """Mean seconds per image, loading included."""

    seconds: float
    batches: int  # that were timed


def plan(model: nn.Module, training: Training | None, evaluator: Evaluator, schedule: Schedule) -> Lines:
    """What a run would do. The steps that are timed change the weights of the model.

    Args:
        training: None if the run only tests.
    """
    datasets = [training.dataset, evaluator.dataset] if training else [evaluator.dataset]
    lines = [(f"{dataset.split} split", f"{dataset.name}: {dataset.counts} in {dataset.root}") for dataset in datasets]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines += [("model", f"{parameters:,} parameters"), ("device", describe_device(evaluator.device))]
    tests = ["final"]  # of the best model
    seconds = 0.0
    if training:
        lines.append(("losses", f"{training.criterion}; {training.precision}"))
        tests.append("plain")  # before training
    if training and schedule.num_epoch:
        more, seconds = plan_training(training, schedule)
        evaluations, more_tests = plan_evaluations(schedule)
        lines += more + evaluations
        tests += more_tests
    more, seconds_per_test = plan_testing(evaluator, model)
    seconds += sum(seconds_per_test[test] for test in tests)
    lines += [
        *more,
        ("time", f"about {clock(seconds)} for the run, without scoring"),
        ("memory", f"peak {peak_memory(evaluator.device)}"),
    ]
    if training:
        lines.append(("disk", f"{gigabytes(run_bytes(model))} for checkpoints and training states"))
    return lines


def plan_training(training: Training, schedule: Schedule) -> tuple[Lines, float]:
    """Steps, learning rate and time of a training; its seconds."""
    lengths, size = epoch_lengths(training, schedule.num_epoch), training.sampler.batches.shape[1]
    image = time_training(training)
    step = size * image.seconds
    seconds = sum(lengths) * step
    lines = [
        ("steps", f"{len(lengths)} epochs of {span(lengths)} batches of {size} images: {sum(lengths):,} steps"),
        ("learning rate", learning_rates(schedule)),
        (
            "training",
            f"about {clock(seconds)}, {clock(seconds / len(lengths))} per epoch: {step:.3g} s per step,"
            f" {1 / image.seconds:.1f} images/s (timed steps: {image.batches}, with loading)",
        ),
    ]
    return lines, seconds


def plan_evaluations(schedule: Schedule) -> tuple[Lines, list[str]]:
    """The evaluations during training, and the tests that they add to the run."""
    epochs = [epoch for epoch in range(1, schedule.num_epoch + 1) if schedule.evaluates(epoch)]
    if not epochs:
        return [], []
    best, tests = "the last model is the best", ["plain"] * len(epochs)
    if schedule.select_by != "last":
        best = f"the best model is selected by {schedule.select_by}"
        tests.append("final")  # of the last model
    return [("evaluations", f"{len(epochs)}, the first after epoch {epochs[0]}; {best}")], tests


def plan_testing(evaluator: Evaluator, model: nn.Module) -> tuple[Lines, dict[str, float]]:
    """Time of testing, and the seconds of a plain test and of a final one, in all spectra."""
    image, test_set = time_extraction(evaluator.extractor, model), evaluator.dataset
    visible = int((~test_set.infrared).sum())
    spectra = len(evaluator.mser.spectra) if evaluator.mser else 1
    seconds = {
        "plain": image.seconds * len(test_set),
        "final": image.seconds * (len(test_set) + (spectra - 1) * visible),
    }
    line = (
        f"about {clock(seconds['plain'])} per evaluation, {clock(seconds['final'])} per final test:"
        f" {1 / image.seconds:.1f} images/s (timed batches: {image.batches}, with loading)"
    )
    return [("testing", line)], seconds


def learning_rates(schedule: Schedule) -> str:
    """For example: 0.01 to 0.1 in epochs 1 to 10 (warm-up), 0.1 in epochs 11 to 20, 0.01 in epochs 21 to 30."""
    warmup, parts = min(schedule.warmup_epochs, schedule.num_epoch), []
    if warmup:
        parts = [
            f"{schedule.learning_rate(1):g} to {schedule.learning_rate(warmup):g} in epochs 1 to {warmup} (warm-up)"
        ]
    for rate, group in groupby(range(warmup + 1, schedule.num_epoch + 1), schedule.learning_rate):
        epochs = list(group)
        parts.append(f"{rate:g} in epoch{'s' * (len(epochs) > 1)} {span(epochs)}")
    return ", ".join(parts)


def span(numbers: list[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def clock(seconds: float) -> str:
    """For example: 2 h 5 min, 3 min 39 s, 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def epoch_lengths(training: Training, num_epoch: int) -> list[int]:
    """The number of batches of each epoch."""
    lengths = []
    for epoch in range(1, num_epoch + 1):
        training.sampler.set_epoch(epoch)
        lengths.append(len(training.sampler))
    training.sampler.set_epoch(1)
    return lengths


def time_training(training: Training) -> Timing:
    """Time training steps, which change the weights of the model."""
    with closing(training.loader):
        return seconds_per_image(build_step(training), training.loader, training.device, "training steps")


def time_extraction(extractor: Extractor, model: nn.Module) -> Timing:
    """Time the extraction of test images in one spectrum."""
    loader = max(extractor.loaders.values(), key=len)

    def embed(batch: Batch) -> Tensor:
        return extractor.embed(model, *(send(part, extractor.device) for part in (batch.images, batch.is_infrared)))

    model.eval()
    with torch.inference_mode(), no_autotuning():
        return seconds_per_image(embed, loader, extractor.device, "test batches")


def seconds_per_image(
    step: Callable[[Batch], object], batches: Iterable[Batch], device: torch.device, name: str
) -> Timing:
    """Time ``step`` on the first batches, after some that warm up (fewer, if there are no more).

    Args:
        name: of the progress bar.
    """
    ends, images = [time.perf_counter()], [0]
    with tqdm(batches, desc=f"timing {name}", leave=False, disable=None) as shown:
        for batch in shown:
            step(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            ends.append(time.perf_counter())
            images.append(len(batch.images))
            if len(ends) > WARM_UP + LEAST_BATCHES and ends[-1] - ends[WARM_UP] >= LEAST_SECONDS:
                break
    first = min(WARM_UP, len(ends) - 2)
    return Timing((ends[-1] - ends[first]) / sum(images[first + 1 :]), len(ends) - 1 - first)


def peak_memory(device: torch.device) -> str:
    """The most memory that was used so far."""
    if device.type == "cuda":
        used, total = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        return f"{gigabytes(used)} of {gigabytes(total)} on {device}, without the CUDA context"
    try:
        import resource
    except ImportError:  # Windows
        return "unknown"
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{gigabytes(peak)} of main memory, without loader processes"
