"""Where files go that can be made again: exported models, and what a runtime compiled of them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """`LIGHTGLUE_CACHE`, else `lightglue` in the user's cache folder. It need not exist."""
    if own := os.environ.get("LIGHTGLUE_CACHE"):
        return Path(os.path.expanduser(own))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "lightglue"
