"""Writes a synthetic data set of made-up pedestrians: python -m tools.make_synthetic --layout sysu --root DIR"""

import sys

from tools.synthetic import LAYOUTS, make_synthetic
from tools.synthetic.layout import DEFAULT_IDENTITIES, DEFAULT_IMAGES, DEFAULT_SIZE
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError


def build_parser() -> Parser:
    """The command's arguments."""
    parser = Parser(prog="python -m tools.make_synthetic", description=__doc__.split(":")[0] + ".")
    parser.add_argument("--layout", required=True, choices=LAYOUTS, help="the real data set whose layout to follow")
    parser.add_argument("--root", required=True, metavar="DIR", help="folder to write; must be empty or not exist")
    parser.add_argument("--identities", type=int, metavar="N", help=f"people (default {DEFAULT_IDENTITIES})")
    parser.add_argument(
        "--images-per-camera",
        type=int,
        metavar="N",
        help=f"images of an identity from each camera that sees it (default {DEFAULT_IMAGES})",
    )
    parser.add_argument(
        "--test-identities", type=int, metavar="N", help="people in the test list of sysu (default a quarter of them)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="everything follows from it (default 0)")
    parser.add_argument(
        "--permutation", metavar="FILE.mat", help="a rand_perm_cam.mat, whose identities and image counts to reproduce"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=DEFAULT_SIZE,
        metavar=("H", "W"),
        help=f"image size in pixels (default {DEFAULT_SIZE[0]} {DEFAULT_SIZE[1]})",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that render (default 1)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        images = make_synthetic(
            options.layout,
            options.root,
            identities=options.identities,
            images_per_camera=options.images_per_camera,
            test_identities=options.test_identities,
            seed=options.seed,
            size=tuple(options.size),
            permutation=options.permutation,
            workers=options.workers,
            progress=sys.stderr.isatty(),
        )
    except (ValueError, OSError) as error:
        # the system's own errors carry their file apart from their text
        system = isinstance(error, OSError) and error.strerror
        raise UserError(f"{error.filename}: {error.strerror}" if system else str(error)) from None
    print(f"{images} images in {options.root}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
