"""Lists of images, with or without cameras, as hloc and COLMAP write them: for maps, queries, tables of cameras."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycolmap")
import pycolmap

from lightglue.errors import InputError
from lightglue.geometry.colmap_text import image_lines, listed_image
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.images import load_image
from lightglue.models.choice import Models
from lightglue.sfm.change import add_images, remove_images
from lightglue.sfm.colmap.cameras import read_table
from lightglue.sfm.colmap.image_lists import ImageList, read_image_list, write_image_list
from lightglue.sfm.colmap.model import read_model
from lightglue.sfm.localization.localize import localize
from lightglue.sfm.options import CameraOptions, ExtractOptions, MatchOptions, PairOptions, ReconstructOptions
from lightglue.sfm.pipeline import SfmOptions, build_map, run_stage
from lightglue.sfm.stages.given import given_images
from lightglue_runtime.images.sizes import size_in_file
from support.colmap_model import write_model
from support.command import lightglue
from support.corner import SIZE, photograph

MODELS = Models("sift", 400, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.8})
OPTIONS = SfmOptions(
    MODELS,
    ExtractOptions(MODELS, {"resize": None}),
    MatchOptions(MODELS),
    PairOptions(("exhaustive",)),
    reconstruct=ReconstructOptions(threads=1, extract_colors=False),
)
NAMES = ["0.png", "a b/1 1.png", "2.png", "3.png", "4.png", "5.png"]
# Of the photographs: (160, 120) in px whose (0, 0) is a pixel's centre is (160.5, 120.5) with COLMAP's origin.
CAMERA = "PINHOLE 320 240 300 300 160.5 120.5"
K = [[300, 0, 160], [0, 300, 120], [0, 0, 1]]
KNOWN = Intrinsics("PINHOLE", SIZE, (300.0, 300.0, 160.0, 120.0))
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


def written(path: Path, *lines: str) -> Path:
    """As an editor on Windows has it."""
    path.write_bytes(b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in lines).encode())
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "a b").mkdir()
    for number, name in enumerate(NAMES):
        cv2.imwrite(str(folder / name), photograph(number))
    return folder


@pytest.fixture(scope="module")
def no_report() -> Any:
    with mock.patch("lightglue.sfm.report.document.write_report"):
        yield


@pytest.fixture(scope="module")
def made(photographs: Path, no_report: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a list and of the map that was made of it: five of the six photographs."""
    folder = tmp_path_factory.mktemp("made")
    lines = ["# queries", *(f"  {name}  {CAMERA}" for name in NAMES[:5]), "", f"gone.png {CAMERA}"]
    build_map(written(folder / "list.txt", *lines), folder / "map", OPTIONS, root=photographs)
    return folder


# --- what stands in a list ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "camera"),
    [
        ("a.jpg", "a.jpg", ""),
        ("db/a b 12.jpg", "db/a b 12.jpg", ""),
        ("q/a b.jpg SIMPLE_RADIAL 640 480 500 320 240 -0.1", "q/a b.jpg", "SIMPLE_RADIAL 640 480 500 320 240 -0.1"),
        ("PINHOLE 1.jpg\tPINHOLE  640 480 5 5 3 2", "PINHOLE 1.jpg", "PINHOLE 640 480 5 5 3 2"),
        ("a.jpg opencv 640 480 5", "a.jpg", "opencv 640 480 5"),
        ("a.jpg BROWN 640 480 5 5 3 2", "a.jpg", "BROWN 640 480 5 5 3 2"),
    ],
)
def test_a_line_is_a_name_with_or_without_a_camera(line: str, name: str, camera: str) -> None:
    assert listed_image(line) == (name, tuple(camera.split()))


