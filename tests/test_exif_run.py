"""Photographs with generated EXIF go through every command: none ends it, and none is lost.

    LIGHTGLUE_EXIF_FILES=300 python -m pytest -s tests/test_exif_run.py

does it with so many files, and prints what came of them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pycolmap")
from lightglue.geometry.exif_focal import focal_from_exif
from lightglue.pairs.cameras import known_camera
from lightglue.sfm.colmap.cameras import assign_cameras
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.stages.exif import Location, read_location
from lightglue.stores import FeatureStore
from support.command import Run, lightglue
from support.corner import photograph
from support.exif import any_exif, with_exif

COUNT = int(os.environ.get("LIGHTGLUE_EXIF_FILES", "8"))
ENDINGS = (".jpg", ".png", ".webp")
MODELS = ("--features", "sift", "--matcher", "nearest", "--device", "cpu", "--no-mp", "--max-keypoints", "400")
SMALL = ("--resize", "320")
BLANK = [cv2.imencode(ending, np.zeros((48, 64, 3), np.uint8))[1].tobytes() for ending in ENDINGS]

pytestmark = [
    pytest.mark.filterwarnings("ignore:camera0. .* its EXIF states:UserWarning"),
    pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn"),
]


def test_whatever_exif_states_is_believed_or_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(15)
    found: Counter[str] = Counter()
    for number in range(max(300, COUNT)):
        path = tmp_path / f"{number}{ENDINGS[number % 3]}"
        path.write_bytes(with_exif(BLANK[number % 3], any_exif(rng)))
        focal, fault = focal_from_exif(path, (64, 48))
        assert focal is None or 6.4 <= focal <= 1280
        assert focal is None or fault is None
        known = known_camera("camera0", "auto", path, (64, 48))
        assert (known.source, known.K[0][0]) == (("guessed", 76.8) if focal is None else ("EXIF", focal))
        place = read_location(path)
        assert place is None or isinstance(place, Location)
        found += Counter({"focal": focal is not None, "fault": fault is not None, "place": place is not None})
    assert min(found[kind] for kind in ("focal", "fault", "place")) > 20  # the generator makes all of them
    sizes = {path.name: (64, 48) for path in tmp_path.iterdir()}
    assigned = assign_cameras(sizes, tmp_path)
    assert len(assigned.faults) == found["fault"]
    assert all(np.isfinite(camera.params).all() for camera in assigned.cameras)


@dataclass(frozen=True)
class Folders:
    """Photographs of one place: of a map, to be added to it, and to be localized in it."""

    photographs: Path
    new: Path
    queries: Path

    def files(self) -> list[Path]:
        return sorted(path for folder in (self.photographs, self.new, self.queries) for path in folder.iterdir())


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    rng = np.random.default_rng(7)
    made = Folders(*(tmp_path / name for name in ("photographs", "new", "queries")))
    for folder in (made.photographs, made.new, made.queries):
        folder.mkdir()
    for number in range(5):  # without EXIF: from these there is a model, whatever the others state
        cv2.imwrite(str(made.photographs / f"plain{number}.png"), photograph(number))
    for number in range(COUNT):
        folder = (made.photographs, made.new, made.photographs, made.queries)[number % 4]
        ending = ENDINGS[number % 3]
        image = cv2.imencode(ending, photograph(4 * number / COUNT))[1].tobytes()
        (folder / f"{number:04}{ending}").write_bytes(with_exif(image, any_exif(rng)))
    return made


def done(run: Run) -> dict[str, object]:
    """What a command said as JSON."""
    assert (run.code, "Traceback" in run.err) == (0, False), run.err
    found: dict[str, object] = json.loads(run.out)
    return found


def test_generated_exif_ends_no_command_and_loses_no_photograph(folders: Folders, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folders.files()}
    sources: Counter[str] = Counter()
    for path in before:
        cameras = ("--geometry", "essential", "--camera0", "auto", "--camera1", "auto")
        told = done(lightglue("match", path, folders.photographs / "plain2.png", *MODELS, *SMALL, *cameras, "--json"))
        sources.update([told["cameras"][0]["source"]])  # type: ignore[index]
    extracted = lightglue("extract", *before, "-o", tmp_path / "features", *MODELS[:2], *MODELS[4:], *SMALL)
    assert extracted.code == 0
    assert len(list((tmp_path / "features").iterdir())) == len(before)

    place, common = MapFolder(tmp_path / "map"), ("--threads", "1", *SMALL)
    pairs = ("--pairs", "sequential,gps")
    mapped = done(lightglue("sfm", folders.photographs, "-o", place.folder, *MODELS, *common, *pairs, "--json"))
    names = sorted(path.name for path in folders.photographs.iterdir())
    assert FeatureStore.open(place.features).names() == names
    left_out = {each["name"]: each["reason"] for each in mapped["skipped"] if not each["used"]}  # type: ignore[attr-defined]
    registered = mapped["model"]["registered"]  # type: ignore[index]
    assert 5 <= registered == len(names) - len(left_out.keys() & set(names))

    added = done(lightglue("map", "add", place.folder, folders.new, "--json"))
    new = sorted(path.name for path in folders.new.iterdir())
    assert added["added"] == new
    assert FeatureStore.open(place.features).names() == sorted([*names, *new])

    queries = {path.name for path in folders.queries.iterdir()}
    localized = done(lightglue("localize", place.folder, folders.queries, "-o", tmp_path / "poses", "--json"))
    lines = [
        line for name in ("poses", "failures") for line in (tmp_path / f"poses/{name}.txt").read_text().splitlines()
    ]
    assert localized["queries"] == len(queries)
    assert {line.split()[0] for line in lines} == queries

    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in folders.photographs.iterdir()} == {*names, *new}
    print(
        f"\n{COUNT} files with generated EXIF and 5 without: match {len(before)} of {len(before)} ({dict(sources)}), "
        f"extract {len(before)} of {len(before)}, sfm {registered} of {len(names)} registered, "
        f"map add {len(new)} added and {added['registered']} registered in all, "
        f"localize {localized['localized']} of {len(queries)}"
    )
