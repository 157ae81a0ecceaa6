"""The REST service: what it gives is what `lightglue match` gives, and nobody can make it do anything else."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from lightglue import WeightsError, load_image
from lightglue.models.choice import Models
from lightglue.models.registry import FEATURES
from lightglue.pairs.options import PairOptions
from lightglue.web import create_app, models_there
from lightglue.web.options import Limits, WebOptions
from support import CLOSE, FAR
from support.command import lightglue
from support.web import serving
from support.web_here import API, encoded, error_of, png, send, service

FEW = {"max_keypoints": 128, "resize": 256, "device": "cpu"}
PAIR = b'{"image0": "example-0", "image1": "example-1", %s}'
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A service with little patience for keypoints."""
    with service(WebOptions(device="cpu", limits=Limits(most_keypoints=2048, batch=5))) as found:
        yield found


def matched(client: TestClient, image0: str, image1: str, wait: float = 100, **more: Any) -> Any:
    options = {**FEW, **more.pop("options", {})}
    return client.post(
        f"{API}/match?wait={wait:g}", json={"image0": image0, "image1": image1, "options": options, **more}
    )


@pytest.fixture(scope="module")
def pair(client: TestClient) -> dict[str, Any]:
    """The bundled photographs, matched."""
    found: dict[str, Any] = matched(client, "example-0", "example-1").json()
    return found


