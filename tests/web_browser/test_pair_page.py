"""The pair on the page: what a user does, and what is seen of it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from lightglue.pairs.files import match_files
from support import NEEDS_BROWSER
from support.browser import Service, Watched
from web_browser.conftest import A, B, give_both, quick

pytest.importorskip("playwright", reason=f"{NEEDS_BROWSER}: the package playwright is not installed")
from playwright.sync_api import Page, expect

Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The stored pair that the first page shows."""
    return json.loads(files("lightglue.web").joinpath("stored/montmartre.json").read_text())


def above(pair: dict[str, Any], threshold: float) -> int:
    """How many matches score more, as the matcher compares."""
    return int((np.float32(pair["scores"]) > np.float32(threshold)).sum())


def result(page: Page) -> Any:
    return page.locator(".bench .stage > .card .result").first


def says_matches(page: Page, count: int) -> None:
    expect(result(page)).to_contain_text(re.compile(rf"\b{count} match(es)?\b"))


def spot(page: Page, pair: dict[str, Any], side: int, x: float, y: float) -> tuple[float, float]:
    """Where a point of an image lies on the screen, while images are side by side and whole."""
    box = page.locator("canvas.marks").first.bounding_box()
    assert box is not None
    width = (box["width"] - 6) / 2
    image = pair["images"][side]
    scale = min(width / image["width"], box["height"] / image["height"])
    left = box["x"] + side * (width + 6)
    return (
        left + width / 2 + (x - (image["width"] - 1) / 2) * scale,
        box["y"] + box["height"] / 2 + (y - (image["height"] - 1) / 2) * scale,
    )


def ends(pair: dict[str, Any], match: int) -> list[tuple[float, float]]:
    found = []
    for side in (0, 1):
        keypoint = pair["matches"][2 * match + side]
        found.append(tuple(pair[f"keypoints{side}"][2 * keypoint : 2 * keypoint + 2]))
    return found


def shown_result(page: Page, service: Service) -> dict[str, Any]:
    """The pair whose result the address names."""
    expect(page).to_have_url(re.compile(r"r=[\w-]+"))
    name = re.search(r"[?&]r=([\w-]+)", page.url)
    assert name is not None
    with urlopen(f"{service.url}/api/v1/results/{name[1]}") as answer:
        return dict(json.loads(answer.read()))


def match(page: Page) -> None:
    """Press Match, and wait for what comes of it."""
    page.locator("button[data-t=match]").click()
    expect(page.locator("button[data-t=match]")).to_be_visible()
    expect(result(page).locator("strong")).to_be_visible()


def long_work(page: Page) -> None:
    """Ask for what takes long enough to be interrupted, in short steps."""
    page.locator("#features").select_option("xfeat")
    page.locator("summary[data-t=more_options]").click()
    page.locator("#option-max_keypoints").fill("8000")
    page.locator("#option-pyramid").fill("2,1.9,1.8,1.7,1.6,1.5,1.4,1.3")


# The first page


def test_the_first_page_shows_the_photographs_matched(page: Page, example: dict[str, Any]) -> None:
    says_matches(page, above(example, 0.1))
    expect(result(page)).to_contain_text("overlap 1.000")
    expect(page.locator(".slot .name")).to_have_text(["montmartre_close.jpg", "montmartre_far.jpg"])


def test_the_page_is_small(page: Page, service: Service) -> None:
    names = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    own = {service.url + "/", *(name for name in names if "/static/" in name)}
    sizes = {}
    for name in own:
        with urlopen(name) as answer:
            sizes[name] = len(answer.read())
    assert len(sizes) > 10
    assert sum(sizes.values()) < 300_000, sizes


# Slider, views, hover


def test_the_slider_filters_as_the_matcher_does(page: Page, example: dict[str, Any]) -> None:
    for threshold in (0.0, 0.37, 0.9, 1.0):
        page.locator("#threshold").fill(str(threshold))
        says_matches(page, above(example, threshold))
    page.locator("#threshold").fill("0.37")
    expect(page).to_have_url(re.compile(r"t=0\.37"))


