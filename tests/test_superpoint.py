"""SuperPoint: its network against plain formulas, both checkpoint layouts, and what callers rely on."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue import InputError, LightGlue, SuperPoint, WeightsError, load_image, weights
from lightglue.extractors.superpoint_network import ROWS, SuperPointNetwork
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.network import LightGlueNetwork
from lightglue.weights import locate, table
from support import ASSETS

CHANNELS = (6, 8, 10, 12, 16)  # of a small network
SMALL: dict[str, Any] = {"channels": CHANNELS, "descriptor_dim": 20}


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that keep a signal's size, so that all scores and descriptors differ."""
    g = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if value.ndim == 4:
            value.copy_(torch.randn(value.shape, generator=g) * (2 / value[0].numel()) ** 0.5)
        elif value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=g) + (0.5 if "running_var" in key or "bn" in key else -0.5))
    return network.eval()


def small_state(seed: int = 0) -> dict[str, Tensor]:
    return seeded(SuperPointNetwork(CHANNELS, 20), seed).state_dict()


def small(**conf: Any) -> SuperPoint:
    return SuperPoint(weights=small_state(), **{**SMALL, "detection_threshold": 0, **conf})


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A photograph (3, 175, 256); neither side is a multiple of 8 px, and the map has more rows than a strip."""
    image = load_image(ASSETS / "montmartre_close.jpg", resize=256)[:, :, :253]
    assert image.shape[1] > ROWS
    return image


def assert_same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for key in found:
        torch.testing.assert_close(found[key], expected[key], atol=tolerance, rtol=tolerance)


# The network


@pytest.fixture(scope="module")
def published(random_weights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dict, and input and outputs, of the published code with seeded weights."""
    arrays = {key: torch.from_numpy(value).float() for key, value in random_weights("superpoint_random").items()}
    state = {key.removeprefix("w/"): value for key, value in arrays.items() if key.startswith("w/")}
    return state, arrays


def test_logits_and_dense_descriptors_equal_the_published_ones(published):
    state, arrays = published
    with torch.no_grad():
        logits, dense = SuperPoint(weights=state).network(arrays["image"][None])
    # The random weights make values of up to 1,500, and the stored logits lie 1.3e-3 from what float64 gives: float32
    # agrees to so many parts of the greatest, not to an absolute difference that holds on one kind of CPU only.
    for found, name, rtol in ((logits, "logits", 1e-5), (dense, "dense_descriptors", 1e-3)):  # these stored as float16
        scale = float(arrays[name].abs().max())
        torch.testing.assert_close(found, arrays[name], atol=2e-6 * scale, rtol=rtol)


def test_keypoints_scores_and_descriptors_equal_the_published_ones(published):
    """The published 256 all have score 1, as have more than a thousand pixels: which 256 is up to the sorting."""
    state, arrays = published
    extractor = SuperPoint(weights=state, detection_threshold=0)
    found = {key: value[0] for key, value in extractor.extract(arrays["image"], resize=None).items()}
    places = {tuple(xy): index for index, xy in enumerate(found["keypoints"].tolist())}
    indices = [places[tuple(xy)] for xy in arrays["out_keypoints"][0].tolist()]
    for key in ("keypoint_scores", "descriptors"):
        torch.testing.assert_close(found[key][indices], arrays[f"out_{key}"][0], atol=1e-5, rtol=0)

    extractor.conf.max_num_keypoints = 256
    best = extractor.extract(arrays["image"], resize=None)
    assert best["keypoints"].shape == (1, 256, 2)
    assert (best["keypoint_scores"] == 1).all()


