"""`effort="hard"`: the record of a pair that plain matching finds little of, with what more is found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lightglue.images import numpy_image_to_torch, resize_tensor
from lightglue.matching.effort import EffortRecord, EffortStage
from lightglue.pairs.hard.budget import Budget
from lightglue.pairs.hard.finish import Solved
from lightglue.pairs.hard.kinds import OWN, Kinds
from lightglue.pairs.hard.looks import Correspondences, Image, Kind
from lightglue.pairs.hard.solve import is_good, polish, solve
from lightglue.pairs.record import MatchedPair, PairFeatures, PairMatches
from lightglue.types import Extractor, Matcher
from lightglue_runtime.resize import target_size

__all__ = ["match_hard"]

LARGEST = 1600  # px: a larger image is looked at in this size
SMALLEST = 32  # px: in a smaller one there is nothing to look for
MOST = 2048  # keypoints of each view at full size


def match_hard(
    pair: MatchedPair,
    images: tuple[Any, Any],
    masks: tuple[Any, Any],
    extractor: Extractor,
    matcher: Matcher,
    options: Mapping[str, Any],
    *,
    max_seconds: float | None,
    seconds: float = 0.0,
    clock: Callable[[], float] = perf_counter,
) -> MatchedPair:
    """`pair`, as plain matching has it, or with what simulated views find where it has little.

    Args:
        images: (C, H, W) or (1, C, H, W) tensors in [0, 1], or (H, W, 3) or (H, W) uint8 arrays.
        masks: (H, W) bool arrays or tensors where keypoints may lie, or None.
        options: of `extract`, as the pair was made with.
        max_seconds: for the search; None: no limit.
        seconds: that plain matching took, for the record.
    """
    first = EffortStage("normal", seconds, len(pair.matches01.get("matches", ())))
    if "matches" not in pair.matches01:
        return _told(pair, (first,), "the matcher gives no `matches`")
    device = pair.matches.device
    known = getattr(extractor, "preprocess_conf", {})
    pixels = [_image(image, mask, {**known, **options}) for image, mask in zip(images, masks, strict=True)]
    both = pixels[0], pixels[1]
    plain = _correspondences(pair)
    is_done = is_good(plain, pair.overlap, max(1.0, *(1 / min(image.scale) for image in both)))
    if min(*both[0].size, *both[1].size) < SMALLEST:
        return _told(pair, (first,), None if is_done else f"an image has fewer than {SMALLEST} px")
    own = _device_of(extractor)
    kinds = Kinds(Kind(OWN, extractor, matcher), own)
    full = max(max(image.size) for image in both), _count(extractor)
    with torch.no_grad():
        solved = (polish if is_done else solve)(plain, both, kinds, Budget(max_seconds, clock), full, own, pair.overlap)
    if solved is None:
        return _told(pair, (first,))
    stages = first, *solved.stages
    return _told(pair, stages, solved.ended) if solved.found is None else _record(pair, solved, stages, device)


def _told(pair: MatchedPair, stages: tuple[EffortStage, ...], reason: str | None = None) -> MatchedPair:
    return pair.with_matches(effort=EffortRecord("hard", stages, rejected=reason))


def _record(pair: MatchedPair, solved: Solved, stages: tuple[EffortStage, ...], device: torch.device) -> MatchedPair:
    """The record of a pair whose keypoints are the ends of its matches."""
    found, model = solved.found, solved.model
    assert found is not None
    assert model is not None
    rows, scores = torch.arange(len(found)), torch.from_numpy(found.scores).float()
    points = [torch.from_numpy(each).float() for each in (found.points0, found.points1)]
    features = []
    for old, own, descriptors, strengths in zip(
        (pair.features0, pair.features1),
        points,
        (found.descriptors0, found.descriptors1),
        (found.keypoint_scores0, found.keypoint_scores1),
        strict=True,
    ):
        new = {"keypoints": own, "descriptors": descriptors, "keypoint_scores": strengths}
        size = {"image_size": old["image_size"]} if "image_size" in old else {}
        features.append(cast(PairFeatures, {k: v.to(device) for k, v in {**new, **size}.items()}))
    record = EffortRecord(
        "hard", stages, geometry=model.geometry, model=model.matrix, inliers=model.inliers, found_by=_words(solved)
    )
    tensors: dict[str, Tensor] = {
        "matches0": rows,
        "matches1": rows,
        "matching_scores0": scores,
        "matching_scores1": scores,
        "matches": torch.stack((rows, rows), dim=1),
        "scores": scores,
        "points0": points[0],
        "points1": points[1],
    }
    if pair.overlap is not None:
        tensors["overlap"] = torch.tensor(solved.overlap)
    others: dict[str, Any] = {"effort": record}
    if pair.rotation is not None:
        # The turn of image 1 as the search saw it: where it began with plain matching, that one's.
        turn = pair.rotation if solved.trial is None else solved.trial.view1.turn
        others["rotation"] = turn
    matches = {name: value.to(device) for name, value in tensors.items()} | others
    return MatchedPair(features[0], features[1], cast(PairMatches, matches))


def _words(solved: Solved) -> str:
    where = "plain matches" if solved.trial is None else str(solved.trial)
    name = solved.kind.name if solved.kind is not None else OWN
    return where if name == OWN else f"{where}, {name}"


def _correspondences(pair: MatchedPair) -> Correspondences:
    rows = pair.matches.reshape(-1, 2).cpu()
    ends = []
    for features, own in zip((pair.features0, pair.features1), rows.T, strict=True):
        strengths = features.get("keypoint_scores")
        given = torch.ones(len(own)) if strengths is None else strengths.detach().cpu()[own].float()
        ends.append((features["keypoints"].detach().cpu()[own], given, features["descriptors"].detach().cpu()[own]))
    scores = pair.matches01.get("scores")
    return Correspondences(
        ends[0][0].double().numpy(),
        ends[1][0].double().numpy(),
        np.ones(len(rows)) if scores is None else scores.detach().cpu().double().numpy(),
        ends[0][1],
        ends[1][1],
        ends[0][2].float(),
        ends[1][2].float(),
        (len(pair.keypoints0), len(pair.keypoints1)),
    )


def _image(image: Any, mask: Any, options: Mapping[str, Any]) -> Image:
    """An image in the size in which it was matched."""
    tensor = image if isinstance(image, Tensor) else numpy_image_to_torch(image)
    tensor = (tensor[0] if tensor.ndim == 4 else tensor).detach().cpu().float()
    h, w = tensor.shape[-2:]
    resize, side = options.get("resize"), options.get("side", "long")
    height, width = (h, w) if resize is None or options.get("tile") else target_size(h, w, resize, side)
    # Plain matching enlarges small images; here that is done by as much as the views need it.
    limit = min(1.0, LARGEST / max(height, width), h / height)
    height, width = (max(1, round(edge * limit)) for edge in (height, width))
    resized, scales = resize_tensor(tensor, (height, width))
    pixels = np.ascontiguousarray(resized.permute(1, 2, 0).numpy())
    allowed = None if mask is None else np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask, np.bool_)
    return Image(pixels, (float(scales[0]), float(scales[1])), allowed)


def _device_of(extractor: Extractor) -> torch.device:
    return cast(torch.device, getattr(getattr(extractor, "reference", None), "device", torch.device("cpu")))


def _count(extractor: Extractor) -> int:
    """How many keypoints each view at full size has at most."""
    limit = getattr(getattr(extractor, "conf", None), "max_num_keypoints", None)
    known = isinstance(limit, (int, float)) and math.isfinite(limit) and limit > 0
    return min(MOST, int(cast(float, limit))) if known else MOST
