"""Jobs: how far they are, as an answer or as a stream of events, and their end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from lightglue.web.jobs import Job
from lightglue.web.service import Service, service_of

__all__ = ["router"]

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("/{job}", summary="How far a job is")
async def describe(request: Request, job: str) -> dict[str, Any]:
    """States: queued, running, done, failed, cancelled."""
    return service_of(request).jobs.get(job).described()


@router.get("/{job}/events", summary="What a job does, as server-sent events", response_class=StreamingResponse)
async def events(request: Request, job: str) -> StreamingResponse:
    """`progress`, `pair` for each pair of a set, and at the end `done`, `failed` or `cancelled` with the job.

    With the header Last-Event-ID it goes on after that one.
    """
    service = service_of(request)
    found = service.jobs.get(job)
    last = request.headers.get("last-event-id", "0")
    after = int(last) if last.isdecimal() and len(last) < 10 else 0
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(service, found, after), media_type="text/event-stream", headers=headers)


async def _stream(service: Service, job: Job, after: int) -> AsyncIterator[str]:
    async for event in service.jobs.events(job, after):
        if event is None:
            yield ": still there\n\n"
        else:
            number, name, content = event
            yield f"id: {number}\nevent: {name}\ndata: {json.dumps(content)}\n\n"


@router.delete("/{job}", summary="Cancel a job")
async def cancel(request: Request, job: str) -> dict[str, Any]:
    """It ends at its next step; nothing happens where it has ended."""
    service = service_of(request)
    found = service.jobs.get(job)
    service.jobs.cancel(found)
    return found.described()
