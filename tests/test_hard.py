"""`effort="hard"`: what is found beyond plain matching, when it is tried, and when it ends."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
import torch

from lightglue import ALIKED, SIFT, LightGlue, NearestNeighbor, load_image, match_pair, match_pairs
from lightglue.errors import InputError, LightGlueError
from lightglue.geometry import transfer_error
from lightglue.matching.overlap import Coefficients
from lightglue.pairs.hard import solve as solve_module
from lightglue.pairs.hard.budget import Budget
from lightglue.pairs.hard.kinds import OWN, Kinds
from lightglue.pairs.hard.looks import Correspondences, Image, Kind, Looks, distinct_matches
from lightglue.pairs.hard.models import errors_of, fit
from lightglue.pairs.hard.rematch import common_frame
from lightglue.pairs.hard.search import likely_trials, other_turns, trials, turned_trials
from lightglue.pairs.hard.solve import is_good, solve
from lightglue.pairs.hard.steps import Rematched, Search, overlap_of, reported_overlap
from lightglue.pairs.hard.views import View
from lightglue.pairs.hard.warping import moved, scaling, warp


def points_under(H: np.ndarray, count: int = 60, score: float = 0.9) -> Correspondences:
    points0 = np.random.default_rng(0).uniform(20, 380, (count, 2))
    ones = torch.ones(count)
    scores = np.full(count, score)
    return Correspondences(points0, moved(H, points0), scores, ones, ones, ones[:, None], ones[:, None], (count, count))


H = np.array([[0.9, 0.2, 10], [-0.1, 0.5, 60], [1e-4, 2e-4, 1]])
BLANK = Image(np.zeros((400, 400, 3), np.float32), (1.0, 1.0), None)


ASSETS = Path(__file__).parents[1] / "assets"


class Clock:
    """Each look at it takes some seconds."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Finder:
    """An extractor of the user's own, with no conf and no masks: it finds the same few points in every image."""

    def __init__(self) -> None:
        self.count = 0

    def extract(self, image, resize=None):
        self.count += 1
        h, w = image.shape[-2:]
        keypoints = torch.tensor([[0.3, 0.3], [0.5, 0.6], [0.7, 0.4]]) * torch.tensor([w, h])
        size = torch.tensor([[w, h]]).float()
        return {"keypoints": keypoints[None], "descriptors": torch.eye(3)[None], "image_size": size}


def test_a_model_is_found_in_the_frame_as_in_the_originals():
    found = points_under(H)
    frame = common_frame(H, (BLANK, BLANK), 300)
    for model in (fit(found, "homography", 1.0), fit(found, "homography", 1.0, frame)):
        assert model.inliers.all()
        assert moved(model.matrix, found.points0) == pytest.approx(found.points1, abs=0.01)
    space = fit(found, "fundamental", 1.0, frame)
    assert space.inliers.sum() >= 50


def test_what_mirrors_an_image_is_no_model():
    found = points_under(np.eye(3))
    mirrored = replace(found, points1=np.column_stack((400 - found.points0[:, 0], found.points0[:, 1])))
    assert fit(mirrored, "homography", 1.0) is None


def test_matches_beyond_the_horizon_of_a_frame_do_not_count():
    found = points_under(H)
    frame = common_frame(H, (BLANK, BLANK), 300)
    beyond = moved(np.linalg.inv(frame.matrices[1]), np.full((1, 2), 1e9)) * 2
    assert not np.isfinite(moved(frame.matrices[1], beyond)).all()
    strange = replace(found, points1=np.vstack((beyond, found.points1[1:])))
    model = fit(strange, "homography", 1.0, frame)
    assert model.inliers.tolist() == [False] + [True] * 59
    assert errors_of(model, strange, frame)[0] == np.inf


def test_in_the_common_frame_both_images_lie_on_each_other():
    frame = common_frame(H, (BLANK, BLANK), 300)
    found = points_under(H)
    first, second = (moved(each, p) for each, p in zip(frame.matrices, (found.points0, found.points1), strict=True))
    assert first == pytest.approx(second)
    assert np.prod(frame.size) <= 310 * 310


def test_there_is_no_frame_of_what_is_not_seen_twice():
    away = np.array([[1.0, 0, 1000], [0, 1, 0], [0, 0, 1]])
    assert common_frame(away, (BLANK, BLANK), 300) is None


def test_there_is_no_frame_of_a_model_that_squeezes_an_image_to_a_line():
    for height in (0.01, 1e-15, 0.0):
        flat = np.array([[1.0, 0, 0], [0, height, 200], [0, 0, 1]])
        assert common_frame(flat, (BLANK, BLANK), 300) is None


