"""EXIF is read by one reader, of every format that is decoded, and says what COLMAP's says where it can."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from lightglue.geometry.exif_focal import stated_focals
from lightglue.images import load_image
from lightglue.pairs.cameras import known_camera
from lightglue.sfm.stages.exif import read_location
from lightglue_runtime.images.exif import read_exif

SIZE = (64, 48)
FILM = {0xA405: 28}
PLANE = {0x920A: IFDRational(5), 0xA20E: IFDRational(3000), 0xA210: 2}
CAMERA = {0x920A: IFDRational(50)}
MAKE = {0x010F: "Canon", 0x0110: "Canon PowerShot G10"}
PLACE = {1: "S", 2: (33.0, 51.0, 24.5), 3: "E", 4: (151.0, 12.0, 55.0), 5: b"\1", 6: 12.5}


def fields(image: Mapping[int, Any], camera: Mapping[int, Any], place: Mapping[int, Any] | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif.update({**image, 0x8769: dict(camera), **({0x8825: dict(place)} if place else {})})
    return exif


def write(path: Path, exif: Image.Exif) -> Path:
    """An image of SIZE with this EXIF."""
    picture = Image.new("RGB", SIZE, (90, 120, 150))
    if path.suffix == ".jp2":  # in a box of its own, as exiftool puts it there
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG2000")
        content = b"JpgTiffExif->JP2" + exif.tobytes()[6:]
        at = 12 + struct.unpack_from(">I", buffer.getvalue(), 12)[0]  # after the signature and the type
        head, rest = buffer.getvalue()[:at], buffer.getvalue()[at:]
        path.write_bytes(head + struct.pack(">I4s", len(content) + 8, b"uuid") + content + rest)
    elif path.suffix == ".late":  # a PNG whose EXIF follows the picture
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", exif=exif)
        data = buffer.getvalue()
        at = data.index(b"eXIf") - 4
        end = at + 12 + struct.unpack_from(">I", data, at)[0]
        path.write_bytes(data[:at] + data[end:-12] + data[at:end] + data[-12:])
    elif path.suffix == ".tiff":
        read = Image.Exif()
        read.load(exif.tobytes())
        picture.save(path, exif=read)
    else:
        picture.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "late", "webp", "tiff", "jp2"])
def test_focal_length_and_place_are_read_of_every_format_that_can_hold_them(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", fields(MAKE, FILM, PLACE))
    assert load_image(path).shape == (3, 48, 64)
    for source in (path, path.read_bytes()):
        assert next(stated_focals(read_exif(source), SIZE)) == pytest.approx(28 / 43.27 * 80)
    place = read_location(path)
    assert place is not None
    assert (place.latitude, place.longitude, place.altitude) == pytest.approx((-33.85680, 151.21528, -12.5), abs=1e-4)


@pytest.mark.parametrize("suffix", ["webp", "jp2"])
def test_the_camera_of_a_format_that_colmap_does_not_read_comes_from_its_exif(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", fields({}, FILM))
    known = known_camera("camera0", "auto", path, SIZE)
    assert (known.source, known.K[0][0]) == ("EXIF", pytest.approx(28 / 43.27 * 80))
    assert known_camera("camera0", "auto", write(tmp_path / "b.gif", Image.Exif()), SIZE).source == "guessed"


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
@pytest.mark.parametrize("camera", [FILM, PLANE, CAMERA, {**CAMERA, **PLANE}, {**FILM, **PLANE}, {0xA405: 0}])
def test_the_focal_length_is_what_colmap_reads(suffix: str, camera: dict[int, Any], tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap", minversion="4")
    path = write(tmp_path / f"a.{suffix}", fields(MAKE, camera))
    found = next(stated_focals(read_exif(path), SIZE), None)
    said = pycolmap.infer_camera_from_image(str(path))
    assert (found is not None) == said.has_prior_focal_length
    assert found is None or found == pytest.approx(said.focal_length, rel=1e-5)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_the_one_that_the_decoder_applies(name: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((24, 40, 3), np.uint8)
    stored[:12, :20], stored[:12, 20:], stored[12:, :20] = 250, 170, 90
    Image.fromarray(stored).save(path, name, exif=exif)
    found = read_exif(path).orientation
    assert found == orientation
    upright = load_image(path)[0].numpy() * 255
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[found]
    assert np.abs(upright - turned[..., 0]).mean() < 3


@pytest.mark.parametrize("cut", [0, 1, 12, 20, 40, 90, 120, 150])
def test_a_file_that_is_cut_off_has_the_fields_that_are_left(cut: int, tmp_path: Path) -> None:
    whole = write(tmp_path / "a.jpg", fields(MAKE, FILM, PLACE)).read_bytes()
    found = read_exif(whole[:cut])
    assert set(found.image) <= set(read_exif(whole).image)


def test_a_damaged_field_costs_that_field_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", fields(MAKE, FILM, PLACE))
    content, exif = path.read_bytes(), read_exif(path)
    at = content.index(struct.pack(">HHI", 0x0110, 2, 20))  # the model, which points beyond the file now
    found = read_exif(content[: at + 8] + b"\x7f\xff\xff\xff" + content[at + 12 :])
    assert 0x0110 not in found.image
    assert {**found.image, 0x0110: exif.image[0x0110]} == exif.image
    assert (found.camera, found.place) == (exif.camera, exif.place)
