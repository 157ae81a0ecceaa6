"""The one benchmark loop: match every pair, judge it, write its record.

A pair that cannot be matched (no file, no truth, no matches, a degenerate model) is a record with a failure, and the
loop goes on. What is on disk is not done again.
"""

from __future__ import annotations

import datetime
import io
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import lightglue
from lightglue.errors import ImageError, InputError, LightGlueError
from lightglue.evaluation import metrics
from lightglue.evaluation.datasets.image_files import camera_fault
from lightglue.evaluation.pair import (
    Benchmark,
    Pair,
    Protocol,
    RelativePose,
    Scale,
    fingerprint,
    images_fingerprint,
    scaled_points,
)
from lightglue.evaluation.records import (
    Metric,
    Record,
    RecordWriter,
    Run,
    matches_path,
    read_run,
    remove_empty,
    start_run,
)
from lightglue.geometry.refine import RefineOptions, refine_matches
from lightglue.images import load_image
from lightglue.models.choice import Models
from lightglue.pairs.hard.options import MAX_SECONDS, check_max_seconds
from lightglue.pairs.record import MatchedPair
from lightglue.support.caches import BoundedCache
from lightglue.support.files import write_whole
from lightglue.support.memory import is_out_of_memory
from lightglue.support.progress import Progress
from lightglue.timing import wait_for_gpu
from lightglue.workers.engine import ProcessEngine
from lightglue_runtime.resize import target_size

__all__ = ["Job", "evaluate"]

REMEMBERED = 16  # images whose features are kept: neighbouring pairs share images
CHUNK, LONGEST = 4, 12  # pairs that a worker takes at once; at most, while they share images


@dataclass(frozen=True)
class Job:
    """What each pair of a benchmark is matched with."""

    models: Models
    extract: Mapping[str, Any] = field(default_factory=dict)  # options of `extract`; the protocol's resize is usual
    refine: bool = False
    max_seconds: float | None = MAX_SECONDS  # for a pair beyond plain matching, with effort "hard"

    def __post_init__(self) -> None:
        check_max_seconds(self.max_seconds, self.models.effort)

    def settings(self, protocol: Protocol) -> dict[str, Any]:
        """All that decides the results, for the records."""
        models = replace(self.models, mp=self.models.with_mp(), device=self.models.found_device().type).decisive()
        return {
            "version": lightglue.__version__,
            "protocol": asdict(protocol),
            "models": models,
            "extract": dict(self.extract),
            "refine": asdict(RefineOptions()) if self.refine else None,
            **({"max_seconds": self.max_seconds} if self.models.effort == "hard" else {}),
        }


def evaluate(
    benchmark: Benchmark,
    job: Job,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
    about: Mapping[str, Any] | None = None,
    seen: dict[Path, Any] | None = None,
) -> Run:
    """Run `job` on every pair of `benchmark` that `folder` has no record of.

    Args:
        folder: where the records go; one that holds another run is refused.
        workers: processes with one thread and models of its own each; None for as many as fit and are worth it. The
            records do not depend on their number.
        about: what else is to be remembered of the run, such as the machine.
        seen: keeps the features of all images for another run, with another matcher, of this process: the caller's
            word that extractor, its options and the protocol are the same. Such a run has one process, this one. By
            default only the last images are kept.

    Raises:
        InputError: a benchmark without pairs, a folder that holds another run, workers that make no sense, or several
            of them with `seen`.

    A worker that is killed is replaced; a pair that kills several is a record with a failure.
    """
    if not benchmark.pairs:
        raise InputError(f"The benchmark {benchmark.name} has no pairs; look at its files.")
    if seen is not None and workers not in (None, 1):
        raise InputError(f"workers is {workers!r}, and `seen` keeps features in this process; leave out one of them.")
    figures = metrics.metrics_of(benchmark.kind, benchmark.protocol)
    task = _Task(benchmark.protocol, figures, job, folder)
    workers = 1 if seen is not None else ProcessEngine(workers).count(task, ceil(len(benchmark.pairs) / CHUNK))
    wanted = Run(
        folder,
        benchmark.name,
        benchmark.kind,
        pairs=tuple(pair.name for pair in benchmark.pairs),
        metrics=figures,
        settings={
            **job.settings(benchmark.protocol),
            "truth": fingerprint(benchmark),
            "images": images_fingerprint(benchmark),
        },
        about={
            "source": benchmark.source,
            "licence": benchmark.licence,
            "notes": list(benchmark.notes),
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "versions": _versions(),
            "workers": workers,
            **(about or {}),
        },
    )
    run = start_run(wanted)
    done = {record.index for record in run.records}
    waiting = [(i, pair) for i, pair in enumerate(benchmark.pairs) if i not in done]
    try:
        with RecordWriter(run) as writer:
            records = _records(waiting, task, workers, seen)
            for count, record in enumerate(records, 1):
                writer.write(record)
                progress(len(done) + count, len(benchmark.pairs))
    except LightGlueError:
        remove_empty(folder)
        raise
    return read_run(folder)


