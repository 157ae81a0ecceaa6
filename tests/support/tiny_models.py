"""Model files of a few hundred bytes that keep the contract of exported ones: nearest neighbours, brightest pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lightglue_runtime.contract import Description

LAYERS = 3
DESCRIPTION = Description(
    "matcher", "adaptive", "aliked", "f32", "own.pth", "0" * 64, "Apache-2.0", thresholds=json.dumps({"n_layers": 3})
)


def write_matcher(path: Path, length: int = 4, threshold: float = 0.1, **changes: Any) -> Path:
    """Mutual nearest neighbours by the products of descriptors of this length; changes: of the description."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: Any, dtype: Any) -> Any:
        return numpy_helper.from_array(np.asarray(value, dtype), name)

    node, value = helper.make_node, helper.make_tensor_value_info
    both = ("0", "M"), ("1", "N")
    inputs = [value(f"kpts{k}", TensorProto.FLOAT, [1, n, 2]) for k, n in both]
    inputs += [value(f"desc{k}", TensorProto.FLOAT, [1, n, length]) for k, n in both]
    inputs += [value(f"image_size{k}", TensorProto.FLOAT, [1, 2]) for k, _ in both]
    outputs = [value("matches0", TensorProto.INT64, ["M"]), value("mscores0", TensorProto.FLOAT, ["M"])]
    outputs += [value("stop", TensorProto.INT64, [])]
    outputs += [value(f"prune{k}", TensorProto.INT64, [n]) for k, n in both]
    nodes = [
        node("Squeeze", ["desc0", "first"], ["a"]),
        node("Squeeze", ["desc1", "first"], ["b"]),
        node("Transpose", ["b"], ["bt"]),
        node("MatMul", ["a", "bt"], ["similarity"]),
        node("ArgMax", ["similarity"], ["partner0"], axis=1, keepdims=0),
        node("ArgMax", ["similarity"], ["partner1"], axis=0, keepdims=0),
        node("ReduceMax", ["similarity", "last"], ["best"], keepdims=0),
        node("Gather", ["partner1", "partner0"], ["back"]),
        node("Shape", ["partner0"], ["shape0"]),
        node("Shape", ["partner1"], ["shape1"]),
        node("Squeeze", ["shape0"], ["m"]),
        node("Range", ["zero", "m", "one"], ["rows"]),
        node("Equal", ["back", "rows"], ["mutual"]),
        node("Where", ["mutual", "best", "nothing"], ["mscores0"]),
        node("Greater", ["mscores0", "threshold"], ["kept"]),
        node("Where", ["kept", "partner0", "none"], ["matches0"]),
        node("Identity", ["layers"], ["stop"]),
        node("Expand", ["layers", "shape0"], ["prune0"]),
        node("Expand", ["layers", "shape1"], ["prune1"]),
    ]
    constants = [
        constant("first", [0], np.int64),
        constant("last", [1], np.int64),
        constant("zero", 0, np.int64),
        constant("one", 1, np.int64),
        constant("none", -1, np.int64),
        constant("layers", LAYERS, np.int64),
        constant("nothing", 0, np.float32),
        constant("threshold", threshold, np.float32),
    ]
    graph = helper.make_graph(nodes, "matcher", inputs, outputs, initializer=constants)
    return _write(path, graph, replace(DESCRIPTION, **changes).to_properties())


def write_extractor(path: Path, **changes: Any) -> Path:
    """The brightest pixels, in order, with their colours as descriptors."""
    from onnx import TensorProto, helper, numpy_helper

    node, value = helper.make_node, helper.make_tensor_value_info
    inputs = [
        value("image", TensorProto.FLOAT, [1, 3, "H", "W"]),
        value("max_keypoints", TensorProto.INT64, []),
        value("min_score", TensorProto.FLOAT, []),
    ]
    outputs = [
        value("keypoints", TensorProto.FLOAT, [1, "K", 2]),
        value("descriptors", TensorProto.FLOAT, [1, "K", 3]),
        value("keypoint_scores", TensorProto.FLOAT, [1, "K"]),
    ]
    nodes = [
        node("Reshape", ["image", "pixels"], ["colours"]),  # (3, HW)
        node("ReduceMax", ["colours", "zero"], ["bright"], keepdims=0),
        node("Unsqueeze", ["max_keypoints", "zero"], ["k"]),
        node("TopK", ["bright", "k"], ["scores", "index"]),
        node("Unsqueeze", ["scores", "zero"], ["keypoint_scores"]),
        node("Gather", ["colours", "index"], ["chosen"], axis=1),
        node("Transpose", ["chosen"], ["rows"], perm=[1, 0]),
        node("LpNormalization", ["rows"], ["unit"], axis=1, p=2),
        node("Unsqueeze", ["unit", "zero"], ["descriptors"]),
        node("Shape", ["image"], ["width"], start=3, end=4),
        node("Mod", ["index", "width"], ["x"]),
        node("Div", ["index", "width"], ["y"]),
        node("Unsqueeze", ["x", "one"], ["xs"]),
        node("Unsqueeze", ["y", "one"], ["ys"]),
        node("Concat", ["xs", "ys"], ["xy"], axis=1),
        node("Cast", ["xy"], ["positions"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["positions", "zero"], ["keypoints"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([3, -1], np.int64), "pixels"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    graph = helper.make_graph(nodes, "extractor", inputs, outputs, initializer=constants)
    about = replace(DESCRIPTION, kind="extractor", thresholds="{}", **changes)
    return _write(path, graph, about.to_properties())


def _write(path: Path, graph: Any, properties: Mapping[str, str]) -> Path:
    from onnx import helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, dict(properties))
    path.write_bytes(model.SerializeToString())
    return path


def features(count: int, seed: int = 0, length: int = 4) -> dict[str, Any]:
    """Keypoints in an image of 100 x 80 px with random descriptors."""
    random = np.random.default_rng(seed)
    descriptors = random.normal(size=(count, length)).astype(np.float32)
    return {
        "keypoints": (random.random((count, 2)) * (100, 80)).astype(np.float32),
        "descriptors": descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6),
        "image_size": np.array([100, 80], np.float32),
    }
