"""The page's files: read once, by their names, and nothing else is ever served as one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["TYPES", "StaticFile", "read_static"]

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True)
class StaticFile:
    """A file of the page."""

    content: bytes
    media_type: str
    tag: str  # for caches: another content, another tag


def read_static() -> Mapping[str, StaticFile]:
    """The files of the page and of the viewer in it, from two folders without folders in them."""
    found = {}
    folders = (files("lightglue.drawing").joinpath("viewer"), files("lightglue.web").joinpath("static"))
    for file in (each for folder in folders for each in folder.iterdir()):
        ending = f".{file.name.rpartition('.')[2]}"
        if file.is_file() and ending in TYPES:
            content = file.read_bytes()
            found[file.name] = StaticFile(content, TYPES[ending], f'"{hashlib.sha256(content).hexdigest()[:20]}"')
    return found