# -- equal to `lightglue match` --


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Two photographs; one of them and itself turned by EXIF, as a phone stores it; one and a warped part of it."""
    folder = tmp_path_factory.mktemp("pairs")
    image = cv2.imread(str(FAR))[..., ::-1]
    turned = encoded(
        np.rot90(image).copy(),
        "JPEG",
        quality=95,
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    )
    H = np.array([[1.1, 0.1, -60], [-0.08, 1.2, -20], [1e-4, 0, 1]])
    warped = encoded(cv2.warpPerspective(image, H, (500, 400)), "PNG")
    (folder / "turned.jpg").write_bytes(turned)
    (folder / "warped.png").write_bytes(warped)
    return {"places": (CLOSE, FAR), "turned": (FAR, folder / "turned.jpg"), "warped": (FAR, folder / "warped.png")}


SETS: dict[str, dict[str, Any]] = {
    "homography": {"geometry": "homography", "min_overlap": 0.3},
    "xfeat, few": {"features": "xfeat", "filter_threshold": 0.4, "geometry": "fundamental", "estimator": "opencv"},
    "rotation, cameras": {"auto_rotate": True, "geometry": "relative_pose", "camera0": "auto", "camera1": "auto"},
    "fast, refined": {"effort": "fast", "refine": True, "layers": 7, "geometry": "homography", "threshold": 1.5},
}


def words_of(options: dict[str, Any]) -> list[str]:
    """The same options on a command line."""
    words = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return words


@pytest.mark.parametrize("which", ["places", "turned", "warped"])
@pytest.mark.parametrize("name", SETS)
def test_the_service_gives_what_the_command_gives(
    client: TestClient, pairs: dict[str, tuple[Path, Path]], which: str, name: str
) -> None:
    options, files = {**FEW, **SETS[name]}, pairs[which]
    said = lightglue("match", *files, "--json", *words_of(options))
    assert said.code == 0, said.err
    expected = json.loads(said.out)
    parts = {f"image{i}": (path.name, path.read_bytes()) for i, path in enumerate(files)}
    answer = client.post(f"{API}/match?wait=100", files=parts, data={"options": json.dumps(options)})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["options"] == options
    # as a file
    file = client.get(f"{API}/results/{found['id']}/json").json()
    for key in (
        "keypoints0",
        "keypoints1",
        "matches",
        "scores",
        "points0",
        "points1",
        "inliers",
        "stop",
        "overlap",
        "rotation",
    ):
        assert file.get(key) == expected.get(key), key
    assert file.get("model") == expected["model"]
    # as the page shows it
    for name in ("keypoints0", "keypoints1"):
        assert (np.float32(found[name]) == np.float32(expected[name]).ravel()).all()
    shown = [k for k, score in enumerate(found["scores"]) if np.float32(score) > np.float32(found["threshold"])]
    matches = np.reshape(found["matches"], (-1, 2))
    assert {tuple(matches[k]): np.float32(found["scores"][k]) for k in shown} == {
        tuple(match): np.float32(score) for match, score in zip(expected["matches"], expected["scores"], strict=True)
    }
    geometry = found["geometry"]
    assert geometry["matrix"] == expected["model"]
    agree = {tuple(match) for match, inside in zip(expected["matches"], expected["inliers"], strict=True) if inside}
    assert {tuple(matches[k]) for k in geometry["inliers"]} == agree
    assert found["scores"] == sorted(found["scores"], reverse=True)
    images = [(image["width"], image["height"]) for image in found["images"]]
    assert images == [load_image(path).shape[:0:-1] for path in files], "upright"


def test_a_higher_threshold_afterwards_is_a_match_at_that_threshold(client: TestClient, pair: dict[str, Any]) -> None:
    options = {"geometry": "homography", "filter_threshold": 0.5}
    expected = json.loads(lightglue("match", CLOSE, FAR, "--json", *words_of({**FEW, **options})).out)
    file = client.get(f"{API}/results/{pair['id']}/json", params=options).json()
    assert file["matches"] == expected["matches"]
    assert file["model"] == expected["model"]
    again = client.post(f"{API}/geometry", json={"result": pair["id"], "options": options}).json()
    assert again["matrix"] == expected["model"]
    assert (again["num_matches"], len(again["inliers"])) == (expected["num_matches"], expected["num_inliers"])
    matches = np.reshape(pair["matches"], (-1, 2)).tolist()
    rows = [expected["matches"][i] for i in np.flatnonzero(expected["inliers"])]
    assert sorted(matches[k] for k in again["inliers"]) == sorted(rows)


@pytest.mark.parametrize("path", ["/", "/api", "/static/main.js"])
def test_the_head_of_a_page_can_be_asked_for_alone(client: TestClient, path: str) -> None:
    head, whole = client.head(path), client.get(path)
    assert (head.status_code, whole.status_code) == (200, 200)
    tag = head.headers["etag"]
    assert tag == whole.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        assert client.get(path, headers={"If-None-Match": known}).status_code == 304


def test_the_stored_pair_is_what_a_match_gives(client: TestClient) -> None:
    stored = client.get(f"{API}/results/example").json()
    made = client.post(
        f"{API}/match?wait=100",
        json={"image0": "example-0", "image1": "example-1", "options": {**stored["options"], "device": "cpu"}},
    ).json()
    assert np.allclose(stored["keypoints0"], made["keypoints0"], atol=0.02)
    shared = set(map(tuple, np.reshape(stored["matches"], (-1, 2)))) & set(
        map(tuple, np.reshape(made["matches"], (-1, 2)))
    )
    assert len(shared) > 0.97 * len(stored["scores"])
    assert set(made) == set(stored) | {"seconds"}  # of another machine


def test_two_requests_at_once_with_different_options_are_as_alone(client: TestClient) -> None:
    asked = [{"max_keypoints": count, "filter_threshold": count / 1000} for count in (40, 80)]
    alone = [matched(client, "example-0", "example-1", options=options).json() for options in asked]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda options: matched(client, "example-0", "example-1", options=options).json(), asked)
        )
    for one, other in zip(alone, together, strict=True):
        assert one["id"] != other["id"]
        for key in ("keypoints0", "keypoints1", "matches", "scores", "threshold", "options"):
            assert one[key] == other[key]


# -- a job --


def test_a_job_is_named_followed_and_done(client: TestClient) -> None:
    answer = client.post(f"{API}/match", json={"image0": "example-0", "image1": "example-1", "options": FEW})
    assert answer.status_code == 202
    job = answer.json()["job"]
    with client.stream("GET", f"{API}/jobs/{job}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        text = "".join(stream.iter_text())
    events = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    assert events[-1]["event"] == "done"
    stages = [json.loads(each["data"])["progress"]["stage"] for each in events]
    assert {"reading", "extracting", "matching"} <= set(stages)
    last = json.loads(events[-1]["data"])
    assert last == client.get(f"{API}/jobs/{job}").json()
    assert client.get(f"{API}/results/{last['result']}").json()["id"] == last["result"]
    rest = client.get(f"{API}/jobs/{job}/events", headers={"Last-Event-ID": str(len(events) - 1)}).text
    assert rest.count("event: ") == 1


def test_a_cancelled_job_says_so_and_the_next_one_works() -> None:
    with service(WebOptions(device="cpu")) as client:
        asked = {"image0": "example-0", "image1": "example-1", "options": {**FEW, "max_keypoints": 100}}
        jobs = [client.post(f"{API}/match", json=asked).json()["id"] for _ in range(3)]
        client.delete(f"{API}/jobs/{jobs[1]}")
        states = {}
        for job in jobs:
            while (state := client.get(f"{API}/jobs/{job}").json()["state"]) in ("queued", "running"):
                time.sleep(0.01)
            states[job] = state
        assert list(states.values()) == ["done", "cancelled", "done"]


def test_a_flood_gives_429_with_a_time_and_loses_nothing() -> None:
    limits = Limits(queue=2)
    with service(WebOptions(device="cpu", limits=limits)) as client:
        asked = {"image0": "example-0", "image1": "example-1", "options": FEW}
        answers = [client.post(f"{API}/match", json=asked) for _ in range(12)]
        taken = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        busy = [answer for answer in answers if answer.status_code == 429]
        assert len(taken) + len(busy) == 12
        assert busy
        assert all(answer.headers["retry-after"].isdecimal() for answer in busy)
        for job in taken:
            while (state := client.get(f"{API}/jobs/{job}").json()["state"]) in ("queued", "running"):
                time.sleep(0.01)
            assert state == "done"


# -- files --


def test_arrays_come_without_pickle(client: TestClient, pair: dict[str, Any]) -> None:
    answer = client.get(f"{API}/results/{pair['id']}/npz")
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
        assert arrays["keypoints0"].dtype == np.float32
        assert arrays["keypoints0"].ravel().tolist() == np.asarray(pair["keypoints0"], np.float32).tolist()
    assert answer.headers["content-disposition"].startswith(
        'attachment; filename="montmartre_close-montmartre_far.npz"'
    )


@pytest.mark.parametrize("kind", ["png", "csv", "html"])
def test_files_are_those_of_the_command(client: TestClient, kind: str) -> None:
    asked = {"max_keypoints": 20, "resize": 160}
    few = matched(client, "example-0", "example-1", options=asked).json()
    answer = client.get(f"{API}/results/{few['id']}/{kind}")
    beginning = {"png": b"\x89PNG", "csv": b"x0,y0,x1,y1", "html": b"<!DOCTYPE html>"}
    assert answer.content.startswith(beginning[kind])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("refine", [False, True])
def test_a_pair_is_a_colmap_database_too(client: TestClient, tmp_path: Path, refine: bool) -> None:
    found = matched(client, "example-0", "example-1", options={"refine": refine}).json()
    answer = client.get(f"{API}/results/{found['id']}/colmap?filter_threshold=0.3")
    path = tmp_path / "a.db"
    path.write_bytes(answer.content)
    with sqlite3.connect(path) as database:
        names = [name for (name,) in database.execute("SELECT name FROM images ORDER BY name")]
        counts = [count for (count,) in database.execute("SELECT rows FROM keypoints ORDER BY image_id")]
        ((rows, data),) = database.execute("SELECT rows, data FROM matches").fetchall()
        (first,) = database.execute("SELECT data FROM keypoints WHERE image_id = 1").fetchone()
    database.close()
    assert names == [CLOSE.name, FAR.name]
    strong = sum(np.float32(score) > np.float32(0.3) for score in found["scores"])
    assert rows == strong
    assert counts == ([strong, strong] if refine else [128, 128])
    if not refine:  # COLMAP's origin is the corner of the first pixel
        positions = np.frombuffer(first, np.float32).reshape(128, -1)[:, :2]
        assert np.allclose(positions - 0.5, np.reshape(found["keypoints0"], (-1, 2)), atol=1e-4)
        matches = np.frombuffer(data, np.uint32).reshape(-1, 2)
        shown = np.reshape(found["matches"], (-1, 2))[:strong]
        assert {tuple(match) for match in matches} == {tuple(match) for match in shown}


def test_features_are_those_of_the_command(client: TestClient, tmp_path: Path) -> None:
    lightglue("extract", CLOSE, "-o", tmp_path, *words_of(FEW))
    answer = client.post(f"{API}/extract?wait=60", json={"image": "example-0", "options": FEW}).json()
    with (
        np.load(tmp_path / f"{CLOSE.name}.npz") as expected,
        np.load(io.BytesIO(client.get(f"{API}/results/{answer['id']}/npz").content)) as found,
    ):
        assert set(found) == set(expected)
        assert all((found[name] == expected[name]).all() for name in expected)
        assert answer["keypoints"] == [float(text) for text in expected["keypoints"].ravel().astype(str)]
    other = client.post(f"{API}/extract", json={"image": "example-0", "options": {"geometry": "homography"}})
    assert error_of(other) == (422, "option", "geometry")


def test_masks_and_keypoints_of_the_users_own(client: TestClient) -> None:
    black = np.zeros((438, 640), np.uint8)
    black[:, :320] = 255
    mask = base64.b64encode(encoded(black, "PNG")).decode()
    left = matched(client, "example-0", "example-1", masks={"0": f"data:image/png;base64,{mask}"}).json()
    assert max(left["keypoints0"][::2]) < 320
    points = [[100.0, 100.0], [200.5, 150.25], [300.0, 222.0]]
    own = matched(client, "example-0", "example-1", keypoints={"0": points}).json()
    assert np.reshape(own["keypoints0"], (-1, 2)).tolist() == points
    for wrong in ([], [[1]], [[1, "x"]], [[1, 1e12]], "abc", [[float(10**9), 1]]):
        assert error_of(matched(client, "example-0", "example-1", keypoints={"0": wrong}))[1:] == ("input", "keypoints")
    outside = error_of(matched(client, "example-0", "example-1", keypoints={"0": [[9000, 3]]}))
    assert outside == (422, "input", "keypoints")
    both = error_of(matched(client, "example-0", "example-1", keypoints={"0": points}, options={"auto_rotate": True}))
    assert both == (422, "input", "keypoints")


# -- images --


def test_an_image_is_shown_upright_and_small(client: TestClient, pairs: dict[str, tuple[Path, Path]]) -> None:
    data = pairs["turned"][1].read_bytes()
    sent = send(client, data, "phone.jpg")
    assert sent.status_code == 201
    image = sent.json()
    assert (image["width"], image["height"], image["name"], image["bytes"]) == (640, 448, "phone.jpg", len(data))
    shown = client.get(f"{API}/images/{image['id']}")
    decoded = cv2.imdecode(np.frombuffer(shown.content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert decoded.shape == (448, 640, 3), "browsers need turn nothing"
    small = client.get(f"{API}/images/{image['id']}/thumbnail").content
    assert max(cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR).shape) == 192
    assert client.delete(f"{API}/images/{image['id']}").status_code == 204
    assert error_of(client.get(f"{API}/images/{image['id']}")) == (410, "expired", None)


def test_what_a_browser_would_show_is_given_as_it_is_and_the_rest_as_jpeg(client: TestClient) -> None:
    for kind in ("PNG", "TIFF", "BMP", "WEBP"):
        data = encoded(np.zeros((8, 9, 3), np.uint8), kind)
        image = send(client, data, f"a.{kind.lower()}").json()["id"]
        shown = client.get(f"{API}/images/{image}")
        assert (shown.content == data) is (kind in ("PNG", "WEBP"))
        assert shown.headers["content-type"] == {"PNG": "image/png", "WEBP": "image/webp"}.get(kind, "image/jpeg")


# -- abuses --


def png_of(width: int, height: int) -> bytes:
    """A header that promises more than there is."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0" * 50


