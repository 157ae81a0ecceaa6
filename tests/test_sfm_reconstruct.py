"""Reconstruction: the scene comes back, the same each time, and no model is a result with a reason."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycolmap")
from lightglue.errors import InputError, LightGlueError, StoreError
from lightglue.sfm.colmap import mappers, with_pycolmap
from lightglue.sfm.colmap import models as colmap_models
from lightglue.sfm.colmap.cameras import CameraOptions
from lightglue.sfm.colmap.database import create_database
from lightglue.sfm.stages.reconstruct import ReconstructOptions, reconstruct
from lightglue.sfm.stages.verify import export_database
from lightglue.stores import FeatureStore, MatchStore
from support.colmap_scene import Scene, all_matches, features_at, make_scene, put

KNOWN = CameraOptions("PINHOLE", (600, 600, 319.5, 239.5))
ONE = ReconstructOptions(threads=1)
FILES = ("cameras.bin", "images.bin", "points3D.bin")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    scene = make_scene(tmp_path_factory.mktemp("scene"))
    export_database(scene.features, scene.matches, scene.folder / "known.db", cameras=KNOWN)
    export_database(scene.features, scene.matches, scene.folder / "guessed.db")
    return scene


def angle(R: np.ndarray) -> float:
    """Degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1))))


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_all_images_come_back_where_they_were_taken(scene: Scene, tmp_path: Path, mapper: Any) -> None:
    try:
        mappers.check_mapper(mapper)
    except InputError as error:
        pytest.skip(str(error))
    result = reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ReconstructOptions(mapper, threads=1))
    assert result.unregistered == ()
    assert result.models[0].num_images == 5
    assert result.models[0].num_points > 190
    assert result.models[0].mean_reprojection_error < 0.4
    model = colmap_models.open_model(tmp_path / "model")
    found = {image.name: colmap_models.cam_from_world(image)[:3, :3] for image in colmap_models.registered(model)}
    first, last = scene.names[0], scene.names[-1]
    true = scene.poses[last][:3, :3] @ scene.poses[first][:3, :3].T
    assert angle(found[last] @ found[first].T @ true.T) < 0.1


def test_known_intrinsics_stay_and_guessed_ones_do_not(scene: Scene, tmp_path: Path) -> None:
    for name, stays in (("known", True), ("guessed", False)):
        reconstruct(scene.folder / f"{name}.db", scene.folder, tmp_path / name, ONE)
        model = colmap_models.open_model(tmp_path / name / "model")
        (camera,) = {colmap_models.image_camera(model, image) for image in colmap_models.registered(model)}
        before = (600, 600, 319.5, 239.5) if stays else (768, 319.5, 239.5, 0)
        assert (camera.params == before) == stays


def test_some_intrinsics_stay_where_only_they_are_known(scene: Scene, tmp_path: Path) -> None:
    table, path = tmp_path / "K.json", tmp_path / "some.db"
    table.write_text(f'{{"{scene.names[0]}": [[600, 0, 319.5], [0, 600, 239.5], [0, 0, 1]]}}')
    export_database(scene.features, scene.matches, path, cameras=CameraOptions(table=str(table)))
    if mappers.can_hold_some("incremental"):
        reconstruct(path, scene.folder, tmp_path, ONE)
        model = colmap_models.open_model(tmp_path / "model")
        known = next(image for image in colmap_models.registered(model) if image.name == scene.names[0])
        assert colmap_models.image_camera(model, known).params == (600, 600, 319.5, 239.5)
    else:
        with pytest.raises(InputError, match=r"3\.13 or later"):
            reconstruct(path, scene.folder, tmp_path, ONE)


def test_one_thread_and_one_seed_give_the_same_bytes(scene: Scene, tmp_path: Path) -> None:
    for name in ("a", "b"):
        reconstruct(scene.folder / "guessed.db", scene.folder, tmp_path / name, ONE)
    for file in FILES:
        assert (tmp_path / "a/model" / file).read_bytes() == (tmp_path / "b/model" / file).read_bytes()
        assert (tmp_path / "a/model" / file).read_bytes() == (tmp_path / "a/models/0" / file).read_bytes()


def test_a_model_that_is_there_is_taken_and_a_lost_one_made_again(scene: Scene, tmp_path: Path) -> None:
    first = reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE)
    again = reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE)
    assert (first.was_there, again.was_there) == (False, True)
    assert again.models == first.models
    assert (tmp_path / "model").readlink() == Path("models/0")
    (tmp_path / "model").unlink()
    assert reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE).was_there
    assert (tmp_path / "model" / "images.bin").exists()
    shutil.rmtree(tmp_path / "models" / "0")
    assert not reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE).was_there
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model", "models"]
    other = ReconstructOptions(threads=1, seed=1)
    assert not reconstruct(scene.folder / "known.db", scene.folder, tmp_path, other).was_there


