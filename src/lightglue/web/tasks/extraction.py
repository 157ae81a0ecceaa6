"""The features of one image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from lightglue.errors import ImageError
from lightglue.extractors.from_file import extract_file
from lightglue.pairs.asked import PairRequest
from lightglue.pairs.viewed import flat
from lightglue.support.caches import BoundedCache
from lightglue.web.failures import image_fault
from lightglue.web.tasks.report import Report

__all__ = ["extract"]

_EXTRACTORS: BoundedCache[str, Any] = BoundedCache(2)


def extract(given: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """What `lightglue extract` gives. given: image {"id", "name", "data"}; asked; options; mask, of a file, or None."""
    begin, image = perf_counter(), given["image"]
    request = PairRequest.owner().build(given["asked"])
    with report.watching():
        extractor = _EXTRACTORS.get(str(request.models), request.models.load_extractor)
        try:
            found = extract_file(extractor, image["data"], request.views, given["mask"], image["name"])
        except ImageError as error:
            raise image_fault(error, image["name"], "image") from error
    width, height = (round(edge) for edge in found.features["image_size"].tolist())
    content: dict[str, Any] = {
        "image": {"id": image["id"], "name": image["name"], "width": width, "height": height},
        "features": request.models.features,
        "options": given["options"],
        "num_keypoints": len(found.features["keypoints"]),
        "keypoints": flat(found.features["keypoints"]),
        "keypoint_scores": flat(found.features["keypoint_scores"]) if "keypoint_scores" in found.features else None,
        "note": found.no_keypoints,
        "seconds": perf_counter() - begin,
    }
    return {"json": json.dumps(content, separators=(",", ":")).encode(), "npz": found.npz(request.models.features)}
