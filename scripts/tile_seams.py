"""How much of what the whole image gives comes back in tiles within 1 px, everywhere and near their seams.

python scripts/tile_seams.py PHOTOGRAPH --features aliked disk xfeat sift --size 2000 1500 --tile 1024
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from lightglue import ALIKED, DISK, SIFT, XFeat
from lightglue.extractors.views import BEYOND, tiles_of
from lightglue.images import numpy_image_to_torch, read_image

NEAR = 24  # px
EXTRACTORS = {
    "aliked": lambda count: ALIKED(max_num_keypoints=count, detection_threshold=-1),
    "aliked-threshold": lambda _: ALIKED(),
    "disk": lambda count: DISK(max_num_keypoints=count),
    "xfeat": lambda count: XFeat(max_num_keypoints=count, detection_threshold=0),
    "sift": lambda count: SIFT(max_num_keypoints=count),
}


def near_seams(points: Tensor, height: int, width: int, tile: int) -> Tensor:
    """Which of `points` (N, 2) lie near a line where one tile hands over to the next: (N,) bool."""
    found = torch.zeros(len(points), dtype=torch.bool)
    tiles = tiles_of(height, width, tile)
    for axis, spans in enumerate(([one.x for one in tiles], [one.y for one in tiles])):
        for seam in {span.last - BEYOND for span in spans if np.isfinite(span.last)}:
            found |= (points[:, axis] - seam).abs() < NEAR
    return found


def main() -> None:
    """Print a line for each extractor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--features", nargs="+", choices=EXTRACTORS, default=[*EXTRACTORS])
    parser.add_argument("--size", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"), default=(2000, 1500))
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--keypoints", type=int, default=4096)
    options = parser.parse_args()
    width, height = options.size
    image = cv2.resize(read_image(options.photograph), (width, height), interpolation=cv2.INTER_AREA)
    for name in options.features:
        extractor = EXTRACTORS[name](options.keypoints)
        whole = extractor.extract(numpy_image_to_torch(image), resize=None)["keypoints"][0].double()
        tiled = extractor.extract(image, tile=options.tile)["keypoints"][0].double()
        nearest = torch.cat([torch.cdist(part, tiled).min(dim=1).values for part in whole.split(1000)])
        again, near = nearest <= 1, near_seams(whole, height, width, options.tile)
        near_tiled = int(near_seams(tiled, height, width, options.tile).sum())
        print(
            f"{name}: {len(whole)} keypoints, {len(tiled)} in tiles; {again.double().mean():.4f} come back, "
            f"near seams {again[near].double().mean():.4f} of {int(near.sum())} ({near_tiled} in tiles)",
            flush=True,
        )


if __name__ == "__main__":
    main()
