"""Damage is noticed: a bit that changed in a map is repaired, or is one error; nothing wrong is used in silence."""

from __future__ import annotations

import io
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest

pytest.importorskip("pycolmap")
from lightglue.errors import InputError, StoreError
from lightglue.models.choice import Models
from lightglue.sfm.change import accept_model, add_images
from lightglue.sfm.colmap.database import create_database
from lightglue.sfm.colmap.database_rows import Damage, damage_of
from lightglue.sfm.colmap.model import read_model
from lightglue.sfm.colmap.models import open_model
from lightglue.sfm.colmap.state import read_state
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.localization.localizer import Localizer
from lightglue.sfm.options import SfmOptions
from lightglue.sfm.pipeline import build_map, run_stage
from lightglue.sfm.report.document import write_report
from lightglue.sfm.retrieval.index import RetrievalIndex
from lightglue.sfm.stages.extract import ExtractOptions
from lightglue.sfm.stages.images import list_images
from lightglue.sfm.stages.match import MatchOptions
from lightglue.sfm.stages.pairs import PairOptions
from lightglue.sfm.stages.reconstruct import ReconstructOptions, reconstruct
from lightglue.sfm.stages.refine import TrackOptions, read_refined
from lightglue.sfm.stages.verify import verify
from lightglue.stores import MatchStore, PairMatches
from lightglue.stores.arrays import read_arrays
from lightglue.support.files import read_json, write_json
from support.child import run_python
from support.colmap_scene import POINTS, make_scene
from support.command import lightglue
from support.corner import photograph, take_photographs
from support.users import ordinary_user

