"""What refining matched points gives: homographies, poses, and the matches themselves.

    python scripts/refine_table.py DATA --features aliked disk sift --cache refine_cache

DATA is a folder with manifests of image pairs (synth16.json, ...) beside the images. Each pair is matched once, at the
manifest's number of keypoints and without resizing; matches are kept in the cache. The table is printed as Markdown:

- homography sets: AUC in % of the mean corner error up to 1 px (OpenCV's USAC_MAGSAC, 0.5 px, 10,000 iterations), and
  the matches within 1 px and 0.2 px (mean of both directions);
- pose sets: AUC in % of the larger of the rotation's and the translation's angle up to 5 degrees (PoseLib, 1 px), and
  the matches within 1e-4 and 5e-4 of their epipolar lines (mean of both images, normalised coordinates).

An AUC is the mean over several orders of the matches, which robust estimators depend on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import poselib
import torch

from lightglue import ALIKED, DISK, LightGlue, NearestNeighbor, load_image, match_pair
from lightglue.geometry.refine import RefineOptions, refine_matches

SETS = ("synth16", "planar15", "temple18", "tum18", "strecha_dev", "strecha_wide_dev")
VARIANTS: dict[str, dict[str, Any] | None] = {  # None: as matched
    "as matched": None,
    "defaults": {},
    "rounds=1": {"rounds": 1},
    "rounds=3": {"rounds": 3},
    "window=15, sigma=4": {"window": 15, "sigma": 4.0},
    "window=25, sigma=6": {"window": 25, "sigma": 6.0},
    "neighbors=8": {"neighbors": 8},
    "neighbors=16": {"neighbors": 16},
    "max_shift=3": {"max_shift": 3.0},
    "max_deviation=0.2": {"max_deviation": 0.2},
    "max_deviation=0.3": {"max_deviation": 0.3},
    "max_deviation=1": {"max_deviation": 1.0},
    "max_residual=1.5": {"max_residual": 1.5},
    "max_residual=2": {"max_residual": 2.0},
    "max_residual=100": {"max_residual": 100.0},
    "iterations=8": {"iterations": 8},
    "tolerance=0.1": {"tolerance": 0.1},
}
ORDERS = 4
Matches = tuple[np.ndarray, np.ndarray]


def match(features: str, paths: list[Path], count: int) -> Matches:
    """The matched points of two images, (K, 2) px each."""
    if features == "sift":
        found = NearestNeighbor(ratio_threshold=0.8)({f"image{i}": _sift(path, count) for i, path in enumerate(paths)})
        return found["points0"], found["points1"]
    extractor = {
        "aliked": lambda: ALIKED(model_name="aliked-n16", max_num_keypoints=count, detection_threshold=-1),
        "disk": lambda: DISK(max_num_keypoints=count),
    }[features]()
    _, _, found = match_pair(extractor, LightGlue(features), *map(load_image, paths), resize=None)
    return found["points0"].numpy(), found["points1"].numpy()


def _sift(path: Path, count: int) -> dict[str, torch.Tensor]:
    """OpenCV's SIFT with its own number of layers, RootSIFT."""
    sift = cv2.SIFT_create(nfeatures=count, contrastThreshold=0.01)
    keypoints, descriptors = sift.detectAndCompute(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None)
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))
    places = np.array([keypoint.pt for keypoint in keypoints], np.float32)
    return {"keypoints": torch.from_numpy(places)[None], "descriptors": torch.from_numpy(root)[None]}


def cached(cache: Path, data: Path, features: str, name: str, manifest: dict[str, Any], index: int) -> Matches:
    """The matches of one pair, from the cache where they are there."""
    path = cache / f"{features}_{name}_{index:02d}.npz"
    if not path.exists():
        pair = manifest["pairs"][index]
        points0, points1 = match(features, [data / pair["image0"], data / pair["image1"]], manifest["max_keypoints"])
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, points0=points0, points1=points1)
    with np.load(path) as arrays:
        return arrays["points0"], arrays["points1"]


def _warp(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    mapped = np.c_[points, np.ones(len(points))] @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def transfer_errors(pair: dict[str, Any], points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
    """(K,) px: distance to where the homography puts the other point, mean of both directions."""
    forth = np.array(pair["H"])
    both = _warp(forth, points0) - points1, _warp(np.linalg.inv(forth), points1) - points0
    return sum(np.linalg.norm(each, axis=1) for each in both) / 2


def corner_error(pair: dict[str, Any], size0: tuple[int, int], points0: np.ndarray, points1: np.ndarray) -> float:
    """Mean px by which the estimated homography misses the corners of image 0; infinite if there is none."""
    if len(points0) < 4:
        return np.inf
    cv2.setRNGSeed(0)
    arrays = points0.astype(np.float64), points1.astype(np.float64)
    found, _ = cv2.findHomography(*arrays, cv2.USAC_MAGSAC, 0.5, maxIters=10_000, confidence=0.99999)
    if found is None:
        return np.inf
    h, w = size0
    corners = np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], float)
    return float(np.linalg.norm(_warp(np.array(pair["H"]), corners) - _warp(found, corners), axis=1).mean())