def _versions() -> dict[str, str]:
    """Of what decides the results; a library that is not installed has none."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("numpy", "opencv-python-headless", "poselib", "pycolmap"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


_Waiting = Sequence[tuple[int, Pair]]


@dataclass(frozen=True)
class _Task:
    """What a worker must know."""

    protocol: Protocol
    figures: tuple[Metric, ...]
    job: Job
    folder: Path
    together: int = 1  # run of pairs

    @property
    def seconds(self) -> float:
        """See `lightglue.workers.work.Work`."""
        models = self.job.models
        return CHUNK * (2 * models.seconds_an_image() + models.seconds_a_pair())

    @property
    def on_cpu(self) -> bool:
        """See `Work`."""
        return self.job.models.found_device().type == "cpu"

    def worker(self) -> _Worker:
        """One with models of its own. Raises LightGlueError."""
        return _Worker(self)

    def failed(self, chunk: _Waiting, reason: str) -> list[Record]:
        """The records of pairs that nobody could do."""
        return [_failed(self, index, pair, reason) for index, pair in chunk]


def _records(waiting: _Waiting, task: _Task, workers: int, seen: dict[Path, Any] | None) -> Iterator[Record]:
    """The records of the pairs, as they are done."""
    if seen is not None:  # which only this process has
        if waiting:
            yield from _Worker(task, seen).records(waiting)
        return
    chunks = _chunks(waiting) if workers > 1 else ((each,) for each in waiting)
    for records in ProcessEngine(workers).run(task, chunks):
        yield from records


def _chunks(waiting: _Waiting) -> Iterator[_Waiting]:
    """Runs of neighbouring pairs: as long as they share images, but not so long that others have nothing to do."""
    start = 0
    for i in range(1, len(waiting) + 1):
        shares = i < len(waiting) and bool(_images(waiting[i][1]) & _images(waiting[i - 1][1]))
        if i - start >= (LONGEST if shares else CHUNK) or i == len(waiting):
            yield waiting[start:i]
            start = i


def _images(pair: Pair) -> set[Path]:
    return {pair.image0, pair.image1}


@dataclass(frozen=True, eq=False)
class _Seen:
    """An image and its features."""

    image: torch.Tensor  # (C, H, W)
    features: dict[str, Any]  # with batch dimension, px of the file
    scale: Scale  # of the image as it is judged
    seconds: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image as it is judged, px."""
        h, w = self.image.shape[-2:]
        return round(w * self.scale[0]), round(h * self.scale[1])


