"""One pair: matched, estimated again, and encoded as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightglue.errors import ImageError, InputError
from lightglue.matching.config import LightGlueConfig
from lightglue.models.loaded import load_models
from lightglue.pairs.asked import PairRequest
from lightglue.pairs.encoders import Shown, encode
from lightglue.pairs.files import MatchedFiles, match_files
from lightglue.pairs.later import above, can_be_filtered, with_geometry
from lightglue.pairs.oriented import pixels_of
from lightglue.pairs.postprocessing import without_doubtful
from lightglue.pairs.record import MatchedPair, geometry_numbers
from lightglue.pairs.viewed import warp_of
from lightglue.pairs.words import texts_of
from lightglue.timing import record
from lightglue.web.failures import image_fault
from lightglue.web.tasks.kept import Kept
from lightglue.web.tasks.own_keypoints import with_keypoints
from lightglue.web.tasks.pair_json import geometry_json, pair_json
from lightglue.web.tasks.report import Report

__all__ = ["again", "as_asked", "estimate", "export", "match", "matched", "numbers_of"]


def match(given: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Match two images.

    given: images, two of {"id", "name", "data"}; asked, options by their names; keypoints, of the user's own.
    """
    kept, found = matched(given, report)
    return {"json": pair_json(kept, found, given["images"], given["options"]), "kept": kept.pack(), **numbers_of(found)}


def matched(given: Mapping[str, Any], report: Report) -> tuple[Kept, MatchedFiles]:
    """The pair with all matches that may be shown, and as its options ask for it."""
    images, request = given["images"], PairRequest.of(given["asked"])
    request = _with_masks(request, given.get("masks") or {})
    contents = images[0]["data"], images[1]["data"]
    names = images[0]["name"], images[1]["name"]
    first = replace(request.options, geometry=None, camera0=None, camera1=None, min_overlap=0, **_USUAL)
    if can_be_filtered(request):
        models = replace(request.models, thresholds={**request.thresholds.given(), "filter_threshold": 0.0})
    else:
        models = request.chosen
    with report.watching():
        loaded: Any = load_models(models)
        if keypoints := given.get("keypoints"):
            loaded = with_keypoints(loaded, keypoints, request)
        try:
            whole = match_files(contents[0], contents[1], first, models=loaded, views=request.views)
        except ImageError as error:
            raise _of_its_image(error, images, request) from error
        return as_asked(replace(whole, names=names), request, contents)


def _of_its_image(error: ImageError, images: Sequence[Mapping[str, Any]], request: PairRequest) -> Exception:
    """An error of one of two images, with its name."""
    for i, image in enumerate(images):
        try:
            pixels_of(image["data"], request.views.tile, stretch=request.views.stretch)
        except ImageError as own:
            return image_fault(own, image["name"], f"image{i}")
    return error


def as_asked(whole: MatchedFiles, request: PairRequest, contents: Sequence[bytes]) -> tuple[Kept, MatchedFiles]:
    """A pair with all matches that may be shown, and as its options ask for it. contents: of the files, for EXIF."""
    filtered, sizes, threshold = can_be_filtered(request), _sizes(whole.pair), _threshold(request)
    pair = above(whole.pair, threshold) if filtered else whole.pair
    with record() as timeline:
        pair = with_geometry(pair, request.options, contents, sizes)
    pair, dropped = without_doubtful(pair, request.options.min_overlap)
    timeline.spans[:0] = whole.timeline.spans
    found = replace(whole, pair=pair, options=request.options, num_dropped=dropped, timeline=timeline)
    shown = whole.pair if dropped is None else _without_geometry(pair)
    floor = 0.0 if filtered else threshold
    return Kept(_light(shown), found.summary(), request, threshold, floor, sizes), found


_USUAL: dict[str, Any] = {"estimator": "poselib", "threshold": None, "seed": 0}


def estimate(given: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """A geometry of the matches of a pair above a threshold. given: kept, images, asked."""
    with report.watching():
        summary, pair, _ = again(Kept.unpack(given["kept"]), given["images"], given["asked"])
        warp = warp_of(pair)
    found = geometry_json(pair, summary)
    if found is None:
        raise InputError("geometry: name what is to be estimated.")
    return found | {"warp": None if warp is None or warp.model is None else {"matrix": warp.model.tolist()}}


def export(given: Mapping[str, Any], report: Report) -> bytes:
    """The content of a file. given: kept, images, asked, ending."""
    kept, images = Kept.unpack(given["kept"]), given["images"]
    with report.watching():
        summary, pair, threshold = again(kept, images, given["asked"])
        names = images[0]["name"], images[1]["name"]
        views = kept.request.views
        pixels = [pixels_of(image["data"], views.tile, stretch=views.stretch) for image in images]
        shown = Shown(pixels[0], pixels[1], names, texts_of(summary), summary, threshold)
        return encode(pair, given["ending"], shown)


def again(
    kept: Kept, images: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]
) -> tuple[dict[str, Any], MatchedPair, float]:
    """Summary, pair and threshold, with another threshold and geometry than before where `asked` says so."""
    threshold = max(kept.floor, asked.get("filter_threshold", kept.threshold))
    pair = above(kept.pair, threshold) if threshold > kept.floor else kept.pair
    options = {name: value for name, value in asked.items() if name != "filter_threshold"}
    wanted = kept.request.options
    if options:
        wanted = PairRequest.owner().build(options).options
        PairRequest(kept.request.models, kept.request.views, wanted).check(options)
    pair = with_geometry(pair, wanted, [image["data"] for image in images], kept.sizes)
    if "num_dropped" in kept.summary:
        pair, _ = without_doubtful(pair, kept.request.options.min_overlap)
    other = {name: value for name, value in kept.summary.items() if name not in _OF_GEOMETRY}
    return {**other, "num_matches": len(pair.matches), **geometry_numbers(pair)}, pair, threshold


_OF_GEOMETRY = ("geometry", "estimator", "cameras", "num_inliers", "model", "failure")


def _with_masks(request: PairRequest, masks: Mapping[str, Any]) -> PairRequest:
    return replace(request, options=replace(request.options, **masks)) if masks else request


def _threshold(request: PairRequest) -> float:
    """Of scores; 0 for a matcher without."""
    if request.models.matcher != "lightglue":
        return 0.0
    own = request.thresholds.filter_threshold
    return LightGlueConfig().filter_threshold if own is None else own


def _without_geometry(pair: MatchedPair) -> MatchedPair:
    left: Any = {
        name: value for name, value in pair.matches01.items() if name not in ("geometry", "inliers", "cameras")
    }
    return pair._replace(matches01=left)


def _sizes(pair: MatchedPair) -> tuple[tuple[int, int], tuple[int, int]]:
    first, second = (
        tuple(features["image_size"].round().long().tolist()) for features in (pair.features0, pair.features1)
    )
    return (first[0], first[1]), (second[0], second[1])


def _light(pair: MatchedPair) -> MatchedPair:
    given: list[Any] = [pair.features0, pair.features1]
    features: list[Any] = [
        {name: value.clone() for name, value in each.items() if name in ("keypoints", "keypoint_scores", "image_size")}
        for each in given
    ]
    return pair._replace(features0=features[0], features1=features[1])


def numbers_of(found: MatchedFiles) -> dict[str, Any]:
    """What lists of pairs show."""
    summary = found.summary()
    return {"matches": summary["num_matches"], "overlap": summary.get("overlap"), "inliers": summary.get("num_inliers")}
