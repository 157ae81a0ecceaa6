"""The interface as OpenAPI: what the framework knows of the paths, and what the package knows of the options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lightglue.web.api_features import OPTIONS as OF_EXTRACT
from lightglue.web.api_pairs import GEOMETRY
from lightglue.web.service import Service

__all__ = ["openapi_of"]

Schema = dict[str, Any]
NAME: Schema = {"type": "string", "description": "The name that POST images gave."}
FILE: Schema = {"type": "string", "format": "binary"}
NUMBERS: Schema = {"type": "array", "items": {"type": "number"}}
ROWS: Schema = {"type": "array", "items": {"type": "integer"}}


def openapi_of(app: FastAPI, service: Service) -> Schema:
    """The document. It is made once; the app keeps it."""
    found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    schemas |= _schemas(service)
    for path, methods in found["paths"].items():
        for method, about in methods.items():
            about["responses"]["default"] = _json(_ref("Error"), "Refused or failed; the message says why.")
            about["responses"].pop("422", None)  # the framework's own form, which is never sent
            short = path.removeprefix("/api/v1/")
            if (method, short) in _BODIES:
                about["requestBody"] = {"required": True, "content": _BODIES[method, short]}
            if (method, short) in _ANSWERS:
                status, schema, text = _ANSWERS[method, short]
                about["responses"][status] = _json(schema, text)
            if (method, short) in _WAITING:
                about["parameters"] = [*about.get("parameters", []), _WAIT]
                about["responses"]["200"] = _json(_ref(_WAITING[method, short]), "With wait, the result.")
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return found


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Schema, text: str) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _object(required: tuple[str, ...] = (), /, **properties: Any) -> Schema:
    found: Schema = {"type": "object", "properties": properties}
    return found | ({"required": list(required)} if required else {})


_MASK = {"type": "string", "description": "an image's name, or base64"}
_MASKS = {"type": "object", "properties": {"0": _MASK, "1": _MASK}}
_POINTS = {"type": "object", "properties": {key: {"type": "array", "items": NUMBERS} for key in "01"}}
_MATCH = _object(
    ("image0", "image1"), image0=NAME, image1=NAME, options=_ref("Options"), masks=_MASKS, keypoints=_POINTS
)
_FORM = _object(
    ("image0", "image1"), image0=FILE, image1=FILE, mask0=FILE, mask1=FILE, options={"type": "string", "format": "json"}
)
_BODIES: Mapping[tuple[str, str], Schema] = {
    ("post", "match"): {"application/json": {"schema": _MATCH}, "multipart/form-data": {"schema": _FORM}},
    ("post", "extract"): {
        "application/json": {
            "schema": _object(("image",), image=NAME, options=_ref("ExtractOptions"), mask={"type": "string"})
        }
    },
    ("post", "pairs"): {
        "application/json": {
            "schema": _object(
                ("images",),
                images={"type": "array", "items": NAME},
                names={"type": "array", "items": {"type": "string"}, "description": "in place of their files' names"},
                options=_ref("Options"),
            )
        }
    },
    ("post", "maps/{name}/localize"): {
        "application/json": {"schema": _object(("image",), image=NAME, options=_ref("LocalizeOptions"))}
    },
    ("post", "geometry"): {
        "application/json": {
            "schema": _object(("result", "options"), result={"type": "string"}, options=_ref("GeometryOptions"))
        }
    },
}
_ANSWERS: Mapping[tuple[str, str], tuple[str, Schema, str]] = {
    ("post", "match"): ("202", _ref("Job"), "The job."),
    ("post", "extract"): ("202", _ref("Job"), "The job."),
    ("post", "pairs"): ("202", _ref("Job"), "The job."),
    ("post", "pairs/{name}/{i}/{j}"): ("202", _ref("Job"), "The job."),
    ("post", "maps/{name}/localize"): ("202", _ref("Job"), "The job."),
    ("post", "weights/{features}"): ("202", _ref("Job"), "The job."),
    ("post", "geometry"): ("200", _ref("Geometry"), "The geometry."),
    ("get", "results/{result}"): ("200", _ref("Pair"), "The pair."),
    ("get", "jobs/{job}"): ("200", _ref("Job"), "The job."),
    ("delete", "jobs/{job}"): ("200", _ref("Job"), "The job."),
    ("post", "images"): ("201", _ref("Image"), "The image."),
}
_WAITING = {
    ("post", "match"): "Pair",
    ("post", "extract"): "Features",
    ("post", "pairs/{name}/{i}/{j}"): "Pair",
    ("post", "maps/{name}/localize"): "Localization",
}
_WAIT: Schema = {
    "name": "wait",
    "in": "query",
    "required": False,
    "description": "Seconds to wait for the result, which is then the answer.",
    "schema": {"type": "number", "minimum": 0, "maximum": 600},
}


def _schemas(service: Service) -> Schema:
    options = service.vocabulary.schema()

    def some(names: tuple[str, ...]) -> Schema:
        return {**options, "properties": {name: options["properties"][name] for name in names}}

    image = _object(
        ("id", "name", "width", "height"),
        id={"type": "string"},
        name={"type": "string"},
        width={"type": "integer", "description": "px, upright"},
        height={"type": "integer"},
        bytes={"type": "integer"},
    )
    error = _object(
        ("code", "message", "field"),
        code={"type": "string"},
        message={"type": "string"},
        field={"type": ["string", "null"], "description": "the option or part of the request that it is about"},
    )
    return {
        "Error": _object(("error",), error=error),
        "Image": image,
        "Options": options,
        "ExtractOptions": some(OF_EXTRACT),
        "GeometryOptions": some(GEOMETRY),
        "LocalizeOptions": service.localizing.schema(),
        "Job": _job(error),
        "Geometry": _geometry(),
        "Pair": _pair(),
        "Localization": _localization(),
        "Features": _object(
            id={"type": "string"}, image=_ref("Image"), features={"type": "string"}, keypoints=NUMBERS,
            keypoint_scores=NUMBERS, num_keypoints={"type": "integer"}, note={"type": ["string", "null"]},
        ),
    }  # fmt: skip


def _job(error: Schema) -> Schema:
    progress = _object(
        stage={"type": "string"}, done={"type": "integer"}, total={"type": "integer"}, text={"type": "string"}
    )
    return _object(
        ("id", "kind", "state", "progress", "result", "error"),
        id={"type": "string"},
        kind={"type": "string"},
        state={"enum": ["queued", "running", "done", "failed", "cancelled"]},
        progress=progress,
        result={"type": ["string", "null"]},
        error={"anyOf": [error, {"type": "null"}]},
    )


def _geometry() -> Schema:
    return _object(
        ("model", "matrix", "inliers"),
        model={"type": "string"},
        method={"type": "string"},
        threshold={"type": "number", "description": "px"},
        matrix={"anyOf": [{"type": "array", "items": NUMBERS}, {"type": "null"}]},
        inliers={**ROWS, "description": "rows of the pair's matches"},
        num_matches={"type": "integer"},
        failure={"type": ["string", "null"]},
    )


def _localization() -> Schema:
    return _object(
        ("id", "map", "success", "failure", "num_matches", "num_inliers", "pixels", "points"),
        id={"type": "string"},
        map={"type": "string"},
        version={"type": "string", "description": "of the map, whose rows points are"},
        success={"type": "boolean"},
        failure={"type": ["string", "null"], "description": "why there is no pose"},
        cam_from_world={**NUMBERS, "description": "(3, 4) row by row; x to the right, y down, z ahead"},
        centre={**NUMBERS, "description": "where the camera stood, in the unit of the map"},
        camera={"type": "object", "description": "K (3, 3) row by row, px"},
        num_matches={"type": "integer"},
        num_inliers={"type": "integer"},
        pixels={**NUMBERS, "description": "x y x y ..., px of the photograph: the inliers"},
        points={**ROWS, "description": "rows of the map's points, one for each"},
        images={"type": "array", "items": {"type": "string"}},
        remarks={"type": "array", "items": {"type": "string"}},
        seconds={"type": "number"},
    )


def _pair() -> Schema:
    points = {**NUMBERS, "description": "x y x y ..., px of the upright image, (0, 0) is the centre of its first pixel"}
    return _object(
        ("id", "images", "keypoints0", "keypoints1", "matches", "scores", "threshold"),
        id={"type": "string"},
        images={"type": "array", "items": _ref("Image")},
        options=_ref("Options"),
        threshold={"type": "number", "description": "matches that score more, as float32, are those of the options"},
        floor={"type": "number", "description": "above which all matches are there"},
        keypoints0=points,
        keypoints1=points,
        matches={**ROWS, "description": "i j i j ..., rows of the keypoints; the highest scores first"},
        scores=NUMBERS,
        geometry={"anyOf": [_ref("Geometry"), {"type": "null"}]},
        layers={"type": ["object", "null"], "description": "how many were run, and which dropped each keypoint"},
        overlap={"type": ["number", "null"]},
        rotation={"type": ["number", "null"], "description": "degrees"},
        seconds={"type": "object"},
        summary={"type": "string"},
        rows={"type": "object", "description": "what lightglue match prints"},
    )
