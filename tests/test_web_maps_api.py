"""Maps over the interface: what is looked at, photographs localized, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("pycolmap")
from starlette.testclient import TestClient

from lightglue.errors import InputError
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.localization.localizer import Localizer
from lightglue.support.files import read_json, write_json
from lightglue.web import WebOptions
from lightglue.web.open_map import POINT_BYTES
from support import ASSETS
from support.corner import photograph
from support.web import InProcess, send, serving


@pytest.fixture(scope="module")
def served(corner_map: Path) -> Iterator[tuple[TestClient, InProcess]]:
    with serving(WebOptions(maps=(corner_map / "map",))) as found:
        yield found


@pytest.fixture(scope="module")
def client(served: tuple[TestClient, InProcess]) -> TestClient:
    return served[0]


@pytest.fixture
def query(tmp_path: Path) -> Path:
    """A photograph that is not in the map."""
    cv2.imwrite(str(tmp_path / "query.png"), photograph(1.5))
    return tmp_path / "query.png"


def get(client: TestClient, path: str, status: int = 200) -> Any:
    answer = client.get(f"/api/v1/maps{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


def localize(client: TestClient, path: Path, **content: Any) -> Any:
    image = send(client, path)
    return client.post("/api/v1/maps/map/localize?wait=60", json={"image": image, **content})


def test_maps_are_listed_and_described(client: TestClient) -> None:
    (listed,) = get(client, "")["maps"]
    found = get(client, "/map")
    assert listed == {"name": "map", "images": 5, "points": found["points"], "fault": None}
    assert [image["name"] for image in found["images"]] == [f"{number}.png" for number in range(5)]
    assert all(image["has_file"] for image in found["images"])
    assert found["has_report"]
    content = client.get("/api/v1/maps/map/points", params={"version": found["version"]})
    assert len(content.content) == found["points"] * POINT_BYTES == found["points"] * found["point_bytes"]
    assert "max-age" in content.headers["cache-control"]
    seen = get(client, "/map/images/2/points")
    point = get(client, f"/map/points/{seen['points'][0]}")
    assert seen["pixels"][:2] in [each["pixel"] for each in point["images"] if each["image"] == 2]


def test_pictures_are_those_of_the_files(client: TestClient, corner_map: Path) -> None:
    for path, longer in (("", 320), ("/thumbnail", 256)):
        answer = client.get(f"/api/v1/maps/map/images/1{path}")
        assert answer.headers["content-type"] == "image/jpeg"
        seen = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert max(seen.shape) == longer
        wanted = cv2.resize(cv2.imread(str(corner_map / "photographs/1.png")), seen.shape[1::-1])
        assert np.abs(seen.astype(int) - wanted).mean() < 8


def test_a_report_is_shown_with_its_own_style_and_nothing_runs_in_it(client: TestClient, corner_map: Path) -> None:
    answer = client.get("/api/v1/maps/map/report")
    assert answer.content == (corner_map / "map/report.html").read_bytes()
    policies = answer.headers.get_list("content-security-policy")
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "script-src" not in policies[0]
    assert "style-src 'unsafe-inline'" in policies[0]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_photograph_is_localized_as_the_package_does_it(client: TestClient, corner_map: Path, query: Path) -> None:
    found = localize(client, query).json()
    wanted = Localizer.open(corner_map / "map").localize(query)
    assert found["success"]
    assert found["failure"] is None
    assert np.reshape(found["cam_from_world"], (3, 4)).tolist() == wanted.cam_from_world[:3].tolist()  # type: ignore[index]
    assert found["centre"] == wanted.centre.tolist()
    assert (found["num_inliers"], found["num_matches"]) == (wanted.num_inliers, wanted.num_matches)
    assert found["images"] == list(wanted.images)
    # The pose puts the points of the map, named by their rows, where the photograph has them.
    described = get(client, "/map")
    content = client.get("/api/v1/maps/map/points").content
    rows = np.frombuffer(content, np.uint8).reshape(-1, POINT_BYTES)[:, :12].copy().view("<f4")
    points = rows[found["points"]] + described["scene"]["centre"]
    pose, K = np.reshape(found["cam_from_world"], (3, 4)), np.reshape(found["camera"]["K"], (3, 3))
    seen = (points @ pose[:, :3].T + pose[:, 3]) @ K.T
    off = seen[:, :2] / seen[:, 2:] - np.reshape(found["pixels"], (-1, 2))
    assert np.median(np.linalg.norm(off, axis=1)) < 1
    assert len(off) == found["num_inliers"] > 100


def test_the_map_stays_in_memory_for_the_next_photograph(client: TestClient, query: Path) -> None:
    from lightglue.web.tasks.localize import _Warm

    localize(client, query)
    before = _Warm.localizer
    assert localize(client, query).json()["success"]
    assert _Warm.localizer is before
    assert localize(client, query, options={"candidates": 3}).json()["success"]
    assert _Warm.localizer is not before
    assert _Warm.localizer is not None
    assert _Warm.localizer.options.candidates == 3


@pytest.mark.parametrize(
    ("picture", "says"),
    [(np.zeros((240, 320, 3), np.uint8), "no keypoints: it is black"), (None, "too few|no overlap")],
)
def test_an_image_that_is_not_found_says_why(
    client: TestClient, tmp_path: Path, picture: np.ndarray | None, says: str
) -> None:
    if picture is None:
        picture = cv2.resize(cv2.imread(str(ASSETS / "montmartre_far.jpg"))[::-1], (320, 240))
    cv2.imwrite(str(tmp_path / "other.png"), picture)
    found = localize(client, tmp_path / "other.png").json()
    assert (found["success"], "cam_from_world" in found) == (False, False)
    assert __import__("re").search(says, found["failure"])


def test_options_of_a_localization_are_those_of_the_command(client: TestClient, query: Path) -> None:
    for options, field in (
        ({"candidates": 0}, "candidates"),
        ({"candidate": 1}, "candidate"),
        ({"memory": 1}, "memory"),
    ):
        answer = localize(client, query, options=options)
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)
    for content in ({}, {"image": 3}):
        assert client.post("/api/v1/maps/map/localize", json=content).json()["error"]["field"] == "image"
    assert client.post("/api/v1/maps/map/localize", json={"image": "gone"}).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/none", "/map/images/5", "/map/images/-1", "/map/images/5/points", "/map/points/100000", "/..%2fmap", "/%2e%2e"],
)
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    assert get(client, path, 404)["error"]["code"] == "unknown"


def test_a_number_that_is_none_is_refused_in_our_form(client: TestClient) -> None:
    assert get(client, "/map/images/one", 422)["error"]["code"] == "input"


def test_a_map_that_has_changed_or_gone_says_so(corner_map: Path, tmp_path: Path, query: Path) -> None:
    shutil.copytree(corner_map / "map", tmp_path / "map")
    with serving(WebOptions(maps=(tmp_path / "map",))) as (client, _):
        version = get(client, "/map")["version"]
        record = MapFolder(tmp_path / "map").record
        write_json(record, {**read_json(record), "images": str(tmp_path / "moved")})
        assert get(client, f"/map/points/0?version={version}", 410)["error"]["code"] == "expired"
        found = get(client, "/map")
        assert not any(image["has_file"] for image in found["images"])
        assert "no longer where it was" in get(client, "/map/images/0", 422)["error"]["message"]
        assert localize(client, query).json()["success"]  # that needs the features only
        model = tmp_path / "map/models/0/points3D.bin"
        model.write_bytes(model.read_bytes()[:-9])
        error = get(client, "/map", 422)["error"]
        assert "changed after the map was made" in error["message"]
        said = [error["message"]]
        shutil.rmtree(tmp_path / "map")
        said.append(get(client, "/map", 422)["error"]["message"])
        said.append(get(client, "")["maps"][0]["fault"])
        said.append(localize(client, query).json()["error"]["message"])
        assert all("no map in map" in each for each in said[1:])
        assert not any(str(tmp_path) in each for each in said)  # where it lies is nobody's business elsewhere


def test_a_picture_that_cannot_be_read_is_named_without_its_path(corner_map: Path, tmp_path: Path) -> None:
    shutil.copytree(corner_map, tmp_path / "corner")
    record = MapFolder(tmp_path / "corner/map").record
    write_json(record, {**read_json(record), "images": str(tmp_path / "corner/photographs")})
    (tmp_path / "corner/photographs/0.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with serving(WebOptions(maps=(tmp_path / "corner/map",))) as (client, _):
        message = get(client, "/map/images/0", 422)["error"]["message"]
        assert message.startswith("0.png")
        assert str(tmp_path) not in message
        assert client.get("/api/v1/maps/map/images/1").status_code == 200


def test_two_maps_of_one_name_are_both_there(corner_map: Path, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        shutil.copytree(corner_map / "map", tmp_path / parent / "map")
    with serving(WebOptions(maps=(tmp_path / "a/map", tmp_path / "b/map"))) as (client, _):
        assert [each["name"] for each in get(client, "")["maps"]] == ["a-map", "b-map"]
        assert get(client, "/b-map")["points"] > 50


def test_a_folder_that_is_no_map_ends_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="name the folder that `lightglue sfm` wrote"),
        serving(WebOptions(maps=(tmp_path,))),
    ):
        pass


def test_a_service_without_maps_says_so(query: Path) -> None:
    with serving() as (client, _):
        assert get(client, "") == {"maps": []}
        assert client.post("/api/v1/maps/map/localize", json={"image": "x"}).status_code == 404


def test_answers_are_strict_json(client: TestClient) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for path in ("", "/map", "/map/points/0", "/map/images/0/points"):
        assert json.loads(client.get(f"/api/v1/maps{path}").text, parse_constant=refuse) is not None
