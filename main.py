"""Train and test MCJA: ``python main.py --cfg configs/SYSU_MCJA.yml --gpu 0 --seed 8 --desc MCJA [KEY VALUE ...]``."""

import os
import signal

if __name__ == "__main__":  # importing torch takes seconds, in which a signal should end the program in one line, too
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: (os.write(2, b"stopped while starting\n"), os._exit(128 + number)))

import argparse
import logging
import shlex
import sys
from contextlib import closing
from pathlib import Path

from yacs.config import CfgNode

from configs import check_resume, get_config, get_continued_config
from data import build_dataset
from engine import build_evaluator, build_schedule, build_training, train
from engine.checkpoints import BEST, LAST, save_state
from engine.device import describe_device, place, select_device
from engine.evaluator import Evaluator, require_testable
from engine.state import has_states
from engine.trainer import Training
from models import MCJA, LoadReport, build_model, load_weights
from models.loading import read_state_dict, same_state
from utils.results import Results, markdown_table, mean_figures, trial_figures
from utils.run.cli import Parser, run_program
from utils.run.errors import Stopped, UserError
from utils.run.files import write_json, write_text
from utils.run.folder import CONFIG, RESULTS, Run, create_run_folder, discarded_without_model, is_complete
from utils.run.logs import set_up_logging
from utils.run.seeds import seed_everything

