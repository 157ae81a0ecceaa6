"""`effort="fast"`: any matcher on the strongest keypoints, and all others guided by what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightglue.errors import InputError
from lightglue.geometry.options import EstimatorOptions
from lightglue.matching.effort import EffortRecord, EffortStage
from lightglue.matching.guided import (
    GuidedOptions,
    Model,
    candidates,
    mutual_best,
    predict,
    residuals,
)
from lightglue.matching.inputs import both_images, pair_list, read_arrays, read_sizes, with_batch
from lightglue.matching.nearest import NearestNeighbor
from lightglue.timing import span
from lightglue.types import Features, Matches

__all__ = ["CoarseToFine", "CoarseToFineOptions"]

_PER_KEYPOINT = ("keypoints", "descriptors", "keypoint_scores", "scales", "oris")


@dataclass(frozen=True)
class CoarseToFineOptions:
    """How far a pair is trusted to its strongest keypoints."""

    seeds: int = 512  # strongest keypoints of each image, which are matched
    worthwhile: float = 1.5  # an image of so many times the seeds or fewer is matched as a whole
    fewest_inliers: int = 40  # seeds that agree; with fewer the pair is matched as a whole
    least_overlap: float = 0.9  # likewise
    guided: GuidedOptions = field(default_factory=GuidedOptions)


@dataclass(frozen=True, eq=False)
class _Image:
    """An image, and its strongest keypoints."""

    features: Features  # all, batch of 1
    seeds: Features
    rows: NDArray[np.int64]  # (S,) of the seeds
    points: NDArray[np.float64]  # (N, 2) px
    descriptors: NDArray[np.float32]  # (N, D) L2-normalised
    extent: float  # px, the longer edge


class CoarseToFine(nn.Module):
    """A matcher that is several times as fast on pairs that are easy, and itself on all others."""

    def __init__(self, matcher: Any, options: CoarseToFineOptions | None = None) -> None:
        super().__init__()
        if isinstance(matcher, NearestNeighbor):
            raise InputError("effort is 'fast', which is for LightGlue; nearest neighbours are fast, leave it out.")
        self.matcher: Any = matcher.matcher if isinstance(matcher, CoarseToFine) else matcher
        self.options = options or CoarseToFineOptions()

    def __getattr__(self, name: str) -> Any:
        """What else the matcher has: `conf`, `feature_type`, `precision`, ..."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "matcher":  # while it is being copied
                raise
            return getattr(super().__getattr__("matcher") if "matcher" in self._modules else self.matcher, name)

    def forward(self, data: Mapping[str, Any]) -> Matches:
        """Match `data["image0"]` with `data["image1"]`, as `LightGlue` takes and returns them."""
        images0, images1 = (with_batch(each) for each in both_images(data, "CoarseToFine"))
        counts = [len(each.get("keypoints", ())) if isinstance(each, Mapping) else 1 for each in (images0, images1)]
        if counts[0] != counts[1] or not counts[0]:
            return cast(Matches, self.matcher(data))  # which says what is wrong
        pairs = [(_single(images0, i, counts[0]), _single(images1, i, counts[0])) for i in range(counts[0])]
        return _collate(self.match(pairs))

    @torch.no_grad()
    def match(self, pairs: Any) -> list[Matches]:
        """Match any number of pairs; see `LightGlue.match`. What images share is done once."""
        if not isinstance(pairs, Sequence):  # anything else may write one pair over the last
            return [self.match([pair])[0] for pair in pairs]
        both = [(with_batch(a), with_batch(b)) for a, b in pair_list(pairs)]
        known: dict[tuple[int, ...], tuple[Any, _Image]] = {}
        images = [
            tuple(self._image(each, f"pairs[{i}][{side}]", known) for side, each in enumerate(pair))
            for i, pair in enumerate(both)
        ]
        large = [i for i, two in enumerate(images) if self._is_worthwhile(*two)]
        begin = perf_counter()
        with span("seeds", pairs=len(large)):
            found = self._run([(images[i][0].seeds, images[i][1].seeds) for i in large])
        each = (perf_counter() - begin) / max(1, len(large))
        results: dict[int, Matches] = {}
        waiting: dict[int, EffortRecord] = {i: EffortRecord("fast", (), "few keypoints") for i in range(len(both))}
        with span("guided", pairs=len(large)):
            for i, seeds in zip(large, found, strict=True):
                done, record = self._guide(images[i][0], images[i][1], seeds, each)
                waiting[i] = record
                if done is not None:
                    results[i] = cast(Matches, {**done, "effort": record})
        self._finish(both, waiting, results)
        return [results[i] for i in range(len(both))]

    def _finish(self, both: Sequence[Any], records: Mapping[int, EffortRecord], results: dict[int, Matches]) -> None:
        """Match as a whole what has no result yet."""
        rest = [i for i in records if i not in results]
        begin = perf_counter()
        found = self._run([both[i] for i in rest])
        each = (perf_counter() - begin) / max(1, len(rest))
        for i, result in zip(rest, found, strict=True):
            stage = EffortStage("all keypoints", each, len(result["matches"][0]))
            record = replace(records[i], stages=(*records[i].stages, stage))
            results[i] = cast(Matches, {**result, "effort": record})

    def _run(self, pairs: list[tuple[Features, Features]]) -> list[Matches]:
        if not pairs:
            return []
        if hasattr(self.matcher, "match"):
            return list(self.matcher.match(pairs))
        return [self.matcher({"image0": a, "image1": b}) for a, b in pairs]

    def _image(self, features: Any, name: str, known: dict[tuple[int, ...], tuple[Any, _Image]]) -> _Image:
        like = next(iter(self.parameters()), torch.zeros(0))
        arrays = tuple(features.get(key) for key in (*_PER_KEYPOINT, "image_size", "image")) if features else ()
        key = tuple(id(array) for array in arrays)
        if key in known:
            return known[key][1]
        keypoints, descriptors = read_arrays(features, name, like)
        if len(keypoints) != 1:
            raise InputError(f"{name} holds a batch of {len(keypoints)} images; match() takes one image at a time")
        size = read_sizes(features, name, keypoints)
        count = keypoints.shape[1]
        rows = _strongest(features.get("keypoint_scores"), count, self.options.seeds, keypoints.device)
        seeds = {k: v[:, rows] for k, v in features.items() if k in _PER_KEYPOINT}
        made = _Image(
            features,
            cast(Features, {**seeds, "image_size": size}),
            rows.cpu().numpy(),
            keypoints[0].double().cpu().numpy(),
            torch.nn.functional.normalize(descriptors[0].float(), dim=-1).cpu().numpy(),
            float(size.max()),
        )
        known[key] = arrays, made
        return made

    def _is_worthwhile(self, image0: _Image, image1: _Image) -> bool:
        counts = len(image0.points), len(image1.points)
        return min(counts) > 0 and max(counts) > self.options.worthwhile * self.options.seeds

    def _guide(
        self, image0: _Image, image1: _Image, found: Matches, seconds: float
    ) -> tuple[dict[str, Any] | None, EffortRecord]:
        """The result of a pair from that of its seeds; None where it is to be matched as a whole."""
        begin = perf_counter()
        matches = found["matches"][0].cpu().numpy()
        ij = np.stack([image0.rows[matches[:, 0]], image1.rows[matches[:, 1]]], 1)
        scores = found["scores"][0].float().cpu().numpy()
        stages = [EffortStage("seeds", seconds, len(ij))]
        overlap = float(found["overlap"][0]) if "overlap" in found else 1.0
        model, inliers = _fundamental(image0.points[ij[:, 0]], image1.points[ij[:, 1]])
        if model is None or inliers.sum() < self.options.fewest_inliers or overlap < self.options.least_overlap:
            reason = f"{inliers.sum()} of {len(ij)} seeds agree, overlap {overlap:.2f}"
            stages.append(EffortStage("geometry", perf_counter() - begin, int(inliers.sum())))
            return None, EffortRecord("fast", tuple(stages), reason)
        ij, scores = ij[inliers], scores[inliers]
        more, similarity = self._more(image0, image1, ij, model)
        ij, scores = np.concatenate([ij, more]), np.concatenate([scores, np.clip(similarity, 0, 1)])
        order = np.argsort(ij[:, 0], kind="stable")
        ij, scores = ij[order], scores[order]
        stages.append(EffortStage("guided", perf_counter() - begin, len(ij)))
        agree = residuals(model, image0.points[ij[:, 0]], image1.points[ij[:, 1]]) <= self.options.guided.error
        record = EffortRecord("fast", tuple(stages), geometry=model.geometry, model=model.matrix, inliers=agree)
        return _assemble(image0, image1, ij, scores, found), record

    def _more(
        self, image0: _Image, image1: _Image, seeds: NDArray[np.int64], model: Model
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Matches (K, 2) of keypoints that no seed has, and their similarities (K,)."""
        options = self.options.guided
        free0, free1 = (
            np.flatnonzero(~np.isin(np.arange(len(image.points)), seeds[:, side]))
            for side, image in enumerate((image0, image1))
        )
        points0, points1 = image0.points[free0], image1.points[free1]
        guess = predict(points0, image0.points[seeds[:, 0]], image1.points[seeds[:, 1]], image1.extent, options)
        pairs = candidates(points0, points1, guess, model, options.error)
        a, b = image0.descriptors[free0[pairs.first]], image1.descriptors[free1[pairs.second]]
        similarity = np.einsum("cd,cd->c", a, b)
        kept = mutual_best(pairs, similarity, len(free0), len(free1)) & (similarity > 0.6)
        return np.stack([free0[pairs.first[kept]], free1[pairs.second[kept]]], 1), similarity[kept]


def _single(images: Any, i: int, count: int) -> Any:
    """Image i of a batch."""
    return {
        key: value[i : i + 1] if isinstance(value, Tensor) and value.ndim > 1 and len(value) == count else value
        for key, value in images.items()
    }


def _strongest(scores: Any, count: int, number: int, device: torch.device) -> Tensor:
    """(S,) rows of the best keypoints in their order; without scores some from everywhere in the list."""
    if count <= number:
        return torch.arange(count, device=device)
    if not isinstance(scores, Tensor) or scores.shape != (1, count):
        return torch.linspace(0, count - 1, number, device=device).round().long()
    return scores[0].argsort(descending=True, stable=True)[:number].sort().values


def _fundamental(points0: NDArray[np.float64], points1: NDArray[np.float64]) -> tuple[Model | None, NDArray[np.bool_]]:
    from importlib.util import find_spec

    from lightglue.geometry.estimation import estimate_fundamental

    method = "poselib" if find_spec("poselib") else "opencv"
    found = estimate_fundamental(points0, points1, EstimatorOptions(cast(Any, method), 1.5))
    return (None if found.model is None else Model("fundamental", found.model)), found.inliers


def _assemble(
    image0: _Image, image1: _Image, ij: NDArray[np.int64], scores: NDArray[np.floating], seeds: Matches
) -> dict[str, Any]:
    """The dictionary of a pair as the matcher gives it."""
    like, device = seeds["matching_scores0"], seeds["matching_scores0"].device
    rows = torch.from_numpy(ij).to(device)
    values = torch.from_numpy(scores).to(like)
    made: dict[str, Any] = {}
    for side, image in enumerate((image0, image1)):
        count = len(image.points)
        made[f"matches{side}"] = torch.full((1, count), -1, dtype=torch.int64, device=device)
        made[f"matching_scores{side}"] = like.new_zeros(1, count)
        made[f"matches{side}"][0, rows[:, side]] = rows[:, 1 - side]
        made[f"matching_scores{side}"][0, rows[:, side]] = values
        if f"prune{side}" in seeds:
            layers = cast(Any, seeds)[f"prune{side}"]
            made[f"prune{side}"] = layers.new_zeros(1, count)
            made[f"prune{side}"][0, torch.from_numpy(image.rows).to(device)] = layers[0]
    made |= {"matches": [rows], "scores": [values]}
    return made | {key: cast(Any, seeds)[key] for key in ("stop", "overlap") if key in seeds}


def _collate(results: Sequence[Matches]) -> Matches:
    """One dictionary of several pairs with equal numbers of keypoints."""
    if len(results) == 1:
        return results[0]
    made: dict[str, Any] = {}
    for key in results[0]:
        values = [cast(Any, result)[key] for result in results]
        if key in ("matches", "scores"):
            made[key] = [value[0] for value in values]
        elif key == "stop":
            made[key] = torch.tensor(values)
        elif isinstance(values[0], Tensor):
            made[key] = torch.cat(values)
        else:
            made[key] = values
    return cast(Matches, made)
