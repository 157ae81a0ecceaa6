"""COLMAP through pycolmap, 3.11 to 4.2: the one module of this room that imports it.

What differs between the versions is known here and nowhere else: how a database is opened, rigs and frames (3.12),
seeds (3.13), cameras held fixed one by one (3.13), the global and the hierarchical mapper (4.0 and 4.1), poses as
properties or methods. Half a pixel is added here to what goes to COLMAP, and taken off what comes from it.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, LightGlueError, StoreError
from lightglue.geometry.cameras import COLMAP_OFFSET
from lightglue.sfm.colmap.cameras import MapCamera
from lightglue.sfm.colmap.model_files import check_model_files

try:
    import pycolmap
except ImportError as error:
    raise LightGlueError("Maps need pycolmap: pip install 'lightglue[sfm]'.") from error

__all__ = [
    "VERSION",
    "Database",
    "absolute_pose",
    "cam_from_world",
    "camera_to_colmap",
    "copied",
    "deregister",
    "guessed_camera",
    "image_camera",
    "inferred_focal",
    "pair_id",
    "pair_of",
    "quiet",
    "read_model",
    "two_view_geometry",
]

VERSION: str = pycolmap.__version__
_RELEASE = tuple(int(part) for part in re.findall(r"\d+", VERSION)[:2])
_MAX_IMAGES = 2**31 - 1  # COLMAP's kMaxNumImages: pair_id = this * smaller image_id + larger image_id
_ROOM = 8 << 20  # bytes that must be free before something is written
_PRINCIPAL_POINT: dict[str, list[int]] = {}  # places of cx, cy among a model's parameters

if _RELEASE < (3, 11):
    raise LightGlueError(f"pycolmap {VERSION} is too old; run `pip install --upgrade pycolmap` (3.11 or later).")


# --- its log -----------------------------------------------------------------------------------------------------


class _Quiet:
    """How many calls want COLMAP's log to be still; its level is one for the whole process."""

    lock = threading.Lock()
    calls = 0
    level = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keep COLMAP's log to fatal errors while in this context: what it says of errors is in its exceptions too."""
    logging: Any = pycolmap.logging
    with _Quiet.lock:
        if _Quiet.calls == 0:
            _Quiet.level = logging.minloglevel
            logging.minloglevel = max(_Quiet.level, 3)
        _Quiet.calls += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.calls -= 1
            if _Quiet.calls == 0:
                logging.minloglevel = _Quiet.level


# --- cameras -----------------------------------------------------------------------------------------------------


def _principal_point(model: str) -> list[int]:
    """Where cx and cy stand among a model's parameters. Raises InputError for a model that COLMAP does not know."""
    if model not in _PRINCIPAL_POINT:
        known = pycolmap.CameraModelId.__members__
        if model not in known or model == "INVALID":
            names = ", ".join(name for name in known if name != "INVALID")
            raise InputError(f"pycolmap {VERSION} has no camera model {model!r}; choose one of {names}.")
        _PRINCIPAL_POINT[model] = list(_created(model, 1.0, 1, 1).principal_point_idxs())
    return _PRINCIPAL_POINT[model]


def _created(model: str, focal: float, width: int, height: int) -> Any:
    make = getattr(pycolmap.Camera, "create_from_model_name", None)
    if make is not None:
        return make(1, model, focal, width, height)
    return pycolmap.Camera.create(1, getattr(pycolmap.CameraModelId, model), focal, width, height)


def guessed_camera(model: str, focal: float, size: tuple[int, int], has_prior_focal: bool) -> MapCamera:
    """A camera without distortion whose principal point is the centre of the image. focal, size: px."""
    _principal_point(model)
    camera = _created(model, focal, *size)
    camera.has_prior_focal_length = has_prior_focal
    return camera_from_colmap(camera, is_fixed=False)


def camera_from_colmap(camera: Any, is_fixed: bool) -> MapCamera:
    """A camera as we have it."""
    model = camera.model.name
    params = np.array(camera.params, dtype=np.float64)
    params[_principal_point(model)] -= COLMAP_OFFSET
    size = (int(camera.width), int(camera.height))
    return MapCamera(model, size, tuple(params.tolist()), bool(camera.has_prior_focal_length), is_fixed)


