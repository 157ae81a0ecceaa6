"""Options that every extractor has from its base: masks, descriptors at given points, several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lightglue import ALIKED, DISK, SIFT, DoGHardNet, ImageError, InputError, RaCo, SuperPoint, XFeat, load_image
from lightglue.extractors.base import Extractor
from lightglue.extractors.masks import on_mask
from lightglue.extractors.options import ViewOptions
from lightglue.options import option_info
from support import ASSETS
from support.hardnet_oracle import seeded_state
from test_raco import raco
from test_superpoint import small

NAMES = ["aliked", "disk", "xfeat", "superpoint", "sift", "doghardnet", "raco"]


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A photograph (3, 219, 320)."""
    return load_image(ASSETS / "montmartre_close.jpg", resize=320)


@pytest.fixture(scope="module")
def extractors() -> dict[str, Extractor]:
    return {
        "aliked": ALIKED(model_name="aliked-t16", detection_threshold=-1, max_num_keypoints=300),
        "disk": DISK(max_num_keypoints=300),
        "xfeat": XFeat(max_num_keypoints=300, detection_threshold=0),
        "superpoint": small(max_num_keypoints=300),
        "sift": SIFT(max_num_keypoints=300),
        "doghardnet": DoGHardNet(weights=seeded_state(), max_num_keypoints=300),
        "raco": raco(max_num_keypoints=300, descriptor="aliked-t16"),
    }


@pytest.fixture(params=NAMES)
def extractor(request: pytest.FixtureRequest, extractors: dict[str, Extractor]) -> Extractor:
    return extractors[request.param]


@pytest.fixture(scope="module")
def mask(image: Tensor) -> Tensor:
    """A disc and a bar, of the photograph's size."""
    h, w = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return ((x - 100) ** 2 + (y - 110) ** 2 < 60**2) | ((x > 220) & (x < 260))


def points(features: Any) -> Tensor:
    return features["keypoints"][0]


def distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


# Masks


@pytest.mark.parametrize("resize", [None, 256])
def test_no_keypoint_lies_off_the_mask(extractor: Extractor, image: Tensor, mask: Tensor, resize: int | None) -> None:
    found = extractor.extract(image, mask=mask, resize=resize)
    x, y = points(found).round().long().T
    assert len(x) > 10
    assert mask[y.clamp(0, mask.shape[0] - 1), x.clamp(0, mask.shape[1] - 1)].all()
    assert {value.shape[1] for key, value in found.items() if key != "image_size"} == {len(x)}


def test_the_mask_counts_before_the_best_are_chosen(extractor: Extractor, image: Tensor, mask: Tensor) -> None:
    """What is found on the mask is what an unlimited extraction has there, the best of it."""
    kept = extractor.conf.max_num_keypoints
    try:
        extractor.conf.max_num_keypoints = 100_000
        everything = extractor.extract(image, resize=None)
        extractor.conf.max_num_keypoints = 40
        masked = extractor.extract(image, mask=mask, resize=None)
    finally:
        extractor.conf.max_num_keypoints = kept
    there = on_mask(mask, points(everything))
    strength = everything["keypoint_scores"][0]
    least = strength[there].sort(descending=True).values[39]
    assert points(masked).shape[0] == 40
    expected = points(everything)[there & (strength >= least)]
    if isinstance(extractor, ALIKED | RaCo):  # chooses by the score of the pixel, and hands out the one between pixels
        expected = points(everything)[there][:40]
    nearest = distances(points(masked), expected).min(dim=1).values
    assert nearest.max() < 1e-3


def test_a_mask_of_all_changes_nothing_and_one_of_nothing_leaves_none(extractor: Extractor, image: Tensor) -> None:
    whole = torch.ones(image.shape[-2:], dtype=torch.bool)
    plain, masked = extractor.extract(image, resize=None), extractor.extract(image, mask=whole, resize=None)
    if not isinstance(extractor, SIFT):  # OpenCV, which knows no mask, is then asked for more than its best
        for key in plain:
            torch.testing.assert_close(masked[key], plain[key])
    assert points(extractor.extract(image, mask=~whole, resize=None)).shape == (0, 2)


