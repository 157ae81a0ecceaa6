"""ETH3D: relative poses between the undistorted DSLR images of its 13 training scenes.

Schöps et al., "A multi-view stereo benchmark with high-resolution images and multi-camera videos", CVPR 2017. Layout:
SCENE/dslr_calibration_undistorted/cameras.txt and images.txt (COLMAP's text format, which https://www.eth3d.net/
documentation describes) and SCENE/images/dslr_images_undistorted/.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.evaluation.datasets.dataset import Dataset, Download, PairList, numbers, read_whole
from lightglue.evaluation.datasets.megadepth1500 import DATASET as MEGADEPTH1500
from lightglue.evaluation.pair import RelativePose
from lightglue.geometry.cameras import Camera
from lightglue.geometry.colmap_text import PosedImage, camera_lines, image_lines
from lightglue.geometry.intrinsics import from_colmap

__all__ = ["DATASET", "MIN_SHARED"]

SCENES = 13
MIN_SHARED = 500  # 3D points that both images of a pair see: cvg/glue-factory, gluefactory/datasets/eth3d.py
_MODEL = "dslr_calibration_undistorted"


def _add_pairs(root: Path, listed: PairList) -> None:
    scenes = sorted(path.parent.name for path in root.glob(f"*/{_MODEL}"))
    for scene in scenes:
        _add_scene(listed, root, scene)
    listed.expect(SCENES, len(scenes), "scenes", root)


def _add_scene(listed: PairList, root: Path, scene: str) -> None:
    """The pairs of a scene, in the order of their names."""
    cameras = camera_lines(read_whole(root / scene / _MODEL / "cameras.txt"))
    posed = _read_images(root / scene / _MODEL / "images.txt")
    points = {image: _points(image) for image in posed}
    for one, other in combinations(sorted(posed, key=lambda each: each.name), 2):
        if len(points[one] & points[other]) >= MIN_SHARED:
            listed.add(
                f"{scene}/images/{one.name}",
                f"{scene}/images/{other.name}",
                partial(_relative_pose, cameras, one, other),
                scene,
            )


def _read_images(path: Path) -> list[PosedImage]:
    """The images of the model. Raises InputError."""
    try:
        return image_lines(read_whole(path))
    except InputError as error:
        raise InputError(f"{path}: {error} Fetch it again.") from error


def _points(image: PosedImage) -> frozenset[str]:
    """The numbers of the 3D points that an image sees."""
    return frozenset(image.points.split()[2::3]) - {"-1"}


def _relative_pose(cameras: dict[str, tuple[str, ...]], one: PosedImage, other: PosedImage) -> RelativePose:
    T = _camera_from_world(other) @ np.linalg.inv(_camera_from_world(one))
    return RelativePose(_camera(cameras, one), _camera(cameras, other), T)


def _camera(cameras: dict[str, tuple[str, ...]], image: PosedImage) -> Camera:
    words = cameras.get(image.camera, ())
    if len(words) != 7 or words[0] != "PINHOLE":
        raise InputError(f"{image.name} has the camera {' '.join(words)!r:.80}, which is not PINHOLE; fetch it again.")
    fx, fy, cx, cy = numbers(words[3:], image.name)
    return Camera(np.array([[fx, 0, from_colmap(cx)], [0, fy, from_colmap(cy)], [0, 0, 1]]))


def _camera_from_world(image: PosedImage) -> NDArray[np.float64]:
    """The pose, (4, 4). Raises InputError."""
    values = numbers(image.pose, image.name)
    length = np.linalg.norm(values[:4])
    if not (np.isfinite(values).all() and length > 0):
        raise InputError(f"{image.name} has the pose {values.tolist()}; fetch the model again.")
    w, x, y, z = values[:4] / length
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = values[4:]
    return T


DATASET = Dataset(
    name="eth3d",
    title="ETH3D",
    kind="pose",
    licence="CC BY-NC-SA 4.0",
    # cvg/glue-factory, gluefactory/datasets/eth3d.py: ETH3D's own files, as a zip (ETH3D's are 7z). No public record
    # of a checksum.
    downloads=(
        Download(
            urls=("https://cvg-data.inf.ethz.ch/SOLD2/SOLD2_ETH3D_undistorted/ETH3D_undistorted.zip",),
            filename="ETH3D_undistorted.zip",
            size="5.6 GB",
        ),
    ),
    add_pairs=_add_pairs,
    # There is no published protocol for poses on these pairs: the numbers are those of MegaDepth-1500.
    protocol=replace(MEGADEPTH1500.protocol, reference="https://github.com/cvg/glue-factory#eth3d"),
    folders=("ETH3D_undistorted", "multi_view_training_dslr_undistorted"),
    markers=(f"*/{_MODEL}",),
    notes=(
        "glue-factory judges the matches of these pairs by depth maps (average precision), on images of an eighth of "
        "the size; here the relative pose is judged. The figures do not compare.",
        "The pairs are glue-factory's: at least 500 common 3D points. It takes each image's camera by its position in "
        "the list, with the number that it has in the distorted model; here it is the undistorted model's.",
    ),
)
