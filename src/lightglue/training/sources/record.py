"""What every source gives: images, and which of them see the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.sfm.skipped import Skipped

__all__ = ["LEAST_OVERLAP", "Listed", "Posed", "ScenePairs", "SourceImage"]

LEAST_OVERLAP = 0.02  # of what two images see; below, they are no pair


@dataclass(frozen=True)
class Posed:
    """Where an image was taken, and with what."""

    camera: Intrinsics  # of the image as it is shown, px of it
    pose: tuple[float, ...]  # 16 numbers, row by row: T (4, 4) from the world to the camera
    depth: str | None = None  # the file of its depths; None where they come from tracks

    def __post_init__(self) -> None:
        plain = Intrinsics(self.camera.model, self.camera.size, tuple(float(each) for each in self.camera.params))
        object.__setattr__(self, "camera", plain)  # as it is read again

    @property
    def T(self) -> NDArray[np.float64]:  # noqa: N802  # the field's name
        """(4, 4), from the world to the camera."""
        return np.array(self.pose, np.float64).reshape(4, 4)

    def as_json(self) -> dict[str, Any]:
        """As a line of views.jsonl has it."""
        camera = {"model": self.camera.model, "size": self.camera.size, "params": self.camera.params}
        return {"camera": camera, "pose": self.pose, "depth": self.depth}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Posed:
        """The opposite. Raises KeyError, TypeError or ValueError for anything else."""
        camera = said["camera"]
        width, height = camera["size"]
        params = tuple(float(each) for each in camera["params"])
        pose = tuple(float(each) for each in said["pose"])
        if len(pose) != 16:
            raise ValueError("a pose has 16 numbers")
        return cls(Intrinsics(camera["model"], (width, height), params).check(), pose, said["depth"])


@dataclass(frozen=True)
class SourceImage:
    """An image of a source."""

    source: str  # its key
    scene: str  # "" where images have nothing to do with each other
    name: str  # unique in the source
    path: str  # of the file
    posed: Posed | None = None


@dataclass(frozen=True, eq=False)
class ScenePairs:
    """Pairs of images of a scene that see the same."""

    names: Sequence[str]
    first: NDArray[np.int32]  # (P,) into `names`
    second: NDArray[np.int32]
    overlap: NDArray[np.float32]  # (P,)

    def __post_init__(self) -> None:
        if not len(self.first) == len(self.second) == len(self.overlap):
            raise InputError("The pairs of a scene are of unequal numbers.")

    def between(self, least: float, most: float) -> ScenePairs:
        """Those that overlap so much."""
        kept = (self.overlap >= least) & (self.overlap <= most)
        return ScenePairs(self.names, self.first[kept], self.second[kept], self.overlap[kept])


@dataclass(frozen=True, eq=False)
class Listed:
    """What a source holds."""

    images: tuple[SourceImage, ...]
    skipped: tuple[Skipped, ...] = ()
    scenes: Mapping[str, ScenePairs] = field(default_factory=dict)  # of posed images