def test_a_keypoint_between_two_pixels_must_have_both_on_the_mask() -> None:
    mask = torch.tensor([[True, True, False, False]])
    x = torch.tensor([-0.5, 0.0, 1.0, 1.49, 1.5, 1.51, 2.0, 3.4])
    found = on_mask(mask, torch.stack((x, torch.zeros(8)), dim=1))
    assert found.tolist() == [True, True, True, True, False, False, False, False]


def test_masks_come_as_arrays_integers_files_batches_and_lists(
    extractors: dict[str, Extractor], image: Tensor, mask: Tensor, tmp_path: Path
) -> None:
    disk = extractors["disk"]
    expected = points(disk.extract(image, mask=mask, resize=None))
    gray = mask.numpy().astype(np.uint8) * 255
    cv2.imwrite(str(tmp_path / "mask.png"), gray)
    for same in (
        mask.numpy(),
        gray,
        mask[None],
        mask.to(torch.int64),
        tmp_path / "mask.png",
        str(tmp_path / "mask.png"),
    ):
        assert torch.equal(points(disk.extract(image, mask=same, resize=None)), expected)
    listed = disk.extract([image, image], mask=[None, mask], resize=None)
    assert torch.equal(points(listed[0]), points(disk.extract(image, resize=None)))
    assert torch.equal(points(listed[1]), expected)
    disk.conf.max_num_keypoints = 30
    try:
        batch = disk.extract(torch.stack((image, image)), mask=torch.stack((mask, torch.ones_like(mask))), resize=None)
        assert torch.equal(batch["keypoints"][0], points(disk.extract(image, mask=mask, resize=None)))
        assert torch.equal(batch["keypoints"][1], points(disk.extract(image, resize=None)))
    finally:
        disk.conf.max_num_keypoints = 300


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.ones(10, 20, dtype=torch.bool), "The mask has 20 x 10 px, the image 320 x 219"),
        (torch.ones(219, 320), "dtype torch.float32; give bool"),
        (np.ones((219, 320)), "dtype float64; give bool"),
        ([[True]], "is a list; give a bool array"),
        (True, "is a bool"),
        (torch.ones(2, 219, 320, dtype=torch.bool), "2"),
        (torch.tensor(True), "The mask has"),
    ],
)
def test_what_is_no_mask_is_refused(extractors: dict[str, Extractor], image: Tensor, wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        extractors["sift"].extract(image, mask=wrong)


def test_a_mask_file_that_cannot_be_read_and_a_list_that_is_none(
    extractors: dict[str, Extractor], image: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match="There is no image"):
        extractors["sift"].extract(image, mask=tmp_path / "none.png")
    for masks in (torch.ones(219, 320, dtype=torch.bool), [None], []):
        with pytest.raises(InputError, match="give a list of 2"):
            extractors["sift"].extract([image, image], mask=masks)


# Describing given points


@pytest.mark.parametrize("resize", [None, 200])
def test_descriptors_at_extracted_keypoints_are_those_of_the_extraction(
    extractor: Extractor, image: Tensor, resize: int | None
) -> None:
    found = extractor.extract(image, resize=resize)
    frames = {name: found[name] for name in ("scales", "oris") if name in found}
    described = extractor.describe(found["keypoints"], image, resize=resize, **frames)
    assert described.dtype == torch.float32
    assert described.shape == found["descriptors"].shape
    cosines = (described * found["descriptors"]).sum(-1)
    assert cosines.min() > 0.999


def test_any_points_are_described_with_unit_length(extractor: Extractor, image: Tensor) -> None:
    corners = torch.tensor([[-0.5, -0.5], [319.5, -0.5], [-0.5, 218.5], [319.5, 218.5], [100.3, 57.9], [0.0, 100.0]])
    found = extractor.describe(corners, image, resize=None)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(1, 6), atol=1e-4, rtol=0)
    assert extractor.describe(corners[:0], image, resize=None).shape == (1, 0, found.shape[-1])
    batch = extractor.describe(torch.stack((corners, corners)), torch.stack((image, image.flip(-1))), resize=None)
    torch.testing.assert_close(batch[:1], found, atol=1e-4, rtol=0)


