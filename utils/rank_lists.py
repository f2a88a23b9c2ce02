"""Rank lists: queries, each with its nearest gallery images, and pictures of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.features import Features
from utils.images import open_image
from utils.metrics import exclusion_keys
from utils.protocols import Search

HEIGHT, WIDTH = 128, 64  # of an image, in pixels
MARGIN, GAP, FRAME = 8, 24, 3  # in pixels: around an image, between query and results, width of a frame
CAPTION = 14  # height of a caption in pixels
# blue and orange of Okabe and Ito, told apart with every kind of colour blindness
CORRECT, WRONG, WHITE, GREY = (0, 114, 178), (213, 94, 0), (255, 255, 255), (60, 60, 60)


class Shown(NamedTuple):
    """An image of a rank list. The frame is solid blue if it is correct, dashed orange if it is wrong, else grey."""

    path: Path
    caption: str = ""  # one short line below the image
    correct: bool | None = None  # None for queries, and for results whose identity is not known


def rank_lists(features: Features, search: Search) -> list[tuple[int, np.ndarray]]:
    """Rank the gallery of the first trial of the first setting for each query, without MSER.

    Images that the search excludes and queries without a match are left out.

    Returns:
        For each query: its position in the features, and the positions of the gallery images, nearest first.
    """
    columns = next(iter(search.galleries.values()))[0]
    gallery = search.pool[columns]
    identities = features.identities
    labels = identities[search.query], search.query_locations, identities[gallery], search.pool_locations[columns]
    query_keys, gallery_keys = exclusion_keys(*labels, search.exclude)
    query_features, gallery_features = (
        features.normalised(["original"], positions)[0] for positions in (search.query, gallery)
    )
    similarity = (query_features @ gallery_features.T).numpy()
    lists = []
    for row, (query, key) in enumerate(zip(search.query, query_keys, strict=True)):
        ranked = np.argsort(-similarity[row], kind="stable")
        ranked = gallery[ranked[gallery_keys[ranked] != key]]
        if (identities[ranked] == identities[query]).any():
            lists.append((int(query), ranked))
    return lists


def first_match(features: Features, query: int, results: np.ndarray) -> int:
    """Index of the first correct result."""
    return int((features.identities[results] == features.identities[query]).argmax())


def best_to_worst(
    features: Features, lists: Sequence[tuple[int, np.ndarray]], count: int
) -> list[tuple[int, np.ndarray]]:
    """At most ``count`` of the rank lists, evenly spaced, from the earliest first match to the latest."""
    order = np.argsort([first_match(features, *ranked) for ranked in lists], kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
    return [lists[index] for index in chosen]


def row_of(features: Features, root: Path, query: int, results: np.ndarray) -> list[Shown]:
    """The row of a query and its results.

    Args:
        query, results: positions in the features.
    """
    identities = features.identities
    row = [Shown(root / features.paths[query], caption(features, query))]
    return row + [
        Shown(root / features.paths[result], caption(features, result), bool(identities[result] == identities[query]))
        for result in results
    ]


def caption(features: Features, position: int) -> str:
    return f"{features.identities[position]}, cam {features.cameras[position]}"


def draw(rows: Sequence[Sequence[Shown]]) -> Image.Image:
    """A picture with one row per query: the query, a gap, and its results.

    Raises:
        UnreadableImage: an image cannot be read.
    """
    columns = max(map(len, rows))
    step_x, step_y = WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN + CAPTION
    picture = Image.new("RGB", (columns * step_x + GAP, len(rows) * step_y), WHITE)
    for row, images in enumerate(rows):
        for column, shown in enumerate(images):
            _paste(picture, shown, column * step_x + (GAP if column else 0) + MARGIN, row * step_y + MARGIN)
    return picture


def _paste(picture: Image.Image, shown: Shown, left: int, top: int) -> None:
    """Paste an image with a frame and a caption. Dashes tell wrong results from correct ones without colours."""
    picture.paste(open_image(shown.path).resize((WIDTH, HEIGHT)), (left, top))
    pen = ImageDraw.Draw(picture)
    box = (left - FRAME - 1, top - FRAME - 1, left + WIDTH + FRAME, top + HEIGHT + FRAME)
    pen.rectangle(box, outline={True: CORRECT, False: WRONG, None: GREY}[shown.correct], width=FRAME)
    for offset in range(0, HEIGHT, 16) if shown.correct is False else ():
        for edge in (box[0], box[2] - FRAME + 1):
            pen.rectangle((edge, top + offset, edge + FRAME - 1, top + offset + 5), fill=WHITE)
    middle = (left + WIDTH / 2, top + HEIGHT + FRAME + 3)
    pen.text(middle, shown.caption, fill=GREY, font=ImageFont.load_default(11), anchor="ma")
