"""Score saved features: ``python -m tools.score FEATURES.npz --dataset sysu --data-root DIR --json OUT.json``.

FEATURES holds the arrays paths, identities, cameras, original, red, green and blue, as a test run saves them. No model
is needed, and no GPU, though one is faster.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from configs.checks import RULES
from data.datasets import DATASETS
from data.datasets.sysu import read_permutations
from engine.device import select_device
from utils.features import Features
from utils.protocols import Search, regdb_search, score, sysu_search
from utils.rerank import MSER
from utils.results import markdown_table, mean_figures
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError
from utils.run.files import write_json

SEARCHES: dict[str, Callable[[Features, Path], Search]] = {
    "sysu": lambda features, root: sysu_search(features, read_permutations(root)),
    "regdb": lambda features, root: regdb_search(features),
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.score", description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path, metavar="FEATURES.npz")
    parser.add_argument("--dataset", required=True, choices=tuple(DATASETS))
    parser.add_argument("--data-root", type=Path, help="the data set's folder; SYSU-MM01's holds the permutations")
    parser.add_argument("--gpu", default="auto", help="index of a GPU, cpu, or auto: the first GPU, else the CPU")
    parser.add_argument("--no-mser", dest="mser", action="store_false", help="without re-ranking")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="where the results are written to")
    for name, meaning in (("k1", "neighbourhood"), ("k2", "averaged neighbours"), ("lambda", "original distance")):
        kind = float if name == "lambda" else int
        parser.add_argument(f"--{name}", type=kind, help=f"MSER: {meaning}; default: the data set's published value")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    mser = _mser(arguments)
    if arguments.json and not arguments.json.parent.is_dir():
        raise UserError(f"--json: there is no folder {arguments.json.parent}")
    device = select_device(arguments.gpu)
    features = Features.load(arguments.features)
    results = score(features, _search(arguments, features), mser=mser, device=device)
    print(markdown_table(results))
    if arguments.json:
        write_json(arguments.json, mean_figures(results))
    return 0


def _search(arguments: argparse.Namespace, features: Features) -> Search:
    cameras = DATASETS[arguments.dataset].cameras
    foreign = set(features.cameras.tolist()) - set(cameras)
    if foreign:
        raise UserError(f"{arguments.features}: camera {min(foreign)} is none of {arguments.dataset}'s {cameras}")
    root = arguments.data_root or Path(DATASETS[arguments.dataset].defaults["data_root"])
    return SEARCHES[arguments.dataset](features, root)


def _mser(arguments: argparse.Namespace) -> MSER | None:
    if not arguments.mser:
        return None
    values = []
    for name in ("k1", "k2", "lambda"):
        value = getattr(arguments, name)
        holds, meaning = RULES[f"mser_{name}"]
        if value is None:
            value = DATASETS[arguments.dataset].defaults[f"mser_{name}"]
        elif not holds(value):
            raise UserError(f"--{name}: {value} should be {meaning}")
        values.append(value)
    return MSER(*values)


if __name__ == "__main__":
    sys.exit(run_program(main))
