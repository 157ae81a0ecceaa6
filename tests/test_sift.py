"""SIFT: the published features, both back ends, the filter, and what callers rely on."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import types
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightglue import SIFT, InputError, LightGlue, load_image
from lightglue.extractors import base, sift
from lightglue.extractors.dog import DogConfig, filter_dog_point, root_sift
from lightglue.extractors.grayscale import gray_images_in
from lightglue.images import resize_tensor
from lightglue.images.exact_resize import shrink_exactly
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.network import LightGlueNetwork
from support import ASSETS, PAIRS


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A photograph (3, 219, 320)."""
    return load_image(ASSETS / "montmartre_close.jpg", resize=320)


def assert_same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for key in found:
        assert torch.equal(found[key], expected[key]), key


# The published features


@pytest.mark.parametrize(("pair", "i"), [(pair, i) for pair in PAIRS for i in (0, 1)])
def test_features_equal_the_published_ones(pair, i, reference, image_path):
    """All of them and in their order, on any number of threads: every 8-bit gray level is the published one."""
    if not cv2.__version__.startswith("5.0."):
        pytest.skip(f"the reference was made with OpenCV 5.0.0, this is {cv2.__version__}")
    published = {key: torch.from_numpy(value) for key, value in reference(f"sift-opencv_{pair}_{i}").items()}
    found = SIFT(max_num_keypoints=512).extract(load_image(image_path(pair, i)), resize=PAIRS[pair][2])
    assert found.keys() == published.keys()
    assert torch.equal(found["image_size"], published["image_size"])
    for key, tolerance in {"keypoints": 0.01, "scales": 0.01, "oris": 1e-3, "descriptors": 1e-3}.items():
        torch.testing.assert_close(found[key], published[key], atol=tolerance, rtol=0)
    torch.testing.assert_close(found["keypoint_scores"], published["keypoint_scores"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(100, 147), (219, 60), (64, 400), (1, 1)])
def test_the_exact_resizing_is_the_other_one_within_rounding(image, channels, size):
    exact = shrink_exactly(image[None, :channels], size)
    torch.testing.assert_close(exact, resize_tensor(image[None, :channels], size)[0], atol=2e-6, rtol=0)
    assert exact.is_contiguous()


def test_a_line_of_pixels_is_resized_too():
    line = torch.rand(1, 3, 1, 50)
    torch.testing.assert_close(shrink_exactly(line, (1, 20)), resize_tensor(line, (1, 20))[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{"interpolation": "bicubic"}, {"antialias": False}, {"align_corners": True}])
def test_other_ways_of_resizing_are_the_usual_ones(image, options):
    found, scales = SIFT().resize(image[None], {"resize": 100, **options})
    expected, expected_scales = resize_tensor(image[None], 100, **options)
    assert torch.equal(found, expected)
    assert torch.equal(scales, expected_scales)


# Values


def test_keys_shapes_dtypes_and_ranges(image):
    found = SIFT().extract(image, resize=None)
    n = found["keypoints"].shape[1]
    assert n > 300
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "keypoints": (1, n, 2),
        "scales": (1, n),
        "oris": (1, n),
        "keypoint_scores": (1, n),
        "descriptors": (1, n, 128),
        "image_size": (1, 2),
    }
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in found.values())
    assert (found["scales"] > 0).all()
    assert ((found["oris"] >= 0) & (found["oris"] < 2 * torch.pi)).all()
    assert found["oris"].max() > 6  # radians, not wrapped at pi
    torch.testing.assert_close(found["descriptors"].norm(dim=-1), torch.ones(1, n))


