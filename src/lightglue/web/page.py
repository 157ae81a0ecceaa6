"""The page: its files by their names."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from lightglue.web.failures import FailureError

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
_READING = ["GET", "HEAD"]  # monitors and proxies ask for the head alone


@router.api_route("/", methods=_READING)
async def index(request: Request) -> Response:
    """The page."""
    return _file(request, "index.html")


@router.api_route("/api", methods=_READING)
async def reference(request: Request) -> Response:
    """The interface, for people."""
    return _file(request, "reference.html")


@router.api_route("/static/{name}", methods=_READING)
async def static(request: Request, name: str) -> Response:
    """One of its files."""
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    file = request.app.state.static.get(name)
    if file is None:
        raise FailureError.of(404, "unknown", "There is no such file here.")
    headers = {"Cache-Control": "no-cache", "ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):  # also as W/"...", which proxies that compress make of it
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
