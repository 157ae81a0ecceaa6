"""What callers rely on: options, order, batches, lists, padding, describing, saving, the published ways of calling."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from lightglue import ALIKED, DISK, SIFT, InputError, WeightsError, XFeat, load_image, rbd, weights
from lightglue.extractors.base import Extractor
from support import ASSETS
from support.devices import needs_gpu

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A photograph (3, 175, 256)."""
    return load_image(ASSETS / "montmartre_close.jpg", resize=256)


@pytest.fixture(scope="module")
def aliked_model() -> ALIKED:
    return ALIKED(model_name="aliked-t16")


@pytest.fixture(scope="module")
def disk_model() -> DISK:
    return DISK()


@pytest.fixture
def aliked(aliked_model: ALIKED) -> ALIKED:
    aliked_model.conf = type(aliked_model.conf)(**ALIKED.default_conf)
    return aliked_model


@pytest.fixture
def disk(disk_model: DISK) -> DISK:
    disk_model.conf = type(disk_model.conf)(**DISK.default_conf)
    return disk_model


@pytest.fixture(scope="module")
def xfeat_model() -> XFeat:
    return XFeat()


@pytest.fixture
def xfeat(xfeat_model: XFeat) -> XFeat:
    xfeat_model.conf = type(xfeat_model.conf)(**XFeat.default_conf)
    return xfeat_model


@pytest.fixture(params=["aliked", "disk", "xfeat"])
def extractor(request: pytest.FixtureRequest) -> Extractor:
    return request.getfixturevalue(request.param)


def limit(extractor: Extractor, count: int) -> None:
    """Ask for the `count` best keypoints."""
    extractor.conf.max_num_keypoints = count
    extractor.conf.detection_threshold = -1 if isinstance(extractor, ALIKED) else 0


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], **CLOSE)


# Options


def test_the_published_defaults_and_those_of_own_options() -> None:
    assert ALIKED.default_conf == {
        "model_name": "aliked-n16",
        "max_num_keypoints": -1,
        "detection_threshold": 0.2,
        "nms_radius": 2,
        "mp": False,
    }
    assert ALIKED.preprocess_conf == {"resize": 1024}
    assert DISK.default_conf == {
        "weights": "depth",
        "max_num_keypoints": None,
        "desc_dim": 128,
        "nms_window_size": 5,
        "detection_threshold": 0.0,
        "pad_if_not_divisible": True,
        "mp": False,  # not in the published package
    }
    assert DISK.preprocess_conf == {"resize": 1024, "grayscale": False}


def test_options_are_frozen_and_conf_is_read_at_each_call(aliked: ALIKED, image: Tensor) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        aliked.options().nms_radius = 3
    limit(aliked, 7)
    assert aliked.extract(image, resize=None)["keypoints"].shape == (1, 7, 2)
    aliked.conf.max_num_keypoints = "many"
    with pytest.raises(InputError, match="max_num_keypoints is 'many'"):
        aliked.extract(image)


def test_an_unknown_option_warns_with_the_nearest_name() -> None:
    with pytest.warns(UserWarning, match="'max_keypoints'; did you mean 'max_num_keypoints'") as record:
        ALIKED(model_name="aliked-t16", max_keypoints=3)
    assert record[0].filename == __file__


def test_an_unknown_preprocessing_option_warns(aliked: ALIKED, image: Tensor) -> None:
    with pytest.warns(UserWarning, match=r"ALIKED.extract ignores.*'rezise'; did you mean 'resize'") as record:
        aliked.extract(image[:, :64, :64], rezise=64)
    assert record[0].filename == __file__


def test_the_warning_points_at_the_callers_line_by_every_way(aliked: ALIKED, image: Tensor) -> None:
    small = image[:, :64, :64]
    calls = [
        lambda: aliked.extract([small], rezise=64),
        lambda: aliked.describe(torch.rand(3, 2), small, rezise=64),
        lambda: SIFT().extract(small, rezise=64),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="'rezise'") as record:
            call()
        assert (record[0].filename, record[0].lineno) == (__file__, call.__code__.co_firstlineno)


