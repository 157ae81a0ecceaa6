"""From two images to matches in one call: extract, match, index."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lightglue.containers import batch_to_device, rbd
from lightglue.errors import InputError
from lightglue.extractors.masks import read_mask
from lightglue.geometry.estimation import check_geometry, estimate
from lightglue.geometry.options import GEOMETRIES, EstimatorOptions
from lightglue.geometry.refine import refine_matches
from lightglue.images import numpy_image_to_torch, read_image
from lightglue.pairs.rotation import Probes, Turn, angles_of, find_angle
from lightglue.types import Extractor, Features, Matcher, PairMatcher

__all__ = ["match_pair", "match_pairs"]

Result = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def match_pair(
    extractor: Extractor,
    matcher: Matcher,
    image0: Any,  # (3, H, W) or (1, H, W) in [0, 1]; with `tile` also an array or a path
    image1: Any,
    device: str | torch.device = "cpu",
    *,
    mask0: Any = None,
    mask1: Any = None,
    auto_rotate: bool | int = False,
    refine: bool = False,
    geometry: str | None = None,
    camera0: Any = None,
    camera1: Any = None,
    estimator: EstimatorOptions | None = None,
    **preprocess: Any,
) -> Result:
    """Match two images.

    Args:
        device: where the results go; images must be where the models are.
        mask0, mask1: where in each image keypoints may lie: (H, W) bool, or an image file that is black elsewhere.
        auto_rotate: find out by which multiple of 90 degrees, or of this many, the second image is turned against the
            first, and match it upright.
        refine: move the matched points to a fraction of a pixel, by aligning the images around them.
        geometry: also estimate a "homography", "fundamental" or "essential" matrix, or the "relative_pose".
        camera0, camera1: for the last two, K (3, 3) or a `pycolmap.Camera` of each image.
        estimator: how to estimate; None for PoseLib at 1 px, for homographies 2.
        preprocess: options of `extractor.extract`, such as `resize`, `tile`, `pyramid`.

    Returns:
        The features of both images and the matches, without batch dimension. The matches also hold `points0` and
        `points1`, (K, 2) float32: the matched keypoints in px of the original images, row by row; and with
        `auto_rotate` `rotation`: the degrees, clockwise, by which the second image was turned to match the first.
        With `geometry` there are `geometry`, a `lightglue.geometry.Estimate`, and `inliers`, (K,) bool. With `refine`
        `points0` and `points1` are no longer rows of the keypoints.

    Raises InputError.
    """
    angles = angles_of(auto_rotate)
    after = Afterwards(refine, geometry, estimator)
    after.check_cameras(camera0, camera1)
    view0, view1 = View(_pixels(image0, angles), mask0), View(_pixels(image1, angles), mask1)
    if angles:
        angle = find_angle(Probes(extractor), matcher, (0, view0.image), (1, view1.image), angles)
        view1 = View(view1.image, mask1, angle)
    features = [view.extract(extractor, preprocess) for view in (view0, view1)]
    found = matcher({"image0": features[0], "image1": features[1]})
    result = _result(features, (view0, view1), found, bool(angles), device)
    return after.finish(result, (view0.image, view1.image), (camera0, camera1))


def match_pairs(
    extractor: Extractor,
    matcher: PairMatcher,
    pairs: Iterable[tuple[Any, Any]],
    device: str | torch.device = "cpu",
    *,
    masks: Sequence[tuple[Any, Any]] | None = None,
    auto_rotate: bool | int = False,
    refine: bool = False,
    geometry: str | None = None,
    cameras: Sequence[tuple[Any, Any]] | None = None,
    estimator: EstimatorOptions | None = None,
    **preprocess: Any,
) -> list[Result]:
    """Match many pairs of images in one call of the matcher; each result equals that of `match_pair`.

    An image (the same object, with the same mask) that is in several pairs is extracted once, with `auto_rotate` once
    for each angle, and its features are the same tensors in each of their results.

    masks: `mask0` and `mask1` for each pair. cameras: `camera0` and `camera1` for each pair. Raises InputError.
    """
    pairs = list(pairs)  # it is gone through more than once
    for i, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"match_pairs takes pairs (image0, image1); item {i} is {type(pair).__name__}")
    masks, cameras = _for_each("mask", masks, len(pairs)), _for_each("camera", cameras, len(pairs))
    after = Afterwards(refine, geometry, estimator)
    for two in cameras:
        after.check_cameras(*two)
    angles = angles_of(auto_rotate)
    images = {id(image): _pixels(image, angles) for pair in pairs for image in pair}
    probes = Probes(extractor)
    chosen = []
    for (image0, image1), (mask0, mask1) in zip(pairs, masks, strict=True):
        named = [(id(image), images[id(image)]) for image in (image0, image1)]
        angle = find_angle(probes, _alone(matcher), named[0], named[1], angles) if angles else 0.0
        chosen.append((View(named[0][1], mask0), View(named[1][1], mask1, angle)))
    views = {view.key: view for pair in chosen for view in pair}
    features = {key: view.extract(extractor, preprocess) for key, view in views.items()}
    matched = [(features[view0.key], features[view1.key]) for view0, view1 in chosen]
    found = matcher.match(matched)
    results = []
    for two, two_views, matches, two_cameras in zip(matched, chosen, found, cameras, strict=True):
        result = _result(two, two_views, matches, bool(angles), device)
        results.append(after.finish(result, [view.image for view in two_views], two_cameras))
    return results


def _for_each(name: str, values: Sequence[tuple[Any, Any]] | None, count: int) -> list[tuple[Any, Any]]:
    """Two of something for each pair; InputError where there are not."""
    found = [(None, None)] * count if values is None else list(values)
    if len(found) != count or not all(isinstance(two, (tuple, list)) and len(two) == 2 for two in found):
        raise InputError(
            f"{name}s must hold ({name}0, {name}1) for each of the {count} pairs, None where there is none."
        )
    return found


@dataclass(frozen=True)
class Afterwards:
    """What is done with the matches of a pair."""

    refine: bool
    geometry: str | None
    estimator: EstimatorOptions | None

    def __post_init__(self) -> None:
        """InputError where it cannot be done, before any work."""
        if not isinstance(self.refine, (bool, np.bool_)):
            raise InputError(f"refine is {self.refine!r}; give True or False.")
        if self.geometry is not None and self.geometry not in GEOMETRIES:
            raise InputError(f"geometry is {self.geometry!r}; choose one of {', '.join(GEOMETRIES)}.")
        if self.estimator is None:
            return
        if not isinstance(self.estimator, EstimatorOptions):
            raise InputError(f"estimator is {self.estimator!r:.80}; give a lightglue.geometry.EstimatorOptions.")
        if self.geometry is None:
            raise InputError("An estimator has an effect with geometry only; give it, or leave the estimator out.")
        if self.estimator.method == "dlt" and self.geometry != "homography":
            raise InputError(f"The method 'dlt' fits homographies only; choose another for {self.geometry}.")

    def check_cameras(self, camera0: Any, camera1: Any) -> None:
        """InputError where they are missing, wrong or without effect, before any work."""
        if self.geometry is not None:
            check_geometry(self.geometry, camera0, camera1)
        elif camera0 is not None or camera1 is not None:
            raise InputError("A camera has an effect with geometry only; give it, or leave the camera out.")

    def finish(self, result: Result, images: Sequence[Any], cameras: tuple[Any, Any]) -> Result:
        """`result` with its points refined and its geometry."""
        found = result[2]
        if not (self.refine or self.geometry):
            return result
        if "points0" not in found:
            raise InputError("The matcher gives no `matches`, which refine and geometry need; leave them out.")
        if self.refine:
            refined = refine_matches(_drawn(images[0]), _drawn(images[1]), found["points0"], found["points1"])
            found["points0"] = refined.points0.to(found["points0"].device)
            found["points1"] = refined.points1.to(found["points1"].device)
        if self.geometry:
            ends, weights = (found["points0"], found["points1"]), found.get("scores")
            options: dict[str, Any] = {"camera0": cameras[0], "camera1": cameras[1], "weights": weights}
            model = estimate(self.geometry, *ends, self.estimator, **options)
            found["geometry"] = model
            found["inliers"] = torch.from_numpy(model.inliers).to(found["points0"].device)
        return result


def _drawn(image: Any) -> Any:
    """The pixels of any image that can be extracted, as `refine_matches` takes them."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Tensor):
        image = image[0] if image.ndim == 4 else image
        return image.float() if image.dtype == torch.bool else image
    return numpy_image_to_torch(image) if isinstance(image, np.ndarray) and image.dtype == np.uint16 else image


