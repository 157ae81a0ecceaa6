"""From a folder of images to a map, and from a map to where another image was taken.

    from lightglue.sfm import Localizer, SfmOptions, build_map

Names are resolved when first used: options load neither torch nor numpy, and only what needs it loads pycolmap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

if TYPE_CHECKING:
    from lightglue.sfm.change import add_images, remove_images
    from lightglue.sfm.colmap.model import Model, read_model
    from lightglue.sfm.engines.choice import make_engine
    from lightglue.sfm.folder import MapFolder
    from lightglue.sfm.localization.localizer import Localization, Localizer
    from lightglue.sfm.options import (
        CameraOptions,
        ExtractOptions,
        LocalizeOptions,
        MatchOptions,
        PairOptions,
        PoseOptions,
        QueryRefineOptions,
        ReconstructOptions,
        RetrievalOptions,
        SfmOptions,
        TrackOptions,
        VerifyOptions,
    )
    from lightglue.sfm.pipeline import MapResult, build_map, run_stage
    from lightglue.sfm.report.document import write_report
    from lightglue.sfm.skipped import Skipped

__all__ = [
    "CameraOptions",
    "ExtractOptions",
    "Localization",
    "LocalizeOptions",
    "Localizer",
    "MapFolder",
    "MapResult",
    "MatchOptions",
    "Model",
    "PairOptions",
    "PoseOptions",
    "QueryRefineOptions",
    "ReconstructOptions",
    "RetrievalOptions",
    "SfmOptions",
    "Skipped",
    "TrackOptions",
    "VerifyOptions",
    "add_images",
    "build_map",
    "make_engine",
    "read_model",
    "remove_images",
    "run_stage",
    "write_report",
]

# Module of this room -> the names that it offers here.
_OWNERS = {
    "change": ("add_images", "remove_images"),
    "colmap.model": ("Model", "read_model"),
    "engines.choice": ("make_engine",),
    "folder": ("MapFolder",),
    "localization.localizer": ("Localization", "Localizer"),
    "options": (
        "CameraOptions",
        "ExtractOptions",
        "LocalizeOptions",
        "MatchOptions",
        "PairOptions",
        "PoseOptions",
        "QueryRefineOptions",
        "ReconstructOptions",
        "RetrievalOptions",
        "SfmOptions",
        "TrackOptions",
        "VerifyOptions",
    ),
    "pipeline": ("MapResult", "build_map", "run_stage"),
    "report.document": ("write_report",),
    "skipped": ("Skipped",),
}
__getattr__ = lazy_names(__name__, {name: module for module, names in _OWNERS.items() for name in names})
