"""How a matcher is fine-tuned. Importing this loads neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightglue.errors import InputError
from lightglue.models.registry import FEATURES, feature_type
from lightglue.options import option
from lightglue.support.checks import check_integers, check_real
from lightglue.support.parsers import device, integer, real, share

__all__ = ["FinetuneOptions"]


@dataclass(frozen=True)
class FinetuneOptions:
    """How a matcher is fine-tuned."""

    features: str = option("aliked", "Kind of keypoints.", choices=tuple(FEATURES), group="Features")
    keypoints: int = option(
        512,
        "The N best keypoints of each image.",
        parse=integer("a number of keypoints from 1 to 1000000"),
        group="Features",
    )
    minutes: float = option(30.0, "Time for all of it.", parse=real("minutes", 0.01, 100_000), group="Training")
    init_from: str | None = option(
        None, "Weights to start from; by default the published ones.", metavar="WEIGHTS", group="Training"
    )
    lr: float | None = option(None, "Learning rate.", parse=real("a number from 0 to 1", 0, 1), group="Training")
    batch: int = option(4, "Pairs a step.", parse=integer("a number of pairs from 1 to 100000"), group="Training")
    seed: int = option(0, "Of views and of their order.", parse=integer("a number from 0", 0), group="Training")
    held_out: float = option(0.2, "Share of images or scenes to judge by.", parse=share, group="Pairs")
    pairs: int = option(
        60, "Pairs to judge by, at most.", parse=integer("a number of pairs from 1 to 100000"), group="Pairs"
    )
    views: int = option(4, "Views of each image.", parse=integer("a number from 2 to 100", 2, 100), group="Pairs")
    also: tuple[Path, ...] = option(
        (), "Manifest that must not get worse. Repeatable.", metavar="MANIFEST", group="Pairs"
    )
    device: str = option("auto", "Where to compute.", parse=device, group="Machine")

    def __post_init__(self) -> None:
        check_integers(self, keypoints=1, batch=1, seed=0, pairs=1, views=2)
        check_real("held_out", self.held_out, "a share above 0, to 0.9", 0.001, 0.9)
        check_real("minutes", self.minutes, "a number of minutes above 0", 0.01)
        if feature_type(self.features).matcher is None and self.init_from is None:
            raise InputError(f"LightGlue has no weights for features {self.features!r} to start from; give init_from.")
