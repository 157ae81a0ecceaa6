"""The command's tree: one line registers one command."""

from __future__ import annotations

from typing import Annotated

import typer

from lightglue import __version__
from lightglue.cli import evaluate, export, mapping, weights
from lightglue.cli.benchmark import BenchmarkCommand, benchmark
from lightglue.cli.explain import explain
from lightglue.cli.export_bundle import bundle
from lightglue.cli.export_check import CheckCommand, check
from lightglue.cli.export_extractor import extractor
from lightglue.cli.export_pipeline import pipeline
from lightglue.cli.extract import extract
from lightglue.cli.finetune import finetune
from lightglue.cli.from_options import Group, command
from lightglue.cli.localize import localize
from lightglue.cli.match import match
from lightglue.cli.printing import echo
from lightglue.cli.sfm import sfm
from lightglue.cli.train import train
from lightglue.cli.view import view
from lightglue.cli.web import web
from lightglue.support.revision import commit

app = typer.Typer(
    help="Match local features between images.",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(weights.app, name="weights")
app.add_typer(evaluate.app, name="eval")
app.add_typer(mapping.app, name="map")
app.add_typer(export.app, name="export")
command(export.app, example="lightglue export check aliked.onnx --images a.jpg b.jpg", cls=CheckCommand)(check)
command(export.app, example="lightglue export extractor --features aliked -o aliked_extractor.onnx")(extractor)
command(export.app, example="lightglue export bundle models")(bundle)
command(export.app, example="lightglue export pipeline --features aliked -o aliked_pipeline.onnx")(pipeline)
command(app, example="lightglue match a.jpg b.jpg --geometry homography -o matches.png")(match)
command(app, example="lightglue extract photos/*.jpg -o features")(extract)
command(app, example="lightglue sfm photos -o map")(sfm)
command(app, example="lightglue localize map new.jpg -o poses")(localize)
command(app, example="lightglue view map")(view)
command(app, example="lightglue web --maps map")(web)
command(app, example="lightglue train --images photos --features sift --preset cpu -o run")(train)
command(app, example="lightglue finetune photos --features aliked --minutes 30 -o run")(finetune)
command(app, example="lightglue explain a.jpg b.jpg --max-keypoints 1024")(explain)
command(app, example="lightglue benchmark --stage pair --against published", cls=BenchmarkCommand)(benchmark)


def _print_version(wanted: bool) -> None:
    if wanted:
        at = commit()
        echo(f"lightglue {__version__}{f' (commit {at})' if at else ''}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, metavar="", help="Print version and commit."),
    ] = False,
) -> None:
    """Options of the command as a whole."""