def test_extraction_never_needs_gradients_and_forward_keeps_them(extractor: Extractor, image: Tensor) -> None:
    small = image[:, :64, :64]
    assert not extractor.extract(small, resize=None)["descriptors"].requires_grad
    assert extractor({"image": small[None]})["descriptors"].requires_grad


# Order and number


def nms_scores(aliked: ALIKED, image: Tensor, keypoints: Tensor) -> Tensor:
    """The score of the pixel that each keypoint was refined from: the largest within the refinement's reach."""
    with torch.no_grad():
        scores = aliked.extract_dense_map(image[None])[1]
    x, y = (keypoints + 0.5).long().unbind(dim=-1)
    return nn.functional.max_pool2d(scores, 5, 1, 2)[0, 0, y, x]


def test_the_best_keypoints_come_best_first(aliked: ALIKED, image: Tensor) -> None:
    limit(aliked, 100)
    best = aliked.extract(image, resize=None)
    scores = nms_scores(aliked, image, best["keypoints"][0])
    assert (scores.diff() < 0.05).all()  # descending, but for a larger neighbour within reach
    assert scores[:10].min() > scores[-10:].max()
    aliked.conf.max_num_keypoints = 40
    fewer = aliked.extract(image, resize=None)
    assert torch.equal(fewer["keypoints"], best["keypoints"][:, :40])


def test_above_a_threshold_keypoints_are_in_raster_order(aliked: ALIKED, image: Tensor) -> None:
    keypoints = aliked.extract(image, resize=None)["keypoints"][0]
    assert (keypoints[:, 1].diff() > -3).all()  # refinement moves a keypoint by less than its radius
    count = len(keypoints)
    aliked.conf.max_num_keypoints = count
    assert torch.equal(aliked.extract(image, resize=None)["keypoints"][0], keypoints)
    aliked.conf.max_num_keypoints = count - 1
    assert (aliked.extract(image, resize=None)["keypoints"][0][:, 1].diff() < -3).any()  # now best first


@pytest.mark.parametrize("no_limit", [-1, 0, None])
def test_without_threshold_and_limit_the_mean_score_is_the_threshold(
    aliked: ALIKED, image: Tensor, no_limit: int | None
) -> None:
    aliked.conf.detection_threshold, aliked.conf.max_num_keypoints = 0, no_limit
    keypoints = aliked.extract(image, resize=None)["keypoints"][0]
    mean = aliked.extract_dense_map(image[None])[1].mean()
    assert len(keypoints) > 200
    assert nms_scores(aliked, image, keypoints).min() > mean


def test_an_image_below_the_threshold_falls_back_to_its_own_mean(aliked: ALIKED, image: Tensor) -> None:
    dull = 0.5 + 0.002 * image
    aliked.conf.max_num_keypoints = 5
    alone = aliked.extract(dull, resize=None)
    beside = aliked({"image": torch.stack((image, dull))})
    assert alone["keypoints"].shape == (1, 5, 2)
    torch.testing.assert_close(beside["keypoints"][1], alone["keypoints"][0], **CLOSE)


def test_disk_keeps_the_best_in_raster_order(disk: DISK, image: Tensor) -> None:
    all_of_them = rbd(disk.extract(image, resize=None))
    disk.conf.max_num_keypoints = 50
    best = rbd(disk.extract(image, resize=None))
    chosen = all_of_them["keypoint_scores"].topk(50).indices.sort().values
    assert torch.equal(best["keypoints"], all_of_them["keypoints"][chosen])
    flat = best["keypoints"] @ torch.tensor([1.0, image.shape[-1]])
    assert (flat.diff() > 0).all()
    disk.conf.max_num_keypoints = 0
    assert disk.extract(image, resize=None)["keypoints"].shape == (1, 0, 2)


def test_disk_keeps_scores_above_its_threshold_only(disk: DISK, image: Tensor) -> None:
    disk.conf.detection_threshold = 5.0
    scores = disk.extract(image, resize=None)["keypoint_scores"]
    assert scores.numel() > 0
    assert scores.min() > 5


def test_asking_for_more_keypoints_than_there_are_gives_fewer_not_padding(extractor: Extractor, image: Tensor) -> None:
    limit(extractor, 100_000)
    features = extractor.extract(image[:, :40, :50], resize=None)
    n = features["keypoints"].shape[1]
    assert 0 < n < 500
    assert features["keypoint_scores"].min() > 0
    assert len(features["keypoints"][0].round(decimals=2).unique(dim=0)) == n


