"""Where the published package keeps `ALIKED`, and the parts of it that callers import from here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lightglue.extractors.aliked import ALIKED
from lightglue.extractors.aliked_detection import DKD
from lightglue.extractors.aliked_network import SDDH, ConvBlock, DeformableConv2d, ResBlock
from lightglue.extractors.base import Extractor
from lightglue.extractors.detection import simple_nms
from lightglue.extractors.padding import InputPadder
from lightglue.support.patches import watch

__all__ = [
    "ALIKED",
    "DKD",
    "SDDH",
    "ConvBlock",
    "DeformableConv2d",
    "Extractor",
    "InputPadder",
    "ResBlock",
    "simple_nms",
]


def __getattr__(name: str) -> Any:
    if name != "resnet":
        raise AttributeError(f"module 'lightglue.aliked' has no attribute {name!r}")
    try:
        return import_module("torchvision.models.resnet")
    except ImportError as error:
        raise ImportError("lightglue.aliked.resnet is torchvision's: pip install torchvision.") from error


watch(
    __name__,
    {},
    unused={*__all__} - {"ALIKED", "Extractor"},
    remedy="replace the modules of an extractor, such as extractor.dkd",
)