def test_a_gray_image_is_described_as_it_is_extracted(extractor: Extractor, image: Tensor) -> None:
    gray = image.mean(dim=0, keepdim=True)
    found = extractor.extract(gray, resize=None)
    frames = {name: found[name] for name in ("scales", "oris") if name in found}
    described = extractor.describe(found["keypoints"], gray, resize=None, **frames)
    assert (described * found["descriptors"]).sum(-1).min() > 0.999


@pytest.mark.parametrize("bad", [[320.0, 10.0], [-0.6, 0.0], [5.0, float("nan")], [1e9, 0.0]])
def test_points_outside_of_the_image_are_refused(extractor: Extractor, image: Tensor, bad: list[float]) -> None:
    with pytest.raises(InputError, match="does not lie in the image of 320 x 219"):
        extractor.describe(torch.tensor([[10.0, 10.0], bad]), image)


@pytest.mark.parametrize("name", ["sift", "doghardnet"])
def test_frames_of_dog_keypoints_are_checked(extractors: dict[str, Extractor], image: Tensor, name: str) -> None:
    two = torch.tensor([[10.0, 10.0], [50.0, 60.0]])
    for wrong in ({"scales": torch.ones(3)}, {"oris": torch.tensor([1.0, float("nan")])}, {"scales": 5.0}):
        with pytest.raises(InputError, match="give a finite tensor"):
            extractors[name].describe(two, image, **wrong)
    with pytest.raises(InputError, match="not positive"):
        extractors[name].describe(two, image, scales=torch.tensor([4.0, 0.0]))
    large = extractors[name].describe(two, image, scales=torch.tensor([4.0, 5000.0]))
    assert large.isfinite().all()


def test_colmap_describes_only_its_own_keypoints(image: Tensor) -> None:
    pytest.importorskip("pycolmap", reason="needs pycolmap")
    with pytest.raises(InputError, match="backend='opencv'"):
        SIFT(backend="pycolmap_cpu").describe(torch.zeros(1, 2), image)


def test_sift_describes_a_point_by_itself_as_among_others(extractors: dict[str, Extractor], image: Tensor) -> None:
    found = extractors["sift"].extract(image, resize=None)
    alone = extractors["sift"].describe(
        found["keypoints"][:, 7:8], image, resize=None, scales=found["scales"][:, 7:8], oris=found["oris"][:, 7:8]
    )
    torch.testing.assert_close(alone, found["descriptors"][:, 7:8])


# Several sizes


def test_one_size_is_the_plain_extraction(extractor: Extractor, image: Tensor) -> None:
    plain, one = extractor.extract(image, resize=256), extractor.extract(image, resize=256, pyramid=(1,))
    assert plain.keys() == one.keys()
    for key in plain:
        torch.testing.assert_close(one[key], plain[key])


def test_two_sizes_find_what_each_finds_and_every_point_once(extractor: Extractor, image: Tensor) -> None:
    both = extractor.extract(image, resize=320, pyramid=(1, 0.6))
    one, other = extractor.extract(image, resize=320), extractor.extract(image, resize=(131, 192))
    assert len(points(both)) <= 300
    if not isinstance(extractor, ALIKED):  # which orders by the score of the pixel
        assert (both["keypoint_scores"][0].diff() <= 0).all()
    singles = torch.cat((points(one), points(other)))
    assert distances(points(both), singles).min(dim=1).values.max() < 1e-2
    assert (distances(points(both), points(one)).min(dim=1).values < 1e-2).any()
    assert (distances(points(both), points(other)).min(dim=1).values < 1e-2).any()
    both_views = distances(points(one), points(other))
    assert (both_views < extractor.same_point).any()  # points that both see, of which the result has one
    limit = extractor.same_point
    near = (distances(points(both), points(both)) < limit).sum() - len(points(both))
    own = sum(int((distances(points(f), points(f)) < limit).sum()) - len(points(f)) for f in (one, other))
    assert near <= own