def test_a_bomb_is_refused_from_its_header(client: TestClient) -> None:
    begin = time.process_time()
    answer = send(client, png_of(60_000, 60_000))
    assert error_of(answer) == (413, "pixels", "file")
    assert "60000 x 60000 is 3600 megapixels" in answer.json()["error"]["message"]
    assert time.process_time() - begin < 2
    too_long = send(client, png_of(70_000, 100))
    assert error_of(too_long) == (413, "pixels", "file")
    assert "70000 x 100 px" in too_long.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("empty.png", b"", (415, "image")),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", (415, "image")),
        ("a.html", b"<!doctype html><script>alert(1)</script>", (415, "image")),
        ("a.gif", b"GIF89a\x10\0\x10\0" + b"\0" * 50, (415, "image")),
        ("a.pnm", b"P6 8 8 255\n" + b"\0" * 192, (415, "image")),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 50, (415, "image")),
        ("a.mp4", b"\0\0\0\x18ftypmp42" + b"\0" * 50, (415, "image")),
        ("a.zip", b"PK\x03\x04" + b"\0" * 50, (415, "image")),
        ("cut.jpg", CLOSE.read_bytes()[:3000], (422, "image")),
        ("cut.png", png(300, 300)[:3000], (422, "image")),
        ("promise.png", png_of(500, 500), (422, "image")),
        ("zero.png", png_of(0, 10), (422, "image")),
    ],
)
def test_what_is_no_whole_image_is_refused_with_its_name(
    client: TestClient, name: str, data: bytes, expected: tuple[int, str]
) -> None:
    answer = send(client, data, name)
    assert error_of(answer)[:2] == expected
    assert answer.json()["error"]["message"].startswith(name)


