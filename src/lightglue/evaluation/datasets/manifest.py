"""Manifests: one JSON file that lists pairs of images with the truth about them.

    {"kind": "pose", "max_keypoints": 2048, "pairs": [{"image0": "a.jpg", "image1": "b.jpg", "K0": ..., ...}]}

docs/datasets.md describes every field.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lightglue.errors import InputError, LightGlueError
from lightglue.evaluation.datasets.dataset import PairList, clean
from lightglue.evaluation.pair import (
    Benchmark,
    Correspondences,
    Homography,
    Kind,
    Pair,
    Protocol,
    RelativePose,
    Truth,
)
from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.options import EstimatorOptions
from lightglue.support.checks import is_int, is_real
from lightglue.support.files import os_reason, write_whole
from lightglue.support.text import read_json_text

__all__ = ["PROTOCOLS", "load_manifest", "write_manifest"]

KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_KEYPOINTS = 2048  # where the manifest names none

_OPENCV, _POSELIB = EstimatorOptions("opencv", 0.5), EstimatorOptions("poselib", 1.0)
_OURS = EstimatorOptions("poselib", 2.0)  # what `match_pair` takes for homographies
_SURE_OPENCV = EstimatorOptions("opencv", 0.5, confidence=0.99999)

# What a manifest is judged by where it does not say otherwise.
PROTOCOLS: Mapping[Kind, Protocol] = {
    "homography": Protocol(MAX_KEYPOINTS, (_OPENCV, _OURS, EstimatorOptions("dlt")), (1.0, 3.0, 5.0, 10.0)),
    "pose": Protocol(MAX_KEYPOINTS, (_POSELIB, _SURE_OPENCV), (5.0, 10.0, 20.0)),
    "points": Protocol(MAX_KEYPOINTS, (_OPENCV,), tuple(float(px) for px in range(1, 21))),
}


def load_manifest(path: str | os.PathLike[str]) -> Benchmark:
    """The benchmark of a manifest, or of a folder that holds exactly one.

    A pair whose truth is unusable has a fault instead. Image files are not looked at.
    Raises InputError where the manifest as a whole is unusable.
    """
    path = _find(Path(path))
    content = _read(path)
    kind = content.get("kind")
    if kind == "localization":
        raise InputError(
            f"{path} has the kind 'localization', which needs a map; give pairs of one of {', '.join(KINDS)}."
        )
    if kind not in KINDS:
        raise InputError(f"{path} has the kind {kind!r:.80}; give one of {', '.join(KINDS)}.")
    pairs = content.get("pairs")
    if not isinstance(pairs, list) or not pairs:
        raise InputError(f"{path} has {'no pairs' if not pairs else f'pairs {pairs!r:.80}'}; give a list of objects.")
    protocol = _protocol(path, content, PROTOCOLS[kind])
    listed = PairList(path.parent)
    for number, pair in enumerate(pairs, 1):
        _add(listed, number, pair, kind)
    return Benchmark(
        name=_text(path, content, "name", path.stem),
        kind=kind,
        pairs=listed.pairs(),
        protocol=protocol,
        source=_text(path, content, "source", ""),
        licence=_text(path, content, "licence", ""),
    )


def write_manifest(benchmark: Benchmark, path: str | os.PathLike[str]) -> None:
    """Write a benchmark as a manifest, with image paths relative to its folder, which is made where it is missing.

    Estimators are not written. A pair without truth is written without, and has a fault when it is read.
    Raises InputError where the file cannot be written.
    """
    path = Path(path)
    protocol = benchmark.protocol
    head = {
        "name": benchmark.name,
        "kind": benchmark.kind,
        "source": benchmark.source,
        "licence": benchmark.licence,
        "max_keypoints": protocol.max_keypoints,
        "resize": protocol.resize,
        "side": protocol.side,
        "thresholds": list(protocol.thresholds),
    }
    lines = [json.dumps(_pair_fields(pair, path.parent), ensure_ascii=False) for pair in benchmark.pairs]
    text = (
        json.dumps(head, indent=1, ensure_ascii=False)[:-2] + ',\n "pairs": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    )
    try:
        write_whole(path, text.encode())
    except (OSError, ValueError) as error:  # ValueError: a null character in the path, or what UTF-8 cannot hold
        raise InputError(f"{path} cannot be written ({os_reason(error)}).") from error


def _find(path: Path) -> Path:
    """The manifest at `path`, or the only one in that folder. Raises InputError."""
    try:
        if not path.is_dir():
            return path
        found = [each for each in sorted(path.glob("*.json")) if _looks_like_one(each)]
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise InputError(f"{str(path)!r:.200} cannot be a path ({error}).") from error
    if len(found) != 1:
        names = ", ".join(each.name for each in found[:10]) or "none"
        raise InputError(
            f"{path} must hold exactly one manifest (a JSON file with kind and pairs), not {names}; name one."
        )
    return found[0]


def _looks_like_one(path: Path) -> bool:
    try:
        content = _read(path)
    except InputError:
        return False
    return "kind" in content and "pairs" in content


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json_text(path)
    except FileNotFoundError:
        raise InputError(f"There is no manifest at {path}; name a JSON file or a folder that holds one.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except InputError:  # no UTF-8
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r:.200} is no JSON ({error}); correct it.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}; give an object with kind and pairs.")
    return content


def _text(path: Path, content: Mapping[str, Any], field: str, default: str) -> str:
    value = content.get(field, default)
    if not isinstance(value, str):
        raise InputError(f"{path} has the {field} {value!r:.80}; give a text.")
    return clean(value)


def _protocol(path: Path, content: Mapping[str, Any], default: Protocol) -> Protocol:
    """`default` with what the manifest says. Raises InputError."""
    max_keypoints = content.get("max_keypoints", default.max_keypoints)
    if not _is_count(max_keypoints):
        raise InputError(f"{path} has max_keypoints {max_keypoints!r:.80}; give an integer from 1.")
    resize = content.get("resize", default.resize)
    if resize is not None and not _is_count(resize):
        raise InputError(f"{path} has resize {resize!r:.80}; give px, an integer from 1, or null.")
    side = content.get("side", default.side)
    if side not in ("long", "short"):
        raise InputError(f"{path} has side {side!r:.80}; give 'long' or 'short'.")
    thresholds = content.get("thresholds", default.thresholds)
    if not isinstance(thresholds, (list, tuple)) or not thresholds or not all(map(_is_threshold, thresholds)):
        raise InputError(f"{path} has thresholds {thresholds!r:.80}; give a list of numbers above 0.")
    thresholds = tuple(sorted({float(value) for value in thresholds}))
    return replace(default, max_keypoints=max_keypoints, resize=resize, side=side, thresholds=thresholds)


def _is_count(value: object) -> bool:
    return is_int(value, 1, 2**31 - 1)


def _is_threshold(value: object) -> bool:
    return is_real(value, 0, 1e9) and value != 0


def _add(listed: PairList, number: int, pair: Any, kind: Kind) -> None:
    """Add one pair of the manifest, whatever it is."""
    fields = pair if isinstance(pair, dict) else {}
    images = [fields.get(field) for field in ("image0", "image1")]
    scene = fields.get("scene")

    def truth() -> Truth:
        if not isinstance(pair, dict):
            raise InputError(f"Pair {number} is {pair!r:.80}; give an object.")
        for field, image in zip(("image0", "image1"), images, strict=True):
            if not isinstance(image, str) or not image:
                raise InputError(f"Pair {number} has the {field} {image!r:.80}; give a path.")
        return _truth(kind, pair)

    image0, image1 = (image if isinstance(image, str) and image else f"pair {number}" for image in images)
    listed.add(image0, image1, truth, scene if isinstance(scene, str) else None)


def _truth(kind: Kind, pair: Mapping[str, Any]) -> Truth:
    """The truth about a pair. Raises InputError."""
    if kind == "homography":
        return Homography(_field(pair, "H"))
    if kind == "points":
        return Correspondences(_field(pair, "points0"), _field(pair, "points1"))
    return RelativePose(_camera(pair, 0), _camera(pair, 1), _field(pair, "T_0to1"))


def _camera(pair: Mapping[str, Any], which: int) -> Camera:
    names = [name for name in (f"K{which}", f"camera{which}") if pair.get(name) is not None]
    if len(names) != 1:
        has = " and ".join(names) if names else f"neither K{which} nor camera{which}"
        raise InputError(f"The pair has {has}; give one of them.")
    return Camera(pair[names[0]]) if names[0].startswith("K") else _build_camera(names[0], pair[names[0]])


def _field(pair: Mapping[str, Any], name: str) -> Any:
    if name not in pair:
        raise InputError(f"The pair has no {name}; give it.")
    return pair[name]


def _build_camera(name: str, value: Any) -> Camera:
    """A camera object of the manifest. Raises InputError; another LightGlueError where pycolmap is not installed."""
    fields = value if isinstance(value, dict) else {}
    model, width, height = (fields.get(field) for field in ("model", "width", "height"))
    params = fields.get("params")
    is_sound = isinstance(model, str) and _is_count(width) and _is_count(height) and isinstance(params, list)
    if not is_sound:
        raise InputError(f"{name} is {value!r:.120}; give an object with model, width, height (px) and params.")
    pycolmap = import_pycolmap("Cameras with distorted lenses")
    models = [each for each in pycolmap.CameraModelId.__members__ if each != "INVALID"]
    if model not in models:
        raise InputError(f"{name} has the model {model!r:.80}; pycolmap knows {', '.join(models)}.")
    try:
        values = np.array(params, dtype=np.float64)
        camera = pycolmap.Camera(model=model, width=width, height=height, params=values)
        is_sound = values.ndim == 1 and camera.verify_params()
    except (TypeError, ValueError, OverflowError, RuntimeError):
        is_sound = False
    if not is_sound:
        raise InputError(f"{name} has the params {params!r:.120}, which do not fit the model {model}; correct them.")
    return as_camera(camera)


def import_pycolmap(what: str) -> Any:
    """Pycolmap. Raises LightGlueError, not InputError: it is no fault of one pair."""
    try:
        import pycolmap
    except ImportError:
        raise LightGlueError(f"{what} need pycolmap, which is not installed: `pip install pycolmap`.") from None
    return pycolmap


def _pair_fields(pair: Pair, folder: Path) -> dict[str, Any]:
    """A pair as it stands in a manifest in `folder`."""
    fields: dict[str, Any] = {
        "scene": pair.scene,
        "image0": _relative(pair.image0, folder),
        "image1": _relative(pair.image1, folder),
    }
    match pair.truth:
        case Homography(H):
            fields["H"] = H.tolist()
        case Correspondences(points0, points1):
            fields |= {"points0": points0.tolist(), "points1": points1.tolist()}
        case RelativePose(camera0, camera1, T):
            fields |= {**_camera_fields(camera0, 0), **_camera_fields(camera1, 1), "T_0to1": T.tolist()}
    return fields


def _camera_fields(camera: Camera, which: int) -> dict[str, Any]:
    if camera.colmap is None:
        return {f"K{which}": camera.K.tolist()}
    colmap = camera.colmap
    params = [float(value) for value in colmap.params]
    size = {"width": int(colmap.width), "height": int(colmap.height)}
    return {f"camera{which}": {"model": colmap.model.name, **size, "params": params}}


def _relative(image: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:  # another drive
        return image.absolute().as_posix()
