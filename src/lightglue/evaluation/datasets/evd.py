"""EVD, the Extreme View Dataset: pairs of planes seen from very different angles.

Mishkin, Matas and Perdoch, "MODS: Fast and robust method for two-view matching", CVIU 2015. Layout: EVD/1/NAME.png,
EVD/2/NAME.png and EVD/h/NAME.txt, image 1 to image 2.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from lightglue.errors import InputError
from lightglue.evaluation.datasets.dataset import Dataset, Download, PairList, read_numbers
from lightglue.evaluation.pair import Homography, Protocol
from lightglue.geometry.options import EstimatorOptions

__all__ = ["DATASET"]


def _add_pairs(root: Path, listed: PairList) -> None:
    for path in sorted((root / "h").glob("*.txt")):
        listed.add(f"1/{path.stem}.png", f"2/{path.stem}.png", partial(_homography, path), scene=path.stem)


def _homography(path: Path) -> Homography:
    H = read_numbers(path, 3)
    if H.shape == (3, 3) and np.isfinite(H[2, 2]) and H[2, 2]:
        return Homography(H / H[2, 2])
    raise InputError(f"{path} holds {H.tolist()!r:.200}, which is no homography; fetch it again.")


DATASET = Dataset(
    name="evd",
    title="EVD (Extreme View Dataset)",
    kind="homography",
    licence="no licence file is known",
    # URL and md5: cvg/glue-factory, gluefactory/datasets/evd.py. 28 MB: public projects that use it.
    downloads=(
        Download(
            urls=("http://cmp.felk.cvut.cz/wbs/datasets/EVD.zip",),
            filename="EVD.zip",
            size="28 MB",
            md5="7ce52151abdafa71a609424d09e43075",
        ),
    ),
    add_pairs=_add_pairs,
    # cvg/glue-factory, gluefactory/eval/evd.py: size, side, PoseLib at 1 px, thresholds. It leaves the number of
    # keypoints to the model.
    protocol=Protocol(
        max_keypoints=2048,
        estimators=(EstimatorOptions("opencv", 0.5), EstimatorOptions("poselib", 1.0), EstimatorOptions("dlt")),
        thresholds=(1.0, 5.0, 10.0, 20.0),
        resize=600,
        side="short",
        reference="https://github.com/cvg/glue-factory/blob/main/gluefactory/eval/evd.py",
    ),
    folders=("EVD",),
    markers=("h/*.txt",),
    notes=(
        "glue-factory's estimator is PoseLib at 1 px, which is the second one here; the first is OpenCV's MAGSAC++ at "
        "0.5 px, as in the other benchmarks of homographies.",
        "H is taken to hold for px whose (0, 0) is the centre of the top-left pixel; glue-factory applies it to px "
        "whose (0, 0) is that pixel's corner.",
    ),
)
