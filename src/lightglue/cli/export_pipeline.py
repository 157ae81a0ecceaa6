"""`lightglue export pipeline`: from two images to matches in one file, for other runtimes."""

from __future__ import annotations

from dataclasses import asdict

from lightglue.cli.export import Output, report
from lightglue.cli.from_options import wrong_command_line
from lightglue.cli.printing import AsJson
from lightglue.export.options import check_suits
from lightglue.export.pipeline_options import PipelineFile, PipelineSource
from lightglue.models.choice import Thresholds

__all__ = ["pipeline"]


def pipeline(
    source: PipelineSource, file: PipelineFile, thresholds: Thresholds, output: Output, as_json: AsJson = False
) -> None:
    """Write an extractor and a matcher as one ONNX file.

    Two images of any sizes go in, keypoints and matches come out. Published weights are fetched when they are first
    needed. The thresholds become part of the file.
    """
    from lightglue.export.files import check_output

    with wrong_command_line():
        check_output(output)
        check_suits(file.precision, source.features)
    from lightglue.export.extractors.sources import load_extractor
    from lightglue.export.pipeline import write_pipeline
    from lightglue.export.source import load_matcher

    matcher = load_matcher(source.matcher(), thresholds.given())
    description = write_pipeline(load_extractor(source.extractor()), matcher, output, file)
    report(asdict(description), output, as_json)
