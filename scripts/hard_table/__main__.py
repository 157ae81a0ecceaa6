"""What `effort="hard"` finds beyond `normal`, and what it must not: pairs at extreme angles, turned, and negatives.

    python scripts/hard_table DATA --output hard.jsonl [--sets planar15 tilts] [--stop-after 600]

DATA is the folder with planar15.json, kusvod2.json, train/ and ../images. One line of the output is one pair at one
effort; lines that are there already are not made again, so that it can be run in pieces. Seconds are of one thread's
CPU time. The table is printed as Markdown. For pairs: how many are right (at least 12 matches that agree with one
geometry, most of them within 8 px of the true one), and whose model is within 5 and 8 px (a homography by its mean
corner error; for kusvod2 and models, whose scenes are not plane, the mean distance of the given points to epipolar
lines); "sure and wrong" are those with an overlap of 0.9 and an error of over 20 px. For negatives: overlaps of 0.5.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import numpy as np
import torch
from models import pairs_of_models
from scenes import TILTS, TiltedPair, generate, negatives, photographs, turned

from lightglue import load_image, match_pair
from lightglue.geometry import (
    EstimatorOptions,
    corner_error,
    epipolar_error,
    estimate_fundamental,
    estimate_homography,
    transfer_error,
)
from lightglue.images import numpy_image_to_torch
from lightglue.models.choice import Models
from lightglue.pairs.hard.pair import match_hard
from lightglue.pairs.record import MatchedPair

SETS = ("planar15", "kusvod2", "tilts", "turned", "negatives")  # and "models", of scenes for tuning
EFFORTS = ("normal", "hard")  # the second goes on from the first
EACH = 12  # generated pairs of each tilt
NEGATIVES = 15  # generated ones, and of each kind of the study of the overlap
RIGHT, FEWEST, AGREE, CLOSE = 8.0, 12, 3.0, 5.0  # px, matches, px, px
WRONG, SURE = 20.0, 0.9  # px, overlap


@dataclass(frozen=True, eq=False)
class Case:
    """A pair and what is known of it."""

    set: str
    name: str
    read: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    H: Any = None  # (3, 3), or what gives it
    points: Any = None  # two of (N, 2)


def cases(data: Path, sets: list[str], half: str) -> Iterator[Case]:
    """All pairs of the sets."""
    for name in ("planar15", "kusvod2"):
        for pair in json.loads((data / f"{name}.json").read_text())["pairs"] if name in sets else ():
            paths = [data / pair[key] for key in ("image0", "image1")]
            H = np.array(pair["H"]) if "H" in pair else None
            points = None if "H" in pair else (np.array(pair["points0"]), np.array(pair["points1"]))
            label = f"{paths[0].parent.name}: {paths[0].stem} {paths[1].stem}"
            yield Case(name, label, _files(*paths), H, points)
    train = data / "train"
    photos = photographs(train, half)
    for tilt in TILTS if "tilts" in sets else ():
        for seed in range(100 * tilt, 100 * tilt + EACH):
            yield _generated(f"tilt {tilt}", f"tilt {tilt}, {seed}", partial(generate, photos, seed, tilt))
    for seed in range(EACH) if "turned" in sets else ():
        yield _generated("turned and zoomed", f"turned, {seed}", partial(turned, photos, 1000 + seed))
    if "models" in sets:
        for pair in pairs_of_models(train / "scenes"):
            yield Case("models", pair.name, _files(*pair.paths), None, pair.points)
    if "negatives" in sets:
        # No places: two photographs of one would be no negative.
        different = photographs(train, half, places=False)
        for seed in range(NEGATIVES):
            make = partial(negatives, different, 9000 + seed)
            yield _generated("negatives: generated", f"different, {seed}", make, known=False)
        if half == "table":
            yield from _study(data)


def _study(data: Path) -> Iterator[Case]:
    """Negatives of the study of the overlap, of each kind some, evenly from all."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "fit_overlap"))
    from pairs import labelled_pairs
    from pictures import read

    kinds = defaultdict(list)
    for pair in labelled_pairs(data):
        if not pair.overlap:
            kinds[pair.kind].append(pair)
    for kind, found in kinds.items():
        for pair in found[:: max(1, len(found) // NEGATIVES)][:NEGATIVES]:
            name = f"{pair.picture0.key} {pair.picture1.key}"
            yield Case(f"negatives: {kind}", name, lambda p=pair: (read(data, p.picture0), read(data, p.picture1)))


def _files(path0: Path, path1: Path) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    return lambda: (load_image(path0), load_image(path1))


def _generated(of: str, name: str, make: Callable[[], TiltedPair], known: bool = True) -> Case:
    """A pair that is generated when it is read."""

    def read() -> tuple[torch.Tensor, torch.Tensor]:
        pair = _made(make)
        return numpy_image_to_torch(pair.image0), numpy_image_to_torch(pair.image1)

    return Case(of, name, read, (lambda: _made(make).H) if known else None)


@lru_cache(maxsize=1)  # the pair at hand
def _made(make: Callable[[], TiltedPair]) -> TiltedPair:
    return make()


def judge(case: Case, pair: MatchedPair, size: tuple[int, int]) -> dict[str, Any]:
    """How right the matches are, and the model: that of the search where it gives one of the kind, else one of them."""
    points0, points1 = pair.points0.numpy(), pair.points1.numpy()
    record = pair.effort
    given = {} if record is None or record.model is None else {record.geometry: record.model}
    found: dict[str, Any] = {}
    if case.H is not None:
        H = case.H() if callable(case.H) else case.H
        estimate = estimate_homography(points0, points1, EstimatorOptions("opencv", AGREE))
        far = transfer_error(H, points0, points1)[estimate.inliers]
        found["right"] = bool(len(far) >= FEWEST and (far < RIGHT).mean() > 0.5)
        found["error"] = corner_error(given.get("homography", estimate.model), H, size)
        found["error of its matches"] = corner_error(estimate.model, H, size)
    if case.points is not None:
        estimate = estimate_fundamental(points0, points1, EstimatorOptions("opencv", 1.0))
        truth = estimate_fundamental(*case.points, EstimatorOptions("opencv", 3.0)).model
        far = epipolar_error(truth, points0, points1)[estimate.inliers]
        F = given.get("fundamental", estimate.model)
        found["right"] = bool(len(far) >= FEWEST and (far < RIGHT).mean() > 0.5)
        found["error"] = float(np.inf if F is None else np.mean(epipolar_error(F, *case.points)))
        found["geometry"] = None if record is None else record.geometry
    return found


def run(case: Case, models: tuple[Any, Any], efforts: list[str], max_seconds: float | None) -> Iterator[dict[str, Any]]:
    """Match one pair; for each effort a record of what came of it."""
    images = case.read()
    begin = process_time()
    plain = match_pair(*models, *images)
    found = {"normal": (plain, process_time() - begin)}
    if "hard" in efforts:  # goes on from there; by a clock that is not moved by what else the machine does
        limits: Any = {"max_seconds": max_seconds, "seconds": found["normal"][1], "clock": process_time}
        found["hard"] = match_hard(plain, images, (None, None), *models, {}, **limits), process_time() - begin
    for effort in efforts:
        pair, seconds = found[effort]
        told = {} if pair.effort is None else {"effort": str(pair.effort)}
        judged = judge(case, pair, (images[0].shape[-1], images[0].shape[-2]))
        known = {"matches": len(pair.matches), "overlap": pair.overlap, "seconds": seconds}
        yield {"set": case.set, "name": case.name, "by": effort, **known, **judged, **told}


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: a row a set."""
    lines = [
        "| set | pairs | right, normal -> hard | within 5 px | within 8 px | sure and wrong "
        "| overlap of 0.5 without one | CPU s, normal: median | hard: median | 90 % |",
        "|---|" + "---:|" * 9,
    ]
    sets: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        sets[record["set"]][record["by"]].append(record)
    known: tuple[Callable[[dict[str, Any]], bool | None], ...] = (
        lambda r: r.get("right"),
        lambda r: r["error"] < CLOSE if "error" in r else None,
        lambda r: r["error"] < RIGHT if "error" in r else None,
        lambda r: r["error"] > WRONG and (r["overlap"] or 0) >= SURE if "error" in r else None,
        lambda r: None if "right" in r else r["overlap"] >= 0.5,
    )
    for name, by in sets.items():
        both = [by["normal"], by["hard"]]
        counted = [[_count(own, of) for own in both] for of in known]
        cells = [name, str(max(map(len, both)))] + [
            f"{one} -> {other}" if one + other else "" for one, other in counted
        ]
        seconds = [np.array([r["seconds"] for r in own] or [np.nan]) for own in both]
        cells += [f"{np.median(seconds[0]):.1f}", f"{np.median(seconds[1]):.1f}", f"{np.quantile(seconds[1], 0.9):.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _count(records: list[dict[str, Any]], of: Callable[[dict[str, Any]], bool | None]) -> str:
    values = [value for value in map(of, records) if value is not None]
    return str(sum(values)) if values else ""


def main() -> None:
    """Make the missing records, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=[*SETS])
    parser.add_argument("--half", choices=("table", "tuning"), default="table", help="of the photographs")
    parser.add_argument("--features", default="aliked")
    parser.add_argument("--max-keypoints", type=int, default=1024)
    parser.add_argument("--max-seconds", type=float, default=30.0, help="for each pair, of CPU time")
    parser.add_argument("--each", type=int, default=1, help="take every so manieth pair")
    parser.add_argument("--names", nargs="+", default=[""], help="take pairs only with one of these in their names")
    parser.add_argument("--output", type=Path, default=Path("hard.jsonl"))
    parser.add_argument(
        "--stop-after", type=float, default=float("inf"), metavar="S", help="begin no pair after so long"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.output.read_text().splitlines() if options.output.exists() else []
    records = [json.loads(line) for line in lines]
    done = {(record["set"], record["name"], record["by"]) for record in records}
    models = Models(features=options.features, max_keypoints=options.max_keypoints).load()
    every = cases(options.data, options.sets, options.half)
    known = [case for case in every if any(word in case.name for word in options.names)]
    begin, left = monotonic(), 0
    for case in known[:: options.each]:
        efforts = [effort for effort in EFFORTS if (case.set, case.name, effort) not in done]
        if efforts and monotonic() - begin > options.stop_after:
            left += 1
            continue
        for record in run(case, models, efforts, options.max_seconds) if efforts else ():
            records.append(record)
            with options.output.open("a") as file:
                file.write(json.dumps(record) + "\n")
    print(table(records))
    if left:
        print(f"\n{left} pairs are left: run it again.")


if __name__ == "__main__":
    main()
