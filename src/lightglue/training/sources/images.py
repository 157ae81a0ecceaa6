"""A folder of images that have nothing to do with each other: pairs are two views of one of them."""

from __future__ import annotations

from pathlib import Path

from lightglue.sfm.stages.images import list_images
from lightglue.training.sources.options import SourceOptions
from lightglue.training.sources.record import Listed, SourceImage

__all__ = ["list_folder"]


def list_folder(key: str, options: SourceOptions) -> Listed:
    """The images under a folder, and what looks like one but is not read. Raises InputError where there is none."""
    folder = Path(options.path).absolute()
    names, skipped = list_images(folder)
    return Listed(tuple(SourceImage(key, "", name, str(folder / name)) for name in names), skipped)
