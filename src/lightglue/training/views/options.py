"""How views are made; defaults as published (cvg/glue-factory). Importing this loads neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.support.checks import check_int, check_real, is_real

__all__ = ["HomographyOptions", "PhotometricOptions", "Range", "as_pair"]

Range = tuple[float, float]


def as_pair(owner: Any, name: str, lowest: float, highest: float, meaning: str) -> None:
    """Make a field a tuple of two numbers in order. Raises InputError where it is none."""
    value = getattr(owner, name)
    given = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(given) != 2 or not all(is_real(each, lowest, highest) for each in given) or given[0] > given[1]:
        raise InputError(f"{name} is {value!r}; give two numbers in order, {meaning}.")
    object.__setattr__(owner, name, given)


@dataclass(frozen=True)
class HomographyOptions:
    """What part of an image a view shows, and from where."""

    difficulty: float = option(0.7, "Corners are pulled in by up to this share of the way to the middle.")
    max_angle: float = option(45.0, "Views are turned by up to this, times the difficulty; degrees.")
    angles: int = option(10, "So many angles are tried until one stays inside of the image; 0: none.")
    translation: float = option(1.0, "Views are moved by up to this share of the room there is, times the difficulty.")
    min_convexity: float = option(0.05, "Corners are no flatter; share of the area of the image.")

    def __post_init__(self) -> None:
        check_real("difficulty", self.difficulty, "a share from 0 to 0.95", 0, 0.95)
        check_real("max_angle", self.max_angle, "degrees from 0 to 180", 0, 180)
        check_int("angles", self.angles, 0, "a number from 0", 1000)
        check_real("translation", self.translation, "a share from 0 to 1", 0, 1)
        # At a difficulty of 0.95 the smallest views, squares, have one of 0.0025.
        check_real("min_convexity", self.min_convexity, "a share from 0 to 0.5", 0, 0.5)
        if self.min_convexity > 0.8 * (1 - self.difficulty / 2) ** 2:
            raise InputError(
                f"min_convexity is {self.min_convexity!r}, which hardly any view has at a difficulty of "
                f"{self.difficulty!r}; give less of one of them."
            )


@dataclass(frozen=True)
class PhotometricOptions:
    """What the light, the lens and the sensor do to a view: each with its probability (p_...) and its range."""

    p: float = option(0.95, "Probability that anything is done to a view; 0: never.")
    p_gamma: float = option(0.1, "Probability of a gamma curve.")
    gamma: Range = option((0.15, 0.65), "Its exponent, of values in [0, 1].")
    p_hue: float = option(0.1, "Probability of other colours.")
    hue: Range = option((-40.0, 40.0), "Added to the hue, degrees.")
    saturation: Range = option((-30.0, 30.0), "Added to the saturation, of 255.")
    value: Range = option((-100.0, -40.0), "Added to the value, of 255.")
    p_one_of: float = option(0.1, "Probability of one of blur, motion blur, noise of the sensor and JPEG.")
    p_blur: float = option(0.1, "Probability of a blur of its own.")
    blur: Range = option((3, 9), "Side of the box, px.")
    p_motion: float = option(0.1, "Probability of a motion blur of its own.")
    motion: Range = option((3, 25), "Length of the motion, px.")
    noise: Range = option((0.1, 0.5), "Strength of the noise of the sensor.")
    jpeg: Range = option((40, 95), "Quality of JPEG.")  # the library that was used has 99 to 100, which shows nothing
    p_brightness: float = option(0.5, "Probability of less light and contrast.")
    brightness: Range = option((-0.4, 0.0), "Added to values in [0, 1].")
    contrast: Range = option((-0.3, 0.0), "Values are multiplied by one more.")
    p_clahe: float = option(0.2, "Probability of local equalization.")
    clahe: Range = option((1.0, 4.0), "Its clip limit.")

    def __post_init__(self) -> None:
        limits = {
            "gamma": (0.01, 10),
            "hue": (-180, 180),
            "saturation": (-255, 255),
            "value": (-255, 255),
            "blur": (1, 99),
            "motion": (1, 99),
            "noise": (0, 2),
            "jpeg": (1, 100),
            "brightness": (-1, 1),
            "contrast": (-1, 1),
            "clahe": (0.1, 40),
        }
        for field in fields(self):
            if field.name in limits:
                low, high = limits[field.name]
                as_pair(self, field.name, low, high, f"from {low:g} to {high:g}")
            else:
                check_real(field.name, getattr(self, field.name), "a probability from 0 to 1", 0, 1)
