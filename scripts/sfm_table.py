"""Models of the two Strecha scenes beside COLMAP's own SIFT pipeline, in one run: accuracy, and the time of each stage.

    python scripts/sfm_table.py ../shared/data OUT [--steps 1 3 5] [--methods sift aliked aliked-refine]

Each model is aligned with the true camera centres by a similarity. Centre errors are in per cent of the scene's extent
(the largest distance between two true centres), rotation errors in degrees: after that alignment, which a row of
cameras determines badly, and between pairs of images, which needs none. `known` has the published intrinsics, held
fixed; `unknown` starts from 1.2 times the longer edge, one camera for all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pycolmap

from lightglue.models.choice import Models
from lightglue.sfm.colmap.cameras import CameraOptions
from lightglue.sfm.colmap.models import cam_from_world, registered
from lightglue.sfm.colmap.with_pycolmap import quiet
from lightglue.sfm.pipeline import SfmOptions, build_map
from lightglue.sfm.stages.extract import ExtractOptions
from lightglue.sfm.stages.match import MatchOptions
from lightglue.sfm.stages.pairs import PairOptions
from lightglue.sfm.stages.reconstruct import ReconstructOptions

SCENES = {"fountain-P11": "loc_fountain.json", "Herz-Jesus-P8": "loc_herzjesu.json"}


@dataclass(frozen=True)
class Scene:
    """Photographs with known cameras."""

    folder: Path  # with these photographs and no others
    poses: dict[str, np.ndarray]  # name -> T (4, 4), world to camera
    K: np.ndarray


def load_scene(data: Path, name: str, step: int, work: Path) -> Scene:
    """Every `step`-th image of a scene, in a folder of its own."""
    entries = json.loads((data / SCENES[name]).read_text())["images"][::step]
    folder = work / f"{name}-{step}" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        shutil.copyfile(data / entry["image"], folder / Path(entry["image"]).name)
    poses = {Path(entry["image"]).name: np.array(entry["T_w2c"]) for entry in entries}
    return Scene(folder, poses, np.array(entries[0]["K"]))


def run_sift(scene: Scene, known: bool, out: Path, seed: int) -> tuple[Any, dict[str, float]]:
    """COLMAP's own features, matches and mapper, with its defaults; the largest model."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    seconds, database = {}, out / "database.db"
    reader = pycolmap.ImageReaderOptions()
    if known:
        K = scene.K
        reader.camera_model = "PINHOLE"
        reader.camera_params = f"{K[0, 0]},{K[1, 1]},{K[0, 2] + 0.5},{K[1, 2] + 0.5}"
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed, options.min_model_size = seed, 3
    if known:
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
    cpu = pycolmap.Device.cpu
    mode = pycolmap.CameraMode.SINGLE
    with quiet():
        begin = perf_counter()
        pycolmap.extract_features(database, scene.folder, camera_mode=mode, reader_options=reader, device=cpu)
        seconds["extract"], begin = perf_counter() - begin, perf_counter()
        pycolmap.match_exhaustive(database, device=cpu)
        seconds["match+verify"], begin = perf_counter() - begin, perf_counter()
        models = pycolmap.incremental_mapping(database, scene.folder, out, options)
        seconds["map"] = perf_counter() - begin
    return max(models.values(), key=lambda model: model.num_reg_images(), default=None), seconds


def run_ours(scene: Scene, known: bool, out: Path, seed: int, method: str) -> tuple[Any, dict[str, float]]:
    """`lightglue sfm` with its defaults."""
    shutil.rmtree(out, ignore_errors=True)
    features, _, refine = method.partition("-")
    models = Models(features, 2048)
    K = scene.K
    params = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    refined: Any = None
    if refine:
        from lightglue.sfm.stages.refine import TrackOptions

        refined = TrackOptions()
    options = SfmOptions(
        models=models,
        extract=ExtractOptions(models, {"resize": 1024}),
        match=MatchOptions(models),
        pairs=PairOptions(("exhaustive",)),
        cameras=CameraOptions(model="PINHOLE", params=params) if known else CameraOptions(mode="single"),
        refine=refined,
        reconstruct=ReconstructOptions(seed=seed),
    )
    result = build_map(scene.folder, out, options)
    names = {"reconstruct": "map"}
    seconds = {names.get(name, name): value for name, value in result.seconds.items()}
    model = pycolmap.Reconstruction(out / "model") if result.model.models else None
    return model, seconds


