"""Errors that a user can act on. Each message names the value that was wrong and what to do about it."""

from __future__ import annotations

from lightglue_runtime.errors import ImageError, ImageNotFoundError, InputError, LightGlueError, ModelError

__all__ = [
    "ImageError",
    "ImageNotFoundError",
    "InputError",
    "LightGlueError",
    "ModelError",
    "StoreError",
    "WeightsError",
]


class WeightsError(LightGlueError, RuntimeError):
    """A weight file is missing, altered, refused or does not fit the network."""


class StoreError(LightGlueError, OSError):
    """A file of features, matches or a map is missing, damaged, or cannot be written."""