def test_root_sift_is_the_root_of_the_shares():
    raw = torch.tensor([[9.0, 16.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    root = root_sift(raw)
    torch.testing.assert_close(root[0], torch.tensor([0.6, 0.8, 1e-3, 1e-3]), atol=1e-5, rtol=0)
    torch.testing.assert_close(root[1], torch.full((4,), 0.5))  # nothing at all is everything in equal shares


def test_without_rootsift_descriptors_are_the_back_ends_own(image):
    raw, root = SIFT(rootsift=False).extract(image, resize=None), SIFT().extract(image, resize=None)
    assert torch.equal(raw["keypoints"], root["keypoints"])
    assert raw["descriptors"].max() > 100
    assert torch.equal(raw["descriptors"], raw["descriptors"].round())
    assert torch.equal(root_sift(raw["descriptors"]), root["descriptors"])


def test_extract_leaves_scales_in_pixels_of_the_resized_image(image):
    half = SIFT().extract(image, resize=160)
    alone = SIFT().extract(SIFT().resize(image[None], {"resize": 160})[0], resize=None)
    assert torch.equal(half["scales"], alone["scales"])
    torch.testing.assert_close((half["keypoints"] + 0.5) / 2 - 0.5, alone["keypoints"], atol=0.5, rtol=0)
    assert half["image_size"].tolist() == [[320, 219]]


def blob(x: float, y: float, sigma: float) -> Tensor:
    """(1, 128, 128): a Gaussian blob."""
    across, down = (torch.arange(128.0) - centre for centre in (x, y))
    return torch.exp(-(across**2 + down[:, None] ** 2) / (2 * sigma**2))[None]


@pytest.mark.parametrize(("backend", "shift", "factor"), [("opencv", 0.25, 2.0), ("pycolmap_cpu", 0.0, 1.0)])
def test_convention_of_positions_and_scales(backend, shift, factor):
    """(0, 0) is the first pixel's centre. OpenCV's positions are 1/4 px too large: it doubles the image off centre."""
    if backend != "opencv":
        pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install 'lightglue[sift]'")
    found = SIFT(backend=backend).extract(blob(60, 47, sigma=3), resize=None)
    largest = found["scales"][0].argmax()
    torch.testing.assert_close(found["keypoints"][0, largest], torch.tensor([60, 47]) + shift, atol=0.03, rtol=0)
    assert abs(found["scales"][0, largest].item() / factor / 3 - 1) < 0.15  # the blob's standard deviation


@pytest.mark.parametrize(
    ("change", "place", "angle"),
    [
        (lambda i: i.rot90(-1, (-2, -1)), lambda x, y, w, h: (h - 1 - y, x), lambda a: a + torch.pi / 2),  # clockwise
        (lambda i: i.flip(-1), lambda x, y, w, h: (w - 1 - x, y), lambda a: torch.pi - a),
        (lambda i: i.flip(-2), lambda x, y, w, h: (x, h - 1 - y), lambda a: -a),
    ],
)
def test_convention_of_orientations(image, change, place, angle):
    """Radians from x towards y, thus clockwise on the screen."""
    before = {key: value[0] for key, value in SIFT().extract(image, resize=None).items()}
    after = {key: value[0] for key, value in SIFT().extract(change(image), resize=None).items()}
    x, y = (before["keypoints"] - 0.25).T
    expected = torch.stack(place(x, y, image.shape[-1], image.shape[-2]), dim=-1) + 0.25
    distance, partner = torch.cdist(expected, after["keypoints"]).min(dim=1)
    same = distance < 0.3
    assert same.float().mean() > 0.5
    difference = (after["oris"][partner] - angle(before["oris"]) + torch.pi) % (2 * torch.pi) - torch.pi
    assert difference[same].abs().median() < 0.02


# The filter


def plain_filter(keypoints: Any, strength: Any, oris: Any, shape: tuple[int, int], radius: int) -> list[int]:
    """What `filter_dog_point` does, keypoint by keypoint."""

    def pixel(xy: Any) -> tuple[int, int]:
        return tuple(min(max(round(v - 0.5), 0), n - 1) for v, n in zip(xy.tolist(), shape[::-1], strict=True))

    cells = [pixel(xy) for xy in keypoints]
    best: dict[tuple[int, int], int] = {}
    for i, cell in enumerate(cells):
        rank = (-strength[i], abs(oris[i]))
        if cell not in best or rank < (-strength[best[cell]], abs(oris[best[cell]])):
            best[cell] = i

    def near(a, b):
        return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= radius

    return sorted(i for c, i in best.items() if all(strength[j] <= strength[i] for d, j in best.items() if near(c, d)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_filter_keeps_the_strongest_of_each_pixel_and_window(data):
    h, w, n = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)), data.draw(st.integers(0, 40))
    g = np.random.default_rng(data.draw(st.integers(0, 99)))
    keypoints = (g.random((n, 2)) * [w, h] - 0.5).astype(np.float32)
    strength = g.integers(1, 5, n).astype(np.float32)  # many ties
    oris = (g.integers(-3, 4, n) / 2).astype(np.float32)
    radius = data.draw(st.integers(0, 3))
    kept = filter_dog_point(keypoints, strength, oris, (h, w), radius)
    assert kept.tolist() == plain_filter(keypoints, strength, oris, (h, w), radius)


def test_without_the_filter_a_place_may_have_several_orientations(image):
    several, one, sparse = (
        SIFT(nms_radius=radius).extract(image, resize=None)["keypoints"][0] for radius in (None, 0, 5)
    )
    assert len(several.unique(dim=0)) < len(several)
    assert len(one.unique(dim=0)) == len(one) < len(several)
    # A pixel of the resized image (1024) is a third of one here.
    distance = (sparse[:, None] - sparse).abs().amax(dim=-1).fill_diagonal_(1e9)
    assert len(sparse) > 100
    assert distance.min() > 5 * 319 / 1024 - 1


def test_the_strongest_are_kept_where_there_are_too_many(image):
    every = SIFT(max_num_keypoints=None).extract(image, resize=None)
    assert_same(SIFT(max_num_keypoints=10**12).extract(image, resize=None), every)
    for count in (0, 1, 50):
        scores = SIFT(max_num_keypoints=count).extract(image, resize=None)["keypoint_scores"]
        assert scores.shape[1] <= count
        assert (scores > every["keypoint_scores"].quantile(0.9)).all()


@pytest.mark.parametrize(
    ("name", "low", "high"), [("detection_threshold", 0.001, 0.1), ("edge_threshold", 30, 3), ("num_octaves", 5, 2)]
)
def test_thresholds_and_layers_change_the_number_of_keypoints(image, name, low, high):
    counts = [SIFT(**{name: value}).extract(image, resize=None)["keypoints"].shape[1] for value in (low, high)]
    assert counts[0] > counts[1] > 0


# Images


def test_gray_images_are_taken_as_they_are_to_the_last_gray_level():
    levels = torch.arange(256).view(1, 1, 16, 16)
    gray, _ = gray_images_in(SIFT(), {"image": levels / 255})
    assert torch.equal((gray * 255).to(torch.uint8), levels.to(torch.uint8))


def test_values_a_little_outside_the_range_are_cut_off_not_wrapped(image):
    bright = image[:1] * 1.6 - 0.3
    assert bright.min() < -0.1
    assert bright.max() > 1.1
    assert_same(SIFT().extract(bright, resize=None), SIFT().extract(bright.clamp(0, 1), resize=None))


def test_a_batch_and_a_list_give_what_each_image_gives_alone(image):
    extractor = SIFT(max_num_keypoints=30, nms_radius=None)
    images = [image, image.roll(40, -1), image[:, :90, :120]]
    alone = [extractor.extract(one, resize=None) for one in images]
    for found, expected in zip(extractor.extract(images, resize=None), alone, strict=True):
        assert_same(found, expected)
    twice = extractor.extract(torch.stack([image, image]), resize=None)
    for i in (0, 1):
        assert_same({key: value[i : i + 1] for key, value in twice.items()}, alone[0])


def test_a_batch_with_unequal_numbers_names_the_list_form(image):
    with pytest.raises(InputError, match="unequal numbers of keypoints.*give a list"):
        SIFT().extract(torch.stack([image, image.flip(-1) / 2]), resize=None)


def test_padding_is_cut_off(image):
    padded = torch.nn.functional.pad(image, (0, 37, 0, 11), value=1)[None]
    found = SIFT()({"image": padded, "image_size": torch.tensor([[320.0, 219.0]])})
    assert_same(found, SIFT()({"image": image[None]}))


@pytest.mark.parametrize("backend", ["opencv", "pycolmap_cpu"])
@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 300), (2, 2), (5, 40), (16, 16), (17, 2000)])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiny_and_thin_images_give_valid_features(backend, h, w, channels):
    if backend != "opencv":
        pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install 'lightglue[sift]'")
    found = SIFT(backend=backend).extract(torch.rand(channels, h, w), resize=None)
    n = found["keypoints"].shape[1]
    assert found["descriptors"].shape == (1, n, 128)
    assert found["scales"].shape == found["oris"].shape == (1, n)
    assert ((found["keypoints"] >= -0.5) & (found["keypoints"] < torch.tensor([w, h]) - 0.5)).all()


