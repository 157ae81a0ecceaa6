"""Take the pictures of docs/web.md: the page as a user sees it.

python scripts/web_pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from playwright.sync_api import expect, sync_playwright  # noqa: E402

from support.browser import find_chromium, serving  # noqa: E402

ASSETS = ROOT / "assets"


def main() -> None:
    """Match the photographs, and take the pictures."""
    expect.set_options(timeout=180_000)
    with sync_playwright() as playwright, serving() as service:
        browser = playwright.chromium.launch(executable_path=find_chromium())
        wide = opened(browser, service.url, width=1400, height=900)
        for i, name in enumerate(("close", "far")):
            wide.locator(f"#file{i}").set_input_files(ASSETS / f"montmartre_{name}.jpg")
            expect(wide.locator(".slot .about").nth(i)).to_contain_text("kB")
        press(wide)
        wide.evaluate("document.activeElement.blur()")
        wide.keyboard.press("j")
        settle(wide)
        keep(wide, "pair")
        address = wide.url
        wide.keyboard.press("Escape")
        wide.keyboard.press("s")
        settle(wide)
        keep(wide, "swipe")
        wide.keyboard.press("n")
        wide.locator("button[data-t=compare]").click()
        wide.locator("#compare-features").select_option("disk")
        wide.locator("#compare-effort").select_option("normal")
        wide.get_by_role("button", name="Match and compare").click()
        expect(wide.locator(".compared .result strong")).to_be_visible()
        wide.locator(".bench").scroll_into_view_if_needed()
        settle(wide)
        keep(wide, "compare")
        phone = opened(browser, address, width=390, height=844, is_mobile=True, has_touch=True, color_scheme="dark")
        phone.locator(".bench").evaluate("(bench) => scrollTo(0, bench.offsetTop - 8)")
        settle(phone)
        keep(phone, "phone")
        browser.close()


def opened(browser: Any, url: str, *, width: int, height: int, **options: Any) -> Any:
    """A page that shows a result."""
    page = browser.new_context(viewport={"width": width, "height": height}, **options).new_page()
    page.goto(url)
    page.locator(".result strong").first.wait_for()
    return page


def press(page: Any) -> None:
    """Match."""
    page.locator("button[data-t=match]").click()
    expect(page.locator("button[data-t=match]")).to_be_visible()
    expect(page.locator(".geometry + .fault + .facts, .geometry")).to_be_visible()
    settle(page)


def settle(page: Any) -> None:
    """Geometry is estimated, and the finer drawing made, after the first picture."""
    page.wait_for_timeout(2500)


def keep(page: Any, name: str) -> None:
    """Write a picture, of less than 150 kB."""
    path = ROOT / "docs" / f"web-{name}.jpg"
    for quality in (82, 74, 66, 58, 50, 42):
        page.screenshot(path=path, type="jpeg", quality=quality)
        if path.stat().st_size < 150_000:
            break
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
