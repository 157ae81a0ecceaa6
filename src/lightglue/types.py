"""The data that flows through the package, and the contract of its two kinds of model.

Pixel convention: the centre of the top-left pixel is (0, 0); x grows to the right, y downwards. A keypoint at
(x, y) in an image of width w and height h lies between (-0.5, -0.5) and (w - 0.5, h - 0.5).

Features and matches are plain dictionaries, because that is what the published package hands out and what its
users index. The classes below name their keys, shapes and dtypes. B is the number of images (or pairs), N and M
numbers of keypoints, D the descriptor's length, K a number of matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Assigned", "ExtractKeywords", "Extractor", "Features", "Matcher", "Matches", "PairMatcher"]


class _RequiredFeatures(TypedDict):
    keypoints: Tensor  # (B, N, 2) float32, x y, px of the original image
    descriptors: Tensor  # (B, N, D) float32, L2-normalised


class Features(_RequiredFeatures, total=False):
    """Local features of B images with N keypoints each."""

    keypoint_scores: Tensor  # (B, N) float32, higher is better; the range is the extractor's own
    image_size: Tensor  # (B, 2) float32, width height, px of the original image
    # SIFT-like features only: (B, N) float32, the diameter of the keypoint in px of the image as it was resized (not of
    # the original, as published: the matcher was trained so); of COLMAP's back ends sigma, about half of that.
    scales: Tensor
    oris: Tensor  # (B, N) float32, radians (SIFT-like features only)
    image: Tensor  # (B, C, H, W), read for its size where image_size is missing


class Assigned(TypedDict):
    """Matches of B pairs with M and N keypoints: what any matcher gives."""

    matches0: Tensor  # (B, M) int64, index into image 1 or -1
    matches1: Tensor  # (B, N) int64, index into image 0 or -1
    matching_scores0: Tensor  # (B, M) float32 in [0, 1], 0 where no mutual match
    matching_scores1: Tensor  # (B, N) float32
    matches: list[Tensor]  # B times (K, 2) int64, index in image 0, index in image 1
    scores: list[Tensor]  # B times (K,) float32


class _PublishedMatches(Assigned):
    stop: int | Tensor  # number of layers run: int for one pair, (B,) int64 for more
    prune0: Tensor  # (B, M) number of layers that each keypoint went through
    prune1: Tensor  # (B, N)


class Matches(_PublishedMatches, total=False):
    """The published output dictionary of LightGlue, and the overlap."""

    overlap: Tensor  # (B,) float32, probability that both images show the same thing; where it was fitted
    effort: Any  # where it is not the usual one: a `lightglue.matching.effort.EffortRecord`, of several pairs a list


class ExtractKeywords(TypedDict, total=False):
    """Options of `extract`, the same for every extractor of this package."""

    resize: int | tuple[int, int] | None  # px of the edge that `side` names, (height, width), or None to keep the size
    side: Literal["long", "short", "vert", "horz"]
    interpolation: Literal["bilinear", "bicubic", "nearest", "nearest-exact", "area"]
    align_corners: bool | None
    antialias: bool
    tile: int | None  # px; look at the image in tiles of this side
    pyramid: Sequence[float] | None  # look at the image in several sizes, such as (1, 0.5)
    scales: Sequence[float] | None  # former name of pyramid


class Extractor(Protocol):
    """Anything that turns an image into `Features`."""

    def extract(self, *images: Any, **options: Any) -> Any:
        """Features of one image, of a batch, or of a list of images (then a list of `Features`).

        Called with one image and options such as those of `ExtractKeywords`; any signature that takes these will do.
        """
        ...


class Matcher(Protocol):
    """Anything that turns two images' `Features` into `Assigned`; LightGlue adds the rest of `Matches`."""

    def __call__(self, data: dict[str, Any]) -> Assigned:
        """Match `data["image0"]` with `data["image1"]`, each a `Features`."""
        ...


class PairMatcher(Protocol):
    """A matcher that takes any number of pairs at once."""

    def match(self, pairs: Sequence[tuple[Features, Features]]) -> Sequence[Assigned]:
        """Match each pair as if it were alone."""
        ...
