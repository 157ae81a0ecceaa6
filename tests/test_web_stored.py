"""The pair that the first page shows, without any model."""

from __future__ import annotations

import numpy as np
import pytest

from lightglue.models.choice import Models
from lightglue.pairs.files import match_files
from lightglue.pairs.options import PairOptions
from lightglue.web.example import example_files, example_pair


def test_the_stored_pair_is_what_the_command_gives_for_its_photographs() -> None:
    stored = example_pair()
    images = [data for _, data in example_files(stored)]
    options = PairOptions(geometry=stored["options"]["geometry"])
    models = Models(max_keypoints=stored["options"]["max_keypoints"], device="cpu", mp=stored["options"]["mp"])
    found = match_files(images[0], images[1], options, models=models).pair
    rows = np.reshape(stored["matches"], (-1, 2))
    shown = np.float32(stored["scores"]) > np.float32(stored["threshold"])
    ends = [np.reshape(stored[f"keypoints{i}"], (-1, 2))[rows[:, i]] for i in (0, 1)]
    wanted, scores = np.hstack(ends)[shown], np.float32(stored["scores"])[shown]
    given = np.hstack([found.points0.numpy(), found.points1.numpy()])
    apart = np.abs(wanted[:, None] - given).max(2)  # px; other processors round in other places
    same = apart.min(1) < 0.02
    assert same.mean() > 0.98
    assert len(given) == pytest.approx(len(wanted), rel=0.02)
    assert np.abs(found.scores.numpy()[apart.argmin(1)] - scores)[same].max() < 0.01
    assert found.geometry is not None
    assert found.geometry.model is not None
    assert len(stored["geometry"]["inliers"]) == pytest.approx(found.geometry.inliers.sum(), abs=5)
    assert np.allclose(stored["geometry"]["matrix"], found.geometry.model, rtol=0.02, atol=0.5)
    assert stored["overlap"] == pytest.approx(found.overlap, abs=0.005)
    assert stored["layers"]["stop"] == found.stop
