"""The matcher's options, and one preset for each feature type that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lightglue.errors import InputError
from lightglue.support.checks import check_int, check_real

__all__ = ["PRESETS", "PRUNING_THRESHOLDS", "LightGlueConfig", "Preset"]

# Device -> the number of keypoints up to which an image is not pruned, as dropping rows costs time, too; "flash" is
# CUDA with flash=True. Of the tuned ones the CPU's was measured (docs/performance.md).
PRUNING_THRESHOLDS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "published": MappingProxyType({"cpu": -1, "mps": -1, "cuda": 1024, "flash": 1536}),
        "tuned": MappingProxyType({"cpu": 128, "mps": -1, "cuda": 1024, "flash": 1536}),
    }
)


@dataclass(frozen=True)
class LightGlueConfig:
    """Options of `LightGlue` under the names of the published package (cvg/LightGlue, `default_conf`)."""

    input_dim: int = 256  # length of the extractor's descriptors
    descriptor_dim: int = 256  # width of the transformer
    add_scale_ori: bool = False  # also encode each keypoint's scale and orientation
    n_layers: int = 9
    num_heads: int = 4
    flash: bool = True  # on CUDA: attention in half precision, through FlashAttention
    mp: bool = False  # products in reduced precision: float16 on a GPU, bfloat16 on a CPU that has instructions for it
    depth_confidence: float = 0.95  # stop early once this share of the keypoints is confident; -1: never
    width_confidence: float = 0.99  # drop keypoints this surely unmatchable; -1: never
    filter_threshold: float = 0.1  # smallest score of a match
    weights: Any = None  # a name, a path or a state dict; None: the feature type's published file

    def __post_init__(self) -> None:
        for name in ("input_dim", "descriptor_dim", "n_layers", "num_heads"):
            check_int(f"LightGlue: {name}", getattr(self, name), 1, "a positive integer")
        for name in ("depth_confidence", "width_confidence", "filter_threshold"):
            check_real(f"LightGlue: {name}", getattr(self, name), "a finite number")
        if self.descriptor_dim % (2 * self.num_heads):
            raise InputError(
                f"LightGlue: descriptor_dim={self.descriptor_dim} does not divide into num_heads={self.num_heads} "
                "heads of an even width, which the rotary encoding needs"
            )


@dataclass(frozen=True)
class Preset:
    """What a feature type fixes: the file with its trained weights and the shape of its network.

    What is None is as in `LightGlueConfig`.
    """

    weights: str  # name in the table of `lightglue.weights`
    input_dim: int
    add_scale_ori: bool = False
    descriptor_dim: int | None = None
    num_heads: int | None = None
    # Defaults, which the user's own keywords overrule: fewer layers and other thresholds fit the same file.
    n_layers: int | None = None
    depth_confidence: float | None = None
    width_confidence: float | None = None
    filter_threshold: float | None = None

    def as_options(self) -> dict[str, Any]:
        """The options that this preset fixes, as keywords of `LightGlueConfig`."""
        return self._given("weights", "input_dim", "add_scale_ori", "descriptor_dim", "num_heads")

    def defaults(self) -> dict[str, Any]:
        """The options that are as this preset says unless the user says otherwise, likewise."""
        return self._given("n_layers", "depth_confidence", "width_confidence", "filter_threshold")

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "superpoint": Preset("superpoint_lightglue", 256),
        "disk": Preset("disk_lightglue", 128),
        "aliked": Preset("aliked_lightglue", 128),
        "sift": Preset("sift_lightglue", 128, add_scale_ori=True),
        "doghardnet": Preset("doghardnet_lightglue", 128, add_scale_ori=True),
        "raco-aliked": Preset("raco_aliked_lightglue", 128),
        # LighterGlue (github.com/verlab/accelerated_features), with its published thresholds.
        "xfeat": Preset(
            "xfeat-lighterglue",
            64,
            descriptor_dim=96,
            num_heads=1,
            n_layers=6,
            depth_confidence=-1,
            width_confidence=0.95,
            filter_threshold=0.1,
        ),
    }
)
