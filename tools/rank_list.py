"""Draw rank lists of a run: ``python -m tools.rank_list RUN_FOLDER --out rank_list.jpg``.

One row per query: the query and its nearest gallery images. The frame of a result is solid green if the identity is
correct, dashed red if it is wrong. The run must have saved its features (``save_features true``).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from configs import get_config
from data.datasets import DATASETS
from utils.features import Features
from utils.protocols import Search
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError
from utils.run.files import write_atomically
from utils.run.folder import CONFIG

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}  # of the picture, by the ending of its name
HEIGHT, WIDTH = 128, 64  # of an image, in pixels
MARGIN, GAP, FRAME = 8, 24, 3  # in pixels: around an image, between query and results, width of a frame
CORRECT, WRONG, WHITE, GREY = (0, 130, 60), (200, 40, 40), (255, 255, 255), (60, 60, 60)


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
    order = np.argsort([first_match(features, *ranked) for ranked in lists], kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(arguments.queries, len(order))).round().astype(int)]
    rows = [(query, results[: arguments.results]) for query, results in (lists[number] for number in chosen)]
    picture = draw(features, root, rows, arguments.results)
    write_atomically(arguments.out, lambda file: picture.save(file, FORMATS[arguments.out.suffix.lower()], quality=90))
    print(f"{arguments.out}: {len(rows)} of {len(lists)} queries, from the best to the worst")
    return 0


def rank_lists(features: Features, search: Search) -> list[tuple[int, np.ndarray]]:
    """Rank the gallery of the first trial of the first setting for each query, without MSER.

    Images from the query's own location and queries without a match are left out.

    Returns:
        For each query: its position in the features, and the positions of the gallery images, nearest first.
    """
    columns = next(iter(search.galleries.values()))[0]
    gallery, locations = search.pool[columns], search.pool_locations[columns]
    query_features, gallery_features = (
        features.normalised(["original"], positions)[0].numpy() for positions in (search.query, gallery)
    )
    lists = []
    for row, (query, location) in enumerate(zip(search.query, search.query_locations, strict=True)):
        ranked = np.argsort(-(gallery_features @ query_features[row]), kind="stable")
        ranked = gallery[ranked[locations[ranked] != location]]
        if (features.identities[ranked] == features.identities[query]).any():
            lists.append((int(query), ranked))
    return lists


def first_match(features: Features, query: int, results: np.ndarray) -> int:
    """Index of the first correct result."""
    return int((features.identities[results] == features.identities[query]).argmax())


def draw(features: Features, root: Path, rows: list[tuple[int, np.ndarray]], columns: int) -> Image.Image:
    """One row per query, with its results to the right of it.

    Args:
        rows: for each query: its position in the features, and those of its results.
        columns: the largest number of results.
    """
    step_x, step_y = WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN
    picture = Image.new("RGB", ((1 + columns) * step_x + GAP, len(rows) * step_y), WHITE)
    for row, (query, results) in enumerate(rows):
        paste(picture, root / features.paths[query], MARGIN, row * step_y + MARGIN, GREY)
        for column, position in enumerate(results):
            correct = features.identities[position] == features.identities[query]
            left, top = (1 + column) * step_x + GAP + MARGIN, row * step_y + MARGIN
            paste(
                picture, root / features.paths[position], left, top, CORRECT if correct else WRONG, dashed=not correct
            )
    return picture


def paste(picture: Image.Image, path: Path, left: int, top: int, colour: tuple, *, dashed: bool = False) -> None:
    """Paste an image with a frame. Dashes tell wrong results from correct ones without colours."""
    try:
        with Image.open(path) as image:
            picture.paste(image.convert("RGB").resize((WIDTH, HEIGHT)), (left, top))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; if the data set has moved, give --data-root") from None
    pen = ImageDraw.Draw(picture)
    box = (left - FRAME - 1, top - FRAME - 1, left + WIDTH + FRAME, top + HEIGHT + FRAME)
    pen.rectangle(box, outline=colour, width=FRAME)
    for offset in range(0, HEIGHT, 16) if dashed else ():
        for edge in (box[0], box[2] - FRAME + 1):
            pen.rectangle((edge, top + offset, edge + FRAME - 1, top + offset + 5), fill=WHITE)


if __name__ == "__main__":
    sys.exit(run_program(main))