def test_a_map_of_earlier_versions_has_a_folder_in_the_place_of_the_link(scene: Scene, tmp_path: Path) -> None:
    reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE)
    (tmp_path / "model").unlink()
    shutil.copytree(tmp_path / "models" / "0", tmp_path / "model")
    assert reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE).was_there
    assert (tmp_path / "model").readlink() == Path("models/0")


def test_without_links_the_largest_model_is_copied(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refused)
    for options in (ONE, ReconstructOptions(threads=1, seed=1)):  # the second in the place of the first
        assert not reconstruct(scene.folder / "known.db", scene.folder, tmp_path, options).was_there
        assert not (tmp_path / "model").is_symlink()
        for file in (tmp_path / "models" / "0").iterdir():
            assert (tmp_path / "model" / file.name).read_bytes() == file.read_bytes()
        assert reconstruct(scene.folder / "known.db", scene.folder, tmp_path, options).was_there
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model", "models"]


def test_no_verified_pair_is_a_reason_not_an_error(scene: Scene, tmp_path: Path) -> None:
    create_database(tmp_path / "raw.db", scene.features, scene.matches)
    (tmp_path / "model").mkdir()  # of an earlier run
    result = reconstruct(tmp_path / "raw.db", scene.folder, tmp_path, ONE)
    assert result.models == ()
    assert result.unregistered == tuple(scene.names)
    assert result.reason is not None
    assert "None of the 10 pairs of the 5 images" in result.reason
    assert not (tmp_path / "model").exists()


def test_images_without_keypoints_are_the_reason_where_fewer_than_two_have_any(tmp_path: Path) -> None:
    features = FeatureStore.open(tmp_path / "features", {"made": 1})
    for name in ("a.jpg", "b.jpg"):
        put(features, name, features_at(np.zeros((0, 2), np.float32)))
    matches = MatchStore.open(tmp_path / "matches.db", {"made": 2})
    export_database(features, matches, tmp_path / "made.db")
    result = reconstruct(tmp_path / "made.db", tmp_path, tmp_path, ONE)
    assert result.reason == "None of the 2 images has keypoints; a map needs several: see what was left out."


def test_pairs_too_narrow_to_begin_with_are_a_reason(scene: Scene, tmp_path: Path) -> None:
    options = ReconstructOptions(threads=1, colmap={"mapper.init_min_num_inliers": 100_000})
    result = reconstruct(scene.folder / "known.db", scene.folder, tmp_path, options)
    assert result.models == ()
    assert result.reason is not None
    assert "10 pairs of the 5 images" in result.reason


def test_options_that_colmap_does_not_have_are_refused(scene: Scene, tmp_path: Path) -> None:
    options = ReconstructOptions(colmap={"mapper.no_such_thing": 1})
    with pytest.raises(InputError, match="no option 'mapper.no_such_thing'"):
        reconstruct(scene.folder / "known.db", scene.folder, tmp_path, options)
    with pytest.raises(InputError, match="mapper is 'glomap'"):
        ReconstructOptions("glomap")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="min_model_size is 1"):
        ReconstructOptions(min_model_size=1)


