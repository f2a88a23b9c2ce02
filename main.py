"""Train and test MCJA: ``python main.py --cfg configs/SYSU_MCJA.yml --gpu 0 --seed 8 --desc MCJA [KEY VALUE ...]``."""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from yacs.config import CfgNode

from configs import get_config
from data import build_dataset
from engine import build_evaluator, build_schedule, build_training, train
from engine.checkpoints import BEST, LAST, save_state
from engine.device import describe_device, place, select_device
from engine.evaluator import Evaluator, require_testable
from models import MCJA, LoadReport, build_model, load_weights
from models.loading import read_state_dict, same_state
from utils.cli import Parser, run_program
from utils.errors import UserError
from utils.files import write_json, write_text
from utils.logs import set_up_logging
from utils.results import Results, markdown_table, mean_figures, trial_figures
from utils.run_folder import create_run_folder, discarded_without_model
from utils.seeds import seed_everything
from utils.versions import commit, versions

logger = logging.getLogger("main")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description="Train and test MCJA for visible-infrared person re-identification.")
    parser.add_argument("--cfg", required=True, type=Path, metavar="FILE", help="YAML configuration")
    parser.add_argument("--gpu", default="auto", help="index of a GPU, cpu, or auto: the first GPU, else the CPU")
    parser.add_argument("--seed", type=int, help="seeds everything; drawn and logged if not given")
    parser.add_argument("--desc", default="", help="appended to the name of the run's folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="override any configuration key")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.seed is not None and not 0 <= arguments.seed < 2**32:
        raise UserError(f"--seed: {arguments.seed} should be between 0 and {2**32 - 1}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse_arguments(argv)
    cfg = get_config(arguments.cfg, arguments.overrides)
    device = select_device(arguments.gpu)
    seed = seed_everything(arguments.seed, deterministic=cfg.deterministic)

    # everything that can fail on what the user gave comes before the run's folder is made
    train_set = None if cfg.test_only else build_dataset(cfg, "train")
    test_set = build_dataset(cfg, "test")
    require_testable(test_set)
    model, report = build_loaded_model(cfg)
    place(model, device)
    training = train_set and build_training(cfg, model, train_set, device, seed=seed)
    evaluator = build_evaluator(cfg, test_set, device)

    folder = create_run_folder(cfg.output_dir, cfg.dataset, cfg.prefix, arguments.desc)
    set_up_logging(folder / "log.txt")
    write_text(folder / "config.yml", cfg.dump())
    conditions = {
        "command": shlex.join(["python", "main.py", *argv]),
        "seed": seed,
        "device": describe_device(device),
        "commit": commit(),
        "versions": versions(),
    }
    logger.info("%s", "\n".join(f"{name}: {value}" for name, value in conditions.items()))
    logger.info("configuration:\n%s", cfg.dump().rstrip())
    for dataset in filter(None, (train_set, test_set)):
        logger.info(dataset.summary())
    if report is not None:
        logger.info("weights from %s: %s", cfg.resume, report)

    with discarded_without_model(folder):
        if training is not None:
            logger.info("losses: %s; %s on %s", training.criterion, training.precision, conditions["device"])
            logger.info("before training, without re-ranking:\n%s", markdown_table(evaluator.test_plain(model)))
            conditions["best_epoch"] = train(training, build_schedule(cfg, evaluator), folder)
        results = test(cfg, evaluator, model, folder, trained=training is not None)
    write_results(folder, results, {"config": dict(cfg), **conditions})
    return 0


def build_loaded_model(cfg: CfgNode) -> tuple[MCJA, LoadReport | None]:
    """The network with the weights that it starts from, and how those of ``resume`` fitted."""
    model = build_model(cfg, pretrained="none" if cfg.resume else None)
    report = load_weights(model, cfg.resume) if cfg.resume else None
    if report is not None and cfg.test_only:
        report.require_testable(cfg.resume)
    return model, report


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
    write_json(folder / "results.json", content | conditions)
    shown = "\n".join(f"- {name}: {conditions[name]}" for name in ("command", "seed", "device", "commit", "versions"))
    write_text(folder / "results.md", f"{tables}\n\nIn percent, mean ± standard deviation over trials.\n\n{shown}\n")
    logger.info("%s\nresults in %s", tables, folder)


if __name__ == "__main__":
    sys.exit(run_program(main))
