"""Time and memory of the training step: ``python -m benchmarks.step [--cfg FILE] [--gpu 0] [--json FILE]``.

The whole step (transfer, augmentation, forward, losses, backward, optimiser) on random batches in pinned memory. The
baseline is the same step on one augmented batch that stays on the device. How fast images are read is measured by
``benchmarks.data``.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.timing import at_least_one, json_file, measure, prepare, write_report
from configs import get_config
from data import build_augment
from data.augment import BatchAugment
from data.loaders import Batch
from engine.device import describe_device, place
from engine.precision import build_precision
from engine.step import Step, StepParts, build_step
from losses import build_criterion
from models import build_model
from utils.run.cli import Parser, run_program


class Resident(BatchAugment):
    """Replaces the augmentation: returns a batch that is augmented already."""

    def __init__(self, images: torch.Tensor):
        super().__init__()
        self.images = images

    def __call__(self, images: torch.Tensor, infrared: torch.Tensor) -> torch.Tensor:
        return self.images


def random_batches(count: int, size: int, p_size: int, image_size: tuple[int, int], *, pin: bool) -> list[Batch]:
    """Random images of ``p_size`` identities, every other one infrared."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(size) * p_size // size
    is_infrared = torch.arange(size) % 2 == 1
    batches = []
    for _ in range(count):
        images = torch.randint(0, 256, (size, 3, *image_size), dtype=torch.uint8, generator=random)
        batches.append(Batch(images.pin_memory() if pin else images, labels, is_infrared, torch.arange(size)))
    return batches


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.step", description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", default="configs/SYSU_MCJA.yml", type=Path)
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--steps", type=at_least_one, default=20, help="steps per repeat")
    parser.add_argument("--repeats", type=at_least_one, default=3)
    parser.add_argument("--json", type=json_file, help="write a report to this file")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    arguments = parser.parse_intermixed_args(argv)
    cfg = get_config(arguments.cfg, ["pretrained", "none", *arguments.overrides])
    device = prepare(arguments.gpu, seed=0)
    rows = [measure_steps(cfg, device, arguments.steps, arguments.repeats)]
    write_report(arguments.json, "step", rows)
    return 0


def measure_steps(cfg, device: torch.device, steps: int, repeats: int) -> dict[str, object]:
    cuda = device.type == "cuda"
    model = place(build_model(cfg), device)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr, weight_decay=cfg.wd, fused=True)
    precision = build_precision(
        model, optimizer, device, fp16=cfg.fp16, amp_dtype=cfg.amp_dtype, amp_backend=cfg.amp_backend
    )
    size = cfg.p_size * cfg.k_size
    batches = random_batches(min(steps, 8), size, cfg.p_size, cfg.image_size, pin=cuda)
    augment = build_augment(cfg, seed=0)

    parts = StepParts(
        model=model,
        criterion=build_criterion(cfg, device),
        optimizer=optimizer,
        augment=augment,
        device=device,
        precision=precision,
        compile=cfg.compile,
    )

    def run(step: Step, fed: list[Batch]) -> float:
        def steps_() -> None:
            for number in range(steps):
                step(fed[number % len(fed)])
            if cuda:
                torch.cuda.synchronize()

        return measure(steps_, repeats=repeats, warmup=1).median / steps

    resident = batches[0]._replace(images=batches[0].images.to(device))
    augmented = augment(resident.images, resident.is_infrared)
    bound = run(build_step(replace(parts, augment=Resident(augmented))), [resident])
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    whole = run(build_step(parts), batches)

    def augment_only() -> None:
        for number in range(steps):
            augment(resident.images, batches[number % len(batches)].is_infrared)
        if cuda:
            torch.cuda.synchronize()

    augmenting = measure(augment_only, repeats=repeats, warmup=1).median / steps
    return {
        "what": f"step of {size} images of {cfg.image_size[0]}x{cfg.image_size[1]}, {cfg.backbone}, {precision}"
        + (", compiled" if cfg.compile else "") + f", on {describe_device(device)}",
        "seconds": whole, "resident": bound, "ratio": whole / bound, "augmentation share": augmenting / whole,
        "images per second": size / whole,
        "peak gigabytes": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_program(main))
