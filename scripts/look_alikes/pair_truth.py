"""Which verified pairs of a database are true: those that the known cameras explain.

    python scripts/look_alikes/pair_truth.py DATA MAPS OUT [--doubles FOLDER] [--sets courtyard fountain]

For each map MAPS/SET-KEYPOINTS writes OUT/SET-KEYPOINTS.json: {"0000.jpg 0002.jpg": {"truth": "true", "rotation":
degrees that the relative rotation of the inliers is off, "share": of the inliers that satisfy the known epipolar
geometry, "inliers": how many COLMAP found, "cheiral": of those, the share in front of both known cameras}}.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import poselib
from scenes import CUP_STEP, Scene, angle, load, number_of

from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.colmap.pair_ids import pair_of
from lightglue.support.sqlite import connected

MAX_ANGLE = 10.0  # degrees
MAX_ERROR = 4.0  # px from the known epipolar line, as for COLMAP's inliers
NEAR, FAR = 30.0, 120.0  # degrees round a circle up to which a pair is true, and from which it is false
TRUE, FALSE = 0.6, 0.4  # share of inliers from which, and up to which, a pair is true, and false


def judge_pairs(scene: Scene, database: Path) -> dict[str, dict[str, Any]]:
    """The truth of each verified pair of a database."""
    with connected(database) as connection:
        names = dict(connection.execute("SELECT image_id, name FROM images").fetchall())
        numbers = connection.execute("SELECT pair_id FROM two_view_geometries WHERE rows > 0 ORDER BY pair_id")
        pairs = [pair_of(number) for (number,) in numbers.fetchall()]
    found = {}
    with Database(database) as opened:
        for first, second in pairs:
            matches = np.asarray(opened.geometry(first, second).inlier_matches)
            points = [
                opened.keypoints(image)[matches[:, at]] - 0.5 for at, image in enumerate((first, second))
            ]  # COLMAP's pixel centres are at 0.5
            found[f"{names[first]} {names[second]}"] = judge(scene, names[first], names[second], points)
    return found


def judge(scene: Scene, first: str, second: str, points: list[np.ndarray]) -> dict[str, Any]:
    """The truth of a pair. points: two (K, 2) px, the inliers."""
    if scene.is_ordered:
        return {"truth": by_order(first, second), "inliers": len(points[0])}
    T = scene.relative(first, second)
    if T is None:
        return {"truth": "unknown", "inliers": len(points[0])}
    K0, K1 = scene.K[first], scene.K[second]
    rays = [homogeneous(p) @ np.linalg.inv(K).T for p, K in zip(points, (K0, K1), strict=True)]
    share, cheiral = explained(T, K0, K1, points, rays)
    cameras = [
        {"model": "PINHOLE", "width": 1, "height": 1, "params": [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]} for K in (K0, K1)
    ]
    pose, _ = poselib.estimate_relative_pose(*points, *cameras, {"max_epipolar_error": 2.0, "seed": 0}, {})
    rotation = angle(pose.R @ T[:3, :3].T)
    truth = "unknown"
    if share >= TRUE and rotation <= MAX_ANGLE:
        truth = "true"
    elif share <= FALSE:
        truth = "false"
    return {
        "truth": truth,
        "rotation": round(rotation, 2),
        "share": round(share, 3),
        "cheiral": round(cheiral, 3),
        "inliers": len(points[0]),
    }


def by_order(first: str, second: str) -> str:
    """The truth of a pair of images that follow each other once round."""
    steps = abs(number_of(first) - number_of(second))
    degrees = steps * CUP_STEP
    apart = min(degrees, 360 - degrees)
    return "true" if apart <= NEAR else "false" if apart >= FAR else "unknown"


def explained(
    T: np.ndarray, K0: np.ndarray, K1: np.ndarray, points: list[np.ndarray], rays: list[np.ndarray]
) -> tuple[float, float]:
    """Of matches, the share near the epipolar lines of a relative pose, and of those the share in front of both."""
    R, t = T[:3, :3], T[:3, 3]
    if np.linalg.norm(t) < 1e-9:  # turned about one centre: matches agree with a homography
        seen = rays[0] @ (K1 @ R).T
        near = np.linalg.norm(seen[:, :2] / seen[:, 2:] - points[1], axis=1) <= MAX_ERROR
        return float(near.mean()), 1.0
    F = np.linalg.inv(K1).T @ cross(t) @ R @ np.linalg.inv(K0)
    near = sampson(F, *points) <= MAX_ERROR
    # Depths z0, z1 of z1 x1 = z0 R x0 + t, least squares.
    turned = rays[0] @ R.T
    depths = np.array(
        [np.linalg.lstsq(np.stack((a, -b), 1), -t, rcond=None)[0] for a, b in zip(turned, rays[1], strict=True)]
    )
    front = (depths > 0).all(1)
    return float((near & front).mean()), float(front[near].mean()) if near.any() else 0.0


def sampson(F: np.ndarray, points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
    """Sampson distances (K,) px of matches."""
    lines1, lines0 = homogeneous(points0) @ F.T, homogeneous(points1) @ F
    residual = (homogeneous(points1) * lines1).sum(1)
    return np.asarray(np.abs(residual) / np.sqrt(np.square(lines1[:, :2]).sum(1) + np.square(lines0[:, :2]).sum(1)))


def homogeneous(points: np.ndarray) -> np.ndarray:
    """(K, 3)."""
    return np.hstack((points, np.ones((len(points), 1))))


def cross(t: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) of a cross product from the left."""
    return np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])


def main() -> None:
    """Judge the maps that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("maps", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--doubles", type=Path, default=Path("doubles"))
    parser.add_argument("--sets", nargs="*")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(args.maps.iterdir()):
        name = folder.name.rpartition("-")[0]
        if not (folder / "done").exists() or (args.sets and name not in args.sets):
            continue
        found = judge_pairs(load(name, args.data, args.doubles), folder / "database.db")
        (args.out / f"{folder.name}.json").write_text(json.dumps(found, indent=1))
        kinds = [each["truth"] for each in found.values()]
        print(folder.name, {kind: kinds.count(kind) for kind in sorted(set(kinds))}, flush=True)


if __name__ == "__main__":
    main()
