"""Errors that mean: there was not enough memory."""

from __future__ import annotations

import re

from lightglue.errors import LightGlueError

__all__ = ["is_out_of_memory"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's, OpenCV's or torch's (of a GPU too) says that memory was short."""
    if isinstance(error, LightGlueError):  # says something more exact already
        return False
    return isinstance(error, MemoryError) or bool(
        isinstance(error, RuntimeError) and re.search("out of memory|can't allocate", str(error), re.IGNORECASE)
    )
