"""Pairs of photographs of scenes with COLMAP models, whose epipolar geometry is known: from the side, façades."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

__all__ = ["ModelPair", "pairs_of_models"]

EACH = 6  # pairs of a scene
FEWEST = 20  # points of the model that both show
WIDE = (0.02, 0.35)  # share of the points of either image that the other shows, too: those of few are hard


@dataclass(frozen=True, eq=False)
class ModelPair:
    """Two photographs, and where both show points of the model."""

    name: str
    paths: tuple[Path, Path]
    points: tuple[NDArray[np.float64], NDArray[np.float64]]  # two of (N, 2), px, middles of pixels at integers


def pairs_of_models(folder: Path) -> Iterator[ModelPair]:
    """Some pairs of each scene that see few points of each other."""
    for scene in sorted(path for path in folder.iterdir() if (path / "sparse").is_dir()):
        model = pycolmap.Reconstruction(str(scene / "sparse"))
        images = sorted(model.images.values(), key=lambda image: image.name)
        seen = [{p.point3D_id: p.xy for p in image.points2D if p.has_point3D()} for image in images]
        found = []
        for a, b in itertools.combinations(range(len(images)), 2):
            common = sorted(seen[a].keys() & seen[b].keys())
            share = len(common) / max(1, min(len(seen[a]), len(seen[b])))
            if len(common) >= FEWEST and WIDE[0] <= share <= WIDE[1]:
                found.append((a, b, common))
        for a, b, common in found[:: max(1, len(found) // EACH)][:EACH]:
            points = tuple(np.array([seen[i][k] for k in common]) - 0.5 for i in (a, b))
            paths = tuple(scene / "images" / images[i].name for i in (a, b))
            label = f"{scene.name}: {Path(images[a].name).stem} {Path(images[b].name).stem}"
            yield ModelPair(label, (paths[0], paths[1]), (points[0], points[1]))
