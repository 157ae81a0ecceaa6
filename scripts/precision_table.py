"""What reduced precision saves: float32 and `mp=True` in turn, one thread, on the bundled photographs.

python scripts/precision_table.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from lightglue import ALIKED, DISK, LightGlue, load_image

ASSETS = Path(__file__).parents[1] / "assets"
FULL = {"depth_confidence": -1, "width_confidence": -1}
RUNS = 6  # the first is not counted


def in_turn(tasks: Mapping[str, Callable[[], Any]]) -> str:
    """Median milliseconds of each task, run A B A B."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(RUNS):
        for name, task in tasks.items():
            begin = perf_counter()
            task()
            seconds[name].append(perf_counter() - begin)
    return ", ".join(f"{name} {1000 * median(times[1:]):.0f}" for name, times in seconds.items())


def main() -> None:
    """Print the table, ms."""
    torch.set_num_threads(1)
    images = [load_image(ASSETS / f"montmartre_{name}.jpg") for name in ("close", "far")]
    for count in (512, 1024, 2048):
        extractor = ALIKED(max_num_keypoints=count, detection_threshold=-1).eval()
        pair = {f"image{i}": extractor.extract(image) for i, image in enumerate(images)}
        for depth, options in (("all layers", FULL), ("adaptive", {})):
            matchers = {f"mp={mp}": LightGlue(features="aliked", mp=mp, **options).eval() for mp in (False, True)}
            tasks = {name: partial(matcher, pair) for name, matcher in matchers.items()}
            print(count, depth, in_turn(tasks), flush=True)
    for kind in (ALIKED, DISK):
        extractors = {f"mp={mp}": kind(max_num_keypoints=2048, mp=mp).eval() for mp in (False, True)}
        tasks = {name: partial(extractor.extract, images[0]) for name, extractor in extractors.items()}
        print(kind.__name__, in_turn(tasks), flush=True)


if __name__ == "__main__":
    main()