def test_hlocs_queries_have_colmaps_origin_and_a_camera_that_is_none_costs_its_image_alone(tmp_path: Path) -> None:
    lines = [
        "# name model w h params",
        f"a b.jpg {CAMERA}",
        "c.jpg SIMPLE_RADIAL 640 480 500 320 240 -0.1",
        "d.jpg",
        "few.jpg PINHOLE 320 240 300 300 160.5",
        "zero.jpg PINHOLE 320 240 0 300 160.5 120.5",
        "nan.jpg PINHOLE 320 240 nan 300 160.5 120.5",
        "brown.jpg BROWN 320 240 300 160 120",
        "half.jpg PINHOLE 320.5 240 300 300 160.5 120.5",
        f"twice.jpg {CAMERA}",
        "twice.jpg SIMPLE_PINHOLE 320 240 300 160 120",
        f"a b.jpg {CAMERA}",
    ]
    listed = read_image_list(written(tmp_path / "queries.txt", *lines))
    assert listed.cameras["a b.jpg"] == KNOWN
    assert listed.cameras["c.jpg"] == Intrinsics("SIMPLE_RADIAL", (640, 480), (500.0, 319.5, 239.5, -0.1))
    assert listed.names[:3] == ("a b.jpg", "c.jpg", "d.jpg")
    told = {
        "few.jpg": "takes WIDTH HEIGHT fx fy cx cy, 5 were given",
        "zero.jpg": "focal length is 0 px",
        "nan.jpg": "finite",
        "brown.jpg": "no camera model 'BROWN'",
        "half.jpg": "320.5 x 240; give whole px",
        "twice.jpg": "two cameras",
    }
    assert set(listed.faults) == set(told)
    assert all(told[name] in fault for name, fault in listed.faults.items())


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    listed = ImageList(("a b.jpg", "é.jpg", "d.jpg"), {"a b.jpg": KNOWN})
    write_image_list(tmp_path / "list.txt", listed)
    assert read_image_list(tmp_path / "list.txt") == listed


def model_text(folder: Path) -> Path:
    """A model's cameras.txt and images.txt, with points below an image, without, and blank lines."""
    folder.mkdir()
    written(folder / "cameras.txt", "# Camera list", f"7 {CAMERA}", "", "9 SIMPLE_PINHOLE 320 240 300 160.5 120.5")
    images = ["# Image list", "", "1 1 0 0 0 0 0 0 7 a b.jpg", "10 20 -1 30 40 5", "2 1 0 0 0 0 0 0 9 c.jpg", ""]
    written(folder / "images.txt", *images, "", "# the last", "3 1 0 0 0 0 0 0 8 d.jpg")
    return folder


def test_colmaps_cameras_and_images_are_read_whatever_wrote_them(tmp_path: Path) -> None:
    folder = model_text(tmp_path / "model")
    for path in (folder, folder / "images.txt"):
        listed = read_image_list(path)
        assert listed.names == ("a b.jpg", "c.jpg", "d.jpg")
        assert listed.cameras["a b.jpg"] == KNOWN
        assert listed.cameras["c.jpg"] == Intrinsics("SIMPLE_PINHOLE", SIZE, (300.0, 160.0, 120.0))
        assert listed.faults == {"d.jpg": "its camera is not in cameras.txt; write it again"}
    (folder / "cameras.txt").unlink()
    assert read_image_list(folder / "images.txt") == ImageList(("a b.jpg", "c.jpg", "d.jpg"))


