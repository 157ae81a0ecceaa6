"""Maps that were named at the start: looked at, and photographs localized in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter, Request, Response

from lightglue.sfm.options import LocalizeOptions
from lightglue.support.declared import Owner
from lightglue.web.api_pairs import answered
from lightglue.web.failures import FailureError
from lightglue.web.forms import read_json
from lightglue.web.service import Result, Service, service_of

if TYPE_CHECKING:
    from lightglue.web.open_map import OpenMap

__all__ = ["router"]

router = APIRouter(prefix="/maps", tags=["maps"])
T = TypeVar("T")
SHOWN = 1600  # px of the longer side of a picture
THUMBNAIL = 256
# A report is a page of its own, whose style stands in it. Nothing in it may run.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@router.get("", summary="The maps that there are")
async def list_maps(request: Request) -> dict[str, Any]:
    """Their names, how large they are, and `fault`: why one cannot be shown now."""
    return {"maps": await asyncio.to_thread(service_of(request).maps.list)}


@router.get("/{name}", summary="A map: cameras, images with poses, statistics")
async def describe(request: Request, name: str) -> Response:
    """Images and points are known by their rows in this `version` of the map.

    Poses lead from the world to the camera: 12 numbers, (3, 4) row by row; x to the right, y down, z ahead.
    """
    found = await _opened(request, name)
    return _json(await asyncio.to_thread(found.described))


@router.get("/{name}/points", summary="The points of a map, binary")
async def points(request: Request, name: str) -> Response:
    """16 bytes a point: x, y, z as float32 (little-endian) from `scene.centre`; red, green, blue as uint8; and by how
    many images it is seen, up to 255, as uint8.
    """
    found = await _opened(request, name)
    content = await asyncio.to_thread(found.points)
    return Response(content, media_type="application/octet-stream", headers=_kept(request))


@router.get("/{name}/points/{number}", summary="A point, and where its images see it")
async def point(request: Request, name: str, number: int) -> Response:
    """`pixel` is x, y in px of the upright image, (0, 0) being the centre of the top-left one."""
    found = await _opened(request, name)
    return _json(_known(lambda: found.point(number), f"The map has no point {number}."))


@router.get("/{name}/images/{number}", summary="An image of a map")
async def image(request: Request, name: str, number: int) -> Response:
    """Upright, as JPEG, at most 1,600 px."""
    return await _picture(request, name, number, SHOWN)


@router.get("/{name}/images/{number}/thumbnail", summary="An image of a map, small")
async def thumbnail(request: Request, name: str, number: int) -> Response:
    """Upright, as JPEG, at most 256 px."""
    return await _picture(request, name, number, THUMBNAIL)


@router.get("/{name}/images/{number}/points", summary="The points that an image of a map sees")
async def image_points(request: Request, name: str, number: int) -> Response:
    """`points`, rows of the map's points; `pixels`, x and y of each in the image; `errors`, px."""
    found = await _opened(request, name)
    return _json(_known(lambda: found.image_points(number), f"The map has no image {number}."))


@router.get("/{name}/report", summary="The report of a map")
async def report(request: Request, name: str) -> Response:
    """The page that `lightglue sfm` wrote."""
    path = _folder(service_of(request), name) / "report.html"
    try:
        content = await asyncio.to_thread(path.read_bytes)
    except OSError:
        raise FailureError.of(404, "unknown", "The map has no report; `lightglue map report` writes it.") from None
    headers = {"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-cache"}
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)


@router.post("/{name}/localize", summary="Where a photograph was taken", status_code=202)
async def localize(request: Request, name: str) -> Response:
    """`{"image": ...}`, with options of `lightglue localize`. The result has the pose, and the points of the map that
    agree with it with their places in the photograph; or `failure`, why there is none.
    """
    service = service_of(request)
    asked = await read_json(request, ("image", "options"))
    if not isinstance(asked.get("image"), str):
        raise FailureError.of(422, "input", "image: name an image that was sent before.", "image")
    photograph = service.images.get(asked["image"], "image")
    values = service.localizing.read(asked.get("options") or {})
    options: LocalizeOptions = Owner(LocalizeOptions).build(values)
    found = await _opened(request, name)
    given = {
        "map": name,
        "folder": str(found.paths.folder),
        "version": found.version,
        "data": photograph.data,
        "size": (photograph.width, photograph.height),
        "options": options,
        "device": service.options.device,
    }

    def finish(answer: Mapping[str, Any]) -> str:
        rows = found.rows_of(answer["point_ids"])
        whole = {"map": name, "version": found.version, "image": asked["image"], **answer, "points": rows}
        result = Result("localization", json.dumps(whole, allow_nan=False).encode())
        return service.keep_result(result)

    return await answered(request, service, service.jobs.submit("localize", "localize", given, service.budget, finish))


async def _opened(request: Request, name: str) -> OpenMap:
    """The map, in the version that the request is about. Raises FailureError, and what opening it raises."""
    service = service_of(request)
    _folder(service, name)
    found = await asyncio.to_thread(service.maps.open, name)
    wanted = request.query_params.get("version", found.version)
    if wanted != found.version:
        raise FailureError.of(410, "expired", "The map has changed meanwhile; load it again.")
    return found


def _folder(service: Service, name: str) -> Any:
    return _known(lambda: service.maps.folder(name), "There is no such map here.")


def _known(get: Callable[[], T], message: str) -> T:
    try:
        return get()
    except (KeyError, IndexError):
        raise FailureError.of(404, "unknown", message) from None


async def _picture(request: Request, name: str, number: int, edge: int) -> Response:
    service, found = service_of(request), await _opened(request, name)
    path = _known(lambda: found.image_file(number), f"The map has no image {number}.")
    given = {"path": str(path), "edge": edge}
    content: list[bytes] = []
    job = service.decoding.submit("picture", "picture", given, service.budget, lambda value: content.append(value))
    await service.decoding.result(job)
    return Response(content[0], media_type="image/jpeg", headers=_kept(request))


def _kept(request: Request) -> dict[str, str]:
    """Whether a browser may keep the answer: where its address says which version of the map it is of."""
    return {"Cache-Control": "private, max-age=3600" if "version" in request.query_params else "no-cache"}


def _json(content: Any) -> Response:
    return Response(json.dumps(content, allow_nan=False), media_type="application/json")
