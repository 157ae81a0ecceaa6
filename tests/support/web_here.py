"""What tests of the REST interface ask and send."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from lightglue.web.options import WebOptions
from support.web import serving

API = "/api/v1"


@contextmanager
def service(options: WebOptions | None = None) -> Iterator[TestClient]:
    """A client of a running service."""
    with serving(options) as (client, _):
        yield client


def png(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """A picture of noise."""
    return encoded(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8), "PNG")


def encoded(image: Any, kind: str, **settings: Any) -> bytes:
    """The content of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **settings)
    return buffer.getvalue()


def send(client: TestClient, data: bytes, name: str = "a.png") -> Any:
    """The answer to an upload."""
    return client.post(f"{API}/images", files={"file": (name, data)})


def error_of(answer: Any) -> tuple[int, str, str | None]:
    """Status, code and field of a refusal."""
    found = answer.json()["error"]
    assert set(found) >= {"code", "message", "field"}
    return answer.status_code, found["code"], found["field"]
