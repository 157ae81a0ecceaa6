"""XFeat and LighterGlue: the published features and matches, fast paths against plain ones, what callers rely on."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import cv2
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue import LightGlue, WeightsError, XFeat, load_image, weights
from lightglue.extractors import xfeat_fast
from lightglue.extractors.xfeat_network import CELL, XFeatNetwork, cells_at, normalize
from lightglue.matching.inputs import normalize_keypoints
from support import ASSETS, PAIRS

# The tolerances of the reference's README.
PIXELS, SHARE, DESCRIPTORS, SCORES = 0.01, 0.995, 1e-3, 1e-3


@pytest.fixture(scope="module")
def model() -> XFeat:
    return XFeat()


@pytest.fixture
def xfeat(model: XFeat) -> XFeat:
    model.conf = type(model.conf)(**XFeat.default_conf)
    return model


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A photograph (3, 219, 320), of which one side is no multiple of 32 px."""
    return load_image(ASSETS / "montmartre_close.jpg", resize=320)


def plain(extractor: XFeat) -> XFeat:
    """A copy that runs the network's own `forward`, since that has a hook."""
    other = copy.deepcopy(extractor)
    other.network.register_forward_hook(lambda *_: None)
    assert not xfeat_fast.is_foldable(other.network)
    return other


def assert_same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for key in found:
        torch.testing.assert_close(found[key], expected[key], atol=tolerance, rtol=tolerance)


# What is published


