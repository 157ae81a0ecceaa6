"""The images and cameras of a COLMAP model under other numbers: those of a database that was made again.

Its three binary files (https://colmap.github.io/format.html) are gone through and only numbers replaced. Rigs and
frames, which later versions write too, are left out: reading makes one for each camera and image, as our databases
have them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lightglue.errors import StoreError

__all__ = ["renumber"]

_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<Ii2Q")  # number, model, width, height; then its parameters
_IMAGE = struct.Struct("<I7dI")  # number, pose, camera; then its name and its points
_POINT = struct.Struct("<Q3d3BdQ")  # number, position, colour, error, length of its track
_POINT2D = 24  # bytes: x, y, and the number of the point in space


@dataclass
class _Numbers:
    """New numbers by what was there."""

    images: Mapping[str, int]
    cameras: Mapping[str, int]  # by the image's name
    num_params: Mapping[int, int]  # by the old number of the camera
    image_of: dict[int, int] = field(default_factory=dict)  # old number of an image -> new one
    camera_of: dict[int, int] = field(default_factory=dict)  # NEW number of a camera -> old one, of its first image


def renumber(
    model: Path, out: Path, images: Mapping[str, int], cameras: Mapping[str, int], num_params: Mapping[int, int]
) -> None:
    """Write a model in the folder `model` to the folder `out`, with other numbers.

    Args:
        images: the new number of each image, by its name.
        cameras: the new number of the camera of each image. Where several had one, each gets a copy.
        num_params: how many parameters each camera of the model has, by its old number.

    Raises StoreError for files that cannot be read or written.
    """
    numbers = _Numbers(images, cameras, num_params)
    out.mkdir(parents=True, exist_ok=True)
    steps = (("images.bin", _images), ("points3D.bin", _points), ("cameras.bin", _cameras))  # images first
    for name, step in steps:
        try:
            content = (model / name).read_bytes()
            with (out / name).open("wb") as file:
                step(content, numbers, file)
        except (OSError, KeyError, ValueError, struct.error) as error:
            raise StoreError(f"{model / name} cannot be rewritten ({error}); reconstruct the model again.") from error


def _images(content: bytes, numbers: _Numbers, file: BinaryIO) -> None:
    view, at = memoryview(content), _COUNT.size
    (count,) = _COUNT.unpack_from(content)
    file.write(view[:at])
    for _ in range(count):
        number, *pose, camera = _IMAGE.unpack_from(content, at)
        begin = at + _IMAGE.size
        end = content.index(b"\0", begin)
        name = content[begin:end].decode()
        (rows,) = _COUNT.unpack_from(content, end + 1)
        at = end + 1 + _COUNT.size + rows * _POINT2D
        numbers.image_of[number] = numbers.images[name]
        numbers.camera_of.setdefault(numbers.cameras[name], camera)
        file.write(_IMAGE.pack(numbers.images[name], *pose, numbers.cameras[name]))
        file.write(view[begin:at])


def _points(content: bytes, numbers: _Numbers, file: BinaryIO) -> None:
    table = np.zeros(max(numbers.image_of, default=0) + 1, np.uint32)
    table[list(numbers.image_of)] = list(numbers.image_of.values())
    view, at = memoryview(content), _COUNT.size
    (count,) = _COUNT.unpack_from(content)
    file.write(view[:at])
    for _ in range(count):
        length = _POINT.unpack_from(content, at)[-1]
        begin = at + _POINT.size
        track = np.frombuffer(content, "<u4", 2 * length, begin).reshape(-1, 2).copy()
        track[:, 0] = table[track[:, 0]]
        file.write(view[at:begin])
        file.write(track.tobytes())
        at = begin + track.nbytes


def _cameras(content: bytes, numbers: _Numbers, file: BinaryIO) -> None:
    at, found = _COUNT.size, {}
    (count,) = _COUNT.unpack_from(content)
    for _ in range(count):
        number, *rest = _CAMERA.unpack_from(content, at)
        end = at + _CAMERA.size + 8 * numbers.num_params[number]
        found[number] = (rest, content[at + _CAMERA.size : end])
        at = end
    file.write(_COUNT.pack(len(numbers.camera_of)))
    for number, before in sorted(numbers.camera_of.items()):
        rest, params = found[before]
        file.write(_CAMERA.pack(number, *rest) + params)
