"""`lightglue view`: a model in the browser, or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["view"]


def view(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A COLMAP model's folder, or that of a map.")],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default=False, help="The photographs; by default where the map found them."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="The port to listen at; 0 takes any that is free.")] = 8080,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Write a picture instead, which needs no browser."),
    ] = None,
) -> None:
    """Show a model in 3D: points, cameras, photographs. Click a camera to look through it."""
    if png is not None:
        from lightglue.sfm.colmap.model import read_model
        from lightglue.sfm.report.picture import save_picture

        save_picture(read_model(model), png, title=model.absolute().name)
        typer.echo(f"{png}")
        return
    from lightglue.sfm.report.view import view_model

    shown = view_model(model, images, host, port)
    typer.echo(f"{shown.url}   (Ctrl-C ends it)")
    try:
        shown.wait()
    except KeyboardInterrupt:
        shown.stop()
