"""What "auto" stands for: which sources of pairs a collection gets, by its size and by what is known of its places.

Every pair of a small collection, and with effort "fast" those that something speaks for. Beyond, each image with those
taken nearest to it, where nearly all files say where they were taken and the places differ by more than a receiver
errs, together with those most like it: what one source does not know, such as a wrong position or fields that all look
the same, the other may. Without places, every pair as far as that is affordable: retrieval alone misses a third of the
pairs of a flight over fields (docs/decisions/034).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightglue.matching.effort import Effort
from lightglue.sfm.options import PairOptions
from lightglue.sfm.stages.pairing.positions import near_distance

__all__ = ["Choice", "automatic"]

SMALL = 30  # images, up to which every pair is matched whatever is known: 435
FEW = 15  # the same with effort "fast", which learns what is alike at a hundredth of what a pair costs: 105
GROWING = 200  # images, up to which those are compared by their keypoints that effort "fast" matches: 12 s of a core
_LOCATED = 0.9  # share of the images whose files say where
_ERROR = 20.0  # m: neighbours that are nearer than this are in an order that positions do not know
_FAR = 2.0  # times the usual distance of the last neighbour: beyond, an image is left to retrieval


@dataclass(frozen=True)
class Choice:
    """The options with "auto" replaced, and why, in words."""

    options: PairOptions
    why: str | None = None  # None: nothing was left to choose


def automatic(
    options: PairOptions, count: int, positions: NDArray[np.float64] | None, effort: Effort = "normal"
) -> Choice:
    """What "auto" among the sources stands for.

    count: of the images. positions: (L, 3) m of those whose files say where they were taken; None: nobody looked.
    effort: with which pairs are matched.
    """
    if "auto" not in options.sources:
        return Choice(options)
    may_grow = effort == "fast" and count <= min(max(GROWING, options.auto_exhaustive), options.max_exhaustive)
    if count <= min(FEW if may_grow else SMALL, options.auto_exhaustive):
        return _chosen(options, ("exhaustive",), f"every pair of {count} images")
    if may_grow and count <= SMALL:  # of so few images places tell less
        positions = None
    radius = None if positions is None else _radius(positions, options.gps_neighbors, count)
    if radius is not None and positions is not None:
        why = f"the nearest by GPS, which {len(positions)} of {count} images have, and the most similar"
        radius = max(options.gps_radius, radius)
        return _chosen(replace(options, gps_radius=radius), ("gps", "retrieval"), why)
    if may_grow:
        return _chosen(options, ("growing",), f"the most similar of {count} images, and what these lead to")
    if count <= options.auto_exhaustive:
        return _chosen(options, ("exhaustive",), f"every pair of {count} images")
    return _chosen(options, ("retrieval",), f"the most similar, for {count} images")


def _chosen(options: PairOptions, auto: tuple[str, ...], why: str) -> Choice:
    sources = [each for source in options.sources for each in (auto if source == "auto" else (source,))]
    return Choice(replace(options, sources=tuple(dict.fromkeys(sources))), why)


def _radius(positions: NDArray[np.float64], neighbors: int, count: int) -> float | None:
    """m, within which neighbours are looked for; None where positions do not tell who they are."""
    if len(positions) < _LOCATED * count or len(positions) <= neighbors:
        return None
    usual = float(np.median(near_distance(positions, neighbors)))
    return None if usual < _ERROR else _FAR * usual
