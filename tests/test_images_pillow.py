"""AVIF and HEIC: read where Pillow and pillow-heif can, upright, and sized before they are decoded."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from lightglue.errors import ImageError
from lightglue.images import ImageFile, load_image, read_image
from lightglue.sfm.stages.images import list_images
from support import ASSETS

PHOTOGRAPH = Image.open(ASSETS / "montmartre_close.jpg").crop((200, 200, 520, 420))


@pytest.fixture(params=["HEIC", "AVIF"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "HEIC":
        pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    elif not features.check("avif"):
        pytest.skip("needs a Pillow with AVIF")
    return str(request.param)


def encoded(kind: str, image: Any = PHOTOGRAPH, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    if kind == "HEIC":
        import pillow_heif

        pillow_heif.from_pillow(image).save(buffer, quality=95, exif=exif.tobytes())
    else:
        image.save(buffer, "AVIF", quality=95, exif=exif.tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_they_are_read_upright_in_all_eight_orientations(kind, orientation):
    """A camera that is held askew stores the image as its sensor lies, and in the file how to show it."""
    turns: dict[int, Any] = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose: what undoes the orientation
    stored = PHOTOGRAPH if orientation == 1 else PHOTOGRAPH.transpose(turns[orientation])
    file = ImageFile.read(encoded(kind, stored, orientation))
    assert file.kind == kind
    assert file.size == PHOTOGRAPH.size  # as they are shown
    difference = file.decode().astype(float) - np.asarray(PHOTOGRAPH)
    assert np.abs(difference).mean() < 4
    assert np.corrcoef(file.decode().ravel(), np.asarray(PHOTOGRAPH).ravel())[0, 1] > 0.99


def test_they_are_listed_and_loaded_like_any_other_image(kind, tmp_path):
    (tmp_path / "photo.xyz").write_bytes(encoded(kind))
    assert list_images(tmp_path) == (["photo.xyz"], ())
    assert load_image(tmp_path / "photo.xyz", resize=160).shape == (3, 110, 160)
    assert read_image(tmp_path / "photo.xyz", grayscale=True).shape == (220, 320)


def test_one_that_is_cut_off_or_too_large_is_refused_in_words(kind, tmp_path):
    data = encoded(kind)
    (tmp_path / "cut").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ImageError, match=rf"cut: this {kind} file \(320 x 220\) cannot be decoded"):
        read_image(tmp_path / "cut")
    with pytest.raises(ImageError, match="70,400 pixels, more than max_pixels=1,000"):
        load_image(data, max_pixels=1000)
    with pytest.raises(ImageError, match=f"this {kind} file is damaged or cut off"):
        load_image(data[:100])


def test_gray_and_transparent_ones_become_colours(kind):
    for mode in ("L", "RGBA"):
        assert ImageFile.read(encoded(kind, PHOTOGRAPH.convert(mode))).decode().shape == (220, 320, 3)


def test_the_path_may_be_a_number_of_things(kind, tmp_path):
    path: Path = tmp_path / "a"
    path.write_bytes(encoded(kind))
    with path.open("rb") as file:
        assert np.array_equal(read_image(file), read_image(path.read_bytes()))