MODELS = Models("sift", 300, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.8})
OPTIONS = SfmOptions(
    MODELS,
    ExtractOptions(MODELS, {"resize": None}),
    MatchOptions(MODELS),
    PairOptions(("exhaustive", "retrieval"), retrieved=3),
    refine=TrackOptions(),
    reconstruct=ReconstructOptions(threads=1),
)
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and their map, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    take_photographs(folder / "photographs")
    again(folder)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of the map, to be damaged."""
    shutil.copytree(made / "photographs", tmp_path / "photographs")
    shutil.copytree(made / "map", tmp_path / "map", symlinks=True)
    record = tmp_path / "map/map.json"
    write_json(record, {**read_json(record), "images": str(tmp_path / "photographs")})
    return tmp_path


def flip(path: Path, bit: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def again(place: Path) -> Any:
    with mock.patch("lightglue.sfm.report.document.write_report"):  # it takes longer than all else
        return build_map(place / "photographs", place / "map", OPTIONS)


# --- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["cameras.bin", "images.bin", "points3D.bin"])
def test_one_bit_of_the_model_is_noticed_wherever_it_is_opened_and_sfm_mends_it(place: Path, part: str) -> None:
    path = place / "map/model" / part
    whole = path.read_bytes()
    flip(path, 8 * (len(whole) - 3))
    told = rf"{part} in .* changed after the map was made.*`lightglue sfm`.*`lightglue map accept "
    uses: tuple[Callable[[], object], ...] = (
        lambda: read_model(place / "map"),
        lambda: read_model(place / "map/models/0"),
        lambda: Localizer.open(place / "map"),
        lambda: add_images(place / "map", [place / "photographs"]),
    )
    for use in uses:
        with pytest.raises(StoreError, match=told):
            use()
    assert any("changed after the map was made" in each for each in write_report(place / "map").problems)
    with mock.patch("lightglue.sfm.pipeline.STAGES", ("reconstruct",)):
        again(place)
    assert path.read_bytes() == whole


def test_commands_name_a_damaged_model_in_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    flip(place / "map/model/cameras.bin", 300)
    for command in (
        ["localize", "map", "photographs", "-o", "out"],
        ["view", "map", "--png", "out/map.png"],
        ["map", "add", "map", "photographs"],
    ):
        run = lightglue(*command)
        assert run.code == 1, run.err
        assert "error: cameras.bin in map/model changed after" in run.err
        assert "map accept" in run.err
    run = lightglue("map", "report", "map")
    assert run.code == 0
    assert run.err.startswith("warning: cameras.bin in map/model changed after")


def test_a_model_that_was_changed_on_purpose_is_accepted_by_a_command_and_then_kept(place: Path) -> None:
    model = open_model(place / "map/model")
    for point in list(model.points3D)[:20]:
        model.delete_point3D(point)
    model.write(str(place / "map/model"))  # as COLMAP's tools do, in place
    with pytest.raises(StoreError, match="map accept"):
        read_model(place / "map")
    assert accept_model(place / "map").num_points == len(model.points3D)
    assert len(read_model(place / "map").points) == len(model.points3D)
    counts = MapFolder(place / "map").read().stages["reconstruct"].counts
    assert counts["points"] == len(model.points3D)
    assert again(place).model.was_there
    assert len(read_model(place / "map").points) == len(model.points3D)


def test_a_model_of_no_map_may_hold_what_it_likes(place: Path) -> None:
    shutil.copytree(place / "map/models/0", place / "alone")
    model = open_model(place / "alone")
    model.delete_point3D(next(iter(model.points3D)))
    model.write(str(place / "alone"))
    assert len(read_model(place / "alone").points) == len(model.points3D)


def test_images_are_added_after_a_kill_between_model_and_summary(place: Path) -> None:
    cv2.imwrite(str(place / "photographs/5.png"), photograph(5))
    with (
        mock.patch("lightglue.sfm.change.write_summary", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        add_images(place / "map", [place / "photographs/5.png"])
    assert add_images(place / "map", [place / "photographs/5.png"]).registered[-1] == "5.png"
    assert read_model(place / "map").images[-1].name == "5.png"


# --- caches, links, what a kill leaves ----------------------------------------------------------------------------


def test_any_bit_of_an_archive_of_arrays_is_noticed_or_changes_nothing() -> None:
    arrays = {"points": np.arange(12, dtype=np.float32).reshape(6, 2), "name": np.array("a.png")}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    whole = buffer.getvalue()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        with suppress(ValueError):
            found = read_arrays(bytes(content))
            if found.keys() == arrays.keys():  # else whoever asks for one of them is told
                assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
                assert found["points"].shape == (6, 2)


@pytest.mark.parametrize("part", ["retrieval.npz", "refined"])
def test_flags_and_shapes_of_caches_are_one_error_and_made_again(place: Path, part: str) -> None:
    path = place / "map" / part
    path = sorted(path.glob("??/*.npz"))[0] if path.is_dir() else path
    whole = path.read_bytes()
    use = RetrievalIndex.open if part == "retrieval.npz" else lambda _: read_refined(place / "map/refined", "0.png")
    central = whole.index(b"PK\1\2")
    for at, bit in ((central + 8, 0), (central + 10, 0), (whole.index(b"'shape'") + 10, 1)):
        content = bytearray(whole)
        content[at] ^= 1 << bit  # encrypted, compressed by a method that is none, another shape
        for name in sorted((place / "map/refined").glob("??/*.npz")) if part == "refined" else [path]:
            name.write_bytes(bytes(content))
        with pytest.raises(StoreError, match="remove it"):
            use(path)
    again(place)
    assert path.read_bytes() == whole


def test_links_that_lead_to_themselves_or_nowhere_are_left_out(tmp_path: Path) -> None:
    take_photographs(tmp_path, 1)
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "there").symlink_to("back")
    (tmp_path / "back").symlink_to("there")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    names, skipped = list_images(tmp_path)
    assert names == ["0.png"]
    assert {each.name for each in skipped} == {"back", "gone.png", "loop.png", "there"}


def test_a_link_to_itself_is_not_added_to_a_map_and_does_no_harm(place: Path) -> None:
    (place / "loop.png").symlink_to("loop.png")
    told = add_images(place / "map", [place / "loop.png"])
    assert [each.name for each in told.skipped] == [str(place / "loop.png")]
    assert len(told.registered) == 5


def test_an_unreadable_link_is_left_out(public_folder: Path) -> None:
    take_photographs(public_folder, 1)
    (public_folder / "closed/inner").mkdir(parents=True)
    for name, target in (("link", "closed/inner"), ("link.png", "closed/inner/a.png")):
        (public_folder / name).symlink_to(target)
    (public_folder / "closed").chmod(0)
    with ordinary_user():
        names, skipped = list_images(public_folder)
    assert names == ["0.png"]
    assert {each.name.rstrip("/") for each in skipped} == {"closed", "link", "link.png"}


def test_what_a_killed_map_add_left_among_the_photographs_is_removed_and_no_file_of_the_user(place: Path) -> None:
    (place / "new.png").write_bytes(cv2.imencode(".png", photograph(5))[1].tobytes())
    others = [place / "photographs" / name for name in (".0123456789abcdef.part", ".mine.part")]
    for other in others:
        other.write_bytes(b"of the user")
    script = (
        "import os, signal, sys; from pathlib import Path; from lightglue.sfm.change import add_images;"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL) if _[0].parent.name == 'photographs' "
        "else os.replace(*_); add_images(sys.argv[1], [sys.argv[2]])"
    )
    ended = run_python(script, place / "map", place / "new.png", check=False)
    assert ended.returncode == -signal.SIGKILL
    before = {each.name for each in (place / "photographs").iterdir()}
    left = [name for name in before if name.endswith(".part") and place / "photographs" / name not in others]
    assert len(left) == 1
    add_images(place / "map", [place / "photographs"])
    assert {each.name for each in (place / "photographs").iterdir()} == before - set(left)
    assert all(other.read_bytes() == b"of the user" for other in others)


# --- pairs, the database ------------------------------------------------------------------------------------------


def test_pairs_that_changed_on_the_disk_are_told_and_taken_once_they_are_matched(place: Path) -> None:
    path = place / "map/pairs.txt"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"0.png\t4.png", b"1.png\t4.png", 1))  # one bit: a pair that is there already
    for use in (
        lambda: add_images(place / "map", [place / "photographs"]),
        lambda: run_stage("verify", place / "map", OPTIONS),
    ):
        with pytest.raises(StoreError, match=r"pairs\.txt changed after .*`lightglue map match .*map` takes it"):
            use()
    run_stage("match", place / "map", OPTIONS)
    assert run_stage("verify", place / "map", OPTIONS).counts["pairs"] == 9
    again(place)
    assert path.read_bytes() == whole


def rows(path: Path) -> dict[str, list[Any]]:
    """What COLMAP's tables hold."""
    with closing(sqlite3.connect(path)) as connection:
        tables = ("cameras", "images", "keypoints", "matches", "two_view_geometries", "lightglue_pairs")
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in tables}


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("cameras", "params"),
        ("images", "name"),
        ("keypoints", "data"),
        ("keypoints", "rows"),
        ("matches", "data"),
        ("matches", "rows"),
        ("matches", "pair_id"),
        ("two_view_geometries", "data"),
        ("two_view_geometries", "F"),
        ("two_view_geometries", "config"),
        ("lightglue_pairs", "pair_id"),
        ("lightglue_pairs", "verified"),
    ],
)
def test_a_row_of_the_database_that_changed_is_told_before_colmap_opens_it_and_written_anew(
    place: Path, table: str, column: str
) -> None:
    path = place / "map/database.db"
    whole, model = rows(path), (place / "map/model/points3D.bin").read_bytes()
    with closing(sqlite3.connect(path)) as connection, connection:
        row, value = connection.execute(f"SELECT rowid, {column} FROM {table} ORDER BY rowid DESC LIMIT 1").fetchone()
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed(value), row))
    for use in (lambda: verify(path), lambda: reconstruct(path, place, place / "new")):
        with pytest.raises(StoreError, match=r"database\.db is damaged.*`lightglue sfm`.*writes again"):
            use()
    again(place)
    assert rows(path) == whole
    assert (place / "map/model/points3D.bin").read_bytes() == model


