"""The loop over a matcher in pieces, as `lightglue export matcher --format steps` writes it.

It decides when to stop and what to drop as the package does for one pair. Read it to write the same in another
language, or around TensorRT's engines; what runs a piece is the caller's, a function from inputs to outputs by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.contract import FORMAT_VERSION
from lightglue_runtime.errors import ModelError

__all__ = ["MANIFEST", "Manifest", "Runner", "match_steps"]

MANIFEST = "manifest.json"

Array = NDArray[Any]
Runner = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]  # name of a file, its inputs -> its outputs


@dataclass(frozen=True)
class Manifest:
    """What the folder's manifest says, as far as the loop needs it."""

    embed: str  # file names
    layers: tuple[str, ...]
    heads: tuple[str, ...]
    confidence_thresholds: tuple[float, ...]  # one a layer but the last
    depth_confidence: float  # <= 0: no early stop
    width_confidence: float  # <= 0: no pruning
    filter_threshold: float
    pruning_min_keypoints: int  # an image with this many keypoints or fewer is not pruned

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Manifest:
        """The manifest of a folder. Raises ModelError where it is missing, damaged or of another version."""
        path = Path(folder) / MANIFEST
        try:
            content = json.loads(path.read_text("utf-8"))
            version, numbers = content["format_version"], content["thresholds"]
            if version != str(FORMAT_VERSION):
                raise ModelError(f"{path} has version {version} of the format, this package reads {FORMAT_VERSION}.")
            return cls(
                embed=str(content["embed"]),
                layers=tuple(map(str, content["layers"])),
                heads=tuple(map(str, content["heads"])),
                confidence_thresholds=tuple(map(float, content["confidence_thresholds"])),
                depth_confidence=float(numbers["depth_confidence"]),
                width_confidence=float(numbers["width_confidence"]),
                filter_threshold=float(numbers["filter_threshold"]),
                pruning_min_keypoints=int(numbers["pruning_min_keypoints"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path} is no manifest of a matcher in pieces ({error}); export it again with "
                "`lightglue export matcher --format steps`."
            ) from error


@dataclass
class _Image:
    """An image with what is left of its keypoints."""

    state: dict[str, Array]  # tokens (M', d), cosines and sines (M', 1, e / 2)
    slots: Array  # (M',) int64, which of the given keypoints the rows are
    layers_run: Array  # (M,) int64, for all keypoints that were given

    def inputs(self, side: int) -> dict[str, Array]:
        """As a layer takes them."""
        return {f"{name}{side}": array for name, array in self.state.items()}


def match_steps(manifest: Manifest, run: Runner, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of `contract.MATCHER_OUTPUTS`, from the inputs of `contract.MATCHER_INPUTS`."""
    may_prune = manifest.width_confidence > 0
    n_layers = len(manifest.layers)
    images = []
    for side in "01":
        own = {name.removesuffix(side): array for name, array in inputs.items() if name.endswith(side)}
        count = own["kpts"].shape[1]
        state = dict(run(manifest.embed, own)) if count else {}
        images.append(_Image(state, np.arange(count), np.full(count, 1 if may_prune else n_layers)))
    given = sum(len(image.slots) for image in images)
    for index, layer in enumerate(manifest.layers):
        if not all(len(image.slots) for image in images):
            return _result(manifest, None, images, index + 1)
        outputs = run(layer, {**images[0].inputs(0), **images[1].inputs(1)})
        for i, image in enumerate(images):
            image.state["tokens"] = outputs[f"updated{i}"]
        if index < n_layers - 1:
            if _is_sure(manifest, index, outputs, given):
                break
            for i, image in enumerate(images):
                _prune(manifest, index, image, outputs[f"matchability{i}"], outputs[f"confidence{i}"])
    found = run(manifest.heads[index], {f"tokens{i}": image.state["tokens"] for i, image in enumerate(images)})
    return _result(manifest, found, images, index + 1)


def _is_sure(manifest: Manifest, index: int, outputs: Mapping[str, Array], given: int) -> bool:
    """Whether enough keypoints are sure of their match. Dropped ones count as sure; in float32, as in the package."""
    threshold = np.float32(manifest.confidence_thresholds[index])
    unsure = sum(int((outputs[f"confidence{side}"] < threshold).sum()) for side in "01")
    share = np.float32(1) - np.float32(unsure) / np.float32(given)
    return manifest.depth_confidence > 0 and bool(share > np.float32(manifest.depth_confidence))


def _prune(manifest: Manifest, index: int, image: _Image, matchability: Array, confidence: Array) -> None:
    """Drop the keypoints that are sure and cannot be matched, of an image that has many."""
    if manifest.width_confidence <= 0 or len(image.slots) <= manifest.pruning_min_keypoints:
        return
    keep = matchability > np.float32(1 - manifest.width_confidence)
    if manifest.depth_confidence > 0:
        keep |= confidence <= np.float32(manifest.confidence_thresholds[index])
    image.slots = image.slots[keep]
    image.state = {name: array[keep] for name, array in image.state.items()}
    image.layers_run[image.slots] += 1


def _result(manifest: Manifest, found: Mapping[str, Array] | None, images: list[_Image], stop: int) -> dict[str, Array]:
    """Of all keypoints that were given. found: what the head says of those that are left, None for no match."""
    count = len(images[0].layers_run)
    matches, scores = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    if found is not None:
        partners = found["partners0"]
        chosen = found["mscores0"] > np.float32(manifest.filter_threshold)
        matches[images[0].slots] = np.where(chosen & (partners >= 0), images[1].slots[partners], -1)
        scores[images[0].slots] = found["mscores0"]
    return {
        "matches0": matches,
        "mscores0": scores,
        "stop": np.array(stop, np.int64),
        "prune0": images[0].layers_run,
        "prune1": images[1].layers_run,
    }
