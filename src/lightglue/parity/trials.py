"""What is tried, by kind of file: cases, the reference's outcomes, the file's, and their differences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.extractors.options import RESIZE
from lightglue.matching.lightglue import LightGlue
from lightglue.models.choice import Models
from lightglue.models.registry import FEATURES
from lightglue.parity.cases import PairCase, edge_cases, made_up_pair, photographs
from lightglue.parity.compare import FeatureDifference, MatchDifference, compare_matches
from lightglue.parity.limits import Limits
from lightglue.parity.opened import Runs
from lightglue.parity.options import CheckOptions
from lightglue.parity.reference import ReferenceMatcher, reference_matcher
from lightglue.parity.subjects import FileMatcher, feeds_of
from lightglue_runtime.model_file import ModelFile

__all__ = ["Arrays", "MatcherTrial", "Trial", "matcher_request"]

Arrays = Mapping[str, NDArray[Any]]
Difference = MatchDifference | FeatureDifference


# Formats whose readers do not ask about images without keypoints, see docs/export.md.
_NEVER_EMPTY = ("opencv", "tensorrt")


class Trial(ABC):
    """A file with its reference and the cases that both are tried on. The first case is the one that is timed."""

    reference_name: str
    cases: Sequence[Any]

    @abstractmethod
    def reference(self, case: Any) -> Any:
        """What torch gives."""

    @abstractmethod
    def subject(self, session: Runs) -> Callable[[Any], Any]:
        """What the file gives, in a runtime."""

    @abstractmethod
    def compare(self, case: Any, reference: Any, found: Any, limits: Limits) -> Difference:
        """The differences of a case."""

    @abstractmethod
    def size(self, case: Any) -> tuple[int, ...]:
        """Keypoints of each image, or pixels."""

    @abstractmethod
    def feeds(self, case: Any) -> Arrays:
        """The file's inputs."""

    @abstractmethod
    def torch_request(self, case: Any) -> tuple[Mapping[str, Any], Arrays] | None:
        """How a process of its own does the reference's work, and its inputs; None where it cannot."""


class MatcherTrial(Trial):
    """A matcher of any format, or its pieces with a loop around them."""

    def __init__(self, file: ModelFile, options: CheckOptions, matcher: LightGlue | None = None) -> None:
        self.file, self.numbers = file, file.description.numbers()
        if matcher is None:
            self.matcher = reference_matcher(file.description, str(file.path), options.weights)
            source = str(options.weights or self.matcher.matcher.conf.weights)
        else:
            self.matcher, source = ReferenceMatcher(matcher), "the given matcher"
        self.reference_name = f"LightGlue in torch, float32, {source}"
        self.cases = _pair_cases(file, options)

    def reference(self, case: PairCase) -> Any:
        """What torch gives."""
        return self.matcher(case.features0, case.features1)

    def subject(self, session: Runs) -> Callable[[PairCase], Any]:
        """What the file gives, in a runtime."""
        return FileMatcher(self.file, session)

    def compare(self, case: PairCase, reference: Any, found: Any, limits: Limits) -> MatchDifference:
        """The differences of a case."""
        tolerance = min(limits.score_max, 0.01)
        return compare_matches(case.name, reference, found, float(self.numbers["filter_threshold"]), tolerance)

    def size(self, case: PairCase) -> tuple[int, ...]:
        """Keypoints of each image."""
        return case.counts

    def feeds(self, case: PairCase) -> Arrays:
        """The file's inputs."""
        return feeds_of(self.file, case)

    def torch_request(self, case: PairCase) -> tuple[Mapping[str, Any], Arrays] | None:
        """See `Trial`."""
        request = matcher_request(self.matcher)
        if request is None:
            return None
        arrays = {
            f"{name}{side}": np.asarray(value)
            for side, features in enumerate((case.features0, case.features1))
            for name, value in features.items()
        }
        return {"matcher": request}, arrays


def matcher_request(reference: ReferenceMatcher) -> dict[str, Any] | None:
    """How a process of its own builds the same matcher; None where its weights are in no file."""
    conf = reference.matcher.conf
    if conf.weights is None:
        return None
    names = ("filter_threshold", "depth_confidence", "width_confidence", "n_layers", "input_dim", "descriptor_dim")
    options = {name: getattr(conf, name) for name in (*names, "num_heads", "add_scale_ori")}
    options |= {"features": reference.matcher.feature_type, "weights": str(conf.weights)}
    return {**options, "pruning_min_keypoints": reference.matcher.pruning_keypoint_thresholds["cpu"]}


def _pair_cases(file: ModelFile, options: CheckOptions) -> list[PairCase]:
    """Pairs of photographs, and the first with few keypoints."""
    numbers, features = file.description.numbers(), file.description.features
    length = int(numbers["input_dim"])
    pairs: list[PairCase] = []
    if features in FEATURES:
        extractor = Models(features, options.max_keypoints, "cpu", mp=False).load_extractor()
        images = photographs(options.images)
        found = [extractor.extract(each.image, resize=RESIZE) for each in images]
        if found[0]["descriptors"].shape[-1] == length:
            pairs = [
                PairCase(f"{images[i].name} - {images[i + 1].name}", found[i], found[i + 1])
                for i in range(0, len(images), 2)
            ]
    if not pairs:
        pairs = [made_up_pair(options.max_keypoints, length, bool(numbers.get("add_scale_ori")))]
    return [*pairs, *edge_cases(pairs[0], with_none=file.description.format not in _NEVER_EMPTY)]
