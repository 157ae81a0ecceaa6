"""Ways to find keypoints beside the user's own, for pairs that these cannot match; loaded when they are needed."""

from __future__ import annotations

from typing import Any

from lightglue.errors import LightGlueError
from lightglue.extractors.base import Extractor as OwnExtractor
from lightglue.models.choice import Models
from lightglue.models.loaded import load_models
from lightglue.pairs.hard.looks import Kind
from lightglue.types import Extractor

__all__ = ["OWN", "ROTATED", "Kinds"]

OWN = "own"
# ALIKED's weights that were trained on rotated images: they hold more of a strange view than the usual ones.
ROTATED = "aliked-n16rot"
OTHERS = (ROTATED, "xfeat", "disk")  # in the order in which they are tried


class Kinds:
    """The user's own extractor and matcher, and where that is one of the package, those of other feature types."""

    def __init__(self, own: Kind, device: Any) -> None:
        self._found: dict[str, Kind | None] = {OWN: own}
        self._device = str(device)
        self.missing: list[str] = []  # kinds that could not be had
        self.order = _order(own.extractor)  # names, in which views are tried with one kind after the other

    def get(self, name: str) -> Kind | None:
        """A kind, loaded; None where it cannot be had here, such as for want of a network or for its licence.

        In the place of ALIKED's other weights there is the user's own kind then, where that has no place of its own.
        """
        if name not in self._found:
            # What the user's own may be used for is not known here: none of the others allows less.
            models = Models(features=name, device=self._device, commercial_only=True)
            try:
                loaded = load_models(models)
                self._found[name] = Kind(name, loaded.extractor, loaded.matcher)
            except LightGlueError:
                self._found[name] = self._found[OWN] if name == ROTATED and OWN not in self.order else None
                self.missing.append(name)
        return self._found[name]


def _order(extractor: Extractor) -> tuple[str, ...]:
    if not _is_published(extractor):
        return (OWN,)
    kind = type(extractor).__name__
    if kind == "ALIKED":  # upright images were tried with it already; turned or tilted its other weights hold more
        return OTHERS
    if kind == "DISK":  # views of it take several times as long
        return tuple(OWN if name == "disk" else name for name in OTHERS)
    return (OWN, *(name for name in OTHERS if name != kind.lower()))


def _is_published(extractor: Extractor) -> bool:
    """Whether this is one of the package with its own weights: then others of the package may stand in."""
    return isinstance(extractor, OwnExtractor) and type(extractor).__module__.startswith("lightglue.extractors.")
