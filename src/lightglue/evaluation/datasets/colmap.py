"""From a COLMAP reconstruction to a manifest: pairs of images that see the same 3D points, with relative poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.evaluation.datasets.image_files import camera_fault
from lightglue.evaluation.datasets.manifest import PROTOCOLS, import_pycolmap, write_manifest
from lightglue.evaluation.pair import Benchmark, Pair, RelativePose
from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.orientation import REMEDY

__all__ = ["convert_colmap", "overlaps"]


def convert_colmap(
    model: Path,
    images: Path,
    output: Path,
    *,
    min_overlap: float = 0.1,
    max_overlap: float = 0.7,
    max_pairs: int | None = 1500,
    seed: int = 0,
) -> int:
    """Write a manifest of kind pose for a COLMAP model, binary or text; return the number of its pairs.

    Args:
        model: the folder of cameras, images and points3D.
        images: the folder that the model's image names are relative to.
        output: the manifest. Image paths in it are relative to its folder.
        min_overlap, max_overlap: the overlap of a pair is the share of its 3D points that it has in common, in that of
            the two images where the share is smaller; pairs outside of these bounds are left out.
        max_pairs: where there are more, so many of them are drawn.
        seed: of that draw. The same arguments give the same manifest.

    Raises InputError; another LightGlueError where pycolmap is not installed.
    """
    _check_options(min_overlap, max_overlap, max_pairs, seed)
    posed = _read(Path(model))
    first, second, overlap = overlaps([each.points for each in posed])
    chosen = np.flatnonzero((overlap >= min_overlap) & (overlap <= max_overlap))
    if not len(chosen):
        span = f"{overlap.min():.3f} to {overlap.max():.3f}" if len(overlap) else "none at all"
        raise InputError(
            f"No pair of the {len(posed)} images of {model} has an overlap of {min_overlap:g} to "
            f"{max_overlap:g}; there is {span}. Give other bounds."
        )
    if max_pairs is not None and len(chosen) > max_pairs:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, max_pairs, replace=False))
    chosen_images = np.unique(np.concatenate([first[chosen], second[chosen]]))
    _check_files([posed[i] for i in chosen_images], Path(images))
    pairs = [_pair(posed[first[i]], posed[second[i]], Path(images)) for i in chosen]
    benchmark = Benchmark(
        name=Path(output).stem,
        kind="pose",
        pairs=tuple(pairs),
        protocol=PROTOCOLS["pose"],
        source=f"COLMAP reconstruction of {len(posed)} images, overlap {min_overlap:g} to {max_overlap:g}",
    )
    write_manifest(benchmark, output)
    return len(pairs)


@dataclass(frozen=True, eq=False)
class _PosedImage:
    """A posed image of the model."""

    name: str
    camera: Camera
    size: tuple[int, int]  # width and height that the camera has, px
    T_w2c: NDArray[np.float64]  # (4, 4), world to camera
    points: NDArray[np.int64]  # (N,) sorted ids of the 3D points that it sees


def _check_options(min_overlap: float, max_overlap: float, max_pairs: int | None, seed: int) -> None:
    if not 0 < min_overlap <= max_overlap <= 1:
        raise InputError(
            f"The overlaps are {min_overlap!r} to {max_overlap!r}; give 0 < min_overlap <= max_overlap <= 1."
        )
    if max_pairs is not None and max_pairs < 1:
        raise InputError(f"max_pairs is {max_pairs!r}; give an integer from 1, or None for all.")
    if seed < 0:
        raise InputError(f"The seed is {seed!r}; give an integer from 0.")


def _read(model: Path) -> list[_PosedImage]:
    """The posed images of the model, by name. Raises InputError."""
    import_pycolmap("COLMAP models")
    from lightglue.geometry.colmap_models import read_reconstruction

    if not any(all((model / f"{part}.{end}").is_file() for part in ("cameras", "images")) for end in ("bin", "txt")):
        raise InputError(f"There is no COLMAP model in {model} (cameras and images, .bin or .txt); name its folder.")
    try:
        reconstruction = read_reconstruction(model)
    except Exception as error:  # pycolmap raises all kinds for damaged files
        raise InputError(f"{model} is no readable COLMAP model ({error}); write it again.") from error
    cameras = {key: as_camera(camera) for key, camera in reconstruction.cameras.items()}
    sizes = {key: (int(camera.width), int(camera.height)) for key, camera in reconstruction.cameras.items()}
    posed = [image for image in reconstruction.images.values() if image.has_pose]
    found = [_posed_image(image, cameras[image.camera_id], sizes[image.camera_id]) for image in posed]
    return sorted(found, key=lambda each: each.name)


def _posed_image(image: Any, camera: Camera, size: tuple[int, int]) -> _PosedImage:
    T = np.eye(4)
    T[:3] = image.cam_from_world().matrix()
    points = np.array([point.point3D_id for point in image.get_observation_points2D()], dtype=np.int64)
    return _PosedImage(image.name, camera, size, T, np.unique(points))


def overlaps(seen: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Every pair of images with common points: the indices of both, the first before the second, and their overlap.

    seen: the ids of the points of each image, each id once.
    """
    counts = np.array([len(points) for points in seen], dtype=np.int64)
    owner = np.repeat(np.arange(len(seen)), counts)
    _, point = np.unique(np.concatenate([*seen, np.empty(0, np.int64)]), return_inverse=True)
    order = np.argsort(point, kind="stable")  # the observations point by point, in each the images in order
    owners, starts = owner[order], np.searchsorted(point[order], np.arange(point.max(initial=-1) + 2))
    results = []
    begin = 0
    for i, count in enumerate(counts):
        mine = point[begin : begin + count]
        begin += count
        lengths = starts[mine + 1] - starts[mine]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        shared = np.bincount(owners[np.repeat(starts[mine], lengths) + within], minlength=len(seen))
        others = np.flatnonzero(shared[i + 1 :]) + i + 1
        results.append((np.full(len(others), i), others, shared[others] / np.maximum(count, counts[others])))
    if not results:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    first, second, overlap = (np.concatenate(column) for column in zip(*results, strict=True))
    return first, second, overlap


def _pair(one: _PosedImage, other: _PosedImage, images: Path) -> Pair:
    truth = RelativePose(one.camera, other.camera, other.T_w2c @ np.linalg.inv(one.T_w2c))
    scene = one.name.rsplit("/", 1)[0] if "/" in one.name else ""
    return Pair(f"{one.name}|{other.name}", scene, images / one.name, images / other.name, truth)


def _check_files(posed: Sequence[_PosedImage], images: Path) -> None:
    """Raise InputError where an image is missing or is not what its camera saw."""
    missing = [each.name for each in posed if not (images / each.name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(posed)} images are missing, such as {images / missing[0]}; give the "
            f"folder that the model's image names are relative to, not {images}."
        )
    faults = {each.name: camera_fault(images / each.name, *each.size) for each in posed}
    unfit = [(name, fault) for name, fault in faults.items() if fault]
    if unfit:
        name, fault = unfit[0]
        raise InputError(
            f"{len(unfit)} of the {len(posed)} images do not fit their cameras, such as {images / name}: "
            f"{fault}. {REMEDY}"
        )
