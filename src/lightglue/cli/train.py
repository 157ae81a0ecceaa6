"""`lightglue train`: from images to weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from lightglue.cli.from_options import wrong_command_line
from lightglue.cli.printing import AsJson, echo, memory_named, print_rows
from lightglue.errors import InputError
from lightglue.support.progress import progress_display
from lightglue.training.options import Overrides, read_options
from lightglue.training.watching import finite, share

__all__ = ["train"]


def train(
    overrides: Overrides,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="RUN", show_default=False, rich_help_panel="Output", help="Folder of the run."
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            show_default=False,
            help="Options, a TOML file; of a run that goes on, by default its own.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", rich_help_panel="Output", metavar="", help="Go on from the newest checkpoint in RUN."),
    ] = False,
    finish: Annotated[
        bool,
        typer.Option(
            "--finish", rich_help_panel="Output", metavar="", help="End the run in RUN with the weights that it has."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a matcher on images, for any features.

    RUN/best/weights.safetensors is what --weights and LightGlue.load() take. Ctrl-C saves; the same line with --resume
    goes on from there, exactly, and with --finish ends there: judging, fitting, report. torchrun starts it on several
    GPUs.
    """
    with wrong_command_line():
        own, goes_on = output / "config.toml", config is None and (resume or finish)
        if goes_on and own.is_file():
            config = own
        options = read_options(config, overrides.tables())
        if not options.data.sources and goes_on:
            raise InputError(
                f"{output} holds no run to go on with; name its folder, or begin one with CONFIG or --images."
            )
        if not options.data.sources:
            raise InputError("there is nothing to learn from; give --images DIR, or [[data.sources]] in CONFIG.")
    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started; the others are silent
    with memory_named(has_tiles=False), progress_display(quiet=as_json or not is_first, leave=True) as progress:
        from lightglue.training.run import train as run

        result = run(
            options, output, resume=resume, finish=finish, progress=progress, say=lambda text: echo(text, err=True)
        )
    if not is_first:
        return
    found = result.validation
    summary = {
        "weights": str(result.weights),
        "steps": result.step,
        "best_step": result.best_step,
        "seconds": round(result.seconds, 1),
        **({"metric": result.judgement.metric, "value": result.judgement.value} if result.judgement else {}),
        **({"validation": {"pairs": found.pairs, "loss": found.loss, "precision": found.precision,
                           "recall": found.recall}} if found and found.pairs else {}),
    }  # fmt: skip
    if as_json:
        echo(json.dumps(finite(summary)))
        return
    rows = {"steps": f"{result.step:,}", "time": f"{result.seconds / 60:.1f} min"}
    if found and found.pairs:
        rows["validation"] = (
            f"loss {found.loss:.3f}, precision {share(found.precision)}, recall {share(found.recall)} "
            f"({found.pairs} pairs)"
        )
    if result.judgement:
        rows["best"] = f"step {result.best_step:,}: {result.judgement.metric} {result.judgement.value:.4g}"
    print_rows({**rows, "written": str(result.weights)})
