"""`lightglue export extractor`: a network that finds keypoints, for other runtimes."""

from __future__ import annotations

from dataclasses import asdict

from lightglue.cli.export import Output, report
from lightglue.cli.from_options import wrong_command_line
from lightglue.cli.printing import AsJson
from lightglue.export.extractors.options import ExtractorFile, ExtractorSource

__all__ = ["extractor"]


def extractor(source: ExtractorSource, file: ExtractorFile, output: Output, as_json: AsJson = False) -> None:
    """Write an extractor as ONNX.

    Images of any size go in, at most `max_keypoints` keypoints come out, best first. Published weights are fetched when
    they are first needed.
    """
    from lightglue.export.files import check_output

    with wrong_command_line():
        check_output(output)
        source.check_format(file)
    from lightglue.export.extractors.sources import load_extractor
    from lightglue.export.extractors.write import write_extractor

    report(asdict(write_extractor(load_extractor(source), output, file)), output, as_json)
