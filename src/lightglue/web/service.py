"""The state of a running service: what it was started with, what is kept, and the two processes that work for it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any

from fastapi import Request

from lightglue.web.example import example_files, example_pair
from lightglue.web.failures import FailureError
from lightglue.web.forms import Upload
from lightglue.web.jobs import Jobs
from lightglue.web.maps import Maps
from lightglue.web.options import WebOptions
from lightglue.web.sets import ImageSet
from lightglue.web.store import Store
from lightglue.web.uploads import KINDS, read_header
from lightglue.web.vocabulary import localize_vocabulary, match_vocabulary
from lightglue.web.worker import Budget, Worker

__all__ = ["IMAGE_TASKS", "MODEL_TASKS", "Image", "Result", "Service", "service_of"]

# What the process that decodes can do, and the one that has the models: a name and a function each.
IMAGE_TASKS = {
    "inspect": "lightglue.web.tasks.images:inspect",
    "picture": "lightglue.web.tasks.images:picture",
}
MODEL_TASKS = {
    "match": "lightglue.web.tasks.pair:match",
    "geometry": "lightglue.web.tasks.pair:estimate",
    "export": "lightglue.web.tasks.pair:export",
    "colmap": "lightglue.web.tasks.pair_database:pair_database",
    "extract": "lightglue.web.tasks.extraction:extract",
    "weights": "lightglue.web.tasks.weights:fetch",
    "extract-of-set": "lightglue.web.tasks.sets:extract",
    "pair-of-set": "lightglue.web.tasks.sets:pair",
    "forget-set": "lightglue.web.tasks.sets:forget",
    "database": "lightglue.web.tasks.sets:database",
    "localize": "lightglue.web.tasks.localize:localize",
}
SWEEP_S = 5.0
DECODE_S = 30.0  # the longest that decoding may take
PATIENCE = 64  # images that wait to be decoded


@dataclass(frozen=True)
class Image:
    """An image that a user has sent."""

    name: str
    data: bytes  # the file
    media_type: str
    width: int  # px, upright
    height: int
    shown: bytes | None  # as JPEG, where a browser would not show the file, or not upright
    thumbnail: bytes  # JPEG

    @property
    def size(self) -> int:
        """Bytes that it takes up here."""
        return len(self.data) + len(self.shown or b"") + len(self.thumbnail)

    def described(self, name: str) -> dict[str, Any]:
        """As JSON holds it."""
        found = {"id": name, "name": self.name, "width": self.width, "height": self.height}
        return {**found, "bytes": len(self.data)}


@dataclass(frozen=True)
class Result:
    """What came of a job."""

    kind: str
    content: bytes  # JSON, without the result's name
    kept: bytes = b""  # for the worker, which has it again to write a file of it
    images: tuple[dict[str, Any], ...] = ()  # id, name, data of those that it is of
    files: Mapping[str, bytes] = field(default_factory=dict)  # contents by their endings, which are there already

    @property
    def size(self) -> int:
        """Bytes that it takes up here besides the images, which others share."""
        return len(self.content) + len(self.kept) + sum(map(len, self.files.values()))

    def as_json(self, name: str) -> bytes:
        """The content with the result's name."""
        return b'{"id":"' + name.encode() + b'",' + self.content[1:]


