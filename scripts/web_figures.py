"""Measure the page in a browser: its size, the slider with 2,000 lines, the first picture beyond matching.

    python scripts/web_figures.py

Prints the table that docs/web.md shows. On a machine that does nothing else, or the times mean nothing.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from playwright.sync_api import sync_playwright

from lightglue.drawing.viewer_page import viewer_page
from support.browser import find_chromium, serving

ASSETS = Path(__file__).parents[1] / "assets"
A, B = ASSETS / "montmartre_close.jpg", ASSETS / "montmartre_far.jpg"
LINES, KEYPOINTS, FRAMES = 2000, 2048, 240

# Move the slider a step a frame, and tell how far apart frames are and how long the page's own work took, ms.
SLIDE = """async ([frames]) => {
  const slider = document.getElementById("threshold");
  const apart = [], work = [];
  const frame = () => new Promise(requestAnimationFrame);
  let before = await frame();
  for (let i = 0; i < frames; i++) {
    const began = performance.now();
    slider.value = 0.01 + 0.2 * Math.abs(Math.sin(i / 30));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    const asked = performance.now() - began;
    const now = await frame();
    apart.push(now - before);
    work.push(asked + performance.now() - now);
    before = now;
  }
  return [apart, work];
}"""

# From the click to the frame in which the result is drawn, ms.
CLICK = """() => new Promise((resolve) => {
  const line = document.querySelector(".result");
  const began = performance.now();
  new MutationObserver(() => {
    if (!line.querySelector("strong") || line.hidden ) return;
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - began)));
  }).observe(line, { childList: true });
  document.querySelector("button[data-t=match]").click();
})"""


def main() -> None:
    """Measure, and print."""
    path = find_chromium()
    with sync_playwright() as playwright, serving() as service:
        browser = playwright.chromium.launch(executable_path=path)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(180_000)
        page.goto(service.url)
        page.locator(".result strong").wait_for()
        print(f"| page, all modules, without photographs | {weight(page, service.url) / 1000:.0f} kB |")
        apart, work = slider(browser)
        print(
            f"| slider, {LINES:,} lines: frames a second | median {1000 / statistics.median(apart):.0f}, "
            f"the slowest twentieth {1000 / np.percentile(apart, 95):.0f} |"
        )
        print(f"| slider, {LINES:,} lines: the page's own work a frame | median {statistics.median(work):.1f} ms |")
        beyond = [first_picture(page, service.url) for _ in range(6)][1:]  # models are loaded at the first
        about = f"first picture beyond matching, {KEYPOINTS:,} + {KEYPOINTS:,}"
        print(f"| {about} | median {statistics.median(beyond):.0f} ms |")
        browser.close()


def weight(page: Any, url: str) -> int:
    """Bytes of all files that the page has loaded, uncompressed."""
    names = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    total = 0
    for name in {f"{url}/", *(name for name in names if "/static/" in name)}:
        with urlopen(name) as answer:
            total += len(answer.read())
    return total


def slider(browser: Any) -> tuple[list[float], list[float]]:
    """ms between frames, and of work in each, with a pair of that many matches."""
    draws = np.random.default_rng(0)
    keypoints = draws.uniform(0, 1, (KEYPOINTS, 2)) * (1280, 876)
    scores = np.sort(draws.uniform(0.25, 1, LINES))[::-1]  # all stay above the slider
    pair = {
        "id": "",
        "images": [{"id": "", "name": name, "width": 1280, "height": 876} for name in "AB"],
        "keypoints0": keypoints.ravel().round(2).tolist(),
        "keypoints1": (keypoints + draws.normal(0, 8, keypoints.shape)).ravel().round(2).tolist(),
        "matches": np.repeat(np.arange(LINES), 2).tolist(),
        "scores": scores.tolist(),
        "threshold": 0.0,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.html"
        path.write_bytes(viewer_page(pair, [A.read_bytes(), B.read_bytes()], "A - B"))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(path.as_uri())
        page.locator(".result strong").wait_for()
        apart, work = page.evaluate(SLIDE, [FRAMES])
        page.close()
    return apart[10:], work[10:]


def first_picture(page: Any, url: str) -> float:
    """ms from the click to the drawn result, less what the service took to match."""
    if "kB" not in page.locator(".slot .about").nth(1).inner_text():
        for i, path in enumerate((A, B)):
            page.locator(f"#file{i}").set_input_files(path)
            page.locator(".slot .about", has_text="kB").nth(i).wait_for()
    took = page.evaluate(CLICK)
    page.wait_for_timeout(1500)  # the geometry, and the address
    name = page.url.partition("r=")[2].partition("&")[0]
    with urlopen(f"{url}/api/v1/results/{name}") as answer:
        seconds = json.loads(answer.read())["seconds"]
    return float(took - 1000 * sum(seconds.values()))


if __name__ == "__main__":
    main()
