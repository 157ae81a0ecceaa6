"""Files of a matched pair: the formats that hold its arrays, and whether a file may be written.

Loaded without NumPy, since help and checks need the endings.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["ARRAY_ENCODERS", "fault_of", "is_special", "savez"]

Arrays = Mapping[str, Any]


def savez(**arrays: Any) -> bytes:
    """Arrays as the content of a compressed .npz file."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _npz(arrays: Arrays) -> bytes:
    return savez(**arrays)


def _json(arrays: Arrays) -> bytes:
    return json.dumps({name: array.tolist() for name, array in arrays.items()}).encode() + b"\n"


def _csv(arrays: Arrays) -> bytes:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    inliers = [arrays["inliers"]] if "inliers" in arrays else []
    table.writerow(("x0", "y0", "x1", "y1", "score", *["inlier"] * len(inliers)))
    for row in zip(*arrays["points0"].T, *arrays["points1"].T, arrays["scores"], *inliers, strict=True):
        table.writerow([f"{value:.9g}" for value in row])  # nine digits give every float32 back
    return buffer.getvalue().encode()


# Ending -> what encodes the arrays of a pair: of `MatchedPair.arrays`, in either package.
ARRAY_ENCODERS: Mapping[str, Callable[[Arrays], bytes]] = MappingProxyType({".npz": _npz, ".json": _json, ".csv": _csv})


def fault_of(path: Path, inputs: Iterable[Path], others: Iterable[Path], endings: Sequence[str]) -> str | None:
    """Why `path` cannot be written beside the input images and the other outputs; None where it can."""
    if path.suffix.lower() not in endings:
        return f"{path} has none of the known endings: {', '.join(endings)}."
    folder = Path(os.path.realpath(path)).parent  # a link to itself has one, too
    if not folder.is_dir():
        return f"there is no folder {folder} for {path.name}; make it first."
    if path.is_dir():
        return f"{path} is a folder; name a file in it."
    if is_special(path):
        return f"{path} is a device or a pipe, which a file would replace; name another."
    if any(_is_same(path, image) for image in inputs):
        return f"{path} is one of the input images, which are never overwritten."
    if any(_is_same(path, other) for other in others):
        return f"{path} is named twice."
    if not os.access(path if path.exists() else folder, os.W_OK) or not os.access(folder, os.W_OK):
        return f"{path} may not be written; change its permissions or its folder's."
    return None


def is_special(path: Path) -> bool:
    """Whether there is something at `path`, or where a link there leads, that is neither a file nor a folder."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _is_same(path: Path, other: Path) -> bool:
    try:
        return os.path.realpath(path) == os.path.realpath(other) or path.samefile(other)
    except OSError:  # one of them does not exist
        return False
