"""What a file is tried on: photographs that come with the package and the user's, and cases at the edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.images import load_image, resize_tensor
from lightglue.types import Features

__all__ = ["ImageCase", "PairCase", "edge_cases", "image_cases", "made_up_pair", "photographs"]

_FOLDER = Path(__file__).parent / "photographs"  # small copies of the pair in assets/, in the wheel too
_OURS = (_FOLDER / "montmartre_close.jpg", _FOLDER / "montmartre_far.jpg")
EDGES = ((0, 5), (5, 0), (1, 1), (5, 40))  # keypoints: graphs fail on few of them more easily than on many


@dataclass(frozen=True, eq=False)
class PairCase:
    """Features of two images, with a batch dimension of 1."""

    name: str
    features0: Features
    features1: Features

    @property
    def counts(self) -> tuple[int, int]:
        """Keypoints of each."""
        return self.features0["keypoints"].shape[1], self.features1["keypoints"].shape[1]


@dataclass(frozen=True, eq=False)
class ImageCase:
    """An image (3, H, W) in [0, 1]. flat: rounding decides where it has keypoints."""

    name: str
    image: Tensor
    flat: bool = False


def photographs(own: Sequence[Path]) -> list[ImageCase]:
    """The images that come with the package, then the user's; pairs one after another. Raises ImageError."""
    return [ImageCase(path.name, load_image(path)) for path in (*_OURS, *own)]


def edge_cases(pair: PairCase, with_none: bool = True) -> list[PairCase]:
    """The pair with few keypoints, and with many against few. with_none: also where an image has none."""
    most = pair.counts
    wanted = [*(EDGES if with_none else [each for each in EDGES if min(each)]), (most[0], max(1, most[1] // 3))]
    return [
        PairCase(f"{m} and {n} keypoints", _first(pair.features0, m), _first(pair.features1, n))
        for m, n in wanted
        if m <= most[0] and n <= most[1]
    ]


def _first(features: Features, count: int) -> Features:
    """The first keypoints."""
    cut: dict[str, Any] = {key: value for key, value in features.items() if key == "image_size"}
    cut |= {
        key: cast(Tensor, value)[:, :count] for key, value in features.items() if key not in ("image_size", "image")
    }
    return cast(Features, cut)


def made_up_pair(count: int, length: int, scale_ori: bool = False, name: str = "made-up features") -> PairCase:
    """Seeded features of two views of the same points, for weights whose extractor this package does not have.

    count: of the first image; the second has three quarters of its points, moved, and some of its own.
    """
    g = torch.Generator().manual_seed(0)
    size = torch.tensor([[640.0, 480.0]])
    points = torch.rand(1, count, 2, generator=g) * size
    descriptors = F.normalize(torch.randn(1, count, length, generator=g), dim=-1)
    order = torch.randperm(count, generator=g)
    shared = order[: max(1, 3 * count // 4)]
    moved = points[:, shared] * 0.9 + 20 + torch.randn(1, len(shared), 2, generator=g)
    noisy = F.normalize(descriptors[:, shared] + 0.05 * torch.randn(1, len(shared), length, generator=g), dim=-1)
    others = torch.rand(1, count // 4, 2, generator=g) * size, torch.randn(1, count // 4, length, generator=g)
    second = torch.cat((moved, others[0]), 1), torch.cat((noisy, F.normalize(others[1], dim=-1)), 1)
    found = []
    for keypoints, vectors in ((points, descriptors), second):
        features: Any = {"keypoints": keypoints, "descriptors": vectors, "image_size": size}
        if scale_ori:
            n = keypoints.shape[1]
            features |= {"scales": 1 + 9 * torch.rand(1, n, generator=g), "oris": 3 * torch.randn(1, n, generator=g)}
        found.append(features)
    return PairCase(name, found[0], found[1])


def image_cases(own: Sequence[Path], resize: int) -> list[ImageCase]:
    """The photographs, no larger than `resize` px, and images of odd sizes, a small one, a flat one."""
    found = [ImageCase(each.name, _shrunk(each.image, resize)) for each in photographs(own)]
    first = found[0].image
    return [
        *found,
        ImageCase("333 x 417 px", first[:, :417, :333]),
        ImageCase("100 x 70 px", first[:, 100:170, 100:200]),
        ImageCase("a flat image", torch.full((3, 96, 128), 0.5), flat=True),
    ]


def _shrunk(image: Tensor, resize: int) -> Tensor:
    return image if max(image.shape[-2:]) <= resize else resize_tensor(image[None], resize)[0][0]
