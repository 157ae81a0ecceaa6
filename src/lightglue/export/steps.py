"""A matcher in pieces, for a loop in the host: embedding, layers, heads, and a manifest that says which is which.

The host decides when to stop and what to drop, so no file has branches or shapes that depend on data. What a host does
stands in `lightglue_runtime.steps`, in NumPy.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from lightglue.export.builder import GraphBuilder, ModelBuilder, TensorType, Value
from lightglue.export.formats import Inputs, image_inputs, image_positions
from lightglue.export.parameters import Parameters
from lightglue.export.parts import Image, Parts
from lightglue.export.precision import Precision
from lightglue_runtime.contract import Description
from lightglue_runtime.steps import MANIFEST

__all__ = ["steps_files"]


def steps_files(parameters: Parameters, strategy: Precision, description: Description) -> dict[str, Any]:
    """File name -> ModelProto, or bytes of the manifest."""
    parts = Parts(parameters, strategy, batched=False, guarded=False)
    properties = dataclasses.replace(description, kind="step").to_properties()
    n_layers = len(parameters.layers)
    files: dict[str, Any] = {"embed.onnx": _embed(parts, properties)}
    for index in range(n_layers):
        files[f"layer_{index}.onnx"] = _layer(parts, index, properties)
        files[f"head_{index}.onnx"] = _head(parts, index, properties)
    files[MANIFEST] = _manifest(parameters, description)
    return files


def _manifest(parameters: Parameters, description: Description) -> bytes:
    n_layers = len(parameters.layers)
    content = {
        **dataclasses.asdict(description),
        **{
            name: json.loads(getattr(description, name))
            for name in ("thresholds", "overlap", "calibration", "preprocess")
        },
        "confidence_thresholds": list(parameters.confidence_thresholds[: n_layers - 1]),
        "embed": "embed.onnx",
        "layers": [f"layer_{index}.onnx" for index in range(n_layers)],
        "heads": [f"head_{index}.onnx" for index in range(n_layers)],
    }
    return f"{json.dumps(content, indent=1, sort_keys=True)}\n".encode()


def _tokens(parts: Parts, rows: str) -> TensorType:
    return TensorType("float32", (rows, parts.parameters.width))


def _rotation(parts: Parts, rows: str) -> TensorType:
    return TensorType("float32", (rows, 1, parts.parameters.frequencies.shape[1]))


def _embed(parts: Parts, properties: Mapping[str, str]) -> Any:
    """Of one image: kpts (1, M, 2), desc (1, M, D), image_size (1, 2) -> tokens, cosines, sines."""
    builder = ModelBuilder()
    inputs: Inputs = image_inputs(builder, parts.parameters, 1, "", "M")
    image = parts.embed(builder.graph, *image_positions(builder.graph, parts, inputs, batched=False))
    return _model(
        builder,
        {
            "tokens": (image.tokens, _tokens(parts, "M")),
            "cosines": (image.cosines, _rotation(parts, "M")),
            "sines": (image.sines, _rotation(parts, "M")),
        },
        "embed",
        properties,
    )


def _layer(parts: Parts, index: int, properties: Mapping[str, str]) -> Any:
    """Both images -> updated0, updated1, matchability0 and 1 (M,), and confidence0 and 1 but after the last layer."""
    builder = ModelBuilder()
    g, images = builder.graph, []
    for side, rows in enumerate("MN"):
        kinds = {"tokens": _tokens(parts, rows), "cosines": _rotation(parts, rows), "sines": _rotation(parts, rows)}
        images.append(Image(*(builder.input(f"{name}{side}", kind) for name, kind in kinds.items())))
    outputs: dict[str, tuple[Value, TensorType]] = {}
    for side, (image, rows) in enumerate(zip(parts.layer(g, index, images[0], images[1]), "MN", strict=True)):
        outputs[f"updated{side}"] = image.tokens, _tokens(parts, rows)
        logits = parts.logits(g, index, image.tokens)
        for name, logit in vars(logits).items():
            if logit is not None:
                outputs[f"{name}{side}"] = _probability(g, logit), TensorType("float32", (rows,))
    return _model(builder, outputs, f"layer_{index}", properties)


def _probability(g: GraphBuilder, logit: Value) -> Value:
    """(M, 1) -> (M,)."""
    return g("Sigmoid", g("Squeeze", logit, g.integers(-1)))


def _head(parts: Parts, index: int, properties: Mapping[str, str]) -> Any:
    """tokens0, tokens1 -> partners0 (M,) int64, -1 where there is no mutual one, and mscores0 (M,)."""
    builder = ModelBuilder()
    tokens = [builder.input(f"tokens{side}", _tokens(parts, rows)) for side, rows in enumerate("MN")]
    found = parts.head(builder.graph, index, tokens[0], tokens[1])
    return _model(
        builder,
        {
            "partners0": (found.partners, TensorType("int64", ("M",))),
            "mscores0": (found.scores, TensorType("float32", ("M",))),
        },
        f"head_{index}",
        properties,
    )


def _model(
    builder: ModelBuilder, outputs: Mapping[str, tuple[Value, TensorType]], name: str, properties: Mapping[str, str]
) -> Any:
    for each, (value, _) in outputs.items():
        builder.graph("Identity", value, out=each)
    return builder.model({each: kind for each, (_, kind) in outputs.items()}, f"lightglue_{name}", properties)
