"""A folder on the page: its images are sent, all pairs matched, looked at and downloaded."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("playwright", reason="needs a browser: the package playwright is not installed")
pytest.importorskip("pycolmap")
from playwright.sync_api import Page, expect

from support.browser import Watched
from support.corner import take_photographs

Shown = Callable[..., Page]
REFUSED = "status of 4"  # what a browser says of an image that was refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs, one in a folder below, and what people's folders have besides."""
    folder = tmp_path_factory.mktemp("photographs")
    take_photographs(folder, 4)
    (folder / "later").mkdir()
    (folder / "3.png").rename(folder / "later/3.png")
    (folder / "cut off.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((50, 60, 3), np.uint8))[1].tobytes()[:200])
    (folder / "<b>notes.txt").write_text("notes")
    (folder / ".DS_Store").write_bytes(b"\0")
    return folder


@pytest.fixture
def shown(opened: Callable[..., Page]) -> Shown:
    def page(address: str = "#folder", **options: object) -> Page:
        found = opened(address, wait=False, **options)
        found.locator("#many-max_keypoints").wait_for()
        return found

    return page


def choose(page: Page, folder: Path, keypoints: int = 128) -> None:
    """A folder, and options with which a pair takes a moment."""
    page.locator("#many-folder").set_input_files(folder)
    page.locator("#many-features").select_option("xfeat")
    page.locator("#many-max_keypoints").fill(str(keypoints))


def start(page: Page) -> None:
    page.get_by_role("button", name="Match all pairs").click()


def status(page: Page) -> object:
    return page.locator(".many-status")


def test_a_folder_becomes_a_matrix_a_cell_a_pair_and_all_a_database(
    shown: Shown, watched: Watched, folder: Path, tmp_path: Path
) -> None:
    watched.allow(REFUSED)
    page = shown()
    choose(page, folder)
    expect(page.locator(".many-chosen")).to_contain_text("5 images")
    expect(page.locator(".many-chosen")).to_contain_text("no images: 1")
    start(page)
    expect(page.locator(".many-status")).to_have_text(
        re.compile("All 6 pairs are done; [3-6] have matches"), timeout=60_000
    )
    left_out = page.locator(".many-left-out li")
    expect(left_out).to_have_count(1)
    expect(left_out).to_contain_text("cut off.jpg this JPEG file is damaged or cut off")
    expect(page.locator(".many-table tbody tr")).to_have_count(6)
    # A cell of the matrix: pointed at it says which pair it is, clicked it is the pair.
    matrix = page.locator("canvas.many-matrix")
    box = matrix.bounding_box()
    assert box is not None
    cell = (box["width"] - 45) / 4
    place = {"x": 44 + 1.5 * cell, "y": 44 + 0.5 * cell}
    matrix.hover(position=place)  # type: ignore[arg-type]
    about = page.locator(".many-about")
    expect(about).to_contain_text(re.compile(r"0\.png – 1\.png \d+ matches"))
    count = re.search(r"(\d+) matches", about.text_content() or "")
    assert count is not None
    row = page.locator(".many-table tr", has_text="0.png – 1.png").first
    expect(row.locator("td").first).to_have_text(count[1])
    with page.expect_download() as download:
        page.get_by_role("link", name="COLMAP database").click()
    download.value.save_as(tmp_path / "database.db")
    with closing(sqlite3.connect(tmp_path / "database.db")) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM images ORDER BY image_id")]
    assert names == ["0.png", "1.png", "2.png", "later/3.png"]
    matrix.click(position=place)  # type: ignore[arg-type]
    expect(page.locator(".bench .result").first).to_contain_text(f"{count[1]} matches")
    page.go_back()
    expect(page.locator(".many-table tbody tr")).to_have_count(6)  # it is all still there


def test_a_folder_is_stopped_and_what_is_done_stays(shown: Shown, watched: Watched, tmp_path: Path) -> None:
    take_photographs(tmp_path, 7)
    page = shown()
    choose(page, tmp_path, keypoints=1024)
    start(page)
    page.locator("canvas.many-matrix[data-done]").wait_for()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".many-status")).to_have_text(re.compile(r"Stopped after [0-9]+ of 21 pairs"))
    expect(page.get_by_role("button", name="Match all pairs")).to_be_visible()
    done = page.locator(".many-table tbody tr").count()
    assert 1 <= done < 21
    # The address has it for whoever comes back.
    expect(page).to_have_url(re.compile("#folder\\?set="))
    page.reload()
    expect(page.locator(".many-table tbody tr")).to_have_count(done)
    expect(page.locator(".many-status")).to_contain_text("Stopped after")


