"""Maps on the page: looked at, looked through, and a photograph localized."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("playwright", reason="needs a browser: the package playwright is not installed")
pytest.importorskip("pycolmap")
from playwright.sync_api import Locator, Page, expect

from lightglue.web.maps import Maps
from lightglue.web.open_map import OpenMap
from support.browser import Watched
from support.corner import photograph

Shown = Callable[..., Page]
SLOW_PICTURES = "GL Driver Message"  # of Chromium's software renderer, at each screenshot


@pytest.fixture(scope="module")
def known(corner_map: Path) -> OpenMap:
    return Maps([corner_map / "map"]).open("map")


@pytest.fixture
def shown(opened: Callable[..., Page], watched: Watched) -> Shown:
    """`shown(address, **context)`: the page of the map, when it is there."""

    def page(address: str = "#maps", **options: Any) -> Page:
        watched.allow(SLOW_PICTURES)
        options = {"viewport": {"width": 1000, "height": 640}, "reduced_motion": "reduce", **options}
        found = opened(address, wait=False, **options)
        found.locator("canvas.map-canvas[data-map=map]").wait_for(state="attached")
        return found

    return page


def canvas(page: Page) -> Locator:
    return page.locator("canvas.map-canvas")


def drawn(page: Page) -> np.ndarray:
    """What is on the canvas, (H, W, 3), and what lies on it."""
    found = cv2.imdecode(np.frombuffer(canvas(page).screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return found[4:-4, 4:-4].astype(np.int16)  # without the ring that says where the focus is


def changed(before: np.ndarray, after: np.ndarray) -> int:
    """How many pixels."""
    return int((np.abs(before - after).max(axis=2) > 24).sum())


def place_of_camera(page: Page, number: int) -> dict[str, float]:
    x, y, _ = canvas(page).evaluate("(canvas, n) => canvas.stage.placeOf(canvas.stage.cloud.centres[n])", number)
    return {"x": x, "y": y}


def place_of_point(page: Page, row: int) -> dict[str, float]:
    x, y, _ = canvas(page).evaluate("(canvas, row) => canvas.stage.placeOf(canvas.stage.cloud.position(row))", row)
    return {"x": x, "y": y}


def test_a_map_is_drawn_with_its_numbers_and_its_report(shown: Shown, known: OpenMap) -> None:
    page = shown()
    expect(page.locator(".map-statistics")).to_contain_text(f"5 of 5 images, {len(known.model.points)} points")
    expect(page.locator(".map-table tbody tr")).to_have_count(5)
    picture = drawn(page)
    assert changed(picture, np.broadcast_to(picture[5, 5], picture.shape)) > 500  # points and cameras
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report").click()
    expect(opened.value.locator("h1").first).to_be_visible()


def test_dragging_and_the_wheel_move_the_view_and_home_brings_it_back(shown: Shown) -> None:
    page = shown()
    first = drawn(page)
    box = canvas(page).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 150, y + 40, steps=4)
    page.mouse.up()
    turned = drawn(page)
    assert changed(first, turned) > 300
    page.mouse.wheel(0, -400)
    nearer = drawn(page)
    assert changed(turned, nearer) > 300
    canvas(page).press("Home")
    assert changed(first, drawn(page)) < 100


def test_a_graphics_context_that_is_lost_comes_back_with_all_that_was_there(shown: Shown) -> None:
    page = shown("#maps?camera=1.png")
    expect(page.locator(".map-through strong")).to_have_text("1.png")
    canvas(page).focus()
    page.keyboard.press("j")  # a point is chosen
    expect(page.locator(".map-details h2")).to_contain_text("A point that")
    for _ in range(200):  # until the large picture is there
        if canvas(page).evaluate("(canvas) => canvas.stage.cloud.pictures.get(1)?.width") == 320:
            break
        page.wait_for_timeout(50)
    before = drawn(page)
    extension = "canvas.stage.cloud.gl.getExtension('WEBGL_lose_context')"
    canvas(page).evaluate(f"(canvas) => {{ canvas.losing = {extension}; canvas.losing.loseContext(); }}")
    canvas(page).press("+")  # nothing to draw on, and no error
    canvas(page).press("-")
    canvas(page).evaluate("(canvas) => canvas.losing.restoreContext()")
    for _ in range(20):
        page.wait_for_timeout(100)
        if changed(before, drawn(page)) < 100:
            break
    else:
        pytest.fail("the map looks different")


def test_a_click_on_a_camera_looks_through_it(shown: Shown, known: OpenMap, corner_map: Path) -> None:
    page = shown()
    canvas(page).click(position=place_of_camera(page, 2))  # type: ignore[arg-type]
    expect(page.locator(".map-through strong")).to_have_text("2.png")
    expect(page.locator(".map-details h2")).to_have_text("2.png")
    expect(page.locator(".map-table tr.is-chosen")).to_contain_text("2.png")
    page.wait_for_timeout(300)  # until the picture is there
    # The picture fills the canvas one way or the other, and each point lies where the image has it.
    box = canvas(page).bounding_box()
    assert box is not None
    scale = min(box["width"] / 320, box["height"] / 240)
    left, top = (box["width"] - 320 * scale) / 2, (box["height"] - 240 * scale) / 2
    image = known.model.images[2]
    for at in np.flatnonzero(image.errors < 0.2)[::20]:
        found = place_of_point(page, int(image.points[at]))
        u, v = image.pixels[at]
        assert found["x"] == pytest.approx(left + (u + 0.5) * scale, abs=3)
        assert found["y"] == pytest.approx(top + (v + 0.5) * scale, abs=3)
    page.locator(".map-through input").fill("1")
    wanted = cv2.imread(str(corner_map / "photographs/2.png"))
    size = round(320 * scale), round(240 * scale)
    wanted = cv2.copyMakeBorder(cv2.resize(wanted, size), *[round(top)] * 2, *[round(left)] * 2, cv2.BORDER_CONSTANT)
    seen = drawn(page)
    off = np.abs(seen - wanted[4 : 4 + seen.shape[0], 4 : 4 + seen.shape[1]])[60:-60]
    assert np.median(off) < 12
    page.get_by_role("button", name="Back").click()
    expect(page.locator(".map-through")).to_be_hidden()


def test_a_click_on_a_point_shows_its_images(shown: Shown, known: OpenMap) -> None:
    page = shown("#maps?camera=1.png")
    expect(page.locator(".map-through strong")).to_have_text("1.png")
    image = known.model.images[1]
    row = int(image.points[len(image.points) // 2])
    canvas(page).click(position=place_of_point(page, row))  # type: ignore[arg-type]
    expect(canvas(page)).to_have_attribute("data-point", re.compile(r"\d+"))
    chosen = known.point(int(canvas(page).get_attribute("data-point") or ""))
    images = {each["image"] for each in chosen["images"]}
    expect(page.locator(".map-details h2")).to_have_text(f"A point that {len(images)} images see")
    expect(page.locator(".map-patches li")).to_have_count(len(images))
    page.locator(".map-patches button").first.click()
    expect(page.locator(".map-through strong")).to_have_text(known.model.images[min(images)].name)


def test_all_of_it_by_keys_and_for_screen_readers(shown: Shown) -> None:
    page = shown()
    page.locator(".map-table button").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".map-table button").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".map-through strong")).to_have_text("1.png")
    expect(page.locator("#announce")).to_have_text("Looking through 1.png")
    canvas(page).focus()
    page.keyboard.press("n")
    expect(page.locator(".map-through strong")).to_have_text("2.png")
    page.keyboard.press("j")
    expect(page.locator(".map-details h2")).to_contain_text("A point that")
    first = canvas(page).get_attribute("data-point")
    page.keyboard.press("j")
    expect(canvas(page)).not_to_have_attribute("data-point", first or "")
    page.keyboard.press("Escape")
    expect(page.locator(".map-through")).to_be_hidden()
    before = drawn(page)
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight", "+"):
        page.keyboard.press(key)
    assert changed(before, drawn(page)) > 300
    expect(canvas(page)).to_have_accessible_name("The map in 3D")
    expect(canvas(page)).to_have_accessible_description(re.compile("Keys: arrows"))


def test_an_image_is_localized_or_the_page_says_why_not(shown: Shown, tmp_path: Path) -> None:
    page = shown()
    cv2.imwrite(str(tmp_path / "query.png"), photograph(1.5))
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((240, 320, 3), np.uint8))
    page.locator("#localize-file").set_input_files(tmp_path / "query.png")
    found = page.locator(".map-localized")
    expect(found.locator("h2")).to_have_text("query.png was taken here")
    expect(found).to_contain_text(re.compile(r"\d+ of \d+ matched points agree"))
    expect(found.locator("canvas")).to_be_visible()
    expect(canvas(page)).to_have_attribute("data-visitor", re.compile(r"\d{2,}"))
    page.get_by_role("button", name="Look through it").click()
    expect(page.locator(".map-through strong")).to_have_text("Your image")
    page.locator("#localize-file").set_input_files(tmp_path / "black.png")
    expect(found.locator("h2")).to_have_text("black.png was not found")
    expect(found).to_contain_text("no keypoints: it is black")
    expect(page.locator(".map-through")).to_be_hidden()


def test_a_map_that_cannot_be_shown_says_why_and_leaves_nothing_of_another(shown: Shown, watched: Watched) -> None:
    watched.allow("422")
    page = shown("#maps?map=map&camera=1.png")
    expect(page.locator(".map-through strong")).to_have_text("1.png")
    page.get_by_label("Which map").select_option("damaged")
    expect(page.locator(".map-fault")).to_contain_text("changed after the map was made")
    expect(page.locator(".map-through")).to_be_hidden()
    expect(page.locator(".map-table")).to_have_count(0)
    page.get_by_label("Which map").select_option("map")
    expect(page.locator(".map-table tbody tr")).to_have_count(5)
    expect(page.locator(".map-fault")).to_be_hidden()


def test_a_dropped_file_that_is_no_image_is_refused_in_our_words(shown: Shown, watched: Watched) -> None:
    watched.allow("415")
    page = shown()
    transfer = page.evaluate_handle(
        "() => { const t = new DataTransfer(); t.items.add(new File(['hello'], 'notes.jpg')); return t; }"
    )
    page.locator(".map-stage").dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.locator(".map-localized")).to_contain_text("notes.jpg is not an image that can be read")


def test_on_a_phone_and_in_chinese(shown: Shown) -> None:
    page = shown(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, locale="zh-CN")
    expect(page.locator(".map-statistics")).to_contain_text("幅图像")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".map-table button").nth(3).tap()
    expect(page.locator(".map-through strong")).to_have_text("3.png")
    box = canvas(page).bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 844  # it was brought into sight
