"""What is checked: one file, or a folder with the pieces of a matcher and a loop around them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.runtimes import open_session
from lightglue_runtime.session import Session, SessionOptions
from lightglue_runtime.steps import MANIFEST, Manifest, match_steps

__all__ = ["Opened", "Runs", "is_steps", "models_in", "open_model", "read_model"]


class Runs(Protocol):
    """What a session, or a loop over several, does."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name."""
        ...


@dataclass(frozen=True, eq=False)
class Opened:
    """A model in a runtime."""

    runtime: str  # its name and version
    precision: str  # of products: "float32", "bfloat16", "float16"
    session: Runs


@dataclass(frozen=True, eq=False)
class _Loop:
    """The pieces of a matcher, each in a session, and the loop over them."""

    manifest: Manifest
    sessions: Mapping[str, Session]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """As one session does."""
        return match_steps(self.manifest, lambda name, arrays: self.sessions[name].run(arrays), inputs)


def is_steps(path: Path) -> bool:
    """Whether `path` is a folder of format `steps`."""
    return (path / MANIFEST).is_file()


def models_in(folder: Path) -> list[Path]:
    """The models of a folder that is no matcher in pieces, such as a bundle."""
    return sorted(path for path in folder.iterdir() if path.suffix == ".onnx" or is_steps(path))


def read_model(path: Path) -> ModelFile:
    """The file; of pieces the first one, under the folder's name and as the matcher that they are together.

    Raises ModelError.
    """
    if not is_steps(path):
        return ModelFile.read(path)
    file = ModelFile.read(path / Manifest.read(path).embed)
    return replace(file, path=path, description=replace(file.description, kind="matcher"))


def open_model(path: Path, runtime: str, options: SessionOptions) -> Opened:
    """The model in a runtime. Raises ModelError, InputError."""
    if not is_steps(path):
        session = open_session(path, runtime, options)
        return Opened(session.runtime, session.precision, session)
    manifest = Manifest.read(path)
    names = (manifest.embed, *manifest.layers, *manifest.heads)
    sessions = {name: open_session(path / name, runtime, options) for name in dict.fromkeys(names)}
    first = sessions[manifest.embed]
    return Opened(first.runtime, first.precision, _Loop(manifest, sessions))
