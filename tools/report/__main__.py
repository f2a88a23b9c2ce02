"""Draw a report of one or more runs: ``python -m tools.report RUN [RUN ...] --out report.html``.

The page is one file that needs no network. Everything in it comes from the run folders and the test images. Features
are read from ``features.npz`` if the run saved them, else they are extracted again.
"""

import argparse
import logging
import sys
from pathlib import Path

import utils  # noqa: F401 - before torch: it configures OpenMP
from engine.device import select_device
from utils.run.cli import Parser, run_program
from utils.run.errors import UnreadableImage, UserError
from utils.run.extras import optional_packages
from utils.run.files import write_text

with optional_packages():
    from tools.report.contents import report_of
    from tools.report.page import render

from tools.report.run import open_runs


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.report", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a complete run")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="the page")
    figures = "also write each figure as PNG and PDF to this folder, as wide as a column or a page of a paper"
    parser.add_argument("--figures", type=Path, metavar="DIR", help=figures)
    data_root = "the folder of the data set (default: that of each run)"
    parser.add_argument("--data-root", type=Path, metavar="DIR", help=data_root)
    parser.add_argument("--gpu", default="auto", help="index of a GPU, cpu, or auto: the first GPU, else the CPU")
    query = "also show the rank lists and maps of these query images, as named in the data set (cam6/0012/0003.jpg)"
    parser.add_argument("--query", nargs="+", default=[], metavar="PATH", help=query)
    arguments = parser.parse_args(argv)
    if arguments.out.is_dir():
        raise UserError(f"--out: {arguments.out} is a folder")
    if not arguments.out.parent.is_dir():
        raise UserError(f"--out: there is no folder {arguments.out.parent}")
    if arguments.out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out: {arguments.out.name} should end in .html")
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    device = select_device(arguments.gpu)
    runs = open_runs(arguments.runs, arguments.data_root, device)
    try:
        report = report_of(runs, device, arguments.figures, arguments.query)
    except UnreadableImage as error:
        raise UserError(f"{error}; if the data set has moved, give --data-root") from None
    write_text(arguments.out, render(report))
    print(f"{arguments.out}: {len(runs)} run{'s' * (len(runs) > 1)}, {arguments.out.stat().st_size / 1e6:.1f} MB")
    if arguments.figures:
        print(f"{arguments.figures}: figures as PNG and PDF")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
