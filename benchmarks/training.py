"""Short real trainings: ``python -m benchmarks.training [--cfg FILE] [--gpu 0] [--json FILE] [KEY VALUE ...]``.

Trains on a synthetic SYSU-MM01 through the training loop, with ``cache`` disk and device, each precision, eager and
compiled. The first epoch warms up, the last one is measured: images per second, the share of the time in which the
device waited for images, peak memory. The baseline is the same step on one augmented batch that stays on the device.
"""

import sys
import tempfile
from itertools import product
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from benchmarks.step import peak, reset_peak, resident_seconds
from benchmarks.timing import at_least_one, json_file, prepare, usable_cores, write_report
from configs import get_config
from data import build_dataset
from engine import build_training
from engine.device import describe_device, place
from engine.evaluator import Evaluation
from engine.trainer import Schedule, Trainer
from models import build_model
from tools.synthetic import make_synthetic
from utils.results import TrialScore
from utils.run.cli import Parser, run_program
from utils.run.seeds import seed_everything

TEST_IDENTITIES = 2  # in the test list, which is not used


def write_images(root: Path, identities: int, size: tuple[int, int]) -> None:
    """A synthetic SYSU-MM01 with three images of each training identity from each camera that sees it."""
    make_synthetic(
        "sysu", root, identities=identities + TEST_IDENTITIES, test_identities=TEST_IDENTITIES, images_per_camera=3,
        size=size, workers=usable_cores(),
    )  # fmt: skip


def cases(device: torch.device) -> list[dict[str, object]]:
    """Values of the configuration keys; a CPU always computes in float32."""
    dtypes = ("float16", "bfloat16") if device.type == "cuda" else ("float16",)
    eager = [
        {"compile": False, "amp_dtype": dtype, "cache": cache} for dtype, cache in product(dtypes, ("disk", "device"))
    ]
    return [*eager, *({"compile": True, "amp_dtype": dtype, "cache": "device"} for dtype in dtypes)]


def measure_training(cfg: CfgNode, device: torch.device, epochs: int) -> dict[str, object]:
    """One row of the report."""
    torch.compiler.reset()
    seed_everything(0)
    model = place(build_model(cfg), device)
    training = build_training(cfg, model, build_dataset(cfg, "train"), device, seed=0)
    memory: list[float | None] = []  # peak of each epoch

    def note_memory(model: nn.Module) -> Evaluation:
        memory.append(peak(device))
        reset_peak(device)
        return Evaluation(TrialScore(*[0] * len(TrialScore._fields)))

    schedule = Schedule(
        lr=cfg.lr, lr_step=[], num_epoch=epochs, log_period=cfg.log_period, start_eval=0, eval_interval=1,
        evaluate=note_memory, select_by="last",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(training, schedule, Path(folder))
        trainer.run()
    batch = next(iter(training.loader))
    training.loader.close()
    resident = resident_seconds(trainer.step, training, batch, steps=10, repeats=2)
    size = len(batch.images)
    first, last = trainer.progress.rows[0], trainer.progress.rows[-1]
    return {
        "case": f"{cfg.backbone}, {cfg.image_size[0]}x{cfg.image_size[1]}, {training.precision}, cache {cfg.cache}"
        + (", compiled" if cfg.compile else "") + f", on {describe_device(device)}",
        "images/s": last["images_per_second"], "baseline images/s": size / resident,
        "ratio": last["images_per_second"] * resident / size, "waiting for data": last["data_wait"],
        "peak GiB": memory[-1], "first epoch, seconds": first["seconds"],
        **{f"{name}, {which} epoch": row[name]
           for name in ("loss_id", "loss_cmr") for which, row in (("first", first), ("last", last))},
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", default="configs/SYSU_MCJA.yml", type=Path)
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--identities", type=at_least_one, default=395, help="training identities")
    parser.add_argument("--epochs", type=at_least_one, default=2)
    parser.add_argument("--json", type=json_file, help="write a report to this file")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    arguments = parser.parse_intermixed_args(argv)
    device = prepare(arguments.gpu, seed=0)
    with tempfile.TemporaryDirectory() as name:
        fixed = {"data_root": f"{name}/sysu", "cache_dir": f"{name}/cache", "num_id": arguments.identities}

        def configured(case: dict[str, object]) -> CfgNode:
            keys = {"pretrained": "none", **fixed, **case}
            words = [str(word) for pair in keys.items() for word in pair]
            return get_config(arguments.cfg, [*words, *arguments.overrides])

        height, width = configured({}).image_size
        write_images(Path(name) / "sysu", arguments.identities, (height * 3 // 4, width))
        rows = (measure_training(configured(case), device, arguments.epochs) for case in cases(device))
        write_report(arguments.json, "training", rows, identities=arguments.identities, epochs=arguments.epochs)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
