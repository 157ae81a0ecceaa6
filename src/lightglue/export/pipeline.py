"""From two images to matches in one file: an extractor twice, with one set of weights, and an adaptive matcher."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightglue.errors import InputError
from lightglue.export.adaptive import adaptive_pass
from lightglue.export.builder import GraphBuilder, ModelBuilder, TensorType, Value
from lightglue.export.extractors.graphs import write_graph
from lightglue.export.extractors.keypoints import Found
from lightglue.export.extractors.options import matcher_of
from lightglue.export.extractors.sources import describe as describe_extractor
from lightglue.export.extractors.write import declare_request, descriptor_length
from lightglue.export.files import check_output, save
from lightglue.export.matcher import prepared
from lightglue.export.parts import Image, Parts
from lightglue.export.pipeline_options import PipelineFile
from lightglue.export.precision import precision
from lightglue.extractors.base import Extractor
from lightglue.matching.lightglue import LightGlue
from lightglue_runtime.contract import Description

__all__ = ["pipeline_model", "write_pipeline"]


def write_pipeline(
    extractor: Extractor,
    matcher: LightGlue,
    path: str | os.PathLike[str],
    options: PipelineFile | None = None,
    **fields: Any,
) -> Description:
    """Write both to `path`, whole or not at all: tensors as in `lightglue_runtime.contract.PIPELINE_INPUTS`.

    The images may have any sizes, also unequal ones. What decides is as in `write_extractor` and, adaptive, in
    `write_matcher`. options: the matcher's precision; fields: those of `PipelineFile`, instead.

    Returns what the file says of itself. Raises InputError where the two do not belong together, and what these two
    functions raise.
    """
    options = options or PipelineFile(**fields)
    target = check_output(path)
    model, description = pipeline_model(extractor, matcher, options)
    save(model, target)
    return description


def pipeline_model(extractor: Extractor, matcher: LightGlue, options: PipelineFile) -> tuple[Any, Description]:
    """The ModelProto that `write_pipeline` writes, and its description."""
    described = describe_extractor(extractor, "ours")
    _check(described.features, descriptor_length(extractor), matcher)
    strategy = precision(options.precision)
    thresholds, parameters, matched = prepared(matcher, "adaptive", strategy)
    description = replace(
        matched,
        kind="pipeline",
        weights=f"{described.weights}, {matched.weights}",
        weights_sha256=f"{described.weights_sha256}, {matched.weights_sha256}",
        licence=", ".join(dict.fromkeys((described.licence, matched.licence))),
        preprocess=described.preprocess,
    )
    builder = ModelBuilder()
    g, parts = builder.graph, Parts(parameters, strategy, batched=False)
    images = [builder.input(f"image{i}", TensorType("float32", (1, 3, f"H{i}", f"W{i}"))) for i in (0, 1)]
    request = declare_request(builder)
    features, embedded = [], []
    for side, image in enumerate(images):
        with g.scope(f"image{side}"):
            features.append(write_graph(g, extractor, image, request))
            embedded.append(_embed(g, parts, image, features[-1]))
    found = adaptive_pass(g, parts, (embedded[0], embedded[1]), thresholds)
    values = {"matches0": found.matches0, "mscores0": found.scores0, "stop": found.stop}
    return builder.model(_outputs(g, features, values), "lightglue_pipeline", description.to_properties()), description


def _check(features: str, length: int, matcher: LightGlue) -> None:
    """Raises InputError where the matcher was not trained on these keypoints."""
    conf, known = matcher.conf, matcher.feature_type
    if conf.add_scale_ori:
        raise InputError(
            f"the matcher needs scales and orientations, which {features} has none of; give one that was trained on it."
        )
    if length != conf.input_dim or (known is not None and known != matcher_of(features)):
        raise InputError(
            f"the extractor finds {features} with descriptors of {length} numbers, and the matcher is for "
            f"{known or 'others'} with {conf.input_dim}; give two that belong together."
        )


def _embed(g: GraphBuilder, parts: Parts, image: Value, found: Found) -> Image:
    with g.scope("embed"):
        size = g("Gather", g("Shape", image, start=2, end=4), g.integers(1, 0))
        return parts.embed(g, parts.normalise(g, found.keypoints, g.cast(size, "float32")), found.descriptors)


def _outputs(g: GraphBuilder, features: list[Found], values: Mapping[str, Value]) -> Mapping[str, TensorType]:
    """Give the results the names and shapes of `contract.PIPELINE_OUTPUTS`."""
    outputs = {}
    for side, (each, rows) in enumerate(zip(features, "MN", strict=True)):
        g("Unsqueeze", each.keypoints, g.integers(0), out=f"kpts{side}")
        outputs[f"kpts{side}"] = TensorType("float32", (1, rows, 2))
    kinds = {"matches0": ("int64", ("M",)), "mscores0": ("float32", ("M",)), "stop": ("int64", ())}
    for name, value in values.items():
        g("Identity", value, out=name)
        outputs[name] = TensorType(*kinds[name])
    for side, (each, rows) in enumerate(zip(features, "MN", strict=True)):
        g("Unsqueeze", each.scores, g.integers(0), out=f"keypoint_scores{side}")
        outputs[f"keypoint_scores{side}"] = TensorType("float32", (1, rows))
    return outputs
