"""Whatever is given to an extractor, it answers with valid features or with an error that says what to do."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightglue import ALIKED, DISK, InputError, LightGlueError, WeightsError, XFeat, weights
from lightglue.extractors.base import Extractor

MODELS: dict[str, Extractor] = {}
WEIGHTS = {"ALIKED": "aliked-t16", "DISK": "disk-depth", "XFeat": "xfeat"}


def make(kind: str, **options: Any) -> Extractor:
    if kind == "ALIKED":
        return ALIKED(model_name="aliked-t16", **options)
    return DISK(**options) if kind == "DISK" else XFeat(**options)


def model(kind: str) -> Extractor:
    """An extractor with default options; made once, since only `conf` is changed."""
    if kind not in MODELS:
        MODELS[kind] = make(kind)
    extractor = MODELS[kind]
    extractor.conf = type(extractor.conf)(**{**extractor.default_conf, "max_num_keypoints": 100})
    return extractor


def assert_valid(features: dict[str, Tensor], image: Tensor) -> None:
    """Features of one image (C, H, W) or of a batch (B, C, H, W) that holds what `extract` promises."""
    b, (h, w), n = (image.shape[0] if image.ndim == 4 else 1), image.shape[-2:], features["keypoints"].shape[1]
    d = features["descriptors"].shape[-1]
    assert {key: tuple(value.shape) for key, value in features.items()} == {
        "keypoints": (b, n, 2),
        "keypoint_scores": (b, n),
        "descriptors": (b, n, d),
        "image_size": (b, 2),
    }
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in features.values())
    assert features["image_size"].tolist() == [[w, h]] * b
    assert (features["keypoints"] >= -0.5).all()
    assert (features["keypoints"] <= torch.tensor([w, h]) - 0.5).all()
    lengths = features["descriptors"].norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(b, n), atol=1e-4, rtol=0)


def valid_or_clear_error(extractor: Extractor, image: Any, **preprocess: Any) -> None:
    refused = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown options
            features = extractor.extract(image, **preprocess)
    except LightGlueError as error:
        refused = str(error)
    if refused:
        assert re.match(r".* .*[.:]", refused)
        return
    images, results = (image, features) if isinstance(image, (list, tuple)) else ([image], [features])
    for one, result in zip(images, results, strict=True):
        assert_valid(result, one)


kinds = pytest.mark.parametrize("kind", ["ALIKED", "DISK", "XFeat"])
quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
DTYPES = [*FLOATS, *FLOATS, torch.bool, torch.uint8, torch.int64, torch.complex64]


@st.composite
def images(draw: st.DrawFn) -> Tensor:
    """Tensors that are images, or nearly."""
    lead = draw(st.sampled_from([[], [1], [1], [3], [3], [3], [4], [1, 3], [2, 3], [2, 1], [0, 3]]))
    h, w = draw(st.integers(0, 40)), draw(st.integers(1, 40))
    shape = draw(st.sampled_from([[*lead, h, w], [*lead, h, w], [*lead, h, w], [h, w, *lead]]))
    low, high = draw(st.sampled_from([(0, 1), (0, 1), (0.2, 0.2), (-0.1, 1.1), (0, 255), (-3, 3), (1e30, 1e38)]))
    image = low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    bad = draw(st.sampled_from([*5 * [None], float("nan"), float("inf"), -float("inf")]))
    if bad is not None and image.numel():
        image.view(-1)[draw(st.integers(0, image.numel() - 1))] = bad
    if draw(st.booleans()):
        image = image.transpose(-1, -2)
    return image.to(draw(st.sampled_from(DTYPES)))


@kinds
@quick
@given(image=images() | st.lists(images(), max_size=3))
def test_any_tensor(kind: str, image: Any) -> None:
    valid_or_clear_error(model(kind), image, resize=None)


numbers = st.one_of(
    st.integers(1, 60),
    st.integers(-3, 60),
    st.floats(-1, 60),
    st.sampled_from([None, True, "8", float("nan"), float("inf"), 10**30, -(10**30), [3], (8, 20), (0, 5), (3,), b""]),
)


@kinds
@quick
@given(
    resize=st.integers(1, 60) | st.tuples(st.integers(1, 60), st.integers(1, 60)) | numbers,
    side=st.sampled_from(["long", "short", "vert", "horz", "long", "short", "both", None]),
    interpolation=st.sampled_from(["bilinear", "bilinear", "bicubic", "nearest", "area", "cubic"]),
    align_corners=st.sampled_from([None, None, None, True, False]),
    antialias=st.booleans(),
    further=st.sampled_from([{}, {"grayscale": False}, {"grayscale": True}, {"resise": 3}]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_any_preprocessing(
    kind: str, resize: Any, size: tuple[int, int], further: dict[str, Any], **preprocess: Any
) -> None:
    valid_or_clear_error(model(kind), torch.rand(3, *size), resize=resize, **preprocess, **further)


@kinds
@quick
@given(data=st.data())
def test_any_option(kind: str, data: st.DataObject) -> None:
    extractor = model(kind)
    names = st.sampled_from([name for name in extractor.default_conf if name not in ("weights", "desc_dim")])
    for name, value in data.draw(st.dictionaries(names, numbers, max_size=3)).items():
        setattr(extractor.conf, name, value)
    image = torch.rand(3, 37, 45, generator=torch.Generator().manual_seed(0))
    valid_or_clear_error(extractor, image, resize=None)


@kinds
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "is a ndarray, not a torch.Tensor.*numpy_image_to_torch"),
        ("photo.jpg", "is a str.*load_image"),
        (None, "is a NoneType"),
        (torch.rand(9, 8, 3), r"\(9, 8, 3\), 9 channels; give 1 or 3; permute \(H, W, C\)"),
        (torch.rand(4, 9, 8), r"4 channels; give 1 or 3\.$"),
        (torch.rand(9, 8), r"shape \(9, 8\); give \(C, H, W\) or"),
        (torch.rand(1, 1, 3, 9, 8), r"shape \(1, 1, 3, 9, 8\)"),
        (torch.rand(3, 0, 8), r"shape \(3, 0, 8\).*not empty"),
        (torch.rand(0, 3, 9, 8), "not empty"),
        (torch.zeros(3, 9, 8, dtype=torch.uint8), r"dtype torch.uint8.*image.float\(\) / 255"),
        (torch.zeros(3, 9, 8, dtype=torch.complex64), "dtype torch.complex64"),
        (torch.full((3, 9, 8), float("nan")), "NaN or infinite"),
        (torch.full((3, 9, 8), float("inf")), "NaN or infinite"),
        ([torch.rand(3, 9, 8), torch.rand(9, 8, 3)], "9 channels"),
        ([[torch.rand(3, 9)]], None),
    ],
)
def test_what_is_no_image_is_named_with_a_remedy(kind: str, image: Any, message: str | None) -> None:
    with pytest.raises(InputError, match=message):
        model(kind).extract(image, resize=None)


@kinds
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (255 * torch.ones(3, 90, 80), r"from 255 to 255, not in \[0, 1\]: divide 8-bit values by 255"),
        (-torch.ones(3, 90, 80), "from -1 to -1"),
    ],
)
def test_values_out_of_range_are_worth_a_warning(kind: str, image: Tensor, message: str) -> None:
    with pytest.warns(UserWarning, match=message) as caught:
        features = model(kind).extract(image, resize=None)
    assert {warning.filename for warning in caught} == {__file__}
    assert features["keypoints"].isfinite().all()


@kinds
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.rand(1, 3, 32, 32), "use .*extract"),
        ({}, "takes {.image.: tensor}"),
        ({"image": torch.rand(3, 32, 32)}, r"torch.Size\(\[3, 32, 32\]\); give a tensor \(B, C, H, W\)"),
        ({"image": np.zeros((1, 3, 32, 32))}, r"\(1, 3, 32, 32\); give a tensor"),
        ({"image": torch.rand(1, 3, 32, 32), "image_size": torch.ones(2)}, "give 1 rows of width height"),
        ({"image": torch.rand(1, 3, 32, 32), "image_size": [[32, 32]]}, "image_size"),
        ({"image": torch.rand(1, 3, 32, 32), "image_size": torch.tensor([[0, 32]])}, "image_size"),
        ({"image": torch.rand(1, 3, 32, 32), "image_size": torch.tensor([[float("nan"), 9.0]])}, "image_size"),
        ({"image": torch.rand(1, 3, 32, 32), "image_size": torch.tensor([[float("inf"), 9.0]])}, "image_size"),
    ],
)
def test_what_forward_cannot_take(kind: str, data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model(kind)(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": "aliked-n17"}, "model_name is 'aliked-n17'; choose one of aliked-t16, aliked-n16,"),
        ({"model_name": ["aliked-n16"]}, "model_name"),
        ({"max_num_keypoints": 12.5}, "max_num_keypoints is 12.5"),
        ({"max_num_keypoints": True}, "max_num_keypoints is True"),
        ({"detection_threshold": None}, "detection_threshold is None"),
        ({"detection_threshold": "0.2"}, "detection_threshold is '0.2'"),
        ({"detection_threshold": float("nan")}, "detection_threshold is nan"),
        ({"nms_radius": -1}, "nms_radius is -1"),
        ({"nms_radius": 1.5}, "nms_radius is 1.5"),
    ],
)
def test_aliked_refuses_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ALIKED(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_num_keypoints": -1}, "max_num_keypoints is -1.*None for no limit"),
        ({"max_num_keypoints": 2.0}, "max_num_keypoints is 2.0"),
        ({"detection_threshold": float("nan")}, "detection_threshold is nan"),
        ({"detection_threshold": None}, "detection_threshold is None"),
        ({"nms_radius": -1}, "nms_radius is -1"),
        ({"nms_radius": True}, "nms_radius is True"),
        ({"mp": 1}, "mp is 1"),
    ],
)
def test_xfeat_refuses_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        XFeat(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_num_keypoints": -1}, "max_num_keypoints is -1.*None for no limit"),
        ({"nms_window_size": 0}, "nms_window_size is 0"),
        ({"desc_dim": "128"}, "desc_dim is '128'"),
        ({"detection_threshold": float("inf")}, "detection_threshold is inf"),
        ({"weights": 3}, "weights is 3"),
        ({"weights": None}, "weights is None"),
        ({"pad_if_not_divisible": "no"}, "pad_if_not_divisible is 'no'"),
    ],
)
def test_disk_refuses_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DISK(**options)


def test_disk_without_padding_needs_sides_that_are_multiples_of_16() -> None:
    extractor = model("DISK")
    extractor.conf.pad_if_not_divisible = False
    assert_valid(extractor.extract(torch.rand(3, 32, 48), resize=None), torch.rand(3, 32, 48))
    with pytest.raises(InputError, match="40 x 32 px has a side that is no multiple of 16"):
        extractor.extract(torch.rand(3, 32, 40), resize=None)


# Weight files


def altered(state: dict[str, Tensor], change: str) -> dict[str, Any]:
    key = next(iter(state))
    changes: dict[str, Any] = {
        "missing": {k: v for k, v in state.items() if k != key},
        "unexpected": {**state, "block9.conv1.weight": torch.zeros(1)},
        "wrong shape": {**state, key: state[key][:-1]},
        "not finite": {**state, key: state[key] * float("nan")},
        "empty": {},
        "prefixed": {f"module.{k}": v for k, v in state.items()},
        "not tensors": {**state, key: "text"},
        "of another model": weights.load_state_dict("aliked-n32"),
    }
    return changes[change]


CHANGES = {
    "missing": "missing: ",
    "unexpected": "unexpected: block9.conv1.weight",
    "wrong shape": "wrong shape: ",
    "not finite": "not finite: ",
    "empty": "missing: |no ",
    "prefixed": "unexpected: module.",
    "not tensors": "tensors|str",
    "of another model": "wrong shape: |unexpected: ",
}


@kinds
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("given_as", ["mapping", "file"])
def test_weights_that_do_not_fit_are_refused_with_a_list(kind: str, change: str, given_as: str, tmp_path: Path) -> None:
    state = weights.load_state_dict(WEIGHTS[kind])
    source: Any = altered(state, change)
    if given_as == "file":
        torch.save(source, tmp_path / "weights.pth")
        source = tmp_path / "weights.pth"
    with pytest.raises(WeightsError, match=CHANGES[change]):
        make(kind, weights=source)


@kinds
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off", None])
def test_files_that_hold_no_weights_are_refused(kind: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        make(kind, weights=path)
