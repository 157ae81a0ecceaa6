"""Runs made up for the tests of what is made of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightglue.evaluation.records import Metric, Record, RecordWriter, Run, read_run, start_run

ERROR = Metric("corner_error/poselib@1", "error", "corner error, PoseLib 1 px", "px", (2, 4))
SHARE = Metric("precision@3", "share", "precision at 3 px")
COUNT = Metric("correct@3", "count", "correct matches at 3 px")


def make_run(
    folder: Path,
    *,
    errors: Sequence[float],
    shares: Sequence[float] | None = None,
    counts: Sequence[float] | None = None,
    scenes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    images: Sequence[tuple[str, str]] | None = None,
    failures: Mapping[int, str] | None = None,
    seconds: Sequence[Mapping[str, float]] | None = None,
    pairs: int | None = None,
    benchmark: str = "planes",
    metrics: Sequence[Metric] = (ERROR, SHARE, COUNT),
    settings: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Run:
    """A run in `folder` whose pair i has errors[i]; the first len(errors) of `pairs` pairs are done."""
    total = len(errors) if pairs is None else pairs
    known = list(names or ()) + [f"pair {i}" for i in range(len(names or ()), total)]
    run = start_run(
        Run(
            folder,
            benchmark,
            "homography",
            pairs=tuple(known),
            metrics=tuple(metrics),
            settings=settings or {"extractor": "aliked", "matcher": "lightglue"},
            about=about or {"source": "made up", "licence": "CC0"},
        )
    )
    with RecordWriter(run) as writer:
        for i, error in enumerate(errors):
            failed = (failures or {}).get(i, "no model" if math.isinf(error) else None)
            share = shares[i] if shares is not None else 1 / (1 + error)
            count = counts[i] if counts is not None else 100 * share
            values = {ERROR.name: error, SHARE.name: float(share), COUNT.name: float(count)}
            image0, image1 = images[i] if images else (f"{known[i]}/a.jpg", f"{known[i]}/b.jpg")
            writer.write(
                Record(
                    pair=known[i],
                    index=i,
                    scene=scenes[i] if scenes else "scene",
                    image0=image0,
                    image1=image1,
                    failure=failed,
                    num_keypoints=(500, 400),
                    num_matches=100,
                    values={metric.name: values[metric.name] for metric in metrics},
                    seconds=seconds[i] if seconds else {"extract": 0.5, "match": 0.25},
                )
            )
    return read_run(folder)
