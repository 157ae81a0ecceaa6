"""Where the published package keeps `LightGlue`."""

from lightglue.matching.lightglue import LightGlue

__all__ = ["LightGlue"]
