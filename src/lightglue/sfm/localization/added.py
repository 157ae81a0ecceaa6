"""Images that were just registered in a map, and fit another of its places as well."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lightglue.geometry.cameras import as_camera
from lightglue.geometry.intrinsics import from_colmap
from lightglue.sfm.colmap.models import cam_from_world, point_ids, registered
from lightglue.sfm.localization.absolute_pose import Pose, QueryCamera
from lightglue.sfm.localization.look_alikes import read_look_alikes
from lightglue.sfm.localization.places import Places
from lightglue.sfm.options import PoseOptions
from lightglue.stores import MatchStore

__all__ = ["unsure_images"]


def unsure_images(
    model: Any, names: Collection[str], matches: MatchStore, database: Path, others: Iterable[Any] = ()
) -> dict[str, str]:
    """Of images of a model, those that fit another place of the map equally well or better, and how.

    Only those with a pair that was dropped are looked at: nothing speaks against the others. others: models of the map
    that are not joined with this one, read where they are needed.
    """
    look_alikes = read_look_alikes(database)
    names = [name for name in names if look_alikes.get(name)]
    if not names:
        return {}
    posed = {str(image.name): (each, image) for each in (*others, model) for image in registered(each)}
    found = {}
    for name in names:
        if name in posed and posed[name][0] is model:
            reason = _reason(model, name, posed, matches)
            if reason is not None:
                found[name] = reason
    return found


def _reason(model: Any, name: str, posed: dict[str, tuple[Any, Any]], matches: MatchStore) -> str | None:
    image = posed[name][1]
    camera = model.camera(image.camera_id)
    known = QueryCamera(as_camera(camera), (int(camera.width), int(camera.height)), knows_focal=True)
    keypoints = from_colmap(np.array([point.xy for point in image.points2D], np.float64).reshape(-1, 2))
    places = Places(keypoints, known, PoseOptions(), model)
    for pair in matches.read((name, other) for other in posed if other != name):
        of, other = posed[pair.name1]
        ids = point_ids(other)[pair.matches[:, 1]]
        places.add(pair.name1, of, pair.matches[:, 0].astype(np.int64), ids, pair.scores.astype(np.float64))
    if not places.found:
        return None
    pose = Pose(cam_from_world(image), known.camera, np.ones(0, np.bool_), None)
    likelier, failure = places.compare(pose)
    if likelier is not pose:
        return f"it was put near {places.near(pose)[0]} and fits better near {places.near(likelier)[0]}"
    return failure
