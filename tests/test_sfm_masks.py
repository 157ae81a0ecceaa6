"""Masks of a whole map: which file is of which image, what is said where none is, and what a rerun makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from lightglue.errors import InputError
from lightglue.extractors.masks import read_mask
from lightglue.extractors.no_keypoints import likely_cause
from lightglue.images.mask_files import MaskFolder
from lightglue.models.choice import Models
from lightglue.sfm.options import ExtractOptions
from lightglue.sfm.stages.extract import ExtractResult, extract
from lightglue.stores import FeatureStore
from support.command import lightglue
from support.corner import photograph

MODELS = Models("sift", 100, "cpu", False, matcher="nearest")  # no weights
NAMES = ["a.png", "sub/b.JPG", "sub/c.png"]
pytestmark = pytest.mark.usefixtures("charts_undrawn")


def draw_mask(path: Path, size: tuple[int, int] = (320, 240), black: int = 160) -> None:
    """White, but for the `black` px at the left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size[::-1], np.uint8)
    mask[:, black * size[0] // 320 :] = 255
    cv2.imwrite(str(path), mask)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photograph(number))
    return tmp_path / "images"


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """In COLMAP's way, by the stem, and none for the last."""
    draw_mask(tmp_path / "masks" / "a.png.png")
    draw_mask(tmp_path / "masks" / "sub" / "b.png")
    return tmp_path / "masks"


def run(images: Path, masks: Path | str | None, **options: Any) -> ExtractResult:
    made = ExtractOptions(MODELS, {"resize": 320}, masks=None if masks is None else str(masks))
    return extract(images, images.parent / "features", made, **options)


def leftmost(images: Path, name: str) -> float:
    return float(FeatureStore.open(images.parent / "features").get(name).keypoints[:, 0].min())


# ---------------------------------------------------------------------------------------------- which mask is whose


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ("sub/b.JPG.png", "sub/b.JPG"),
        ("sub/b.png", "sub/b.JPG"),
        ("sub/b.JPG", "sub/b.JPG"),
        ("sub/b.jpg.PNG", "sub/b.jpg"),
        ("a.b.png", "a.b.jpg"),
    ],
)
def test_the_mask_of_an_image_has_its_name_or_its_stem(tmp_path: Path, mask: str, image: str) -> None:
    draw_mask(tmp_path / mask)
    (tmp_path / mask).with_suffix(".txt").write_text("of the same stem, but no image")
    assert MaskFolder(tmp_path).of(image) == tmp_path / mask
    assert MaskFolder(tmp_path).of(f"other/{image}") is None
    assert MaskFolder(tmp_path).of_file(tmp_path / "photos" / image) == tmp_path / mask


def test_colmaps_name_comes_before_the_stem_and_two_of_a_kind_are_an_error(tmp_path: Path) -> None:
    for name in ("b.jpg.png", "b.png", "c.png", "c.bmp"):
        draw_mask(tmp_path / name)
    masks = MaskFolder(tmp_path)
    assert masks.of("b.jpg") == tmp_path / "b.jpg.png"
    with pytest.raises(InputError, match=r"c\.jpg has two masks, .*c\.bmp and c\.png; keep one"):
        masks.of("c.jpg")


def test_black_is_black_in_every_kind_of_file(tmp_path: Path) -> None:
    """JPEG blurs black; 16 bits may hold small numbers of classes."""
    wanted = np.zeros((64, 64), bool)
    wanted[:, 24:] = True
    cv2.imwrite(str(tmp_path / "mask.jpg"), wanted * np.uint8(255), [cv2.IMWRITE_JPEG_QUALITY, 60])
    cv2.imwrite(str(tmp_path / "classes.png"), wanted * np.uint16(3))
    for name in ("mask.jpg", "classes.png"):
        assert (read_mask(tmp_path / name, 64, 64).numpy() == wanted).mean() > 0.99


# ------------------------------------------------------------------------------------------------------- of a map


def test_black_is_kept_out_of_keypoints_and_images_without_a_mask_are_told(images: Path, masks: Path) -> None:
    result = run(images, masks)
    assert [leftmost(images, name) >= 159.5 for name in NAMES] == [True, True, False]
    assert [(each.name, each.is_used) for each in result.skipped] == [("sub/c.png", True)]
    assert f"no mask for it in {masks}" in result.skipped[0].reason


def test_a_folder_without_a_mask_that_fits_fails_before_anything_is_extracted(images: Path, tmp_path: Path) -> None:
    draw_mask(tmp_path / "masks" / "z.png")
    with pytest.raises(InputError, match=r"no mask for any of the 3 images in .*masks: .*a\.png\.png or"):
        run(images, tmp_path / "masks")
    with pytest.raises(InputError, match="does not exist; check the path"):
        run(images, tmp_path / "nowhere")
    with pytest.raises(InputError, match="both images and masks"):
        run(images, images)
    assert FeatureStore.open(tmp_path / "features").names() == []


def test_a_mask_of_another_size_leaves_its_image_out_and_names_both(images: Path, masks: Path) -> None:
    draw_mask(masks / "a.png.png", (100, 80))
    draw_mask(masks / "sub" / "b.png", (240, 320))
    result = run(images, masks)
    reasons = {each.name: each.reason for each in result.skipped if not each.is_used}
    assert sorted(reasons) == ["a.png", "sub/b.JPG"]
    assert f"The mask {masks / 'a.png.png'} has 100 x 80 px, the image {images / 'a.png'} 320 x 240" in reasons["a.png"]
    assert "EXIF" not in reasons["a.png"]
    assert "240 x 320 px" in reasons["sub/b.JPG"]
    assert "EXIF orientation" in reasons["sub/b.JPG"]
    assert FeatureStore.open(images.parent / "features").names() == ["sub/c.png"]


