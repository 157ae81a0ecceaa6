"""DoGHardNet: patches and descriptors against kornia, and what callers rely on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightglue import SIFT, DoGHardNet, InputError, LightGlue, WeightsError, load_image, weights
from lightglue.extractors.dog_hardnet import PATCH_RADIUS
from lightglue.extractors.hardnet_network import extract_patches
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.network import LightGlueNetwork
from lightglue.weights import table
from support import ASSETS
from support.hardnet_oracle import REFERENCE, seeded_frames, seeded_image, seeded_state


@pytest.fixture(scope="module")
def kornia() -> dict[str, Tensor]:
    """What kornia 0.9.0 gave for the input of `hardnet_oracle`."""
    with np.load(REFERENCE / "hardnet_kornia.npz") as arrays:
        return {key: torch.from_numpy(value).float() for key, value in arrays.items()}


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A photograph (3, 110, 160)."""
    return load_image(ASSETS / "montmartre_close.jpg", resize=160)


@pytest.fixture(scope="module")
def model() -> DoGHardNet:
    return DoGHardNet(weights=seeded_state())


@pytest.fixture
def extractor(model: DoGHardNet) -> DoGHardNet:
    model.conf = type(model.conf)(**{**DoGHardNet.default_conf, "max_num_keypoints": 40})
    return model


def assert_same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for key in found:
        torch.testing.assert_close(found[key], expected[key], atol=1e-5, rtol=0)


# Against kornia


def test_patches_equal_kornias(kornia):
    keypoints, scales, oris = seeded_frames()
    patches = extract_patches(seeded_image()[0], keypoints, PATCH_RADIUS * scales, oris)
    torch.testing.assert_close(patches[:, 0], kornia["patches"], atol=1e-4, rtol=0)


def test_descriptors_equal_kornias(kornia, model):
    keypoints, scales, oris = seeded_frames()
    with torch.no_grad():
        found = model.network.describe(seeded_image()[0], keypoints, PATCH_RADIUS * scales, oris)
    torch.testing.assert_close(found, kornia["descriptors"], atol=1e-4, rtol=0)
    assert torch.pdist(found).median() > 0.5  # the random network tells patches apart


def test_a_photographs_features_equal_the_published_detection_and_kornias_description(kornia, model, reference):
    model.conf = type(model.conf)(**{**DoGHardNet.default_conf, "max_num_keypoints": 512})
    found = model.extract(load_image(ASSETS / "montmartre_close.jpg"), resize=800)
    published = {key: torch.from_numpy(value) for key, value in reference("sift-opencv_montmartre_0").items()}
    assert found.keys() == published.keys()
    for key in published.keys() - {"descriptors"}:
        torch.testing.assert_close(found[key], published[key], atol=1e-3, rtol=0)
    torch.testing.assert_close(found["descriptors"][0], kornia["montmartre"], atol=1e-3, rtol=0)


# Patches


def ramp(h: int, w: int) -> Tensor:
    """(1, h, w) whose value is the position: x + 1000 y."""
    return (torch.arange(w).float() + 1000 * torch.arange(h)[:, None])[None]


def test_a_patch_of_half_its_samples_radius_is_a_crop():
    patch = extract_patches(ramp(80, 90), torch.tensor([[40.5, 30.5]]), torch.tensor([16.0]), torch.zeros(1))
    torch.testing.assert_close(patch[0, 0], ramp(80, 90)[0, 15:47, 25:57])


def test_a_patch_turns_against_the_clock():
    """Its x axis points up the image where the angle is a quarter turn."""
    patch = extract_patches(
        ramp(80, 90), torch.tensor([[40.5, 30.5]]), torch.tensor([16.0]), torch.tensor([math.pi / 2])
    )
    torch.testing.assert_close(patch[0, 0], ramp(80, 90)[0, 15:47, 25:57].rot90(-1), atol=0.1, rtol=0)


def test_a_large_patch_comes_from_a_coarser_level():
    stripes = (torch.arange(256) % 2).float().expand(1, 256, 256)  # too fine for the coarser level
    fine, coarse = (
        extract_patches(stripes, torch.tensor([[128.0, 128.0]]), torch.tensor([radius]), torch.zeros(1))
        for radius in (24.0, 64.0)
    )
    assert fine.std() > 0.1
    torch.testing.assert_close(coarse, torch.full_like(coarse, 0.5), atol=1e-4, rtol=0)


def test_beyond_the_image_its_border_goes_on():
    patch = extract_patches(ramp(40, 50), torch.tensor([[-100.0, -100.0]]), torch.tensor([8.0]), torch.zeros(1))
    assert (patch == 0).all()


# The network


def test_brightness_and_contrast_do_not_matter(model):
    patches = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.network(patches * 0.2 + 0.7), model.network(patches), atol=1e-4, rtol=0)


def test_a_flat_patch_has_a_finite_descriptor(model):
    with torch.no_grad():
        assert model.network(torch.full((2, 1, 32, 32), 0.3)).isfinite().all()


def test_descriptors_do_not_depend_on_how_many_there_are(model):
    g = torch.Generator().manual_seed(0)
    keypoints, radii, angles = torch.rand(150, 2, generator=g) * 100, torch.full((150,), 12.0), torch.zeros(150)
    picture = seeded_image()[0]
    with torch.no_grad():
        found = model.network.describe(picture, keypoints, radii, angles)
        alone = model.network.describe(picture, keypoints[140:141], radii[140:141], angles[140:141])
    torch.testing.assert_close(found[140:141], alone, atol=1e-5, rtol=0)


# What callers rely on


