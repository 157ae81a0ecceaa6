"""One channel for the extractors that look at brightness only."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightglue.extractors.base import Extractor

__all__ = ["gray_images_in"]

# ITU-R BT.601, as in OpenCV, kornia and the published SuperPoint.
RED, GREEN, BLUE = 0.299, 0.587, 0.114


def gray_images_in(extractor: Extractor, data: Any) -> tuple[Tensor, Tensor | None]:
    """What `forward` works on: `data["image"]` as (B, 1, H, W), and `data["image_size"]` (B, 2) or None.

    A gray image stays as it is to the last bit. Raises InputError as `Extractor.images_in` does.
    """
    image, image_size = extractor.images_in(data)
    if data["image"].shape[1] == 1:
        return image[:, :1], image_size
    red, green, blue = (image[:, channel : channel + 1] for channel in range(3))
    # Summed in kornia's order with its rounding, since SIFT cuts the result off to 8 bits: the last bit may decide.
    return (RED * red).add(green, alpha=GREEN).add(blue, alpha=BLUE), image_size
