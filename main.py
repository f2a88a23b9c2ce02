"""Train and test: ``python main.py --cfg configs/SYSU_MCJA.yml --gpu 0 --seed 8 --desc MCJA [KEY VALUE ...]``."""

import os
import signal


def stop_while_starting(number: int, frame: object) -> None:
    os.write(2, b"stopped while starting\n")
    os._exit(128 + number)


if __name__ == "__main__":  # importing torch takes seconds
    signal.signal(signal.SIGINT, stop_while_starting)
    signal.signal(signal.SIGTERM, stop_while_starting)

import argparse
import logging
import shlex
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import NamedTuple

import utils  # noqa: F401 - before torch: it configures OpenMP

import torch  # isort: skip
from yacs.config import CfgNode  # isort: skip

from configs import check_resume, get_config, get_continued_config
from data import build_dataset
from engine import build_evaluator, build_schedule, build_training
from engine.checkpoints import BEST, LAST, save_state
from engine.device import describe_device, place, select_device
from engine.evaluator import Evaluator, require_testable
from engine.plan import plan
from engine.step import Training
from engine.trainer import train
from models import Network, build_initial_model, build_model, load_weights
from models.loading import read_state_dict, same_state
from models.resnet import imagenet_file
from utils.results import Results, markdown_table, means, trials
from utils.run.cli import Parser, run_program
from utils.run.errors import Stopped, UserError
from utils.run.files import write_json, write_text
from utils.run.folder import CONFIG, RESULTS, RunFolder, folder_name, has_states, is_complete, make_folder
from utils.run.logs import set_up_logging
from utils.run.seeds import seed_everything

logger = logging.getLogger("main")


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    if arguments.continued and is_complete(arguments.continued):
        print(f"{arguments.continued} is complete: its results are in {arguments.continued / RESULTS}")
        return 0
    run = open_run(arguments)
    if arguments.dry_run:
        print(plan_run(run, arguments.desc))
        return 0
    parts = build(run)  # errors in the input are found here, before a new run folder is made
    folder = start(run, parts, arguments)
    with folder.removed_if_nothing_was_trained(), closing(parts.evaluator):
        try:
            best_epoch = train_model(run.cfg, parts, folder.path)
            results = test_models(run.cfg, parts, folder.path)
        except Stopped as stop:
            if parts.training:
                path = shlex.quote(str(folder.path))
                stop.hint = f"continue with: python main.py --continue {path} --gpu {arguments.gpu}"
            raise
    write_results(folder, results, {"config": dict(run.cfg), "best_epoch": best_epoch})
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description="Train and test models for visible-infrared person re-identification.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cfg", type=Path, metavar="FILE", help="YAML configuration of a new run")
    what.add_argument("--continue", dest="continued", type=Path, metavar="RUN_FOLDER", help="continue a stopped run")
    parser.add_argument("--gpu", default="auto", help="index of a GPU, cpu, or auto: the first GPU, else the CPU")
    parser.add_argument("--seed", type=int, help="seeds everything; drawn and logged if not given")
    parser.add_argument("--desc", default="", help="appended to the name of the run folder")
    parser.add_argument("--dry-run", action="store_true", help="print the plan of a new run, and write nothing")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="override any configuration key")
    arguments = parser.parse_intermixed_args(argv)
    arguments.command = shlex.join(["python", "main.py", *argv])
    if arguments.seed is not None and not 0 <= arguments.seed < 2**32:
        raise UserError(f"--seed: {arguments.seed} should be between 0 and {2**32 - 1}")
    if arguments.continued and (arguments.seed is not None or arguments.desc):
        raise UserError("--continue takes neither --seed nor --desc: the run keeps its own")
    if arguments.continued and arguments.dry_run:
        raise UserError("--dry-run: plans a new run; give --cfg instead of --continue")
    return arguments


class Run(NamedTuple):
    """Configuration, device, seed and folder of a run."""

    cfg: CfgNode
    device: torch.device
    seed: int
    folder: RunFolder | None  # of a continued run; None for a new one


class Parts(NamedTuple):
    """Model, training and evaluator of a run."""

    model: Network
    training: Training | None  # None if the run only tests
    evaluator: Evaluator
    notes: list[str]  # for the log


def open_run(arguments: argparse.Namespace) -> Run:
    """A new run, configured by a YAML file, or a stopped run, configured by its folder."""
    if arguments.continued:
        folder = RunFolder.reopen(arguments.continued)
        cfg = get_continued_config(folder.path / CONFIG, arguments.overrides)
        seed = folder.conditions["seed"]
    else:
        folder, cfg, seed = None, get_config(arguments.cfg, arguments.overrides), arguments.seed
    device = select_device(arguments.gpu)
    return Run(cfg, device, seed_everything(seed, deterministic=cfg.deterministic), folder)


def build(run: Run) -> Parts:
    """Data sets, model, training and evaluator."""
    cfg, device = run.cfg, run.device
    train_set = None if cfg.test_only else build_dataset(cfg, "train")
    test_set = build_dataset(cfg, "test")
    require_testable(test_set)
    notes: list[str] = []
    if run.folder and has_states(run.folder.path):
        model = build_model(cfg, pretrained="none")  # the training state holds the weights
    else:
        model, notes = initial_model(run)
    place(model, device)
    training = build_training(cfg, model, train_set, device, seed=run.seed) if train_set else None
    no_casts = training.precision.no_autocast if training else nullcontext
    evaluator = build_evaluator(cfg, test_set, device, no_casts=no_casts)
    if training:
        notes += [training.dataset.summary(), f"  images: {training.source}"]
        notes.append(f"losses: {training.criterion}; {training.precision} on {describe_device(device)}")
    notes += [test_set.summary(), f"  images: {evaluator.extractor.source}", evaluator.summary()]
    return Parts(model, training, evaluator, notes)


