"""Formats of a matched pair: a table from the ending of a file to the function that encodes it.

A format is added as one row of `ENCODERS`. Loaded without torch or NumPy, since help and checks need the endings.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lightglue.errors import InputError
from lightglue_runtime.outputs import ARRAY_ENCODERS, savez

if TYPE_CHECKING:
    from lightglue.pairs.record import MatchedPair

__all__ = ["ENCODERS", "ENDINGS", "WARP_ENDINGS", "Shown", "encode", "encode_warp", "savez"]


@dataclass(frozen=True, eq=False)
class Shown:
    """What a picture shows besides the matches."""

    image0: Any  # (3, H, W) float32 in [0, 1], or (H, W, 3) uint8
    image1: Any
    names: tuple[str, str] = ("A", "B")  # above the images
    texts: tuple[str, ...] = ()  # below them, after the number of matches
    facts: Mapping[str, Any] = field(default_factory=dict)  # what `MatchedFiles.summary()` knows
    threshold: float = 0.0  # the score that matches exceed


def encode(pair: MatchedPair, ending: str, shown: Shown) -> bytes:
    """The content of a file of this ending, such as ".json". Raises InputError for an ending that is not known."""
    ending = ending.lower()
    if ending not in ENCODERS:
        raise InputError(f"{ending!r} is none of the known endings: {', '.join(ENDINGS)}.")
    return ENCODERS[ending](pair, shown, ending.removeprefix("."))


def _arrays(pair: MatchedPair, _: Shown, kind: str) -> bytes:
    return ARRAY_ENCODERS[f".{kind}"](pair.arrays())


def _picture(pair: MatchedPair, shown: Shown, kind: str) -> bytes:
    _ignore_backend()
    from lightglue.drawing.matches import plot_match_summary

    figure = plot_match_summary(
        shown.image0,
        shown.image1,
        pair.keypoints0,
        pair.keypoints1,
        pair.matches,
        pair.scores,
        names=shown.names,
        texts=shown.texts,
        inliers=pair.inliers,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def _page(pair: MatchedPair, shown: Shown, _: str) -> bytes:
    from lightglue.drawing.viewer_page import encode_picture, viewer_page
    from lightglue.images import size_of
    from lightglue.pairs.viewed import viewed, warp_of

    images = shown.image0, shown.image1
    found = viewed(
        pair,
        shown.names,
        shown.facts,
        threshold=shown.threshold,
        sizes=(size_of(images[0]), size_of(images[1])),
        warp=warp_of(pair),
    )
    return viewer_page(found, [encode_picture(image) for image in images], " - ".join(shown.names))


ENCODERS: Mapping[str, Callable[[MatchedPair, Shown, str], bytes]] = MappingProxyType(
    {
        ".png": _picture,
        ".jpg": _picture,
        ".jpeg": _picture,
        ".pdf": _picture,
        ".svg": _picture,
        ".html": _page,
        **dict.fromkeys(ARRAY_ENCODERS, _arrays),
    }
)
ENDINGS = tuple(ENCODERS)
WARP_ENDINGS = (".png", ".jpg", ".jpeg")


def encode_warp(shown: Shown, H: Any, ending: str) -> tuple[bytes, bytes]:
    """The second image aligned to the first by the homography H, and a picture of both, as contents of such files."""
    _ignore_backend()
    import cv2

    from lightglue.drawing.warping import align_image, plot_overlay
    from lightglue.images import size_of

    ending = ending.lower()
    aligned = align_image(shown.image1, H, size_of(shown.image0))
    colours = aligned[..., [2, 1, 0, 3]]  # OpenCV's order
    if ending != ".png":  # which alone keeps transparency
        colours = colours[..., :3] * (colours[..., 3:] > 127)
    _, encoded = cv2.imencode(ending, colours)
    buffer = io.BytesIO()
    plot_overlay(shown.image0, aligned, shown.names).savefig(buffer, format=ending.removeprefix("."))
    return encoded.tobytes(), buffer.getvalue()


def _ignore_backend() -> None:
    """No window is opened, and Matplotlib cannot be imported where the environment names an unknown back end."""
    if "matplotlib" not in sys.modules:
        os.environ.pop("MPLBACKEND", None)
