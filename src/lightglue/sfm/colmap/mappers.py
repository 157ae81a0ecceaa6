"""COLMAP's mappers and its bundle adjustment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightglue.errors import InputError, LightGlueError
from lightglue.sfm.colmap.models import registered
from lightglue.sfm.colmap.state import DatabaseState
from lightglue.sfm.colmap.with_pycolmap import VERSION, pycolmap, quiet, set_option, short
from lightglue.sfm.options import ReconstructOptions
from lightglue_runtime.limits import usable_cores

__all__ = ["bundle_adjustment", "can_hold_some", "check_mapper", "num_threads", "run_mapper", "seldom_adjusted"]

# Of the incremental mapper: how much a model has grown when all of it is adjusted again, when it has converged, how
# often observations are looked for and dropped then, which share of them must have changed for a second time, and the
# observations from which on threads share the work.
_SELDOM = {
    "ba_global_frames_ratio": 1.3,
    "ba_global_points_ratio": 1.3,
    "ba_global_function_tolerance": 1e-4,
    "ba_global_max_refinements": 2,
    "ba_global_max_refinement_change": 0.002,
    "ba_min_num_residuals_for_cpu_multi_threading": 10_000,
}


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
    database: Path,
    images: Path,
    out: Path,
    state: DatabaseState,
    asked: ReconstructOptions,
    max_error: float | None = None,
    start: Path | None = None,
) -> list[Any]:
    """The models that a mapper makes, as `pycolmap.Reconstruction`, those with most images first.

    max_error: px; observations farther off are dropped; None for COLMAP's own. start: a model, in the database's
    numbers, that the incremental mapper is to go on with; its result is the only one then.

    Raises InputError where this version cannot do what is asked, LightGlueError for what goes wrong in COLMAP.
    """
    check_mapper(asked.mapper)
    options = _mapper_options(asked, max_error, state)
    run = getattr(pycolmap, f"{asked.mapper}_mapping")
    begin = {}
    if start is not None:
        options.multiple_models, begin = False, {"input_path": str(start)}
    try:
        with quiet():
            pycolmap.set_random_seed(asked.seed)
            models = run(str(database), str(images), str(out), options, **begin)
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        if asked.mapper == "hierarchical" and isinstance(error, IndexError):
            return []  # where no part of the images makes a model, it looks for the first of none
        raise LightGlueError(
            f"COLMAP's {asked.mapper} mapper failed on {database}: {short(error)}. Make the database again, or choose "
            "another mapper."
        ) from error
    return sorted(models.values(), key=lambda model: (-len(registered(model)), -model.num_points3D()))


def _mapper_options(asked: ReconstructOptions, max_error: float | None, state: DatabaseState) -> Any:
    """COLMAP's options of the mapper that is asked for."""
    mapper, threads = asked.mapper, num_threads(asked)
    options: Any = getattr(pycolmap, f"{mapper.capitalize()}PipelineOptions")()
    part = "incremental_options." if mapper == "hierarchical" else ""
    if mapper != "global":
        set_option(options, f"{part}min_model_size", asked.min_model_size)
        set_option(options, f"{part}extract_colors", False)  # `colour_points` does, from the pixels that we decode
        set_option(options, f"{part}num_threads", threads)
        if "ba_use_gpu" in dir(options):
            options.ba_use_gpu = False  # the same result on every machine
        if max_error is not None:
            set_option(options, f"{part}mapper.filter_max_reproj_error", max_error)
    seeded = options.incremental_options if mapper == "hierarchical" else options
    if "random_seed" in dir(seeded):
        seeded.random_seed = asked.seed
    set_option(options, "num_threads", threads)
    if mapper == "hierarchical":
        options.num_workers = threads
    _hold(options, part, mapper, state.fixed, all_fixed=len(state.fixed) == len(state.cameras))
    for name, value in asked.colmap.items():
        set_option(options, name, value)
    return options


def seldom_adjusted() -> dict[str, float]:
    """Options of the incremental mapper for a model that is adjusted once more in the end, as a whole.

    With them a map of 60 images takes half of the mapper's time, and its cameras are the same within 0.001 % of its
    extent (docs/decisions/034). Versions of pycolmap that name them otherwise go without.
    """
    there = dir(pycolmap.IncrementalPipelineOptions())
    return {name: value for name, value in _SELDOM.items() if name in there}


def num_threads(asked: ReconstructOptions) -> int:
    """Threads that COLMAP gets."""
    return asked.threads or usable_cores()


def bundle_adjustment(
    model: Any,
    *,
    loss_scale: float,
    threads: int,
    fixed: tuple[int, ...],
    principal_point: bool,
    distortion: bool = True,
    tolerance: float = 0.0,
) -> None:
    """Adjust all poses and points of a model once more, observations far off counting for little (Cauchy's loss).

    loss_scale: px. fixed: numbers of the cameras that stay as they are; of others the focal lengths are adjusted too.
    principal_point, distortion: and these. tolerance: share of the cost; it ends with a step that gains less.

    Raises LightGlueError for what goes wrong in COLMAP.
    """
    options: Any = pycolmap.BundleAdjustmentOptions()
    nested = "ceres." if hasattr(options, "ceres") else ""  # from 4.0 on
    set_option(options, f"{nested}loss_function_type", pycolmap.LossFunctionType.CAUCHY)
    set_option(options, f"{nested}loss_function_scale", loss_scale)
    set_option(options, f"{nested}solver_options.num_threads", threads)
    set_option(options, f"{nested}solver_options.max_num_iterations", 100)
    set_option(options, f"{nested}solver_options.function_tolerance", tolerance)
    options.refine_focal_length = True
    options.refine_extra_params = distortion
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
            f"COLMAP's bundle adjustment failed: {short(error)}. Reconstruct with final_adjustment=False."
        ) from error
    if hasattr(pycolmap, "ObservationManager"):  # what was moved behind a camera has no reprojection error
        pycolmap.ObservationManager(model).filter_observations_with_negative_depth()
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


def _hold(options: Any, part: str, mapper: str, fixed: tuple[int, ...], all_fixed: bool) -> None:
    """See that known intrinsics stay as they are."""
    if not fixed:
        return
    if all_fixed:
        names = ("focal_length", "principal_point", "extra_params")
        before = "mapper.bundle_adjustment.refine_" if mapper == "global" else f"{part}ba_refine_"
        for name in names:
            set_option(options, before + name, False)
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
