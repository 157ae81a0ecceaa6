"""Pairs that grow: few of all are matched, nothing that can be connected is lost, and a kill changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.models.choice import Models
from lightglue.sfm.retrieval import mutual
from lightglue.sfm.retrieval.mutual import mutual_counts
from lightglue.sfm.stages import grow
from lightglue.sfm.stages.extract import ExtractOptions, extract
from lightglue.sfm.stages.grow import how_alike, match_growing
from lightglue.sfm.stages.match import MatchOptions, MatchResult
from lightglue.sfm.stages.pairing.growth import AT_ONCE, FIRM, TRIED, Grown, first_pairs, next_pairs
from lightglue.sfm.stages.pairs import Inputs, PairOptions, read_pairs, select_pairs, settled, write_pairs
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, Source
from lightglue.workers.local import LocalEngine
from lightglue.workers.work import Engine
from support import ASSETS

Rows = np.ndarray[Any, np.dtype[np.int64]]
MODELS = Models("sift", 300, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.8})  # no weights
OPTIONS = MatchOptions(MODELS)


# --------------------------------------------------------------------------------------------- how alike images are


def features_of(descriptors: np.ndarray) -> ImageFeatures:
    keypoints = np.zeros((len(descriptors), 2), np.float32)
    scores = np.linspace(1, 0.5, len(descriptors)).astype(np.float32)
    return ImageFeatures(keypoints, descriptors.astype(np.float16), scores, (640, 480), "aliked")


@pytest.fixture
def line(tmp_path: Path) -> tuple[FeatureStore, list[str]]:
    """Images along a line, each of 40 landmarks and 20 of the next; the last one has no keypoints."""
    rng = np.random.default_rng(0)
    landmarks = rng.normal(size=(140, 64))
    store = FeatureStore.open(tmp_path / "features", {"features": "aliked"})
    names = [f"{i}.jpg" for i in range(7)]
    for i, name in enumerate(names[:-1]):
        seen = landmarks[20 * i : 20 * i + 40]
        store.put(name, features_of(seen + rng.normal(0, 0.05, seen.shape)), Source(1, 1, "0"))
    store.put(names[-1], features_of(np.empty((0, 64))), Source(1, 1, "0"), note="it is black")
    return store, names


def test_images_are_as_alike_as_the_landmarks_that_they_share(line):
    found = mutual_counts(*line, (0.85, 1.0))
    following = np.eye(7, k=1, dtype=np.bool_)
    following[5] = False  # the last has no keypoints
    following |= following.T
    assert (found[0][following] == 20).all()
    assert (found[0][~following] <= 1).all()
    assert not found[:, 6].any()
    assert (found[1] >= found[0]).all()
    assert found[1][:6, :6].sum() > found[0].sum()  # without a ratio test strangers have some, too


def test_how_alike_images_are_does_not_depend_on_the_blocks(line, monkeypatch):
    whole = mutual_counts(*line, (0.85, 0.9))
    monkeypatch.setattr(mutual, "_BLOCK", 2)
    assert np.array_equal(mutual_counts(*line, (0.85, 0.9)), whole)


def test_damaged_features_are_like_no_other(line):
    store, names = line
    store._path("2.jpg").write_bytes(b"no features")
    found = mutual_counts(store, names, (0.85,))[0]
    assert not found[2].any()
    assert found[0, 1] == 20


# ---------------------------------------------------------------------------------------------------- what comes next


class Field:
    """Images of a flight to and fro over a field of landmarks: a matcher that knows what each of them sees.

    Images of strips that are flown the other way look alike to nobody, and match all the same where they overlap and
    the strips are joined: that is where keypoints that are each other's most similar tell nothing.
    """

    def __init__(self, strips: int = 6, along: int = 9) -> None:
        self.count = strips * along
        places = [
            (10 * (along - 1 - k if strip % 2 else k), 15 * strip) for strip in range(strips) for k in range(along)
        ]
        x, y = np.meshgrid(np.arange(0, 10 * along + 40, 2), np.arange(0, 15 * strips + 30, 2), indexing="ij")
        landmarks = np.stack([x.ravel(), y.ravel()], axis=1)
        inside = [((landmarks >= place) & (landmarks < np.add(place, (40, 30)))).all(axis=1) for place in places]
        self.sees = [{number: row for row, number in enumerate(np.flatnonzero(each))} for each in inside]
        self.heading = [strip % 2 for strip in range(strips) for _ in range(along)]
        self.names = [f"{i:03}.jpg" for i in range(self.count)]

    def inliers(self, one: int, other: int) -> Rows | None:
        shared = [(row, self.sees[other][each]) for each, row in self.sees[one].items() if each in self.sees[other]]
        return np.array(shared, np.int64) if len(shared) >= 60 else None

    def alike(self) -> Rows:
        """(N, N)."""
        found = np.random.default_rng(0).integers(0, 6, (self.count, self.count))
        for one, other in itertools.combinations(range(self.count), 2):
            if self.heading[one] == self.heading[other] and (rows := self.inliers(one, other)) is not None:
                found[one, other] = len(rows) // 4
        return np.triu(found, 1) + np.triu(found, 1).T

    def grow(self, alike: Rows, wanted: int = 8, grown: Grown | None = None) -> tuple[Grown, list[int]]:
        """What comes of it, and the pairs of each round."""
        grown, rounds, pairs = grown or Grown(self.count), [], first_pairs(self.names, alike)
        while len(pairs):
            rounds.append(len(pairs))
            for one, other in pairs.tolist():
                grown.add(one, other, self.inliers(one, other))
            pairs = next_pairs(grown, wanted, lambda: alike)
        return grown, rounds


def test_a_third_of_all_pairs_connects_every_image_with_as_many_as_are_wanted():
    field = Field()
    grown, rounds = field.grow(field.alike())
    every = np.zeros((field.count, field.count), np.bool_)
    for one, other in itertools.combinations(range(field.count), 2):
        every[one, other] = every[other, one] = field.inliers(one, other) is not None
    assert not grown.parts().any()  # one part, whose lowest image is the first
    assert (grown.connected.sum(axis=1) >= np.minimum(every.sum(axis=1), 6)).all()  # of 8 that are wanted
    assert sum(rounds) < field.count * (field.count - 1) / 2 / 3
    assert grown.connected.sum() > 0.8 * grown.tried.sum()  # hardly any is tried in vain


def test_strips_that_look_like_no_other_are_found_by_what_both_have_in_common_with_a_third():
    field = Field()
    grown, _ = field.grow(field.alike())
    across = np.not_equal.outer(field.heading, field.heading)
    first = first_pairs(field.names, field.alike())
    assert (grown.connected & across).sum() / 2 > 3 * across[first[:, 0], first[:, 1]].sum()


def test_parts_that_nothing_leads_to_are_looked_for_between_their_likeliest_images():
    field = Field(strips=2)
    numbers = np.random.default_rng(1).permutation(field.count)  # names in no order: none follows its neighbour
    field.sees, field.heading = [field.sees[i] for i in numbers], [field.heading[i] for i in numbers]
    alike = field.alike()
    begun = Grown(field.count)
    for one, other in first_pairs(field.names, alike).tolist():
        begun.add(one, other, field.inliers(one, other) if field.heading[one] == field.heading[other] else None)
    assert len(set(begun.parts().tolist())) > 1
    grown, _ = field.grow(alike, grown=begun)
    assert len(set(grown.parts().tolist())) == 1


def test_a_single_image_that_is_left_is_tried_with_every_other():
    field = Field(strips=4)
    alike = field.alike()
    alike[17] = alike[:, 17] = 0  # it looks like no other: nothing but trying finds its neighbours
    field.names[17] = "zzz.jpg"  # nor do the names
    begun = Grown(field.count)
    for other in (16, 18):  # the images before and after, which would have been too easy
        begun.add(17, other, None)
    grown, _ = field.grow(alike, grown=begun)
    assert len(set(grown.parts().tolist())) == 1


def test_many_images_of_nothing_are_left_alone_after_some_pairs():
    field = Field(strips=4)
    lost = [3, 17, 30]
    for image in lost:
        field.sees[image] = {}
    grown, _ = field.grow(field.alike())
    tries = grown.tried.sum(axis=1)
    assert (tries[lost] <= TRIED + len(lost) + 4).all()  # others that try them count, too
    assert len(set(grown.parts().tolist())) == 1 + len(lost)


def test_the_next_pairs_depend_on_what_was_tried_and_not_on_the_order():
    field = Field(strips=3)
    pairs = first_pairs(field.names, field.alike())
    grown = [Grown(field.count) for _ in range(2)]
    for one, other in pairs.tolist():
        grown[0].add(one, other, field.inliers(one, other))
    for one, other in pairs[::-1].tolist():
        grown[1].add(one, other, field.inliers(one, other))
    first, second = (next_pairs(each, 8, field.alike) for each in grown)
    assert len(first)
    assert np.array_equal(first, second)


# ---------------------------------------------------------------------------------------------------- thin places


def two_groups(link: int) -> Grown:
    """Two groups of six images, each of which sees the same 100 keypoints; 5 and 6 have `link` others in common."""
    grown = Grown(12)
    same = np.tile(np.arange(100)[:, None], 2)
    for group in (range(6), range(6, 12)):
        for one, other in itertools.combinations(group, 2):
            grown.add(one, other, same)
    grown.add(5, 6, np.tile(np.arange(100 - link // 2, 100 - link // 2 + link)[:, None], 2))
    return grown


def test_parts_are_firm_where_an_image_has_enough_keypoints_that_two_others_match():
    assert len(np.unique(two_groups(link=2 * FIRM).firm_parts())) == 1  # half of them are those of the group
    thin = two_groups(link=2 * FIRM - 2)
    assert not thin.parts().any()  # connected as they are
    assert thin.firm_parts().tolist() == [thin.firm_parts()[0]] * 6 + [thin.firm_parts()[6]] * 6
    assert thin.firm_parts()[0] != thin.firm_parts()[6]


def test_an_image_of_two_firm_parts_counts_to_the_larger_and_one_that_is_alone_is_a_part():
    grown = Grown(7)
    left, right = (np.tile(np.arange(start, start + 100)[:, None], 2) for start in (0, 100))
    for group, rows in ((range(4), left), (range(3, 6), right)):
        for one, other in itertools.combinations(group, 2):
            grown.add(one, other, rows)
    parts = grown.firm_parts()
    assert len(set(parts[:4].tolist())) == 1
    assert len(set(parts[4:6].tolist())) == 1
    assert len(set(parts.tolist())) == 3


def test_parts_that_share_their_first_image_stay_two():
    grown = Grown(6)
    left, right = (np.tile(np.arange(start, start + 100)[:, None], 2) for start in (0, 100))
    grown.add(0, 1, left)
    for one, other in itertools.combinations((0, 2, 3, 4, 5), 2):
        grown.add(one, other, right)
    parts = grown.firm_parts()
    assert len(set(parts[[0, 2, 3, 4, 5]].tolist())) == 1
    assert parts[1] != parts[0]


def test_a_thin_place_is_crossed_by_pairs_that_see_the_same_though_all_have_as_many_as_are_wanted():
    grown = two_groups(link=2 * FIRM - 2)
    nothing = np.zeros((12, 12), np.int64)
    pairs = next_pairs(grown, 3, lambda: nothing).tolist()
    assert len(pairs) == AT_ONCE
    assert all((one in range(6) and other == 6) or (one == 5 and other in range(6, 12)) for one, other in pairs)
    assert not len(next_pairs(two_groups(link=2 * FIRM), 3, lambda: nothing))


def test_where_nothing_is_seen_by_both_the_most_alike_are_tried_some_times():
    grown = two_groups(link=10)  # 5 keypoints of each group: no pair has enough in common
    alike = np.zeros((12, 12), np.int64)
    alike[2, 9] = alike[9, 2] = 7
    alike[3, 8] = alike[8, 3] = 6
    assert next_pairs(grown, 3, lambda: alike).tolist() == [[2, 9], [3, 8]]  # none that look like strangers
    alike[:6, 6:] = alike[6:, :6] = 5
    tried = 0
    while len(pairs := next_pairs(grown, 3, lambda: alike)):
        for one, other in pairs.tolist():
            grown.add(one, other, None)
        tried += len(pairs)
    assert tried == TRIED


# ------------------------------------------------------------------------------------------------------------- rounds


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve parts of a photograph, each of which shows half of the one before; names in no order."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "photographs").mkdir()
    image = cv2.imread(str(ASSETS / "montmartre_close.jpg"))
    for i in range(12):
        cv2.imwrite(str(folder / "photographs" / f"{7 * i % 12:02}.png"), image[150:400, 45 * i : 45 * i + 200])
    extract(folder / "photographs", folder / "features", ExtractOptions(MODELS, {"resize": None}))
    return folder


def begin(walk: Path, out: Path) -> list[str]:
    features = FeatureStore.open(walk / "features", read_only=True)
    names = sorted(features.names())
    alike = how_alike(features, names, 2000)[0]
    out.mkdir(exist_ok=True)
    write_pairs(out / "pairs.txt", select_pairs(names, PairOptions(("growing",)), Inputs(alike=alike)).pairs)
    return names


def go_on(walk: Path, out: Path, names: list[str], engine: Engine | None = None) -> MatchResult:
    return match_growing(
        walk / "features",
        out / "pairs.txt",
        out / "matches.db",
        OPTIONS,
        3,  # connections of an image
        names,
        engine=engine or LocalEngine(),
        images=walk / "photographs",
    )


def content(out: Path) -> list[Any]:
    return [(pair.name0, pair.name1, pair.matches.tolist()) for pair in MatchStore.open(out / "matches.db").read()]


def test_matching_goes_on_until_nothing_follows_and_a_second_run_has_nothing_to_do(walk, tmp_path):
    names = begin(walk, tmp_path)
    first = len(read_pairs(tmp_path / "pairs.txt"))
    done = go_on(walk, tmp_path, names)
    pairs = read_pairs(tmp_path / "pairs.txt")
    assert first < len(pairs) == done.pairs == done.matched < 66
    neighbours = {tuple(sorted((f"{7 * i % 12:02}.png", f"{7 * (i + 1) % 12:02}.png"))) for i in range(11)}
    assert neighbours <= set(pairs)
    begin(walk, tmp_path)  # as the stage `pairs` does it in every run
    again = go_on(walk, tmp_path, names)
    assert (again.matched, again.kept) == (0, len(pairs))
    assert read_pairs(tmp_path / "pairs.txt") == pairs


def test_a_run_that_is_killed_ends_with_the_same_pairs_and_matches(walk, tmp_path, monkeypatch):
    names = begin(walk, tmp_path / "whole")
    go_on(walk, tmp_path / "whole", names)
    names = begin(walk, tmp_path / "killed")

    def kill(path: Path, pairs: list[tuple[str, str]]) -> None:
        write_pairs(path, pairs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(grow, "write_pairs", kill)
        with pytest.raises(KeyboardInterrupt):  # before the second round is matched
            go_on(walk, tmp_path / "killed", names)
    go_on(walk, tmp_path / "killed", names)
    assert read_pairs(tmp_path / "killed" / "pairs.txt") == read_pairs(tmp_path / "whole" / "pairs.txt")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


class Backwards:
    """An engine whose results come in another order."""

    def run(self, work: Any, jobs: Any) -> Iterator[Any]:
        worker = work.worker()
        for job in list(jobs)[::-1]:
            yield worker.compute(job, worker.read(job))


def test_the_order_in_which_workers_finish_changes_nothing(walk, tmp_path):
    go_on(walk, tmp_path / "one", begin(walk, tmp_path / "one"))
    go_on(walk, tmp_path / "other", begin(walk, tmp_path / "other"), engine=Backwards())
    assert read_pairs(tmp_path / "other" / "pairs.txt") == read_pairs(tmp_path / "one" / "pairs.txt")
    assert content(tmp_path / "other") == content(tmp_path / "one")


def test_matches_of_keypoints_that_are_no_more_connect_nothing(walk, tmp_path):
    """What could not be matched again has its old matches still: rows that may be beyond the new keypoints."""
    names = begin(walk, tmp_path)
    go_on(walk, tmp_path, names)
    store, pairs = MatchStore.open(tmp_path / "matches.db", read_only=True), read_pairs(tmp_path / "pairs.txt")
    features = FeatureStore.open(walk / "features", read_only=True)
    growing = grow._Growing(features, names, None)
    growing.look(store, pairs)
    assert growing.grown.connected.any()
    folder = tmp_path / "fewer"
    extract(walk / "photographs", folder, ExtractOptions(replace(MODELS, max_keypoints=20), {"resize": None}))
    growing = grow._Growing(FeatureStore.open(folder, read_only=True), names, None)
    growing.look(store, pairs)
    assert growing.grown.tried.any()
    assert not growing.grown.connected.any()


def test_without_poselib_opencv_says_which_images_are_connected(walk, tmp_path, monkeypatch):
    names = begin(walk, tmp_path)
    monkeypatch.setattr(grow, "find_spec", lambda name: None)
    assert go_on(walk, tmp_path, names).matched == len(read_pairs(tmp_path / "pairs.txt")) < 66


# ------------------------------------------------------------------------------------------------------------- choice


def test_auto_grows_pairs_with_effort_fast_where_there_are_many_images_and_no_places():
    assert settled(PairOptions(), 15, effort="fast").options.sources == ("exhaustive",)
    choice = settled(PairOptions(), 16, effort="fast")
    assert choice.options.sources == ("growing",)
    assert choice.why == "the most similar of 16 images, and what these lead to"
    assert settled(PairOptions(), 30).options.sources == ("exhaustive",)
    assert settled(PairOptions(), 200, effort="fast").options.sources == ("growing",)
    assert settled(PairOptions(), 201, effort="fast").options.sources == ("retrieval",)
    few = PairOptions(max_exhaustive=100)
    assert settled(few, 101, effort="fast").options.sources == ("retrieval",)  # growing compares all with each other
    for effort in ("normal", "hard"):
        assert settled(PairOptions(), 60, effort=effort).options.sources == ("exhaustive",)  # type: ignore[arg-type]


def test_too_many_images_to_compare_are_refused_by_name_of_the_remedy(tmp_path):
    with pytest.raises(InputError, match="2,001 images are more than.*retrieval"):
        how_alike(None, [f"{i}.jpg" for i in range(2001)], 2000)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mutual_counts"):
        select_pairs(["a", "b"], PairOptions(("growing",)))
