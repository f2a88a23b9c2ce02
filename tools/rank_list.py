"""Draw rank lists of a run: ``python -m tools.rank_list RUN_FOLDER --out rank_list.jpg``.

One row per query: the query and its nearest gallery images. The frame of a result is solid blue if the identity is
correct, dashed orange if it is wrong. The run must have saved its features (``save_features true``).
"""

import argparse
import sys
from pathlib import Path

from PIL import Image

from configs import get_config
from data.datasets import DATASETS
from utils.features import Features
from utils.rank_lists import best_to_worst, draw, rank_lists, row_of
from utils.run.cli import Parser, run_program
from utils.run.errors import UnreadableImage, UserError
from utils.run.files import write_atomically
from utils.run.folder import CONFIG

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}  # of the picture, by the ending of its name
JPEG_SIZE = 65_500  # pixels per side that a JPEG file can have


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.rank_list", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the picture, .jpg or .png")
    parser.add_argument("--queries", type=int, default=5, help="rows, from the best to the worst query (default 5)")
    parser.add_argument("--results", type=int, default=10, help="gallery images per row (default 10)")
    data_root = "the folder of the data set (default: that of the run)"
    parser.add_argument("--data-root", type=Path, metavar="DIR", help=data_root)
    arguments = parser.parse_args(argv)
    for name in ("queries", "results"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name}: {getattr(arguments, name)} should be at least 1")
    if not arguments.out.parent.is_dir():
        raise UserError(f"--out: there is no folder {arguments.out.parent}")
    if arguments.out.suffix.lower() not in FORMATS:
        raise UserError(f"--out: {arguments.out.name} should end in .jpg or .png")
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    cfg = get_config(arguments.run / CONFIG)
    features = Features.load(arguments.run / "features.npz")
    root = arguments.data_root or Path(cfg.data_root)
    search = DATASETS[cfg.dataset].protocol(features, root)[0]
    lists = rank_lists(features, search)
    if not lists:
        raise UserError(f"{arguments.run}: no query has a match in the gallery")
    chosen = best_to_worst(features, lists, arguments.queries)
    rows = [row_of(features, root, query, results[: arguments.results]) for query, results in chosen]
    try:
        picture = draw(rows)
    except UnreadableImage as error:
        raise UserError(f"{error}; if the data set has moved, give --data-root") from None
    save_picture(picture, arguments.out)
    print(f"{arguments.out}: {len(rows)} of {len(lists)} queries, from the best to the worst")
    return 0


def save_picture(picture: Image.Image, out: Path) -> None:
    """Write a picture in the format that its name ends with. Raises ``UserError`` if it is too large for JPEG."""
    kind, size = FORMATS[out.suffix.lower()], max(picture.size)
    if kind == "JPEG" and size > JPEG_SIZE:
        raise UserError(
            f"--out: {out.name}: JPEG files have at most {JPEG_SIZE:,} pixels per side, not {size:,}; write a .png"
        )
    write_atomically(out, lambda file: picture.save(file, kind, quality=90))


if __name__ == "__main__":
    sys.exit(run_program(main))
