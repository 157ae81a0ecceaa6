"""Images rotated in their plane: their pixels, their masks, and positions in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError

__all__ = ["Rotation"]

LARGEST_EDGE = 32_766  # px that OpenCV rotates by other angles than multiples of 90
RIM = 2  # px along the sides of a rotated image that are half outside of it

_Image = TypeVar("_Image", Tensor, NDArray[Any])


@dataclass(frozen=True)
class Rotation:
    """A rotation of an image in its plane."""

    angle: float  # degrees, clockwise as one sees it
    width: int  # px, of the image before
    height: int

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the rotated image, which holds all of the image, px."""
        radians = math.radians(self.angle)
        cos, sin = abs(math.cos(radians)), abs(math.sin(radians))
        edges = self.width * cos + self.height * sin, self.width * sin + self.height * cos
        return max(1, math.ceil(edges[0] - 1e-6)), max(1, math.ceil(edges[1] - 1e-6))

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """(2, 3), from positions x y in the image to those in the rotated image, about both centres."""
        radians = math.radians(self.angle)
        cos, sin = math.cos(radians), math.sin(radians)
        linear = np.array([[cos, -sin], [sin, cos]])
        before, after = ((np.array(size, float) - 1) / 2 for size in ((self.width, self.height), self.size))
        return np.hstack((linear, (after - linear @ before)[:, None]))

    @property
    def is_exact(self) -> bool:
        """Whether pixels only change places."""
        return self.angle % 90 == 0

    def apply(self, image: _Image) -> _Image:
        """`image`, (..., H, W) tensor or (H, W, ...) array, rotated; what is around it is 0.

        By multiples of 90 degrees pixels only change places, by other angles they are interpolated linearly.
        """
        axes = (image.ndim - 2, image.ndim - 1) if isinstance(image, Tensor) else (0, 1)
        if self.is_exact:
            steps = -round(self.angle / 90)  # rot90 goes against the clock
            if isinstance(image, Tensor):
                return torch.rot90(image, steps, axes).contiguous()
            return np.ascontiguousarray(np.rot90(image, steps, axes))
        if max(self.width, self.height, *self.size) > LARGEST_EDGE:
            raise InputError(
                f"An image of more than {LARGEST_EDGE:,} px can be rotated by multiples of 90 degrees only."
            )
        if isinstance(image, Tensor):
            planes = image.detach().float().cpu().reshape(-1, self.height, self.width)
            rotated = torch.from_numpy(np.stack([self._warp(plane.numpy()) for plane in planes]))
            return rotated.reshape(*image.shape[:-2], *rotated.shape[-2:]).to(image)
        return self._warp(image)

    def _warp(self, array: NDArray[Any]) -> NDArray[Any]:
        return cv2.warpAffine(array, self.matrix, self.size, flags=cv2.INTER_LINEAR)

    def mask(self, mask: Tensor | None) -> Tensor | None:
        """`mask` (H, W) bool rotated, and False beside the image; None where all of the rotated image is image."""
        if self.is_exact:
            return None if mask is None else self.apply(mask)
        whole = torch.ones(self.height, self.width) if mask is None else mask.float()
        whole[:RIM], whole[-RIM:], whole[:, :RIM], whole[:, -RIM:] = 0, 0, 0, 0
        return self.apply(whole) > 0.99

    def extract_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `extract` for the rotated image with which it shows things as large as the image would have been.

        options: those for the image, with its `resize` where the extractor's own is not None.
        """
        if "resize" not in options:
            return dict(options)
        size, side = options["resize"], options.get("side", "long")
        swapped = self.angle % 180 == 90
        if swapped and side in ("vert", "horz"):
            side = {"vert": "horz", "horz": "vert"}[side]
        if isinstance(size, (tuple, list)) and len(size) == 2:
            size = tuple(size[::-1] if swapped else size)
        elif not self.is_exact and isinstance(size, int):
            size = max(1, round(size * _edge(side, self.size) / _edge(side, (self.width, self.height))))
        return {**options, "resize": size, **({"side": side} if "side" in options else {})}

    def undo(self, keypoints: Tensor) -> Tensor:
        """Positions (..., 2) in the rotated image as positions in the image, px."""
        matrix = torch.from_numpy(self.matrix)  # some devices have no float64
        return ((keypoints.cpu().double() - matrix[:, 2]) @ matrix[:, :2]).to(keypoints)  # the inverse: transposed


def _edge(side: Any, size: tuple[int, int]) -> int:
    """The edge of a width and height that `side` names."""
    return {"short": min(size), "vert": size[1], "horz": size[0]}.get(side, max(size))
