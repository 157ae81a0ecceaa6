"""What the commands take where the user says nothing: one place for them and for the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["EXTRACTORS", "MAX_KEYPOINTS", "PRUNING", "RESIZE", "TRAINED_ON", "WITH_VERDICT", "default_mp"]

# Feature type -> its extractor, and the options that make it return the best keypoints up to their greatest number.
# ALIKED's published threshold of 0.2 starves images of little texture: docs/decisions.
EXTRACTORS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "aliked": ("ALIKED", MappingProxyType({"detection_threshold": -1})),
        "aliked-n16rot": ("ALIKED", MappingProxyType({"detection_threshold": -1, "model_name": "aliked-n16rot"})),
        "aliked-n32": ("ALIKED", MappingProxyType({"detection_threshold": -1, "model_name": "aliked-n32"})),
        "disk": ("DISK", MappingProxyType({})),
        "xfeat": ("XFeat", MappingProxyType({"detection_threshold": 0})),
        "superpoint": ("SuperPoint", MappingProxyType({"detection_threshold": -1})),
        "sift": ("SIFT", MappingProxyType({})),
        "doghardnet": ("DoGHardNet", MappingProxyType({})),
    }
)
# Feature type -> that of the matcher's weights, where it is another one.
TRAINED_ON: Mapping[str, str] = MappingProxyType({"aliked-n16rot": "aliked", "aliked-n32": "aliked"})
# Feature types whose matches come with the probability that the images overlap.
WITH_VERDICT = ("aliked", "aliked-n16rot", "aliked-n32", "disk", "xfeat")
MAX_KEYPOINTS = 2048  # of each image
RESIZE = 1024  # px of the longer side
PRUNING = "tuned"  # preset of the numbers of keypoints up to which an image is not pruned


def default_mp(device: torch.device, features: str | None = None) -> bool:
    """Whether to compute in reduced precision on `device`: where it is known to be fast at it, and loses nothing.

    XFeat's networks are so small that it gains no time and costs accuracy: docs/decisions/015-defaults.md.
    """
    from lightglue.support.precision import product_dtype

    return features != "xfeat" and device.type in ("cpu", "cuda") and product_dtype(device, mp=True) is not None
