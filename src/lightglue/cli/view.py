"""`lightglue view`: a model in the browser, or as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lightglue.cli.printing import echo
from lightglue.options import option

__all__ = ["view"]


@dataclass(frozen=True)
class ViewerOptions:
    """What is shown, and where."""

    images: Path | None = option(
        None, "The images; by default where the map found them.", metavar="DIR", group="Output"
    )
    png: Path | None = option(None, "Write a picture instead, which needs no browser.", group="Output")
    host: str = option(
        "127.0.0.1", "The address to listen at; 0.0.0.0 lets other machines in.", metavar="ADDRESS", group="Machine"
    )
    port: int = option(8080, "The port to listen at; 0 takes any that is free.", group="Machine")


def model_remarks(path: Path) -> tuple[str, ...]:
    """What a user of a model should know of it."""
    from lightglue.sfm.colmap.model import model_folder
    from lightglue.sfm.colmap.models import open_model
    from lightglue.sfm.colmap.shape import shape_of

    return shape_of(open_model(model_folder(path))).remarks


def view(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", show_default=False, help="A COLMAP model's folder, or that of a map.")
    ],
    options: ViewerOptions,
) -> None:
    """Show a model in 3D: points, cameras, images. Click a camera to look through it."""
    for remark in model_remarks(model):
        echo(f"warning: {remark}", err=True)
    if (png := options.png) is not None:
        from lightglue.sfm.colmap.model import read_model
        from lightglue.sfm.report.picture import save_picture

        save_picture(read_model(model), png, title=model.absolute().name)
        echo(f"{png}")
        return
    from lightglue.sfm.report.view import view_model

    shown = view_model(model, options.images, options.host, options.port)
    echo(f"{shown.url}   (Ctrl-C ends it)")
    try:
        shown.wait()
    except KeyboardInterrupt:
        shown.stop()
