"""Turn drawings and images into parts of the page, and into files for a paper."""

import base64
import html
import io
import re
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import matplotlib

from tools.report.figures import Drawing, style
from utils.images import open_image
from utils.rank_lists import HEIGHT, WIDTH
from utils.run.errors import UserError
from utils.run.files import write_atomically

# colours that no figure uses; in the page they become those of its theme
INK, GRID = "#010203", "#040506"
THEME = {INK: "currentColor", GRID: "var(--grid)"}
PAPER = {"ink": "black", "grid": "#d9d9d9"}
DPI = 300  # of the PNG files, and of images inside the SVG
QUALITY = 82  # of the JPEG thumbnails


class Picture(NamedTuple):
    """A figure of the page."""

    svg: str
    title: str
    wide: bool


class Output:
    """Makes the figures of the page, and their files if a folder is given.

    Args:
        folder: for the files; None for no files.
    """

    def __init__(self, folder: Path | None):
        self.folder, self.count = folder, 0
        if folder:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"--figures: {folder} cannot be made ({error.strerror})") from None

    def picture(self, drawing: Drawing, prefix: str = "") -> Picture:
        """The figure for the page; also writes its files.

        Args:
            prefix: of the names of the files, which tells several runs apart.
        """
        self.count += 1
        with matplotlib.rc_context(style(INK, GRID)):
            buffer = io.StringIO()
            drawing.draw().savefig(buffer, format="svg", dpi=DPI / 2)
        self.write(drawing, prefix)
        return Picture(_for_page(buffer.getvalue(), self.count, drawing.text), drawing.title, drawing.wide)

    def write(self, drawing: Drawing, prefix: str) -> None:
        """Write the files of a figure, if files are wanted."""
        if self.folder:
            with matplotlib.rc_context(style(**PAPER)):
                figure = drawing.draw()
                for kind in ("png", "pdf"):
                    path = self.folder / f"{prefix}{drawing.name}.{kind}"
                    write_atomically(path, partial(figure.savefig, format=kind, dpi=DPI, facecolor="white"))


def _for_page(svg: str, number: int, text: str) -> str:
    """The ``<svg>`` element, in the colours of the page's theme, with names that are unique on the page.

    Args:
        text: for screen readers.
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for colour, value in THEME.items():
        svg = svg.replace(colour, value)
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="f{number}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>f{number}-", svg)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()  # type: ignore[union-attr]
    opening = _opening(width, height, text)
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)


def _opening(width: str, height: str, text: str) -> str:
    names = 'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" version="1.1"'
    label = f'role="img" aria-label="{html.escape(text)}"'
    return f'<svg {names} viewBox="0 0 {width} {height}" style="max-width: {float(width) * 1.6:.0f}px" {label}>'


@cache
def thumbnail(path: Path) -> str:
    """A small JPEG of an image, as a data URL.

    Raises:
        UnreadableImage: the image cannot be read.
    """
    buffer = io.BytesIO()
    open_image(path).resize((WIDTH, HEIGHT)).save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
