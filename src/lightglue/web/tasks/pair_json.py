"""A pair as the page and other programs read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lightglue.pairs.files import MatchedFiles
from lightglue.pairs.record import MatchedPair
from lightglue.pairs.words import line_of, rows_of
from lightglue.web.tasks.kept import Kept

__all__ = ["pair_json"]


def pair_json(
    kept: Kept, found: MatchedFiles, images: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> bytes:
    """JSON without the result's id, which is not known here: it begins with `{` and a first member.

    Matches come in order of their scores, highest first. Numbers are printed so that the same float32 is read again.
    """
    pair, summary = kept.pair, found.summary()
    order = kept.order()
    sizes = kept.sizes
    content: dict[str, Any] = {
        "images": [
            {"id": image["id"], "name": image["name"], "width": width, "height": height}
            for image, (width, height) in zip(images, sizes, strict=True)
        ],
        "features": summary["features"],
        "matcher": summary["matcher"],
        "options": dict(options),
        "threshold": kept.threshold,
        "layers": _layers(pair, summary),
        "overlap": summary.get("overlap"),
        "num_dropped": summary.get("num_dropped"),
        "rotation": summary.get("rotation"),
        "effort": {
            name: summary[name] for name in ("effort", "stages", "escalated", "rejected", "found_by") if name in summary
        }
        or None,
        "seconds": summary["seconds"],
        "geometry": _geometry(found, kept),
        "device": summary["device"],
        "precision": summary["precision"],
        "warnings": list(found.warnings),
        "summary": line_of(summary),
        "rows": rows_of(summary),
    }
    moved = {}
    if kept.request.options.refine:
        moved = {f"points{i}": points[order] for i, points in enumerate((pair.points0, pair.points1))}
    numbers = {
        "keypoints0": pair.keypoints0,
        "keypoints1": pair.keypoints1,
        **{
            f"keypoint_scores{i}": each["keypoint_scores"]
            for i, each in enumerate((pair.features0, pair.features1))
            if "keypoint_scores" in each
        },
        "matches": pair.matches[order],
        "scores": pair.scores[order],
        **moved,
    }
    arrays = ",".join(f'"{name}":{_numbers(value)}' for name, value in numbers.items())
    return f"{json.dumps(content, allow_nan=False, separators=(',', ':'))[:-1]},{arrays}}}".encode()


def _numbers(values: Tensor) -> str:
    flat = values.detach().cpu().reshape(-1).numpy()
    if flat.dtype == np.float32:
        return f"[{','.join(map(_shortest, flat))}]"
    return json.dumps(flat.tolist(), separators=(",", ":"), allow_nan=False)


def _shortest(value: np.float32) -> str:
    return str(value) if np.isfinite(value) else "null"


def _layers(pair: MatchedPair, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the matcher stopped, and through how many layers each keypoint went; None where it has none."""
    if "stop" not in summary:
        return None
    found: dict[str, Any] = {"stop": summary["stop"], "of": summary["layers"], "pruned": summary.get("pruned")}
    for i, keypoints in enumerate((pair.keypoints0, pair.keypoints1)):
        prune: Any = pair.matches01.get(f"prune{i}")
        known = isinstance(prune, Tensor) and len(prune) == len(keypoints)
        found[f"pruned{i}"] = _integers(prune) if known else None
    return found


def _integers(values: Iterable[Any]) -> list[int]:
    return [int(value) for value in values]


def _geometry(found: MatchedFiles, kept: Kept) -> dict[str, Any] | None:
    estimate, summary = found.pair.geometry, found.summary()
    if estimate is None:
        return None
    rows = [row for row, asked in zip(kept.places(), kept.asked_for(), strict=True) if asked]
    rows = rows if len(rows) == len(found.pair.matches) else []
    return {
        "geometry": estimate.geometry,
        "estimator": estimate.statistics.options.label,
        "threshold": estimate.statistics.options.pixels,
        "model": summary["model"],
        "failure": summary.get("failure"),
        "cameras": summary.get("cameras"),
        "inliers": [row for row, inside in zip(rows, estimate.inliers.tolist(), strict=True) if inside],
        "num_matches": summary["num_matches"],
        "seconds": estimate.statistics.seconds,
        "summary": str(estimate),
    }
