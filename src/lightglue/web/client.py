"""A small client of the service, which needs nothing but Python.

>>> client = Client("http://127.0.0.1:8000")  # doctest: +SKIP
>>> pair = client.match("a.jpg", "b.jpg", max_keypoints=1024, geometry="homography")  # doctest: +SKIP
>>> len(pair["scores"])  # doctest: +SKIP
1024
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

from lightglue.errors import LightGlueError

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
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", token: str | None = None, timeout: float = 60, patience: float = 120
    ) -> None:
        self._base = url.rstrip("/") + "/api/v1"
        self._token, self._timeout, self._patience = token, timeout, patience
        self._open = build_opener(ProxyHandler({})).open if "://127.0.0.1" in url else build_opener().open

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
        plain = name.encode("ascii", "replace").decode().replace('"', "_").replace("\r", "_").replace("\n", "_")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{plain}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
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
        with self._request("GET", f"jobs/{quote(job)}/events") as stream:
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
        with self._request("GET", path) as answer:
            content: bytes = answer.read()
            return content

    def geometry(self, result: str, **options: Any) -> dict[str, Any]:
        """Estimate a geometry of a pair that was matched: geometry, estimator, threshold, filter_threshold, ..."""
        return self._json("POST", "geometry", json.dumps({"result": result, "options": options}).encode())

    def file(self, result: str, kind: str, **options: Any) -> bytes:
        """A result as a file: "npz", "json", "csv", "png", "svg", "pdf"."""
        query = f"?{urlencode(options)}" if options else ""
        return self.content(f"results/{quote(result)}/{quote(kind)}{query}")

    def _json(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        with self._request(method, path, body, kind) as answer:
            content = answer.read()
            found: dict[str, Any] = json.loads(content) if content else {}
            return found

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
            except URLError as error:
                raise LightGlueError(f"There is no service at {self._base}: {error.reason}.") from error


def _failure(error: HTTPError) -> ServiceError:
    content = error.read()
    try:
        found = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        found = {"code": "http", "message": f"HTTP status {error.code}", "field": None}
    after = error.headers.get("Retry-After")
    pause = float(after) if after is not None and after.isdecimal() else None
    return ServiceError(error.code, found["code"], found["message"], found.get("field"), pause)
