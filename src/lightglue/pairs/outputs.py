"""Where the results of a pair are written: checked before any work. Loaded without torch or NumPy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lightglue.errors import InputError
from lightglue.pairs.encoders import ENDINGS, WARP_ENDINGS
from lightglue_runtime.outputs import fault_of

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
        if fault := fault_of(path, inputs, outputs[:i], ENDINGS):
            raise InputError(f"output: {fault}")
    for path in () if warp is None else warp_paths(warp):
        if fault := fault_of(path, inputs, outputs, WARP_ENDINGS):
            raise InputError(f"warp: {'' if path == warp else 'it also writes a picture of both: '}{fault}")
