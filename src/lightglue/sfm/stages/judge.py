"""Which verified pairs are false: of places that only look alike. Their geometries leave COLMAP's table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.colmap.judged import Judgement, drop, judged_of, read_judgements, restore, verified_pairs
from lightglue.sfm.colmap.state import digest_of, pair_states, read_state
from lightglue.sfm.look_alikes.decide import decide
from lightglue.sfm.look_alikes.evidence import gather_evidence
from lightglue.sfm.look_alikes.knowledge import Knowledge
from lightglue.sfm.look_alikes.view_graph import read_view_graph
from lightglue.sfm.options import VerifyOptions
from lightglue.sfm.stages.exif import location_of, time_of
from lightglue.sfm.stages.pairing.positions import earth_centred
from lightglue.stores import MatchStore
from lightglue_runtime.images.exif import read_exif

__all__ = ["JudgeResult", "judge_pairs"]

_VERSION = 2  # of the method: others judge anew


@dataclass(frozen=True)
class JudgeResult:
    """What became of the verified pairs of a database."""

    judgements: Mapping[int, Judgement]  # by the number of the pair
    seconds: float
    was_there: bool  # nothing had changed since they were judged

    def counts(self) -> dict[str, float]:
        """The figures that a map remembers."""
        some = self.judgements.values()
        return {
            "dropped": sum(each.reason is not None for each in some),
            "doubtful": sum(each.doubtful for each in some),
        }


def judge_pairs(
    path: str | os.PathLike[str],
    options: VerifyOptions | None = None,
    matches: MatchStore | None = None,
    images: Path | None = None,
    given: Iterable[tuple[str, str]] = (),
) -> JudgeResult:
    """Drop the false ones of a database's verified pairs.

    Args:
        path: a database that `verify` has gone through.
        options: those of `verify`. With `drop_look_alikes` False all pairs stay, or come back.
        matches: the raw matches, whose scores tell look-alikes from true pairs.
        images: the folder of the images, whose EXIF may say when and where they were taken. None: it is not read.
        given: pairs that somebody chose by name, which speaks for them.

    A dropped pair keeps its raw matches, and `lightglue.sfm.colmap.judged` the reason. Other images or pairs, added
    later, may bring it back.

    Raises InputError where there is no such database; StoreError where it is damaged or cannot be written.
    """
    begin = perf_counter()
    path, options = Path(path), options or VerifyOptions()
    state = read_state(path, is_complete=True)
    known = _knowledge(state.names, images, given)
    times, positions, chosen = known
    told = [times, None if positions is None else positions.tolist(), chosen]
    said = [_VERSION, asdict(options), asdict(state), list(pair_states(path).items()), matches is not None, told]
    made_of = digest_of(json.dumps(said, sort_keys=True, default=str).encode())
    if judged_of(path) == made_of:
        return JudgeResult(read_judgements(path), perf_counter() - begin, was_there=True)
    restore(path)
    judgements: list[Judgement] = []
    if options.drop_look_alikes:
        graph = read_view_graph(path, state, list(verified_pairs(path, options.min_inliers)), matches)
        decision = decide(graph, gather_evidence(graph), Knowledge.of(state.names, *known), options.seed)
        judgements = [
            Judgement(
                pair.number,
                round(float(decision.probability[row]), 6),
                round(float(decision.residual[row]), 4),
                pair.num_inliers,
                decision.reasons[row],
                bool(decision.doubtful[row]),
                round(float(decision.alone[row]), 6),
            )
            for row, pair in enumerate(graph.pairs)
        ]
    drop(path, judgements, made_of)
    return JudgeResult({each.number: each for each in judgements}, perf_counter() - begin, was_there=False)


def _knowledge(
    names: Iterable[str], images: Path | None, given: Iterable[tuple[str, str]]
) -> tuple[list[float] | None, NDArray[np.float64] | None, list[tuple[str, str]]]:
    """When and where images were taken, by their files, and the pairs that somebody chose."""
    chosen = sorted(set(given))
    if images is None:
        return None, None, chosen
    times, places = [], []
    for name in names:
        exif = read_exif(images / name)
        times.append(time_of(exif))
        location = location_of(exif)
        places.append((np.nan, np.nan) if location is None else (location.latitude, location.longitude))
    if np.isnan(places).all():
        return times, None, chosen
    latitude, longitude = np.array(places, np.float64).T
    return times, earth_centred(latitude, longitude, np.zeros_like(latitude)), chosen
