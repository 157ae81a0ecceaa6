"""Images that users send."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from lightglue.web.failures import FailureError
from lightglue.web.forms import read_form
from lightglue.web.service import service_of

__all__ = ["router"]

router = APIRouter(prefix="/images", tags=["images"])
PRIVATE = {"Cache-Control": "private, max-age=3600, immutable"}
FILE = {"type": "string", "format": "binary"}
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": FILE}},
            }
        },
    }
}


@router.post("", summary="Send an image", status_code=201, openapi_extra=FORM)
async def send(request: Request) -> dict[str, Any]:
    """Its size is read before it is decoded. Width and height are those of the upright image."""
    service = service_of(request)
    files, _ = await read_form(request, service.options.limits.upload_bytes, files=1)
    if "file" not in files:
        raise FailureError.of(422, "form", "The form has no file called `file`.", "file")
    name = await service.take_image(files["file"])
    return service.images.get(name).described(name)


@router.get("/{image}", summary="An image, upright, as a browser shows it")
async def show(request: Request, image: str) -> Response:
    """The file itself where browsers can show it, else as JPEG."""
    found = service_of(request).images.get(image)
    if found.shown is not None:
        return Response(found.shown, media_type="image/jpeg", headers=PRIVATE)
    return Response(found.data, media_type=found.media_type, headers=PRIVATE)


@router.get("/{image}/thumbnail", summary="The image, small")
async def thumbnail(request: Request, image: str) -> Response:
    """JPEG, at most 192 px."""
    return Response(service_of(request).images.get(image).thumbnail, media_type="image/jpeg", headers=PRIVATE)


@router.delete("/{image}", summary="Forget an image", status_code=204)
async def forget(request: Request, image: str) -> Response:
    """And what was made of it."""
    service_of(request).images.remove(image)
    return Response(status_code=204)
