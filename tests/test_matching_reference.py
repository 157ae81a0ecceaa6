"""The matcher gives what the published code gives on the same features, on real photographs."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pytest
import torch

from lightglue.containers import batch_to_device
from lightglue.matching.lightglue import LightGlue
from lightglue.support import products
from support.devices import needs_gpu
from support.matching import load_features

pytestmark = pytest.mark.usefixtures("onednn")

CONFIGS: dict[str, dict[str, Any]] = {
    "full": {"depth_confidence": -1, "width_confidence": -1},
    "adaptive": {},
    "depth": {"width_confidence": -1},
    "width": {"depth_confidence": -1},
    "aggressive": {"depth_confidence": 0.9, "width_confidence": 0.95},
    "five_layers": {"n_layers": 5, "depth_confidence": -1, "width_confidence": -1},
    "strict": {"filter_threshold": 0.5},
}
EXTRACTORS = {"aliked": "aliked-n16", "disk": "disk"}
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=needs_gpu),
]


@pytest.fixture(scope="module")
def matchers():
    """One matcher a feature type and configuration, built when first asked for."""
    built: dict[tuple[str, str, bool], LightGlue] = {}

    def get(features: str, config: str) -> LightGlue:
        key = features, config, products.onednn_is_faster()
        if key not in built:
            built[key] = LightGlue(features=features, **CONFIGS[config]).eval()
        return built[key]

    return get


def assert_published(found: dict[str, Any], expected: dict[str, np.ndarray], threshold: float) -> None:
    """Same keys, shapes, dtypes, stop and pruning; scores within 1e-3; matches equal but at the threshold."""
    assert found.keys() - {"overlap"} == expected.keys()  # which the published one has not
    assert found["stop"] == expected["stop"]
    for side in "01":
        matches, scores = found[f"matches{side}"].numpy(), found[f"matching_scores{side}"].numpy()
        assert matches.dtype == expected[f"matches{side}"].dtype
        np.testing.assert_allclose(scores, expected[f"matching_scores{side}"], atol=1e-3, rtol=0)
        assert scores.dtype == expected[f"matching_scores{side}"].dtype
        decided = np.abs(expected[f"matching_scores{side}"] - threshold) > 1e-3
        np.testing.assert_array_equal(matches[decided], expected[f"matches{side}"][decided])
        prune = found[f"prune{side}"].numpy()
        assert prune.dtype == expected[f"prune{side}"].dtype
        np.testing.assert_array_equal(prune, expected[f"prune{side}"])
    rows = np.flatnonzero(found["matches0"][0].numpy() > -1)
    np.testing.assert_array_equal(found["matches"][0].numpy(), np.stack([rows, found["matches0"][0][rows]], -1))
    np.testing.assert_array_equal(found["scores"][0].numpy(), found["matching_scores0"][0][rows])
    clear = [
        tuple(pair)
        for pair, score in zip(expected["matches"], expected["scores"], strict=True)
        if score > threshold + 1e-3
    ]
    assert set(clear) <= set(map(tuple, found["matches"][0].tolist()))


@pytest.mark.parametrize("pair", ["montmartre", "sacre_coeur", "facade"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("features", EXTRACTORS)
def test_matches_equal_the_published_ones(features, config, pair, matchers, reference):
    matcher = matchers(features, config)
    images = {f"image{i}": load_features(reference, f"{EXTRACTORS[features]}_{pair}_{i}") for i in (0, 1)}
    found = matcher(images)
    assert_published(found, reference(f"match_{features}_{config}_{pair}"), matcher.conf.filter_threshold)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["superpoint_like", "sift_like", "96dim_1head"])
def test_random_weights_give_the_published_result(name, device, random_weights):
    """Other widths, head counts and inputs, loaded from a state dict under the published names."""
    arrays = random_weights(f"lightglue_{name}")
    conf = ast.literal_eval(str(arrays.pop("conf")))
    state = {k[2:]: torch.from_numpy(v).float() for k, v in arrays.items() if k.startswith("w/")}
    matcher = LightGlue(features=None, weights=state, flash=False, **conf).eval().to(device)
    images = {
        f"image{i}": {
            key: torch.from_numpy(arrays[key + str(i)]).to(device)
            for key in ("keypoints", "descriptors", "image_size", "scales", "oris")
            if key + str(i) in arrays
        }
        for i in (0, 1)
    }
    expected = {k[4:]: v for k, v in arrays.items() if k.startswith("out_")}
    assert_published(batch_to_device(matcher(images)), expected, conf["filter_threshold"])


@needs_gpu
@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("features", EXTRACTORS)
def test_matches_on_cuda_equal_the_published_ones(features, flash, reference):
    """`flash` attends in half precision, as published: then nearly all matches agree."""
    matcher = LightGlue(features=features, flash=flash, **CONFIGS["full"]).eval().cuda()
    images = {f"image{i}": load_features(reference, f"{EXTRACTORS[features]}_montmartre_{i}") for i in (0, 1)}
    found = batch_to_device(matcher(batch_to_device(images, "cuda")))
    expected = reference(f"match_{features}_full_montmartre")
    if flash:
        assert np.mean(found["matches0"].numpy() == expected["matches0"]) > 0.99
    else:
        assert_published(found, expected, 0.1)