def test_a_folder_has_all_options_of_a_pair(shown: Shown, watched: Watched, tmp_path: Path) -> None:
    watched.allow("status of 422")
    take_photographs(tmp_path, 2)
    page = shown()
    choose(page, tmp_path, keypoints=32)
    page.locator(".many summary[data-t=more_options]").click()
    page.locator("#many-rotation_step").fill("0")
    page.locator("#many-auto_rotate").check()
    start(page)
    expect(page.locator("#many-rotation_step-fault")).to_contain_text("0")
    expect(page.locator("#many-rotation_step")).to_be_focused()
    page.locator("#many-rotation_step").fill("180")
    start(page)
    expect(page.locator(".many-status")).to_contain_text("All 1 pairs are done")
    expect(page.locator("#many-rotation_step-fault")).to_be_empty()
    expect(page.get_by_role("link", name="COLMAP database")).to_have_count(0)  # no keypoints that pairs share


def test_a_dropped_folder_by_keys_alone(shown: Shown, tmp_path: Path) -> None:
    names = take_photographs(tmp_path, 3)
    page = shown()
    files = [[name, list((tmp_path / name).read_bytes())] for name in names]
    transfer = page.evaluate_handle(
        """(files) => {
            const found = new DataTransfer();
            for (const [name, content] of files) found.items.add(new File([new Uint8Array(content)], name));
            return found;
        }""",
        files,
    )
    page.locator(".many").dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.get_by_role("button", name="Match all pairs")).to_be_focused()
    page.locator("#many-features").select_option("xfeat")
    page.locator("#many-max_keypoints").fill("64")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Match all pairs").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".many-status")).to_contain_text("All 3 pairs are done", timeout=60_000)
    page.locator("canvas.many-matrix").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".many-about")).to_contain_text("0.png – 1.png")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".many-about")).to_contain_text("0.png – 2.png")
    page.keyboard.press("Enter")
    expect(page.locator(".bench .result").first).to_contain_text("match")


def test_more_than_is_taken_and_nothing_to_match(shown: Shown, tmp_path: Path) -> None:
    page = shown(locale="zh-CN", viewport={"width": 390, "height": 844})
    one = tmp_path / "one"
    one.mkdir()
    take_photographs(one, 1)
    choose(page, one)
    expect(page.locator(".many-chosen")).to_contain_text("至少需要两幅")
    expect(page.locator(".many-buttons button").first).to_be_disabled()
    many = tmp_path / "many"
    many.mkdir()
    content = (one / "0.png").read_bytes()
    for number in range(203):
        (many / f"{number}.png").write_bytes(content)
    choose(page, many)
    expect(page.locator(".many-chosen")).to_contain_text("200 幅图像")
    expect(page.locator(".many-left-out li")).to_have_count(3)
    expect(page.locator(".many-left-out li").first).to_contain_text("200.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_weights_that_a_folder_wants_are_offered_there(shown: Shown, watched: Watched, folder: Path) -> None:
    watched.allow("status of 5", REFUSED)
    page = shown()
    weights = [{"name": "xfeat", "bytes": 4_200_000, "licence": "Apache-2.0"}]
    error = {
        "code": "weights_missing",
        "message": "POST weights/xfeat fetches them.",
        "field": None,
        "weights": weights,
    }
    page.route("**/api/v1/pairs", lambda route: route.fulfill(status=503, json={"error": error}))
    done = {"id": "fetching", "state": "done", "progress": {}, "result": None, "error": None}
    page.route("**/api/v1/weights/xfeat", lambda route: route.fulfill(status=202, json={**done, "state": "queued"}))
    events = {"content_type": "text/event-stream", "body": f"id: 1\nevent: done\ndata: {json.dumps(done)}\n\n"}
    page.route("**/api/v1/jobs/fetching/events", lambda route: route.fulfill(**events))
    choose(page, folder)
    expect(page.locator(".many .offer")).to_be_hidden()
    start(page)
    expect(page.locator(".many .offer")).to_have_text(
        re.compile("^The weights for xfeat are not on this machine. 4.2 MB; licence: Apache-2.0")
    )
    page.get_by_role("button", name="Fetch 4.2 MB").click()
    expect(page.locator(".many .offer")).to_be_hidden()
    expect(page.locator("#announce")).to_have_text("The weights were fetched")
    expect(page.get_by_role("button", name="Match all pairs")).to_be_enabled()
