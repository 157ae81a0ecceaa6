"""Parts of the published extractors that callers import or replace: the same calls, held to our own extractors."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightglue.aliked
import lightglue.disk
import lightglue.dog_hardnet
import lightglue.sift
import lightglue.superpoint
from lightglue import ALIKED, SIFT, InputError, SuperPoint, load_image
from lightglue.utils import Extractor
from support import A
from test_superpoint import small


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A photograph (3, 175, 250), whose sides no stride divides."""
    return load_image(A, resize=256)[:, :, :250]


@pytest.fixture
def aliked() -> ALIKED:
    return ALIKED(model_name="aliked-t16", max_num_keypoints=120, detection_threshold=-1)


def assert_close(found: Any, expected: Any, tolerance: float = 1e-3) -> None:
    for key in ("keypoints", "keypoint_scores", "descriptors"):
        torch.testing.assert_close(found[key], expected[key], atol=tolerance, rtol=0)


# -- ALIKED


def masked_forward(self: Any, data: Any) -> Any:
    """What scripts put in the place of `ALIKED.forward` to mask keypoints out: 1 is where there shall be none."""
    image = data["image"]
    feature_map, score_map = self.extract_dense_map(image)
    if data.get("mask") is not None:
        score_map = score_map.masked_fill(data["mask"] > 0.5, float("-inf"))
    keypoints, scores, _ = self.dkd(score_map, image_size=data.get("image_size"))
    descriptors, _ = self.desc_head(feature_map, keypoints)
    last = torch.tensor([image.shape[-1] - 1, image.shape[-2] - 1])
    return {
        "keypoints": last * (torch.stack(keypoints) + 1) / 2.0,
        "descriptors": torch.stack(descriptors),
        "keypoint_scores": torch.stack(scores),
    }


@torch.no_grad()
@pytest.mark.parametrize("threshold", [-1, 0.1])
def test_scripts_that_mask_aliked(image: Tensor, monkeypatch: pytest.MonkeyPatch, threshold: float) -> None:
    aliked = ALIKED(model_name="aliked-t16", max_num_keypoints=120, detection_threshold=threshold)
    plain = aliked({"image": image[None]})
    monkeypatch.setattr(ALIKED, "forward", masked_forward)
    assert_close(aliked({"image": image[None]}), plain)
    mask = torch.zeros(1, 1, *image.shape[-2:])
    mask[..., :120] = 1
    found = aliked({"image": image[None], "mask": mask})["keypoints"]
    assert found.shape[1] > 20
    assert found[..., 0].min() > 117  # a position is refined by up to two pixels
    with pytest.raises(InputError, match="takes no `request`"):
        aliked.extract(image, mask=mask[0, 0] == 0)


def test_a_changed_detector_detects(aliked: ALIKED, image: Tensor) -> None:
    expected = ALIKED(model_name="aliked-t16", max_num_keypoints=40, detection_threshold=-1).extract(image, resize=None)
    aliked.dkd.top_k, aliked.dkd.scores_th = 40, 0.0
    assert_close(aliked.extract(image, resize=None), expected)
    with pytest.raises(InputError, match="Masks and tiles"):
        aliked.extract(image, mask=torch.ones(175, 250, dtype=torch.bool))


class Corners(nn.Module):
    """A detector of someone's own: three fixed points."""

    def forward(self, scores: Tensor, image_size: Any = None) -> Any:
        xy = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
        return [xy], [torch.ones(3)], [torch.zeros(3)]


class Zeros(nn.Module):
    def forward(self, features: Tensor, keypoints: list[Tensor]) -> Any:
        return [torch.zeros(len(xy), 5) for xy in keypoints], [None]


def test_another_detector_or_descriptor_head_is_used(aliked: ALIKED, image: Tensor) -> None:
    aliked.dkd = Corners()
    found = aliked.extract(image, resize=None)
    assert found["keypoints"][0].tolist() == [[0.0, 0.0], [124.5, 87.0], [249.0, 174.0]]
    torch.testing.assert_close(found["descriptors"], aliked.describe(found["keypoints"], image, resize=None))
    aliked.desc_head = Zeros()
    assert aliked.extract(image, resize=None)["descriptors"].shape == (1, 3, 5)


