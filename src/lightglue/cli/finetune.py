"""`lightglue finetune`: the matcher made better for one's own images, if that is possible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lightglue.cli.printing import AsJson, echo, memory_named, print_rows
from lightglue.support.progress import progress_display
from lightglue.training.finetune_options import FinetuneOptions

__all__ = ["finetune"]


def finetune(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES|MAP", show_default=False, help="A folder of images, a map, or a COLMAP model's folder."
        ),
    ],
    options: FinetuneOptions,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="RUN", show_default=False, rich_help_panel="Output", help="Folder of the run."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Fine-tune the matcher on your images, and keep the result only if it is better.

    Some images or scenes are held out; the old and the new weights are compared on them by the paired bootstrap.
    RUN/weights.safetensors is the better file. Ctrl-C saves; the same line goes on from there.
    """
    with memory_named(has_tiles=False), progress_display(quiet=as_json, leave=True) as show:
        from lightglue.training.finetune import finetune as run

        result = run(
            source,
            output,
            options,
            progress=show,
            say=lambda text: echo(text, err=True),
        )
    if as_json:
        echo(json.dumps(json.loads((output / "finetune.json").read_text("utf-8"))))
        return
    echo(result.text(), err=True)
    rows = {f"AUC, {name}": f"{a:.2f} before, {b:.2f} after" for name, (a, b) in result.figures.items()}
    kept = "the trained weights" if result.verdict == "better" else "the old weights"
    print_rows(
        {"verdict": result.verdict, **rows, "steps": f"{result.step:,}", "kept": kept, "written": str(result.weights)}
    )
