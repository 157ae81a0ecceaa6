"""Pipelines, two images to matches: the reference that a file is compared with, and what both are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightglue.extractors.options import RESIZE
from lightglue.parity.cases import image_cases
from lightglue.parity.compare import MatchDifference, compare_matches
from lightglue.parity.extractors import extractor_source, reference_extractor
from lightglue.parity.limits import Limits
from lightglue.parity.opened import Runs
from lightglue.parity.options import CheckOptions
from lightglue.parity.outcome import FoundFeatures, FoundMatches
from lightglue.parity.reference import reference_matcher
from lightglue.parity.trials import Arrays, Trial, matcher_request
from lightglue.types import Features
from lightglue.weights import FILES
from lightglue_runtime.contract import Description
from lightglue_runtime.model_file import ModelFile

__all__ = ["ImagePairCase", "PipelineTrial", "as_features"]


@dataclass(frozen=True, eq=False)
class ImagePairCase:
    """Two images (3, H, W) in [0, 1], of any sizes."""

    name: str
    image0: Tensor
    image1: Tensor


class PipelineTrial(Trial):
    """A file that holds an extractor and a matcher."""

    def __init__(self, file: ModelFile, options: CheckOptions) -> None:
        self.file, self.max_keypoints, self.numbers = file, options.max_keypoints, file.description.numbers()
        own, others = _taken_apart(file.description)
        self.source = extractor_source(own, str(file.path), _if_its(options, own))
        self.extractor = reference_extractor(self.source, options.max_keypoints)
        self.matcher = reference_matcher(others, str(file.path), _if_its(options, others))
        self.reference_name = f"extractor and LightGlue in torch, float32, {file.description.weights}"
        images = [case for case in image_cases(options.images, RESIZE) if case.name != "a flat image"]
        photographs = images[: len(images) - 2]
        pairs = zip(photographs[::2], photographs[1::2], strict=True)
        self.cases = [ImagePairCase(f"{a.name} - {b.name}", a.image, b.image) for a, b in pairs]
        small = images[-2]
        self.cases.append(ImagePairCase(f"{small.name} and a larger image", small.image, images[1].image))

    def reference(self, case: ImagePairCase) -> FoundMatches:
        """What torch gives."""
        first, second = self.extractor(case.image0), self.extractor(case.image1)
        found = self.matcher(as_features(first, case.image0), as_features(second, case.image1))
        return replace(found, prune0=None, prune1=None, keypoints0=first.keypoints, keypoints1=second.keypoints)

    def subject(self, session: Runs) -> Callable[[ImagePairCase], FoundMatches]:
        """What the file gives, in a runtime."""

        def run(case: ImagePairCase) -> FoundMatches:
            found = session.run(self.feeds(case))
            places = found["kpts0"][0], found["kpts1"][0]
            matches = found["matches0"].astype(np.int64)
            return FoundMatches(
                matches, found["mscores0"], int(found["stop"]), keypoints0=places[0], keypoints1=places[1]
            )

        return run

    def compare(self, case: ImagePairCase, reference: Any, found: Any, limits: Limits) -> MatchDifference:
        """The differences of a case."""
        tolerance = min(limits.score_max, 0.01)
        return compare_matches(case.name, reference, found, float(self.numbers["filter_threshold"]), tolerance)

    def size(self, case: ImagePairCase) -> tuple[int, ...]:
        """The most keypoints of each."""
        return self.max_keypoints, self.max_keypoints

    def feeds(self, case: ImagePairCase) -> Arrays:
        """The file's inputs."""
        return {
            "image0": case.image0[None].numpy(),
            "image1": case.image1[None].numpy(),
            "max_keypoints": np.array(self.max_keypoints, np.int64),
            "min_score": np.array(0, np.float32),
        }

    def torch_request(self, case: ImagePairCase) -> tuple[Mapping[str, Any], Arrays] | None:
        """See `Trial`."""
        options = {**asdict(self.source), "weights": str(self.source.weights) if self.source.weights else None}
        request = {"extractor": options, "max_keypoints": self.max_keypoints, "matcher": matcher_request(self.matcher)}
        return request, {"image0": case.image0.numpy(), "image1": case.image1.numpy()}


def _taken_apart(description: Description) -> tuple[Description, Description]:
    """The extractor's and the matcher's: the weights of the matcher come last, and features are the matcher's."""
    names, digests = description.weights.split(", "), description.weights_sha256.split(", ")
    model = names[0] if names[0].startswith("aliked-") and description.features == "aliked" else description.features
    own = replace(description, features=model, weights=names[0], weights_sha256=digests[0])
    return own, replace(description, weights=names[-1], weights_sha256=digests[-1])


def _if_its(options: CheckOptions, part: Description) -> Any:
    """The given weights, unless a published file is what this part was made of."""
    published = any(file.sha256 == part.weights_sha256 for file in FILES.values())
    return None if published else options.weights


def as_features(found: FoundFeatures, image: Tensor) -> Features:
    """What a matcher takes."""
    height, width = image.shape[-2:]
    return {
        "keypoints": torch.from_numpy(found.keypoints)[None],
        "descriptors": torch.from_numpy(found.descriptors)[None],
        "image_size": torch.tensor([[width, height]], dtype=torch.float32),
    }
