"""Extractors: the reference that a file is compared with, and what both are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightglue.export.extractors.options import MODELS, ExtractorSource
from lightglue.export.extractors.sources import load_extractor
from lightglue.extractors.options import RESIZE
from lightglue.parity.cases import ImageCase, image_cases
from lightglue.parity.compare import FeatureDifference, compare_features
from lightglue.parity.limits import Limits
from lightglue.parity.opened import Runs
from lightglue.parity.options import CheckOptions
from lightglue.parity.outcome import FoundFeatures
from lightglue.parity.reference import find_weights
from lightglue.parity.subjects import FileExtractor, image_feeds
from lightglue.parity.trials import Arrays, Trial
from lightglue.weights import FILES
from lightglue_runtime.contract import Description
from lightglue_runtime.model_file import ModelFile

__all__ = ["ExtractorTrial", "ReferenceExtractor", "extractor_source", "reference_extractor"]


@dataclass(frozen=True, eq=False)
class ReferenceExtractor:
    """An extractor of this package."""

    extractor: Any

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> FoundFeatures:
        """The features of an image (3, H, W), in its own px."""
        found = self.extractor({"image": image[None]})
        return FoundFeatures(*(found[name][0].numpy() for name in ("keypoints", "keypoint_scores", "descriptors")))


def extractor_source(description: Description, name: str, given: Path | None) -> ExtractorSource:
    """Which extractor a file was made of. Raises InputError where its weights are not to be found."""
    digest = description.weights_sha256.partition(", ")[0]  # RaCo's file names ALIKED's, for the descriptors, too
    weights = find_weights(replace(description, weights_sha256=digest), name, given)
    model = description.features if description.features in MODELS else None
    own = None if weights in FILES else Path(weights)
    return ExtractorSource("aliked" if model else description.features, model, own)


def reference_extractor(source: ExtractorSource, max_keypoints: int) -> ReferenceExtractor:
    """The extractor, its keypoints the best of those above a score of 0. Raises WeightsError."""
    extractor: Any = load_extractor(source)
    extractor.conf.max_num_keypoints = max_keypoints
    extractor.conf.detection_threshold = 0.0
    return ReferenceExtractor(extractor)


class ExtractorTrial(Trial):
    """An extractor, of this package's format or COLMAP's."""

    def __init__(self, file: ModelFile, options: CheckOptions) -> None:
        self.file, self.max_keypoints = file, options.max_keypoints
        self.source = extractor_source(file.description, str(file.path), options.weights)
        self.extractor = reference_extractor(self.source, options.max_keypoints)
        name = type(self.extractor.extractor).__name__
        self.reference_name = f"{name} in torch, float32, {options.weights or file.description.weights}"
        self.cases = image_cases(options.images, RESIZE)

    def reference(self, case: ImageCase) -> Any:
        """What torch gives."""
        return self.extractor(case.image)

    def subject(self, session: Runs) -> Callable[[ImageCase], Any]:
        """What the file gives, in a runtime."""
        return FileExtractor(self.file, session, self.max_keypoints)

    def compare(self, case: ImageCase, reference: Any, found: Any, limits: Limits) -> FeatureDifference:
        """The differences of a case."""
        return compare_features(case.name, reference, found, flat=case.flat)

    def size(self, case: ImageCase) -> tuple[int, ...]:
        """Width and height."""
        return tuple(case.image.shape[:0:-1])

    def feeds(self, case: ImageCase) -> Arrays:
        """The file's inputs."""
        return image_feeds(case, self.max_keypoints)

    def torch_request(self, case: ImageCase) -> tuple[Mapping[str, Any], Arrays] | None:
        """See `Trial`."""
        options = {**asdict(self.source), "weights": str(self.source.weights) if self.source.weights else None}
        return {"extractor": options, "max_keypoints": self.max_keypoints}, {"image": case.image.numpy()}
