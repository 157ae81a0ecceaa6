"""Features and small networks for the matcher's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from lightglue.matching.config import LightGlueConfig
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.network import LightGlueNetwork

SMALL: dict[str, Any] = {"input_dim": 16, "descriptor_dim": 32, "num_heads": 2, "n_layers": 3}


def small_state(seed: int = 0, **options: Any) -> dict[str, torch.Tensor]:
    """A state dict of a small network with seeded random weights, decided enough to stop and to prune."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = LightGlueNetwork(LightGlueConfig(**{**SMALL, **options})).state_dict()
    return {k: v * 12 if "token_confidence" in k or "matchability" in k else v for k, v in state.items()}


def small_matcher(seed: int = 0, **options: Any) -> LightGlue:
    """A matcher with the weights of `small_state`; options of the architecture and of the matching."""
    shape = {k: options.pop(k) for k in (*SMALL, "add_scale_ori") if k in options}
    return LightGlue(features=None, weights=small_state(seed, **shape), **{**SMALL, **shape}, **options).eval()


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Softmax attention, written out: (..., M, e), (..., N, e), (..., N, e) -> (..., M, e)."""
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


def random_features(n: int, seed: int = 0, dim: int = 16, batch: int = 1, **extra: Any) -> dict[str, torch.Tensor]:
    """n keypoints anywhere in a 640 x 480 image, with random unit descriptors."""
    g = torch.Generator().manual_seed(seed)
    return {
        "keypoints": torch.rand(batch, n, 2, generator=g) * torch.tensor([640.0, 480.0]),
        "descriptors": F.normalize(torch.randn(batch, n, dim, generator=g), dim=-1),
        "image_size": torch.tensor([[640.0, 480.0]]).expand(batch, 2),
        **extra,
    }


def load_features(reference: Callable[[str], dict[str, Any]], name: str) -> dict[str, torch.Tensor]:
    """The published features `name` as tensors."""
    return {key: torch.from_numpy(value) for key, value in reference(name).items()}


def varied(features: dict[str, torch.Tensor], n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """n features: the given ones, then noisy copies of them, as many as it takes."""
    g = torch.Generator().manual_seed(seed)
    repeats = max(1, -(-n // features["keypoints"].shape[1]))
    keypoints, descriptors = [features["keypoints"]], [features["descriptors"]]
    for i in range(1, repeats):
        keypoints.append(features["keypoints"] + 3 * torch.randn(features["keypoints"].shape, generator=g))
        noise = 0.03 * i * torch.randn(features["descriptors"].shape, generator=g)
        descriptors.append(F.normalize(features["descriptors"] + noise, dim=-1))
    return {
        "keypoints": torch.cat(keypoints, 1)[:, :n],
        "descriptors": torch.cat(descriptors, 1)[:, :n],
        "image_size": features["image_size"],
    }
