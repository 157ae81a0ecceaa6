"""Maps for the page: the numbers are those of the model, names go into addresses, and no fault is a traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightglue.errors import ImageNotFoundError, InputError, LightGlueError, StoreError
from lightglue.geometry.intrinsics import Intrinsics
from support.colmap_model import FOCAL, HEIGHT, WIDTH, write_model

pytest.importorskip("pycolmap")

from lightglue.sfm.colmap.model import read_model
from lightglue.sfm.colmap.models import open_model
from lightglue.sfm.folder import MapFolder, MapRecord, StageRecord
from lightglue.sfm.skipped import Skipped
from lightglue.web.maps import Maps, named_folders
from lightglue.web.open_map import POINT_BYTES, OpenMap, image_plane


def make_map(folder: Path, images: Path | None = None, **model: int) -> Path:
    """A folder as `lightglue sfm` leaves it, with a made model of three images."""
    folder.mkdir(parents=True)
    images = images or folder.parent / "photographs"
    stages = {
        "extract": StageRecord(
            1.0, {"images": 5}, (Skipped("d.jpg", "it is cut off"), Skipped("a.jpg", "it is dark", True))
        ),
        "reconstruct": StageRecord(1.0, {"registered": 3, "points": 60}),
    }
    paths = MapFolder(folder)
    paths.write(MapRecord(images, {"models": {}}, stages))
    write_model(paths.largest, **model)
    paths.link_model()
    return folder


@pytest.fixture
def opened(tmp_path: Path) -> OpenMap:
    return Maps([make_map(tmp_path / "place/map")]).open("map")


def test_points_are_float32_from_the_middle_with_colours_and_how_many_images_see_them(opened: OpenMap) -> None:
    model = read_model(opened.paths.model)
    content = opened.points()
    assert len(content) == POINT_BYTES * len(model.points)
    rows = np.frombuffer(content, np.uint8).reshape(-1, POINT_BYTES)
    positions = rows[:, :12].copy().view("<f4")
    assert np.allclose(positions + opened.scene.centre, model.points, atol=1e-5)
    assert (rows[:, 12:15] == model.colours).all()
    assert (rows[:, 15] == model.track_lengths).all()


def test_a_map_far_from_its_origin_loses_no_digit(tmp_path: Path) -> None:
    folder = make_map(tmp_path / "map")
    import pycolmap

    model = open_model(folder / "models/0")
    model.transform(pycolmap.Sim3d(1, pycolmap.Rotation3d(), np.array([500_000.0, 5_000_000.0, 0])))
    model.write_text(str(folder / "models/0"))
    found = Maps([folder]).open("map")
    positions = np.frombuffer(found.points(), np.uint8).reshape(-1, POINT_BYTES)[:, :12].copy().view("<f4")
    assert np.abs(found.model.points).max() > 4e6
    assert np.abs(positions + found.scene.centre - found.model.points).max() < 1e-5
    assert found.described()["scene"]["centre"] == found.scene.centre.tolist()


def test_images_have_their_poses_cameras_and_errors_and_all_is_json(opened: OpenMap) -> None:
    found = json.loads(json.dumps(opened.described(), allow_nan=False))
    assert [image["name"] for image in found["images"]] == ["a.jpg", "b.jpg", "c.jpg"]
    for said, image in zip(found["images"], opened.model.images, strict=True):
        pose = np.reshape(said["cam_from_world"], (3, 4))
        assert np.allclose(-pose[:, :3].T @ pose[:, 3], image.centre)
        assert (said["camera"], said["points"]) == (0, 60)
        assert said["error"] == pytest.approx(image.mean_error)
    assert found["cameras"][0]["size"] == [WIDTH, HEIGHT]
    assert found["cameras"][0]["focal"] == [FOCAL, FOCAL]
    assert found["statistics"]["images_in_all"] == 5
    assert found["left_out"] == [{"name": "d.jpg", "reason": "it is cut off"}]
    assert found["points"] == 60


def test_a_point_names_its_images_and_an_image_its_points(opened: OpenMap) -> None:
    point = opened.point(7)
    assert point["position"] == opened.model.points[7].tolist()
    assert sorted(seen["image"] for seen in point["images"]) == [0, 1, 2]
    for seen in point["images"]:
        image = opened.image_points(seen["image"])
        at = image["points"].index(7)
        assert image["pixels"][2 * at : 2 * at + 2] == seen["pixel"]
        # The px is where the camera sees the point, up to its error.
        own = opened.model.images[seen["image"]]
        x, y, z = own.rotation @ opened.model.points[7] + own.translation
        seen_at = (FOCAL * x / z + (WIDTH - 1) / 2, FOCAL * y / z + (HEIGHT - 1) / 2)
        assert np.hypot(*(np.subtract(seen_at, seen["pixel"]))) == pytest.approx(seen["error"], abs=2e-3)
    for wrong in (-1, 60):
        with pytest.raises(IndexError):
            opened.point(wrong)
    with pytest.raises(IndexError):
        opened.image_points(3)


def test_colmaps_numbers_become_rows(opened: OpenMap) -> None:
    ids = opened.model.point_ids[[5, 0, 9]]
    assert opened.rows_of([*ids.tolist(), 10**9]) == [5, 0, 9, -1]


def test_maps_of_one_name_get_different_ones_and_one_named_twice_is_one(tmp_path: Path) -> None:
    first, second = make_map(tmp_path / "old town/map"), make_map(tmp_path / "b/map")
    (tmp_path / "link").symlink_to(second)
    found = named_folders([first, second, tmp_path / "b/../b/map", tmp_path / "link"])
    assert {name: path.parent.name for name, path in found.items()} == {"old-town-map": "old town", "b-map": "b"}
    again = named_folders([make_map(tmp_path / "x/b/map"), second])
    assert list(again) == ["b-map", "b-map-2"]


def test_a_name_cannot_leave_an_address(tmp_path: Path) -> None:
    (name,) = named_folders([make_map(tmp_path / "a?b#c%2e<i>\n")])
    assert name == "a-b-c-2e-i"


def test_a_folder_that_is_no_map_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    for wrong in (tmp_path / "photographs", tmp_path / "none"):
        with pytest.raises(InputError, match=r"no map in .*; name the folder that `lightglue sfm` wrote"):
            Maps([wrong])
    (tmp_path / "photographs/map.json").write_text("{}")
    with pytest.raises(StoreError, match="damaged"):
        Maps([tmp_path / "photographs"])


def test_a_map_that_changes_or_goes_while_it_is_shown_says_so(tmp_path: Path) -> None:
    maps = Maps([make_map(tmp_path / "map")])
    before = maps.open("map")
    assert maps.open("map") is before
    assert maps.list() == [{"name": "map", "images": 3, "points": 60, "fault": None}]
    shutil.rmtree(tmp_path / "map/models")
    write_model(tmp_path / "map/models/0", points=20)
    after = maps.open("map")
    assert (after.version != before.version, len(after.model.points)) == (True, 20)
    (tmp_path / "map/models/0/points3D.txt").write_text("what")
    with pytest.raises(LightGlueError):
        maps.open("map")
    shutil.rmtree(tmp_path / "map/models")
    with pytest.raises(InputError, match="no model"):
        maps.open("map")
    assert "no model" in str(maps.list()[0]["fault"])
    shutil.rmtree(tmp_path / "map")
    with pytest.raises(InputError, match="no map"):
        maps.open("map")
    assert "no map" in str(maps.list()[0]["fault"])
    with pytest.raises(KeyError):
        maps.open("../map")


def test_images_that_are_gone_or_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    (photographs / "a.jpg").write_bytes(b"a picture")
    (tmp_path / "secret.jpg").write_bytes(b"not the map's")
    folder = make_map(tmp_path / "map", photographs)
    images = folder / "models/0/images.txt"
    images.write_text(
        images.read_text().replace(" b.jpg", " ../secret.jpg").replace(" c.jpg", f" {tmp_path}/secret.jpg")
    )
    found = Maps([folder]).open("map")
    has_file = {image["name"]: image["has_file"] for image in found.described()["images"]}
    numbers = {image.name: n for n, image in enumerate(found.model.images)}
    assert [name for name, has in has_file.items() if has] == ["a.jpg"]
    assert found.image_file(numbers["a.jpg"]) == photographs / "a.jpg"
    for name in set(numbers) - {"a.jpg"}:
        with pytest.raises(ImageNotFoundError, match="no longer where it was"):
            found.image_file(numbers[name])
    (photographs / "a.jpg").unlink()
    with pytest.raises(ImageNotFoundError):
        found.image_file(numbers["a.jpg"])


def test_the_plane_of_a_picture_is_where_points_are_seen() -> None:
    pinhole = Intrinsics("PINHOLE", (640, 480), (500.0, 510.0, 320.0, 230.0))
    plane = image_plane(pinhole, (640, 480))
    assert plane is not None
    assert np.allclose(plane[:2], [-320.5 / 500, -230.5 / 510], atol=1e-6)
    assert np.allclose(plane[-2:], [319.5 / 500, 249.5 / 510], atol=1e-6)
    lens = Intrinsics("SIMPLE_RADIAL", (640, 480), (500.0, 319.5, 239.5, -0.1))
    bent = image_plane(lens, (640, 480))
    assert bent is not None
    assert len(bent) == 2 * 17 * 17
    x, y = bent[:2]
    r = 1 - 0.1 * (x * x + y * y)
    assert np.allclose([x * r, y * r], [-0.64, -0.48], atol=1e-5)
    assert image_plane(Intrinsics("EQUIRECTANGULAR", (640, 320), (640.0, 320.0)), (640, 320)) is None
    assert (
        image_plane(Intrinsics("OPENCV_FISHEYE", (640, 480), (120.0, 120.0, 320, 240, 0, 0, 0, 0)), (640, 480)) is None
    )


def test_maps_are_read_without_torch() -> None:
    code = "import sys, lightglue.web.open_map; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
