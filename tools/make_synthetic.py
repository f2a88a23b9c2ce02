"""Writes a synthetic data set of made-up pedestrians: python -m tools.make_synthetic --layout sysu --root DIR"""

import argparse
import sys
from typing import NoReturn

from data.synthetic import LAYOUTS, make_synthetic
from data.synthetic.layout import DEFAULT_IDENTITIES, DEFAULT_IMAGES, DEFAULT_SIZE

USER_ERROR, INTERRUPTED = 2, 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"make_synthetic: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = _Parser(prog="python -m tools.make_synthetic", description=__doc__.split(":")[0] + ".")
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
    """Runs the command; returns its exit code: 0, 2 for a user's error, 130 when interrupted."""
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
        print(f"make_synthetic: {f'{error.filename}: {error.strerror}' if system else error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"make_synthetic: interrupted; nothing is left of it in {options.root}", file=sys.stderr)
        return INTERRUPTED
    print(f"{images} images in {options.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
