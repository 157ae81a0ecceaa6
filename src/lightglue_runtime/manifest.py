"""The list of what a folder of models holds: `bundle.json`, which `lightglue export bundle` writes.

{"format_version": 1, "features": "aliked", "resize": 1024, "side": "long", "max_keypoints": 2048,
 "files": {"extractor": {"name": "extractor.onnx", "bytes": ..., "sha256": "..."}, "matcher": {...}},
 "licences": {"aliked-n16": "BSD-3-Clause", ...}}
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightglue_runtime.checks import is_int
from lightglue_runtime.contract import FORMAT_VERSION
from lightglue_runtime.errors import ModelError

__all__ = ["MANIFEST", "PARTS", "Manifest", "digest"]

MANIFEST = "bundle.json"
PARTS = ("extractor", "matcher")


@dataclass(frozen=True)
class Manifest:
    """What a folder of models holds."""

    features: str
    resize: int | None  # px of the edge that `side` names, when features are extracted; None: the image's own size
    side: str
    max_keypoints: int
    files: Mapping[str, Mapping[str, Any]]  # of each part: name, bytes, sha256
    licences: Mapping[str, str]  # of the weights' files

    def to_json(self) -> bytes:
        """The content of `bundle.json`."""
        content = {"format_version": FORMAT_VERSION, **vars(self)}
        return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises ModelError where the folder or its list is missing, damaged, or of another version."""
        path = folder / MANIFEST
        remedy = "`lightglue export bundle DIR` writes such a folder"
        try:
            content = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            if not folder.exists():
                raise ModelError(f"There is no folder {folder}; {remedy}.") from None
            what = f"holds no {MANIFEST}" if folder.is_dir() else "is no folder"
            raise ModelError(f"{folder} {what}; {remedy}.") from None
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror}); see what stands there.") from error
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path} is damaged ({error}); write the folder again.") from error
        return cls._of(content, path)

    @classmethod
    def _of(cls, content: Any, path: Path) -> Manifest:
        version = content.get("format_version") if isinstance(content, dict) else None
        if version is not None and version != FORMAT_VERSION:
            raise ModelError(
                f"{path} has version {version} of the format and this package reads {FORMAT_VERSION}; write the folder "
                "again with the version of lightglue that fits, or install the one that wrote it."
            )
        try:
            found = cls(**{name: content[name] for name in cls.__dataclass_fields__})
            for part in PARTS:
                file = found.files[part]
                if os.path.basename(file["name"]) != file["name"] or not is_int(file["bytes"], 1):
                    raise ValueError(part)
            if not is_int(found.max_keypoints, 1) or not (found.resize is None or is_int(found.resize, 1)):
                raise ValueError("max_keypoints")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{path} is no list of models, or damaged ({error}); write the folder again.") from error
        return found

    def path(self, folder: Path, part: str) -> Path:
        """The file of a part. Raises ModelError where it is missing or of another size."""
        file = self.files[part]
        path = folder / str(file["name"])
        try:
            size = path.stat().st_size
        except OSError as error:
            raise ModelError(f"{path} is missing ({error.strerror}); write or copy the folder again.") from error
        if size != file["bytes"]:
            raise ModelError(
                f"{path} has {size:,} bytes and {MANIFEST} says {file['bytes']:,}: it was cut off or replaced; write "
                "or copy the folder again."
            )
        return path

    def verify(self, folder: Path) -> None:
        """Raises ModelError where a file is missing or is not the one that was written, by its SHA-256."""
        for part in PARTS:
            path = self.path(folder, part)
            if digest(path) != self.files[part].get("sha256"):
                raise ModelError(f"{path} is not the file that {MANIFEST} names (its SHA-256 differs); copy it again.")


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
