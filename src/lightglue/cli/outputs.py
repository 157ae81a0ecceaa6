"""The files that `lightglue match` writes: checked before any work, encoded in memory, written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightglue.support.files import write_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["ENDINGS", "MatchedPair", "fault_of", "size_of", "write_all"]


@dataclass(frozen=True)
class MatchedPair:
    """Two images and what was found in them. N and M are numbers of keypoints, K the number of matches."""

    image0: Tensor | NDArray[np.uint8]  # (3, H, W) float32 in [0, 1], or (H, W, 3)
    image1: Tensor | NDArray[np.uint8]
    keypoints0: NDArray[np.float32]  # (N, 2) x y, px of the image file
    keypoints1: NDArray[np.float32]  # (M, 2)
    matches: NDArray[np.int64]  # (K, 2) index into keypoints0, index into keypoints1
    scores: NDArray[np.float32]  # (K,) in [0, 1]
    names: tuple[str, str]  # above the photographs of a picture
    texts: tuple[str, ...]  # below them
    numbers: dict[str, float]  # of the pair: stop (layers run), overlap, rotation, as far as they are known
    points0: NDArray[np.float32]  # (K, 2) the ends of the matches; rows of keypoints0 unless they are refined
    points1: NDArray[np.float32]  # (K, 2)
    model: NDArray[np.float64] | None = None  # (3, 3), or (4, 4) for a relative pose
    inliers: NDArray[np.bool_] | None = None  # (K,) where a geometry was asked for

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The content of the .npz and .json files."""
        import numpy as np

        sizes = (np.array(size_of(image)) for image in (self.image0, self.image1))
        return {
            "keypoints0": self.keypoints0,
            "keypoints1": self.keypoints1,
            "matches": self.matches,
            "scores": self.scores,
            "points0": self.points0,
            "points1": self.points1,
            **({} if self.inliers is None else {"inliers": self.inliers}),
            **({} if self.model is None else {"model": self.model}),
            **dict(zip(("image_size0", "image_size1"), sizes, strict=True)),  # (2,) width height, px
            **{name: np.array(value) for name, value in self.numbers.items()},
        }

    def record(self) -> dict[str, Any]:
        """`arrays` as lists and numbers, for JSON."""
        return {name: array.tolist() for name, array in self.arrays().items()}


def size_of(image: Tensor | NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height, px."""
    import numpy as np

    h, w = image.shape[:2] if isinstance(image, np.ndarray) else image.shape[-2:]
    return int(w), int(h)


def _npz(pair: MatchedPair, _: str) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **pair.arrays())  # type: ignore[arg-type]  # its allow_pickle stands in the way
    return buffer.getvalue()


def _json(pair: MatchedPair, _: str) -> bytes:
    return json.dumps(pair.record()).encode() + b"\n"


def _csv(pair: MatchedPair, _: str) -> bytes:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    inliers = [] if pair.inliers is None else [pair.inliers]
    table.writerow(("x0", "y0", "x1", "y1", "score", *["inlier"] * len(inliers)))
    for row in zip(*pair.points0.T, *pair.points1.T, pair.scores, *inliers, strict=True):
        table.writerow([f"{value:.9g}" for value in row])  # nine digits give every float32 back
    return buffer.getvalue().encode()


def _picture(pair: MatchedPair, ending: str) -> bytes:
    os.environ.pop("MPLBACKEND", None)  # no window is opened, and Matplotlib cannot be imported with an unknown one
    from lightglue.drawing.matches import plot_match_summary

    figure = plot_match_summary(
        pair.image0,
        pair.image1,
        pair.keypoints0,
        pair.keypoints1,
        pair.matches,
        pair.scores,
        names=pair.names,
        texts=pair.texts,
        inliers=pair.inliers,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending.removeprefix("."))
    return buffer.getvalue()


_ENCODERS: Mapping[str, Callable[[MatchedPair, str], bytes]] = {
    ".png": _picture,
    ".jpg": _picture,
    ".jpeg": _picture,
    ".pdf": _picture,
    ".svg": _picture,
    ".npz": _npz,
    ".json": _json,
    ".csv": _csv,
}
ENDINGS = tuple(_ENCODERS)


def fault_of(
    path: Path, inputs: Sequence[Path], others: Sequence[Path], endings: Sequence[str] = ENDINGS
) -> str | None:
    """Why `path` cannot be written beside the input images and the other outputs; None where it can."""
    if path.suffix.lower() not in endings:
        return f"{path} has none of the known endings: {', '.join(endings)}."
    folder = path.resolve().parent
    if not folder.is_dir():
        return f"there is no folder {folder} for {path.name}; make it first."
    if path.is_dir():
        return f"{path} is a folder; name a file in it."
    if any(_is_same(path, image) for image in inputs):
        return f"{path} is one of the input images, which are never overwritten."
    if any(_is_same(path, other) for other in others):
        return f"{path} is named twice."
    if not os.access(path if path.exists() else folder, os.W_OK) or not os.access(folder, os.W_OK):
        return f"{path} may not be written; change its permissions or its folder's."
    return None


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.resolve() == other.resolve() or path.samefile(other)
    except OSError:  # one of them does not exist
        return False


def write_all(pair: MatchedPair, paths: Sequence[Path], others: Mapping[Path, bytes]) -> None:
    """Write `pair` to every path in the format of its ending, and other contents, as `write_files` does."""
    encoded = {path: _ENCODERS[path.suffix.lower()](pair, path.suffix.lower()) for path in paths}
    write_files({**encoded, **others})
