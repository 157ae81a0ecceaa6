"""What the commands that make maps share: their options, their progress, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli import parsing
from lightglue.cli.models import Models
from lightglue.errors import InputError

if TYPE_CHECKING:
    from lightglue.sfm.engines.engine import Engine
    from lightglue.sfm.folder import StageRecord
    from lightglue.sfm.pipeline import SfmOptions
    from lightglue.sfm.skipped import Skipped

__all__ = [
    "Address",
    "AsJson",
    "CameraParams",
    "Cameras",
    "EngineName",
    "Mapper",
    "MinOverlap",
    "Pairs",
    "PairsFile",
    "Refine",
    "Retrieved",
    "Seed",
    "ShareCamera",
    "StageChoices",
    "Threads",
    "engine_of",
    "print_skipped",
    "print_stage",
]

SOURCES = ("auto", "exhaustive", "sequential", "retrieval", "gps", "poses", "covisibility", "file")
SHARES = ("auto", "single", "per_folder", "per_image")
MAPPERS = ("incremental", "global", "hierarchical")
ENGINES = ("local", "ray")
SHOWN = 20  # images that were left out and are named one by one


def _sources(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    return tuple(parsing.known(part, SOURCES) for part in str(value).split(","))


def _params(value: object) -> tuple[str, tuple[float, ...]]:
    model, _, numbers = str(value).partition(":")
    try:
        params = tuple(float(number) for number in numbers.split(","))
    except ValueError:
        params = ()
    if not model.isupper() or not params:
        raise typer.BadParameter(f"'{value}' is no camera; give MODEL:PARAMS, such as PINHOLE:920,920,511.5,383.5.")
    return model, params


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        return parsing.known(value, names)

    parse.__name__ = "|".join(names)
    return parse


def _positive(value: object) -> int:
    if number := parsing.integer(value, 999_999_999):
        return number
    raise typer.BadParameter(f"'{value}' is not a whole number of at least 1.")


Pairs = Annotated[
    Any,
    typer.Option(
        "--pairs",
        parser=_sources,
        metavar="|".join(SOURCES),
        help="Which images to match; several with commas. auto: all up to 60 images, else those that look alike.",
    ),
]
PairsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", show_default=False, help="Of --pairs file: two names a line.")
]
Retrieved = Annotated[int, typer.Option(parser=_positive, metavar="K", help="Of --pairs retrieval: images for each.")]
MinOverlap = Annotated[
    float | None,
    typer.Option(
        parser=parsing.share, metavar="X", show_default=False, help="Drop pairs that overlap with a lower probability."
    ),
]
ShareCamera = Annotated[
    str,
    typer.Option(
        "--share-camera",
        parser=_one_of(SHARES),
        metavar="|".join(SHARES),
        help="Which images one camera took. auto: those of a folder with the same size and focal length.",
    ),
]
CameraParams = Annotated[
    Any,
    typer.Option(
        "--camera",
        parser=_params,
        metavar="MODEL:PARAMS",
        show_default=False,
        help="Known intrinsics of all images, such as PINHOLE:920,920,511.5,383.5; px, (0, 0) is the centre of the "
        "first. By default from EXIF, or guessed.",
    ),
]
Cameras = Annotated[
    Path | None,
    typer.Option(metavar="FILE|MODEL", show_default=False, help="Known intrinsics: JSON {image: K}, or a model."),
]
Refine = Annotated[
    bool, typer.Option("--refine/--no-refine", help="Move keypoints to a fraction of a pixel before mapping.")
]
Mapper = Annotated[
    str, typer.Option(parser=_one_of(MAPPERS), metavar="|".join(MAPPERS), help="COLMAP's way from pairs to a model.")
]
Threads = Annotated[
    int | None,
    typer.Option(parser=_positive, metavar="N", show_default=False, help="Of COLMAP; 1: the same model every time."),
]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is random.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine", parser=_one_of(ENGINES), metavar="|".join(ENGINES), help="Who extracts and matches: a Ray cluster."
    ),
]
Address = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", show_default=False, help="Of the Ray cluster; none: one made here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@dataclass(frozen=True)
class StageChoices:
    """What a command line says of the stages."""

    models: Models
    extract: Mapping[str, Any]
    pairs: tuple[str, ...] = ("auto",)
    pairs_file: Path | None = None
    retrieved: int = 20
    min_overlap: float | None = None
    share_camera: str = "auto"
    camera: tuple[str, tuple[float, ...]] | None = None
    cameras: Path | None = None
    refine: bool = False
    mapper: str = "incremental"
    threads: int | None = None
    seed: int = 0

    def options(self) -> SfmOptions:
        """The options of the stages. Raises InputError."""
        from lightglue.sfm.colmap.cameras import CameraOptions
        from lightglue.sfm.pipeline import SfmOptions
        from lightglue.sfm.stages.extract import ExtractOptions
        from lightglue.sfm.stages.match import MatchOptions
        from lightglue.sfm.stages.pairs import PairOptions
        from lightglue.sfm.stages.reconstruct import ReconstructOptions
        from lightglue.sfm.stages.refine import TrackOptions
        from lightglue.sfm.stages.verify import VerifyOptions

        model, params = self.camera or (None, None)
        sources = tuple(dict.fromkeys((*self.pairs, "file"))) if self.pairs_file else self.pairs
        if self.pairs_file and self.pairs == ("auto",):
            sources = ("file",)
        return SfmOptions(
            models=self.models,
            extract=ExtractOptions(self.models, dict(self.extract)),
            match=MatchOptions(self.models, self.min_overlap),
            pairs=PairOptions(
                sources, retrieved=self.retrieved, file=None if self.pairs_file is None else str(self.pairs_file)
            ),
            cameras=CameraOptions(
                model=model,
                params=params,
                mode=self.share_camera,  # type: ignore[arg-type]  # checked by the parser
                table=None if self.cameras is None else str(self.cameras),
            ),
            refine=TrackOptions() if self.refine else None,
            verify=VerifyOptions(seed=self.seed),
            reconstruct=ReconstructOptions(self.mapper, seed=self.seed, threads=self.threads),  # type: ignore[arg-type]
        )


def engine_of(name: str, address: str | None) -> Engine | None:
    """Who does the work; None for this process."""
    if name == "local":
        if address is not None:
            raise InputError(f"--address {address} has an effect with --engine ray only.")
        return None
    from lightglue.sfm.engines.choice import make_engine

    return make_engine(name, address=address)


def print_stage(stage: str, record: StageRecord, as_json: bool) -> None:
    """Print what came of a stage, and what it left out."""
    if as_json:
        skipped = [{"name": each.name, "reason": each.reason} for each in record.skipped]
        typer.echo(json.dumps({"stage": stage, "seconds": record.seconds, **record.counts, "skipped": skipped}))
        return
    counts = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in record.counts.items())
    typer.echo(f"{stage}: {counts or 'done'} ({record.seconds:.1f} s)")
    print_skipped(record.skipped)


def print_skipped(skipped: Sequence[Skipped]) -> None:
    """Name what was left out, on stderr."""
    for each in skipped[:SHOWN]:
        typer.echo(f"warning: left out {each.name}: {each.reason}", err=True)
    if len(skipped) > SHOWN:
        typer.echo(f"warning: and {len(skipped) - SHOWN:,} more were left out; the report names all.", err=True)
