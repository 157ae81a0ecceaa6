"""One pair as a COLMAP database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from lightglue.geometry.exif_focal import focal_from_exif
from lightglue.pairs.record import MatchedPair
from lightglue.web.tasks.kept import Kept
from lightglue.web.tasks.pair import again
from lightglue.web.tasks.report import Report
from lightglue.web.tasks.sets import database

__all__ = ["pair_database"]


def pair_database(given: Mapping[str, Any], report: Report) -> bytes:
    """As the database of a set of two images. given: kept, images, asked, as for another file of the pair."""
    kept, images = Kept.unpack(given["kept"]), given["images"]
    with report.watching():
        _, pair, _ = again(kept, images, given["asked"])
    keypoints, rows = _keypoints(pair)
    names = [str(image["name"]) for image in images]
    if names[0] == names[1]:  # COLMAP knows an image by its name
        names = [f"{'AB'[i]}/{name}" for i, name in enumerate(names)]
    described = [
        {
            "number": i,
            "name": names[i],
            "size": kept.sizes[i],
            "keypoints": keypoints[i].tobytes(),
            "focal": focal_from_exif(image["data"], kept.sizes[i]).px,
        }
        for i, image in enumerate(images)
    ]
    return database({"images": described, "pairs": [(0, 1, rows.astype(np.uint16).tobytes())]}, report)


def _keypoints(pair: MatchedPair) -> tuple[list[Any], Any]:
    """Keypoints (N, 2) float32 of both images, and the matches (K, 2): where these are refined, their ends alone."""
    whole = [_array(pair.keypoints0), _array(pair.keypoints1)]
    ends, matches = [_array(pair.points0), _array(pair.points1)], _array(pair.matches)
    if all(
        np.array_equal(points, all_[matches[:, i]]) for i, (points, all_) in enumerate(zip(ends, whole, strict=True))
    ):
        return whole, matches
    return ends, np.repeat(np.arange(len(matches))[:, None], 2, axis=1)


def _array(values: Tensor) -> Any:
    return values.detach().cpu().numpy()
