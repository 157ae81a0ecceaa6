"""What a benchmark runs: from the options to rows of the table, and who runs in each with which options. No torch."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from lightglue.errors import InputError
from lightglue.extractors.options import RESIZE
from lightglue.models.choice import Models
from lightglue.models.registry import FEATURES as FEATURE_TYPES
from lightglue.options import option
from lightglue.support.parsers import DEVICES, device, integer, known, real

__all__ = ["FEATURES", "STAGES", "Contestant", "Row", "Settings", "plan_rows"]

# Stage -> what it measures, and its numbers of keypoints where the user says none.
STAGES: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        "match": ("features to matches", (256, 512, 1024, 2048, 4096)),  # the published benchmark's
        "extract": ("an image in memory to features", (Models.max_keypoints,)),
        "pair": ("two image files to matches", (Models.max_keypoints,)),
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
LARGEST_EDGE = 20_000  # px; memory grows with its square
TOLERANCES = {"match": 0.0, "batch": 0.0, "extract": 0.1, "pair": 1.0}  # indices are equal or not; px


_parse_px = integer(f"a number of px from 1 to {LARGEST_EDGE}, or none", 1, LARGEST_EDGE)
_parse_seconds = real("a number of seconds above 0", sys.float_info.min, 1e6)


def _parse_edge(text: str) -> int | None:
    return None if text == "none" else _parse_px(text)


def _parse_against(text: str) -> bool:
    return bool(known(text, ("published",)))


@dataclass(frozen=True)
class Settings:
    """The options of a benchmark."""

    stages: tuple[str, ...] = option(
        ("match",), "What to measure. Repeatable.", flag="--stage", choices=(*STAGES, "all"), group="Measurement"
    )
    num_keypoints: tuple[int, ...] = option(
        (),  # each stage's own
        "Keypoints of each image; several values at once, or repeated.",
        metavar="N",
        parse=integer("a number of keypoints from 1 to 1000000"),
        repeated=True,
        group="Measurement",
    )
    memory: bool = option(False, "Measure memory instead of time, in fresh processes.", group="Measurement")
    repeat: int | None = option(
        None,  # by the budget
        "Rounds of each row.",
        flag="--repeat --r",
        parse=integer("a number of rounds from 1 to 1000000"),
        group="Measurement",
    )
    budget: float = option(
        20.0,
        "Seconds for the rounds of a row; 5 to 100 rounds.",
        metavar="S",
        parse=_parse_seconds,
        group="Measurement",
    )
    timeout: float = option(
        600, "Seconds after which a worker counts as hung.", metavar="S", parse=_parse_seconds, group="Measurement"
    )
    features: str = option("aliked", "Kind of keypoints.", choices=tuple(FEATURES), group="Features")
    resize: int | None = option(
        RESIZE, "px of the longer side for extraction, or none.", metavar="N", parse=_parse_edge, group="Features"
    )
    image_size: int | None = option(
        None,  # as they are
        "Stretch the images to N x N px first.",
        metavar="N",
        parse=_parse_edge,
        group="Features",
    )
    batch_size: int = option(
        64, "Pairs of stage batch.", parse=integer("a number of pairs from 1 to 1000000"), group="Matching"
    )
    compile: bool = option(False, "Run everything compiled, too.", group="Matching")
    flash: bool = option(True, "Without FlashAttention.", flag="--no-flash", group="Matching")
    prune_thresholds: bool = option(
        True, "Prune at any number of keypoints.", flag="--no-prune-thresholds", group="Matching"
    )
    add_superglue: bool = option(False, "Run SuperGlue, too.", group="Matching")
    superglue_weights: Path | None = option(None, "Weights of SuperGlue; random ones without.", group="Matching")
    against: bool = option(
        False,
        "Run the published package in turn.",
        metavar="published",
        choices=("published",),
        parse=_parse_against,
        group="Comparison",
    )
    device: str = option("auto", "Where to compute.", parse=device, choices=DEVICES, group="Machine")
    mp: bool | None = option(None, "Ours in reduced precision; by default in stage pair, where fast.", group="Machine")
    threads: int | None = option(
        None,  # torch's own choice
        "Threads of each side.",
        parse=integer("a number of threads from 1 to 1000000"),
        group="Machine",
    )
    matmul_precision: Literal["highest", "high", "medium"] = option(
        "highest", "Precision of torch's float32 products.", group="Machine"
    )

    def __post_init__(self) -> None:
        stages = tuple(STAGES) if "all" in self.stages else tuple(dict.fromkeys(self.stages))
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "num_keypoints", tuple(dict.fromkeys(self.num_keypoints)))


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
        runs = [(ours, "ours", mp, bases)]
        if settings.against:
            runs.append((published, "published", bool(mp), ()))
        for label, side, reduced, others in runs:
            options: dict[str, Any] = {"mp": reduced}
            if stage != "extract":
                matcher = {"features": settings.features, "flash": settings.flash, "mp": reduced, **MODES[mode]}
                options |= {"matcher": matcher, "compile": compiled, "prune_thresholds": settings.prune_thresholds}
            found.append(Contestant(label, side, {"task": stage, **request, **options}, others))
    return found


def _superglue(settings: Settings, request: Mapping[str, Any], bases: tuple[str, ...]) -> Contestant:
    weights = settings.superglue_weights
    label = "SuperGlue-fast" if weights else "SuperGlue-fast (random weights)"
    options = {"weights": None if weights is None else str(weights), "sinkhorn_iterations": SUPERGLUE_ITERATIONS}
    return Contestant(label, "ours", {"task": "match", **request, "superglue": options}, bases, same_result=False)