def test_the_address_brings_the_same_view_back(opened: Opened, example: dict[str, Any]) -> None:
    page = opened("#pair?t=0.5&view=layers&layer=2&pin=3&z=4,330,200")
    says_matches(page, above(example, 0.5))
    expect(page.get_by_role("button", name="Layers", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".walk .n").first).to_contain_text("4 of")
    kept = [sum(not each or each > 2 for each in example["layers"][f"pruned{side}"]) for side in (0, 1)]
    expect(page.locator(".mode").last).to_contain_text(f"2 of {example['layers']['stop']}: {kept[0]} + {kept[1]} kept")


def test_a_keypoint_under_the_mouse_shows_its_match(page: Page, example: dict[str, Any]) -> None:
    page.mouse.move(*spot(page, example, 0, *ends(example, 0)[0]))
    expect(page.locator(".tip").first).to_contain_text(re.compile(r"Match \d+ · score \d"))
    expect(page.locator(".tip").first).to_contain_text(re.compile("inlier|outlier"))
    expect(page.locator(".tip").first).to_contain_text(re.compile("kept to the end|dropped after layer"))


def test_a_click_keeps_a_match_and_escape_lets_go(page: Page, example: dict[str, Any]) -> None:
    page.mouse.click(*spot(page, example, 1, *ends(example, 0)[1]))
    expect(page.locator(".patches canvas")).to_have_count(2)
    expect(page).to_have_url(re.compile(r"pin=\d"))
    page.locator("#threshold").fill("1")
    expect(page.locator(".walk .n")).to_contain_text("below the threshold")
    page.keyboard.press("Escape")
    expect(page.locator(".patches canvas")).to_have_count(0)


def test_zoomed_images_go_together_until_they_are_let_apart(page: Page, example: dict[str, Any]) -> None:
    x, y = spot(page, example, 0, *ends(example, 0)[0])
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    expect(page).to_have_url(re.compile(r"z=\d"))
    page.keyboard.press("u")
    expect(page).to_have_url(re.compile("apart=1"))
    page.keyboard.press("0")
    expect(page).not_to_have_url(re.compile(r"z=\d"))


def test_b_is_swiped_over_a(page: Page) -> None:
    page.keyboard.press("s")
    slider = page.get_by_role("slider", name="Edge")
    expect(slider).to_have_value("0.5")
    box = page.locator("canvas.marks").first.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, middle[1], steps=3)
    page.mouse.up()
    assert float(slider.input_value()) == pytest.approx(0.25, abs=0.02)
    seen = {}
    for value in ("0", "1"):
        slider.fill(value)
        seen[value] = page.locator(".viewer canvas").first.screenshot()
    assert seen["0"] != seen["1"]


def test_motion_stops_where_it_is_not_wanted(opened: Opened) -> None:
    page = opened("#pair?view=blink", reduced_motion="reduce")
    expect(page.locator(".mode").last).to_contain_text("Motion is reduced")
    page.get_by_role("button", name="Show A").click()
    expect(page.get_by_role("button", name="Show B")).to_be_visible()


def test_inliers_and_outliers_are_shown_alone(page: Page, example: dict[str, Any]) -> None:
    page.get_by_role("button", name="Outliers").click()
    page.locator("summary[data-t=table]").click()
    outliers = above(example, 0.1) - len(example["geometry"]["inliers"])
    expect(page.locator(".pages .n").last).to_contain_text(f"of {outliers}")


# Matching


def test_two_images_are_uploaded_and_matched_as_the_command_does(page: Page, service: Service) -> None:
    give_both(page)
    quick(page)
    match(page)
    found = shown_result(page, service)
    from lightglue.models.choice import Models

    expected = match_files(A, B, models=Models(features="xfeat", max_keypoints=256, device="cpu")).pair
    says_matches(page, len(expected.matches))
    count = above(found, found["threshold"])
    order = np.argsort(-expected.scores.numpy(), kind="stable")
    assert np.float32(found["scores"][:count]).tolist() == expected.scores.numpy()[order].tolist()
    assert np.array_equal(np.reshape(found["matches"], (-1, 2))[:count], expected.matches.numpy()[order])
    expect(result(page)).to_contain_text(re.compile(r"\d+ inliers \(fundamental matrix\)"))


