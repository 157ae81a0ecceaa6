"""Where the published package keeps `SIFT`."""

from lightglue.extractors.sift import SIFT

__all__ = ["SIFT"]
