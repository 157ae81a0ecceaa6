"""Exported files in the programs that they are made for: each test imitates what a client does with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightglue.matching.lightglue import LightGlue
from support.exported import Exported, session
from support.matching import load_features, small_matcher

export = pytest.importorskip("lightglue.export")

Array = NDArray[Any]
FULL = {"depth_confidence": -1, "width_confidence": -1}


@pytest.fixture(scope="module")
def pair(reference: Callable[[str], dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
    """Features of two photographs, with a batch dimension."""
    return [load_features(reference, f"aliked-n16_montmartre_{side}") for side in (0, 1)]


def matched(matcher: LightGlue, pair: list[dict[str, torch.Tensor]]) -> list[tuple[int, int]]:
    with torch.inference_mode():
        found = matcher({"image0": pair[0], "image1": pair[1]})["matches"][0]
    return [(int(i), int(j)) for i, j in found]


# -- OpenCV 5 --


def test_opencv_matches_as_the_package_does(exported: Exported, pair: list[dict[str, torch.Tensor]]) -> None:
    if not hasattr(cv2, "LightGlueMatcher"):
        pytest.skip("OpenCV 4 has no LightGlueMatcher")
    matcher = cv2.LightGlueMatcher.create(str(exported.file("aliked", "opencv")), 0.1)
    keypoints, sizes, descriptors = (
        [features[name][0].numpy() for features in pair] for name in ("keypoints", "image_size", "descriptors")
    )
    matcher.setPairInfo(*((xy - size / 2) / (size.max() / 2) for xy, size in zip(keypoints, sizes, strict=True)))
    found = matcher.match(*descriptors)
    expected = matched(exported.matcher("aliked", **FULL), pair)
    assert len(expected) > 100
    assert sorted((match.queryIdx, match.trainIdx) for match in found) == expected


# -- COLMAP 4: what its loaders check, and how its database becomes inputs --

ANY = -1
MATCHER_INPUTS = {
    "kpts0": [ANY, ANY, ANY],
    "kpts1": [ANY, ANY, ANY],
    "desc0": [ANY, ANY, ANY],
    "desc1": [ANY, ANY, ANY],
    "image_size0": [ANY, ANY],
    "image_size1": [ANY, ANY],
}
SIFT_INPUTS = {"scales0": [ANY, ANY], "scales1": [ANY, ANY], "oris0": [ANY, ANY], "oris1": [ANY, ANY]}
MATCHER_OUTPUTS = {"matches0": [ANY], "mscores0": [ANY]}


def shapes_of(tensors: Any) -> dict[str, list[int]]:
    """Names in their order, with shapes as COLMAP sees them: -1 for what is not fixed."""
    return {each.name: [edge if isinstance(edge, int) else ANY for edge in each.shape] for each in tensors}


def check_nodes(tensors: Any, expected: dict[str, list[int]]) -> None:
    """Names, order, number and rank; an edge that is not -1 must be that."""
    found = shapes_of(tensors)
    assert list(found) == list(expected)
    for name, shape in expected.items():
        assert len(found[name]) == len(shape), name
        assert all(want in (ANY, edge) for want, edge in zip(shape, found[name], strict=True)), name


class ColmapMatcher:
    """Loads a file, and matches what COLMAP's database holds: keypoints about the corner of the top-left pixel."""

    def __init__(self, path: Path) -> None:
        self.session = session(path)
        inputs = self.session.get_inputs()
        assert len(inputs) in (6, 10)
        check_nodes(inputs, MATCHER_INPUTS | (SIFT_INPUTS if len(inputs) == 10 else {}))
        check_nodes(self.session.get_outputs(), MATCHER_OUTPUTS)

    def match(self, images: list[dict[str, Array]], min_score: float = 0.1) -> list[tuple[int, int]]:
        inputs = {}
        for side, image in enumerate(images):
            inputs |= {f"{name}{side}": array[None].astype(np.float32) for name, array in image.items()}
            inputs[f"kpts{side}"] = inputs[f"kpts{side}"] - np.float32(0.5)
        matches, scores = self.session.run(None, inputs)
        assert matches.dtype == np.int64
        assert matches.shape == scores.shape == (len(images[0]["kpts"]),)
        chosen = (matches >= 0) & (scores >= min_score)
        assert (matches[chosen] < len(images[1]["kpts"])).all()
        return [(int(i), int(matches[i])) for i in np.flatnonzero(chosen)]


def of_colmap(features: dict[str, torch.Tensor]) -> dict[str, Array]:
    names = {"kpts": "keypoints", "desc": "descriptors", "image_size": "image_size", "scales": "scales", "oris": "oris"}
    image = {name: features[key][0].numpy() for name, key in names.items() if key in features}
    return image | {"kpts": image["kpts"] + np.float32(0.5)}


def test_colmap_matches_aliked_as_the_package_does(exported: Exported, pair: list[dict[str, torch.Tensor]]) -> None:
    found = ColmapMatcher(exported.file("aliked", "colmap")).match([of_colmap(features) for features in pair])
    expected = matched(exported.matcher("aliked"), pair)
    assert len(expected) > 100
    assert found == expected


def test_colmap_matches_sift_as_the_package_does(tmp_path: Path) -> None:
    """With a small network: which inputs there are and what becomes of them does not depend on the weights."""
    matcher = small_matcher(input_dim=128, add_scale_ori=True, filter_threshold=0.0)
    export.write_matcher(matcher, tmp_path / "sift.onnx", format="colmap")
    draw = torch.Generator().manual_seed(0)
    images = []
    for count in (60, 50):
        stored = (torch.rand(1, count, 128, generator=draw) * 255).byte().float()  # COLMAP's database has bytes
        images.append(
            {
                "keypoints": torch.rand(1, count, 2, generator=draw) * 400,
                "descriptors": (stored / stored.sum(-1, keepdim=True)).sqrt(),
                "image_size": torch.tensor([[640.0, 480.0]]),
                "scales": 1 + torch.rand(1, count, generator=draw),
                "oris": torch.rand(1, count, generator=draw) * 6 - 3,
            }
        )
    found = ColmapMatcher(tmp_path / "sift.onnx").match([of_colmap(features) for features in images], min_score=0.0)
    assert found == matched(matcher, images)
    assert found
