"""A map that is made again: other choices, other photographs, other models leave nothing of the old behind."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycolmap")
from lightglue.errors import InputError, StoreError
from lightglue.models.choice import Models
from lightglue.sfm.change import remove_images
from lightglue.sfm.colmap.cameras import CameraOptions
from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.colmap.models import open_model
from lightglue.sfm.colmap.state import pair_states as database_pairs
from lightglue.sfm.colmap.state import read_state
from lightglue.sfm.folder import MapFolder, MapRecord
from lightglue.sfm.localization.localizer import LocalizeOptions, Localizer
from lightglue.sfm.pipeline import SfmOptions, build_map, run_stage
from lightglue.sfm.report.data import report_data
from lightglue.sfm.retrieval.index import RetrievalIndex, RetrievalOptions, build_index
from lightglue.sfm.stages.extract import ExtractOptions
from lightglue.sfm.stages.match import MatchOptions
from lightglue.sfm.stages.pairs import PairOptions, write_pairs
from lightglue.sfm.stages.reconstruct import ReconstructOptions
from lightglue.sfm.stages.refine import TrackOptions, _Grays, read_refined
from lightglue.stores import FeatureStore
from support.colmap_scene import Scene, features_at, features_of, make_scene, pose, put

MODELS = Models("aliked", 64, device="cpu", mp=False)
OPTIONS = SfmOptions(MODELS, ExtractOptions(MODELS), MatchOptions(MODELS))
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Stores in the folder of a map, whose five photographs are empty files."""
    scene = make_scene(tmp_path / "map")
    for name in scene.names:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    MapFolder(scene.folder).write(MapRecord(tmp_path / "images", {"models": asdict(MODELS)}))
    run_stage("pairs", scene.folder, OPTIONS)
    return scene


def photograph(scene: Scene, number: int) -> Path:
    return scene.folder.parent / "images" / scene.names[number]


def test_the_database_has_the_pairs_that_were_chosen_last(scene: Scene) -> None:
    assert run_stage("verify", scene.folder, OPTIONS).counts["pairs"] == 10
    chosen = [(scene.names[0], scene.names[1]), (scene.names[1], scene.names[2])]
    write_pairs(scene.folder / "some.txt", chosen)
    some = replace(OPTIONS, pairs=PairOptions(("file",), file=str(scene.folder / "some.txt")))
    run_stage("pairs", scene.folder, some)
    assert run_stage("verify", scene.folder, some).counts["pairs"] == 2
    assert len(database_pairs(scene.folder / "database.db")) == 2
    assert [(row.name0, row.name1) for row in report_data(scene.folder).pairs] == chosen


def test_what_was_taken_out_of_the_folder_is_not_in_the_map(scene: Scene) -> None:
    photograph(scene, 4).unlink()
    assert run_stage("pairs", scene.folder, OPTIONS).counts["pairs"] == 6
    told = run_stage("verify", scene.folder, OPTIONS)
    assert (told.counts["images"], told.counts["pairs"], told.skipped) == (4, 6, ())
    assert read_state(scene.folder / "database.db").names == tuple(scene.names[:4])
    assert [row.name for row in report_data(scene.folder).images] == scene.names[:4]
    assert scene.features.names() == scene.names  # in case it returns


def test_a_renamed_photograph_is_not_in_the_map_twice(scene: Scene) -> None:
    photograph(scene, 4).rename(photograph(scene, 4).with_name("z.jpg"))
    put(scene.features, "left wing/z.jpg", scene.features.get(scene.names[4]))
    assert run_stage("pairs", scene.folder, OPTIONS).counts == {"images": 5, "pairs": 10, "from_exhaustive": 10}
    run_stage("verify", scene.folder, OPTIONS)
    assert read_state(scene.folder / "database.db").names == (*scene.names[:4], "left wing/z.jpg")


def test_retrieval_knows_the_images_of_the_map_only(scene: Scene, tmp_path: Path) -> None:
    small = RetrievalOptions(words=2, dimensions=2, sample=64)
    some = scene.names[1:3]
    assert build_index(scene.features, tmp_path / "index.npz", small, names=some).names == tuple(some)
    assert RetrievalIndex.open(tmp_path / "index.npz").names == tuple(some)


def test_refining_passes_over_pairs_of_other_features(scene: Scene) -> None:
    fewer = features_at(features_of(pose(0), 9).keypoints[:50])  # rows of the old matches lie beyond
    put(scene.features, scene.names[0], fewer)
    scene.features.remove(scene.names[1])
    told = run_stage("refine", scene.folder, replace(OPTIONS, refine=TrackOptions()))
    assert told.counts["images"] == 4
    assert len(read_refined(scene.folder / "refined", scene.names[0]).keypoints) == 50


