"""COLMAP models and maps of ours as sources: images with poses, and which of them see the same points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightglue.errors import InputError
from lightglue.evaluation.datasets.colmap import overlaps
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.geometry.orientation import fitted
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.skipped import Skipped
from lightglue.support.natural import natural_key
from lightglue.training.sources.options import SourceOptions
from lightglue.training.sources.record import LEAST_OVERLAP, Listed, Posed, ScenePairs, SourceImage
from lightglue_runtime.images.exif import orientation_of
from lightglue_runtime.images.sizes import size_in_file

__all__ = ["list_model", "model_folders"]

_PLACES = ("", "model", "sparse/0", "sparse", "dataset/sparse/0")  # of a model under a folder
_AWAY = "there is no image"
_ASPECT = 0.01  # by so much the sides of an image may differ from those of its camera, which is scaled


def list_model(key: str, options: SourceOptions) -> Listed:
    """The images of a model, of a map, or of all that lie in the folders of a folder, each a scene of its own.

    Images that are not there, or do not fit their camera, are left out.

    Raises InputError where there is no model, or none of its images is there; StoreError for a damaged one.
    """
    root = Path(options.path).absolute()
    images: list[SourceImage] = []
    skipped: list[Skipped] = []
    scenes: dict[str, ScenePairs] = {}
    for scene, model in model_folders(root):
        folder = root / scene
        found, pairs, faults = _scene(key, scene, model, image_folder(folder, options.images, scene))
        images += found
        skipped += faults
        scenes[scene] = pairs
    if not images:
        raise InputError(_none(root, skipped))
    return Listed(tuple(images), tuple(skipped), scenes)


def _none(root: Path, skipped: list[Skipped]) -> str:
    if not skipped:
        return f"The model in {root} has no image with a pose; make it again, or name another."
    is_away = any(each.reason.startswith(_AWAY) for each in skipped)
    return (
        f"No image of the model in {root} can be used; {len(skipped):,} cannot, such as {skipped[0].name}: "
        f"{skipped[0].reason.rstrip('.')}."
        + ' Name the folder that its image names are relative to (images = "...").'
        * is_away
    )


def model_folders(root: Path) -> list[tuple[str, Path]]:
    """Scenes under a folder, "" for the folder itself, and where the model of each is. Raises InputError for none."""
    if not root.is_dir():
        raise InputError(f"The model {root} {'is a file' if root.exists() else 'does not exist'}; name its folder.")
    if (own := _model_in(root)) is not None:
        return [("", own)]
    below = sorted((each for each in root.iterdir() if each.is_dir()), key=lambda each: natural_key(each.name))
    found = [(each.name, model) for each in below if (model := _model_in(each)) is not None]
    if not found:
        raise InputError(
            f"There is no COLMAP model in {root} (cameras, images, points3D as .bin or .txt, also in sparse/ or "
            "sparse/0), nor a map, nor a folder of these; name one."
        )
    return found


def _model_in(folder: Path) -> Path | None:
    for place in _PLACES:
        for ending in ("bin", "txt"):
            if all((folder / place / f"{part}.{ending}").is_file() for part in ("cameras", "images", "points3D")):
                return folder / place
    return None


def image_folder(folder: Path, given: str | None, scene: str) -> tuple[Path, bool]:
    """Where the images of a model are, and whether they are those of a map of ours, whose cameras are upright."""
    if (folder / "map.json").is_file():
        return (MapFolder(folder).read().images if given is None else Path(given).absolute()), True
    if given is not None:
        named = Path(given).absolute()
        return (named / scene if (named / scene).is_dir() else named), False
    for place in (folder / "images", folder.parent / "images", folder.parent.parent / "images"):
        if place.is_dir():
            return place, False
    return folder, False


def _scene(
    key: str, scene: str, model: Path, place: tuple[Path, bool]
) -> tuple[list[SourceImage], ScenePairs, list[Skipped]]:
    from lightglue.sfm.colmap.model import read_model  # which needs pycolmap

    folder, is_upright = place
    read = read_model(model)
    images: list[SourceImage] = []
    skipped: list[Skipped] = []
    points = []
    for image in read.images:
        name = f"{scene}/{image.name}" if scene else image.name
        path = folder / image.name
        camera = _fitting(path, image.camera, is_upright) if path.is_file() else f"{_AWAY} in {folder}"
        if isinstance(camera, str):
            skipped.append(Skipped(name, camera))
            continue
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = image.rotation, image.translation
        images.append(SourceImage(key, scene, name, str(path), Posed(camera, tuple(T.reshape(-1).tolist()))))
        points.append(np.unique(image.points))
    first, second, overlap = overlaps(points)
    kept = overlap >= LEAST_OVERLAP
    names = [image.name for image in images]
    rows = (first[kept].astype(np.int32), second[kept].astype(np.int32))
    return images, ScenePairs(names, *rows, overlap[kept].astype(np.float32)), skipped


def _fitting(path: Path, camera: Intrinsics, is_upright: bool) -> Intrinsics | str:
    """The camera of an image as it is shown; or why there is none."""
    size = size_in_file(path)
    if size is None:
        return "it cannot be read as an image"
    if camera.is_panorama:
        return "it is a panorama, which has no image plane"
    try:
        return fitted("its camera", camera, size, 1 if is_upright else orientation_of(path))
    except InputError as error:
        x, y = size[0] / camera.width, size[1] / camera.height
        return camera if abs(x / y - 1) <= _ASPECT else str(error)
