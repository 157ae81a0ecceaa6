"""Difference-of-Gaussians keypoints from OpenCV or pycolmap: what SIFT and DoGHardNet share.

Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004. Options, their defaults and the order of
the keypoints are those of the published package (github.com/cvg/LightGlue).
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.masks import Allowed
from lightglue.support.checks import check_bool, check_choice, check_int, check_real
from lightglue.types import Features

__all__ = [
    "Detections",
    "DogConfig",
    "check_backend",
    "describe_opencv",
    "detect",
    "detect_opencv",
    "filter_dog_point",
    "root_sift",
]

BACKENDS = {"opencv": "", "pycolmap": "auto", "pycolmap_cpu": "cpu", "pycolmap_cuda": "cuda"}  # to pycolmap's device
MOST = 2**31 - 1  # both back ends count in 32 bits
ROOT_SIFT_EPSILON = 1e-6
FIRST_SIGMA = 1.6  # px, blur of the first level of OpenCV's pyramid at full size


@dataclass(frozen=True)
class DogConfig:
    """Options of SIFT and DoGHardNet."""

    rootsift: bool = True  # SIFT only. False: descriptors as the back end gives them, not of unit length
    nms_radius: int | None = 0  # px; 0: one keypoint a pixel; None: also several with different orientations
    max_num_keypoints: int | None = 4096  # the best, which are the largest where there are no scores; None: no limit
    backend: str = "opencv"  # "opencv"; "pycolmap", on a GPU if it can; "pycolmap_cpu"; "pycolmap_cuda"
    detection_threshold: float = 0.0066667  # contrast in [0, 1]
    edge_threshold: float = 10.0  # ratio of the principal curvatures
    first_octave: int = -1  # pycolmap only; -1 doubles the image first, as OpenCV always does
    num_octaves: int = 4  # for OpenCV the layers of an octave: its octaves follow from the image's size

    def __post_init__(self) -> None:
        check_bool("rootsift", self.rootsift)
        if self.nms_radius is not None:
            check_int("nms_radius", self.nms_radius, 0, "a radius in px, an integer of at least 0, None for no filter")
        if self.max_num_keypoints is not None:
            check_int("max_num_keypoints", self.max_num_keypoints, 0, "an integer of at least 0, None for no limit")
        check_choice("backend", self.backend, BACKENDS)
        check_int("first_octave", self.first_octave, -1, "an integer of at least -1")
        check_int("num_octaves", self.num_octaves, 1, "a positive integer")
        for name in ("detection_threshold", "edge_threshold"):
            value = getattr(self, name)
            check_real(name, value, "a number")
            if self.backend != "opencv" and value <= 0:
                raise InputError(f"{name} is {value!r}; pycolmap takes positive numbers only.")


class Detections(NamedTuple):
    """The keypoints of one image."""

    keypoints: NDArray[np.float32]  # (N, 2) x y, px, (0, 0) being the centre of the first pixel
    scales: NDArray[np.float32]  # (N,) px: OpenCV's diameters, COLMAP's standard deviations (half as large)
    oris: NDArray[np.float32]  # (N,) radians, from x towards y: OpenCV's in [0, 2 pi), COLMAP's in (-pi, pi]
    scores: NDArray[np.float32] | None  # (N,) contrast; COLMAP gives none
    descriptors: NDArray[np.float32] | None  # (N, 128) not negative

    def select(self, indices: NDArray[Any]) -> Detections:
        """These ones only, in this order."""
        scores = None if self.scores is None else self.scores[indices]
        descriptors = None if self.descriptors is None else self.descriptors[indices]
        return Detections(self.keypoints[indices], self.scales[indices], self.oris[indices], scores, descriptors)

    def as_features(self, device: torch.device) -> Features:
        """The arrays that there are, under their published names, without a batch dimension."""
        named = zip(("keypoints", "scales", "oris", "keypoint_scores", "descriptors"), self, strict=True)
        return {name: torch.from_numpy(values).to(device) for name, values in named if values is not None}  # type: ignore[return-value]


def detect(
    image: Tensor,
    image_size: Tensor | None,
    options: DogConfig,
    allowed: Sequence[Allowed | None],
    describe: bool = True,
) -> list[Detections]:
    """The keypoints of each gray image of (B, 1, H, W) in [0, 1].

    image_size: (B, 2) width height of each image in its top-left corner, px; None: the whole.
    allowed: for each image which keypoints may stay.
    describe: whether OpenCV computes SIFT descriptors too; COLMAP always does.
    """
    sizes = [None] * len(image) if image_size is None else image_size.long().tolist()
    found = []
    for gray, size, may_stay in zip(image[:, 0].detach().float().cpu(), sizes, allowed, strict=True):
        own = np.ascontiguousarray((gray if size is None else gray[: size[1], : size[0]]).numpy())
        run = _run_opencv if options.backend == "opencv" else _run_pycolmap
        # Where some may not stay, the back end finds all, as it would count them to its limit.
        asked = options if may_stay is None else replace(options, max_num_keypoints=None)
        found.append(_best(run(own, asked, describe), own.shape, options, may_stay))
    return found


def _best(found: Detections, shape: tuple[int, ...], options: DogConfig, allowed: Allowed | None) -> Detections:
    """Those inside the image of `shape` (H, W) that are allowed, without neighbours, at most `max_num_keypoints`."""
    limits = np.array(shape[::-1]) - 0.5
    inside = np.all((found.keypoints >= -0.5) & (found.keypoints < limits), axis=1)
    found = found.select(np.flatnonzero(inside))
    strength = found.scales if found.scores is None else found.scores
    if options.nms_radius is not None:
        kept = filter_dog_point(*found[:3], shape, options.nms_radius, scores=found.scores)
        found, strength = found.select(kept), strength[kept]
    if allowed is not None:
        stay = np.flatnonzero(allowed(torch.from_numpy(found.keypoints)).numpy())
        found, strength = found.select(stay), strength[stay]
    if options.max_num_keypoints is not None and len(strength) > options.max_num_keypoints:
        found = found.select(np.argsort(-strength, kind="stable")[: options.max_num_keypoints])
    return found


def filter_dog_point(
    points: NDArray[np.float32],
    scales: NDArray[np.float32],
    angles: NDArray[np.float32],
    image_shape: tuple[int, ...],
    nms_radius: int,
    scores: NDArray[np.float32] | None = None,
) -> NDArray[np.int64]:
    """Indices, ascending, of the points (N, 2) that are the strongest of their pixel and of the window around it.

    The strongest have the highest of `scores` (N,); without these, the largest of `scales` (N,). Of equally strong ones
    in a pixel that with the smallest absolute of `angles` (N,) stays. A point at x in [0, 1) counts to the first pixel
    of the image of `image_shape` (H, W), as in the published package. `nms_radius` is half the window's side in px.
    """
    strength, (h, w) = scales if scores is None else scores, image_shape
    column, row = np.rint(points - 0.5).astype(np.int64).clip(0, (w - 1, h - 1)).T
    pixel = row * w + column
    order = np.lexsort((np.abs(angles), -strength, pixel))
    _, first = np.unique(pixel[order], return_index=True)
    kept = np.sort(order[first])
    if nms_radius > 0 and len(kept):
        strongest = torch.zeros(h * w)
        strongest[pixel[kept]] = torch.from_numpy(strength[kept])
        window = F.max_pool2d(strongest.view(1, h, w), 2 * nms_radius + 1, stride=1, padding=nms_radius).flatten()
        kept = kept[(window == strongest)[pixel[kept]].numpy()]
    return kept


def describe_opencv(
    gray: Tensor,
    keypoints: Tensor,
    scales: Tensor,
    oris: Tensor,
    options: DogConfig,
) -> Tensor:
    """OpenCV's SIFT descriptors (N, 128) of a gray image (H, W) in [0, 1], not normalised.

    Args:
        keypoints: (N, 2) x y in px.
        scales: (N,) diameters in px.
        oris: (N,) radians, from x towards y.
    """
    layers = options.num_octaves
    # Which level of its pyramid a keypoint belongs to, OpenCV packs into the octave (opencv, sift.dispatch.cpp):
    # a level blurred with sigma has the number layers * log2(sigma / FIRST_SIGMA), of which an octave has 1 to layers.
    level = (layers * (scales / 2 / FIRST_SIGMA).log2()).round().long().cpu()
    most = max(0, round(math.log2(min(gray.shape)) - 2) - 1)  # octaves that its pyramid has
    level = level.clamp(1 - layers, layers * (most + 1))
    octave = (level - 1).div(layers, rounding_mode="floor")
    packed = (octave & 255) | ((level - octave * layers) << 8)
    # The smallest octave decides whether OpenCV doubles the image: the first keypoint, which is dropped, makes it.
    rows = [(0.0, 0.0, 1.0, 0.0, 255 | 1 << 8)]
    rows += zip(
        *keypoints.double().cpu().T.tolist(), scales.tolist(), oris.rad2deg().tolist(), packed.tolist(), strict=True
    )
    listed = [cv2.KeyPoint(x, y, size, angle % 360, 0.0, code) for x, y, size, angle, code in rows]
    image = (gray.detach().float().cpu().numpy() * np.float32(255)).clip(0, 255).astype(np.uint8)
    _, found = cv2.SIFT.create(nOctaveLayers=layers).compute(image, listed)
    return torch.from_numpy(found[1:].astype(np.float32)).to(gray.device)


def root_sift(descriptors: Tensor, eps: float = ROOT_SIFT_EPSILON) -> Tensor:
    """RootSIFT (Arandjelovic and Zisserman, CVPR 2012): unit vectors of the roots of `descriptors` (..., D)."""
    shares = F.normalize(descriptors, p=1, dim=-1, eps=eps).clamp(min=eps)
    return F.normalize(shares.sqrt(), dim=-1, eps=eps)


def check_backend(options: DogConfig) -> None:
    """InputError where the back end is not installed or cannot run here."""
    if options.backend == "opencv":
        return
    try:
        pycolmap: Any = importlib.import_module("pycolmap")
    except ImportError as error:
        remedy = "pip install 'lightglue[sift]', or choose backend='opencv'"
        raise InputError(f"backend={options.backend!r} needs pycolmap: {remedy}.") from error
    if not hasattr(pycolmap, "FeatureExtractor"):
        version = getattr(pycolmap, "__version__", "of an unknown version")
        raise InputError(
            f"pycolmap {version} is too old: pip install --upgrade 'pycolmap>=4', or use backend='opencv'."
        )
    if options.backend == "pycolmap_cuda" and not pycolmap.has_cuda:
        raise InputError("This pycolmap was built without CUDA: pip install pycolmap-cuda12, or use 'pycolmap_cpu'.")


def _run_opencv(gray: NDArray[np.float32], options: DogConfig, describe: bool) -> Detections:
    sift = cv2.SIFT.create(
        nfeatures=min(options.max_num_keypoints or 0, MOST),
        nOctaveLayers=options.num_octaves,
        contrastThreshold=options.detection_threshold,
        edgeThreshold=options.edge_threshold,
    )
    image = (gray * np.float32(255)).clip(0, 255).astype(np.uint8)  # cut off, not rounded, as in the published package
    return detect_opencv(sift, image, describe)


def detect_opencv(sift: Any, image: NDArray[np.uint8], describe: bool) -> Detections:
    """What OpenCV's detector `sift` finds in a gray image (H, W), with or without descriptors."""
    keypoints, found = sift.detectAndCompute(image, None) if describe else (sift.detect(image), None)
    columns = np.array([(*k.pt, k.size, k.angle, k.response) for k in keypoints], np.float32).reshape(-1, 5)
    x, y, scales, degrees, scores = columns.T.copy()
    descriptors = None
    if describe:  # without keypoints OpenCV gives None
        descriptors = np.zeros((0, 128), np.float32) if found is None else found.astype(np.float32, copy=False)
    return Detections(np.stack((x, y), axis=1), scales, np.deg2rad(degrees), scores, descriptors)


