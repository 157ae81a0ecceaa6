"""Where the published package keeps `SuperPoint`."""

from lightglue.extractors.superpoint import SuperPoint

__all__ = ["SuperPoint"]