def test_good_matches_are_left_alone():
    found = points_under(H)
    assert is_good(found, 0.95, 1.0)
    assert is_good(found, None, 1.0)  # a matcher that does not tell the overlap
    assert not is_good(found, 0.5, 1.0)
    assert not is_good(points_under(H, 20), 0.95, 1.0)


def test_every_trial_is_another_one_and_the_likely_turn_comes_first():
    for turn in (0.0, 90.0):
        found = [*turned_trials(), *trials(turn), *other_turns(turn)]
        assert len(set(found)) == len(found)
        assert found[5].view1.turn == turn
    assert [trial.view1.turn for trial in turned_trials()] == [0, 0, 90, 270, 180]


@pytest.mark.parametrize("seconds", [50.0, 1e9])
def test_the_budget_is_kept(seconds: float):
    """Nothing is begun that would not end in time, by the longest step of its kind so far."""
    clock, finder = Clock(1.0), Finder()
    kinds = Kinds(Kind(OWN, finder, NearestNeighbor()), "cpu")
    budget = Budget(seconds, clock)
    solved = solve(points_under(H, 0), (BLANK, BLANK), kinds, budget, (400, 100), torch.device("cpu"))
    assert solved.found is None
    assert budget.spent < seconds + 15
    assert ("the time was over" in solved.ended) == (seconds == 50)
    assert finder.count < 12 if seconds == 50 else finder.count > 30


class TwoKinds:
    """Two ways to find the same three points, of which the second may be missing."""

    order = OWN, "other"

    def __init__(self, finder: Finder, *missing: str) -> None:
        self.kinds = {name: None if name in missing else Kind(name, finder, NearestNeighbor()) for name in self.order}
        self.missing = missing

    def get(self, name: str) -> Kind | None:
        return self.kinds[name]


def test_a_search_ends_early_where_no_view_of_two_kinds_has_anything():
    finder = Finder()
    budget = Budget(None, Clock(1.0))
    solved = solve(points_under(H, 0), (BLANK, BLANK), TwoKinds(finder), budget, (400, 100), torch.device("cpu"))
    assert solved.found is None
    assert "more than in pairs of different scenes" in solved.ended
    views = {stage.name for stage in solved.stages if stage.name.startswith("views")}
    assert views == {"views own", "views other"}
    likely = len([*turned_trials(), *likely_trials(0.0)])
    assert f"after {2 * likely} views" in solved.ended


def test_a_search_ends_early_where_all_that_agreed_was_looked_at_closer_and_refuted(monkeypatch):
    found = points_under(H, 60).only(np.arange(12))
    looked: list[str] = []

    def probe(search: Search, kind: Kind, trial: object) -> Correspondences:
        search.tries += 1
        return found

    def again(search: Search, kind: Kind, *rest: object) -> None:
        looked.append(kind.name)

    monkeypatch.setattr(solve_module, "_probe", probe)
    monkeypatch.setattr(solve_module, "again", again)
    images = (BLANK, BLANK)
    solved = solve(found.only([]), images, TwoKinds(Finder()), Budget(None), (400, 100), torch.device("cpu"))
    assert solved.found is None
    every = len([*turned_trials(), *trials(0.0)])
    assert solved.ended == f"nothing agrees more than in pairs of different scenes after {2 * every} views"
    assert set(looked) == {OWN}  # what the user's own features do not show at all is not asked of the others


def test_a_search_does_not_end_early_for_want_of_a_second_kind():
    kinds, budget = TwoKinds(Finder(), "other"), Budget(None, Clock(1.0))
    solved = solve(points_under(H, 0), (BLANK, BLANK), kinds, budget, (400, 100), torch.device("cpu"))
    tried = sum(len([*ways]) for ways in (turned_trials(), trials(0.0), other_turns(0.0)))
    assert solved.ended == f"no model can be believed after {tried} views; other could not be loaded"


def rematched(matrix: np.ndarray) -> tuple[Search, Rematched]:
    found = points_under(matrix)
    frame = common_frame(matrix, (BLANK, BLANK), 300)
    kind = Kind(OWN, Finder(), NearestNeighbor())
    search = Search(Looks((BLANK, BLANK), torch.device("cpu")), Kinds(kind, "cpu"), Budget(None), (400, 100), 0.6)
    return search, Rematched(found, fit(found, "homography", 3.0, frame), frame, kind)


