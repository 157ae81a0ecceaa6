"""The record of a matched pair: attributes, published keys, unpacking, and what it says when printed."""

from __future__ import annotations

import io
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

from lightglue import match_pair
from lightglue.errors import InputError
from lightglue.geometry import EstimatorOptions, estimate_homography, estimate_relative_pose
from lightglue.pairs import MatchedPair
from lightglue.pairs.cameras import known_camera
from lightglue.pairs.encoders import ENCODERS, ENDINGS, Shown, encode
from lightglue.pairs.postprocessing import without_matches
from lightglue.pairs.record import matches_of
from support import ASSETS

A = ASSETS / "montmartre_close.jpg"


def made(count: int = 34, overlap: float | None = 0.9, **more: Any) -> MatchedPair:
    """A pair of 40 and 50 keypoints."""
    rng = torch.Generator().manual_seed(0)
    features = [
        {"keypoints": torch.rand(1, n, 2, generator=rng) * 100, "descriptors": torch.zeros(1, n, 8)} for n in (40, 50)
    ]
    result = {
        "matches": [torch.arange(count)[:, None].repeat(1, 2)],
        "scores": [torch.linspace(0.25, 0.75, count)],
        "matches0": torch.arange(40)[None],
        "stop": 5,
        **({} if overlap is None else {"overlap": torch.tensor([overlap])}),
        **more,
    }
    return MatchedPair.of(features[0], features[1], result)


def test_it_is_unpacked_as_published_and_asked_by_name() -> None:
    pair = made()
    feats0, feats1, matches01 = pair
    assert feats0["keypoints"] is pair.keypoints0
    assert feats1["keypoints"].shape == (50, 2)
    assert matches01["matches"] is pair.matches
    assert torch.equal(pair.points1, feats1["keypoints"][pair.matches[:, 1]])
    assert (pair.overlap, pair.stop, pair.rotation, pair.geometry) == (pytest.approx(0.9), 5, None, None)
    assert isinstance(pair, tuple)
    assert pair.with_matches(rotation=270).arrays()["rotation"].dtype == np.float64  # as files have always had it


def test_one_place_unpacks_what_a_matcher_gives() -> None:
    result = {"matches": torch.ones(1, 3, 2), "scores": [torch.ones(3)], "stop": 7, "overlap": torch.tensor([0.5])}
    found = matches_of(result)
    assert found["matches"].shape == (3, 2)
    assert found["scores"].shape == (3,)
    assert (found["stop"], found["overlap"].shape) == (7, ())


def test_a_matcher_without_matches_says_so() -> None:
    pair = MatchedPair.of({"keypoints": torch.zeros(1, 2, 2)}, {"keypoints": torch.zeros(1, 3, 2)}, {"mine": 3})
    assert str(pair) == "A matcher's own result of 2 and 3 keypoints:\nmine"
    with pytest.raises(InputError, match="The matcher gives no `matches`"):
        _ = pair.matches


