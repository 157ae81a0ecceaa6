"""How well photographs are localized: a map of every second image of a scene, the others as queries.

    python scripts/localize_table.py ../shared/data OUT [--first 2 3]

Maps have known intrinsics, held fixed, or unknown ones; each is aligned with the ground truth by the centres of its
cameras, so that its own error is in those of the queries, which are medians: of the centre in mm and in per cent of the
scene's extent (the largest distance between two true centres), and of the rotation in degrees. `map's` are queries with
an unknown camera of the map's size. Seconds are of processor time on one thread, from file to pose, with a warm
localizer, median and largest. Images of the other scene must fail.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from lightglue.models.choice import Models
from lightglue.sfm.colmap import models as colmap_models
from lightglue.sfm.colmap.cameras import CameraOptions
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.localization.localizer import Localization, LocalizeOptions, Localizer
from lightglue.sfm.options import TrackOptions
from lightglue.sfm.pipeline import SfmOptions, build_map
from lightglue.sfm.stages.extract import ExtractOptions
from lightglue.sfm.stages.match import MatchOptions
from lightglue.sfm.stages.reconstruct import ReconstructOptions

SCENES = ("loc_fountain", "loc_herzjesu")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, nargs="+", default=[LocalizeOptions.first])
    args = parser.parse_args()
    torch.set_num_threads(1)
    scenes = {name: json.loads((args.data / f"{name}.json").read_text())["images"] for name in SCENES}
    print("scene        map     camera  first  localized  centre mm  % extent  rotation  seconds  most  map's mm")
    for name, images in scenes.items():
        others = [args.data / image["image"] for other in SCENES if other != name for image in scenes[other]]
        for is_known in (True, False):
            place = make_map(args.out / f"{name}-{'known' if is_known else 'unknown'}", args.data, images, is_known)
            for first in args.first:
                for camera in ("known", "map's", "unknown"):
                    options = LocalizeOptions(first=first, map_camera=camera == "map's")
                    table_row(name, is_known, camera, Localizer.open(place.folder, options=options), args.data, images)
            localizer = Localizer.open(place.folder)
            wrong = [localizer.localize(path) for path in others]
            most = max(found.num_inliers for found in wrong)
            found = sum(found.success for found in wrong)
            print(f"{name:12s} {found} of {len(wrong)} images of the other scene, with at most {most} inliers")


def table_row(
    name: str, is_known: bool, camera: str, localizer: Localizer, data: Path, images: list[dict[str, Any]]
) -> None:
    """Localize the queries of a scene, and print a line."""
    poses = {Path(image["image"]).name: np.array(image["T_w2c"]) for image in images}
    fit = Similarity.of(localizer, poses)
    queries = [image for image in images if not image["ref"]]
    localizer.localize(data / queries[0]["image"])  # warm
    errors, seconds = [], []
    for query in queries:
        begin = process_time()
        found = localizer.localize(data / query["image"], np.array(query["K"]) if camera == "known" else None)
        seconds.append(process_time() - begin)
        if found.success:
            errors.append(fit.errors(found, np.array(query["T_w2c"])))
    moved, turned = np.median(errors, axis=0)
    share = 100 * moved / extent(list(poses.values()))
    print(
        f"{name:12s} {'known' if is_known else 'unknown':7s} {camera:7s} {localizer.options.first:5d}  "
        f"{len(errors):3d} of {len(queries)}  {1000 * moved:9.2f}  {share:8.3f}  {turned:8.4f}  "
        f"{np.median(seconds):7.2f}  {max(seconds):4.2f}  {1000 * fit.error:8.2f}"
    )


def make_map(
    folder: Path, data: Path, images: list[dict[str, Any]], is_known: bool, is_refined: bool = False
) -> MapFolder:
    """A map of the reference images."""
    models = Models("aliked", 2048, device="cpu", mp=None if is_refined else True)
    photographs = folder / "images"
    photographs.mkdir(parents=True, exist_ok=True)
    for image in images:
        if image["ref"]:
            shutil.copyfile(data / image["image"], photographs / Path(image["image"]).name)
    K = np.array(images[0]["K"])
    cameras = CameraOptions("PINHOLE", (K[0, 0], K[1, 1], K[0, 2], K[1, 2])) if is_known else CameraOptions()
    options = SfmOptions(
        models,
        ExtractOptions(models, {"resize": 1024}),
        MatchOptions(models),
        cameras=cameras,
        refine=TrackOptions() if is_refined else None,
        reconstruct=ReconstructOptions(threads=1),
    )
    build_map(photographs, folder / "map", options)
    return MapFolder(folder / "map")


def extent(poses: list[Any]) -> float:
    """The largest distance between two centres, m."""
    centres = np.array([-T[:3, :3].T @ T[:3, 3] for T in poses])
    return float(np.linalg.norm(centres[:, None] - centres[None], axis=2).max())


@dataclass(frozen=True)
class Similarity:
    """From a map's world to the true one."""

    scale: float
    R: Any  # (3, 3)
    t: Any  # (3,)
    error: float  # m, median distance of the centres of the map's cameras

    @classmethod
    def of(cls, localizer: Localizer, known: dict[str, Any]) -> Similarity:
        """Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991."""
        pairs = [(colmap_models.cam_from_world(image), known[name]) for name, image in localizer._registered.items()]
        ours, theirs = (np.array([-T[:3, :3].T @ T[:3, 3] for T in each]) for each in zip(*pairs, strict=True))
        a, b = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
        U, S, Vt = np.linalg.svd(b.T @ a)
        D = np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))])
        R = U @ D @ Vt
        scale = float(np.trace(np.diag(S) @ D) / (a**2).sum())
        t = theirs.mean(axis=0) - scale * R @ ours.mean(axis=0)
        return cls(scale, R, t, float(np.median(np.linalg.norm(scale * ours @ R.T + t - theirs, axis=1))))

    def errors(self, found: Localization, T: Any) -> tuple[float, float]:
        """Of a pose against the true one (4, 4): of the centre in m, of the rotation in degrees."""
        moved = np.linalg.norm(self.scale * self.R @ found.centre + self.t + T[:3, :3].T @ T[:3, 3])
        cosine = (np.trace(found.R @ self.R.T @ T[:3, :3].T) - 1) / 2
        return float(moved), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


if __name__ == "__main__":
    main()
