"""Whole maps: what is there is not done again, what is bad is told and left out, and no fault is a traceback."""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest

pytest.importorskip("pycolmap")
from lightglue.errors import InputError, LightGlueError, StoreError
from lightglue.matching.nearest import NearestNeighbor
from lightglue.models.choice import Models
from lightglue.sfm import pipeline
from lightglue.sfm.colmap.model import read_model
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.pipeline import STAGES, MapResult, SfmOptions, build_map, run_stage
from lightglue.sfm.stages.pairs import PairOptions
from lightglue.sfm.stages.reconstruct import ReconstructOptions
from lightglue.sfm.stages.refine import TrackOptions
from lightglue.support.files import read_json, write_json
from support.command import Run, lightglue
from support.corner import map_options as options
from support.corner import photograph, take_photographs
from support.users import ordinary_user

Change = Callable[[Path], object]
FILES = {"map.json", "features", "retrieval.npz", "pairs.txt", "matches.db", "database.db", "model", "models"}
REPORT = {"report.html", "report.png"}
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


@pytest.fixture(scope="module")
def made(corner_map: Path) -> Path:
    """A folder with photographs and their map, to be copied."""
    return corner_map


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    for part in ("photographs", "map"):
        shutil.copytree(made / part, tmp_path / part)  # with the times of the files
    record = tmp_path / "map/map.json"
    write_json(record, {**read_json(record), "images": str(tmp_path / "photographs")})
    return tmp_path


@pytest.fixture
def no_report() -> Iterator[None]:
    """Drawing takes longer than all else, and has tests of its own."""
    with mock.patch("lightglue.sfm.report.document.write_report"):
        yield


def again(place: Path, chosen: SfmOptions | None = None) -> MapResult:
    return build_map(place / "photographs", place / "map", chosen or options())


def counts(place: Path) -> dict[str, dict[str, float]]:
    return {name: dict(stage.counts) for name, stage in MapFolder(place / "map").read().stages.items()}


def state(*paths: Path) -> dict[Path, int]:
    """When each file was written last."""
    found = [each for path in paths for each in (path.rglob("*") if path.is_dir() else [path])]
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


def reasons(result: MapResult) -> dict[str, str]:
    return {each.name: each.reason for each in result.skipped}


# --- what is there, and what is done again -----------------------------------------------------------------------


def test_a_folder_of_photographs_becomes_a_map(made):
    assert {path.name for path in (made / "map").iterdir()} == FILES | REPORT
    model = read_model(made / "map")
    assert [image.name for image in model.images] == [f"{number}.png" for number in range(5)]
    assert model.mean_error < 0.3
    about = json.loads((made / "map/map.json").read_text())
    assert list(about["stages"]) == list(STAGES)
    assert about["images"] == str(made / "photographs")
    assert about["settings"]["models"]["features"] == "sift"
    assert about["settings"]["extract"]["max_keypoints"] == 400
    assert about["stages"]["extract"]["counts"]["images"] == 5
    assert about["stages"]["reconstruct"]["counts"]["registered"] == 5


def test_the_same_run_again_does_nothing(place, no_report):
    everything = [place / "map" / part for part in FILES - {"map.json", "pairs.txt"}]
    before = state(*everything)
    result = again(place)
    assert state(*everything) == before
    assert result.model.was_there
    assert counts(place)["extract"]["extracted"] == 0
    assert counts(place)["match"]["matched"] == 0


def test_a_run_of_stages_one_by_one_is_the_same_as_a_whole_run(place, no_report):
    for stage in STAGES:
        run_stage(stage, place / "staged", options(), images=place / "photographs")
    for part in ("images.bin", "points3D.bin"):
        assert (place / "staged/model" / part).read_bytes() == (place / "map/model" / part).read_bytes()


def test_pairs_that_grow_end_with_the_same_map_in_one_run_in_stages_and_again(place, no_report, monkeypatch):
    monkeypatch.setattr("lightglue.sfm.stages.pairing.growth.FIRST", 1)  # else five images begin with every pair
    growing = replace(options(), pairs=PairOptions(("growing",), grown=4))
    result = again(place, growing)
    assert result.model.models[0].num_images == 5
    pairs = (place / "map/pairs.txt").read_bytes()
    assert counts(place)["match"]["pairs"] > counts(place)["pairs"]["pairs"] > 0
    again(place, growing)
    assert (place / "map/pairs.txt").read_bytes() == pairs
    assert counts(place)["match"]["matched"] == 0
    for stage in STAGES:
        run_stage(stage, place / "staged", growing, images=place / "photographs")
    assert (place / "staged/pairs.txt").read_bytes() == pairs
    for part in ("images.bin", "points3D.bin"):
        assert (place / "staged/model" / part).read_bytes() == (place / "map/model" / part).read_bytes()


