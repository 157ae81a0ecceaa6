"""The application: all of the above put together."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lightglue import __version__
from lightglue.errors import LightGlueError
from lightglue.web import api_about, api_features, api_images, api_jobs, api_maps, api_pairs, api_sets, page
from lightglue.web.failures import Failure, FailureError, failure_of, unexpected
from lightglue.web.guard import Guard, GuardOptions
from lightglue.web.openapi import openapi_of
from lightglue.web.options import WebOptions
from lightglue.web.service import Service
from lightglue.web.statics import read_static

__all__ = ["API", "create_app"]

API = "/api/v1"
_CODES = {404: "unknown", 405: "method", 400: "request"}


def create_app(options: WebOptions | None = None) -> FastAPI:
    """The service as an ASGI application, for `uvicorn` or another server.

    Its processes are started with it and end with it. Raises InputError.
    """
    service = Service(options or WebOptions())
    app = FastAPI(
        title="lightglue",
        version=__version__,
        summary="Match images.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_url=f"{API}/openapi.json",
        lifespan=_lifespan,
        **_without_telemetry(),
    )
    app.state.service, app.state.static = service, read_static()
    api = APIRouter(prefix=API)
    for module in (api_about, api_images, api_pairs, api_features, api_sets, api_maps, api_jobs):
        api.include_router(module.router)
    app.include_router(api)
    app.include_router(page.router)
    document = cache(lambda: openapi_of(app, service))
    app.openapi = document  # type: ignore[method-assign]
    app.add_exception_handler(FailureError, _failed)
    app.add_exception_handler(LightGlueError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_middleware(Guard, options=GuardOptions.of(service.options))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.start()
    try:
        yield
    finally:
        await service.close()


def _without_telemetry() -> dict[str, Any]:
    """Newer versions of FastAPI report to OpenTelemetry where that is set up."""
    known = inspect.signature(FastAPI.__init__).parameters
    off = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)
    return {"telemetry": off} if "telemetry" in known else {}


def _answer(failure: Failure) -> Response:
    return Response(failure.encoded(), failure.status, failure.headers(), "application/json")


async def _failed(request: Request, error: Exception) -> Response:
    return _answer(failure_of(error) or unexpected(error))


async def _invalid(request: Request, error: Exception) -> Response:
    """The framework's own checks, as ours."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) and error.errors() else {}
    where = [str(each) for each in first.get("loc", ())]
    return _answer(
        Failure(422, "input", f"{'.'.join(where)}: {first.get('msg', 'invalid')}", where[-1] if where else None)
    )


async def _http(request: Request, error: Any) -> Response:
    """The framework's own refusals, as ours."""
    code = _CODES.get(error.status_code, "request")
    answer = _answer(Failure(error.status_code, code, f"{error.detail}."))
    answer.headers.update(error.headers or {})  # such as Allow
    return answer


async def _left(request: Request, error: Exception) -> Response:
    """Nobody reads this."""
    return _answer(Failure(400, "left", "The request was not sent to its end."))
