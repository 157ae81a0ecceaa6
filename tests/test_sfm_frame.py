"""Images that EXIF turns, and formats that COLMAP does not read: colours, cameras, and files for COLMAP's tools."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycolmap")

from lightglue.geometry.intrinsics import from_colmap
from lightglue.images import read_image
from lightglue.models.choice import Models
from lightglue.sfm.change import add_images
from lightglue.sfm.colmap.models import open_model, registered
from lightglue.sfm.options import ExtractOptions, MatchOptions, PairOptions, ReconstructOptions
from lightglue.sfm.pipeline import SfmOptions, build_map
from support.corner import photograph

SIZE = (320, 240)
# Orientation -> the picture as it is stored, of the picture as it is shown (EXIF 2.32, tag 0x0112).
STORED = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.transpose(1, 0, 2),
    6: lambda shown: np.rot90(shown),
    7: lambda shown: shown[::-1, ::-1].transpose(1, 0, 2),
    8: lambda shown: np.rot90(shown, -1),
}


def write(path: Path, shown: np.ndarray, orientation: int = 1) -> None:
    """A picture (H, W, 3) BGR as a file that EXIF turns."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](shown)[..., ::-1]))
    kinds: dict[str, dict[str, Any]] = {
        ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0, "exif": exif},
        ".png": {"format": "PNG", "exif": exif},
        ".webp": {"format": "WEBP", "lossless": True, "exif": exif},
        ".jp2": {"format": "JPEG2000"},
        ".gif": {"format": "GIF"},
        ".tif": {"format": "TIFF", "exif": exif},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    stored.save(path, **kinds[path.suffix])


def options(**changed: Any) -> SfmOptions:
    """Models without weights."""
    models = Models("sift", 400, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.8})
    chosen = SfmOptions(
        models,
        ExtractOptions(models, {"resize": None}),
        MatchOptions(models),
        PairOptions(("exhaustive",)),
        reconstruct=ReconstructOptions(threads=1),
    )
    return replace(chosen, **changed)


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else, and has tests of its own."""
    monkeypatch.setattr("lightglue.sfm.report.document.write_report", lambda folder: None)


NAMES = [f"{number}.jpg" for number in range(1, 9)]


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of seven photographs and an eighth besides, each with another orientation."""
    folder = tmp_path_factory.mktemp("turned")
    for number in range(1, 9):
        where = "photographs" if number < 8 else "later"
        write(folder / where / f"{number}.jpg", photograph(number - 1), number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightglue.sfm.report.document.write_report", lambda folder: None)
        assert build_map(folder / "photographs", folder / "map", options()).model.models[0].num_images == 7
    return folder


def colour_correlation(model: Any, images: Path) -> float:
    """Between the colours of points and those of the pixels, as they are shown, that see them."""
    pairs = []
    for image in registered(model):
        pixels = read_image(images / image.name)
        for point in image.get_observation_points2D():
            x, y = np.rint(from_colmap(point.xy)).astype(int)
            pairs.append((model.point3D(point.point3D_id).color, pixels[y, x]))
    point, pixel = np.array(pairs, np.float64).reshape(-1, 2, 3).transpose(1, 0, 2)
    return float(np.corrcoef(point.ravel(), pixel.ravel())[0, 1])


def test_points_have_the_colours_of_the_images_as_they_are_shown(turned: Path) -> None:
    model = open_model(turned / "map/model")
    assert colour_correlation(model, turned / "photographs") > 0.95


@pytest.mark.parametrize("suffix", [".webp", ".jp2", ".gif", ".tif"])
def test_points_have_colours_whatever_the_format(suffix: str, tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "photographs" / f"{number}{suffix}", photograph(number))
    assert build_map(tmp_path / "photographs", tmp_path / "map", options()).model.models
    assert colour_correlation(open_model(tmp_path / "map/model"), tmp_path / "photographs") > 0.95


def test_an_image_that_is_added_colours_the_points_that_are_new(turned: Path, tmp_path: Path) -> None:
    place = copy_of(turned, tmp_path)
    before = open_model(place / "map/model").num_points3D()
    assert "8.jpg" in add_images(place / "map", [place / "later/8.jpg"]).registered
    model = open_model(place / "map/model")
    assert model.num_points3D() > before
    assert colour_correlation(model, place / "photographs") > 0.95


def copy_of(made: Path, tmp_path: Path) -> Path:
    """A copy of a map and its photographs, to be changed."""
    place = tmp_path / "place"
    shutil.copytree(made, place, symlinks=True)
    record = place / "map/map.json"
    record.write_text(record.read_text().replace(str(made), str(place)))
    return place
