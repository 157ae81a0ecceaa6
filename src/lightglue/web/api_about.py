"""What the service is and what it offers."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from lightglue import __version__
from lightglue.geometry.options import GEOMETRIES, ROBUST_METHODS
from lightglue.matching.effort import EFFORTS
from lightglue.pairs.encoders import ENDINGS
from lightglue.web.models_there import described_features
from lightglue.web.service import service_of

__all__ = ["router"]

router = APIRouter(tags=["about"])


@router.get("/health", summary="Whether the service works, and how busy it is")
async def health(request: Request) -> dict[str, Any]:
    """Also what it takes: `limits`, in the units of their names."""
    service = service_of(request)
    limits = service.options.limits
    jobs = service.jobs
    return {
        "status": "ok",
        "version": __version__,
        "device": service.options.device,
        "queue": {"waiting": jobs.waiting, "running": jobs.running, "size": jobs.size},
        "limits": {
            "upload_bytes": limits.upload_bytes,
            "pixels": limits.pixels,
            "keypoints": limits.most_keypoints,
            "seconds": limits.seconds,
            "batch": limits.batch,
            "images_bytes": limits.images_mb * 1_000_000,  # of all images that are kept
            "keep_seconds": limits.keep_minutes * 60,
        },
        "restarts": jobs.worker.restarts + service.decoding.worker.restarts,
    }


@router.get("/options", summary="All options of a match, and the features that there are")
async def options(request: Request) -> dict[str, Any]:
    """As `lightglue match` has them: names, defaults, texts, choices and ranges come from the same declarations."""
    return {
        "match": service_of(request).vocabulary.entries(),
        "localize": service_of(request).localizing.entries(),
        "features": await asyncio.to_thread(described_features),
        "efforts": list(EFFORTS),
        "geometry": list(GEOMETRIES),
        "estimators": list(ROBUST_METHODS),
        "formats": [*(ending.removeprefix(".") for ending in ENDINGS), "colmap"],
    }
