"""`lightglue match`: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lightglue import ALIKED, LightGlue, XFeat, load_image, match_pair
from lightglue.extractors import options, views
from lightglue.geometry.errors import transfer_error
from lightglue.matching.overlap import COEFFICIENTS
from lightglue.models.registry import FEATURES, WITH_OVERLAP, default_mp
from lightglue.pairs import options as pair_options
from lightglue.pairs.cameras import known_camera
from lightglue.pairs.encoders import Shown, encode_warp
from support import CLOSE, FAR, A, B
from support.command import Run, lightglue, plain
from support.users import ordinary_user

SMALL = ("--max-keypoints", "150", "--resize", "320", "--device", "cpu")
PICTURES = {".png": b"\x89PNG", ".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".pdf": b"%PDF", ".svg": b"<?xml"}


run = partial(lightglue, "match")
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once")


@dataclass(frozen=True)
class Written:
    """One run that wrote every kind of file and printed the table."""

    run: Run
    folder: Path

    def path(self, ending: str) -> Path:
        return self.folder / f"result{ending}"

    def json(self) -> dict[str, list[float]]:
        content: dict[str, list[float]] = json.loads(self.path(".json").read_text())
        return content


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("outputs")
    options = [f"--output={folder / f'result{ending}'}" for ending in (*PICTURES, ".npz", ".json", ".csv")]
    return Written(run(CLOSE, FAR, *SMALL, *options), folder)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blank") / "blank.png"
    cv2.imwrite(str(path), np.full((90, 120, 3), 128, np.uint8))
    return path


# -- what it prints ----------------------------------------------------------------------------------------------------


def test_the_table_tells_counts_layers_pruning_and_seconds(written: Written) -> None:
    assert written.run.code == 0
    assert written.run.err == ""
    rows = {line[:10].strip(): line[10:].strip() for line in written.run.out.splitlines() if line[:10].strip()}
    matches = len(written.json()["matches"])
    assert rows["keypoints"] == "150 + 150"
    assert rows["matches"] == str(matches)
    assert rows["stop layer"[:10]] == f"{written.json()['stop']} of 9"
    assert re.fullmatch(r"\d+% \+ \d+%", rows["pruned"])
    for name in ("load", "extraction", "matching"):
        assert re.fullmatch(r"\d+\.\d\d s", rows[name])


def test_json_prints_one_object_and_nothing_else(written: Written) -> None:
    result = run(CLOSE, FAR, *SMALL, "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert result.out.count("\n") == 1
    for name, value in written.json().items():
        assert found[name] == value
    assert found["files"] == [str(CLOSE), str(FAR)]
    assert found["num_keypoints"] == [150, 150]
    assert found["num_matches"] == len(found["matches"])
    assert found["layers"] == 9
    assert all(0 <= share <= 1 for share in found["pruned"])
    assert set(found["seconds"]) == {"load", "extraction", "matching"}
    assert (found["features"], found["device"], found["outputs"]) == ("aliked", "cpu", [])


def test_help_tells_every_option_without_loading_torch() -> None:
    script = (
        "import sys; from lightglue.cli import main\n"
        "sys.argv = ['lightglue', 'match', '--help']\n"
        "try: main()\n"
        "finally: print('loaded:', {'torch', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("loaded: set()")
    for option in ("--features", "--max-keypoints", "--resize", "--device", "--mp", "--output", "--json"):
        assert option in done.stdout
    for option in (
        "--refine",
        "--geometry",
        "--camera0",
        "--camera1",
        "--estimator",
        "--threshold",
        "--seed",
        "--warp",
    ):
        assert option in done.stdout


def test_a_wrong_option_is_refused_without_loading_torch() -> None:
    wrong = [["--geometry", "homograpy"], ["--geometry", "essential"], ["--warp", "x.png"], ["--camera0", "1,2"]]
    script = (
        "import sys; from lightglue.cli import main\n"
        f"for words in {wrong!r}:\n"
        f"    code, sys.argv = None, {['lightglue', 'match', str(CLOSE), str(FAR)]!r} + words\n"
        "    try: main()\n"
        "    except SystemExit as ended: code = ended.code\n"
        "    print(code, {'torch', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2 set()"] * len(wrong)


# -- what it writes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "start"), PICTURES.items())
def test_a_picture_is_of_the_kind_that_its_ending_says(written: Written, ending: str, start: bytes) -> None:
    content = written.path(ending).read_bytes()
    assert content.startswith(start)
    if ending in (".png", ".jpg", ".jpeg"):
        picture = cv2.imread(str(written.path(ending)))
        assert picture is not None
        assert picture.shape[1] > picture.shape[0] > 300
        assert picture.std() > 20  # photographs, not an empty canvas


def test_npz_and_json_hold_the_same_arrays(written: Written) -> None:
    with np.load(written.path(".npz")) as arrays:
        found = dict(arrays)
    names = {"keypoints0", "keypoints1", "matches", "scores", "image_size0", "image_size1", "stop", "overlap"}
    assert set(found) == set(written.json()) == names | {"points0", "points1"}
    for name, values in written.json().items():
        np.testing.assert_array_equal(found[name], values)
    assert found["keypoints0"].shape == (150, 2)
    assert found["keypoints0"].dtype == np.float32
    assert found["matches"].shape == (len(found["scores"]), 2)
    assert found["matches"].dtype == np.int64
    for i in (0, 1):
        np.testing.assert_array_equal(found[f"points{i}"], found[f"keypoints{i}"][found["matches"][:, i]])


def test_sizes_and_positions_are_those_of_the_image_files(written: Written) -> None:
    for name, path in (("0", CLOSE), ("1", FAR)):
        height, width = cv2.imread(str(path)).shape[:2]
        assert written.json()[f"image_size{name}"] == [width, height]
        keypoints = np.array(written.json()[f"keypoints{name}"])
        assert (keypoints.max(0) > 0.6 * np.array([width, height])).all()  # not px of the resized image
        assert (keypoints < [width, height]).all()


def test_csv_holds_a_match_a_line(written: Written) -> None:
    with written.path(".csv").open() as file:
        header, *rows = csv.reader(file)
    found = {name: np.array(value) for name, value in written.json().items()}
    assert header == ["x0", "y0", "x1", "y1", "score"]
    expected = np.column_stack(
        [found["keypoints0"][found["matches"][:, 0]], found["keypoints1"][found["matches"][:, 1]], found["scores"]]
    )
    assert len(rows) > 20
    np.testing.assert_array_equal(np.array(rows, np.float32), expected.astype(np.float32))


def test_the_result_is_that_of_match_pair(written: Written) -> None:
    mp = default_mp(torch.device("cpu"), "aliked")
    extractor = ALIKED(max_num_keypoints=150, detection_threshold=-1, mp=mp)
    matcher = LightGlue(features="aliked", mp=mp, pruning="tuned").eval()
    features0, _, matches = match_pair(extractor, matcher, load_image(CLOSE), load_image(FAR), resize=320)
    assert written.json()["keypoints0"] == features0["keypoints"].tolist()
    assert written.json()["matches"] == matches["matches"].tolist()
    assert written.json()["stop"] == matches["stop"]


# -- images and options ------------------------------------------------------------------------------------------------


def test_disk_matches_too() -> None:
    result = run(CLOSE, FAR, *SMALL, "--features", "disk", "--json")
    assert result.code == 0
    assert json.loads(result.out)["num_matches"] > 10


def test_xfeat_matches_with_its_own_thresholds_unless_told_otherwise() -> None:
    result = run(CLOSE, FAR, *SMALL, "--features", "xfeat", "--json")
    assert result.code == 0
    found = json.loads(result.out)
    extractor = XFeat(max_num_keypoints=150, detection_threshold=0)
    matcher = LightGlue(features="xfeat", pruning="tuned").eval()
    _, _, matches = match_pair(extractor, matcher, load_image(CLOSE), load_image(FAR), resize=320)
    assert found["matches"] == matches["matches"].tolist()
    assert found["stop"] == 6
    stopped = json.loads(run(CLOSE, FAR, *SMALL, "--features", "xfeat", "--depth-confidence", "0.1", "--json").out)
    assert stopped["stop"] < 6


def test_an_image_matches_itself_point_by_point() -> None:
    found = json.loads(run(CLOSE, CLOSE, *SMALL, "--json").out)
    matches = np.array(found["matches"])
    assert len(matches) > 140
    assert (matches[:, 0] == matches[:, 1]).all()


def test_options_reach_the_models() -> None:
    loose = json.loads(run(CLOSE, FAR, *SMALL, "--json", "--filter-threshold", "0").out)
    strict = json.loads(run(CLOSE, FAR, *SMALL, "--json", "--filter-threshold", "0.9").out)
    assert len(loose["scores"]) > len(strict["scores"]) > 0
    assert min(strict["scores"]) > 0.9
    whole = json.loads(run(CLOSE, FAR, *SMALL, "--json", "--depth-confidence", "-1", "--width-confidence", "-1").out)
    assert (whole["stop"], whole["pruned"]) == (9, [0, 0])
    reduced = run(CLOSE, FAR, *SMALL, "--json", "--mp")
    assert reduced.code == 0
    assert json.loads(reduced.out)["num_matches"] > 20


def test_resize_none_extracts_at_the_size_of_the_file(tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), cv2.resize(cv2.imread(str(CLOSE)), (320, 219), interpolation=cv2.INTER_AREA))
    options = ("--max-keypoints", "150", "--json")
    as_it_is, same = run(small, small, *options, "--resize", "none"), run(small, small, *options, "--resize", "320")
    assert json.loads(as_it_is.out)["keypoints0"] == json.loads(same.out)["keypoints0"]


def test_no_keypoints_give_an_honest_result_and_picture(blank: Path, tmp_path: Path) -> None:
    result = run(blank, CLOSE, *SMALL, *(f"-o{tmp_path / name}" for name in ("r.png", "r.json", "r.csv", "r.npz")))
    assert result.code == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["matches"], found["scores"]) == ([], [])
    assert (tmp_path / "r.csv").read_text() == "x0,y0,x1,y1,score\n"
    with np.load(tmp_path / "r.npz") as arrays:
        assert arrays["matches"].shape == (0, 2)
        assert arrays["keypoints1"].shape == (150, 2)
    assert cv2.imread(str(tmp_path / "r.png")) is not None


def test_gray_images_and_names_with_markup_are_fine(tmp_path: Path) -> None:
    gray = tmp_path / "[red] $x$ été.png"
    cv2.imencode(".png", cv2.imread(str(CLOSE), cv2.IMREAD_GRAYSCALE))[1].tofile(gray)
    result = run(gray, FAR, *SMALL, "-o", tmp_path / "r.png")
    assert result.code == 0
    assert "[red] $x$ été.png" in plain(result.out)


# -- masks, tiles, scales, turns, other features and matchers ----------------------------------------------------------


def test_masks_keep_keypoints_where_they_are_white(tmp_path: Path) -> None:
    mask = np.zeros(cv2.imread(str(CLOSE)).shape[:2], np.uint8)
    mask[:, 150:350] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    result = run(CLOSE, FAR, *SMALL, "--json", "--mask0", tmp_path / "mask.png")
    assert result.code == 0
    found = json.loads(result.out)
    x0, x1 = (np.array(found[name])[:, 0] for name in ("keypoints0", "keypoints1"))
    assert x0.min() >= 149.5
    assert x0.max() <= 349.5
    assert x1.min() < 100
    wrong = run(CLOSE, FAR, *SMALL, "--mask1", tmp_path / "mask.png")
    assert (wrong.code, wrong.out) == (1, "")
    said = f"The mask {tmp_path / 'mask.png'} has 640 x 438 px, the image {FAR} 640 x 448"
    assert said in plain(wrong.err)


def test_an_image_without_keypoints_is_a_warning_with_the_likely_cause(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((240, 320), np.uint8))
    result = run(CLOSE, tmp_path / "black.png", *SMALL, "--features", "sift", "--matcher", "nearest", "--json")
    assert result.code == 0
    assert f"warning: {tmp_path / 'black.png'} has no keypoints: it is black" in plain(result.err)
    assert json.loads(result.out)["warnings"] == [f"{tmp_path / 'black.png'} has no keypoints: it is black"]


def test_a_missing_mask_is_an_error_before_anything_is_loaded(tmp_path: Path, no_models: None) -> None:
    result = run(CLOSE, FAR, "--mask0", tmp_path / "none.png")
    assert (result.code, result.out) == (1, "")
    assert "none.png" in result.err


def test_tiles_and_scales_are_those_of_extract() -> None:
    found = json.loads(run(CLOSE, FAR, "--max-keypoints", "150", "--device", "cpu", "--json", "--tile", "512").out)
    extractor = ALIKED(max_num_keypoints=150, detection_threshold=-1, mp=default_mp(torch.device("cpu"), "aliked"))
    assert found["keypoints0"] == extractor.extract(CLOSE, tile=512)["keypoints"][0].tolist()
    assert found["image_size0"] == [640, 438]
    found = json.loads(run(CLOSE, FAR, *SMALL, "--json", "--scales", "1,0.5").out)
    expected = extractor.extract(load_image(CLOSE), resize=320, pyramid=(1, 0.5))
    assert found["keypoints0"] == expected["keypoints"][0].tolist()


def test_a_turned_photograph_is_turned_back(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "turned.png"), np.rot90(cv2.imread(str(FAR))))  # a quarter turn against the clock
    upright = json.loads(run(CLOSE, FAR, *SMALL, "--json").out)
    lost = json.loads(run(CLOSE, tmp_path / "turned.png", *SMALL, "--json").out)
    picture = tmp_path / "r.png"
    result = run(CLOSE, tmp_path / "turned.png", *SMALL, "--auto-rotate", "--json", "-o", picture)
    found = json.loads(result.out)
    assert found["rotation"] == 90
    assert found["matches"] == upright["matches"]
    assert len(lost["matches"]) < len(upright["matches"]) / 2
    x, y = np.array(upright["keypoints1"]).T
    np.testing.assert_allclose(np.array(found["keypoints1"]), np.stack((y, 639 - x), axis=1), atol=1e-3)
    assert found["image_size1"] == [448, 640]
    assert cv2.imread(str(picture)) is not None


def test_the_verdict_is_told_and_may_drop_all_matches(tmp_path: Path) -> None:
    found = json.loads(run(CLOSE, FAR, *SMALL, "--json", "--min-overlap", "0.5").out)
    assert found["overlap"] > 0.9
    assert found["num_matches"] == len(found["matches"]) > 20
    noise = tmp_path / "noise.png"
    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
    result = run(CLOSE, noise, *SMALL, "--min-overlap", "0.9", "-o", tmp_path / "r.json", "-o", tmp_path / "r.png")
    assert result.code == 0
    assert "dropped: overlap below 0.9" in result.out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["overlap"] < 0.9
    assert found["matches"] == found["scores"] == []
    assert cv2.imread(str(tmp_path / "r.png")) is not None


def test_feature_types_with_a_verdict_are_those_that_it_was_fitted_for() -> None:
    assert {FEATURES[name].matcher for name in WITH_OVERLAP} == set(COEFFICIENTS)


def test_tiles_are_drawn_too(tmp_path: Path) -> None:
    result = run(CLOSE, FAR, "--max-keypoints", "60", "--features", "xfeat", "--tile", "512", "-o", tmp_path / "r.png")
    assert result.code == 0
    assert cv2.imread(str(tmp_path / "r.png")).std() > 20


def test_nearest_neighbours_match_any_features(tmp_path: Path) -> None:
    result = run(CLOSE, FAR, *SMALL, "--features", "sift", "--matcher", "nearest", "-o", tmp_path / "r.json")
    assert result.code == 0
    assert "stop layer" not in result.out
    found = json.loads((tmp_path / "r.json").read_text())
    assert len(found["matches"]) > 10
    assert "stop" not in found


def test_other_alikeds_go_with_alikeds_matcher() -> None:
    found = json.loads(run(CLOSE, FAR, *SMALL, "--json", "--features", "aliked-n16rot").out)
    assert found["features"] == "aliked-n16rot"
    assert found["num_matches"] > 20


def test_the_smallest_tile_is_that_of_extract() -> None:
    assert options.SMALLEST_TILE == 4 * views.OVERLAP


# -- geometry ----------------------------------------------------------------------------------------------------------

TRUE_H = np.array([[0.95, 0.05, 20], [-0.04, 1.02, 11], [2e-5, -1e-5, 1]])  # px of A to px of its moved copy
GEOMETRY = ("--geometry", "homography", "--threshold", "3", "--seed", "7", "--refine")


def moved_copy(folder: Path) -> Path:
    """A as a camera beside it would see it if it were a poster."""
    path = folder / "moved.png"
    cv2.imwrite(str(path), cv2.warpPerspective(cv2.imread(str(A)), TRUE_H, (1200, 850)))
    return path


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("aligned")
    outputs = [f"--output={folder / f'result{ending}'}" for ending in (".png", ".npz", ".json", ".csv")]
    return Written(run(A, moved_copy(folder), *SMALL, *GEOMETRY, *outputs, "--warp", folder / "warp.png"), folder)


def test_the_table_tells_inliers_estimator_and_model(aligned: Written) -> None:
    assert (aligned.run.code, aligned.run.err) == (0, "")
    rows = {line[:11].strip(): line[11:].strip() for line in aligned.run.out.splitlines() if line[:11].strip()}
    assert rows["inliers"] == f"{sum(aligned.json()['inliers'])} (poselib@3)"
    assert [float(value) for value in rows["homography"].split()] == pytest.approx(aligned.json()["model"][0], rel=1e-5)
    assert "warp-overlay.png" in aligned.run.out
    assert "not written" not in rows


def test_npz_and_json_hold_the_model_its_inliers_and_the_refined_points(aligned: Written) -> None:
    with np.load(aligned.path(".npz")) as arrays:
        found = dict(arrays)
    for name, values in aligned.json().items():
        np.testing.assert_array_equal(found[name], values)
    count = len(found["matches"])
    assert count > 50
    assert (found["inliers"].shape, found["inliers"].dtype) == ((count,), np.bool_)
    assert found["inliers"].mean() > 0.8
    assert (found["model"].shape, found["model"].dtype) == ((3, 3), np.float64)
    corners = np.array([[0, 0], [1279, 0], [0, 875], [1279, 875.0]])
    assert transfer_error(found["model"], corners, transformed(TRUE_H, corners)).max() < 4
    np.testing.assert_array_equal(found["points0"], found["keypoints0"][found["matches"][:, 0]])
    rows = found["keypoints1"][found["matches"][:, 1]]
    errors = [transfer_error(TRUE_H, found["points0"], points) for points in (rows, found["points1"])]
    assert np.median(errors[1]) < np.median(errors[0]) / 2


def transformed(H: np.ndarray, points: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(points[None], H)[0]


def test_csv_holds_refined_points_and_a_column_of_inliers(aligned: Written) -> None:
    with aligned.path(".csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["x0", "y0", "x1", "y1", "score", "inlier"]
    found = {name: np.array(value) for name, value in aligned.json().items()}
    expected = np.column_stack([found["points0"], found["points1"], found["scores"]])
    np.testing.assert_array_equal(np.array(rows)[:, :5].astype(np.float32), expected.astype(np.float32))
    assert [row[5] for row in rows] == ["1" if inlier else "0" for inlier in found["inliers"]]


def test_warp_writes_the_second_image_aligned_and_a_picture_of_both(aligned: Written) -> None:
    warp = cv2.imread(str(aligned.folder / "warp.png"), cv2.IMREAD_UNCHANGED)
    first = cv2.imread(str(A))
    assert warp.shape == (*first.shape[:2], 4)
    opaque = warp[..., 3] == 255
    assert 0.7 < opaque.mean() < 1
    assert np.abs(warp[..., :3].astype(int) - first)[opaque].mean() < 12
    overlay = cv2.imread(str(aligned.folder / "warp-overlay.png"))
    assert overlay.shape[1] > 2 * overlay.shape[0] > 600
    assert {path.name for path in aligned.folder.iterdir()} == {
        *("moved.png", "result.png", "result.npz", "result.json", "result.csv", "warp.png", "warp-overlay.png")
    }


def test_an_aligned_jpeg_is_black_where_there_is_nothing(tmp_path: Path) -> None:
    warp = tmp_path / "$x$ 图.JPG"
    assert run(A, moved_copy(tmp_path), *SMALL, *GEOMETRY, "--warp", warp).code == 0
    picture = cv2.imdecode(np.fromfile(warp, np.uint8), cv2.IMREAD_COLOR)
    assert picture[:, -3:].max() < 40
    assert (tmp_path / "$x$ 图-overlay.JPG").read_bytes().startswith(PICTURES[".jpg"])


def test_json_tells_the_geometry(aligned: Written) -> None:
    result = run(A, aligned.folder / "moved.png", *SMALL, *GEOMETRY, "--json")
    found = json.loads(result.out)
    assert (found["geometry"], found["estimator"]) == ("homography", "poselib@3")
    assert found["num_inliers"] == sum(found["inliers"])
    assert found["model"] == aligned.json()["model"]  # the same command gives the same result
    assert "failure" not in found
    assert "cameras" not in found


def test_tiles_are_refined_estimated_and_aligned(tmp_path: Path) -> None:
    options = ("--max-keypoints", "60", "--features", "xfeat", "--tile", "700", "--device", "cpu")
    result = run(A, moved_copy(tmp_path), *options, *GEOMETRY, "--json", "--warp", tmp_path / "w.png")
    assert result.code == 0
    assert cv2.imread(str(tmp_path / "w.png")).shape == (876, 1280, 3)
    assert json.loads(result.out)["outputs"] == [str(tmp_path / "w.png"), str(tmp_path / "w-overlay.png")]


def test_an_image_three_pixels_wide_is_not_taken_for_channels() -> None:
    narrow = torch.zeros(3, 50, 4)
    aligned, _ = encode_warp(Shown(narrow, torch.zeros(3, 40, 30)), np.eye(3), ".png")
    assert cv2.imdecode(np.frombuffer(aligned, np.uint8), cv2.IMREAD_UNCHANGED).shape == (50, 4, 4)


@pytest.mark.parametrize("estimator", ["opencv", "pycolmap"])
def test_other_libraries_estimate_other_geometries(estimator: str) -> None:
    if estimator == "pycolmap":
        pytest.importorskip("pycolmap")
    result = run(A, B, *SMALL, "--geometry", "fundamental", "--estimator", estimator, "--json")
    found = json.loads(result.out)
    assert (found["estimator"], np.array(found["model"]).shape) == (f"{estimator}@1", (3, 3))


def test_given_cameras_give_the_relative_pose() -> None:
    cameras = ("--camera0", "1100,1100,640,438", "--camera1", " 900, 900, 640, 448 ")
    result = run(A, B, *SMALL, "--geometry", "relative_pose", *cameras, "--threshold", "3", "--json")
    found = json.loads(result.out)
    T = np.array(found["model"])
    assert T.shape == (4, 4)
    assert np.linalg.norm(T[:3, 3]) == pytest.approx(1)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
    assert [camera["source"] for camera in found["cameras"]] == ["given", "given"]
    assert found["cameras"][1]["K"] == [[900, 0, 640], [0, 900, 448], [0, 0, 1]]


def test_colmaps_cameras_are_half_a_pixel_from_ours_and_auto_says_that_it_guesses() -> None:
    pytest.importorskip("pycolmap")
    cameras = ("--camera0", "auto", "--camera1", "opencv,1280,896,900,910,640,448,0.1,0,0,0")
    result = run(A, B, *SMALL, "--geometry", "essential", *cameras)
    assert (result.code, result.err) == (0, "")
    assert "1536 px (guessed) - 900 px (given)" in result.out
    found = json.loads(run(A, B, *SMALL, "--geometry", "essential", *cameras, "--json").out)
    assert found["cameras"][0] == {"K": [[1536, 0, 639.5], [0, 1536, 437.5], [0, 0, 1]], "source": "guessed"}
    assert found["cameras"][1]["K"] == [[900, 0, 639.5], [0, 910, 447.5], [0, 0, 1]]


def test_a_focal_length_in_the_file_needs_no_pycolmap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    monkeypatch.delitem(sys.modules, "lightglue.geometry.colmap_cameras", raising=False)
    known = known_camera("camera0", "auto", with_exif(tmp_path / "a.jpg", (0xA405, 35)), (1280, 876))
    assert (known.source, known.K[0][0]) == ("EXIF", pytest.approx(35 / 43.27 * np.hypot(1280, 876)))


def with_exif(path: Path, *fields: tuple[int, int]) -> Path:
    """A as a JPEG of these EXIF fields of one short integer each."""
    entries = b"".join(tag.to_bytes(2, "big") + b"\0\3\0\0\0\1" + v.to_bytes(2, "big") + b"\0\0" for tag, v in fields)
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + len(fields).to_bytes(2, "big") + entries + bytes(4)
    jpeg = A.read_bytes()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    return path


def test_the_camera_of_a_photograph_that_exif_turns_is_turned_too(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    path = with_exif(tmp_path / "upright.jpg", (0x0112, 6), (0xA405, 35))  # orientation, focal length of a 35 mm film
    size = (load_image(path).shape[2], load_image(path).shape[1])
    assert size == (876, 1280)
    known = known_camera("camera0", "auto", path, size)
    focal = 35 / np.hypot(36, 24) * np.hypot(*size)
    np.testing.assert_allclose(known.K, [[focal, 0, 437.5], [0, focal, 639.5], [0, 0, 1]], rtol=1e-3)
    assert (known.source, known.camera.width, known.camera.height) == ("EXIF", *size)


# -- where there is no model -------------------------------------------------------------------------------------------


def test_no_model_writes_no_aligned_image_and_says_so(blank: Path, tmp_path: Path) -> None:
    options = (*SMALL, *GEOMETRY, "--warp", tmp_path / "w.png")
    outputs = [f"-o{tmp_path / name}" for name in ("r.png", "r.json", "r.csv", "r.npz")]
    result = run(blank, A, *options, *outputs)
    assert result.code == 0
    assert "none: 0 different matches, and it takes 4" in plain(result.out)
    assert "not written" in result.out
    assert not (tmp_path / "w.png").exists()
    assert not (tmp_path / "w-overlay.png").exists()
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["inliers"] == found["points0"] == []
    assert "model" not in found
    assert (tmp_path / "r.csv").read_text() == "x0,y0,x1,y1,score,inlier\n"
    found = json.loads(run(blank, A, *options, "--json").out)
    assert (found["model"], found["num_inliers"], found["outputs"]) == (None, 0, [])
    assert found["not_written"] == [str(tmp_path / "w.png"), str(tmp_path / "w-overlay.png")]


def test_images_taken_for_no_overlap_have_no_model_either(tmp_path: Path) -> None:
    noise, warp = tmp_path / "noise.png", tmp_path / "w.png"
    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
    options = ("--min-overlap", "0.9", "--filter-threshold", "0", "--json")
    found = json.loads(run(A, noise, *SMALL, *GEOMETRY, *options, "--warp", warp).out)
    assert found["num_dropped"] > 0
    assert (found["model"], found["num_inliers"], found["inliers"]) == (None, 0, [])
    assert found["failure"] == "the images probably do not overlap"
    assert not warp.exists()


def test_a_full_disk_leaves_no_half_of_an_alignment(aligned: Written, tmp_path: Path) -> None:
    before = tmp_path / "w.png"
    before.write_text("precious")
    with mock.patch("os.fsync", side_effect=[None, None, OSError(errno.ENOSPC, "No space left on device")]):
        result = run(A, aligned.folder / "moved.png", *SMALL, *GEOMETRY, "--warp", before, "-o", tmp_path / "r.json")
    assert (result.code, result.out) == (1, "")
    assert "could not be written (No space left on device)" in result.err
    assert before.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [before]


# -- refusals ----------------------------------------------------------------------------------------------------------

POSE = ("--geometry", "relative_pose")


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--features", "diks"], "Did you mean 'disk'?"),
        (["--features", "superglue"], "Valid: aliked, aliked-n16rot, aliked-n32, disk"),
        (["--tile", "100"], "'100' is not a number of px from 512 to 20000"),
        (["--tile", "yes"], "'yes' is not a number of px"),
        (["--scales", "1,1"], "'1,1' is not a list of different numbers"),
        (["--scales", "big"], "'big' is not a list"),
        (["--scales", "0"], "'0' is not a list"),
        (["--auto-rotate", "--rotation-step", "7"], "'7' is not a number of degrees that 360 is a multiple of"),
        (["--rotation-step", "45"], "--rotation-step is 45; it has an effect with --auto-rotate only"),
        (["--min-overlap", "2"], "'2' is not a number from 0 to 1"),
        (
            ["--features", "doghardnet", "--min-overlap", "0.5"],
            "disk, xfeat and weights that say one; leave --min-overlap out",
        ),
        (
            ["--features", "doghardnet", "--min-overlap", "0.5"],
            "no overlap for the features doghardnet, only for aliked",
        ),
        (["--matcher", "nearst"], "Did you mean 'nearest'?"),
        (
            ["--matcher", "nearest", "--min-overlap", "0.5"],
            "nearest has no thresholds and no overlap; leave these options out",
        ),
        (
            ["--matcher", "nearest", "--filter-threshold", "0.5"],
            "nearest has no thresholds and no overlap; leave these options out",
        ),
        (["--mask0", str(B), "-o", str(B)], "one of the input images"),
        (["--device", "cudda"], "Did you mean 'cuda'?"),
        (["--max-keypoints", "0"], "'0' is not a number of keypoints from 1 to 1000000"),
        (["--max-keypoints", "-1"], "'-1' is not a number of keypoints"),
        (["--max-keypoints", "nan"], "'nan' is not a number of keypoints"),
        (["--resize", "0"], "'0' is neither a number of px from 1 to 20000 nor 'none'"),
        (["--resize", "-5"], "'-5' is neither"),
        (["--resize", "1e99"], "'1e99' is neither"),
        (["--filter-threshold", "nan"], "'nan' is not a number from 0 to 1"),
        (["--filter-threshold", "-1"], "'-1' is not a number from 0 to 1"),
        (["--depth-confidence", "2"], "'2' is neither a number from 0 to 1 nor -1 for off"),
        (["--width-confidence", "inf"], "'inf' is neither"),
        (["--fetures", "disk"], "--features"),
        (["--output", "picture.gif"], "known endings: .png, .jpg, .jpeg, .pdf, .svg, .html, .npz, .json, .csv"),
        (["--output", "picture"], "Invalid value for --output: picture has none of the known endings"),
        (["--output", "missing/folder/r.png"], "there is no folder"),
        (["--output", "r.csv", "-o", "./r.csv"], "named twice"),
        (["--geometry", "homograpy"], "Did you mean 'homography'?"),
        (["--geometry", ""], "Valid: homography, fundamental, essential, relative_pose"),
        (["--geometry", "essential"], "needs the cameras of both images: --camera0 and --camera1, as fx,fy,cx,cy"),
        ([*POSE, "--camera1", "auto"], "needs the cameras of both images"),
        (["--camera0", "1,1,0,0"], "for the geometry relative_pose and essential"),
        (["--geometry", "homography", "--camera1", "1,1,0,0"], "for the geometry relative_pose and essential"),
        (
            [*POSE, "--camera0", "fisheye"],
            "'fisheye' is no camera; give auto, fx,fy,cx,cy in px, MODEL:PARAMS such as PINHOLE",
        ),
        ([*POSE, "--camera0", "1,1,0"], "'1,1,0' is no camera"),
        ([*POSE, "--camera0", "0,1,0,0"], "'0,1,0,0' is no camera"),
        ([*POSE, "--camera0", "1,nan,0,0"], "'1,nan,0,0' is no camera"),
        ([*POSE, "--camera0", "1e999,1,0,0"], "is no camera"),
        ([*POSE, "--camera0", "900px,900,0,0"], "is no camera"),
        ([*POSE, "--camera0", "FOO,1280,876,1,1,1"], "no camera model 'FOO'; choose one of SIMPLE_PINHOLE, PINHOLE"),
        (
            [*POSE, "--camera0", "OPENCV,1280,876,900,900,640"],
            "takes WIDTH HEIGHT fx fy cx cy k1 k2 p1 p2, 5 were",
        ),
        ([*POSE, "--camera0", "PINHOLE,1280,876,-900,900,640,438"], "is no camera"),
        ([*POSE, "--camera0", "PINHOLE,12.5,9,1,1,1,1"], "is no camera"),
        ([*POSE, "--camera0", "PINHOLE,0,9,1,1,1,1"], "is no camera"),
        ([*POSE, "--camera0", "PINHOLE,99999999999999999999,9,1,1,1,1"], "is no camera"),
        (["--estimator", "opencv"], "have an effect with a geometry only"),
        (["--threshold", "2"], "have an effect with a geometry only"),
        (["--seed", "1"], "have an effect with a geometry only"),
        (["--estimator", "poselib"], "have an effect with a geometry only"),  # what is the default too
        (["--seed", "0"], "have an effect with a geometry only"),
        (["--geometry", "homography", "--estimator", "poselb"], "Did you mean 'poselib'?"),
        (["--geometry", "homography", "--estimator", "dlt"], "Valid: poselib, opencv, pycolmap"),
        (["--geometry", "homography", "--threshold", "0"], "'0' is not a number of px above 0 and at most 1000"),
        (["--geometry", "homography", "--threshold", "nan"], "'nan' is not a number of px"),
        (["--geometry", "homography", "--threshold", "inf"], "'inf' is not a number of px"),
        (["--geometry", "homography", "--seed", "-1"], "'-1' is not an integer from 0 to 2147483647"),
        (["--geometry", "homography", "--seed", "2147483648"], "'2147483648' is not an integer"),
        (["--geometry", "homography", "--seed", "1.5"], "'1.5' is not an integer"),
        (["--refine", "yes"], "unexpected extra argument"),
        (["--warp", "w.png"], "Invalid value for --warp: it needs the geometry homography"),
        (["--geometry", "fundamental", "--warp", "w.png"], "it needs the geometry homography"),
        (["--geometry", "homography", "--warp", "w.pdf"], "known endings: .png, .jpg, .jpeg"),
        (["--geometry", "homography", "--warp", "missing/w.png"], "there is no folder"),
        (["--geometry", "homography", "--warp", "w.png", "-o", "./w.png"], "named twice"),
        (
            ["--geometry", "homography", "--warp", "w.png", "-o", "w-overlay.png"],
            "it also writes a picture of both: w-overlay.png is named twice",
        ),
        (["--geometry", "homography", "--warp", str(B)], "one of the input images, which are never overwritten"),
        (["--output", str(A)], "one of the input images, which are never overwritten"),
    ],
)
def test_a_wrong_command_line_ends_with_code_2_before_any_work(
    arguments: list[str], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(A, B, *arguments)
    assert (result.code, result.out) == (2, "")
    assert wanted in plain(result.err)
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    ("camera", "wanted"),
    [
        (
            "PINHOLE,1024,768,900,900,512,384",
            "error: --camera0: the camera's image has 1024 x 768 px, the image 1280 x 876",
        ),
        ("EQUIRECTANGULAR,1280,876,1280,876", "The camera is EQUIRECTANGULAR, which has no focal length"),
    ],
)
def test_a_camera_that_colmap_does_not_know_ends_before_any_model_is_loaded(camera: str, wanted: str) -> None:
    pytest.importorskip("pycolmap")
    result = run(A, B, "--geometry", "relative_pose", "--camera0", camera, "--camera1", "900,900,640,448")
    assert (result.code, result.out) == (1, "")
    assert wanted in plain(result.err)
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("no_models")
def test_a_library_that_is_missing_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_options, "find_spec", lambda name: None)
    result = run(A, B, "--geometry", "homography", "--estimator", "pycolmap")
    assert result.code == 2
    assert "pycolmap is not installed; run `pip install pycolmap`, or choose opencv" in plain(result.err)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    monkeypatch.delitem(sys.modules, "lightglue.geometry.colmap_cameras", raising=False)
    # What is in the file needs no pycolmap; a camera whose sensor only COLMAP's list knows does.
    exif = tmp_path / "a.jpg"
    fields = Image.Exif()
    fields.update({0x010F: "Canon", 0x0110: "Canon PowerShot G10", 0x8769: {0x920A: 6.0}})
    Image.open(A).save(exif, exif=fields)
    result = run(exif, B, "--geometry", "essential", "--camera0", "auto", "--camera1", "900,900,640,448")
    assert result.code == 1
    assert "cameras from EXIF need pycolmap: pip install 'lightglue[sfm]'. Or give fx,fy,cx,cy." in result.err
    assert result.err.startswith("error: --camera0: ")


@pytest.mark.usefixtures("no_models")
def test_the_picture_beside_an_alignment_never_replaces_an_input(tmp_path: Path) -> None:
    photograph = tmp_path / "w-overlay.png"
    photograph.write_bytes(A.read_bytes())
    result = run(photograph, B, "--geometry", "homography", "--warp", tmp_path / "w.png")
    assert result.code == 2
    assert "it also writes a picture of both" in plain(result.err)
    assert "never overwritten" in plain(result.err)
    assert photograph.read_bytes() == A.read_bytes()


@pytest.mark.usefixtures("no_models")
def test_an_input_is_recognised_under_another_name(tmp_path: Path) -> None:
    photograph, link = tmp_path / "photograph.jpg", tmp_path / "link.jpg"
    photograph.write_bytes(A.read_bytes())
    link.symlink_to(photograph)
    result = run(photograph, B, "--output", link)
    assert result.code == 2
    assert "never overwritten" in plain(result.err)
    assert photograph.read_bytes() == A.read_bytes()


@pytest.mark.usefixtures("no_models")
def test_a_folder_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "r.png").mkdir()
    assert "is a folder" in plain(run(A, B, "--output", tmp_path / "r.png").err)


@pytest.mark.usefixtures("no_models")
def test_a_model_that_is_loaded_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="a model was loaded"):
        run(A, B, *SMALL)


@pytest.mark.usefixtures("no_models")
def test_a_folder_without_permission_is_refused(public_folder: Path) -> None:
    images = [shutil.copy(path, public_folder) for path in (A, B)]
    assert run("--help").code == 0  # imports what another user may not reach
    with ordinary_user():
        result = run(*images, "--output", public_folder / "r.png")
    assert result.code == 2
    assert "may not be written" in plain(result.err)


def missing(folder: Path) -> Path:
    return folder / "missing.jpg"


def text(folder: Path) -> Path:
    path = folder / "text.jpg"
    path.write_text("not an image")
    return path


def cut_off(folder: Path) -> Path:
    path = folder / "cut_off.jpg"
    path.write_bytes(A.read_bytes()[:20_000])
    return path


def bomb(folder: Path) -> Path:
    """A PNG header that claims 100,000 x 100,000 px."""
    path = folder / "bomb.png"
    content = bytearray(cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    path.write_bytes(content)
    return path


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("make", [missing, text, cut_off, bomb])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_faulty_image_is_one_line_and_code_1_before_any_model_is_loaded(
    make: Callable[[Path], Path], as_json: bool, tmp_path: Path
) -> None:
    path = make(tmp_path)
    result = run(A, path, "-o", tmp_path / "r.json", *["--json"] * as_json)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert str(path) in result.err
    assert not (tmp_path / "r.json").exists()


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    ("name", "count", "wanted"),
    [("cuda", 0, "finds 0 CUDA devices"), ("cuda:3", 1, "finds 1 CUDA devices"), ("mps", 0, "finds no Apple GPU")],
)
def test_a_device_that_is_not_there_is_named(name: str, count: int, wanted: str) -> None:
    with (
        mock.patch("torch.cuda.device_count", return_value=count),
        mock.patch("torch.backends.mps.is_available", return_value=False),
    ):
        result = run(A, B, "--device", name)
    assert result.code == 1
    assert wanted in result.err
    assert "--device cpu" in result.err


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    from lightglue.support.devices import find_device

    for count, mps, expected in ((2, False, "cuda"), (0, True, "mps"), (0, False, "cpu")):
        with (
            mock.patch("torch.cuda.device_count", return_value=count),
            mock.patch("torch.backends.mps.is_available", return_value=mps),
        ):
            assert find_device("auto") == torch.device(expected)


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] can't allocate memory: you tried")])
def test_too_little_memory_names_the_remedy(error: Exception) -> None:
    with mock.patch("lightglue.images.sources.load_image", side_effect=error):
        result = run(A, B)
    assert result.code == 1
    assert result.err == "error: there is not enough memory; use --tile, or a smaller --resize or --max-keypoints.\n"


def test_a_full_disk_leaves_every_file_as_it_was(written: Written, tmp_path: Path) -> None:
    before = tmp_path / "r.json"
    before.write_text("precious")
    with mock.patch("os.fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        result = run(A, B, *SMALL, "-o", tmp_path / "r.csv", "-o", before)
    assert (result.code, result.out) == (1, "")
    assert "could not be written (No space left on device)" in result.err
    assert before.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [before]


def test_an_existing_output_is_replaced_and_a_link_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    assert run(A, B, *SMALL, "-o", link).code == 0
    assert link.is_symlink()
    assert target.read_text().startswith("x0,y0")


def test_ctrl_c_ends_with_code_130_and_no_stack_trace(tmp_path: Path) -> None:
    with mock.patch("lightglue.images.sources.load_image", side_effect=KeyboardInterrupt):
        result = run(A, B, "-o", tmp_path / "r.png")
    assert result.code == 130
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []
