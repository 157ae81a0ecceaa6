"""Where the service listens, what it shows, and how much it takes on: read without the extra `web`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.support.checks import check_between, check_int
from lightglue.support.parsers import device, integer, real

__all__ = ["Limits", "WebOptions", "is_loopback"]

SHORTEST_TOKEN = 16  # characters


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _megabytes(default: int, help: str) -> int:
    parse = integer("a number of megabytes from 1 to 1000000")
    found: int = option(default, help, group="Machine", metavar="MB", parse=parse)
    return found


@dataclass(frozen=True)
class Limits:
    """How much the service takes on. Raises InputError."""

    upload_mb: int = _megabytes(64, "Largest file that is taken.")
    megapixels: int = option(
        40,
        "Largest image that is decoded.",
        group="Machine",
        metavar="N",
        parse=integer("a number of megapixels from 1 to 1000", 1, 1000),
    )
    most_keypoints: int = option(
        8192,
        "Most keypoints of an image that may be asked for.",
        group="Machine",
        parse=integer("a number of keypoints"),
    )
    queue: int = option(
        8,
        "Jobs that wait; more are refused.",
        group="Machine",
        metavar="N",
        parse=integer("a number of jobs from 1 to 1000", 1, 1000),
    )
    seconds: float = option(
        120.0,
        "Longest that a pair may take.",
        group="Machine",
        metavar="S",
        parse=real("a number of seconds from 1 to 86400", 1, 86_400),
    )
    memory_gb: float = option(
        8.0,
        "Most memory of the process that matches.",
        group="Machine",
        metavar="GB",
        parse=real("a number of gigabytes from 0.5 to 10000", 0.5, 10_000),
    )
    images_mb: int = _megabytes(2000, "Images that are kept, in memory; those used least recently go.")
    results_mb: int = _megabytes(512, "The same of results.")
    keep_minutes: float = option(
        60.0,
        "How long an image or a result is kept after its last use.",
        group="Machine",
        metavar="N",
        parse=real("a number of minutes from 0.01 to 100000", 0.01, 100_000),
    )
    batch: int = option(
        200,
        "Most images in a set whose pairs are all matched.",
        group="Machine",
        metavar="N",
        parse=integer("a number of images from 2 to 10000", 2, 10_000),
    )

    def __post_init__(self) -> None:
        for name in ("upload_mb", "megapixels", "most_keypoints", "queue", "images_mb", "results_mb", "batch"):
            check_int(name, getattr(self, name), 1, "a positive integer")
        check_between(self, "", seconds=1e6, memory_gb=1e6, keep_minutes=1e7)

    @property
    def upload_bytes(self) -> int:
        """The largest file."""
        return self.upload_mb * 1_000_000

    @property
    def pixels(self) -> int:
        """The largest image."""
        return self.megapixels * 1_000_000


@dataclass(frozen=True)
class WebOptions:
    """Where the service listens, and what it shows. Raises InputError."""

    host: str = option(
        "127.0.0.1",
        "The address to listen at; any but this machine's own needs a token.",
        metavar="ADDRESS",
        group="Machine",
    )
    port: int = option(
        8000,
        "The port to listen at; 0 takes any that is free.",
        group="Machine",
        metavar="N",
        parse=integer("a port from 0 to 65535", 0, 65_535),
    )
    maps: tuple[Path, ...] = option((), "A map to show, of `lightglue sfm`. Repeatable.", group="Output", metavar="DIR")
    token: str | None = option(
        None,
        "A password of at least 16 characters that each request must bring; auto: a new one, which is printed.",
        group="Machine",
        metavar="TEXT",
    )
    behind_proxy: str | None = option(
        None,
        "The address under which a proxy serves this, such as https://example.org/match.",
        group="Machine",
        metavar="URL",
    )
    browser: bool = option(True, "Do not open the page in a browser.", group="Machine", flag="--no-browser")
    device: str = option("auto", "Where to compute, unless a request says so.", group="Machine", parse=device)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_int("port", self.port, 0, "a port from 0 to 65535", 65_535)
        if not self.host or re.search(r"[\s/]", self.host):
            raise InputError(f"host is {self.host!r}; give an address or a name of this machine, such as 127.0.0.1.")
        if self.token is not None and self.token != "auto" and not _is_token(self.token):
            raise InputError(
                f"token has {len(self.token)} characters; give at least {SHORTEST_TOKEN} letters, digits, - or _, or "
                "auto."
            )
        if self.behind_proxy is not None:
            _check_url(self.behind_proxy)
        if self.token is None and (not is_loopback(self.host) or self.behind_proxy is not None):
            where = f"host is {self.host}" if self.behind_proxy is None else f"behind_proxy is {self.behind_proxy}"
            raise InputError(f"{where}, which others can reach; give a token too, or token auto for a new one.")


def _is_token(text: str) -> bool:
    return re.fullmatch(rf"[A-Za-z0-9_~.-]{{{SHORTEST_TOKEN},200}}", text) is not None


def _check_url(url: str) -> None:
    try:
        found = urlsplit(url)
        valid = found.scheme in ("http", "https") and bool(found.hostname) and not found.query and found.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"[\s\"'<>\\@#%]|\.\./", url):
        raise InputError(f"behind_proxy is {url!r}; give the whole address, such as https://example.org/match.")
    if re.match(r"/(api|static)(/|$)", found.path):
        raise InputError(f"behind_proxy is {url!r}, whose path is one of the service's own; choose another.")
