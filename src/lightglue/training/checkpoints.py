"""Checkpoints of a run: whole folders or none, the newest that is undamaged, the last N.

    checkpoints/000100/weights.safetensors   what LightGlue.load takes
                       state.safetensors     parameters, the optimiser's state, the average
                       state.json            everything else, and the checksums of both

A checkpoint is written under another name and renamed: a kill leaves the ones before it. One that was cut off or
altered is noticed by its checksums, and the one before it is taken.
"""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightglue.errors import StoreError
from lightglue.support.files import is_part, os_reason, part_in, read_json, write_json, writing

__all__ = ["Checkpoint", "Checkpoints"]

WEIGHTS, STATE, REST = "weights.safetensors", "state.safetensors", "state.json"
_NAME = re.compile(r"\d{6,}")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One that was read."""

    step: int
    folder: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    damaged: tuple[str, ...]  # what was passed over, each with its reason

    @property
    def weights(self) -> Path:
        """The file for LightGlue.load."""
        return self.folder / WEIGHTS


class Checkpoints:
    """Those in a folder. One process writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """Of the checkpoints that are there, in order."""
        try:
            return sorted(int(path.name) for path in self.folder.iterdir() if _NAME.fullmatch(path.name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def path(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.folder / f"{step:06d}"

    def write(
        self, step: int, save_weights: Callable[[Path], None], tensors: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> Path:
        """Write a checkpoint; its folder. One of the same step is replaced.

        Raises StoreError or WeightsError where it cannot be written, as on a full disk: the others are untouched.
        """
        final, part = self.path(step), part_in(self.folder)
        try:
            with writing(final):
                part.mkdir(parents=True)
                save_weights(part / WEIGHTS)
                try:
                    save_file({name: t.contiguous() for name, t in tensors.items()}, part / STATE)
                except SafetensorError as error:  # its own words for what the operating system says
                    raise StoreError(f"{final} cannot be written ({error}); make room.") from error
                files = {name: _checksum(part / name) for name in (WEIGHTS, STATE)}
                write_json(part / REST, {**state, "step": step, "files": files})
                for path in (*part.iterdir(), part):
                    _flush(path)
                if final.exists():
                    shutil.rmtree(final)
                part.rename(final)
                _flush(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return final

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole; None where there is none. Raises StoreError where all are damaged."""
        damaged: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self._read(step, tuple(damaged))
            except (OSError, SafetensorError) as error:
                damaged.append(f"{self.path(step)}: {os_reason(error)}")
        if damaged:
            raise StoreError(f"every checkpoint is damaged ({'; '.join(damaged)}); start again in another folder.")
        return None

    def _read(self, step: int, damaged: tuple[str, ...]) -> Checkpoint:
        folder = self.path(step)
        state = read_json(folder / REST)
        for name, expected in state.pop("files", {WEIGHTS: None, STATE: None}).items():
            if _checksum(folder / name) != expected:
                raise StoreError(f"{name} was cut off or altered")
        return Checkpoint(step, folder, load_file(folder / STATE), state, damaged)

    def prune(self, keep: int) -> None:
        """Remove all but the newest, and what killed processes left."""
        for step in self.steps()[:-keep]:
            shutil.rmtree(self.path(step), ignore_errors=True)
        for path in self.folder.iterdir():
            if is_part(path):  # this process writes none now, and no other does
                shutil.rmtree(path, ignore_errors=True)


def _checksum(path: Path) -> list[int]:
    """Bytes and CRC-32 of a file."""
    value = size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value, size = zlib.crc32(block, value), size + len(block)
    return [size, value]


def _flush(path: Path) -> None:
    """To the disk itself: a full one may say so only here."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
