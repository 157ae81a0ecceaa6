"""match_pair and its batched sibling."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lightglue import match_pair, match_pairs
from lightglue.errors import InputError
from lightglue.geometry import EstimatorOptions
from lightglue.geometry.errors import pose_error, transfer_error
from lightglue.images import read_image
from lightglue.pairs import match
from support.devices import needs_gpu
from support.matching import random_features, small_matcher


class CountingExtractor:
    """Gives features that depend on the image's mean, and counts its calls."""

    def __init__(self) -> None:
        self.images = 0

    def extract(self, img, resize=None):
        if isinstance(img, list):
            return [self.extract(image, resize=resize) for image in img]
        self.images += 1
        return random_features(int(10 + 10 * img.mean()), seed=resize or 0)


def image(value: float) -> torch.Tensor:
    return torch.full((3, 8, 8), value)


def test_the_result_holds_the_matched_points():
    matcher = small_matcher(filter_threshold=0.0)
    feats0, feats1, found = match_pair(CountingExtractor(), matcher, image(1.0), image(2.0))
    assert feats0["keypoints"].shape == (20, 2)
    assert feats1["keypoints"].shape == (30, 2)
    assert len(found["matches"]) > 0
    assert torch.equal(found["points0"], feats0["keypoints"][found["matches"][:, 0]])
    assert torch.equal(found["points1"], feats1["keypoints"][found["matches"][:, 1]])


def test_preprocessing_options_reach_the_extractor():
    a, _, _ = match_pair(CountingExtractor(), small_matcher(), image(1.0), image(1.0), resize=3)
    assert torch.equal(a["keypoints"], random_features(20, seed=3)["keypoints"][0])


def test_no_keypoints_give_empty_points():
    _, _, found = match_pair(CountingExtractor(), small_matcher(), image(-1.0), image(2.0))
    assert found["points0"].shape == found["points1"].shape == (0, 2)


def test_many_pairs_give_what_each_gives_alone_and_read_an_image_once():
    matcher = small_matcher(filter_threshold=0.0)
    images = [image(v) for v in (0.5, 1.0, 3.0)]
    pairs = [(images[0], images[1]), (images[0], images[2]), (images[1], images[2])]
    extractor = CountingExtractor()
    results = match_pairs(extractor, matcher, pairs)
    assert extractor.images == 3
    for pair, (feats0, _, found) in zip(pairs, results, strict=True):
        alone0, _, alone = match_pair(CountingExtractor(), matcher, *pair)
        assert torch.equal(feats0["keypoints"], alone0["keypoints"])
        assert torch.equal(found["matches"], alone["matches"])
        assert torch.equal(found["points1"], alone["points1"])


def test_pairs_may_come_from_an_iterator():
    assert len(match_pairs(CountingExtractor(), small_matcher(), zip([image(1.0)], [image(2.0)], strict=True))) == 1


def test_a_matcher_of_the_users_own_may_return_what_it_likes():
    _, _, found = match_pair(CountingExtractor(), lambda data: {"inliers": 3}, image(1.0), image(2.0))
    assert found == {"inliers": 3}


def test_no_pairs_give_no_results():
    assert match_pairs(CountingExtractor(), small_matcher(), []) == []


@pytest.mark.parametrize("pairs", [[image(0)], [(image(0),)], ["ab"]])
def test_what_is_not_a_pair_is_refused(pairs):
    with pytest.raises(InputError, match="item 0"):
        match_pairs(CountingExtractor(), small_matcher(), pairs)


# -- refined points and geometry ---------------------------------------------------------------------------------------

SHIFT = torch.tensor([3.3, -2.6])  # px: what is at x in the first texture is at x + SHIFT in the second
TRUE_H = np.array([[1, 0, 3.3], [0, 1, -2.6], [0, 0, 1]])


def texture(shift: torch.Tensor | None = None, size: int = 96) -> torch.Tensor:
    """(3, size, size) waves in [0, 1], moved by `shift`."""
    dx, dy = (0, 0) if shift is None else shift.tolist()
    y, x = torch.meshgrid(torch.arange(size) - dy, torch.arange(size) - dx, indexing="ij")
    waves = torch.sin(0.61 * x + 0.2 * y) + torch.sin(0.45 * y - 0.3 * x) + torch.sin(0.23 * x + 0.37 * y)
    return (0.5 + waves / 6).expand(3, -1, -1)


def grid() -> torch.Tensor:
    """(49, 2) px, away from the rim."""
    steps = torch.arange(7) * 10.0 + 17
    return torch.cartesian_prod(steps, steps)


