"""What fine-tuning takes beside the training, told before anything is spent: measured on one image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from lightglue.errors import InputError
from lightglue.evaluation.datasets.manifest import load_manifest
from lightglue.matching.lightglue import LightGlue
from lightglue.support.devices import find_device
from lightglue.training.extraction import ImageJob, Made, ViewWork
from lightglue.training.finetune_options import FinetuneOptions
from lightglue.training.journal import read_journal
from lightglue.training.options import TrainingOptions
from lightglue.training.pool import JOURNAL, list_source
from lightglue.training.sources.record import Listed
from lightglue.workers.engine import ProcessEngine
from lightglue.workers.local import StandingHere

__all__ = ["Estimate", "check_time", "estimated"]

TRIED = 5  # images, until one can be read
LEAST_SHARE = 0.1  # of the minutes, for training
GOOD_SHARE = 0.5  # of the minutes that are advised


@dataclass(frozen=True)
class Estimate:
    """Seconds that are not training."""

    views: int  # whose features are missing
    features: float  # until they are there
    tracks: float  # of a model's images, matched by the teacher
    pairs: int  # to judge by
    judging: float  # both weights

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.features + self.tracks + self.judging

    def text(self) -> str:
        """For people."""
        parts = [f"features of {self.views:,} views {_minutes(self.features)}"] if self.views else []
        parts += [f"tracks {_minutes(self.tracks)}"] if self.tracks else []
        return ", ".join([*parts, f"judging {self.pairs:,} pairs before and after {_minutes(self.judging)}"])


def check_time(
    training: TrainingOptions,
    folder: Path,
    old: Path,
    options: FinetuneOptions,
    keypoints: int,
    say: Callable[[str], None],
) -> None:
    """Say how much of the time is left for training. Raises InputError where it is too little.

    training: of one source. folder: of the run, whose features may be there. old: the weights to begin with.
    keypoints: of each image that is judged.
    """
    found = estimated(training, folder, old, options, keypoints)
    if found is None:
        return  # no image can be read, which is said where all of them are
    left = options.minutes - found.seconds / 60
    if left < LEAST_SHARE * options.minutes:
        advised = max(math.ceil(found.seconds / 60 / (1 - GOOD_SHARE)), 1)
        raise InputError(
            f"{options.minutes:g} minutes are too few, by an estimate: {found.text()}. Give --minutes {advised} or "
            "more, of which half is training, or fewer images, --views or --pairs."
        )
    say(f"about {left:.1f} of {options.minutes:g} min are left for training: {found.text()}")


def estimated(
    training: TrainingOptions, folder: Path, old: Path, options: FinetuneOptions, keypoints: int
) -> Estimate | None:
    """The estimate; None where none of the first images can be read. Raises InputError where there are no images."""
    source = training.data.sources[0]
    listed = list_source("", source)
    made = _made(training, listed, keypoints)
    if made is None:
        return None
    view, several = made
    match = _match_seconds(several, old, training.features.device)
    is_posed = listed.images[0].posed is not None
    a_view = 1 if is_posed else training.data.views
    there = len(read_journal(folder / "pool" / JOURNAL)[0])
    missing = max(a_view * len(listed.images) - there, 0)
    processes = ProcessEngine().count(ViewWork(training.data, training.features), math.ceil(missing / a_view))
    pairs, pictures = _judged(options, len(listed.images), is_posed)
    # Features of what is judged are kept from the first time to the second.
    judging = pictures * view + 2 * pairs * match
    matched = sum(len(each.first) for each in listed.scenes.values()) if source.kind == "model" else 0
    return Estimate(missing, missing * view / processes, matched * match, pairs, judging)


def _made(training: TrainingOptions, listed: Listed, keypoints: int) -> tuple[float, list[Made]] | None:
    """Seconds of a view in one thread, and features of two views; None where no image can be read."""
    most = max(keypoints, training.features.keypoints)
    work, here = ViewWork(training.data, replace(training.features, keypoints=most)), StandingHere(threads=1)
    found: list[Made] = []
    seconds = 0.0
    for image in islice(listed.images, TRIED):
        job = ImageJob(image, (0,) if image.posed is not None else (0, 1))
        if not found:  # once more: the first time models are loaded
            list(here.run(work, [job]))
        begin = time.monotonic()
        (made,) = here.run(work, [job])
        if made.fault is None:
            seconds = seconds or (time.monotonic() - begin) / len(job.numbers)
            found.append(made)
        if sum(len(each.views) for each in found) > 1:
            break
    return (seconds, found) if found else None


@torch.inference_mode()
def _match_seconds(made: list[Made], weights: Path, device: str) -> float:
    """Of a pair, by this process."""
    where = find_device(device)
    views = [view.features.torch(where) for each in made for view in each.views]
    pair = {"image0": views[0], "image1": views[-1]}
    matcher = LightGlue.load(weights).eval().to(where)
    matcher(pair)
    begin = time.monotonic()
    found = matcher(pair)
    int(found["stop"])  # waits for a GPU
    return time.monotonic() - begin


def _judged(options: FinetuneOptions, images: int, is_posed: bool) -> tuple[int, int]:
    """How many pairs are judged, and how many pictures they have, at most."""
    held_out = max(round(options.held_out * images), 2 if is_posed else 1)
    pictures = held_out if is_posed else held_out * options.views
    every = math.comb(held_out, 2) if is_posed else held_out * math.comb(options.views, 2)
    pairs = min(options.pairs, every)
    also = [len(load_manifest(path).pairs) for path in options.also]
    return pairs + sum(also), min(pictures, 2 * pairs) + 2 * sum(also)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 6 else f"{seconds:.0f} s"