def test_an_image_is_dropped_where_it_shall_be(page: Page) -> None:
    content = list(A.read_bytes())
    dropped = page.evaluate_handle(
        """(content) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(content)], "<b>dropped<b>.jpg", { type: "image/jpeg" }));
          return transfer;
        }""",
        content,
    )
    page.locator(".slot").nth(1).dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.locator(".slot .name").nth(1)).to_have_text("<b>dropped<b>.jpg")  # a name is text, whatever is in it


def test_a_pasted_picture_becomes_the_first_image_and_another_the_second(page: Page) -> None:
    for i, path in enumerate((A, B)):
        page.evaluate(
            """([content, name]) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(content)], name, { type: "image/jpeg" }));
              const options = { clipboardData: data, bubbles: true, cancelable: true };
              document.body.dispatchEvent(new ClipboardEvent("paste", options));
            }""",
            [list(path.read_bytes()), path.name],
        )
        expect(page.locator(".slot .name").nth(i)).to_have_text(path.name)
        expect(page.locator(".slot .about").nth(i)).to_contain_text("kB")


def test_what_is_no_image_is_refused_at_its_place(page: Page, watched: Watched, tmp_path: Path) -> None:
    watched.allow("status of 4")
    (tmp_path / "text.jpg").write_text("no image")
    page.locator("#file0").set_input_files(tmp_path / "text.jpg")
    expect(page.locator(".slot").nth(0).locator(".fault")).to_contain_text(re.compile("image"))
    expect(page.locator(".slot").nth(1).locator(".fault")).to_be_empty()


def test_an_error_stands_at_its_field(page: Page, watched: Watched) -> None:
    watched.allow("status of 422")
    quick(page, -3)
    page.locator("button[data-t=match]").click()
    field = page.locator("#option-max_keypoints")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(page.locator("#option-max_keypoints-fault")).to_contain_text("-3")


def test_masks_keep_keypoints_away(page: Page, service: Service, example: dict[str, Any]) -> None:
    give_both(page)
    quick(page)
    page.get_by_role("button", name="Mask: paint where no keypoints may lie").first.click()
    page.locator(".tool input[type=range]").fill("160")
    page.mouse.move(*spot(page, example, 0, 320, 240))
    page.mouse.down()
    page.mouse.up()
    page.get_by_role("button", name="Done").click()
    expect(page.locator(".slot .about").first).to_contain_text("masked")
    match(page)
    found = shown_result(page, service)
    distances = [
        np.hypot(*(np.reshape(found[f"keypoints{side}"], (-1, 2)) - (320, 240)).T).min().item() for side in (0, 1)
    ]
    assert distances[0] >= 78
    assert distances[1] < 78


def test_keypoints_of_ones_own_are_matched(page: Page, service: Service, example: dict[str, Any]) -> None:
    chosen = [ends(example, match) for match in range(0, 60, 4)]
    for side in (0, 1):
        page.get_by_role("button", name="Keypoints of your own").nth(side).click()
        for match_ends in chosen:
            page.mouse.click(*spot(page, example, side, *match_ends[side]))
        page.get_by_role("button", name="Done").click()
    count = page.locator(".slot .about").first.inner_text()
    assert "own keypoints" in count
    match(page)
    expect(page).to_have_url(re.compile(r"r=[\w-]{12}"))
    found = shown_result(page, service)
    number = int(re.search(r"(\d+) own", count)[1])  # type: ignore[index]
    assert len(found["keypoints0"]) == 2 * number
    points = np.reshape(found["keypoints0"], (-1, 2))
    wanted = np.array([match_ends[0] for match_ends in chosen])
    assert max(np.hypot(*(wanted - point).T).min() for point in points) < 1.5  # a pixel of the screen


def test_a_mask_is_painted_with_the_keyboard_too(page: Page) -> None:
    page.get_by_role("button", name="Mask: paint where no keypoints may lie").first.click()
    page.locator("canvas.marks").first.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    expect(page.locator(".slot .about").first).to_contain_text("masked")