def homography(share: float) -> Any:
    """Estimated of 100 matches, of which this share agrees."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 500, (100, 2))
    moved = points + 3
    moved[round(100 * share) :] = rng.uniform(0, 500, (100 - round(100 * share), 2))
    return estimate_homography(points, moved, EstimatorOptions("opencv"))


def pose() -> Any:
    """From camera 0 to camera 1: 30 degrees about the vertical axis, moved to the right."""
    rng = np.random.default_rng(0)
    world = rng.uniform(-2, 2, (60, 3)) + np.array([0, 0, 6])
    angle = np.radians(30)
    R = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    seen = [points @ K.T for points in (world, world @ R.T + np.array([-3, 0, 1]))]
    first, second = (points[:, :2] / points[:, 2:] for points in seen)
    return estimate_relative_pose(first, second, K, K, EstimatorOptions("opencv"))


def test_an_estimate_says_in_one_line_what_it_is() -> None:
    assert str(homography(0.9)) == "homography: 90 of 100 matches agree within 2 px"
    few = "homography: 20 of 100 matches agree within 2 px; few inliers for a homography: the scene is hardly flat"
    assert str(homography(0.2)) == few
    line = (
        "relative_pose".replace("_", " ") + ": rotation 30.0°, translation direction (-0.95, 0.00, 0.32), scale unknown"
    )
    assert str(pose()).replace("-0.00", "0.00") == f"{line}; 60 of 60 matches agree within 1 px"
    assert str(estimate_homography([[0, 0]], [[1, 1]])) == "no homography: 1 different matches, and it takes 4"
    fitted = estimate_homography(*np.random.default_rng(0).uniform(0, 500, (2, 8, 2)), EstimatorOptions("dlt"))
    assert str(fitted) == "homography: fitted to all 8 matches"


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        (
            made(),
            "34 matches of 40 and 50 keypoints, overlap 0.90\n"
            "scores from 0.25 to 0.75, positions in px of the images as they were given",
        ),
        (
            made(overlap=0.04),
            "34 matches, but the images probably do not overlap (0.04)\n"
            "scores from 0.25 to 0.75, positions in px of the images as they were given",
        ),
        (
            made(1, None),
            "1 match of 40 and 50 keypoints\n"
            "scores from 0.25 to 0.25, positions in px of the images as they were given",
        ),
        (made(0), "0 matches of 40 and 50 keypoints, overlap 0.90\nno scores"),
        (
            made(rotation=90.0, geometry=homography(0.9)),
            "34 matches of 40 and 50 keypoints, overlap 0.90\n"
            "image 1 rotated by 90° clockwise; homography: 90 of 100 matches agree within 2 px",
        ),
    ],
)
def test_it_says_in_two_lines_what_it_is(pair: MatchedPair, text: str) -> None:
    assert str(pair) == repr(pair) == text


def test_without_its_matches_it_keeps_the_features() -> None:
    estimated = made().with_matches(geometry=homography(0.9), inliers=torch.ones(34, dtype=torch.bool))
    pair = without_matches(estimated, "no overlap")
    assert len(pair.matches) == len(pair.scores) == len(pair.points0) == 0
    assert pair.inliers is not None
    assert len(pair.inliers) == 0
    assert (pair.matches01["matches0"] == -1).all()
    assert str(pair.geometry) == "no homography: no overlap"
    assert len(pair.keypoints0) == 40


def test_a_format_is_one_row_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(ENCODERS) == ENDINGS
    shown = Shown(torch.zeros(3, 60, 60), torch.zeros(3, 60, 60))
    monkeypatch.setattr(
        "lightglue.pairs.encoders.ENCODERS", {".txt": lambda pair, _, kind: f"{kind}: {pair.stop}".encode()}
    )
    assert encode(made(), ".TXT", shown) == b"txt: 5"
    with pytest.raises(InputError, match=r"'\.gif' is none of the known endings"):
        encode(made(), ".gif", shown)


# -- cameras -----------------------------------------------------------------------------------------------------------


def test_cameras_in_every_form_are_one() -> None:
    K = [[900.0, 0, 640], [0, 910, 438], [0, 0, 1]]
    numbers = (900, 910, 640, 438)
    forms = (numbers, list(numbers), np.array(numbers), torch.tensor(numbers), "900,910,640,438")
    for camera in (*forms, K, np.array(K), torch.tensor(K)):
        known = known_camera("camera0", camera, A, (1280, 876))
        np.testing.assert_allclose(known.K, K)
        assert known.source == "given"
        assert known_camera("camera0", known, A, (1280, 876)) is known


@pytest.mark.parametrize("image", [np.zeros((876, 1280, 3), np.uint8), A.read_bytes(), A, str(A)], ids=type)
def test_an_unknown_camera_is_guessed_and_the_record_says_so(image: Any) -> None:
    with mock.patch.dict("sys.modules", {"pycolmap": None, "lightglue.geometry.colmap_cameras": None}):
        known = known_camera("camera0", "auto", image, (1280, 876))  # without EXIF, pycolmap is not needed
    assert known.K == [[1536, 0, 639.5], [0, 1536, 437.5], [0, 0, 1]]
    assert known.source == "guessed"


def test_match_pair_takes_auto_and_any_image() -> None:
    points = torch.rand(1, 30, 2, generator=torch.Generator().manual_seed(0)) * 100

    class Extractor:
        def extract(self, image: Any, **options: Any) -> Any:
            assert image.shape == (3, 876, 1280)
            return {"keypoints": points, "descriptors": torch.zeros(1, 30, 8)}

    def matcher(data: Any) -> Any:
        return {"matches": [torch.arange(30)[:, None].repeat(1, 2)], "scores": [torch.ones(30)]}

    image = cv2.imread(str(A))
    asked: dict[str, Any] = {"geometry": "essential", "camera0": "auto", "camera1": (900, 910, 640, 438)}
    pair = match_pair(Extractor(), matcher, image[..., ::-1], A.read_bytes(), **asked)
    assert [camera.source for camera in pair.matches01["cameras"]] == ["guessed", "given"]
    assert pair.geometry is not None
    assert pair.geometry.geometry == "essential"
    assert str(pair).endswith("; the focal length of image 0 is guessed")
    asked["camera1"] = "auto"
    both = match_pair(Extractor(), matcher, image[..., ::-1], image[..., ::-1], **asked)
    assert str(both).endswith("; both focal lengths are guessed")
    with pytest.raises(InputError, match="is open for text"):
        match_pair(Extractor(), matcher, io.StringIO("x"), image[..., ::-1])
