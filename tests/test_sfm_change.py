"""Images come into a map and go out of it."""

import shutil
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pycolmap")

from lightglue.errors import InputError
from lightglue.models.choice import Models
from lightglue.sfm.change import _Change, _pairs, add_images, remove_images
from lightglue.sfm.colmap import models as colmap_models
from lightglue.sfm.colmap.cameras import CameraOptions
from lightglue.sfm.colmap.database import create_database
from lightglue.sfm.colmap.state import read_state
from lightglue.sfm.folder import MapFolder, MapRecord
from lightglue.sfm.localization.localize import localize
from lightglue.sfm.localization.localizer import LocalizeOptions, Localizer
from lightglue.sfm.retrieval.index import RetrievalIndex, build_index
from lightglue.sfm.stages.extract import ExtractOptions, extract
from lightglue.sfm.stages.incoming import Incoming, misfits
from lightglue.sfm.stages.match import MatchOptions, match
from lightglue.sfm.stages.pairs import read_pairs
from lightglue.sfm.stages.reconstruct import ReconstructOptions, reconstruct
from lightglue.sfm.stages.verify import export_database, verify
from lightglue.stores import FeatureStore, MatchStore
from support import NEEDS_SHARED, SHARED
from support.colmap_scene import features_at, make_scene, put

SCENE = SHARED / "data/strecha1024/fountain-P11"
NAMES = ["0003.jpg", "0004.jpg", "0005.jpg"]
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A map of three images, as it was made."""
    if not SCENE.is_dir():
        pytest.skip(NEEDS_SHARED)
    models = Models("aliked", 512, device="cpu", mp=False)
    folder = tmp_path_factory.mktemp("made")
    images = folder / "images"
    images.mkdir()
    for name in NAMES:
        shutil.copy2(SCENE / name, images / name)
    place = MapFolder(folder / "map")
    place.folder.mkdir()
    place.write(MapRecord(images, {"models": asdict(models)}))
    extract(images, place.features, ExtractOptions(models, {"resize": 640}))
    match(place.features, list(combinations(NAMES, 2)), place.matches, MatchOptions(models))
    create_database(place.database, FeatureStore.open(place.features), MatchStore.open(place.matches), images)
    verify(place.database)
    assert reconstruct(place.database, images, place.folder, ReconstructOptions(threads=1)).models
    return folder


@pytest.fixture
def place(made, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    place = MapFolder(tmp_path / "copy/map")
    place.write(MapRecord(tmp_path / "copy/images", place.read().settings))
    return place


def test_an_image_is_added_localized_and_taken_out_again(place):
    added = add_images(place.folder, [SCENE / "0006.jpg"])
    assert added.names == ("0006.jpg",)
    assert added.skipped == ()
    assert added.doubt is None
    assert added.registered == (*NAMES, "0006.jpg")
    again = add_images(place.folder, [SCENE / "0006.jpg"])
    assert again.registered == added.registered

    found = Localizer.open(place.folder).localize(SCENE / "0007.jpg")
    assert found.success, found.failure
    assert found.num_inliers > 30

    gone = remove_images(place.folder, ["0006.jpg", "none.jpg"])
    assert gone.names == ("0006.jpg",)
    assert gone.registered == tuple(NAMES)
    assert [each.name for each in gone.skipped] == ["none.jpg"]
    assert FeatureStore.open(place.features).names() == NAMES
    assert all(set(pair) <= set(NAMES) for pair in read_pairs(place.pairs))
    for file in place.model.iterdir():
        assert (place.models / "0" / file.name).read_bytes() == file.read_bytes()
    assert (place.read().images / "0006.jpg").exists()


@pytest.mark.parametrize("has_models", [True, False])
def test_a_map_whose_model_is_a_folder_is_changed_too(place, has_models):
    """As earlier versions wrote it, a copy of models/0; or a model of somebody else's."""
    place.model.unlink()
    shutil.copytree(place.largest, place.model)
    if not has_models:
        shutil.rmtree(place.models)
    before = {path.name: path.read_bytes() for path in place.model.iterdir()}
    assert remove_images(place.folder, NAMES[:1]).registered == tuple(NAMES[1:])
    assert place.model.readlink() == Path("models/0")
    assert {path.name: path.read_bytes() for path in place.largest.iterdir()} != before


