"""`effort="hard"` in maps: which pairs are searched, and what is made of what the search finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lightglue import NearestNeighbor
from lightglue.matching.effort import EffortRecord
from lightglue.models.choice import Models
from lightglue.pairs.record import MatchedPair
from lightglue.sfm.hard import Found, HardSearch, View, hopeful
from lightglue.sfm.options import MatchOptions
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, PairHead, Source
from lightglue.stores.settings import as_read


def head(names: str, overlap: float | None, matches: int = 10) -> PairHead:
    return PairHead(names[0], names[1], matches, overlap, None, ("", ""))


def test_an_image_that_plain_matching_has_connected_is_not_searched() -> None:
    good = [head(names, 0.99, 100) for names in ("ab", "ac", "ad", "bc", "bd", "cd")]
    assert hopeful([*good, head("ae", 0.3), head("be", 0.6), head("ce", 0.01), head("de", 0.5)]) == [
        ("a", "e"),
        ("b", "e"),
        ("d", "e"),
    ]
    assert hopeful(good) == []


def test_few_matches_are_no_connection_whatever_the_overlap() -> None:
    assert hopeful([head("ab", 0.99, 39)]) == [("a", "b")]
    assert hopeful([head("ab", None, 40), head("ac", None, 3)]) == [("a", "c")]


def test_hopeless_images_cost_no_more_than_three_searches_each() -> None:
    names = "abcdefghijkl"
    pairs = [head(a + b, 0.01 * (i + j)) for i, a in enumerate(names) for j, b in enumerate(names) if a < b]
    chosen = hopeful(pairs)
    assert len(chosen) <= 3 * len(names)
    assert all(sum(name in pair for pair in chosen) >= 3 for name in names)


@pytest.mark.parametrize("seconds", [5.0, None, MatchOptions.max_seconds])
def test_images_are_added_with_the_time_that_the_map_was_made_with(seconds: float | None) -> None:
    pytest.importorskip("pycolmap")
    from lightglue.sfm.change import options_of

    models = Models("aliked", 256, "cpu", mp=False, effort="hard")
    for made in (
        MatchOptions(models, 0.3, max_seconds=seconds),
        MatchOptions(replace(models, effort="normal")),
    ):
        assert made.models is not None
        assert options_of(made.models, as_read(made.settings())).settings() == made.settings()


def test_what_is_chosen_after_a_kill_is_what_would_have_been() -> None:
    pairs = [head(a + b, 0.1) for a in "abcdef" for b in "abcdef" if a < b]
    chosen = hopeful(pairs)
    found = [PairHead(*chosen[0], 200, 0.1, "hard: tilt", ("", "")), *pairs[1:]]
    assert (pairs[0].name0, pairs[0].name1) == chosen[0]
    assert hopeful(found, {chosen[0]}) == chosen


def view(points: Any) -> View:
    points = torch.tensor(np.asarray(points, np.float32))[None]
    return View(
        np.zeros((700, 1000, 3), np.uint8), {"keypoints": points, "descriptors": torch.zeros(1, len(points), 1)}
    )


def found_at(points0: Any, points1: Any, plain: Any = ()) -> Found:
    plain = np.array(plain, np.int64).reshape(-1, 2)
    return Found(points0, points1, np.full(len(points0), 0.7), "tilt 2", plain, np.full(len(plain), 0.9))


def grid(step: float = 40.0) -> Any:
    return np.stack(np.meshgrid(np.arange(50, 600, step), np.arange(50, 600, step)), -1).reshape(-1, 2)


def moved(points: Any) -> Any:
    return np.asarray(points) * (0.5, 1.1) + np.array((80, -20))


def test_a_match_that_was_found_makes_at_most_one_of_keypoints() -> None:
    found = found_at(grid(), moved(grid()))
    crowd = np.concatenate([grid() + np.array(each) for each in ((3, 1), (5, -2), (-4, -4))])
    matches, scores = found.of_keypoints(view(crowd), view(moved(crowd)))
    assert len(matches) == len(grid())
    assert (matches[:, 0] == matches[:, 1]).all()
    np.testing.assert_allclose(scores, 0.7)


def test_keypoints_of_a_map_are_seen_where_the_matches_around_them_say() -> None:
    found = found_at(moved(grid()), grid())
    crowd = np.concatenate([grid() + np.array(each) for each in ((3, 1), (5, -2))])
    rows = np.arange(len(crowd))[::2]
    points, seen, _ = found.of_points(view(np.zeros((1, 2))), view(crowd), rows)
    assert set(seen.tolist()) <= set(rows.tolist())
    assert len(seen) == len(grid()) / 2, "both of a match, of which every second one is asked for"
    np.testing.assert_allclose(points, moved(crowd[seen]), atol=1e-3)


def test_plain_matches_stay_where_they_fit_what_was_found() -> None:
    crowd = grid() + np.array((3, 1))
    right, wrong = [5, 5], [7, 90]
    matches, scores = found_at(grid(), moved(grid()), [right, wrong]).of_keypoints(view(crowd), view(moved(crowd)))
    assert (matches[:, 0] == matches[:, 1]).all()
    assert len(matches) == len(grid())
    assert scores[5] == 0.9
    assert scores[7] == 0.7, "of the match beside it"


@pytest.mark.parametrize(("overlap", "is_used"), [(0.49, False), (0.5, True), (None, True)])
def test_what_is_probably_wrong_makes_no_map(
    overlap: float | None, is_used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matches that are found again where plain matching saw as much, such as a façade's repeated windows."""

    def found(pair: MatchedPair, *others: Any, **limits: Any) -> MatchedPair:
        told = {} if overlap is None else {"overlap": torch.tensor(overlap)}
        return pair.with_matches(effort=EffortRecord("hard", (), found_by="tilt 2"), **told)

    monkeypatch.setattr("lightglue.pairs.hard.pair.match_hard", found)
    points = view(grid())
    points.features["descriptors"] = torch.eye(len(grid()))[None]
    between = HardSearch(None, NearestNeighbor(), {}, None).between(points, points)
    assert (between is not None) == is_used


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_matches_say_nothing(count: int) -> None:
    found = found_at(grid()[:count], moved(grid()[:count]))
    matches, scores = found.of_keypoints(view(grid()), view(moved(grid())))
    assert matches.shape == (0, 2)
    assert scores.shape == (0,)


