"""effort="fast": which pairs are matched by their strongest keypoints, which as a whole, and what comes out."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightglue import NearestNeighbor, match_pair, match_pairs
from lightglue.errors import InputError
from lightglue.extractors.options import ViewOptions
from lightglue.matching.coarse_to_fine import CoarseToFine, CoarseToFineOptions
from lightglue.matching.distinct import distinct_neighbors
from lightglue.matching.effort import EFFORTS
from lightglue.matching.overlap import Coefficients
from lightglue.matching.seed_geometry import Model, residuals
from lightglue.matching.seed_images import read_image
from lightglue.models.choice import Models
from lightglue.models.loaded import LoadedModels, load_models
from lightglue.pairs.files import match_files
from lightglue.pairs.oriented import OrientedImage, pair_of
from lightglue.sfm.stages.match import as_in_maps
from support.command import lightglue

WIDTH, HEIGHT = 640, 480


def features(points: np.ndarray, descriptors: np.ndarray, order: np.ndarray) -> dict[str, Tensor]:
    """As an extractor gives them, in any order; the scores say that all but the last 400 are strong in turn."""
    scores = np.linspace(1, 0.1, len(points))
    return {
        "keypoints": torch.tensor(points[order], dtype=torch.float32)[None],
        "descriptors": torch.tensor(descriptors[order], dtype=torch.float32)[None],
        "keypoint_scores": torch.tensor(scores[order], dtype=torch.float32)[None],
        "image_size": torch.tensor([[WIDTH, HEIGHT]], dtype=torch.float32),
    }


class Scene:
    """1,000 points that two cameras see, or that lie on a plane, and 200 in each image that the other does not see."""

    def __init__(self, seed: int = 0, is_flat: bool = False, right: int = 1000) -> None:
        rng = np.random.default_rng(seed)
        world = np.c_[rng.uniform(-2.5, 2.5, (1000, 2)), rng.uniform(4, 8, 1000)]
        if is_flat:
            world[:, 2] = 6 + 0.3 * world[:, 0]
        K = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1.0]])
        c, s = np.cos(0.1), np.sin(0.1)
        R = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        views = [world @ K.T, (world @ R.T + (0.8, 0.1, 0.1)) @ K.T]
        names = rng.normal(size=(1000, 64))
        both = []
        for view in views:
            seen = view[:, :2] / view[:, 2:] + rng.normal(size=(1000, 2)) * 0.3
            own = names + rng.normal(size=names.shape) * 0.5
            own[right:] = rng.normal(size=own[right:].shape)  # what cannot be recognised
            clutter = rng.random((200, 2)) * (WIDTH, HEIGHT), rng.normal(size=(200, 64))
            both.append((np.r_[seen, clutter[0]], np.r_[own, clutter[1]]))
        # each third point is strong in both images; the order in which they stand is another
        strong = rng.permutation(1000)
        ranked = np.r_[strong, np.arange(1000, 1200)]
        self.orders = [rng.permutation(1200) for _ in both]
        self.truth = [ranked[order] for order in self.orders]  # (1200,) which point each keypoint is
        self.pair = tuple(
            features(points[ranked], own[ranked] / np.linalg.norm(own[ranked], axis=1)[:, None], order)
            for (points, own), order in zip(both, self.orders, strict=True)
        )

    def is_right(self, matches: Tensor) -> np.ndarray:
        first, second = (truth[matches[:, side].numpy()] for side, truth in enumerate(self.truth))
        return np.asarray((first == second) & (first < 1000))


class Recognizer(torch.nn.Module):
    """In the place of LightGlue, with its dictionaries: what it knows of a pair is exact, and it counts its work."""

    def __init__(self, overlap: float | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.given, self.worked = overlap, []

    def match(self, pairs: list[Any]) -> list[dict[str, Any]]:
        return [self(dict(zip(("image0", "image1"), pair, strict=True))) for pair in pairs]

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        a, b = (data[key]["descriptors"] for key in ("image0", "image1"))
        assert data["image0"]["image_size"].tolist() == [[WIDTH, HEIGHT]] * len(a)
        self.worked.append((a.shape[1], b.shape[1]))
        found = NearestNeighbor()(data)
        keep = [scores > 0.8 for scores in found["scores"]]
        matches = [each[kept] for each, kept in zip(found["matches"], keep, strict=True)]
        scores = [each[kept] for each, kept in zip(found["scores"], keep, strict=True)]
        for side in (0, 1):
            weak = found[f"matching_scores{side}"] <= 0.8
            found[f"matches{side}"][weak] = -1
            found[f"matching_scores{side}"][weak] = 0
        share = torch.tensor([len(each) / max(1, a.shape[1]) for each in matches])
        overlap = (4 * share).clamp(0.001, 0.999) if self.given is None else torch.full((len(a),), self.given)
        layers = {f"prune{side}": torch.full(found[f"matches{side}"].shape, 9) for side in (0, 1)}
        stop = 9 if len(a) == 1 else torch.full((len(a),), 9)
        return {**found, "matches": matches, "scores": scores, "stop": stop, **layers, "overlap": overlap}


class Known(Recognizer):
    """Says that it is LightGlue, and has its layers: after three of them it knows as much as after all."""

    feature_type = "aliked"

    def match(self, pairs: list[Any], *, layers: int | None = None) -> list[dict[str, Any]]:
        assert layers in (None, 3)
        return super().match(pairs)


def other_way_round(result: dict[str, Any]) -> dict[str, Any]:
    """What the images in the other order are to give."""
    names = {
        f"{name}{side}": f"{name}{1 - side}" for name in ("matches", "matching_scores", "prune") for side in (0, 1)
    }
    turned = {names.get(key, key): value for key, value in result.items()}
    order = result["matches"][0][:, 1].argsort()
    return {**turned, "matches": [result["matches"][0][order].flip(1)], "scores": [result["scores"][0][order]]}


@pytest.mark.parametrize(
    ("scene", "stages"),
    [
        (Scene(), ["neighbors", "guided"]),
        (Scene(is_flat=True), ["neighbors", "guided"]),
        (Scene(right=150), ["neighbors", "seeds", "geometry", "all keypoints"]),
        (Scene(right=0), ["neighbors", "first layers"]),
    ],
    ids=["easy", "flat", "hard", "none"],
)
def test_a_result_does_not_depend_on_which_image_comes_first(scene: Scene, stages: list[str]) -> None:
    there, back = (CoarseToFine(Known()).match([pair])[0] for pair in (scene.pair, scene.pair[::-1]))
    records = there.pop("effort"), back.pop("effort")
    for record in records:
        assert [stage.name for stage in record.stages] == stages
    expected = other_way_round(there)
    assert back.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(torch.as_tensor(back[key][0]), torch.as_tensor(value[0])) if key != "stop" else True, key
    if records[0].model is not None:
        ends = [scene.pair[side]["keypoints"][0][there["matches"][0][:, side]].double().numpy() for side in (0, 1)]
        own, turned = (
            residuals(Model(record.geometry, record.model), *points)
            for record, points in zip(records, (ends, ends[::-1]), strict=True)
        )
        assert np.allclose(own, turned, atol=1e-6)
        assert sorted(own[records[0].inliers]) == pytest.approx(sorted(own[own <= 1.5]))
        assert records[0].inliers.sum() == records[1].inliers.sum()


def test_where_no_layer_is_run_the_overlap_is_by_what_was_fitted_to_the_matchers_own_weights() -> None:
    scene, matcher = Scene(), Known()
    matcher.overlap = Coefficients(0.0, 0.0, 0.0)
    assert CoarseToFine(matcher).match([scene.pair])[0]["overlap"].tolist() == [0.5]
    matcher.overlap = None  # nothing was
    assert "overlap" not in CoarseToFine(matcher).match([scene.pair])[0]


def test_descriptors_without_rivals_that_agree_need_no_network() -> None:
    scene, matcher = Scene(), Known()
    result = CoarseToFine(matcher).match([scene.pair])[0]
    assert matcher.worked == []
    right = scene.is_right(result["matches"][0])
    assert right.mean() > 0.98
    assert right.sum() > 930
    assert result["stop"] == 0
    assert not result["prune0"].any()
    assert result["overlap"][0] > 0.99
    assert result.keys() == {*Recognizer().match([scene.pair])[0], "effort"}
    assert ((result["scores"][0] > 0) & (result["scores"][0] <= 1)).all()


def test_matches_that_are_less_sure_than_the_threshold_are_left_out() -> None:
    pair, matcher = Scene().pair, Known()
    sure = CoarseToFine(matcher).match([pair])[0]["scores"][0]
    matcher.conf = SimpleNamespace(filter_threshold=float(sure.quantile(0.3)))
    kept = CoarseToFine(matcher).match([pair])[0]
    assert [stage.name for stage in kept["effort"].stages] == ["neighbors", "guided"]
    assert torch.equal(kept["scores"][0], sure[sure > matcher.conf.filter_threshold])
    assert len(kept["effort"].inliers) == len(kept["matches"][0])


def test_the_overlap_of_neighbors_is_that_of_the_matcher_s_own_weights() -> None:
    pair, matcher = Scene().pair, Known()
    usual = CoarseToFine(matcher).match([pair])[0]
    matcher.overlap = Coefficients(0.0, 0.0, 0.0)
    assert CoarseToFine(matcher).match([pair])[0]["overlap"].tolist() == [0.5]
    matcher.overlap = None
    assert CoarseToFine(matcher).match([pair])[0].keys() == usual.keys() - {"overlap"}


@pytest.mark.parametrize(("right", "last"), [(0, "geometry"), (150, "guided"), (1000, "guided")])
def test_a_known_matcher_that_gives_matches_and_scores_alone_will_do(right: int, last: str) -> None:
    class Brief(Known):
        def forward(self, data: dict[str, Any]) -> dict[str, Any]:
            found = super().forward(data)
            return {key: found[key] for key in ("matches", "scores")}

    scene = Scene(right=right)
    result = CoarseToFine(Brief()).match([scene.pair])[0]
    assert result["effort"].stages[-1].name == last
    assert len(result["matches"][0]) >= 0.5 * right


def test_where_descriptors_alone_are_not_beyond_doubt_the_matcher_is_asked() -> None:
    pair = Scene(right=200).pair
    for options in ({"distinct_part": 0.3}, {"distinct_share": 1.01}, {"distinct_extent": 2.0}):
        matcher = Known()
        record = CoarseToFine(matcher, CoarseToFineOptions(**options)).match([pair])[0]["effort"]
        assert matcher.worked[0] == (512, 512), options
        assert [stage.name for stage in record.stages][:2] == ["neighbors", "seeds"]


@pytest.mark.parametrize(
    ("right", "alone", "in_a_map"), [(90, "seeds", "guided"), (34, "seeds", "seeds"), (400, "guided", "guided")]
)
def test_in_maps_some_forty_keypoints_that_descriptors_alone_tell_apart_are_enough(
    right: int, alone: str, in_a_map: str
) -> None:
    scene = Scene(right=right)
    usual = CoarseToFineOptions()
    for options, expected in ((usual, alone), (as_in_maps(usual), in_a_map)):
        result = CoarseToFine(Known(), options).match([scene.pair])[0]
        assert [stage.name for stage in result["effort"].stages][:2] == ["neighbors", expected]
        assert scene.is_right(result["matches"][0]).sum() >= 0.4 * right


@pytest.mark.parametrize(("right", "compared"), [(1000, [600]), (60, [600, 1200])])
def test_half_of_the_keypoints_are_compared_where_that_will_do(
    right: int, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, scene = [], Scene(right=right)

    def counted(a: np.ndarray, b: np.ndarray, ratio: float) -> Any:
        sizes.append(len(a))
        return distinct_neighbors(a, b, ratio)

    monkeypatch.setattr("lightglue.matching.coarse_to_fine.distinct_neighbors", counted)
    whole, half = (
        CoarseToFine(Known(), CoarseToFineOptions(half_will_do=half)).match([scene.pair])[0] for half in (False, True)
    )
    assert sizes == [600, 1200, *compared]
    assert scene.is_right(half["matches"][0]).sum() >= 0.9 * scene.is_right(whole["matches"][0]).sum() > 0


@pytest.mark.parametrize(("right", "last"), [(150, "guided"), (60, "geometry")])
def test_doubtful_pairs_are_matched_with_so_many_keypoints_where_that_is_said(right: int, last: str) -> None:
    scene = Scene(right=right)
    usual, some = Known(), Known()
    assert CoarseToFine(usual).match([scene.pair])[0]["effort"].escalated
    result = CoarseToFine(some, CoarseToFineOptions(most=800)).match([scene.pair])[0]
    assert (usual.worked[-1], some.worked[-1]) == ((1200, 1200), (800, 800))
    names = [stage.name for stage in result["effort"].stages]
    assert names[:5] == ["neighbors", "seeds", "geometry", "more keypoints", "geometry"]
    assert names[-1] == last
    assert result["effort"].escalated
    assert scene.is_right(result["matches"][0]).sum() > 0.4 * right
    assert int((result["prune0"] > 0).sum()) == 800
    small = Known()
    CoarseToFine(small, CoarseToFineOptions(most=1200)).match([scene.pair])
    assert small.worked[-1] == (1200, 1200)


def test_images_that_share_nothing_cost_a_few_layers_of_a_few_keypoints() -> None:
    matcher = Known()
    result = CoarseToFine(matcher).match([Scene(right=0).pair])[0]
    assert matcher.worked == [(256, 256)]
    assert "after the first layers" in result["effort"].rejected
    assert int((result["prune0"] > 0).sum()) == 256
    plain = Known()
    plain.match = lambda pairs: Recognizer.match(plain, pairs)  # type: ignore[method-assign]  # as a runtime
    assert CoarseToFine(plain).match([Scene(right=0).pair])[0]["effort"].rejected is not None


def test_an_easy_pair_is_matched_by_its_strongest_keypoints_and_the_others_follow() -> None:
    scene, matcher = Scene(), Recognizer()
    result = CoarseToFine(matcher).match([scene.pair])[0]
    assert matcher.worked == [(512, 512)]
    right = scene.is_right(result["matches"][0])
    assert right.mean() > 0.98
    assert right.sum() > 930
    record = result["effort"]
    assert (record.effort, record.escalated, record.rejected) == ("fast", None, None)
    assert [stage.name for stage in record.stages] == ["seeds", "geometry", "guided"]
    assert record.stages[-1].matches == len(right) > record.stages[0].matches
    assert record.geometry == "fundamental"
    assert record.inliers.shape == right.shape
    assert record.inliers.mean() > 0.9


def test_the_seeds_are_the_strongest_keypoints_of_each_part_of_the_image() -> None:
    image = {key: value.clone() for key, value in Scene().pair[0].items()}
    image["keypoints"][0, :900] = 3 * torch.rand(900, 2, generator=torch.Generator().manual_seed(0))  # a crowd
    image["keypoint_scores"][0, :900] += 1  # of the strongest
    made = read_image(image, "image0", None, 12, {}).seeds(512)
    assert len(made.rows) == len(set(made.rows)) == 512
    assert (np.diff(made.rows) > 0).all()
    outside = np.arange(900, 1200)
    assert np.isin(outside, made.rows).mean() > 0.95  # all parts have their share
    scores = image["keypoint_scores"][0].numpy()
    crowd = made.rows[made.rows < 900]
    assert scores[crowd].min() > scores[np.setdiff1d(np.arange(900), crowd)].max()
    assert torch.equal(made.features["descriptors"][0], image["descriptors"][0, made.rows])


def test_keypoints_in_one_place_have_seeds_too() -> None:
    image = {**Scene().pair[0], "keypoints": torch.ones(1, 1200, 2)}
    assert len(read_image(image, "image0", None, 12, {}).seeds(512).rows) == 512


def test_a_flat_scene_is_guided_by_a_homography() -> None:
    scene = Scene(is_flat=True)
    result = CoarseToFine(Recognizer()).match([scene.pair])[0]
    assert result["effort"].geometry == "homography"
    right = scene.is_right(result["matches"][0])
    assert right.mean() > 0.99
    assert right.sum() > 930


def test_a_pair_with_few_seeds_that_agree_is_matched_as_a_whole_with_the_very_same_result() -> None:
    for scene, matcher in ((Scene(right=60), Recognizer(0.95)), (Scene(), Recognizer(0.45))):
        expected = matcher.match([scene.pair])[0]
        result = CoarseToFine(matcher).match([scene.pair])[0]
        assert matcher.worked == [(1200, 1200), (512, 512), (1200, 1200)]
        for key, value in expected.items():
            assert str(result.pop(key)) == str(value), key
        record = result.pop("effort")
        assert not result
        assert "agree, overlap 0." in record.escalated
        assert [stage.name for stage in record.stages] == ["seeds", "geometry", "all keypoints"]
        assert record.model is None


def test_seeds_whose_geometry_is_clear_need_less_overlap() -> None:
    record = CoarseToFine(Recognizer(0.55)).match([Scene().pair])[0]["effort"]
    assert record.escalated is None
    options = CoarseToFineOptions(clear_share=1.1)
    assert "overlap 0.55" in CoarseToFine(Recognizer(0.55), options).match([Scene().pair])[0]["effort"].escalated


def test_keypoints_that_descriptors_alone_do_not_tell_apart_are_matched_as_a_whole() -> None:
    scene, options = Scene(), CoarseToFineOptions(least_yield=1.0)
    known = CoarseToFine(Recognizer(), options).match([scene.pair])[0]
    assert known["effort"].escalated is None
    noise = torch.randn(1200, scene.pair[1]["descriptors"].shape[-1], generator=torch.Generator().manual_seed(0))
    weak = scene.pair[1]["keypoint_scores"][0].argsort()[:600]
    scene.pair[1]["descriptors"][0, weak] = torch.nn.functional.normalize(noise[weak], dim=-1)
    record = CoarseToFine(Recognizer(), options).match([scene.pair])[0]["effort"]
    assert "were to be expected" in record.escalated
    assert [stage.name for stage in record.stages] == ["seeds", "geometry", "guided", "all keypoints"]


def test_a_flat_scene_needs_more_of_the_matches_that_are_to_be_expected_than_another() -> None:
    """As the corners of a homography depend on them, and strong perspective hides them from guidance."""
    reasons = []
    for is_flat in (False, True):
        scene = Scene(is_flat=is_flat)
        weak = scene.pair[1]["keypoint_scores"][0].argsort()[:600]
        noise = torch.randn(600, scene.pair[1]["descriptors"].shape[-1], generator=torch.Generator().manual_seed(0))
        scene.pair[1]["descriptors"][0, weak] = torch.nn.functional.normalize(noise, dim=-1)
        reasons.append(CoarseToFine(Recognizer()).match([scene.pair])[0]["effort"].escalated)
    assert reasons[0] is None
    assert "were to be expected" in reasons[1]


def test_seeds_that_agree_in_one_corner_alone_are_not_trusted() -> None:
    scene = Scene()
    for side, image in enumerate(scene.pair):  # the whole scene is as large as a thumbnail
        is_seen = torch.tensor(scene.truth[side] < 1000)
        image["keypoints"][0, is_seen] = 20 + image["keypoints"][0, is_seen] * 0.03
    record = CoarseToFine(Recognizer(), CoarseToFineOptions(error=0.1)).match([scene.pair])[0]["effort"]
    assert "close together" in record.escalated


def test_images_that_share_nothing_are_done_after_the_seeds() -> None:
    scene, matcher = Scene(right=0), Recognizer()
    result = CoarseToFine(matcher).match([scene.pair])[0]
    assert matcher.worked == [(512, 512)]
    assert result["effort"].rejected is not None
    assert result["effort"].escalated is None
    assert len(result["matches"][0]) == result["effort"].stages[0].matches < 20
    assert result["overlap"][0] < 0.1


def test_images_of_alike_parts_are_done_after_the_seeds_though_some_of_these_agree() -> None:
    scene = Scene(right=60)
    records = [CoarseToFine(Recognizer(overlap)).match([scene.pair])[0]["effort"] for overlap in (0.05, 0.15)]
    assert 20 <= records[0].stages[1].matches < 40
    assert [record.rejected is not None for record in records] == [True, False]
    assert [record.escalated is not None for record in records] == [False, True]


def test_without_an_overlap_the_agreement_of_the_seeds_decides() -> None:
    class Silent(Recognizer):
        def forward(self, data: dict[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in super().forward(data).items() if key != "overlap"}

    easy, hard, none = (CoarseToFine(Silent()).match([Scene(right=n).pair])[0] for n in (1000, 60, 0))
    assert easy["effort"].geometry == "fundamental"
    assert hard["effort"].escalated is not None
    assert none["effort"].rejected is not None
    assert "overlap" not in easy


def test_the_result_has_the_keys_shapes_and_types_of_the_matcher() -> None:
    pair = Scene().pair
    expected, result = Recognizer().match([pair])[0], CoarseToFine(Recognizer()).match([pair])[0]
    assert result.keys() - {"effort"} == expected.keys()
    for key, value in expected.items():
        if isinstance(value, Tensor):
            assert (result[key].shape, result[key].dtype) == (value.shape, value.dtype), key
        else:
            assert type(result[key]) is type(value), key
    ij, scores = result["matches"][0], result["scores"][0]
    assert ij.dtype == torch.int64
    assert scores.dtype == torch.float32
    assert (ij[1:, 0] > ij[:-1, 0]).all()
    assert torch.equal(result["matches0"][0, ij[:, 0]], ij[:, 1])
    assert torch.equal(result["matches1"][0, ij[:, 1]], ij[:, 0])
    assert int((result["matches0"] >= 0).sum()) == int((result["matches1"] >= 0).sum()) == len(ij)
    assert torch.equal(result["matching_scores0"][0, ij[:, 0]], scores)
    assert torch.equal(result["matching_scores1"][0, ij[:, 1]], scores)
    assert ((scores > 0) & (scores <= 1)).all()
    assert int((result["prune0"] > 0).sum()) == 512


def test_scores_of_guided_matches_pass_the_filter_threshold() -> None:
    matcher = Recognizer()
    matcher.conf = type("Conf", (), {"filter_threshold": 0.7})()
    result = CoarseToFine(matcher).match([Scene().pair])[0]
    assert result["scores"][0].min() > 0.7


def test_a_pairs_result_depends_on_nothing_but_its_images() -> None:
    scenes = [Scene(0), Scene(1, right=60), Scene(2), Scene(3, right=0)]
    shared = (scenes[0].pair[0], scenes[2].pair[1])
    pairs = [*(scene.pair for scene in scenes), shared]
    matcher = CoarseToFine(Recognizer())
    together = matcher.match(pairs)
    alone = [matcher.match([pair])[0] for pair in pairs]
    one_by_one = matcher.match(pair for pair in pairs)
    for results in (alone, one_by_one):
        for a, b in zip(together, results, strict=True):
            assert torch.equal(a["matches"][0], b["matches"][0])
            assert torch.equal(a["scores"][0], b["scores"][0])
            assert str(a["effort"].escalated) == str(b["effort"].escalated)


def test_a_batch_is_matched_pair_by_pair() -> None:
    scenes = [Scene(0), Scene(2), Scene(3, right=0)]
    data = {
        f"image{side}": {key: torch.cat([scene.pair[side][key] for scene in scenes]) for key in scenes[0].pair[side]}
        for side in (0, 1)
    }
    matcher = CoarseToFine(Recognizer())
    result = matcher(data)
    assert result["matches0"].shape == (3, 1200)
    assert result["stop"].tolist() == [9, 9, 9]
    assert [record.geometry for record in result["effort"]] == ["fundamental", "fundamental", None]
    for i, scene in enumerate(scenes):
        assert torch.equal(result["matches"][i], matcher.match([scene.pair])[0]["matches"][0])


@pytest.mark.parametrize("counts", [(700, 700), (30, 20), (1, 700), (0, 50), (0, 0)])
def test_few_keypoints_are_matched_as_they_are(counts: tuple[int, int]) -> None:
    pair = tuple(
        {key: value if key == "image_size" else value[:, :count] for key, value in image.items()}
        for image, count in zip(Scene().pair, counts, strict=True)
    )
    matcher = Recognizer()
    result = CoarseToFine(matcher).match([pair])[0]
    assert matcher.worked == [counts]
    assert result["effort"].escalated is None
    assert [stage.name for stage in result["effort"].stages] == ["all keypoints"]


@pytest.mark.parametrize(
    ("right", "worked", "stages"),
    [
        (1000, [], ["neighbors", "guided"]),
        (80, [(600, 600)], ["neighbors", "all keypoints"]),
        (0, [(256, 256)], ["neighbors", "first layers"]),
    ],
    ids=["easy", "hard", "none"],
)
def test_pairs_of_a_few_hundred_keypoints_are_matched_as_a_whole_where_neighbors_and_first_layers_leave_a_doubt(
    right: int, worked: list[tuple[int, int]], stages: list[str]
) -> None:
    scene, matcher = Scene(right=right), Known()
    few = [torch.tensor(np.flatnonzero(truth % 2 == 0)) for truth in scene.truth]  # half of both
    pair = tuple(
        {key: value if key == "image_size" else value[:, rows] for key, value in image.items()}
        for image, rows in zip(scene.pair, few, strict=True)
    )
    result = CoarseToFine(matcher).match([pair])[0]
    assert matcher.worked == worked
    assert [stage.name for stage in result["effort"].stages] == stages
    assert (result["effort"].rejected is None) == bool(right)
    if worked == [(600, 600)]:
        assert torch.equal(result["matches"][0], Recognizer().match([pair])[0]["matches"][0])


@pytest.mark.parametrize("counts", [(1, 1200), (0, 1200), (3, 1200)])
def test_an_image_of_next_to_no_keypoints_beside_one_of_many(counts: tuple[int, int]) -> None:
    pair = tuple(
        {key: value if key == "image_size" else value[:, :count] for key, value in image.items()}
        for image, count in zip(Scene().pair, counts, strict=True)
    )
    result = CoarseToFine(Recognizer()).match([pair])[0]
    assert result["matches0"].shape == (1, counts[0])
    assert len(result["matches"][0]) <= counts[0]


def test_features_without_scores_or_with_more_entries() -> None:
    scene = Scene()
    pair = tuple({key: value for key, value in image.items() if key != "keypoint_scores"} for image in scene.pair)
    result = CoarseToFine(Recognizer()).match([pair])[0]
    assert scene.is_right(result["matches"][0]).mean() > 0.98
    more = tuple({**image, "oris": torch.zeros(1, 1200), "scales": torch.ones(1, 1200)} for image in scene.pair)
    seeds = read_image(more[0], "image0", None, 12, {}).seeds(512).features
    assert seeds["oris"].shape == seeds["scales"].shape == (1, 512)
    without_batch = tuple({key: value[0] for key, value in image.items()} for image in scene.pair)
    assert torch.equal(
        CoarseToFine(Recognizer()).match([without_batch])[0]["matches0"],
        CoarseToFine(Recognizer()).match([scene.pair])[0]["matches0"],
    )


def test_what_is_wrong_with_features_is_said_as_ever() -> None:
    matcher = CoarseToFine(Recognizer())
    broken = {**Scene().pair[0], "keypoints": Scene().pair[0]["keypoints"].clone()}
    broken["keypoints"][0, -1, 0] = torch.nan  # of whatever rank
    with pytest.raises(InputError, match=r"pairs\[0\]\[1\]: keypoints hold NaN"):
        matcher.match([(Scene().pair[0], broken)])
    with pytest.raises(InputError, match="image1: keypoints hold NaN"):
        matcher({"image0": Scene().pair[0], "image1": broken})
    with pytest.raises(InputError, match="must be a dictionary of features"):
        matcher.match([(None, broken)])
    with pytest.raises(InputError, match="item 0 is dict"):
        matcher.match([broken])
    with pytest.raises(InputError, match="needs 'image1'"):
        matcher({"image0": broken})
    two = {key: torch.cat([value, value]) for key, value in Scene().pair[0].items()}
    with pytest.raises(InputError, match="one image at a time"):
        matcher.match([(two, two)])


def test_an_input_that_is_no_dictionary_or_no_list_is_refused_as_ever() -> None:
    matcher = CoarseToFine(Recognizer())
    for given in (3, (3 for _ in range(1))):
        with pytest.raises(InputError, match="match\\(\\) takes"):
            matcher.match(given)
    for missing in ({"image0": None, "image1": Scene().pair[1]}, {"image0": Scene().pair[0], "image1": 3}):
        with pytest.raises((InputError, TypeError)):  # of the matcher, which says it in its own way
            matcher(missing)


def lacking(*keys: str) -> Callable[[Any], Any]:
    """A matcher that is a function, and gives less than LightGlue."""
    return lambda data: {key: value for key, value in Recognizer()(data).items() if key not in keys}


def test_a_matcher_of_the_users_own_may_give_matches_and_scores_alone() -> None:
    scene = Scene()
    data = dict(zip(("image0", "image1"), scene.pair, strict=True))
    whole = CoarseToFine(Recognizer())(data)
    others = ("matches0", "matches1", "matching_scores0", "matching_scores1", "prune0", "prune1", "stop", "overlap")
    less = CoarseToFine(lacking(*others))(data)
    assert torch.equal(less["matches"][0], whole["matches"][0])
    assert torch.equal(less["matches0"], whole["matches0"])
    for key in ("matches", "scores"):
        with pytest.raises(InputError, match=f"gives no {key}, which effort 'fast' needs"):
            CoarseToFine(lacking(key))(data)


def test_a_batch_has_what_all_its_pairs_have() -> None:
    one, other = Scene(), Scene(1, right=60)  # the second is matched as a whole
    batch = {f"image{i}": {k: torch.cat([other.pair[i][k], one.pair[i][k]]) for k in one.pair[i]} for i in (0, 1)}
    found = CoarseToFine(lambda data: {**Recognizer(0.95)(data), "own": 3})(batch)
    assert [record.escalated is None for record in found["effort"]] == [False, True]
    assert "own" not in found
    assert len(found["matches0"]) == 2


def test_positions_that_no_model_can_be_computed_with_are_matched_as_a_whole() -> None:
    scene = Scene(is_flat=True)
    far = [{**f, "keypoints": f["keypoints"] * 1e30, "image_size": f["image_size"] * 1e30} for f in scene.pair]
    matcher = Recognizer()
    matcher.forward = lambda data: lacking()(scaled(data))  # type: ignore[method-assign]
    found = CoarseToFine(matcher).match([tuple(far)])[0]
    assert len(found["matches"][0]) > 500


def scaled(data: Any) -> Any:
    return {name: {**each, "image_size": each["image_size"] / 1e30} for name, each in data.items()}


def test_the_users_matcher_stays_in_the_mode_that_it_is_in() -> None:
    matcher = Recognizer().train()
    image = torch.zeros(3, HEIGHT, WIDTH)
    extractor = SimpleNamespace(extract=lambda *_, **__: Scene().pair[0])
    assert match_pair(extractor, matcher, image, image, effort="fast").effort is not None
    assert matcher.training


def test_the_model_of_a_pair_that_was_turned_is_that_of_its_own_pixels() -> None:
    scene = Scene()
    image = torch.zeros(3, HEIGHT, WIDTH)
    seen = OrientedImage(image, None), OrientedImage(image.transpose(1, 2), None, 90)  # as it was found upright
    for flat in (False, True):
        scene = Scene(is_flat=flat)
        pair = pair_of(scene.pair, seen, CoarseToFine(Recognizer()).match([scene.pair])[0], True)
        record = pair.effort
        assert record is not None
        model = Model(record.geometry, record.model)
        apart = residuals(model, pair.points0.double().numpy(), pair.points1.double().numpy())
        assert (apart[record.inliers] < 2).all()


def test_nearest_neighbours_and_unknown_efforts_are_refused() -> None:
    with pytest.raises(InputError, match="leave it out"):
        CoarseToFine(NearestNeighbor())
    with pytest.raises(InputError, match=r"effort is 'fast'.*leave it out"):
        Models(matcher="nearest", effort="fast")
    for made in (lambda: Models(effort="quick"), lambda: match_pair(None, None, None, None, effort="quick")):  # type: ignore[arg-type]
        with pytest.raises(InputError, match=f"quick.*{EFFORTS[0]}"):
            made()


def test_it_has_what_its_matcher_has_and_can_be_copied() -> None:
    matcher = Recognizer()
    matcher.feature_type = "aliked"
    fast = CoarseToFine(matcher)
    assert fast.feature_type == "aliked"
    assert not hasattr(fast, "precision")
    assert [p.data_ptr() for p in fast.parameters()] == [matcher.weight.data_ptr()]
    assert CoarseToFine(fast).matcher is matcher
    for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(copied.match([Scene().pair])[0]["matches0"], fast.match([Scene().pair])[0]["matches0"])


def test_the_usual_effort_leaves_no_trace_in_records() -> None:
    from lightglue.sfm.options import MatchOptions

    assert "effort" not in Models().decisive()
    assert Models(effort="fast").decisive()["effort"] == "fast"
    usual, fast = (MatchOptions(models=Models(device="cpu", effort=effort)).settings() for effort in ("normal", "fast"))
    assert fast == {**usual, "effort": "fast"}


@pytest.fixture(scope="module")
def photographs(image_path: Callable[[str, int], Path]) -> list[Path]:
    return [image_path("montmartre", i) for i in (0, 1)]


@pytest.fixture(scope="module")
def loaded() -> LoadedModels:
    return load_models(Models("aliked", 1024, "cpu", mp=False))


def test_photographs_are_matched_as_by_lightglue_from_the_same_geometry(
    photographs: list[Path], loaded: LoadedModels
) -> None:
    normal = match_pair(loaded.extractor, loaded.matcher, *photographs, resize=640)
    fast = CoarseToFine(loaded.matcher).match([tuple(features_of(normal, side) for side in (0, 1))])[0]
    assert fast["effort"].geometry is not None
    assert fast["overlap"][0] > 0.9
    found, own = ({tuple(row) for row in matches.tolist()} for matches in (fast["matches"][0], normal.matches))
    assert len(found & own) > 0.7 * max(len(found), len(own))


def test_match_pair_and_match_pairs_take_the_effort() -> None:
    scenes = [Scene(0), Scene(1)]
    images = [[torch.full((3, HEIGHT, WIDTH), 0.1 * side + 0.3 * i) for side in (0, 1)] for i in (0, 1)]

    class Known:
        def extract(self, image: Tensor, **_: Any) -> Any:
            value = float(image.flatten()[0])
            return scenes[int(value > 0.25)].pair[int(round(value * 10) in (1, 4))]

    alone = match_pair(Known(), Recognizer(), *images[0], effort="fast")
    assert alone.effort is not None
    assert alone.effort.geometry == "fundamental"
    assert len(alone.effort.inliers) == len(alone.matches) == len(alone.points0)
    both = match_pairs(Known(), Recognizer(), [tuple(two) for two in images], effort="fast")
    assert torch.equal(both[0].matches, alone.matches)
    assert both[1].effort is not None
    assert match_pair(Known(), Recognizer(), *images[0]).effort is None


def test_models_of_effort_fast_match_files_and_say_so(photographs: list[Path], loaded: LoadedModels) -> None:
    fast = replace(loaded.choice, effort="fast")
    models = LoadedModels(fast, loaded.extractor, CoarseToFine(loaded.matcher))
    result = match_files(*photographs, models=models, views=ViewOptions(resize=640))
    summary = result.summary()
    assert summary["effort"] == "fast"
    assert [stage["name"] for stage in summary["stages"]] == ["neighbors", "seeds", "geometry", "guided"]
    assert "pruned" not in summary
    assert models.precision == "float32"
    assert json.dumps(summary)
    assert result.texts()
    assert result.pair.effort.seconds > 0
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    strange = match_files(photographs[0], noise, models=models, views=ViewOptions(resize=640)).summary()
    assert "rejected" in strange
    assert "pruned" not in strange  # what was no seed was not dropped by the matcher


def features_of(pair: Any, side: int) -> dict[str, Tensor]:
    return {key: value[None] for key, value in pair[side].items()}


def test_the_command_takes_the_effort(photographs: list[Path]) -> None:
    asked = ("--effort", "fast", "--max-keypoints", "1024", "--device", "cpu", "--no-mp", "--resize", "640")
    done = lightglue("match", *photographs, *asked)
    assert done.code == 0
    assert "fast: neighbors " in done.out
    assert lightglue("match", *photographs, "--effort", "quick").code == 2