def test_a_model_in_text_keeps_the_blanks_in_its_names_whatever_wrote_it(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", ("a b.jpg", "b/c  d.jpg", "e.jpg"))
    for path in folder.glob("*.txt"):
        written(path, "# of COLMAP", "", *path.read_text().splitlines())
    found = read_model(folder)
    assert [(image.name, len(image.points)) for image in found.images] == [
        ("a b.jpg", 60),
        ("b/c  d.jpg", 60),
        ("e.jpg", 60),
    ]
    assert found.mean_error == pytest.approx(0.5)


def test_images_without_lines_of_points_are_read_too() -> None:
    lines = ["1 1 0 0 0 0 0 0 7 a.jpg", "2 1 0 0 0 0 0 0 7 b 1.jpg", "3 1 0 0 0 0 0 0 7 c.jpg", "1 2 3 4 5 6"]
    found = image_lines("\n".join(lines))
    assert [(image.name, image.points) for image in found] == [("a.jpg", ""), ("b 1.jpg", ""), ("c.jpg", "1 2 3 4 5 6")]


def test_tables_of_cameras_may_be_any_of_them(tmp_path: Path) -> None:
    sizes = dict.fromkeys(("a b.jpg", "c.jpg"), SIZE)
    queries = written(tmp_path / "queries.txt", *(f"{name} {CAMERA}" for name in sizes))
    alone = written(tmp_path / "cameras.txt", f"1 {CAMERA}")
    table = written(tmp_path / "table.json", json.dumps(dict.fromkeys(sizes, K)))
    for path in (queries, alone, table):
        assert read_table(path, sizes) == dict.fromkeys(sizes, KNOWN)
    assert read_table(model_text(tmp_path / "model"), sizes)["a b.jpg"] == KNOWN
    written(alone, f"1 {CAMERA}", f"2 {CAMERA}")
    with pytest.raises(InputError, match="2 cameras and does not say which took which image"):
        read_table(alone, sizes)
    with pytest.raises(InputError, match=r"names\.txt has no cameras"):
        read_table(written(tmp_path / "names.txt", *sizes), sizes)


# --- which images and where they are -----------------------------------------------------------------------------


def test_names_are_relative_to_the_list_or_to_the_root(photographs: Path, tmp_path: Path) -> None:
    copied = tmp_path / "photographs"
    shutil.copytree(photographs, copied)
    lines = ["0.png", "./2.png", "a b\\1 1.png", str(copied / "3.png"), "a b/../4.png", "../else.png", "2.png"]
    beside = written(copied / "list.txt", *lines)
    apart = written(tmp_path / "list.txt", *lines)
    for given in (given_images(beside), given_images(apart, copied)):
        assert (given.folder, given.names) == (copied, ("0.png", "2.png", "a b/1 1.png", "3.png", "4.png"))
        assert [each.name for each in given.skipped] == ["../else.png"]
    with pytest.raises(InputError, match=r"None of the 6 images in the list .*'0.png', is in .* as root"):
        given_images(written(tmp_path / "other.txt", *(line for line in lines if line != str(copied / "3.png"))))
    with pytest.raises(InputError, match="leave root out"):
        given_images(copied, tmp_path)


def test_a_map_is_made_of_the_listed_images_with_their_cameras(made: Path) -> None:
    model = pycolmap.Reconstruction(made / "map/model")
    assert sorted(image.name for image in model.images.values()) == sorted(NAMES[:5])
    (camera,) = model.cameras.values()
    assert (camera.model.name, list(camera.params)) == ("PINHOLE", [300, 300, 160.5, 120.5])
    stages = json.loads((made / "map/map.json").read_text())["stages"]
    assert [name for name, _ in stages["extract"]["skipped"]] == ["gone.png"]
    assert read_image_list(made / "map/listed.txt").cameras["a b/1 1.png"] == KNOWN


def test_stages_of_their_own_and_images_that_come_and_go_keep_to_the_list(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "map", tmp_path / "map", symlinks=True)
    photographs = Path(json.loads((tmp_path / "map/map.json").read_text())["images"])
    for stage in ("pairs", "match", "verify"):
        assert run_stage(stage, tmp_path / "map", OPTIONS).counts.get("images", 5) == 5
    added = add_images(tmp_path / "map", [photographs / "5.png"])
    assert added.registered == tuple(sorted(NAMES))
    assert run_stage("pairs", tmp_path / "map", OPTIONS).counts["pairs"] == 15
    remove_images(tmp_path / "map", ["5.png"])
    assert run_stage("pairs", tmp_path / "map", OPTIONS).counts["pairs"] == 10


def test_a_folder_instead_of_the_list_takes_all_of_it(made: Path, photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "map", tmp_path / "map", symlinks=True)
    assert run_stage("extract", tmp_path / "map", OPTIONS, images=photographs).counts["images"] == 6
    assert not (tmp_path / "map/listed.txt").exists()
    assert run_stage("pairs", tmp_path / "map", OPTIONS).counts["pairs"] == 15


def test_cameras_of_a_list_are_of_the_stored_picture_and_turn_with_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 24)).save(tmp_path / "turned.jpg", exif=exif)
    listed = written(tmp_path / "list.txt", "turned.jpg PINHOLE 32 24 30 31 15 10")
    upright = Intrinsics("PINHOLE", (24, 32), (31.0, 30.0, 13.5, 14.5))  # 24 - 10 and 15, less half a pixel
    assert given_images(listed).cameras == {"turned.jpg": upright}
    assert read_table(listed, {"turned.jpg": (24, 32)}, tmp_path) == {"turned.jpg": upright}
    other = given_images(written(listed, "turned.jpg PINHOLE 33 24 30 31 15 10"))
    assert "32 x 24 as it is stored" in other.skipped[0].reason