def camera_to_colmap(camera: MapCamera, camera_id: int = 1) -> Any:
    """A `pycolmap.Camera`. Raises InputError for parameters that are none of the model's."""
    params = np.array(camera.params, dtype=np.float64)
    places = _principal_point(camera.model)
    wanted = len(_created(camera.model, 1.0, 1, 1).params)
    if len(params) != wanted or not np.isfinite(params).all():
        names = _created(camera.model, 1.0, 1, 1).params_info
        raise InputError(f"params is {list(camera.params)}; {camera.model} takes {wanted} finite numbers: {names}.")
    params[places] += COLMAP_OFFSET
    width, height = camera.size
    made = pycolmap.Camera(model=camera.model, width=width, height=height, params=params.tolist(), camera_id=camera_id)
    made.has_prior_focal_length = camera.has_prior_focal
    return made


def inferred_focal(path: Path) -> float | None:
    """The focal length in px that an image's EXIF tells, by COLMAP's rules; None where it tells none."""
    try:
        with quiet():
            camera = pycolmap.infer_camera_from_image(str(path))
    except (ValueError, RuntimeError, OSError):  # of a kind that COLMAP does not read
        return None
    return float(camera.params[0]) if camera.has_prior_focal_length else None


# --- the database ------------------------------------------------------------------------------------------------


def pair_id(first: int, second: int) -> int:
    """COLMAP's number of a pair of images."""
    return _MAX_IMAGES * min(first, second) + max(first, second)


def pair_of(number: int) -> tuple[int, int]:
    """The numbers of the two images of a pair."""
    return number // _MAX_IMAGES, number % _MAX_IMAGES


