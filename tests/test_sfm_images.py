"""Which images lie under a folder: all of them, by names that a map can hold, whatever else is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightglue.errors import InputError
from lightglue.sfm.stages.images import list_images


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
    with pytest.raises(InputError, match="no image in .*looked for .bmp"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="absent does not exist; name a folder"):
        list_images(tmp_path / "absent")
    put(tmp_path, "a.jpg")
    with pytest.raises(InputError, match="a.jpg is a file"):
        list_images(tmp_path / "a.jpg")
