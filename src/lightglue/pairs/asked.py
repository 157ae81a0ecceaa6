"""What is asked of two images: all options of `lightglue match` in one record, which the web service has too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lightglue.extractors.options import ViewOptions
from lightglue.models.choice import Models, Thresholds
from lightglue.pairs.options import PairOptions
from lightglue.support.declared import Owner

if TYPE_CHECKING:
    from lightglue.images import AnyImage
    from lightglue.pairs.files import MatchedFiles

__all__ = ["PairRequest"]


@dataclass(frozen=True)
class PairRequest:
    """Which models, how they look at the images, and what is done with their matches."""

    models: Models = field(default_factory=Models)
    views: ViewOptions = field(default_factory=ViewOptions)
    options: PairOptions = field(default_factory=PairOptions)
    thresholds: Thresholds = field(default_factory=Thresholds)

    @classmethod
    def owner(cls) -> Owner:
        """The options as a form."""
        return Owner(cls)

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> PairRequest:
        """From values by the options' names. Raises InputError, for values that do not go together too."""
        request: PairRequest = cls.owner().build(asked)
        request.check(asked)
        return request

    def check(self, given: Collection[str], warp: Any = None) -> None:
        """InputError where options do not go together. given: the names of those that the user has set."""
        self.options.check_models(self.chosen)
        self.options.check_estimator(set(given))
        self.options.check_warp(warp)

    @cached_property
    def chosen(self) -> Models:
        """The models with their thresholds."""
        return replace(self.models, thresholds=self.thresholds.given())

    def match(self, image0: AnyImage, image1: AnyImage, *, output: Any = (), warp: Any = None) -> MatchedFiles:
        """As `lightglue.pairs.match_files`."""
        from lightglue.pairs.files import match_files

        return match_files(image0, image1, self.options, models=self.chosen, views=self.views, output=output, warp=warp)
