"""Whether the cameras moved between the images of a database, or only turned: then there is no depth to be found.

A wrong focal length makes a rotation look like a move along a plane, so where none is known several are tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.rotation import explained_by_rotation
from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.colmap.models import registered
from lightglue.sfm.colmap.pair_ids import configuration_name, pair_of
from lightglue.sfm.colmap.state import DatabaseState
from lightglue.sfm.colmap.with_pycolmap import quiet
from lightglue.support.sqlite import connected

__all__ = ["Motion", "motion_of", "only_turned"]

Item = TypeVar("Item")

_PAIRS = 60  # that are looked at
_PAIRS_FOR_FOCAL = 8
_MATCHES = 150  # of each
_FEWEST = 15  # matches of a pair that is looked at: as many as a geometry of two views takes
_MAX_ERROR = 2 / 1024  # of the longer edge: twice the error of a keypoint; as much again where the lens is not known
_SHARE = 0.85  # of a pair's matches, from which on a rotation explains the pair
_NEARLY_ALL = 0.9  # of the pairs
_FOCALS = 2.0 ** (np.arange(-8, 9) / 8)  # times the guess
_FLAT = ("planar", "panoramic", "planar_or_panoramic")


@dataclass(frozen=True)
class Motion:
    """What the verified pairs of a database show."""

    pairs: int
    flat: int  # of them, those whose matches follow a homography: COLMAP's planar and panoramic ones
    most_inliers: int  # of a pair
    turned: float  # the share of the pairs that a rotation alone explains

    @property
    def only_turned(self) -> bool:
        """Whether all images were taken from one place, as far as their matches tell."""
        return self.turned >= _NEARLY_ALL

    @property
    def only_flat(self) -> bool:
        """Whether all images were taken from one place or show a plane."""
        return self.pairs > 0 and self.flat >= _NEARLY_ALL * self.pairs


def motion_of(path: Path, state: DatabaseState) -> Motion:
    """Look at the verified pairs of a database. Raises StoreError where it cannot be read."""
    with connected(path) as connection:
        rows = connection.execute(
            "SELECT pair_id, config, rows FROM two_view_geometries WHERE rows > 0 ORDER BY pair_id"
        ).fetchall()
    flat = sum(configuration_name(kind) in _FLAT for _, kind, _ in rows)
    with Database(path) as database, quiet():
        views = _Views(database, state, database.cameras(), {})
        some = _some(_without_panoramas([pair_of(row[0]) for row in rows], state), _PAIRS)
        pairs = [views.pair(*pair, database.geometry(*pair).inlier_matches) for pair in some]
    return Motion(len(rows), flat, max((row[2] for row in rows), default=0), _turned(pairs))


def only_turned(model: Any, path: Path, state: DatabaseState) -> bool:
    """Whether a rotation alone explains the images of a model of this database: its depths are made up then.

    Looks at any two images that see the same points, so that a slow video, whose neighbours hardly differ, is none.
    """
    shared: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for number in _some(sorted(model.point3D_ids()), 20 * _MATCHES):
        seen = sorted({each.image_id: each.point2D_idx for each in model.point3D(number).track.elements}.items())
        for (first, row0), (second, row1) in combinations(seen[:: -(-len(seen) // 12)], 2):
            shared[first, second].append((row0, row1))
    images = {image.image_id for image in registered(model)}
    chosen = sorted(pair for pair, rows in shared.items() if len(rows) >= _FEWEST and images.issuperset(pair))
    chosen = _without_panoramas(chosen, state)
    with Database(path) as database, quiet():
        views = _Views(database, state, database.cameras(), {})
        return _turned([views.pair(*pair, shared[pair]) for pair in _some(chosen, _PAIRS)]) >= _NEARLY_ALL


def _without_panoramas(pairs: list[tuple[int, int]], state: DatabaseState) -> list[tuple[int, int]]:
    """Those of some pairs, by the numbers of their images, that have an image plane each."""
    return [pair for pair in pairs if not any(state.cameras[state.camera_of[each - 1]].is_panorama for each in pair)]


def _some(items: Sequence[Item], count: int) -> Sequence[Item]:
    """At the most `count` of them, evenly."""
    return items[:: -(-len(items) // count) or 1]


@dataclass(frozen=True)
class _Pair:
    """Matches of two images."""

    points: tuple[NDArray[np.float64], NDArray[np.float64]]  # (N, 2) px from the principal point, without distortion
    focals: tuple[float, float]  # px
    known: tuple[bool, bool]
    max_error: float  # px

    def shares(self, scales: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the matches, that a rotation explains. scales: (F,) times the focal lengths that are not known."""
        focals = np.where(self.known, self.focals, np.outer(scales, self.focals))
        found: NDArray[np.float64] = explained_by_rotation(*self.points, focals, self.max_error).mean(axis=1)
        return found


def _turned(pairs: Sequence[_Pair]) -> float:
    """The share of the pairs that a rotation explains, with the focal length with which it explains most."""
    if not pairs:
        return 0.0
    some, best = _some(pairs, _PAIRS_FOR_FOCAL), 1.0
    if not all(all(pair.known) for pair in pairs):
        for scales in (_FOCALS, 2.0 ** (np.arange(-3, 4) / 32)):
            best *= float(scales[np.argmax(sum(pair.shares(best * scales) for pair in some))])
    return float(np.mean([pair.shares(np.array([best]))[0] >= _SHARE for pair in pairs]))


@dataclass(frozen=True)
class _Views:
    """Where the images of a database have their keypoints."""

    database: Database
    state: DatabaseState
    cameras: dict[int, Any]  # of each image
    kept: dict[int, NDArray[np.float64]]  # their keypoints, as rays

    def pair(self, first: int, second: int, matches: Any) -> _Pair:
        """The matches (K, 2), rows of their keypoints, of two images by their numbers."""
        rows = _some(np.asarray(matches, np.int64).reshape(-1, 2).tolist(), _MATCHES)
        numbers, columns = (first, second), np.array(rows, np.int64).reshape(-1, 2).T
        focals = [float(self.cameras[number].mean_focal_length()) for number in numbers]
        points = [
            self._rays(number)[column] * focal for number, column, focal in zip(numbers, columns, focals, strict=True)
        ]
        known = [self.state.cameras[self.state.camera_of[number - 1]].is_fixed for number in numbers]
        edge = max(max(self.cameras[number].width, self.cameras[number].height) for number in numbers)
        seen = np.isfinite(points[0]).all(axis=1) & np.isfinite(points[1]).all(axis=1)
        max_error = _MAX_ERROR * edge * (1 if all(known) else 2)
        return _Pair((points[0][seen], points[1][seen]), (focals[0], focals[1]), (known[0], known[1]), max_error)

    def _rays(self, number: int) -> NDArray[np.float64]:
        """(N, 2): the keypoints of an image at a depth of 1, without distortion."""
        if number not in self.kept:
            found = self.cameras[number].cam_from_img(self.database.keypoints(number))
            if isinstance(found, list):  # some versions give None for what no ray comes from
                found = [(np.nan, np.nan) if each is None else each for each in found]
            self.kept[number] = np.asarray(found, np.float64).reshape(-1, 2)
        return self.kept[number]