def figures(model: Any, scene: Scene) -> dict[str, float]:
    """How close a model is to the truth."""
    count = len(scene.poses)
    if model is None:
        return {"images": 0, "of": count}
    poses = {image.name: cam_from_world(image) for image in registered(model)}
    names = sorted(poses)
    R = np.stack([poses[name][:3, :3] for name in names])
    true_R = np.stack([scene.poses[name][:3, :3] for name in names])
    centres = np.stack([-poses[name][:3, :3].T @ poses[name][:3, 3] for name in names])
    truth = np.stack([-scene.poses[name][:3, :3].T @ scene.poses[name][:3, 3] for name in names])
    every = np.stack([-T[:3, :3].T @ T[:3, 3] for T in scene.poses.values()])
    extent = max(np.linalg.norm(a - b) for a, b in combinations(every, 2))
    scale, turn, shift = similarity(centres, truth)
    errors = np.linalg.norm(scale * centres @ turn.T + shift - truth, axis=1) / extent * 100
    pairs = list(combinations(range(len(names)), 2))
    relative = [angle(R[b] @ R[a].T, true_R[b] @ true_R[a].T) for a, b in pairs]
    return {
        "images": len(names),
        "of": count,
        "points": model.num_points3D(),
        "track": model.compute_mean_track_length(),
        "px": model.compute_mean_reprojection_error(),
        "centre": float(np.median(errors)),
        "rotation": float(np.median([angle(a @ turn.T, b) for a, b in zip(R, true_R, strict=True)])),
        "relative": float(np.median(relative)),
    }


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """target = scale turn source + shift, least squares (Umeyama, PAMI 1991)."""
    mean0, mean1 = source.mean(0), target.mean(0)
    left, values, right = np.linalg.svd((target - mean1).T @ (source - mean0))
    sign = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    turn = left @ sign @ right
    scale = float((values * np.diag(sign)).sum() / np.square(source - mean0).sum())
    return scale, turn, mean1 - scale * turn @ mean0


def angle(A: np.ndarray, B: np.ndarray) -> float:
    """Degrees between two rotations."""
    return float(np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(A - B) / np.sqrt(8), 0, 1))))


def main() -> None:
    """Print a table, a row a model and method; medians where there are several seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--methods", nargs="+", default=["sift", "aliked", "aliked-refine"])
    parser.add_argument("--intrinsics", nargs="+", default=["known", "unknown"])
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    print(
        "| scene | step | intrinsics | method | images | points | track | px | centre % | rotation ° | relative ° | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in SCENES:
        for step in args.steps:
            scene = load_scene(args.data, name, step, args.out)
            for intrinsics in args.intrinsics:
                for method in args.methods:
                    runs = [one(scene, intrinsics, method, args.out, seed) for seed in range(args.seeds)]
                    row(name, step, intrinsics, method, runs)


def one(scene: Scene, intrinsics: str, method: str, out: Path, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """The figures and seconds of one model."""
    place = scene.folder.parent / f"{intrinsics}-{method}-{seed}"
    known = intrinsics == "known"
    run = run_sift(scene, known, place, seed) if method == "sift" else run_ours(scene, known, place, seed, method)
    return figures(run[0], scene), run[1]


def row(name: str, step: int, intrinsics: str, method: str, runs: list[Any]) -> None:
    """Print a row: the median over the seeds of each figure."""
    found = {
        key: float(np.median([run[0].get(key, np.nan) for run in runs])) for key in {k for r in runs for k in r[0]}
    }
    seconds = {key: float(np.median([run[1][key] for run in runs])) for key in runs[0][1]}
    spent = ", ".join(f"{key} {value:.1f}" for key, value in seconds.items() if value >= 0.05)
    cells = [f"{found.get(key, np.nan):{form}}" for key, form in FORMS.items()]
    images = f"{found['images']:.0f} of {found['of']:.0f}"
    print(f"| {' | '.join([name, str(step), intrinsics, method, images, *cells, spent])} |", flush=True)


FORMS = {"points": ".0f", "track": ".2f", "px": ".3f", "centre": ".4f", "rotation": ".4f", "relative": ".4f"}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
