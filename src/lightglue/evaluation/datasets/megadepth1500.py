"""MegaDepth-1500: 1,500 pairs of photographs of two landmarks, with relative poses.

Chosen by Sun et al., "LoFTR", CVPR 2021, from Li and Snavely, "MegaDepth", CVPR 2018. Layout of glue-factory's zip:
pairs_calibrated.txt and images/.
"""

from __future__ import annotations

from pathlib import Path

from lightglue.evaluation.datasets.dataset import Dataset, Download, PairList, add_posed_pairs
from lightglue.evaluation.pair import Protocol
from lightglue.geometry.options import EstimatorOptions

__all__ = ["DATASET"]

PAIRS = 1500
_LIST = "pairs_calibrated.txt"


def _add_pairs(root: Path, listed: PairList) -> None:
    # K comes from MegaDepth's COLMAP models, and glue-factory (docs/evaluation.md) reads it as COLMAP's.
    add_posed_pairs(listed, root / _LIST, PAIRS, folder="images/", is_colmap=True)


DATASET = Dataset(
    name="megadepth1500",
    title="MegaDepth-1500",
    kind="pose",
    licence="photographs of many people on Flickr, each under its own licence; research",
    # cvg/glue-factory, gluefactory/eval/megadepth1500.py; its README says that it takes 1.5 GB on the disk. No public
    # record of a checksum.
    downloads=(
        Download(
            urls=("https://cvg-data.inf.ethz.ch/megadepth/megadepth1500.zip",),
            filename="megadepth1500.zip",
            size="1.5 GB",
        ),
    ),
    add_pairs=_add_pairs,
    # cvg/glue-factory: gluefactory/configs/superpoint+lightglue-official.yaml has the size and the side, the README the
    # number of keypoints, gluefactory/eval/megadepth1500.py PoseLib at 1 px and the thresholds.
    protocol=Protocol(
        max_keypoints=2048,
        estimators=(EstimatorOptions("poselib", 1.0), EstimatorOptions("opencv", 0.5)),
        thresholds=(5.0, 10.0, 20.0),
        resize=1600,
        reference="https://github.com/cvg/glue-factory#megadepth-1500",
    ),
    folders=("megadepth1500",),
    markers=(_LIST,),
    notes=(
        "glue-factory's README gives PoseLib at the threshold that is best on the test pairs (2 px); here it is fixed "
        "beforehand, at 1 px.",
        "glue-factory's OpenCV estimator is plain RANSAC; here it is MAGSAC++ (10,000 iterations, confidence 0.9999).",
    ),
)
