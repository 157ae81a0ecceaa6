"""Maps at each effort beside COLMAP's SIFT pipeline, in one run: time of each stage, images, errors.

    python scripts/sfm_effort.py ../shared/data OUT [--scenes caliterra fountain] [--methods sift-2 fast-2 fast-1]

A method is a pipeline and a number of cores: `sift-2` is pycolmap's extract_features, match_exhaustive and
incremental_mapping, `fast-2` is `lightglue sfm --effort fast --workers 2`, each a program of its own that may use two
cores and no more. Methods take turns, scene after scene; each is stopped after --limit seconds. By default: the drone
set and three scenes with a truth, without `normal` on the drone set.

Wall: from the start of the program to its end. CPU: of the program and all its processes. Stages: wall seconds.
Centre: median error after a similarity, per cent of the largest distance of two cameras; rotation and direction:
medians over pairs of images, degrees. OUT/figures.json has all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import pycolmap
from sfm_defaults import Scene, figures
from sfm_defaults import load_scene as with_truth

from lightglue.sfm.colmap.models import registered
from lightglue.sfm.colmap.with_pycolmap import quiet
from lightglue_runtime.images.sizes import size_in_file

DRONE = {"caliterra": "train/open_scenes/caliterra", "seneca": "train/open_scenes/seneca"}
KEYPOINTS = {"caliterra": 1024, "seneca": 1024}
STAGES = ("extract", "pairs", "match", "refine", "verify", "reconstruct", "report")


def load_scene(data: Path, name: str, out: Path) -> Scene:
    """A scene in a folder of its own, which holds its images and no others."""
    if name in DRONE:
        names = sorted(path.name for path in (data / DRONE[name]).iterdir())
        scene = Scene(name, data / DRONE[name], names, None, {}, {})
    else:
        scene = with_truth(data, name)
    folder = out / name / "images"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for each in scene.names:
        (folder / each).symlink_to((scene.folder / each).resolve())
    return Scene(name, folder, scene.names, scene.K, scene.poses, scene.relative)


def command(method: str, scene: Scene, out: Path, args: argparse.Namespace) -> list[str]:
    """The program of a method."""
    pipeline, cores = split(method)
    K = scene.K if args.intrinsics == "known" else None
    pinhole = "" if K is None else ",".join(repr(float(v)) for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    if pipeline == "sift":
        known = ["--pinhole", pinhole] if pinhole else []
        return [sys.executable, __file__, str(scene.folder), str(out), "--sift", *known]
    options = ["--effort", pipeline, "--workers", str(cores), "--max-keypoints", str(keypoints(scene, args))]
    width, height = size_in_file(scene.folder / scene.names[0]) or (0, 0)
    resize = args.resize or min(1024, max(width, height))
    options += ["--refine" if args.refine else "--no-refine", "--resize", str(resize)]
    options += ["--camera", f"PINHOLE,{width},{height},{pinhole}"] if pinhole else ["--share-camera", "single"]
    program = [sys.executable, "-c", "from lightglue.cli import main; raise SystemExit(main())"]
    return [*program, "sfm", str(scene.folder), "--output", str(out), *options, *args.sfm]


def split(method: str) -> tuple[str, int]:
    """The pipeline and the number of cores."""
    pipeline, _, cores = method.partition("-")
    return pipeline, int(cores or 1)


def keypoints(scene: Scene, args: argparse.Namespace) -> int:
    """So many an image."""
    return int(args.keypoints or KEYPOINTS.get(scene.name, 2048))


def sift(images: Path, out: Path, pinhole: str | None) -> None:
    """COLMAP's own features, matches and mapper with its defaults, one camera; the times go to `seconds.json`."""
    reader = pycolmap.ImageReaderOptions()
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed, options.min_model_size = 0, 3
    if pinhole:
        fx, fy, cx, cy = (float(part) for part in pinhole.split(","))
        reader.camera_model, reader.camera_params = "PINHOLE", f"{fx},{fy},{cx + 0.5},{cy + 0.5}"
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
    database, cpu, single = out / "database.db", pycolmap.Device.cpu, pycolmap.CameraMode.SINGLE
    with quiet():
        times = [perf_counter()]
        pycolmap.extract_features(database, images, camera_mode=single, reader_options=reader, device=cpu)
        times.append(perf_counter())
        pycolmap.match_exhaustive(database, device=cpu)
        times.append(perf_counter())
        models = pycolmap.incremental_mapping(database, images, out, options)
        times.append(perf_counter())
    stages = {name: times[k + 1] - times[k] for k, name in enumerate(("extract", "match", "reconstruct"))}
    (out / "seconds.json").write_text(json.dumps(stages))
    if models:
        (out / "model").mkdir(exist_ok=True)
        max(models.values(), key=lambda model: model.num_reg_images()).write(str(out / "model"))


