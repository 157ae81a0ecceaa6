"""Samples for tests of training: points under a homography with noisy random descriptors, made from their numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from lightglue.stores import ImageFeatures
from lightglue.training.batches import Batch, collate
from lightglue.training.contract import IGNORED, UNMATCHABLE, Sample, Truth
from lightglue.training.options import TrainingOptions, from_tables

TINY = {"layers": 2, "width": 16, "heads": 2}


def features(keypoints, descriptors, feature_type="sift") -> ImageFeatures:
    n = len(keypoints)
    descriptors = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
    scales, oris = np.full(n, 3, np.float32), np.zeros(n, np.float32)
    return ImageFeatures(
        keypoints.astype(np.float32), descriptors.astype(np.float32), np.ones(n, np.float32), (640, 480), feature_type,
        scales, oris,
    )  # fmt: skip


@dataclass(frozen=True)
class GeneratedSamples:
    """`contract.Samples` without images. Sizes are equal, or with `ragged` those of each image its own."""

    keypoints: int = 24
    descriptor_dim: int = 8
    ragged: bool = False
    seed: int = 0
    nan_at: tuple[int, ...] = ()  # samples with a descriptor that is not a number
    feature_type: str = "sift"
    has_scale_ori: bool = True
    epoch: int = 1000
    num_validation: int = 6

    @property
    def fingerprint(self) -> str:
        return f"generated-{self.seed}"

    def sample(self, k: int) -> Sample:
        made = self._made((self.seed, k))
        if k in self.nan_at:
            broken = made.features0.descriptors.copy()
            broken[0] = np.nan
            made = replace(made, features0=replace(made.features0, descriptors=broken))
        return made

    def validation_sample(self, i: int) -> Sample:
        return self._made((10**9, i))

    def picture(self, view: str):
        return np.zeros((480, 640, 3), np.uint8)

    def _made(self, number: tuple[int, int]) -> Sample:
        draw = np.random.default_rng(number)
        low = self.keypoints // 2 if self.ragged else self.keypoints
        m, n = draw.integers(low, self.keypoints + 1, 2)
        shared = min(m, n) // 2
        p, q = draw.uniform(20, 450, (m, 2)), draw.uniform(20, 450, (n, 2))
        d, e = draw.normal(size=(m, self.descriptor_dim)), draw.normal(size=(n, self.descriptor_dim))
        rows, columns = draw.permutation(m)[:shared], draw.permutation(n)[:shared]
        H = np.array([[0.9, 0.1, 5], [-0.1, 0.9, 8], [1e-4, 0, 1]])
        warped = np.c_[p[rows], np.ones(shared)] @ H.T
        q[columns] = warped[:, :2] / warped[:, 2:]
        e[columns] = d[rows] + 0.3 * draw.normal(size=(shared, self.descriptor_dim))
        matches0, matches1 = np.full(m, UNMATCHABLE), np.full(n, UNMATCHABLE)
        matches0[rows], matches1[columns] = columns, rows
        matches0[(matches0 < 0) & (draw.random(m) < 0.2)] = IGNORED
        names = tuple(f"{side}{number[0]}-{number[1]}" for side in "ab")
        truth = Truth(matches0.astype(np.int64), matches1.astype(np.int64))
        return Sample(names, features(p, d, self.feature_type), features(q, e, self.feature_type), truth)  # type: ignore[arg-type]


def batch_of(samples: GeneratedSamples, numbers) -> Batch:
    return collate([(k, samples.sample(k)) for k in numbers], samples, samples.has_scale_ori)


def tiny_options(**sections) -> TrainingOptions:
    """A run that takes milliseconds a step."""
    tables = {
        "network": {**TINY, **sections.pop("network", {})},
        "run": {"steps": 12, "batch": 4, "checkpoint_every": 2, "log_every": 2, "validate_every": 0, "device": "cpu",
                **sections.pop("run", {})},
        "judge": {"fit": False},
        "optimiser": {"lr": 1e-3, "warmup": 2, "ema": 0.9, **sections.pop("optimiser", {})},
    }  # fmt: skip
    return from_tables({**tables, **sections})


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are the same, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
