"""A matcher as a file of ONNX, in the formats that runtimes and programs read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lightglue.export.adaptive import Found, Thresholds, adaptive_pass
from lightglue.export.builder import GraphBuilder, ModelBuilder, TensorType, Value
from lightglue.export.files import check_output, save
from lightglue.export.options import MatcherFile
from lightglue.export.parameters import Parameters, parameters_of
from lightglue.export.parts import Image, Parts
from lightglue.export.precision import Precision, precision
from lightglue.export.provenance import describe
from lightglue.matching.lightglue import LightGlue
from lightglue_runtime.contract import Description

__all__ = ["matcher_model", "write_matcher"]

_FULL_DEPTH = ("fixed", "opencv")
_FULL_WIDTH = ("fixed", "opencv", "tensorrt")


def write_matcher(
    matcher: LightGlue, path: str | os.PathLike[str], options: MatcherFile | None = None, **fields: Any
) -> Description:
    """Write the matcher, with its thresholds as they stand in `matcher.conf`, to `path`, whole or not at all.

    options: the format and the precision; fields: those of `MatcherFile`, instead. An image is pruned above the number
    of keypoints that the matcher has for a CPU, see `LightGlue(pruning=...)`.

    Returns what the file says of itself. Raises InputError where the options make no sense, ModelError where onnx is
    not installed or the network cannot be written, StoreError where the file cannot.
    """
    options = options or MatcherFile(**fields)
    target = check_output(path, options.format)
    model, description = matcher_model(matcher, options)
    save(model, target)
    return description


def matcher_model(
    matcher: LightGlue, options: MatcherFile, strategy: Precision | None = None
) -> tuple[Any, Description]:
    """The ModelProto that `write_matcher` writes, and its description. strategy: instead of the options' precision."""
    strategy = strategy or precision(options.precision)
    thresholds = _thresholds(matcher, options.format)
    parameters = parameters_of(matcher.network, matcher.conf.num_heads)
    description = describe(matcher, options.format, strategy.name, thresholds)
    builder = ModelBuilder()
    outputs = _WRITERS[options.format](builder, parameters, strategy, thresholds)
    return builder.model(outputs, f"lightglue_{options.format}", description.to_properties()), description


def _thresholds(matcher: LightGlue, format: str) -> Thresholds:
    """As they are in a format: those that always run all layers stop at none."""
    conf = matcher.conf
    depth = -1.0 if format in _FULL_DEPTH else conf.depth_confidence
    width = -1.0 if format in _FULL_WIDTH else conf.width_confidence
    return Thresholds(depth, width, conf.filter_threshold, matcher.pruning_keypoint_thresholds["cpu"])


_Writer = Callable[[ModelBuilder, Parameters, Precision, Thresholds], Mapping[str, TensorType]]


@dataclass(frozen=True)
class _Inputs:
    """Of an image."""

    keypoints: Value
    descriptors: Value
    size: Value
    extra: tuple[Value, ...]  # scales, oris


def _declare(builder: ModelBuilder, parameters: Parameters, batch: int | str) -> tuple[_Inputs, _Inputs]:
    """The inputs of `contract.MATCHER_INPUTS`, in that order."""
    rows, names = ("M", "N"), ("kpts", "desc", "image_size", *(("scales", "oris") if parameters.has_scale_ori else ()))
    shapes: dict[str, Callable[[str], tuple[int | str, ...]]] = {
        "kpts": lambda count: (batch, count, 2),
        "desc": lambda count: (batch, count, parameters.input_dim),
        "image_size": lambda count: (batch, 2),
        "scales": lambda count: (batch, count),
        "oris": lambda count: (batch, count),
    }
    found: dict[str, Value] = {}
    for name in names:
        for side, count in enumerate(rows):
            found[f"{name}{side}"] = builder.input(f"{name}{side}", TensorType("float32", shapes[name](count)))
    first, second = (
        _Inputs(
            found[f"kpts{side}"],
            found[f"desc{side}"],
            found[f"image_size{side}"],
            tuple(found[f"{name}{side}"] for name in names[3:]),
        )
        for side in (0, 1)
    )
    return first, second


def _embedded(g: GraphBuilder, parts: Parts, inputs: tuple[_Inputs, _Inputs], batched: bool) -> tuple[Image, Image]:
    """Both images as the first layer takes them; without a batch the inputs' first dimension goes."""
    images = []
    for side, each in enumerate(inputs):
        with g.scope(f"embed_{side}"):
            keypoints, descriptors, size, extra = each.keypoints, each.descriptors, each.size, list(each.extra)
            if not batched:
                keypoints, descriptors = (g("Squeeze", x, g.integers(0)) for x in (keypoints, descriptors))
                extra = [g("Squeeze", x, g.integers(0)) for x in extra]
            positions = parts.normalise(g, keypoints, size)
            if extra:
                positions = g("Concat", positions, *(g("Unsqueeze", x, g.integers(-1)) for x in extra), axis=-1)
            images.append(parts.embed(g, positions, descriptors))
    return images[0], images[1]


def _write_adaptive(
    builder: ModelBuilder, parameters: Parameters, strategy: Precision, thresholds: Thresholds
) -> Mapping[str, TensorType]:
    g, parts = builder.graph, Parts(parameters, strategy, batched=False)
    inputs = _declare(builder, parameters, 1)
    found = adaptive_pass(g, parts, _embedded(g, parts, inputs, batched=False), thresholds)
    return _named(g, found, ("matches0", "mscores0", "stop", "prune0", "prune1"))


def _named(g: GraphBuilder, found: Found, names: tuple[str, ...]) -> Mapping[str, TensorType]:
    """Give the results the names of the file's outputs."""
    kinds = {
        "matches0": (found.matches0, TensorType("int64", ("M",))),
        "mscores0": (found.scores0, TensorType("float32", ("M",))),
        "stop": (found.stop, TensorType("int64", ())),
        "prune0": (found.prune0, TensorType("int64", ("M",))),
        "prune1": (found.prune1, TensorType("int64", ("N",))),
    }
    for name in names:
        g("Identity", kinds[name][0], out=name)
    return {name: kinds[name][1] for name in names}


def _write_fixed(
    builder: ModelBuilder, parameters: Parameters, strategy: Precision, thresholds: Thresholds
) -> Mapping[str, TensorType]:
    g, parts = builder.graph, Parts(parameters, strategy, batched=True)
    images = _embedded(g, parts, _declare(builder, parameters, "B"), batched=True)
    for index in range(len(parameters.layers)):
        images = parts.layer(g, index, *images)
    found = parts.head(g, len(parameters.layers) - 1, images[0].tokens, images[1].tokens)
    g("Identity", parts.above(g, found, thresholds.filter_threshold), out="matches0")
    g("Identity", found.scores, out="mscores0")
    return {"matches0": TensorType("int64", ("B", "M")), "mscores0": TensorType("float32", ("B", "M"))}


_WRITERS: Mapping[str, _Writer] = MappingProxyType({"adaptive": _write_adaptive, "fixed": _write_fixed})