def test_an_image_of_ones_own_ends_the_example(page: Page) -> None:
    page.locator("#file0").set_input_files(B)
    expect(page.locator(".slot .name").first).to_have_text("montmartre_far.jpg")
    expect(page.locator(".slot .name").nth(1)).to_have_text("Image B")
    page.locator("button[data-t=match]").click()
    expect(page.locator(".slot .fault").nth(1)).to_contain_text("no image B yet")


def test_an_image_is_turned(page: Page) -> None:
    page.get_by_role("button", name="Rotate by 90°").first.click()
    expect(page.locator(".slot .name").first).to_have_text("montmartre_close-turned90.png")
    expect(page.locator(".slot .about").first).to_contain_text("438 × 640")


def without_weights(page: Page, missing: list[str]) -> None:
    """Load the page as on a machine that lacks the weights of these features."""

    def without(route: Any) -> None:
        answer = route.fetch()
        options = answer.json()
        for row in options["features"]:
            if row["name"] in missing:
                row |= {"weights": "missing", "bytes": 4_200_000, "licence": "Apache-2.0"}
        route.fulfill(response=answer, json=options)

    page.route("**/api/v1/options", without)
    page.reload()
    expect(page.locator("#features option")).not_to_have_count(0)
    page.locator("#features").select_option("disk")


def test_missing_weights_are_offered_and_not_fetched_in_silence(opened: Opened) -> None:
    page = opened(wait=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    without_weights(page, ["disk"])
    expect(page.locator(".offer")).to_contain_text("4.2 MB; licence: Apache-2.0")
    expect(page.get_by_role("button", name="Fetch 4.2 MB")).to_be_visible()
    page.locator("#features").select_option("aliked")
    expect(page.locator(".offer")).to_be_hidden()
    assert not [url for url in asked if "/weights/" in url]


def test_weights_are_fetched_and_a_failure_can_be_tried_again(opened: Opened, watched: Watched) -> None:
    watched.allow("status of 5")
    page = opened(wait=False)
    missing, tries = ["disk"], []

    def fetch(route: Any) -> None:
        tries.append(route.request.method)
        if len(tries) == 1:
            error = {"code": "weights", "message": "disk-depth cannot be fetched: there is no network.", "field": None}
            return route.fulfill(status=503, json={"error": error})
        missing.clear()
        return route.fulfill(status=202, json={"id": "fetching", "state": "queued"})

    def event(number: int, name: str, state: str, done: int) -> str:
        progress = {"stage": "fetching", "done": done, "total": 4, "text": "disk-depth"}
        content = {"id": "fetching", "state": state, "progress": progress, "result": None, "error": None}
        return f"id: {number}\nevent: {name}\ndata: {json.dumps(content)}\n\n"

    events = event(1, "progress", "running", 1) + event(2, "done", "done", 4)
    page.route("**/api/v1/weights/disk", fetch)
    answer = {"content_type": "text/event-stream", "body": events}
    page.route("**/api/v1/jobs/fetching/events", lambda route: route.fulfill(**answer))
    without_weights(page, missing)
    page.get_by_role("button", name="Fetch 4.2 MB").click()
    expect(page.locator(".offer")).to_contain_text("there is no network")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".offer")).to_be_hidden()
    expect(page.locator("#announce")).to_have_text(re.compile("weights", re.IGNORECASE))
    assert tries == ["POST", "POST"]


def test_settings_are_compared_side_by_side(page: Page) -> None:
    quick(page)
    match(page)
    page.locator("button[data-t=compare]").click()
    page.get_by_label("Max keypoints").last.fill("64")
    page.get_by_role("button", name="Match and compare").click()
    card = page.locator(".compared")
    expect(card).to_be_visible()
    expect(card.locator(".result")).to_contain_text(re.compile(r"\d+ in both.*\d+ only here", re.DOTALL))
    expect(result(page)).to_contain_text(re.compile("only with xfeat"))
    expect(page).to_have_url(re.compile(r"c=[\w-]+"))
    before = card.locator(".result strong").inner_text()
    page.locator("#threshold").fill("0.99")
    expect(card.locator(".result strong")).not_to_have_text(before)


