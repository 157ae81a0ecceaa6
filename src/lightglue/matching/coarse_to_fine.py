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
from lightglue.geometry.points import extent
from lightglue.matching.effort import EffortRecord, EffortStage
from lightglue.matching.guided import GuidedOptions, Keypoints, confidence, guided_matches
from lightglue.matching.inputs import both_images, pair_list, read_arrays, read_sizes, with_batch
from lightglue.matching.nearest import NearestNeighbor
from lightglue.matching.seed_geometry import Model, fit_model, refit, residuals
from lightglue.timing import span
from lightglue.types import Features, Matches

__all__ = ["CoarseToFine", "CoarseToFineOptions"]

_NEEDED = ("matches", "scores")  # of a matcher's result
_PER_KEYPOINT = ("keypoints", "descriptors", "keypoint_scores", "scales", "oris")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CoarseToFineOptions:
    """How far a pair is trusted to its strongest keypoints; chosen on scenes of COLMAP models, none that judge.

    What is not trusted is matched as a whole, but for what the seeds say is no pair at all.
    """

    seeds: int = 512  # keypoints of each image that are matched: the strongest of each part of it
    cells: int = 12  # parts along the longer edge
    worthwhile: float = 1.5  # a pair without an image of more than so many times the seeds is matched as a whole
    error: float = 1.5  # px at 1,024 px, up to which a match agrees with the geometry
    fewest_inliers: int = 40  # seeds that agree
    least_share: float = 0.5  # of the seeds' matches that agree
    least_overlap: float = 0.9  # probability, by the seeds
    clear_share: float = 0.8  # of the seeds' matches that agree, from which on ...
    clear_overlap: float = 0.5  # ... so much overlap is enough, as their geometry says more
    least_extent: float = 0.04  # of the longer edge of each image, over which the seeds that agree spread
    least_yield: float = 0.75  # of the matches that there would be, had all keypoints as many as the seeds
    hopeless_overlap: float = 0.1  # probability, below which, with ...
    hopeless_inliers: int = 20  # ... fewer seeds that agree, the images show no common thing
    guided: GuidedOptions = field(default_factory=GuidedOptions)


@dataclass(frozen=True, eq=False)
class _Image:
    """An image, and its strongest keypoints."""

    seeds: Features
    rows: Ints  # (S,) of the seeds
    all: Keypoints

    def __len__(self) -> int:
        return len(self.all.points)


@dataclass(frozen=True, eq=False)
class _Seeds:
    """What the strongest keypoints of a pair gave."""

    result: Matches  # of the matcher
    ij: Ints  # (K, 2) rows of all keypoints
    scores: Floats  # (K,)
    model: Model | None
    inliers: NDArray[np.bool_]  # (K,)
    overlap: float | None  # None: the matcher does not say

    def summary(self) -> str:
        """In words."""
        overlap = "" if self.overlap is None else f", overlap {self.overlap:.2f}"
        return f"{int(self.inliers.sum())} of {len(self.ij)} matches of the strongest keypoints agree{overlap}"


