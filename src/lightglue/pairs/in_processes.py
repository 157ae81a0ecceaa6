"""The work of `match_pairs` in several processes: first images, each once, then pairs, a few at a time.

Each process has the models; their weights lie in memory once: see `lightglue.workers.parcels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast

import torch

from lightglue.errors import LightGlueError
from lightglue.pairs.hard.attempt import Attempt
from lightglue.pairs.oriented import OrientedImage, pair_of
from lightglue.pairs.postprocessing import PostProcessing
from lightglue.pairs.record import MatchedPair, PairFeatures
from lightglue.pairs.rotation import Probes, find_angle
from lightglue.workers.count import is_short
from lightglue.workers.crew import Crew

__all__ = ["TOGETHER", "PairsWork", "match_in_processes"]

TOGETHER = 4  # pairs that a process matches at once; a core gains nothing from more

Two = tuple[OrientedImage, OrientedImage]


@dataclass(frozen=True, eq=False)
class PairsWork:
    """Rotations, features and matches of images that a job brings along: its kind, its number, and what it needs."""

    extractor: Any
    matcher: Any
    preprocess: Mapping[str, Any]
    angles: Sequence[float]
    after: PostProcessing
    attempt: Attempt | None = None  # with the effort "hard"
    together: int = 1
    seconds: float = 1.5  # of a pair of 2,048 keypoints and its images, about

    @property
    def on_cpu(self) -> bool:
        """Whether both models compute there."""
        tensors = (
            tensor
            for model in (self.extractor, self.matcher)
            if isinstance(model, torch.nn.Module)
            for tensor in (*model.parameters(), *model.buffers())
        )
        return all(tensor.device.type == "cpu" for tensor in tensors)

    def worker(self) -> PairsWorker:
        """One with these models."""
        return PairsWorker(self)

    def failed(self, job: tuple[str, int, Any], reason: str) -> Any:
        """Pairs cannot be left out. Raises LightGlueError."""
        raise LightGlueError(f"{job[0]} {job[1]}: {reason}")


class PairsWorker:
    """Does the jobs with the models that it was sent."""

    threads = 1

    def __init__(self, work: PairsWork) -> None:
        self.work, self.probes = work, Probes(work.extractor)

    def read(self, job: tuple[str, int, Any]) -> None:
        """All is there already."""

    def compute(self, job: tuple[str, int, Any], read: None) -> tuple[int, Any]:
        """The number of the job, and its result."""
        kind, number, given = job
        does: dict[str, Callable[..., Any]] = {"rotation": self._angle, "image": self._extract, "pairs": self._match}
        return number, does[kind](*given)

    def close(self) -> None:
        """Nothing waits here."""

    def _alone(self, data: Mapping[str, Any]) -> Any:
        return self.work.matcher.match([(data["image0"], data["image1"])])[0]

    def _angle(self, small0: Any, small1: Any) -> float:
        return find_angle(self.probes, self._alone, small0, small1, self.work.angles)

    def _extract(self, image: OrientedImage) -> Any:
        return image.extract(self.work.extractor, self.work.preprocess)

    def _match(self, features: Sequence[Any], images: Sequence[Any], cameras: Sequence[Any]) -> list[Any]:
        """The matches of each pair, and its features where they are others than those given."""
        work, begin = self.work, perf_counter()
        found = work.matcher.match(features)
        share = (perf_counter() - begin) / max(1, len(features))
        results = []
        for two, both, result, own in zip(features, images, found, cameras, strict=True):
            plain = pair_of(two, both, result, bool(work.angles))
            pair = plain if work.attempt is None else work.attempt(plain, both, self._alone, share)
            ends = None if pair.features0 is plain.features0 else (pair.features0, pair.features1)
            results.append((work.after.apply(pair, both, own).matches01, ends))
        return results


def match_in_processes(
    work: PairsWork, count: int, pairs: Sequence[Two], cameras: Sequence[Any], device: torch.device
) -> list[MatchedPair]:
    """The record of each pair of images, which are not rotated yet; cameras: what is known of both, or None."""
    with Crew(work, count, is_short) as crew:
        if work.angles:
            numbers = {id(image.image): i for i, image in enumerate(image for two in pairs for image in two)}
            small = [((numbers[id(a.image)], a.image), (numbers[id(b.image)], b.image)) for a, b in pairs]
            angles = _done(crew, "rotation", small)
            pairs = [(a, OrientedImage(b.image, b.mask, angle)) for (a, b), angle in zip(pairs, angles, strict=True)]
        oriented = {image.key: image for two in pairs for image in two}
        extracted = _done(crew, "image", [(image,) for image in oriented.values()])
        features = dict(zip(oriented, extracted, strict=True))
        matched = [(features[a.key], features[b.key]) for a, b in pairs]
        # Images are sent again only where they are looked at, or say how large a rotated one was.
        looked_at = work.after.refine or work.angles or work.attempt is not None
        seen = pairs if looked_at else [(OrientedImage(None, None),) * 2] * len(pairs)
        chunks = [slice(start, start + TOGETHER) for start in range(0, len(pairs), TOGETHER)]
        found = _done(crew, "pairs", [(matched[each], seen[each], cameras[each]) for each in chunks])
    records = []
    for two, both, (matches, ends) in zip(matched, pairs, (each for chunk in found for each in chunk), strict=True):
        record = pair_of(two, both, {}, False, device)
        if ends is not None:
            own = ({name: _moved(value, device) for name, value in features.items()} for features in ends)
            record = record._replace(features0=cast(PairFeatures, next(own)), features1=cast(PairFeatures, next(own)))
        records.append(record.with_matches(**{name: _moved(value, device) for name, value in matches.items()}))
    return records


def _done(crew: Crew, kind: str, given: Iterable[Any]) -> list[Any]:
    """The results of jobs of a kind, in their order."""
    results = dict(crew.run((kind, number, each) for number, each in enumerate(given)))
    return [results[number] for number in range(len(results))]


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value
