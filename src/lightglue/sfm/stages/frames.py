"""The frames of a video as images in a folder, named in their order: once, whatever kills the run."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2

from lightglue.errors import InputError
from lightglue.images.video import Video
from lightglue.sfm.folder import MapFolder, StageRecord
from lightglue.sfm.options import FrameOptions
from lightglue.sfm.skipped import Skipped
from lightglue.support.files import read_json, write_json, write_whole
from lightglue.support.progress import Progress

__all__ = ["FrameOptions", "FrameResult", "map_frames", "take_frames"]

RECORD = "frames.json"  # what the frames are of; written last
_WHOLE = 0.95  # of the frames that a file states: containers count a few too many
_QUALITY = 95  # of JPEG
_DIGITS = 6  # of a frame's number in its name


@dataclass(frozen=True)
class FrameResult:
    """What became of a video."""

    names: tuple[str, ...]  # of the frames, in their order
    frames: int  # that could be read
    stated: int  # that the file says it has; 0 where it does not
    interval: float  # s, between two of them, about
    was_there: bool  # nothing was decoded

    @property
    def fault(self) -> str | None:
        """What is wrong with the file, if anything."""
        if self.frames >= _WHOLE * self.stated:
            return None
        return f"it has {self.stated:,} frames and {self.frames:,} could be read: it is damaged or cut off"


def take_frames(
    video: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    options: FrameOptions | None = None,
    *,
    progress: Progress = lambda done, total: None,
) -> FrameResult:
    """Write the frames of a video that are worth a place in a map as FOLDER/STEM_NUMBER.jpg.

    Frames at even times, in each window the sharpest; the number is that of the frame in the file, so that the names'
    order is that of time. What is there of the same file with the same options is left as it is, and after a kill only
    what is missing is written. Frames of other options are taken away; nothing else in the folder is touched.

    Raises ImageError for a file that is no video that can be read, InputError where the folder holds frames of another
    one, StoreError where it cannot be written.
    """
    video, folder, options = Path(video), Path(folder), options or FrameOptions()
    about: dict[str, Any] = {"format": 1, "video": _identity(video), "options": asdict(options)}
    before = _before(folder, video, about["video"])
    if before.get("about") == about and all((folder / name).is_file() for name in before["names"]):
        return FrameResult(tuple(before["names"]), before["frames"], before["stated"], before["interval"], True)
    source = Video.open(video)
    interval = options.interval(source.seconds)
    write_json(folder / RECORD, {"video": about["video"]})  # before any frame: a kill leaves ours alone
    read = 0

    def told(count: int) -> None:
        nonlocal read
        read = count
        progress(min(count, source.frames), max(source.frames, 1))

    names: list[str] = []
    for frame in source.sharpest(interval, told):
        names.append(f"{_stem(video)}_{frame.number:0{_DIGITS}}.jpg")
        if not (folder / names[-1]).is_file():  # what a run that was killed has left
            content = cv2.imencode(".jpg", frame.pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
            write_whole(folder / names[-1], content.tobytes())
    for name in _like_frames(folder, video) - set(names):
        (folder / name).unlink()
    made = {"names": names, "frames": read, "stated": source.frames, "interval": interval}
    write_json(folder / RECORD, {"about": about, "video": about["video"], **made})
    return FrameResult(tuple(names), read, source.frames, interval, was_there=False)


def map_frames(video: Path, paths: MapFolder, options: FrameOptions, progress: Progress) -> StageRecord:
    """Take the frames of a video into a map's folder; no time where they were there. Errors as for `take_frames`."""
    if paths.record.exists() and (known := paths.read().images).resolve() != paths.frames.resolve():
        raise InputError(f"{paths.folder} is a map of {known}, not of {video}; name another folder.")
    begin = perf_counter()
    done = take_frames(video, paths.frames, options, progress=progress)
    fault = (Skipped(video.name, done.fault, is_used=True),) if done.fault else ()
    counts = {"frames": done.frames, "taken": len(done.names)}
    return StageRecord(0 if done.was_there else perf_counter() - begin, counts, fault)


def _before(folder: Path, video: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What frames.json says; empty where there is none. Raises InputError where the folder holds other frames."""
    try:
        before = read_json(folder / RECORD)
    except FileNotFoundError:
        if _like_frames(folder, video):
            raise InputError(
                f"{folder} holds files that are named like frames of {video.name} and no {RECORD}; name another folder."
            ) from None
        return {}
    if before.get("video") != identity:
        other = before.get("video") or {}
        raise InputError(f"{folder} holds frames of {other.get('name')}, another file; name another folder.")
    return before


def _like_frames(folder: Path, video: Path) -> set[str]:
    pattern = re.compile(rf"{re.escape(_stem(video))}_\d{{{_DIGITS},}}\.jpg")
    return {entry.name for entry in os.scandir(folder) if pattern.fullmatch(entry.name)} if folder.is_dir() else set()


def _stem(video: Path) -> str:
    """The name of a video without its ending, as every list of images can hold it."""
    return re.sub(r"[^\w.-]+", "_", video.stem, flags=re.ASCII) or "video"


def _identity(video: Path) -> dict[str, Any]:
    """What tells a file from another: where it lies does not matter."""
    try:
        stat = os.stat(video)
        with open(video, "rb") as file:
            head = file.read(1 << 20)
            file.seek(max(0, stat.st_size - (1 << 20)))
            digest = hashlib.blake2b(head + file.read(1 << 20), digest_size=16).hexdigest()
    except OSError as error:
        raise InputError(f"The video {video} cannot be read ({error.strerror}); check the path.") from error
    return {"name": video.name, "size": stat.st_size, "digest": digest}
