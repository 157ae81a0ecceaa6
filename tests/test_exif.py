"""EXIF is a rumour: what it states of a photograph may cost the statement, never the photograph or the run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycolmap")
import cv2

from lightglue.images.focal import stated_focal
from lightglue.pairs.cameras import known_camera
from lightglue.sfm.colmap.cameras import assign_cameras, exif_focal
from support import exif as tags
from support.exif import Fields, exif_of, with_exif

SIZE = (64, 48)
EOS = {tags.MAKE: "Canon", tags.MODEL: "Canon EOS 5D Mark II"}  # in COLMAP's list of cameras


def plane(numerator: int, denominator: int) -> Fields:
    """A lens of 50 mm before a sensor of so many pixels an inch."""
    edge = [(numerator, denominator)]
    size = {tags.WIDTH: SIZE[0], tags.HEIGHT: SIZE[1]}
    return {tags.FOCAL: [(50, 1)], tags.PLANE_X: edge, tags.PLANE_Y: edge, tags.PLANE_UNIT: 2, **size}


IMPLAUSIBLE: dict[str, tuple[Fields, Fields]] = {
    "65535 mm on film": ({}, {tags.FOCAL_35: 65535}),
    "0.5 px": ({}, plane(1, 4)),
    "plane 0/0": ({}, plane(0, 0)),
    "plane 1/0": ({}, plane(1, 0)),
    "plane 0/1": ({}, plane(0, 1)),
    "a known camera, 0/0 mm": (EOS, {tags.FOCAL: [(0, 0)]}),
    "a known camera, 1/0 mm": (EOS, {tags.FOCAL: [(1, 0)]}),
    "a known camera, 0 mm": (EOS, {tags.FOCAL: [(0, 1)]}),
}


def photograph(
    path: Path, first: Fields, camera: Fields, gps: Fields | None = None, size: tuple[int, int] = SIZE
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.imencode(path.suffix, np.zeros((SIZE[1], SIZE[0], 3), np.uint8))[1].tobytes()
    path.write_bytes(with_exif(image, exif_of(first, camera, gps or {})))
    return path


@pytest.mark.parametrize("focal", [6.4, 64.0, 1280.0])
def test_a_focal_length_between_a_tenth_of_the_longer_edge_and_20_times_it_is_believed(focal: float) -> None:
    assert stated_focal(focal, SIZE) == (focal, None)
    assert stated_focal(focal, SIZE[::-1]) == (focal, None)


@pytest.mark.parametrize("focal", [0.0, -64.0, 6.3, 1281.0, float("inf"), float("-inf"), float("nan")])
def test_any_other_is_unknown_and_said_to_be(focal: float) -> None:
    found = stated_focal(focal, SIZE)
    assert found.px is None
    assert found.fault is not None
    assert "no image of 64 x 48 px" in found.fault


@pytest.mark.parametrize("case", IMPLAUSIBLE)
def test_an_implausible_focal_length_is_guessed_in_a_map_and_reported_with_the_name(tmp_path: Path, case: str) -> None:
    photograph(tmp_path / "sub" / "a.jpg", *IMPLAUSIBLE[case])
    photograph(tmp_path / "b.jpg", {}, plane(70, 1))
    found = assign_cameras({"sub/a.jpg": SIZE, "b.jpg": SIZE}, tmp_path)
    a, b = (found.cameras[found.of_image[name]] for name in ("sub/a.jpg", "b.jpg"))
    assert (a.params[0], a.has_prior_focal) == (1.2 * 64, False)
    assert (b.params[0], b.has_prior_focal) == (pytest.approx(50 / 25.4 * 70), True)
    (fault,) = found.faults
    assert (fault.name, fault.is_used) == ("sub/a.jpg", True)
    assert "focal length" in fault.reason


@pytest.mark.parametrize("case", IMPLAUSIBLE)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_implausible_focal_length_is_guessed_for_a_pair_with_a_warning(
    tmp_path: Path, case: str, as_bytes: bool
) -> None:
    path = photograph(tmp_path / "a.jpg", *IMPLAUSIBLE[case])
    named = "camera0: its EXIF" if as_bytes else f"camera0: {re.escape(str(path))}: its EXIF"
    with pytest.warns(UserWarning, match=named):
        known = known_camera("camera0", "auto", path.read_bytes() if as_bytes else path, SIZE)
    assert known.source == "guessed"
    assert known.K == [[76.8, 0, 31.5], [0, 76.8, 23.5], [0, 0, 1]]
    assert known.fault is not None


@pytest.mark.parametrize("case", IMPLAUSIBLE)
def test_an_implausible_focal_length_of_a_query_is_unknown(tmp_path: Path, case: str) -> None:
    found = exif_focal(photograph(tmp_path / "a.jpg", *IMPLAUSIBLE[case]))
    assert found.px is None
    assert found.fault is not None
