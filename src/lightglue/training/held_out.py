"""The images that a run does not train on, as a benchmark of `lightglue.evaluation`: homographies or poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightglue.errors import ImageError, InputError
from lightglue.evaluation.datasets.manifest import load_manifest, write_manifest
from lightglue.evaluation.pair import Benchmark, Homography, Pair, Protocol, RelativePose, Truth
from lightglue.geometry.options import EstimatorOptions
from lightglue.images.copies import as_png
from lightglue.support.files import write_whole, writing
from lightglue.training.journal import View
from lightglue.training.own_tracks import camera_of
from lightglue.training.samples import PoolSamples
from lightglue.training.views.homography import between_views

__all__ = ["MANIFEST", "PICTURES", "write_held_out"]

MANIFEST, PICTURES = "held_out.json", "held_out"  # in the folder of a run

THRESHOLDS = {"homography": (1.0, 3.0, 5.0), "pose": (5.0, 10.0, 20.0)}  # px, degrees: HPatches, MegaDepth-1500


def write_held_out(samples: PoolSamples, folder: Path, keypoints: int, most: int) -> Path:
    """Write validation pairs as pictures and a manifest. Returns the manifest.

    Each scene of it is an image (or the scene of images with poses). most: pairs, spread over all of them.

    Raises InputError where nothing is held out.
    """
    manifest = folder / MANIFEST
    with writing(folder):
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    count = min(most, samples.num_validation)
    pairs: list[Pair] = []
    places: dict[str, Path] = {}
    for i in (int(k * samples.num_validation / count) for k in range(count)):
        names = samples.validation_sample(i).views
        try:
            for name in names:
                if name not in places:
                    places[name] = _picture(samples, name, folder, len(places))
        except (ImageError, InputError):  # and no StoreError: a full disk is no image that is missing
            continue  # an image that has gone since
        views = samples.pool.views[names[0]], samples.pool.views[names[1]]
        scene = views[0].scene if views[0].posed is not None and views[0].scene else views[0].image
        pairs.append(Pair(" - ".join(names), scene, places[names[0]], places[names[1]], _truth(views)))
    if not pairs:
        raise InputError("Nothing is held out to judge by: give more images, or a larger share to hold out.")
    posed = isinstance(pairs[0].truth, RelativePose)
    pairs = [pair for pair in pairs if isinstance(pair.truth, RelativePose) == posed]
    kind = "pose" if posed else "homography"
    protocol = Protocol(keypoints, (EstimatorOptions(),), THRESHOLDS[kind])
    benchmark = Benchmark("held out", "pose" if posed else "homography", tuple(pairs), protocol)
    write_manifest(benchmark, manifest)
    load_manifest(manifest)  # what will be judged by can be read
    return manifest


def _truth(views: tuple[View, View]) -> Truth:
    if views[0].posed is None or views[1].posed is None:
        return Homography(between_views(views[0].H, views[1].H))
    T_0to1 = views[1].posed.T @ np.linalg.inv(views[0].posed.T)
    return RelativePose(camera_of(views[0]), camera_of(views[1]), T_0to1)


def _picture(samples: PoolSamples, name: str, folder: Path, number: int) -> Path:
    path = folder / PICTURES / f"{number:05d}.png"
    write_whole(path, as_png(samples.picture(name), name))
    return path
