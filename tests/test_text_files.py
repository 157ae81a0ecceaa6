"""Every text file that a user brings is read whatever an editor made of it: marks, line ends, comments, blanks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.evaluation.datasets.dataset import read_numbers
from lightglue.evaluation.datasets.manifest import load_manifest
from lightglue.sfm.stages.pairing.files import pairs_among, read_pairs, write_pairs
from lightglue.support.files import read_json
from lightglue.support.text import content_lines, read_text

MARK = b"\xef\xbb\xbf"
ENDS = pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])


def written(path: Path, lines: list[str], end: str, mark: bytes = MARK) -> Path:
    path.write_bytes(mark + end.join(lines).encode())
    return path


@ENDS
def test_lines_come_without_mark_ends_comments_and_the_blanks_around_them(end: str, tmp_path: Path) -> None:
    path = written(tmp_path / "list.txt", ["# names", "", "  a b.jpg\t", " # more", "é.jpg", "x#y.jpg", "\t"], end)
    assert list(content_lines(read_text(path))) == [(3, "a b.jpg"), (5, "é.jpg"), (6, "x#y.jpg")]


@ENDS
def test_pairs(end: str, tmp_path: Path) -> None:
    lines = ["# query and map", " q 1.jpg \t a.jpg ", "", "a.jpg   b.jpg", "  # c.jpg d.jpg", "b.jpg\t\tc.jpg"]
    path = written(tmp_path / "pairs.txt", lines, end)
    expected = [("a.jpg", "q 1.jpg"), ("a.jpg", "b.jpg"), ("b.jpg", "c.jpg")]
    assert read_pairs(path) == expected
    assert pairs_among(path, ["a.jpg", "b.jpg", "c.jpg", "q 1.jpg"]) == (expected, [])


def test_pairs_of_paths_as_windows_and_shells_have_them(tmp_path: Path) -> None:
    path = written(tmp_path / "pairs.txt", ["q\\1 1.jpg ./a.jpg", "a.jpg b\\c.jpg"], "\r\n")
    names = ["q/1 1.jpg", "a.jpg", "b\\c.jpg"]  # the last is a name of its own here
    assert pairs_among(path, names) == ([("a.jpg", "q/1 1.jpg"), ("a.jpg", "b\\c.jpg")], [])


def test_pairs_of_names_with_blanks_around_them_are_read_as_they_were_written(tmp_path: Path) -> None:
    pairs = [(" a.jpg", "b.jpg "), ("#c.jpg", "d  e.jpg")]
    write_pairs(tmp_path / "pairs.txt", pairs)
    assert read_pairs(tmp_path / "pairs.txt") == pairs


@ENDS
def test_homographies(end: str, tmp_path: Path) -> None:
    path = written(tmp_path / "H_1_2", ["# image 1 to image 2", " 1 0 3", "", "0\t1  4 ", "0,0,1", ""], end)
    assert np.array_equal(read_numbers(path, 3), [[1, 0, 3], [0, 1, 4], [0, 0, 1]])


@ENDS
def test_json(end: str, tmp_path: Path) -> None:
    pair = {"image0": "a.jpg", "image1": "b.jpg", "H": np.eye(3).tolist()}
    content = json.dumps({"kind": "homography", "pairs": [pair]}, indent=1)
    path = written(tmp_path / "manifest.json", content.split("\n"), end)
    assert load_manifest(path).pairs[0].fault is None
    assert read_json(path)["kind"] == "homography"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_refused_with_what_to_do(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("a.jpg b.jpg\n".encode(encoding))
    for read in (read_text, read_pairs, lambda path: read_numbers(path, 3), load_manifest):
        with pytest.raises(InputError, match=r"list.txt is UTF-16.*save it as UTF-8"):
            read(path)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.txt"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(InputError, match="is no text file"):
        read_pairs(path)


def test_json_that_is_not_utf_8_is_refused_and_names_in_lists_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes(b'{"kind": "\xe9"}')
    with pytest.raises(InputError, match="is not UTF-8"):
        load_manifest(path)
    assert read_text(path) == '{"kind": "\udce9"}'
