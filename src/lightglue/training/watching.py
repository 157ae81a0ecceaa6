"""What a run says: a JSON line for each thing that happened, curves for TensorBoard, and the line of progress."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightglue.errors import InputError, StoreError
from lightglue.support.files import writing

__all__ = ["Curves", "Log", "TrainingProgress", "finite", "note_of", "read_log", "share", "silent"]

TrainingProgress = Callable[[str, int, "int | None", str], None]  # stage, done, in all, what else


def silent(stage: str, done: int, total: int | None, note: str = "") -> None:
    """No display."""


class Curves:
    """Numbers of a run as TensorBoard shows them. Raises InputError where it is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "run.tensorboard is true, and tensorboard is not installed; pip install 'lightglue[tensorboard]'."
            ) from error
        self.folder, self.make = folder, SummaryWriter
        self.writer: Any = None

    def begin(self, step: int) -> None:
        """After a step: what a killed process wrote of later ones is no longer shown."""
        self.writer = self.make(str(self.folder), purge_step=step + 1 if step else None)

    def close(self) -> None:
        """Write what waits."""
        if self.writer is not None:
            self.writer.close()

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Each number of a line of the log, such as "step/loss"; those of layers as "step/nll/3"."""
        for name, value in values.items():
            listed = [(name, value)]
            if isinstance(value, (list, tuple)):
                listed = [(f"{name}/{i}", each) for i, each in enumerate(value, 1)]
            for key, number in listed:
                if isinstance(number, (int, float)) and not isinstance(number, bool):
                    self.writer.add_scalar(f"{kind}/{key}", number, step)
        self.writer.flush()


class Log:
    """`log.jsonl`: appended line by line; each line has a "kind" and the step."""

    def __init__(self, path: Path, is_on: bool = True, curves: Curves | None = None) -> None:
        self.path, self.is_on, self.curves = path, is_on, curves

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append a line. Numbers that are not finite become null, as JSON has none. Raises StoreError."""
        if not self.is_on:
            return
        line = json.dumps({"kind": kind, "step": step, **finite(values)}, allow_nan=False)
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self.curves is not None:
            self.curves.add(kind, step, values)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Drop what was written after it was this long: steps that a killed process took after its checkpoint."""
        if self.is_on and self.size > size:
            with writing(self.path):
                os.truncate(self.path, size)


def finite(value: Any) -> Any:
    """The same, to any depth, with null for NaN and infinity, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; one that a kill cut off at the end is left out. Raises StoreError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}); is this the folder of a run?") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise StoreError(f"{path}: line {number} is damaged ({error}).") from error
    return found


def note_of(loss: float, precision: float, recall: float, pairs_per_second: float) -> str:
    """What the line of progress says beside how far the run is."""
    shares = f"P {share(precision, 2)} R {share(recall, 2)}"
    return f"loss {loss:.3f} {shares} {pairs_per_second:.3g} pairs/s"


def share(value: float, digits: int = 3) -> str:
    """A share from 0 to 1 for people; NaN, which is a share of nothing, is a dash."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
