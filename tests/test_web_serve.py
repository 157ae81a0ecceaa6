"""`lightglue web` as a user starts it: its address, the documented examples, its end, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")
import uvicorn

from lightglue.errors import InputError, LightGlueError
from lightglue.web import Client, WebOptions
from lightglue.web.client import ServiceError
from lightglue.web.heads import TimedHeads
from lightglue.web.serve import address_of, listen, serve
from support import ROOT, A, B
from support.command import lightglue, plain

PAGE = (ROOT / "docs" / "web-api.md").read_text()


@dataclass
class Served:
    """A running service."""

    process: subprocess.Popen[str]
    url: str
    folder: Path  # its temporary files and its home

    def written(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    words = [sys.executable, "-c", "from lightglue.cli import main; main()", "web", "--no-browser", "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*words, "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.match(r"(http://127\.0\.0\.1:\d+)/ ", line)
    assert found is not None, line + (process.stderr.read() if process.stderr else "")
    yield Served(process, found[1], folder)
    if process.poll() is None:
        process.kill()
    process.communicate()


def examples(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def here(code: str, served: Served) -> str:
    """An example for this service, with the images where they are."""
    return code.replace("http://127.0.0.1:8000", served.url).replace("assets/", f"{A.parent}/")


def test_the_python_of_the_guide_runs_as_written(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = examples("python")
    exec(here(code, served), {})
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ matches, overlap 1\.000, stop \d of 9, pruned \d+% \+ \d+%", said[0])
    assert len(said) == 5
    assert said[-1].startswith("fundamental matrix: ")
    assert (tmp_path / "matches.npz").read_bytes().startswith(b"PK")


def test_the_commands_of_the_guide_run_as_written(served: Served, tmp_path: Path) -> None:
    found = examples("bash")
    assert len(found) == 4
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    said = []
    for code in found:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", here(code, served)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, code + done.stdout + done.stderr
        said.append(done.stdout)
    assert json.loads((tmp_path / "pair.json").read_text())["features"] == "xfeat"
    assert (tmp_path / "matches.csv").read_text().startswith("x0,y0,x1,y1,score,inlier")
    assert "event: cancelled" in said[-1] or "event: done" in said[-1]


def test_the_table_of_the_guide_has_every_request(served: Served) -> None:
    paths = Client(served.url)._json("GET", "openapi.json")["paths"]
    names = {path.removeprefix("/api/v1/").partition("/")[0] for path in paths}
    table = PAGE[PAGE.index("## The interface") : PAGE.index("## What can go wrong")]
    assert names == set(re.findall(r"`(?:GET|POST|DELETE) (\w+)", table))


def test_a_worker_that_is_killed_costs_one_request(served: Served) -> None:
    client = Client(served.url)
    before = client.health()["restarts"]
    job = client.submit("match", {"image0": "example-0", "image1": "example-1", "options": {"max_keypoints": 4096}})
    for name, content in client.events(job["id"]):
        if name == "progress" and content["progress"]["stage"] in ("extracting", "matching"):
            break
    for pid in workers(served.process.pid):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ServiceError, match="ended unexpectedly") as caught:
        client.wait(job["id"])
    assert caught.value.code == "crashed"
    again = client.match(A, B, max_keypoints=64, resize=320)
    assert len(again["scores"]) > 5
    assert client.health()["restarts"] > before


def test_who_waits_and_leaves_ends_the_job(served: Served) -> None:
    client = Client(served.url)
    asked = {"image0": "example-0", "image1": "example-1", "options": {"max_keypoints": 8000, "resize": 2000}}
    body = json.dumps(asked).encode()
    head = f"POST /api/v1/match?wait=300 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as connection:
        connection.sendall(head.encode() + body)
        while not client.health()["queue"]["running"]:
            pass
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as connection:  # in an upload
        form = b"Host: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000\r\n\r\n--x"
        connection.sendall(b"POST /api/v1/images HTTP/1.1\r\n" + form)
    until = time.monotonic() + 60
    while client.health()["queue"]["running"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert len(client.match(A, B, max_keypoints=64, resize=320)["scores"]) > 5


def workers(parent: int) -> list[int]:
    """The processes that a service has started to work for it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == parent and "spawn_main" in words:
            found.append(int(entry.name))
    return found


