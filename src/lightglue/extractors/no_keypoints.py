"""Why an image has no keypoints: the likely cause, by its pixels and its mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.images import ImageFile
from lightglue_runtime.images.files import is_file

__all__ = ["likely_cause"]

_TINY = 32  # px of the shorter side: descriptors look at about as much
_LITTLE = 0.01  # of an image that its mask leaves
_FLAT = 1 / 8  # of the range of values that nearly all of them lie within
_OUTLIERS = 0.1  # per cent of the values at either end, such as hot pixels


def likely_cause(
    image: Any, mask: Tensor | NDArray[Any] | None = None, extractor: Any = None, resize: Any = None
) -> str:
    """Why there are no keypoints in an image, in words that go on after "it has no keypoints: ".

    Args:
        image: a file, whose depth is known then; an array (H, W) or (H, W, 3), uint8 or uint16; or a tensor (C, H, W).
        mask: (H, W), where keypoints may lie.
        extractor: whose threshold may be the cause.
        resize: px of the longer side that the image was looked at in, where that is a number.
    """
    pixels, full = _pixels(image)
    height, width = pixels.shape[:2]
    subject = "its"
    if mask is not None:
        allowed = np.asarray(torch.as_tensor(mask).cpu()).astype(bool)
        share = float(allowed.mean())
        if not share:
            return "its mask is black everywhere"
        if share < _LITTLE:
            return f"its mask leaves only {share:.2%} of it"
        pixels, subject = pixels[allowed], "what its mask leaves: its"
    longer = max(height, width)
    scale = min(1.0, resize / longer) if isinstance(resize, int) else 1.0
    if min(height, width) * scale < _TINY:
        looked = f", and is looked at in {round(width * scale)} x {round(height * scale)}" if scale < 1 else ""
        return f"it is tiny, {width} x {height} px{looked}"
    return _of_values(pixels, full, subject) or _of_detector(extractor)


def _pixels(image: Any) -> tuple[NDArray[Any], float]:
    """The pixels, (H, W) or (H, W, C), and the largest value that they might have."""
    if is_file(image):
        image = ImageFile.read(image).decode(max_pixels=None)
    if isinstance(image, Tensor):
        return image.detach().reshape(-1, *image.shape[-2:]).permute(1, 2, 0).cpu().float().numpy(), 1.0
    array = np.asarray(image)
    return array, float(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else 255.0


def _of_values(pixels: NDArray[Any], full: float, subject: str) -> str:
    """What is wrong with the values; empty where nothing is."""
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        return "it is black" if not low and subject == "its" else f"{subject} pixels are all {low:g}"
    low, high = (float(value) for value in np.percentile(pixels, [_OUTLIERS, 100 - _OUTLIERS]))
    if high - low > full * _FLAT:
        return ""
    if full > 255:
        said = f"{subject} values lie between {low:,.0f} and {high:,.0f}, where {full:,.0f} is white"
        return f"{said}: a small part of 16 bits, which --stretch spreads"
    return f"{subject} values lie between {low:.4g} and {high:.4g}, where {full:g} is white: hardly any contrast"


def _of_detector(extractor: Any) -> str:
    threshold = getattr(getattr(extractor, "conf", None), "detection_threshold", None)
    said = "no point stands out enough for the detector"
    if isinstance(threshold, float) and threshold > 0:
        return f"{said}, whose detection_threshold is {threshold:g}; lower it"
    return said