def test_a_stage_says_which_must_come_before(place, tmp_path):
    new = tmp_path / "new"
    with pytest.raises(InputError, match="no map in .*new"):
        run_stage("match", new, options())
    for stage, told in (("pairs", "extract"), ("match", "pairs"), ("verify", "extract"), ("reconstruct", "verify")):
        with pytest.raises(InputError, match=told):
            run_stage(stage, new, options(), images=place / "photographs")
    with pytest.raises(InputError, match="no stage 'matching'; choose one of extract, pairs"):
        run_stage("matching", new, options())


def test_other_options_of_the_extractor_are_refused_by_name_and_the_map_stays_as_it_is(place):
    before = json.loads((place / "map/map.json").read_text())
    with pytest.raises(InputError, match="max_keypoints is 400 there and 300 here"):
        again(place, options(300))
    assert json.loads((place / "map/map.json").read_text()) == before


def test_other_options_of_the_mapper_redo_the_model_only(place, no_report):
    kept = [place / "map" / part for part in ("features", "retrieval.npz", "matches.db")]
    before, model, geometries = state(*kept), state(place / "map/model"), _geometries(place / "map/database.db")
    result = again(place, replace(options(), reconstruct=ReconstructOptions(threads=1, seed=5)))
    assert state(*kept) == before
    assert _geometries(place / "map/database.db") == geometries
    assert not result.model.was_there
    assert all(when > model[path] for path, when in state(place / "map/model").items())
    assert MapFolder(place / "map").read().settings["reconstruct"]["seed"] == 5


def test_a_new_photograph_costs_its_own_work_only(place, no_report):
    before = state(place / "map/features")
    cv2.imwrite(str(place / "photographs/new.png"), photograph(2.5))
    result = again(place)
    assert before.items() <= state(place / "map/features").items()
    assert (counts(place)["extract"]["extracted"], counts(place)["extract"]["kept"]) == (1, 5)
    assert (counts(place)["match"]["matched"], counts(place)["match"]["kept"]) == (5, 10)
    assert result.model.models[0].num_images == 6


def test_a_changed_photograph_is_done_again_and_a_removed_one_is_told(place, no_report):
    cv2.imwrite(str(place / "photographs/4.png"), photograph(3.5))
    (place / "photographs/0.png").unlink()
    result = again(place)
    assert counts(place)["extract"]["extracted"] == 1
    assert counts(place)["match"]["matched"] == 3  # with the three that are still there
    assert "gone" in reasons(result)["0.png"]


