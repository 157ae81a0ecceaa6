"""A photograph's place in a map, which is kept in memory for the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from lightglue.errors import LightGlueError
from lightglue.geometry.cameras import Camera
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.localization.localizer import Localization, Localizer
from lightglue.support.printable import printable
from lightglue.web.failures import without_path
from lightglue.web.open_map import image_plane
from lightglue.web.tasks.report import Report

__all__ = ["localize"]


class _Warm:
    """The map that was used last."""

    key: Any = None
    localizer: Localizer | None = None


def localize(given: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """What `Localizer.localize` says of a photograph, its points by COLMAP's numbers (`point_ids`).

    given: map, its name; folder and version of it; data, the photograph's file; size, its (width, height) px, upright;
    options; device, "auto" for the map's own.
    """
    begin = perf_counter()
    try:
        with report.watching():
            localizer = _opened(given, report)
            found = localizer.localize(given["data"])
    except LightGlueError as error:
        raise without_path(error, given["folder"], given["map"]) from error
    return _as_json(found, given["size"], localizer.remarks, perf_counter() - begin)


def _opened(given: Mapping[str, Any], report: Report) -> Localizer:
    key = given["folder"], given["version"], given["options"], given["device"]
    if _Warm.localizer is None or _Warm.key != key:
        report.progress("reading")
        _Warm.key = _Warm.localizer = None  # before another takes up memory
        folder = Path(given["folder"])
        models = MapFolder(folder).read().models
        if given["device"] != "auto":
            models = replace(models, device=given["device"])
        _Warm.localizer, _Warm.key = Localizer.open(folder, models, given["options"]), key
    return _Warm.localizer


def _as_json(found: Localization, size: tuple[int, int], remarks: tuple[str, ...], seconds: float) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "success": found.success,
        "failure": None if found.failure is None else printable(found.failure),
        "num_matches": found.num_matches,
        "num_inliers": found.num_inliers,
        "size": list(size),
        "pixels": found.points.round(3).ravel().tolist(),
        "point_ids": found.point_ids.tolist(),
        "images": list(found.images),
        "fault": found.fault,
        "remarks": [printable(remark) for remark in remarks],
        "steps": {name: round(value, 3) for name, value in found.seconds.items()},
        "seconds": round(seconds, 3),
    }
    if found.success and found.camera is not None:
        answer |= {
            "cam_from_world": np.column_stack([found.R, found.t]).ravel().tolist(),
            "centre": found.centre.tolist(),
            "camera": _camera(found.camera, size),
        }
    return answer


def _camera(camera: Camera, size: tuple[int, int]) -> dict[str, Any]:
    return {"K": camera.K.ravel().tolist(), "focal": camera.focal, "plane": image_plane(camera, size)}
