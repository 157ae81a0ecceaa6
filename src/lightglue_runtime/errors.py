"""Errors that a user can act on. Each message names the value that was wrong and what to do about it."""

from __future__ import annotations

__all__ = ["ImageError", "ImageNotFoundError", "InputError", "LightGlueError", "ModelError"]


class LightGlueError(Exception):
    """Base of every error that these packages raise on purpose; the command line prints it without a stack trace."""


class InputError(LightGlueError, ValueError):
    """An argument, an option or a features dictionary is not what the call needs."""


class ImageError(LightGlueError, OSError):
    """An image file could not be turned into pixels."""


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no image at this path."""


class ModelError(LightGlueError, RuntimeError):
    """An exported model is missing, damaged, of another kind or version, or there is no runtime for it."""