def test_verification_with_other_options_killed_midway_leaves_nothing_of_them(place, no_report):
    place_of = place / "map/database.db"
    before = _geometries(place_of)
    strict = replace(options(), verify=replace(options().verify, max_error=0.05))
    with (
        mock.patch("lightglue.sfm.stages.verify._verify", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        again(place, strict)
    again(place)
    assert _geometries(place_of) == before


def _geometries(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute("SELECT * FROM two_view_geometries ORDER BY pair_id").fetchall()


# --- folders that are not as they should be ----------------------------------------------------------------------


def test_what_is_bad_in_a_folder_is_told_and_the_rest_becomes_a_map(tmp_path, no_report):
    folder = tmp_path / "photographs"
    take_photographs(folder)
    whole = (folder / "2.png").read_bytes()
    jpeg = cv2.imencode(".jpg", photograph(2))[1].tobytes()
    bad = {
        "1 cut.png": whole[: len(whole) // 2],
        "2 cut.jpg": jpeg[: len(jpeg) // 2],
        "3 text.jpg": b"no image",
        "4 empty.jpg": b"",
        "5 head.png": whole[:20],
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    (folder / "6 link.jpg").symlink_to("nowhere")
    (folder / "7 folder.jpg").mkdir()
    cv2.imwrite(str(folder / "8 grey.png"), np.full((100, 120, 3), 128, np.uint8))
    (folder / "more").mkdir()
    good = {"more/2.png": 2, "a b - c.png": 1.5, "ünï – 東京.png": 2.5, "tab\tname.png": 3.5, "#1.png": 0.5}
    for name, number in good.items():
        (folder / name).write_bytes(cv2.imencode(".png", photograph(number))[1].tobytes())
    result = build_map(folder, tmp_path / "map", options())
    told = reasons(result)
    assert set(told) == {*bad, "6 link.jpg", "8 grey.png"}
    assert all("PNG" in told[name] or "JPEG" in told[name] or "empty" in told[name] for name in bad), told
    assert not any(str(folder) in reason for reason in told.values())  # the path stands beside
    assert "leads nowhere" in told["6 link.jpg"]
    assert told["8 grey.png"] == "it has no keypoints: its pixels are all 128"
    assert sorted(result.model.models[0].images) == sorted([*good, *(f"{number}.png" for number in range(5))])
    assert reasons(build_map(folder, tmp_path / "map", options())) == told  # nothing is forgotten the next time


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs/notes.txt").write_text("none")
    with pytest.raises(InputError, match="no image in .*photographs; looked for .*PNG"):
        again(tmp_path)
    for images, told in (("absent", "does not exist"), ("photographs/notes.txt", "the only image in the list")):
        with pytest.raises(InputError, match=told):
            build_map(tmp_path / images, tmp_path / "map", options())


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ([b"no image"], "No image has features"),
        ([0], "One image has features"),
        ([0, 1], "planar or panoramic"),
        ([None, None, None], "None of the 3 images has keypoints"),
    ],
    ids=["damaged", "one", "two", "grey"],
)
@pytest.mark.parametrize("sources", [("auto",), ("retrieval",), ("sequential",)])
def test_too_little_for_a_map_is_told_with_a_reason(tmp_path, no_report, images, told, sources):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, image in enumerate(images):
        if isinstance(image, bytes):
            (folder / f"{number}.png").write_bytes(image)
        else:
            pixels = np.full((100, 120, 3), 128, np.uint8) if image is None else photograph(image)
            cv2.imwrite(str(folder / f"{number}.png"), pixels)
    chosen = replace(options(), pairs=PairOptions(sources))
    if images[0] is None and sources != ("auto",):
        with pytest.raises(InputError, match="No image has keypoints"):
            again(tmp_path, chosen)
        return
    result = again(tmp_path, chosen)
    assert result.model.models == ()
    assert told in (result.model.reason or "")
    assert len(result.skipped) == len(images)


def test_a_map_among_its_photographs_is_none_of_them(place):
    build_map(place / "photographs", place / "photographs/map", options())
    assert (place / "photographs/map/report.png").exists()
    with mock.patch("lightglue.sfm.report.document.write_report"):
        result = build_map(place / "photographs", place / "photographs/map", options())
    assert result.skipped == ()
    assert result.model.num_images == 5
    with pytest.raises(InputError, match="both images and map"):
        build_map(place / "photographs", place / "photographs", options())


def test_a_map_is_not_continued_with_other_photographs(place):
    take_photographs(place / "others", 2)
    with pytest.raises(InputError, match="is a map of .*photographs, not of .*others"):
        build_map(place / "others", place / "map", options())


def test_pairs_of_a_file_that_are_none_are_told(place, no_report):
    path = place / "pairs.txt"
    path.write_text("0.png 1.png\n4.png 0.png\n0.png absent.png\nnonsense\n1.png 1.png\n1.png\t4.png\n")
    shutil.rmtree(place / "map")
    result = again(place, replace(options(), pairs=PairOptions(("file",), file=str(path))))
    assert {name: "absent" in told for name, told in reasons(result).items() if "png, absent" in name} == {
        "0.png, absent.png": True
    }
    assert {f"{path}, line 4", f"{path}, line 5"} < set(reasons(result))
    assert (place / "map/pairs.txt").read_text() == "0.png\t1.png\n0.png\t4.png\n1.png\t4.png\n"
    path.unlink()
    with pytest.raises(InputError, match="no file of pairs"):
        again(place, replace(options(), pairs=PairOptions(("file",), file=str(path))))


# --- disks and files that are not as they should be --------------------------------------------------------------


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_effort_fast_refines_in_one_round_and_adjusts_until_little_changes_unless_told_otherwise(place):
    usual = replace(options(), refine=TrackOptions())
    fast = Models("sift", 400, device="cpu", effort="fast")
    quick = SfmOptions(fast, cameras=usual.cameras, refine=TrackOptions(), reconstruct=usual.reconstruct)
    found = {}
    for name, chosen in {"usual": usual, "quick": quick}.items():
        shutil.rmtree(place / "map/refined", ignore_errors=True)
        for stage in ("refine", "verify", "reconstruct"):
            run_stage(stage, place / "map", chosen)
        settings = read_json(place / "map/map.json")["settings"]
        figures = read_json(place / "map/models/reconstruction.json")["models"][0]
        assert figures["num_images"] == 5
        found[name] = settings["refine"]["align"]["rounds"], settings["reconstruct"]["final_tolerance"]
        found[name] += (figures["mean_reprojection_error"],)
    assert found["usual"][:2] == (2, 0)
    assert found["quick"][:2] == (1, 1e-6)
    assert found["quick"][2] == pytest.approx(found["usual"][2], abs=0.05)
    own = replace(quick, refine=replace(TrackOptions(), prior=1.0))
    shutil.rmtree(place / "map/refined")
    run_stage("refine", place / "map", own)
    assert read_json(place / "map/map.json")["settings"]["refine"]["align"]["rounds"] == 2


def test_refinement_goes_on_without_an_image_that_was_lost_and_measures_anew_what_was_damaged(place, no_report):
    chosen = replace(options(), refine=TrackOptions())
    assert again(place, chosen).model.models[0].num_images == 5
    database = place / "map/refined/measured.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        before = connection.execute("SELECT * FROM measured ORDER BY pair").fetchall()
        connection.execute("UPDATE measured SET rows = zeroblob(700) WHERE pair = ?", before[3][:1])
    again(place, chosen)
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute("SELECT * FROM measured ORDER BY pair").fetchall() == before
    (place / "photographs/2.png").write_bytes(b"no image any more")
    result = again(place, chosen)
    assert sorted(result.model.models[0].images) == ["0.png", "1.png", "3.png", "4.png"]
    assert "2.png" in reasons(result)


@pytest.mark.parametrize("size", [0, 2_000, 120_000])
def test_a_full_disk_is_told_and_when_there_is_room_the_run_goes_on(made, tmp_path, no_report, size):
    with files_up_to(size), pytest.raises(StoreError, match="room"):
        build_map(made / "photographs", tmp_path / "map", options())
    assert not list((tmp_path / "map").rglob("*.part"))
    assert build_map(made / "photographs", tmp_path / "map", options()).model.models[0].num_images == 5


def test_a_folder_that_may_not_be_written_to_is_reported(made, public_folder):
    shutil.copytree(made / "photographs", public_folder / "photographs")
    public_folder.joinpath("photographs").chmod(0o755)
    with ordinary_user(), pytest.raises(StoreError, match=r"map\.json cannot be written \(Permission denied\)"):
        build_map(public_folder / "photographs", public_folder, options())


def test_a_file_in_the_place_of_the_map_is_told_and_stays(place):
    (place / "file").write_text("mine")
    for out in ("file", "file/map"):
        with pytest.raises(StoreError, match=r"map\.json cannot be written"):
            build_map(place / "photographs", place / out, options())
    assert (place / "file").read_text() == "mine"


def features_of_one(out: Path) -> Path:
    return sorted((out / "features").glob("??/*.npz"))[2]


DAMAGES: dict[str, Change] = {
    "garbage": lambda path: path.write_bytes(bytes(range(255, 0, -1)) * 20),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "absent": lambda path: path.unlink(),
}
MADE_ANEW = ["retrieval.npz", "pairs.txt", "models/reconstruction.json", "model/points3D.bin", "models/0/images.bin"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_can_be_made_anew_is(place, no_report, damage):
    paths = [place / "map" / part for part in MADE_ANEW] + [features_of_one(place / "map")]
    before = {path: path.read_bytes() for path in paths if path.name != "reconstruction.json"}
    for path in paths:
        DAMAGES[damage](path)
    assert again(place).skipped == ()
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "absent"])
@pytest.mark.parametrize("part", ["map.json", "features/store.json", "matches.db", "database.db"])
def test_what_holds_more_than_can_be_made_anew_is_named_with_a_remedy(place, no_report, part, damage):
    path = place / "map" / part
    DAMAGES[damage](path)
    content = path.read_bytes()
    with pytest.raises(StoreError, match=rf"{path.name} .*(remove|name another)"):
        again(place)
    assert path.read_bytes() == content  # it is nobody else's to remove


@pytest.mark.parametrize("part", ["map.json", "matches.db", "database.db"])
def test_the_remedy_helps(place, no_report, part):
    model = (place / "map/model/points3D.bin").read_bytes()
    (place / "map" / part).unlink()
    assert again(place).skipped == ()
    assert (place / "map/model/points3D.bin").read_bytes() == model


def test_features_of_unknown_settings_are_not_mixed_with_others(place):
    (place / "map/features/store.json").unlink()
    with pytest.raises(StoreError, match="not what made them"):
        again(place, options(300))


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "null",
        '{"format": 1}',
        '{"format": 9, "images": "a", "settings": {}, "stages": {}}',
        '{"format": 1, "images": 3, "settings": {}, "stages": {}}',
        '{"format": 1, "images": "a", "settings": {}, "stages": {"extract": {"seconds": null}}}',
        '{"format": 1, "images": "a", "settings": {}, "stages": {"extract": 5}}',
    ],
)
def test_a_map_file_of_another_kind_is_told(place, content):
    (place / "map/map.json").write_text(content)
    with pytest.raises(StoreError, match=r"map\.json"):
        again(place)


def test_a_bit_that_flipped_anywhere_is_no_traceback(place, no_report):
    parts = ["retrieval.npz", "matches.db", "database.db", "map.json", "models/reconstruction.json"]
    for part in [*parts, features_of_one(place / "map").relative_to(place / "map")]:
        path = place / "map" / part
        whole = path.read_bytes()
        generator = np.random.default_rng(0)
        for _ in range(3):
            damaged = bytearray(whole)
            damaged[generator.integers(min(len(whole), 4000))] ^= int(generator.integers(1, 256))
            path.write_bytes(damaged)
            with suppress(LightGlueError):  # any other error is a fault of ours
                assert again(place).model.num_images == 5
        path.write_bytes(whole)


# --- the command -------------------------------------------------------------------------------------------------


def sfm(*arguments: object) -> Run:
    """`lightglue sfm ARGUMENTS`, with a matcher that has no weights."""
    common = ("--features", "sift", "--max-keypoints", "400", "--device", "cpu", "--threads", "1")
    matcher = NearestNeighbor(ratio_threshold=0.8)
    with mock.patch.object(Models, "load_matcher", return_value=matcher):
        return lightglue("sfm", *arguments, *common, "--no-mp")


def test_the_command_tells_the_model_and_what_it_left_out(place):
    (place / "photographs/bad.jpg").write_bytes(b"")
    run = sfm(place / "photographs", "-o", place / "new")
    assert run.code == 0
    assert run.out.splitlines()[-3].startswith("5 of 5 images, ")
    assert run.out.splitlines()[-2] == "consistency 1.00"
    assert str(place / "new/model") in run.out.splitlines()[-1]
    stages = [f"{stage} ..." for stage in pipeline.STAGES if stage != "refine"]  # one a line: this is no terminal
    told = [line for line in run.err.splitlines() if not line.endswith(" left")]  # how long a slow machine will take
    assert told[:-1] == stages
    assert run.err.splitlines()[-1].startswith("warning: left out bad.jpg: ")
    with mock.patch("lightglue.sfm.report.document.write_report"):
        told = sfm(place / "photographs", "-o", place / "new", "--json")
    assert told.code == 0
    assert json.loads(told.out)["model"]["registered"] == 5
    assert [each["name"] for each in json.loads(told.out)["skipped"]] == ["bad.jpg"]


def test_the_command_ends_with_1_and_a_line_where_there_is_no_model(tmp_path, no_report):
    take_photographs(tmp_path / "one", 1)
    run = sfm(tmp_path / "one", "-o", tmp_path / "map")
    assert run.code == 1
    assert run.err.splitlines()[-1].startswith("error: There is no model: One image has features")


def test_the_command_refuses_in_a_line(place):
    for arguments, told in (
        ((place / "absent", "-o", place / "new"), "error: The folder of images"),
        ((place / "photographs", "-o", place / "photographs"), "both images and map"),
        ((place / "photographs", "-o", place / "map", "--resize", "200"), "resize is None there and 200 here"),
    ):
        run = sfm(*arguments)
        assert (run.code, len(run.err.splitlines())) == (1, 1)
        assert told in run.err
    assert sfm(place / "photographs", "-o", place / "new", "--pairs", "some").code == 2
    assert sfm(place / "photographs").code == 2
