"""Where the test data lies: the montmartre pair inside the project, everything else beside the checkout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "assets"
INSIDE = ROOT / "tests" / "data" / "reference"
SHARED = ROOT.parent / "shared"

# Reference pair -> its two image files and the `resize` that its features were extracted with.
PAIRS = {
    "montmartre": ("montmartre_close.jpg", "montmartre_far.jpg", 800),
    "sacre_coeur": ("sacre_coeur1.jpg", "sacre_coeur2.jpg", 1024),
    "facade": ("DSC_0410.JPG", "DSC_0411.JPG", 640),
}


def _first_existing(*candidates: Path) -> Path:
    for path in candidates:
        if path.exists():
            return path
    pytest.skip(f"{candidates[-1].name} is not in the project and the folder beside it is missing")


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], dict[str, Any]]:
    """`reference("aliked-n16_montmartre_0")`: the arrays that the published code gave."""

    def load(name: str) -> dict[str, Any]:
        path = _first_existing(INSIDE / f"{name}.npz", SHARED / "reference" / "outputs" / f"{name}.npz")
        return _arrays(path)

    return load


@pytest.fixture(scope="session")
def image_path() -> Callable[[str, int], Path]:
    """`image_path("montmartre", 0)`: the file of the pair's first image."""

    def find(pair: str, index: int) -> Path:
        name = PAIRS[pair][index]
        return _first_existing(ASSETS / str(name), SHARED / "images" / str(name))

    return find


@pytest.fixture(scope="session")
def random_weights() -> Callable[[str], dict[str, Any]]:
    """`random_weights("lightglue_sift_like")`: a published architecture with seeded weights, inputs and outputs."""

    def load(name: str) -> dict[str, Any]:
        path = _first_existing(INSIDE / f"{name}.npz", SHARED / "reference" / "random_weights" / f"{name}.npz")
        return _arrays(path)

    return load
