"""A pair: match it, estimate its geometry again, have it as a file."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from lightglue.pairs.asked import PairRequest
from lightglue.pairs.encoders import ENDINGS
from lightglue.support.checks import is_real
from lightglue.web.failures import Failure, FailureError
from lightglue.web.forms import Upload, parse_json, read_form, read_json
from lightglue.web.jobs import Job
from lightglue.web.models_there import missing_weights
from lightglue.web.service import Result, Service, service_of
from lightglue.web.uploads import read_header

__all__ = ["answered", "checked_options", "chosen_images", "masks_of", "router", "weights_there"]

router = APIRouter(tags=["pairs"])
LONGEST_WAIT = 600.0  # seconds
GEOMETRY = ("geometry", "estimator", "threshold", "seed", "camera0", "camera1", "filter_threshold")
MEDIA = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "npz": "application/octet-stream",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "html": "text/html; charset=utf-8",
    "colmap": "application/vnd.sqlite3",
}


@router.post("/match", summary="Match two images", status_code=202)
async def match(request: Request) -> Response:
    """Images by the names that `POST images` gave, as JSON; or two files, `image0` and `image1`, in a form with
    `options` as JSON. The answer names the job; with `?wait=60` it is the result, where that is there in time.
    """
    service = service_of(request)
    asked = await _asked(request, service)
    values = checked_options(service, asked.get("options"))
    models = PairRequest.of(values).models  # what does not go together is refused now
    await weights_there(models.features, models.matcher)
    images = chosen_images(service, asked)
    given = {
        "images": images,
        "asked": values,
        "options": asked.get("options") or {},
        "masks": masks_of(service, asked.get("masks")),
        "keypoints": _keypoints(service, asked.get("keypoints")),
    }

    def finish(found: Mapping[str, Any]) -> str:
        result = Result("pair", found["json"], found["kept"], images)
        return service.keep_result(result)

    return await answered(request, service, service.jobs.submit("match", "match", given, service.budget, finish))


def chosen_images(service: Service, asked: Mapping[str, Any], names: tuple[str, ...] = ("image0", "image1")) -> Any:
    """The images that a request names, as tasks take them."""
    found = []
    for part in names:
        name = asked.get(part)
        if not isinstance(name, str):
            raise FailureError.of(422, "input", f"{part}: name an image that was sent before.", part)
        image = service.images.get(name, part)
        found.append({"id": name, "name": image.name, "data": image.data})
    return tuple(found)


def checked_options(service: Service, options: Any) -> dict[str, Any]:
    """The options of a request, with the service's device where it names none."""
    values = service.vocabulary.read({} if options is None else options)
    if service.options.device != "auto":
        values.setdefault("device", service.options.device)
    return values


async def weights_there(features: str, matcher: str | None) -> None:
    """Raises FailureError (503), which says what must be fetched and under which licence it comes."""
    missing = await asyncio.to_thread(missing_weights, features, matcher)
    if missing is None:
        return
    size = "of unknown size" if missing["bytes"] is None else f"{missing['bytes'] / 1e6:.1f} MB"
    text = f"The weights of {features} are not on this machine: {size}, licence {missing['licence']}."
    remedy = f" POST weights/{features} fetches them."
    raise FailureError(Failure(503, "weights_missing", text + remedy, "features", None, {"weights": [missing]}))


async def answered(request: Request, service: Service, job: Job) -> Response:
    """The job, or with `?wait=` what comes of it."""
    wait = _wait(request)
    result = None if wait is None else await _while_connected(request, service, job, wait)
    if result is None:
        return Response(json.dumps(job.described()), 202, media_type="application/json")
    return Response(service.results.get(result).as_json(result), media_type="application/json")


async def _while_connected(request: Request, service: Service, job: Job, seconds: float | None) -> str | None:
    """The result's name, waited for as long as the client does; a job whose client has left is cancelled."""
    waiting = asyncio.ensure_future(service.jobs.result(job, seconds))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            service.jobs.cancel(job)
        return await waiting
    finally:
        leaving.cancel()


