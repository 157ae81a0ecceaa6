"""WxBS: pairs that differ in several ways at once (viewpoint, light, season, sensor), with points marked by hand.

Mishkin, Matas, Perdoch and Lenc, "WxBS: Wide baseline stereo generalizations", BMVC 2015; version 1.1. Layout:
GROUP/PAIR/01.png and 02.png (or .jpg), corrs.txt with a row x0 y0 x1 y1 for each point, and crossval_errors.txt.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.evaluation.datasets.dataset import Dataset, Download, PairList, numbers, read_lines
from lightglue.evaluation.pair import Correspondences, Protocol
from lightglue.geometry.options import EstimatorOptions

__all__ = ["DATASET", "VALIDATION"]

# ducha-aiki/wxbs-benchmark, dataset.ipynb: these are for validation; its README counts 32 others.
VALIDATION = frozenset({"kyiv_dolltheater2", "petrzin"})
PAIRS = 32


def _add_pairs(root: Path, listed: PairList) -> None:
    for path in sorted(root.glob("*/*/corrs.txt")):
        pair = path.parent
        if pair.name in VALIDATION:
            continue
        end = "png" if (pair / "01.png").exists() or not (pair / "01.jpg").exists() else "jpg"
        image0, image1 = (f"{pair.parent.name}/{pair.name}/{n}.{end}" for n in ("01", "02"))
        listed.add(image0, image1, partial(_correspondences, path), scene=pair.parent.name)
    listed.expect(PAIRS, len(listed), "pairs", root)


def _correspondences(path: Path) -> Correspondences:
    rows: list[NDArray[np.float64]] = [numbers(line.replace(",", " ").split(), str(path)) for line in read_lines(path)]
    if not rows or any(len(row) < 4 for row in rows):
        raise InputError(f"{path} must have rows of x0 y0 x1 y1; fetch it again.")
    points = np.stack([row[:4] for row in rows])
    return Correspondences(points[:, :2], points[:, 2:])


DATASET = Dataset(
    name="wxbs",
    title="WxBS 1.1",
    kind="points",
    licence="no licence file is known",
    # URL and md5: ducha-aiki/wxbs-benchmark, dataset.ipynb, which checks it. The mirror: davnords/LoMa, which takes it
    # instead of the first URL and keeps the md5.
    downloads=(
        Download(
            urls=(
                "http://cmp.felk.cvut.cz/wbs/datasets/WxBS_v1.1.zip",
                "https://github.com/Parskatt/storage/releases/download/wxbs/WxBS_v1.1.zip",
            ),
            filename="WxBS_v1.1.zip",
            md5="66da037e7d20487e86db147307615870",
        ),
    ),
    add_pairs=_add_pairs,
    # ducha-aiki/wxbs-benchmark: its README estimates F with MAGSAC++ at 0.25 px (100,000 iterations, confidence 0.999)
    # on the images as they are; evaluation.ipynb averages the share of points that agree with F within 0 to 19 px.
    protocol=Protocol(
        max_keypoints=2048,
        estimators=(
            EstimatorOptions("opencv", 0.5),
            EstimatorOptions("opencv", 0.25, max_iterations=100_000, confidence=0.999),
        ),
        thresholds=tuple(float(px) for px in range(1, 21)),
        reference="https://github.com/ducha-aiki/wxbs-benchmark",
    ),
    folders=("WxBS_v1.1", "WxBS", "v1.1"),
    markers=("*/*/corrs.txt",),
    notes=(
        "wxbs-benchmark averages over 0 to 19 px; here it is 1 to 20 px.",
        "wxbs-benchmark's README shows MAGSAC++ at 0.25 px with 100,000 iterations, which is the second estimator "
        "here; the first is that of the other benchmarks of points.",
        "The number of keypoints is not part of the published protocol.",
    ),
)