def plain_features(state: dict[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (H', W') and descriptors at every pixel (H', W', D) of a gray image (H, W), formula by formula."""

    def conv(name: str, x: Tensor) -> Tensor:
        weight = state[f"conv{name}.weight"]
        return F.conv2d(x, weight, state[f"conv{name}.bias"], padding=weight.shape[-1] // 2)

    x = image[None, None]
    for name in ("1a", "1b", "pool", "2a", "2b", "pool", "3a", "3b", "pool", "4a", "4b"):
        x = F.max_pool2d(x, 2) if name == "pool" else conv(name, x).relu()
    cells = conv("Pb", conv("Pa", x).relu())[0].softmax(dim=0)
    h, w = cells.shape[1:]
    rows = [[cells[y % 8 * 8 + x % 8, y // 8, x // 8] for x in range(8 * w)] for y in range(8 * h)]
    scores = torch.stack([torch.stack(row) for row in rows])
    dense = F.normalize(conv("Db", conv("Da", x).relu()), dim=1)
    # The published sampling, on a grid whose corners are the outermost cells' middles.
    across, down = ((torch.arange(8 * n) - 3.5) / (8 * n - 4.5) * 2 - 1 for n in (w, h))
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
    sampled = F.grid_sample(dense, grid[None], align_corners=True)[0]
    return scores, F.normalize(sampled, dim=0).permute(1, 2, 0)


def test_the_extractor_equals_plain_formulas(image):
    gray = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    with torch.no_grad():
        scores, descriptors = plain_features(small_state(), gray)
    assert scores.shape == (168, 248)  # whole cells only
    found = small().extract(image, resize=None)
    x, y = found["keypoints"][0].long().T
    assert len(x) > 300
    torch.testing.assert_close(found["keypoint_scores"][0], scores[y, x], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["descriptors"][0], descriptors[y, x], atol=1e-5, rtol=0)

    # A keypoint is the largest score in its window or, if not suppressed, in what larger ones leave of it.
    window = F.max_pool2d(scores[None], 9, stride=1, padding=4)[0]
    maxima = (scores == window)[4:-4, 4:-4].nonzero() + 4
    places = set(map(tuple, found["keypoints"][0].long().flip(1).tolist()))
    assert set(map(tuple, maxima.tolist())) <= places


def test_a_cell_without_keypoint_shares_its_probability_with_none():
    network = SuperPointNetwork(CHANNELS, 20)
    logits = torch.zeros(1, 65, 1, 2)
    logits[0, 64, 0, 0] = 50.0  # the first cell has none; the second knows nothing
    scores = network.scores(logits)[0, 0]
    assert scores.shape == (8, 16)
    assert (scores[:, :8] < 1e-20).all()
    torch.testing.assert_close(scores[:, 8:], torch.full((8, 8), 1 / 65))


# The layout of the open re-implementation (github.com/rpautrat/SuperPoint)


def block(before: int, after: int, kernel: int, active: bool = True) -> nn.Module:
    layers = {"conv": nn.Conv2d(before, after, kernel, padding=kernel // 2)}
    layers |= {"activation": nn.ReLU() if active else nn.Identity(), "bn": nn.BatchNorm2d(after, eps=1e-3)}
    return nn.Sequential(OrderedDict(layers))


class OpenLayout(nn.Module):
    """The open re-implementation's modules under its names."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, head = CHANNELS
        pairs = [nn.Sequential(block(n, m, 3), block(m, m, 3)) for n, m in ((1, a), (a, b), (b, c), (c, d))]
        self.backbone = nn.Sequential(*(p.append(nn.MaxPool2d(2)) for p in pairs[:-1]), pairs[-1])
        self.detector = nn.Sequential(block(d, head, 3), block(head, 65, 1, active=False))
        self.descriptor = nn.Sequential(block(d, head, 3), block(head, 20, 1, active=False))


def test_the_open_layout_is_recognised_and_computed_as_its_own_modules_do(image):
    theirs = seeded(OpenLayout())
    ours = SuperPoint(weights=theirs.state_dict(), **SMALL, detection_threshold=0, max_num_keypoints=200)
    gray = image.mean(dim=0)[None, None]
    with torch.no_grad():
        encoded = theirs.backbone(gray)
        logits, dense = ours.network(gray)
        torch.testing.assert_close(logits, theirs.detector(encoded), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(dense, theirs.descriptor(encoded), atol=1e-4, rtol=1e-4)
        found = ours.extract(gray[0], resize=None)
        h, w = dense.shape[-2:]
        grid = (found["keypoints"] + 0.5) / torch.tensor([8 * w, 8 * h]) * 2 - 1
        sampled = F.grid_sample(F.normalize(dense, dim=1), grid[:, None], align_corners=False)[0, :, 0]
    torch.testing.assert_close(found["descriptors"][0], F.normalize(sampled, dim=0).T, atol=1e-4, rtol=0)


def test_an_open_checkpoint_without_batch_counters_loads(image):
    state = {k: v for k, v in seeded(OpenLayout()).state_dict().items() if not k.endswith("num_batches_tracked")}
    assert SuperPoint(weights=state, **SMALL).extract(image, resize=None)["descriptors"].shape[-1] == 20


# Options, order, number


def test_the_published_defaults():
    assert SuperPoint.default_conf == {
        "descriptor_dim": 256,
        "nms_radius": 4,
        "max_num_keypoints": None,
        "detection_threshold": 0.0005,
        "remove_borders": 4,
        "channels": (64, 64, 128, 128, 256),
    }
    assert SuperPoint.preprocess_conf == {"resize": 1024}
    assert SuperPoint.required_data_keys == ["image"]


def test_without_a_limit_keypoints_are_in_raster_order_and_above_the_threshold(image):
    every = small().extract(image, resize=None)
    threshold = every["keypoint_scores"].median().item()
    found = small(detection_threshold=threshold).extract(image, resize=None)
    x, y = found["keypoints"][0].T
    assert (y * 1000 + x).diff().min() > 0
    assert found["keypoint_scores"].min() > threshold
    assert found["keypoints"].shape[1] == (every["keypoint_scores"] > threshold).sum()
    assert_same(small(max_num_keypoints=10**6).extract(image, resize=None), every)


def test_the_best_keypoints_come_best_first(image):
    every = small().extract(image, resize=None)
    best = small(max_num_keypoints=50).extract(image, resize=None)
    order = every["keypoint_scores"][0].sort(descending=True, stable=True).indices[:50]
    assert torch.equal(best["keypoints"][0], every["keypoints"][0, order])
    assert torch.equal(best["descriptors"][0], every["descriptors"][0, order])


def test_ties_go_by_position(image):
    state = small_state()
    state["convPb.weight"].zero_()  # every cell then has the same scores
    extractor = SuperPoint(weights=state, **SMALL, nms_radius=0, max_num_keypoints=100)
    best = extractor.extract(image[:, :64, :64], resize=None)
    x, y = best["keypoints"][0].T
    assert best["keypoint_scores"].unique().numel() < 10
    for score in best["keypoint_scores"].unique():
        assert ((y * 64 + x)[best["keypoint_scores"][0] == score].diff() > 0).all()


@pytest.mark.parametrize("radius", [0, 1, 4, 10_000])
def test_no_keypoint_has_a_larger_one_within_the_suppression_radius(image, radius):
    found = small(nms_radius=radius).extract(image[:, :64, :96], resize=None)
    keypoints = found["keypoints"][0]
    distance = (keypoints[:, None] - keypoints).abs().amax(dim=-1).fill_diagonal_(1e9)
    assert len(keypoints) > 0
    assert distance.min() > radius


@pytest.mark.parametrize(("border", "width"), [(4, 4), (20, 20), (0, 0), (None, 0)])
def test_no_keypoint_lies_in_the_border_of_the_whole_cells(image, border, width):
    found = small(remove_borders=border, nms_radius=1).extract(image, resize=None)["keypoints"][0]
    limits = torch.tensor([248, 168]) - 1 - width
    assert (found >= width).all()
    assert (found <= limits).all()
    assert found.min() <= width + 3  # and not in a wider one either


def test_a_negative_threshold_is_none(image):
    assert_same(small(detection_threshold=-1).extract(image, resize=None), small().extract(image, resize=None))


def test_keypoints_are_in_pixels_of_the_original(image):
    extractor = small(max_num_keypoints=30)
    enlarged = F.interpolate(image[None], scale_factor=2, mode="nearest")[0]
    found = extractor.extract(enlarged, resize=(175, 253), antialias=False, interpolation="nearest")
    expected = extractor.extract(image, resize=None)
    torch.testing.assert_close(found["keypoints"], (expected["keypoints"] + 0.5) * 2 - 0.5)
    assert found["image_size"].tolist() == [[506, 350]]


# Images


def test_colour_is_reduced_to_brightness_and_gray_is_taken_as_it_is(image):
    extractor = small(max_num_keypoints=40)
    weighted = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
    assert_same(extractor.extract(image, resize=None), extractor.extract(weighted, resize=None))


def test_a_batch_and_a_list_give_what_each_image_gives_alone(image):
    extractor = small(max_num_keypoints=60)
    images = [image, image.flip(-1), image[:, :80, :120]]
    alone = [extractor.extract(one, resize=None) for one in images]
    for found, expected in zip(extractor.extract(images, resize=None), alone, strict=True):
        assert_same(found, expected)
    batch = extractor.extract(torch.stack(images[:2]), resize=None)
    for i in (0, 1):
        assert_same({key: value[i : i + 1] for key, value in batch.items()}, alone[i], tolerance=1e-4)


def test_a_batch_with_unequal_numbers_names_the_list_form(image):
    with pytest.raises(InputError, match="unequal numbers of keypoints.*give a list"):
        small().extract(torch.stack([image, torch.rand_like(image)]), resize=None)


def test_no_keypoint_lies_in_the_padding(image):
    padded = F.pad(image, (0, 40, 0, 60), value=0.5)[None]
    found = small()({"image": padded, "image_size": torch.tensor([[253, 175]])})["keypoints"][0]
    assert len(found) > 100
    assert (found < torch.tensor([249, 171])).all()


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 300), (7, 7), (8, 8), (8, 9), (5, 40), (16, 16), (17, 2000)])
@pytest.mark.parametrize("border", [0, 4])
def test_tiny_and_thin_images_give_valid_features(h, w, border):
    tiny = torch.rand(3, h, w, generator=torch.Generator().manual_seed(0))
    found = small(remove_borders=border).extract(tiny, resize=None)
    n = found["keypoints"].shape[1]
    assert found["descriptors"].shape == (1, n, 20)
    assert found["keypoint_scores"].shape == (1, n)
    assert (n > 0) == (border == 0 or min(h, w) > 8)
    assert ((found["keypoints"] >= 0) & (found["keypoints"] < torch.tensor([w, h]))).all()
    torch.testing.assert_close(found["descriptors"].norm(dim=-1), torch.ones(1, n))


