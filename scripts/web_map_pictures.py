"""Take the pictures of docs/web-maps.md: a folder, a map, and a photograph that is localized in it.

python scripts/web_map_pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from playwright.sync_api import expect, sync_playwright  # noqa: E402
from web_pictures import keep, settle  # noqa: E402

from lightglue.sfm import build_map  # noqa: E402
from support import corner  # noqa: E402
from support.browser import find_chromium, serving  # noqa: E402


def main() -> None:
    """Photograph a corner papered with the package's pictures, make its map, and look at both."""
    expect.set_options(timeout=300_000)
    with TemporaryDirectory() as place:
        folder = Path(place)
        take(folder)
        build_map(folder / "photographs", folder / "map", corner.map_options(1500))
        with sync_playwright() as playwright, serving("--maps", str(folder / "map")) as service:
            browser = playwright.chromium.launch(executable_path=find_chromium())
            options = {"viewport": {"width": 1400, "height": 900}, "reduced_motion": "reduce"}
            page = browser.new_context(**options).new_page()
            page.goto(f"{service.url}/#folder")
            page.locator("#many-folder").set_input_files(folder / "photographs")
            page.locator("#many-max_keypoints").fill("1024")
            page.get_by_role("button", name="Match all pairs").click()
            page.locator("canvas.many-matrix[data-done='21']").wait_for(timeout=600_000)
            keep(page, "folder")
            page.get_by_role("button", name="Stop").click()
            expect(page.locator(".many-status")).to_contain_text("Stopped after")
            page.goto(f"{service.url}/#maps?map=map&camera=4.jpg")
            expect(page.locator(".map-through strong")).to_have_text("4.jpg")
            settle(page)
            keep(page, "map")
            page.locator("#localize-file").set_input_files(folder / "query.jpg")
            expect(page.locator(".map-localized h2")).to_contain_text("was taken here")
            settle(page)
            keep(page, "localized")
            browser.close()


def take(folder: Path) -> None:
    """Eight photographs of 800 x 600 px, and one from between them."""
    (folder / "photographs").mkdir()
    larger = {"SIZE": (800, 600), "K": np.array([[750.0, 0, 400], [0, 750, 300], [0, 0, 1]])}
    with mock.patch.multiple(corner, **larger):
        for number in range(8):
            cv2.imwrite(str(folder / "photographs" / f"{number}.jpg"), corner.photograph(number - 3.5))
        cv2.imwrite(str(folder / "query.jpg"), corner.photograph(0.25))


if __name__ == "__main__":
    main()
