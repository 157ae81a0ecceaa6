"""A COLMAP model as records: poses, points and errors are those of the files; what is no model is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightglue.errors import InputError, LightGlueError
from lightglue.sfm.colmap.model import model_folder, read_model
from lightglue.sfm.report.scene import scene_of
from support.colmap_model import ERROR, FOCAL, HEIGHT, UP, WIDTH, write_model

pytest.importorskip("pycolmap", reason="pycolmap is not installed")


def test_poses_points_and_errors_are_those_of_the_files(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "model"))
    assert [image.name for image in model.images] == ["a.jpg", "b.jpg", "c.jpg"]
    assert (model.points.shape, model.colours[0].tolist()) == ((60, 3), [200, 100, 50])
    assert np.allclose(np.linalg.norm(model.centres, axis=1), np.sqrt(37))
    assert np.allclose(model.images[1].centre, (0, -6, 1))
    assert (model.num_observations, model.mean_track_length, model.mean_error) == (180, 3, ERROR)
    for image in model.images:
        assert (image.num_keypoints, len(image.points)) == (61, 60)
        assert np.allclose(image.errors, ERROR, atol=1e-6)
        assert np.allclose(image.rotation @ image.centre + image.translation, 0)


def test_a_camera_has_its_parameters_by_name(tmp_path: Path) -> None:
    ((number, camera),) = read_model(write_model(tmp_path)).cameras.items()
    assert (number, camera.model, camera.width, camera.height) == (7, "PINHOLE", WIDTH, HEIGHT)
    assert camera.named == {"fx": FOCAL, "fy": FOCAL, "cx": (WIDTH - 1) / 2, "cy": (HEIGHT - 1) / 2}
    assert camera.field_of_view == pytest.approx((65.24, 51.28), abs=0.01)


def test_a_maps_folder_stands_for_the_model_in_it(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert model_folder(tmp_path) == tmp_path / "model"


def test_no_model_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no COLMAP model"):
        read_model(tmp_path)
    write_model(tmp_path)
    text = (tmp_path / "images.txt").read_text()
    (tmp_path / "images.txt").write_text(text.replace(" 7 a.jpg", " 99 a.jpg"))  # a camera that is not there
    with pytest.raises(LightGlueError, match="damaged"):
        read_model(tmp_path)


def test_up_and_ahead_are_found_from_the_cameras_and_strays_are_left_out(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path, tuple(f"{i}.jpg" for i in range(9)), points=400))
    model.points[0] = (5000, 0, 0)
    scene = scene_of(model)
    assert scene.axes[2] @ UP > 0.999
    assert scene.axes[1] @ (0, 1, 0) > 0.99
    assert np.allclose(scene.axes @ scene.axes.T, np.eye(3))
    assert np.linalg.det(scene.axes) == pytest.approx(1)
    assert np.flatnonzero(~scene.shown).tolist() == [0]
    assert 2 < scene.extent < 10


def test_a_process_that_loads_pycolmap_is_still_ended_in_its_own_way() -> None:
    script = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(43))\n"
        "from lightglue.sfm.colmap.with_pycolmap import pycolmap\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(5)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 43