def test_a_job_is_stopped(page: Page) -> None:
    long_work(page)
    page.locator("button[data-t=match]").click()
    expect(page.locator(".working")).to_contain_text("Finding keypoints")
    page.keyboard.press("Escape")
    expect(page.locator("button[data-t=match]")).to_be_visible()
    expect(page.locator("#announce")).to_have_text("Stopped")
    page.locator("#option-pyramid").fill("")
    page.locator("#option-max_keypoints").fill("64")
    match(page)


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the service's processes in /proc")
def test_a_worker_that_dies_takes_its_request_alone(page: Page, service: Service, watched: Watched) -> None:
    watched.allow("status of 5")
    long_work(page)
    page.locator("button[data-t=match]").click()
    expect(page.locator(".working")).to_contain_text("Finding keypoints")
    workers = service.workers()
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    expect(page.locator("#notice")).not_to_be_empty()
    page.locator("#option-pyramid").fill("")
    page.locator("#option-max_keypoints").fill("64")
    match(page)
    expect(page.locator("#notice")).to_be_empty()


def test_two_users_get_their_own(opened: Opened, service: Service) -> None:
    pages = {count: opened() for count in (100, 200)}
    for count, page in pages.items():
        quick(page, count)
        page.locator("button[data-t=match]").click()
    for count, page in pages.items():
        expect(page.locator(".facts").last).to_contain_text(re.compile(rf"{count} \+ {count}"))
        assert len(shown_result(page, service)["keypoints0"]) == 2 * count


def test_a_result_that_is_gone_is_said(opened: Opened, watched: Watched, example: dict[str, Any]) -> None:
    watched.allow("status of 404")
    page = opened("#pair?r=nothing-of-this-name")
    expect(page.locator("#notice")).to_contain_text("no longer kept")
    says_matches(page, above(example, 0.1))


# Files


def test_what_is_seen_is_downloaded(page: Page, example: dict[str, Any], tmp_path: Path) -> None:
    page.locator("#threshold").fill("0.5")
    with page.expect_download() as download:
        page.get_by_role("button", name="csv", exact=True).click()
    path = tmp_path / "matches.csv"
    download.value.save_as(path)
    rows = path.read_text().splitlines()
    assert len(rows) == 1 + above(example, 0.5)
    assert rows[0].startswith("x0,y0,x1,y1,score")


def test_one_file_has_the_viewer_without_a_service(browser: Any, tmp_path: Path) -> None:
    from lightglue.models.choice import Models

    models = Models(features="xfeat", max_keypoints=256, device="cpu")
    found = match_files(A, B, models=models, output=tmp_path / "pair.html")
    watched = Watched("file://")
    context = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-GB")
    page = watched.watch(context.new_page())
    page.goto((tmp_path / "pair.html").as_uri())
    says_matches(page, len(found.pair.matches))
    page.locator("#threshold").fill("0.8")
    says_matches(page, int((found.pair.scores > np.float32(0.8)).sum()))
    page.keyboard.press("s")
    expect(page.get_by_role("slider", name="Edge")).to_be_visible()
    context.close()
    watched.check()


# Habits


