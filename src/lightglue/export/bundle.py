"""What `lightglue-runtime` needs to match images, as a folder: an extractor, a matcher, and the list of both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lightglue.errors import InputError
from lightglue.export.extractors.options import ExtractorSource
from lightglue.export.extractors.sources import load_extractor
from lightglue.export.extractors.write import write_extractor
from lightglue.export.files import check_folder
from lightglue.export.matcher import write_matcher
from lightglue.export.options import MatcherFile, MatcherSource
from lightglue.export.source import load_matcher
from lightglue.extractors.base import Extractor
from lightglue.extractors.options import RESIZE
from lightglue.matching.lightglue import LightGlue
from lightglue.support.files import part_in, write_files, writing
from lightglue.weights import FILES
from lightglue_runtime.contract import Description
from lightglue_runtime.manifest import MANIFEST, Manifest, digest

__all__ = ["load_models", "write_bundle"]

NOTES = "LICENCES.txt"
_NAMES = {"extractor": "extractor.onnx", "matcher": "matcher.onnx"}


@dataclass(frozen=True)
class _Written:
    """A model that is written, and what it says of itself."""

    path: Path
    description: Description


def load_models(features: str, commercial_only: bool = False) -> tuple[Extractor, LightGlue]:
    """The published extractor and matcher of a type of features. Raises WeightsError where they cannot be had."""
    extractor = load_extractor(ExtractorSource(features, commercial_only=commercial_only))
    return extractor, load_matcher(MatcherSource(features, commercial_only=commercial_only))


def write_bundle(
    extractor: Extractor,
    matcher: LightGlue,
    folder: str | os.PathLike[str],
    *,
    precision: str = "f32",
    max_keypoints: int = 2048,
    resize: int | None = RESIZE,
) -> Manifest:
    """Write both models into a folder that `lightglue_runtime.load` takes.

    Args:
        extractor, matcher: of the same features.
        folder: new, empty, or an earlier one of this kind, which is replaced.
        precision: of the matcher's products: see `write_matcher`.
        max_keypoints, resize: what is extracted where the caller does not say otherwise: the N best keypoints, and px
            of the longer side, None for the image's own size.

    Returns the list that is written beside them. Raises InputError, ModelError, StoreError.
    """
    target = check_folder(folder)
    with writing(target):
        target.mkdir(exist_ok=True)
    parts = {part: part_in(target).with_suffix(".onnx") for part in _NAMES}
    try:
        written = {
            "extractor": _Written(parts["extractor"], write_extractor(extractor, parts["extractor"])),
            "matcher": _Written(
                parts["matcher"], write_matcher(matcher, parts["matcher"], MatcherFile("adaptive", precision))
            ),
        }
        features = [each.description.features for each in written.values()]
        if features[0] != features[1]:
            raise InputError(
                f"the extractor is for {features[0]} and the matcher for {features[1]}; give a pair that fits."
            )
        manifest = Manifest(
            features=features[0],
            resize=resize,
            side="long",
            max_keypoints=max_keypoints,
            files={
                part: {"name": _NAMES[part], "bytes": each.path.stat().st_size, "sha256": digest(each.path)}
                for part, each in written.items()
            },
            licences={each.description.weights: each.description.licence for each in written.values()},
        )
        with writing(target):
            (target / MANIFEST).unlink(missing_ok=True)  # until all is there, the folder is none
            for part, path in parts.items():
                path.replace(target / _NAMES[part])
        write_files({target / NOTES: _notes(manifest).encode()})
        write_files({target / MANIFEST: manifest.to_json()})
    finally:
        for path in parts.values():
            path.unlink(missing_ok=True)
    return manifest


def _notes(manifest: Manifest) -> str:
    """Whose the weights are, and under which terms they may be passed on."""
    lines = [
        f"Models for {manifest.features}, written by `lightglue export bundle` (Apache License 2.0).",
        "The weights in them are their authors', under these licences:",
        "",
    ]
    for names, licence in manifest.licences.items():
        for name in names.split(", "):
            known = FILES.get(name)
            lines.append(f"{name}: {known.licence if known else licence}")
            if known is not None:
                lines.append(f"  from {known.urls[0]}")
                lines += [] if known.commercial else ["  no commercial use"]
    return "\n".join(lines) + "\n"
