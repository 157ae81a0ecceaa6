"""Which places of a map an image fits: by its matches with images of the map, and the points that these see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.localization.absolute_pose import Pose, QueryCamera, agreeing, estimate_pose
from lightglue.sfm.localization.look_alikes import far_apart, is_as_likely
from lightglue.sfm.options import PoseOptions

__all__ = ["Places", "one_to_one", "points_of"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Masks = Mapping[str, NDArray[np.bool_]]  # of the matches with each image of the map


@dataclass(frozen=True, eq=False)
class _Matched:
    """An image of the map, and what it was matched in."""

    model: Any  # `pycolmap.Reconstruction`
    rows: Integers  # (K,) keypoints of the query
    ids: Integers  # (K,) points of the model
    scores: Floats  # (K,)


class Places:
    """What a query was matched with. Its models have worlds of their own; the first is the one that it is put into."""

    def __init__(self, keypoints: Floats, camera: QueryCamera, options: PoseOptions, model: Any) -> None:
        self.keypoints, self.camera, self.options, self.model = keypoints, camera, options, model
        self.found: dict[str, _Matched] = {}

    def add(self, name: str, model: Any, rows: Integers, ids: Integers, scores: Floats) -> None:
        """Matches with an image of a model: keypoints and points (K,), -1 where a keypoint of the map made none."""
        seen = ids >= 0
        self.found[name] = _Matched(model, rows[seen], ids[seen], scores[seen])

    def matched(self, model: Any, but: Masks | None = None) -> tuple[Integers, Integers]:
        """Keypoints and points of a model (K,), one to one, of all matches but those in a mask."""
        columns: list[tuple[NDArray[Any], ...]] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        for name, each in self.found.items():
            if each.model is model:
                kept = ~but[name] if but is not None else np.ones(len(each.rows), np.bool_)
                columns.append((each.rows[kept], each.ids[kept], each.scores[kept]))
        rows, ids, scores = (np.concatenate(column) for column in zip(*columns, strict=True))
        return one_to_one(rows, ids, scores)

    def agreeing(self, pose: Pose, model: Any) -> dict[str, NDArray[np.bool_]]:
        """Which matches with each image of a model agree with a pose in it."""
        return {
            name: agreeing(pose, self.keypoints[each.rows], points_of(model, each.ids), self.camera, self.options)
            for name, each in self.found.items()
            if each.model is model
        }

    def near(self, pose: Pose) -> list[str]:
        """The images of the first model, those first that most matches with agree with a pose."""
        agree = self.agreeing(pose, self.model)
        return sorted(agree, key=lambda name: -int(agree[name].sum()))

    def compare(self, pose: Pose) -> tuple[Pose, str | None]:
        """A pose in the first model, or a far likelier one at another place; and why it is none where it is a failure.

        What speaks for another place are the matches that do not agree with the pose.
        """
        own = self.agreeing(pose, self.model)
        count = self._count(own)
        models = {id(each.model): each.model for each in self.found.values()}
        for model in models.values():
            rival = self._rival(pose, model, own)
            if rival is None:
                continue
            fits = self.agreeing(rival, model)
            other, place = self._count(fits), max(fits, key=lambda name: int(fits[name].sum()))
            if is_as_likely(count, other) and is_as_likely(other, count):
                return pose, (
                    f"it fits two places equally well: {count} of its keypoints agree with a pose near "
                    f"{self.near(pose)[0]}, and {other} with one near {place}"
                )
            if other > count and model is not self.model:
                return pose, f"it is near {place}, which is in another model of the map, not in the largest"
            if other > count:
                return rival, None
        return pose, None

    def _rival(self, pose: Pose, model: Any, own: Masks) -> Pose | None:
        """The pose at another place that most of the other matches agree with; None where there is none."""
        rows, ids = self.matched(model, own if model is self.model else None)
        points = points_of(model, ids)
        camera = replace(self.camera, camera=pose.camera or self.camera.camera, knows_focal=True)
        found = estimate_pose(self.keypoints[rows], points, camera, self.options)
        if found.cam_from_world is None or pose.cam_from_world is None:
            return None
        is_elsewhere = model is not self.model or far_apart(
            found.cam_from_world, pose.cam_from_world, points[found.inliers]
        )
        return found if is_elsewhere else None

    def _count(self, agree: Masks) -> int:
        """How many keypoints have a match that agrees."""
        return len(np.unique(np.concatenate([self.found[name].rows[mask] for name, mask in agree.items()])))


def points_of(model: Any, ids: Integers) -> Floats:
    """(K, 3), where points of a model lie."""
    points = model.points3D
    return np.array([points[number].xyz for number in ids.tolist()], np.float64).reshape(-1, 3)


def one_to_one(rows: Integers, ids: Integers, scores: Floats) -> tuple[Integers, Integers]:
    """Each keypoint with the point of the map that most images say it is, by the sum of the scores of their matches.

    A point, too, is given to one keypoint only. (M,) keypoints and points may come many times; returns (K,) of each.
    """
    pairs, which = np.unique(np.stack([rows, ids], axis=1), axis=0, return_inverse=True)
    votes = np.bincount(which.reshape(-1), weights=scores, minlength=len(pairs))
    pairs = pairs[np.argsort(-votes, kind="stable")]
    for column in (0, 1):
        pairs = pairs[np.sort(np.unique(pairs[:, column], return_index=True)[1])]
    pairs = pairs[np.argsort(pairs[:, 0])]
    return pairs[:, 0], pairs[:, 1]