def test_of_images_that_look_alike_the_overlap_is_no_surer_than_that_of_plain_matching():
    """A façade's windows match as well in any frame: that they were matched again is no evidence."""
    search, found = rematched(np.array([[1.1, 0.05, 4], [-0.05, 0.95, 3], [0, 0, 1.0]]))
    assert overlap_of(search, found) > 0.9
    assert reported_overlap(search, found, found) == 0.6
    search.plain_overlap = None
    assert reported_overlap(search, found, found) > 0.9


def test_of_images_that_look_unlike_the_overlap_is_that_of_their_common_frame():
    turned = np.array([[0.0, -1, 390], [1, 0, 0], [0, 0, 1]])
    for matrix in (turned, H):
        search, found = rematched(matrix)
        assert reported_overlap(search, found, found) == overlap_of(search, found) > 0.9


def test_what_full_size_does_not_bear_out_is_not_reported():
    search, rough = rematched(H)
    few = rough.found.only(np.arange(8))
    full = replace(rough, found=replace(few, counts=(400, 400)), model=fit(few, "homography", 3.0, rough.frame))
    assert reported_overlap(search, rough, full) == overlap_of(search, full) < 0.5
    assert reported_overlap(search, rough, None) == 0.6  # nothing was found there: it is what plain matching says
    search.plain_overlap = None
    assert reported_overlap(search, rough, None) == overlap_of(search, rough)


def test_matches_that_are_not_distinct_do_not_count_at_full_size():
    search, found = rematched(H)
    repeated = replace(found, found=replace(found.found, distinct=np.arange(60) < 6))
    assert reported_overlap(search, repeated, found) == overlap_of(search, found) > 0.9
    told = reported_overlap(search, found, repeated)
    assert told == overlap_of(search, repeated, distinct=True) < 0.5
    assert repeated.found.only([0, 59]).distinct.tolist() == [True, False]


def test_a_match_is_distinct_where_its_ends_resemble_nothing_else_of_their_images_as_much():
    """The first point's partner is its like; those of the others resemble a place beside them at least as much."""
    points = torch.tensor([[10.0, 10], [100, 10], [200, 10], [300, 10], [300, 20], [200, 150]])
    like = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.9, 0.1], [0, 0, 1], [0, 0, 1], [1, 1, 1]])
    one = {"keypoints": points[None], "descriptors": like[None]}
    other = {"keypoints": points[None], "descriptors": (3 * like + torch.tensor([0, 0, 0.7]))[None]}
    rows = torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3], [5, 5]])
    found = distinct_matches((one, other), rows)
    # Points 3 and 4 are alike and 10 px apart: that is one place.
    assert found.tolist() == [True, False, False, True, True]
    nothing = {"keypoints": points[None, :0], "descriptors": like[None, :0]}
    assert distinct_matches((nothing, other), rows[:0]).tolist() == []


def test_the_overlap_is_by_what_was_fitted_to_the_weights_of_the_matcher_itself():
    search, found = rematched(H)
    matcher = MagicMock(overlap=Coefficients(0.0, 0.0, 0.0), feature_type="aliked")
    assert overlap_of(search, replace(found, kind=replace(found.kind, matcher=matcher))) == 0.5
    matcher.overlap = None  # weights of which nothing is known
    usual = overlap_of(search, replace(found, kind=replace(found.kind, matcher=matcher)))
    assert usual == overlap_of(search, found) > 0.9


def test_the_more_views_were_tried_the_less_a_model_is_believed():
    search, found = rematched(H)
    before = overlap_of(search, found)
    search.tries = 50
    assert overlap_of(search, found) < before


def test_what_views_leave_of_the_budget_is_for_those_that_were_not_promising_at_once():
    budget = Budget(10, Clock(1.0))
    budget.took("probe", 0.0)
    assert budget.allows("probe")
    assert not budget.allows("probe", 0.3)


def test_features_that_are_slow_leave_time_to_the_others():
    budget = Budget(10, Clock(1.0))
    budget.took("probe disk", -8.0)
    assert not budget.allows("probe disk")
    assert budget.allows("probe xfeat")


def test_each_stage_of_a_search_is_timed_once():
    """Their seconds are those of the search, also where a view is looked at more closely in between."""
    clock = Clock(1.0)
    kinds = Kinds(Kind(OWN, Finder(), NearestNeighbor()), "cpu")
    budget = Budget(None, clock)
    solved = solve(points_under(H), (BLANK, BLANK), kinds, budget, (400, 100), torch.device("cpu"))
    names = [stage.name for stage in solved.stages]
    assert names[:2] == ["rematch own", "views own"]
    assert all(one != other for one, other in pairwise(names))
    assert sum(stage.seconds for stage in solved.stages) < budget.spent


