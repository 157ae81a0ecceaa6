"""An extractor as a file of ONNX."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lightglue.errors import InputError
from lightglue.export.builder import GraphBuilder, ModelBuilder, TensorType, Value
from lightglue.export.extractors.graphs import write_graph
from lightglue.export.extractors.keypoints import Found, Request
from lightglue.export.extractors.options import ExtractorFile
from lightglue.export.extractors.sources import describe
from lightglue.export.files import check_output, save
from lightglue.extractors.aliked import ALIKED
from lightglue.extractors.base import Extractor
from lightglue_runtime.contract import Description

__all__ = ["extractor_model", "write_extractor"]


def write_extractor(
    extractor: Extractor, path: str | os.PathLike[str], options: ExtractorFile | None = None, **fields: Any
) -> Description:
    """Write the extractor to `path`, whole or not at all: tensors as in `lightglue_runtime.contract`.

    The number of keypoints and the smallest score are inputs of the file, not those of `extractor.conf`; all else, such
    as `nms_radius`, is as in it. Images may have any size. Keypoints come best first.

    Args:
        options: the format; fields: those of `ExtractorFile`, instead.

    Returns:
        what the file says of itself.

    Raises:
        InputError: for an extractor that is no network (SIFT, DoGHardNet) and options that make no sense.
        ModelError: where onnx is not installed, or for a network with hooks or modules that are not the published ones.
        StoreError: where the file cannot be written.
    """
    options = options or ExtractorFile(**fields)
    target = check_output(path)
    model, description = extractor_model(extractor, options)
    save(model, target)
    return description


def extractor_model(extractor: Extractor, options: ExtractorFile) -> tuple[Any, Description]:
    """The ModelProto that `write_extractor` writes, and its description."""
    if options.format == "colmap" and not isinstance(extractor, ALIKED):
        raise InputError(f"format colmap is for ALIKED and this is {type(extractor).__name__}; write format ours.")
    description = describe(extractor, options.format)
    builder = ModelBuilder()
    g = builder.graph
    image = builder.input("image", TensorType("float32", (1, 3, "H", "W")))
    request = declare_request(builder)
    found = write_graph(g, extractor, image, request)
    dim = descriptor_length(extractor)
    outputs = _colmap(g, image, found, dim) if options.format == "colmap" else _ours(g, found, dim)
    return builder.model(outputs, f"lightglue_{description.features}", description.to_properties()), description


def declare_request(builder: ModelBuilder) -> Request:
    """The inputs beside the image."""
    return Request(
        builder.input("max_keypoints", TensorType("int64", ())), builder.input("min_score", TensorType("float32", ()))
    )


def descriptor_length(extractor: Any) -> int:
    """D."""
    head = getattr(extractor, "aliked", extractor)
    if isinstance(head, ALIKED):
        return int(head.network.desc_head.agg_weights.shape[-1])
    found = getattr(extractor.conf, "desc_dim", None) or getattr(extractor.conf, "descriptor_dim", None)
    return int(found or 64)  # XFeat has no choice


def _ours(g: GraphBuilder, found: Found, dim: int) -> Mapping[str, TensorType]:
    values = {"keypoints": found.keypoints, "descriptors": found.descriptors, "keypoint_scores": found.scores}
    return _named(g, values, dim)


def _colmap(g: GraphBuilder, image: Value, found: Found, dim: int) -> Mapping[str, TensorType]:
    """COLMAP pads images itself and takes keypoints from -1 to 1, the centres of the outermost pixels."""
    size = g("Gather", g("Shape", image, start=2, end=4), g.integers(1, 0))
    last = g.cast(g("Max", g("Sub", size, g.integers(1)), g.integers(1)), "float32")
    keypoints = g("Sub", g("Mul", found.keypoints, g("Div", g.floats(2), last)), g.floats(1))
    return _named(g, {"keypoints": keypoints, "descriptors": found.descriptors, "scores": found.scores}, dim)


def _named(g: GraphBuilder, values: Mapping[str, Value], dim: int) -> Mapping[str, TensorType]:
    """The outputs with a first dimension of 1."""
    ends: dict[str, tuple[int, ...]] = {"keypoints": (2,), "descriptors": (dim,)}
    outputs = {}
    for name, value in values.items():
        g("Unsqueeze", value, g.integers(0), out=name)
        outputs[name] = TensorType("float32", (1, "K", *ends.get(name, ())))
    return outputs
