"""views.jsonl: what each view of a pool is, a line each, as they are made; a kill loses at most the last line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import StoreError
from lightglue.stores import Source
from lightglue.support.files import write_whole, writing
from lightglue.training.sources.record import Posed

__all__ = ["LeftOut", "View", "append", "read_journal"]


@dataclass(frozen=True)
class View:
    """A view in the pool."""

    name: str  # source/image#number
    source: str  # the key of its source
    scene: str
    image: str  # its name in the source
    path: str  # of its file, where the pool was made
    number: int
    file: Source  # as it was
    look: str
    image_size: tuple[int, int]  # width, height, px, of the image
    size: tuple[int, int]  # of the view
    digest: str  # of the features
    num_keypoints: int
    homography: tuple[float, ...] | None = None  # 9 numbers, from px of the image to px of the view
    posed: Posed | None = None
    depths: str | None = None  # a digest of the depths of its keypoints

    @property
    def H(self) -> NDArray[np.float64]:  # noqa: N802  # the field's name
        """(3, 3), from px of the image to px of the view. Raises StoreError for a view of an image with a pose."""
        if self.homography is None:
            raise StoreError(f"The view {self.name} has no homography.")
        return np.array(self.homography).reshape(3, 3)

    def line(self) -> dict[str, Any]:
        """As JSON has it."""
        said = dict(vars(self))
        said["file"] = self.file.as_list()
        said["posed"] = None if self.posed is None else self.posed.as_json()
        return said

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> View:
        """The opposite. Raises KeyError, TypeError or ValueError for anything else."""
        kept = {name: said[name] for name in cls.__dataclass_fields__}
        kept["file"] = Source.from_list(said["file"])
        kept["posed"] = None if said["posed"] is None else Posed.from_json(said["posed"])
        for name in ("image_size", "size"):
            width, height = said[name]
            kept[name] = int(width), int(height)
        if said["homography"] is not None:
            kept["homography"] = tuple(float(each) for each in said["homography"])
            if len(kept["homography"]) != 9:
                raise ValueError("a homography has 9 numbers")
        return cls(**kept)


@dataclass(frozen=True)
class LeftOut:
    """An image that could not be used, and why."""

    name: str  # source/image
    reason: str
    file: Source | None = None  # as it was, where it could be read
    edge: int | None = None  # the shorter one, px, where that is the reason

    def line(self) -> dict[str, Any]:
        """As JSON has it."""
        file = None if self.file is None else self.file.as_list()
        return {"left_out": self.name, "reason": self.reason, "file": file, "edge": self.edge}

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> LeftOut:
        """The opposite. Raises KeyError, TypeError or ValueError for anything else."""
        file = None if said["file"] is None else Source.from_list(said["file"])
        edge = None if said["edge"] is None else int(said["edge"])
        return cls(str(said["left_out"]), str(said["reason"]), file, edge)


def read_journal(path: Path) -> tuple[dict[str, View], dict[str, LeftOut]]:
    """The views and what was left out, by name; of what was written twice the last.

    Lines that are cut off or damaged are passed over, and the file is written again without them: their views are made
    again. Raises StoreError for a file that cannot be read.
    """
    views: dict[str, View] = {}
    left_out: dict[str, LeftOut] = {}
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return views, left_out
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); see what stands there.") from error
    is_whole = content.endswith(b"\n") or not content
    for line in content.split(b"\n"):
        if not line:
            continue
        try:
            said = json.loads(line)
            if "left_out" in said:
                each = LeftOut.of(said)
                left_out[each.name] = each
            else:
                view = View.of(said)
                views[view.name] = view
                left_out.pop(f"{view.source}/{view.image}", None)
        except Exception:  # whatever a damaged line gives
            is_whole = False
    if not is_whole:
        write_whole(path, _text([*views.values(), *left_out.values()]))
    return views, left_out


def append(path: Path, entries: Iterable[View | LeftOut]) -> None:
    """Add lines. Raises StoreError."""
    content = _text(entries)
    with writing(path), path.open("ab") as file:
        start = file.tell()
        try:
            file.write(content)
            file.flush()
        except OSError:
            os.truncate(path, start)  # a full disk: no half of a line stays
            raise


def _text(entries: Iterable[View | LeftOut]) -> bytes:
    return b"".join(json.dumps(each.line()).encode() + b"\n" for each in entries)