def published_image(arrays: dict[str, Any], pair: str, i: int) -> Tensor:
    """The image (3, H, W) that the published features were found in."""
    if "image" in arrays:
        return torch.from_numpy(arrays["image"]).float() / 255
    file = cv2.imread(str(ASSETS / str(PAIRS[pair][i])))[..., ::-1]  # the features in the project are without it
    half = cv2.resize(file, tuple(arrays["image_size"].tolist()), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(half.transpose(2, 0, 1)).float() / 255


@pytest.mark.parametrize("path", ["fast", "plain"])
@pytest.mark.parametrize("i", [0, 1])
@pytest.mark.parametrize("pair", PAIRS)
def test_features_equal_the_published_ones(pair: str, i: int, path: str, reference: Any, xfeat: XFeat) -> None:
    arrays = reference(f"xfeat_{pair}_{i}")
    published = {key: torch.from_numpy(arrays[key]).float() for key in ("keypoints", "scores", "descriptors")}
    xfeat.conf.max_num_keypoints = 512
    extractor = xfeat if path == "fast" else plain(xfeat)
    found = extractor.extract(published_image(arrays, pair, i), resize=None)
    assert found["image_size"].tolist() == [arrays["image_size"].tolist()]
    assert found["keypoints"].shape == (1, 512, 2)
    distance, index = torch.cdist(published["keypoints"].double(), found["keypoints"][0].double()).min(dim=1)
    same = distance < PIXELS
    assert same.float().mean() >= SHARE
    for key, name, tolerance in (
        ("keypoint_scores", "scores", SCORES),
        ("descriptors", "descriptors", DESCRIPTORS),
    ):
        assert (found[key][0][index] - published[name])[same].abs().max() <= tolerance, key
    assert (index == torch.arange(512)).float().mean() >= 0.98  # best first


@pytest.mark.parametrize("pair", PAIRS)
def test_lighterglue_finds_the_published_matches(pair: str, reference: Any) -> None:
    matcher = LightGlue(features="xfeat").eval()
    matches = matcher(published_pair(reference, pair))["matches"][0]
    expected = reference(f"match_xfeat-lighterglue_{pair}")["r2"]
    assert set(map(tuple, matches.tolist())) == set(map(tuple, expected.tolist()))


def published_pair(reference: Any, pair: str) -> dict[str, dict[str, Tensor]]:
    arrays = {f"image{i}": reference(f"xfeat_{pair}_{i}") for i in (0, 1)}
    keys = ("keypoints", "descriptors", "image_size")
    return {name: {key: torch.from_numpy(a[key])[None].float() for key in keys} for name, a in arrays.items()}


def test_one_head_of_width_96_takes_the_fast_path_as_the_network_says(reference: Any) -> None:
    matcher = LightGlue(features="xfeat", width_confidence=-1, filter_threshold=0).eval()
    pair = published_pair(reference, "montmartre")
    sides = [pair["image0"], pair["image1"]]
    with torch.no_grad():
        positions = [normalize_keypoints(side["keypoints"], side["image_size"])[0] for side in sides]
        expected = matcher.reference(*positions, *(side["descriptors"][0] for side in sides)).exp()
    found = matcher(pair)
    best, index = expected.max(dim=1)
    mutual = expected.max(dim=0).indices[index] == torch.arange(len(index))
    torch.testing.assert_close(found["matching_scores0"][0], best * mutual, atol=SCORES, rtol=0)
    assert torch.equal(found["matches0"][0][mutual], index[mutual])
    assert mutual.sum() > 200


def test_the_preset_is_lighterglue_and_the_users_keywords_win() -> None:
    options = LightGlue(features="xfeat").conf
    assert (options.n_layers, options.num_heads, options.descriptor_dim, options.input_dim) == (6, 1, 96, 64)
    assert (options.depth_confidence, options.width_confidence, options.filter_threshold) == (-1, 0.95, 0.1)
    own = {"depth_confidence": 0.9, "width_confidence": -1, "filter_threshold": 0.2, "n_layers": 4}
    matcher = LightGlue(features="xfeat", num_heads=4, descriptor_dim=256, **own)
    assert {name: getattr(matcher.conf, name) for name in own} == own
    assert (matcher.conf.num_heads, matcher.conf.descriptor_dim) == (1, 96)  # the file's, as for every feature type
    assert len(matcher.transformers) == 4
    with pytest.raises(WeightsError, match="'n_layers': 6"):
        LightGlue(features="xfeat", n_layers=9)


def test_a_saved_lighterglue_is_the_same_again(tmp_path: Any, reference: Any) -> None:
    matcher = LightGlue(features="xfeat", width_confidence=0.8)
    matcher.save(tmp_path / "lighter.safetensors")
    again = LightGlue.load(tmp_path / "lighter.safetensors")
    assert (again.feature_type, again.licence) == ("xfeat", "Apache-2.0")
    assert (again.conf.width_confidence, again.conf.n_layers) == (0.8, 6)
    pair = published_pair(reference, "montmartre")
    assert torch.equal(again(pair)["matches"][0], matcher(pair)["matches"][0])


def test_the_published_defaults() -> None:
    assert XFeat.default_conf == {
        "max_num_keypoints": 4096,
        "detection_threshold": 0.05,
        "nms_radius": 2,
        "mp": False,  # not in the published code
    }
    assert XFeat.preprocess_conf == {"resize": 1024}
    options = XFeat().options()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.nms_radius = 3


# The fast path and the network


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(32, 32), (64, 32), (96, 160)])
def test_the_fast_maps_equal_the_networks(xfeat: XFeat, image: Tensor, size: tuple[int, int], dtype: Any) -> None:
    network = copy.deepcopy(xfeat.network).to(dtype)
    gray = normalize(image.mean(dim=0)[None, None, : size[0], : size[1]].to(dtype))
    features, logits, reliability = network(gray)
    folded = xfeat_fast.fold(network)
    maps = xfeat_fast.encode(folded, gray)
    tolerance = {"atol": 1e-4 if dtype == torch.float32 else 1e-12, "rtol": 0.0}
    torch.testing.assert_close(xfeat_fast.heatmap(folded, gray), network.heatmap(logits)[0, 0], **tolerance)
    # At pixels, between them, on the sides, and outside, where the maps are 0.
    g = torch.Generator().manual_seed(0)
    extent = torch.tensor([size[1] - 1.0, size[0] - 1.0])
    pixels = torch.cat((torch.rand(200, 2, generator=g) * (extent + 8) - 4, torch.zeros(1, 2), extent[None])).to(dtype)
    torch.testing.assert_close(maps.trust(pixels), network.trust(reliability[0], pixels), **tolerance)
    torch.testing.assert_close(maps.describe(pixels), network.describe(features[0], pixels), **tolerance)
    assert maps.describe(pixels).std() > 0.05