def test_sizes_of_sift_keypoints_are_px_of_the_same_image(extractors: dict[str, Extractor], image: Tensor) -> None:
    both = extractors["sift"].extract(image, resize=None, pyramid=(1, 0.5))
    plain = extractors["sift"].extract(image, resize=None)
    distance, nearest = distances(points(both), points(plain)).min(dim=1)
    ratio = (both["scales"][0] / plain["scales"][0][nearest])[distance < 0.5]
    assert 0.8 < ratio.median() < 1.25


@pytest.mark.parametrize("pyramid", [(), (0,), (-1,), (1, 1), (9,), "big", (float("nan"),), 5, (1, None), range(1, 40)])
def test_pyramids_that_make_no_sense_are_refused(extractors: dict[str, Extractor], image: Tensor, pyramid: Any) -> None:
    with pytest.raises(InputError, match="pyramid"):
        extractors["sift"].extract(image, pyramid=pyramid)


def test_a_pyramid_was_called_scales(extractors: dict[str, Extractor], image: Tensor) -> None:
    with pytest.warns(DeprecationWarning, match="pyramid") as caught:
        old = extractors["sift"].extract([image], resize=200, scales=(1, 0.5))
    assert [warning.filename for warning in caught] == [__file__]
    new = extractors["sift"].extract(image, resize=200, pyramid=(1, 0.5))
    torch.testing.assert_close(old[0], new, rtol=0, atol=0)


def test_a_batch_of_several_sizes_is_each_image_alone(extractors: dict[str, Extractor], image: Tensor) -> None:
    disk = extractors["disk"]
    batch = disk.extract(torch.stack((image, image.flip(-1))), pyramid=(1, 0.6), resize=None)
    for i, one in enumerate((image, image.flip(-1))):
        torch.testing.assert_close(batch["keypoints"][i], points(disk.extract(one, pyramid=(1, 0.6), resize=None)))


def test_superpoint_is_here_with_seeded_weights_only(extractors: dict[str, Extractor]) -> None:
    assert isinstance(extractors["superpoint"], SuperPoint)


# -- the same options as a record


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ({}, {"resize": 1024}),
        ({"resize": None}, {"resize": None}),
        ({"tile": 600}, {"tile": 600}),
        ({"tile": 600, "resize": 2000, "pyramid": (1, 0.5)}, {"tile": 600, "resize": 2000, "pyramid": (1, 0.5)}),
    ],
)
def test_the_record_of_the_options_gives_the_keywords(options: dict[str, Any], keywords: dict[str, Any]) -> None:
    assert ViewOptions(**options).keywords() == keywords


@pytest.mark.parametrize(
    "wrong", [{"resize": 0}, {"resize": "big"}, {"tile": 511}, {"tile": True}, {"pyramid": (1, 1)}]
)
def test_the_record_checks_itself(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ViewOptions(**wrong)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("resize", "640", 640),
        ("resize", "none", None),
        ("resize", "auto", "auto"),
        ("tile", "512", 512),
        ("pyramid", "1,0.5", (1.0, 0.5)),
    ],
)
def test_options_are_read_from_text(name: str, text: str, value: Any) -> None:
    parse = option_info(ViewOptions, name).parse
    assert parse is not None
    assert parse(text) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("resize", "0", "'0' is neither a number of px from 1 to 20000 nor 'none'"),
        ("resize", "1e3", "neither a number"),
        ("tile", "511", "'511' is not a number of px from 512 to 20000"),
        ("pyramid", "1,1", "'1,1' is not a list of different numbers above 0 and at most 8"),
        ("pyramid", "", "is not a list"),
    ],
)
def test_text_that_is_no_option_is_refused(name: str, text: str, message: str) -> None:
    parse = option_info(ViewOptions, name).parse
    assert parse is not None
    with pytest.raises(InputError, match=message):
        parse(text)


def test_an_option_that_extract_does_not_have_is_an_error_before_any_image(extractors: dict[str, Extractor]) -> None:
    with pytest.raises(InputError, match="SIFT.extract has no option 'rezise'; did you mean 'resize'"):
        extractors["sift"].try_options({"rezise": 100})
    with pytest.raises(InputError, match="tile is 5"):
        extractors["sift"].try_options({"tile": 5})
    extractors["sift"].try_options({"resize": 100, "pyramid": [1, 0.5], "side": "short"})
