"""Inliers of real pairs whose second image is turned in its plane, with and without `auto_rotate`.

    python scripts/rotation_table.py DATA --features aliked xfeat --output rotation.jsonl

DATA is a folder with manifests of image pairs (synth16.json, ...) beside the images. Each line of the output is one
pair, one turn, one way to match it; lines that are there already are not made again. The table is printed as Markdown:
the matches, and the inliers of a fundamental matrix (OpenCV's MAGSAC, 1 px), as sums over all pairs.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import torch

from lightglue import ALIKED, DISK, SIFT, LightGlue, NearestNeighbor, XFeat, load_image, match_pair
from lightglue.images.rotation import Rotation

KEYPOINTS, RESIZE = 1024, 640
SETS = ("synth16", "tum18", "strecha_dev", "temple18", "planar15")
TURNED_BY_THEMSELVES = ("boat",)  # scenes whose images are turned against each other already
TURNS = (0, 90, 180, 270, 30, 45)
MODELS = {
    "aliked": lambda: (ALIKED(max_num_keypoints=KEYPOINTS, detection_threshold=-1), LightGlue("aliked")),
    "aliked-n16rot": lambda: (
        ALIKED(model_name="aliked-n16rot", max_num_keypoints=KEYPOINTS, detection_threshold=-1),
        LightGlue("aliked"),
    ),
    "disk": lambda: (DISK(max_num_keypoints=KEYPOINTS), LightGlue("disk")),
    "xfeat": lambda: (XFeat(max_num_keypoints=KEYPOINTS, detection_threshold=0), LightGlue("xfeat")),
    "sift": lambda: (SIFT(max_num_keypoints=KEYPOINTS), NearestNeighbor(ratio_threshold=0.8)),
}


def ways(turn: int) -> tuple[bool | int, ...]:
    """Values of `auto_rotate` to try where the second image is turned by `turn` degrees."""
    return (False, True) if turn % 90 == 0 else (False, True, 45, 30)


TRIALS = [(turn, way) for turn in TURNS for way in ways(turn)]


def pairs_of(data: Path, each: int) -> list[tuple[Path, Path]]:
    """Every `each`-th pair of the sets."""
    found = []
    for name in SETS:
        listed = json.loads((data / f"{name}.json").read_text())["pairs"]
        upright = [pair for pair in listed if not any(scene in pair["image0"] for scene in TURNED_BY_THEMSELVES)]
        found += [(data / pair["image0"], data / pair["image1"]) for pair in upright[::each]]
    return found


def count(points0: torch.Tensor, points1: torch.Tensor) -> int:
    """The inliers of a fundamental matrix."""
    if len(points0) < 8:
        return 0
    cv2.setRNGSeed(0)
    arrays = points0.numpy(), points1.numpy()
    _, mask = cv2.findFundamentalMat(*arrays, cv2.USAC_MAGSAC, 1.0, 0.9999, 10_000)
    return 0 if mask is None else int(mask.sum())


def run(models: tuple[Any, Any], paths: tuple[Path, Path], turn: int, way: bool | int) -> dict[str, Any]:
    """Match one pair; a record of what came of it."""
    image0, image1 = (load_image(path) for path in paths)
    turned = Rotation(turn, image1.shape[-1], image1.shape[-2])
    # The turned image is larger where it has empty corners: what it shows keeps its size.
    longer = max(turned.size) / max(image1.shape[-2:]) if turn % 90 else 1
    small = [_shrink(image0, RESIZE), _shrink(turned.image(image1), math.ceil(RESIZE * longer))]
    begin = perf_counter()
    _, _, found = match_pair(*models, *small, resize=None, auto_rotate=way)
    seconds = perf_counter() - begin
    inliers = count(found["points0"], found["points1"])
    rotation = found.get("rotation", 0)
    return {"matches": len(found["matches"]), "inliers": inliers, "rotation": rotation, "seconds": seconds}


def _shrink(image: torch.Tensor, edge: int) -> torch.Tensor:
    from lightglue.images.resampling import resize_tensor

    return image if max(image.shape[-2:]) <= edge else resize_tensor(image, edge)[0]


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: a row a feature, turn and way."""
    groups: dict[tuple[str, int, bool | int], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["features"], record["turn"], record["auto_rotate"]].append(record)
    lines = ["| features | turned by | auto_rotate | matches | inliers | of upright |", "|---|---:|---|---:|---:|---:|"]
    for (features, turn, way), found in groups.items():
        inliers, upright = (sum(r["inliers"] for r in group) for group in (found, groups[features, 0, False]))
        matches, share = sum(r["matches"] for r in found), inliers / max(upright, 1)
        lines.append(f"| {features} | {turn} | {way} | {matches} | {inliers} | {share:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Make the missing records, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--features", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--each", type=int, default=8, help="take every so manieth pair of a set")
    parser.add_argument("--output", type=Path, default=Path("rotation.jsonl"))
    options = parser.parse_args()
    lines = options.output.read_text().splitlines() if options.output.exists() else []
    records = [json.loads(line) for line in lines]
    keys = ("features", "pair", "turn", "auto_rotate")
    done = {tuple(map(str, (record[key] for key in keys))) for record in records}
    for features in options.features:
        models = MODELS[features]()
        for paths in pairs_of(options.data, options.each):
            name = " ".join(str(path.relative_to(options.data)) for path in paths)
            for turn, way in TRIALS:
                if tuple(map(str, (features, name, turn, way))) in done:
                    continue
                record = dict(zip(keys, (features, name, turn, way), strict=True)) | run(models, paths, turn, way)
                records.append(record)
                with options.output.open("a") as file:
                    file.write(json.dumps(record) + "\n")
    print(table([record for record in records if record["features"] in options.features]))


if __name__ == "__main__":
    main()
