"""The frames of a video that are worth a place in a map: at even times, of each window the sharpest."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.errors import ImageError
from lightglue_runtime.images.headers import HEAD
from lightglue_runtime.images.unread import unread_kind
from lightglue_runtime.native_lines import with_native_lines

__all__ = ["Frame", "Video", "is_video", "sharpness"]

_USUAL_RATE = 30.0  # frames a second of a file that does not say
_EDGE = 640  # px of the longer side at which sharpness is measured


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a video, by its first bytes or, where these say nothing, its name."""
    try:
        with open(path, "rb") as file:
            kind = unread_kind(file.read(HEAD), os.fspath(path))
    except OSError:
        return False
    return kind is not None and kind.is_video


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture of a video."""

    number: int  # 0 is the first of the file
    seconds: float  # since the first
    pixels: NDArray[np.uint8]  # (H, W, 3) BGR, upright


@dataclass(frozen=True)
class Video:
    """A video file, as far as its header tells."""

    path: Path
    rate: float  # frames a second
    frames: int  # 0 where the file does not say

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Video:
        """Raises ImageError where it cannot be read as a video."""
        capture = _capture(path)
        try:
            rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        finally:
            capture.release()
        usable = math.isfinite(rate) and 0 < rate <= 100_000
        return cls(Path(path), rate if usable else _USUAL_RATE, max(0, int(frames)) if math.isfinite(frames) else 0)

    @property
    def seconds(self) -> float:
        """How long it lasts; 0 where the file does not say."""
        return self.frames / self.rate

    def sharpest(self, interval: float, progress: Callable[[int], None] = lambda number: None) -> Iterator[Frame]:
        """A frame for each `interval` seconds: the sharpest in its middle half, so that the distances stay even.

        Damaged frames are passed over, and a file that is cut off ends early. progress: is told the number of frames
        that were read. Raises ImageError where there is no frame at all.
        """
        best: tuple[float, Frame] | None = None
        window, count = 0, 0
        for count, (frame, retrieve) in enumerate(self._times(), 1):
            progress(count)
            now = int(frame[1] / interval)
            if best is not None and now != window:
                yield best[1]
                best = None
            window = now
            # Of an interval that holds one frame, or a few, it may lie anywhere.
            if abs(frame[1] / interval - now - 0.5) > 0.25 and interval * self.rate >= 4:
                continue
            pixels = retrieve()
            if pixels is None:
                continue
            value = sharpness(pixels)
            if best is None or value > best[0]:
                best = value, Frame(*frame, pixels)
        if best is not None:
            yield best[1]
        if not count:
            raise ImageError(f"{self.path}: no frame of this video can be decoded; convert it, such as to MP4.")

    def _times(self) -> Iterator[tuple[tuple[int, float], Callable[[], NDArray[np.uint8] | None]]]:
        """The number and the time of each frame, and how to get its pixels."""
        capture = _capture(self.path)
        seconds = -1.0

        def retrieve() -> NDArray[np.uint8] | None:
            found, pixels = capture.retrieve()
            return pixels if found and pixels is not None and pixels.size else None

        try:
            number = 0
            while with_native_lines(capture.grab)[0]:
                stated = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000  # of videos whose rate varies
                usual = 0.0 if seconds < 0 else seconds + 1 / self.rate
                seconds = stated if math.isfinite(stated) and stated > seconds else usual
                yield (number, seconds), retrieve
                number += 1
        finally:
            capture.release()


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """How much detail an image (H, W, 3) has: the variance of its Laplacian (Pech-Pacheco, ICPR 2000)."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    scale = min(1.0, _EDGE / max(gray.shape))
    if scale < 1:
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(gray, cv2.CV_32F).var())


def _capture(path: str | os.PathLike[str]) -> Any:
    capture, lines = with_native_lines(lambda: cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG))
    if not capture.isOpened():
        said = f" ({'; '.join(lines)[:200]})" if lines else ""
        raise ImageError(f"{os.fspath(path)} cannot be read as a video{said}; convert it, such as to MP4 with H.264.")
    return capture