def test_the_keyboard_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    before = result(page).locator("strong").inner_text()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    expect(result(page).locator("strong")).not_to_have_text(before)
    page.keyboard.press("j")
    expect(page.locator(".walk .n")).to_contain_text("1 of")
    page.keyboard.press("j")
    expect(page.locator(".walk .n")).to_contain_text("2 of")
    page.keyboard.press("k")
    expect(page.locator(".walk .n")).to_contain_text("1 of")
    for key, name in (("p", "Points"), ("l", "Layers"), ("s", "Swipe"), ("b", "Blink"), ("o", "Fade"), ("n", "Lines")):
        page.keyboard.press(key)
        expect(page.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("#features").focus()
    page.keyboard.type("xf")
    expect(page.locator("#features")).to_have_value("xfeat")
    few_keypoints_by_keyboard(page)
    page.keyboard.press("Enter")
    expect(page.locator(".facts").last).to_contain_text(re.compile(r"128 \+ 128"))


def few_keypoints_by_keyboard(page: Page) -> None:
    page.locator("summary[data-t=more_options]").focus()
    page.keyboard.press("Enter")
    field = page.locator("#option-max_keypoints")
    for _ in range(12):
        page.keyboard.press("Tab")
        if field.evaluate("(field) => field === document.activeElement"):
            break
    expect(field).to_be_focused()
    outline = field.evaluate("(field) => getComputedStyle(field).outlineStyle")
    assert outline != "none"  # where one is, is seen
    page.keyboard.press("Control+a")
    page.keyboard.type("128")


def test_keys_of_one_letter_can_be_switched_off(page: Page) -> None:
    page.keyboard.press("?")
    page.get_by_label("Single-letter keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    expect(page.get_by_role("button", name="Lines", exact=True)).to_have_attribute("aria-pressed", "true")


def test_matches_are_a_table_for_those_who_do_not_see_them(page: Page, example: dict[str, Any]) -> None:
    page.locator("summary[data-t=table]").click()
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(101)
    x, y = ends(example, 0)[0]
    expect(rows.nth(1)).to_contain_text(f"{x:.1f}")
    expect(rows.nth(1)).to_contain_text(f"{y:.1f}")
    page.get_by_role("button", name="Show match 3", exact=True).click()
    expect(page.locator(".walk .n")).to_contain_text("3 of")
    expect(rows.nth(3)).to_have_attribute("aria-current", "true")


def test_a_phone_shows_a_above_b_and_a_tap_selects(phone: Page, example: dict[str, Any]) -> None:
    tags = [phone.locator(".viewer .tag").nth(i).bounding_box() for i in (0, 1)]
    assert tags[0] is not None
    assert tags[1] is not None
    assert tags[1]["y"] > tags[0]["y"] + 100
    wide = phone.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0  # nothing sticks out
    canvas = phone.locator("canvas.marks").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    image = example["images"][0]
    scale = box["width"] / image["width"]
    x, y = ends(example, 0)[0]
    phone.touchscreen.tap(box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale)
    expect(phone.locator(".patches canvas")).to_have_count(2)
    camera = phone.locator("#camera0")
    expect(camera).to_have_attribute("capture", "environment")
    camera.set_input_files(B)
    expect(phone.locator(".slot .name").first).to_have_text(B.name)


def test_two_fingers_zoom_both_images(phone: Page) -> None:
    canvas = phone.locator("canvas.marks").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 4
    touch = phone.context.new_cdp_session(phone)

    def fingers(kind: str, *apart: float) -> None:
        points = [{"x": x + sign * each, "y": y, "id": i} for each in apart for i, sign in enumerate((-1, 1))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", 30)
    for apart in (40, 60, 90):
        fingers("touchMove", apart)
    fingers("touchEnd")
    expect(phone).to_have_url(re.compile(r"z=[23]\.\d"))
    assert "pin=" not in phone.url  # fingers that zoom choose nothing
    assert phone.evaluate("visualViewport.scale") == 1  # the page itself stays as it is


def test_the_page_speaks_chinese_and_remembers_it(page: Page) -> None:
    page.locator("#language").click()
    expect(page.locator("button[data-t=match]")).to_have_text("匹配")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.reload()
    expect(page.locator("button[data-t=match]")).to_have_text("匹配")


def test_both_languages_say_the_same_things() -> None:
    folder = files("lightglue.drawing").joinpath("viewer")
    keys = {}
    for name in ("en", "zh"):
        text = folder.joinpath(f"words_{name}.js").read_text(encoding="utf-8")
        pairs = re.findall(r'(\w+): "((?:[^"\\]|\\.)*)"', text)
        keys[name] = {key: sorted(re.findall(r"\{(\w+)\}", words)) for key, words in pairs}
    own = {key for key in keys["zh"] if key.startswith(("option_", "group_"))}  # in English these are the package's
    assert keys["zh"].keys() - own == keys["en"].keys() - own
    assert {key: keys["zh"][key] for key in keys["en"]} == keys["en"]


def test_light_and_dark_follow_the_system_and_the_switch(opened: Opened) -> None:
    page = opened(color_scheme="dark")
    paper = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.locator("#theme").click()  # auto, light, dark
    assert page.evaluate(paper) != dark
    page.locator("#theme").click()
    assert page.evaluate(paper) == dark
