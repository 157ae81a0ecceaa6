"""The pictures that pairs are made of: photographs, and parts of them, changed or not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from lightglue import load_image

__all__ = ["Picture", "read"]


@dataclass(frozen=True)
class Picture:
    """A photograph, or the part of it inside `box`; with a `change` its light, sharpness and angle are others."""

    file: str  # relative to the folder with the data
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom as shares of width and height
    change: int = 0  # seed of the change; 0: none

    @property
    def key(self) -> str:
        """The picture's name in the cache."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]
        return f"{Path(self.file).with_suffix('').as_posix().replace('/', '_').strip('._')}_{digest}"


def read(folder: Path, picture: Picture) -> Tensor:
    """(3, H, W) float32 in [0, 1]."""
    image = load_image(folder / picture.file)
    if picture.box is not None:
        h, w = image.shape[1:]
        left, top, right, bottom = picture.box
        image = image[:, round(top * h) : round(bottom * h), round(left * w) : round(right * w)]
    image = image.expand(3, -1, -1).contiguous()
    return changed(image, picture.change) if picture.change else image


def changed(image: Tensor, seed: int) -> Tensor:
    """The picture in other light, a little turned and zoomed, blurred, with noise.

    What turning lets in from outside is a reflection of what is inside, so a changed part shows nothing but itself.
    """
    rng = np.random.default_rng(seed)
    pixels = image.permute(1, 2, 0).numpy()
    h, w = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), rng.uniform(-15, 15), rng.uniform(0.8, 1.25))
    pixels = cv2.warpAffine(pixels, turn, (w, h), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101)
    pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 1.2))
    pixels = np.clip(pixels, 0, 1) ** rng.uniform(0.5, 2.0) * rng.uniform(0.7, 1.1, 3)
    pixels = pixels + rng.normal(0, rng.uniform(0.005, 0.03), pixels.shape)
    return torch.from_numpy(np.clip(pixels, 0, 1).astype(np.float32)).permute(2, 0, 1).contiguous()