@pytest.mark.parametrize("resize", [None, 200])
def test_the_fast_extractor_equals_the_plain_one(xfeat: XFeat, image: Tensor, resize: int | None) -> None:
    xfeat.conf.max_num_keypoints = 300
    found, expected = (each.extract(image, resize=resize) for each in (xfeat, plain(xfeat)))
    assert (found["keypoint_scores"].diff() <= 1e-6).all()
    assert_same(by_place(found), by_place(expected))


def by_place(features: Any) -> Any:
    """Features in the order of their places: that of scores equal but for rounding depends on the processor."""
    places = features["keypoints"][0].round().to(torch.int64)
    order = (places[:, 1] * 100_000 + places[:, 0]).argsort()
    return {name: value if name == "image_size" else value[:, order] for name, value in features.items()}


def test_a_changed_parameter_counts_at_the_next_call(xfeat: XFeat, image: Tensor) -> None:
    xfeat.conf.max_num_keypoints = 100
    other = copy.deepcopy(xfeat)
    first = other.extract(image, resize=None)["descriptors"]
    other.network.block_fusion[2].weight.data.mul_(-1)
    assert not torch.equal(other.extract(image, resize=None)["descriptors"], first)
    assert_same(other.extract(image, resize=None), plain(other).extract(image, resize=None))


def test_another_module_is_taken_from_the_network(xfeat: XFeat, image: Tensor) -> None:
    xfeat.conf.max_num_keypoints = 100
    other = copy.deepcopy(xfeat)
    other.network.block5[3] = nn.Sequential(other.network.block5[3], nn.Tanh())
    assert_same(other.extract(image, resize=None), plain(other).extract(image, resize=None))
    assert not torch.equal(
        other.extract(image, resize=None)["descriptors"], xfeat.extract(image, resize=None)["descriptors"]
    )


def test_the_gradient_reaches_image_and_weights(xfeat: XFeat, image: Tensor) -> None:
    other = copy.deepcopy(xfeat)
    leaf = image[None, :, :64, :64].clone().requires_grad_()
    features = other({"image": leaf})
    (features["descriptors"][..., 0].sum() + features["keypoint_scores"].sum()).backward()
    for tensor in (leaf, other.network.block1[0].layer[0].weight, other.network.keypoint_head[3].weight):
        assert tensor.grad is not None
        assert tensor.grad.abs().max() > 0


@torch.no_grad()
def test_reduced_precision_leaves_keypoints_where_they_are(xfeat: XFeat, image: Tensor) -> None:
    gray = normalize(image.mean(dim=0)[None, None, :192])
    own, reduced = (xfeat_fast.fold(xfeat.network, dtype) for dtype in (None, torch.bfloat16))
    assert torch.equal(xfeat_fast.heatmap(own, gray), xfeat_fast.heatmap(reduced, gray))
    pixels = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 190
    exact, close = (xfeat_fast.encode(folded, gray).describe(pixels) for folded in (own, reduced))
    cosine = (exact * close).sum(dim=-1)
    assert close.dtype == torch.float32
    assert cosine.mean() > 0.999
    assert cosine.min() < 1 - 1e-6  # it is in reduced precision


def test_the_first_and_the_last_pixel_lie_on_the_outer_edges_of_the_cells() -> None:
    ends = torch.tensor([[0.0, 0.0], [63.0, 31.0]])
    assert cells_at(ends, (32, 64)).tolist() == [[-0.5, -0.5], [7.5, 3.5]]


def test_a_cell_without_keypoint_shares_its_probability_with_none() -> None:
    logits = torch.zeros(1, 65, 1, 2)
    logits[0, 64, 0, 0] = 50.0  # the first cell has none; the second knows nothing
    heat = XFeatNetwork().heatmap(logits)[0, 0]
    assert heat.shape == (8, 16)
    assert (heat[:, :8] < 1e-20).all()
    torch.testing.assert_close(heat[:, 8:], torch.full((8, 8), 1 / 65))


