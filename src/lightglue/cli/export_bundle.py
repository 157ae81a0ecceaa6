"""`lightglue export bundle`: what `lightglue-runtime` needs, in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lightglue.cli.from_options import wrong_command_line
from lightglue.cli.printing import AsJson, echo, print_rows
from lightglue.export.options import BundleOptions

__all__ = ["bundle"]


def bundle(
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="Where to write.")],
    options: BundleOptions,
    as_json: AsJson = False,
) -> None:
    """Write an extractor and its matcher for machines without torch.

    `lightglue-runtime match A B --models DIR` takes the folder. Published weights are fetched when they are first
    needed.
    """
    from lightglue.export.files import check_folder

    with wrong_command_line():
        check_folder(folder)
    from lightglue.export.bundle import load_models, write_bundle

    extractor, matcher = load_models(options.features, options.commercial_only)
    manifest = write_bundle(
        extractor, matcher, folder, precision=options.precision, max_keypoints=options.max_keypoints
    )
    if as_json:
        echo(json.dumps({**json.loads(manifest.to_json()), "output": str(folder)}))
        return
    sizes = {part: f"{file['name']}, {file['bytes'] / 1e6:.1f} MB" for part, file in manifest.files.items()}
    licences = "; ".join(f"{name}: {licence}" for name, licence in manifest.licences.items())
    print_rows({"features": manifest.features, **sizes, "licences": licences, "written": str(folder)})
