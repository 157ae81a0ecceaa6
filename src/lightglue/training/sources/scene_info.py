"""Posed images with depth maps, as MegaDepth is laid out for training (cvg/glue-factory, mihaidusmanu/d2-net):

    ROOT/scene_info/0000.npz   image_paths, depth_paths, intrinsics (N, 3, 3), poses (N, 4, 4), overlap_matrix (N, N)
    ROOT/Undistorted_SfM/0000/images/....jpg
    ROOT/depth_undistorted/0000/....h5

Paths are relative to ROOT. Poses are from the world to the camera; principal points have COLMAP's origin.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry.intrinsics import Intrinsics, params_from_colmap
from lightglue.sfm.skipped import Skipped
from lightglue.training.sources.options import SourceOptions
from lightglue.training.sources.record import LEAST_OVERLAP, Listed, Posed, ScenePairs, SourceImage
from lightglue_runtime.images.sizes import size_in_file

__all__ = ["list_scene_info"]

_NEEDED = ("image_paths", "depth_paths", "intrinsics", "poses", "overlap_matrix")
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")


def list_scene_info(key: str, options: SourceOptions) -> Listed:
    """The images of all scenes under a folder, each with its depth map.

    Images whose file or depth map is not there are left out; those that a scene lists as None are none.

    Raises InputError where there is no scene, or none of its images is there.
    """
    root = Path(options.path).absolute()
    if root.name == "scene_info":  # whose paths are relative to the folder that it lies in
        root = root.parent
    files = sorted((root / "scene_info").glob("*.npz")) or sorted(root.glob("*.npz"))
    if not files:
        raise InputError(f"There is no scene in {root} (scene_info/*.npz); name the folder that MegaDepth lies in.")
    images: list[SourceImage] = []
    skipped: list[Skipped] = []
    scenes: dict[str, ScenePairs] = {}
    for file in files:
        info = read_scene_info(file)
        found, faults = _images(key, root, file.stem, info)
        images += found.values()
        skipped += faults
        scenes[file.stem] = _pairs({at: image.name for at, image in found.items()}, info["overlap_matrix"])
    if not images:
        why = f": {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise InputError(f"None of the images of the {len(files)} scenes in {root} can be used{why}.")
    return Listed(tuple(images), tuple(skipped), scenes)


def _images(
    key: str, root: Path, scene: str, info: Mapping[str, NDArray[Any]]
) -> tuple[dict[int, SourceImage], list[Skipped]]:
    """The images of a scene, by their row; and those that cannot be used."""
    found: dict[int, SourceImage] = {}
    skipped: list[Skipped] = []
    for at, (image, depth) in enumerate(zip(info["image_paths"], info["depth_paths"], strict=True)):
        if image is None or depth is None or not str(image):
            continue
        name, path = str(image), root / str(image)
        size = size_in_file(path)
        place = next((each for each in _depth_places(root, scene, name, str(depth)) if each.is_file()), None)
        if size is None or place is None:
            what = f"image at {path}" if size is None else f"depth map at {root / str(depth)}"
            skipped.append(Skipped(name, f"there is no {what}"))
            continue
        K, pose = (np.asarray(info[which][at], np.float64) for which in ("intrinsics", "poses"))
        if K.shape != (3, 3) or pose.shape != (4, 4) or not (np.isfinite(K).all() and np.isfinite(pose).all()):
            skipped.append(Skipped(name, f"its camera or pose in the scene {scene} is none"))
            continue
        params = params_from_colmap("PINHOLE", [K[0, 0], K[1, 1], K[0, 2], K[1, 2]])
        posed = Posed(Intrinsics("PINHOLE", size, tuple(params)), tuple(pose.reshape(-1).tolist()), str(place))
        found[at] = SourceImage(key, scene, name, str(path), posed)
    return found, skipped


def _depth_places(root: Path, scene: str, image: str, depth: str) -> list[Path]:
    """Where the depth map of an image may be: where the scene says, or where glue-factory puts it."""
    stem = PurePosixPath(image).stem
    return [root / depth, root / "depth_undistorted" / scene / f"{stem}.h5"]


def _pairs(names: Mapping[int, str], overlap: NDArray[Any]) -> ScenePairs:
    rows = np.array(sorted(names), np.int64)
    matrix = np.asarray(overlap, np.float64)[np.ix_(rows, rows)]
    both = np.minimum(matrix, matrix.T)
    first, second = np.nonzero(np.triu(np.nan_to_num(both) >= LEAST_OVERLAP, 1))
    overlaps = both[first, second].astype(np.float32)
    return ScenePairs([names[int(row)] for row in rows], first.astype(np.int32), second.astype(np.int32), overlaps)


def read_scene_info(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a scene. Raises InputError for what is none.

    Lists of paths are pickled in such files; only what arrays of texts need is unpickled, so that a file of unknown
    origin can do no harm.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            if missing := [name for name in _NEEDED if name not in names]:
                raise InputError(f"{path} has no {', '.join(missing)}, but {', '.join(sorted(names))}.")
            found = {}
            for name in _NEEDED:
                with archive.open(f"{name}.npy") as stream:
                    found[name] = _array(stream)
    except InputError:
        raise
    except Exception as error:  # whatever zipfile, pickle and numpy make of a damaged file
        raise InputError(f"{path} is no scene of MegaDepth's ({error}); fetch it again.") from error
    count = len(found["image_paths"])
    if any(len(found[name]) != count for name in _NEEDED) or found["overlap_matrix"].shape != (count, count):
        raise InputError(f"The arrays in {path} do not go together: {count} images.")
    return found


def _array(stream: IO[bytes]) -> NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    if dtype.hasobject:
        array = np.asarray(_Unpickler(stream).load())
    else:
        content = stream.read()
        array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    if array.shape != shape:
        raise ValueError(f"an array has the shape {array.shape}, not {shape}")
    return array


class _Unpickler(pickle.Unpickler):
    """Arrays of texts and numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """See `pickle.Unpickler.find_class`."""
        if module in _NUMPY and name in ("_reconstruct", "scalar"):
            return getattr(import_module(_NUMPY[hasattr(np, "_core")]), name)
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            import _codecs

            return _codecs.encode
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")
