"""EXIF is a rumour: what it states of a photograph may cost the statement, never the photograph or the run."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycolmap")
import cv2

from lightglue.images.focal import stated_focal
from lightglue.pairs.cameras import known_camera
from lightglue.sfm.colmap.cameras import assign_cameras, exif_focal
from lightglue.sfm.stages.exif import Location, read_location
from support import exif as tags
from support.exif import Fields, Raw, Value, exif_of, with_exif

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
    "an unknown camera, 0/0 mm": ({}, {tags.FOCAL: [(0, 0)]}),
    "an unknown camera, -1/0 mm": ({}, {tags.FOCAL: Raw(10, 1, struct.pack(">ii", -1, 0))}),
    "floating point, NaN": (EOS, {tags.FOCAL: Raw(12, 1, struct.pack(">d", float("nan")))}),
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
    found = exif_focal(photograph(tmp_path / "a.jpg", *IMPLAUSIBLE[case]), SIZE)
    assert found.px is None
    assert found.fault is not None


def test_where_another_field_can_be_believed_it_is(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.png", EOS, {**plane(0, 0), tags.FOCAL_35: 65535})
    assert exif_focal(path, SIZE) == (pytest.approx(50 / 36 * 64, rel=0.05), None)


def test_names_of_cameras_of_any_length_are_looked_up(tmp_path: Path) -> None:
    for length in (999, 30_000, 65_535):
        path = photograph(
            tmp_path / "a.png", {tags.MAKE: "C" * length, tags.MODEL: "D" * length}, {tags.FOCAL: [(50, 1)]}
        )
        assert exif_focal(path, SIZE) == (None, None)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert read_location(tmp_path / "a.jpg") is None
    assert exif_focal(tmp_path / "a.jpg", SIZE) == (None, None)


PLACE: Fields = {
    tags.LATITUDE_REF: "S",
    tags.LATITUDE: [(33, 1), (51, 1), (24, 1)],
    tags.LONGITUDE_REF: "E",
    tags.LONGITUDE: [(151, 1), (12, 1), (54, 1)],
    tags.ALTITUDE: [(25, 2)],
}
SYDNEY = (-33.856667, 151.215)


def location(folder: Path, **changed: Value | None) -> Location | None:
    fields = {**PLACE, **{getattr(tags, name): value for name, value in changed.items()}}
    gps = {tag: value for tag, value in fields.items() if value is not None}
    found = [read_location(photograph(folder / f"a{ending}", {}, {}, gps)) for ending in (".jpg", ".png")]
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("altitude", [[(0, 0)], [(1, 0)], [(2**32 - 1, 1)], "high", b"\1", [(1, 1), (2, 1)], None])
def test_a_bad_altitude_costs_the_altitude_and_not_the_place(tmp_path: Path, altitude: Value | None) -> None:
    whole, found = location(tmp_path), location(tmp_path, ALTITUDE=altitude)
    assert whole is not None
    assert found is not None
    assert (found.latitude, found.longitude) == (whole.latitude, whole.longitude) == pytest.approx(SYDNEY, abs=1e-5)
    assert whole.altitude == 12.5
    assert found.altitude in (None, 1.0)  # a byte is a number


def test_seconds_of_nothing_over_nothing_are_none(tmp_path: Path) -> None:
    found = location(tmp_path, LATITUDE=[(33, 1), (51_400, 1000), (0, 0)], LONGITUDE=[(151, 1), (12_900, 1000), (0, 0)])
    assert found is not None
    assert (found.latitude, found.longitude) == pytest.approx(SYDNEY, abs=1e-5)


def test_degrees_with_a_fraction_need_no_minutes(tmp_path: Path) -> None:
    whole = [(33_856_667, 10**6), (0, 0), (0, 0)], [(151_215, 1000)]
    found = location(tmp_path, LATITUDE=whole[0], LONGITUDE=whole[1])
    assert found is not None
    assert (found.latitude, found.longitude) == pytest.approx(SYDNEY, abs=1e-5)


@pytest.mark.parametrize(
    "latitude",
    [
        [(0, 0)] * 3,
        [(33, 1), (0, 0), (24, 1)],
        [(33, 1), (0, 0), (0, 0)],  # whole degrees: the minutes are missing
        [(1, 0)] * 3,
        [(900, 1)],
        Raw(1, 2000, bytes(2000)),
        [],
        "33 S",
        b"\xff" * 9,
        65535,
    ],
)
def test_a_latitude_that_is_none_is_no_place(tmp_path: Path, latitude: Value) -> None:
    assert location(tmp_path, LATITUDE=latitude) is None
    assert location(tmp_path, LONGITUDE=latitude) is None


@pytest.mark.parametrize("letter", ["", "Q", b"\xff\xfe", 83, [(0, 0)]])
def test_a_malformed_direction_never_ends_the_reading(tmp_path: Path, letter: Value) -> None:
    found = location(tmp_path, LATITUDE_REF=letter, LONGITUDE_REF=letter, ALTITUDE_REF=letter)
    assert found is None or abs(found.latitude) == pytest.approx(-SYDNEY[0], abs=1e-5)
