"""Where a model is written: checked before any work, and whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightglue.errors import InputError
from lightglue.export.onnx_library import onnx
from lightglue.support.files import write_files, writing
from lightglue.support.printable import printable
from lightglue_runtime import manifest
from lightglue_runtime.outputs import is_special
from lightglue_runtime.steps import MANIFEST

__all__ = ["check_folder", "check_output", "save", "save_folder"]

SUFFIX = ".onnx"
_BEGUN = re.compile(r"\.[0-9a-f]{16}\.(part|onnx)")  # models of a bundle while they are written


def check_output(path: str | os.PathLike[str], format: str = "onnx") -> Path:
    """The path that a format is written to: a file, or a folder for the format `steps`.

    Raises InputError for another ending, a folder where a file is meant, a device or pipe, or a folder not there.
    """
    path = Path(path).expanduser()
    shown = printable(str(path))
    if is_special(path):
        raise InputError(f"{shown} is a device or a pipe, which a file would replace; name another.")
    if format == "steps":
        if path.suffix == SUFFIX or path.is_file() or (path.is_dir() and not _is_ours(path)):
            raise InputError(f"{shown} must be a folder, new or of this format, for the several files of it.")
    elif path.is_dir():
        raise InputError(f"{shown} is a folder; name a file in it that ends in {SUFFIX}.")
    elif path.suffix != SUFFIX:
        raise InputError(f"{shown} must end in {SUFFIX}, by which runtimes know what it is.")
    if not path.parent.is_dir():  # may be a slip: no folder is made
        raise InputError(f"there is no folder {printable(str(path.parent))} for {printable(path.name)}; make it first.")
    return path


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder to write to. Raises InputError where it cannot be one: a file, or a folder with other things in it."""
    path = Path(folder).expanduser()
    shown = printable(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{shown} is a file; name a folder, new or of an earlier bundle.")
    if not path.parent.is_dir():  # may be a slip: no folders are made on the way
        raise InputError(f"there is no folder {printable(path.parent)} for {printable(path.name)}; make it first.")
    if path.is_dir() and not (path / manifest.MANIFEST).is_file() and not _is_begun(path):
        raise InputError(f"{shown} holds other files; name a folder that is new, empty, or of an earlier bundle.")
    return path


def _is_begun(folder: Path) -> bool:
    """Whether a folder is empty, or holds no more than what a killed export left."""
    return all(_BEGUN.fullmatch(each.name) for each in folder.iterdir())


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty or holds an earlier export, which may be written over."""
    return not any(folder.iterdir()) or (folder / MANIFEST).is_file()


def save(model: Any, path: Path) -> None:
    """Check a model and write it. Raises StoreError."""
    onnx().checker.check_model(model)
    write_files({path: model.SerializeToString(deterministic=True)})


def save_folder(contents: Mapping[str, Any], folder: Path) -> None:
    """Check models and write them into a folder, with the files that are bytes already. Raises StoreError."""
    files = {}
    for name, content in contents.items():
        if not isinstance(content, bytes):
            onnx().checker.check_model(content)
            content = content.SerializeToString(deterministic=True)
        files[folder / name] = content
    with writing(folder):
        folder.mkdir(exist_ok=True)
    write_files(files)