def changed(value: Any) -> Any:
    """With another bit, high enough that an index is far beyond."""
    if value is None:
        return b"something"
    if isinstance(value, bytes):
        return value[:2] + bytes([value[2] ^ 64]) + value[3:]
    return value[:-1] + chr(ord(value[-1]) ^ 1) if isinstance(value, str) else value ^ 4


def test_any_bit_of_a_database_is_noticed_or_changes_no_row(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    content = (place / "map/database.db").read_bytes()
    whole = rows(place / "map/database.db")
    noticed = 0
    for at in np.random.default_rng(0).integers(0, len(content), 120).tolist():
        path.write_bytes(bytes([*content[:at], content[at] ^ 1 << at % 8, *content[at + 1 :]]))
        try:
            read_state(path)
            found = damage_of(path)
        except StoreError:
            found = Damage(is_broken=True)
        noticed += bool(found)
        assert found or rows(path) == whole
    assert noticed > 10


def test_a_database_of_an_earlier_version_is_made_again_and_gives_the_same_model(place: Path) -> None:
    path, model = place / "map/database.db", (place / "map/model/points3D.bin").read_bytes()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM lightglue_about WHERE key IN ('checksums', 'seal', 'judged_checksum')")
        connection.execute("ALTER TABLE lightglue_pairs DROP COLUMN checksum")
    reconstruct(path, place / "photographs", place / "map", OPTIONS.reconstruct)
    again(place)
    assert not damage_of(path)
    assert (place / "map/model/points3D.bin").read_bytes() == model


def test_matches_of_keypoints_that_there_are_not_never_reach_colmap(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "map")
    a, b = scene.names[:2]
    elsewhere = MatchStore.open(tmp_path / "elsewhere.db", {})  # with no features beside it
    beyond = PairMatches(a, b, np.array([[0, POINTS]], np.int32), np.ones(1, np.float32))
    elsewhere.put([beyond])
    with pytest.raises(StoreError, match=rf"keypoint {POINTS} of '{b}', which has {POINTS}; match them again"):
        create_database(tmp_path / "database.db", scene.features, elsewhere)
    with pytest.raises(InputError, match=f"keypoint {POINTS}"):
        scene.matches.put([beyond])


# --- any file -----------------------------------------------------------------------------------------------------


def test_a_random_bit_of_any_file_is_repaired_or_noticed_or_changes_nothing(made: Path, tmp_path: Path) -> None:
    """A few of the trials that scripts/flip_bits.py makes by the hundred, with every command."""
    chance = random.Random(3)
    files = sorted(path for path in (made / "map").rglob("*") if path.is_file() and not path.is_symlink())
    model = (made / "map/model/points3D.bin").read_bytes()
    outcomes = []  # whether an error names the file, where there is one
    for number in range(6):
        place = tmp_path / str(number)
        shutil.copytree(made / "photographs", place / "photographs")
        shutil.copytree(made / "map", place / "map", symlinks=True)
        write_json(place / "map/map.json", {**read_json(made / "map/map.json"), "images": str(place / "photographs")})
        path = place / chance.choice(files).relative_to(made)
        flip(path, chance.randrange(8 * min(path.stat().st_size, 2000)))
        try:
            again(place)
        except (InputError, StoreError) as error:
            outcomes.append(path.name in str(error))
            continue
        outcomes.append(True)
        assert (place / "map/model/points3D.bin").read_bytes() == model
        assert len(Localizer.open(place / "map").names) == 5
    assert all(outcomes)
