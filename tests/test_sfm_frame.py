"""Images that EXIF turns, and formats that COLMAP does not read: colours, cameras, and files for COLMAP's tools."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycolmap")
import pycolmap

from lightglue.errors import InputError
from lightglue.geometry.intrinsics import Intrinsics, from_colmap
from lightglue.geometry.orientation import turned as turned_camera
from lightglue.images import read_image
from lightglue.models.choice import Models
from lightglue.sfm.change import add_images, remove_images
from lightglue.sfm.colmap.cameras import assign_cameras
from lightglue.sfm.colmap.models import open_model, registered
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.options import CameraOptions, ExtractOptions, MatchOptions, PairOptions, ReconstructOptions
from lightglue.sfm.pipeline import SfmOptions, build_map, run_stage
from lightglue.sfm.stages.dataset import undistort, write_dataset
from support.command import lightglue
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


def test_points_have_colours_whatever_the_format(tmp_path: Path) -> None:
    for number, suffix in enumerate((".webp", ".jp2", ".gif", ".tif", ".gif", ".webp")):
        write(tmp_path / "photographs" / f"{number}{suffix}", photograph(number))
    assert build_map(tmp_path / "photographs", tmp_path / "map", options()).model.models[0].num_images == 6
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
    record.write_text(json.dumps({**json.loads(record.read_text()), "images": str(place / "photographs")}))
    return place


# --- files for other programs ------------------------------------------------------------------------------------


def as_others_see(dataset: Path) -> dict[str, np.ndarray]:
    """Each image of a dataset's model as programs read it that do not turn images; they fit their cameras."""
    model = pycolmap.Reconstruction(str(dataset / "sparse/0"))
    found = {}
    for image in registered(model):
        path, camera = dataset / "images" / image.name, model.camera(image.camera_id)
        with Image.open(path) as opened:
            assert opened.size == (camera.width, camera.height)
            found[image.name] = np.asarray(opened.convert("RGB"))
        bitmap = pycolmap.Bitmap.read(str(path), True)
        assert np.array_equal(bitmap.to_array(), found[image.name])
    return found


