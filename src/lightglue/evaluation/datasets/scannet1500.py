"""ScanNet-1500: 1,500 pairs of frames of indoor videos, with relative poses from a depth camera.

Chosen by Sarlin et al., "SuperGlue", CVPR 2020, from Dai et al., "ScanNet", CVPR 2017. Layout: a list of pairs, with
image paths relative to its folder. Both lists are read: glue-factory's pairs_calibrated.txt, and SuperGlue's
assets/scannet_test_pairs_with_gt.txt beside the frames.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightglue.evaluation.datasets.dataset import Dataset, Download, PairList, add_posed_pairs
from lightglue.evaluation.datasets.megadepth1500 import DATASET as MEGADEPTH1500

__all__ = ["DATASET"]

PAIRS = 1500
_LISTS = ("pairs_calibrated.txt", "scannet_test_pairs_with_gt.txt")  # of glue-factory, of SuperGlue


def _add_pairs(root: Path, listed: PairList) -> None:
    found = next(name for name in _LISTS if (root / name).exists())
    add_posed_pairs(listed, root / found, PAIRS)


DATASET = Dataset(
    name="scannet1500",
    title="ScanNet-1500",
    kind="pose",
    licence="ScanNet terms of use: non-commercial research and education",
    # cvg/glue-factory, gluefactory/eval/scannet1500.py. No public record of a size or a checksum.
    downloads=(Download(urls=("https://cvg-data.inf.ethz.ch/scannet/scannet1500.zip",), filename="scannet1500.zip"),),
    add_pairs=_add_pairs,
    # cvg/glue-factory: gluefactory/eval/scannet1500.py has the size (640 x 480) and the side. SuperGlue's README has
    # the thresholds. The number of keypoints and the estimators are those of MegaDepth-1500.
    protocol=replace(
        MEGADEPTH1500.protocol,
        resize=640,
        reference="https://github.com/cvg/glue-factory/blob/main/gluefactory/eval/scannet1500.py",
    ),
    folders=("scannet1500",),
    markers=_LISTS,
    notes=(
        "glue-factory resizes to 640 x 480 px exactly; here the longer side becomes 640 px and the shape is kept.",
        "glue-factory picks the RANSAC threshold that is best on the test pairs (ransac_th=-1); here it is fixed "
        "beforehand.",
        "K is taken to hold for px whose (0, 0) is the centre of the top-left pixel, as in SuperGlue; glue-factory "
        "reads it as that pixel's corner.",
        "The poses come from tracking a depth camera and are less exact than those of the other benchmarks.",
    ),
)