class _Worker:
    """Models, and the features of the images seen last."""

    threads = 1

    def __init__(self, task: _Task, seen: dict[Path, _Seen] | None = None) -> None:
        self.task, job = task, task.job
        self.extractor, self.matcher = job.models.load()
        if job.extract:
            self.extractor.try_options(job.extract)  # no fault of the images
        self.seen = seen
        self.recent: BoundedCache[Path, _Seen] = BoundedCache(REMEMBERED)

    def read(self, chunk: _Waiting) -> None:
        """Images are read as they are needed."""

    def compute(self, chunk: _Waiting, read: None) -> list[Record]:
        """The record of each pair, whose matches are then on the disk."""
        return list(self.records(chunk))

    def close(self) -> None:
        """Nothing waits here."""

    def records(self, pairs: _Waiting) -> Iterator[Record]:
        """See `compute`."""
        for index, pair in pairs:
            try:
                yield self._record(index, pair)
            except (ImageError, InputError) as error:
                yield _failed(self.task, index, pair, " ".join(str(error).split()))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                yield _failed(self.task, index, pair, "there is not enough memory for this pair")

    def _record(self, index: int, pair: Pair) -> Record:
        if pair.truth is None:
            return _failed(self.task, index, pair, pair.fault or "there is no truth about this pair")
        if fault := _lens_fault(pair):
            return _failed(self.task, index, pair, fault)
        first, second = self._look(pair.image0), self._look(pair.image1)
        truth = pair.truth.scaled(first.scale, second.scale)
        matched, ends, seconds = self._match(first, second)
        begin = perf_counter()
        judged = metrics.judge(matched, truth, self.task.protocol)
        seconds |= {"extract": first.seconds + second.seconds, "estimate": perf_counter() - begin}
        known = {} if judged.correct is None else {"correct": judged.correct}
        content = io.BytesIO()
        np.savez_compressed(content, **ends, inliers=judged.inliers, **known)  # type: ignore[arg-type]
        write_whole(matches_path(self.task.folder, index), content.getvalue())
        return Record(
            pair=pair.name,
            index=index,
            scene=pair.scene,
            image0=str(pair.image0.absolute()),
            image1=str(pair.image1.absolute()),
            failure=judged.failure,
            num_keypoints=tuple(each.features["keypoints"].shape[1] for each in (first, second)),
            num_matches=len(matched.points0),
            values=judged.values,
            seconds={name: round(seconds[name], 5) for name in ("extract", "match", "refine", "estimate")},
        )

    def _look(self, path: Path) -> _Seen:
        """The image and its features, from memory where it was among the last, or among all that are kept."""
        if self.seen is None:
            return self.recent.get(path, lambda: self._extract(path))
        if path not in self.seen:
            self.seen[path] = self._extract(path)
        return self.seen[path]

    @torch.inference_mode()
    def _extract(self, path: Path) -> _Seen:
        image = load_image(path).to(self.task.job.models.found_device())
        resize, side = self.task.protocol.resize, self.task.protocol.side
        begin = perf_counter()
        features = self.extractor.extract(image, **self._extract_options())
        wait_for_gpu()
        seconds = perf_counter() - begin
        h, w = image.shape[-2:]
        new_h, new_w = (h, w) if resize is None else target_size(h, w, resize, side)
        return _Seen(image, features, (new_w / w, new_h / h), seconds)

    def _extract_options(self) -> dict[str, Any]:
        resize, side = self.task.protocol.resize, self.task.protocol.side
        return {"resize": resize, **({"side": side} if resize else {}), **self.task.job.extract}

    @torch.inference_mode()
    def _match(self, first: _Seen, second: _Seen) -> tuple[metrics.Matched, dict[str, NDArray[Any]], dict[str, float]]:
        """The matches as they are judged, as they are in the files, and seconds."""
        begin = perf_counter()
        result = self.matcher({"image0": first.features, "image1": second.features})
        pair = MatchedPair.of(first.features, second.features, result)
        if self.task.job.models.effort == "hard":
            pair = self._try_hard(pair, first, second)
        seconds = {"match": perf_counter() - begin}
        points0, points1 = pair.points0, pair.points1
        begin = perf_counter()
        if self.task.job.refine:
            refined = refine_matches(first.image, second.image, points0, points1)
            points0, points1 = refined.points0.cpu(), refined.points1.cpu()
        seconds["refine"] = perf_counter() - begin
        ends = {"points0": points0.numpy(), "points1": points1.numpy(), "scores": pair.scores.numpy()}
        matched = metrics.Matched(
            scaled_points(ends["points0"], first.scale),
            scaled_points(ends["points1"], second.scale),
            ends["scores"].astype(np.float64),
            first.size,
        )
        return matched, ends, seconds

    def _try_hard(self, pair: MatchedPair, first: _Seen, second: _Seen) -> MatchedPair:
        """`pair` with what simulated views find, where plain matching has found little."""
        from lightglue.pairs.hard.pair import match_hard

        job = self.task.job
        images = first.image, second.image
        options = self._extract_options()
        return match_hard(
            pair, images, (None, None), self.extractor, self.matcher, options, max_seconds=job.max_seconds
        )


def _failed(task: _Task, index: int, pair: Pair, reason: str) -> Record:
    images = str(pair.image0.absolute()), str(pair.image1.absolute())
    return Record(pair.name, index, pair.scene, *images, reason, (0, 0), 0, metrics.worst(task.figures))


def _lens_fault(pair: Pair) -> str | None:
    """Why an image is not what its camera with a lens, which knows its size, saw."""
    if not isinstance(pair.truth, RelativePose):
        return None
    for image, camera in ((pair.image0, pair.truth.camera0), (pair.image1, pair.truth.camera1)):
        if camera.colmap is None or not os.path.isfile(image):  # False also for a name that no file can have
            continue
        if fault := camera_fault(image, camera.colmap.width, camera.colmap.height):
            return f"{image.name} does not fit its camera: {fault}."
    return None