def test_an_image_below_the_threshold_has_no_keypoints(image):
    found = small(detection_threshold=1).extract(image, resize=None)
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "keypoints": (1, 0, 2),
        "keypoint_scores": (1, 0),
        "descriptors": (1, 0, 20),
        "image_size": (1, 2),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bool])
def test_images_are_cast_to_the_models_dtype(image, dtype):
    found = small(max_num_keypoints=10).extract(image.to(dtype), resize=None)
    assert all(value.dtype == torch.float32 for value in found.values())


def test_gradients_reach_the_network_through_forward_but_not_through_extract(image):
    extractor = small(max_num_keypoints=10)
    features = extractor({"image": image[None]})
    (features["descriptors"][..., 0].sum() + features["keypoint_scores"].sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in extractor.parameters())
    assert not extractor.extract(image, resize=None)["descriptors"].requires_grad


# Bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nms_radius", -1), ("nms_radius", 1.5), ("nms_radius", None), ("nms_radius", True),
        ("max_num_keypoints", 0), ("max_num_keypoints", -1), ("max_num_keypoints", "all"),
        ("detection_threshold", float("nan")), ("detection_threshold", None), ("detection_threshold", "low"),
        ("remove_borders", -4), ("remove_borders", 2.5), ("descriptor_dim", 0), ("descriptor_dim", None),
        ("channels", 64), ("channels", ()), ("channels", (64,)), ("channels", (8, 8, 0)), ("channels", "64"),
    ],
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused_by_name_and_value(name, value):
    with pytest.raises(InputError, match=name) as refused:
        small(**{name: value})
    assert repr(value) in str(refused.value) or name == "channels"


