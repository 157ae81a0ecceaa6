"""Whether a file has the names, order, ranks, dimensions and types that its readers look for.

COLMAP's loader checks names, order and rank of inputs and outputs (src/colmap/feature/onnx_matchers.cc); OpenCV's
`LightGlueMatcher` asks for inputs and outputs by name; ours are those of `lightglue_runtime.contract`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lightglue_runtime.contract import (
    EXTRACTOR_INPUTS,
    EXTRACTOR_OUTPUTS,
    MATCHER_INPUTS,
    MATCHER_OUTPUTS,
    PIPELINE_INPUTS,
    PIPELINE_OUTPUTS,
)
from lightglue_runtime.model_file import ModelFile, Shape

__all__ = ["Signature", "signature_of", "structure_faults"]

_MATCHES = {name: MATCHER_OUTPUTS[name] for name in ("matches0", "mscores0")}
_BATCHED = re.compile(r"^\((1, )?")
_SIFT_LIKE = {f"{name}{side}": f"(1, {'MN'[side]}) float32" for name in ("scales", "oris") for side in (0, 1)}


@dataclass(frozen=True)
class Signature:
    """Name -> shape and dtype, as texts of the contract: "(1, M, 2) float32, px"."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    ordered: bool = False  # whether readers go by position


def signature_of(file: ModelFile) -> Signature | None:
    """What readers of such a file look for; None for pieces, whose signature is their own affair."""
    kind, format = file.description.kind, file.description.format
    if kind == "extractor":
        outputs = dict(EXTRACTOR_OUTPUTS)
        if format == "colmap":
            outputs = {"keypoints": "(1, K, 2) float32", "descriptors": "(1, K, D)", "scores": "(1, K) float32"}
        return Signature(EXTRACTOR_INPUTS, outputs, ordered=format == "colmap")
    if kind == "pipeline":
        return Signature(PIPELINE_INPUTS, PIPELINE_OUTPUTS)
    if kind != "matcher":
        return None
    also = _SIFT_LIKE if file.description.numbers().get("add_scale_ori") else {}
    inputs = {**MATCHER_INPUTS, **also}
    if format == "adaptive":
        return Signature(inputs, MATCHER_OUTPUTS)
    if format == "tensorrt":
        return Signature(inputs, {name: MATCHER_OUTPUTS[name] for name in ("matches0", "mscores0", "stop")})
    if format == "steps":  # of the first piece, which takes one image
        embedded = {name: text for name, text in inputs.items() if name.endswith("0")}
        outputs = {"tokens": "(M, d)", "cosines": "(M, 1, e)", "sines": "(M, 1, e)"}
        return Signature({name[:-1]: text for name, text in embedded.items()}, outputs)
    if format == "opencv":
        taken = {name: inputs[name] for name in ("kpts0", "kpts1", "desc0", "desc1")}
        return Signature(taken, {"matches0": "(K, 2)", "mscores0": "(K,) float32"})
    if format == "fixed":
        batched = {name: _BATCHED.sub("(B, ", text) for name, text in (*inputs.items(), *_MATCHES.items())}
        return Signature({name: batched[name] for name in inputs}, {name: batched[name] for name in _MATCHES})
    return Signature(inputs, _MATCHES, ordered=format == "colmap")


def structure_faults(file: ModelFile) -> Iterator[str]:
    """What is not as readers want it, in words."""
    wanted = signature_of(file)
    if wanted is None:
        return
    for what, has, should in (("input", file.inputs, wanted.inputs), ("output", file.outputs, wanted.outputs)):
        missing = [name for name in should if name not in has]
        extra = [name for name in has if name not in should]
        if missing:
            yield f"lacks the {what} {', '.join(missing)}"
        if extra:
            yield f"has the {what} {', '.join(extra)}, which its readers do not know"
        if not missing and not extra and wanted.ordered and list(has) != list(should):
            yield f"has its {what}s in the order {', '.join(has)}; readers want {', '.join(should)}"
        for name in should.keys() & has.keys():
            if fault := _shape_fault(has[name], should[name]):
                yield f"{what} {name} {fault}"
            wanted_type = next((each for each in ("float32", "int64") if f") {each}" in should[name]), None)
            if wanted_type is not None and file.types.get(name) != wanted_type:
                yield f"{what} {name} is {file.types.get(name) or 'of no type'}, not {wanted_type}"


def _shape_fault(has: Shape, text: str) -> str | None:
    """Why a shape is not the one of the contract's text: rank, fixed numbers, and what must vary."""
    inside = text[1 : text.index(")")]
    wanted = [part.strip() for part in inside.split(",") if part.strip()]
    shown = f"({', '.join(str(each) or '?' for each in has)})"
    if len(has) != len(wanted):
        return f"has the shape {shown}, not ({inside})"
    for mine, want in zip(has, wanted, strict=True):
        if want.isdigit() and isinstance(mine, int) and mine != int(want):
            return f"has the shape {shown}, not ({inside})"
        if want in ("M", "N", "K", "H", "W", "H0", "W0", "H1", "W1") and isinstance(mine, int):
            return f"has the shape {shown}: its {want} does not vary"
    return None
