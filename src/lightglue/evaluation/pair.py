"""What a benchmark consists of: pairs of images, the truth about each, and the protocol that they are judged by."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry.cameras import Camera, scaling
from lightglue.geometry.options import EstimatorOptions

__all__ = [
    "Benchmark",
    "Correspondences",
    "Homography",
    "Kind",
    "Pair",
    "Protocol",
    "RelativePose",
    "Truth",
    "fingerprint",
    "images_fingerprint",
    "scaled_points",
]

Kind = Literal["homography", "pose", "points"]
Scale: TypeAlias = tuple[float, float]  # x, y: size of the resized image over that of the file


def scaled_points(points: NDArray[np.floating], scale: Scale) -> NDArray[np.float64]:
    """(N, 2) px of an image as px of the resized one."""
    S = scaling(scale)
    return np.asarray(points.astype(np.float64) @ S[:2, :2].T + S[:2, 2])


@dataclass(frozen=True, eq=False)
class Homography:
    """All that image 0 shows lies on a plane, or the camera only rotated.

    Raises InputError for a matrix that is none.
    """

    H: NDArray[np.float64]  # (3, 3), px of image 0 to px of image 1

    def __post_init__(self) -> None:
        H = _floats("H", self.H, (3, 3))
        with np.errstate(all="ignore"):  # numbers whose squares are none
            is_regular = abs(np.linalg.det(H / np.abs(H).max())) >= 1e-14
        if not is_regular:
            raise InputError(f"H is {H.tolist()}, which is singular; give an invertible (3, 3) matrix.")
        object.__setattr__(self, "H", H)

    def scaled(self, scale0: Scale, scale1: Scale) -> Homography:
        """The same for resized images."""
        return Homography(scaling(scale1) @ self.H @ np.linalg.inv(scaling(scale0)))


@dataclass(frozen=True, eq=False)
class RelativePose:
    """Two calibrated cameras. Raises InputError for a matrix that is no rigid motion, or without any motion."""

    camera0: Camera
    camera1: Camera
    T_0to1: NDArray[np.float64]  # (4, 4), camera 0 to camera 1

    def __post_init__(self) -> None:
        T = _floats("T_0to1", self.T_0to1, (4, 4))
        R = T[:3, :3]
        with np.errstate(all="ignore"):
            is_rotation = np.abs(R @ R.T - np.eye(3)).max() <= 1e-3 and np.linalg.det(R) > 0
        if not is_rotation:
            raise InputError(f"T_0to1 holds {R.tolist()}, which is no rotation; give a (4, 4) rigid motion.")
        if np.abs(T[3] - (0, 0, 0, 1)).max() > 1e-6:
            raise InputError(f"T_0to1 ends with the row {T[3].tolist()}; it must be 0 0 0 1.")
        if not 0 < np.abs(T[:3, 3]).max() < 1e100:
            raise InputError(f"T_0to1 moves by {T[:3, 3].tolist()}; without a motion there are no epipolar lines.")
        object.__setattr__(self, "T_0to1", T)

    def scaled(self, scale0: Scale, scale1: Scale) -> RelativePose:
        """The same for resized images."""
        return RelativePose(self.camera0.scaled(scale0), self.camera1.scaled(scale1), self.T_0to1)


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Points that a person marked in both images."""

    points0: NDArray[np.float64]  # (N, 2), px of image 0
    points1: NDArray[np.float64]  # (N, 2), px of image 1

    def __post_init__(self) -> None:
        points0, points1 = _floats("points0", self.points0, (None, 2)), _floats("points1", self.points1, (None, 2))
        if len(points0) != len(points1) or not len(points0):
            raise InputError(
                f"There are {len(points0)} points0 and {len(points1)} points1; give as many, at least one."
            )
        object.__setattr__(self, "points0", points0)
        object.__setattr__(self, "points1", points1)

    def scaled(self, scale0: Scale, scale1: Scale) -> Correspondences:
        """The same for resized images."""
        return Correspondences(scaled_points(self.points0, scale0), scaled_points(self.points1, scale1))


Truth: TypeAlias = Homography | RelativePose | Correspondences


@dataclass(frozen=True)
class Pair:
    """Two images and what is known of them."""

    name: str  # the only one of this name in its benchmark
    scene: str
    image0: Path
    image1: Path
    truth: Truth | None
    fault: str | None = None  # why there is no truth; the pair then counts as failed, and the report says why


@dataclass(frozen=True)
class Protocol:
    """How the pairs of a benchmark are judged. Nothing in it is chosen on the benchmark's own results."""

    max_keypoints: int
    estimators: tuple[EstimatorOptions, ...]  # the first gives the headline
    thresholds: tuple[float, ...]  # of the AUC: px of corner error, or degrees of pose error; for points: px
    resize: int | None = None  # px of the edge that `side` names; images are resized, errors are in the resized px
    side: Literal["long", "short"] = "long"
    reference: str = ""  # where the protocol is published


@dataclass(frozen=True)
class Benchmark:
    """A named list of pairs with their protocol."""

    name: str
    kind: Kind
    pairs: tuple[Pair, ...]
    protocol: Protocol
    source: str = ""
    licence: str = ""
    notes: tuple[str, ...] = field(default=())  # what a reader of the figures must know, such as deviations


def fingerprint(benchmark: Benchmark) -> str:
    """A digest of what is known of the pairs: two benchmarks with the same one are judged alike."""
    digest = hashlib.sha256()
    for pair in benchmark.pairs:
        digest.update(repr((pair.name, pair.scene, pair.fault)).encode("utf-8", "backslashreplace"))
        for array in _arrays(pair.truth):
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return digest.hexdigest()[:16]


def images_fingerprint(benchmark: Benchmark) -> str:
    """A digest of the sizes of the image files: it notices files that came, went or were exchanged, most of them."""
    paths = dict.fromkeys(path for pair in benchmark.pairs for path in (pair.image0, pair.image1))
    digest = hashlib.sha256()
    for path in paths:
        try:
            size = os.stat(path).st_size
        except (OSError, ValueError):  # ValueError: a NUL byte in the path
            size = -1
        digest.update(f"{size},".encode())
    return digest.hexdigest()[:16]


def _arrays(truth: Truth | None) -> list[NDArray[np.float64]]:
    if truth is None:
        return []
    if isinstance(truth, Homography):
        return [truth.H]
    if isinstance(truth, Correspondences):
        return [truth.points0, truth.points1]
    lenses = [camera.colmap.params for camera in (truth.camera0, truth.camera1) if camera.colmap is not None]
    return [truth.camera0.K, truth.camera1.K, truth.T_0to1, *lenses]


def _floats(name: str, values: object, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """`values` as finite float64 of `shape`; InputError otherwise."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of hundreds of digits
        raise InputError(f"{name} is {values!r:.80}; give numbers.") from None
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits:
        wanted = ", ".join("N" if edge is None else str(edge) for edge in shape)
        raise InputError(f"{name} has the shape {array.shape}; give ({wanted}).")
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity; give finite numbers.")
    return array