def test_other_features_are_of_those_that_allow_commercial_use(monkeypatch):
    asked = []
    monkeypatch.setattr("lightglue.pairs.hard.kinds.load_models", lambda models: asked.append(models) or MagicMock())
    kinds = Kinds(Kind(OWN, SIFT(), NearestNeighbor()), "cpu")
    assert kinds.order == (OWN, "aliked-n16rot", "xfeat", "disk")
    assert all(kinds.get(name) is not None for name in kinds.order)
    assert [each.features for each in asked if each.commercial_only] == ["aliked-n16rot", "xfeat", "disk"]


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("ALIKED", ("aliked-n16rot", "xfeat", "disk")),
        ("DISK", ("aliked-n16rot", "xfeat", OWN)),
        ("XFeat", (OWN, "aliked-n16rot", "disk")),
    ],
)
def test_nothing_is_searched_twice_with_one_kind(name: str, order: tuple[str, ...]):
    kind = type(name, (SIFT,), {"__module__": "lightglue.extractors.given"})
    assert Kinds(Kind(OWN, kind(), NearestNeighbor()), "cpu").order == order


def test_where_other_weights_of_aliked_are_missing_the_own_ones_stand_in(monkeypatch):
    """Without a network, views are still tried."""
    monkeypatch.setattr("lightglue.pairs.hard.kinds.load_models", MagicMock(side_effect=LightGlueError))
    own = type("ALIKED", (SIFT,), {"__module__": "lightglue.extractors.given"})()
    kinds = Kinds(Kind(OWN, own, NearestNeighbor()), "cpu")
    assert kinds.get("aliked-n16rot").extractor is own
    assert kinds.get("xfeat") is None
    assert kinds.missing == ["aliked-n16rot", "xfeat"]


def test_a_search_that_ends_for_want_of_time_gives_the_plain_result():
    clock_of_no_time = 1e-9
    images = [torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    plain = match_pair(Finder(), NearestNeighbor(), *images)
    found = match_pair(Finder(), NearestNeighbor(), *images, effort="hard", max_seconds=clock_of_no_time)
    assert found.effort.effort == "hard"
    assert "the time was over" in found.effort.rejected
    assert torch.equal(found.points0, plain.points0)
    assert torch.equal(found.matches01["matches0"], plain.matches01["matches0"])


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "10", True])
def test_a_budget_that_is_no_time_is_an_error(seconds):
    with pytest.raises(InputError, match="max_seconds"):
        match_pair(Finder(), NearestNeighbor(), torch.rand(3, 64, 64), torch.rand(3, 64, 64), max_seconds=seconds)


@pytest.fixture(scope="module")
def aliked():
    return ALIKED(max_num_keypoints=256, detection_threshold=-1).eval(), LightGlue("aliked").eval()


@pytest.fixture(scope="module")
def plane() -> np.ndarray:
    image = load_image(ASSETS / "montmartre_far.jpg").permute(1, 2, 0).contiguous().numpy()
    scale = 400 / image.shape[1]
    return warp(image, scaling(scale, scale), (400, int(image.shape[0] * scale)))


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def test_a_tilted_and_turned_image_is_matched_exactly(aliked, plane):
    view = View(4, 0, turn=90).of(plane.shape[1], plane.shape[0])
    images = tensor(plane), tensor(view.apply(plane))
    plain = match_pair(*aliked, *images, resize=None)
    assert (transfer_error(view.matrix, plain.points0.numpy(), plain.points1.numpy()) < 4).sum() < 10
    found = match_pair(*aliked, *images, resize=None, effort="hard", max_seconds=None, geometry="homography")
    error = transfer_error(view.matrix, found.points0.numpy(), found.points1.numpy())
    assert len(error) > 60
    assert (error < 2).mean() > 0.95
    assert found.overlap > 0.9
    assert torch.equal(found.keypoints0[found.matches[:, 0]], found.points0)
    assert torch.equal(found.keypoints1[found.matches[:, 1]], found.points1)
    assert len(found.features0["descriptors"]) == len(found.keypoints0)
    assert found.effort.geometry == "homography"
    assert "turned by" in found.effort.found_by
    assert found.effort.stages[0].name == "normal"
    assert found.geometry.statistics.num_inliers > 60


def arcade(seed: int, own: int) -> np.ndarray:
    """(320, 1300, 3): 13 bays of a wall with the same door and ornaments, and in each some of its `own`."""
    rng = np.random.default_rng(seed)

    def ornamented(bay: np.ndarray, count: int) -> np.ndarray:
        for x, y, radius, *colour in rng.uniform([4, 4, 2, 0, 0, 0], [96, 316, 9, 1, 1, 1], (count, 6)):
            cv2.circle(bay, (int(x), int(y)), int(radius), colour, -1, cv2.LINE_AA)
        return bay

    bay = ornamented(np.full((320, 100, 3), 0.6, np.float32), 30)
    cv2.rectangle(bay, (20, 150), (80, 290), (0.1, 0.1, 0.15), -1)
    cv2.circle(bay, (50, 150), 30, (0.1, 0.1, 0.15), -1, cv2.LINE_AA)
    return np.hstack([ornamented(bay.copy(), own) for _ in range(13)])


