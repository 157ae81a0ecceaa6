"""Overlaps that `effort="hard"` invents and those that it loses, on training pairs whose truth is known.

    python scripts/hard_overlap DATA OUT [--sets repeated scenes common models] [--most 60] [--stop-after 600]

DATA is the folder with train/. The sets:

- repeated: two parts of one photograph with nothing in common, in which few keypoints show that something repeats:
  those of which most matches agree come first;
- scenes: the same of photographs of the scenes with known cameras, among them two façades;
- common: two parts of one photograph with a common region, at tilts of up to 6, and generated and turned pairs of
  `hard_table`;
- models: the pairs of scenes of `hard_table`, and others that see little of each other, or from very different angles.

A line of OUT/SET.jsonl is a pair, with what each look at the model that was believed says; lines that are there are not
made again. For each set the table has how many pairs have an overlap of 0.5 by plain matching, by the search as it was
(full size, or the small frame where that has more support, for which no match need be distinct) and as it is; "new"
are those that plain matching gives less than 0.5. Pairs of common and models count where the model is right.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import numpy as np
import pycolmap
import torch
from parts import PartsPair, parts_pair, photographs

from lightglue import load_image, match_pair
from lightglue.geometry import EstimatorOptions, epipolar_error, estimate_fundamental
from lightglue.models.choice import Models
from lightglue.pairs.hard import finish, solve, steps
from lightglue.pairs.hard.models import fit
from lightglue.pairs.hard.pair import _correspondences, match_hard
from lightglue.pairs.hard.steps import Rematched, Search, is_unlike, overlap_of
from lightglue.pairs.hard.warping import Floats, moved

SETS = ("repeated", "scenes", "common", "models")
REPEATING = ("south_building", "sceaux", "et", "alexander", "bartoszek", "train")  # scenes of which more is made
AGREE, OVERLAP, SEEN = 8, 0.15, 0.03  # matches that agree and the overlap beside them, or the overlap alone
MANY = 10  # matches that agree, of a photograph of which most is made
RIGHT, NEAR = 8.0, 4.0  # px that most inliers are within of the homography, and of the epipolar lines
EACH, FEWEST, SHARE, ANGLE = 8, 16, 0.12, 35.0  # pairs of a scene; common points, their share, degrees apart

Images = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Case:
    """A pair, and its truth: a homography (3, 3), points in both (two of (N, 2)), or None: every model is false."""

    name: str
    make: Callable[[], tuple[Images, Any]]


@dataclass(eq=False)
class Log:
    """What each look at a model says."""

    truth: Any
    looks: list[dict[str, Any]] = field(default_factory=list)

    def again(self, search: Search, kind: Any, H: Floats, around: Floats, edge: int, count: int) -> Rematched | None:
        """`steps.again`, written down."""
        found = _AGAIN(search, kind, H, around, edge, count)
        if found is not None:
            middle = np.median(found.found.points0[found.model.inliers], axis=0)
            self.looks.append(
                {
                    "full": edge != solve.EDGE,
                    "inliers": int(found.model.inliers.sum()),
                    "matches": len(found.found),
                    "support": found.model.support,
                    "overlap": overlap_of(search, found),
                    "distinct": overlap_of(search, found, distinct=True),
                    "unlike": is_unlike(found.model.matrix, middle, search.looks.images),
                    "right": is_right(self.truth, found),
                }
            )
        return found


_AGAIN = steps.again


def is_right(truth: Any, found: Rematched) -> bool:
    """Whether most inliers agree with the truth."""
    if truth is None:
        return False
    good = found.found.only(found.model.inliers)
    if isinstance(truth, tuple):
        F = estimate_fundamental(*truth, EstimatorOptions("poselib", 2.0)).model
        return F is not None and bool(np.median(epipolar_error(F, good.points0, good.points1)) < NEAR)
    return bool((np.linalg.norm(moved(truth, good.points0) - good.points1, axis=1) < RIGHT).mean() > 0.5)


def cases(data: Path, name: str, few: Any) -> Iterator[Case]:
    """All pairs of a set. few: extractor and matcher of few keypoints, that say whether something repeats."""
    train = data / "train"
    photos = photographs(train)
    if name == "repeated":
        yield from _repeating(photos, photos, few, lambda _, agree: 7 if agree >= MANY else 3 if agree >= AGREE else 1)
    elif name == "scenes":
        folders = sorted(path / "images" for path in (train / "scenes").iterdir() if (path / "images").is_dir())
        files = [file for folder in folders for file in _some(folder)]
        yield from _repeating(photos, files, few, lambda file, _: 4 if file.parts[-3] in REPEATING else 1)
    elif name == "models":
        yield from _models(train / "scenes")
    else:
        yield from _common(train, photos)


def _some(folder: Path, most: int = 11) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    return [files[i] for i in np.linspace(0, len(files) - 1, min(most, len(files))).astype(int)]


def _repeating(photos: list[Path], files: list[Path], few: Any, seeds: Callable[[Path, int], int]) -> Iterator[Case]:
    """Parts with nothing in common in which few keypoints show something, those that show most first.

    seeds: how many of a file, by what is shown by the first.
    """
    found = []
    for file in files:
        seed, most = 0, 1
        while seed < most:
            pair = parts_pair(photos, file, seed, common=False, tilted=False)
            plain = match_pair(*few, *_tensors(pair), resize=512)
            model = fit(_correspondences(plain), "homography", 5.0)
            agree, overlap = 0 if model is None else int(model.inliers.sum()), float(plain.overlap or 0)
            if overlap > OVERLAP or (agree >= AGREE and overlap > SEEN):
                found.append((agree, file, seed))
            if seed == 0:
                most = seeds(file, agree if overlap > SEEN else 0)
            seed += 1
    for _, file, seed in sorted(found, key=lambda each: -each[0]):

        def parts(file: Path = file, seed: int = seed) -> tuple[Images, Any]:
            return _tensors(parts_pair(photos, file, seed, common=False, tilted=False)), None

        yield Case(f"{file.parts[-3]} {file.stem} {seed}", parts)


def _common(train: Path, photos: list[Path]) -> Iterator[Case]:
    import scenes

    rng = np.random.default_rng(5)
    tuning = scenes.photographs(train, "tuning")
    for seed in range(140):
        photo = photos[int(rng.integers(len(photos)))]

        def parts(photo: Path = photo, seed: int = seed) -> tuple[Images, Any]:
            pair = parts_pair(photos, photo, seed, common=True)
            return _tensors(pair), pair.H

        yield Case(f"common {photo.stem} {seed}", parts)
        if seed < 66:
            tilt = (4, 6, 8)[seed % 3]

            def generated(seed: int = seed, tilt: float = tilt) -> tuple[Images, Any]:
                pair = scenes.generate(tuning, 7000 + 100 * int(tilt) + seed, tilt)
                return (_tensor(pair.image0 / 255), _tensor(pair.image1 / 255)), pair.H

            yield Case(f"generated {tilt} {seed}", generated)
        if seed < 15:

            def turned(seed: int = seed) -> tuple[Images, Any]:
                pair = scenes.turned(tuning, 7000 + seed)
                return (_tensor(pair.image0 / 255), _tensor(pair.image1 / 255)), pair.H

            yield Case(f"turned {seed}", turned)


def _models(folder: Path) -> Iterator[Case]:
    from models import pairs_of_models

    for each in pairs_of_models(folder):
        yield _scene_pair(each.name, each.paths, each.points)
    rng = np.random.default_rng(3)
    for scene in sorted(path for path in folder.iterdir() if (path / "sparse").is_dir()):
        model = pycolmap.Reconstruction(str(scene / "sparse"))
        images = sorted(model.images.values(), key=lambda image: image.name)
        seen = [{p.point3D_id: p.xy for p in image.points2D if p.has_point3D()} for image in images]
        ahead = [_pose(image).rotation.matrix()[2] for image in images]
        found = []
        for a, b in itertools.combinations(range(len(images)), 2):
            common = sorted(seen[a].keys() & seen[b].keys())
            angle = np.degrees(np.arccos(np.clip(ahead[a] @ ahead[b], -1, 1)))
            share = len(common) / max(1, min(len(seen[a]), len(seen[b])))
            if len(common) >= FEWEST and (share < SHARE or angle > ANGLE):
                found.append((a, b, common))
        for k in rng.permutation(len(found))[:EACH]:
            a, b, common = found[k]
            points = [np.array([seen[i][key] for key in common]) - 0.5 for i in (a, b)]
            paths = [scene / "images" / images[i].name for i in (a, b)]
            name = f"{scene.name}: {paths[0].stem} {paths[1].stem}, far apart"
            yield _scene_pair(name, (paths[0], paths[1]), (points[0], points[1]))


def _scene_pair(name: str, paths: tuple[Path, Path], points: tuple[Floats, Floats]) -> Case:
    return Case(name, lambda: ((load_image(paths[0]), load_image(paths[1])), points))


def _pose(image: Any) -> Any:
    pose = image.cam_from_world
    return pose() if callable(pose) else pose


def _tensors(pair: PartsPair) -> Images:
    return _tensor(pair.image0), _tensor(pair.image1)


def _tensor(pixels: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(pixels, np.float32)).permute(2, 0, 1).contiguous()


def record_of(case: Case, models: Any, max_seconds: float) -> dict[str, Any]:
    """What comes of a pair."""
    images, truth = case.make()
    begin = process_time()
    plain = match_pair(*models, *images)
    log = Log(truth)
    solve.again = finish.again = log.again
    limits: Any = {"max_seconds": max_seconds, "seconds": process_time() - begin, "clock": process_time}
    hard = match_hard(plain, images, (None, None), *models, {}, **limits)
    found_by = None if hard.effort is None else hard.effort.found_by
    found = {"normal": float(plain.overlap), "hard": float(hard.overlap), "found_by": found_by}
    return {"name": case.name, "truth": truth is not None, **found, **_before(found, log.looks), "looks": log.looks}


def _before(found: dict[str, Any], looks: list[dict[str, Any]]) -> dict[str, Any]:
    """What the search said before full size had to bear a model out, and whether the model is right."""
    believed = [k for k, each in enumerate(looks) if not each["full"] and each["overlap"] >= solve.ACCEPTED]
    if found["found_by"] is None or not looks:
        return {"before": found["normal"], "right": None}
    rough = believed[-1] if believed else 0
    full = [each for each in looks[rough:] if each["full"]][:1]
    first = max([looks[rough], *full], key=lambda each: float(each["support"]))
    overlap = first["overlap"] if first["unlike"] else min(first["overlap"], found["normal"])
    return {"before": overlap, "right": first["right"]}


def table(name: str, records: list[dict[str, Any]]) -> str:
    """A row of Markdown."""
    good = [r for r in records if not r["truth"] or r["right"] or (r["right"] is None and r["normal"] >= 0.5)]
    counts = [sum(r[by] >= 0.5 for r in good) for by in ("normal", "before", "hard")]
    new = [sum(r[by] >= 0.5 > r["normal"] for r in good) for by in ("before", "hard")]
    return f"| {name} | {len(records)} | " + " | ".join(map(str, (*counts, *new))) + " |"


def main() -> None:
    """Make the missing records, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--max-seconds", type=float, default=12.0, help="for each pair, of CPU time")
    parser.add_argument("--most", type=int, help="pairs of each set")
    parser.add_argument("--stop-after", type=float, default=float("inf"), metavar="S", help="begin none after so long")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "hard_table"))
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    few, models = (Models(features="aliked", max_keypoints=count).load() for count in (512, 1024))
    begin = monotonic()
    rows = []
    for name in options.sets:
        path = options.out / f"{name}.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        done = {record["name"] for record in records}
        for case in itertools.islice(cases(options.data, name, few), options.most):
            if monotonic() - begin > options.stop_after:
                break
            if case.name not in done:
                records.append(record_of(case, models, options.max_seconds))
                with path.open("a") as file:
                    file.write(json.dumps(records[-1]) + "\n")
        rows.append(table(name, records))
    print("| set | pairs | normal | before | hard | new, before | new |\n|---|" + "---:|" * 6)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