def test_a_mask_that_fits_turned_upside_down_too_is_told_of(images: Path, masks: Path) -> None:
    with Image.open(images / "a.png") as image:
        exif = image.getexif()
        exif[0x0112] = 3
        image.save(images / "a.png", exif=exif)
    told = {each.name: each.reason for each in run(images, masks).skipped}
    assert "EXIF orientation (3)" in told["a.png"]
    assert leftmost(images, "a.png") >= 159.5  # of the image as it is shown


def test_a_rerun_extracts_again_what_has_another_mask_and_nothing_else(images: Path, masks: Path) -> None:
    assert run(images, masks).extracted == 3
    assert run(images, masks).kept == 3
    moved = shutil.move(masks, images.parent / "elsewhere")  # the same masks are the same, wherever they lie
    assert run(images, moved).kept == 3
    draw_mask(Path(moved) / "sub" / "c.png")  # it had none
    cv2.imwrite(str(Path(moved) / "a.png.png"), np.full((240, 320), 255, np.uint8))  # nothing is black any more
    assert run(images, moved).extracted == 2
    assert [leftmost(images, name) >= 159.5 for name in NAMES] == [False, True, True]
    (Path(moved) / "sub" / "b.png").unlink()
    assert run(images, moved).extracted == 1
    assert leftmost(images, "sub/b.JPG") < 159.5


def test_features_with_masks_and_without_are_never_mixed(images: Path, masks: Path) -> None:
    run(images, masks)
    with pytest.raises(InputError, match="masks is True there and None here"):
        run(images, None)


def test_masks_among_the_images_are_not_taken_for_images(images: Path, masks: Path) -> None:
    shutil.move(masks, images / "masks")
    assert run(images, images / "masks").images == 3
    assert FeatureStore.open(images.parent / "features").names() == NAMES


def test_why_there_are_no_keypoints_is_remembered(images: Path, masks: Path) -> None:
    cv2.imwrite(str(masks / "a.png.png"), np.zeros((240, 320), np.uint8))
    for _ in range(2):
        told = {each.name: each.reason for each in run(images, masks).skipped}
        assert told["a.png"] == "it has no keypoints: its mask is black everywhere"
    head = FeatureStore.open(images.parent / "features").head("a.png")
    assert head is not None
    assert head.note == "its mask is black everywhere"


@pytest.mark.parametrize(
    ("pixels", "cause"),
    [
        (np.zeros((50, 50), np.uint8), "it is black"),
        (np.full((50, 50, 3), 200, np.uint8), "its pixels are all 200"),
        (np.eye(20, dtype=np.uint8) * 255, "it is tiny, 20 x 20 px"),
        (np.arange(2500, dtype=np.uint16).reshape(50, 50), "a small part of 16 bits"),
        (np.arange(2500).reshape(50, 50).astype(np.uint8) // 16, "hardly any contrast"),
        (np.arange(2500).reshape(50, 50).astype(np.uint8), "no point stands out enough"),
    ],
)
def test_the_likely_cause_of_no_keypoints(pixels: Any, cause: str) -> None:
    assert cause in likely_cause(pixels)


def test_the_likely_cause_looks_at_what_a_mask_leaves() -> None:
    pixels = np.zeros((50, 50), np.uint8)
    pixels[:25] = np.random.default_rng(0).integers(0, 255, (25, 50))
    mask = np.zeros((50, 50), bool)
    mask[30:] = True
    assert likely_cause(pixels, mask) == "what its mask leaves: its pixels are all 0"
    assert likely_cause(pixels, mask & False) == "its mask is black everywhere"
    mask[31:] = mask[:, 2:] = False
    assert "leaves only 0.08% of it" in likely_cause(pixels, mask)


# ------------------------------------------------------------------------------------------------ the command line


def test_a_map_with_masks_is_added_to_with_masks(images: Path, masks: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    for number in (3, 4):
        cv2.imwrite(str(images / f"{number}.png"), photograph(number))
        draw_mask(masks / f"{number}.png", black=40)
    for name in ("a.png.png", "sub/b.png"):
        draw_mask(masks / name, black=40)
    folder, given = tmp_path / "map", tmp_path / "given"
    options = ("--features", "sift", "--resize", "none", "--max-keypoints", "400", "--matcher", "nearest")
    made = lightglue("sfm", images, "-o", folder, *options, "--masks", masks)
    assert made.code == 0, made.err
    assert "warning: sub/c.png: there is no mask for it" in made.err
    cv2.imwrite(str(tmp_path / "new.png"), photograph(1))
    draw_mask(given / "new.png.png", black=40)
    added = lightglue("map", "add", folder, tmp_path / "new.png", "--masks", given, "--json")
    assert added.code == 0, added.err
    assert json.loads(added.out.splitlines()[-1])["registered"] == 6
    assert (masks / "new.png.png").exists()
    assert FeatureStore.open(folder / "features").get("new.png").keypoints[:, 0].min() >= 39.5
    again = lightglue("sfm", images, "-o", folder, *options, "--masks", masks, "--json")
    assert json.loads((folder / "map.json").read_text())["stages"]["extract"]["counts"]["kept"] == 6
    assert again.code == 0
    refused = lightglue("sfm", images, "-o", folder, *options)
    assert refused.code == 1
    assert "masks is True there and None here" in refused.err