def test_another_convolution_is_used(aliked: ALIKED, image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    before = aliked.extract(image, resize=None)

    def forward(self: Any, x: Tensor) -> Tensor:
        assert not self.mask
        return F.conv2d(x, self.regular_conv.weight, self.regular_conv.bias, stride=1, padding=self.padding)

    monkeypatch.setattr(lightglue.aliked.DeformableConv2d, "forward", forward)
    after = aliked.extract(image, resize=None)
    assert not torch.equal(before["keypoints"], after["keypoints"])
    monkeypatch.undo()
    torch.testing.assert_close(aliked.extract(image, resize=None), before, rtol=0, atol=0)


@torch.no_grad()
def test_the_layers_one_by_one(aliked: ALIKED, image: Tensor) -> None:
    padder = lightglue.aliked.InputPadder(*image.shape[-2:], 32)
    padded = padder.pad(image[None])
    assert padded.shape == (1, 3, 192, 256)
    assert padder._pad == [3, 3, 8, 9]
    x1 = aliked.block1(padded)
    x2 = aliked.block2(F.avg_pool2d(x1, 2))
    x3 = aliked.block3(F.avg_pool2d(x2, 4))
    x4 = aliked.block4(F.avg_pool2d(x3, 4))
    levels = [F.selu(getattr(aliked, f"conv{i}")(x)) for i, x in enumerate((x1, x2, x3, x4), 1)]
    enlarged = [F.interpolate(x, padded.shape[-2:], mode="bilinear", align_corners=True) for x in levels]
    scores = padder.unpad(aliked.score_head(torch.cat(enlarged, 1)).sigmoid())
    torch.testing.assert_close(scores, aliked.extract_dense_map(image[None])[1])


def test_tables_and_modules_of_aliked(aliked: ALIKED) -> None:
    assert ALIKED.cfgs["aliked-n32"] == [16, 32, 64, 128, 128, 3, 32]
    c1, _, _, _, dim, kernel, positions = ALIKED.cfgs["aliked-t16"]
    head = lightglue.aliked.SDDH(dim, kernel, positions, gate=nn.SELU(inplace=True), conv2D=False, mask=False)
    head.load_state_dict(aliked.desc_head.state_dict())
    features, xy = torch.rand(1, dim, 40, 50), [torch.rand(9, 2) * 1.6 - 0.8]
    descriptors, offsets = head(features, xy)
    torch.testing.assert_close(descriptors, aliked.desc_head(features, xy)[0])
    assert offsets[0].shape == (9, positions, 2)
    assert aliked.block1.conv1.out_channels == c1
    assert set(aliked.state_dict()) == set(aliked.network.state_dict())
    with pytest.raises(InputError, match="kernel_size=3"):
        lightglue.aliked.SDDH(dim, 5)
    with pytest.raises(AttributeError, match="block9"):
        aliked.block9  # noqa: B018


def test_a_detector_by_itself() -> None:
    scores = torch.rand(2, 1, 40, 60, generator=torch.Generator().manual_seed(0))
    keypoints, values, spreads = lightglue.aliked.DKD(radius=2, top_k=30)(scores)
    assert [len(xy) for xy in keypoints] == [30, 30]
    window = F.unfold(scores, 5, padding=2)[0].T
    pixels, _, _ = lightglue.aliked.DKD(radius=2, top_k=30)(scores, sub_pixel=False)
    xy = ((pixels[0] + 1) / 2 * torch.tensor([59, 39])).round().long()
    weights = (window[xy[:, 1] * 60 + xy[:, 0]] / 0.1).softmax(1)
    dy, dx = torch.meshgrid(torch.arange(-2, 3), torch.arange(-2, 3), indexing="ij")
    grid = torch.stack((dx.flatten(), dy.flatten()), 1).float()
    shift = weights @ grid
    torch.testing.assert_close((keypoints[0] + 1) / 2 * torch.tensor([59, 39]), xy + shift)
    expected = (weights * ((grid - shift[:, None]) / 2).norm(dim=-1) ** 2).sum(1)
    torch.testing.assert_close(spreads[0], expected)
    assert (values[0] <= scores[0].max()).all()
    sized = torch.tensor([[30, 40], [60, 20]])
    inside, _, _ = lightglue.aliked.DKD(top_k=30)(scores, image_size=sized)
    assert ((inside[0][:, 0] + 1) / 2 * 59).max() < 30
    assert ((inside[1][:, 1] + 1) / 2 * 39).max() < 20


@pytest.mark.parametrize("shape", [(1, 1, 120, 160), (1, 3, 64, 96)])
def test_a_warm_up_with_noise(aliked: ALIKED, shape: tuple[int, ...]) -> None:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"not in \[0, 1\]"):
        found = aliked.extract(noise)
    assert found["keypoints"].isfinite().all()
    with pytest.raises(InputError, match="NaN"):
        aliked.extract(noise / 0 * 0)


