"""All pairs of a set of images: each image is extracted once, and its features stay here for its other pairs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from lightglue.extractors.no_keypoints import likely_cause
from lightglue.geometry.exif_focal import focal_from_exif
from lightglue.images import size_of
from lightglue.images.focal import StatedFocal
from lightglue.models.loaded import load_models
from lightglue.pairs.asked import PairRequest
from lightglue.pairs.files import MatchedFiles
from lightglue.pairs.later import can_be_filtered
from lightglue.pairs.options import PairOptions
from lightglue.pairs.oriented import OrientedImage, pair_of, pixels_of
from lightglue.sfm.colmap.cameras import assign_cameras
from lightglue.sfm.colmap.database_file import Database
from lightglue.timing import record, span
from lightglue.types import Features
from lightglue.web.tasks.pair import as_asked, numbers_of
from lightglue.web.tasks.pair_json import pair_json
from lightglue.web.tasks.report import Report

__all__ = ["database", "extract", "forget", "pair"]

_SHARE = 4  # features may take up this part of the memory that the process may


@dataclass(frozen=True, eq=False)
class _Held:
    """The features of an image of a set."""

    image: OrientedImage  # without its pixels
    features: Features
    warning: str | None  # where there are none

    @property
    def bytes(self) -> int:
        return sum(value.nbytes for value in self.features.values() if isinstance(value, Tensor))


class _Features:
    """The features of images, by set and number; those that were used least recently go first."""

    held: ClassVar[OrderedDict[tuple[str, int], _Held]] = OrderedDict()

    @classmethod
    def put(cls, key: tuple[str, int], found: _Held, most: int) -> None:
        cls.held[key] = found
        while sum(each.bytes for each in cls.held.values()) > most and len(cls.held) > 2:
            cls.held.popitem(last=False)

    @classmethod
    def get(cls, key: tuple[str, int]) -> _Held | None:
        if key in cls.held:
            cls.held.move_to_end(key)
        return cls.held.get(key)


def extract(given: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Extract the features of an image and keep them. given: set, number, name, data, asked, memory (bytes).

    Its keypoints (N, 2) float32 px as bytes, its (width, height), and the focal length that its file states.
    """
    request, data = PairRequest.of(given["asked"]), given["data"]
    with report.watching():
        with span("load"):
            loaded = load_models(_models(request))
        pixels = pixels_of(data, request.views.tile, stretch=request.views.stretch)
        keywords = request.views.keywords()
        features = OrientedImage(pixels, None).extract(loaded.extractor, keywords)
    keypoints = features["keypoints"][0].detach().cpu().numpy().astype(np.float32)
    warning = None
    if not len(keypoints):
        seen = pixels if request.views.stretch else data
        warning = f"it has no keypoints: {likely_cause(seen, None, loaded.extractor, keywords.get('resize'))}"
    size = size_of(pixels)
    held = _Held(OrientedImage(None, None), features, warning)
    _Features.put((given["set"], given["number"]), held, given["memory"] // _SHARE)
    return {
        "keypoints": keypoints.tobytes(),
        "size": size,
        "focal": focal_from_exif(data, size).px,
        "warning": warning,
    }


def forget(given: Mapping[str, Any], report: Report) -> None:
    """Drop the features of a set that is no longer kept. given: set."""
    for key in [key for key in _Features.held if key[0] == given["set"]]:
        del _Features.held[key]


def pair(given: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Match two images of a set. given: set, numbers of both, names, asked.

    `missing`: the numbers of those whose features are not here; else the numbers of the pair, and `rows`, its matches
    (K, 2) as uint16. With `images` (id, name, data of both) and `options` in what is given also what `match` gives.
    """
    keys = [(given["set"], number) for number in given["numbers"]]
    held = [_Features.get(key) for key in keys]
    if missing := [key[1] for key, found in zip(keys, held, strict=True) if found is None]:
        return {"missing": missing}
    request = PairRequest.of(given["asked"])
    images = given.get("images")
    with report.watching():
        whole = _matched([each for each in held if each is not None], given["names"], request)
        kept, found = as_asked(whole, request, [] if images is None else [image["data"] for image in images])
    answer = {**numbers_of(found), "rows": found.pair.matches.cpu().numpy().astype(np.uint16).tobytes()}
    if images is not None:
        answer |= {"json": pair_json(kept, found, images, given["options"]), "kept": kept.pack()}
    return answer


def _models(request: PairRequest) -> Any:
    """With all matches, whatever their score, where the others can be left out later."""
    if not can_be_filtered(request):
        return request.chosen
    return replace(request.models, thresholds={**request.thresholds.given(), "filter_threshold": 0.0})


def _matched(held: list[_Held], names: tuple[str, str], request: PairRequest) -> MatchedFiles:
    """As `match_files` does it, from features."""
    with record() as timeline:
        with span("load"):
            loaded = load_models(_models(request))
        with span("matching"):
            result = loaded.matcher({f"image{i}": each.features for i, each in enumerate(held)})
        found = pair_of([each.features for each in held], [each.image for each in held], result, False)
    warnings = tuple(
        f"{name} has no keypoints: {each.warning.partition(': ')[2]}"
        for name, each in zip(names, held, strict=True)
        if each.warning is not None
    )
    return MatchedFiles(found, names, loaded, timeline, PairOptions(), None, warnings)


def database(given: Mapping[str, Any], report: Report) -> bytes:
    """A COLMAP database. given: images, each with name, size, keypoints and focal; pairs, (i, j, rows).

    Images of one size and focal length share a camera, as `lightglue sfm` has it; image numbers follow the names, from
    1. It is written in a folder of its own that is removed at once.
    """
    images = sorted(given["images"], key=lambda image: str(image["name"]))
    ids = {image["number"]: number for number, image in enumerate(images, 1)}
    sizes = {image["name"]: image["size"] for image in images}
    focals = {image["name"]: StatedFocal(image["focal"]) for image in images}
    cameras = assign_cameras(sizes, None, focals=focals)
    with TemporaryDirectory(prefix="lightglue-web-") as folder:
        path = Path(folder) / "database.db"
        with Database(path) as made:
            with made.writing():
                for number, camera in enumerate(cameras.cameras, 1):
                    made.add_camera(number, camera)
                for image in images:
                    keypoints = np.frombuffer(image["keypoints"], np.float32).reshape(-1, 2)
                    camera_id = cameras.of_image[image["name"]] + 1
                    made.add_image(ids[image["number"]], image["name"], camera_id, keypoints)
            for done, (i, j, rows) in enumerate(given["pairs"]):
                report.progress("writing", done, len(given["pairs"]))
                matches = np.frombuffer(rows, np.uint16).reshape(-1, 2).astype(np.int32)
                first, second = ids[i], ids[j]
                if first > second:
                    first, second, matches = second, first, matches[:, ::-1]
                with made.writing():
                    made.put_matches(first, second, np.ascontiguousarray(matches))
        return path.read_bytes()
