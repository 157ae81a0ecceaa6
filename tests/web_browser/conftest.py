"""One service and one browser for all tests of the page that run in a process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lightglue import parity
from support.browser import Service, Watched, chromium, serving

PHOTOGRAPHS = Path(parity.__file__).parent / "photographs"
A, B = PHOTOGRAPHS / "montmartre_close.jpg", PHOTOGRAPHS / "montmartre_far.jpg"

Opened = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    path = chromium()
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # for a machine that does much else
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def maps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that name a map, and one that is damaged; none without pycolmap."""
    if find_spec("pycolmap") is None:
        return []
    good = request.getfixturevalue("corner_map") / "map"
    damaged = tmp_path_factory.mktemp("maps") / "damaged"
    shutil.copytree(good, damaged)
    with (damaged / "models/0/points3D.bin").open("r+b") as file:
        file.truncate(2000)
    return ["--maps", str(good), "--maps", str(damaged)]


@pytest.fixture(scope="package")
def service(browser: Any, maps: list[str]) -> Iterator[Service]:
    with serving(*maps) as service:
        yield service


@pytest.fixture
def watched(service: Service) -> Iterator[Watched]:
    watched = Watched(service.url)
    yield watched
    watched.check()


@pytest.fixture
def opened(browser: Any, service: Service, watched: Watched) -> Iterator[Opened]:
    """`opened("#pair?view=points", **options of the context)`: a user's page that has loaded."""
    contexts = []

    def page(address: str = "", wait: bool = True, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, "locale": "en-GB", **options})
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = watched.watch(context.new_page())
        page.goto(f"{service.url}/{address}")
        if wait:
            page.locator("main > section:not([hidden]) .result strong").first.wait_for()
        return page

    yield page
    for context in contexts:
        context.close()


@pytest.fixture
def page(opened: Opened) -> Any:
    """The first page: the photographs of the package, matched."""
    return opened()


@pytest.fixture
def phone(opened: Opened) -> Any:
    return opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)


def quick(page: Any, count: int = 256, features: str = "xfeat") -> None:
    """Options with which a match takes a moment."""
    page.locator("#features").select_option(features)
    page.locator("summary[data-t=more_options]").click()
    page.locator("#option-max_keypoints").fill(str(count))
    page.locator("summary[data-t=more_options]").click()


def give_both(page: Any) -> None:
    """Choose the two photographs, and wait until they are shown."""
    from playwright.sync_api import expect

    page.locator("#file0").set_input_files(A)
    page.locator("#file1").set_input_files(B)
    for i in (0, 1):
        expect(page.locator(".slot .about").nth(i)).to_contain_text("kB")
