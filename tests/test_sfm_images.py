"""Which images lie under a folder: all of them, by names that a map can hold, whatever else is there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest import mock

import cv2
import pytest

from lightglue.errors import ImageError, InputError
from lightglue.images import ImageFile
from lightglue.sfm.skipped import Skipped
from lightglue.sfm.stages.images import list_images, looks_like_image
from support import ASSETS
from support.command import lightglue


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_names_are_sorted_paths_with_slashes(tmp_path):
    put(tmp_path, "b.jpg", "a/c.PNG", "a/b c-d é.webp", "a.jpg", "a/b/x.tiff", "notes.txt", "a/model.bin")
    assert list_images(tmp_path) == (["a.jpg", "a/b c-d é.webp", "a/b/x.tiff", "a/c.PNG", "b.jpg"], ())


def test_hidden_files_and_folders_are_left_out(tmp_path):
    put(tmp_path, "a.jpg", ".b.jpg", ".thumbnails/c.jpg")
    assert list_images(tmp_path)[0] == ["a.jpg"]


def test_a_loop_of_links_ends_and_each_folder_is_listed_where_it_lies(tmp_path):
    put(tmp_path, "z/a.jpg")
    (tmp_path / "z" / "up").symlink_to(tmp_path)
    (tmp_path / "first").symlink_to(tmp_path / "z")
    names, skipped = list_images(tmp_path)
    assert names == ["z/a.jpg"]
    assert [fault.name for fault in skipped] == ["first/", "z/up/"]
    assert "listed already" in skipped[0].reason


def test_a_linked_folder_elsewhere_is_followed(tmp_path):
    put(tmp_path, "elsewhere/a.jpg", "images/b.jpg")
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "images") == (["b.jpg", "more/a.jpg"], ())


def test_names_that_a_map_cannot_hold_are_skipped_with_a_reason(tmp_path):
    put(tmp_path, "a.jpg", "line\nbreak.jpg")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes no such names")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    names, skipped = list_images(tmp_path)
    assert names == ["a.jpg"]
    told = {fault.name: fault.reason for fault in skipped}
    assert "not UTF-8" in told["caf\\xe9.jpg"]
    assert "leads nowhere" in told["gone.jpg"]
    assert "line break" in told["line\nbreak.jpg"]


def test_a_folder_without_images_is_an_error_that_says_so(tmp_path):
    with pytest.raises(InputError, match="no image in .*looked for JPEG, PNG"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="absent does not exist; name a folder"):
        list_images(tmp_path / "absent")
    put(tmp_path, "a.jpg")
    with pytest.raises(InputError, match="a.jpg is a file"):
        list_images(tmp_path / "a.jpg")


PHOTOGRAPH = cv2.resize(cv2.imread(str(ASSETS / "montmartre_close.jpg")), (320, 240), interpolation=cv2.INTER_AREA)
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"


def encoded(ending: str) -> bytes:
    return bytes(cv2.imencode(ending, PHOTOGRAPH)[1])


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.jfif", ".jpg"),
        ("a.mpo", ".jpg"),
        ("a.heic", ".jpg"),  # what some exports are called
        ("IMG_0001", ".jpg"),
        ("a.png.bak", ".png"),
        ("a.jpx", ".jp2"),
        ("a.pnm.orig", ".ppm"),
        ("a.wp", ".webp"),
        ("a.001", ".tif"),
        ("a.gfa", ".gif"),
        ("a.dib", ".bmp"),
    ],
)
def test_images_are_listed_by_their_content_whatever_their_names_are(tmp_path, name, ending):
    (tmp_path / name).write_bytes(encoded(ending))
    assert list_images(tmp_path) == ([name], ())
    assert ImageFile.read(tmp_path / name).decode().shape == (240, 320, 3)
    assert looks_like_image(tmp_path / name)


def test_texts_and_data_beside_the_images_are_no_images(tmp_path):
    put(tmp_path, "a.jpg", "empty", "a.xmp")
    (tmp_path / "a.txt").write_text("P1 is where the first camera stood, P2 the second")
    (tmp_path / "a.md").write_text("The skip widened; moov on. ftypically")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\0" + bytes(200))
    (tmp_path / "song.m4a").write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0")
    assert list_images(tmp_path) == (["a.jpg"], ())
    assert not looks_like_image(tmp_path / "a.txt")


UNREAD = {
    "clip.mp4": (MP4, "videos are no images: .*lightglue sfm FILE"),
    "old.mov": (b"\0\0\0\x08wide\0\0\0\0mdat", "videos are no images"),
    "no-ending": (b"\x1aE\xdf\xa3" + bytes(100), "videos are no images"),
    "a.avi": (b"RIFF\0\0\0\0AVI LIST", "videos are no images"),
    "a.mts": (bytes(4) + (b"\x47" + bytes(191)) * 4, "videos are no images"),
    "a.tga": (b"\0\0\2" + bytes(100), "TGA files are not read: convert it to PNG"),
    "a.dng": (b"II*\0\x08\0\0\0", "raw files are not read: develop it"),
    "a.NEF": (b"MM\0*\0\0\0\x08", "raw files are not read"),
    "a.cr2": (b"II*\0\x10\0\0\0CR\2\0", "raw files are not read"),
    "a.cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1", "raw files are not read"),
    "a.raf": (b"FUJIFILMCCD-RAW 0201", "raw files are not read"),
    "a.jxl": (b"\xff\x0a\xfa\x7f", "JPEG XL files are not read"),
    "a.psd": (b"8BPS\0\1", "Photoshop files are not read"),
    "a.exr": (b"v/1\1\2\0\0\0", "OpenEXR files are not read"),
    "a.hdr": (b"#?RADIANCE\n", "Radiance HDR files are not read"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_looks_like_an_image_or_a_video_and_is_not_read_is_told_with_what_to_do(tmp_path, name):
    content, told = UNREAD[name]
    put(tmp_path, "a.jpg")
    (tmp_path / name).write_bytes(content)
    names, skipped = list_images(tmp_path)
    assert names == ["a.jpg"]
    assert [fault.name for fault in skipped] == [name]
    assert re.search(told, skipped[0].reason)
    with pytest.raises(ImageError, match=re.escape(name) + " is a "):
        ImageFile.read(tmp_path / name)


def test_heic_and_avif_are_left_out_with_the_remedy_where_nothing_reads_them(tmp_path):
    put(tmp_path, "a.jpg")
    (tmp_path / "b.HEIC").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic")
    (tmp_path / "c.avif").write_bytes(b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf")
    with (
        mock.patch("lightglue.sfm.stages.images.what_is_missing", lambda kind: f"install what reads {kind}"),
        mock.patch("lightglue_runtime.images.files.what_is_missing", lambda kind: f"install what reads {kind}"),
    ):
        names, skipped = list_images(tmp_path)
        with pytest.raises(ImageError, match="b.HEIC is a HEIC file, which is not read here: install what reads HEIC"):
            ImageFile.read(tmp_path / "b.HEIC")
    assert names == ["a.jpg"]
    assert skipped == (
        Skipped("b.HEIC", "HEIC is not read here: install what reads HEIC"),
        Skipped("c.avif", "AVIF is not read here: install what reads AVIF"),
    )


def test_a_folder_of_nothing_but_such_files_says_how_many_there_are(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.mp4").write_bytes(MP4)
    (tmp_path / "a.tga").write_bytes(bytes(100))
    with pytest.raises(InputError, match=r"5 files \(0.mp4, 1.mp4, 2.mp4, ...\): videos .*; a.tga: TGA files"):
        list_images(tmp_path)


def test_only_the_first_bytes_of_files_are_read_and_none_of_those_called_jpg(tmp_path):
    put(tmp_path, *(f"{number:03}.jpg" for number in range(100)))
    (tmp_path / "large").write_bytes(encoded(".jpg") + bytes(10_000_000))
    opened: list[int] = []
    with mock.patch("lightglue.sfm.stages.images.open", create=True) as opening:
        opening.return_value.__enter__.return_value.read.side_effect = lambda n: opened.append(n) or encoded(".jpg")[:n]
        assert len(list_images(tmp_path)[0]) == 101
    assert opened == [512]


def test_queries_that_are_videos_are_told_so(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(MP4)
    run = lightglue("extract", tmp_path / "clip.mp4", "-o", tmp_path / "features", "--features", "sift", "--no-mp")
    assert run.code == 1
    assert "clip.mp4 is a video, not an image: `lightglue sfm FILE -o MAP` maps a video" in run.err