def test_keypoints_are_sifts(extractor, image):
    found = extractor.extract(image, resize=None)
    sift = SIFT(max_num_keypoints=40).extract(image, resize=None)
    assert found.keys() == sift.keys()
    assert found["descriptors"].shape == sift["descriptors"].shape
    assert all(torch.equal(found[key], sift[key]) for key in sift if key != "descriptors")
    torch.testing.assert_close(found["descriptors"].norm(dim=-1), torch.ones(found["scales"].shape))
    assert isinstance(extractor, SIFT)
    assert DoGHardNet.default_conf == SIFT.default_conf
    assert DoGHardNet.preprocess_conf == {"resize": 1024}


def test_colmaps_keypoints_are_described_too(extractor, image):
    pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install 'lightglue[sift]'")
    extractor.conf.backend = "pycolmap_cpu"
    found = extractor.extract(image, resize=None)
    assert found["descriptors"].shape == (1, 40, 128)
    assert "keypoint_scores" not in found


def test_a_batch_and_a_list_give_what_each_image_gives_alone(extractor, image):
    images = [image, image[:, :80, :100], image[:1]]
    alone = [extractor.extract(one, resize=None) for one in images]
    for found, expected in zip(extractor.extract(images, resize=None), alone, strict=True):
        assert_same(found, expected)
    batch = extractor.extract(torch.stack([image, image]), resize=None)
    assert_same({key: value[1:] for key, value in batch.items()}, alone[0])
    with pytest.raises(InputError, match="unequal numbers of keypoints.*give a list"):
        extractor.extract(torch.stack([image, torch.zeros_like(image)]), resize=None)


def test_padding_is_cut_off(extractor, image):
    padded = torch.nn.functional.pad(image, (0, 37, 0, 11), value=1)[None]
    found = extractor({"image": padded, "image_size": torch.tensor([[160, 110]])})
    assert_same(found, extractor({"image": image[None]}))


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 300), (5, 40), (16, 16), (17, 400), (40, 40)])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiny_and_thin_images_give_valid_features(extractor, h, w, channels):
    picture = torch.rand(channels, h, w, generator=torch.Generator().manual_seed(0))
    found = extractor.extract(picture, resize=None)
    n = found["keypoints"].shape[1]
    assert found["descriptors"].shape == (1, n, 128)
    assert found["descriptors"].isfinite().all()
    assert n > 0 or h < 40


def test_extract_records_no_gradients_and_forward_does(extractor, image):
    assert not extractor.extract(image, resize=None)["descriptors"].requires_grad
    assert extractor({"image": image[None]})["descriptors"].requires_grad


def test_unknown_options_warn_where_they_were_written(extractor, image):
    with pytest.warns(UserWarning, match="DoGHardNet ignores.*'max_keypoint'; did you mean 'max_num_key") as record:
        DoGHardNet(weights=seeded_state(), max_keypoint=3)
    assert record[0].filename == __file__


def test_options_are_sifts_and_checked_like_its(extractor, image):
    with pytest.raises(InputError, match="nms_radius is -2"):
        DoGHardNet(weights=seeded_state(), nms_radius=-2)
    extractor.conf.backend = "magic"
    with pytest.raises(InputError, match="backend is 'magic'"):
        extractor.extract(image, resize=None)


# Weights


def counted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As newer versions of torch save it."""
    norms = [key.removesuffix("running_var") for key in state if key.endswith("running_var")]
    return {**state, **{f"{key}num_batches_tracked": torch.tensor(0) for key in norms}}


def test_the_published_file_loads_with_and_without_batch_counters(tmp_path: Path, monkeypatch, image):
    for state in (seeded_state(), counted(seeded_state())):
        file = tmp_path / "checkpoint_liberty_with_aug.pth"
        torch.save({"epoch": 10, "state_dict": state}, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        record = dataclasses.replace(weights.FILES["hardnet"], sha256=digest)
        monkeypatch.setattr(table, "FILES", {"hardnet": record})
        monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path))
        found = DoGHardNet(max_num_keypoints=10, commercial_only=True).extract(image, resize=None)
        assert_same(found, DoGHardNet(weights=seeded_state(), max_num_keypoints=10).extract(image, resize=None))


def test_without_the_file_there_are_no_random_weights(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path))
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"LIGHTGLUE_OFFLINE is set. Download .*checkpoint_liberty_with_aug.pth"):
        DoGHardNet()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.3.weight"), "missing: features.3.weight"),
        (lambda s: s.pop("features.20.running_var"), "missing: features.20.running_var"),
        (lambda s: s.update({"features.21.weight": torch.zeros(1)}), "unexpected: features.21.weight"),
        (lambda s: s.update({"features.0.weight": torch.zeros(3)}), "wrong shape: features.0.weight"),
        (lambda s: s["features.9.weight"].fill_(float("inf")), "not finite: features.9.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message):
    state = seeded_state()
    change(state)
    with pytest.raises(WeightsError, match=message):
        DoGHardNet(weights=state)


def test_the_state_dict_has_the_published_networks_keys_and_loads_back(model):
    state = model.state_dict()
    assert state.keys() == counted(seeded_state()).keys()
    DoGHardNet(weights=state).load_state_dict(state)


# Together with the matcher


def test_features_go_through_lightglue(extractor, image):
    torch.manual_seed(0)
    state = LightGlueNetwork(LightGlueConfig(n_layers=2, input_dim=128, add_scale_ori=True)).state_dict()
    matcher = LightGlue(features="doghardnet", weights=state, n_layers=2, filter_threshold=0).eval()
    features = [extractor.extract(one, resize=None) for one in (image, image.flip(-1))]
    matches = matcher({"image0": features[0], "image1": features[1]})
    assert matches["matches0"].shape == features[0]["scales"].shape
    assert len(matches["matches"][0]) > 0
