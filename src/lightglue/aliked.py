"""Where the published package keeps `ALIKED`."""

from lightglue.extractors.aliked import ALIKED

__all__ = ["ALIKED"]
