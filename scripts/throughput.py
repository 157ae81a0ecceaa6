"""Seconds an image, seconds a pair and peak memory of extraction and matching, for collections of several sizes.

    python scripts/throughput.py PHOTOGRAPHS --images 200 2000

The images are crops of the photographs under a folder, turned and tilted a little, 640 px wide, the same at each run.
Each image is matched with those that retrieval finds most like it. Each size runs in a process of its own, so that its
peak of memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from lightglue.images import read_image
from lightglue.models.choice import Models
from lightglue.sfm.engines.choice import make_engine
from lightglue.sfm.retrieval.index import build_index
from lightglue.sfm.stages.extract import ExtractOptions, extract
from lightglue.sfm.stages.images import list_images
from lightglue.sfm.stages.match import MatchOptions, match
from lightglue.sfm.stages.pairs import Inputs, PairOptions, select_pairs
from lightglue.stores import FeatureStore

SIZE = (640, 480)  # px


def make_images(photographs: Path, folder: Path, count: int) -> None:
    """`count` images of SIZE: neighbours in the list see the same part of a photograph."""
    names, _ = list_images(photographs)
    folder.mkdir(parents=True)
    group = 10  # views of one place
    image = None
    for i in range(count):
        rng = np.random.default_rng(i)
        place = np.random.default_rng((i // group, 1))
        if i % group == 0 or image is None:
            image = read_image(photographs / names[place.integers(len(names))])
        h, w = image.shape[:2]
        size = place.uniform(0.5, 0.9)
        left, top = place.uniform(0, 1 - size, 2) * (w, h)
        box = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (size * w, size * h) + (left, top)
        corners = (box + rng.uniform(-0.06, 0.06, (4, 2)) * (w, h)).astype(np.float32)
        target = np.array([[0, 0], [SIZE[0], 0], SIZE, [0, SIZE[1]]], np.float32)
        view = cv2.warpPerspective(image, cv2.getPerspectiveTransform(corners, target), SIZE, flags=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{i:05}.jpg"), cv2.cvtColor(view, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])


def measure(folder: Path, models: Models, partners: int, engine: str) -> dict[str, float]:
    """Extract and match the images of a folder, in this process."""
    names, _ = list_images(folder / "images")
    chosen = make_engine(engine)
    extracted = extract(folder / "images", folder / "features", ExtractOptions(models, {"resize": None}), engine=chosen)
    peak, begin = _peak(), perf_counter()
    index = build_index(FeatureStore.open(folder / "features"), folder / "retrieval.npz")
    options = PairOptions(("retrieval",), retrieved=partners)
    pairs = select_pairs(names, options, Inputs(retrieval=index)).pairs
    retrieval, with_retrieval = perf_counter() - begin, _peak()
    matched = match(folder / "features", pairs, folder / "matches.db", MatchOptions(models), engine=chosen)
    return {
        "images": extracted.extracted,
        "seconds an image": extracted.seconds / max(1, extracted.extracted),
        "MB, extraction": peak,
        "seconds of retrieval an image": retrieval / len(names),
        "MB, retrieval": with_retrieval,
        "pairs": matched.matched,
        "matches a pair": matched.matches / max(1, matched.matched),
        "seconds a pair": matched.seconds / max(1, matched.matched),
        "MB": _peak(),
        "bytes of features an image": _bytes(folder / "features") / len(names),
        "bytes of matches a pair": _bytes(folder / "matches.db") / max(1, len(pairs)),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--partners", type=int, default=10)
    parser.add_argument("--features", default="aliked")
    parser.add_argument("--max-keypoints", type=int, default=512)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # measure this folder
    options = parser.parse_args()
    if options.worker is not None:
        models = Models(options.features, options.max_keypoints, options.device)
        print(json.dumps(measure(options.worker, models, options.partners, options.engine)))
        return
    for count in options.images:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            make_images(options.photographs, folder / "images", count)
            command = [sys.executable, *sys.argv, "--worker", str(folder)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            print(f"{count} images:")
            for name, value in json.loads(told.splitlines()[-1]).items():
                print(f"  {name}: {value:.4g}", flush=True)


if __name__ == "__main__":
    main()
