"""One image never ends a run: it is left out with a reason, whatever happens to its file, and whenever."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pycolmap")
from lightglue.errors import InputError
from lightglue.models.choice import Models
from lightglue.sfm.change import add_images
from lightglue.sfm.localization.localize import localize
from lightglue.sfm.options import ExtractOptions, MatchOptions, PairOptions, ReconstructOptions, SfmOptions
from lightglue.sfm.pipeline import STAGES, run_stage
from lightglue.sfm.skipped import reason_of
from lightglue.stores import FeatureStore
from support.corner import photograph
from support.users import ordinary_user

PLAIN = [f"{number}.png" for number in range(5)]
WHOLE = cv2.imencode(".png", photograph(2))[1].tobytes()
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


def picture(pixels: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    return write


def sized(width: int, height: int) -> Callable[[Path], None]:
    """A header that states another size."""

    def write(path: Path) -> None:
        path.write_bytes(WHOLE[:16] + struct.pack(">II", width, height) + WHOLE[24:])

    return write


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return write


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(missing_ok=True),
    "empty": lambda path: path.write_bytes(b""),
    "cut off in its header": lambda path: path.write_bytes(WHOLE[:20]),
    "cut off": lambda path: path.write_bytes(WHOLE[:3000]),
    "text": lambda path: path.write_text("no image\n"),
    "a folder": replaced(Path.mkdir),
    "a link to nowhere": replaced(lambda path: path.symlink_to("/nowhere/at/all")),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a pipe": replaced(os.mkfifo),
    "60,000 px high": sized(60_000, 60_000),
    "no px high": sized(320, 0),
    "one pixel": picture(np.zeros((1, 1, 3), np.uint8)),
    "one pixel high": picture(np.zeros((1, 4000, 3), np.uint8)),
    "black": picture(np.zeros((240, 320, 3), np.uint8)),
    "turned": picture(np.rot90(photograph(2)).copy()),
}
USABLE = {"one pixel", "one pixel high", "black", "turned"}  # as images, if hardly for a map


def options() -> SfmOptions:
    """Models without weights."""
    models = Models("sift", 400, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.8})
    return SfmOptions(
        models,
        ExtractOptions(models, {"resize": None}),
        MatchOptions(models),
        PairOptions(("exhaustive", "retrieval", "gps"), retrieved=3),
        reconstruct=ReconstructOptions(threads=1),
    )


def take(folder: Path, names: list[str], start: float = 0.0, end: float = 4.0) -> None:
    folder.mkdir()
    for name, at in zip(names, np.linspace(start, end, len(names)), strict=True):
        cv2.imwrite(str(folder / name), photograph(at))


# Before each stage, what becomes of a file.
MOMENTS = dict(
    zip(STAGES, ("a link to itself", "gone", "a folder", "cut off", "a pipe", "60,000 px high", "turned"), strict=True)
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map during whose making files were damaged, one before each stage, and its images."""
    folder = tmp_path_factory.mktemp("made")
    take(folder / "photographs", PLAIN)
    for number, damage in enumerate(MOMENTS.values()):
        cv2.imwrite(str(folder / "photographs" / f"{damage}.png"), photograph(number / 2 + 0.3))
    for stage, damage in MOMENTS.items():
        DAMAGES[damage](folder / "photographs" / f"{damage}.png")
        run_stage(stage, folder / "map", options(), images=folder / "photographs")
    return folder


def registered(place: Path) -> set[str]:
    from lightglue.sfm.colmap.model import read_model

    return {image.name for image in read_model(place / "map").images}


def test_a_map_is_made_of_the_others_whatever_becomes_of_files_between_its_stages(made: Path) -> None:
    assert set(PLAIN) < registered(made)
    assert (made / "map/report.html").exists()


def test_a_reason_leaves_out_the_path_that_it_stands_behind() -> None:
    for said, reason in (
        ("photos/a.jpg: this JPEG file is damaged", "this JPEG file is damaged"),
        ("photos/a.jpg is empty; fetch\nthe file again.", "it is empty; fetch the file again."),
        ("There is no image at photos/a.jpg; check the path.", "There is no image there; check the path."),
        ("The mask b.png of photos/a.jpg is empty", "The mask b.png of photos/a.jpg is empty"),
    ):
        assert reason_of(InputError(said), Path("photos/a.jpg")) == reason


def test_a_file_that_goes_during_extraction_is_left_out(tmp_path: Path) -> None:
    names = [f"{number:02}.png" for number in range(8)]
    take(tmp_path / "photographs", names)

    def progress(stage: str, done: int, total: int) -> None:
        (tmp_path / "photographs" / names[-1]).unlink(missing_ok=True)

    record = run_stage("extract", tmp_path / "map", options(), images=tmp_path / "photographs", progress=progress)
    assert [each.name for each in record.skipped] == names[-1:]
    assert "there is no image at" in record.skipped[0].reason
    assert FeatureStore.open(tmp_path / "map/features").names() == names[:-1]


def test_a_file_that_may_not_be_read_is_left_out(public_folder: Path) -> None:
    take(public_folder / "photographs", PLAIN)
    (public_folder / "map").mkdir()
    for folder in (public_folder / "photographs", public_folder / "map"):
        folder.chmod(0o777)
    (public_folder / "photographs" / PLAIN[1]).chmod(0)
    with ordinary_user():
        record = run_stage("extract", public_folder / "map", options(), images=public_folder / "photographs")
    assert {each.name: "may not be read" in each.reason for each in record.skipped} == {PLAIN[1]: True}
    assert record.counts["extracted"] == 4


def test_what_cannot_be_used_is_neither_added_to_a_map_nor_copied_and_has_a_reason(made: Path, tmp_path: Path) -> None:
    photographs = made / "photographs"
    before = {path.name for path in photographs.iterdir()}
    take(tmp_path / "new", ["new whole.png"], 1.5)
    for damage, make in DAMAGES.items():
        make(tmp_path / "new" / f"new {damage}.png")
    files = [tmp_path / "new" / f"new {damage}.png" for damage in DAMAGES]
    result = add_images(made / "map", [*files, tmp_path / "new/new whole.png"])
    bad = {f"new {damage}.png" for damage in DAMAGES.keys() - USABLE}
    assert "new whole.png" in result.names
    assert "new whole.png" in result.registered
    assert bad - {"new a folder.png"} <= {Path(each.name).name for each in result.skipped if each.reason}
    assert {path.name for path in photographs.iterdir()} - before == set(result.names)
    assert not bad & set(result.names)


def test_queries_that_cannot_be_used_are_failures_with_a_reason(made: Path, tmp_path: Path) -> None:
    take(tmp_path / "queries", ["whole.png"], 1.2)
    for damage, make in DAMAGES.items():
        make(tmp_path / "queries" / f"{damage}.png")
    (tmp_path / "list.txt").write_text("".join(f"queries/{name}.png\n" for name in ("whole", *DAMAGES)))
    result = localize(made / "map", tmp_path / "list.txt", tmp_path / "out")
    failed = {Path(each.name).stem: each.reason for each in result.failures}
    assert result.queries == len(DAMAGES) + 1
    assert DAMAGES.keys() - {"turned"} <= failed.keys() <= DAMAGES.keys()
    assert all(failed.values())