@dataclass(eq=False)
class Service:
    """All that a request needs."""

    options: WebOptions
    images: Store[Image] = field(init=False)
    results: Store[Result] = field(init=False)
    sets: Store[ImageSet] = field(init=False)
    maps: Maps = field(init=False)
    decoding: Jobs = field(init=False)
    jobs: Jobs = field(init=False)
    _sweeper: asyncio.Task[None] | None = None
    _closed: bool = False

    def __post_init__(self) -> None:
        limits = self.options.limits
        half, keep = limits.results_mb * 500_000, limits.keep_minutes * 60
        self.images = Store("image", limits.images_mb * 1_000_000, keep, gone=self._forget_made_of)
        self.results = Store("result", half, keep, used=self._touch_images)
        self.offline = _is_set("LIGHTGLUE_OFFLINE")
        self.commercial_only = _is_set("LIGHTGLUE_COMMERCIAL_ONLY")
        self.sets = Store("set of images", half, keep, used=self._touch_images, gone=self._forget_features)
        self.maps = Maps(self.options.maps)
        environment = {
            "LIGHTGLUE_OFFLINE": "1",  # weights are fetched when asked for
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        }
        self.decoding = Jobs(Worker("lightglue-web-images", IMAGE_TASKS), PATIENCE, keep)
        self.jobs = Jobs(Worker("lightglue-web-models", MODEL_TASKS, environment), limits.queue, keep)
        self.vocabulary, self.localizing = match_vocabulary(limits.most_keypoints), localize_vocabulary()
        self.budget = Budget(limits.seconds, int(limits.memory_gb * 1e9))
        self._keep_example()

    def _keep_example(self) -> None:
        pair = example_pair()
        images = []
        for about, data in example_files(pair):
            image = Image(about["name"], data, KINDS["JPEG"], about["width"], about["height"], None, data)
            self.images.pin(about["id"], image)
            images.append({"id": about["id"], "name": about["name"], "data": data})
        name = pair.pop("id")
        self.results.pin(name, Result("pair", json.dumps(pair, separators=(",", ":")).encode(), b"", tuple(images)))

    async def start(self) -> None:
        """Begin to take jobs; the processes import what they need meanwhile."""
        self.decoding.start()
        self.jobs.start()
        self._sweeper = asyncio.create_task(self._sweep())
        for worker in (self.decoding.worker, self.jobs.worker):
            Thread(target=worker.start, daemon=True).start()

    async def close(self) -> None:
        """End all processes and forget everything; nothing where that is done."""
        if self._closed:
            return
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        await asyncio.gather(self.jobs.close(), self.decoding.close())
        self.images.clear()
        self.results.clear()
        self.sets.clear()

    def keep_result(self, result: Result) -> str:
        """Keep what came of a job; its name. Images that are gone already count as its own.

        Raises FailureError, also where the user has deleted one of them meanwhile.
        """
        if any(self.images.was_removed(image["id"]) for image in result.images):
            raise FailureError.of(410, "expired", "An image of this was deleted meanwhile.")
        own = sum(len(image["data"]) for image in result.images if image["id"] not in self.images)
        return self.results.put(result, result.size + own)

    def _touch_images(self, value: Result | ImageSet) -> None:
        """What is made of images is of use as long as these are there."""
        for image in _images_of(value):
            self.images.touch(image)

    def _forget_made_of(self, image: str) -> None:
        """An image is gone, and with it what was made of it, which holds it."""
        for store in (self.results, self.sets):
            for name, value in store.items():
                if image in _images_of(value):
                    store.forget(name)

    def _forget_features(self, name: str) -> None:
        """A set is gone, and with it what the process keeps of it; with a full queue, once others need the room."""
        with suppress(FailureError):
            self.jobs.submit("forget", "forget-set", {"set": name}, self.budget, lambda _: None)

    async def take_image(self, upload: Upload, field: str = "file") -> str:
        """Decode an image file once, and keep it; its name. Raises FailureError."""
        header = read_header(upload, self.options.limits, field)
        given = {"data": upload.data, "name": upload.name}
        budget = Budget(min(DECODE_S, self.budget.seconds), self.budget.memory)

        def finish(found: Mapping[str, Any]) -> str:
            image = Image(upload.name, upload.data, KINDS[header.kind], **found)
            return self.images.put(image, image.size)

        job = self.decoding.submit("image", "inspect", given, budget, finish)
        try:
            return str(await self.decoding.result(job))
        except FailureError as failed:
            about = field if failed.failure.status == 422 else failed.failure.about
            raise FailureError(replace(failed.failure, about=about)) from None

    async def _sweep(self) -> None:
        """Drop what is too old, and stop what nobody waits for."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.images.sweep()
            self.results.sweep()
            self.sets.sweep()
            for job in self.jobs.abandoned():
                self.jobs.cancel(job)


def _images_of(value: Result | ImageSet) -> list[str]:
    if isinstance(value, Result):
        return [str(image["id"]) for image in value.images]
    return [image.id for image in value.images]


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service
