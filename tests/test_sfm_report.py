"""The report of a map: whatever is there is told, what is missing is told too, and names are data."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightglue.errors import InputError
from lightglue.sfm.folder import StageRecord
from lightglue.sfm.report.charts import MATRIX_IMAGES
from lightglue.sfm.report.data import ImageRow, PairRow, ReportData, report_data
from lightglue.sfm.report.document import report_html, write_report
from lightglue.sfm.skipped import Skipped
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, PairMatches, Source
from support.colmap_model import write_model

EVIL = "<script>alert(1)</script>\"'&.jpg"


def data(**changes: object) -> ReportData:
    given = {"title": "t", "image_folder": "", "settings": {}, "stages": {}, "images": (), "pairs": (), "model": None}
    return ReportData(**(given | changes))  # type: ignore[arg-type]


def write_stores(folder: Path) -> None:
    names = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    features = FeatureStore.open(folder / "features", {})
    for i, name in enumerate(names):
        count = 10 + i
        arrays = np.zeros((count, 2), np.float32), np.zeros((count, 4), np.float16), np.ones(count, np.float32)
        features.put(name, ImageFeatures(*arrays, (640, 480), "aliked"), Source(1, 1, "0"))
    pairs = [
        PairMatches(names[i], names[j], np.zeros((9, 2), np.int32), np.ones(9, np.float32), 0.75)
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    MatchStore.open(folder / "matches.db", {}).put(pairs)


def write_database(path: Path) -> None:
    """Those tables of COLMAP's that are read. c before a: the smaller number is not the smaller name."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            "CREATE TABLE images(image_id, name TEXT); CREATE TABLE keypoints(image_id, rows);"
            "CREATE TABLE matches(pair_id, rows); CREATE TABLE two_view_geometries(pair_id, rows);"
            "INSERT INTO images VALUES(1, 'c.jpg'), (2, 'a.jpg'); INSERT INTO keypoints VALUES(1, 12), (2, 10);"
            f"INSERT INTO matches VALUES({2147483647 + 2}, 9);"
            f"INSERT INTO two_view_geometries VALUES({2147483647 + 2}, 5);"
        )


def test_all_that_is_in_the_folder_is_gathered(tmp_path: Path) -> None:
    write_stores(tmp_path)
    write_database(tmp_path / "database.db")
    stages = {"extract": {"seconds": 1.5, "counts": {"images": 4}, "skipped": [["x.jpg", "it is no image"]]}}
    about = {"format": 1, "images": "/photos", "settings": {"match": {"seed": 3}}, "stages": stages}
    (tmp_path / "map.json").write_text(json.dumps(about))
    found = report_data(tmp_path)
    assert [(row.name, row.num_keypoints) for row in found.images] == [
        ("a.jpg", 10), ("b.jpg", 11), ("c.jpg", 12), ("d.jpg", 13)
    ]  # fmt: skip
    assert found.pairs[1] == PairRow("a.jpg", "c.jpg", 9, 5, 0.75)
    assert found.pairs[0].verified is None
    assert found.stages == {"extract": StageRecord(1.5, {"images": 4}, (Skipped("x.jpg", "it is no image"),))}
    assert "<td>extract</td><td>images: 4</td>" in report_html(found)
    assert (found.image_folder, found.problems, found.model) == ("/photos", (), None)
    assert not list(tmp_path.glob("database.db-*"))


def test_the_page_and_the_picture_of_a_model(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    write_stores(tmp_path)
    write_model(tmp_path / "model")
    written = write_report(tmp_path)
    page = written.html.read_text()
    assert written.picture is not None
    assert written.picture.read_bytes().startswith(b"\x89PNG")
    for told in ("of 4", "0.50 px", "PINHOLE", "Track length", "1 image has no pose", "View graph"):
        assert told in page
    assert page.count("data:image/png;base64,") == 2
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert write_report(tmp_path).html.read_text() == page


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "No stage has run yet"),
        ({"stages": {"extract": StageRecord(1.0)}}, "No image has features"),
        ({"images": (ImageRow("a", 3),)}, "There is one image"),
        ({"images": (ImageRow("a", 3), ImageRow("b", 3))}, "No pair of images has been matched"),
        (
            {"images": (ImageRow("a", 3), ImageRow("b", 3)), "pairs": (PairRow("a", "b", 7, None),)},
            "No matches have been verified; the best of 1 pair has 7 matches",
        ),
        (
            {
                "images": (ImageRow("a", 3), ImageRow("b", 3)),
                "pairs": (PairRow("a", "b", 7, 1),),
                "stages": {"reconstruct": StageRecord(1.0, {}, (Skipped("a", "too few matches."),))},
            },
            "too few matches; the best pair has 1 verified match.",
        ),
    ],
)
def test_without_a_model_the_page_says_why(changes: dict[str, object], why: str) -> None:
    assert f"There is no model. {why}" in report_html(data(**changes))


