"""What surrounds a call must not change its result: autocast, and the copies that data parallelism makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightglue import ALIKED, DISK, SIFT, DoGHardNet, SuperPoint, XFeat, load_image
from lightglue.extractors.base import Extractor
from lightglue.extractors.hardnet_network import HardNetNetwork
from lightglue.extractors.superpoint_network import SuperPointNetwork
from support import ASSETS
from support.replicas import replica

KINDS = ("aliked", "disk", "superpoint", "sift", "doghardnet", "xfeat")


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A photograph (3, 219, 320)."""
    return load_image(ASSETS / "montmartre_close.jpg", resize=320)


@pytest.fixture(scope="module", params=KINDS)
def extractor(request: pytest.FixtureRequest) -> Extractor:
    torch.manual_seed(0)
    if request.param == "aliked":
        return ALIKED(model_name="aliked-t16", max_num_keypoints=200, detection_threshold=-1)
    if request.param == "disk":
        return DISK(max_num_keypoints=200)
    if request.param == "xfeat":
        return XFeat(max_num_keypoints=200)
    if request.param == "superpoint":
        seeded = SuperPointNetwork((64, 64, 128, 128, 256), 256).state_dict()
        return SuperPoint(weights=seeded, max_num_keypoints=200)
    return SIFT() if request.param == "sift" else DoGHardNet(weights=HardNetNetwork().state_dict())


def assert_equal(a: Any, b: Any) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == torch.float32
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("resize", [None, 256])
def test_autocast_does_not_change_what_is_extracted(extractor: Extractor, image: Tensor, resize: int | None) -> None:
    expected = extractor.extract(image, resize=resize)
    with torch.autocast("cpu", torch.bfloat16):
        found = extractor.extract(image, resize=resize)
    assert expected["keypoints"].shape[1] > 50
    assert_equal(found, expected)


@torch.no_grad()
def test_autocast_does_not_change_forward(extractor: Extractor, image: Tensor) -> None:
    expected = extractor({"image": image[None]})
    with torch.autocast("cpu", torch.bfloat16):
        found = extractor({"image": image[None]})
        assert torch.is_autocast_enabled("cpu")  # on again for the caller
    assert_equal(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("extractor", ["aliked"], indirect=True)
def test_autocast_does_not_change_describing_nor_dense_maps(extractor: ALIKED, image: Tensor) -> None:
    keypoints = torch.rand(1, 100, 2) * 200
    expected = extractor.describe(keypoints, image), *extractor.extract_dense_map(image[None, :, :96, :96])
    with torch.autocast("cpu", torch.bfloat16):
        found = extractor.describe(keypoints, image), *extractor.extract_dense_map(image[None, :, :96, :96])
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_replica_for_data_parallelism_gives_what_the_model_gives(extractor: Extractor, image: Tensor) -> None:
    copy = replica(extractor)
    assert not list(copy.parameters())
    assert copy.reference.dtype == extractor.reference.dtype
    with torch.no_grad():
        assert_equal(copy({"image": image[None]}), extractor({"image": image[None]}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_replica_moves_images_to_its_weights(extractor: Extractor, image: Tensor, dtype: torch.dtype) -> None:
    has_weights = bool(extractor.state_dict())
    copy = replica(extractor.to(dtype))
    try:
        assert copy.check_image(image.half()).dtype == (dtype if has_weights else torch.float32)
    finally:
        extractor.float()
