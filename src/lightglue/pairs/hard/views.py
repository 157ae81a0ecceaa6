"""Simulated views of an image: turned, in another size, and as a camera sees it that looks at it from the side.

A tilt of t is what a camera sees at an angle of acos(1 / t) to the normal: the image shrunk by t along one direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightglue.pairs.hard.warping import Floats, Pixels, mask_of, turning, warp

__all__ = ["PLAIN", "View", "ViewOf"]


@dataclass(frozen=True)
class View:
    """How an image is looked at."""

    tilt: float = 1.0  # at least 1
    direction: float = 0.0  # degrees, clockwise from the image's x axis: along this it is shrunk
    turn: float = 0.0  # degrees, clockwise, by which the tilted image is rotated
    scale: float = 1.0

    def linear(self) -> Floats:
        """(2, 2), from the image's px to the view's, but for the origin."""
        along = turning(self.direction)
        return self.scale * turning(self.turn) @ along @ np.diag([1 / self.tilt, 1.0]) @ along.T

    def of(self, width: int, height: int) -> ViewOf:
        """This view of an image of that size."""
        return ViewOf(self, width, height)

    def __str__(self) -> str:
        parts = [f"tilt {self.tilt:g} along {self.direction:g}°"] * (self.tilt != 1)
        parts += [f"turned by {self.turn:g}°"] * (self.turn != 0) + [f"size {self.scale:g}"] * (self.scale != 1)
        return ", ".join(parts) or "as it is"


PLAIN = View()


@dataclass(frozen=True)
class ViewOf:
    """A view of an image of a certain size: where its pixels go, and what of it there is."""

    view: View
    width: int  # px, of the image
    height: int

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the view, which holds all of the image, px."""
        width, height = np.abs(self.view.linear()) @ [self.width, self.height]
        return max(1, int(np.ceil(width - 1e-6))), max(1, int(np.ceil(height - 1e-6)))

    @cached_property
    def matrix(self) -> Floats:
        """(3, 3), from px of the image to px of the view, about both middles."""
        linear = self.view.linear()
        before, after = ((np.array(size, float) - 1) / 2 for size in ((self.width, self.height), self.size))
        found = np.eye(3)
        found[:2, :2], found[:2, 2] = linear, after - linear @ before
        return found

    def apply(self, image: Pixels) -> Pixels:
        """The view of `image` (H, W) or (H, W, C), blurred along the directions in which it shrinks."""
        return image if self.view == PLAIN else warp(image, self.matrix, self.size)

    def mask(self) -> NDArray[np.bool_] | None:
        """(H, W) of the view: where it shows the image; None where it does everywhere."""
        if self.view.direction % 90 == 0 and self.view.turn % 90 == 0:
            return None
        return mask_of(self.matrix, self.size, (self.width, self.height))