def test_an_image_whose_values_have_no_range_is_named_with_the_option_that_helps(client: TestClient) -> None:
    values = np.random.default_rng(0).random((200, 300)).astype(np.float32)
    image = send(client, encoded(values, "TIFF"), "heights.tif").json()["id"]
    answer = matched(client, "example-0", image)
    assert error_of(answer) == (422, "image", "image1")
    text = answer.json()["error"]["message"]
    assert text.startswith("heights.tif: this TIFF holds float32 samples")
    assert "the option stretch" in text
    assert error_of(client.post(f"{API}/extract?wait=60", json={"image": image}))[1:] == ("image", "image")
    assert matched(client, "example-0", image, options={"stretch": True}).status_code == 200


def test_a_polyglot_is_served_as_the_image_that_it_begins_as(client: TestClient) -> None:
    data = png() + b"<script>alert(1)</script>"
    shown = client.get(f"{API}/images/{send(client, data, 'a.html').json()['id']}")
    assert (shown.headers["content-type"], shown.headers["x-content-type-options"]) == ("image/png", "nosniff")


NAMES = [
    "../../etc/passwd", "..\\x.png", '<img src=x onerror="alert(1)">.png', "a\r\nSet-Cookie: x=1.png",
    'a".png; filename="b', "\u202egnp.exe", "x" * 5000 + ".png", "\x1b[2J.png", "照片.png",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_is_text_and_nothing_else(client: TestClient, name: str) -> None:
    sent = send(client, png(), name)
    if sent.status_code != 201:  # the form itself is broken by it
        assert error_of(sent)[0] == 422
        return
    shown = sent.json()["name"]
    assert len(shown) <= 200
    assert not set("\r\n\x1b\u202e/") & set(shown)
    found = matched(client, sent.json()["id"], "example-1").json()
    header = client.get(f"{API}/results/{found['id']}/csv").headers["content-disposition"]
    assert header.isascii()
    assert header.count('"') == 2
    assert "\n" not in header
    assert "set-cookie" not in client.get(f"{API}/results/{found['id']}/csv").headers


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_keypoints": 10**6}, "max_keypoints"),
        ({"max_keypoints": -1}, "max_keypoints"),
        ({"max_keypoints": 1e308}, "max_keypoints"),
        ({"max_keypoints": "9" * 5000}, "max_keypoints"),
        ({"max_keypoints": [[]]}, "max_keypoints"),
        ({"max_keypoints": True}, "max_keypoints"),
        ({"max_keypoints": {"a": 1}}, "max_keypoints"),
        ({"resize": 10**9}, "resize"),
        ({"pyramid": [1, 1e9]}, "pyramid"),
        ({"filter_threshold": "nan"}, "filter_threshold"),
        ({"filter_threshold": "inf"}, "filter_threshold"),
        ({"seed": -1, "geometry": "homography"}, "seed"),
        ({"features": "__class__"}, "features"),
        ({"features": ["aliked"]}, "features"),
        ({"auto_rotate": 1}, "auto_rotate"),
        ({"auto_rotate": "yes"}, "auto_rotate"),
        ({"mask0": "/etc/passwd"}, "mask0"),
        ({"weights": "/etc/passwd"}, "weights"),
        ({"output": "/tmp/x"}, "output"),
        ({"camera0": "/etc/passwd", "camera1": "auto", "geometry": "essential"}, "camera0"),
        ({"geometry": "homography", "threshold": 1e9}, "threshold"),
        ({"max_keypoint": 12}, "max_keypoint"),
        ({"rotation_step": 45}, "rotation_step"),
        ({f"x{i}": 1 for i in range(100_000)}, "x0"),
    ],
)
def test_options_are_checked_before_anything_is_done(client: TestClient, options: dict[str, Any], field: str) -> None:
    answer = client.post(f"{API}/match", json={"image0": "example-0", "image1": "example-1", "options": options})
    assert error_of(answer) == (422, "option", field)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"null", b'{"options": NaN}', b'{"options": Infinity}', b"[" * 100_000,
     b'{"a":' * 100_000, b"\xff\xfe",
     b'{"image0": "a", "image0": "b"}', b'{"options": 5}', b'{"image0": ["a"]}', b'{"image0": "example-0"}',
     PAIR % b'"masks": {"0": "####%s"}' % (b" no base64" * 9), PAIR % b'"masks": {"2": "x"}', PAIR % b'"masks": []',
     PAIR % b'"options": {"seed": %s}' % (b"9" * 10_000)],
)  # fmt: skip
def test_what_is_no_request_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(f"{API}/match", content=body, headers={"content-type": "application/json"})
    assert error_of(answer)[0] == 422


