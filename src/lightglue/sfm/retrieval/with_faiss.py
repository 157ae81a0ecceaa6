"""The most alike of very many descriptors, nearly exactly, with faiss: a graph (HNSW) instead of all comparisons.

Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using hierarchical navigable small world
graphs, PAMI 2018. What the graph proposes is compared exactly, so that scores are those of `search`.
With several threads the graph, and with it what is found, is not the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import LightGlueError

try:
    import faiss
except ImportError as error:
    raise LightGlueError(
        "faiss is not installed; run `pip install lightglue[faiss]`, or search exactly (search='exact')."
    ) from error

__all__ = ["most_alike"]

_LINKS, _BUILDING, _SEARCHING = 32, 80, 128  # of a node; candidates while the graph is built, and searched at least
_BLOCK = 1024  # descriptors at once in single precision


def most_alike(
    queries: NDArray[np.int16], database: NDArray[np.int16], k: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """As `search.most_alike`: indices (Q, k) and scores (Q, k) for blocks of queries; -1 for no more."""
    rows = np.flatnonzero(np.abs(database).max(axis=1, initial=0))
    graph = faiss.IndexHNSWFlat(database.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = _BUILDING
    graph.hnsw.efSearch = max(_SEARCHING, 2 * k)
    for start in range(0, len(rows), _BLOCK):
        graph.add(database[rows[start : start + _BLOCK]].astype(np.float32))
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        _, proposed = graph.search(block.astype(np.float32), k)
        yield _compared(block, database, np.where(proposed >= 0, rows[proposed], -1) if len(rows) else proposed)


def _compared(
    queries: NDArray[np.int16], database: NDArray[np.int16], proposed: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The proposed indices, (Q, k), with their exact scores: best first, equal ones in the order of the indices."""
    scores = np.empty(proposed.shape, np.int64)
    for row, (query, others) in enumerate(zip(queries, proposed, strict=True)):
        scores[row] = (database[others].astype(np.float32) @ query.astype(np.float32)).astype(np.int64)
    proposed = np.where(np.abs(queries).max(axis=1, initial=0)[:, None] > 0, proposed, -1)
    order = np.lexsort((proposed, -scores, proposed < 0))
    proposed, scores = (np.take_along_axis(array, order, axis=1) for array in (proposed, scores))
    return proposed, np.where(proposed >= 0, scores, 0)
