"""What a benchmark runs: from the options to rows of the table, and who runs in each with which options. No torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightglue.errors import InputError
from lightglue.models.defaults import MAX_KEYPOINTS, RESIZE
from lightglue.models.registry import FEATURES as FEATURE_TYPES

__all__ = ["FEATURES", "STAGES", "Contestant", "Row", "Settings", "plan_rows"]

# Stage -> what it measures, and its numbers of keypoints where the user says none.
STAGES: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        "match": ("features to matches", (256, 512, 1024, 2048, 4096)),  # the published benchmark's
        "extract": ("an image in memory to features", (MAX_KEYPOINTS,)),
        "pair": ("two image files to matches", (MAX_KEYPOINTS,)),
        "batch": ("many pairs of different sizes to matches", (512,)),
    }
)
# Feature type -> extractor and the options that make it return its best keypoints: those of the published package.
FEATURES: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        name: (row.extractor, row.best)
        for name, row in FEATURE_TYPES.items()
        if name in ("aliked", "disk", "superpoint", "sift", "doghardnet")
    }
)
MODES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"full": {"depth_confidence": -1, "width_confidence": -1}, "adaptive": {}}
)
SUPERGLUE_ITERATIONS = 5  # of Sinkhorn's algorithm: the published benchmark's "SuperGlue-fast"
SEED = 0  # of the batch's numbers of keypoints
TOLERANCES = {"match": 0.0, "batch": 0.0, "extract": 0.1, "pair": 1.0}  # indices are equal or not; px


@dataclass(frozen=True)
class Settings:
    """The options of a benchmark, under the names of the command line."""

    stages: tuple[str, ...] = ("match",)
    features: str = "aliked"
    num_keypoints: tuple[int, ...] = ()  # none: each stage's own
    device: str = "auto"
    mp: bool | None = None  # None: as `lightglue match` does in stage pair, off in the others
    compile: bool = False
    flash: bool = True
    prune_thresholds: bool = True
    add_superglue: bool = False
    superglue_weights: Path | None = None  # None: random ones
    resize: int | None = RESIZE  # px of the longer side for extraction
    image_size: int | None = None  # px of both sides to stretch the photographs to; None: as they are
    batch_size: int = 64  # pairs
    threads: int | None = None  # None: torch's own choice
    matmul_precision: str = "highest"
    memory: bool = False  # measure memory instead of time
    repeat: int | None = None  # rounds; None: by the budget
    budget: float = 20  # seconds for the rounds of one row
    timeout: float = 600  # seconds for one answer of a worker
    against: bool = False  # the published package beside ours


@dataclass(frozen=True)
class Contestant:
    """One implementation with its options in one row."""

    label: str
    side: str  # whose worker runs it: "ours" or "published"
    request: Mapping[str, Any]  # to prepare it, as `worker.py` reads it
    bases: tuple[str, ...] = ()  # labels of those that it is compared with
    same_result: bool = True  # as its bases, but for rounding


@dataclass(frozen=True)
class Row:
    """What is run in turn, by all contestants on the same input."""

    stage: str
    pair: str
    keypoints: int
    mode: str
    contestants: tuple[Contestant, ...]
    inputs: tuple[str, ...] = field(default=())  # pairs whose features it reads

    @property
    def tolerance(self) -> float:
        """How far apart equal results may lie."""
        return TOLERANCES[self.stage]


def features_file(folder: Path, pair: str, keypoints: int) -> Path:
    """Where the features of a pair are kept for both sides."""
    return folder / f"{pair}-{keypoints}.npz"


def extractor_request(settings: Settings, keypoints: int) -> tuple[str, dict[str, Any]]:
    """The extractor's class and options, as `worker.py` reads them."""
    name, options = FEATURES[settings.features]
    return name, {**options, "max_num_keypoints": keypoints}


def plan_rows(settings: Settings, pairs: Mapping[str, tuple[Path, Path]], folder: Path) -> Iterator[Row]:
    """All rows of a benchmark on these pairs; features lie in `folder`. Raises InputError."""
    if settings.add_superglue and "match" not in settings.stages:
        raise InputError("--add-superglue belongs to the stage match; add --stage match.")
    makers = {"match": _match_rows, "extract": _image_rows, "pair": _image_rows, "batch": _batch_rows}
    for stage in settings.stages:
        for keypoints in settings.num_keypoints or STAGES[stage][1]:
            yield from makers[stage](settings, pairs, folder, stage, keypoints)


