"""What is learned from: sources, views, pairs, truth; which features. Importing this loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from os.path import expanduser
from typing import Any

from lightglue.errors import InputError
from lightglue.models.registry import FEATURES
from lightglue.options import OptionInfo, nearest_name, option
from lightglue.support.checks import check_choice, check_int, check_integers, check_real, is_int, is_real
from lightglue.training.sources.options import SourceOptions
from lightglue.training.truth.options import TruthOptions
from lightglue.training.views.options import HomographyOptions, PhotometricOptions

__all__ = ["DataOptions", "FeatureOptions", "source_keys"]


@dataclass(frozen=True)
class DataOptions:
    """Images, and the pairs that are made of them."""

    sources: tuple[SourceOptions, ...] = option((), "Images to learn from.")
    pool: str | None = option(None, "Folder of the features, which runs may share; by default the run's own.")
    views: int = option(6, "Views that are made of each image of a folder.")
    view_size: tuple[int, int] = option((640, 480), "Their width and height, px.")
    posed_size: int = option(1024, "Images with poses are made smaller to this longer edge, px.")
    smallest: int = option(120, "Images with a shorter edge below this are left out, px.")
    homography: HomographyOptions = option(HomographyOptions(), "What part of an image a view shows.")
    photometric: PhotometricOptions = option(PhotometricOptions(), "In what light a view shows it.")
    truth: TruthOptions = option(TruthOptions(), "How near is a match.")
    overlaps: tuple[float, ...] = option((0.1, 0.3, 0.5, 0.7), "Limits of bins of overlap that pairs are drawn from.")
    pairs_per_scene: int = option(300, "Pairs of a scene that are drawn each epoch, as many from each bin.")
    validation: float = option(0.05, "Share of the images or scenes that are held out to validate with.")
    max_validation: int = option(500, "Pairs to validate with, at most.")
    seed: int = option(0, "Decides the views and what is held out; the order has a seed of its own.")
    memory: int = option(1_000_000_000, "Bytes of features that are kept in memory.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        if not all(isinstance(source, SourceOptions) for source in self.sources):
            raise InputError("sources are SourceOptions; in a configuration, [[data.sources]] tables.")
        if self.pool is not None:
            object.__setattr__(self, "pool", expanduser(self.pool))
        check_integers(self, views=2, posed_size=64, smallest=1, pairs_per_scene=1, max_validation=0, seed=0)
        check_int("memory", self.memory, 0, "a number of bytes from 0")
        check_real("validation", self.validation, "a share from 0 to 0.9", 0, 0.9)
        size = tuple(self.view_size) if isinstance(self.view_size, (list, tuple)) else ()
        if len(size) != 2 or not all(is_int(edge, 64, 20_000) for edge in size):
            raise InputError(f"view_size is {self.view_size!r}; give width and height in px, each from 64.")
        object.__setattr__(self, "view_size", size)
        edges = tuple(self.overlaps) if isinstance(self.overlaps, (list, tuple)) else ()
        rising = all(a < b for a, b in pairwise(edges))
        if len(edges) < 2 or not all(is_real(edge, 0, 1) for edge in edges) or not rising:
            raise InputError(f"overlaps is {self.overlaps!r}; give two or more rising shares, such as (0.1, 0.4, 0.7).")
        object.__setattr__(self, "overlaps", edges)


@dataclass(frozen=True)
class FeatureOptions:
    """The features that the matcher learns to match."""

    type: str = option("aliked", "A feature type of this package, or my_module:Extractor.")
    keypoints: int = option(512, "The N best keypoints of each view.")
    extractor: Mapping[str, Any] = field(
        default_factory=dict, metadata={"option": OptionInfo("Options of the extractor, over those of its type.")}
    )
    fewest: int = option(32, "Views with fewer keypoints are left out.")
    device: str = option("auto", "Where features are computed.")
    descriptor_dtype: str = option("float16", "How descriptors are stored.", choices=("float16", "float32"))

    def __post_init__(self) -> None:
        if not isinstance(self.type, str) or not (self.type in FEATURES or self.is_own):
            nearest = nearest_name(str(self.type), FEATURES)
            hint = f"did you mean {nearest!r}? " if nearest else ""
            raise InputError(
                f"type of features is {self.type!r}; {hint}Choose one of {', '.join(FEATURES)}, or give your own as "
                "my_module:Extractor."
            )
        check_integers(self, keypoints=1, fewest=0)
        check_choice("descriptor_dtype", self.descriptor_dtype, ("float16", "float32"))
        if not isinstance(self.extractor, Mapping):
            raise InputError(f"extractor is {self.extractor!r:.80}; give a table of options.")

    @property
    def is_own(self) -> bool:
        """Whether the extractor is the user's."""
        module, colon, name = self.type.partition(":")
        parts = [*module.split("."), *name.split(".")]
        return bool(colon) and all(part.isidentifier() for part in parts)


def source_keys(sources: tuple[SourceOptions, ...]) -> list[str]:
    """A name for each source: its own, or that of its folder, with a number where several have it."""
    keys: list[str] = []
    for source in sources:
        name = source.name or _folder_name(source.path)
        count = sum(key == name or key.startswith(f"{name}-") for key in keys)
        keys.append(f"{name}-{count + 1}" if count else name)
    return keys


def _folder_name(path: str) -> str:
    from pathlib import Path

    parts = [part for part in Path(path).absolute().parts if part not in ("/", "..")]
    return (parts[-1] if parts else "images").replace("#", "_")
