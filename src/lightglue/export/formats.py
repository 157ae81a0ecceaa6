"""The formats that are one file: which inputs and outputs a graph has, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from lightglue.export.adaptive import Found, Thresholds, adaptive_pass
from lightglue.export.builder import GraphBuilder, ModelBuilder, TensorType, Value
from lightglue.export.parameters import Parameters
from lightglue.export.parts import Assigned, Image, Parts
from lightglue.export.precision import Precision

__all__ = ["WRITERS", "Inputs", "image_inputs", "image_positions"]

_INPUTS = ("kpts", "desc", "image_size", "scales", "oris")  # of each image, in the order of COLMAP

_Writer = Callable[[ModelBuilder, Parameters, Precision, Thresholds], Mapping[str, TensorType]]


@dataclass(frozen=True)
class Inputs:
    """Of an image."""

    keypoints: Value
    descriptors: Value
    size: Value
    extra: tuple[Value, ...]  # scales, oris


def _declare(builder: ModelBuilder, parameters: Parameters, batch: int | str) -> tuple[Inputs, Inputs]:
    """The inputs of `contract.MATCHER_INPUTS`, in that order."""
    found = [image_inputs(builder, parameters, batch, str(side), rows) for side, rows in enumerate("MN")]
    builder.order_inputs([f"{name}{side}" for name in _INPUTS for side in (0, 1)])
    return found[0], found[1]


def image_inputs(builder: ModelBuilder, parameters: Parameters, batch: int | str, side: str, rows: str) -> Inputs:
    """Those of an image; rows: the word for its number of keypoints."""
    shapes: Mapping[str, tuple[int | str, ...]] = {
        "kpts": (batch, rows, 2),
        "desc": (batch, rows, parameters.input_dim),
        "image_size": (batch, 2),
        **({"scales": (batch, rows), "oris": (batch, rows)} if parameters.has_scale_ori else {}),
    }
    found = [builder.input(f"{name}{side}", TensorType("float32", shape)) for name, shape in shapes.items()]
    return Inputs(found[0], found[1], found[2], tuple(found[3:]))


def _embedded(g: GraphBuilder, parts: Parts, inputs: tuple[Inputs, Inputs], batched: bool) -> tuple[Image, Image]:
    """Both images as the first layer takes them."""
    images = []
    for side, each in enumerate(inputs):
        with g.scope(f"embed_{side}"):
            images.append(parts.embed(g, *image_positions(g, parts, each, batched)))
    return images[0], images[1]


def image_positions(g: GraphBuilder, parts: Parts, inputs: Inputs, batched: bool) -> tuple[Value, Value]:
    """Normalised positions and descriptors; without a batch the inputs' first dimension goes."""
    keypoints, descriptors, extra = inputs.keypoints, inputs.descriptors, list(inputs.extra)
    if not batched:
        keypoints, descriptors = (g("Squeeze", x, g.integers(0)) for x in (keypoints, descriptors))
        extra = [g("Squeeze", x, g.integers(0)) for x in extra]
    positions = parts.normalise(g, keypoints, inputs.size)
    if extra:
        positions = g("Concat", positions, *(g("Unsqueeze", x, g.integers(-1)) for x in extra), axis=-1)
    return positions, descriptors


def _adaptive_writer(*outputs: str, guarded: bool = True, bounded: bool = False) -> _Writer:
    """Of one pair, with these outputs. guarded, bounded: see `Parts`."""

    def write(
        builder: ModelBuilder, parameters: Parameters, strategy: Precision, thresholds: Thresholds
    ) -> Mapping[str, TensorType]:
        g, parts = builder.graph, Parts(parameters, strategy, batched=False, guarded=guarded, bounded=bounded)
        inputs = _declare(builder, parameters, 1)
        found = adaptive_pass(g, parts, _embedded(g, parts, inputs, batched=False), thresholds)
        return _named(g, found, outputs)

    return write


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
    found = _full_depth(g, parts, images)
    g("Identity", parts.above(g, found, thresholds.filter_threshold), out="matches0")
    g("Identity", found.scores, out="mscores0")
    return {"matches0": TensorType("int64", ("B", "M")), "mscores0": TensorType("float32", ("B", "M"))}


def _write_opencv(
    builder: ModelBuilder, parameters: Parameters, strategy: Precision, thresholds: Thresholds
) -> Mapping[str, TensorType]:
    """As `cv2.LightGlueMatcher` takes it: keypoints that are normalised already, a list of matches."""
    g, parts = builder.graph, Parts(parameters, strategy, batched=False, guarded=False)
    kpts = [builder.input(f"kpts{side}", TensorType("float32", (1, rows, 2))) for side, rows in enumerate("MN")]
    shapes = [(1, rows, parameters.input_dim) for rows in "MN"]
    desc = [builder.input(f"desc{side}", TensorType("float32", shape)) for side, shape in enumerate(shapes)]
    image0, image1 = (
        parts.embed(g, *(g("Squeeze", x, g.integers(0)) for x in each)) for each in zip(kpts, desc, strict=True)
    )
    found = _full_depth(g, parts, (image0, image1))
    matches = parts.above(g, found, thresholds.filter_threshold)
    rows = g("Reshape", g("NonZero", g("GreaterOrEqual", matches, g.constant(np.int64(0)))), g.integers(-1))
    columns = [g("Unsqueeze", each, g.integers(1)) for each in (rows, g("Gather", matches, rows, axis=0))]
    g("Concat", *columns, axis=1, out="matches0")
    g("Gather", found.scores, rows, axis=0, out="mscores0")
    return {"matches0": TensorType("int64", ("K", 2)), "mscores0": TensorType("float32", ("K",))}


def _full_depth(g: GraphBuilder, parts: Parts, images: tuple[Image, Image]) -> Assigned:
    """All layers, and the last head."""
    n_layers = len(parts.parameters.layers)
    for index in range(n_layers):
        images = parts.layer(g, index, *images)
    return parts.head(g, n_layers - 1, images[0].tokens, images[1].tokens)


WRITERS: Mapping[str, _Writer] = MappingProxyType(
    {
        "adaptive": _adaptive_writer("matches0", "mscores0", "stop", "prune0", "prune1"),
        "fixed": _write_fixed,
        "colmap": _adaptive_writer("matches0", "mscores0", bounded=True),  # its loader wants exactly these two
        "opencv": _write_opencv,
        "tensorrt": _adaptive_writer("matches0", "mscores0", "stop", guarded=False),
    }
)