class CoarseToFine(nn.Module):
    """A matcher that takes a fraction of the time for pairs that are easy, and does all its work on the others.

    It takes and returns the dictionaries of the matcher that it is given and goes wherever that goes.

    >>> matcher = CoarseToFine(LightGlue(features="aliked")).eval()
    >>> matches = matcher({"image0": features0, "image1": features1})  # doctest: +SKIP

    1. The strongest keypoints of all parts of both images (by `keypoint_scores`) go through the matcher: the seeds.
    2. A fundamental matrix, or a homography, is estimated from their matches.
    3. Where too few agree with it, on too small a part of the images, or the overlap is low, all keypoints go through
       the matcher after all, with the result that it always gives. Where overlap and agreement are next to nothing,
       the matches of the seeds are the result: the images show no common thing.
    4. Otherwise the other keypoints are matched near the epipolar lines and near where neighbouring seeds point, by
       their descriptors, and checked against the model fitted to all matches.

    `matches`, `scores` and so on are those of all keypoints. The score of a match from step 4 is its `confidence`, the
    probability that the matcher would have found it; it exceeds the matcher's `filter_threshold` as all scores do.
    `stop`, `prune0`, `prune1` and `overlap` are those of the seeds: the overlap is the probability that the images
    overlap by what 512 keypoints say, and a keypoint that was no seed went through 0 layers. `effort` is an
    `EffortRecord`, of a batch of several pairs a list. No gradients are recorded.

    A pair's result depends on nothing but its two images.

    Args:
        matcher: anything that takes and gives these dictionaries and was trained, such as `LightGlue` or
            `lightglue.runtime.OpenVinoMatcher`; with a method `match`, the seeds of many pairs are matched together.
        options: see `CoarseToFineOptions`.

    Raises InputError: nearest neighbours, which gain nothing; features that the matcher would not take.
    """

    def __init__(self, matcher: Any, options: CoarseToFineOptions | None = None) -> None:
        super().__init__()
        if isinstance(matcher, NearestNeighbor):
            raise InputError("effort is 'fast', which is for LightGlue; nearest neighbours are fast, leave it out.")
        self.matcher: Any = matcher.matcher if isinstance(matcher, CoarseToFine) else matcher
        self.training = getattr(self.matcher, "training", False)
        self.options = options or CoarseToFineOptions()

    def __getattr__(self, name: str) -> Any:
        """What else the matcher has: `conf`, `feature_type`, `precision`, ..."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            matcher = self.__dict__.get("matcher") or self.__dict__.get("_modules", {}).get("matcher")
            if matcher is None:  # while it is being copied
                raise
            return getattr(matcher, name)

    def forward(self, data: Mapping[str, Any]) -> Matches:
        """Match `data["image0"]` with `data["image1"]`, as `LightGlue.forward`."""
        images0, images1 = (with_batch(each) for each in both_images(data, "CoarseToFine"))
        counts = [_batch(each) for each in (images0, images1)]
        if (
            counts[0] != counts[1]
            or counts[0] == 0
            or not all(isinstance(each, Mapping) for each in (images0, images1))
        ):
            return cast(Matches, self.matcher(data))  # which says what is wrong
        pairs = [(_single(images0, i, counts[0]), _single(images1, i, counts[0])) for i in range(counts[0])]
        return _collate(self._match(pairs, ["image0", "image1"] * counts[0]))

    def match(self, pairs: Any) -> list[Matches]:
        """Match any number of pairs, as `LightGlue.match`. What several pairs have in common is done once."""
        if not isinstance(pairs, Sequence):  # anything else may write one pair over the last
            each = ((with_batch(a), with_batch(b)) for a, b in pair_list(pairs))
            return [self._match([two], ["pairs[0][0]", "pairs[0][1]"])[0] for two in each]
        both = [(with_batch(a), with_batch(b)) for a, b in pair_list(pairs)]
        return self._match(both, [f"pairs[{i}][{side}]" for i in range(len(both)) for side in (0, 1)])

    @torch.no_grad()
    def _match(self, pairs: list[tuple[Any, Any]], names: list[str]) -> list[Matches]:
        """names: of the two images of each pair, for errors."""
        known: dict[tuple[int, ...], tuple[Any, _Image]] = {}
        prepared = [self._image(each, name, known) for each, name in zip(sum(pairs, ()), names, strict=True)]
        images = list(zip(prepared[::2], prepared[1::2], strict=True))
        large = [i for i, two in enumerate(images) if self._is_worthwhile(*two)]
        begin = perf_counter()
        with span("seeds", pairs=len(large)):
            found = self._run([(images[i][0].seeds, images[i][1].seeds) for i in large])
        each = (perf_counter() - begin) / max(1, len(large))
        results: dict[int, Matches] = {}
        records = {i: EffortRecord("fast", ()) for i in range(len(pairs))}
        with span("guided", pairs=len(large)):
            for i, seeds in zip(large, found, strict=True):
                done, records[i] = self._guide(*images[i], seeds, each)
                if done is not None:
                    results[i] = cast(Matches, {**done, "effort": records[i]})
        self._finish(pairs, records, results)
        return [results[i] for i in range(len(pairs))]

    def _finish(self, pairs: Sequence[Any], records: Mapping[int, EffortRecord], results: dict[int, Matches]) -> None:
        """Match as a whole what has no result yet."""
        rest = [i for i in records if i not in results]
        begin = perf_counter()
        found = self._run([pairs[i] for i in rest])
        each = (perf_counter() - begin) / max(1, len(rest))
        for i, result in zip(rest, found, strict=True):
            stage = EffortStage("all keypoints", each, len(result["matches"][0]))
            record = replace(records[i], stages=(*records[i].stages, stage))
            results[i] = cast(Matches, {**result, "effort": record})

    def _run(self, pairs: list[tuple[Features, Features]]) -> list[Matches]:
        if not pairs:
            return []
        if hasattr(self.matcher, "match"):
            found = list(self.matcher.match(pairs))
        else:
            found = [self.matcher({"image0": a, "image1": b}) for a, b in pairs]
        for result in found:
            if missing := [key for key in _NEEDED if key not in result]:
                raise InputError(
                    f"The matcher gives no {' and '.join(missing)}, which effort 'fast' needs; leave it out."
                )
        return found

    def _image(self, features: Any, name: str, known: dict[tuple[int, ...], tuple[Any, _Image]]) -> _Image:
        """An image as it is needed here. Raises InputError for features that are none."""
        names = (*_PER_KEYPOINT, "image_size", "image")
        arrays = tuple(features.get(key) for key in names) if isinstance(features, Mapping) else (features,)
        key = tuple(id(array) for array in arrays)
        if key in known:
            return known[key][1]
        like: Any = next(iter(self.parameters()), None)
        if like is None:
            like = features["keypoints"][..., :0].float() if isinstance(arrays[0], Tensor) else torch.zeros(0)
        keypoints, descriptors = read_arrays(features, name, like)
        if len(keypoints) != 1:
            raise InputError(f"{name} holds a batch of {len(keypoints)} images; match() takes one image at a time")
        size, count = read_sizes(features, name, keypoints), keypoints.shape[1]
        rows = _seed_rows(keypoints[0], features.get("keypoint_scores"), self.options)
        seeds = {
            k: v[:, rows.to(v.device)] if _is_whole(v, count) else v for k, v in features.items() if k in _PER_KEYPOINT
        }
        normalized = torch.nn.functional.normalize(descriptors[0].float(), dim=-1)
        made = _Image(
            cast(Features, {**seeds, "image_size": size}),
            rows.cpu().numpy(),
            Keypoints(keypoints[0].cpu().double().numpy(), normalized.cpu().numpy(), float(size.max())),
        )
        known[key] = arrays, made  # the arrays are held, so that their ids stay theirs
        return made

    def _is_worthwhile(self, image0: _Image, image1: _Image) -> bool:
        counts = len(image0), len(image1)
        return min(counts) > 0 and max(counts) > self.options.worthwhile * self.options.seeds

    def _guide(
        self, image0: _Image, image1: _Image, found: Matches, seconds: float
    ) -> tuple[dict[str, Any] | None, EffortRecord]:
        """The result of a pair from that of its seeds; None where it is to be matched as a whole."""
        begin = perf_counter()
        unit = max(image0.all.unit, image1.all.unit)
        seeds = _seeds_of(image0, image1, found, self.options.error * unit)
        agreeing = int(seeds.inliers.sum())
        stages = [
            EffortStage("seeds", seconds, len(seeds.ij)),
            EffortStage("geometry", perf_counter() - begin, agreeing),
        ]
        if self._is_hopeless(seeds):
            record = EffortRecord("fast", tuple(stages), rejected=seeds.summary())
            return _assemble(image0, image1, seeds.ij, seeds.scores, found), record
        doubt = self._doubt(image0, image1, seeds)
        if seeds.model is None or doubt is not None:
            return None, EffortRecord("fast", tuple(stages), escalated=doubt)
        begin = perf_counter()
        ij, scores, model = self._more(
            image0, image1, seeds.ij[seeds.inliers], seeds.scores[seeds.inliers], seeds.model
        )
        stages.append(EffortStage("guided", perf_counter() - begin, len(ij)))
        if len(ij) < self.options.least_share * agreeing:  # positions that no model can be computed with
            return None, EffortRecord("fast", tuple(stages), escalated="the seeds do not agree with their model")
        expected = agreeing * min(len(image0) / len(image0.rows), len(image1) / len(image1.rows))
        if len(ij) < self.options.least_yield * expected:  # descriptors alone do not tell these keypoints apart
            reason = f"guided matching finds {len(ij)} matches, {expected:.0f} were to be expected"
            return None, EffortRecord("fast", tuple(stages), escalated=reason)
        errors = residuals(model, image0.all.points[ij[:, 0]], image1.all.points[ij[:, 1]])
        agree = errors <= self.options.error * unit
        record = EffortRecord("fast", tuple(stages), None, None, model.geometry, model.matrix, agree)
        return _assemble(image0, image1, ij, scores, found), record

    def _is_hopeless(self, seeds: _Seeds) -> bool:
        if seeds.overlap is None:
            return len(seeds.ij) < 8  # which no geometry can be checked with
        return seeds.overlap < self.options.hopeless_overlap and seeds.inliers.sum() < self.options.hopeless_inliers

    def _doubt(self, image0: _Image, image1: _Image, seeds: _Seeds) -> str | None:
        """Why the seeds of a pair are not trusted; None where they are."""
        options, count = self.options, seeds.inliers.sum()
        is_clear = count >= options.clear_share * len(seeds.ij)
        least = options.clear_overlap if is_clear else options.least_overlap
        if seeds.overlap is not None and seeds.overlap < least:
            return seeds.summary()
        if count < options.fewest_inliers or count < options.least_share * len(seeds.ij):
            return seeds.summary()
        for side, image in enumerate((image0, image1)):
            if extent(image.all.points[seeds.ij[seeds.inliers, side]]) < options.least_extent * image.all.extent:
                return "the matches of the strongest keypoints that agree lie close together"
        return None

    def _more(
        self, image0: _Image, image1: _Image, seeds: Ints, scores: Floats, model: Model
    ) -> tuple[Ints, Floats, Model]:
        """The matches (K, 2) of all keypoints, ordered by the first, their scores, and the model fitted to them."""
        options = self.options.guided
        unit = max(image0.all.unit, image1.all.unit)
        more, evidence = guided_matches(image0.all, image1.all, seeds, model, options)
        sure = confidence(evidence)
        threshold = getattr(getattr(self.matcher, "conf", None), "filter_threshold", None)
        kept = (sure >= options.least_confidence) & (sure > (threshold or 0.0))
        ij, scores = np.concatenate([seeds, more[kept]]), np.concatenate([scores, sure[kept]])
        order = np.argsort(ij[:, 0], kind="stable")
        ij, scores = ij[order], scores[order]
        points0, points1 = image0.all.points[ij[:, 0]], image1.all.points[ij[:, 1]]
        fitted = refit(model, points0, points1, self.options.error * unit)
        close = residuals(fitted, points0, points1) <= options.error * unit
        if close.sum() < len(seeds):  # it says less than what it was fitted to
            fitted, close = model, residuals(model, points0, points1) <= options.error * unit
        return ij[close], scores[close], fitted


def _batch(images: Any) -> int:
    """The number of images of a features dictionary; 1 where it is none, which is said later."""
    keypoints = images.get("keypoints") if isinstance(images, Mapping) else None
    return len(keypoints) if isinstance(keypoints, Tensor) and keypoints.ndim == 3 else 1


def _is_whole(value: Any, count: int) -> bool:
    """Whether this is something for each keypoint of one image; what is not, the matcher refuses or does not read."""
    return isinstance(value, Tensor) and value.shape[:2] == (1, count)


def _seeds_of(image0: _Image, image1: _Image, found: Matches, error: float) -> _Seeds:
    """What the matcher found among the strongest keypoints, and what these matches agree with."""
    matches = found["matches"][0].cpu().numpy()
    ij = np.stack([image0.rows[matches[:, 0]], image1.rows[matches[:, 1]]], 1)
    model, inliers = fit_model(image0.all.points[ij[:, 0]], image1.all.points[ij[:, 1]], error)
    overlap = float(found["overlap"][0]) if "overlap" in found else None
    return _Seeds(found, ij, found["scores"][0].double().cpu().numpy(), model, inliers, overlap)


def _single(images: Any, i: int, count: int) -> Any:
    """Image i of a batch."""
    return {
        key: value[i : i + 1] if isinstance(value, Tensor) and value.ndim > 1 and len(value) == count else value
        for key, value in images.items()
    }


def _seed_rows(points: Tensor, scores: Any, options: CoarseToFineOptions) -> Tensor:
    """(S,) rows of the keypoints (N, 2) that become seeds, in their order.

    The image is cut into square cells; the best keypoint of each comes first, then the second best of each, and so on.
    Spread over the image they determine the geometry better than as many that are stronger and crowd together.
    scores: of N numbers; without them the order in which the keypoints are given counts.
    """
    count = len(points)
    if count <= options.seeds:
        return torch.arange(count, device=points.device)
    if not isinstance(scores, Tensor) or scores.numel() != count:
        scores = torch.arange(count, 0, -1)
    low, high = points.amin(0), points.amax(0)
    edge = ((high - low).amax() / options.cells).clamp_min(torch.finfo(points.dtype).tiny)
    column, row = ((points - low) / edge).floor().long().T
    best = scores.to(points.device).reshape(count).argsort(descending=True, stable=True)
    cells = (row * (options.cells + 1) + column)[best]
    together = cells.argsort(stable=True)  # cell after cell, in each the best first
    sizes = torch.unique_consecutive(cells[together], return_counts=True)[1]
    begin = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.empty_like(best)  # within its cell, of the keypoints in the order of `best`
    rank[together] = torch.arange(count, device=points.device) - begin
    chosen: Tensor = best[rank.argsort(stable=True)[: options.seeds]].sort().values
    return chosen


def _assemble(image0: _Image, image1: _Image, ij: Ints, scores: Floats, seeds: Matches) -> dict[str, Any]:
    """The dictionary of a pair as the matcher gives it."""
    like, device = seeds["scores"][0], seeds["scores"][0].device
    rows = torch.from_numpy(ij).to(device)
    values = torch.from_numpy(scores).to(like)
    made: dict[str, Any] = {}
    for side, image in enumerate((image0, image1)):
        count = len(image)
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
        if not all(key in result for result in results):
            continue  # of a pair that was matched as a whole: what a matcher of the user's own adds
        values = [cast(Any, result)[key] for result in results]
        if isinstance(values[0], list):
            made[key] = [value[0] for value in values]
        elif isinstance(values[0], Tensor):
            made[key] = torch.cat(values)
        else:
            made[key] = values if key == "effort" else torch.tensor(values, device=results[0]["matches0"].device)
    return cast(Matches, made)