# Images in, features out


def test_keypoints_are_in_pixels_of_the_original(extractor: Extractor, image: Tensor) -> None:
    """Doubling every pixel moves a keypoint from x to 2 x + 0.5."""
    doubled = image.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    limit(extractor, 30)
    small = extractor.extract(image, resize=None)
    large = extractor.extract(doubled, resize=(175, 256), antialias=False)
    assert large["image_size"].tolist() == [[512.0, 350.0]]
    torch.testing.assert_close(large["keypoints"], 2 * small["keypoints"] + 0.5, atol=1e-2, rtol=0)


def test_a_gray_image_is_three_equal_channels(extractor: Extractor, image: Tensor) -> None:
    gray = image[:1]
    assert_same(extractor.extract(gray, resize=None), extractor.extract(gray.repeat(3, 1, 1), resize=None))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bool])
def test_other_dtypes_are_cast_to_the_models(extractor: Extractor, image: Tensor, dtype: torch.dtype) -> None:
    other = (image > 0.5).to(dtype)
    features = extractor.extract(other, resize=None)
    assert {value.dtype for value in features.values()} == {torch.float32}
    assert_same(features, extractor.extract(other.float(), resize=None))


@pytest.mark.parametrize("resize", [None, 200])
def test_memory_layout_does_not_matter(extractor: Extractor, image: Tensor, resize: int | None) -> None:
    strided = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not strided.is_contiguous()
    other = copy.deepcopy(extractor).to(memory_format=torch.channels_last)
    assert_same(other.extract(strided, resize=resize), extractor.extract(image, resize=resize))


def test_a_batch_gives_what_each_image_gives_alone(extractor: Extractor, image: Tensor) -> None:
    other = image.flip(-1)
    limit(extractor, 60)
    batch = extractor.extract(torch.stack((image, other)), resize=192)
    for i, alone in enumerate((image, other)):
        assert_same({k: v[i : i + 1] for k, v in batch.items()}, extractor.extract(alone, resize=192))


def test_a_list_gives_what_each_image_gives_alone(extractor: Extractor, image: Tensor) -> None:
    images = [image, image[:, :100, :90], image[:1, :, :64], image[None, :, 30:80]]
    found = extractor.extract(images, resize=128)
    assert isinstance(found, list)
    for features, alone in zip(found, images, strict=True):
        assert_same(features, extractor.extract(alone, resize=128))
        assert len(features["keypoints"]) == 1
    assert len({features["keypoints"].shape for features in found}) > 1
    assert extractor.extract([]) == []
    assert len(extractor.extract(tuple(images[:2]), resize=64)) == 2


def test_a_batch_with_unequal_numbers_names_the_list_form(extractor: Extractor, image: Tensor) -> None:
    batch = torch.stack((image, torch.zeros_like(image)))
    with pytest.raises(InputError, match=r"unequal numbers of keypoints \(\d+, \d+\).*list of images"):
        extractor.extract(batch, resize=None)
    assert len(extractor.extract(list(batch), resize=None)) == 2


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 30), (30, 1), (2, 2), (3, 3), (5, 5), (6, 9), (16, 16), (16, 4000)])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiny_and_thin_images_give_valid_features(extractor: Extractor, h: int, w: int, channels: int) -> None:
    image = torch.rand(channels, h, w, generator=torch.Generator().manual_seed(0))
    limit(extractor, 50)
    features = rbd(extractor.extract(image, resize=None))
    n = len(features["keypoints"])
    assert features["keypoint_scores"].shape == (n,)
    assert features["descriptors"].shape[0] == n
    assert features["image_size"].tolist() == [w, h]
    assert all(value.isfinite().all() for value in features.values())
    assert (features["keypoints"] >= 0).all()
    assert (features["keypoints"] <= torch.tensor([w - 1, h - 1])).all()
    if min(h, w) < 5 and not isinstance(extractor, XFeat):
        assert n == 0  # the border of two pixels leaves nothing
    if w == 4000:
        assert n == 50


