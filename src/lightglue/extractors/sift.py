"""SIFT keypoints and descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.base import Extractor, full_precision, stack_features
from lightglue.extractors.dog import DogConfig, check_backend, describe_opencv, detect, root_sift
from lightglue.extractors.grayscale import gray_images_in
from lightglue.extractors.request import EVERYTHING, Request
from lightglue.images.exact_resize import shrink_exactly
from lightglue.types import Features
from lightglue_runtime.resize import target_size

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.extractors.keywords import DogKeywords

__all__ = ["SIFT"]

DEFAULT_SCALE = 5.0  # px, diameter of a keypoint that comes without one: above the median of what SIFT finds


class SIFT(Extractor):
    """SIFT (Lowe 2004) of OpenCV or COLMAP: `SIFT(max_num_keypoints=4096).eval()`.

    It has no weights, computes on the CPU (COLMAP's on a GPU if asked to) and answers on the image's device.

    Args:
        conf: the options of `DogConfig`.

    Raises:
        InputError: for an option's value, or a back end that is not installed.
    """

    config_type = DogConfig
    default_conf: ClassVar[dict[str, Any]] = asdict(DogConfig())
    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": 1024}
    same_point: ClassVar[float] = 1.0  # px: nothing keeps them further apart

    def __init__(self, **conf: Unpack[DogKeywords]) -> None:
        super().__init__(**conf)
        check_backend(self.options())

    def check_image(self, image: Any) -> Tensor:
        """`image` as (B, C, H, W) float32; InputError where it is no such thing."""
        return super().check_image(image).to(image.device)  # the base would leave it on the device of the weights

    def resample(self, image: Tensor, resize: int | tuple[int, int] | None, **options: Any) -> tuple[Tensor, Tensor]:
        """`image` (B, C, H, W) resized with every option of `resize_tensor`, and the ratio (2,) of the sizes.

        What the published package shrinks is shrunk to its last bit.
        """
        h, w = image.shape[-2:]
        new_h, new_w = (h, w) if resize is None else target_size(h, w, resize, options["side"])
        as_published = options["interpolation"] == "bilinear" and options["antialias"] and not options["align_corners"]
        if not as_published or not (new_h < h or new_w < w):
            return super().resample(image, resize, **options)
        shrunk = shrink_exactly(image.float().cpu(), (new_h, new_w))  # a GPU may convolve with fewer bits
        return shrunk.to(image), torch.tensor([new_w / w, new_h / h], device=image.device)

    @torch.no_grad()
    @full_precision
    def describe(
        self, keypoints: Tensor, img: Tensor, *, scales: Any = None, oris: Any = None, **preprocess: Any
    ) -> Tensor:
        """Descriptors at keypoints that another detector found.

        Args:
            keypoints: (B, N, 2), or (N, 2) for one image, x y in px of `img`.
            img: (C, H, W) or (B, C, H, W) as for `extract`.
            scales: (B, N) or (N,) as `extract` gives them: diameters in px of the resized image; by default 5 each.
            oris: likewise, radians from x towards y; by default 0, upright.
            preprocess: as for `extract`.

        Returns:
            (B, N, 128) float32, as `extract` gives them.

        Raises:
            InputError: for an image or an option as in `extract`, for a keypoint that does not lie in its image, and
                for COLMAP's back ends, which describe only what they find.
        """
        image, positions = self.resize_with_keypoints(keypoints, img, preprocess)
        sizes = _per_keypoint("scales", scales, DEFAULT_SCALE, positions)
        if not (sizes > 0).all():
            raise InputError("scales holds a value that is not positive; give diameters in px.")
        gray, _ = gray_images_in(self, {"image": image})
        return self.describe_frames(gray, positions, sizes, _per_keypoint("oris", oris, 0.0, positions)).float()

    def describe_frames(self, gray: Tensor, keypoints: Tensor, scales: Tensor, oris: Tensor) -> Tensor:
        """Descriptors (B, N, 128) of (B, 1, H, W) at `keypoints` (B, N, 2) with `scales` and `oris` (B, N)."""
        options = self.options()
        if options.backend != "opencv":
            raise InputError("COLMAP describes only the keypoints that it finds; use SIFT(backend='opencv').")
        each = zip(gray[:, 0], keypoints, scales, oris, strict=True)
        found = torch.stack([describe_opencv(*one, options) for one in each])
        return root_sift(found) if options.rootsift else found

    @full_precision
    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        """See `Extractor.forward`.

        Returns:
            keypoints (B, N, 2), scales (B, N), oris (B, N) in radians, descriptors (B, N, 128), and but for COLMAP
            keypoint_scores (B, N), all float32. `extract` leaves the scales in pixels of the resized image, as the
            published package does: its matcher was trained so, with images of 1,024 px.
        """
        options = self.options()
        image, image_size = gray_images_in(self, data)
        found = detect(image, image_size, options, request.allowed_in(len(image)))
        features = stack_features([detections.as_features(image.device) for detections in found])
        if options.rootsift:
            features["descriptors"] = root_sift(features["descriptors"])
        return features


def _per_keypoint(name: str, values: Any, default: float, keypoints: Tensor) -> Tensor:
    """`values` as (B, N) beside `keypoints` (B, N, 2)."""
    if values is None:
        return keypoints.new_full(keypoints.shape[:2], default)
    if not isinstance(values, Tensor) or values.numel() != keypoints[..., 0].numel() or not values.isfinite().all():
        shape = tuple(getattr(values, "shape", ())) or type(values).__name__
        raise InputError(f"{name} is {shape}; give a finite tensor (B, N) = {tuple(keypoints.shape[:2])}.")
    return values.to(keypoints).view(keypoints.shape[:2])