class Detector:
    """Finds a grid in the first image, and in all others where it moved to, to a pixel."""

    def __init__(self, first: Any, moved: torch.Tensor | None = None, count: int | None = None) -> None:
        self.first, self.images = first, 0
        self.moved = (grid() + SHIFT.round() if moved is None else moved)[:count]
        self.count = count

    def extract(self, img: Any, resize: Any = None, tile: Any = None) -> dict[str, torch.Tensor]:
        self.images += 1
        is_first = img is self.first
        if isinstance(self.first, (str, Path)):
            is_first = np.array_equal(img, read_image(self.first))
        points = grid()[: self.count] if is_first else self.moved
        size = torch.tensor([[96.0, 96.0]])
        return {"keypoints": points[None], "descriptors": torch.zeros(1, len(points), 16), "image_size": size}


class RowByRow:
    """Matches keypoint i to keypoint i."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return self.match([(data["image0"], data["image1"])])[0]

    def match(self, pairs: Any) -> list[dict[str, Any]]:
        counts = [two[0]["keypoints"].shape[1] for two in pairs]
        return [{"matches": torch.arange(n)[:, None].repeat(1, 2)[None], "scores": torch.ones(1, n)} for n in counts]


def distance(found: dict[str, Any]) -> float:
    """Mean error of the second points, px."""
    return float((found["points0"] + SHIFT - found["points1"]).norm(dim=1).mean())


def test_refined_points_are_where_the_images_agree_and_no_longer_rows_of_the_keypoints():
    images = texture(), texture(SHIFT)
    _, plain1, plain = match_pair(Detector(images[0]), RowByRow(), *images)
    assert torch.equal(plain["points1"], plain1["keypoints"][plain["matches"][:, 1]])
    _, feats1, found = match_pair(Detector(images[0]), RowByRow(), *images, refine=True)
    assert torch.equal(feats1["keypoints"], plain1["keypoints"])
    assert torch.equal(found["points0"], plain["points0"])
    assert distance(plain) > 0.4
    assert distance(found) < 0.03
    assert "inliers" not in found


def test_the_geometry_comes_with_its_inliers():
    images, moved = (texture(), texture(SHIFT)), grid() + SHIFT
    moved[::7] += 20
    options = EstimatorOptions("opencv", threshold=0.5, seed=3)
    extractor = Detector(images[0], moved)
    _, _, found = match_pair(extractor, RowByRow(), *images, geometry="homography", estimator=options)
    expected = torch.ones(49, dtype=torch.bool)
    expected[::7] = False
    assert torch.equal(found["inliers"], expected)
    assert found["geometry"].statistics.options == options
    assert transfer_error(found["geometry"].model, grid(), grid() + SHIFT).max() < 1e-3


def test_the_geometry_is_that_of_the_refined_points():
    images = texture(), texture(SHIFT)
    plain, refined = (
        match_pair(Detector(images[0]), RowByRow(), *images, refine=refine, geometry="homography")[2]["geometry"].model
        for refine in (False, True)
    )
    assert np.abs(plain - TRUE_H)[:2, 2].max() > 0.3
    assert np.abs(refined - TRUE_H)[:2, 2].max() < 0.05


def test_cameras_give_the_pose():
    g = torch.Generator().manual_seed(0)
    world = torch.rand(49, 3, generator=g) * 4 + torch.tensor([-2.0, -2.0, 5.0])
    K0, K1 = (torch.tensor([[f, 0, 48], [0, f, 48], [0, 0, 1]]) for f in (60.0, 90.0))
    T = torch.eye(4)
    T[:3, 3] = torch.tensor([1.0, 0.0, 0.0])
    seen = [points @ K.T for points, K in ((world, K0), (world + T[:3, 3], K1))]
    first, second = (points[:, :2] / points[:, 2:] for points in seen)
    image0, image1 = texture(), texture()

    class Projector(Detector):
        def extract(self, img: Any, resize: Any = None, tile: Any = None) -> dict[str, torch.Tensor]:
            return super().extract(img) | {"keypoints": (first if img is image0 else second)[None]}

    options = {"geometry": "relative_pose", "camera0": K0, "camera1": K1.numpy()}
    _, _, found = match_pair(Projector(image0), RowByRow(), image0, image1, **options)
    assert pose_error(found["geometry"].model, T.numpy()) < 0.1
    assert bool(found["inliers"].all())


def test_many_pairs_are_refined_and_estimated_as_each_alone():
    first, second, third = texture(), texture(SHIFT), texture(SHIFT + 0.3)
    several = [(first, second), (first, third), (second, third)]
    K = np.array([[90.0, 0, 48], [0, 90, 48], [0, 0, 1]])
    options: dict[str, Any] = {"refine": True, "geometry": "essential", "estimator": EstimatorOptions(threshold=2)}
    cameras = [(K, 1.1 * K * [[1, 1, 1], [1, 1, 1], [1, 1, 1 / 1.1]])] * 3
    extractor = Detector(first)
    results = match_pairs(extractor, RowByRow(), several, cameras=cameras, **options)
    assert extractor.images == 3
    for pair, (camera0, camera1), (_, _, found) in zip(several, cameras, results, strict=True):
        _, _, alone = match_pair(Detector(first), RowByRow(), *pair, camera0=camera0, camera1=camera1, **options)
        assert torch.equal(found["points1"], alone["points1"])
        assert torch.equal(found["inliers"], alone["inliers"])
        assert found["geometry"].model is not None
        np.testing.assert_array_equal(found["geometry"].model, alone["geometry"].model)


def as_paths(folder: Path, images: tuple[torch.Tensor, torch.Tensor]) -> tuple[Any, Any]:
    for i, each in enumerate(as_arrays(folder, images)):
        cv2.imwrite(str(folder / f"{i}.png"), each)
    return folder / "0.png", str(folder / "1.png")


def as_arrays(_: Path, images: tuple[torch.Tensor, torch.Tensor]) -> tuple[Any, Any]:
    first, second = ((255 * each.permute(1, 2, 0)).round().byte().numpy() for each in images)
    return first, second


def as_deep_arrays(_: Path, images: tuple[torch.Tensor, torch.Tensor]) -> tuple[Any, Any]:
    first, second = ((65535 * each[0]).round().numpy().astype(np.uint16) for each in images)
    return first, second


def as_batches(_: Path, images: tuple[torch.Tensor, torch.Tensor]) -> tuple[Any, Any]:
    return images[0][None], images[1][None]


def as_gray(_: Path, images: tuple[torch.Tensor, torch.Tensor]) -> tuple[Any, Any]:
    return images[0][:1].double(), images[1][:1].half()


@pytest.mark.parametrize("form", [as_paths, as_arrays, as_deep_arrays, as_batches, as_gray])
def test_whatever_can_be_extracted_can_be_refined(form: Any, tmp_path: Path):
    images = form(tmp_path, (texture(), texture(SHIFT)))
    for run in (match_pair, lambda e, m, a, b, **options: match_pairs(e, m, [(a, b)], **options)[0]):
        _, _, found = run(Detector(images[0]), RowByRow(), *images, refine=True, tile=512)
        assert distance(found) < 0.05


def test_black_and_white_images_are_refined():
    first, second = texture() > 0.5, texture(SHIFT) > 0.5
    assert distance(match_pair(Detector(first), RowByRow(), first, second, refine=True)[2]) < 0.3


def test_a_turned_image_is_refined_in_its_own_pixels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(match, "find_angle", lambda *_: 90)  # what turns it back
    first, upright = texture(), texture(SHIFT)
    turned = torch.rot90(upright, 1, (1, 2)).contiguous()
    options: dict[str, Any] = {"auto_rotate": True, "refine": True, "geometry": "homography"}
    _, _, found = match_pair(Detector(first), RowByRow(), first, turned, **options)
    assert found["rotation"] == 90
    x, y = (grid() + SHIFT).T
    expected = torch.stack((y, 95 - x), 1)
    assert float((found["points1"] - expected).norm(dim=1).mean()) < 0.03
    assert transfer_error(found["geometry"].model, grid(), expected).max() < 0.1


def test_no_matches_give_no_model_and_say_why():
    images = texture(), texture(SHIFT)
    extractor = Detector(images[0], count=0)
    _, _, found = match_pair(extractor, RowByRow(), *images, refine=True, geometry="homography")
    assert found["points1"].shape == (0, 2)
    assert found["inliers"].shape == (0,)
    assert found["inliers"].dtype == torch.bool
    assert found["geometry"].model is None
    assert "0 different matches" in found["geometry"].statistics.failure


@pytest.mark.parametrize("asked", [{"refine": True}, {"geometry": "homography"}])
def test_a_matcher_without_matches_can_be_followed_by_nothing(asked: dict[str, Any]):
    with pytest.raises(InputError, match="The matcher gives no `matches`"):
        match_pair(CountingExtractor(), lambda data: {"mine": 3}, image(1.0), image(2.0), **asked)


K = np.array([[90.0, 0, 48], [0, 90, 48], [0, 0, 1]])
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"refine": "yes"}, "refine is 'yes'; give True or False"),
    ({"refine": 1}, "refine is 1"),
    ({"geometry": "homograpy"}, "geometry is 'homograpy'; choose one of homography, fundamental"),
    ({"geometry": ""}, "geometry is ''"),
    ({"geometry": "essential"}, "essential needs camera0 and camera1"),
    ({"geometry": "relative_pose", "camera0": K}, "relative_pose needs camera0 and camera1"),
    ({"geometry": "relative_pose", "camera0": K, "camera1": -K}, "focal lengths must be above 0"),
    ({"geometry": "relative_pose", "camera0": K, "camera1": "x"}, "camera1: 'x' is no camera; give auto, fx,fy,cx,cy"),
    ({"geometry": "essential", "camera0": K, "camera1": np.array(5.0)}, "camera1: K is 5.0; give a calibration"),
    ({"geometry": "essential", "camera0": [[1], [2], [3], 4], "camera1": K}, "camera0: K is .*; give a calibration"),
    ({"device": "gpu"}, "device is 'gpu'; give one that torch knows"),
    ({"camera0": K}, "A camera has an effect with geometry only"),
    ({"estimator": EstimatorOptions()}, "An estimator has an effect with geometry only"),
    ({"geometry": "homography", "estimator": "opencv"}, "estimator is 'opencv'; give a lightglue.geometry.Estimator"),
    ({"geometry": "fundamental", "estimator": EstimatorOptions("dlt")}, "'dlt' fits homographies only"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
@pytest.mark.parametrize("is_batched", [False, True])
def test_what_cannot_follow_is_refused_before_any_work(wrong: dict[str, Any], message: str, is_batched: bool):
    extractor, images = CountingExtractor(), (image(1.0), image(2.0))
    if is_batched:
        cameras = wrong.get("camera0"), wrong.get("camera1")
        others = {name: value for name, value in wrong.items() if not name.startswith("camera")}
        with pytest.raises(InputError, match=message):
            match_pairs(extractor, small_matcher(), [images], cameras=[cameras], **others)
    else:
        with pytest.raises(InputError, match=message):
            match_pair(extractor, small_matcher(), *images, **wrong)
    assert extractor.images == 0


@pytest.mark.parametrize("two", [["a.jpg", "b.jpg"], (), [image(1.0)]])
def test_several_images_in_the_place_of_one_are_refused(two: Any):
    with pytest.raises(InputError, match=f"The image is a {type(two).__name__} of {len(two)}; give one image"):
        match_pair(CountingExtractor(), small_matcher(), two, image(1.0))


def test_what_has_no_size_is_refused_where_a_camera_is_guessed():
    with pytest.raises(InputError, match="The image is a NoneType; give a file, an array, or a tensor"):
        match_pair(
            CountingExtractor(), small_matcher(), None, image(1), geometry="essential", camera0="auto", camera1="auto"
        )


def test_a_camera_that_a_geometry_does_not_need_has_no_effect_and_warns():
    images = image(1.0), image(2.0)
    *_, expected = match_pair(CountingExtractor(), small_matcher(), *images, geometry="homography")
    with pytest.warns(UserWarning, match="camera0 and camera1 have no effect with the geometry homography") as found:
        *_, actual = match_pair(
            CountingExtractor(), small_matcher(), *images, geometry="homography", camera0=K, camera1=K
        )
    assert found[0].filename == __file__
    assert "cameras" not in actual
    torch.testing.assert_close(actual["inliers"], expected["inliers"])


def test_an_open_file_that_comes_twice_is_read_once():
    content = cv2.imencode(".png", np.zeros((32, 48, 3), np.uint8))[1].tobytes()
    file = io.BytesIO(content)
    first, second, _ = match_pair(CountingExtractor(), small_matcher(), file, file)
    assert torch.equal(first["keypoints"], second["keypoints"])
    file, other = io.BytesIO(content), io.BytesIO(content)
    assert len(match_pairs(CountingExtractor(), small_matcher(), [(file, other), (other, file)])) == 2


def test_wrong_options_are_refused_even_for_no_pairs():
    with pytest.raises(InputError, match="geometry is 'x'"):
        match_pairs(CountingExtractor(), small_matcher(), [], geometry="x")


@pytest.mark.parametrize("cameras", [[], [(K,)], [K, K], [(K, K), (K, K)]])
def test_cameras_are_two_for_each_pair(cameras: Any):
    with pytest.raises(InputError, match="cameras must hold \\(camera0, camera1\\) for each of the 1 pairs"):
        match_pairs(CountingExtractor(), small_matcher(), [(image(1), image(2))], geometry="essential", cameras=cameras)


@needs_gpu
def test_points_of_images_on_a_gpu_are_refined_and_estimated():
    images = texture().cuda(), texture(SHIFT).cuda()
    moved = (grid() + SHIFT.round()).cuda()

    class OnGpu(Detector):
        def extract(self, img: Any, resize: Any = None, tile: Any = None) -> dict[str, torch.Tensor]:
            return {name: value.cuda() for name, value in super().extract(img).items()}

    for device in ("cpu", "cuda"):
        options: dict[str, Any] = {"refine": True, "geometry": "homography", "device": device}
        _, _, found = match_pair(OnGpu(images[0], moved), RowByRow(), *images, **options)
        assert found["points1"].device.type == found["inliers"].device.type == device
        assert np.abs(found["geometry"].model - TRUE_H)[:2, 2].max() < 0.05
