"""An exported matcher gives what torch gives: the same matches, stop and pruning, from any numbers of keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from support.exported import Exported, run, session
from support.matching import load_features, varied

EXTRACTORS = {"aliked": "aliked-n16", "disk": "disk"}
FULL = {"depth_confidence": -1, "width_confidence": -1}


def assert_equal(found: dict[str, np.ndarray], expected: Any, atol: float = 1e-4) -> None:
    """Of one pair: matches, stop and pruning equal, scores within 1e-4."""
    np.testing.assert_array_equal(found["matches0"].ravel(), expected["matches0"][0].numpy())
    np.testing.assert_allclose(found["mscores0"].ravel(), expected["matching_scores0"][0].numpy(), atol=atol, rtol=0)
    if "stop" in found:
        assert int(found["stop"]) == expected["stop"]
    for name in ("prune0", "prune1"):
        if name in found:
            np.testing.assert_array_equal(found[name], expected[name][0].numpy())


@pytest.fixture(scope="module")
def images(reference):
    """Features of a photograph, as many as asked for."""

    def get(features: str, side: int, count: int) -> dict[str, torch.Tensor]:
        return varied(load_features(reference, f"{EXTRACTORS[features]}_montmartre_{side}"), count, seed=side)

    return get


@pytest.mark.parametrize("features", EXTRACTORS)
@pytest.mark.parametrize("counts", [(512, 512), (0, 0), (0, 5), (5, 0), (1, 1), (37, 300)])
def test_adaptive_is_what_torch_decides(exported: Exported, images, features, counts):
    pair = [images(features, side, count) for side, count in enumerate(counts)]
    expected = exported.matcher(features)({"image0": pair[0], "image1": pair[1]})
    assert_equal(run(session(exported.file(features)), *pair), expected)


@pytest.mark.parametrize("format", ["adaptive", "fixed"])
def test_a_file_is_valid_and_its_shapes_fit(exported: Exported, format):
    model = onnx.load(exported.file("aliked", format))
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
