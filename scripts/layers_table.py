"""How accurate, and how fast, a matcher is that ends after fewer layers, or stops earlier.

    python scripts/layers_table.py DATA/strecha_dev.json DATA/tum18.json --layers 4 5 6 9
    python scripts/layers_table.py DATA/tum18.json --layers 9 --depth 0.95 0.9 0.8 --weights own.safetensors

A row for each manifest, weight file, number of layers and depth confidence. Features are extracted once a manifest.
CPU seconds are of the matching alone, one thread, mean over the pairs; `layers run` is the mean of `stop`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import torch

from lightglue.evaluation import Job, Models, evaluate, load_manifest, summarize


def row(path: Path, models: Models, seen: dict[Path, Any]) -> dict[str, Any]:
    """Figures of one matcher on one manifest."""
    benchmark = load_manifest(path)
    with tempfile.TemporaryDirectory() as folder:
        run = evaluate(benchmark, Job(models), Path(folder) / "run", seen=seen)
        figures = {each.statistic.full_title: round(each.value, 1) for each in summarize(run).headline}
    matcher = models.load_matcher()
    stops, seconds = [], 0.0
    with torch.inference_mode():
        for pair in benchmark.pairs:
            one, other = (seen[image].features for image in (pair.image0, pair.image1))
            begin = process_time()
            found = matcher({"image0": one, "image1": other})
            seconds += process_time() - begin
            stops.append(float(found["stop"]))
    count = len(benchmark.pairs)
    return {**figures, "layers run": round(sum(stops) / count, 2), "CPU s": round(seconds / count, 3)}


def main() -> None:
    """Print a line of JSON a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--features", default="aliked")
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 5, 6, 9])
    parser.add_argument("--depth", type=float, nargs="+", default=[0.95], help="depth_confidence; -1: never stop")
    parser.add_argument("--weights", nargs="+", default=[None], help="files instead of the published one; `published`")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for path in options.manifests:
        benchmark, seen = load_manifest(path), {}
        for weights in options.weights:
            own = {} if weights in (None, "published") else {"weights": weights}
            for layers in options.layers:
                for depth in options.depth:
                    thresholds = {"n_layers": layers, "depth_confidence": depth, **own}
                    keypoints = benchmark.protocol.max_keypoints
                    models = Models(options.features, keypoints, "cpu", mp=False, thresholds=thresholds)
                    what = {"set": path.stem, "weights": weights or "published", "layers": layers, "depth": depth}
                    print(json.dumps({**what, **row(path, models, seen)}), flush=True)


if __name__ == "__main__":
    main()
