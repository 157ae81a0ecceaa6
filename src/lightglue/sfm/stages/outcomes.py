"""Which models are to be believed, and why there is none, or an image is in none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightglue.sfm.colmap.judged import read_judgements
from lightglue.sfm.colmap.models import registered
from lightglue.sfm.colmap.motion import Motion, motion_of, only_turned
from lightglue.sfm.colmap.pair_ids import pair_of
from lightglue.sfm.colmap.shape import has_likely_cameras, shape_of
from lightglue.sfm.colmap.state import DatabaseState, read_state
from lightglue.sfm.options import ReconstructOptions
from lightglue.support.sqlite import connected

__all__ = ["believable", "believable_models", "is_sound", "no_model", "why_not_registered"]

_TWO_VIEW_TRACKS = "triangulation.ignore_two_view_tracks"
# Two views have no third to begin better with: an angle is enough that a sound model has.
# Nor do they tell a lens's distortion, which takes absurd values if it may.
_LOOSE = {
    _TWO_VIEW_TRACKS: False,
    "mapper.init_min_tri_angle": 1.0,
    "mapper.abs_pose_refine_extra_params": False,
    "ba_refine_extra_params": False,
}


def believable_models(
    run: Callable[[ReconstructOptions], list[Any]], database: Path, state: DatabaseState, options: ReconstructOptions
) -> list[Any]:
    """The models of a database that are to be believed, those with most images first.

    run: the mapper. COLMAP drops points that two images see alone, which nothing confirms. Where that leaves no model
    of three images, it runs again with them: a pair makes a model then, or images of which no three see the same.
    """
    motion = motion_of(database, state)
    models = believable(run(options), motion, database, state)
    is_enough = bool(models) and len(registered(models[0])) >= 3
    if is_enough or motion.only_turned or _TWO_VIEW_TRACKS in options.colmap:
        return models
    colmap = {**_LOOSE, **(options.colmap if options.mapper == "incremental" else {})}
    loose = replace(options, mapper="incremental", min_model_size=2, colmap=colmap)
    more = believable(run(loose), motion, database, state)
    return max(
        (models, more), key=lambda found: [(len(registered(model)), model.num_points3D()) for model in found[:1]]
    )


def believable(models: Sequence[Any], motion: Motion, database: Path, state: DatabaseState) -> list[Any]:
    """Those whose images see enough points that rays from different places fix.

    Where most pairs follow a homography a rotation may have been taken for a move along a plane.
    """
    sound = [model for model in models if is_sound(model, state)]
    if motion.only_turned or 2 * motion.flat >= motion.pairs:
        sound = [model for model in sound if not only_turned(model, database, state)]
    return sound


def is_sound(model: Any, state: DatabaseState) -> bool:
    """Whether enough points of a model are fixed by rays from different places, and its cameras are likely."""
    return shape_of(model).is_sound and has_likely_cameras(model, state.fixed)


def no_model(motion: Motion, images: int) -> str:
    """Why verified pairs made no model that is to be believed."""
    pairs = (
        "The only verified pair" if motion.pairs == 1 else f"All {motion.pairs} verified pairs of the {images} images"
    )
    if motion.only_turned:
        return (
            f"{pairs.replace('All', 'Nearly all', 1) if motion.turned < 1 else pairs} "
            f"{'is' if motion.pairs == 1 else 'are'} planar or panoramic, and a rotation of the camera explains the "
            "matches: images that were taken from one place show no depth. Give images from different places: walk "
            "past the scene instead of turning on the spot."
        )
    if motion.only_flat:
        return (
            f"{pairs.replace('All', 'Nearly all', 1) if motion.flat < motion.pairs else pairs} "
            f"{'is' if motion.pairs == 1 else 'are'} planar or panoramic: the images show a plane, or were taken from "
            "nearly one place, and their matches do not tell which. Give images from more places that show something "
            "besides the plane, or the intrinsics with --camera."
        )
    return (
        f"{motion.pairs} {'pair' if motion.pairs == 1 else 'pairs'} of the {images} images "
        f"{'has' if motion.pairs == 1 else 'have'} a verified geometry, the best of {motion.most_inliers} matches, and "
        "none gave a model with enough points that are seen from different places: give images with more overlap, from "
        "more places, or more keypoints."
    )


def why_not_registered(database: Path, models: Sequence[Sequence[str]]) -> dict[str, str]:
    """Of each image of a database that the first of the models, as names of images, does not have: why."""
    state = read_state(database)
    there = set(models[0]) if models else set()
    matched, verified = _neighbours(database, "matches", state), _neighbours(database, "two_view_geometries", state)
    dropped: dict[str, list[str]] = defaultdict(list)  # why, of pairs that were verified
    for judged in read_judgements(database).values():
        for number in pair_of(judged.number) if judged.reason is not None else ():
            dropped[state.names[number - 1]].append(str(judged.reason))
    found = {}
    for name in state.names:
        if name not in there:
            found[name] = _why_not(name, there, models, len(matched[name]), verified[name])
            if not verified[name] and dropped[name]:
                count = len(dropped[name])
                found[name] = f"all of its {count} verified pairs were dropped: {dropped[name][0]}"
    return found


def _why_not(name: str, there: set[str], models: Sequence[Sequence[str]], matched: int, verified: set[str]) -> str:
    for number, names in enumerate(models):
        if name in names:
            return f"it is in the smaller model models/{number}, which has too little in common with the largest"
    if not matched:
        return "it has matches with no other image: it may overlap with none, or too few pairs were chosen"
    if not verified:
        return f"none of its {matched} pairs has a verified geometry: it may overlap with no other image"
    if not verified & there:
        return "its verified pairs are with images that are not in the largest model either"
    count = len(verified & there)
    return (
        f"it has verified pairs with {count} of the images of the largest model, but too few of its matches are of "
        "points of the model and agree on a pose"
    )


def _neighbours(database: Path, table: str, state: DatabaseState) -> dict[str, set[str]]:
    """The images that each one has rows with."""
    found: dict[str, set[str]] = defaultdict(set)
    with connected(database) as connection:
        rows = connection.execute(f"SELECT pair_id FROM {table} WHERE rows > 0").fetchall()
    for (number,) in rows:
        first, second = (state.names[each - 1] for each in pair_of(number))
        found[first].add(second)
        found[second].add(first)
    return found