def test_the_client_says_what_the_service_says(served: Served, tmp_path: Path) -> None:
    photograph = tmp_path / "Träume 照片.jpg"
    photograph.write_bytes(Path(A).read_bytes())
    client = Client(served.url)
    with pytest.raises(ServiceError, match="did you mean max_keypoints") as caught:
        client.match(A, B, max_keypoint=5)
    assert (caught.value.status, caught.value.field) == (422, "max_keypoint")
    with pytest.raises(ServiceError) as caught:
        client.send(b"no image")
    assert (caught.value.status, caught.value.code) == (415, "image")
    named = client.send(Path(A).read_bytes())["name"], client.send(photograph)["name"]
    assert named == ("image", photograph.name)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "does not answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "does not answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>Sign in", "no service of this package"),
        (b'HTTP/1.1 502 Bad Gateway\r\n\r\n{"error": "no upstream"}', "HTTP status 502"),
        (None, "does not answer: timed out"),
    ],
)
def test_what_is_no_service_is_an_error_of_the_package(answer: bytes | None, says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:

        def respond() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer) if answer is not None else time.sleep(0.5)

        done = pool.submit(respond)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(LightGlueError, match=says):
            Client(url, timeout=0.2 if answer is None else 30).health()
        done.result()


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(LightGlueError, match="There is no service at"):
        Client("http://127.0.0.1:9").health()
    with pytest.raises(InputError, match="whole address"):
        Client("127.0.0.1:8000")


def test_it_ends_cleanly_and_leaves_nothing(served: Served) -> None:
    client = Client(served.url)
    sent = client.send(A)
    running = client.submit("match", {"image0": sent["id"], "image1": sent["id"], "options": {"max_keypoints": 8000}})
    events = client.events(running["id"])
    assert next(events)[0] == "progress", "somebody follows it"
    children = workers(served.process.pid)
    assert len(children) == 2
    assert served.written() == []
    served.process.send_signal(signal.SIGINT)
    out, err = served.process.communicate(timeout=60)
    assert (served.process.returncode in (0, 130), err) == (True, ""), "nothing is logged, no trace is printed"
    assert running["id"] not in out
    assert [name for name, _ in events][-1] == "cancelled"
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert served.written() == []
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{served.url}/", timeout=5)


# -- without a service --


def closed_after(connection: socket.socket, piece: bytes) -> bytes:
    """What a server says before it closes a connection on which a piece comes every now and then."""
    said = b""
    for _ in range(400):
        try:
            connection.sendall(piece)
            while part := connection.recv(4096):
                said += part
            return said
        except TimeoutError:
            continue
        except OSError:  # closed meanwhile
            return said
    pytest.fail("the connection was kept open")


def test_the_head_of_a_request_must_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightglue.web.heads.HEAD_S", 0.3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(0.6)  # an answer may take longer
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with listen(WebOptions(port=0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, http=TimedHeads, lifespan="off", log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            partial = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
            for first in (b"", partial, whole):  # nothing, a part of a head, and a part of one after another request
                with socket.create_connection(listening.getsockname(), timeout=0.05) as connection:
                    connection.sendall(first)
                    if first == whole:
                        connection.settimeout(20)
                        assert connection.recv(4096).startswith(b"HTTP/1.1 204")
                        connection.settimeout(0.05)
                    piece = b"X-A: b\r\n" if first != b"" else b""
                    assert closed_after(connection, piece).startswith(b"HTTP/1.1 408 ")
        finally:
            server.should_exit = True
            thread.join(20)


def test_the_service_waits_for_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: seen.append(server.config.http))
    serve(WebOptions(port=0))
    assert seen == [TimedHeads]


def test_an_address_that_is_taken_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = lightglue("web", "--no-browser", "--port", port)
    assert said.code == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in said.err


def test_a_host_that_others_reach_wants_a_token() -> None:
    said = lightglue("web", "--host", "0.0.0.0")
    assert said.code == 2
    assert "give a token too" in plain(said.err)
    with pytest.raises(InputError, match="no address of this machine"):
        listen(WebOptions(host="no.such.host.invalid", token="x" * 20))


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "http://127.0.0.1:81/"),
        ({"host": "::1"}, "http://[::1]:81/"),
        ({"host": "0.0.0.0", "token": "x" * 16}, f"http://127.0.0.1:81/?token={'x' * 16}"),
        ({"behind_proxy": "https://a.example/m/", "token": "x" * 16}, f"https://a.example/m/?token={'x' * 16}"),
    ],
)
def test_the_address_is_one_to_click(options: dict[str, Any], url: str) -> None:
    assert address_of(WebOptions(**options), 81).url == url


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    said = lightglue("web", "--no-browser")
    assert said.code == 1
    assert "pip install 'lightglue[web]'" in said.err
