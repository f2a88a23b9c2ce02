"""Score saved features: ``python -m tools.score FEATURES.npz --dataset sysu --data-root DIR --json OUT.json``.

FEATURES holds the arrays paths, identities, cameras, original, red, green and blue, as a test run saves them. No model
and no GPU is needed.
"""

import argparse
import sys
from pathlib import Path

from configs.default import dataset_cfg
from data.sysu import read_permutations
from utils.cli import Parser, run_program
from utils.features import Features
from utils.files import write_json
from utils.protocols import Search, regdb_search, score, sysu_search
from utils.rerank import MSER
from utils.results import markdown_table, mean_figures


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.score", description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path, metavar="FEATURES.npz")
    parser.add_argument("--dataset", required=True, choices=tuple(dataset_cfg))
    parser.add_argument("--data-root", type=Path, help="the data set's folder; SYSU-MM01's holds the permutations")
    parser.add_argument("--no-mser", dest="mser", action="store_false", help="without re-ranking")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="where the results are written to")
    for name, meaning in (("k1", "neighbourhood"), ("k2", "averaged neighbours"), ("lambda", "original distance")):
        kind = float if name == "lambda" else int
        parser.add_argument(f"--{name}", type=kind, help=f"MSER: {meaning}; default: the data set's published value")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    features = Features.load(arguments.features)
    results = score(features, _search(arguments, features), mser=_mser(arguments))
    print(markdown_table(results))
    if arguments.json:
        write_json(arguments.json, mean_figures(results))
    return 0


def _search(arguments: argparse.Namespace, features: Features) -> Search:
    if arguments.dataset == "regdb":
        return regdb_search(features)
    root = arguments.data_root or Path(dataset_cfg["sysu"].data_root)
    return sysu_search(features, read_permutations(root))


def _mser(arguments: argparse.Namespace) -> MSER | None:
    if not arguments.mser:
        return None
    default = dataset_cfg[arguments.dataset]
    given = (arguments.k1, arguments.k2, getattr(arguments, "lambda"))
    published = (default.mser_k1, default.mser_k2, default.mser_lambda)
    return MSER(*(own if own is not None else usual for own, usual in zip(given, published, strict=True)))


if __name__ == "__main__":
    sys.exit(run_program(main))
