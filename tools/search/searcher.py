"""Rank a gallery for query images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.folder import FolderImages, looks_infrared
from tools.search import nearest
from tools.search.embedding import Embedder
from tools.search.index import FolderIndex
from utils.rerank import MSER, mser_distance
from utils.run.errors import UserError, printable

RERANKED = 1000  # nearest images of a query that MSER re-ranks


class Query(NamedTuple):
    """A query image and whether it is infrared."""

    path: Path
    infrared: bool
    guessed: bool  # from its colours, not given

    def __str__(self) -> str:
        modality = "infrared" if self.infrared else "visible"
        return f"{printable(str(self.path))} ({modality}{', guessed from its colours' if self.guessed else ''})"


class Result(NamedTuple):
    """An image of a rank list."""

    rank: int  # 1 is the best
    position: int  # in the index
    path: Path
    score: float  # cosine similarity of the embeddings, -1 to 1


def open_query(path: Path, infrared: bool | None) -> Query:
    """Read a query image, and guess its modality from its colours if ``infrared`` is None.

    Raises:
        UserError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: a query should be an image file")
    looks = looks_infrared(path)  # also with a given modality, because it reads the image
    return Query(path, looks if infrared is None else infrared, infrared is None)


class Searcher:
    """Ranks the images of a folder for query images.

    Args:
        embed: the network that made the index.
        approximate: an approximate index of the images (:mod:`tools.search.nearest`); None for exact search.
        mser: re-rank the first thousand images with MSER; None ranks by cosine similarity.
    """

    def __init__(
        self, gallery: Path, index: FolderIndex, embed: Embedder, approximate: object | None, mser: MSER | None
    ):
        self.gallery, self.images, self.embed = gallery, index.images, embed
        self.approximate, self.mser = approximate, mser

    def __call__(self, queries: Sequence[Query], results: int) -> list[list[Result]]:
        """The best ``results`` images for each query, best first."""
        paths, infrared = [str(query.path) for query in queries], np.array([query.infrared for query in queries])
        spectra = self.mser.spectra if self.mser else ("original",)
        embeddings = self.embed(FolderImages(Path(), paths, infrared), spectra)
        count = max(results, RERANKED) if self.mser else results
        found = nearest.search(self.images.spectra["original"], embeddings["original"], count, self.approximate)
        ranked = []
        for row, (scores, positions) in enumerate(found):
            if self.mser:
                query = {name: values[row : row + 1] for name, values in embeddings.items()}
                order = self.reranked(query, positions[:RERANKED], infrared=bool(infrared[row]))
                scores[: len(order)], positions[: len(order)] = scores[order], positions[order]
            best = zip(positions[:results].tolist(), scores[:results].tolist(), strict=True)
            ranked.append(
                [
                    Result(rank, position, self.gallery / self.images.paths[position], score)
                    for rank, (position, score) in enumerate(best, start=1)
                ]
            )
        return ranked

    def reranked(self, query: dict[str, np.ndarray], positions: np.ndarray, *, infrared: bool) -> np.ndarray:
        """The order of the images at ``positions`` by MSER's distance to one query.

        MSER takes neighbours among the queries (SYSU-MM01) or among all images (RegDB). A search has one query, so
        they are taken among all images: the query and those at ``positions``. Queries do not influence each other.

        Args:
            query: spectrum -> (1, D).
            infrared: whether the query is. It decides which side has several spectra: MSER takes them on one side only.
        """
        assert self.mser
        one, several = ("original",), self.mser.spectra
        query_spectra, gallery_spectra = (one, several) if infrared else (several, one)
        distance = mser_distance(
            np.stack([query[name] for name in query_spectra]),
            np.stack([self.images.spectra[name][positions] for name in gallery_spectra]),
            k1=self.mser.k1,
            k2=self.mser.k2,
            lam=self.mser.lam,
            neighbours="all",
        )
        return np.argsort(distance[0], kind="stable")
