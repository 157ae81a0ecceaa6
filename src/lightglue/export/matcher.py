"""A matcher as a file of ONNX, in the formats that runtimes and programs read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightglue.errors import InputError
from lightglue.export.adaptive import Thresholds
from lightglue.export.builder import ModelBuilder
from lightglue.export.files import check_output, save, save_folder
from lightglue.export.formats import WRITERS
from lightglue.export.options import MatcherFile, check_suits
from lightglue.export.parameters import Parameters, parameters_of
from lightglue.export.precision import Precision, precision
from lightglue.export.provenance import describe
from lightglue.export.steps import steps_files
from lightglue.matching.lightglue import LightGlue
from lightglue_runtime.contract import Description

__all__ = ["matcher_model", "prepared", "write_matcher"]

_FULL_DEPTH = ("fixed", "opencv")
_FULL_WIDTH = ("fixed", "opencv", "tensorrt")


def write_matcher(
    matcher: LightGlue, path: str | os.PathLike[str], options: MatcherFile | None = None, **fields: Any
) -> Description:
    """Write the matcher, with its thresholds as they stand in `matcher.conf`, to `path`, whole or not at all.

    path: a file that ends in .onnx, or a folder for the format `steps`. options: the format and the precision; fields:
    those of `MatcherFile`, instead. An image is pruned above the number of keypoints that the matcher has for a CPU,
    see `LightGlue(pruning=...)`.

    Returns what the file says of itself. Raises InputError where the options make no sense, ModelError where onnx is
    not installed or the network cannot be written, StoreError where the file cannot.
    """
    options = options or MatcherFile(**fields)
    target = check_output(path, options.format)
    if options.format == "steps":
        return _write_steps(matcher, target, options)
    model, description = matcher_model(matcher, options)
    save(model, target)
    return description


def matcher_model(
    matcher: LightGlue, options: MatcherFile, strategy: Precision | None = None
) -> tuple[Any, Description]:
    """The ModelProto of a format that is one file, and its description. strategy: instead of the options' precision."""
    strategy = strategy or precision(options.precision)
    thresholds, parameters, description = prepared(matcher, options.format, strategy)
    builder = ModelBuilder()
    outputs = WRITERS[options.format](builder, parameters, strategy, thresholds)
    return builder.model(outputs, f"lightglue_{options.format}", description.to_properties()), description


def _write_steps(matcher: LightGlue, folder: Path, options: MatcherFile) -> Description:
    strategy = precision(options.precision)
    _, parameters, description = prepared(matcher, "steps", strategy)
    save_folder(steps_files(parameters, strategy, description), folder)
    return description


def prepared(matcher: LightGlue, format: str, strategy: Precision) -> tuple[Thresholds, Parameters, Description]:
    """What all formats begin with. Raises InputError for features that do not suit the format or the precision."""
    conf = matcher.conf
    if format == "opencv" and conf.add_scale_ori:
        raise InputError(
            "format is 'opencv', and cv2.LightGlueMatcher gives no scales and orientations, which this matcher needs; "
            "choose another format."
        )
    check_suits(strategy.name, matcher.feature_type)
    thresholds = _thresholds(matcher, format)
    parameters = parameters_of(matcher.network, conf.num_heads)
    return thresholds, parameters, describe(matcher, format, strategy.name, thresholds)


def _thresholds(matcher: LightGlue, format: str) -> Thresholds:
    """As they are in a format: those that always run all layers stop at none."""
    conf = matcher.conf
    depth = -1.0 if format in _FULL_DEPTH else conf.depth_confidence
    width = -1.0 if format in _FULL_WIDTH else conf.width_confidence
    return Thresholds(depth, width, conf.filter_threshold, matcher.pruning_keypoint_thresholds["cpu"])
