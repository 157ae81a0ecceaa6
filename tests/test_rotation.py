"""Images turned in their plane: where pixels go, which angle is found, and what a pair gives then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lightglue import ALIKED, SIFT, LightGlue, NearestNeighbor, XFeat, load_image, match_pair, match_pairs
from lightglue.errors import ImageError, InputError
from lightglue.images.rotation import Rotation
from lightglue.pairs.rotation import PROBES, Probes, angles_of, find_angle
from support import ASSETS, CLOSE, FAR
from support.matching import random_features, small_matcher
from support.remembered import remembered

A, B = ASSETS / "montmartre_close.jpg", ASSETS / "montmartre_far.jpg"


@pytest.fixture(scope="module", autouse=True)
def _each_image_is_looked_at_once() -> Iterator[None]:
    with remembered():
        yield


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return load_image(A, resize=400), load_image(B, resize=384)


@pytest.fixture(scope="module")
def xfeat() -> XFeat:
    return XFeat(max_num_keypoints=400, detection_threshold=0)


@pytest.fixture(scope="module")
def matcher() -> LightGlue:
    return LightGlue(features="xfeat").eval()


class Counting:
    """An extractor that notes what it was given."""

    preprocess_conf = {"resize": 1024}  # noqa: RUF012

    def __init__(self, extractor: Any) -> None:
        self.extractor, self.calls = extractor, []

    def extract(self, image: Any, **options: Any) -> Any:
        self.calls.append((tuple(image.shape), options))
        return self.extractor.extract(image, **options)


# Rotations


@pytest.mark.parametrize("angle", [90, 180, 270, 30, 45, 137.5])
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_a_bright_pixel_is_where_the_matrix_says_and_undo_leads_to_it(angle: float, kind: str) -> None:
    dark = torch.zeros(3, 40, 60)
    dark[:, 9:12, 20:23] = 1  # about (21, 10)
    rotation = Rotation(angle, 60, 40)
    image = dark if kind == "tensor" else dark.permute(1, 2, 0).mul(255).byte().numpy()
    turned = rotation.apply(image)
    gray = turned[0].numpy() if kind == "tensor" else turned[..., 0].astype(float)
    assert gray.shape == rotation.size[::-1]
    y, x = np.indices(gray.shape)
    centre = np.array([(gray * x).sum(), (gray * y).sum()]) / gray.sum()
    np.testing.assert_allclose(rotation.undo(torch.tensor(centre)).numpy(), [21, 10], atol=0.05)


def test_quarters_move_pixels_and_change_none() -> None:
    image = torch.rand(3, 5, 7)
    assert torch.equal(Rotation(90, 7, 5).apply(image), torch.rot90(image, -1, (1, 2)))  # clockwise
    assert (
        torch.equal(Rotation(270, 7, 5).apply(Rotation(90, 7, 5).apply(image).transpose(1, 2).flip(2)), image.flip(0))
        is False
    )
    assert torch.equal(Rotation(270, 5, 7).apply(Rotation(90, 7, 5).apply(image)), image)
    assert Rotation(90, 7, 5).size == (5, 7)
    assert Rotation(180, 7, 5).size == (7, 5)
    corner = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    torch.testing.assert_close(Rotation(90, 7, 5).undo(corner), torch.tensor([[0.0, 4.0], [0.0, 0.0]]))


@pytest.mark.parametrize("angle", [30, 45])
def test_the_corners_of_a_turned_image_are_off_its_mask(angle: int) -> None:
    rotation = Rotation(angle, 60, 40)
    mask = rotation.mask(None)
    assert mask is not None
    white = rotation.apply(torch.ones(1, 40, 60))[0]
    assert (white[mask] > 0.999).all()
    assert not mask[0, 0]
    assert not mask[-1, -1]
    assert mask.sum() > 0.75 * 60 * 40
    half = torch.zeros(40, 60, dtype=torch.bool)
    half[:, :30] = True
    kept = rotation.mask(half)
    assert kept is not None
    y, x = kept.nonzero().double().T
    assert rotation.undo(torch.stack((x, y), dim=1))[:, 0].max() < 30


def test_a_quarter_has_no_corners_and_rotates_a_mask() -> None:
    assert Rotation(90, 7, 5).mask(None) is None
    mask = torch.rand(5, 7) > 0.5
    turned = Rotation(90, 7, 5).mask(mask)
    assert turned is not None
    assert torch.equal(turned, torch.rot90(mask, -1, (0, 1)))


def test_a_turned_image_shows_things_as_large_as_before() -> None:
    quarter, little = Rotation(90, 600, 400), Rotation(30, 600, 400)
    assert quarter.extract_options({}) == little.extract_options({}) == {}
    assert quarter.extract_options({"resize": 1024}) == {"resize": 1024}
    assert quarter.extract_options({"resize": (200, 300)}) == {"resize": (300, 200)}
    assert quarter.extract_options({"resize": 200, "side": "vert"}) == {"resize": 200, "side": "horz"}
    assert quarter.extract_options({"resize": None, "tile": 640}) == {"resize": None, "tile": 640}
    assert little.extract_options({"resize": 300}) == {"resize": round(300 * little.size[0] / 600)}
    assert little.extract_options({"resize": 200, "side": "vert"})["resize"] == round(200 * little.size[1] / 400)


def test_an_extractor_keeps_its_own_size_for_turned_images(
    images: tuple[Tensor, Tensor], xfeat: XFeat, matcher: LightGlue
) -> None:
    quarter = torch.rot90(images[1], 1, (1, 2))
    for options, sizes in (({}, [1024] * 2), ({"resize": 300}, [300] * 2), ({"resize": None}, [None] * 2)):
        counting = Counting(xfeat)
        _, _, found = match_pair(counting, matcher, images[0], quarter, auto_rotate=True, **options)
        assert found["rotation"] == 90
        assert [call[1].get("resize", 1024) for call in counting.calls[-2:]] == sizes


def test_too_large_an_image_is_turned_by_quarters_only() -> None:
    wide = np.zeros((2, 40_000), np.uint8)
    assert Rotation(90, 40_000, 2).apply(wide).shape == (40_000, 2)
    with pytest.raises(InputError, match="32,766 px"):
        Rotation(30, 40_000, 2).apply(wide)


# Which angles


def test_small_rotations_come_first() -> None:
    assert angles_of(False) == ()
    assert angles_of(True) == angles_of(90) == (0, 90, 270, 180)
    assert angles_of(60) == (0, 60, 300, 120, 240, 180)


@pytest.mark.parametrize("wrong", [7, 0, -90, 200, 360, "yes", 45.0, None, (0, 90)])
def test_other_steps_are_refused(wrong: Any, images: tuple[Tensor, Tensor], xfeat: XFeat, matcher: LightGlue) -> None:
    with pytest.raises(InputError, match="auto_rotate is"):
        match_pair(xfeat, matcher, *images, auto_rotate=wrong)


# Pairs


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_turned_pair_gives_what_the_upright_one_gives(
    quarters: int, images: tuple[Tensor, Tensor], xfeat: XFeat, matcher: LightGlue
) -> None:
    upright0, upright1, upright = match_pair(xfeat, matcher, *images, resize=None)
    turned = torch.rot90(images[1], quarters, (1, 2))  # against the clock
    found0, found1, found = match_pair(xfeat, matcher, images[0], turned, resize=None, auto_rotate=True)
    assert found["rotation"] == 90 * quarters
    assert torch.equal(found["matches"], upright["matches"])
    assert len(found["matches"]) > 50
    assert torch.equal(found0["keypoints"], upright0["keypoints"])
    assert found1["image_size"].tolist() == [turned.shape[2], turned.shape[1]]
    where = Rotation(-90 * quarters, images[1].shape[2], images[1].shape[1])
    torch.testing.assert_close(where.undo(found1["keypoints"]), upright1["keypoints"], atol=1e-3, rtol=0)
    torch.testing.assert_close(found["points1"], found1["keypoints"][found["matches"][:, 1]])


@pytest.mark.parametrize("edge", [400, 640, 1024])
@pytest.mark.parametrize("quarters", [0, 2])
def test_a_pair_of_very_different_scale_is_turned_rightly(
    edge: int, quarters: int, xfeat: XFeat, matcher: LightGlue
) -> None:
    image0, image1 = (load_image(path, resize=edge) for path in (A, B))
    turned = torch.rot90(image1, quarters, (1, 2))
    _, _, found = match_pair(xfeat, matcher, image0, turned, resize=None, auto_rotate=True)
    assert found["rotation"] == 90 * quarters


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_nearest_neighbours_find_the_rotation_too(quarters: int, images: tuple[Tensor, Tensor]) -> None:
    aliked = ALIKED(max_num_keypoints=512, detection_threshold=-1)
    turned = torch.rot90(images[1], quarters, (1, 2))
    for nearest in (NearestNeighbor(), NearestNeighbor(ratio_threshold=0.9)):
        _, _, found = match_pair(aliked, nearest, images[0], turned, resize=None, auto_rotate=True)
        assert found["rotation"] == 90 * quarters


def test_finer_steps_find_rotations_between(images: tuple[Tensor, Tensor], xfeat: XFeat, matcher: LightGlue) -> None:
    where = Rotation(45, images[1].shape[2], images[1].shape[1])
    turned = where.apply(images[1])
    _, _, plain = match_pair(xfeat, matcher, images[0], turned, resize=None)
    _, found1, found = match_pair(xfeat, matcher, images[0], turned, resize=None, auto_rotate=45)
    assert found["rotation"] == 315
    assert len(found["matches"]) > 2 * len(plain["matches"])
    h, w = turned.shape[-2:]
    assert ((found1["keypoints"] > -0.5) & (found1["keypoints"] < torch.tensor([w, h]) - 0.5)).all()


def test_orientations_turn_back_too(images: tuple[Tensor, Tensor]) -> None:
    sift, nearest = SIFT(max_num_keypoints=200), NearestNeighbor(ratio_threshold=0.9)
    quarter = torch.rot90(images[0], 1, (1, 2))
    _, found1, found = match_pair(sift, nearest, images[0], quarter, resize=None, auto_rotate=True)
    plain = sift.extract(quarter, resize=None)
    distance, same = torch.cdist(found1["keypoints"], plain["keypoints"][0]).min(dim=1)
    turned = found1["oris"] - plain["oris"][0][same]
    close = (turned[distance < 0.5].sin() ** 2 + (turned[distance < 0.5].cos() - 1) ** 2).sqrt()
    assert close.median() < 0.2
    assert found["rotation"] in (0, 90)  # SIFT matches however an image is turned


def test_masks_turn_with_their_images(images: tuple[Tensor, Tensor], xfeat: XFeat, matcher: LightGlue) -> None:
    quarter = torch.rot90(images[1], 1, (1, 2))
    mask = torch.zeros(quarter.shape[-2:], dtype=torch.bool)
    mask[100:300, 40:200] = True
    _, found1, found = match_pair(xfeat, matcher, images[0], quarter, resize=None, mask1=mask, auto_rotate=True)
    assert found["rotation"] == 90
    x, y = found1["keypoints"].round().long().T
    assert len(x) > 50
    assert mask[y, x].all()


def test_many_pairs_probe_and_extract_each_image_and_angle_once(
    images: tuple[Tensor, Tensor], xfeat: XFeat, matcher: LightGlue
) -> None:
    quarter = torch.rot90(images[1], 1, (1, 2))
    pairs = [(images[0], images[1]), (images[0], quarter), (images[1], quarter)]
    counting = Counting(xfeat)
    results = match_pairs(counting, matcher, pairs, resize=None, auto_rotate=True)
    assert [found["rotation"] for _, _, found in results] == [0, 90, 90]
    for pair, (_, found1, found) in zip(pairs, results, strict=True):
        _, alone1, alone = match_pair(xfeat, matcher, *pair, resize=None, auto_rotate=True)
        assert torch.equal(found["matches"], alone["matches"])
        torch.testing.assert_close(found1["keypoints"], alone1["keypoints"])
    # Three views at full size; for each size of the probes the first image upright, the others in four directions.
    assert len(counting.calls) <= 3 + len(PROBES) * (1 + 4 + 4)


def test_masks_of_many_pairs(images: tuple[Tensor, Tensor], xfeat: XFeat, matcher: LightGlue) -> None:
    mask = torch.zeros(images[0].shape[-2:], dtype=torch.bool)
    mask[:, :200] = True
    pairs = [images, images]
    masked, plain = match_pairs(xfeat, matcher, pairs, masks=[(mask, None), (None, None)], resize=None)
    assert masked[0]["keypoints"][:, 0].max() < 200
    assert plain[0]["keypoints"][:, 0].max() > 300
    for wrong in ([], [(mask, None)], [mask, mask]):
        with pytest.raises(InputError, match="masks must hold"):
            match_pairs(xfeat, matcher, pairs, masks=wrong)


def test_paths_and_arrays_with_tiles(xfeat: XFeat, matcher: LightGlue, tmp_path: Path) -> None:
    turned = np.ascontiguousarray(np.rot90(cv2.imread(str(FAR))))  # of two tiles
    cv2.imwrite(str(tmp_path / "turned.png"), turned)
    _, from_path, found = match_pair(xfeat, matcher, CLOSE, tmp_path / "turned.png", tile=512, auto_rotate=True)
    assert found["rotation"] == 90
    array = cv2.cvtColor(turned, cv2.COLOR_BGR2RGB)
    _, from_array, _ = match_pair(xfeat, matcher, CLOSE, array, tile=512, auto_rotate=True)
    assert torch.equal(from_array["keypoints"], from_path["keypoints"])
    with pytest.raises(ImageError, match="There is no image"):
        match_pair(xfeat, matcher, CLOSE, tmp_path / "none.png", tile=512, auto_rotate=True)


ROTATED = "with auto_rotate give"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(2, 3, 9, 9), ROTATED),
        ([torch.zeros(3, 9, 9)], "a list of 1; give one image"),
        (5, ROTATED),
        (None, ROTATED),
        (torch.zeros(0, 3, 3), ROTATED),
    ],
)
def test_what_cannot_be_rotated_is_refused(
    wrong: Any, message: str, images: tuple[Tensor, Tensor], xfeat: XFeat
) -> None:
    with pytest.raises(InputError, match=message):
        match_pair(xfeat, NearestNeighbor(), images[0], wrong, auto_rotate=True)


def test_no_keypoints_mean_no_rotation(xfeat: XFeat, matcher: LightGlue, images: tuple[Tensor, Tensor]) -> None:
    for pair in ((torch.zeros(3, 64, 64), images[1]), (images[0], torch.zeros(3, 64, 64))):
        _, _, found = match_pair(xfeat, matcher, *pair, auto_rotate=True)
        assert found["rotation"] == 0
        assert found["matches"].shape == (0, 2)


# Probes


class Random:
    """An extractor of random features, two for each column."""

    def extract(self, image: Tensor, **options: Any) -> Any:
        found = random_features(2 * image.shape[-1], seed=image.shape[-1])
        return {**found, "keypoint_scores": torch.arange(2 * image.shape[-1]).float()[None]}


def test_probes_are_small_and_have_the_best_keypoints() -> None:
    probes = Probes(Random())
    for size, (edge, count) in enumerate(PROBES):
        features = probes.features("very wide", torch.zeros(3, 100, 1000), 0, size)
        assert features["keypoints"].shape == (1, count, 2)
        assert features["keypoint_scores"].min() == 2 * edge - count
    features = probes.features("wide", torch.zeros(3, 100, 1000), 0)
    assert probes.features("small", torch.zeros(3, 100, 20), 90)["keypoints"].shape == (1, 200, 2)
    assert probes.features("wide", torch.zeros(3, 100, 1000), 0) is features


def test_probes_ask_for_few_keypoints_and_leave_the_extractor_as_it_is(images: tuple[Tensor, Tensor]) -> None:
    sift = SIFT(max_num_keypoints=4096, nms_radius=None)
    found = Probes(sift).features(0, images[0], 0)
    assert found["keypoints"].shape[1] == PROBES[0][1]
    assert sift.conf.max_num_keypoints == 4096


def test_without_any_match_the_first_angle_is_taken() -> None:
    image = torch.zeros(3, 30, 30)
    strict = small_matcher(filter_threshold=1.0)
    assert find_angle(Probes(Random()), strict, (0, image), (1, image), (0, 90, 270, 180)) == 0
