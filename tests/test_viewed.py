"""A pair as the viewer takes it, and as one file of HTML."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
import torch

from lightglue.drawing.viewer_page import VIEWER, encode_picture, viewer_page
from lightglue.geometry.estimation import estimate_homography
from lightglue.pairs.encoders import Shown, encode
from lightglue.pairs.record import MatchedPair
from lightglue.pairs.viewed import flat, viewed, viewed_geometry, warp_of


def made_pair(matches: int = 40, **more: Any) -> MatchedPair:
    """Points of a plane that is moved by 7, -3 px, matched in any order of scores."""
    generator = torch.Generator().manual_seed(5)
    points = torch.rand(60, 2, generator=generator) * torch.tensor([320.0, 240.0])
    size = torch.tensor([320.0, 240.0])
    rows = torch.arange(matches)
    found: Any = {
        "matches": torch.stack((rows, rows), 1),
        "scores": torch.rand(matches, generator=generator),
        "points0": points[:matches],
        "points1": points[:matches] + torch.tensor([7.0, -3.0]),
        **more,
    }
    features: Any = [
        {"keypoints": each, "descriptors": torch.zeros(60, 8), "image_size": size}
        for each in (points, points + torch.tensor([7.0, -3.0]))
    ]
    return MatchedPair(features[0], features[1], found)


def test_numbers_come_back_to_the_last_bit_and_the_best_match_is_first() -> None:
    pair = made_pair()
    found = json.loads(json.dumps(viewed(pair)))
    keypoints = np.float32(found["keypoints0"]).reshape(-1, 2)
    assert np.array_equal(keypoints, pair.keypoints0.numpy())
    scores = np.float32(found["scores"])
    assert np.array_equal(scores, np.sort(pair.scores.numpy())[::-1])
    rows = np.reshape(found["matches"], (-1, 2))
    assert np.array_equal(pair.scores.numpy()[rows[:, 0]], scores)
    assert [(image["width"], image["height"]) for image in found["images"]] == [(320, 240)] * 2
    assert "points0" not in found  # they are the keypoints


def test_numbers_are_the_shortest_decimals_that_lead_back() -> None:
    draws = np.random.default_rng(0)
    values = np.concatenate([draws.uniform(-1, 9000, 500), draws.uniform(0, 1, 500), 10 ** draws.uniform(-44, 38, 500)])
    exact = np.float32([*values, 0, 1, 0.1, np.inf])
    assert flat(exact) == [float(text) for text in exact.astype(str)]
    assert flat(np.zeros((0, 2))) == []


def test_refined_points_are_said_match_by_match() -> None:
    pair = made_pair()
    pair = pair.with_matches(points1=pair.points1 + 0.25)
    found = viewed(pair)
    first = found["matches"][0]
    assert np.float32(found["points1"][:2]).tolist() == pair.points1[first].tolist()
    assert "points0" not in found


def test_the_weights_that_were_used_are_named() -> None:
    assert viewed(made_pair(), facts={"weights": "own_sift"})["weights"] == "own_sift"
    assert viewed(made_pair())["weights"] is None


def test_layers_name_the_one_that_dropped_a_keypoint() -> None:
    run = torch.full((60,), 5)
    run[3] = 2
    layers = viewed(made_pair(stop=5, prune0=run, prune1=torch.full((60,), 5)), facts={"layers": 9})["layers"]
    assert (layers["stop"], layers["of"]) == (5, 9)
    assert [i for i, layer in enumerate(layers["pruned0"]) if layer] == [3]
    assert layers["pruned0"][3] == 2
    assert not any(layers["pruned1"])


def test_a_matcher_that_gives_less_is_shown_as_far_as_it_goes() -> None:
    pair = made_pair()
    less = pair._replace(matches01={name: value for name, value in pair.matches01.items() if name != "scores"})  # type: ignore[arg-type]
    found = viewed(less)
    assert found["scores"] == [1.0] * 40
    assert found["layers"] is None
    assert found["overlap"] is None


@pytest.mark.parametrize("matches", [0, 1])
def test_few_matches_are_no_reason_to_fail(matches: int) -> None:
    pair = made_pair(matches)
    found = viewed(pair, warp=warp_of(pair))
    assert len(found["scores"]) == matches
    assert found["warp"] is None


def test_inliers_are_rows_of_the_matches_as_they_are_shown() -> None:
    pair = made_pair()
    order = np.argsort(-pair.scores.numpy(), kind="stable")
    estimate = estimate_homography(pair.points0, pair.points1)
    agree = np.zeros(40, np.bool_)
    agree[order[[0, 2]]] = True
    found = viewed_geometry(dataclasses.replace(estimate, inliers=agree), order)
    assert found["model"] == "homography"
    assert found["inliers"] == [0, 2]


def test_the_page_needs_nothing_but_itself() -> None:
    image = np.zeros((24, 32, 3), np.uint8)
    name = "</script><b>\n.jpg"
    page = viewer_page(viewed(made_pair(), (name, "B")), [encode_picture(image)] * 2, name).decode()
    assert not re.findall(r"""(?:src|href)=["']""", page)
    assert "</script><b>" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert "default-src 'none'; script-src 'sha256-" in page
    assert not re.findall(r"^(?:import|export) ", page, re.MULTILINE)


def test_every_module_of_the_viewer_is_in_the_page() -> None:
    page = viewer_page(viewed(made_pair()), [b"\x89PNG", b""], "A").decode()
    for module in VIEWER.glob("*.js"):
        assert f"const _{module.stem} =" in page


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 24, 32),
        torch.rand(1, 24, 32),
        np.full((24, 32), 65535, np.uint16),
        np.full((24, 32, 3), 0.5, np.float32),
    ],
)
def test_a_picture_is_made_of_any_image(image: Any) -> None:
    content = encode_picture(image)
    assert content[:2] == b"\xff\xd8"


def test_html_is_a_format_of_pairs() -> None:
    pair = made_pair()
    image = np.zeros((240, 320, 3), np.uint8)
    content = encode(pair, ".html", Shown(image, image, ("a.jpg", "b.jpg"), threshold=0.25)).decode()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', content, re.DOTALL)
    assert found is not None
    held = json.loads(found[1])["pair"]
    assert held["floor"] == held["threshold"] == 0.25
    H = np.array(held["warp"]["matrix"])
    assert np.allclose(H / H[2, 2], [[1, 0, 7], [0, 1, -3], [0, 0, 1]], atol=1e-3)
