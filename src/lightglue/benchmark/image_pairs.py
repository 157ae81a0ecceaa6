"""The pairs of images that a benchmark runs on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightglue.errors import ImageError, ImageNotFoundError, InputError
from lightglue.support.revision import checkout

__all__ = ["enlarge", "find_pairs"]

Pairs = Mapping[str, tuple[Path, Path]]

# The published benchmark's pairs, from the assets of its repository.
PUBLISHED = {
    "easy": ("DSC_0411.JPG", "DSC_0410.JPG"),
    "difficult": ("sacre_coeur1.jpg", "sacre_coeur2.jpg"),
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
OURS = {"montmartre": ("montmartre_close.jpg", "montmartre_far.jpg")}


def find_pairs(folder: Path | None) -> Pairs:
    """Name -> the two files: the published pairs where they are, else our own one.

    Looks in `folder`, which may instead hold just two images of the user's own; without one in the `assets` of the
    working folder and of the checkout, and in `shared/images` beside it. Raises ImageNotFoundError, InputError.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(f"--images {folder} is no folder.")
    folders = _usual_folders() if folder is None else [folder]
    for names in (PUBLISHED, OURS):
        for each in folders:
            if found := _pairs_in(each, names):
                return found
    if folder and len(own := sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)) == 2:
        return {"own": (own[0], own[1])}
    where = ", ".join(map(str, folders)) or "a checkout (this package is installed without its images)"
    wanted = "; or ".join(" and ".join(names) for names in (*PUBLISHED.values(), *OURS.values()))
    raise ImageNotFoundError(
        f"There are no images in {where}; give --images a folder with {wanted}; or with two images of your own."
    )


def _usual_folders() -> list[Path]:
    root = checkout()
    folders = [Path("assets").resolve()]
    folders += [root / "assets", root.parent / "shared" / "images"] if root else []
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _pairs_in(folder: Path, names: Mapping[str, tuple[str, str]]) -> dict[str, tuple[Path, Path]]:
    pairs = {name: (folder / first, folder / second) for name, (first, second) in names.items()}
    return {name: files for name, files in pairs.items() if all(path.is_file() for path in files)}


def enlarge(path: Path, edge: int, folder: Path) -> Path:
    """A copy of an image in `folder`, stretched to `edge` x `edge` px. Raises ImageError."""
    import cv2

    image = cv2.imread(str(path))
    if image is None:
        raise ImageError(f"{path} could not be read as an image.")
    copy = folder / f"{path.stem}-{edge}.png"
    large = cv2.resize(image, (edge, edge), interpolation=cv2.INTER_CUBIC)
    if not cv2.imwrite(str(copy), large, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise ImageError(f"{copy} could not be written.")
    return copy
