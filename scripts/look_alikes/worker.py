"""The process that `measure.py` has maps made by: questions as lines of JSON in, answers as lines of JSON out.

It imports the package that it is started with, which may be an older one. What COLMAP prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pycolmap

from lightglue.models.choice import Models
from lightglue.sfm.colmap.models import cam_from_world, registered
from lightglue.sfm.colmap.with_pycolmap import quiet
from lightglue.sfm.folder import MapFolder, MapRecord
from lightglue.sfm.options import STAGES, ExtractOptions, ReconstructOptions, SfmOptions, VerifyOptions
from lightglue.sfm.pipeline import run_stage

CONSISTENT = 0.98  # as `lightglue.sfm.look_alikes.consistency` has it, which old code lacks


def options_of(keypoints: int, seed: int) -> SfmOptions:
    """As `lightglue sfm --max-keypoints K --seed S --threads 1` has them."""
    models = Models("aliked", keypoints)
    return SfmOptions(
        models,
        ExtractOptions(models, {"resize": 1024}),
        verify=VerifyOptions(seed=seed),
        reconstruct=ReconstructOptions(seed=seed, threads=1, extract_colors=False),
    )


def prepare(full: Path, images: Path, keypoints: int) -> None:
    """Features, matches and verified pairs of a whole set, unless they are there."""
    if (full / "done").exists():
        return
    seconds = {}
    for stage in ("extract", "pairs", "match", "verify"):
        begin = perf_counter()
        run_stage(stage, full, options_of(keypoints, 0), images=images)
        seconds[stage] = round(perf_counter() - begin, 1)
    (full / "done").write_text(json.dumps(seconds))


def cut(full: Path, work: Path, images: Path, names: list[str]) -> None:
    """A map's folder of some of the images of another, with what was computed for them."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "images").mkdir(parents=True)
    (work / "map").mkdir()
    for name in names:
        (work / "images" / name).symlink_to(images / name)
    there, made = MapFolder(full), MapFolder(work / "map")
    made.features.symlink_to(there.features.absolute())
    for part in ("matches", "database"):
        shutil.copyfile(getattr(there, part), getattr(made, part))
    chosen = set(names)
    pairs = [line for line in there.pairs.read_text().splitlines() if set(line.split()) <= chosen]
    made.pairs.write_text("".join(f"{line}\n" for line in pairs))
    record = there.read()
    made.write(MapRecord(work / "images", record.settings, record.stages))


def map_ours(ask: dict[str, Any]) -> dict[str, Any]:
    """`lightglue sfm` from the verification on."""
    full, work, images = Path(ask["full"]), Path(ask["work"]), Path(ask["images"])
    prepare(full, images, ask["keypoints"])
    cut(full, work, images, ask["names"])
    begin = perf_counter()
    for stage in STAGES[STAGES.index("verify") :]:
        if stage != "report":
            run_stage(stage, work / "map", options_of(ask["keypoints"], ask["seed"]))
    seconds = perf_counter() - begin
    folders = sorted((path for path in (work / "map" / "models").glob("*") if path.is_dir()), key=lambda p: int(p.name))
    return {
        "models": [described(pycolmap.Reconstruction(path)) for path in folders],
        "seconds": round(seconds, 2),
        "verdict": verdict(work / "map"),
    }


def verdict(folder: Path) -> dict[str, Any]:
    """What a map says of its largest model: whether it may be wrong, and the figures behind that."""
    models = json.loads((folder / "models" / "reconstruction.json").read_text())["models"]
    best = models[0] if models else {}
    contradicting, doubtful = (len(best.get(key, ())) for key in ("contradicting", "doubtful"))
    explained = best.get("consistency")
    return {
        "doubted": bool(contradicting or doubtful) or (explained is not None and explained < CONSISTENT),
        "contradicting": contradicting,
        "doubtful": doubtful,
        "consistency": explained,
    }


def map_sift(ask: dict[str, Any]) -> dict[str, Any]:
    """COLMAP's own features, matches and mapper, with its defaults."""
    full, work, images = Path(ask["full"]), Path(ask["work"]), Path(ask["images"])
    database, cpu = full / "database.db", pycolmap.Device.cpu
    with quiet():
        if not (full / "done").exists():
            shutil.rmtree(full, ignore_errors=True)
            full.mkdir(parents=True)
            pycolmap.extract_features(database, images, camera_mode=pycolmap.CameraMode.SINGLE, device=cpu)
            pycolmap.match_exhaustive(database, device=cpu)
            (full / "done").touch()
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        options = pycolmap.IncrementalPipelineOptions()
        options.random_seed, options.min_model_size, options.num_threads = ask["seed"], 3, 1
        options.extract_colors, options.image_names = False, ask["names"]
        begin = perf_counter()
        models = pycolmap.incremental_mapping(database, images, work, options)
        seconds = perf_counter() - begin
    largest = sorted(models.values(), key=lambda model: -model.num_reg_images())
    return {
        "models": [described(model) for model in largest],
        "seconds": round(seconds, 2),
        "verdict": {"doubted": False},
    }


def described(model: Any) -> dict[str, Any]:
    """Poses of a model's images, and its mean reprojection error."""
    model.update_point_3d_errors()
    poses = {image.name: np.asarray(cam_from_world(image)).tolist() for image in registered(model)}
    return {"poses": poses, "px": round(float(model.compute_mean_reprojection_error()), 4)}


def main() -> None:
    """Answer until there are no more questions."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    makers = {"ours": map_ours, "sift": map_sift}
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            answer = makers[ask["kind"]](ask)
        except Exception as error:  # whatever it is, the next map is made
            answer = {"error": repr(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
