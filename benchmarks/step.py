"""Time and memory of the training step: ``python -m benchmarks.step [--cfg FILE] [--gpu 0] [--json FILE]``.

The whole step (transfer, augmentation, forward, losses, backward, optimiser) on batches in pinned memory, against the
yardstick: the same step fed one augmented batch that stays on the device. Batches are made up, so no data set is
needed; how fast they can be read is for ``benchmarks.data`` to say.
"""

import sys
from pathlib import Path

import torch

from benchmarks.timing import at_least_one, json_file, measure, prepare, write_report
from configs import get_config
from data import build_augment
from data.datasets.base import Batch
from engine.device import describe_device, place
from engine.precision import build_precision
from engine.trainer import Training, train_step
from losses import build_criterion
from models import build_model
from utils.run.cli import Parser, run_program


class Resident:
    """Stands for the augmentation where the batch is augmented already."""

    def __init__(self, images: torch.Tensor):
        self.images = images

    def __call__(self, images: torch.Tensor, infrared: torch.Tensor) -> torch.Tensor:
        return self.images


def made_batches(count: int, size: int, p_size: int, image_size: tuple[int, int], *, pin: bool) -> list[Batch]:
    """Random images of ``p_size`` identities, every other one infrared."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(size) * p_size // size
    cameras = torch.where(torch.arange(size) % 2 == 0, 1, 3)
    batches = []
    for _ in range(count):
        images = torch.randint(0, 256, (size, 3, *image_size), dtype=torch.uint8, generator=random)
        batches.append(Batch(images.pin_memory() if pin else images, labels, cameras, torch.arange(size)))
    return batches


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.step", description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", default="configs/SYSU_MCJA.yml", type=Path)
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--steps", type=at_least_one, default=20, help="steps per repeat")
    parser.add_argument("--repeats", type=at_least_one, default=3)
    parser.add_argument("--json", type=json_file, help="where the report is written to")
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
    batches = made_batches(min(steps, 8), size, cfg.p_size, cfg.image_size, pin=cuda)
    augment = build_augment(cfg, seed=0)

    def training(augment) -> Training:
        parts = {"model": model, "criterion": build_criterion(cfg, device), "optimizer": optimizer, "loader": None}
        return Training(**parts, augment=augment, device=device, precision=precision, compile=cfg.compile)

    def run(step, fed: list[Batch]):
        def steps_() -> None:
            for number in range(steps):
                step(None, fed[number % len(fed)])
            if cuda:
                torch.cuda.synchronize()

        return measure(steps_, repeats=repeats, warmup=1).median / steps

    resident = batches[0]._replace(images=batches[0].images.to(device))
    augmented = augment(resident.images, resident.is_infrared)
    bound = run(train_step(training(Resident(augmented))), [resident])
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    whole = run(train_step(training(augment)), batches)

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
