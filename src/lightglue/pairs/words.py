"""What is said of a matched pair: the rows that `lightglue match` prints, from the summary that it writes as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightglue.matching.config import PRESETS

__all__ = ["line_of", "rows_of", "texts_of"]

_USUAL = (None, *(preset.weights for preset in PRESETS.values()))  # published ones, of which nobody wonders


def rows_of(summary: Mapping[str, Any]) -> dict[str, str]:
    """Names and texts. summary: of `MatchedFiles.summary()`."""
    dropped = ""
    if "num_dropped" in summary:
        dropped = f" ({summary['num_dropped']} dropped: overlap below {summary['min_overlap']:g})"
    return {
        "images": " - ".join(Path(name).name for name in summary["files"]),
        "keypoints": " + ".join(str(count) for count in summary["num_keypoints"]),
        "matches": f"{summary['num_matches']}{dropped}",
        **({"overlap": f"{summary['overlap']:.3f}"} if "overlap" in summary else {}),
        **({"rotation": f"{summary['rotation']:g} degrees"} if "rotation" in summary else {}),
        **({"stop layer": f"{summary['stop']} of {summary['layers']}"} if "stop" in summary else {}),
        **(_geometry_rows(summary) if "geometry" in summary else {}),
        **({"effort": _effort_text(summary)} if "effort" in summary else {}),
        **({"backend": summary["backend"]} if summary["backend"] != "torch" else {}),
        "precision": summary["precision"],
        **({"weights": summary["weights"]} if summary.get("weights") not in _USUAL else {}),
        **({"pruned": _pruned(summary)} if "pruned" in summary else {}),
        **{name: f"{seconds:.2f} s" for name, seconds in summary["seconds"].items()},
        **({"written": "\n".join(summary["outputs"])} if summary["outputs"] else {}),
        **({"not written": "\n".join(summary["not_written"])} if "not_written" in summary else {}),
    }


def line_of(summary: Mapping[str, Any]) -> str:
    """The matches and how they were found, in a line."""
    number = summary["num_matches"]
    parts = [f"{number} match{'es' * (number != 1)}"]
    if "overlap" in summary:
        parts.append(f"overlap {summary['overlap']:.3f}")
    if "stop" in summary:
        parts.append(f"stop {summary['stop']} of {summary['layers']}")
    if "pruned" in summary:
        parts.append(f"pruned {_pruned(summary)}")
    return ", ".join(parts)


def texts_of(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What is written below a picture, after the number of matches."""
    texts = [f"{summary['stop']} of {summary['layers']} layers"] if "stop" in summary else []
    if "num_dropped" in summary:
        texts.append("probably no overlap")
    if summary.get("rotation"):
        texts.append(f"second rotated by {summary['rotation']:g}°")
    if "geometry" in summary and "num_dropped" not in summary:
        name = str(summary["geometry"]).replace("_", " ")
        texts.append(f"no {name}" if summary["model"] is None else f"{name} {summary['estimator']}")
    seconds = summary["seconds"]["extraction"] + summary["seconds"]["matching"]
    return (*texts, f"{seconds:.1f} s", f"{summary['features']} + {summary['matcher']}")


def _pruned(summary: Mapping[str, Any]) -> str:
    return " + ".join(f"{share:.0%}" for share in summary["pruned"])


def _effort_text(summary: Mapping[str, Any]) -> str:
    """The effort, what was done one after the other, and why not only that."""
    steps = [f"{stage['name']} {stage['seconds']:.2f} s" for stage in summary["stages"]]
    reason = summary.get("escalated") or summary.get("rejected")
    return f"{summary['effort']}: {', '.join(steps)}" + (f"\n({reason})" if reason else "")


def _geometry_rows(summary: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    if "cameras" in summary:
        focal = [f"{camera['K'][0][0]:.6g} px ({camera['source']})" for camera in summary["cameras"]]
        found["focal"] = " - ".join(focal)
    name = summary["geometry"].replace("_", " ")
    if summary["model"] is None:
        return {**found, name: f"none: {summary['failure']}"}
    matrix = "\n".join("  ".join(f"{value: .6g}".ljust(13) for value in row).rstrip() for row in summary["model"])
    return {**found, "inliers": f"{summary['num_inliers']} ({summary['estimator']})", name: matrix}
