"""The COLMAP database: what stands in it, what is written again, and what is never mixed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycolmap")
from lightglue.errors import InputError, StoreError
from lightglue.sfm.colmap.cameras import CameraOptions
from lightglue.sfm.colmap.database import create_database
from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.colmap.pair_ids import pair_id, pair_of
from lightglue.sfm.colmap.state import pair_states, read_state
from lightglue.sfm.stages.verify import export_database, verify
from support.colmap_scene import POINTS, Scene, all_matches, features_at, features_of, make_scene, pose, put


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    with closing(sqlite3.connect(path)) as connection, connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}
    connection.close()
    return rows


def test_keypoints_stand_half_a_pixel_further_and_matches_as_they_are(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    result = create_database(path, scene.features, scene.matches)
    assert (result.num_images, result.num_cameras, result.num_pairs, result.num_written) == (5, 1, 10, 10)
    with Database(path) as database:
        expected = scene.features.get(scene.names[1]).keypoints.astype(np.float64) + 0.5
        np.testing.assert_allclose(database.keypoints(2), expected, atol=1e-4)
        assert (database.matches(1, 3)[:, 0] == np.arange(POINTS)).all()
        assert {camera.camera_id for camera in database.cameras().values()} == {1}


def test_image_numbers_follow_the_sorted_names(scene: Scene, tmp_path: Path) -> None:
    create_database(tmp_path / "database.db", scene.features, scene.matches)
    rows = content(tmp_path / "database.db")["images"]
    assert [(row[0], row[1]) for row in rows] == list(enumerate(scene.names, 1))
    assert pair_of(pair_id(7, 3)) == (3, 7)


def test_a_second_call_writes_nothing(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    create_database(path, scene.features, scene.matches)
    before = content(path)
    assert create_database(path, scene.features, scene.matches).num_written == 0
    assert content(path) == before


def test_an_interrupted_call_goes_on_to_the_same_database(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = tmp_path / "whole.db", tmp_path / "database.db"
    create_database(whole, scene.features, scene.matches)
    names = scene.names
    lone = [pair for pair in scene.matches.read() if names[4] in (pair.name0, pair.name1)]
    scene.matches.remove_images([names[4]])
    create_database(path, scene.features, scene.matches)
    scene.matches.put(lone)
    monkeypatch.setattr("lightglue.sfm.colmap.database.PAIRS", 2)

    def stop(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_database(path, scene.features, scene.matches, progress=stop)
    with pytest.raises(StoreError, match="half written"):
        verify(path)
    assert create_database(path, scene.features, scene.matches).num_written == 2
    assert content(path) == content(whole)


def test_a_pair_that_is_gone_is_taken_out(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    create_database(path, scene.features, scene.matches)
    scene.matches.remove_images([scene.names[0]])
    assert create_database(path, scene.features, scene.matches).num_pairs == 6
    assert len(content(path)["matches"]) == 6


def test_a_new_image_makes_a_new_database_that_takes_the_geometries_over(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    create_database(path, scene.features, scene.matches)
    verify(path)
    name = "a new one.jpg"  # sorted first: all numbers move
    put(scene.features, name, features_of(pose(5), 5))
    scene.matches.put([all_matches(scene.features, name, scene.names[0])])
    create_database(path, scene.features, scene.matches)
    assert verify(path).num_done == 1
    export_database(scene.features, scene.matches, tmp_path / "fresh.db")
    assert content(path) == content(tmp_path / "fresh.db")


def test_other_features_or_cameras_are_verified_again(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    export_database(scene.features, scene.matches, path)
    create_database(path, scene.features, scene.matches, cameras=CameraOptions("PINHOLE", (600, 600, 319.5, 239.5)))
    assert all(verified is None for _, verified in pair_states(path).values())
    assert len(content(path)["two_view_geometries"]) == 0


def test_refined_keypoints_take_the_place_of_the_stores(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    export_database(scene.features, scene.matches, path)
    moved = scene.names[0]

    def refined(name: str) -> np.ndarray:
        return scene.features.get(name).keypoints + (1.0 if name == moved else 0.0)

    create_database(path, scene.features, scene.matches, keypoints=refined)
    with Database(path) as database:
        np.testing.assert_allclose(database.keypoints(1), scene.features.get(moved).keypoints + 1.5, atol=1e-4)
    with pytest.raises(InputError, match=r"shape \(3, 2\)"):
        create_database(path, scene.features, scene.matches, keypoints=lambda name: np.zeros((3, 2)))


def test_what_cannot_be_used_is_skipped_with_a_reason_and_the_rest_is_written(scene: Scene, tmp_path: Path) -> None:
    put(scene.features, "black.jpg", features_at(np.zeros((0, 2), np.float32)))
    lost, changed = scene.names[0], scene.names[1]
    scene.features.remove(lost)
    put(scene.features, changed, features_of(pose(1), seed=99))
    result = create_database(tmp_path / "database.db", scene.features, scene.matches)
    assert (result.num_images, result.num_pairs) == (5, 3)
    assert {each.name: each.reason for each in result.skipped}[lost].startswith("it has matches with 4 images but no")
    assert sum("other features" in each.reason for each in result.skipped) == 3


def test_a_file_that_is_no_database_is_refused_and_left(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    path.write_bytes(b"notes" * 100)
    with pytest.raises(StoreError, match=r"database\.db is no database"):
        create_database(path, scene.features, scene.matches)
    assert path.read_bytes() == b"notes" * 100


def test_somebody_elses_database_is_refused_and_left(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    Database(path).close()
    with pytest.raises(InputError, match="somebody else"):
        create_database(path, scene.features, scene.matches)


def test_a_damaged_database_is_named(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    create_database(path, scene.features, scene.matches)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\x55" * (len(whole) - 4096))
    with pytest.raises(StoreError, match=r"database\.db .*make it again"):
        create_database(path, scene.features, scene.matches)


def test_a_folder_that_cannot_be_made_is_named(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/database\.db cannot be written"):
        create_database(tmp_path / "file" / "database.db", scene.features, scene.matches)


def test_what_it_was_made_of_is_known(scene: Scene, tmp_path: Path) -> None:
    create_database(tmp_path / "database.db", scene.features, scene.matches, names=scene.names[:3])
    state = read_state(tmp_path / "database.db")
    assert list(state.names) == scene.names[:3]
    assert state.settings == {"features": {"made": 1}, "matches": {"made": 2}}


def test_a_full_disk_is_told_before_anything_is_written(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightglue.sfm.colmap.database_file._ROOM", 1 << 80)
    with pytest.raises(StoreError, match=r"database\.db\.part cannot be written: the disk has .* bytes left"):
        create_database(tmp_path / "database.db", scene.features, scene.matches)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["features", "matches.db"]