def _match_rows(
    settings: Settings, pairs: Mapping[str, tuple[Path, Path]], folder: Path, stage: str, keypoints: int
) -> Iterator[Row]:
    for pair in pairs:
        for mode in MODES:
            request = {"inputs": features_file(folder, pair, keypoints)}
            contestants = _both(settings, stage, mode, request, settings.mp or False)
            if settings.add_superglue and mode == "full":
                contestants.append(_superglue(settings, request, bases=(contestants[0].label,)))
            yield Row(stage, pair, keypoints, mode, tuple(contestants), (pair,))


def _image_rows(
    settings: Settings, pairs: Mapping[str, tuple[Path, Path]], folder: Path, stage: str, keypoints: int
) -> Iterator[Row]:
    for pair, images in pairs.items():
        request = {
            "images": images,
            "extractor": extractor_request(settings, keypoints),
            "resize": settings.resize,
        }
        # None leaves it to the command line's defaults, which the whole way from files to matches is measured with.
        mp = settings.mp if stage == "pair" else settings.mp or False
        contestants = _both(settings, stage, "adaptive", request, mp)
        yield Row(stage, pair, keypoints, "adaptive" if stage == "pair" else "", tuple(contestants))


def _batch_rows(
    settings: Settings, pairs: Mapping[str, tuple[Path, Path]], folder: Path, stage: str, keypoints: int
) -> Iterator[Row]:
    chance = random.Random(SEED)
    low = max(1, keypoints // 4)
    counts = [[chance.randint(low, keypoints) for _ in range(2)] for _ in range(settings.batch_size)]
    inputs = [features_file(folder, pair, keypoints) for pair in pairs]
    for mode in MODES:
        request = {"inputs": inputs, "counts": counts}
        alone = [
            Contestant(
                f"{each.label} one by one",
                each.side,
                {**each.request, "together": False},
                tuple(f"{base} one by one" for base in each.bases),
            )
            for each in _both(settings, stage, mode, request, settings.mp or False)
        ]
        ours = alone[0]
        together = Contestant(
            ours.label.replace("one by one", "in one call"),
            ours.side,
            {**ours.request, "together": True},
            (*ours.bases, ours.label),
        )
        pair = f"{settings.batch_size} pairs"
        yield Row(stage, pair, keypoints, mode, (together, *alone), tuple(pairs))


def _both(settings: Settings, stage: str, mode: str, request: Mapping[str, Any], mp: bool | None) -> list[Contestant]:
    """Ours and, where wanted, the published one, each plain and, where wanted, compiled."""
    found: list[Contestant] = []
    for compiled in (False, True) if settings.compile and stage != "extract" else (False,):
        ending = " compiled" * compiled
        published = f"published{ending}"
        ours = ("ours mp" if mp else "ours") + ending
        bases = (published,) if settings.against else (found[0].label,) if compiled else ()
        found.append(_contestant(settings, stage, mode, request, ours, "ours", compiled, mp, bases))
        if settings.against:
            found.append(_contestant(settings, stage, mode, request, published, "published", compiled, bool(mp), ()))
    return found


def _contestant(
    settings: Settings,
    stage: str,
    mode: str,
    request: Mapping[str, Any],
    label: str,
    side: str,
    compiled: bool,
    mp: bool | None,
    bases: tuple[str, ...],
) -> Contestant:
    if stage == "extract":
        return Contestant(label, side, {"task": stage, "mp": mp, **request}, bases)
    matcher = {"features": settings.features, "flash": settings.flash, "mp": mp, **MODES[mode]}
    options = {"matcher": matcher, "compile": compiled, "prune_thresholds": settings.prune_thresholds, "mp": mp}
    return Contestant(label, side, {"task": stage, **request, **options}, bases)


def _superglue(settings: Settings, request: Mapping[str, Any], bases: tuple[str, ...]) -> Contestant:
    weights = settings.superglue_weights
    label = "SuperGlue-fast" if weights else "SuperGlue-fast (random weights)"
    options = {"weights": None if weights is None else str(weights), "sinkhorn_iterations": SUPERGLUE_ITERATIONS}
    return Contestant(label, "ours", {"task": "match", **request, "superglue": options}, bases, same_result=False)
