"""Cameras of images that EXIF turns: from the picture as it is stored to the picture as it is shown."""

from __future__ import annotations

import math
from dataclasses import replace

from lightglue.errors import InputError
from lightglue.geometry.intrinsics import Intrinsics

__all__ = ["REMEDY", "fitted", "turned"]

# EXIF's orientation -> the rows of the matrix that leads from stored x, y to upright ones, about the image's middle.
_MATRICES = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, -1), (1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, 1), (-1, 0)),
}
# Parameters that turn with the picture as a vector (x, y) does. What they add to a point is covariant: tangential
# distortion is 2 (t x) x + r^2 t of t = (p2, p1), a thin prism adds r^2 s.
_VECTORS = (("cx", "cy"), ("p2", "p1"), ("p0", "p1"), ("sx1", "sy1"), ("s0", "s2"), ("s1", "s3"))
# What `lightglue eval convert` says too.
REMEDY = "Give the images that the model was made from, without orientation tags (`exiftool -Orientation= FOLDER`)."


def turned(camera: Intrinsics, orientation: int) -> Intrinsics:
    """The camera of an image that EXIF turns: of the picture as it is shown, from that of the picture as it is stored.

    camera: with the size of the stored picture. orientation: EXIF's, 1 to 8.

    Raises InputError for a panorama that is turned by 90 degrees, which is no camera of COLMAP's.
    """
    matrix, named = _MATRICES[orientation], camera.named
    assert camera.size is not None
    size = camera.size[::-1] if orientation >= 5 else camera.size
    if orientation >= 5:
        if "w" in named:
            raise InputError(f"A panorama cannot be turned by 90 degrees; {REMEDY[0].lower()}{REMEDY[1:]}")
        if "fx" in named:
            named["fx"], named["fy"] = named["fy"], named["fx"]
    for x, y in _VECTORS:
        if x not in named or y not in named:
            continue
        middle, new_middle = (0.0, 0.0), (0.0, 0.0)
        if x == "cx":  # of the pixels' centres
            middle, new_middle = (((edges[0] - 1) / 2, (edges[1] - 1) / 2) for edges in (camera.size, size))
        before = named[x] - middle[0], named[y] - middle[1]
        named[x], named[y] = (
            row[0] * before[0] + row[1] * before[1] + offset for row, offset in zip(matrix, new_middle, strict=True)
        )
    return replace(camera, size=size, params=tuple(named.values()))


def fitted(what: str, camera: Intrinsics, size: tuple[int, int], orientation: int) -> Intrinsics:
    """A camera that was given for an image file, as it is of the image as it is shown.

    COLMAP and most programs calibrate the picture as it is stored. Where its size tells which of the two a camera is
    of, it is turned, or stays; so it does where both are the same.

    what: in errors, such as "The camera of 'a.jpg' in cameras.txt". size: width and height of the image as it is shown,
    px. orientation: EXIF's, 1 to 8, of its file.

    Raises InputError for a camera of another size, and for one that could be of either picture.
    """
    stored = size[::-1] if orientation >= 5 else size
    if camera.size not in (size, stored):
        other = "" if stored == size else f" ({stored[0]} x {stored[1]} as it is stored)"
        raise InputError(
            f"{what} is of {camera.width} x {camera.height} px, and the image has {size[0]} x {size[1]} px{other}; "
            "scale the one or the other."
        )
    if orientation == 1:
        return camera
    if size != stored:
        return turned(camera, orientation) if camera.size == stored else camera
    upright = turned(camera, orientation)
    if not all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(upright.params, camera.params, strict=True)
    ):
        raise InputError(
            f"{what} may be of the image as it is stored or as its EXIF orientation ({orientation}) turns it, and "
            f"these differ. {REMEDY}"
        )
    return camera