def initial_model(run: Run) -> tuple[Network, list[str]]:
    """The network with its initial weights, and notes about them for the log."""
    if run.folder and any(run.folder.path.glob("*.pth")):
        raise UserError(f"--continue: {run.folder.path} holds models, but no training state; start a new run")
    warning = check_resume(run.cfg)
    model, report = build_initial_model(run.cfg)
    weights = f"weights from {run.cfg.resume}: {report}" if report else ""
    return model, [note for note in (weights, warning) if note]


def plan_run(run: Run, desc: str) -> str:
    """What a new run would do, with estimates from a few steps. Fills no cache, downloads nothing, makes no folder."""
    cfg = run.cfg.clone()
    cfg.defrost()
    cfg.cache = "none"
    if cfg.pretrained == "imagenet" and not imagenet_file(cfg.backbone).is_file():
        cfg.pretrained = "none"  # which is as fast
    parts = build(run._replace(cfg=cfg))
    with closing(parts.evaluator):
        lines = plan(parts.model, parts.training, parts.evaluator, build_schedule(cfg, parts.evaluator))
    images = "{} x {} pixels, decoded when needed by {} processes".format(*cfg.image_size, cfg.num_workers)
    if run.cfg.cache != "none":
        images += f" without `cache {run.cfg.cache}`, which may make the run faster"
    lines[:0] = [
        ("seed", str(run.seed)),
        ("run folder", str(Path(cfg.output_dir) / cfg.dataset / folder_name(cfg.prefix, "<date>", desc))),
        ("images", images),
        ("backbone", f"{cfg.backbone}, weights: {run.cfg.resume or run.cfg.pretrained}"),
    ]
    return "\n".join(f"{topic + ':':<15}{text}" for topic, text in lines)


def start(run: Run, parts: Parts, arguments: argparse.Namespace) -> RunFolder:
    """Create the folder of a new run, or note the continuation of a stopped one, and start the log."""
    cfg, device, warnings = run.cfg, describe_device(run.device), []
    if run.folder:
        folder = run.folder
        warnings = folder.note_continuation(command=arguments.command, device=device)
    else:
        path = make_folder(cfg.output_dir, cfg.dataset, cfg.prefix, arguments.desc)
        folder = RunFolder.create(path, config=cfg.dump(), command=arguments.command, seed=run.seed, device=device)
    set_up_logging(folder.path / "log.txt")
    logger.info("%s", "\n".join(f"{name}: {value}" for name, value in folder.conditions.items()))
    for warning in warnings:
        logger.warning("%s", warning)
    logger.info("configuration:\n%s", cfg.dump().rstrip())
    for note in parts.notes:
        logger.info("%s", note)
    return folder


def train_model(cfg: CfgNode, parts: Parts, folder: Path) -> int | None:
    """Train to the last epoch. Returns the epoch of the best model, None if no epoch was evaluated."""
    if not parts.training:
        return None
    if not has_states(folder):
        table = markdown_table(parts.evaluator.test_plain(parts.model))
        logger.info("before training, without re-ranking:\n%s", table)
    return train(parts.training, build_schedule(cfg, parts.evaluator), folder)


def test_models(cfg: CfgNode, parts: Parts, folder: Path) -> dict[str, Results]:
    """Test the checkpoint ``resume``, or the best and the last model. The first model gives the main results."""
    models = trained_models(cfg, parts, folder) if parts.training else {"resume": parts.model}
    results: dict[str, Results] = {}
    for name, model in models.items():
        tested, features = parts.evaluator.test(model)
        if cfg.save_features and not results:
            features.save(folder / "features.npz")
        results[name] = tested
    return results


def trained_models(cfg: CfgNode, parts: Parts, folder: Path) -> dict[str, Network]:
    """The best and the last model; a single one if they are equal, or if no epoch was evaluated."""
    last = parts.model
    save_state(last.state_dict(), folder / LAST)
    if not (folder / BEST).exists() or same_state(read_state_dict(folder / BEST), last.state_dict()):
        return {"best and last": last}
    # a new model, because apex caches weights of `last`
    best = place(build_model(cfg, pretrained="none"), parts.evaluator.device)
    load_weights(best, folder / BEST)
    return {"best": best, "last": last}


def write_results(folder: RunFolder, results: dict[str, Results], conditions: dict[str, object]) -> None:
    """Write ``results.md`` and ``results.json``."""
    tables = "\n\n".join(f"{which} model:\n\n{markdown_table(table)}" for which, table in results.items())
    first = next(iter(results.values()))
    last = results.get("last", first)
    content = {
        "results": means(first),
        "trials": trials(first),
        "last": {"results": means(last), "trials": trials(last)},
        **folder.conditions,
        **conditions,
    }
    shown = "\n".join(f"- {name}: {content[name]}" for name in ("command", "seed", "device", "commit", "versions"))
    note = "In percent, mean ± standard deviation over trials."
    write_text(folder.path / "results.md", f"{tables}\n\n{note}\n\n{shown}\n")
    write_json(folder.path / RESULTS, content)  # last: with this file the run is complete
    logger.info("%s\nresults in %s", tables, folder.path)


if __name__ == "__main__":
    sys.exit(run_program(main))
