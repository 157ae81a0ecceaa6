"""The validation pairs that a trained matcher does worst on, as pictures for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lightglue.drawing.matches import plot_match_summary
from lightglue.errors import LightGlueError
from lightglue.matching.lightglue import LightGlue
from lightglue.support.files import write_whole, writing
from lightglue.training.contract import Sample, Samples
from lightglue.training.fitting.calibration import judged_matches

__all__ = ["WorstPair", "draw_worst"]

PICTURES = 6
LOOKED_AT = 200  # pairs


@dataclass(frozen=True)
class WorstPair:
    """A pair, how it was matched, and where its picture is."""

    views: tuple[str, str]
    matches: int  # whose truth is known
    correct: int
    positives: int  # true matches
    picture: str | None  # a file beside the report, None where the image cannot be read
    why: str = ""  # there is none

    @property
    def f_score(self) -> float:
        """Of precision and recall; 1 where there is nothing to find and nothing was found."""
        every = self.matches + self.positives
        return 2 * self.correct / every if every else 1.0


def draw_worst(matcher: LightGlue, samples: Samples, pairs: Sequence[Sample], folder: Path) -> tuple[WorstPair, ...]:
    """The pairs with the lowest F score, the worst first, with pictures in `folder`."""
    found = [(_judged(matcher, pair), pair) for pair in pairs[:LOOKED_AT]]
    found.sort(key=lambda each: each[0].f_score)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return tuple(_drawn(matcher, samples, *each, folder / f"{i}.jpg") for i, each in enumerate(found[:PICTURES]))


@torch.no_grad()
def _matches(matcher: LightGlue, pair: Sample) -> tuple[np.ndarray, np.ndarray]:
    device = matcher.posenc.Wr.weight.device
    found = matcher({"image0": pair.features0.torch(device), "image1": pair.features1.torch(device)})
    return found["matches"][0].cpu().numpy(), found["scores"][0].float().cpu().numpy()


def _judged(matcher: LightGlue, pair: Sample) -> WorstPair:
    correct, known = judged_matches(_matches(matcher, pair)[0], pair.truth)
    return WorstPair(pair.views, int(known.sum()), int((correct & known).sum()), len(pair.truth.positives), None)


def _drawn(matcher: LightGlue, samples: Samples, judged: WorstPair, pair: Sample, path: Path) -> WorstPair:
    try:
        pixels = [samples.picture(view) for view in pair.views]
    except LightGlueError as error:
        return WorstPair(judged.views, judged.matches, judged.correct, judged.positives, None, str(error))
    ij, scores = _matches(matcher, pair)
    names = tuple(view.rpartition("/")[2] for view in pair.views)
    texts = (f"{judged.correct} of {judged.matches} right", f"{judged.positives} true matches")
    figure = plot_match_summary(
        pixels[0],
        pixels[1],
        pair.features0.keypoints,
        pair.features1.keypoints,
        ij,
        scores,
        names=(names[0], names[1]),
        texts=texts,
        dpi=80,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", pil_kwargs={"quality": 80, "optimize": True})
    write_whole(path, buffer.getvalue())
    shown = f"{path.parent.name}/{path.name}"
    return WorstPair(judged.views, judged.matches, judged.correct, judged.positives, shown)
