"""A small client of the service, which needs nothing but Python.

>>> client = Client("http://127.0.0.1:8000")  # doctest: +SKIP
>>> pair = client.match("a.jpg", "b.jpg", max_keypoints=1024, geometry="homography")  # doctest: +SKIP
>>> len(pair["scores"])  # doctest: +SKIP
1024
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from lightglue.errors import InputError, LightGlueError
from lightglue.web.options import is_loopback

__all__ = ["Client", "ServiceError"]

ImageFile = str | os.PathLike[str] | bytes


class ServiceError(LightGlueError):
    """What the service says went wrong."""

    def __init__(self, status: int, code: str, message: str, field: str | None, retry_after: float | None) -> None:
        super().__init__(message)
        self.status, self.code, self.field, self.retry_after = status, code, field, retry_after


class Client:
    """A service at `url`.

    token: what it was started with, where it wants one. timeout: seconds that an answer may take. patience: seconds for
    which a service that is busy is asked again.

    Raises InputError for what is no address. All methods raise ServiceError for what the service refuses, and
    LightGlueError where it does not answer.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", token: str | None = None, timeout: float = 60, patience: float = 120
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"url is {url!r}; give the whole address, such as http://127.0.0.1:8000.")
        self._base = url.rstrip("/") + "/api/v1"
        self._token, self._timeout, self._patience = token, timeout, patience
        # a proxy of this machine's environment does not lead back to this machine
        self._open = build_opener(*([ProxyHandler({})] if is_loopback(parts.hostname) else [])).open

    def health(self) -> dict[str, Any]:
        """How it is, and how busy."""
        return self._json("GET", "health")

    def options(self) -> dict[str, Any]:
        """What it offers."""
        return self._json("GET", "options")

    def send(self, image: ImageFile) -> dict[str, Any]:
        """Send an image: a path, or the content of a file. `id` in the answer is its name."""
        if isinstance(image, bytes):
            name, data = "image", image
        else:
            name, data = Path(image).name, Path(image).read_bytes()
        boundary = secrets.token_hex(16)
        plain = re.sub(r'["\r\n]', "_", name)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{plain}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode("utf-8", "replace") + data + f"\r\n--{boundary}--\r\n".encode()
        return self._json("POST", "images", body, f"multipart/form-data; boundary={boundary}")

    def match(
        self,
        image0: ImageFile,
        image1: ImageFile,
        *,
        progress: Callable[[dict[str, Any]], None] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Match two images, with the options of `lightglue match`; the pair as the service describes it.

        progress: gets the job now and then.
        """
        names = [self.send(image)["id"] for image in (image0, image1)]
        asked = {"image0": names[0], "image1": names[1], "options": options}
        job = self.submit("match", asked)
        return self.result(self.wait(job["id"], progress)["result"])

    def submit(self, what: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for something that is a job: "match", "pairs", "extract" or "maps/NAME/localize"."""
        return self._json("POST", what, json.dumps(asked).encode())

    def wait(self, job: str, progress: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """The job when it is done. Raises ServiceError where it fails or is cancelled."""
        pause = 0.02
        while True:
            found = self._json("GET", f"jobs/{quote(job)}")
            if progress is not None:
                progress(found)
            if found["state"] == "done":
                return found
            if found["state"] in ("failed", "cancelled"):
                error = found["error"] or {"code": "cancelled", "message": "This was cancelled."}
                raise ServiceError(409, error["code"], error["message"], error.get("field"), None)
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def events(self, job: str) -> Iterator[tuple[str, Any]]:
        """What a job does, as it does it: names and contents, the last of which is done, failed or cancelled."""
        with self._answer("GET", f"jobs/{quote(job)}/events") as stream:
            name = ""
            for line in stream:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)

    def cancel(self, job: str) -> None:
        """Stop a job."""
        self._json("DELETE", f"jobs/{quote(job)}")

    def result(self, name: str) -> dict[str, Any]:
        """A result as the service describes it."""
        return self._json("GET", f"results/{quote(name)}")

    def get(self, path: str) -> dict[str, Any]:
        """What stands at a path under /api/v1, such as "maps" or "pairs/NAME"."""
        return self._json("GET", path)

    def content(self, path: str) -> bytes:
        """The same of what is no JSON, such as "pairs/NAME/colmap"."""
        with self._answer("GET", path) as answer:
            content: bytes = answer.read()
            return content

    def geometry(self, result: str, **options: Any) -> dict[str, Any]:
        """Estimate a geometry of a pair that was matched: geometry, estimator, threshold, filter_threshold, ..."""
        return self._json("POST", "geometry", json.dumps({"result": result, "options": options}).encode())

    def file(self, result: str, kind: str, **options: Any) -> bytes:
        """A result as a file: "npz", "json", "csv", "png", "jpg", "svg", "pdf", "html", "colmap"."""
        query = f"?{urlencode(options)}" if options else ""
        return self.content(f"results/{quote(result)}/{quote(kind)}{query}")

    def _json(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        with self._answer(method, path, body, kind) as answer:
            content = answer.read()
        try:
            found: dict[str, Any] = json.loads(content) if content else {}
        except ValueError:
            raise LightGlueError(f"What answers at {self._base} is no service of this package.") from None
        return found

    @contextmanager
    def _answer(self, *request: Any) -> Iterator[Any]:
        """The answer to a request, to be read. Raises ServiceError, LightGlueError."""
        try:
            with self._request(*request) as answer:
                yield answer
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise LightGlueError(f"There is no service at {self._base}, or it does not answer: {reason}.") from error

    def _request(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        headers = {} if body is None else {"Content-Type": kind}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        until = time.monotonic() + self._patience
        while True:
            request = Request(f"{self._base}/{path}", body, headers, method=method)
            try:
                return self._open(request, timeout=self._timeout)
            except HTTPError as error:
                failure = _failure(error)
                pause = failure.retry_after
                if failure.status != 429 or pause is None or time.monotonic() + pause > until:
                    raise failure from None
                time.sleep(min(pause, 1.0))


def _failure(error: HTTPError) -> ServiceError:
    """What the service says, or whatever stands between it and here."""
    try:
        found = json.loads(error.read())["error"]
        code, message = found["code"], found["message"]
    except (ValueError, KeyError, TypeError):
        found, code, message = {}, "http", f"HTTP status {error.code}"
    after = error.headers.get("Retry-After")
    pause = float(after) if after is not None and after.isdecimal() else None
    return ServiceError(error.code, code, message, found.get("field"), pause)