def from_the_side(wall: np.ndarray) -> np.ndarray:
    """At a tilt of 2.5, turned a little."""
    height, width = wall.shape[:2]
    side = np.array([[0.4, -0.2, 70], [0.08, 1, 0], [2e-4, 0, 1]])
    corners = moved(side, np.array([[0, 0], [width, 0], [width, height], [0, height]]))
    side = np.array([[1, 0, -corners[:, 0].min()], [0, 1, -corners[:, 1].min()], [0, 0, 1]]) @ side
    size = np.ceil(np.ptp(corners, axis=0)).astype(int)
    return warp(wall, side, (int(size[0]), int(size[1])))


def test_two_parts_of_a_row_of_arches_are_not_the_same_part(aliked):
    """One lies on the other, in the frame of plain matches even well; another view of the same part is sure."""
    wall = arcade(seed=3, own=12)
    first, other, same = (np.ascontiguousarray(wall[:, left : left + 450]) for left in (0, 800, 150))
    overlaps = []
    for part in (other, same):
        found = match_pair(
            *aliked, tensor(first), tensor(from_the_side(part)), resize=None, effort="hard", max_seconds=None
        )
        assert found.effort.found_by == "plain matches"
        assert found.effort.inliers.sum() >= 30
        overlaps.append(float(found.overlap))
    assert overlaps[0] < 0.3
    assert overlaps[1] > 0.9


def test_an_easy_pair_is_as_with_normal_and_the_record_says_so(aliked, plane):
    images = tensor(plane), tensor(np.ascontiguousarray(plane[:, 20:]))
    plain = match_pair(*aliked, *images, resize=None)
    (found,) = match_pairs(*aliked, [images], resize=None, effort="hard")
    assert torch.equal(found.matches, plain.matches)
    assert torch.equal(found.keypoints0, plain.keypoints0)
    assert [stage.name for stage in found.effort.stages] == ["normal"]
    assert found.effort.found_by is None


def test_different_things_stay_different(aliked, plane):
    noise = np.random.default_rng(0).random((200, 300, 3)).astype(np.float32)
    images = tensor(plane), tensor(noise)
    plain = match_pair(*aliked, *images, resize=None)
    found = match_pair(*aliked, *images, resize=None, effort="hard", max_seconds=2)
    assert found.overlap == plain.overlap < 0.5
    assert torch.equal(found.matches, plain.matches)
    assert found.effort.rejected


def test_an_image_without_keypoints_is_no_error(aliked, plane):
    found = match_pair(*aliked, tensor(plane), torch.zeros(3, 80, 80), resize=None, effort="hard", max_seconds=1)
    assert len(found.matches) == 0
    assert found.effort.rejected


def test_masks_hold_for_every_view():
    mask = np.zeros((400, 400), bool)
    mask[:, :250] = True
    looks = Looks((replace(BLANK, mask=mask), BLANK), torch.device("cpu"))
    kind = Kind(OWN, Finder(), NearestNeighbor())
    for view in (View(), View(turn=90), View(2, 45)):
        assert (looks.view(kind, 0, view, 200, 100).points[:, 0] < 250.5).all()
        assert len(looks.view(kind, 0, View(), 200, 100)) == 2
        assert len(looks.view(kind, 1, view, 200, 100)) == 3


def test_a_mask_says_nothing_of_points_beyond_the_horizon():
    """Where that is no position, it is no fault either."""
    image = replace(BLANK, mask=np.ones((400, 400), bool))
    assert image.allows(np.array([[np.inf, np.inf], [np.nan, 3.0], [-1e300, 5.0]])).all()


def test_processes_do_the_same():
    images = [torch.rand(3, 48, 60, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1, 2)]
    pairs = [(images[0], images[1]), (images[1], images[2])]
    models = SIFT(max_num_keypoints=20), NearestNeighbor()
    alone, apart = (match_pairs(*models, pairs, effort="hard", max_seconds=1e-9, workers=workers) for workers in (1, 2))
    for one, two in zip(alone, apart, strict=True):
        assert torch.equal(one.points0, two.points0)
        assert one.effort.rejected == two.effort.rejected
        assert two.effort.effort == "hard"
