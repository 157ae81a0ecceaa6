"""MegaDepth-1500: 1,500 pairs of photographs of two landmarks, with relative poses.

Chosen by Sun et al., "LoFTR", CVPR 2021, from Li and Snavely, "MegaDepth", CVPR 2018. Layout of glue-factory's zip:
pairs_calibrated.txt and images/.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightglue.evaluation.datasets.dataset import Dataset, Download, PairList, find_root, parse_posed_pair, read_lines
from lightglue.evaluation.pair import Protocol
from lightglue.geometry.options import EstimatorOptions

__all__ = ["DATASET", "list_pairs"]

PAIRS = 1500
_LIST = "pairs_calibrated.txt"

# cvg/glue-factory, gluefactory/eval/megadepth1500.py; its README says that it takes 1.5 GB on the disk. No public
# record of a checksum.
_DOWNLOAD = Download(
    urls=("https://cvg-data.inf.ethz.ch/megadepth/megadepth1500.zip",),
    filename="megadepth1500.zip",
    size="1.5 GB",
)

# cvg/glue-factory: gluefactory/configs/superpoint+lightglue-official.yaml has the size and the side, the README the
# number of keypoints, gluefactory/eval/megadepth1500.py PoseLib at 1 px and the thresholds.
_PROTOCOL = Protocol(
    max_keypoints=2048,
    estimators=(EstimatorOptions("poselib", 1.0), EstimatorOptions("opencv", 0.5)),
    thresholds=(5.0, 10.0, 20.0),
    resize=1600,
    side="long",
    reference="https://github.com/cvg/glue-factory#megadepth-1500",
)
_NOTES = (
    "glue-factory's README gives PoseLib at the threshold that is best on the test pairs (2 px); here it is fixed "
    "beforehand, at 1 px.",
    "glue-factory's OpenCV estimator is plain RANSAC; here it is MAGSAC++ (10,000 iterations, confidence 0.9999).",
)


def list_pairs(folder: Path) -> PairList:
    """The pairs in the folder `megadepth1500`, or in one that holds it. Raises InputError."""
    root = find_root(folder, ["megadepth1500"], _LIST, "MegaDepth-1500", _DOWNLOAD)
    listed = PairList(root)
    for number, line in enumerate(read_lines(root / _LIST), 1):
        words = line.split()
        image0, image1 = (f"images/{name}" for name in (*words, "", "")[:2])
        where = f"{root / _LIST}, pair {number},"
        # K comes from MegaDepth's COLMAP models, and glue-factory (docs/evaluation.md) reads it as COLMAP's.
        listed.add(
            image0,
            image1,
            partial(parse_posed_pair, words, where, is_colmap=True),
            scene=words[0].split("/", 1)[0],
        )
    listed.expect(PAIRS, len(listed), "pairs", root / _LIST)
    return listed


DATASET = Dataset(
    name="megadepth1500",
    title="MegaDepth-1500",
    kind="pose",
    licence="photographs of many people on Flickr, each under its own licence; research",
    downloads=(_DOWNLOAD,),
    list_pairs=list_pairs,
    protocol=_PROTOCOL,
    notes=_NOTES,
)