class Database:
    """A COLMAP database that is open for writing. Raises StoreError, which names the file, for all that fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_room(path)
        with self._told(), quiet():
            if _RELEASE >= (3, 13):
                self._database: Any = pycolmap.Database.open(str(path))
            else:
                self._database = pycolmap.Database()
                self._database.open(str(path))

    def close(self) -> None:
        """Close it; after that it can be moved."""
        with self._told(), quiet():
            self._database.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """For what is written together: COLMAP's log is still, and there is room for it.

        No transaction: COLMAP's, committed by a destructor, ends the process where the disk is full, and with its log
        written ahead and not synchronized SQLite is as fast without.
        """
        _check_room(self.path)
        with self._told(), quiet():
            yield

    def add_camera(self, camera_id: int, camera: MapCamera) -> None:
        """Write a camera, and the rig that it is alone in."""
        made = camera_to_colmap(camera, camera_id)
        with self._told():
            self._database.write_camera(made, use_camera_id=True)
            if hasattr(self._database, "write_rig"):
                rig = pycolmap.Rig(rig_id=camera_id)
                rig.add_ref_sensor(_sensor(camera_id))
                self._database.write_rig(rig, use_rig_id=True)

    def add_image(self, image_id: int, name: str, camera_id: int, keypoints: NDArray[np.float32]) -> None:
        """Write an image, its frame and its keypoints (N, 2) px, (0, 0) being the centre of the top-left pixel."""
        with self._told():
            image = pycolmap.Image(name=name)
            image.camera_id, image.image_id = camera_id, image_id
            if hasattr(self._database, "write_frame"):
                frame = pycolmap.Frame(frame_id=image_id, rig_id=camera_id)
                frame.add_data_id(_datum(camera_id, image_id))
                self._database.write_frame(frame, use_frame_id=True)  # first: 4.x looks for it
                image.frame_id = image_id
            self._database.write_image(image, use_image_id=True)
            moved: Any = np.ascontiguousarray(keypoints.astype(np.float64) + COLMAP_OFFSET, dtype=np.float32)
            self._database.write_keypoints(image_id, moved.reshape(-1, 2))

    def put_matches(self, first: int, second: int, matches: NDArray[np.int32]) -> None:
        """Write the matches (K, 2) of two images in place of any that were there, and forget their geometry."""
        with self._told():
            self.remove_pair(first, second)
            self._database.write_matches(first, second, matches.astype(np.uint32))

    def remove_pair(self, first: int, second: int) -> None:
        """Forget the matches of two images and their geometry."""
        with self._told():
            if self._database.exists_matches(first, second):
                self._database.delete_matches(first, second)
            self.remove_geometry(first, second)

    def remove_geometry(self, first: int, second: int) -> None:
        """Forget the geometry of two images."""
        database = self._database
        with self._told():
            exists = getattr(database, "exists_two_view_geometry", None) or database.exists_inlier_matches
            remove = getattr(database, "delete_two_view_geometry", None) or database.delete_inlier_matches
            if exists(first, second):
                remove(first, second)

    def put_geometry(self, first: int, second: int, geometry: Any) -> None:
        """Write a `pycolmap.TwoViewGeometry` in place of any that was there."""
        with self._told():
            self.remove_geometry(first, second)
            self._database.write_two_view_geometry(first, second, geometry)

    def geometry(self, first: int, second: int) -> Any:
        """The `pycolmap.TwoViewGeometry` of two images."""
        with self._told():
            return self._database.read_two_view_geometry(first, second)

    def keypoints(self, image_id: int) -> NDArray[np.float64]:
        """(N, 2) px as COLMAP has them: the centre of the top-left pixel is (0.5, 0.5)."""
        with self._told():
            return np.asarray(self._database.read_keypoints(image_id), dtype=np.float64)[:, :2]

    def matches(self, first: int, second: int) -> NDArray[np.uint32]:
        """(K, 2)."""
        with self._told():
            return np.asarray(self._database.read_matches(first, second), dtype=np.uint32)

    def cameras(self) -> dict[int, Any]:
        """The `pycolmap.Camera` of each image, by the image's number."""
        with self._told():
            cameras = {camera.camera_id: camera for camera in self._database.read_all_cameras()}
            return {image.image_id: cameras[image.camera_id] for image in self._database.read_all_images()}

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what pycolmap says into an error that names the file."""
        try:
            yield
        except LightGlueError:
            raise
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise StoreError(
                f"{self.path} cannot be used ({_short(error)}); see that there is room and that it may be written "
                "to, or, if it is damaged, remove it and make it anew."
            ) from error


def _check_room(path: Path) -> None:
    """Raises StoreError where the disk is all but full: some versions end the process when it is."""
    try:
        free = shutil.disk_usage(path.absolute().parent).free
    except OSError:  # opening it will tell
        return
    if free < _ROOM:
        raise StoreError(
            f"{path} cannot be written: the disk has {free:,} bytes left; make room, or name another disk."
        )


def _sensor(camera_id: int) -> Any:
    sensor = pycolmap.sensor_t()
    sensor.type, sensor.id = pycolmap.SensorType.CAMERA, camera_id
    return sensor


def _datum(camera_id: int, image_id: int) -> Any:
    datum = pycolmap.data_t()
    datum.sensor_id, datum.id = _sensor(camera_id), image_id
    return datum


def _short(error: Exception) -> str:
    """What COLMAP says, without the line of its code."""
    return re.sub(r"^\[[^\]]*\]\s*", "", " ".join(str(error).split()))[:300]


# --- two views ---------------------------------------------------------------------------------------------------


def two_view_geometry(
    cameras: tuple[Any, Any],
    keypoints: tuple[NDArray[np.float64], NDArray[np.float64]],
    matches: NDArray[np.uint32],
    options: Mapping[str, float],
    seed: int,
) -> Any:
    """COLMAP's judgement of two images, a `pycolmap.TwoViewGeometry`.

    Calibrated where both focal lengths are known, and the same in every thread. keypoints: px as COLMAP has them.
    options: names of `TwoViewGeometryOptions`, with `ransac.` before those of its RANSAC.
    """
    made = pycolmap.TwoViewGeometryOptions()
    for name, value in options.items():
        _set(made, name, value)
    if hasattr(made.ransac, "random_seed"):
        made.ransac.random_seed = seed
    else:
        pycolmap.set_random_seed(seed)  # of this thread
    first, second = (np.ascontiguousarray(points) for points in keypoints)
    return pycolmap.estimate_two_view_geometry(cameras[0], first, cameras[1], second, matches, made)


def configuration(geometry: Any) -> str:
    """What two views are, in a word: "calibrated", "uncalibrated", "planar_or_panoramic", "degenerate"..."""
    return configuration_name(int(geometry.config))


def configuration_name(number: int) -> str:
    """The word for the number that stands in a database."""
    return _CONFIGURATIONS.get(number, "undefined")


# COLMAP's TwoViewGeometry::ConfigurationType, as numbered in its database.
_CONFIGURATIONS = {
    0: "undefined",
    1: "degenerate",
    2: "calibrated",
    3: "uncalibrated",
    4: "planar",
    5: "panoramic",
    6: "planar_or_panoramic",
    7: "watermark",
    8: "multiple",
    9: "calibrated_rig",
}


# --- mapping -----------------------------------------------------------------------------------------------------


def _set(options: Any, name: str, value: Any) -> None:
    """Set an option by its dotted name. Raises InputError for one that this version does not have."""
    *path, last = name.split(".")
    for part in path:
        options = getattr(options, part, None)
    if options is None or last not in dir(options):
        raise InputError(f"pycolmap {VERSION} has no option {name!r}; look at its documentation, or leave it out.")
    try:
        setattr(options, last, value)
    except TypeError as error:
        raise InputError(f"{name} cannot be {value!r}; give a {type(getattr(options, last)).__name__}.") from error


def check_mapper(mapper: str) -> None:
    """Raises InputError where this version does not have a mapper."""
    needs = {"incremental": "incremental_mapping", "global": "global_mapping", "hierarchical": "hierarchical_mapping"}
    if mapper not in needs:
        raise InputError(f"The mapper is {mapper!r}; choose one of {', '.join(needs)}.")
    if not hasattr(pycolmap, needs[mapper]):
        raise InputError(
            f"pycolmap {VERSION} has no {mapper} mapper; run `pip install --upgrade pycolmap`, or choose incremental."
        )


def run_mapper(
    mapper: str,
    database: Path,
    images: Path,
    out: Path,
    *,
    seed: int,
    threads: int,
    min_model_size: int,
    extract_colors: bool,
    fixed: tuple[int, ...],
    all_fixed: bool,
    max_error: float | None,
    more: Mapping[str, Any],
    start: Path | None = None,
) -> list[Any]:
    """The models that a mapper makes, as `pycolmap.Reconstruction`, those with most images first.

    fixed: numbers of the cameras that stay as they are. max_error: px; observations farther off are dropped; None for
    COLMAP's own. start: a model, in the database's numbers, that the incremental mapper is to go on with; its result is
    the only one then.

    Raises InputError where this version cannot do what is asked, LightGlueError for what goes wrong in COLMAP.
    """
    check_mapper(mapper)
    options: Any = getattr(pycolmap, f"{mapper.capitalize()}PipelineOptions")()
    part = "incremental_options." if mapper == "hierarchical" else ""
    if mapper != "global":
        _set(options, f"{part}min_model_size", min_model_size)
        _set(options, f"{part}extract_colors", extract_colors)
        _set(options, f"{part}num_threads", threads)
        if "ba_use_gpu" in dir(options):
            options.ba_use_gpu = False  # the same result on every machine
    _seed(options, part, mapper, seed)
    _set(options, "num_threads", threads)
    if mapper == "hierarchical":
        options.num_workers = threads
    if max_error is not None and mapper != "global":
        _set(options, f"{part}mapper.filter_max_reproj_error", max_error)
    _hold(options, part, mapper, fixed, all_fixed)
    for name, value in more.items():
        _set(options, name, value)
    run = getattr(pycolmap, f"{mapper}_mapping")
    begin = {}
    if start is not None:
        options.multiple_models, begin = False, {"input_path": str(start)}
    try:
        with quiet():
            pycolmap.set_random_seed(seed)
            models = run(str(database), str(images), str(out), options, **begin)
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise LightGlueError(
            f"COLMAP's {mapper} mapper failed on {database}: {_short(error)}. Make the database anew, or choose "
            "another mapper."
        ) from error
    return sorted(models.values(), key=lambda model: (-_num_registered(model), -model.num_points3D()))


def bundle_adjustment(
    model: Any, *, loss_scale: float, threads: int, fixed: tuple[int, ...], principal_point: bool
) -> None:
    """Adjust all poses and points of a model once more, observations far off counting for little (Cauchy's loss).

    loss_scale: px. fixed: numbers of the cameras that stay as they are; of the others the focal lengths and distortions
    are adjusted too. principal_point: and that. Raises LightGlueError for what goes wrong in COLMAP.
    """
    options: Any = pycolmap.BundleAdjustmentOptions()
    nested = "ceres." if hasattr(options, "ceres") else ""  # from 4.0 on
    _set(options, f"{nested}loss_function_type", pycolmap.LossFunctionType.CAUCHY)
    _set(options, f"{nested}loss_function_scale", loss_scale)
    _set(options, f"{nested}solver_options.num_threads", threads)
    _set(options, f"{nested}solver_options.max_num_iterations", 100)
    options.refine_focal_length = options.refine_extra_params = True
    options.refine_principal_point = principal_point
    options.print_summary = False
    try:
        with quiet():
            if hasattr(pycolmap, "BundleAdjustmentGauge"):
                _adjust(model, options, fixed)
            else:  # before 3.12; it writes two lines to the log whatever its level
                options.refine_focal_length &= not fixed
                options.refine_extra_params &= not fixed
                options.refine_principal_point &= not fixed
                pycolmap.bundle_adjustment(model, options)
    except (RuntimeError, ValueError) as error:
        raise LightGlueError(
            f"COLMAP's bundle adjustment failed: {_short(error)}. Reconstruct with final_adjustment=False."
        ) from error
    model.update_point_3d_errors()


def _adjust(model: Any, options: Any, fixed: tuple[int, ...]) -> None:
    config: Any = pycolmap.BundleAdjustmentConfig()
    for image in registered(model):
        config.add_image(image.image_id)
    for number in fixed:
        if number in model.cameras:
            config.set_constant_cam_intrinsics(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()


def principal_points(model: Any) -> dict[int, tuple[float, float]]:
    """Of each camera of a model, px, COLMAP's convention."""
    found = {}
    for number, camera in model.cameras.items():
        x, y = camera.principal_point_idxs() if callable(camera.principal_point_idxs) else camera.principal_point_idxs
        found[number] = (float(camera.params[x]), float(camera.params[y]))
    return found


def _seed(options: Any, part: str, mapper: str, seed: int) -> None:
    names = {"incremental": ["random_seed"], "hierarchical": [f"{part}random_seed"], "global": ["random_seed"]}[mapper]
    for name in names:
        *path, last = name.split(".")
        target = options
        for step in path:
            target = getattr(target, step)
        if last in dir(target):
            setattr(target, last, seed)


def _hold(options: Any, part: str, mapper: str, fixed: tuple[int, ...], all_fixed: bool) -> None:
    """See that known intrinsics stay as they are."""
    if not fixed:
        return
    if all_fixed:
        names = ("focal_length", "principal_point", "extra_params")
        before = "mapper.bundle_adjustment.refine_" if mapper == "global" else f"{part}ba_refine_"
        for name in names:
            _set(options, before + name, False)
        return
    if not can_hold_some(mapper):
        raise InputError(
            f"The intrinsics of some images are known and those of others are not: pycolmap {VERSION}'s {mapper} "
            "mapper cannot hold some only. Give those of all or none, or use the incremental mapper of 3.13 or later."
        )
    target = options.incremental_options if mapper == "hierarchical" else options
    target.constant_cameras = set(fixed)


def can_hold_some(mapper: str) -> bool:
    """Whether a mapper can hold the intrinsics of some cameras only."""
    return mapper != "global" and hasattr(pycolmap.IncrementalPipelineOptions, "constant_cameras")


def read_model(folder: Path) -> Any:
    """The `pycolmap.Reconstruction` in a folder. Raises StoreError where there is none, or it is damaged."""
    if not (folder / "images.bin").exists() and not (folder / "images.txt").exists():
        raise StoreError(f"There is no COLMAP model in {folder} (no images.bin); run the reconstruction first.")
    try:
        check_model_files(folder)
        with quiet():
            return pycolmap.Reconstruction(str(folder))
    except (RuntimeError, ValueError, IndexError, OSError, MemoryError) as error:
        raise StoreError(f"The model in {folder} is damaged ({_short(error)}); reconstruct it anew.") from error


def _num_registered(model: Any) -> int:
    return len(registered(model))


def registered(model: Any) -> list[Any]:
    """The `pycolmap.Image`s of a model that have a pose, by name."""
    images = [model.image(number) for number in model.reg_image_ids()]
    return sorted(images, key=lambda image: str(image.name))


def deregister(model: Any, names: Collection[str]) -> None:
    """Take the poses of images out of a model, and the points that fewer than two others see."""
    for image in registered(model):
        if str(image.name) in names:
            if hasattr(model, "deregister_frame"):  # 3.12
                model.deregister_frame(image.frame_id)
            else:
                model.deregister_image(image.image_id)


def cam_from_world(image: Any) -> NDArray[np.float64]:
    """The pose T (4, 4) of a registered image, from the world to its camera."""
    pose = image.cam_from_world
    pose = pose() if callable(pose) else pose
    T = np.eye(4)
    T[:3] = pose.matrix()
    return T


def image_camera(model: Any, image: Any) -> MapCamera:
    """The camera of an image of a model, as we have it."""
    return camera_from_colmap(model.camera(image.camera_id), is_fixed=True)


# --- the place of an image ---------------------------------------------------------------------------------------


def copied(camera: Any) -> Any:
    """A `pycolmap.Camera` that may be changed."""
    return pycolmap.Camera(camera.todict())


def pinhole(K: NDArray[np.float64], size: tuple[int, int], is_square: bool) -> Any:
    """A `pycolmap.Camera` with this matrix, (0, 0) being the centre of the first pixel, and no distortion or skew.

    is_square: with one focal length, the mean of the two.
    """
    focal = [float(K[0, 0] + K[1, 1]) / 2] if is_square else [float(K[0, 0]), float(K[1, 1])]
    centre = [float(K[0, 2]) + COLMAP_OFFSET, float(K[1, 2]) + COLMAP_OFFSET]
    model = "SIMPLE_PINHOLE" if is_square else "PINHOLE"
    return pycolmap.Camera(model=model, width=size[0], height=size[1], params=[*focal, *centre])


def matrix(camera: Any) -> NDArray[np.float64]:
    """K (3, 3) of a camera, (0, 0) being the centre of the first pixel."""
    K = np.array(camera.calibration_matrix(), np.float64)
    K[:2, 2] -= COLMAP_OFFSET
    return K


def absolute_pose(
    camera: Any,
    points2D: NDArray[np.float64],
    points3D: NDArray[np.float64],
    *,
    estimate_focal: bool,
    refine_focal: bool,
    max_error: float,
    confidence: float,
    max_iterations: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """The pose T (4, 4) from the world to a camera, and which points (N,) agree with it; None where there is none.

    camera: a `pycolmap.Camera` that gets the focal length that is found. points2D: (N, 2) px as COLMAP has them.
    estimate_focal: by RANSAC. refine_focal: with the pose, from what RANSAC found.
    """
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.estimate_focal_length = estimate_focal
    ransac: Any = estimation.ransac
    ransac.max_error, ransac.confidence, ransac.max_num_trials = max_error, confidence, max_iterations
    ransac.min_num_trials = min(ransac.min_num_trials, max_iterations)
    if hasattr(ransac, "random_seed"):  # 3.13
        ransac.random_seed = seed
    else:
        pycolmap.set_random_seed(seed)
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.refine_focal_length, refinement.refine_extra_params = refine_focal, False
    with quiet():
        found = pycolmap.estimate_and_refine_absolute_pose(points2D, points3D, camera, estimation, refinement)
    if found is None:
        return None
    T = np.eye(4)
    T[:3] = found["cam_from_world"].matrix()
    return T, np.asarray(found["inlier_mask"], np.bool_)
