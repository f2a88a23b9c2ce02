"""Search one's own images: ``python -m tools.search --checkpoint BEST.pth --gallery DIR --query IMAGE [IMAGE ...]``.

Ranks the images of a folder by the cosine similarity of their embeddings to those of the query images. The embeddings
of the folder are kept and updated when images change. ``--serve`` opens a page on 127.0.0.1 to search with.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.device import select_device
from tools.rank_list import FORMATS, save_picture
from tools.search import nearest
from tools.search.embedding import Embedder
from tools.search.index import cache_folder, locked, open_index
from tools.search.searcher import Query, Result, Searcher, open_query
from utils.rank_lists import Shown, draw
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError, printable
from utils.run.files import write_json

SHOWN_QUERIES, SHOWN_RESULTS = 100, 20  # in the picture at most


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.search", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE.pth")
    parser.add_argument("--cfg", type=Path, metavar="FILE", help="its configuration (default: config.yml beside it)")
    parser.add_argument("--gallery", type=Path, required=True, metavar="DIR", help="folder of the images to search")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--query", type=Path, nargs="+", metavar="IMAGE", help="images to search for")
    what.add_argument("--serve", action="store_true", help="open a page on 127.0.0.1 to search with")
    modality = parser.add_mutually_exclusive_group()
    infrared = "the queries are infrared images (default: guessed from the colours of each)"
    modality.add_argument("--infrared", action="store_true", default=None, help=infrared)
    visible = "the queries are visible images"
    modality.add_argument("--visible", action="store_false", dest="infrared", default=None, help=visible)
    parser.add_argument("--results", type=int, default=10, metavar="N", help="images per query (default 10)")
    parser.add_argument("--mser", action="store_true", help="re-rank the first thousand images of each query with MSER")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the rank lists to this file")
    picture = f"draw the rank lists, .jpg or .png (at most {SHOWN_RESULTS} images of {SHOWN_QUERIES} queries)"
    parser.add_argument("--out", type=Path, metavar="PICTURE", help=picture)
    kind = f"search method (default auto: exact below {nearest.EXACT_BELOW:,} images, else ivf)"
    parser.add_argument("--index", default="auto", choices=("auto", *nearest.KINDS), help=kind)
    cache = "folder that keeps embeddings (default: mcja/search in $XDG_CACHE_HOME or ~/.cache)"
    parser.add_argument("--cache", type=Path, metavar="DIR", help=cache)
    parser.add_argument("--gpu", default="auto", help="index of a GPU, cpu, or auto: the first GPU, else the CPU")
    parser.add_argument("--port", type=int, default=8000, help="of the page (default 8000; 0: any free one)")
    arguments = parser.parse_args(argv)
    check(arguments)
    return arguments


def check(arguments: argparse.Namespace) -> None:
    """Raise ``UserError`` for values that cannot be used, before the network is loaded."""
    if arguments.results < 1:
        raise UserError(f"--results: {arguments.results} should be at least 1")
    if not 0 <= arguments.port < 2**16:
        raise UserError(f"--port: {arguments.port} should be between 0 and {2**16 - 1}")
    for name in ("json", "out"):
        path = getattr(arguments, name)
        if path and arguments.serve:
            raise UserError(f"--{name}: is for --query, not for --serve")
        if path and not path.parent.is_dir():
            raise UserError(f"--{name}: there is no folder {path.parent}")
    if arguments.out and arguments.out.suffix.lower() not in FORMATS:
        raise UserError(f"--out: {arguments.out.name} should end in .jpg or .png")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    if arguments.serve:
        from tools.search import page  # needs packages that searching does not

        listening = page.listen(arguments.port)
    queries = [open_query(path, arguments.infrared) for path in arguments.query or ()]
    searcher = open_searcher(arguments)
    if arguments.serve:
        page.serve(searcher, listening, infrared=arguments.infrared, results=arguments.results)
        return 0
    ranked = searcher(queries, arguments.results)
    for query, results in zip(queries, ranked, strict=True):
        print(as_text(query, results))
    if arguments.json:
        write_json(arguments.json, as_json(queries, ranked))
    if arguments.out:
        write_picture(arguments.out, queries, ranked)
    return 0


def open_searcher(arguments: argparse.Namespace) -> Searcher:
    """The network, the index of the gallery, updated, and the search method."""
    embed = Embedder(arguments.checkpoint, arguments.cfg, select_device(arguments.gpu))
    mser = embed.mser if arguments.mser else None
    cache = cache_folder(arguments.cache, arguments.gallery, embed.digest)
    index = open_index(arguments.gallery, embed, cache, mser.spectra if mser else ("original",))
    kind = nearest.kind_for(len(index.images)) if arguments.index == "auto" else arguments.index
    approximate = None
    if kind != "exact":
        with locked(cache):
            approximate = nearest.open_nearest(kind, index.images.spectra["original"], cache, index.stamp)
    infrared = int(index.images.infrared.sum())
    print(
        f"gallery: {infrared:,} infrared and {len(index.images) - infrared:,} visible images (guessed from their"
        f" colours); {kind} search{', re-ranked with MSER' if mser else ''}",
        flush=True,
    )
    return Searcher(arguments.gallery, index, embed, approximate, mser)


def as_text(query: Query, results: Sequence[Result]) -> str:
    lines = [f"\n{query}", "rank   score  path"]
    lines += [f"{result.rank:>4}  {result.score:6.3f}  {printable(str(result.path))}" for result in results]
    return "\n".join(lines)


def as_json(queries: Sequence[Query], ranked: Sequence[Sequence[Result]]) -> dict[str, object]:
    return {
        "queries": [
            {
                "query": str(query.path),
                "results": [{"rank": r.rank, "path": str(r.path), "score": r.score} for r in results],
            }
            for query, results in zip(queries, ranked, strict=True)
        ]
    }


def write_picture(out: Path, queries: Sequence[Query], ranked: Sequence[Sequence[Result]]) -> None:
    """Draw one row per query: the query, and its best images with their scores."""
    rows = [
        [Shown(query.path, "query"), *(Shown(r.path, f"{r.rank}: {r.score:.3f}") for r in results[:SHOWN_RESULTS])]
        for query, results in zip(queries[:SHOWN_QUERIES], ranked, strict=False)
    ]
    save_picture(draw(rows), out)
    print(f"\n{out}: {len(rows)} of {len(queries)} queries")


if __name__ == "__main__":
    sys.exit(run_program(main))