# -- SIFT and DoGHardNet


def test_sift_step_by_step(image: Tensor) -> None:
    extractor = SIFT(max_num_keypoints=None, nms_radius=3)
    expected = extractor({"image": image[None]})
    gray = (0.299 * image[0]).add(image[1], alpha=0.587).add(image[2], alpha=0.114)
    pixels = (gray.numpy() * np.float32(255)).astype(np.uint8)
    sift = cv2.SIFT_create(contrastThreshold=0.0066667, nfeatures=0, edgeThreshold=10, nOctaveLayers=4)
    points, scores, scales, angles, descriptors = lightglue.sift.run_opencv_sift(sift, pixels)
    keep = lightglue.sift.filter_dog_point(points, scales, angles, pixels.shape, 3, scores)
    found = {
        "keypoints": points[keep],
        "scales": scales[keep],
        "oris": angles[keep],
        "keypoint_scores": scores[keep],
        "descriptors": lightglue.sift.sift_to_rootsift(torch.from_numpy(descriptors[keep])).numpy(),
    }
    assert len(keep) > 50
    for key, values in found.items():
        np.testing.assert_array_equal(values, expected[key][0].numpy())
    without = lightglue.dog_hardnet.run_opencv_sift(sift, pixels)
    assert len(without) == 4
    np.testing.assert_array_equal(without[0], points)
    np.testing.assert_array_equal(without[1], scores)


def test_rootsift_with_another_epsilon() -> None:
    values = torch.tensor([[4.0, 0.0, 12.0]])
    expected = F.normalize(torch.tensor([[0.25, 0.01, 0.75]]).sqrt(), dim=-1)
    torch.testing.assert_close(lightglue.sift.sift_to_rootsift(values, eps=0.01), expected)


# -- SuperPoint


@torch.no_grad()
def test_superpoint_step_by_step(image: Tensor) -> None:
    """What scripts do that export its network."""
    extractor: Any = small(max_num_keypoints=50, remove_borders=4, nms_radius=4)
    gray = image.mean(0)[None, None, :, :248]
    expected = extractor({"image": gray})
    logits, dense = extractor.network(gray)
    scores = F.pixel_shuffle(logits.softmax(1)[:, :-1], extractor.network.stride)[:, 0]
    scores = lightglue.superpoint.simple_nms(scores, 4)
    for side in (scores[:, :4], scores[:, :, :4], scores[:, -4:], scores[:, :, -4:]):
        side.fill_(-1)
    _, y, x = torch.where(scores > 0)
    keypoints, values = lightglue.superpoint.top_k_keypoints(torch.stack((y, x), -1), scores[0, y, x], 50)
    xy = keypoints.flip(1).float()
    descriptors = lightglue.superpoint.sample_descriptors(xy[None], F.normalize(dense, dim=1), extractor.network.stride)
    assert torch.equal(xy, expected["keypoints"][0])
    assert torch.equal(values, expected["keypoint_scores"][0])
    torch.testing.assert_close(descriptors[0].T, expected["descriptors"][0])
    assert extractor.conv1a is extractor.network.conv1a
    assert lightglue.superpoint.top_k_keypoints(xy, values, 99)[0] is xy