def test_conf_is_checked_again_at_each_call(image):
    extractor = small()
    with pytest.raises(dataclasses.FrozenInstanceError):
        extractor.options().nms_radius = 3
    extractor.conf.nms_radius = -3
    with pytest.raises(InputError, match="nms_radius is -3"):
        extractor.extract(image, resize=None)


def test_an_unknown_option_warns_with_the_nearest_name():
    with pytest.warns(UserWarning, match="SuperPoint ignores.*'max_keypoints'; did you mean 'max_num_keypoints'"):
        small(max_keypoints=3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 0, 5), "not empty"),
        (torch.zeros(4, 8, 8), "4 channels"),
        (torch.zeros(8, 8), "give .C, H, W."),
        (torch.full((3, 8, 8), float("nan")), "NaN"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "uint8"),
        ("photo.jpg", "is a str"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(InputError, match=message):
        small().extract(image, resize=None)


def test_values_out_of_range_are_worth_a_warning():
    with pytest.warns(UserWarning, match="from 200 to 200, not in .0, 1."):
        small().extract(torch.full((3, 8, 8), 200.0))


def test_forward_wants_a_dictionary_with_a_batch(image):
    with pytest.raises(InputError, match=r"SuperPoint takes .*use SuperPoint.extract"):
        small()(image)
    with pytest.raises(InputError, match="give a tensor .B, C, H, W."):
        small()({"image": image})


# Weights


def test_the_state_dict_has_the_published_keys_and_loads_back():
    extractor = small()
    state = extractor.state_dict()
    assert state.keys() == small_state().keys()
    other = small_state(seed=1)
    extractor.load_state_dict(other)
    assert all(torch.equal(extractor.state_dict()[key], other[key]) for key in other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("convPb.bias"), "missing: convPb.bias"),
        (lambda s: s.update({"convZ.weight": torch.zeros(1)}), "unexpected: convZ.weight"),
        (lambda s: s.update({"conv1a.bias": torch.zeros(3)}), r"wrong shape: conv1a.bias is \(3,\), not \(6,\)"),
        (lambda s: s["conv3b.weight"].fill_(float("nan")), "not finite: conv3b.weight"),
        (lambda s: s.clear(), "missing: conv1a.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message):
    state = small_state()
    change(state)
    with pytest.raises(WeightsError, match=message):
        SuperPoint(weights=state, **SMALL)


def test_an_open_checkpoint_that_does_not_fit_is_refused():
    state = seeded(OpenLayout()).state_dict()
    state["detector.2.conv.weight"] = state.pop("detector.0.conv.weight")
    with pytest.raises(WeightsError, match=r"missing: convPa.weight\n.*unexpected: detector.2.conv.weight"):
        SuperPoint(weights=state, **SMALL)


def test_weights_for_other_channels_are_refused():
    with pytest.raises(WeightsError, match=r"wrong shape: conv1a.weight is \(6, 1, 3, 3\), not \(64, 1, 3, 3\)"):
        SuperPoint(weights=small_state())


def test_own_weights_come_from_a_file_too(tmp_path: Path, image):
    torch.save(small_state(), tmp_path / "own.pth")
    found = SuperPoint(weights=tmp_path / "own.pth", **SMALL, detection_threshold=0).extract(image, resize=None)
    assert_same(found, small().extract(image, resize=None))


def test_the_published_file_is_found_in_the_cache_with_a_licence_notice(tmp_path: Path, monkeypatch):
    file = tmp_path / "superpoint_v1.pth"
    torch.save(small_state(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    record = dataclasses.replace(weights.FILES["superpoint_v1"], sha256=digest, size=file.stat().st_size)
    monkeypatch.setattr(table, "FILES", {"superpoint_v1": record})
    monkeypatch.setattr(locate, "_noticed", set())
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path))
    with pytest.warns(weights.LicenceNotice, match="superpoint_v1 may not be used commercially"):
        SuperPoint(**SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once a process
        SuperPoint(**SMALL)
    with pytest.raises(WeightsError, match="superpoint_v1 is refused: only weights that may be used commercially"):
        SuperPoint(**SMALL, commercial_only=True)


def test_without_the_file_there_are_no_random_weights(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path))
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"LIGHTGLUE_OFFLINE is set. Download .* save it as .*superpoint_v1.pth"):
        SuperPoint()


# Together with the matcher


def test_the_readmes_import_line():
    from lightglue import ALIKED, DISK, SIFT, DoGHardNet, LightGlue, SuperPoint
    from lightglue.utils import load_image, rbd

    assert all(issubclass(c, torch.nn.Module) for c in (ALIKED, DISK, SIFT, DoGHardNet, LightGlue, SuperPoint))
    assert callable(load_image)
    assert rbd({"keypoints": [1]}) == {"keypoints": 1}


def test_features_go_through_lightglue(image):
    torch.manual_seed(0)
    state = LightGlueNetwork(LightGlueConfig(n_layers=2)).state_dict()
    matcher = LightGlue(features="superpoint", weights=state, n_layers=2, filter_threshold=0).eval()
    wide = seeded(SuperPointNetwork(CHANNELS, 256)).state_dict()
    extractor = SuperPoint(weights=wide, channels=CHANNELS, max_num_keypoints=80).eval()
    features = [extractor.extract(one, resize=None) for one in (image, image.flip(-1))]
    matches = matcher({"image0": features[0], "image1": features[1]})
    assert matches["matches0"].shape == (1, 80)
    assert len(matches["matches"][0]) > 0
