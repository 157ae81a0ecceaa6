"""Pairs by what a model's images see in common."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["covisible"]


def covisible(tracks: Iterable[Sequence[int]], k: int, min_points: int = 1) -> NDArray[np.int64]:
    """Each image with the at most `k` that share the most points with it: (P, 2).

    tracks: for each 3D point, the indices of the images that see it. Of as good ones the lower index is taken.
    """
    tracks = [sorted(set(track)) for track in tracks]
    points = defaultdict(list)
    for point, track in enumerate(tracks):
        for image in track:
            points[image].append(point)
    pairs = []
    for image, seen in sorted(points.items()):  # one image's counts at a time: never a matrix
        shared = Counter(other for point in seen for other in tracks[point])
        del shared[image]
        best = sorted((-count, other) for other, count in shared.items() if count >= min_points)
        pairs += [(image, other) for _, other in best[:k]]
    return np.array(pairs, np.int64).reshape(-1, 2)
