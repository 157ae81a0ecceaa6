"""How well and how fast photographs are localized at each effort, with and without refined points.

    python scripts/localize_effort.py ../shared/data OUT [--efforts fast normal hard]

Maps of every second image of two scenes, with known intrinsics and refined keypoints; the others are queries, whose
cameras are given: as they are, turned by 90 degrees, and squeezed to a third of their width, which is a tilt of 70
degrees. A query counts as right within 0.1 m and 0.5 degrees. Medians of those that were localized: of the centre
in mm, of the rotation in degrees. Seconds are of processor time on one thread, from pixels to pose, with a warm
localizer, median and most.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import cv2
import numpy as np
import torch
from localize_table import SCENES, Similarity, make_map
from numpy.typing import NDArray

from lightglue.images import read_image
from lightglue.matching.effort import EFFORTS
from lightglue.sfm.localization.localizer import LocalizeOptions, Localizer
from lightglue.sfm.options import QueryRefineOptions

CHANGES = ("plain", "turned", "tilted")
TILT = 3.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--efforts", nargs="+", default=EFFORTS, choices=EFFORTS)
    parser.add_argument("--changes", nargs="+", default=CHANGES, choices=CHANGES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| scene | query | effort | refine | right | localized | centre mm | rotation | seconds, most |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in SCENES:
        images = json.loads((args.data / f"{name}.json").read_text())["images"]
        place = make_map(args.out / f"{name}-refined", args.data, images, is_known=True, is_refined=True)
        for effort in args.efforts:
            for refine in (None, QueryRefineOptions()):
                models = replace(place.read().models, effort=effort)
                localizer = Localizer.open(place.folder, models, LocalizeOptions(refine=refine))
                for change in args.changes:
                    row = figures(localizer, args.data, images, change)
                    print(f"| {name[4:]} | {change} | {effort} | {'yes' if refine else 'no'} | {row} |", flush=True)


def figures(localizer: Localizer, data: Path, images: list[dict[str, Any]], change: str) -> str:
    """The cells of a line."""
    poses = {Path(image["image"]).name: np.array(image["T_w2c"]) for image in images}
    fit = Similarity.of(localizer, poses)
    queries = [changed(data / each["image"], each, change) for each in images if not each["ref"]]
    localizer.localize(*queries[0][:2])  # warm
    errors, seconds = [], []
    for image, K, T in queries:
        begin = process_time()
        found = localizer.localize(image, K)
        seconds.append(process_time() - begin)
        if found.success:
            errors.append(fit.errors(found, T))
    right = sum(moved <= 0.1 and turned <= 0.5 for moved, turned in errors)
    moved, turned = np.median(errors, axis=0) if errors else (np.nan, np.nan)
    return (
        f"{right} of {len(queries)} | {len(errors)} | {1000 * moved:.2f} | {turned:.4f} | "
        f"{np.median(seconds):.2f}, {max(seconds):.2f}"
    )


def changed(path: Path, known: dict[str, Any], change: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """A query made harder: its image, its camera K and its true pose."""
    image, K, T = read_image(path), np.array(known["K"]), np.array(known["T_w2c"])
    height, width = image.shape[:2]
    if change == "turned":  # clockwise: the old y, downwards, points to the left
        turn = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        middle = [height - 1 - K[1, 2], K[0, 2]]
        K = np.array([[K[1, 1], 0, middle[0]], [0, K[0, 0], middle[1]], [0, 0, 1]])
        return np.ascontiguousarray(np.rot90(image, -1)), K, turn @ T
    if change == "tilted":
        narrow = round(width / TILT)
        scale = narrow / width
        K = np.array([[K[0, 0] * scale, 0, (K[0, 2] + 0.5) * scale - 0.5], K[1], K[2]])
        return cv2.resize(image, (narrow, height), interpolation=cv2.INTER_AREA), K, T
    return image, K, T


if __name__ == "__main__":
    main()
