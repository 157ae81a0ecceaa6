"""Which extractor and matcher to use, said in words and numbers: what commands take and evaluations record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightglue.models.defaults import EXTRACTORS, PRUNING, TRAINED_ON, default_mp

if TYPE_CHECKING:
    import torch

__all__ = ["MATCHERS", "Models"]

MATCHERS = ("lightglue", "nearest")


@dataclass(frozen=True)
class Models:
    """What to match with. Importing this loads no torch."""

    features: str  # a key of EXTRACTORS
    max_keypoints: int
    device: str = "auto"
    mp: bool | None = None  # None: as the device likes it
    commercial_only: bool = False
    thresholds: Mapping[str, Any] = field(default_factory=dict)  # of the matcher; others are as the feature type has it
    matcher: str = "lightglue"  # one of MATCHERS
    extractor: Mapping[str, Any] = field(default_factory=dict)  # options of the extractor, over those of EXTRACTORS

    def load(self) -> tuple[Any, Any]:
        """The extractor and the matcher, on their device."""
        return self.load_extractor(), self.load_matcher()

    def load_extractor(self) -> Any:
        """The extractor, on its device."""
        import lightglue

        name, options = EXTRACTORS[self.features]
        kind = getattr(lightglue, name)
        common = self._common() if name != "SIFT" else {}  # which has no weights
        common = {key: value for key, value in common.items() if key == "commercial_only" or key in kind.default_conf}
        conf = {"max_num_keypoints": self.max_keypoints, **common, **options, **self.extractor}
        return kind(**conf).eval().to(self.found_device())

    def load_matcher(self) -> Any:
        """The matcher, on its device."""
        import lightglue

        if self.matcher == "nearest":
            return lightglue.NearestNeighbor(**self.thresholds).eval().to(self.found_device())
        features = TRAINED_ON.get(self.features, self.features)
        conf = {"features": features, "pruning": PRUNING, **self._common(), **self.thresholds}
        return lightglue.LightGlue(**conf).eval().to(self.found_device())

    def with_mp(self) -> bool:
        """Whether reduced precision is asked for, here."""
        return default_mp(self.found_device(), self.features) if self.mp is None else self.mp

    def _common(self) -> dict[str, Any]:
        return {"commercial_only": self.commercial_only, "mp": self.with_mp()}

    def found_device(self) -> torch.device:
        """The device that is computed on."""
        from lightglue.support.devices import find_device

        return find_device(self.device)
