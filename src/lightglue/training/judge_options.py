"""How weights are judged and finished. Importing this loads neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.support.checks import check_bool, check_integers, is_real

__all__ = ["JudgeOptions"]


@dataclass(frozen=True)
class JudgeOptions:
    """What decides which weights are the best, and what is fitted to them in the end."""

    manifests: tuple[str, ...] = option((), "Manifests of pairs with truth that weights are judged by.")
    every: int = option(0, "Steps between judgements; 0: at the end alone.")
    keypoints: int | None = option(None, "Of each image; by default the manifest's.")
    threshold: float | None = option(
        None, "Of the AUC that decides, degrees or px; by default the smallest of each manifest."
    )
    fit: bool = option(True, "Fit confidence heads, calibration and overlap to the best weights.")
    fit_pairs: int = option(500, "Pairs for that, of each kind.")

    def __post_init__(self) -> None:
        given: object = self.manifests
        manifests = (given,) if isinstance(given, str) else tuple(self.manifests)
        object.__setattr__(self, "manifests", tuple(str(each) for each in manifests))
        check_integers(self, every=0, fit_pairs=1)
        if self.keypoints is not None:
            check_integers(self, keypoints=1)
        check_bool("fit", self.fit)
        if self.threshold is not None and not (is_real(self.threshold, 0) and self.threshold > 0):
            raise InputError(f"threshold is {self.threshold!r}; give a number of degrees or px above 0.")
