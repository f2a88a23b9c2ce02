"""Score saved features: ``python -m tools.score FEATURES.npz --dataset sysu --data-root DIR --json OUT.json``.

FEATURES.npz holds the arrays paths, identities, cameras, original and, for MSER, red, green and blue, as a run saves
them with ``save_features true``. No model is needed.
"""

import argparse
import sys
from pathlib import Path

from configs.checks import RULES
from data.datasets import DATASETS
from data.datasets.base import ReIDDataset
from engine.device import select_device
from utils.features import SPECTRA, Features
from utils.protocols import describe_queries, score
from utils.rerank import MSER
from utils.results import markdown_table, means
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError, shown
from utils.run.files import write_json


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.score", description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path, metavar="FEATURES.npz")
    parser.add_argument("--dataset", required=True, choices=tuple(DATASETS))
    roots = ", ".join(f"{dataset.defaults['data_root']} for {name}" for name, dataset in DATASETS.items())
    data_root = f"the folder of the data set, for the lists of its protocol (default: {roots})"
    parser.add_argument("--data-root", type=Path, metavar="DIR", help=data_root)
    for dataset in DATASETS.values():
        for key, values in dataset.variants.items():
            added = "; ".join(f"{value} adds {', '.join(names)}" for value, names in values.items() if names)
            parser.add_argument(f"--{key.replace('_', '-')}", choices=tuple(values), help=f"{dataset.name}: {added}")
    parser.add_argument("--gpu", default="auto", help="index of a GPU, cpu, or auto: the first GPU, else the CPU")
    parser.add_argument("--no-mser", dest="mser", action="store_false", help="without MSER re-ranking")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the results to this file")
    default = "(default: the published value for the data set)"
    parser.add_argument("--k1", type=int, help=f"MSER: size of the k-reciprocal neighbourhood {default}")
    parser.add_argument("--k2", type=int, help=f"MSER: number of neighbours whose weights are averaged {default}")
    spectra = f"MSER: spectra of the visible images, such as original,red (default: {','.join(SPECTRA)})"
    parser.add_argument("--spectra", type=lambda words: words.split(","), help=spectra)
    weight = f"MSER: weight of the original distance, 0 to 1 {default}"
    parser.add_argument("--lambda", type=float, metavar="L", help=weight)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    dataset = DATASETS[arguments.dataset]
    mser = mser_parameters(arguments, dataset) if arguments.mser else None
    if arguments.json and not arguments.json.parent.is_dir():
        raise UserError(f"--json: there is no folder {arguments.json.parent}")
    device = select_device(arguments.gpu)
    features = Features.load(arguments.features)
    foreign = set(features.cameras.tolist()) - set(dataset.cameras_of())
    if foreign:
        raise UserError(f"{arguments.features}: {dataset.name} has cameras {dataset.cameras_of()}, not {min(foreign)}")
    variants = {key: getattr(arguments, key) for key in dataset.variants if getattr(arguments, key)}
    root = arguments.data_root or Path(dataset.defaults["data_root"])
    protocol = dataset.chosen_protocol(features, root, variants)
    results = score(features, protocol, mser=mser, device=device)
    print(markdown_table(results))
    print(*describe_queries(protocol, features.identities), sep="\n")
    if arguments.json:
        write_json(arguments.json, means(results))
    return 0


def mser_parameters(arguments: argparse.Namespace, dataset: type[ReIDDataset]) -> MSER:
    """MSER's hyper-parameters: those of the command line, else the defaults of the data set."""
    values = []
    for name in ("k1", "k2", "lambda"):
        value = getattr(arguments, name)
        holds, meaning = RULES[f"mser_{name}"]
        if value is None:
            value = dataset.defaults[f"mser_{name}"]
        elif not holds(value):
            raise UserError(f"--{name}: {value} should be {meaning}")
        values.append(value)
    spectra = arguments.spectra or SPECTRA
    holds, meaning = RULES["mser_spectra"]
    if not holds(spectra):
        raise UserError(f"--spectra: {shown(','.join(spectra))} should be {meaning}")
    return MSER(*values)._replace(spectra=tuple(spectra))


if __name__ == "__main__":
    sys.exit(run_program(main))
