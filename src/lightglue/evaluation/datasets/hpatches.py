"""HPatches: 540 pairs of planes and of rotating cameras, under changes of viewpoint (v_) and of light (i_).

Balntas et al., "HPatches: A benchmark and evaluation of handcrafted and learned local descriptors", CVPR 2017.
Layout: SCENE/1.ppm to 6.ppm and SCENE/H_1_2 to H_1_6, image 1 to image n.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightglue.evaluation.datasets.dataset import Dataset, Download, PairList, read_numbers
from lightglue.evaluation.pair import Homography, Protocol
from lightglue.geometry.options import EstimatorOptions

__all__ = ["DATASET", "LEFT_OUT"]

# Of more than 1200 x 1600 px; D2-Net (Dusmanu et al., CVPR 2019) left them out, and all who compared since.
# Names: cvg/glue-factory, gluefactory/datasets/hpatches.py.
LEFT_OUT = frozenset(
    {
        "i_contruction",  # spelt so
        "i_crownnight",
        "i_dc",
        "i_pencils",
        "i_whitebuilding",
        "v_artisans",
        "v_astronautis",
        "v_talent",
    }
)
SCENES = 108  # 116 less those


def _add_pairs(root: Path, listed: PairList) -> None:
    scenes = sorted(path.name for path in root.glob("[iv]_*") if path.is_dir() and path.name not in LEFT_OUT)
    for scene in scenes:
        for n in range(2, 7):
            listed.add(f"{scene}/1.ppm", f"{scene}/{n}.ppm", partial(_homography, root / scene / f"H_1_{n}"))
    listed.expect(SCENES, len(scenes), "scenes", root)


def _homography(path: Path) -> Homography:
    return Homography(read_numbers(path, 3))


DATASET = Dataset(
    name="hpatches",
    title="HPatches",
    kind="homography",
    licence="no licence file is known for the image sequences",
    # glue-factory names the tar.gz, whose host has ceased; the first author keeps a zip of the same folder as the data
    # set vbalnt/hpatches. Its size is given by public projects that use it; none gives a checksum.
    downloads=(
        Download(
            urls=("https://huggingface.co/datasets/vbalnt/hpatches/resolve/main/hpatches-sequences-release.zip",),
            filename="hpatches-sequences-release.zip",
            size="1.3 GB",
        ),
    ),
    add_pairs=_add_pairs,
    # cvg/glue-factory: gluefactory/eval/hpatches.py has the size, the side and the thresholds, gluefactory/configs/
    # superpoint+lightglue-official.yaml the number of keypoints and OpenCV at 0.5 px.
    protocol=Protocol(
        max_keypoints=1024,
        estimators=(EstimatorOptions("opencv", 0.5), EstimatorOptions("poselib", 1.0), EstimatorOptions("dlt")),
        thresholds=(1.0, 3.0, 5.0),
        resize=480,
        side="short",
        reference="https://github.com/cvg/glue-factory#hpatches",
    ),
    folders=("hpatches-sequences-release",),
    markers=("[iv]_*/H_1_2",),
    notes=(
        "glue-factory's OpenCV estimator is plain RANSAC (3,000 iterations, confidence 0.995); here it is MAGSAC++ "
        "(10,000 iterations, confidence 0.9999).",
        "glue-factory's README picks the RANSAC threshold that is best on the test pairs (ransac_th=-1); here it is "
        "fixed beforehand.",
        "H is taken to hold for px whose (0, 0) is the centre of the top-left pixel; glue-factory applies it to px "
        "whose (0, 0) is that pixel's corner.",
    ),
)
