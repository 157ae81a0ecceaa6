"""Pictures of the pairs that were dropped, for whoever wants to see that they only look alike."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightglue.drawing.matches import plot_match_summary
from lightglue.errors import LightGlueError
from lightglue.images import load_image
from lightglue.stores import FeatureStore, MatchStore

__all__ = ["PICTURES", "PairPicture", "dropped_pictures"]

PICTURES = 12  # of the strongest pairs: more would make the page slow
_EDGE = 640  # px of an image in a picture
_DPI = 80


@dataclass(frozen=True)
class PairPicture:
    """A pair that was dropped."""

    names: tuple[str, str]
    reason: str
    image: bytes | None  # JPEG; None where an image or its matches are gone
    caption: str


def dropped_pictures(
    folder: Path, images: Path | None, dropped: Iterable[tuple[str, str, str]]
) -> Iterator[PairPicture]:
    """A picture of each pair of names, with its reason. folder: the map's."""
    for name0, name1, reason in dropped:
        try:
            if images is None:
                raise LightGlueError("The folder of the images is not known.")
            yield PairPicture(
                (name0, name1), reason, _picture(folder, images, name0, name1), "Its matches, unverified."
            )
        except LightGlueError as error:
            yield PairPicture((name0, name1), reason, None, f"There is no picture: {error}")


def _picture(folder: Path, images: Path, name0: str, name1: str) -> bytes:
    features = FeatureStore.open(folder / "features", read_only=True)
    pair = MatchStore.open(folder / "matches.db", read_only=True).get(name0, name1)
    if pair is None:
        raise LightGlueError("Its matches are gone.")
    pixels, keypoints = [], []
    for name in (name0, name1):
        there = features.get(name)
        pixels.append(load_image(images / name, resize=_EDGE))
        scale = np.array(pixels[-1].shape[:0:-1]) / there.image_size
        keypoints.append((there.keypoints + 0.5) * scale - 0.5)
    scores = np.clip(pair.scores, 0, 1)
    figure = plot_match_summary(
        pixels[0], pixels[1], keypoints[0], keypoints[1], pair.matches, scores, names=(name0, name1), dpi=_DPI
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", pil_kwargs={"quality": 75, "optimize": True})
    return buffer.getvalue()
