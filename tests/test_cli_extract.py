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
from PIL import Image

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


def test_images_without_a_mask_are_told_and_extracted_whole(tmp_path: Path) -> None:
    mask = np.zeros((876, 1280), np.uint8)
    mask[200:600, 200:600] = 255
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "montmartre_close.png"), mask)  # by the stem
    result = run(A, B, "-o", tmp_path / "out", *SMALL, "--mask", tmp_path / "masks")
    assert result.code == 0
    assert result.err.count("warning") == 1
    assert f"{B}: there is no mask for it in {tmp_path / 'masks'}" in plain(result.err)
    assert arrays(tmp_path / "out" / "montmartre_far.jpg.npz")["keypoints"][:, 0].max() > 700
    assert arrays(tmp_path / "out" / "montmartre_close.jpg.npz")["keypoints"].max() <= 599.5


def test_a_folder_of_masks_of_which_none_fits_is_a_wrong_command_line(tmp_path: Path, no_models: None) -> None:
    (tmp_path / "masks").mkdir()
    result = run(A, B, "-o", tmp_path / "out", "--mask", tmp_path / "masks")
    assert result.code == 2
    assert "no mask for any of the 2 images" in plain(result.err)
    assert "close.jpg.png or" in plain(result.err)


def test_a_mask_of_the_unturned_image_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "masks" / "sub").mkdir(parents=True)
    (tmp_path / "sub").mkdir()
    with Image.open(A) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.resize((320, 200)).save(tmp_path / "sub" / "b.JPG", exif=exif)
    cv2.imwrite(str(tmp_path / "masks" / "sub" / "b.JPG.png"), np.full((200, 320), 255, np.uint8))
    result = run(tmp_path / "sub" / "b.JPG", "-o", tmp_path / "out", *SMALL, "--mask", tmp_path / "masks")
    told = plain(result.err)
    assert result.code == 1
    assert f"The mask {tmp_path / 'masks' / 'sub' / 'b.JPG.png'} has 320 x 200 px" in told
    assert f"the image {tmp_path / 'sub' / 'b.JPG'} 200 x 320" in told
    assert "EXIF orientation" in told


def test_an_image_without_keypoints_is_a_warning_with_the_likely_cause(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4, (60, 80), np.uint16)
    for name, pixels in {
        "black.png": np.zeros((60, 80), np.uint8),
        "grey.png": np.full((60, 80), 7, np.uint8),
        "tiny.png": np.tile(np.arange(0, 240, 20, np.uint8), (9, 1)),
        "deep.png": deep,
    }.items():
        cv2.imwrite(str(tmp_path / name), pixels)
    names = ("black.png", "grey.png", "tiny.png", "deep.png")
    with pytest.warns(UserWarning, match=r"deep\.png has 16 bits"):
        result = run(
            *(tmp_path / name for name in names), "-o", tmp_path / "out", "--features", "sift", "--resize", "320"
        )
    told = plain(result.err)
    assert result.code == 0
    assert "black.png: it has no keypoints: it is black" in told
    assert "grey.png: it has no keypoints: its pixels are all 7" in told
    assert "tiny.png: it has no keypoints: it is tiny, 12 x 9 px" in told
    assert "deep.png: it has no keypoints: its values lie between 0 and 3, where 65,535 is white" in told
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((876, 1280), np.uint8))
    masked = run(A, "-o", tmp_path / "out", "--features", "sift", "--mask", tmp_path / "mask.png", "--json")
    assert json.loads(masked.out)["note"] == "it has no keypoints: its mask is black everywhere"


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