async def _left(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _kept(request: Request, service: Service, name: str) -> Result:
    """A pair of which files can be made. The one that comes with the package is matched for it, once."""
    result = service.results.get(name, "result")
    if result.kind != "pair":
        raise FailureError.of(422, "input", "result: this is no pair.", "result")
    if result.kept:
        return result
    about = json.loads(result.content)
    values = checked_options(service, about["options"])
    await weights_there(about["features"], "lightglue")
    found: list[Mapping[str, Any]] = []
    given = {"images": result.images, "asked": values, "options": about["options"], "masks": {}, "keypoints": {}}
    job = service.jobs.submit("match", "match", given, service.budget, found.append)
    await _while_connected(request, service, job, None)
    result = replace(result, kept=found[0]["kept"])
    service.results.pin(name, result)
    return result


@router.post("/geometry", summary="Estimate a geometry of a pair that was matched")
async def geometry(request: Request) -> Any:
    """`{"result": ..., "options": {"geometry": "homography", "filter_threshold": 0.2, ...}}`: of the matches above that
    score. `inliers` are rows of the pair's matches.
    """
    service = service_of(request)
    asked = await read_json(request, ("result", "options"))
    values = _geometry_options(service, asked.get("options") or {})
    if "geometry" not in values:
        raise FailureError.of(422, "input", "geometry: name what is to be estimated.", "geometry")
    result = await _kept(request, service, str(asked.get("result")))
    found: list[dict[str, Any]] = []
    given = {"kept": result.kept, "images": result.images, "asked": values}
    job = service.jobs.submit("geometry", "geometry", given, service.budget, found.append, True)
    await _while_connected(request, service, job, None)
    return found[0]


@router.get("/results/{result}", summary="A pair, all of its matches")
async def show(request: Request, result: str) -> Response:
    """All mutual partners, whatever their score: those above `threshold` are what `lightglue match` gives."""
    return Response(service_of(request).results.get(result).as_json(result), media_type="application/json")


@router.get("/results/{result}/{kind}", summary="A pair as a file")
async def export(request: Request, result: str, kind: str) -> Response:
    """npz, json, csv, png, jpg, svg, pdf or html, as `lightglue match -o` writes them; colmap, a database.

    Queries, such as `filter_threshold=0.3&geometry=homography`, ask for other matches and another geometry than the
    pair was matched with.
    """
    service = service_of(request)
    found = service.results.get(result)
    known = (*ENDINGS, ".colmap") if found.kind == "pair" else tuple(found.files)
    if f".{kind}" not in known:
        listed = ", ".join(ending.removeprefix(".") for ending in known)
        raise FailureError.of(404, "unknown", f"There is no such format; there are {listed}.")
    if found.kind == "pair":
        content: list[bytes] = []
        values = _geometry_options(service, dict(request.query_params))
        found = await _kept(request, service, result)
        given = {"kept": found.kept, "images": found.images, "asked": values, "ending": f".{kind}"}
        task = "colmap" if kind == "colmap" else "export"
        job = service.jobs.submit("export", task, given, service.budget, content.append, True)
        await _while_connected(request, service, job, None)
    else:
        content = [found.files[f".{kind}"]]
    headers = {
        "Content-Disposition": disposition(found.images, "db" if kind == "colmap" else kind),
        "Cache-Control": "private, no-store",
    }
    return Response(content[0], media_type=MEDIA.get(kind, "application/octet-stream"), headers=headers)


def disposition(images: Any, ending: str) -> str:
    """The header that names a download: letters of the images' names, whatever else is in them."""
    stems = [str(image["name"]).rpartition(".")[0] or str(image["name"]) for image in images]
    plain = "-".join(re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")[:40] or "image" for stem in stems)
    full = quote("-".join(stem[:40] for stem in stems) + f".{ending}", safe="")
    return f"attachment; filename=\"{plain}.{ending}\"; filename*=UTF-8''{full}"


async def _asked(request: Request, service: Service) -> dict[str, Any]:
    """What is asked, with files of a form sent first."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await read_json(request, ("image0", "image1", "options", "masks", "keypoints"))
    files, texts = await read_form(request, service.options.limits.upload_bytes, files=4)
    unknown = {*files, *texts} - {"image0", "image1", "mask0", "mask1", "options"}
    if unknown:
        name = sorted(unknown)[0]
        raise FailureError.of(
            422, "form", f"The form has a part {name[:100]!r}, which nothing is known of.", name[:100]
        )
    options = parse_json(texts["options"]) if "options" in texts else {}
    asked: dict[str, Any] = {"options": options, "masks": {}}
    for i in (0, 1):
        if f"image{i}" in files:
            asked[f"image{i}"] = await service.take_image(files[f"image{i}"], f"image{i}")
        if f"mask{i}" in files:
            asked["masks"][str(i)] = files[f"mask{i}"]
    return asked


def masks_of(service: Service, masks: Any) -> dict[str, bytes]:
    """Files of masks, by the names of their options: from a form, of an image that was sent, or in base64."""
    masks = {} if masks is None else masks
    if not isinstance(masks, Mapping) or not set(masks) <= {"0", "1"}:
        raise FailureError.of(
            422, "input", 'masks: give {"0": ..., "1": ...}, each an image that was sent or base64.', "masks"
        )
    found = {}
    for which, value in masks.items():
        field = f"mask{which}"
        if value is None:
            continue
        if isinstance(value, str):
            value = Upload(field, _decoded(service, value, field))
        if not isinstance(value, Upload):
            raise FailureError.of(422, "input", f"{field}: name an image that was sent, or give one in base64.", field)
        read_header(value, service.options.limits, field)
        found[field] = value.data
    return found


def _keypoints(service: Service, keypoints: Any) -> dict[str, list[list[float]]]:
    """Keypoints of the user's own, by "0" and "1"."""
    wrong = FailureError.of(
        422, "input", 'keypoints: give {"0": [[x, y], ...], "1": ...}, px of the upright images.', "keypoints"
    )
    keypoints = {} if keypoints is None else keypoints
    if not isinstance(keypoints, Mapping) or not set(keypoints) <= {"0", "1"}:
        raise wrong
    found = {}
    for which, points in keypoints.items():
        if points is None:
            continue
        if not isinstance(points, list) or not points or not all(map(_is_point, points)):
            raise wrong
        if len(points) > service.options.limits.most_keypoints:
            most = service.options.limits.most_keypoints
            raise FailureError.of(422, "input", f"keypoints{which}: give at most {most}.", f"keypoints{which}")
        found[which] = [[float(x), float(y)] for x, y in points]
    return found


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(is_real(each, -1e6, 1e6) for each in point)


def _decoded(service: Service, text: str, field: str) -> bytes:
    if len(text) <= 64:
        return service.images.get(text, field).data
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise FailureError.of(422, "input", f"{field}: this is no base64.", field) from None


def _geometry_options(service: Service, options: Any) -> dict[str, Any]:
    """Those options that can be changed after a match."""
    if isinstance(options, Mapping) and (others := set(options) - set(GEOMETRY)):
        name = sorted(map(str, others))[0][:100]
        raise FailureError.of(
            422, "option", f"{name}: not without matching again; here are {', '.join(GEOMETRY)}.", name
        )
    values = service.vocabulary.read(options)
    PairRequest.of({name: value for name, value in values.items() if name != "filter_threshold"})
    return values


def _wait(request: Request) -> float | None:
    text = request.query_params.get("wait")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise FailureError.of(422, "input", f"wait: give seconds from 0 to {LONGEST_WAIT:g}.", "wait")
    return seconds
