"""SuperGlue, LightGlue's predecessor, as a baseline to measure against."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightglue import weights as weight_files
from lightglue.errors import InputError, WeightsError
from lightglue.matching.assignment import Assignment, collate, mutual_matches, unmatched
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.inputs import ImageKeypoints, read_pairs
from lightglue.matching.superglue_network import HEADS, SuperGlueNetwork, adapt
from lightglue.options import build_config
from lightglue.support.checks import check_int, check_real
from lightglue.types import Assigned
from lightglue.weights.state_dicts import check_tensors, load_strictly

__all__ = ["SuperGlue", "SuperGlueConfig"]

# SuperGlue divides distances from the centre by 0.7 of the image's longer side, LightGlue by 0.5.
POSITION_SCALE = 0.5 / 0.7

PUBLISHED = ("indoor", "outdoor")  # the names by which the published code loads its two files


@dataclass(frozen=True)
class SuperGlueConfig:
    """Options of `SuperGlue` under their published names (magicleap/SuperGluePretrainedNetwork)."""

    descriptor_dim: int = 256
    keypoint_encoder: tuple[int, ...] = (32, 64, 128, 256)  # widths of its hidden layers
    GNN_layers: tuple[str, ...] = ("self", "cross") * 9
    sinkhorn_iterations: int = 100
    match_threshold: float = 0.2  # smallest score of a match
    weights: Any = None  # a path or a state dict

    def __post_init__(self) -> None:
        for name in ("descriptor_dim", "sinkhorn_iterations"):
            check_int(f"SuperGlue: {name}", getattr(self, name), 1, "a positive integer")
        for width in _items("keypoint_encoder", self.keypoint_encoder):
            check_int("SuperGlue: a width in keypoint_encoder", width, 1, "a positive integer")
        if self.descriptor_dim % HEADS:
            raise InputError(f"SuperGlue: descriptor_dim={self.descriptor_dim} must be a multiple of its {HEADS} heads")
        if unknown := [k for k in _items("GNN_layers", self.GNN_layers) if k not in ("self", "cross")]:
            raise InputError(f"SuperGlue: GNN_layers may hold 'self' and 'cross', not {unknown[0]!r}")
        check_real("SuperGlue: match_threshold", self.match_threshold, "a finite number")


def _items(name: str, value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"SuperGlue: {name} must be a list or a tuple, not {value!r}")
    return value


class SuperGlue(SuperGlueNetwork):
    """Match SuperPoint features of two images with SuperGlue (Sarlin et al., CVPR 2020, arXiv:1911.11763).

    For benchmarks: it takes and returns the dictionaries of `LightGlue`, one pair after the other, in float32.

    Its published weights are for non-commercial research only (Magic Leap's licence), so they are never fetched. Who
    may use them gets superglue_indoor.pth or superglue_outdoor.pth from magicleap/SuperGluePretrainedNetwork and passes
    the path. Without weights the network is random, which serves to take the time only, and says so.

    Args:
        conf: the fields of `SuperGlueConfig`, among them `weights`; an unknown one gives a warning.

    Raises:
        InputError: an option or a features dictionary is not valid.
        WeightsError: the weights cannot be read or do not fit.
    """

    def __init__(self, **conf: Any) -> None:
        config = build_config("SuperGlue", SuperGlueConfig(), conf)
        state = _read_weights(config.weights)
        super().__init__(config.descriptor_dim, config.keypoint_encoder, config.GNN_layers)
        if state is None:
            warnings.warn(
                "SuperGlue without weights is random: good for timing, its matches mean nothing", stacklevel=2
            )
        else:
            source = "" if isinstance(config.weights, Mapping) else str(config.weights)
            load_strictly(self, adapt(state), "SuperGlue", source)
        self.conf = config
        self._shape = LightGlueConfig(input_dim=config.descriptor_dim)  # what a features dictionary is checked against
        self.eval()  # its norms would otherwise follow the batch

    @torch.no_grad()
    def forward(self, data: Mapping[str, Any]) -> Assigned:
        """Match `data["image0"]` with `data["image1"]`.

        Each is a dictionary of B images with `keypoints` (B, N, 2) in px, `descriptors` (B, N, D), `keypoint_scores`
        (B, N) and `image_size` (B, 2) = (w, h).

        Returns `matches0` (B, M), `matches1` (B, N), `matching_scores0` (B, M), `matching_scores1` (B, N), `matches`
        and `scores` as `lightglue.types.Assigned` describes them. Raises InputError.
        """
        pairs = read_pairs(data, "SuperGlue", self._shape, self.bin_score, also=("keypoint_scores",))
        return collate([self._assignment(*pair) for pair in pairs])

    def _assignment(self, image0: ImageKeypoints, image1: ImageKeypoints) -> Assignment:
        """The matches of one pair; positions are normalised as LightGlue's, with the score beside them."""
        m, n = len(image0.positions), len(image1.positions)
        if min(m, n) == 0:
            return unmatched(m, n, image0.positions)
        places0, places1 = (
            image.positions * image.positions.new_tensor([POSITION_SCALE, POSITION_SCALE, 1.0])
            for image in (image0, image1)
        )
        scores = self.assign(places0, places1, image0.descriptors, image1.descriptors, self.conf.sinkhorn_iterations)
        return mutual_matches(scores[:-1, :-1], self.conf.match_threshold)


def _read_weights(source: Any) -> dict[str, Tensor] | None:
    if source is None:
        return None
    if isinstance(source, Mapping):
        return check_tensors(source, "the given state dict")
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"SuperGlue: weights must be a path or a state dict, not {type(source).__name__}")
    if source in PUBLISHED:
        raise WeightsError(
            f"SuperGlue's {source} weights are for non-commercial research only, never fetched; if you may use them, "
            f"get superglue_{source}.pth from magicleap/SuperGluePretrainedNetwork and pass its path as weights"
        )
    return weight_files.load_state_dict(source)
