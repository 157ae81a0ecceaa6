"""`effort="hard"` where keypoints are fixed: the search between two images, and what it says of keypoints there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.geometry.transfer import carry, transfer
from lightglue.pairs.record import LIKELY, MatchedPair
from lightglue.stores import PairHead
from lightglue.types import ExtractKeywords, Features

__all__ = ["HARD", "Found", "HardSearch", "View", "hopeful"]

Floats = NDArray[np.float64]

HARD = "hard: "  # begins the note of a pair that was searched
GOOD_OVERLAP, GOOD_MATCHES = 0.9, 40  # of pairs that plain matching has done: as `lightglue.pairs.hard` has it
CONNECTED = 3  # such pairs of an image, with which it needs no others
TRIED = 3  # pairs of an image that has fewer, which are searched
REACH, ERROR = 20.0, 3.0  # px of an image whose long side has 1,024
_REFERENCE_EDGE = 1024

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class View:
    """An image as the search sees it."""

    pixels: Any  # (H, W, 3) array, or (3, H, W) tensor
    features: Features  # batch of one
    mask: Any = None  # (H, W) bool: where keypoints may lie

    @property
    def keypoints(self) -> Floats:
        """(N, 2) px."""
        return cast(Floats, self.features["keypoints"][0].detach().cpu().double().numpy())

    @property
    def unit(self) -> float:
        """px of this image for one of an image whose long side has 1,024."""
        shape = self.pixels.shape
        edge = max(shape[:2] if shape[-1] in (1, 3) else shape[-2:])
        return max(1.0, float(edge) / _REFERENCE_EDGE)


@dataclass(frozen=True, eq=False)
class Found:
    """What the search found: matches at any positions that agree with a geometry."""

    points0: Floats  # (K, 2) px
    points1: Floats
    scores: Floats  # (K,)
    found_by: str
    plain: NDArray[np.int64]  # (P, 2) rows of keypoints, as plain matching has them
    plain_scores: Floats  # (P,)

    def of_keypoints(self, view0: View, view1: View) -> tuple[NDArray[np.int64], Floats]:
        """Rows (L, 2) of keypoints of both images that these say are the same, and scores (L,).

        Those of plain matching that fit what was found; and of others at most one for each match that was found: that
        keypoints are many makes no more evidence of it.
        """
        unit = max(view0.unit, view1.unit)
        points0, points1 = view0.keypoints, view1.keypoints
        there = carry(points0, self.points0, self.points1, REACH * unit).positions
        away = np.linalg.norm(there[self.plain[:, 0]] - points1[self.plain[:, 1]], axis=1)
        fits = away <= 2 * ERROR * unit  # NaN where nothing was found nearby
        plain, scores = self.plain[fits], self.plain_scores[fits]
        found = transfer(
            points0, points1, self.points0, self.points1, self.scores, reach=REACH * unit, error=ERROR * unit
        )
        away = np.linalg.norm(points0[found.matches[:, 0]] - self.points0[found.carried_by], axis=1)
        rows = _nearest_of_each(found.carried_by, away)
        more = found.matches[rows]
        new = ~(np.isin(more[:, 0], plain[:, 0]) | np.isin(more[:, 1], plain[:, 1]))
        both = np.concatenate([plain, more[new]]), np.concatenate([scores, found.scores[rows][new]])
        order = np.argsort(both[0][:, 0], kind="stable")
        return both[0][order], both[1][order]

    def of_points(self, view0: View, view1: View, rows1: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64], Floats]:
        """Where image 0 shows keypoints `rows1` of image 1: positions (L, 2), rows (L,) and scores (L,).

        Likewise at most one for each match.
        """
        keypoints = view1.keypoints[rows1]
        found = carry(keypoints, self.points1, self.points0, REACH * view1.unit)
        there = (found.match >= 0).nonzero()[0]
        away = np.linalg.norm(keypoints[there] - self.points1[found.match[there]], axis=1)
        there = there[_nearest_of_each(found.match[there], away)]
        return found.positions[there], rows1[there], self.scores[found.match[there]]


def _nearest_of_each(match: NDArray[np.int64], away: Floats) -> NDArray[np.int64]:
    """Of each match the row that is nearest to it, in the order of the rows."""
    order = np.argsort(away, kind="stable")
    return np.sort(order[np.unique(match[order], return_index=True)[1]])


class HardSearch:
    """Extractor, matcher and how images were extracted."""

    def __init__(self, extractor: Any, matcher: Any, options: Mapping[str, Any], max_seconds: float | None) -> None:
        self.extractor, self.matcher, self.options, self.max_seconds = extractor, matcher, dict(options), max_seconds

    @torch.inference_mode()
    def between(self, view0: View, view1: View) -> Found | None:
        """What is found beyond plain matching; None where that has done it, or nothing is that is probably right.

        A map is made of it, where what repeats on a façade does more harm than a pair less.
        """
        from lightglue.pairs.hard.pair import match_hard

        both = view0.features, view1.features
        if not all(each["keypoints"].shape[1] for each in both):
            return None
        pair = MatchedPair.of(*both, self.matcher({"image0": both[0], "image1": both[1]}))
        images, masks = (view0.pixels, view1.pixels), (view0.mask, view1.mask)
        options = cast(ExtractKeywords, self.options)
        models = self.extractor, self.matcher
        done = match_hard(pair, images, masks, *models, options, max_seconds=self.max_seconds)
        record = done.effort
        if record is None or record.found_by is None or (done.overlap is not None and done.overlap < LIKELY):
            return None
        points0, points1, scores = (done.matches01[name].double().numpy() for name in ("points0", "points1", "scores"))
        rows = slice(None) if record.inliers is None else record.inliers
        plain = pair.matches.cpu().numpy().astype(np.int64).reshape(-1, 2)
        strengths = pair.matches01["scores"].double().cpu().numpy()
        return Found(points0[rows], points1[rows], scores[rows], record.found_by, plain, strengths)


def hopeful(pairs: Iterable[PairHead], searched: Collection[Pair] = ()) -> list[Pair]:
    """The pairs that are worth a search, of all that were matched plainly, or were `searched` already.

    An image that plain matching has connected with three others needs none; of any other image these are the three
    pairs of which plain matching says most, by the overlap, or the matches where there is none. So the number of images
    bounds the time.
    """
    good: dict[str, int] = {}
    ranked: list[tuple[float, Pair]] = []
    for head in pairs:
        names = head.name0, head.name1
        overlap = 1.0 if head.overlap is None else head.overlap
        if names not in searched and overlap >= GOOD_OVERLAP and head.num_matches >= GOOD_MATCHES:
            for name in names:
                good[name] = good.get(name, 0) + 1
        else:
            # Nothing that a search changes: what is chosen after a kill is what would have been.
            ranked.append((-head.num_matches if head.overlap is None else -head.overlap, names))
    tried: dict[str, int] = {}
    chosen = []
    for _, names in sorted(ranked):
        wanting = [name for name in names if good.get(name, 0) < CONNECTED and tried.get(name, 0) < TRIED]
        if wanting:
            chosen.append(names)
            for name in wanting:
                tried[name] = tried.get(name, 0) + 1
    return sorted(chosen)
