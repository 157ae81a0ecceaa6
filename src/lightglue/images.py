"""Image files in, image tensors out: decode, orient, resize."""

from __future__ import annotations

from lightglue.resampling import ImagePreprocessor, resize_tensor

__all__ = ["ImagePreprocessor", "resize_tensor"]