def test_what_is_wrong_is_said_at_its_part(client: TestClient) -> None:
    def post(path: str, **content: Any) -> tuple[int, str, str | None]:
        return error_of(client.post(f"{API}/{path}", json=content))

    images = {"image0": "example-0", "image1": "example-1"}
    assert post("match", **images, option={"max_keypoints": 9}) == (422, "input", "option")
    assert post("match", **{**images, "image1": "none"}) == (404, "unknown", "image1")
    assert post("match", **images, masks={"1": "none"}) == (404, "unknown", "mask1")
    assert post("geometry", result="none", options={"geometry": "homography"}) == (404, "unknown", "result")
    assert post("geometry", result="example", options={}) == (422, "input", "geometry")
    assert post("extract", image="none") == (404, "unknown", "image")
    cut_off = client.post(f"{API}/match", files={"image0": ("a.png", png()), "image1": ("b.png", png()[:300])})
    assert error_of(cut_off) == (422, "image", "image1")


def test_only_a_pair_has_a_geometry(client: TestClient) -> None:
    options = {"max_keypoints": 16, "resize": 128}
    features = client.post(f"{API}/extract?wait=100", json={"image": "example-0", "options": options}).json()["id"]
    answer = client.post(f"{API}/geometry", json={"result": features, "options": {"geometry": "homography"}})
    assert error_of(answer) == (422, "input", "result")


