"""All pairs of a set of images: each is as it is alone, what fails is left out, and all can be stopped."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("pycolmap")
from starlette.testclient import TestClient

from lightglue.pairs.asked import PairRequest
from lightglue.web import WebOptions, sets
from lightglue.web.failures import FailureError, StoppedError
from lightglue.web.options import Limits
from lightglue.web.sets import is_apart, unique_names
from lightglue.web.tasks.sets import _Features
from support.corner import take_photographs
from support.web import send, serving

# Without weights.
OPTIONS = {"features": "sift", "matcher": "nearest", "max_keypoints": 200, "resize": "none", "geometry": "homography"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    return [folder / name for name in take_photographs(folder, 4)]


def ask(client: TestClient, path: str, **content: Any) -> Any:
    return client.post(f"/api/v1/{path}", json=content)


def ended(client: TestClient, job: str) -> dict[str, Any]:
    begin = time.monotonic()
    while time.monotonic() - begin < 60:
        found: dict[str, Any] = client.get(f"/api/v1/jobs/{job}").json()
        if found["state"] not in ("queued", "running"):
            return found
        time.sleep(0.01)
    raise AssertionError(f"{found} has not ended")


def started(client: TestClient, photographs: list[Path], **content: Any) -> dict[str, Any]:
    content = {"images": [send(client, path) for path in photographs], "options": OPTIONS, **content}
    answer = ask(client, "pairs", **content)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def without_times(pair: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in pair.items() if name not in ("id", "seconds", "rows", "images")}
    if found.get("geometry"):
        found["geometry"] = {name: value for name, value in found["geometry"].items() if name != "seconds"}
    return found


def test_each_pair_of_a_set_is_what_it_is_alone(photographs: list[Path]) -> None:
    with serving() as (client, worker):
        job = started(client, photographs)
        assert ended(client, job["id"])["result"] == job["set"]
        found = client.get(f"/api/v1/pairs/{job['set']}").json()
        assert worker.done.count("extract-of-set") == 4  # each image once
        assert [(pair["i"], pair["j"]) for pair in found["pairs"]] == [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)]
        assert [image["name"] for image in found["images"]] == [path.name for path in photographs]
        images = [image["id"] for image in found["images"]]
        for i, j in ((0, 1), (0, 3)):
            alone = ask(client, "match?wait=60", image0=images[i], image1=images[j], options=OPTIONS).json()
            pair = ask(client, f"pairs/{job['set']}/{i}/{j}?wait=60").json()
            assert without_times(pair) == without_times(alone)
            numbers = next(each for each in found["pairs"] if (each["i"], each["j"]) == (i, j))
            assert numbers["matches"] == len(alone["matches"]) // 2 > 50
            assert numbers["inliers"] == len(alone["geometry"]["inliers"])
            # The pair is a result like others: it is looked at, and written.
            assert client.get(f"/api/v1/results/{pair['id']}").json() == pair
            assert client.get(f"/api/v1/results/{pair['id']}/csv").status_code == 200


def test_a_network_gives_the_same_in_a_set_too(photographs: list[Path]) -> None:
    options = {"max_keypoints": 64, "resize": "none"}
    with serving() as (client, _):
        job = started(client, photographs[:3], options=options)
        assert ended(client, job["id"])["state"] == "done"
        images = [image["id"] for image in client.get(f"/api/v1/pairs/{job['set']}").json()["images"]]
        alone = ask(client, "match?wait=60", image0=images[0], image1=images[2], options=options).json()
        pair = ask(client, f"pairs/{job['set']}/0/2?wait=60").json()
        assert without_times(pair) == without_times(alone)
        assert len(pair["scores"]) > len([score for score in pair["scores"] if score > pair["threshold"]]) > 5


@pytest.mark.parametrize(
    "options",
    [
        {"refine": True},
        {"auto_rotate": True},
        {"geometry": "relative_pose", "camera0": "300,300,159.5,119.5", "camera1": "300,300,159.5,119.5"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_needs_both_images_is_matched_pair_by_pair(photographs: list[Path], options: dict[str, Any]) -> None:
    options = {**OPTIONS, **options}
    with serving() as (client, worker):
        job = started(client, photographs[:2], options=options)
        assert ended(client, job["id"])["state"] == "done"
        found = client.get(f"/api/v1/pairs/{job['set']}").json()
        (numbers,) = found["pairs"]
        assert (worker.done, found["apart"]) == (["match"], True)
        images = [image["id"] for image in found["images"]]
        alone = ask(client, "match?wait=60", image0=images[0], image1=images[1], options=options).json()
        pair = ask(client, f"pairs/{job['set']}/0/1?wait=60").json()
        assert without_times(pair) == without_times(alone)
        assert numbers["inliers"] == len(alone["geometry"]["inliers"]) > 20
        refused = client.get(f"/api/v1/pairs/{job['set']}/colmap")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "apart")


def test_the_effort_hard_looks_at_both_images_of_a_pair() -> None:
    for options, apart in (({"effort": "hard"}, True), ({"effort": "fast"}, False), ({"refine": False}, False)):
        assert is_apart(PairRequest.of(options), options) is apart


def test_a_set_becomes_a_colmap_database(photographs: list[Path], tmp_path: Path) -> None:
    from lightglue.sfm.colmap.database_file import Database
    from lightglue.sfm.colmap.pair_ids import pair_id
    from lightglue.support.sqlite import connected

    names = ["right/0.png", "left/1.png", "left/a b.png"]
    with serving() as (client, _):
        job = started(client, photographs[:3], names=names)
        ended(client, job["id"])
        answer = client.get(f"/api/v1/pairs/{job['set']}/colmap")
        pair = ask(client, f"pairs/{job['set']}/0/2?wait=60").json()
        found = client.get(f"/api/v1/pairs/{job['set']}").json()
    assert "database.db" in answer.headers["content-disposition"]
    (tmp_path / "database.db").write_bytes(answer.content)
    with connected(tmp_path / "database.db") as connection:
        ids = dict(connection.execute("SELECT name, image_id FROM images").fetchall())
        pairs = {number for (number,) in connection.execute("SELECT pair_id FROM matches").fetchall()}
    assert ids == {name: number for number, name in enumerate(sorted(names), 1)}
    assert pairs == {pair_id(1, 2), pair_id(1, 3), pair_id(2, 3)}
    with Database(tmp_path / "database.db") as database:
        # Our pixels, of which the first has its centre at 0, and COLMAP's, whose origin is its corner.
        keypoints = np.reshape(pair["keypoints0"], (-1, 2))
        assert np.allclose(database.keypoints(ids[names[0]]), keypoints + 0.5, atol=1e-4)
        rows = database.matches(ids[names[2]], ids[names[0]])  # sorted names: the second image comes first
        wanted = np.reshape(pair["matches"], (-1, 2))[:, ::-1]
        assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, wanted.tolist()))
        assert len({camera.camera_id for camera in database.cameras().values()}) == 2  # one a folder, by their size
    assert found["pairs"][-1]["matches"] == len(wanted)


def test_a_set_that_is_stopped_keeps_what_is_done(photographs: list[Path]) -> None:
    seen, begun = [0], Event()

    def before(task: str, given: Any, stop: Event) -> None:
        if task != "pair-of-set":
            return
        seen[0] += 1
        if seen[0] == 3:  # the third takes until it is stopped
            begun.set()
            assert stop.wait(60)
            raise StoppedError

    with serving(before=before) as (client, _):
        job = started(client, photographs)
        assert begun.wait(60)
        client.delete(f"/api/v1/jobs/{job['id']}")
        assert ended(client, job["id"])["state"] == "cancelled"
        found = client.get(f"/api/v1/pairs/{job['set']}").json()
        assert [(pair["i"], pair["j"]) for pair in found["pairs"]] == [(0, 1), (1, 2)]
        assert client.get(f"/api/v1/pairs/{job['set']}/colmap").status_code == 200
        assert ask(client, f"pairs/{job['set']}/0/1?wait=60").json()["matches"]


@pytest.mark.parametrize("why", ["an image of it is deleted", "it is too large"])
def test_a_set_that_is_no_longer_kept_is_not_worked_on(
    photographs: list[Path], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on, matched = Event(), Event(), []

    def before(task: str, given: Any, stop: Event) -> None:
        if task == "pair-of-set":
            matched.append(given["numbers"])
            begun.set()
            assert may_go_on.wait(60)

    with serving(before=before) as (client, _):
        images = [send(client, path) for path in photographs]
        job = started(client, [], images=images)
        assert begun.wait(60)
        if "deleted" in why:
            assert client.delete(f"/api/v1/images/{images[3]}").status_code == 204
        else:
            monkeypatch.setattr(client.app.state.service.sets, "_limit", 10_000)  # type: ignore[attr-defined]
        may_go_on.set()
        found = ended(client, job["id"])
        begin = time.monotonic()
        while "deleted" in why and job["set"] in {name for name, _ in list(_Features.held)}:
            assert time.monotonic() - begin < 60, "features of a set that is gone are still held"
            time.sleep(0.01)
    assert found["state"] == "failed"
    assert found["error"]["code"] == ("expired" if "deleted" in why else "memory")
    assert len(matched) < 6


def test_weights_that_are_missing_are_offered_before_a_set_is_begun(
    photographs: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path))
    with serving() as (client, _):
        images = [send(client, path) for path in photographs[:2]]
        answer = ask(client, "pairs", images=images, options={"features": "disk"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (503, "weights_missing", "features")
    assert error["weights"][0]["licence"]


def test_others_have_their_turn_between_two_pairs(photographs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "TURN_S", 0.0)
    order: list[str] = []
    may_go_on = Event()

    def before(task: str, given: Any, stop: Event) -> None:
        order.append(task)
        if task == "pair-of-set":
            assert may_go_on.wait(60)

    with serving(before=before) as (client, _):
        job = started(client, photographs)
        one = ask(
            client, "match", image0=send(client, photographs[0]), image1=send(client, photographs[1]), options=OPTIONS
        )
        may_go_on.set()
        assert ended(client, one.json()["id"])["state"] == "done"
        assert ended(client, job["id"])["state"] == "done"
    assert order.count("pair-of-set") == 6
    assert order.index("match") < [i for i, task in enumerate(order) if task == "pair-of-set"][2]


def test_an_image_that_cannot_be_used_is_left_out_with_the_reason(photographs: list[Path]) -> None:
    def before(task: str, given: Any, stop: Event) -> None:
        if task == "extract-of-set" and given["number"] == 1:
            raise FailureError.of(500, "crashed", "The process that worked on this ended unexpectedly.")

    with serving(before=before) as (client, worker):
        job = started(client, photographs[:3])
        assert ended(client, job["id"])["state"] == "done"
        found = client.get(f"/api/v1/pairs/{job['set']}").json()
        assert [image["error"] for image in found["images"]] == [
            None,
            "The process that worked on this ended unexpectedly.",
            None,
        ]
        assert {(pair["i"], pair["j"]): "error" in pair for pair in found["pairs"]} == {
            (0, 1): True,
            (1, 2): True,
            (0, 2): False,
        }
        events = client.get(f"/api/v1/jobs/{job['id']}/events").text
        assert events.count("event: pair") == 3
        assert events.count("event: image") == 1
        assert worker.done.count("pair-of-set") == 1
        failed = ask(client, f"pairs/{job['set']}/0/1?wait=60")
        assert (failed.status_code, failed.json()["error"]["code"]) == (500, "crashed")


def test_an_image_without_keypoints_has_pairs_without_matches_and_a_reason(
    photographs: list[Path], tmp_path: Path
) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((120, 160, 3), np.uint8))
    with serving() as (client, _):
        job = started(client, [photographs[0], tmp_path / "black.png"])
        assert ended(client, job["id"])["state"] == "done"
        found = client.get(f"/api/v1/pairs/{job['set']}").json()
        assert found["images"][1]["warning"] == "it has no keypoints: it is black"
        assert (found["images"][1]["keypoints"], found["pairs"][0]["matches"]) == (0, 0)
        assert client.get(f"/api/v1/pairs/{job['set']}/colmap").status_code == 200
        (warning,) = ask(client, f"pairs/{job['set']}/0/1?wait=60").json()["warnings"]
        assert warning == "black.png has no keypoints: it is black"


def test_features_that_a_new_process_does_not_have_are_extracted_again(photographs: list[Path]) -> None:
    def before(task: str, given: Any, stop: Event) -> None:
        if task == "pair-of-set" and given["numbers"] == (0, 2) and "images" not in given:
            if not again:
                _Features.held.clear()  # as if the process had died
            again.append(1)

    again: list[int] = []
    with serving(before=before) as (client, worker):
        job = started(client, photographs[:3])
        assert ended(client, job["id"])["state"] == "done"
        assert len(again) == 2
        assert worker.done.count("extract-of-set") == 5
        found = client.get(f"/api/v1/pairs/{job['set']}").json()["pairs"]
    assert all(pair["matches"] > 20 for pair in found)


def test_a_process_that_died_once_costs_nothing(photographs: list[Path]) -> None:
    seen: list[str] = []

    def before(task: str, given: Any, stop: Event) -> None:
        seen.append(task)
        if seen.count(task) == 2:
            raise FailureError.of(500, "crashed", "The process that worked on this ended unexpectedly.")

    with serving(before=before) as (client, _):
        job = started(client, photographs[:3])
        assert ended(client, job["id"])["state"] == "done"
        found = client.get(f"/api/v1/pairs/{job['set']}").json()
    assert not any("error" in pair for pair in found["pairs"])
    assert not any(image["error"] for image in found["images"])


@pytest.mark.parametrize(
    ("content", "field", "says"),
    [
        ({"images": ["one"]}, "images", "1 are given; give from 2 to 3"),
        ({"images": ["a", "b", "c", "d"]}, "images", "4 are given"),
        ({"images": ["a", "a"]}, "images", "each once"),
        ({"images": "ab"}, "images", "name images"),
        ({"names": ["a.jpg"]}, "names", "each image"),
        ({"names": ["../a.jpg", "b.jpg"]}, "names", "each image"),
        ({"names": ["a\n.jpg", "b.jpg"]}, "names", "each image"),
        ({"options": {"geometry": "relative_pose"}}, "geometry", "camera0"),
        ({"options": {"max_keypoints": 1e9}}, "max_keypoints", "max_keypoints"),
        ({"options": {"sigma": 1}}, "sigma", "no option"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(
    photographs: list[Path], content: dict[str, Any], field: str, says: str
) -> None:
    with serving(WebOptions(limits=Limits(batch=3))) as (client, _):
        if "images" not in content:
            content = {"images": [send(client, path) for path in photographs[:2]], **content}
        answer = ask(client, "pairs", **content)
        assert answer.status_code == 422, answer.text
        error = answer.json()["error"]
        assert error["field"] == field
        assert says in error["message"]


def test_a_set_and_a_pair_that_are_not_there(photographs: list[Path]) -> None:
    with serving() as (client, _):
        assert ask(client, "pairs", images=["a", "b"]).status_code == 404
        assert client.get("/api/v1/pairs/none").status_code == 404
        job = started(client, photographs[:2])
        ended(client, job["id"])
        for wrong in ("1/0", "0/2", "0/0"):
            assert ask(client, f"pairs/{job['set']}/{wrong}").status_code == 404


def test_names_that_occur_again_get_a_number() -> None:
    assert unique_names(["a.jpg", "a.jpg", "a-2.jpg", ".x", ".x"]) == ["a.jpg", "a-2.jpg", "a-2-2.jpg", ".x", ".x-2"]
