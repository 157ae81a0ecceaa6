"""Verification: which pairs get a geometry, and that it depends on nothing but the pair and the options."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycolmap")
import pycolmap

from lightglue.errors import InputError
from lightglue.geometry.options import EstimatorOptions
from lightglue.sfm.colmap import database, state, two_view
from lightglue.sfm.colmap.cameras import CameraOptions
from lightglue.sfm.colmap.database import create_database
from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.stages import verify as verification
from lightglue.sfm.stages.verify import VerifyOptions, export_database, verify
from lightglue.stores import PairMatches
from support.colmap_scene import Scene, features_at, make_scene, put
from test_sfm_database import content

KNOWN = CameraOptions("PINHOLE", (600, 600, 319.5, 239.5))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


def made(scene: Scene, name: str, cameras: CameraOptions | None = None) -> Path:
    path = scene.folder / name
    create_database(path, scene.features, scene.matches, cameras=cameras)
    return path


def add_noise(scene: Scene) -> None:
    """An image whose matches agree with nothing."""
    points = np.random.default_rng(3).uniform(0, 400, (60, 2)).astype(np.float32)
    put(scene.features, "noise.jpg", features_at(points))
    heads = scene.features.head(scene.names[0]), scene.features.head("noise.jpg")
    assert heads[0] is not None
    assert heads[1] is not None
    matches = np.stack([np.arange(60), np.arange(60)], axis=1).astype(np.int32)
    digests = (heads[0].digest, heads[1].digest)
    scene.matches.put([PairMatches(scene.names[0], "noise.jpg", matches, np.ones(60, np.float32), digests=digests)])


def test_true_matches_are_verified_and_chance_is_not(scene: Scene) -> None:
    add_noise(scene)
    result = verify(made(scene, "d.db"), VerifyOptions(max_error=1.0))
    assert (result.num_pairs, result.num_done, result.num_verified) == (11, 11, 10)
    assert result.num_inliers > 0.9 * 10 * 200


def test_known_cameras_give_calibrated_geometry(scene: Scene) -> None:
    assert verify(made(scene, "known.db", KNOWN)).configurations == {"calibrated": 10}
    assert verify(made(scene, "guessed.db")).configurations == {"uncalibrated": 10}


def test_the_result_does_not_depend_on_threads_nor_on_restarts(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    add_noise(scene)
    one, three = made(scene, "one.db", KNOWN), made(scene, "three.db", KNOWN)
    verify(one, threads=1)
    monkeypatch.setattr("lightglue.sfm.stages.verify.PAIRS", 2)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(three, threads=3, progress=stop)
    assert verify(three, threads=3).num_done == 7
    assert content(one) == content(three)


def test_what_is_done_is_not_done_again_but_with_other_options(scene: Scene) -> None:
    path = made(scene, "d.db")
    verify(path)
    assert verify(path).num_done == 0
    assert verify(path, VerifyOptions(max_error=1.0)).num_done == 10


def test_pairs_with_few_matches_are_not_tried_and_lose_what_other_options_gave_them(scene: Scene) -> None:
    path = made(scene, "d.db")
    verify(path)
    result = verify(path, VerifyOptions(min_matches=201))
    assert (result.num_done, result.num_too_few, result.num_verified) == (0, 10, 0)


def test_progress_counts_to_the_end(scene: Scene) -> None:
    told: list[tuple[int, int]] = []
    verify(made(scene, "d.db"), progress=lambda done, total: told.append((done, total)))
    assert (told[0], told[-1]) == ((0, 10), (10, 10))


def test_without_a_database_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no database at .*none\.db"):
        verify(tmp_path / "none.db")


@pytest.mark.parametrize(
    "options", [{"max_error": 0}, {"min_matches": 0}, {"confidence": 1.0}, {"seed": -1}, {"min_inliers": 2.5}]
)
def test_options_without_meaning_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        VerifyOptions(**options)


def test_a_database_is_never_open_to_two_copies_of_sqlite_at_once(tmp_path, monkeypatch):
    """Ours and COLMAP's do not see each other's locks: one would put the other's log away, and its pages with it."""
    opened: list[Path] = []
    usual_open, usual_close, usual = Database.__init__, Database.close, state.connected

    def open_noted(self, path):
        usual_open(self, path)
        opened.append(path)

    def close_noted(self):
        usual_close(self)
        opened.remove(self.path)

    @contextmanager
    def connected(path):
        assert path not in opened
        with usual(path) as connection:
            yield connection

    monkeypatch.setattr(Database, "__init__", open_noted)
    monkeypatch.setattr(Database, "close", close_noted)
    for module in (database, verification, state):
        monkeypatch.setattr(module, "connected", connected)
    for module in (database, verification):
        monkeypatch.setattr(module, "PAIRS", 2)
    scene = make_scene(tmp_path)
    place = tmp_path / "database.db"
    for options in (VerifyOptions(), VerifyOptions(max_error=1.0)):  # the second forgets what the first made
        export_database(scene.features, scene.matches, place, options=options)
    scene.matches.remove_images(scene.names[:1])
    export_database(scene.features, scene.matches, place)
    assert not opened
    with closing(sqlite3.connect(place)) as connection, connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM two_view_geometries").fetchone() == (6,)


def test_pairs_with_enough_inliers_get_the_same_geometry_without_the_quick_estimator(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_noise(scene)
    options = VerifyOptions(max_iterations=500)
    quick, alone = made(scene, "quick.db", KNOWN), made(scene, "alone.db", KNOWN)
    verify(quick, options)
    monkeypatch.setattr(two_view, "most_inliers", None)
    verify(alone, options)
    assert content(quick) == content(alone)


def test_colmap_is_not_asked_for_pairs_whose_matches_agree_with_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("poselib")
    add_noise(scene)
    asked = []
    usual = two_view.pycolmap.estimate_two_view_geometry

    def noted(*args: Any) -> Any:
        asked.append(len(args[4]))
        return usual(*args)

    monkeypatch.setattr(two_view.pycolmap, "estimate_two_view_geometry", noted)
    result = verify(made(scene, "d.db"), VerifyOptions(max_error=1.0), threads=1)
    assert asked == [200] * 10
    assert (result.num_done, result.num_verified) == (11, 10)


def test_a_lens_that_bends_lines_is_straightened_before_its_matches_are_judged(scene: Scene, tmp_path: Path) -> None:
    """A fisheye's matches agree with no fundamental matrix of its pixels, but do with one of its rays."""
    pytest.importorskip("poselib")
    lens = pycolmap.Camera(model="OPENCV_FISHEYE", width=640, height=480, params=[300, 300, 320, 240, 0.05, 0, 0, 0])
    lens.has_prior_focal_length = True
    rng = np.random.default_rng(0)
    points = rng.uniform((-3, -2, 1), (3, 2, 4), (300, 3))
    seen = [np.asarray(lens.img_from_cam(points + shift), np.float64) for shift in ((0, 0, 0), (0.7, 0.1, 0.4))]
    matches = np.stack([np.arange(300)] * 2, axis=1).astype(np.uint32)
    options = VerifyOptions(max_error=1.0).colmap()
    found = two_view.two_view_geometry((lens, lens), (seen[0], seen[1]), matches, options, 0)
    assert len(found.inlier_matches) > 280
    raw = two_view.most_inliers(*seen, EstimatorOptions(threshold=1.0))
    assert raw < 280
