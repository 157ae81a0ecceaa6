"""An exported file as a function from a case to an outcome, whatever its kind and format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.parity.cases import ImageCase, PairCase
from lightglue.parity.opened import Runs
from lightglue.parity.outcome import FoundFeatures, FoundMatches
from lightglue.types import Features
from lightglue_runtime.model_file import ModelFile

__all__ = ["FileExtractor", "FileMatcher", "feeds_of", "image_feeds"]

Arrays = dict[str, NDArray[Any]]


def feeds_of(file: ModelFile, case: PairCase) -> Arrays:
    """The inputs of a matcher's file for a pair."""
    found: Arrays = {}
    for side, features in enumerate((case.features0, case.features1)):
        found |= {f"{name}{side}": value for name, value in _arrays(features).items()}
    if file.description.format == "opencv":
        for side in (0, 1):
            size = found[f"image_size{side}"]
            keypoints = (found[f"kpts{side}"] - size[:, None] / 2) / (size.max() / 2)
            found[f"kpts{side}"] = keypoints.astype(np.float32)
    if file.description.format == "steps":
        return found
    return {name: value for name, value in found.items() if name in file.inputs}


def _arrays(features: Features) -> Arrays:
    names = {"keypoints": "kpts", "descriptors": "desc", "image_size": "image_size", "scales": "scales", "oris": "oris"}
    values: Mapping[str, Any] = features
    return {to: values[key].numpy().astype(np.float32) for key, to in names.items() if key in values}


class FileMatcher:
    """A matcher's file in a runtime."""

    def __init__(self, file: ModelFile, session: Runs) -> None:
        self.file, self.session = file, session

    def __call__(self, case: PairCase) -> FoundMatches:
        """The matches of a pair. Raises ModelError where the outputs make no sense."""
        return self.found(self.session.run(feeds_of(self.file, case)), case)

    def found(self, outputs: Mapping[str, NDArray[Any]], case: PairCase) -> FoundMatches:
        """The outputs of any format in one form."""
        m, _ = case.counts
        if self.file.description.format == "opencv":
            matches0, scores0 = np.full(m, -1, np.int64), np.zeros(m, np.float32)
            rows = outputs["matches0"].reshape(-1, 2).astype(np.int64)
            matches0[rows[:, 0]], scores0[rows[:, 0]] = rows[:, 1], outputs["mscores0"].reshape(-1)
            return FoundMatches(matches0, scores0)
        return FoundMatches(
            outputs["matches0"].reshape(-1).astype(np.int64),
            outputs["mscores0"].reshape(-1),
            int(outputs["stop"]) if "stop" in outputs else None,
            outputs["prune0"].astype(np.int64) if "prune0" in outputs else None,
            outputs["prune1"].astype(np.int64) if "prune1" in outputs else None,
        )


def image_feeds(case: ImageCase, max_keypoints: int) -> Arrays:
    """The inputs of an extractor's file."""
    return {
        "image": case.image[None].numpy(),
        "max_keypoints": np.array(max_keypoints, np.int64),
        "min_score": np.array(0, np.float32),
    }


class FileExtractor:
    """An extractor's file in a runtime."""

    def __init__(self, file: ModelFile, session: Runs, max_keypoints: int) -> None:
        self.file, self.session, self.max_keypoints = file, session, max_keypoints

    def __call__(self, case: ImageCase) -> FoundFeatures:
        """The features of an image, in its own px."""
        found = self.session.run(image_feeds(case, self.max_keypoints))
        keypoints = found["keypoints"][0]
        if self.file.description.format == "colmap":  # from -1 to 1, the centres of the outermost pixels
            height, width = case.image.shape[-2:]
            keypoints = (keypoints + 1) / 2 * np.array([width - 1, height - 1], np.float32)
        scores = found.get("keypoint_scores", found.get("scores"))
        assert scores is not None
        return FoundFeatures(keypoints, scores[0], found["descriptors"][0])
