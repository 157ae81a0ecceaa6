"""Nearest-neighbour matching: the classical matcher, for any descriptors, in the place of LightGlue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from lightglue.errors import InputError
from lightglue.matching.assignment import Assignment, collate, unmatched
from lightglue.matching.inputs import both_images, pair_list, read_arrays, with_batch
from lightglue.matching.neighbors import blocked_neighbors, keep_matches
from lightglue.options import build_config
from lightglue.support.checks import check_bool, check_real, is_real
from lightglue.timing import span
from lightglue.types import Assigned, Features

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.matching.keywords import NearestNeighborKeywords

__all__ = ["NearestNeighbor", "NearestNeighborConfig"]

# The names of the same options in hloc and in glue-factory (their nearest-neighbour matchers).
ALIASES = {
    "do_mutual_check": "mutual",
    "mutual_check": "mutual",
    "ratio_thresh": "ratio_threshold",
    "distance_thresh": "distance_threshold",
}


@dataclass(frozen=True)
class NearestNeighborConfig:
    """Options of `NearestNeighbor`."""

    mutual: bool = True  # both keypoints must choose each other
    ratio_threshold: float | None = None  # largest ratio of the distances to the nearest and the second nearest
    ratio_both: bool = True  # the ratio must hold from both images; False: from image 0 only
    distance_threshold: float | None = None  # largest Euclidean distance of two descriptors

    def __post_init__(self) -> None:
        for name in ("mutual", "ratio_both"):
            check_bool(f"NearestNeighbor: {name}", getattr(self, name))
        if (ratio := self.ratio_threshold) is not None and not (is_real(ratio, 0, 1) and ratio > 0):
            raise InputError(f"NearestNeighbor: ratio_threshold must be None or above 0 and at most 1, not {ratio!r}")
        if (limit := self.distance_threshold) is not None:
            check_real("NearestNeighbor: distance_threshold", limit, "None or a number >= 0", 0)


class NearestNeighbor(nn.Module):
    """Match each descriptor with the nearest one of the other image.

    It takes and returns the dictionaries of `LightGlue` and goes wherever a matcher goes. It has no weights and reads
    neither positions nor sizes, so descriptors may be of any length, the same in both images.

    >>> matcher = NearestNeighbor(ratio_threshold=0.8).eval()
    >>> matches = matcher({"image0": features0, "image1": features1})  # doctest: +SKIP

    Distances are Euclidean, of the descriptors as they are given: for L2-normalised ones d^2 = 2 - 2 cos, so the ratio
    test is that of Lowe (IJCV 2004) and of hloc. They are compared in float32, whatever dtype is given; `.double()`
    compares in float64, for descriptors that are much longer than their distances. Of equal distances the first
    position wins. Where the other image has one descriptor only, the ratio test is passed, as in hloc. With `mutual`
    both tests must hold from both images, but for the ratio with `ratio_both=False`, which keeps more matches.

    Scores are 1 - d^2 / (2 |a|^2 + 2 |b|^2), in [0, 1]; for L2-normalised descriptors (1 + cos) / 2, as in hloc.

    Args:
        conf: the fields of `NearestNeighborConfig`, also under the names of hloc and glue-factory (`do_mutual_check`,
            `mutual_check`, `ratio_thresh`, `distance_thresh`); an unknown one gives a warning.

    Raises:
        InputError: an option or a features dictionary is not valid.
    """

    default_conf: ClassVar[dict[str, Any]] = {"name": "nearest_neighbor", **asdict(NearestNeighborConfig())}
    required_data_keys: ClassVar[list[str]] = ["image0", "image1"]
    _like: Tensor

    def __init__(self, **conf: Unpack[NearestNeighborKeywords]) -> None:
        super().__init__()
        self.conf = build_config("NearestNeighbor", NearestNeighborConfig(), _own_names(conf), also_valid=ALIASES)
        self.register_buffer("_like", torch.zeros(0), persistent=False)  # the device and the dtype to compute in

    def forward(self, data: Mapping[str, Any]) -> Assigned:
        """Match `data["image0"]` with `data["image1"]`.

        Each is a dictionary of B images with `keypoints` (B, N, 2) and `descriptors` (B, N, D); other keys are not
        read. Each of the B pairs is matched as if it were alone.

        Returns `matches0` (B, M), `matches1` (B, N), `matching_scores0`, `matching_scores1`, `matches` and `scores`
        as `lightglue.types.Assigned` describes them; a score is 0 where there is no match. With `mutual=False`,
        `matches0` and `matches1` are each image's own choice, and `matches` lists those of image 0.

        Raises InputError.
        """
        images0, images1 = both_images(data, "NearestNeighbor")
        with span("match"):
            return collate(self._match(images0, "image0", images1, "image1"))

    def match(self, pairs: Iterable[tuple[Features, Features]]) -> list[Assigned]:
        """Match any number of pairs, each with its own numbers of keypoints, one after the other.

        pairs: two feature dictionaries each, with a batch dimension of 1 (as `extract` returns) or none.
        Returns one dictionary a pair, batch size 1, equal to what `forward` gives for that pair alone.

        Raises InputError.
        """
        results = []
        for i, (features0, features1) in enumerate(pair_list(pairs)):
            name0, name1 = f"pairs[{i}][0]", f"pairs[{i}][1]"
            with span("match"):
                found = self._match(with_batch(features0), name0, with_batch(features1), name1)
            if len(found) != 1:
                raise InputError(f"{name0} holds a batch of {len(found)} images; match() takes one image at a time")
            results.append(collate(found))
        return results

    @torch.no_grad()
    def _match(self, images0: Any, name0: str, images1: Any, name1: str) -> list[Assignment]:
        """The matches of each pair of two features dictionaries."""
        if self._like.dtype not in (torch.float32, torch.float64):
            raise InputError(f"NearestNeighbor computes in float32 or float64, not {self._like.dtype}; use .float()")
        descriptors0, descriptors1 = self._descriptors(images0, name0), self._descriptors(images1, name1)
        if len(descriptors0) != len(descriptors1) or not len(descriptors0):
            raise InputError(
                f"{name0} has a batch of {len(descriptors0)} and {name1} of {len(descriptors1)}: they must be equal "
                "and at least 1"
            )
        if descriptors0.shape[2] != descriptors1.shape[2]:
            raise InputError(
                f"{name0} has descriptors of length {descriptors0.shape[2]} and {name1} of {descriptors1.shape[2]}; "
                "both must come from the same extractor"
            )
        with torch.autocast(self._like.device.type, enabled=False):
            return [self._assignment(a, b) for a, b in zip(descriptors0, descriptors1, strict=True)]

    def _descriptors(self, data: Any, name: str) -> Tensor:
        """(B, N, D) finite descriptors, of which differences and products do not overflow."""
        descriptors = read_arrays(data, name, self._like).descriptors
        if not (8 * descriptors.square().sum(-1)).isfinite().all():
            raise InputError(f"{name}: the descriptors are so large that their products overflow; scale them down")
        return descriptors

    def _assignment(self, a: Tensor, b: Tensor) -> Assignment:
        """The matches of one pair: a (M, D), b (N, D)."""
        if min(len(a), len(b)) == 0:
            return unmatched(len(a), len(b), a)
        config = self.conf
        found = blocked_neighbors(a, b, seconds=config.ratio_threshold is not None)
        ratios = config.ratio_threshold, config.ratio_threshold if config.ratio_both else None
        return keep_matches(a, b, found, config.mutual, ratios, config.distance_threshold)


def _own_names(conf: Mapping[str, Any]) -> dict[str, Any]:
    """The options under our names. InputError where one is given under two names."""
    options: dict[str, Any] = {}
    for name, value in conf.items():
        own = ALIASES.get(name, name)
        if own in options:
            raise InputError(f"NearestNeighbor: {own} is given twice, once as {name}; give it once")
        options[own] = value
    return options
