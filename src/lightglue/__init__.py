"""LightGlue: match local features between images.

Names are resolved when first used, so that `import lightglue` does not import torch (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names
from lightglue_runtime import __version__

# Public name -> the module that owns it. A closed table: tests/test_public_surface.py holds it.
_OWNERS = {
    "ALIKED": "lightglue.extractors.aliked",
    "DISK": "lightglue.extractors.disk",
    "DoGHardNet": "lightglue.extractors.dog_hardnet",
    "ImageError": "lightglue.errors",
    "InputError": "lightglue.errors",
    "LightGlue": "lightglue.matching.lightglue",
    "LightGlueError": "lightglue.errors",
    "ModelError": "lightglue.errors",
    "NearestNeighbor": "lightglue.matching.nearest",
    "RaCo": "lightglue.extractors.raco",
    "SIFT": "lightglue.extractors.sift",
    "SuperPoint": "lightglue.extractors.superpoint",
    "WeightsError": "lightglue.errors",
    "XFeat": "lightglue.extractors.xfeat",
    "batch_to_device": "lightglue.containers",
    "load_image": "lightglue.images",
    "match_files": "lightglue.pairs.files",
    "match_pair": "lightglue.pairs.match",
    "match_pairs": "lightglue.pairs.match",
    "rbd": "lightglue.containers",
}

if TYPE_CHECKING:
    from lightglue.containers import batch_to_device, rbd
    from lightglue.errors import ImageError, InputError, LightGlueError, ModelError, WeightsError
    from lightglue.extractors.aliked import ALIKED
    from lightglue.extractors.disk import DISK
    from lightglue.extractors.dog_hardnet import DoGHardNet
    from lightglue.extractors.raco import RaCo
    from lightglue.extractors.sift import SIFT
    from lightglue.extractors.superpoint import SuperPoint
    from lightglue.extractors.xfeat import XFeat
    from lightglue.images import load_image
    from lightglue.matching.lightglue import LightGlue
    from lightglue.matching.nearest import NearestNeighbor
    from lightglue.pairs.files import match_files
    from lightglue.pairs.match import match_pair, match_pairs

__all__ = [
    "ALIKED",
    "DISK",
    "SIFT",
    "DoGHardNet",
    "ImageError",
    "InputError",
    "LightGlue",
    "LightGlueError",
    "ModelError",
    "NearestNeighbor",
    "RaCo",
    "SuperPoint",
    "WeightsError",
    "XFeat",
    "__version__",
    "batch_to_device",
    "load_image",
    "match_files",
    "match_pair",
    "match_pairs",
    "rbd",
]


__getattr__ = lazy_names(__name__, _OWNERS)


def __dir__() -> list[str]:
    return sorted(__all__)
