"""Neighbours without a rival: those of `NearestNeighbor` with the ratio test, from one product and four passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightglue import NearestNeighbor
from lightglue.matching.distinct import distinct_neighbors


def described(count: int, seed: int, like: np.ndarray | None = None, noise: float = 0.6) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(count, 16))
    if like is not None:
        made = noise * made + np.resize(like, made.shape) * 4
    return np.asarray(made / np.linalg.norm(made, axis=1)[:, None], np.float32)


@pytest.mark.parametrize("ratio", [0.7, 0.9, 0.99])
@pytest.mark.parametrize("sizes", [(200, 200), (50, 300), (300, 7), (1, 40), (40, 1), (1, 1)])
def test_they_are_those_of_nearest_neighbors_with_the_ratio_test(ratio: float, sizes: tuple[int, int]) -> None:
    a = described(sizes[0], 0)
    b = described(sizes[1], 1, a)
    found = distinct_neighbors(a, b, ratio)
    data = {
        f"image{side}": {"keypoints": torch.zeros(1, len(each), 2), "descriptors": torch.from_numpy(each)[None]}
        for side, each in enumerate((a, b))
    }
    expected = NearestNeighbor(ratio_threshold=ratio)(data)["matches"][0]
    assert found.ij.tolist() == expected.tolist()
    assert len(found.ij) > 0 or 1 in sizes
    products = a @ b.T
    for (i, j), similarity, margin in zip(*found, strict=True):
        rivals = max(np.delete(products[i], j).max(initial=-np.inf), np.delete(products[:, j], i).max(initial=-np.inf))
        assert similarity == pytest.approx(products[i, j], abs=1e-6)
        assert margin == pytest.approx(products[i, j] - rivals, abs=1e-6)


def test_they_do_not_depend_on_which_image_comes_first() -> None:
    a = described(200, 0)
    b = described(300, 1, a)
    there, back = distinct_neighbors(a, b, 0.9).ij, distinct_neighbors(b, a, 0.9).ij
    assert there.tolist() == sorted(back[:, ::-1].tolist())


def test_equal_descriptors_are_rivals() -> None:
    a = described(20, 0)
    assert len(distinct_neighbors(np.r_[a, a[:5]], a, 0.99).ij) == 15
    assert len(distinct_neighbors(a, np.r_[a, a[:5]], 0.99).ij) == 15
    assert len(distinct_neighbors(a[:0], a, 0.9).ij) == len(distinct_neighbors(a, a[:0], 0.9).ij) == 0
