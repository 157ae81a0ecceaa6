"""How well photographs are localized: a map of every second image of a scene, the others as queries.

    python scripts/localize_table.py ../shared/data /tmp/maps [--first 3]

The map is made with unknown intrinsics and aligned with the ground truth by the centres of its cameras. Seconds are of
one thread, from file to pose, with a warm localizer. Images of the other scene must fail.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from lightglue.model_choice import Models
from lightglue.sfm import colmap
from lightglue.sfm.database import create_database
from lightglue.sfm.extract import ExtractOptions, extract
from lightglue.sfm.folder import MapFolder, MapRecord
from lightglue.sfm.localizer import LocalizeOptions, Localizer
from lightglue.sfm.match import MatchOptions, match
from lightglue.sfm.reconstruct import ReconstructOptions, reconstruct
from lightglue.sfm.verify import verify
from lightglue.stores import FeatureStore, MatchStore

SCENES = ("loc_fountain", "loc_herzjesu")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, default=LocalizeOptions.first)
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = Models("aliked", 2048, device="cpu", mp=True)
    scenes = {name: json.loads((args.data / f"{name}.json").read_text())["images"] for name in SCENES}
    print("scene        camera   localized  centre  rotation  seconds  median (mm, degrees, s); centre of the map's")
    for name, images in scenes.items():
        place = make_map(args.out / name, args.data, images, models)
        localizer = Localizer.open(place.folder, options=LocalizeOptions(first=args.first))
        known = {Path(image["image"]).name: np.array(image["T_w2c"]) for image in images}
        s, R, t, error = aligned(place, known)
        queries = [image for image in images if not image["ref"]]
        localizer.localize(args.data / queries[0]["image"])  # warm
        for camera in ("known", "unknown"):
            errors = []
            for query in queries:
                begin = perf_counter()
                found = localizer.localize(
                    args.data / query["image"], np.array(query["K"]) if camera == "known" else None
                )
                seconds = perf_counter() - begin
                if found.success:
                    T = np.array(query["T_w2c"])
                    moved = np.linalg.norm(s * R @ found.centre + t + T[:3, :3].T @ T[:3, 3])
                    cosine = (np.trace(found.R @ R.T @ T[:3, :3].T) - 1) / 2
                    errors.append((1000 * moved, np.degrees(np.arccos(np.clip(cosine, -1, 1))), seconds))
            middle = "  ".join(f"{value:8.3f}" for value in np.median(errors, axis=0))
            print(f"{name:12s} {camera:8s} {len(errors)} of {len(queries)}   {middle}   {1000 * error:.2f}")
        others = [args.data / image["image"] for other in SCENES if other != name for image in scenes[other]]
        wrong = [localizer.localize(path).success for path in others]
        print(f"{name:12s} of the other scene {sum(wrong)} of {len(wrong)}")


def make_map(folder: Path, data: Path, images: list[dict[str, Any]], models: Models) -> MapFolder:
    """A map of the reference images, with unknown intrinsics."""
    place = MapFolder(folder)
    root = (data / images[0]["image"]).parent
    names = [Path(image["image"]).name for image in images if image["ref"]]
    place.folder.mkdir(parents=True, exist_ok=True)
    place.write(MapRecord(root, {"models": asdict(models)}))
    extract(root, place.features, ExtractOptions(models, {"resize": 1024}), names=names)
    match(place.features, list(combinations(names, 2)), place.matches, MatchOptions(models))
    create_database(place.database, FeatureStore.open(place.features), MatchStore.open(place.matches), root)
    verify(place.database)
    reconstruct(place.database, root, place.folder, ReconstructOptions(threads=1))
    return place


def aligned(place: MapFolder, known: dict[str, Any]) -> tuple[float, Any, Any, float]:
    """Scale, rotation and translation from the map to the ground truth, and the median distance of the centres then.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.
    """
    model = colmap.read_model(place.model)
    poses = [(colmap.cam_from_world(image), known[str(image.name)]) for image in colmap.registered(model)]
    ours, theirs = (np.array([-T[:3, :3].T @ T[:3, 3] for T in each]) for each in zip(*poses, strict=True))
    a, b = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    U, S, Vt = np.linalg.svd(b.T @ a)
    D = np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))])
    R = U @ D @ Vt
    s = float(np.trace(np.diag(S) @ D) / (a**2).sum())
    t = theirs.mean(axis=0) - s * R @ ours.mean(axis=0)
    return s, R, t, float(np.median(np.linalg.norm(s * ours @ R.T + t - theirs, axis=1)))


if __name__ == "__main__":
    main()