def test_a_colmap_model_is_a_list_too(made: Path, photographs: Path) -> None:
    given = given_images(made / "map/model", photographs)
    assert set(given.names or ()) == set(NAMES[:5])
    assert set(given.cameras.values()) == {KNOWN}
    with pytest.raises(InputError, match="is a COLMAP model; name the folder of its images as root"):
        given_images(made / "map/model")
    with pytest.raises(InputError, match="0.png is a picture; name the folder"):
        given_images(photographs / "0.png")


# --- queries -----------------------------------------------------------------------------------------------------


def test_queries_of_a_list_have_its_cameras_and_keep_its_names(made: Path, photographs: Path, tmp_path: Path) -> None:
    lines = [f"./a b/../5.png {CAMERA}", "3.png", "2.png PINHOLE 320 240 300", f"gone.png {CAMERA}"]
    lines.append("a b/1 1.png PINHOLE 640 480 600 600 320 240")
    done = localize(made / "map", written(tmp_path / "queries.txt", *lines), tmp_path / "out", root=photographs)
    assert (done.queries, done.localized) == (5, 2)
    told = {each.name: each.reason for each in done.failures}
    assert "3 were given" in told["2.png"]
    assert "There is no image" in told["gone.png"]
    assert "640 x 480 px and the query 320 x 240" in told["a b/1 1.png"]
    poses = (tmp_path / "out/poses.txt").read_text().splitlines()
    assert [line.rsplit(" ", 7)[0] for line in poses] == ["./a b/../5.png", "3.png"]
    found = [json.loads(line) for line in (tmp_path / "out/queries.jsonl").read_text().splitlines()[1:]]
    assert found[0]["K"] == K
    # The angle between the query, which is no image of the map, and one that is: each turns by 4 degrees more.
    model = {image.name: image for image in read_model(made / "map").images}
    turned = np.array(found[0]["cam_from_world"])[:3, :3] @ model["0.png"].rotation.T
    assert np.degrees(np.arccos((np.trace(turned) - 1) / 2)) == pytest.approx(20, abs=0.3)


def test_a_map_finds_its_cameras_again_from_another_folder(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "map", tmp_path / "map", symlinks=True)
    written(tmp_path / "cameras.txt", f"1 {CAMERA}")
    monkeypatch.chdir(tmp_path)
    told = lightglue("map", "verify", "map", "--cameras", "cameras.txt")
    assert told.code == 0, told.err
    settings = json.loads((tmp_path / "map" / "map.json").read_text())["settings"]
    assert settings["verify"]["cameras"]["table"] == str(tmp_path / "cameras.txt")