@dataclass(frozen=True, eq=False)
class View:
    """An image as it is looked at in a pair."""

    image: Any
    mask: Any
    angle: float = 0  # degrees, clockwise, by which it is turned

    @property
    def key(self) -> tuple[int, int, float]:
        """What says whether two views are the same."""
        return id(self.image), id(self.mask), self.angle

    @property
    def turn(self) -> Turn | None:
        """How it is turned; None where it is not."""
        if not self.angle:
            return None
        h, w = self.image.shape[-2:] if isinstance(self.image, Tensor) else self.image.shape[:2]
        return Turn(self.angle, w, h)

    def extract(self, extractor: Extractor, preprocess: Mapping[str, Any]) -> Features:
        """Its features, in px of the turned image."""
        turn, mask = self.turn, self.mask
        if turn is None:
            options = preprocess if mask is None else {**preprocess, "mask": mask}
            return cast(Features, extractor.extract(self.image, **options))
        usual = getattr(extractor, "preprocess_conf", {})
        own = {"resize": usual["resize"]} if "resize" in usual and preprocess.get("tile") is None else {}
        options = turn.preprocess({**own, **preprocess})
        if mask is not None:
            mask = read_mask(mask, turn.height, turn.width)
        if (mask := turn.mask(mask)) is not None:
            options["mask"] = mask
        return cast(Features, extractor.extract(turn.image(self.image), **options))

    def turn_back(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """`features` of the turned image as those of the image."""
        turn, own = self.turn, dict(features)
        if turn is None:
            return own
        own["keypoints"] = turn.back(own["keypoints"])
        if "image_size" in own:
            own["image_size"] = own["image_size"].new_tensor([[turn.width, turn.height]])
        if "oris" in own:
            own["oris"] = own["oris"] - math.radians(self.angle)
        return own


def _pixels(image: Any, angles: Sequence[float]) -> Any:
    """`image`, read where it is a path that is to be turned; InputError where it can be turned in no way."""
    if not angles:
        return image
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Tensor) and image.ndim == 3 and image.numel():
        return image
    if isinstance(image, np.ndarray) and image.ndim in (2, 3) and image.size:
        return image
    shape = tuple(getattr(image, "shape", ())) or type(image).__name__
    raise InputError(f"The image is {shape}; with auto_rotate give (C, H, W), or with tile an array or a path.")


def _alone(matcher: PairMatcher) -> Matcher:
    """`matcher` for one pair at a time."""
    return lambda data: matcher.match([(data["image0"], data["image1"])])[0]


def _result(
    features: Sequence[Features],
    views: Sequence[View],
    matches: Mapping[str, Any],
    is_turned: bool,
    device: str | torch.device,
) -> Result:
    """Undo the turns, drop the batch dimension of all three, add the matched points, move to `device`."""
    original = [view.turn_back(each) for view, each in zip(views, features, strict=True)]
    data0, data1, found = (batch_to_device(rbd(data), device) for data in (*original, matches))
    if "matches" in found:  # a matcher of the user's own may do without
        found["points0"] = data0["keypoints"][found["matches"][..., 0]]
        found["points1"] = data1["keypoints"][found["matches"][..., 1]]
    if is_turned:
        found["rotation"] = views[1].angle
    return data0, data1, found