@pytest.mark.parametrize("radius", [0, 1, 4, 10_000])
def test_any_suppression_radius_works(extractor: Extractor, image: Tensor, radius: int) -> None:
    name = "nms_window_size" if isinstance(extractor, DISK) else "nms_radius"
    setattr(extractor.conf, name, 2 * radius + 1 if isinstance(extractor, DISK) else radius)
    limit(extractor, 10)
    keypoints = extractor.extract(image[:, :60, :80], resize=None)["keypoints"]
    left = 1 if isinstance(extractor, XFeat) else 0  # the others keep none whose window reaches out of the image
    assert keypoints.shape == (1, left if radius == 10_000 else 10, 2)


def test_suppression_without_radius_keeps_the_border(aliked: ALIKED) -> None:
    aliked.conf.nms_radius = 0
    limit(aliked, 100)
    assert aliked.extract(torch.rand(3, 1, 5), resize=None)["keypoints"].shape == (1, 5, 2)


# Padded batches


def padded(images: list[Tensor], h: int, w: int) -> dict[str, Tensor]:
    batch = torch.zeros(len(images), 3, h, w)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    sizes = torch.tensor([[image.shape[2], image.shape[1]] for image in images], dtype=torch.float32)
    return {"image": batch, "image_size": sizes}


def test_no_keypoint_lies_in_the_padding_or_its_border(extractor: Extractor, image: Tensor) -> None:
    limit(extractor, 20)
    data = padded([image[:, :100, :120], image[:, :60, :200]], 128, 224)
    for (w, h), keypoints in zip(data["image_size"].tolist(), extractor(data)["keypoints"].round(), strict=True):
        assert len(keypoints) == 20
        assert keypoints.min() >= 0
        assert keypoints[:, 0].max() <= w - 1
        assert keypoints[:, 1].max() <= h - 1


def test_padded_images_do_not_depend_on_their_order(extractor: Extractor, image: Tensor) -> None:
    """The published ALIKED takes the last image's size for all of the batch."""
    limit(extractor, 20)
    data = padded([image[:, :100, :120], image[:, :60, :200]], 128, 224)
    forward = extractor(data)
    backward = extractor({key: value.flip(0) for key, value in data.items()})
    assert_same(forward, {key: value.flip(0) for key, value in backward.items()})
    for i in range(2):
        alone = extractor({key: value[i : i + 1] for key, value in data.items()})
        assert_same(alone, {key: value[i : i + 1] for key, value in forward.items()})


def test_an_image_size_of_the_whole_tensor_changes_nothing(extractor: Extractor, image: Tensor) -> None:
    whole = torch.tensor([[image.shape[2], image.shape[1]]])
    assert_same(extractor({"image": image[None]}), extractor({"image": image[None], "image_size": whole}))


# Describing given keypoints


@pytest.mark.parametrize("resize", [None, 200, 333])
def test_describing_the_extracted_keypoints_gives_their_descriptors(
    aliked: ALIKED, image: Tensor, resize: int | None
) -> None:
    features = aliked.extract(image, resize=resize)
    descriptors = aliked.describe(features["keypoints"], image, resize=resize)
    torch.testing.assert_close(descriptors, features["descriptors"], atol=2e-3, rtol=0)
    unbatched = aliked.describe(features["keypoints"][0], image[None], resize=resize)
    torch.testing.assert_close(unbatched, descriptors)