def test_an_image_is_normalised_by_itself(image: Tensor) -> None:
    gray = torch.stack((image[:1], 0.2 * image[:1] + 0.7, torch.full_like(image[:1], 0.3)))
    bright, dull, even = normalize(gray)
    torch.testing.assert_close(bright, F.instance_norm(gray)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(bright, dull, atol=0.05, rtol=0)
    assert even.abs().max() < 1e-3


# Options, order, number


def test_the_best_keypoints_come_best_first(xfeat: XFeat, image: Tensor) -> None:
    every = xfeat.extract(image, resize=None)
    scores = every["keypoint_scores"][0]
    assert len(scores) > 200
    assert (scores.diff() <= 0).all()
    xfeat.conf.max_num_keypoints = 50
    best = xfeat.extract(image, resize=None)
    for key in ("keypoints", "keypoint_scores", "descriptors"):
        assert torch.equal(best[key], every[key][:, :50])
    xfeat.conf.max_num_keypoints = None
    assert_same(xfeat.extract(image, resize=None), every)


@pytest.mark.parametrize("limit", [0, 1])
def test_as_few_keypoints_as_one_likes(xfeat: XFeat, image: Tensor, limit: int) -> None:
    xfeat.conf.max_num_keypoints = limit
    found = xfeat.extract(image, resize=None)
    assert found["keypoints"].shape == (1, limit, 2)
    assert found["descriptors"].shape == (1, limit, 64)


def test_ties_go_by_position(xfeat: XFeat, image: Tensor) -> None:
    other = copy.deepcopy(xfeat)
    for layer in (other.network.keypoint_head[3], other.network.heatmap_head[2]):
        nn.init.zeros_(layer.weight)  # all cells are then alike
    other.conf.nms_radius, other.conf.detection_threshold, other.conf.max_num_keypoints = 0, 0, 60
    found = other.extract(image[:, :64, :64], resize=None)
    x, y = found["keypoints"][0].T
    scores = found["keypoint_scores"][0]
    inner = [s for s in scores.unique() if (scores == s).sum() > 1]
    assert inner
    for score in inner:
        assert ((y * 64 + x)[scores == score].diff() > 0).all()


def test_a_threshold_bounds_the_probability_and_none_lets_all_maxima_in(xfeat: XFeat, image: Tensor) -> None:
    xfeat.conf.max_num_keypoints = None
    counts = []
    for threshold in (0.5, 0.2, 0.05, 0, -1):
        xfeat.conf.detection_threshold = threshold
        counts.append(xfeat.extract(image, resize=None)["keypoints"].shape[1])
    assert 0 < counts[0] < counts[1] < counts[2] < counts[3] == counts[4]
    xfeat.conf.detection_threshold = 1.0
    assert xfeat.extract(image, resize=None)["keypoints"].shape == (1, 0, 2)


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_no_two_keypoints_are_within_the_radius(xfeat: XFeat, image: Tensor, radius: int) -> None:
    xfeat.conf.nms_radius, xfeat.conf.detection_threshold = radius, 0
    keypoints = xfeat.extract(image[:, :64, :96], resize=None)["keypoints"][0]
    distance = (keypoints[:, None] - keypoints).abs().amax(dim=-1).fill_diagonal_(1e9)
    assert distance.min() == radius + 1


def test_sides_of_no_multiple_of_32_are_rounded_down_and_keypoints_scaled_back(xfeat: XFeat, image: Tensor) -> None:
    """As published: by the ratio of the sides, without the half pixel."""
    odd = image[:, :90, :100]
    fitted = F.interpolate(odd[None], (64, 96), mode="bilinear", align_corners=False)
    found, expected = xfeat.extract(odd, resize=None), xfeat.extract(fitted, resize=None)
    scales = torch.tensor([100 / 96, 90 / 64])
    torch.testing.assert_close(found["keypoints"], expected["keypoints"] * scales)
    torch.testing.assert_close(found["descriptors"], expected["descriptors"], atol=1e-4, rtol=0)


# Images


def test_colour_is_reduced_to_the_mean_and_gray_is_taken_as_it_is(xfeat: XFeat, image: Tensor) -> None:
    xfeat.conf.max_num_keypoints = 100
    assert_same(xfeat.extract(image, resize=None), xfeat.extract(image.mean(dim=0, keepdim=True), resize=None), 1e-4)


def test_a_padded_image_gives_what_it_gives_alone(xfeat: XFeat, image: Tensor) -> None:
    xfeat.conf.max_num_keypoints, xfeat.conf.detection_threshold = 40, 0
    images = [image[:, :100, :120], image[:, :60, :200], image[:, :20, :30]]
    batch = torch.ones(3, 3, 128, 224)
    for row, one in zip(batch, images, strict=True):
        row[:, : one.shape[1], : one.shape[2]] = one
    sizes = torch.tensor([[one.shape[2], one.shape[1]] for one in images])
    with torch.no_grad():
        found = xfeat({"image": batch[:2], "image_size": sizes[:2]})
        last = xfeat({"image": batch[2:], "image_size": sizes[2:]})
        alone = [xfeat({"image": one[None]}) for one in images]
    for i in (0, 1):
        assert_same({key: value[i : i + 1] for key, value in found.items()}, alone[i])
    assert_same(last, alone[2])


@pytest.mark.parametrize("size", [(31, 31), (20, 64), (64, 20), (8, 8)])
def test_sides_below_32_are_padded_and_the_padding_has_no_keypoints(
    xfeat: XFeat, image: Tensor, size: tuple[int, int]
) -> None:
    xfeat.conf.detection_threshold = 0
    small = image[:, 100 : 100 + size[0], 100 : 100 + size[1]]
    keypoints = xfeat.extract(small, resize=None)["keypoints"][0]
    assert len(keypoints) > 0
    assert (keypoints >= 0).all()
    assert (keypoints <= torch.tensor([size[1] - 1, size[0] - 1])).all()


def test_an_even_image_is_answered(xfeat: XFeat) -> None:
    found = xfeat.extract(torch.full((3, 64, 64), 0.5), resize=None)
    assert all(value.isfinite().all() for value in found.values())


# Describing


@torch.no_grad()
@pytest.mark.parametrize("size", [(219, 320), (192, 320), (25, 40)])
def test_describing_the_extracted_keypoints_gives_their_descriptors(
    xfeat: XFeat, image: Tensor, size: tuple[int, int]
) -> None:
    for one in (image, image.flip(-1)):
        cut = one[:, : size[0], : size[1]]
        features = xfeat({"image": cut[None]})
        for extractor in (xfeat, plain(xfeat)):
            descriptors = extractor.describe(features["keypoints"], cut, resize=None)
            assert descriptors.dtype == torch.float32
            torch.testing.assert_close(descriptors, features["descriptors"], atol=1e-4, rtol=0)


def test_descriptors_at_any_positions_have_length_one(xfeat: XFeat, image: Tensor) -> None:
    corners = torch.tensor([[-0.5, -0.5], [319.5, -0.5], [-0.5, 218.5], [319.5, 218.5], [100.3, 57.9]])
    found = xfeat.describe(corners, image, resize=None)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(1, 5))
    assert xfeat.describe(corners[:0], image).shape == (1, 0, 64)


# Weights


def test_the_state_dict_has_the_published_keys_and_loads_strictly(xfeat: XFeat, image: Tensor) -> None:
    state = weights.load_state_dict("xfeat")
    assert list(xfeat.state_dict()) == list(state)
    assert_same(XFeat(weights=state).extract(image, resize=None), xfeat.extract(image, resize=None))
    without_counters = {key: value for key, value in state.items() if "num_batches" not in key}
    assert_same(XFeat(weights=without_counters).extract(image, resize=None), xfeat.extract(image, resize=None))
    del state["fine_matcher.12.bias"]
    with pytest.raises(WeightsError, match=r"do not fit XFeat:\n  missing: fine_matcher.12.bias"):
        XFeat(weights=state)


def test_lighterglues_file_holds_a_matcher_and_no_xfeat_by_itself() -> None:
    with pytest.raises(WeightsError, match=r"unexpected: extractor\.model\.net"):
        XFeat(weights="xfeat-lighterglue")


def test_cells_have_64_pixels() -> None:
    assert CELL == 8
    assert XFeatNetwork().keypoint_head[3].out_channels == CELL**2 + 1