def test_refined_keypoints_of_other_features_are_refused(scene: Scene) -> None:
    refined = replace(OPTIONS, refine=TrackOptions())
    run_stage("refine", scene.folder, refined)
    run_stage("verify", scene.folder, refined)
    put(scene.features, scene.names[0], features_of(pose(0), 9))  # as many as before
    with pytest.raises(InputError, match="refine it again"):
        run_stage("verify", scene.folder, refined)
    run_stage("refine", scene.folder, refined)
    run_stage("verify", scene.folder, refined)
    with Database(scene.folder / "database.db") as database:
        now = scene.features.get(scene.names[0]).keypoints + 0.5
        np.testing.assert_allclose(database.keypoints(1), now, atol=1e-4)


@pytest.mark.parametrize("size", [(5472, 3648), (3001, 4000), (1000, 700), (1601, 3)])
def test_keypoints_of_reduced_images_lie_where_each_edge_was_brought(size: tuple[int, int], tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros(size[::-1], np.uint8))
    store = FeatureStore.open(tmp_path / "features", {})
    put(store, "a.png", features_at(np.array([size], np.float32) - 0.5, size))  # the corner
    grays = _Grays(tmp_path, store, 1600, "cpu")
    gray = grays.gray("a.png")
    assert gray is not None
    np.testing.assert_allclose(grays.reduced("a.png")[0] + 0.5, gray.shape[::-1], atol=1e-3)


def test_models_that_are_refused_are_not_those_of_the_map(scene: Scene) -> None:
    other = Models("sift", 64, device="cpu", mp=False)
    with pytest.raises(InputError, match="made with other settings"):
        build_map(photograph(scene, 0).parents[1], scene.folder, SfmOptions(other))
    assert MapFolder(scene.folder).read().models.features == "aliked"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (replace(OPTIONS, cameras=CameraOptions("PINHOLE", (500.0, 500.0, 320.0))), "takes 4"),
        (replace(OPTIONS, cameras=CameraOptions("PINEHOLE", (500.0,))), "no camera model"),
        (replace(OPTIONS, cameras=CameraOptions("PINEHOLE")), "no camera model"),
        (replace(OPTIONS, cameras=CameraOptions(table="/none.json")), "no table of cameras"),
        (replace(OPTIONS, pairs=PairOptions(("file",), file="/none.txt")), "no file of pairs"),
    ],
)
def test_options_of_late_stages_are_refused_before_the_first(options: SfmOptions, told: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=told):
        build_map(tmp_path / "images", tmp_path / "map", options)
    assert not (tmp_path / "map").exists()


def test_a_changed_map_keeps_its_cameras_and_its_refined_keypoints(scene: Scene) -> None:
    known = CameraOptions("PINHOLE", (600.0, 600.0, 319.5, 239.5))
    options = replace(
        OPTIONS, cameras=known, refine=TrackOptions(), reconstruct=ReconstructOptions(threads=1, extract_colors=False)
    )
    for stage in ("refine", "verify", "reconstruct"):
        run_stage(stage, scene.folder, options)
    before = read_state(scene.folder / "database.db")
    remove_images(scene.folder, [scene.names[4]])
    after = read_state(scene.folder / "database.db")
    assert after.cameras == before.cameras
    assert after.digests == before.digests[:4]


def test_an_image_that_was_extracted_anew_does_not_speak_for_the_points_of_the_old_model(scene: Scene) -> None:
    options = replace(OPTIONS, reconstruct=ReconstructOptions(threads=1, extract_colors=False))
    run_stage("verify", scene.folder, options)
    run_stage("reconstruct", scene.folder, options)
    model = open_model(scene.folder / "model")
    localizer = Localizer(model, scene.features, None, (None, None), "cpu", LocalizeOptions())
    assert (localizer._map_image(scene.names[0]).point_ids >= 0).any()
    others = scene.features.get(scene.names[1]).keypoints[::-1]  # as many
    put(scene.features, scene.names[1], features_at(np.ascontiguousarray(others)))
    with pytest.raises(StoreError, match="other keypoints than in the model"):
        localizer._map_image(scene.names[1])


@pytest.mark.parametrize(("kept", "told"), [(1, "One image has features"), (2, "No two of the 2 images have matches")])
def test_why_there_is_no_model_is_told_of_what_is_there(kept: int, told: str, scene: Scene) -> None:
    scene.matches.remove_images(scene.names)
    for number in range(kept, 5):
        photograph(scene, number).unlink()
    for stage in ("pairs", "verify"):
        run_stage(stage, scene.folder, OPTIONS)
    assert told in run_stage("reconstruct", scene.folder, OPTIONS).skipped[0].reason