def test_pairs_that_plain_matching_could_not_do_are_searched_once_and_say_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightglue.errors import InputError
    from lightglue.sfm.stages.match import match

    rng, store = np.random.default_rng(0), FeatureStore.open(tmp_path / "features", {"features": "aliked"})
    for name, points in (("a.png", grid()), ("b.png", moved(grid())), ("c.png", grid()), ("gone.png", grid())):
        descriptors = rng.normal(size=(len(grid()), 128))
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
        scores = np.ones(len(grid()), np.float32)
        given = points.astype(np.float32), descriptors.astype(np.float16), scores, (700, 700), "aliked"
        store.put(name, ImageFeatures(*given), Source(1, 1, "0"))
        if name != "gone.png":
            cv2.imwrite(str(tmp_path / name), np.zeros((700, 700), np.uint8))
    searched = []

    def between(self: HardSearch, first: View, second: View) -> Found | None:
        searched.append((self.max_seconds, first.pixels.shape))
        return found_at(grid(), moved(grid())) if abs(second.keypoints[0, 1] - moved(grid())[0, 1]) < 0.1 else None

    monkeypatch.setattr(HardSearch, "between", between)
    options = MatchOptions(Models("aliked", 256, "cpu", mp=False, effort="hard"), max_seconds=7.0)
    given = tmp_path / "features", [("a.png", "b.png"), ("a.png", "c.png"), ("a.png", "gone.png")], tmp_path / "m.db"
    result = match(*given, options, images=tmp_path)
    assert [each.name for each in result.skipped] == ["a.png, gone.png"]
    assert searched == [(7.0, (700, 700, 3))] * 2
    pairs = MatchStore.open(given[2], read_only=True)
    assert pairs.settings["max_seconds"] == 7.0
    assert {head.name1: head.note for head in pairs.pairs()} == {
        "b.png": "hard: tilt 2",
        "c.png": "hard: nothing more was found",
        "gone.png": None,
    }
    found = pairs.get("a.png", "b.png")
    assert found is not None
    assert (found.matches[:, 0] == found.matches[:, 1]).all()
    assert len(found.matches) == len(grid())
    match(*given, options, images=tmp_path)
    assert len(searched) == 2, "the two are not searched again"
    with pytest.raises(InputError, match="give their folder as `images`"):
        match(*given, options)
    assert match(*given, options, effort="fast").kept == 3, "pairs of another effort have no limit of time"
