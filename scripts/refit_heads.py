"""Confidence heads, calibration and overlap of a matcher, fitted again to homographies of photographs.

    python scripts/refit_heads.py PHOTOS OUT --features disk [--images 120] [--pairs 360]
    python scripts/layers_table.py DATA/tum18.json --features disk --layers 9 --depth 0.95 0.9 0.8 \\
        --weights published OUT/weights.safetensors

OUT gets the pool of features, weights.safetensors, and fitting.json with the heads before and after. A call that was
cut off goes on: features that are there are not extracted again.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch

from lightglue import LightGlue
from lightglue.training.data_options import DataOptions, FeatureOptions
from lightglue.training.fitting.finish import finish
from lightglue.training.judge_options import JudgeOptions
from lightglue.training.samples import open_samples
from lightglue.training.sources.options import SourceOptions


def main() -> None:
    """Fit, and print the heads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--features", default="disk")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--pairs", type=int, default=360)
    parser.add_argument("--keypoints", type=int, default=512)
    given = parser.parse_args()
    torch.set_num_threads(1)
    photos = given.out / "photos"
    if not photos.exists():
        photos.mkdir(parents=True)
        names = sorted(path for path in given.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        for path in random.Random(0).sample(names, min(given.images, len(names))):
            (photos / path.name).symlink_to(path.resolve())
    data = DataOptions(sources=(SourceOptions(path=str(photos)),), views=3, view_size=(480, 360), validation=0.2)
    features = FeatureOptions(given.features, given.keypoints)
    samples = open_samples(data, features, given.out / "pool", seed=0)
    weights = given.out / "weights.safetensors"
    LightGlue(features=given.features).save(weights)
    report = finish(weights, samples, JudgeOptions(fit_pairs=given.pairs))
    print(f"{report.pairs} pairs; calibration error {report.error_before:.4f}, after {report.error_after:.4f}")
    for head in report.heads:
        print(head)


if __name__ == "__main__":
    main()
