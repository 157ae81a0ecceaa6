"""Where the published package keeps `DISK`."""

from lightglue.extractors.base import Extractor
from lightglue.extractors.disk import DISK

__all__ = ["DISK", "Extractor"]
