"""`lightglue match`: match two image files, print what was found, write it to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lightglue.cli.from_options import Given, wrong_command_line
from lightglue.cli.printing import AsJson, echo, memory_named, precision_text, print_rows, say_backend
from lightglue.errors import ImageNotFoundError
from lightglue.extractors.options import ViewOptions
from lightglue.models.choice import Models, Thresholds
from lightglue.pairs.asked import PairRequest
from lightglue.pairs.options import OutputOptions, PairOptions
from lightglue.pairs.outputs import check_outputs
from lightglue.pairs.words import rows_of

__all__ = ["match"]


def match(
    image0: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="The first image file.")],
    image1: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The second image file.")],
    models: Models,
    views: ViewOptions,
    options: PairOptions,
    thresholds: Thresholds,
    outputs: OutputOptions,
    given: Given,
    as_json: AsJson = False,
) -> None:
    """Match two images.

    Weights are fetched when they are first needed. Positions are in px of the image files, (0, 0) being the centre of
    the top-left pixel.
    """
    inputs = [path for path in (image0, image1, options.mask0, options.mask1) if path is not None]
    with wrong_command_line():
        request = PairRequest(models, views, options, thresholds)
        request.check(given, outputs.warp)
        check_outputs(outputs.output, outputs.warp, inputs)
    for path in inputs:
        if not path.exists():  # before torch is loaded, which takes seconds
            raise ImageNotFoundError(f"There is no image at {path}; check the path.")
    with memory_named():
        say_backend(request.chosen, 1)
        result = request.match(image0, image1, output=outputs.output, warp=outputs.warp)
    summary = {**result.summary(), "precision": precision_text(result.models.precision)}
    for warning in result.warnings:
        echo(f"warning: {warning}", err=True)
    if as_json:
        arrays = {name: array.tolist() for name, array in result.pair.arrays().items()}
        echo(json.dumps({**summary, **arrays}))
    else:
        print_rows(rows_of(summary))
