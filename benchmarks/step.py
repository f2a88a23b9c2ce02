"""Time and memory of the training step: ``python -m benchmarks.step [--cfg FILE] [--gpu 0] [--json FILE]``.

The whole step (transfer, augmentation, forward, losses, backward, optimiser) is measured on random batches in pinned
memory. The baseline is the same step on one augmented batch that stays on the device; the share of transfer and
augmentation is what the whole step takes longer. Seconds are per step. ``benchmarks.data`` measures how fast images are
read.
"""

import sys
from pathlib import Path

import torch

from benchmarks.timing import at_least_one, json_file, measure, prepare, write_report
from configs import get_config
from data import build_augment
from data.augment import BatchAugment
from data.loaders import Batch
from engine import build_optimizer
from engine.device import describe_device, place
from engine.precision import build_precision
from engine.step import Step, StepParts, build_step
from losses import build_criterion
from models import build_model
from utils.run.cli import Parser, run_program


class FixedBatch(BatchAugment):
    """Replaces the augmentation: always returns the same augmented images."""

    def __init__(self, images: torch.Tensor):
        super().__init__()
        self.images = images

    def __call__(self, images: torch.Tensor, infrared: torch.Tensor) -> torch.Tensor:
        return self.images


def random_batches(count: int, size: int, p_size: int, image_size: tuple[int, int], *, pin: bool) -> list[Batch]:
    """Random images of ``p_size`` identities, every other one infrared."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(size) * p_size // size
    is_infrared = torch.arange(size) % 2 == 1
    batches = []
    for _ in range(count):
        images = torch.randint(0, 256, (size, 3, *image_size), dtype=torch.uint8, generator=rng)
        batches.append(Batch(images.pin_memory() if pin else images, labels, is_infrared, torch.arange(size)))
    return batches


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.step", description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", default="configs/SYSU_MCJA.yml", type=Path)
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--steps", type=at_least_one, default=10, help="steps per repeat")
    parser.add_argument("--repeats", type=at_least_one, default=2)
    parser.add_argument("--json", type=json_file, help="write a report to this file")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    arguments = parser.parse_intermixed_args(argv)
    cfg = get_config(arguments.cfg, ["pretrained", "none", *arguments.overrides])
    device = prepare(arguments.gpu, seed=0)
    rows = [measure_steps(cfg, device, arguments.steps, arguments.repeats)]
    write_report(arguments.json, "step", rows)
    return 0


def measure_steps(cfg, device: torch.device, steps: int, repeats: int) -> dict[str, object]:
    """One row of the report: seconds per step of the whole step and the baseline; peak memory."""
    parts = build_parts(cfg, device)
    size = cfg.p_size * cfg.k_size
    batches = random_batches(min(steps, 8), size, cfg.p_size, cfg.image_size, pin=device.type == "cuda")
    step = build_step(parts)
    baseline = resident_seconds(step, parts, batches[0], steps=steps, repeats=repeats)
    reset_peak(device)
    whole = seconds_per_step(step, batches, steps=steps, repeats=repeats)
    return {
        "case": f"step of {size} images of {cfg.image_size[0]}x{cfg.image_size[1]}, {cfg.backbone}, {parts.precision}"
        + (", compiled" if cfg.compile else "") + f", on {describe_device(device)}",
        "seconds": whole, "baseline seconds": baseline, "ratio": whole / baseline,
        "transfer and augmentation": (whole - baseline) / whole, "images/s": size / whole, "peak GiB": peak(device),
    }  # fmt: skip


def resident_seconds(step: Step, parts: StepParts, batch: Batch, *, steps: int, repeats: int) -> float:
    """Seconds per step on one augmented batch that stays on the device."""
    batch = batch._replace(images=batch.images.to(parts.device))
    augment = parts.augment
    parts.augment = FixedBatch(augment(batch.images, batch.is_infrared))
    try:
        return seconds_per_step(step, [batch], steps=steps, repeats=repeats)
    finally:
        parts.augment = augment


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float | None:
    """Peak memory on a GPU since ``reset_peak``, in GiB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def build_parts(cfg, device: torch.device) -> StepParts:
    """Everything that a training step needs, as in a run."""
    model = place(build_model(cfg), device)
    optimizer = build_optimizer(cfg, model)
    precision = build_precision(
        model, optimizer, device, fp16=cfg.fp16, amp_dtype=cfg.amp_dtype, amp_backend=cfg.amp_backend
    )
    return StepParts(
        model=model,
        criterion=build_criterion(cfg, device),
        optimizer=optimizer,
        augment=build_augment(cfg, seed=0),
        device=device,
        precision=precision,
        compile=cfg.compile,
    )


def seconds_per_step(step: Step, batches: list[Batch], *, steps: int, repeats: int) -> float:
    """Median seconds of a step, over ``repeats`` runs of ``steps`` steps on the batches in turn."""

    def run() -> None:
        for number in range(steps):
            step(batches[number % len(batches)])

    return measure(run, repeats=repeats, warmup=1).median / steps


if __name__ == "__main__":
    sys.exit(run_program(main))