def test_a_place_that_cannot_be_written_is_named(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file cannot be written"):
        reconstruct(scene.folder / "known.db", scene.folder, tmp_path / "file", ONE)


def test_colmaps_log_is_still_while_it_is_called_and_as_it_was_after(
    scene: Scene, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = with_pycolmap.pycolmap.logging.minloglevel
    reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE)
    assert capfd.readouterr().err == ""
    assert with_pycolmap.pycolmap.logging.minloglevel == before


def test_a_folder_without_a_model_or_with_a_damaged_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no COLMAP model"):
        colmap_models.open_model(tmp_path)
    for file in FILES:
        (tmp_path / file).write_bytes(b"\x00")
    with pytest.raises(LightGlueError, match="damaged"):
        colmap_models.open_model(tmp_path)


def off_centre(folder: Path, count: int) -> Path:
    """A database of images whose principal point is 10 px from their middle, by a camera that rolls as well."""
    scene = make_scene(folder, count)
    X = np.random.default_rng(7).uniform(-1, 1, (200, 3))
    for number, name in enumerate(scene.names):
        roll = np.eye(4)
        a = 0.5 * number
        roll[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
        T = roll @ scene.poses[name]
        seen = (X @ T[:3, :3].T + T[:3, 3]) @ np.array([[600, 0, 319.5], [0, 600, 239.5], [0, 0, 1]]).T
        noise = np.random.default_rng(number).normal(0, 0.1, (200, 2))
        points = (seen[:, :2] / seen[:, 2:] + noise).astype(np.float32)
        put(scene.features, name, features_at(points, (660, 480)))
    names = scene.names
    scene.matches.put(all_matches(scene.features, a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    export_database(scene.features, scene.matches, folder / "off.db", cameras=CameraOptions(mode="single"))
    return folder / "off.db"


def test_the_principal_point_is_found_where_enough_images_tell_it(tmp_path: Path) -> None:
    reconstruct(off_centre(tmp_path, 8), tmp_path, tmp_path / "map", ONE)
    (x, y), *_ = colmap_models.principal_points(colmap_models.open_model(tmp_path / "map" / "model")).values()
    assert abs(x - 320) < 2
    assert abs(y - 240) < 2


def test_a_few_images_leave_the_principal_point_in_the_middle(tmp_path: Path) -> None:
    reconstruct(off_centre(tmp_path, 4), tmp_path, tmp_path / "map", ONE)
    assert list(colmap_models.principal_points(colmap_models.open_model(tmp_path / "map" / "model")).values()) == [
        (330, 240)
    ]


def test_the_last_adjustment_can_be_left_out(scene: Scene, tmp_path: Path) -> None:
    plain = ReconstructOptions(threads=1, final_adjustment=False)
    error = {
        name: reconstruct(scene.folder / "known.db", scene.folder, tmp_path / name, options).models[0]
        for name, options in {"with": ONE, "without": plain}.items()
    }
    assert error["with"].num_images == error["without"].num_images
    assert error["with"].mean_reprojection_error != error["without"].mean_reprojection_error


def test_a_last_adjustment_with_a_tolerance_ends_where_the_exact_one_does(tmp_path: Path) -> None:
    database = off_centre(tmp_path / "images", 9)
    models = {}
    for tolerance in (0.0, 1e-6):
        options = ReconstructOptions(threads=1, extract_colors=False, final_tolerance=tolerance)
        reconstruct(database, tmp_path, tmp_path / str(tolerance), options)
        models[tolerance] = colmap_models.open_model(tmp_path / str(tolerance) / "model")
    exact, quick = ({str(each.name): each for each in colmap_models.registered(model)} for model in models.values())
    assert exact.keys() == quick.keys()
    assert len(exact) == 9
    for name, image in exact.items():
        there, here = colmap_models.cam_from_world(image), colmap_models.cam_from_world(quick[name])
        assert angle(there[:3, :3] @ here[:3, :3].T) < 0.01
    (centre,), (found,) = (colmap_models.principal_points(model).values() for model in models.values())
    assert found == pytest.approx(centre, abs=0.05)


def test_another_tolerance_makes_another_model_and_one_beyond_all_cost_is_refused(scene: Scene, tmp_path: Path) -> None:
    reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE)
    assert reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE).was_there
    other = replace(ONE, final_tolerance=1e-6)
    assert not reconstruct(scene.folder / "known.db", scene.folder, tmp_path, other).was_there
    with pytest.raises(InputError, match="final_tolerance is 2"):
        ReconstructOptions(final_tolerance=2)


def test_a_point_that_is_behind_cameras_is_not_left_with_an_error_beyond_all_bounds(
    scene: Scene, tmp_path: Path
) -> None:
    reconstruct(scene.folder / "known.db", scene.folder, tmp_path, ONE)
    model = colmap_models.open_model(tmp_path / "model")
    behind = min(model.point3D_ids())
    T = colmap_models.cam_from_world(colmap_models.registered(model)[0])
    model.point3D(behind).xyz = T[:3, :3].T @ (np.array([0, 0, -50.0]) - T[:3, 3])
    mappers.bundle_adjustment(model, loss_scale=1.0, threads=1, fixed=(1,), principal_point=False)
    assert not model.exists_point3D(behind)
    assert model.compute_mean_reprojection_error() < 0.4


def test_observations_far_off_are_dropped_where_max_error_says_so(scene: Scene, tmp_path: Path) -> None:
    strict = ReconstructOptions(threads=1, max_error=0.3)
    found = reconstruct(scene.folder / "known.db", scene.folder, tmp_path / "strict", strict).models[0]
    usual = reconstruct(scene.folder / "known.db", scene.folder, tmp_path / "usual", ONE).models[0]
    assert found.num_observations < 0.9 * usual.num_observations
    with pytest.raises(InputError, match="max_error is -1"):
        ReconstructOptions(max_error=-1)
