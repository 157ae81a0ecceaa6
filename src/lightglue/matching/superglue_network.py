"""The network of SuperGlue (Sarlin et al., CVPR 2020, arXiv:1911.11763): tensors in, tensors out.

Parameters bear the names of the published checkpoints (magicleap/SuperGluePretrainedNetwork). Keypoints are rows here,
so that what is a convolution of width 1 there, (out, in, 1), is a plain matrix here; `adapt` drops the last dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["HEADS", "SuperGlueNetwork", "adapt", "sinkhorn"]

HEADS = 4  # of every attention layer (paper, section 4)


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers from width to width, with norms and rectifiers between them: (N, first) -> (N, last)."""
    steps: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        steps += [nn.Linear(inner, outer), nn.BatchNorm1d(outer), nn.ReLU()]
    return nn.Sequential(*steps[:-2])


class KeypointEncoder(nn.Module):
    """From where a keypoint is and how sure its detector was to a vector that is added to its descriptor."""

    def __init__(self, d: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.encoder = perceptron((3, *hidden, d))

    def forward(self, places: Tensor) -> Tensor:
        """(N, 3) normalised x and y, score -> (N, d)."""
        encoded: Tensor = self.encoder(places)
        return encoded


class Attention(nn.Module):
    """Multi-head attention of one set of keypoints to another."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.merge = nn.Linear(d, d)
        self.proj = nn.ModuleList(nn.Linear(d, d) for _ in range(3))  # queries, keys, values

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(M, d), (N, d) -> (M, d)."""
        # The checkpoint's channels are ordered (channel in a head, head).
        split = (p(t).unflatten(-1, (-1, HEADS)) for p, t in zip(self.proj, (x, source, source), strict=True))
        q, k, v = (t.permute(2, 0, 1)[None].contiguous() for t in split)  # (1, h, rows, e)
        context = F.scaled_dot_product_attention(q, k, v)[0].permute(1, 2, 0)
        merged: Tensor = self.merge(context.flatten(1))
        return merged


class Propagation(nn.Module):
    """One layer of the graph network: what each keypoint takes from the keypoints that it attends to."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.attn = Attention(d)
        self.mlp = perceptron((2 * d, 2 * d, d))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(M, d), (N, d) -> (M, d) updated."""
        updated: Tensor = x + self.mlp(torch.cat((x, self.attn(x, source)), -1))
        return updated


class GraphNetwork(nn.Module):
    """Layers within the images ("self") and between them ("cross"), with weights that both images share."""

    def __init__(self, d: int, kinds: Sequence[str]) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.layers = nn.ModuleList(Propagation(d) for _ in kinds)

    def forward(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """(M, d), (N, d) -> the same, updated. In a cross layer both images see the other as it was before."""
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            source0, source1 = (x1, x0) if kind == "cross" else (x0, x1)
            x0, x1 = layer(x0, source0), layer(x1, source1)
        return x0, x1


def sinkhorn(scores: Tensor, bin_score: Tensor, iterations: int) -> Tensor:
    """The soft assignment of optimal transport with a dustbin for each image (paper, section 3.2), as logarithms.

    scores: (M, N); bin_score: () score of leaving a keypoint unmatched. Returns (M + 1, N + 1), the bins last.
    A keypoint has mass 1, a bin as much as the other image has keypoints. The columns' masses are met exactly and
    the rows' the closer, the more iterations there are.
    """
    m, n = scores.shape
    couplings = bin_score.expand(m + 1, n + 1).clone()
    couplings[:m, :n] = scores
    mass0, mass1 = scores.new_ones(m + 1), scores.new_ones(n + 1)
    mass0[m], mass1[n] = n, m
    mass0, mass1 = mass0.log(), mass1.log()
    u, v = torch.zeros_like(mass0), torch.zeros_like(mass1)
    for _ in range(iterations):
        u = mass0 - (couplings + v).logsumexp(1)
        v = mass1 - (couplings + u[:, None]).logsumexp(0)
    return couplings + u[:, None] + v


class SuperGlueNetwork(nn.Module):
    """All parameters of SuperGlue, and its forward pass over one pair."""

    def __init__(self, d: int, keypoint_encoder: Sequence[int], kinds: Sequence[str]) -> None:
        super().__init__()
        self.bin_score = nn.Parameter(torch.tensor(1.0))
        self.kenc = KeypointEncoder(d, keypoint_encoder)
        self.gnn = GraphNetwork(d, kinds)
        self.final_proj = nn.Linear(d, d)

    def assign(
        self,
        places0: Tensor,  # (M, 3) normalised x and y, score; M and N at least 1
        places1: Tensor,  # (N, 3)
        descriptors0: Tensor,  # (M, d)
        descriptors1: Tensor,  # (N, d)
        iterations: int,
    ) -> Tensor:
        """(M + 1, N + 1) log assignment scores with the bins."""
        x0, x1 = self.gnn(descriptors0 + self.kenc(places0), descriptors1 + self.kenc(places1))
        scores = self.final_proj(x0) @ self.final_proj(x1).T / x0.shape[-1] ** 0.5
        return sinkhorn(scores, self.bin_score, iterations)


def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict with its convolutions of width 1 as matrices."""
    return {k: v.squeeze(-1) if v.ndim == 3 and v.shape[-1] == 1 else v for k, v in state.items()}
