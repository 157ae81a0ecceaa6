"""`lightglue weights`: see, fetch, find and check the published weight files."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from lightglue.cli.from_options import command
from lightglue.cli.printing import AsJson, echo
from lightglue.errors import WeightsError
from lightglue.weights import FILES, OWN, OwnFile, WeightFile, find_altered, find_cached, lookup, resolve

app = typer.Typer(help="List, download, locate and verify the published weight files.", no_args_is_help=True)

CommercialOnly = Annotated[
    bool,
    typer.Option(
        "--commercial-only",
        metavar="",
        rich_help_panel="Machine",
        help="Only files whose licence allows commercial use.",
    ),
]


@command(app, "list", example="lightglue weights list --commercial-only")
def list_files(as_json: AsJson = False, commercial_only: CommercialOnly = False) -> None:
    """List the published files: name, size, licence, state in the cache folder, sources."""
    files = [file for file in FILES.values() if file.commercial or not commercial_only]
    own_files = [own for own in OWN.values() if own.commercial or not commercial_only]
    if as_json:
        echo(json.dumps([*map(_record, files), *map(_own_record, own_files)], indent=2))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    name = Column("name", no_wrap=True)  # to be typed again, so never cut; a narrow terminal folds the others
    columns = (name, "size", "licence", "commercial", "cache", "sources")
    table = Table(*columns, box=SIMPLE_HEAD, show_edge=False, padding=0)
    for file in files:
        size = "?" if file.size is None else f"{file.size / 1e6:.1f} MB"
        table.add_row(file.name, size, file.licence, _yes_no(file.commercial), _state(file), _sources(file))
    for own in own_files:
        size = f"{own.size / 1e6:.1f} MB"
        table.add_row(own.name, size, own.licence, _yes_no(own.commercial), "yes", "this package")
    # Piped output is for grep and awk: wide enough that no row is folded.
    Console(width=None if sys.stdout.isatty() else 120).print(table)


@command(app, example="lightglue weights pull --all")
def pull(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAMES...", help="Names as `list` shows them.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", metavar="", rich_help_panel="Machine", help="Every published file.")
    ] = False,
    commercial_only: CommercialOnly = False,
) -> None:
    """Fetch files into the cache folder and print where they are."""
    if not names and not everything:
        raise typer.BadParameter("name a file to fetch, or give --all.")
    wanted = [_known(name) for name in names or ()]  # all names first: a typing error must not cost a download
    if everything:
        wanted = [file.name for file in FILES.values() if file.commercial or not commercial_only]
    failed = False
    for name in wanted:
        try:
            echo(resolve(name, commercial_only=commercial_only))
        except WeightsError as error:  # one dead source must not keep the others away
            failed = True
            echo(f"error: {error}", err=True)
    raise typer.Exit(int(failed))


@command(app, example="lightglue weights path aliked-n16")
def path(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="A name as `list` shows it.")],
    commercial_only: CommercialOnly = False,
) -> None:
    """Print the path of a file, after fetching it if need be."""
    echo(resolve(_known(name), commercial_only=commercial_only))


@command(app, example="lightglue weights verify")
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAMES...", help="Default: every file in the cache.")
    ] = None,
) -> None:
    """Check cached files against their published sha256; exit with 1 if one is altered or a named one is missing."""
    files = [lookup(name) for name in names] if names else list(FILES.values())
    bad = False
    for file in files:
        if (found := find_cached(file)) is not None:
            echo(f"{file.name}: ok, {found}")
        elif altered := find_altered(file):
            bad = True
            echo(f"{file.name}: ALTERED, {altered[0]} does not have the sha256 {file.sha256}")
        elif names:
            bad = True
            echo(f"{file.name}: missing")
    raise typer.Exit(int(bad))


def _known(name: str) -> str:
    """The name, if it is one. Raises WeightsError with the nearest one."""
    return name if name in OWN else lookup(name).name


def _own_record(own: OwnFile) -> dict[str, object]:
    return {**asdict(own), "cached": str(resolve(own.name))}


def _record(file: WeightFile) -> dict[str, object]:
    found = find_cached(file)
    return {
        "name": file.name,
        "filename": file.filename,
        "sha256": file.sha256,
        "size": file.size,
        "licence": file.licence,
        "commercial": file.commercial,
        "urls": list(file.urls),
        "wheel": file.wheel.requirement if file.wheel else None,
        "cached": None if found is None else str(found),
    }


def _state(file: WeightFile) -> str:
    if find_cached(file) is not None:
        return "yes"
    return "altered" if find_altered(file) else "no"


def _sources(file: WeightFile) -> str:
    kinds = ["release", "mirror" if len(file.urls) > 1 else "", "wheel" if file.wheel else ""]
    return ", ".join(filter(None, kinds))


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