def test_a_kill_between_old_and_new_model_leaves_the_old_one(place):
    registered = _Change(place).registered
    place.largest.replace(place.folder / ".model.old")
    assert _Change(place).registered == registered
    place.model.unlink()  # between a folder of an earlier version and the link
    assert _Change(place).registered == registered
    assert sorted(path.name for path in place.folder.iterdir() if path.name.startswith(".")) == []


def test_an_index_says_where_to_look_and_learns_of_changes(place):
    build_index(FeatureStore.open(place.features), place.retrieval)
    found = Localizer.open(place.folder, options=LocalizeOptions(candidates=1)).localize(SCENE / "0006.jpg")
    assert found.images == ("0005.jpg",)  # the neighbour, not the image with most points
    assert found.success, found.failure
    add_images(place.folder, [SCENE / "0006.jpg"])
    assert RetrievalIndex.open(place.retrieval).names == (*NAMES, "0006.jpg")
    remove_images(place.folder, ["0006.jpg"])
    assert RetrievalIndex.open(place.retrieval).names == tuple(NAMES)


def test_an_image_is_never_written_over(place, tmp_path):
    (tmp_path / "0003.jpg").write_bytes((SCENE / "0009.jpg").read_bytes())
    result = add_images(place.folder, [tmp_path / "0003.jpg"])
    assert result.names == ()
    assert "another image is called" in result.skipped[0].reason
    assert (place.read().images / "0003.jpg").read_bytes() == (SCENE / "0003.jpg").read_bytes()


def test_queries_go_into_files_and_a_cut_run_ends_with_the_same(place, tmp_path):
    queries, out = tmp_path / "queries", tmp_path / "out"
    queries.mkdir()
    for name in ("0002.jpg", "0006.jpg"):
        (queries / name).write_bytes((SCENE / name).read_bytes())
    (queries / "broken.jpg").write_bytes(b"no image")
    result = localize(place.folder, queries, out)
    assert (result.queries, result.localized, result.kept) == (3, 2, 0)
    assert [each.name for each in result.failures] == ["broken.jpg"]
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert [line.split()[0] for line in files["poses.txt"].splitlines()] == [b"0002.jpg", b"0006.jpg"]

    (out / "queries.jsonl").write_bytes(files["queries.jsonl"][:-40])
    (out / "poses.txt").unlink()
    assert localize(place.folder, queries, out).kept == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files


def test_a_new_first_image_of_another_size_shifts_all_numbers(place, tmp_path):
    """Images and cameras are numbered by the sorted names: all numbers of the model have to change."""
    photograph = cv2.imread(str(SCENE / "0006.jpg"))
    cv2.imwrite(str(tmp_path / "0000.jpg"), cv2.resize(photograph, (900, 600)))
    added = add_images(place.folder, [tmp_path / "0000.jpg"])
    assert added.registered == ("0000.jpg", *NAMES)
    model = colmap_models.open_model(place.model)
    widths = [model.camera(image.camera_id).width for image in colmap_models.registered(model)]
    assert widths == [900, 1024, 1024, 1024]
    state = read_state(place.database)
    assert {str(image.name): image.image_id for image in colmap_models.registered(model)} == state.ids


def test_too_few_images_are_left(place):
    with pytest.raises(InputError, match="has no model"):
        remove_images(place.folder, NAMES[:2])
    assert FeatureStore.open(place.features).names() == NAMES


def test_known_intrinsics_stay_where_the_model_is_continued(place):
    cameras = {"cameras": {"model": "SIMPLE_PINHOLE", "params": (925.0, 511.5, 341.0)}}
    place.write(MapRecord(place.read().images, {**place.read().settings, "verify": cameras}))
    features, matches = FeatureStore.open(place.features), MatchStore.open(place.matches)
    create_database(place.database, features, matches, cameras=CameraOptions(**cameras["cameras"]))
    verify(place.database)
    reconstruct(place.database, place.read().images, place.folder, ReconstructOptions(threads=1))
    assert add_images(place.folder, [SCENE / "0006.jpg"]).registered == (*NAMES, "0006.jpg")
    model = colmap_models.open_model(place.model)
    assert [list(camera.params) for camera in model.cameras.values()] == [[925.0, 512.0, 341.5]]