def test_commands_take_lists_and_roots(made: Path, photographs: Path, tmp_path: Path) -> None:
    queries = written(tmp_path / "queries.txt", "5.png")
    cameras = written(tmp_path / "cameras.txt", f"1 {CAMERA}")
    wrong = lightglue("localize", made / "map", queries, "-o", tmp_path / "out")
    assert (wrong.code, "the only image in the list" in wrong.err, "--root" in wrong.err) == (1, True, True)
    right = lightglue(
        *("localize", made / "map", queries, "-o", tmp_path / "out"),
        *("--root", photographs, "--cameras", cameras, "--json"),
    )
    assert json.loads(right.out)["localized"] == 1
    found = json.loads((tmp_path / "out/queries.jsonl").read_text().splitlines()[1])
    assert found["K"] == K
    listed = lightglue(
        "map",
        "extract",
        queries,
        "-o",
        tmp_path / "map",
        "--root",
        photographs,
        "--features",
        "sift",
        "--max-keypoints",
        "50",
    )
    assert (listed.code, "images 1" in listed.out) == (0, True)


# --- what cannot fit is refused before the work ------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Images of two sizes, one of them turned by its EXIF, and one that is damaged."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 24)).save(folder / "wide.jpg")
    Image.new("RGB", (24, 32)).save(folder / "turned.jpg", exif=exif)
    Image.new("RGB", (24, 32)).save(folder / "high.jpg", quality=100)
    (folder / "bad.jpg").write_bytes(b"none")
    return folder


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif", "bmp", "gif", "jp2"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_by_the_header_is_that_of_the_image_that_is_loaded(
    form: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{form}"
    Image.new("RGB", (32, 24)).save(path, exif=exif)
    assert size_in_file(path) == tuple(load_image(path).shape[:0:-1])


@pytest.mark.parametrize(
    ("cameras", "told"),
    [
        (CameraOptions(mode="per_folder"), r"'high.jpg' has 24 x 32 px and 'turned.jpg' 32 x 24 px: they cannot share"),
        (CameraOptions(mode="single"), "cannot share a camera; choose another mode than single"),
        (CameraOptions("PINHOLE", (30.0, 30.0, 15.5, 11.5), (32, 24)), "of images of 32 x 24 px, and 'high.jpg' has"),
        (CameraOptions("PINHOLE", (30.0, 30.0, 15.5, 11.5)), "cannot share a camera; give the cameras of each"),
        ("wide.jpg PINHOLE 32 24 30 30 16 12", "no camera of 2 of the 3 images, such as 'high.jpg'"),
        ("1 PINHOLE 32 24 30 30 16 12", "'high.jpg' in .* is of 32 x 24 px, and the image has 24 x 32 px"),
    ],
)
def test_cameras_that_cannot_fit_are_refused_before_the_extraction(
    cameras: Any, told: str, mixed: Path, tmp_path: Path
) -> None:
    if isinstance(cameras, str):
        cameras = CameraOptions(table=str(written(tmp_path / "cameras.txt", cameras)))
    extract = mock.patch("lightglue.sfm.pipeline.extract", side_effect=AssertionError("features were extracted"))
    with extract, pytest.raises(InputError, match=told):
        build_map(mixed, tmp_path / "map", replace(OPTIONS, cameras=cameras))
    assert not (tmp_path / "map").exists()


def test_two_sources_of_cameras_are_refused(photographs: Path, tmp_path: Path) -> None:
    listed = written(tmp_path / "list.txt", f"0.png {CAMERA}", "2.png")
    chosen = replace(OPTIONS, cameras=CameraOptions("PINHOLE", (300.0, 300.0, 160.0, 120.0)))
    with pytest.raises(InputError, match="give one of the two"):
        build_map(listed, tmp_path / "map", chosen, root=photographs)
    with pytest.raises(InputError, match="give one of the two"):
        localize(tmp_path, listed, tmp_path / "out", cameras=KNOWN, root=photographs)


def test_a_camera_that_fits_no_query_is_refused_before_the_map_is_opened(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of 640 x 480 px and no query has that size: '0.png' has 320 x 240 px"):
        localize(tmp_path, photographs, tmp_path / "out", cameras=replace(KNOWN, size=(640, 480)))
    assert not (tmp_path / "out").exists()
