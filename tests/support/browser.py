"""The page in a real browser: where Chromium is, a service in a process of its own, and what a page must never do."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from support import NEEDS_BROWSER

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
REQUIRED = "LIGHTGLUE_BROWSER_REQUIRED"  # set by CI: a browser that is not there is a failure, and no reason to skip


def find_chromium() -> str | None:
    """The browser's path: the machine's own, or Playwright's; None where there is neither."""
    from playwright.sync_api import sync_playwright

    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def chromium() -> str:
    """The browser's path; skips the test where there is none, or fails it where there must be one."""
    if find_spec("playwright") is None:
        _without("the package playwright is not installed")
    return find_chromium() or _without("there is no Chromium")


def _without(why: str) -> Any:
    reason = f"{NEEDS_BROWSER}: {why}; `make setup-web` brings it"
    if os.environ.get(REQUIRED):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@dataclass
class Service:
    """`lightglue web` as a user starts it."""

    process: subprocess.Popen[str]
    url: str

    def workers(self) -> list[int]:
        """The processes that compute for it: their ids."""
        lists = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        children = [child for each in lists for child in each.read_text().split()]
        return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Service]:
    """A service on a free port, until the end of the block."""
    command = [sys.executable, "-c", "from lightglue.cli import main; main()", "web", "--no-browser", "--port", "0"]
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **environment},
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://\S+", line):
            break
    else:
        process.wait()
        pytest.fail(f"lightglue web ended with {process.returncode}: {''.join(said)}")
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    reader.start()  # or it would stop when the pipe is full
    try:
        yield Service(process, found[0].rstrip("/"))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(5)
        process.stdout.close()


@dataclass
class Watched:
    """What a page does that it must not: errors on its console, requests to other origins."""

    origin: str
    faults: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def allow(self, *patterns: str) -> None:
        """Say what this test is about: parts of lines that a console may show."""
        self.allowed += patterns

    def watch(self, page: Any) -> Any:
        """Listen to a page."""
        page.on("console", lambda message: message.type in ("error", "warning") and self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._request(request.url))
        return page

    def _request(self, url: str) -> None:
        if not url.startswith((self.origin + "/", "data:", "blob:", "about:")):
            self.faults.append(f"a request to {url}")

    def check(self) -> None:
        """Fail where there was anything."""
        left = [fault for fault in self.faults if not any(pattern in fault for pattern in self.allowed)]
        assert not left, left
