"""What refinement and the last adjustment bring and cost, over scenes of several kinds, beside COLMAP's SIFT pipeline.

    python scripts/sfm_defaults.py ../shared/data OUT [--maps MAPS] [--keypoints 1024] [--scenes fountain temple]

Features and matches of a scene are computed once, or copied from MAPS/SCENE-KEYPOINTS; each row then verifies and maps
again. `known` has the intrinsics of the truth, held fixed; `unknown` starts from a guess, one camera for all. The truth
of `south_building` and `sceaux` is a COLMAP model of SIFT features at a higher resolution, the others were measured.

centre: median error after a similarity, per cent of the largest distance of two cameras; rotation, direction: medians
over pairs of images of the error of the relative rotation and of the direction of the relative translation, degrees.
Seconds are of processor time, so that they hold on a machine that is shared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pycolmap
from sfm_table import angle, similarity

from lightglue.models.choice import Models
from lightglue.sfm.colmap.models import cam_from_world, registered
from lightglue.sfm.colmap.with_pycolmap import quiet
from lightglue.sfm.options import (
    CameraOptions,
    ExtractOptions,
    MatchOptions,
    PairOptions,
    ReconstructOptions,
    SfmOptions,
    TrackOptions,
)
from lightglue.sfm.pipeline import STAGES, run_stage
from lightglue.sfm.stages import reconstruct

SCENES = {
    "fountain": "loc_fountain.json",
    "herzjesu": "loc_herzjesu.json",
    "courtyard": "courtyard20.json",
    "temple": "temple18.json",
    "tum": "tum18.json",
    "south_building": "train/scenes/south_building",
    "sceaux": "train/scenes/sceaux",
}


@dataclass(frozen=True)
class Scene:
    """Photographs with what is known of their cameras."""

    name: str
    folder: Path
    names: list[str]
    K: np.ndarray | None  # None: each image has its own, in the model
    poses: dict[str, np.ndarray]  # name -> T (4, 4), world to camera; empty where only relative poses are known
    relative: dict[tuple[str, str], np.ndarray]  # T (4, 4) from the first camera to the second
    model: Path | None = None


def load_scene(data: Path, name: str) -> Scene:
    """A scene of the data's folder."""
    source = data / SCENES[name]
    if source.is_dir():
        model = pycolmap.Reconstruction(str(source / "sparse"))
        poses = {image.name: cam_from_world(image) for image in registered(model)}
        return Scene(name, source / "images", sorted(poses), None, poses, between(poses), source / "sparse")
    said = json.loads(source.read_text())
    if "images" in said:
        entries = said["images"]
        poses = {Path(each["image"]).name: np.array(each["T_w2c"]) for each in entries}
        folder = (data / entries[0]["image"]).parent
        return Scene(name, folder, sorted(poses), np.array(entries[0]["K"]), poses, between(poses))
    relative = {(Path(p["image0"]).name, Path(p["image1"]).name): np.array(p["T_0to1"]) for p in said["pairs"]}
    folder = (data / said["pairs"][0]["image0"]).parent
    names = sorted({each for pair in relative for each in pair})
    return Scene(name, folder, names, np.array(said["pairs"][0]["K0"]), {}, relative)


