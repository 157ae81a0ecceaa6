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

from lightglue import ALIKED
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


EXTRACTOR_INPUTS = {"image": [ANY, 3, ANY, ANY], "max_keypoints": [], "min_score": []}
EXTRACTOR_OUTPUTS = {"keypoints": [ANY, ANY, ANY], "descriptors": [ANY, ANY, ANY], "scores": [ANY, ANY]}


class ColmapAliked:
    """Loads a file, and extracts as COLMAP does: the image is padded to multiples of 32 by its last row and column."""

    def __init__(self, path: Path) -> None:
        self.session = session(path)
        check_nodes(self.session.get_inputs(), EXTRACTOR_INPUTS)
        check_nodes(self.session.get_outputs(), EXTRACTOR_OUTPUTS)
        self.length = shapes_of(self.session.get_outputs())["descriptors"][2]
        assert self.length > 0  # it allocates the descriptors by this

    def extract(self, image: Array, max_features: int, min_score: float) -> tuple[Array, Array]:
        """Of an image (3, H, W) in [0, 1]: keypoints about the corner of the top-left pixel, and descriptors."""
        _, height, width = image.shape
        padded = np.pad(image, [(0, 0), (0, -height % 32), (0, -width % 32)], mode="edge")
        inputs = {
            "image": padded[None],
            "max_keypoints": np.array(max_features, np.int64),
            "min_score": np.array(min_score, np.float32),
        }
        keypoints, descriptors, scores = self.session.run(None, inputs)
        count = keypoints.shape[1]
        assert keypoints.shape == (1, count, 2)
        assert descriptors.shape == (1, count, self.length)
        assert scores.shape == (1, count)
        edges = np.array(padded.shape[:0:-1], np.float32)  # width, height
        points = (keypoints[0] + 1) * (edges - 1) / 2 + 0.5
        inside = ((points >= 0) & (points < [width, height])).all(1)
        return points[inside], descriptors[0, inside]


@pytest.mark.parametrize("model", ["aliked-n16rot", "aliked-n32"])
def test_colmap_extracts_aliked_as_the_package_does(
    model: str, image_path: Callable[[str, int], Path], tmp_path: Path
) -> None:
    extractor = ALIKED(model_name=model, max_num_keypoints=200, detection_threshold=0.0).eval()
    export.write_extractor(extractor, tmp_path / "aliked.onnx", format="colmap")
    photograph = cv2.imread(str(image_path("montmartre", 0)))[..., ::-1]
    small = cv2.resize(photograph, (256, 192), interpolation=cv2.INTER_AREA)  # multiples of 32: no padding to differ in
    image = np.ascontiguousarray(small.transpose(2, 0, 1), np.float32) / np.float32(255)
    points, descriptors = ColmapAliked(tmp_path / "aliked.onnx").extract(image, 200, 0.0)
    with torch.inference_mode():
        expected = extractor({"image": torch.from_numpy(image)[None]})
    wanted = expected["keypoints"][0].numpy() + 0.5
    distances = np.linalg.norm(points[:, None] - wanted, axis=-1)
    assert len(points) == len(wanted) == 200
    np.testing.assert_array_less(distances.min(1), 1e-3)
    closest = expected["descriptors"][0].numpy()[distances.argmin(1)]
    np.testing.assert_allclose(descriptors, closest, atol=1e-4)


def test_colmap_extracts_from_images_of_any_size(tmp_path: Path) -> None:
    export.write_extractor(ALIKED(model_name="aliked-n16rot"), tmp_path / "aliked.onnx", format="colmap")
    image = np.random.default_rng(0).random((3, 70, 101), np.float32)
    points, descriptors = ColmapAliked(tmp_path / "aliked.onnx").extract(image, 50, 0.0)
    assert 10 < len(points) <= 50
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-4)