def epipolar_errors(pair: dict[str, Any], points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
    """(K,) distance to the epipolar line in normalised coordinates, mean of both images."""
    pose = np.array(pair["T_0to1"])
    x, y, z = pose[:3, 3] / np.linalg.norm(pose[:3, 3])
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pose[:3, :3]
    rays0, rays1 = (
        np.c_[points, np.ones(len(points))] @ np.linalg.inv(pair[key]).T
        for points, key in ((points0, "K0"), (points1, "K1"))
    )
    lines1, lines0 = rays0 @ essential.T, rays1 @ essential
    both = (1 / np.linalg.norm(lines[:, :2], axis=1) for lines in (lines0, lines1))
    return np.abs((rays1 * lines1).sum(1)) * sum(both) / 2


def pose_error(pair: dict[str, Any], sizes: list[tuple[int, int]], points0: np.ndarray, points1: np.ndarray) -> float:
    """The larger of the rotation's and the translation's angle, in degrees; infinite if there is no pose."""
    if len(points0) < 5:
        return np.inf
    cameras = []
    for key, (height, width) in zip(("K0", "K1"), sizes, strict=True):
        K = np.array(pair[key])
        params = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
        cameras.append({"model": "PINHOLE", "width": width, "height": height, "params": params})
    arrays = points0.astype(np.float64), points1.astype(np.float64)
    found, _ = poselib.estimate_relative_pose(*arrays, *cameras, {"max_epipolar_error": 1.0}, {})
    true = np.array(pair["T_0to1"])
    turn = np.arccos(np.clip((np.trace(found.R.T @ true[:3, :3]) - 1) / 2, -1, 1))
    cosine = found.t @ true[:3, 3] / (np.linalg.norm(found.t) * np.linalg.norm(true[:3, 3]))
    angle = np.degrees(np.arccos(np.clip(abs(cosine), 0, 1)))
    return float(np.nan_to_num(max(np.degrees(turn), angle), nan=np.inf))


def auc(errors: list[float], threshold: float) -> float:
    """Area in % under the recall over the error, from 0 to `threshold`."""
    ordered = np.r_[0, np.sort(errors)]
    recall = np.arange(len(ordered)) / len(errors)
    below = int(np.searchsorted(ordered, threshold))
    area = np.trapezoid(np.r_[recall[:below], recall[below - 1]], np.r_[ordered[:below], threshold])
    return float(100 * area / threshold)


Refine = Callable[[int, np.ndarray, np.ndarray], Matches]  # with the index of the pair


def evaluate(
    manifest: dict[str, Any], sizes: list[list[tuple[int, int]]], matched: list[Matches], refine: Refine | None
) -> str:
    """A cell of the table: AUC, and two shares of the matches."""
    is_plane = manifest["kind"] == "homography"
    limits, threshold = ((1.0, 0.2), 1.0) if is_plane else ((1e-4, 5e-4), 5.0)
    shares, missed = [], []
    for index, (pair, points) in enumerate(zip(manifest["pairs"], matched, strict=True)):
        points = points if refine is None else refine(index, *points)
        errors = (transfer_errors if is_plane else epipolar_errors)(pair, *points)
        shares.append([float((errors < limit).mean()) if len(errors) else 0.0 for limit in limits])
        orders = [np.random.default_rng(seed).permutation(len(errors)) for seed in range(ORDERS)]
        mixed = [[each[order] for each in points] for order in orders]
        size = sizes[index]
        missed.append([corner_error(pair, size[0], *m) if is_plane else pose_error(pair, size, *m) for m in mixed])
    area = np.mean([auc(list(errors), threshold) for errors in np.array(missed).T])
    first, second = 100 * np.mean(shares, axis=0)
    return f"{area:.1f} ({first:.1f}, {second:.1f})"


def main() -> None:
    """Match what is not in the cache, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--features", nargs="+", choices=("aliked", "disk", "sift"), default=["aliked", "disk", "sift"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--cache", type=Path, default=Path("refine_cache"))
    options = parser.parse_args()
    manifests = {name: json.loads((options.data / f"{name}.json").read_text()) for name in options.sets}
    pairs = {name: manifest["pairs"] for name, manifest in manifests.items()}
    images = {
        path: load_image(options.data / path) for each in pairs.values() for pair in each for path in _files(pair)
    }
    sizes = {name: [[images[path].shape[-2:] for path in _files(p)] for p in each] for name, each in pairs.items()}
    print("| features | variant |", *(f"{name} |" for name in options.sets), "ms for 1,000 matches |")
    print("|---|---|", "---:|" * (len(options.sets) + 1), sep="")
    for features in options.features:
        matched = {
            name: [cached(options.cache, options.data, features, name, manifest, i) for i in range(len(pairs[name]))]
            for name, manifest in manifests.items()
        }
        for variant in options.variants:
            changed, seconds, count = VARIANTS[variant], 0.0, 0
            cells = []
            for name, manifest in manifests.items():

                def refine(index: int, points0: np.ndarray, points1: np.ndarray, name: str = name) -> Matches:
                    nonlocal seconds, count
                    two = [images[path] for path in _files(pairs[name][index])]
                    begin = perf_counter()
                    found = refine_matches(*two, points0, points1, RefineOptions(**(changed or {})))  # noqa: B023
                    seconds, count = seconds + perf_counter() - begin, count + len(points0)
                    return found.points0.numpy(), found.points1.numpy()

                used = None if changed is None else refine
                cells.append(evaluate(manifest, sizes[name], matched[name], used))
            took = f"{1e6 * seconds / count:.0f}" if count else ""
            print("|", " | ".join((features, variant, *cells, took)), "|", flush=True)


def _files(pair: dict[str, Any]) -> tuple[str, str]:
    return pair["image0"], pair["image1"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
