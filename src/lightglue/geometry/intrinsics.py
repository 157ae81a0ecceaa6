"""The intrinsics of a camera as a record, and the half pixel between our pixel origin and COLMAP's.

Here and everywhere in this package (0, 0) is the centre of the top-left pixel; COLMAP has it at that pixel's corner, so
its positions are larger by half a pixel on both axes. `to_colmap` and `from_colmap` are the only place that says so.
Nothing here needs numpy or pycolmap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from lightglue.errors import InputError

__all__ = [
    "GUESSED_FOCAL",
    "MODELS",
    "Intrinsics",
    "from_colmap",
    "params_from_colmap",
    "params_to_colmap",
    "to_colmap",
]

_HALF = 0.5  # px
GUESSED_FOCAL = 1.2  # of the longer edge of an image, as COLMAP guesses
Numbers = TypeVar("Numbers", bound=Any)

# COLMAP's camera models (4.2) and the names of their parameters, in its order.
MODELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "SIMPLE_PINHOLE": ("f", "cx", "cy"),
        "PINHOLE": ("fx", "fy", "cx", "cy"),
        "SIMPLE_RADIAL": ("f", "cx", "cy", "k"),
        "SIMPLE_RADIAL_FISHEYE": ("f", "cx", "cy", "k"),
        "RADIAL": ("f", "cx", "cy", "k1", "k2"),
        "RADIAL_FISHEYE": ("f", "cx", "cy", "k1", "k2"),
        "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
        "OPENCV_FISHEYE": ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4"),
        "FULL_OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
        "FOV": ("fx", "fy", "cx", "cy", "omega"),
        "THIN_PRISM_FISHEYE": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"),
        "RAD_TAN_THIN_PRISM_FISHEYE": (
            *("fx", "fy", "cx", "cy", "k0", "k1", "k2", "k3", "k4", "k5"),
            *("p0", "p1", "s0", "s1", "s2", "s3"),
        ),
        "SIMPLE_DIVISION": ("f", "cx", "cy", "k"),
        "DIVISION": ("fx", "fy", "cx", "cy", "k"),
        "SIMPLE_FISHEYE": ("f", "cx", "cy"),
        "FISHEYE": ("fx", "fy", "cx", "cy"),
        "EUCM": ("fx", "fy", "cx", "cy", "alpha", "beta"),
        "EQUIRECTANGULAR": ("w", "h"),
    }
)


def to_colmap(position: Numbers) -> Numbers:
    """Positions in px, an array or a number, with COLMAP's origin."""
    moved: Numbers = position + _HALF
    return moved


def from_colmap(position: Numbers) -> Numbers:
    """Positions in px with COLMAP's origin, an array or a number, with ours."""
    moved: Numbers = position - _HALF
    return moved


def params_to_colmap(model: str, params: Sequence[float]) -> list[float]:
    """The parameters of a camera with COLMAP's origin: its principal point is moved."""
    return [to_colmap(p) if name in ("cx", "cy") else p for name, p in _named(model, params)]


def params_from_colmap(model: str, params: Sequence[float]) -> list[float]:
    """COLMAP's parameters of a camera with our origin."""
    return [from_colmap(p) if name in ("cx", "cy") else p for name, p in _named(model, params)]


def _named(model: str, params: Sequence[float]) -> list[tuple[str, float]]:
    """Each parameter with its name. Raises InputError for those that are none of the model's."""
    if model not in MODELS:
        raise InputError(f"COLMAP has no camera model {model!r}; choose one of {', '.join(MODELS)}.")
    names, numbers = MODELS[model], [float(p) for p in params]
    if len(numbers) != len(names) or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"params is {numbers}; {model} takes {len(names)} finite numbers: its parameters are {', '.join(names)}."
        )
    return list(zip(names, numbers, strict=True))


@dataclass(frozen=True)
class Intrinsics:
    """The intrinsics of a camera, of any of COLMAP's models; `geometry.Camera` projects with them."""

    model: str  # one of MODELS
    size: tuple[int, int] | None  # width, height, px; None where it is not known
    params: tuple[float, ...]  # in COLMAP's order; cx, cy in px whose (0, 0) is the centre of the top-left pixel
    has_prior_focal: bool = True  # the focal length is known, if only from EXIF
    is_fixed: bool = True  # the intrinsics are known: mapping leaves them as they are

    @classmethod
    def guessed(cls, size: tuple[int, int], focal: float | None = None) -> Intrinsics:
        """A pinhole whose axis goes through the middle of the image. focal: px; None for COLMAP's guess."""
        f = GUESSED_FOCAL * max(size) if focal is None else focal
        cx, cy = (from_colmap(edge / 2) for edge in size)
        return cls("SIMPLE_PINHOLE", size, (f, cx, cy), has_prior_focal=focal is not None, is_fixed=False)

    def check(self) -> Intrinsics:
        """This record. Raises InputError for a model that COLMAP does not have, or parameters that are none of its."""
        _named(self.model, self.params)
        return self

    @property
    def width(self) -> int:
        """px; 0 where it is not known."""
        return self.size[0] if self.size else 0

    @property
    def height(self) -> int:
        """px; 0 where it is not known."""
        return self.size[1] if self.size else 0

    @property
    def named(self) -> dict[str, float]:
        """The parameters by COLMAP's names, such as f, cx, cy, k."""
        return dict(_named(self.model, self.params))

    @property
    def is_panorama(self) -> bool:
        """Whether it looks all around: there is no focal length, and no image plane."""
        return self.model == "EQUIRECTANGULAR"

    @property
    def focal(self) -> tuple[float, float]:
        """Focal lengths along x and y, px; the longer edge of a panorama, which has none."""
        named = self.named
        either = named.get("f", float(max(self.width, self.height)))
        return named.get("fx", either), named.get("fy", either)

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Horizontal and vertical, degrees, as of a pinhole camera with this focal length and size."""
        across, down = (
            math.degrees(2 * math.atan2(edge, 2 * f))
            for edge, f in zip((self.width, self.height), self.focal, strict=True)
        )
        return across, down