def test_a_file_that_is_no_image_is_not_copied_among_the_photographs(tmp_path):
    photographs, broken = tmp_path / "photographs", tmp_path / "broken.jpg"
    photographs.mkdir()
    broken.write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    found = Incoming.bring(photographs, [broken, tmp_path / "absent.jpg", tmp_path / "empty"])
    assert found.names == set()
    assert [Path(each.name).name for each in found.skipped] == ["broken.jpg", "absent.jpg", "empty"]
    assert found.skipped[0].reason.startswith("it is not an image that can be read")
    assert list(photographs.iterdir()) == []


def test_a_copy_that_turns_out_to_be_of_no_use_is_taken_back_and_nothing_else(tmp_path):
    photographs, more = tmp_path / "photographs", tmp_path / "more"
    for folder, names in ((photographs, ["own.png"]), (more, ["a.png", "b.png", "own.png"])):
        folder.mkdir()
        for name in names:
            cv2.imwrite(str(folder / name), np.zeros((4, 6, 3), np.uint8))
    found = Incoming.bring(photographs, [more])
    assert (found.names, found.copied) == ({"a.png", "b.png", "own.png"}, {"a.png", "b.png"})
    found.take_back(["a.png", "own.png"])
    assert found.names == {"b.png"}
    assert sorted(path.name for path in photographs.iterdir()) == ["b.png", "own.png"]


def test_what_stands_in_the_way_of_a_copy_stays(tmp_path):
    photographs = tmp_path / "photographs"
    (photographs / "a.png").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 6, 3), np.uint8))
    found = Incoming.bring(photographs, [tmp_path / "a.png"])
    assert found.names == set()
    assert "another image is called 'a.png'" in found.skipped[0].reason


def test_an_image_that_cannot_share_the_camera_of_a_map_is_left_out_and_the_others_are_added():
    sizes = {"0.jpg": (640, 480), "1.jpg": (640, 480), "2.jpg": (480, 640), "3.jpg": (640, 480)}
    (found,) = misfits(sizes, ["1.jpg", "2.jpg", "3.jpg"], CameraOptions(mode="single"))
    assert found.name == "2.jpg"
    assert "cannot share a camera" in found.reason
    assert misfits(sizes, ["1.jpg", "2.jpg", "3.jpg"], CameraOptions()) == ()


def test_an_addition_leaves_out_what_cannot_be_used_and_its_copy(place, tmp_path):
    cameras = {"cameras": {"mode": "single"}}
    place.write(MapRecord(place.read().images, {**place.read().settings, "verify": cameras}))
    turned = cv2.rotate(cv2.imread(str(SCENE / "0007.jpg")), cv2.ROTATE_90_CLOCKWISE)
    cv2.imwrite(str(tmp_path / "0007.jpg"), turned)
    (tmp_path / "0008.jpg").write_bytes((SCENE / "0008.jpg").read_bytes()[:9000])
    (tmp_path / "0009.jpg").touch()
    result = add_images(place.folder, [*sorted(tmp_path.glob("*.jpg")), SCENE / "0006.jpg"])
    assert result.registered == (*NAMES, "0006.jpg")
    reasons = {Path(each.name).name: each.reason for each in result.skipped}
    assert reasons.keys() == {"0007.jpg", "0008.jpg", "0009.jpg"}
    assert "cannot share a camera" in reasons["0007.jpg"]
    assert sorted(path.name for path in place.read().images.iterdir()) == [*NAMES, "0006.jpg"]
    assert FeatureStore.open(place.features).names() == [*NAMES, "0006.jpg"]


def test_what_was_taken_out_of_the_folder_before_does_not_come_back_with_an_addition(tmp_path):
    """Features stay in the store of photographs that are gone; the map is what its database holds."""
    scene = make_scene(tmp_path / "scene", 3)
    export_database(scene.features, scene.matches, tmp_path / "scene/database.db")
    put(scene.features, "gone.jpg", features_at(np.zeros((4, 2), np.float32)))
    change = _Change.__new__(_Change)
    change.paths, change.store = MapFolder(tmp_path / "scene"), scene.features
    assert change.held == scene.names
    pairs = _pairs(change.paths, scene.features, ["new.jpg"], [*change.held, "new.jpg"], tmp_path)
    assert sorted(pairs) == [(name, "new.jpg") if name < "new.jpg" else ("new.jpg", name) for name in scene.names]
