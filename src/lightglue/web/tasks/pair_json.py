"""A pair as the page and other programs read it: what the viewer takes, and what only a service knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightglue.pairs.files import MatchedFiles
from lightglue.pairs.record import MatchedPair
from lightglue.pairs.viewed import viewed, viewed_geometry
from lightglue.pairs.words import line_of, rows_of
from lightglue.web.tasks.kept import Kept

__all__ = ["geometry_json", "pair_json"]


def pair_json(
    kept: Kept, found: MatchedFiles, images: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> bytes:
    """JSON of `lightglue.pairs.viewed.viewed`, without the result's id, which is not known here.

    kept: with all matches that may be shown. found: with those that the options ask for.
    """
    summary = found.summary()
    about: dict[str, Any] = {"threshold": kept.threshold, "floor": kept.floor, "sizes": kept.sizes}
    content = viewed(kept.pair, found.names, summary, **about)  # without a warp, which `estimate` has
    del content["id"]
    for described, image in zip(content["images"], images, strict=True):
        described["id"] = image["id"]
    content |= {
        "options": dict(options),
        "geometry": geometry_json(found.pair, summary),
        "stages": summary.get("stages"),
        "num_dropped": summary.get("num_dropped"),
        "device": summary["device"],
        "summary": line_of(summary),
        "rows": rows_of(summary),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def geometry_json(pair: MatchedPair, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Its geometry. `inliers` are rows of the matches as they are shown, those that score highest first."""
    if pair.geometry is None:
        return None
    order = np.argsort(-np.asarray(pair.scores.cpu()), kind="stable")
    found = viewed_geometry(pair.geometry, order)
    about = {"num_matches": len(pair.matches), "cameras": summary.get("cameras"), "summary": str(pair.geometry)}
    return found | about
