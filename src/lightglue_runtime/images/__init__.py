"""Image files and arrays: decode, orient, convert, resize, with NumPy and OpenCV."""

from __future__ import annotations