def test_suppression_takes_masked_scores() -> None:
    row = torch.tensor([[[float("-inf"), 0.75, 0.5, 0.875, -1.0]]])
    assert lightglue.superpoint.simple_nms(row, 1).flatten().tolist() == [0, 0.75, 0, 0.875, 0]


# -- names


def test_names_from_every_published_module() -> None:
    assert lightglue.aliked.Extractor is lightglue.disk.Extractor is lightglue.sift.Extractor is Extractor
    assert lightglue.superpoint.SuperPoint is SuperPoint
    assert lightglue.dog_hardnet.SIFT is SIFT
    for module in ("aliked", "disk", "sift", "superpoint", "dog_hardnet"):
        loaded = importlib.import_module(f"lightglue.{module}")
        assert all(getattr(loaded, name) is not None for name in loaded.__all__)
        with pytest.raises(AttributeError, match="nothing"):
            loaded.nothing  # noqa: B018


def test_a_replaced_function_has_its_effect(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    gray = image.mean(0, keepdim=True)
    for module, name, extractor in (
        (lightglue.superpoint, "simple_nms", small()),
        (lightglue.sift, "filter_dog_point", SIFT()),
        (lightglue.dog_hardnet, "filter_dog_point", SIFT()),
    ):
        original, calls = getattr(module, name), []

        def spy(*args: Any, original: Any = original, calls: list[Any] = calls, **options: Any) -> Any:
            calls.append(args)
            return original(*args, **options)

        before = extractor.extract(gray, resize=None)
        monkeypatch.setattr(module, name, spy)
        assert_close(extractor.extract(gray, resize=None), before, 0)
        assert len(calls) == 1
        monkeypatch.undo()
        extractor.extract(gray, resize=None)
        assert len(calls) == 1


@pytest.mark.parametrize(
    ("module", "name", "remedy"),
    [
        (lightglue.superpoint, "top_k_keypoints", "override `forward` of SuperPoint"),
        (lightglue.sift, "run_opencv_sift", "override `forward` of SIFT"),
        (lightglue.dog_hardnet, "run_opencv_sift", "override `forward` of DoGHardNet"),
        (lightglue.aliked, "DKD", r"replace the modules of an extractor, such as extractor\.dkd"),
    ],
)
def test_what_is_replaced_without_effect_says_so(module: Any, name: str, remedy: str) -> None:
    original = getattr(module, name)
    try:
        with pytest.warns(UserWarning, match=rf"lightglue\.\w+\.{name} was replaced, which changes nothing; {remedy}"):
            setattr(module, name, None)
        assert getattr(module, name) is None
    finally:
        with pytest.warns(UserWarning, match=name):
            setattr(module, name, original)


@pytest.fixture
def without_extras() -> Iterator[None]:
    absent = dict.fromkeys(("kornia", "kornia.feature", "torchvision", "torchvision.models.resnet"))
    with mock.patch.dict(sys.modules, absent):
        yield


@pytest.mark.usefixtures("without_extras")
@pytest.mark.parametrize(
    ("module", "name", "remedy"),
    [
        ("aliked", "resnet", "torchvision's: pip install torchvision"),
        ("dog_hardnet", "HardNet", "kornia's: pip install kornia"),
        ("dog_hardnet", "LAFDescriptor", "kornia's: pip install kornia"),
    ],
)
def test_names_of_other_packages_say_whose_they_are(module: str, name: str, remedy: str) -> None:
    with pytest.raises(ImportError, match=remedy):
        getattr(importlib.import_module(f"lightglue.{module}"), name)
