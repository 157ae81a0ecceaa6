"""One descriptor for an image, from its local ones: residuals to the words of a vocabulary, added up (VLAD).

Jégou, Douze, Schmid and Pérez, Aggregating local descriptors into a compact image representation, CVPR 2010. Each
word's residuals are brought to one length before all are (intra-normalisation: Arandjelović and Zisserman, All about
VLAD, CVPR 2013). The local descriptors are first rotated and cut to their principal components (Jégou et al.,
Aggregating local image descriptors into compact codes, PAMI 2012), which are learnt from many of them, so that few
images suffice. No descriptor depends on what else was computed with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Vocabulary", "train"]

_ROUNDS = 20  # of k-means
_BLOCK = 16384  # descriptors at once; of constant size, so that sums come out the same wherever they are taken


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What an image descriptor is made with."""

    mean: Tensor  # (D,) of the local descriptors
    axes: Tensor  # (D, d), orthonormal columns: their principal components
    words: Tensor  # (W, d)

    @property
    def size(self) -> int:
        """The length of an image descriptor."""
        return self.words.numel()

    def describe(self, descriptors: Tensor) -> Tensor:
        """(N, D) local descriptors to (W d,) of length 1; zeros where there are none."""
        x = (descriptors - self.mean) @ self.axes
        nearest = _nearest_word(x, self.words)
        sums = torch.zeros_like(self.words).index_add_(0, nearest, x - self.words[nearest])
        filled = torch.zeros(len(self.words)).index_add_(0, nearest, torch.ones(len(x))) > 0
        sums = torch.nn.functional.normalize(sums, dim=1) * filled[:, None]
        return torch.nn.functional.normalize(sums.flatten(), dim=0)


def train(descriptors: Tensor, words: int, dimensions: int, seed: int) -> Vocabulary:
    """A vocabulary from a sample of local descriptors, (S, D); of fewer than `words` distinct ones, one of those."""
    mean = descriptors.double().mean(dim=0)
    centred = descriptors.double() - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    axes = vectors.flip(1)[:, :dimensions]
    axes = axes * torch.sign(axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)))  # of either sign, one
    x = (centred @ axes).float()
    return Vocabulary(mean.float(), axes.float(), _k_means(x, words, seed))


def _k_means(x: Tensor, count: int, seed: int) -> Tensor:
    """(S, d) to (W, d), W = `count` or the number of distinct rows: Lloyd's rounds from k-means++'s start."""
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(len(x), (1,), generator=generator))
    chosen = [first]
    distance = (x - x[first]).square().sum(dim=1)
    for _ in range(count - 1):
        total = distance.double().cumsum(0)
        if total[-1] <= 0:
            break  # all that are left are words already
        at = torch.searchsorted(total, torch.rand(1, generator=generator, dtype=torch.float64) * total[-1], right=True)
        index = min(int(at), len(x) - 1)
        chosen.append(index)
        distance = torch.minimum(distance, (x - x[index]).square().sum(dim=1))
    words = x[chosen]
    for _ in range(_ROUNDS):
        nearest = torch.cat([_nearest_word(block, words) for block in torch.split(x, _BLOCK)])
        sums = torch.zeros(words.shape, dtype=torch.float64).index_add_(0, nearest, x.double())
        counts = torch.bincount(nearest, minlength=len(words))
        moved = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), words.double()).float()
        if torch.equal(moved, words):
            break
        words = moved
    return words


def _nearest_word(x: Tensor, words: Tensor) -> Tensor:
    """(N,) int64: the least of |x - w|^2, less what does not depend on w."""
    return (words.square().sum(dim=1) - 2 * (x @ words.T)).argmin(dim=1)