logger = logging.getLogger("main")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description="Train and test MCJA for visible-infrared person re-identification.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cfg", type=Path, metavar="FILE", help="YAML configuration of a new run")
    what.add_argument("--continue", dest="continued", type=Path, metavar="RUN_FOLDER", help="go on with a stopped run")
    parser.add_argument("--gpu", default="auto", help="index of a GPU, cpu, or auto: the first GPU, else the CPU")
    parser.add_argument("--seed", type=int, help="seeds everything; drawn and logged if not given")
    parser.add_argument("--desc", default="", help="appended to the name of the run's folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="override any configuration key")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.seed is not None and not 0 <= arguments.seed < 2**32:
        raise UserError(f"--seed: {arguments.seed} should be between 0 and {2**32 - 1}")
    if arguments.continued and (arguments.seed is not None or arguments.desc):
        raise UserError("--continue goes with neither --seed nor --desc: the run keeps its own")
    return arguments


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse_arguments(argv)
    command = shlex.join(["python", "main.py", *argv])
    if arguments.continued and is_complete(arguments.continued):
        print(f"{arguments.continued} is complete: its results are in {arguments.continued / RESULTS}")
        return 0
    run = Run.reopen(arguments.continued) if arguments.continued else None
    goes_on = run is not None and has_states(run.folder)  # one that was stopped before its first state begins anew
    if run and not goes_on and any(run.folder.glob("*.pth")):
        raise UserError(f"--continue: {run.folder} holds models, but no training state; start a new run")
    if run:
        cfg = get_continued_config(run.folder / CONFIG, arguments.overrides)
    else:
        cfg = get_config(arguments.cfg, arguments.overrides)
    origin = check_resume(cfg) if not goes_on else ""
    device = select_device(arguments.gpu)
    seed = seed_everything(run.conditions["seed"] if run else arguments.seed, deterministic=cfg.deterministic)

    # everything that can fail on what the user gave comes before the run's folder is made
    train_set = None if cfg.test_only else build_dataset(cfg, "train")
    test_set = build_dataset(cfg, "test")
    require_testable(test_set)
    model, report = build_loaded_model(cfg, fresh=not goes_on)
    place(model, device)
    training = train_set and build_training(cfg, model, train_set, device, seed=seed)
    evaluator = build_evaluator(cfg, test_set, device)

    differences = {}
    if run:
        differences = run.go_on(command=command, device=describe_device(device))
    else:
        folder = create_run_folder(cfg.output_dir, cfg.dataset, cfg.prefix, arguments.desc)
        run = Run.begin(folder, config=cfg.dump(), command=command, seed=seed, device=describe_device(device))
    set_up_logging(run.folder / "log.txt")
    logger.info("%s", "\n".join(f"{name}: {value}" for name, value in run.conditions.items()))
    for name, (then, now) in differences.items():
        logger.warning("not as when the run began, which may change its results: %s was %s, is %s", name, then, now)
    logger.info("configuration:\n%s", cfg.dump().rstrip())
    for dataset in filter(None, (train_set, test_set)):
        logger.info(dataset.summary())
    if report is not None:
        logger.info("weights from %s: %s", cfg.resume, report)
    if origin:
        logger.info("%s", origin)

    found = {}
    with discarded_without_model(run.folder), closing(evaluator):
        if training is not None:
            try:
                logger.info("losses: %s; %s on %s", training.criterion, training.precision, describe_device(device))
                found["best_epoch"] = train_and_keep(cfg, training, evaluator, run, continued=goes_on)
                results = test(cfg, evaluator, model, run.folder, trained=True)
            except Stopped as stop:
                folder = shlex.quote(str(run.folder))
                stop.hint = f"go on with: python main.py --continue {folder} --gpu {arguments.gpu}"
                raise
        else:
            results = test(cfg, evaluator, model, run.folder, trained=False)
    write_results(run.folder, results, {"config": dict(cfg), **run.conditions, **found})
    return 0


def build_loaded_model(cfg: CfgNode, *, fresh: bool = True) -> tuple[MCJA, LoadReport | None]:
    """The network with the weights that it starts from, and how those of ``resume`` fitted.

    Unless ``fresh``, one that a training state is to fill.
    """
    if not fresh:
        return build_model(cfg, pretrained="none"), None
    if not cfg.resume:
        return build_model(cfg), None
    model = build_model(cfg, pretrained="none")
    report = load_weights(model, cfg.resume)
    report.require_same_network(cfg.resume)
    if cfg.test_only and "classifier.weight" in report.mismatched:
        raise UserError(
            f"{cfg.resume}: was trained on another number of classes than num_id {cfg.num_id}; set num_id to its own"
        )
    return model, report


def train_and_keep(cfg: CfgNode, training: Training, evaluator: Evaluator, run: Run, *, continued: bool) -> int | None:
    """Train to the end; the epoch of the best model."""
    if not continued:
        logger.info("before training, without re-ranking:\n%s", markdown_table(evaluator.test_plain(training.model)))
    return train(training, build_schedule(cfg, evaluator), run.folder, continued=continued)


def test(cfg: CfgNode, evaluator: Evaluator, model: MCJA, folder: Path, *, trained: bool) -> dict[str, Results]:
    """Results by model: of ``resume``, or of the training's best and last ones."""
    last = {}
    if trained:
        save_state(model.state_dict(), folder / LAST)
        best = folder / BEST
        # a training that never evaluated has no best model, and the last one may be the best: one test is then enough
        if best.exists() and not same_state(read_state_dict(best), model.state_dict()):
            last = {"last": evaluator.test(model)[0]}
            load_weights(model, best)
    results, features = evaluator.test(model)
    if cfg.save_features:
        features.save(folder / "features.npz")
    name = "resume" if not trained else "best" if last else "best and last"
    return {name: results, **last}


def write_results(folder: Path, results: dict[str, Results], conditions: dict[str, object]) -> None:
    """``results.json`` and ``results.md``; the first model's results are *the* results."""
    tables = "\n\n".join(f"{which} model:\n\n{markdown_table(table)}" for which, table in results.items())
    first = next(iter(results.values()))
    last = results.get("last", first)
    content = {
        "results": mean_figures(first),
        "trials": trial_figures(first),
        "last": {"results": mean_figures(last), "trials": trial_figures(last)},
    }
    shown = "\n".join(f"- {name}: {conditions[name]}" for name in ("command", "seed", "device", "commit", "versions"))
    write_text(folder / "results.md", f"{tables}\n\nIn percent, mean ± standard deviation over trials.\n\n{shown}\n")
    write_json(folder / RESULTS, content | conditions)  # last: with it, the run is complete
    logger.info("%s\nresults in %s", tables, folder)


if __name__ == "__main__":
    sys.exit(run_program(main))