def _run_pycolmap(gray: NDArray[np.float32], options: DogConfig, describe: bool) -> Detections:
    extractor = _pycolmap_extractor(options, threading.get_ident())
    found, descriptors = extractor.extract_from_float32_array(gray.clip(0, 1))
    rows = [(k.x, k.y, k.compute_scale(), k.compute_orientation()) for k in found]
    x, y, scales, oris = np.array(rows, np.float32).reshape(-1, 4).T.copy()
    # COLMAP's first pixel has its centre at (0.5, 0.5). Its descriptors are in units of 1 / 512.
    keypoints = np.stack((x, y), axis=1) - np.float32(0.5)
    return Detections(keypoints, scales, oris, None, np.asarray(descriptors.data, np.float32) / np.float32(512))


@lru_cache(maxsize=4)
def _pycolmap_extractor(options: DogConfig, thread: int) -> Any:
    """COLMAP's extractor. Kept, as it takes a while to make on a GPU; one a thread, as it has state."""
    check_backend(options)
    pycolmap: Any = importlib.import_module("pycolmap")
    settings = pycolmap.FeatureExtractionOptions()
    settings.sift.peak_threshold = options.detection_threshold
    settings.sift.edge_threshold = options.edge_threshold
    settings.sift.first_octave = options.first_octave
    settings.sift.num_octaves = options.num_octaves
    settings.sift.max_num_features = MOST if options.max_num_keypoints is None else max(options.max_num_keypoints, 1)
    settings.sift.normalization = pycolmap.Normalization.L2  # the square root is taken once, by `root_sift`
    device = BACKENDS[options.backend]
    settings.use_gpu = device != "cpu" and pycolmap.has_cuda
    return pycolmap.FeatureExtractor.create(settings, getattr(pycolmap.Device, device))
