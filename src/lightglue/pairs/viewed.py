"""A matched pair as the viewer takes it: JSON of flat arrays, whose numbers are those of the pair to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.estimation import estimate_homography
from lightglue.geometry.options import EstimatorOptions, Method
from lightglue.geometry.results import Estimate
from lightglue.pairs.record import MatchedPair

__all__ = ["flat", "viewed", "viewed_geometry", "warp_of"]

FEWEST = 8  # matches; four fit any homography
_LARGEST, _DIGITS = 1e6, 11  # below it and with so many behind the point, keypoints and scores are exact


def viewed(
    pair: MatchedPair,
    names: tuple[str, str] = ("A", "B"),
    facts: Mapping[str, Any] | None = None,
    *,
    threshold: float | None = None,
    floor: float | None = None,
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None,
    warp: Estimate | None = None,
) -> dict[str, Any]:
    """What `json.dumps` takes and the viewer shows.

    Args:
        pair: with its matches.
        names: of the images.
        facts: what `MatchedFiles.summary()` knows of the pair: features, layers, seconds, effort.
        threshold: the score that matches must exceed to be shown at first; None: all are.
        floor: the score above which `pair` has all matches; None: `threshold`.
        sizes: (width, height) of each image, px, where the features do not say it.
        warp: the homography by which image 1 is laid over image 0, where the pair's geometry is another.

    Returns:
        `images`, `keypoints0`, `keypoints1` ([x, y, x, y, ...] px), `matches` ([i, j, i, j, ...] rows of the
        keypoints, the best first), `scores`; `points0`, `points1` where matches are refined; `layers`: how many were
        run, of how many, and for each keypoint the layer that dropped it, 0 for none; `geometry`, with the rows of
        `matches` that agree; `overlap`, `rotation`, `effort`, `seconds`; None for what is not known. A float32 is
        written with the digits that lead back to it.
    """
    facts = facts or {}
    scores = np.asarray(pair.scores.cpu()) if "scores" in pair.matches01 else np.ones(len(pair.matches), np.float32)
    order = np.argsort(-scores, kind="stable")
    found: dict[str, Any] = {
        "id": "",
        "images": _images(pair, names, sizes),
        "features": facts.get("features"),
        "matcher": facts.get("matcher"),
        "weights": facts.get("weights"),
        "precision": facts.get("precision"),
        "threshold": threshold or 0,
        "floor": (threshold or 0) if floor is None else floor,
        "keypoints0": flat(pair.keypoints0),
        "keypoints1": flat(pair.keypoints1),
        "matches": np.asarray(pair.matches.cpu())[order].reshape(-1).tolist(),
        "scores": flat(scores[order]),
        "overlap": None if pair.overlap is None else float(np.float32(pair.overlap)),
        "rotation": pair.rotation,
        "layers": _layers(pair, facts.get("layers")),
        "effort": facts.get("effort"),
        "escalated": facts.get("escalated") or facts.get("rejected"),
        "pruned": facts.get("pruned"),
        "seconds": facts.get("seconds", {}),
        "geometry": viewed_geometry(pair.geometry, order) if pair.geometry is not None else None,
        "warp": None if warp is None or warp.model is None else {"matrix": warp.model.tolist()},
        "warnings": facts.get("warnings", []),
        "summary": str(pair),
    }
    for name in ("points0", "points1"):
        points = np.asarray(pair.matches01[name].cpu())
        keypoints = np.asarray((pair.keypoints0, pair.keypoints1)[int(name[-1])].cpu())
        side = np.asarray(pair.matches.cpu())[:, int(name[-1])]
        if not np.array_equal(points, keypoints[side]):  # refined
            found[name] = flat(points[order])
    return found


def warp_of(pair: MatchedPair) -> Estimate | None:
    """The homography that lays image 1 over image 0: the pair's own, or what its matches give; None for too few."""
    own = pair.geometry
    if own is not None and own.geometry == "homography":
        return own
    if len(pair.matches) < FEWEST:
        return None
    method: Method = "poselib" if find_spec("poselib") else "opencv"
    return estimate_homography(pair.points0, pair.points1, EstimatorOptions(method))


def viewed_geometry(estimate: Estimate, order: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """An estimate as the viewer takes it. order: (K,) which of its matches is which row of the viewer's."""
    agree = estimate.inliers if order is None else estimate.inliers[order]
    options = estimate.statistics.options
    return {
        "model": estimate.geometry,
        "method": options.method,
        "threshold": options.pixels,
        "matrix": None if estimate.model is None else estimate.model.tolist(),
        "inliers": np.flatnonzero(agree).tolist(),
        "seconds": estimate.statistics.seconds,
        "failure": estimate.statistics.failure,
    }


def _images(pair: MatchedPair, names: tuple[str, str], sizes: Any) -> list[dict[str, Any]]:
    if sizes is None:
        known = [features["image_size"] for features in (pair.features0, pair.features1)]
        sizes = [tuple(size.round().long().tolist()) for size in known]
    return [
        {"id": "", "name": name, "width": int(size[0]), "height": int(size[1])}
        for name, size in zip(names, sizes, strict=True)
    ]


def _layers(pair: MatchedPair, of: Any) -> dict[str, Any] | None:
    """Which layer dropped each keypoint; None where the matcher has no layers, or not all keypoints went through it."""
    found = pair.matches01
    if pair.stop is None:
        return None
    dropped = []
    for name, keypoints in (("prune0", pair.keypoints0), ("prune1", pair.keypoints1)):
        if name not in found or len(found[name]) != len(keypoints):  # type: ignore[literal-required]
            return {"stop": pair.stop, "of": of, "pruned0": [], "pruned1": []}
        run = np.asarray(found[name].cpu()).astype(np.int64)  # type: ignore[literal-required]
        # Those that were never dropped have the greatest number: counting ends where an image is no longer pruned.
        dropped.append(np.where(run < run.max(initial=0), run, 0).tolist())
    return {"stop": pair.stop, "of": of, "pruned0": dropped[0], "pruned1": dropped[1]}


def flat(values: Any) -> list[float]:
    """Numbers in a row, float32 as the shortest decimals that lead back to them."""
    exact = np.asarray(values.cpu() if hasattr(values, "cpu") else values, np.float32).reshape(-1)
    found = exact.astype(np.float64)
    usual = np.abs(exact) < _LARGEST
    left = np.flatnonzero(usual)
    for digits in range(_DIGITS):
        found[left] = exact[left].astype(np.float64).round(digits)
        left = left[found[left].astype(np.float32) != exact[left]]
    for i in (*left, *np.flatnonzero(~usual)):  # tiny ones, and huge ones
        found[i] = float(str(exact[i]))
    numbers: list[float] = found.tolist()
    return numbers
