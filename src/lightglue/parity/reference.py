"""The torch models that an exported file is compared with, found by what the file says of itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from lightglue.errors import InputError
from lightglue.matching.checkpoint import adapt, infer_architecture
from lightglue.matching.config import PRESETS
from lightglue.matching.lightglue import LightGlue
from lightglue.parity.outcome import FoundMatches
from lightglue.types import Features
from lightglue.weights import FILES, load_state_dict
from lightglue_runtime.contract import Description
from lightglue_runtime.errors import ModelError

__all__ = [
    "ReferenceMatcher",
    "find_weights",
    "reference_matcher",
]


def find_weights(description: Description, name: str, given: Path | None) -> str | Path:
    """The name of the published file, or `given`, that a model was made of, by its sha256.

    Raises InputError where it is none of the published files and none is given, or another one; the file is called
    `name` in the message.
    """
    wanted = description.weights_sha256
    if given is not None:
        try:
            found = hashlib.sha256(given.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"--weights {given} cannot be read ({error.strerror or error}).") from error
        if found != wanted:
            raise InputError(
                f"--weights {given} has the sha256 {found}, and {name} was made of {description.weights} with "
                f"{wanted}; give that file."
            )
        return given
    for file in FILES.values():
        if file.sha256 == wanted:
            return file.name
    raise InputError(
        f"{name} was made of {description.weights} (sha256 {wanted}), which is no published file; give it by --weights."
    )


_THRESHOLDS = ("filter_threshold", "depth_confidence", "width_confidence", "n_layers")


@dataclass(frozen=True, eq=False)
class ReferenceMatcher:
    """LightGlue in torch, float32."""

    matcher: LightGlue

    @torch.inference_mode()
    def __call__(self, features0: Features, features1: Features) -> FoundMatches:
        """The matches of two images' features with a batch dimension of 1."""
        found = self.matcher({"image0": features0, "image1": features1})
        return FoundMatches(
            found["matches0"][0].numpy(),
            found["matching_scores0"][0].numpy(),
            int(found["stop"]),
            found["prune0"][0].numpy().astype(np.int64),
            found["prune1"][0].numpy().astype(np.int64),
        )


def reference_matcher(description: Description, name: str, given: Path | None) -> ReferenceMatcher:
    """LightGlue with the weights and the thresholds of a file. Raises InputError, WeightsError, ModelError."""
    weights = find_weights(description, name, given)
    numbers = description.numbers()
    try:
        options = {key: numbers[key] for key in _THRESHOLDS}
        least = int(numbers["pruning_min_keypoints"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{name} lacks {error} among its thresholds; export it again.") from None
    known = description.features in PRESETS
    shape = {} if known else infer_architecture(adapt(load_state_dict(weights), options["n_layers"]))
    matcher = LightGlue(
        features=cast(Any, description.features) if known else None, weights=weights, **{**shape, **options}
    )
    matcher.pruning_keypoint_thresholds["cpu"] = least
    return ReferenceMatcher(matcher.eval())
