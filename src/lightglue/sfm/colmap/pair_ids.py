"""COLMAP's numbers in a database: of pairs of images, and of kinds of two-view geometry."""

from __future__ import annotations

__all__ = ["configuration_name", "pair_id", "pair_of"]

_MAX_IMAGES = 2**31 - 1  # COLMAP's kMaxNumImages: pair_id = this * smaller image_id + larger image_id
# COLMAP's TwoViewGeometry::ConfigurationType, as numbered in its database.
_CONFIGURATIONS = {
    0: "undefined",
    1: "degenerate",
    2: "calibrated",
    3: "uncalibrated",
    4: "planar",
    5: "panoramic",
    6: "planar_or_panoramic",
    7: "watermark",
    8: "multiple",
    9: "calibrated_rig",
}


def pair_id(first: int, second: int) -> int:
    """COLMAP's number of a pair of images."""
    return _MAX_IMAGES * min(first, second) + max(first, second)


def pair_of(number: int) -> tuple[int, int]:
    """The numbers of the two images of a pair."""
    return number // _MAX_IMAGES, number % _MAX_IMAGES


def configuration_name(number: int) -> str:
    """The word for the number that stands in a database."""
    return _CONFIGURATIONS.get(number, "undefined")
