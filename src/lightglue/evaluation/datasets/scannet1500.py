"""ScanNet-1500: 1,500 pairs of frames of indoor videos, with relative poses from a depth camera.

Chosen by Sarlin et al., "SuperGlue", CVPR 2020, from Dai et al., "ScanNet", CVPR 2017. Layout: a list of pairs, with
image paths relative to its folder. Both lists are read: glue-factory's pairs_calibrated.txt, and SuperGlue's
assets/scannet_test_pairs_with_gt.txt beside the frames.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightglue.evaluation.datasets.dataset import Dataset, Download, PairList, find_root, parse_posed_pair, read_lines
from lightglue.evaluation.pair import Protocol
from lightglue.geometry.options import EstimatorOptions

__all__ = ["DATASET", "list_pairs"]

PAIRS = 1500
_LIST, _SUPERGLUE_LIST = "pairs_calibrated.txt", "scannet_test_pairs_with_gt.txt"

# cvg/glue-factory, gluefactory/eval/scannet1500.py. No public record of a size or a checksum.
_DOWNLOAD = Download(urls=("https://cvg-data.inf.ethz.ch/scannet/scannet1500.zip",), filename="scannet1500.zip")

# cvg/glue-factory: gluefactory/eval/scannet1500.py has the size (640 x 480) and the side. SuperGlue's README has the
# thresholds. The number of keypoints and the estimators are those of MegaDepth-1500.
_PROTOCOL = Protocol(
    max_keypoints=2048,
    estimators=(EstimatorOptions("poselib", 1.0), EstimatorOptions("opencv", 0.5)),
    thresholds=(5.0, 10.0, 20.0),
    resize=640,
    side="long",
    reference="https://github.com/cvg/glue-factory/blob/main/gluefactory/eval/scannet1500.py",
)
_NOTES = (
    "glue-factory resizes to 640 x 480 px exactly; here the longer side becomes 640 px and the shape is kept.",
    "glue-factory picks the RANSAC threshold that is best on the test pairs (ransac_th=-1); here it is fixed "
    "beforehand.",
    "K is taken to hold for px whose (0, 0) is the centre of the top-left pixel, as in SuperGlue; glue-factory reads "
    "it as that pixel's corner.",
    "The poses come from tracking a depth camera and are less exact than those of the other benchmarks.",
)


def list_pairs(folder: Path) -> PairList:
    """The pairs in the folder `scannet1500`, or in one that holds it. Raises InputError."""
    is_superglue = (
        not any((each / _LIST).exists() for each in (folder, folder / "scannet1500"))
        and (folder / _SUPERGLUE_LIST).exists()
    )
    name = _SUPERGLUE_LIST if is_superglue else _LIST
    root = find_root(folder, ["scannet1500"], name, "ScanNet-1500", _DOWNLOAD)
    listed = PairList(root)
    for number, line in enumerate(read_lines(root / name), 1):
        words = line.split()
        image0, image1 = (*words, "", "")[:2]
        where = f"{root / name}, pair {number},"
        # "scene0806_00_frame-000510.jpg" in SuperGlue's list, folders in glue-factory's
        scene = image0.split("_frame", 1)[0].split("/", 1)[0]
        listed.add(image0, image1, partial(parse_posed_pair, words, where), scene)
    listed.expect(PAIRS, len(listed), "pairs", root / name)
    return listed


DATASET = Dataset(
    name="scannet1500",
    title="ScanNet-1500",
    kind="pose",
    licence="ScanNet terms of use: non-commercial research and education",
    downloads=(_DOWNLOAD,),
    list_pairs=list_pairs,
    protocol=_PROTOCOL,
    notes=_NOTES,
)
