"""What a model file of ours holds: the names of its tensors, and the description in its metadata.

Shapes: M and N keypoints in image 0 and 1, K keypoints of one image, D the descriptor's length. Pixel convention
everywhere but in the formats of others: the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from lightglue_runtime.errors import ModelError

__all__ = [
    "EXTRACTOR_INPUTS",
    "EXTRACTOR_OUTPUTS",
    "FORMATS",
    "FORMAT_VERSION",
    "KINDS",
    "MATCHER_INPUTS",
    "MATCHER_OUTPUTS",
    "PIPELINE_INPUTS",
    "PIPELINE_OUTPUTS",
    "PRECISIONS",
    "Description",
]

FORMAT_VERSION = 1
KINDS = ("matcher", "extractor", "pipeline", "step")  # step: a piece of a matcher for a loop in the host
FORMATS = ("adaptive", "fixed", "colmap", "opencv", "steps", "tensorrt")  # of matchers; extractors: ours and colmap's
PRECISIONS = ("f32", "f16", "int8")

# SIFT-like features add scales0, scales1, oris0, oris1, (1, M) and (1, N) float32.
MATCHER_INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "kpts0": "(1, M, 2) float32, px",
        "kpts1": "(1, N, 2) float32, px",
        "desc0": "(1, M, D) float32",
        "desc1": "(1, N, D) float32",
        "image_size0": "(1, 2) float32, width height, px",
        "image_size1": "(1, 2) float32",
    }
)
# Of format "adaptive"; "fixed" has a batch dimension and the first two alone.
MATCHER_OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "matches0": "(M,) int64, index into image 1 or -1",
        "mscores0": "(M,) float32, 0 where there is no mutual partner",
        "stop": "() int64, number of layers run",
        "prune0": "(M,) int64, number of layers that each keypoint went through",
        "prune1": "(N,) int64",
    }
)
EXTRACTOR_INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "image": "(1, 3, H, W) float32 in [0, 1], RGB; of any height and width",
        "max_keypoints": "() int64, the greatest number of keypoints; negative: no limit",
        "min_score": "() float32, the extractor's detection_threshold; 0: the best keypoints, whatever they score",
    }
)
EXTRACTOR_OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "keypoints": "(1, K, 2) float32, x y, px of `image`",
        "descriptors": "(1, K, D) float32, L2-normalised",
        "keypoint_scores": "(1, K) float32, best first",
    }
)
PIPELINE_INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "image0": "(1, 3, H0, W0) float32 in [0, 1], RGB; of any height and width",
        "image1": "(1, 3, H1, W1) float32",
        "max_keypoints": "() int64, as of extractors, of each image",
        "min_score": "() float32",
    }
)
PIPELINE_OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "kpts0": "(1, M, 2) float32, x y, px of `image0`",
        "kpts1": "(1, N, 2) float32",
        "matches0": "(M,) int64, index into image 1 or -1",
        "mscores0": "(M,) float32, 0 where there is no mutual partner",
        "stop": "() int64, number of layers run",
        "keypoint_scores0": "(1, M) float32",
        "keypoint_scores1": "(1, N) float32",
    }
)

_PREFIX = "lightglue."
_JSON: Mapping[str, tuple[type, ...]] = MappingProxyType(  # field -> what it holds
    {
        "thresholds": (dict,),
        "overlap": (dict, type(None)),
        "calibration": (dict, type(None)),
        "preprocess": (dict,),
    }
)


@dataclass(frozen=True)
class Description:
    """What a file says of itself, as text in ONNX's `metadata_props`."""

    kind: str
    format: str
    features: str  # a name of the table of feature types, such as "aliked"
    precision: str
    weights: str  # name of the published file or of the user's own
    weights_sha256: str
    licence: str
    pixels: str = "the centre of the top-left pixel is (0, 0)"
    # Of matchers: n_layers, input_dim, filter_threshold, depth_confidence, width_confidence, pruning_min_keypoints.
    thresholds: str = "{}"  # JSON
    overlap: str = "null"  # JSON: coefficients of `lightglue_runtime.overlap`, null where none were fitted
    calibration: str = "null"  # JSON: offset and slope of `lightglue_runtime.calibration`, likewise
    preprocess: str = "{}"  # JSON: of extractors, how an image is resized by default
    format_version: str = str(FORMAT_VERSION)

    def to_properties(self) -> dict[str, str]:
        """As the properties of a model, sorted."""
        return {f"{_PREFIX}{name}": value for name, value in sorted(asdict(self).items())}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], name: str) -> Description:
        """Of the properties of the model called `name`.

        Raises ModelError where they are none of ours, or of another version of the format.
        """
        found = {key.removeprefix(_PREFIX): value for key, value in properties.items() if key.startswith(_PREFIX)}
        version = found.get("format_version")
        if version is None:
            raise ModelError(f"{name} was not written by `lightglue export`, or not for this use; export it again.")
        if version != str(FORMAT_VERSION):
            raise ModelError(
                f"{name} has version {version} of the format and this package reads {FORMAT_VERSION}; export it again "
                "with the version of lightglue that is installed here, or install the one that wrote it."
            )
        known = {field.name for field in fields(cls)}
        missing = {"kind", "format", "features", "precision", "weights", "weights_sha256", "licence"} - found.keys()
        if missing:
            raise ModelError(f"{name} lacks {', '.join(sorted(missing))} in its metadata; export it again.")
        description = cls(**{key: value for key, value in found.items() if key in known})
        for field, kinds in _JSON.items():
            try:
                is_right = isinstance(json.loads(getattr(description, field)), kinds)
            except (ValueError, RecursionError):
                is_right = False
            if not is_right:
                raise ModelError(f"{name} has damaged metadata ({_PREFIX}{field}); export or copy it again.")
        return description

    def numbers(self) -> Mapping[str, Any]:
        """`thresholds`, read."""
        values: dict[str, Any] = json.loads(self.thresholds)
        return values
