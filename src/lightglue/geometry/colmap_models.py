"""COLMAP's models from their files, through pycolmap."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightglue.errors import LightGlueError
from lightglue.geometry.colmap_text import image_lines
from lightglue.support.text import content_lines, read_text

try:
    import pycolmap
except ImportError as error:
    raise LightGlueError("COLMAP's models need pycolmap: pip install 'lightglue[sfm]'.") from error

__all__ = ["read_reconstruction"]

_PARTS = ("cameras", "images", "points3D")


def read_reconstruction(folder: Path) -> Any:
    """The `pycolmap.Reconstruction` in a folder, binary or text.

    COLMAP's own reader of text ends a name at its first blank, and stumbles over blank lines and the mark of UTF-8.

    Raises what pycolmap does for damaged files, OSError, and InputError for what is no text.
    """
    if all((folder / f"{part}.bin").is_file() for part in _PARTS) or not (folder / "images.txt").is_file():
        return pycolmap.Reconstruction(str(folder))
    images = image_lines(read_text(folder / "images.txt"))
    with TemporaryDirectory() as scratch:
        for part in ("cameras", "points3D", "rigs", "frames"):
            if (folder / f"{part}.txt").is_file():
                lines = (line for _, line in content_lines(read_text(folder / f"{part}.txt")))
                _write(Path(scratch) / f"{part}.txt", lines)
        heads = (" ".join((each.number, *each.pose, each.camera, each.number)) for each in images)
        both = (f"{head}\n{each.points}" for head, each in zip(heads, images, strict=True))
        _write(Path(scratch) / "images.txt", both)
        found = pycolmap.Reconstruction(scratch)
    for each in images:
        found.image(int(each.number)).name = each.name
    return found


def _write(path: Path, lines: Any) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")