def test_a_mask_is_checked_as_an_image_is(client: TestClient) -> None:
    bomb = base64.b64encode(png_of(60_000, 60_000)).decode()
    assert error_of(matched(client, "example-0", "example-1", masks={"0": bomb})) == (413, "pixels", "mask0")
    small = base64.b64encode(encoded(np.zeros((4, 4), np.uint8), "PNG")).decode()
    answer = matched(client, "example-0", "example-1", masks={"1": small})
    assert error_of(answer)[:2] == (422, "input")


@pytest.mark.parametrize("path", [
    "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static/%2e%2e%2fapp.py",
    "/static//etc/passwd", "/static/app.py", "/static/", "/static", "/app.py",
    "/static/..\\app.py", "/static/index.html%00.js",
    "/docs", "/redoc", "/openapi.json", "/static/main.js/",
    "/api/v1/results/example/..%2f..%2fetc", "/api/v1/results/example/py",
    "/api/v1/maps/..%2f..%2fetc/images/0", "/api/v1/images/..%2f..%2fsetup.py",
])  # fmt: skip
def test_nothing_is_served_but_what_is_in_the_tables(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert error_of(answer)[1] == "unknown"


def test_a_result_is_for_those_who_have_its_name(client: TestClient, pair: dict[str, Any]) -> None:
    assert len(pair["id"]) >= 24
    for path in ("results", "images", "jobs", f"results/{pair['id'][:-1]}", f"results/{pair['id']}x"):
        assert client.get(f"{API}/{path}").status_code in (404, 405)


def test_after_its_time_nothing_is_left() -> None:
    with service(WebOptions(device="cpu", limits=Limits(keep_minutes=1))) as client:
        sent = send(client, png()).json()["id"]
        store = client.app.state.service.images  # type: ignore[attr-defined]
        assert client.get(f"{API}/images/{sent}").status_code == 200
        store._clock = lambda: time.monotonic() + 61
        assert error_of(client.get(f"{API}/images/{sent}")) == (410, "expired", None)
        assert (len(store), store.size) == (0, 0)
        state = client.app.state.service  # type: ignore[attr-defined]
    assert (len(state.images), len(state.results)) == (0, 0)


def test_what_is_made_of_an_image_that_was_deleted_meanwhile_is_not_kept() -> None:
    begun, may_go_on = Event(), Event()

    def before(task: str, given: Any, stop: Event) -> None:
        begun.set()
        assert may_go_on.wait(60)

    with serving(before=before) as (client, _):
        sent = send(client, png()).json()["id"]
        options = {"features": "sift", "matcher": "nearest"}
        job = client.post(f"{API}/match", json={"image0": sent, "image1": "example-1", "options": options}).json()["id"]
        assert begun.wait(60)
        assert client.delete(f"{API}/images/{sent}").status_code == 204
        may_go_on.set()
        while (found := client.get(f"{API}/jobs/{job}").json())["state"] == "running":
            time.sleep(0.01)
    assert (found["state"], found["error"]["code"]) == ("failed", "expired")


def test_an_image_that_is_gone_takes_what_was_made_of_it_along_so_that_nothing_holds_it() -> None:
    limits = Limits(images_mb=1)
    with service(WebOptions(device="cpu", limits=limits)) as client:
        noise = [encoded(np.random.default_rng(i).integers(0, 255, (280, 400, 3), np.uint8), "PNG") for i in range(3)]
        assert 300_000 < len(noise[0]) < 450_000
        first, second = (send(client, data).json()["id"] for data in noise[:2])
        found = matched(client, first, second).json()["id"]
        other = matched(client, second, "example-0").json()["id"]
        assert client.get(f"{API}/results/{found}").status_code == 200
        send(client, noise[2])  # for which the first must go
        assert error_of(client.get(f"{API}/images/{first}")) == (410, "expired", None)
        assert error_of(client.get(f"{API}/results/{found}")) == (410, "expired", None)
        assert client.get(f"{API}/results/{other}/npz").status_code == 200
        state = client.app.state.service  # type: ignore[attr-defined]
        assert state.images.size < 1_000_000
        held = [job.work for job in state.jobs._known.values()]
        assert len({id(work) for work in held}) == 1, "no job that has ended holds an image"


def test_uploads_are_never_written_to_the_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def rollover(*_: Any) -> None:
        raise AssertionError("an upload was written to the disk")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", rollover)
    noise = np.random.default_rng(0).integers(0, 255, (1100, 1100, 3), np.uint8)
    data = encoded(noise, "PNG")
    assert len(data) > 3_000_000
    assert send(client, data).status_code == 201


def test_a_form_holds_what_is_asked_for_and_no_more(client: TestClient) -> None:
    many = [("file", (f"{i}.png", png())) for i in range(5)]
    assert error_of(client.post(f"{API}/images", files=many))[:2] == (422, "form")
    assert error_of(client.post(f"{API}/images", data={"a": "b"}))[0] == 415
    assert error_of(client.post(f"{API}/images", files={"other": ("a.png", png())})) == (422, "form", "file")
    assert error_of(client.post(f"{API}/match", files={"url": ("a", b"http://x")})) == (422, "form", "url")
    fields = {f"f{i}": "x" for i in range(1000)}
    assert error_of(client.post(f"{API}/match", data=fields, files={"image0": ("a.png", png())}))[0] == 422
    broken = client.post(
        f"{API}/images", content=b"--x\r\nabc", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert error_of(broken)[0] == 422
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x; charset=undefined"):
        content = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\na\r\n--x--\r\n'
        answer = client.post(f"{API}/images", content=content, headers={"content-type": kind})
        assert error_of(answer)[:2] == (415 if "charset" in kind else 422, "form")
    twice = [("image0", ("a.png", png())), ("image0", ("b.png", png()))]
    assert error_of(client.post(f"{API}/match", files=twice)) == (422, "form", "image0")


def test_a_file_larger_than_the_limit_is_refused() -> None:
    with service(WebOptions(limits=Limits(upload_mb=1))) as client:
        answer = send(client, b"\xff\xd8\xff" + b"\0" * 1_100_000)
        assert error_of(answer) == (413, "too_large", "file")
        assert error_of(send(client, b"\xff\xd8\xff" + b"\0" * 6_000_000)) == (413, "too_large", None)


def test_a_body_of_unknown_length_is_counted_before_the_framework_sees_it() -> None:
    def parts(count: int) -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        yield from (b"\xff" * 500_000 for _ in range(count))
        yield b"\r\n--x--\r\n"

    form, text = {"content-type": "multipart/form-data; boundary=x"}, {"content-type": "application/json"}
    with service(WebOptions(limits=Limits(upload_mb=1))) as client:
        assert error_of(client.post(f"{API}/images", content=parts(1), headers=form))[0] == 415
        assert error_of(client.post(f"{API}/images", content=parts(3), headers=form)) == (413, "too_large", "file")
        assert error_of(client.post(f"{API}/images", content=parts(20), headers=form)) == (413, "too_large", None)
        spaces = (b" " * 1_000_000 for _ in range(20))
        assert error_of(client.post(f"{API}/match", content=spaces, headers=text)) == (413, "too_large", None)


def test_the_frameworks_own_refusals_have_the_same_form(client: TestClient) -> None:
    answer = client.put(f"{API}/images")
    assert error_of(answer) == (405, "method", None)
    assert answer.headers["allow"] == "POST"
    assert error_of(client.get(f"{API}/nothing")) == (404, "unknown", None)


# -- vocabulary --


def test_the_options_are_those_of_the_command(client: TestClient) -> None:
    found = client.get(f"{API}/options").json()
    entries = {entry["name"]: entry for entry in found["match"]}
    usage = lightglue("match", "--help").out
    flags = set(re.findall(r"(?<=[ ,])--(?!no-)[a-z][a-z0-9-]*", usage))
    files = {"--mask0", "--mask1", "--weights", "--output", "--warp", "--json", "--help"}
    assert {f"--{name.replace('_', '-')}" for name in entries} == flags - files
    assert entries["max_keypoints"]["maximum"] == 2048, "the service's own"
    assert (entries["features"]["default"], entries["features"]["choices"]) == (Models().features, list(FEATURES))
    assert (entries["seed"]["type"], entries["seed"]["minimum"]) == ("integer", 0)
    assert entries["auto_rotate"]["type"] == "boolean"
    assert entries["filter_threshold"] == {
        "name": "filter_threshold", "type": "number", "default": None, "choices": [], "minimum": 0, "maximum": 1,
        "help": "Drop matches that score no more than this; 0.1 by default.", "group": "Matching",
    }  # fmt: skip
    assert entries["estimator"]["default"] == PairOptions().estimator
    assert not [entry for entry in found["match"] if "--" in entry["help"]], "names are those of JSON"
    assert [each["name"] for each in found["features"]] == list(FEATURES)
    assert client.get(f"{API}/health").json()["status"] == "ok"


def test_what_may_be_typed_may_be_sent(client: TestClient) -> None:
    vocabulary = client.app.state.service.vocabulary  # type: ignore[attr-defined]
    assert vocabulary.read({"resize": "none", "pyramid": [1, 0.5], "camera0": [500, 500, 320, 240], "tile": None}) == {
        "resize": None, "pyramid": (1.0, 0.5), "camera0": vocabulary.read({"camera0": "500,500,320,240"})["camera0"],
    }  # fmt: skip
    assert vocabulary.read({"depth_confidence": -1, "max_seconds": "none"}) == {
        "depth_confidence": -1.0,
        "max_seconds": None,
    }


def test_weights_that_are_missing_are_offered_and_not_fetched(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path))
    answer = client.post(
        f"{API}/match", json={"image0": "example-0", "image1": "example-1", "options": {"features": "disk"}}
    )
    assert error_of(answer) == (503, "weights_missing", "features")
    error = answer.json()["error"]
    assert "52.0 MB, licence Apache-2.0" in error["message"]
    assert [file["name"] for file in error["weights"][0]["files"]] == ["disk-depth", "disk_lightglue"]
    assert list(tmp_path.iterdir()) == []
    named = {each["name"]: each["weights"] for each in client.get(f"{API}/options").json()["features"]}
    assert named["disk"] == named["aliked"] == "missing"
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", "1")
    with service() as offline:
        assert error_of(offline.post(f"{API}/weights/disk"))[:2] == (503, "offline")
    assert error_of(client.post(f"{API}/weights/nothing"))[:2] == (422, "input")


def test_weights_are_fetched_when_a_user_asks_and_by_nothing_else(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path))
    fetched: list[tuple[str, str | None]] = []

    def resolve(name: str) -> None:
        fetched.append((name, os.environ.get("LIGHTGLUE_OFFLINE")))
        if name == "disk_lightglue":
            raise WeightsError("disk_lightglue cannot be had: no network.")

    monkeypatch.setattr("lightglue.web.tasks.weights.resolve", resolve)
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", "1")  # as in the process that has the models
    job = client.post(f"{API}/weights/disk").json()["id"]
    while (found := client.get(f"{API}/jobs/{job}").json())["state"] in ("queued", "running"):
        time.sleep(0.01)
    assert fetched == [("disk-depth", None), ("disk_lightglue", None)]
    assert os.environ["LIGHTGLUE_OFFLINE"] == "1"
    assert (found["state"], found["error"]["code"]) == ("failed", "weights")
    assert found["error"]["message"] == "disk_lightglue cannot be had: no network."


