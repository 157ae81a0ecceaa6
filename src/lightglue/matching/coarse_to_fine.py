"""`effort="fast"`: what descriptors alone, or a matcher on the strongest keypoints, say of a pair guides all others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightglue.errors import InputError
from lightglue.geometry.points import extent
from lightglue.matching.distinct import Distinct, distinct_neighbors
from lightglue.matching.effort import EffortRecord, EffortStage
from lightglue.matching.guided import Evidence, GuidedOptions, confidence, guided_matches, scale_of
from lightglue.matching.inputs import both_images, pair_list, with_batch
from lightglue.matching.nearest import NearestNeighbor
from lightglue.matching.overlap import Coefficients, coefficients_of, overlap_probability
from lightglue.matching.seed_geometry import QUICK, Model, fit_model, refit, residuals, turned
from lightglue.matching.seed_images import SeedImage, Seeds, is_in_order, read_image
from lightglue.timing import span
from lightglue.types import Features, Matches

__all__ = ["CoarseToFine", "CoarseToFineOptions"]

_NEEDED = ("matches", "scores")  # of a matcher's result

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CoarseToFineOptions:
    """How far a pair is trusted to a part of the work; chosen on training scenes, none that judge.

    What is not trusted is matched as a whole, but for what the seeds say is no pair at all.
    """

    # A pair without an image of more than so many times the seeds is matched as a whole after steps 1 and 2; without
    # one of so many times the first seeds at once.
    worthwhile: float = 1.5
    error: float = 1.5  # px at 1,024 px, up to which a match agrees with the geometry
    least_extent: float = 0.04  # of the longer edge of each image, over which the matches that agree spread

    # Descriptors alone, of at most so many keypoints. Right matches pass the ratio test and agree; where they are so
    # many and hardly any other passes, nothing is left for a network to decide.
    compared: int = 2048
    ratio: float = 0.9
    # Half of them first, a quarter of the work: where fewer of these pass, there is no use in the others. In 223 pairs
    # of which 15 or more agree in the end it was 12 at least, of 70 pairs without an overlap 5 at most.
    few_distinct: int = 8
    half_will_do: bool = False  # where the half of them is beyond doubt, as all are to be
    distinct_part: float = 0.15  # of the compared keypoints of the image with fewer, that agree
    distinct_share: float = 0.85  # of those that pass, that agree
    distinct_extent: float = 0.1  # of the longer edge of each image, over which these spread

    # Few keypoints through few layers, to see that there is nothing, unless some distinct neighbours agree.
    first_seeds: int = 256
    first_layers: int = 3
    first_evidence: float = 1.5  # sum of the squared scores of all mutual partners
    some_distinct: int = 15

    seeds: int = 512  # keypoints of each image that are matched: the strongest of each part of it
    cells: int = 12  # parts along the longer edge
    fewest_inliers: int = 40  # seeds that agree
    least_share: float = 0.5  # of the seeds' matches that agree
    least_overlap: float = 0.9  # probability, by the seeds
    clear_share: float = 0.8  # of the seeds' matches that agree, from which on ...
    clear_overlap: float = 0.5  # ... so much overlap is enough, as their geometry says more
    least_yield: float = 0.6  # of the matches that there would be, had all keypoints as many as the seeds
    # The same where the scene is flat, or may be: strong perspective moves keypoints by more than guidance allows for,
    # and a homography is asked for to the corners. On 45 generated homographies fewer cost 5 points of AUC@3 px.
    plane_yield: float = 0.9
    maybe_flat: float = 0.8  # of the seeds that agree, near one homography, from which on it may be
    hopeless_overlap: float = 0.3  # probability, below which, with ...
    hopeless_inliers: int = 20  # ... fewer seeds that agree, the images show no common thing
    # Where parts of a thing look the same, three or four dozen seeds agree with some geometry all the same.
    alike_overlap: float = 0.1
    alike_inliers: int = 40
    most: int | None = None  # keypoints of each image that a pair is matched "as a whole" with; None: all
    guided: GuidedOptions = field(default_factory=GuidedOptions)


@dataclass(eq=False)
class _Pair:
    """A pair on its way through the stages."""

    given: tuple[Any, Any]
    image0: SeedImage  # in the order that the work is done in
    image1: SeedImage
    is_turned: bool  # image0 was given as the second
    stages: list[EffortStage] = field(default_factory=list)
    distinct: int = 0  # distinct neighbours that agree
    escalated: str | None = None
    result: Matches | None = None

    @property
    def unit(self) -> float:
        """px of either image that are a pixel at 1,024 px."""
        return max(self.image0.all.unit, self.image1.all.unit)

    def points(self, ij: Ints) -> tuple[Floats, Floats]:
        """(K, 2) px of the keypoints of matches."""
        return self.image0.all.points[ij[:, 0]], self.image1.all.points[ij[:, 1]]

    def record(self, rejected: str | None = None, model: Model | None = None, agree: Any = None) -> EffortRecord:
        """What was done. model and agree: in the order of the work."""
        own = turned(model) if model is not None and self.is_turned else model
        geometry, matrix = (None, None) if own is None else own
        return EffortRecord("fast", tuple(self.stages), self.escalated, rejected, geometry, matrix, agree)


@dataclass(frozen=True, eq=False)
class _Found:
    """Matches of a pair, and what they agree with."""

    ij: Ints  # (K, 2) rows of all keypoints
    scores: Floats  # (K,)
    model: Model | None
    inliers: NDArray[np.bool_]  # (K,)
    flat: float = 0.0  # share of the inliers near one homography
    overlap: float | None = None  # None: the matcher does not say

    def summary(self) -> str:
        """In words."""
        overlap = "" if self.overlap is None else f", overlap {self.overlap:.2f}"
        return f"{int(self.inliers.sum())} of {len(self.ij)} matches of the strongest keypoints agree{overlap}"


@dataclass(frozen=True, eq=False)
class _Ran:
    """Keypoints of a pair, and what the matcher made of them."""

    seeds0: Seeds
    seeds1: Seeds
    result: Matches


class CoarseToFine(nn.Module):
    """A matcher that takes a fraction of the time for pairs that are easy, and does all its work on the others.

    It takes and returns the dictionaries of the matcher that it is given and goes wherever that goes.

    >>> matcher = CoarseToFine(LightGlue(features="aliked")).eval()
    >>> matches = matcher({"image0": features0, "image1": features1})  # doctest: +SKIP

    1. Mutual nearest descriptors without a rival. Where many of them, spread over the images, agree with one
       fundamental matrix or homography and hardly any does not, step 4 starts from these.
    2. Else a few hundred of the best keypoints go through the first layers. Where these see next to nothing, what they
       found is the result.
    3. Else the best keypoints of all parts of both images (by `keypoint_scores`) go through the matcher: the seeds. A
       model is estimated from their matches. Where too few agree with it, on too small a part of the images, or the
       overlap is low, all keypoints go through the matcher after all, with the result that it always gives. Where
       overlap and agreement are next to nothing, the matches of the seeds are the result.
    4. The other keypoints are matched near the epipolar lines and near where neighbouring matches point, by their
       descriptors, and checked against the model fitted to all matches.

    Steps 1 and 2 are those of LightGlue, in whichever runtime; a matcher that does not say by `feature_type` that it is
    one starts at 3.

    `matches`, `scores` and so on are those of all keypoints. The score of a match from steps 1 and 4 is its
    `confidence`, the probability that the matcher would have found it. `stop`, `prune0`, `prune1` and `overlap` are
    those of the seeds, or of the few of step 2: the overlap is the probability that the images overlap by what so few
    keypoints say, and a keypoint that took no part went through 0 layers. Of a pair that ended after step 1 the overlap
    is what the scores of its matches say. `effort` is an `EffortRecord`, of a batch of several pairs a list. No
    gradients are recorded.

    A pair's result depends on nothing but its two images, nor, unless it is matched as a whole, on which comes first.

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
    def _match(self, given: list[tuple[Any, Any]], names: list[str]) -> list[Matches]:
        """names: of the two images of each pair, for errors."""
        like, known = next(iter(self.parameters()), None), dict[Any, SeedImage]()
        images = [
            read_image(each, name, like, self.options.cells, known)
            for each, name in zip(sum(given, ()), names, strict=True)
        ]
        pairs = [_ordered(two, *both) for two, *both in zip(given, images[::2], images[1::2], strict=True)]
        options = self.options
        if self._is_known:
            todo = [pair for pair in pairs if self._is_worthwhile(pair, options.first_seeds)]
            self._look(todo)
            self._look_closer([pair for pair in todo if pair.result is None and pair.distinct < options.some_distinct])
        left = [pair for pair in pairs if pair.result is None]
        self._match_seeds([pair for pair in left if self._is_worthwhile(pair, options.seeds)])
        self._match_more([pair for pair in pairs if pair.result is None and self._is_too_large(pair)])
        self._finish([pair for pair in pairs if pair.result is None])
        return [cast(Matches, pair.result) for pair in pairs]

    @property
    def _is_known(self) -> bool:
        """Whether what the matcher would say can be told without it: of a matcher of the user's own it cannot."""
        return getattr(self.matcher, "feature_type", None) is not None

    def _is_worthwhile(self, pair: _Pair, seeds: int) -> bool:
        """Whether so many keypoints of each image are a small part of the work."""
        counts = len(pair.image0), len(pair.image1)
        return min(counts) > 0 and max(counts) > self.options.worthwhile * seeds

    def _is_too_large(self, pair: _Pair) -> bool:
        """Whether it is not matched as a whole."""
        most = self.options.most
        return most is not None and max(len(pair.image0), len(pair.image1)) > most

    # -- the stages, in their order --------------------------------------------------------------------------------

    def _look(self, pairs: list[_Pair]) -> None:
        """Match what descriptors alone tell apart."""
        with span("neighbors", pairs=len(pairs)):
            for pair in pairs:
                begin = perf_counter()
                found = self._distinct(pair)
                pair.distinct = int(found.inliers.sum())
                pair.stages.append(EffortStage("neighbors", perf_counter() - begin, pair.distinct))
                if self._is_beyond_doubt(pair, found):
                    self._guide(pair, found, None, 0.0)

    def _distinct(self, pair: _Pair) -> _Found:
        """The matches that descriptors alone tell apart, and what they agree with."""
        options = self.options
        most = min(options.compared, max(len(pair.image0), len(pair.image1)))
        ij, near = _passing(pair, most // 2, options.ratio)
        if len(ij) < options.few_distinct:
            return _Found(ij, np.zeros(len(ij)), None, np.zeros(len(ij), np.bool_))
        if options.half_will_do and len(ij) >= options.fewest_inliers:
            found = _agreeing(pair, ij, near, options)
            if self._is_beyond_doubt(pair, found):
                return found
        return _agreeing(pair, *_passing(pair, most, options.ratio), options)

    def _is_beyond_doubt(self, pair: _Pair, found: _Found) -> bool:
        options, ij = self.options, found.ij[found.inliers]
        compared = min(options.compared, len(pair.image0), len(pair.image1))
        return (
            found.model is not None
            and len(ij) >= max(options.fewest_inliers, options.distinct_part * compared)
            and len(ij) >= options.distinct_share * len(found.ij)
            and _spread(pair, ij) >= options.distinct_extent
        )

    def _look_closer(self, pairs: list[_Pair]) -> None:
        """Reject pairs of which few keypoints and few layers show that there is nothing."""
        options = self.options
        layers = options.first_layers if "layers" in _keywords(self.matcher) else None
        with span("first layers", pairs=len(pairs)):
            for pair, ran, seconds in self._run(pairs, options.first_seeds, layers):
                ij, scores = _matches_of(ran)
                pair.stages.append(EffortStage("first layers", seconds, len(ij)))
                every = ran.result.get("matching_scores0")  # below the threshold, too; a user's matcher may not say
                if every is not None and every.double().square().sum() < options.first_evidence:
                    reason = f"{len(ij)} matches of the best keypoints after the first layers"
                    pair.result = _assemble(pair, ij, scores, ran, pair.record(rejected=reason))

    def _match_seeds(self, pairs: list[_Pair]) -> None:
        """Match the strongest keypoints, and guide the others where these are to be trusted."""
        for pair, ran, found in self._seeded(pairs, self.options.seeds, "seeds"):
            if self._is_hopeless(found):
                pair.result = _assemble(pair, found.ij, found.scores, ran, pair.record(rejected=found.summary()))
            else:
                pair.escalated = self._doubt(pair, found)
                if pair.escalated is None:
                    self._guide(pair, found, ran, self._expected(pair, ran, found))

    def _match_more(self, pairs: list[_Pair]) -> None:
        """Match more keypoints in the place of all, and guide the others, too, where these are to be trusted."""
        for pair, ran, found in self._seeded(pairs, cast(int, self.options.most), "more keypoints"):
            if self._doubt(pair, found) is None:
                self._guide(pair, found, ran, self._expected(pair, ran, found))
            if pair.result is None:
                pair.result = _assemble(pair, found.ij, found.scores, ran, pair.record())

    def _seeded(self, pairs: list[_Pair], count: int, stage: str) -> Iterator[tuple[_Pair, _Ran, _Found]]:
        """Each pair, and what so many keypoints of it say."""
        with span(stage, pairs=len(pairs)):
            runs = self._run(pairs, count, None)
        with span("guided", pairs=len(pairs)):
            for pair, ran, seconds in runs:
                begin = perf_counter()
                ij, scores = _matches_of(ran)
                fit = fit_model(*pair.points(ij), self.options.error * pair.unit)
                pair.stages.append(EffortStage(stage, seconds, len(ij)))
                pair.stages.append(EffortStage("geometry", perf_counter() - begin, int(fit.inliers.sum())))
                yield pair, ran, _Found(ij, scores, *fit, _overlap_of(ran.result))

    def _finish(self, pairs: list[_Pair]) -> None:
        """Match pairs as a whole, in the order that they were given in."""
        begin = perf_counter()
        found = self._matches([pair.given for pair in pairs], None)
        each = (perf_counter() - begin) / max(1, len(pairs))
        for pair, result in zip(pairs, found, strict=True):
            pair.stages.append(EffortStage("all keypoints", each, len(result["matches"][0])))
            pair.result = cast(Matches, {**result, "effort": pair.record()})

    # -- their parts ----------------------------------------------------------------------------------------------

    def _run(self, pairs: list[_Pair], count: int, layers: int | None) -> list[tuple[_Pair, _Ran, float]]:
        """Each pair, what the matcher makes of so many of its keypoints, and the pair's share of the seconds."""
        begin = perf_counter()
        seeds = [(pair.image0.seeds(count), pair.image1.seeds(count)) for pair in pairs]
        results = self._matches([(first.features, second.features) for first, second in seeds], layers)
        each = (perf_counter() - begin) / max(1, len(pairs))
        return [(pair, _Ran(*two, result), each) for pair, two, result in zip(pairs, seeds, results, strict=True)]

    def _matches(self, pairs: list[tuple[Features, Features]], layers: int | None) -> list[Matches]:
        if not pairs:
            return []
        if hasattr(self.matcher, "match"):
            found = list(self.matcher.match(pairs, **({} if layers is None else {"layers": layers})))
        else:
            found = [self.matcher({"image0": a, "image1": b}) for a, b in pairs]
        for result in found:
            if missing := [key for key in _NEEDED if key not in result]:
                raise InputError(
                    f"The matcher gives no {' and '.join(missing)}, which effort 'fast' needs; leave it out."
                )
        return found

    def _is_hopeless(self, seeds: _Found) -> bool:
        if seeds.overlap is None:
            return len(seeds.ij) < 8  # which no geometry can be checked with
        options, count = self.options, seeds.inliers.sum()
        is_alike = seeds.overlap < options.alike_overlap and count < options.alike_inliers
        return bool(is_alike or (seeds.overlap < options.hopeless_overlap and count < options.hopeless_inliers))

    def _doubt(self, pair: _Pair, seeds: _Found) -> str | None:
        """Why the seeds of a pair are not trusted; None where they are."""
        options, count = self.options, seeds.inliers.sum()
        is_clear = count >= options.clear_share * len(seeds.ij)
        least = options.clear_overlap if is_clear else options.least_overlap
        if seeds.overlap is not None and seeds.overlap < least:
            return seeds.summary()
        if count < options.fewest_inliers or count < options.least_share * len(seeds.ij):
            return seeds.summary()
        if _spread(pair, seeds.ij[seeds.inliers]) < options.least_extent:
            return "the matches of the strongest keypoints that agree lie close together"
        return None

    def _guide(self, pair: _Pair, found: _Found, ran: _Ran | None, expected: float) -> None:
        """The result of a pair from matches that are trusted; without one where guidance finds too little.

        ran: what the matcher gave, None where it was not asked; expected: so many matches there would be.
        """
        begin, agreeing = perf_counter(), int(found.inliers.sum())
        ij, scores, model = self._more(pair, found)
        sure = scores > (getattr(getattr(self.matcher, "conf", None), "filter_threshold", None) or 0.0)
        ij, scores = ij[sure], scores[sure]
        pair.stages.append(EffortStage("guided", perf_counter() - begin, len(ij)))
        if len(ij) < self.options.least_share * agreeing:  # positions that no model can be computed with
            pair.escalated = "the seeds do not agree with their model"
        elif len(ij) < self._least_yield(found) * expected:  # descriptors alone do not tell these keypoints apart
            pair.escalated = f"guided matching finds {len(ij)} matches, {expected:.0f} were to be expected"
        else:
            agree = residuals(model, *pair.points(ij)) <= self.options.error * pair.unit
            record = pair.record(model=model, agree=agree)
            pair.result = _assemble(pair, ij, scores, ran, record, coefficients_of(self.matcher))

    def _expected(self, pair: _Pair, ran: _Ran, found: _Found) -> float:
        """Matches that there would be, had all keypoints as many as these."""
        share = min(len(pair.image0) / len(ran.seeds0.rows), len(pair.image1) / len(ran.seeds1.rows))
        return int(found.inliers.sum()) * share

    def _least_yield(self, seeds: _Found) -> float:
        is_plane = seeds.flat >= self.options.maybe_flat
        return self.options.plane_yield if is_plane else self.options.least_yield

    def _more(self, pair: _Pair, found: _Found) -> tuple[Ints, Floats, Model]:
        """The matches (K, 2) of all keypoints, ordered by the first, their scores, and the model fitted to them."""
        guided, seeds, scores = self.options.guided, found.ij[found.inliers], found.scores[found.inliers]
        ij, scores, model = self._once(pair, seeds, scores, cast(Model, found.model), guided)
        if model.geometry == "homography" and len(ij) >= len(seeds):
            # It says where each keypoint is, so that fewer rivals are left once it is exact.
            ij, scores, model = self._once(pair, ij, scores, model, replace(guided, least_radius=guided.plane_radius))
        return ij, scores, model

    def _once(
        self, pair: _Pair, seeds: Ints, scores: Floats, model: Model, options: GuidedOptions
    ) -> tuple[Ints, Floats, Model]:
        """`seeds` and what they and the model lead to, as `_more`."""
        more, evidence = guided_matches(pair.image0.all, pair.image1.all, seeds, model, options)
        sure = confidence(evidence)
        kept = sure >= options.least_confidence
        ij, scores = np.concatenate([seeds, more[kept]]), np.concatenate([scores, sure[kept]])
        order = np.argsort(ij[:, 0], kind="stable")
        ij, scores = ij[order], scores[order]
        fitted = refit(model, *pair.points(ij), self.options.error * pair.unit)
        close = residuals(fitted, *pair.points(ij)) <= options.error * pair.unit
        if close.sum() < len(seeds):  # it says less than what it was fitted to
            fitted, close = model, residuals(model, *pair.points(ij)) <= options.error * pair.unit
        return ij[close], scores[close], fitted


def _keywords(matcher: Any) -> Collection[str]:
    """What the matcher's `match` takes."""
    return signature(matcher.match).parameters if hasattr(matcher, "match") else ()


def _batch(images: Any) -> int:
    """The number of images of a features dictionary; 1 where it is none, which is said later."""
    keypoints = images.get("keypoints") if isinstance(images, Mapping) else None
    return len(keypoints) if isinstance(keypoints, Tensor) and keypoints.ndim == 3 else 1


def _single(images: Any, i: int, count: int) -> Any:
    """Image i of a batch."""
    return {
        key: value[i : i + 1] if isinstance(value, Tensor) and value.ndim > 1 and len(value) == count else value
        for key, value in images.items()
    }


def _ordered(given: tuple[Any, Any], image0: SeedImage, image1: SeedImage) -> _Pair:
    """A pair, its images in an order that does not depend on which one was given first."""
    if is_in_order(image0, image1):
        return _Pair(given, image0, image1, False)
    return _Pair(given, image1, image0, True)


def _agreeing(pair: _Pair, ij: Ints, near: Distinct, options: CoarseToFineOptions) -> _Found:
    """The matches that descriptors alone tell apart, and what they agree with."""
    model, inliers, flat = fit_model(*pair.points(ij), options.error * pair.unit, QUICK)
    scores = np.zeros(len(ij))
    if model is not None:
        # as if guidance had found them a little beside where neighbours point
        middle, deviation = scale_of(near.similarity[inliers])
        beside = np.full(len(ij), 2.0), np.full(len(ij), options.guided.least_radius)
        similarity, margin = ((each / deviation).astype(np.float64) for each in (near.similarity - middle, near.margin))
        scores = confidence(Evidence(similarity, margin, *beside))
    return _Found(ij, scores, model, inliers, flat)


def _passing(pair: _Pair, count: int, ratio: float) -> tuple[Ints, Distinct]:
    """The mutual nearest ones of so many keypoints of each image that pass the ratio test."""
    first, second = (image.seeds(count).rows for image in (pair.image0, pair.image1))
    near = distinct_neighbors(pair.image0.all.descriptors[first], pair.image1.all.descriptors[second], ratio)
    return np.stack([first[near.ij[:, 0]], second[near.ij[:, 1]]], 1), near


def _spread(pair: _Pair, ij: Ints) -> float:
    """Over how much of the longer edge matches spread, in the image where that is less."""
    both = zip((pair.image0, pair.image1), pair.points(ij), strict=True)
    return min(extent(points) / image.all.extent for image, points in both) if len(ij) else 0.0


def _matches_of(ran: _Ran) -> tuple[Ints, Floats]:
    """The matches as rows of all keypoints, and their scores."""
    matches = ran.result["matches"][0].cpu().numpy()
    ij = np.stack([ran.seeds0.rows[matches[:, 0]], ran.seeds1.rows[matches[:, 1]]], 1)
    return ij, ran.result["scores"][0].double().cpu().numpy()


def _overlap_of(result: Matches) -> float | None:
    return float(result["overlap"][0]) if "overlap" in result else None


def _assemble(
    pair: _Pair, ij: Ints, scores: Floats, ran: _Ran | None, record: EffortRecord, fitted: Coefficients | None = None
) -> Matches:
    """The dictionary of a pair as the matcher gives it, in the order that the pair was given in.

    ran: whose `stop`, `prune0`, `prune1` and `overlap` it has; without one no layer was run, and the overlap is what
    the scores of the matches say by `fitted`, where there is that.
    """
    images, seeds = [pair.image0, pair.image1], [] if ran is None else [ran.seeds0, ran.seeds1]
    given: Any = {} if ran is None else ran.result
    like: Tensor = torch.zeros(0, device=pair.image0.size.device) if ran is None else given["scores"][0]
    sides = (1, 0) if pair.is_turned else (0, 1)
    order = np.argsort(ij[:, sides[0]], kind="stable")
    rows = torch.from_numpy(ij[order][:, sides]).to(like.device)
    values = torch.from_numpy(scores[order]).to(like)
    if record.inliers is not None:
        record = replace(record, inliers=record.inliers[order])
    made: dict[str, Any] = {"matches": [rows], "scores": [values], "effort": record}
    for side, own in enumerate(sides):
        count = len(images[own])
        made[f"matches{side}"] = torch.full((1, count), -1, dtype=torch.int64, device=like.device)
        made[f"matching_scores{side}"] = like.new_zeros(1, count)
        made[f"matches{side}"][0, rows[:, side]] = rows[:, 1 - side]
        made[f"matching_scores{side}"][0, rows[:, side]] = values
        if ran is None:
            made[f"prune{side}"] = torch.zeros(1, count, dtype=torch.int64, device=like.device)
        elif f"prune{own}" in given:
            layers = given[f"prune{own}"]
            made[f"prune{side}"] = layers.new_zeros(1, count)
            made[f"prune{side}"][0, torch.from_numpy(seeds[own].rows).to(like.device)] = layers[0]
    if ran is None:
        made["stop"] = 0
        if fitted is not None:
            made["overlap"] = overlap_probability(values, len(images[0]), len(images[1]), fitted)[None]
    return cast(Matches, made | {key: given[key] for key in ("stop", "overlap") if key in given})


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
