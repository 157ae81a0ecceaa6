"""`lightglue extract`: the features of image files, one file an image."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from lightglue.cli.from_options import Only
from lightglue.cli.printing import AsJson, echo, memory_named
from lightglue.errors import ImageError, InputError, LightGlueError
from lightglue.extractors.options import ViewOptions
from lightglue.models.choice import Models
from lightglue.sfm.skipped import names_of, no_keypoints
from lightglue.support.files import write_files
from lightglue.support.memory import is_out_of_memory
from lightglue.support.printable import escaped

__all__ = ["extract"]


def extract(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", show_default=False, help="The image files.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default=False,
            rich_help_panel="Output",
            help="Where to write; made if missing.",
        ),
    ],
    models: Annotated[Models, Only(("features", "max_keypoints", "device", "mp", "commercial_only"))],
    views: ViewOptions,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            rich_help_panel="Features",
            help="An image: no keypoints where it is black. Or a folder with one for each: sub/a.jpg.png or sub/a.png "
            "for sub/a.jpg.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Extract the features of images, each into DIR/NAME.npz.

    An image that cannot be read is reported on stderr, the others are done; the exit code is then 1.
    """
    places = _places(images, output)
    if mask is not None and not mask.exists():
        raise typer.BadParameter(f"there is no {mask}; check the path.", param_hint="--mask")
    masks = _Masks.of(mask, list(places))
    failed = 0
    with memory_named():
        extractor = models.load_extractor()
        for image, place in places.items():
            try:
                report = _extract(extractor, models.features, image, place, masks.path(image), views)
            except (ImageError, InputError, MemoryError, RuntimeError) as error:
                echo(f"error: {_fault(image, error)}", err=True)
                failed += 1
                continue
            echo(json.dumps(report) if as_json else _line(report))
            if "note" in report:
                echo(f"warning: {image}: {report['note']}", err=True)
    if failed:
        raise LightGlueError(f"{failed} of {len(places)} images gave no features, see above.")


def _fault(image: Path, error: Exception) -> str:
    """What is wrong with an image, in a line; raises an error that is not the image's."""
    if isinstance(error, (ImageError, InputError)):
        return " ".join(str(error).split())
    if not is_out_of_memory(error):
        raise error
    return f"{image}: there is not enough memory; use --tile, or a smaller --resize or --max-keypoints."


def _places(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Which file each image's features go to; an error where two would go to one, before any work."""
    places: dict[Path, Path] = {}
    taken: dict[str, Path] = {}
    for image in images:
        if os.path.realpath(image) in {os.path.realpath(other) for other in places}:
            continue  # named twice
        name = f"{image.name}.npz"
        if (other := taken.setdefault(name, image)) != image:
            message = f"{other} and {image} would both become {name}; extract them into different folders."
            raise typer.BadParameter(message, param_hint="IMAGES")
        places[image] = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder} cannot be made a folder ({error.strerror}); name another."
        raise typer.BadParameter(message, param_hint="--output") from error
    return places


@dataclass(frozen=True)
class _Masks:
    """One mask for all images, one for each in a folder, or none."""

    file: Path | None = None
    folder: Any = None

    @classmethod
    def of(cls, mask: Path | None, images: list[Path]) -> _Masks:
        """Those that --mask names; says which images have none. BadParameter where none has one, before any work."""
        from lightglue.images.mask_files import MaskFolder, no_mask

        if mask is None or not mask.is_dir():
            return cls(mask)
        masks = cls(None, MaskFolder(mask))
        without = [image for image in images if not masks.has(image)]
        if len(without) == len(images):
            raise typer.BadParameter(str(masks.folder.none_fits(images[0].name, len(images))), param_hint="--mask")
        if without:
            echo(f"warning: {names_of([str(image) for image in without])}: {no_mask(mask)}", err=True)
        return masks

    def path(self, image: Path) -> Path | None:
        """The mask of an image. Raises InputError where two files may be meant."""
        return self.file if self.folder is None else self.folder.of_file(image)

    def has(self, image: Path) -> bool:
        """Whether an image has a mask; where two files may be meant, its extraction says so."""
        try:
            return self.path(image) is not None
        except InputError:
            return True


def _extract(
    extractor: Any, features: str, image: Path, place: Path, mask: Path | None, views: ViewOptions
) -> dict[str, Any]:
    """Extract and write; what is reported of it."""
    from lightglue.extractors.from_file import extract_file

    begin = perf_counter()
    extracted = extract_file(extractor, image, views, mask, str(image))
    found, cause = extracted.features, extracted.no_keypoints
    write_files({place: extracted.npz(features)})
    return {
        "image": str(image),
        "output": str(place),
        "image_size": [int(edge) for edge in found["image_size"]],
        "num_keypoints": len(found["keypoints"]),
        "seconds": perf_counter() - begin,
        **({} if cause is None else {"note": no_keypoints(cause)}),
    }


def _line(report: Mapping[str, Any]) -> str:
    width, height = report["image_size"]
    found = f"{report['num_keypoints']} keypoints, {width} x {height}, {report['seconds']:.2f} s"
    return escaped(f"{report['image']}: {found} -> {report['output']}", keep="")