def test_a_flat_image_has_no_keypoints():
    found = SIFT().extract(torch.full((3, 60, 80), 0.5), resize=None)
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "keypoints": (1, 0, 2),
        "scales": (1, 0),
        "oris": (1, 0),
        "keypoint_scores": (1, 0),
        "descriptors": (1, 0, 128),
        "image_size": (1, 2),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.bool])
def test_other_dtypes_are_cast(image, dtype):
    found = SIFT().extract(image.to(dtype), resize=None)
    assert all(value.dtype == torch.float32 for value in found.values())


def test_it_has_no_weights_and_can_be_moved_copied_and_pickled(image):
    extractor = SIFT(max_num_keypoints=20).eval().to("cpu").half()
    assert not extractor.state_dict()
    expected = extractor.extract(image, resize=None)
    for other in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        assert_same(other.extract(image, resize=None), expected)
    assert not extractor.extract(image.requires_grad_(), resize=None)["descriptors"].requires_grad
    image.requires_grad_(False)


# Options


def test_the_published_defaults():
    assert SIFT.default_conf == {
        "rootsift": True,
        "nms_radius": 0,
        "max_num_keypoints": 4096,
        "backend": "opencv",
        "detection_threshold": 0.0066667,
        "edge_threshold": 10,
        "first_octave": -1,
        "num_octaves": 4,
    }
    assert SIFT.preprocess_conf == {"resize": 1024}
    assert SIFT.required_data_keys == ["image"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rootsift", 1), ("rootsift", None), ("nms_radius", -1), ("nms_radius", 0.5), ("max_num_keypoints", -1),
        ("max_num_keypoints", 2.5), ("max_num_keypoints", True), ("backend", "vlfeat"), ("backend", None),
        ("backend", "OpenCV"), ("detection_threshold", float("inf")), ("detection_threshold", "0.1"),
        ("edge_threshold", float("nan")), ("edge_threshold", None), ("first_octave", -2), ("first_octave", 0.5),
        ("num_octaves", 0), ("num_octaves", -4), ("num_octaves", None),
    ],
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused_by_name_and_value(name, value):
    with pytest.raises(InputError) as refused:
        SIFT(**{name: value})
    assert f"{name} is {value!r}" in str(refused.value)