def test_names_and_reasons_are_never_markup() -> None:
    names = sorted((EVIL, "tab\there.jpg", "北京 é.jpg", "\udcff.jpg", "\u202egpj.exe"))
    pairs = (PairRow(names[0], names[1], 9, 4, note=EVIL),)
    stages = {EVIL: StageRecord(1.0, {EVIL: EVIL}, (Skipped(EVIL, EVIL),))}
    images = tuple(ImageRow(name, 3) for name in names)
    page = report_html(data(title=EVIL, image_folder=EVIL, settings={EVIL: [EVIL]}, stages=stages, images=images,
                            pairs=pairs, problems=(EVIL,)))  # fmt: skip
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "北京 é.jpg" in page
    assert "\u202e" not in page
    page.encode("utf-8")  # the surrogate is written as its code


def test_many_images_have_a_page_of_bounded_size() -> None:
    names = [f"{i:05d}.jpg" for i in range(3000)]
    pairs = tuple(PairRow(names[i], names[i + k], 100, 50) for i in range(2990) for k in range(1, 10))
    page = report_html(data(images=tuple(ImageRow(name, 5) for name in names), pairs=pairs))
    assert len(page) < 3_000_000
    assert "Who was matched with whom" not in page
    assert "3,000 images are drawn as" in page
    assert MATRIX_IMAGES < 3000


def test_a_damaged_part_is_told_and_all_else_reported(tmp_path: Path) -> None:
    write_stores(tmp_path)
    (tmp_path / "database.db").write_bytes(b"this is no database" * 100)
    (tmp_path / "map.json").write_text("{")
    found = report_data(tmp_path)
    assert len(found.problems) == 2
    assert len(found.pairs) == 3
    assert "database.db cannot be read" in report_html(found)


def test_a_folder_without_a_map_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing of a map"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        write_report(tmp_path / "absent")


def judge(path: Path) -> None:
    """a - c was dropped; its images are on the disk."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            "CREATE TABLE lightglue_judged(pair_id, probability, residual, inliers, reason, doubtful);"
            f"INSERT INTO lightglue_judged VALUES({2147483647 + 2}, 0.1, 90, 40, 'it contradicts the others', 0);"
            "DELETE FROM two_view_geometries;"
        )


def test_a_dropped_pair_is_marked_and_its_picture_is_a_click_away(tmp_path: Path) -> None:
    write_stores(tmp_path)
    write_database(tmp_path / "database.db")
    judge(tmp_path / "database.db")
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "c.jpg"):
        Image.new("RGB", (64, 48), "white").save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b.jpg").touch()
    (tmp_path / "photos" / "d.jpg").touch()
    about = {"format": 1, "images": str(tmp_path / "photos"), "settings": {}, "stages": {}}
    (tmp_path / "map.json").write_text(json.dumps(about))
    found = report_data(tmp_path)
    row = found.pairs[1]
    assert (row.judged, row.reason, row.inliers, row.verified) == ("dropped", "it contradicts the others", 40, None)
    page = report_html(found)
    assert "a.jpg – c.jpg: 40 verified matches, dropped</title>" in page
    assert "<summary>a.jpg – c.jpg: it contradicts the others</summary>" in page
    assert "data:image/jpeg;base64," in page


def test_a_dropped_pair_without_its_images_is_told_all_the_same(tmp_path: Path) -> None:
    write_stores(tmp_path)
    write_database(tmp_path / "database.db")
    judge(tmp_path / "database.db")
    page = report_html(report_data(tmp_path))
    assert "1 verified pair was dropped" in page
    assert "There is no picture: The folder of the images is not known." in page


def test_doubts_and_consistency_are_said_first(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    write_stores(tmp_path)
    write_model(tmp_path / "model")
    (tmp_path / "models").mkdir()
    doubt = "1 strong pair contradicts it: a.jpg - b.jpg"
    said = {"models": [{"contradicting": [["a.jpg", "b.jpg", 9]], "doubt": doubt}]}
    (tmp_path / "models" / "reconstruction.json").write_text(json.dumps(said))
    found = report_data(tmp_path)
    stages = {"reconstruct": StageRecord(1.0, {"consistency": 0.9})}
    page = report_html(replace(found, stages=stages))
    assert "The model may be wrong: 1 strong pair contradicts it: a.jpg - b.jpg." in page
    assert "0.90" in page
