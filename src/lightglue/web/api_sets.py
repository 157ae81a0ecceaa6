"""All pairs of a set of images: matched one after the other, looked at meanwhile, and had as a COLMAP database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from lightglue.pairs.asked import PairRequest
from lightglue.web.api_pairs import answered, checked_options, weights_there
from lightglue.web.failures import FailureError
from lightglue.web.forms import read_json
from lightglue.web.jobs import MORE, Job
from lightglue.web.service import Result, Service, service_of
from lightglue.web.sets import ImageSet, SetImage, SetWork, is_apart, unique_names

__all__ = ["router"]

router = APIRouter(prefix="/pairs", tags=["pairs"])
LONGEST_NAME = 200  # characters


@router.post("", summary="Match all pairs of a set of images", status_code=202)
async def match_all(request: Request) -> Response:
    """`{"images": [...], "options": {...}}`, and `names` where they are to have others, such as paths in a folder.

    The job's `set` names what comes of it, also before it has ended and after it was stopped. Its events: `pair` with
    i, j, matches, overlap, inliers, or `error`; `image` with the number of one that is left out, and the `error`.
    Options that need the pixels of both images, or cameras, make each pair be matched from its images.
    """
    service = service_of(request)
    asked = await read_json(request, ("images", "names", "options"))
    made = _asked_set(service, asked)
    models = PairRequest.of(made.asked).models
    await weights_there(models.features, models.matcher)
    made.id = service.sets.put(made, made.size)
    loop = asyncio.get_running_loop()
    known: list[Job] = []

    def hear(name: str, content: dict[str, Any]) -> None:
        made.hear(name, content)
        if name in ("pair", "features"):
            try:
                service.sets.resize(made.id, made.size)
            except FailureError as failed:  # it has become too large, or is gone with an image of it
                service.jobs.cancel(known[0], failed.failure)
        if name != "features":
            service.jobs.hear(known[0], name, {k: v for k, v in content.items() if k != "rows"})

    def hear_soon(name: str, content: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(hear, name, content)

    work = SetWork(made, service.jobs.worker, service.budget, hear_soon)
    try:
        job = service.jobs.add("pairs", lambda job: made.id if work(job.stop) else MORE, lambda found: str(found))
    except FailureError:
        service.sets.remove(made.id)
        raise
    known.append(job)
    made.job = job.id
    return Response(json.dumps({**job.described(), "set": made.id}), 202, media_type="application/json")


@router.get("/{name}", summary="A set of images and its pairs so far")
async def describe(request: Request, name: str) -> Response:
    """Images by their numbers, from 0; of each pair i, j, matches, overlap, inliers, or `error`."""
    return Response(json.dumps(service_of(request).sets.get(name).described()), media_type="application/json")


@router.post("/{name}/{i}/{j}", summary="A pair of a set, all of it", status_code=202)
async def open_pair(request: Request, name: str, i: int, j: int) -> Response:
    """A job whose result is that of `POST match` for these two images; with `?wait=60` the result."""
    service = service_of(request)
    made = service.sets.get(name)
    if not 0 <= i < j < len(made.images):
        raise FailureError.of(404, "unknown", f"The set has no pair {i}, {j}; give two numbers, the smaller one first.")
    work = SetWork(made, service.jobs.worker, service.budget)
    kept = tuple({"id": each.id, "name": each.name, "data": each.data} for each in (made.images[i], made.images[j]))

    def finish(found: Mapping[str, Any]) -> str:
        result = Result("pair", found["json"], found["kept"], kept)
        made.opened[i, j] = service.keep_result(result)
        return made.opened[i, j]

    before = made.opened.get((i, j))
    if before is not None and before in service.results:
        job = service.jobs.add("match", lambda job: before, lambda found: str(found))
    else:
        job = service.jobs.add("match", lambda job: work.open((i, j), job.stop), finish)
    return await answered(request, service, job)


@router.get("/{name}/colmap", summary="The pairs of a set so far as a COLMAP database")
async def database(request: Request, name: str) -> Response:
    """Cameras (their focal lengths by EXIF, or guessed), images, keypoints, matches; geometries are left to COLMAP."""
    service = service_of(request)
    made = service.sets.get(name)
    if made.apart:
        text = "The pairs of this set share no keypoints: match it without the effort hard, rotation, refinement."
        raise FailureError.of(409, "apart", text)
    images = [
        {"number": n, "name": made.images[n].name, **{key: found[key] for key in ("size", "keypoints", "focal")}}
        for n, found in made.features.items()
    ]
    pairs = [(i, j, rows) for (i, j), rows in made.rows.items() if rows]
    if not images:
        raise FailureError.of(409, "early", "No pair of this set has been matched yet; wait for the first.")
    content: list[bytes] = []
    given = {"images": images, "pairs": pairs}
    job = service.jobs.submit("database", "database", given, service.budget, lambda value: content.append(value), True)
    await service.jobs.result(job)
    headers = {"Content-Disposition": 'attachment; filename="database.db"', "Cache-Control": "private, no-store"}
    return Response(content[0], media_type="application/vnd.sqlite3", headers=headers)


def _asked_set(service: Service, asked: Mapping[str, Any]) -> ImageSet:
    """The set of a request. Raises FailureError."""
    ids = asked.get("images")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids) or len(set(ids)) != len(ids):
        raise FailureError.of(422, "input", "images: name images that were sent before, each once.", "images")
    most = service.options.limits.batch
    if not 2 <= len(ids) <= most:
        raise FailureError.of(422, "input", f"images: {len(ids)} are given; give from 2 to {most}.", "images")
    values = checked_options(service, asked.get("options"))
    request = PairRequest.of(values)
    found = [service.images.get(each, "images") for each in ids]
    names = unique_names(_names(asked.get("names"), [image.name for image in found]))
    images = tuple(
        SetImage(each, name, image.data, image.width, image.height)
        for each, name, image in zip(ids, names, found, strict=True)
    )
    return ImageSet(images, asked.get("options") or {}, values, is_apart(request, values))


def _names(given: Any, usual: list[str]) -> list[str]:
    if given is None:
        return usual
    if not isinstance(given, list) or len(given) != len(usual) or not all(map(_is_name, given)):
        raise FailureError.of(
            422, "input", f"names: give each image one of 1 to {LONGEST_NAME} letters, such as left/1.jpg.", "names"
        )
    return given


def _is_name(name: Any) -> bool:
    """Whether programs can take a name for a path under a folder: these names end up in COLMAP's database."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        return False
    return not name.startswith("/") and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))
