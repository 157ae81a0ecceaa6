"""The examples of the guide to folders and maps, run as written against a service in this process."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("pycolmap")
pytest.importorskip("uvicorn")

import uvicorn

from lightglue.web import WebOptions, create_app
from lightglue.web.service import IMAGE_TASKS, MODEL_TASKS
from support import ROOT
from support.corner import photograph, take_photographs
from support.web import InProcess

PAGE = (ROOT / "docs" / "web-maps.md").read_text()


@pytest.fixture(scope="module")
def url(corner_map: Path) -> Iterator[str]:
    app = create_app(WebOptions(maps=(corner_map / "map",)))
    service: Any = app.state.service
    service.jobs.worker, service.decoding.worker = InProcess(MODEL_TASKS), InProcess(IMAGE_TASKS)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


def run(heading: str, url: str) -> None:
    section = PAGE[PAGE.index(f"## {heading}") :]
    code = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0]
    exec(code.replace("http://127.0.0.1:8000", url), {})


def test_a_folder_as_the_guide_has_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take_photographs(tmp_path / "photos", 3)
    monkeypatch.chdir(tmp_path)
    run("A folder", url)
    *pairs, summary = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in pairs] == [["0", "1"], ["1", "2"], ["0", "2"]]
    assert all(int(line.split()[2]) > 10 for line in pairs)
    assert re.match(r"\d+ matches, overlap", summary)
    assert (tmp_path / "database.db").read_bytes().startswith(b"SQLite format 3")


def test_a_map_as_the_guide_has_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "query.png"), photograph(1.5))
    monkeypatch.chdir(tmp_path)
    run("Maps", url)
    listed, found = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"map 5 images, \d+ points", listed)
    assert re.fullmatch(r"taken at \[.*\], \d+ points agree", found)


def test_the_table_of_the_guide_has_every_request() -> None:
    paths = create_app().openapi()["paths"]
    for path in paths:
        short = path.removeprefix("/api/v1/")
        if short.partition("/")[0] not in ("pairs", "maps"):
            continue
        words = short.replace("pairs/{name}", "pairs/SET").replace("maps/{name}", "maps/NAME")
        words = words.replace("{i}", "I").replace("{j}", "J").replace("{number}", "N")
        ending = words.rpartition("/")[2]
        assert f" {words}`" in PAGE or f"`.../{ending}`" in PAGE, words