def test_conf_is_checked_again_at_each_call(image):
    extractor = SIFT()
    with pytest.raises(dataclasses.FrozenInstanceError):
        extractor.options().backend = "opencv"
    extractor.conf.num_octaves = 0
    with pytest.raises(InputError, match="num_octaves is 0"):
        extractor.extract(image, resize=None)


def test_unknown_options_warn_with_the_nearest_name(image):
    with pytest.warns(UserWarning, match="SIFT ignores.*'max_keypoints'; did you mean 'max_num_keypoints'") as record:
        SIFT(max_keypoints=3)
    assert record[0].filename == __file__
    with pytest.warns(UserWarning, match=r"SIFT.extract ignores.*'rezise'; did you mean 'resize'") as record:
        SIFT().extract(image, rezise=64)
    assert record[0].filename == __file__


def test_an_image_is_resized_once(image, monkeypatch):
    calls = []
    for module, name in ((base, "resize_tensor"), (sift, "shrink_exactly")):
        real = getattr(module, name)

        def counted(*args, name=name, real=real, **kwargs):
            calls.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)
    size = max(image.shape)
    for resize in (size // 2, size, 2 * size, None):
        SIFT().extract(image, resize=resize)
    SIFT().extract(image, resize=size // 2, antialias=False)
    assert calls == ["shrink_exactly"] + 4 * ["resize_tensor"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 0, 5), "not empty"),
        (torch.zeros(8, 8, 3), r"permute \(H, W, C\) to \(C, H, W\)"),
        (torch.full((1, 8, 8), float("inf")), "infinite"),
        (np.zeros((8, 8), np.uint8), "is a ndarray.*numpy_image_to_torch"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(InputError, match=message):
        SIFT().extract(image, resize=None)


def test_values_out_of_range_are_worth_a_warning():
    with pytest.warns(UserWarning, match="from 200 to 200, not in .0, 1."):
        SIFT().extract(torch.full((3, 8, 8), 200.0))


# COLMAP


@pytest.fixture
def pycolmap() -> Any:
    return pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install 'lightglue[sift]'")


@pytest.mark.parametrize("backend", ["pycolmap", "pycolmap_cpu"])
def test_colmap_finds_what_opencv_finds(backend, image, pycolmap):
    """The same places (but for OpenCV's 1/4 px), orientations and descriptors; scales half as large, no scores."""
    opencv = SIFT(max_num_keypoints=None, nms_radius=None).extract(image, resize=None)
    colmap = SIFT(max_num_keypoints=None, nms_radius=None, backend=backend).extract(image, resize=None)
    assert colmap.keys() == opencv.keys() - {"keypoint_scores"}
    assert colmap["oris"].min() < -3
    assert colmap["oris"].max() < 3.15

    here, there = ({key: value[0] for key, value in features.items()} for features in (colmap, opencv))
    turn = (here["oris"][:, None] - there["oris"] + torch.pi) % (2 * torch.pi) - torch.pi
    size = (2 * here["scales"][:, None] / there["scales"]).log()
    cost = torch.cdist(here["keypoints"] + 0.25, there["keypoints"]) + 3 * turn.abs() + 3 * size.abs()
    closest, partner = cost.min(dim=1)
    same = closest < 0.6
    assert same.sum() > 150
    alike = (here["descriptors"] * there["descriptors"][partner]).sum(dim=1)[same]
    assert alike.median() > 0.98
    shift = (there["keypoints"][partner] - here["keypoints"])[same].median(dim=0).values
    torch.testing.assert_close(shift, torch.tensor([0.25, 0.25]), atol=0.06, rtol=0)


def test_colmaps_largest_keypoints_are_kept(image, pycolmap):
    found = SIFT(backend="pycolmap_cpu", max_num_keypoints=40).extract(image, resize=None)
    every = SIFT(backend="pycolmap_cpu", max_num_keypoints=None).extract(image, resize=None)
    assert found["scales"].shape == (1, 40)
    assert found["scales"].min() > every["scales"].median()
    assert SIFT(backend="pycolmap_cpu", max_num_keypoints=0).extract(image, resize=None)["keypoints"].shape == (1, 0, 2)


def test_colmaps_descriptors_have_about_unit_length_without_rootsift(image, pycolmap):
    raw = SIFT(backend="pycolmap_cpu", rootsift=False).extract(image, resize=None)["descriptors"]
    torch.testing.assert_close(raw.norm(dim=-1), torch.ones(raw.shape[:2]), atol=0.03, rtol=0)


def test_colmap_starts_at_the_octave_that_is_asked_for(image, pycolmap):
    doubled, full = (
        SIFT(backend="pycolmap_cpu", first_octave=o).extract(image, resize=None)["scales"] for o in (-1, 0)
    )
    assert doubled.shape[1] > 1.5 * full.shape[1]
    assert doubled.min() < 1.5 < full.min()


@pytest.mark.parametrize("name", ["detection_threshold", "edge_threshold"])
def test_colmap_takes_positive_thresholds_only(name):
    with pytest.raises(InputError, match=f"{name} is 0; pycolmap takes positive numbers only"):
        DogConfig(backend="pycolmap", **{name: 0})
    assert getattr(DogConfig(**{name: -1}), name) == -1  # as glue-factory gives OpenCV


@pytest.mark.parametrize(
    ("module", "backend", "message"),
    [
        (None, "pycolmap", r"backend='pycolmap' needs pycolmap: pip install 'lightglue\[sift\]'"),
        ({"__version__": "3.12.6"}, "pycolmap_cpu", r"pycolmap 3.12.6 is too old: pip install --upgrade"),
        ({"FeatureExtractor": 0, "has_cuda": False}, "pycolmap_cuda", "without CUDA: pip install pycolmap-cuda12"),
    ],
)
def test_a_back_end_that_cannot_run_is_refused_with_the_command_that_helps(monkeypatch, module, backend, message):
    stub = None if module is None else types.SimpleNamespace(**module)
    monkeypatch.setitem(sys.modules, "pycolmap", stub)
    with pytest.raises(InputError, match=message):
        SIFT(backend=backend)


# Together with the matcher


def test_features_go_through_lightglue(image):
    torch.manual_seed(0)
    state = LightGlueNetwork(LightGlueConfig(n_layers=2, input_dim=128, add_scale_ori=True)).state_dict()
    matcher = LightGlue(features="sift", weights=state, n_layers=2, filter_threshold=0).eval()
    extractor = SIFT(max_num_keypoints=100).eval()
    features = [extractor.extract(one, resize=None) for one in (image, image.flip(-1))]
    matches = matcher({"image0": features[0], "image1": features[1]})
    assert matches["matches0"].shape == features[0]["scales"].shape
    assert len(matches["matches"][0]) > 0
    nothing = extractor.extract(torch.zeros(1, 40, 40))
    assert matcher({"image0": features[0], "image1": nothing})["matches"][0].shape == (0, 2)