@pytest.mark.parametrize("name", FEATURES)
def test_the_files_that_are_offered_are_those_that_models_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def resolve(file: str, **_: Any) -> None:
        read.append(file)
        raise WeightsError("not now")

    monkeypatch.setattr("lightglue.weights.read.resolve", resolve)
    models = Models(name, device="cpu")
    for load in (models.load_extractor, models.load_matcher):
        with contextlib.suppress(WeightsError):
            load()
    assert read == [file.name for file in models_there.files_of(name)]


# -- OpenAPI --


def test_the_interface_is_described_with_the_packages_own_options(client: TestClient) -> None:
    found = client.get(f"{API}/openapi.json").json()
    schemas = found["components"]["schemas"]
    entries = client.get(f"{API}/options").json()["match"]
    assert set(schemas["Options"]["properties"]) == {entry["name"] for entry in entries}
    assert schemas["Options"]["properties"]["max_keypoints"]["maximum"] == 2048
    answer = matched(client, "example-0", "example-1").json()
    assert set(schemas["Pair"]["properties"]) <= set(answer)
    assert set(schemas["Job"]["required"]) <= set(client.post(f"{API}/extract", json={"image": "example-0"}).json())
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(found)))
    assert references <= set(schemas)


def test_the_interface_stays_as_it_is() -> None:
    """What programs rely on: a change of this file is a change for them."""
    document = create_app().openapi()
    found = {
        f"{method.upper()} {path}": {
            "responses": sorted(about["responses"]),
            "parameters": sorted(each["name"] for each in about.get("parameters", [])),
            "bodies": sorted(about.get("requestBody", {}).get("content", {})),
        }
        for path, methods in sorted(document["paths"].items())
        for method, about in sorted(methods.items())
    }
    recorded = Path(__file__).parent / "data" / "web_interface.json"
    assert found == json.loads(recorded.read_text())


def test_its_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/api").text
    assert 'src="static/reference.js"' in page
    for name in ("reference.js", "reference.css", "icon.svg"):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200
        assert client.get(f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    for name, file in client.app.state.static.items():  # type: ignore[attr-defined]
        urls = re.findall(rb"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", file.content)
        assert not [url for url in urls if b"www.w3.org" not in url], name
