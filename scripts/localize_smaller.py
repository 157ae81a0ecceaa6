"""Whether poses of queries that effort "fast" looks at smaller first are as exact as at the map's size.

    python scripts/localize_smaller.py ../shared/data/train/scenes OUT alexander train yhuoyu [--resize 1024]

Every fifth of at most 25 images of a scene with a COLMAP model is a query, the others are mapped with effort "fast" and
the model's camera, which the queries are given too. For each query: the error of its centre against the model's, in
per cent of the scene's extent, and of its rotation in degrees, at both sizes; how far apart the two poses are; points
that agree; seconds of processor time on one thread. `smaller` says whether the smaller size was enough.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from localize_table import Similarity, extent

from lightglue.geometry.colmap_cameras import camera_from_colmap
from lightglue.models.choice import Models
from lightglue.sfm.colmap.cameras import CameraOptions
from lightglue.sfm.colmap.models import cam_from_world, open_model, registered
from lightglue.sfm.localization import localizer as sizes
from lightglue.sfm.pipeline import SfmOptions, build_map
from lightglue.sfm.stages.extract import ExtractOptions
from lightglue.sfm.stages.match import MatchOptions
from lightglue.sfm.stages.reconstruct import ReconstructOptions

MOST, EVERY = 25, 5


def main() -> None:
    """Print a line a query, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("--resize", type=int, default=1024)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("scene query  full: % deg points s  smaller: % deg points s enough  apart: % deg")
    rows = [row for name in args.scenes for row in scene(args.data / name, args.out / name, args.resize)]
    if rows:
        print("median of", len(rows), *np.round(np.median(np.array(rows, float), axis=0), 4))


def scene(data: Path, out: Path, resize: int) -> list[list[float]]:
    """The figures of a scene's queries."""
    model = open_model(data / "sparse")
    chosen = sorted(registered(model), key=lambda image: str(image.name))
    chosen = chosen[:: -(-len(chosen) // MOST)]
    queries = chosen[2::EVERY]
    photographs = out / "images"
    photographs.mkdir(parents=True, exist_ok=True)
    for image in chosen:
        if image not in queries:
            shutil.copyfile(data / "images" / image.name, photographs / image.name)
    camera = model.camera(chosen[0].camera_id)
    models = Models("aliked", 2048, device="cpu", effort="fast")
    options = SfmOptions(
        models,
        ExtractOptions(models, {"resize": resize}),
        MatchOptions(models),
        cameras=CameraOptions(str(camera.model.name), tuple(float(each) for each in camera.params)),
        reconstruct=ReconstructOptions(threads=1),
    )
    build_map(photographs, out / "map", options)
    poses = {str(image.name): with_row(cam_from_world(image)) for image in chosen}
    size = extent(list(poses.values()))
    sizes._SMALLEST = min(sizes._SMALLEST, round(sizes._SMALLER * resize))  # smaller images than those that it is for
    smaller, full = (sizes.Localizer.open(out / "map") for _ in range(2))
    full._smaller_edge = lambda pixels: None  # type: ignore[method-assign]
    fit = Similarity.of(full, poses)
    rows = []
    for image in queries:
        name, row, found = str(image.name), [], []
        for localizer in (full, smaller):
            localizer.localize(data / "images" / name, camera_from_colmap(camera))  # warm
            begin = process_time()
            found.append(localizer.localize(data / "images" / name, camera_from_colmap(camera)))
            seconds = process_time() - begin
            if not found[-1].success:
                break
            moved, turned = fit.errors(found[-1], poses[name])
            row += [100 * moved / size, turned, found[-1].num_inliers, seconds]
        if len(row) < 8:
            print(data.name, name, "not localized:", found[-1].failure, flush=True)
            continue
        first, second = found
        apart = np.linalg.norm(fit.scale * (first.centre - second.centre)) * 100 / size
        cosine = (np.trace(first.R @ second.R.T) - 1) / 2
        enough = float(smaller_was_enough(smaller, data / "images" / name, camera_from_colmap(camera)))
        row += [enough, apart, float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))]
        print(data.name, name, *np.round(row, 4), flush=True)
        rows.append(row)
    return rows


def smaller_was_enough(localizer: Any, image: Path, camera: Any) -> bool:
    """Whether it is extracted once."""
    calls, extract = [], localizer._extract
    localizer._extract = lambda *given: calls.append(given) or extract(*given)
    localizer.localize(image, camera)
    localizer._extract = extract
    return len(calls) == 1


def with_row(T: Any) -> Any:
    """(4, 4) of (3, 4) or (4, 4)."""
    return np.vstack([T[:3], [0, 0, 0, 1]])


if __name__ == "__main__":
    main()
