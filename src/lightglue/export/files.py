"""Where a model is written: checked before any work, and whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightglue.errors import InputError
from lightglue.export.onnx_library import onnx
from lightglue.support.files import write_files
from lightglue.support.printable import printable

__all__ = ["check_output", "save"]

SUFFIX = ".onnx"


def check_output(path: str | os.PathLike[str], format: str = "onnx") -> Path:
    """The path that a format is written to: a file, or a folder for the format `steps`.

    Raises InputError for another ending, a folder where a file is meant, or a folder that is not there.
    """
    path = Path(path).expanduser()
    shown = printable(str(path))
    if format == "steps":
        if path.suffix == SUFFIX or path.is_file():
            raise InputError(f"{shown} must be a folder, new or empty, for the several files of this format.")
    elif path.is_dir():
        raise InputError(f"{shown} is a folder; name a file in it that ends in {SUFFIX}.")
    elif path.suffix != SUFFIX:
        raise InputError(f"{shown} must end in {SUFFIX}, by which runtimes know what it is.")
    if not path.parent.is_dir():  # may be a slip: no folder is made
        raise InputError(f"there is no folder {printable(str(path.parent))} for {printable(path.name)}; make it first.")
    return path


def save(model: Any, path: Path) -> None:
    """Check a model and write it. Raises StoreError."""
    onnx().checker.check_model(model)
    write_files({path: model.SerializeToString(deterministic=True)})
