"""`lightglue export`: models for other runtimes. Other commands of the group are in `export_*.py`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lightglue.cli.from_options import command, wrong_command_line
from lightglue.cli.printing import AsJson, echo, print_rows
from lightglue.export.options import MatcherFile, MatcherSource, check_suits
from lightglue.models.choice import Thresholds

__all__ = ["Output", "app", "report"]

app = typer.Typer(no_args_is_help=True, help="Write models for ONNX Runtime, OpenVINO, TensorRT, COLMAP and OpenCV.")

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        rich_help_panel="Output",
        help="Where to write; a folder for format steps.",
    ),
]


@command(app, example="lightglue export matcher --features aliked -o aliked.onnx")
def matcher(
    source: MatcherSource,
    file: MatcherFile,
    thresholds: Thresholds,
    output: Output,
    as_json: AsJson = False,
) -> None:
    """Write a matcher as ONNX.

    Published weights are fetched when they are first needed. The thresholds become part of the file.
    """
    from lightglue.export.files import check_output

    with wrong_command_line():
        check_output(output, file.format)
        check_suits(file.precision, source.features)
    from lightglue.export.matcher import write_matcher
    from lightglue.export.source import load_matcher
    from lightglue.export.tensorrt import trtexec_command

    description = write_matcher(load_matcher(source, thresholds.given()), output, file)
    more = {"trtexec": trtexec_command(output, description)} if file.format == "tensorrt" else {}
    report({**asdict(description), **more}, output, as_json)


def report(description: dict[str, str], output: Path, as_json: bool) -> None:
    """Print what was written."""
    files = [output] if output.is_file() else sorted(output.iterdir())
    size = sum(file.stat().st_size for file in files)
    if as_json:
        echo(json.dumps({**description, "output": str(output), "bytes": size}))
        return
    shown = ("kind", "format", "features", "precision", "weights", "licence")
    print_rows({**{name: description[name] for name in shown}, "size": f"{size / 1e6:.1f} MB", "written": str(output)})
    if "trtexec" in description:  # not in the table, which would break the line
        echo(f"TensorRT builds an engine by this command (untested):\n{description['trtexec']}")
