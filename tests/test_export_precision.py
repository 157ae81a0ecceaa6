"""Precisions of exported matchers: what is rounded, how far, what is left alone, and what it does to matches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lightglue.errors import InputError
from lightglue.export import MatcherFile, write_matcher
from lightglue.export.matcher import matcher_model
from lightglue.export.parameters import Linear, parameters_of
from lightglue.export.precision import LARGEST, quantised
from support.command import lightglue, plain
from support.exported import Exported, run, session
from support.matching import load_features

PRODUCTS = 9 * 6  # of a matcher of nine layers: projection and two of an MLP, in self- and in cross-attention
MAX_MB = {"f32": 45, "f16": 23, "int8": 15}
KEPT = {"f16": 0.995, "int8": 0.9}  # share of float32's matches


@pytest.fixture(scope="module")
def constants(exported: Exported):
    """Constants of an adaptive file by name."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def get(precision: str) -> dict[str, np.ndarray]:
        if precision not in found:
            model = onnx.load(exported.file("aliked", "adaptive", precision))
            found[precision] = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        return found[precision]

    return get


@pytest.fixture(scope="module")
def linears(exported: Exported) -> dict[str, Linear]:
    """The layers' products by the names that they have in a file."""
    matcher = exported.matcher("aliked")
    layers = parameters_of(matcher.network, matcher.conf.num_heads).layers
    return {
        f"layer_{i}/{kind}/{product}": getattr(getattr(layer, kind), product)
        for i, layer in enumerate(layers)
        for kind in ("own", "cross")
        for product in ("project", "first", "last")
    }


def nodes(graph: Any) -> Iterator[Any]:
    """Of a graph and of all its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def test_every_product_of_the_layers_is_quantised_and_no_other(constants):
    steps = {name for name, array in constants("int8").items() if array.dtype == np.int8 and array.ndim == 2}
    assert len(steps) == PRODUCTS
    assert all(name.startswith("layer_") for name in steps)


def test_both_images_share_the_quantised_weights(exported: Exported):
    model = onnx.load(exported.file("aliked", "adaptive", "int8"))
    products = [node for node in nodes(model.graph) if node.op_type == "MatMulInteger"]
    assert len(products) == 2 * PRODUCTS
    assert len({node.input[1] for node in products}) == PRODUCTS


def test_quantised_weights_are_within_half_a_step(constants, linears):
    for name, linear in linears.items():
        steps, scales = constants("int8")[f"{name}/weight"], constants("int8")[f"{name}/scale"]
        error = np.abs(steps * scales - linear.weight)
        assert (error <= scales * 0.5 * (1 + 1e-5)).all(), name
        assert (np.abs(steps).max(axis=0) == 64).all(), name  # each output uses its whole range


def test_no_pair_of_products_overflows_16_bits():
    """What x86 without VNNI adds up in 16 bits, saturating: two products of an activation and a weight."""
    assert np.iinfo(np.int16).max >= 2 * 255 * LARGEST


def test_a_column_of_zeros_stays_zero():
    steps, scales = quantised(np.array([[0.0, 2.0], [0.0, -1.0]], np.float32))
    assert steps.tolist() == [[0, 64], [0, -32]]
    assert scales.tolist() == [1.0, 1 / 32]


def test_float16_weights_are_the_nearest(constants, linears):
    for name, linear in linears.items():
        weight = constants("f16")[f"{name}/weight"]
        assert weight.dtype == np.float16
        np.testing.assert_array_equal(weight, linear.weight.astype(np.float16))


@pytest.mark.parametrize("precision", ["f16", "int8"])
def test_what_decides_and_biases_are_as_trained(constants, linears, precision):
    original, rounded = constants("f32"), constants(precision)
    heads = {name for name in original if name.startswith("compared_")} if precision == "f16" else set()
    touched = {f"{name}/weight" for name in linears} | {name for name in heads if name.endswith("/weight")}
    added = {f"{name}/scale" for name in linears} | {name for name in rounded if name.startswith("const/int8")}
    assert rounded.keys() - original.keys() <= added
    kept = original.keys() - touched
    assert {"positions/frequencies", "compared_8/bias", "scores_0/weight", "input/weight"} <= kept
    for name in kept:
        assert rounded[name].dtype == original[name].dtype
        np.testing.assert_array_equal(rounded[name], original[name])


@pytest.mark.parametrize("precision", MAX_MB)
def test_files_are_small(exported: Exported, precision):
    assert exported.file("aliked", "adaptive", precision).stat().st_size <= MAX_MB[precision] * 1e6


@pytest.fixture(scope="module")
def matches(exported: Exported, reference):
    """matches0 of a pair of photographs, full depth."""
    sessions: dict[str, Any] = {}

    def get(precision: str, pair: str) -> np.ndarray:
        if precision not in sessions:
            sessions[precision] = session(exported.file("aliked", "fixed", precision))
        images = [load_features(reference, f"aliked-n16_{pair}_{side}") for side in (0, 1)]
        return run(sessions[precision], *images)["matches0"].ravel()

    return get


@pytest.mark.parametrize("precision", KEPT)
@pytest.mark.parametrize("pair", ["montmartre", "facade"])
def test_most_matches_are_kept(matches, precision, pair):
    expected, found = matches("f32", pair), matches(precision, pair)
    matched = expected >= 0
    assert matched.sum() > 100
    assert (found == expected)[matched].mean() >= KEPT[precision]
    assert ((found >= 0) & ~matched).sum() <= (1 - KEPT[precision]) * matched.sum()


@pytest.mark.parametrize("precision", KEPT)
def test_the_same_bytes_again(exported: Exported, precision):
    matcher, options = exported.matcher("aliked", n_layers=2), MatcherFile("adaptive", precision)
    first, second = (matcher_model(matcher, options)[0].SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_onnx_runtime_fuses_every_integer_product(exported: Exported, tmp_path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    path = exported.file("aliked", "adaptive", "int8", n_layers=2)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in nodes(onnx.load(tmp_path / "optimised.onnx").graph)]
    assert kinds.count("DynamicQuantizeMatMul") == 2 * 2 * 6
    assert "MatMulInteger" not in kinds


@pytest.mark.parametrize("format", ["opencv", "tensorrt"])
def test_int8_is_refused_where_it_cannot_run(format):
    with pytest.raises(InputError, match=rf"'int8' and format '{format}', but .*; choose f32 or f16"):
        MatcherFile(format, "int8")


@pytest.mark.parametrize("format", ["adaptive", "fixed", "steps"])
def test_int8_is_refused_for_xfeat(format, exported: Exported, tmp_path):
    with pytest.raises(InputError, match=r"'int8' and the features are xfeat, .*; choose f16 or f32"):
        write_matcher(
            exported.matcher("xfeat"),
            tmp_path / ("x" if format == "steps" else "x.onnx"),
            format=format,
            precision="int8",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("matcher", "-o", "x.onnx"), ("pipeline", "-o", "x.onnx"), ("bundle", "models")])
def test_commands_refuse_int8_for_xfeat_before_any_work(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = lightglue("export", *command, "--features", "xfeat", "--precision", "int8")
    assert result.code == 2
    assert "choose f16 or f32" in " ".join(plain(result.err).replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_opencv_reads_float16(exported: Exported):
    import cv2

    net = cv2.dnn.readNetFromONNX(str(exported.file("aliked", "opencv", "f16", n_layers=1)))
    assert not net.empty()