def test_describing_a_batch_and_nothing(aliked: ALIKED, image: Tensor) -> None:
    keypoints = torch.tensor([[[20.0, 30.0], [-0.5, 0.0]], [[255.5, 174.5], [40.0, 50.0]]])
    found = aliked.describe(keypoints, torch.stack((image, image.flip(1))))
    assert found.shape == (2, 2, 64)
    torch.testing.assert_close(found[1:], aliked.describe(keypoints[1], image.flip(1)), **CLOSE)
    assert aliked.describe(torch.zeros(0, 2), image).shape == (1, 0, 64)


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        (torch.tensor([[10.0, 200.0]]), r"Keypoint \[10.0, 200.0\] does not lie in the image of 256 x 175"),
        (torch.tensor([[float("nan"), 1.0]]), "does not lie in"),
        (torch.zeros(5, 3), r"keypoints is torch.Size\(\[5, 3\]\)"),
        ([[1.0, 2.0]], "keypoints is list"),
        (torch.zeros(2, 5, 2), "keypoints for 2 images but 1"),
    ],
)
def test_keypoints_that_cannot_be_described(aliked: ALIKED, image: Tensor, keypoints: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        aliked.describe(keypoints, image)


# Weights and modules


def test_the_state_dict_has_the_published_keys(aliked: ALIKED, disk: DISK) -> None:
    assert list(aliked.state_dict()) == list(weights.load_state_dict("aliked-t16"))
    assert list(disk.state_dict()) == [f"model.{key}" for key in weights.load_state_dict("disk-depth")]


def test_a_saved_state_loads_again_also_inside_another_module(
    extractor: Extractor, image: Tensor, tmp_path: Path
) -> None:
    wrapper = nn.ModuleDict({"extractor": extractor})
    torch.save(wrapper.state_dict(), tmp_path / "state.pt")
    other = nn.ModuleDict({"extractor": copy.deepcopy(extractor)})
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
    assert_same(other["extractor"].extract(image, resize=100), extractor.extract(image, resize=100))


def test_own_weights_from_a_file_or_a_state_dict(image: Tensor, aliked: ALIKED, tmp_path: Path) -> None:
    state = aliked.state_dict()
    torch.save(state, tmp_path / "mine.pth")
    for source in (state, tmp_path / "mine.pth", str(tmp_path / "mine.pth"), "aliked-t16"):
        own = ALIKED(model_name="aliked-t16", weights=source)
        assert_same(own.extract(image, resize=100), aliked.extract(image, resize=100))


def test_own_disk_weights_may_have_another_descriptor_length(image: Tensor, disk: DISK) -> None:
    state = disk.model.state_dict()
    for kind in ("weight", "bias"):
        key = f"unet.path_up.3.conv.3.{kind}"
        state[key] = torch.cat((state[key][:64], state[key][-1:]))
    for source in (state, {"extractor": state}):
        features = DISK(weights=source, desc_dim=64).extract(image, resize=100)
        assert features["descriptors"].shape[-1] == 64
    with pytest.raises(WeightsError, match=r"wrong shape: unet.path_up.3.conv.3.bias is \(65,\), not \(129,\)"):
        DISK(weights=state)


def test_extractors_are_ready_for_use_when_made(extractor: Extractor) -> None:
    assert not extractor.training
    assert not any(module.training for module in extractor.modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_model_of_another_precision_gives_float32_features(
    extractor: Extractor, image: Tensor, dtype: torch.dtype
) -> None:
    limit(extractor, 20)
    other = copy.deepcopy(extractor).to(dtype)
    features = other.extract(image, resize=128)
    assert {value.dtype for value in features.values()} == {torch.float32}
    distance = torch.cdist(features["keypoints"], extractor.extract(image, resize=128)["keypoints"])
    assert (distance.min(dim=-1).values < 1).float().mean() > 0.9


def test_commercial_only_is_asked_of_the_weights(monkeypatch: pytest.MonkeyPatch, aliked: ALIKED) -> None:
    asked = []

    def load_state_dict(source: Any, *, commercial_only: bool) -> dict[str, Tensor]:
        asked.append((source, commercial_only))
        return aliked.state_dict()

    monkeypatch.setattr(weights, "load_state_dict", load_state_dict)
    ALIKED(model_name="aliked-t16", commercial_only=True)
    assert asked == [("aliked-t16", True)]


# The published ways of calling


def test_hloc_calls_the_module_with_its_own_keywords(image: Tensor) -> None:
    conf = {"name": "aliked", "model_name": "aliked-t16", "max_num_keypoints": 64, "nms_radius": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ALIKED(**conf, detection_threshold=-1).eval()
        prediction = model({"image": image[None]})
    assert prediction["keypoints"].shape == (1, 64, 2)
    assert prediction["keypoint_scores"].shape == (1, 64)
    assert prediction["descriptors"].shape == (1, 64, 64)


def test_glue_factory_passes_further_keywords_and_data(image: Tensor) -> None:
    conf = {"name": "extractors.disk", "trainable": False, "timeit": True, "freeze_batch_normalization": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = DISK(**conf, force_num_keypoints=False, max_num_keypoints=64)
        data = {"image": image[None], "name": ["a.jpg"], "scales": torch.ones(1, 2), "transform": torch.eye(3)[None]}
        assert model(data)["keypoints"].shape == (1, 64, 2)


def test_a_subclass_needs_a_forward_only(image: Tensor) -> None:
    class Corners(Extractor):
        default_conf = {"count": 2}  # noqa: RUF012
        preprocess_conf = {"resize": 64}  # noqa: RUF012

        def forward(self, data: Any) -> Any:
            assert data["image"].shape == (1, 3, 43, 64)
            n = self.conf.count
            return {"keypoints": torch.zeros(1, n, 2), "descriptors": torch.zeros(1, n, 8)}

    features = Corners(count=3).extract(image)
    torch.testing.assert_close(features["keypoints"][0, 0], torch.tensor([1.5, 175 / 43 / 2 - 0.5]))
    assert features["keypoints"].shape == (1, 3, 2)
    assert features["image_size"].tolist() == [[256.0, 175.0]]

    with pytest.raises(InputError, match="takes no `request`, which masks and tiles need"):
        Corners().extract(image, mask=torch.ones(175, 256, dtype=torch.bool))


@pytest.mark.parametrize("options", [{}, {"pyramid": (1, 0.5)}])
def test_a_forward_of_former_times_heeds_masks(options: dict[str, Any], image: Tensor) -> None:
    """It asks `allowed_in` of the base class, as this package once documented."""

    class Row(Extractor):
        def forward(self, data: Any) -> Any:
            xy = torch.stack((torch.arange(64.0), torch.full((64,), 10.0)), 1)
            (allowed,) = self.allowed_in(data, len(data["image"]))
            xy = xy if allowed is None else xy[allowed(xy)]
            descriptors, scores = torch.ones(1, len(xy), 8), torch.ones(1, len(xy))
            return {"keypoints": xy[None], "keypoint_scores": scores, "descriptors": descriptors}

    mask = torch.zeros(175, 256, dtype=torch.bool)
    mask[:, 30:40] = True
    with pytest.warns(DeprecationWarning, match=r"take `request` in forward and use request\.allowed_in"):
        found = Row().extract(image, mask=mask, **options)["keypoints"][0, :, 0]
    assert len(found) >= 10
    assert ((found >= 29.5) & (found <= 39.5)).all()
    with pytest.warns(DeprecationWarning, match="allowed_in"):
        assert Row().extract(image)["keypoints"].shape == (1, 64, 2)
    with pytest.warns(DeprecationWarning, match="allowed_in"):
        assert Row()({"image": image[None]})["keypoints"].shape == (1, 64, 2)


class Borrower:
    """No `Extractor`, but with its `forward`: what callers hand to the published function."""

    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": 64}

    def forward(self, data: Any) -> Any:
        return {"keypoints": torch.full((len(data["image"]), 1, 2), 21.0), "descriptors": data["image"].mean((2, 3))}


class BorrowingModule(Borrower, nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("kind", [Borrower, BorrowingModule])
def test_extract_works_unbound_on_anything_with_a_forward(kind: Any, image: Tensor) -> None:
    features = Extractor.extract(kind(), image)
    torch.testing.assert_close(features["keypoints"], torch.tensor([[[85.5, 87.0]]]))
    assert features["image_size"].tolist() == [[256.0, 175.0]]
    several = Extractor.extract(kind(), [image, image[:, :100]], resize=None)
    assert [one["keypoints"].tolist() for one in several] == [[[[21.0, 21.0]]]] * 2


@needs_gpu
def test_a_gpu_gives_what_the_cpu_gives(extractor: Extractor, image: Tensor) -> None:
    limit(extractor, 100)
    moved: Callable[..., Any] = copy.deepcopy(extractor).cuda().extract
    there, here = rbd(moved(image)), rbd(extractor.extract(image))  # the image is moved to the model's device
    assert all(value.is_cuda for value in there.values())
    distance = torch.cdist(there["keypoints"].cpu(), here["keypoints"]).min(dim=1).values
    assert (distance < 0.01).float().mean() > 0.95