def upright(path: Path, orientation: int) -> np.ndarray:
    """The pixels of a file as they are shown, (H, W, 3) BGR, turned here."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.ascontiguousarray(STORED[back](stored))


def test_beside_a_map_of_turned_images_lies_a_dataset_whose_images_fit(turned: Path) -> None:
    seen = as_others_see(turned / "map/dataset")
    assert set(seen) == {"1.jpg", *(f"{number}.jpg.png" for number in range(2, 8))}
    assert (turned / "map/dataset/images/1.jpg").is_symlink()
    for name, pixels in seen.items():
        number = int(name[0])
        assert np.array_equal(pixels[..., ::-1], upright(turned / f"photographs/{number}.jpg", number))
    of_map, of_dataset = open_model(turned / "map/model"), open_model(turned / "map/dataset/sparse/0")
    assert of_map.num_points3D() == of_dataset.num_points3D()


def test_undistorted_images_are_those_of_upright_copies_for_all_eight_orientations(
    turned: Path, tmp_path: Path
) -> None:
    place = copy_of(turned, tmp_path)
    add_images(place / "map", [place / "later/8.jpg"])
    done = undistort(place / "map", tmp_path / "dense")
    assert (done.linked, done.turned, done.converted) == (1, 7, 0)
    copies, reference = tmp_path / "copies", tmp_path / "reference"
    copies.mkdir()
    reference.mkdir()
    for number in range(1, 9):
        file = upright(place / f"{'photographs' if number < 8 else 'later'}/{number}.jpg", number)
        cv2.imwrite(str(copies / ("1.jpg.png" if number == 1 else f"{number}.jpg.png")), file)
    shutil.copyfile(place / "photographs/1.jpg", copies / "1.jpg")  # which is upright
    pycolmap.undistort_images(str(reference), str(place / "map/dataset/sparse/0"), str(copies))
    names = ["1.jpg", *(f"{number}.jpg.png" for number in range(2, 9))]
    for name in names:
        found, expected = (cv2.imread(str(each / "images" / name)) for each in (tmp_path / "dense", reference))
        assert found.mean() > 20
        assert np.array_equal(found, expected)
    model = pycolmap.Reconstruction(str(tmp_path / "dense/sparse"))
    assert sorted(image.name for image in registered(model)) == names
    assert {camera.model.name for camera in model.cameras.values()} == {"PINHOLE"}


@pytest.mark.parametrize("mapper", ["global", "hierarchical"])
def test_every_mapper_gives_colours_and_a_dataset(mapper: Any, turned: Path, tmp_path: Path) -> None:
    if not hasattr(pycolmap, f"{mapper}_mapping"):
        pytest.skip("this pycolmap does not have the mapper")
    place = copy_of(turned, tmp_path)
    run_stage("reconstruct", place / "map", options(reconstruct=ReconstructOptions(mapper, threads=1)))
    model = open_model(place / "map/model")
    assert model.num_reg_images() == 7
    assert colour_correlation(model, place / "photographs") > 0.95
    assert len(as_others_see(place / "map/dataset")) == 7


def test_the_dataset_follows_the_map(turned: Path, tmp_path: Path) -> None:
    place = copy_of(turned, tmp_path)
    kept = (place / "map/dataset/images/3.jpg.png").stat().st_mtime_ns
    add_images(place / "map", [place / "later/8.jpg"])
    assert "8.jpg.png" in as_others_see(place / "map/dataset")
    remove_images(place / "map", ["2.jpg", "8.jpg"])
    assert set(as_others_see(place / "map/dataset")) == {"1.jpg", *(f"{n}.jpg.png" for n in range(3, 8))}
    assert {path.name for path in (place / "map/dataset/images").iterdir()} == set(as_others_see(place / "map/dataset"))
    copy = place / "map/dataset/images/3.jpg.png"
    assert copy.stat().st_mtime_ns == kept  # what is right is not written again
    copy.write_bytes(copy.read_bytes()[:-9])
    write_dataset(MapFolder(place / "map"), place / "photographs")
    assert "3.jpg.png" in as_others_see(place / "map/dataset")  # what has changed is
    write(place / "photographs/3.jpg", photograph(2), 1)  # without its tag
    write_dataset(MapFolder(place / "map"), place / "photographs")
    assert "3.jpg" in as_others_see(place / "map/dataset")


def test_an_image_that_has_changed_or_is_gone_is_left_out_of_the_dataset(turned: Path, tmp_path: Path) -> None:
    place = copy_of(turned, tmp_path)
    write(place / "photographs/2.jpg", cv2.resize(photograph(1), (400, 300)))
    (place / "photographs/3.jpg").unlink()
    (place / "photographs/4.jpg").write_bytes(b"\xff\xd8\xff of no use")
    whole = (place / "photographs/1.jpg").read_bytes()
    (place / "photographs/1.jpg").write_bytes(whole[:-2].replace(b"\xff\xda", b"\xff\xdb") + whole[-2:])
    done = undistort(place / "map", tmp_path / "dense")
    reasons = {each.name: each.reason for each in done.skipped}
    assert sorted(reasons) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert "COLMAP cannot read its file" in reasons["1.jpg"]
    assert "400 x 300 px now and had 320 x 240" in reasons["2.jpg"]
    assert set(as_others_see(place / "map/dataset")) == {"5.jpg.png", "6.jpg.png", "7.jpg.png"}
    assert len(list((tmp_path / "dense/images").iterdir())) == 3


@pytest.fixture(scope="module")
def webp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of images in formats that COLMAP does not read, and what the command said."""
    folder = tmp_path_factory.mktemp("webp")
    for number, suffix in enumerate((".webp", ".jp2", ".webp", ".png")):
        write(folder / "photographs" / f"{number}{suffix}", photograph(number))
    (folder / "photographs/3.png").rename(folder / "photographs/3.bmp")  # content that its name does not say
    build_map(folder / "photographs", folder / "map", options())
    return folder


def test_formats_that_colmap_does_not_read_are_told_once_and_written_when_asked(webp: Path, tmp_path: Path) -> None:
    place = copy_of(webp, tmp_path)
    assert not (place / "map/dataset").exists()
    told = [each for each in MapFolder(place / "map").read().stages["reconstruct"].skipped if each.is_used]
    assert len(told) == 1
    assert "COLMAP's tools do not read JPEG 2000, WebP; `lightglue map dataset MAP` writes" in told[0].reason
    result = lightglue("map", "dataset", place / "map")
    assert (result.code, result.err) == (0, "")
    assert "(3 converted to PNG, 1 linked)" in result.out
    assert set(as_others_see(place / "map/dataset")) == {"0.webp.png", "1.jp2.png", "2.webp.png", "3.bmp.png"}
    result = lightglue("map", "undistort", place / "map", "-o", tmp_path / "dense", "--max-size", "160", "--json")
    assert json.loads(result.out)["converted"] == 3
    told = lightglue("map", "undistort", place / "map", "-o", tmp_path / "dense2", "--max-size", "160").out
    assert "undistorted images and the model, for dense reconstruction" in told
    assert cv2.imread(str(tmp_path / "dense/images/0.webp.png")).shape[1] <= 160
    remove_images(place / "map", ["0.webp"])  # the folder is renewed from then on
    assert len(as_others_see(place / "map/dataset")) == 3