def between(poses: dict[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """The relative pose of any two."""
    return {(a, b): poses[b] @ np.linalg.inv(poses[a]) for a, b in combinations(sorted(poses), 2)}


def figures(model: Any, scene: Scene) -> dict[str, float]:
    """How close a model is to the truth."""
    found = {image.name: cam_from_world(image) for image in registered(model)} if model is not None else {}
    found = {name: T for name, T in found.items() if name in scene.names}
    both = [pair for pair in scene.relative if set(pair) <= set(found)]
    if len(found) < 3 or not both:
        return {"images": len(found)}
    ours, true = between(found), scene.relative
    turn = [angle(ours[pair][:3, :3], true[pair][:3, :3]) for pair in both]
    ahead = [direction(ours[pair][:3, 3], true[pair][:3, 3]) for pair in both]
    said = {
        "images": len(found),
        "points": model.num_points3D(),
        "px": model.compute_mean_reprojection_error(),
        "rotation": float(np.median(turn)),
        "direction": float(np.median(ahead)),
    }
    if scene.poses:
        names = sorted(found)
        centres = np.stack([-found[name][:3, :3].T @ found[name][:3, 3] for name in names])
        truth = np.stack([-scene.poses[name][:3, :3].T @ scene.poses[name][:3, 3] for name in names])
        scale, R, shift = similarity(centres, truth)
        extent = max(np.linalg.norm(a - b) for a, b in combinations(truth, 2))
        errors = np.linalg.norm(scale * centres @ R.T + shift - truth, axis=1)
        said["centre"] = float(np.median(errors) / extent * 100)
    return said


def direction(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between two translations."""
    cosine = a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def camera_options(scene: Scene, known: bool) -> CameraOptions:
    """The cameras of a scene."""
    if not known:
        return CameraOptions(mode="single" if scene.K is not None else "auto")
    if scene.K is None:
        return CameraOptions(table=str(scene.model))
    K = scene.K
    return CameraOptions("PINHOLE", (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))


def ours(
    scene: Scene, args: argparse.Namespace, known: bool, refine: bool, final: bool
) -> tuple[Any, dict[str, float]]:
    """A map, and the seconds of the stages that were run for it; extraction and matching are of the first run."""
    out = args.out / f"{scene.name}-{args.keypoints}"
    cached = None if args.maps is None else args.maps / out.name
    if not out.exists() and cached is not None and (cached / "done").exists():
        shutil.copytree(cached, out)
        shutil.rmtree(out / "models", ignore_errors=True)
    models = Models("aliked", args.keypoints, "cpu")
    options = SfmOptions(
        models,
        ExtractOptions(models, {"resize": 1024}),
        MatchOptions(models),
        PairOptions(("exhaustive",)),
        cameras=camera_options(scene, known),
        refine=TrackOptions() if refine else None,
        reconstruct=ReconstructOptions(threads=1, final_adjustment=final),
    )
    seconds = {}
    for stage in STAGES[:-1]:
        begin = process_time()
        run_stage(stage, out, options, images=scene.folder)
        seconds[stage] = process_time() - begin
    model = pycolmap.Reconstruction(str(out / "model")) if (out / "model").exists() else None
    return model, {name: seconds[name] for name in ("refine", "verify", "reconstruct")}


def sift(scene: Scene, args: argparse.Namespace, known: bool) -> Iterator[tuple[Any, dict[str, float]]]:
    """COLMAP's own pipeline with its defaults, without and with our last adjustment behind it."""
    work = args.out / f"{scene.name}-sift-{known}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    reader = pycolmap.ImageReaderOptions()
    mode = pycolmap.CameraMode.AUTO if scene.K is None else pycolmap.CameraMode.SINGLE
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed, options.min_model_size, options.num_threads = 0, 3, 1
    if known and scene.K is not None:
        K = scene.K
        reader.camera_model = "PINHOLE"
        reader.camera_params = f"{K[0, 0]},{K[1, 1]},{K[0, 2] + 0.5},{K[1, 2] + 0.5}"
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
    extraction, matching = pycolmap.FeatureExtractionOptions(), pycolmap.FeatureMatchingOptions()
    extraction.num_threads = matching.num_threads = 1
    seconds, path, cpu = {}, work / "database.db", pycolmap.Device.cpu
    with quiet():
        begin = process_time()
        pycolmap.extract_features(
            path, scene.folder, scene.names, mode, reader_options=reader, extraction_options=extraction, device=cpu
        )
        pycolmap.match_exhaustive(path, matching_options=matching, device=cpu)
        seconds["extract+match"], begin = process_time() - begin, process_time()
        models = pycolmap.incremental_mapping(path, scene.folder, work, options)
    model = max(models.values(), key=lambda each: each.num_reg_images(), default=None)
    seconds["reconstruct"] = process_time() - begin
    yield model, seconds
    if model is not None:
        begin = process_time()
        model = reconstruct._adjusted(model, _State(model, known), ReconstructOptions(threads=1))
        seconds["reconstruct"] += process_time() - begin
        yield model, seconds


class _State:
    """What our last adjustment asks of a database."""

    def __init__(self, model: Any, known: bool) -> None:
        from lightglue.geometry.colmap_cameras import camera_from_colmap

        numbers = sorted(model.cameras)
        at = {number: row for row, number in enumerate(numbers)}
        self.cameras = tuple(replace(camera_from_colmap(model.cameras[n]), is_fixed=known) for n in numbers)
        images = sorted((image.image_id, image.name, at[image.camera_id]) for image in model.images.values())
        self.ids = {name: row for row, (_, name, _) in enumerate(images, 1)}
        self.camera_of = tuple(camera for *_, camera in images)
        self.fixed = tuple(numbers) if known else ()


def main() -> None:
    """Print a table, a row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--keypoints", type=int, default=1024)
    parser.add_argument("--scenes", nargs="+", default=list(SCENES))
    parser.add_argument("--intrinsics", nargs="+", default=["unknown", "known"])
    parser.add_argument("--methods", nargs="+", default=["sift", "plain", "refine"])
    args = parser.parse_args()
    head = ("scene", "intrinsics", "method", "last adjustment", "images", "points", "px")
    print(f"| {' | '.join(head)} | centre % | rotation ° | direction ° | s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.scenes:
        scene = load_scene(args.data, name)
        for intrinsics in args.intrinsics:
            for method in args.methods:
                rows(scene, intrinsics, method, args)


def rows(scene: Scene, intrinsics: str, method: str, args: argparse.Namespace) -> None:
    """The rows of a scene and a method, without and with the last adjustment."""
    known = intrinsics == "known"
    if method != "sift":
        made = (ours(scene, args, known, method == "refine", final) for final in (False, True))
    else:
        made = iter(()) if known and scene.K is None else sift(scene, args, known)
    for final, (model, seconds) in zip(("no", "yes"), made, strict=False):
        row([scene.name, intrinsics, method, final], figures(model, scene), len(scene.names), seconds)


def row(head: list[str], found: dict[str, float], of: int, seconds: dict[str, float]) -> None:
    """Print a row."""
    forms = {"points": ".0f", "px": ".3f", "centre": ".4f", "rotation": ".4f", "direction": ".4f"}
    cells = [f"{found[key]:{form}}" if key in found else "" for key, form in forms.items()]
    spent = ", ".join(f"{key} {value:.1f}" for key, value in seconds.items() if value >= 0.05)
    images = f"{found['images']:.0f} of {of}"
    print(f"| {' | '.join([*head, images, *cells, spent])} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
