"""Where the results of a pair are written: checked before any work. Loaded without torch or NumPy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightglue.errors import InputError
from lightglue.pairs.encoders import ENDINGS, WARP_ENDINGS

__all__ = ["check_outputs", "fault_of", "is_ending", "warp_paths"]


def is_ending(output: str | os.PathLike[str]) -> bool:
    """Whether this is an ending such as ".json", which asks for the content of a file, and no path."""
    return str(output).lower() in ENDINGS


def warp_paths(warp: Path) -> tuple[Path, Path]:
    """Where the aligned image goes, and the picture beside it."""
    return warp, warp.with_name(f"{warp.stem}-overlay{warp.suffix}")


def check_outputs(outputs: Sequence[Path], warp: Path | None, inputs: Sequence[Path]) -> None:
    """InputError where an output cannot be written, or would replace an input or another one."""
    for i, path in enumerate(outputs):
        if fault := fault_of(path, inputs, outputs[:i]):
            raise InputError(f"output: {fault}")
    for path in () if warp is None else warp_paths(warp):
        if fault := fault_of(path, inputs, outputs, WARP_ENDINGS):
            raise InputError(f"warp: {'' if path == warp else 'it also writes a picture of both: '}{fault}")


def fault_of(
    path: Path, inputs: Iterable[Path], others: Iterable[Path], endings: Sequence[str] = ENDINGS
) -> str | None:
    """Why `path` cannot be written beside the input images and the other outputs; None where it can."""
    if path.suffix.lower() not in endings:
        return f"{path} has none of the known endings: {', '.join(endings)}."
    folder = Path(os.path.realpath(path)).parent  # a link to itself has one, too
    if not folder.is_dir():
        return f"there is no folder {folder} for {path.name}; make it first."
    if path.is_dir():
        return f"{path} is a folder; name a file in it."
    if any(_is_same(path, image) for image in inputs):
        return f"{path} is one of the input images, which are never overwritten."
    if any(_is_same(path, other) for other in others):
        return f"{path} is named twice."
    if not os.access(path if path.exists() else folder, os.W_OK) or not os.access(folder, os.W_OK):
        return f"{path} may not be written; change its permissions or its folder's."
    return None


def _is_same(path: Path, other: Path) -> bool:
    try:
        return os.path.realpath(path) == os.path.realpath(other) or path.samefile(other)
    except OSError:  # one of them does not exist
        return False