def test_images_whose_values_are_stretched_are_so_for_colours_and_copies_too(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(5):  # 12 bits in 16
        cv2.imwrite(str(photographs / f"{number}.png"), photograph(number).astype(np.uint16) * 8)
    chosen = options()
    chosen = replace(chosen, extract=replace(chosen.extract, stretch=True), dataset="always")
    assert build_map(photographs, tmp_path / "map", chosen).dataset.converted == 5
    model = open_model(tmp_path / "map/model")
    assert np.mean([point.color for point in model.points3D.values()]) > 60
    seen = as_others_see(tmp_path / "map/dataset")
    assert np.array_equal(seen["0.png"], read_image(photographs / "0.png", stretch=True))


def test_what_was_written_is_said(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "photographs" / f"{number}.jpg", photograph(number), 6)
    run = ("--features", "sift", "--matcher", "nearest", "--resize", "none", "--device", "cpu")
    result = lightglue("sfm", tmp_path / "photographs", "-o", tmp_path / "map", *run)
    assert result.code == 0
    said = "the model and its images for COLMAP's tools, gsplat and nerfstudio (3 turned upright, as PNG)"
    assert f"{tmp_path / 'map/dataset'}: {said}" in result.out
    result = lightglue("sfm", tmp_path / "photographs", "-o", tmp_path / "map", *run, "--dataset", "never", "--json")
    assert json.loads(result.out)["dataset"] is None
    assert not (tmp_path / "map/dataset").exists()


def test_a_folder_of_somebody_else_is_not_touched(turned: Path, tmp_path: Path) -> None:
    place = copy_of(turned, tmp_path)
    (place / "map/dataset/dataset.json").unlink()
    with pytest.raises(InputError, match="is not of this map"):
        run_stage("reconstruct", place / "map", options())
    with pytest.raises(InputError, match="own copies of images"):
        build_map(place / "map/dataset/images", place / "map", options())
    with pytest.raises(InputError, match="not empty"):
        undistort(place / "map", place / "photographs")


# --- intrinsics from outside -------------------------------------------------------------------------------------


def model_of_stored(folder: Path, camera: Intrinsics, names: list[str]) -> Path:
    """A COLMAP model of image files as they are stored."""
    model = pycolmap.Reconstruction()
    made = pycolmap.Camera(
        model=camera.model,
        width=camera.width,
        height=camera.height,
        params=[*camera.params[:2], *(value + 0.5 for value in camera.params[2:4]), *camera.params[4:]],
        camera_id=1,
    )
    if hasattr(model, "add_camera_with_trivial_rig"):
        model.add_camera_with_trivial_rig(made)
    else:
        model.add_camera(made)
    for number, name in enumerate(names, 1):
        image = pycolmap.Image(name=name, camera_id=1, image_id=number)
        if hasattr(model, "add_image_with_trivial_frame"):
            model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
        else:
            image.cam_from_world = pycolmap.Rigid3d()
            model.add_image(image)
    folder.mkdir()
    model.write(str(folder))
    return folder


def test_the_cameras_of_a_model_of_the_stored_files_are_turned_with_them(tmp_path: Path) -> None:
    stored = Intrinsics("OPENCV", (240, 320), (300.0, 310.0, 118.0, 163.0, 0.1, 0.0, 0.01, 0.02))
    for orientation in (5, 6, 7, 8):
        write(tmp_path / f"images/{orientation}.jpg", photograph(0), orientation)
    names = [f"{orientation}.jpg" for orientation in (5, 6, 7, 8)]
    table = model_of_stored(tmp_path / "model", stored, names)
    found = assign_cameras(dict.fromkeys(names, SIZE), tmp_path / "images", CameraOptions(table=str(table)))
    for name in names:
        expected = turned_camera(stored, int(name[0]))
        camera = found.cameras[found.of_image[name]]
        assert camera.size == SIZE
        assert camera.params == pytest.approx(expected.params)


def test_cameras_that_could_be_of_the_stored_or_the_shown_picture_are_refused(tmp_path: Path) -> None:
    stored = Intrinsics("OPENCV", SIZE, (300.0, 310.0, 158.0, 123.0, 0.1, 0.0, 0.0, 0.0))
    write(tmp_path / "images/3.jpg", photograph(0), 3)
    table = model_of_stored(tmp_path / "model", stored, ["3.jpg"])
    with pytest.raises(InputError, match=r"Give the images that the model was made from, without orientation tags"):
        assign_cameras({"3.jpg": SIZE}, tmp_path / "images", CameraOptions(table=str(table)))


def test_the_cameras_of_a_map_of_ours_are_those_of_the_images_as_they_are_shown(turned: Path) -> None:
    options = CameraOptions(table=str(turned / "map/model"))
    found = assign_cameras({"3.jpg": SIZE, "6.jpg": SIZE}, turned / "photographs", options)
    model = open_model(turned / "map/model")
    (camera,) = found.cameras
    focal = next(iter(model.cameras.values())).params[0]
    assert (camera.size, camera.params[0]) == (SIZE, focal)


def test_a_camera_with_the_size_of_the_stored_picture_is_turned_too(tmp_path: Path) -> None:
    write(tmp_path / "6.jpg", photograph(0), 6)
    write(tmp_path / "1.jpg", photograph(0))
    stored = CameraOptions("PINHOLE", (300.0, 310.0, 118.0, 163.0), (240, 320))
    (camera,) = assign_cameras({"6.jpg": SIZE}, tmp_path, stored).cameras
    assert camera == turned_camera(Intrinsics("PINHOLE", (240, 320), stored.params), 6)
    with pytest.raises(InputError, match="240 x 320 px"):
        assign_cameras({"1.jpg": SIZE}, tmp_path, stored)