def run(method: str, scene: Scene, args: argparse.Namespace) -> dict[str, Any]:
    """All figures of a method."""
    out = args.out / scene.name / method
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    fault = watched(command(method, scene, out, args), split(method)[1], args.limit, out.parent / f"{method}.log")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said: dict[str, Any] = {"scene": scene.name, "method": method, "wall": perf_counter() - begin, "cpu": cpu}
    said |= {"fault": fault, "of": len(scene.names), "stages": stages_of(out)}
    model = pycolmap.Reconstruction(str(out / "model")) if (out / "model").exists() else None
    if model is not None:
        plain = {"images": len(registered(model)), "points": model.num_points3D()}
        said |= plain | {"px": model.compute_mean_reprojection_error(), "track": model.compute_mean_track_length()}
        said |= figures(model, scene)
    return said


def watched(program: list[str], cores: int, limit: float, log: Path) -> str | None:
    """Run a program on so many cores; what went wrong."""
    mine = sorted(os.sched_getaffinity(0))[:cores]
    if len(mine) < cores:
        raise SystemExit(f"{cores} cores are asked for, and this process may use {len(mine)}.")
    with log.open("w") as output:
        process = subprocess.Popen(
            program,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, mine),
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"stopped after {limit:.0f} s"
    return None if code == 0 else f"exit status {code}; see {log}"


def stages_of(out: Path) -> dict[str, float]:
    """Wall seconds of each stage that was finished."""
    if (out / "seconds.json").exists():
        return dict(json.loads((out / "seconds.json").read_text()))
    try:
        said = json.loads((out / "map.json").read_text())["stages"]
    except (FileNotFoundError, KeyError):
        return {}
    return {name: float(said[name]["seconds"]) for name in STAGES if name in said}


FORMS = {"points": ".0f", "px": ".3f", "centre": ".4f", "rotation": ".4f", "direction": ".4f"}


def row(said: dict[str, Any]) -> None:
    """Print a row."""
    cells = [f"{said[key]:{form}}" if key in said else "" for key, form in FORMS.items()]
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in said["stages"].items() if seconds >= 0.05)
    images = f"{said.get('images', 0)} of {said['of']}"
    times = [f"{said['wall']:.1f}", f"{said['cpu']:.1f}", said["fault"] or stages]
    print(f"| {' | '.join([said['scene'], said['method'], images, *cells, *times])} |", flush=True)


def main() -> None:
    """Print a table, a row a map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", nargs="+", default=["caliterra", "fountain", "herzjesu", "temple"])
    parser.add_argument("--methods", nargs="+", help="by default sift-2 fast-2 fast-1, and normal-2 where it is quick")
    parser.add_argument("--keypoints", type=int, help="by default 1,024 for the drone sets, 2,048 for the others")
    parser.add_argument("--intrinsics", choices=("known", "unknown"), default="known", help="of scenes with a truth")
    parser.add_argument("--refine", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--resize", type=int, help="px; by default the images' own size, as SIFT sees it, up to 1,024")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that a method may take")
    parser.add_argument("--sfm", nargs="*", default=[], help="further arguments of `lightglue sfm`; = for -")
    parser.add_argument("--sift", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pinhole", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sift:
        sift(args.data, args.out, args.pinhole)
        return
    args.sfm = [each.replace("=", "-") for each in args.sfm]
    args.out.mkdir(parents=True, exist_ok=True)
    head = (
        "scene | method | images | points | px | centre % | rotation ° | direction ° | wall s | CPU s | stages, wall s"
    )
    print(f"| {head} |\n|{'---|' * 11}", flush=True)
    every = []
    for name in args.scenes:
        scene = load_scene(args.data, name, args.out)
        usual = ["sift-2", "fast-2", "fast-1", *([] if name in DRONE else ["normal-2"])]
        for method in args.methods or usual:
            every.append(run(method, scene, args))
            row(every[-1])
            (args.out / "figures.json").write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
