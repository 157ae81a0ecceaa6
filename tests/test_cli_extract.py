"""`lightglue extract`: what it writes, and how it refuses."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lightglue import ALIKED, load_image
from lightglue.models.registry import default_mp
from support import A, B
from support.command import lightglue, plain
from support.users import ordinary_user

SMALL = ("--max-keypoints", "80", "--resize", "256", "--device", "cpu")
run = partial(lightglue, "extract")


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


def test_each_image_becomes_a_file_with_the_features_of_extract(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "features"
    result = run(A, B, "-o", folder, *SMALL)
    assert (result.code, result.err) == (0, "")
    assert sorted(os.listdir(folder)) == ["montmartre_close.jpg.npz", "montmartre_far.jpg.npz"]
    assert "80 keypoints, 1280 x 876" in result.out
    extractor = ALIKED(max_num_keypoints=80, detection_threshold=-1, mp=default_mp(torch.device("cpu"), "aliked"))
    expected = extractor.extract(load_image(A), resize=256)
    found = arrays(folder / "montmartre_close.jpg.npz")
    assert set(found) == {"features", *expected}
    assert str(found["features"]) == "aliked"
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values[0].numpy())


def test_json_tells_each_image_on_a_line(tmp_path: Path) -> None:
    result = run(A, B, A, "-o", tmp_path, *SMALL, "--json")  # one named twice is done once
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["image"] for line in lines] == [str(A), str(B)]
    assert lines[0]["num_keypoints"] == 80
    assert lines[0]["image_size"] == [1280, 876]
    assert Path(lines[0]["output"]).exists()


def test_an_unreadable_image_is_told_and_the_others_are_done(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photograph")
    result = run(tmp_path / "text.jpg", tmp_path / "none.jpg", A, "-o", tmp_path / "out", *SMALL)
    assert result.code == 1
    assert "text.jpg is not an image" in plain(result.err)
    assert "There is no image at" in plain(result.err)
    assert "2 of 3 images gave no features" in plain(result.err)
    assert os.listdir(tmp_path / "out") == ["montmartre_close.jpg.npz"]


def test_masks_come_from_a_file_or_from_a_folder_in_colmaps_way(tmp_path: Path) -> None:
    mask = np.zeros((876, 1280), np.uint8)
    mask[200:600, 200:600] = 255
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "montmartre_close.jpg.png"), mask)
    for option in (tmp_path / "masks", tmp_path / "masks" / "montmartre_close.jpg.png"):
        assert run(A, "-o", tmp_path / "out", *SMALL, "--mask", option).code == 0
        keypoints = arrays(tmp_path / "out" / "montmartre_close.jpg.npz")["keypoints"]
        assert len(keypoints) == 80
        assert keypoints.min() >= 199.5
        assert keypoints.max() <= 599.5
    assert run(B, "-o", tmp_path / "out", *SMALL, "--mask", tmp_path / "masks").code == 0  # has none there
    assert arrays(tmp_path / "out" / "montmartre_far.jpg.npz")["keypoints"][:, 0].max() > 700


def test_every_kind_of_keypoints_and_tiles(tmp_path: Path) -> None:
    options = ("--max-keypoints", "60", "--device", "cpu")
    for features, length in (("disk", 128), ("xfeat", 64), ("sift", 128)):
        assert run(A, "-o", tmp_path, *options, "--resize", "256", "--features", features).code == 0
        found = arrays(tmp_path / "montmartre_close.jpg.npz")
        assert found["descriptors"].shape == (len(found["keypoints"]), length)
        assert ("oris" in found) == (features == "sift")
    assert run(A, "-o", tmp_path, *options, "--features", "xfeat", "--tile", "640").code == 0
    assert arrays(tmp_path / "montmartre_close.jpg.npz")["image_size"].tolist() == [1280, 876]


@pytest.mark.usefixtures("no_models")
def test_a_wrong_command_line_ends_with_code_2_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / A.name).write_bytes(A.read_bytes())
    for arguments, wanted in (
        ((A,), "--output"),
        (("-o", tmp_path), "IMAGES"),
        ((A, "-o", tmp_path / "file"), "cannot be made a folder"),
        ((A, tmp_path / "other" / A.name, "-o", tmp_path), "would both become montmartre_close.jpg.npz"),
        ((A, "-o", tmp_path, "--mask", tmp_path / "none"), "check the path"),
        ((A, "-o", tmp_path, "--tile", "9"), "'9' is not a number of px"),
        ((A, "-o", tmp_path, "--features", "alikd"), "Did you mean 'aliked'?"),
    ):
        result = run(*arguments)
        assert (result.code, result.out) == (2, "")
        assert wanted in plain(result.err)
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_a_folder_without_permission_is_one_error(public_folder: Path) -> None:
    image = public_folder / "image.png"
    cv2.imwrite(str(image), np.zeros((32, 32), np.uint8))
    arguments = (image, "--features", "sift", "--device", "cpu")  # no weights, which another user may not reach
    assert run(*arguments, "-o", public_folder / "before").code == 0
    with ordinary_user():
        result = run(*arguments, "-o", public_folder)
    assert result.code == 1
    assert "could not be written" in plain(result.err)
