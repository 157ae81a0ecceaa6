"""Features: those of an image, and the weights that they need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from lightglue.models.registry import feature_type
from lightglue.pairs.asked import PairRequest
from lightglue.web.api_pairs import answered, checked_options, chosen_images, masks_of, weights_there
from lightglue.web.failures import FailureError
from lightglue.web.forms import read_json
from lightglue.web.models_there import files_of, is_there
from lightglue.web.service import Result, service_of
from lightglue.web.worker import Budget

__all__ = ["router"]

router = APIRouter(tags=["features"])
FETCH_S = 3600.0
OPTIONS = (
    "features", "max_keypoints", "device", "mp", "commercial_only", "resize", "tile", "pyramid", "stretch",
)  # fmt: skip


@router.post("/extract", summary="Extract the features of an image", status_code=202)
async def extract(request: Request) -> Response:
    """`{"image": ..., "options": {...}, "mask": ...}`. As npz the result is what `lightglue extract` writes."""
    service = service_of(request)
    asked = await read_json(request, ("image", "options", "mask"))
    options = asked.get("options") or {}
    if isinstance(options, Mapping) and (others := sorted(set(map(str, options)) - set(OPTIONS))):
        name = others[0][:100]
        raise FailureError.of(
            422, "option", f"{name}: it is no option of extract; these are {', '.join(OPTIONS)}.", name
        )
    values = checked_options(service, options)
    await weights_there(PairRequest.of(values).models.features, None)
    images = chosen_images(service, asked, ("image",))
    mask = masks_of(service, {"0": asked["mask"]} if asked.get("mask") else {}).get("mask0")
    given = {"image": images[0], "asked": values, "options": options, "mask": mask}

    def finish(found: Mapping[str, Any]) -> str:
        result = Result("features", found["json"], b"", images, {".npz": found["npz"]})
        return service.keep_result(result)

    return await answered(request, service, service.jobs.submit("extract", "extract", given, service.budget, finish))


@router.post("/weights/{features}", summary="Fetch the weights of a feature type", status_code=202)
async def fetch(request: Request, features: str) -> Response:
    """Into the cache folder of this machine. `GET options` says how large they are, and their licences."""
    service = service_of(request)
    feature_type(features[:100])
    files = [file for file in files_of(features) if not is_there(file)]
    if service.offline:
        raise FailureError.of(503, "offline", "LIGHTGLUE_OFFLINE is set where this service runs: nothing is fetched.")
    refused = [file.name for file in files if not file.commercial]
    if refused and service.commercial_only:
        raise FailureError.of(
            503, "licence", f"{', '.join(refused)} may not be used commercially, and only such is allowed."
        )
    budget = Budget(FETCH_S, service.budget.memory)
    given = {"files": [file.name for file in files]}
    job = service.jobs.submit("weights", "weights", given, budget, lambda _: None)
    return Response(json.dumps(job.described()), 202, media_type="application/json")
