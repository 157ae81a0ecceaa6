"""Images that are turned against the others of a map: found where nothing else connects them, and matched as turned."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lightglue.models.choice import Models
from lightglue.sfm.stages import grow
from lightglue.sfm.stages.extract import ExtractOptions, extract
from lightglue.sfm.stages.grow import how_alike, match_growing
from lightglue.sfm.stages.match import MatchOptions, MatchResult
from lightglue.sfm.stages.pairing.growth import AT_ONCE, Grown, apart, next_pairs
from lightglue.sfm.stages.pairing.turns import EVIDENCE, LOOKED_AT, agreed_turns, some_of_each
from lightglue.sfm.stages.pairs import Inputs, PairOptions, read_pairs, select_pairs, write_pairs
from lightglue.sfm.stages.refine import read_refined, refine_keypoints
from lightglue.sfm.stages.turn import Turner, TurnWork
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, Source
from lightglue.workers.local import LocalEngine
from support import ASSETS

Rows = np.ndarray[Any, np.dtype[np.int64]]


# ------------------------------------------------------------------------------------- by how much parts are turned


def counts_of(count: int, *seen: tuple[int, int, int, int]) -> Rows:
    """(4, N, N): image, quarters, other image, keypoints that the first has in common with the other if turned so."""
    counts = np.zeros((4, count, count), np.int64)
    for image, turn, other, keypoints in seen:
        counts[turn, image, other] = keypoints
    return counts


def test_a_part_is_turned_as_one_of_its_images_shows_and_the_largest_stays():
    parts = np.array([7, 7, 7, 2, 2, 9])
    turns = agreed_turns(parts, counts_of(6, (3, 2, 0, 30), (5, 1, 1, 12)))
    assert turns.tolist() == [0, 0, 0, 2, 2, 1]


def test_turns_add_up_along_a_chain_of_parts():
    parts = np.array([0, 0, 1, 2, 3])
    turns = agreed_turns(parts, counts_of(5, (2, 1, 0, 40), (3, 1, 2, 20), (4, 3, 3, 15)))
    assert turns.tolist() == [0, 0, 1, 2, 1]
    backwards = agreed_turns(parts, counts_of(5, (2, 1, 0, 15), (2, 3, 3, 20), (4, 3, 3, 40)))
    assert backwards.tolist() == [0, 0, 1, 2, 1]  # whichever is joined first, and whichever of two was turned


def test_what_strangers_have_in_common_turns_nothing():
    few = counts_of(3, (1, 2, 0, EVIDENCE - 1), (2, 1, 0, EVIDENCE - 1))
    assert agreed_turns(np.arange(3), few).tolist() == [0, 0, 0]


def test_evidence_for_several_turns_is_none():
    assert agreed_turns(np.arange(2), counts_of(2, (1, 2, 0, 30), (1, 1, 0, 20))).tolist() == [0, 0]
    assert agreed_turns(np.arange(2), counts_of(2, (1, 2, 0, 30), (1, 0, 0, 20))).tolist() == [0, 0]
    assert agreed_turns(np.arange(2), counts_of(2, (1, 2, 0, 30), (1, 1, 0, 10))).tolist() == [0, 2]


def test_what_contradicts_stronger_evidence_is_left():
    turns = agreed_turns(np.array([0, 0, 1, 2]), counts_of(4, (2, 2, 0, 50), (3, 1, 2, 40), (3, 1, 0, 10)))
    assert turns.tolist() == [0, 0, 2, 3]


def test_every_combination_of_turns_is_found_again():
    parts = np.array([0, 0, 0, 1, 1, 2, 3])
    for true in itertools.product(range(4), repeat=3):
        wanted = np.array([0, *true])[parts]
        counts = counts_of(7)
        for image, other in itertools.permutations(range(7), 2):
            if parts[image] != parts[other]:
                counts[(wanted[image] - wanted[other]) % 4, image, other] = 20 + image
        assert np.array_equal(agreed_turns(parts, counts), wanted)


def test_a_few_images_of_a_part_speak_for_it():
    parts = np.array([0] * 3 + [1] * 40 + [2])
    some = some_of_each(parts, np.flatnonzero(parts > 0))
    assert some.tolist() == [3, 23, 42, 43]
    assert LOOKED_AT == 3
    assert some_of_each(parts, np.empty(0, np.int64)).tolist() == []


# ------------------------------------------------------------------------------------------------ when they are asked


def two_parts() -> Grown:
    """Two parts of six and four images, each of which sees the same 100 keypoints."""
    grown = Grown(10)
    same = np.tile(np.arange(100)[:, None], 2)
    for group in (range(6), range(6, 10)):
        for one, other in itertools.combinations(group, 2):
            grown.add(one, other, same)
    return grown


def nothing_alike() -> Rows:
    return np.zeros((10, 10), np.int64)


def test_images_are_turned_once_some_pairs_of_each_were_in_vain_and_only_once():
    grown, new = two_parts(), np.zeros(10, np.bool_)
    assert apart(grown, 3, nothing_alike, new) is None  # the likeliest pairs come first
    for image in range(6, 10):
        for other in range(AT_ONCE):
            grown.add(image, other, None)
    found = apart(grown, 3, nothing_alike, new)
    assert found is not None
    parts, images = found
    assert images.tolist() == [6, 7, 8, 9]
    assert parts.tolist() == [0] * 6 + [6] * 4
    new[images] = True
    assert apart(grown, 3, nothing_alike, new) is None
    assert len(next_pairs(grown, 3, nothing_alike))  # the others are tried all the same


def test_parts_that_hang_together_by_a_thread_are_turned_when_nothing_else_is_left():
    grown, new = two_parts(), np.zeros(10, np.bool_)
    grown.add(5, 6, np.tile(np.arange(100, 130)[:, None], 2))  # 30 keypoints that no other image sees
    found = apart(grown, 3, nothing_alike, new)
    assert found is not None
    assert found[1].tolist() == [6, 7, 8, 9]


def test_single_images_at_the_end_of_a_thread_are_left():
    grown = Grown(8)
    for one, other in itertools.combinations(range(6), 2):
        grown.add(one, other, np.tile(np.arange(100)[:, None], 2))
    grown.add(5, 6, np.tile(np.arange(100, 130)[:, None], 2))
    grown.add(6, 7, np.tile(np.arange(130, 160)[:, None], 2))
    for one, other in itertools.combinations(range(8), 2):
        if not grown.tried[one, other]:
            grown.add(one, other, None)
    assert grown.tried.sum() == 8 * 7
    assert apart(grown, 3, lambda: np.zeros((8, 8), np.int64), np.zeros(8, np.bool_)) is None


def test_a_collection_that_holds_together_is_not_turned():
    grown = Grown(5)
    for one, other in itertools.combinations(range(5), 2):
        grown.add(one, other, np.tile(np.arange(100)[:, None], 2))
    assert apart(grown, 3, nothing_alike, np.zeros(5, np.bool_)) is None


# ------------------------------------------------------------------------------------------------------------- rounds

MODELS = Models("aliked", 300, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.9})
OPTIONS = MatchOptions(MODELS)
EXTRACT = ExtractOptions(MODELS, {"resize": None})
TURNED = (0, 0, 0, 0, 2, 2, 2, 1, 1, 1)  # quarters, clockwise, of the ten images below
WIDTH, HEIGHT, STEP = 180, 200, 30


def place(number: int, points: np.ndarray) -> np.ndarray:
    """Keypoints (K, 2) of an image in px of the photograph."""
    x, y = points.T
    turn = TURNED[number]
    upright = {0: (x, y), 1: (y, HEIGHT - 1 - x), 2: (WIDTH - 1 - x, HEIGHT - 1 - y)}[turn]
    return np.stack(upright, axis=1) + np.array([STEP * number, 0.0])


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten parts of a photograph, each of which shows most of the one before; the last six are turned."""
    folder = tmp_path_factory.mktemp("strips")
    (folder / "photographs").mkdir()
    image = cv2.imread(str(ASSETS / "montmartre_close.jpg"))
    for i, turn in enumerate(TURNED):
        part = image[500 : 500 + HEIGHT, 500 + STEP * i : 500 + STEP * i + WIDTH]
        cv2.imwrite(str(folder / "photographs" / f"{i:02}.png"), np.rot90(part, -turn))
    extract(folder / "photographs", folder / "features", EXTRACT)
    return folder


def grow_map(strips: Path, out: Path, turned: bool = True) -> MatchResult:
    """As the stages `pairs` and `match` do it, with the features that there are, or copies of those of `strips`."""
    if not (out / "features").exists():
        shutil.copytree(strips / "features", out / "features")
    names, first = first_pairs_of(out)
    write_pairs(out / "pairs.txt", first)
    return go_on(strips, out, names, turned)


def first_pairs_of(out: Path) -> tuple[list[str], list[tuple[str, str]]]:
    features = FeatureStore.open(out / "features", read_only=True)
    names = sorted(features.names())
    alike = how_alike(features, names, 2000)
    return names, select_pairs(names, PairOptions(("growing",)), Inputs(alike=alike[0])).pairs


def go_on(strips: Path, out: Path, names: list[str], turned: bool = True) -> MatchResult:
    return match_growing(
        out / "features",
        out / "pairs.txt",
        out / "matches.db",
        OPTIONS,
        3,  # connections of an image
        names,
        engine=LocalEngine(),
        images=strips / "photographs",
        rotated=(out / "rotated.json", EXTRACT) if turned else None,
    )


def parts_of(out: Path) -> int:
    """How many parts what was matched connects."""
    features = FeatureStore.open(out / "features", read_only=True)
    growing = grow._Growing(features, sorted(features.names()), None)
    growing.look(MatchStore.open(out / "matches.db", read_only=True), read_pairs(out / "pairs.txt"))
    return len(set(growing.grown.parts().tolist()))


def content(out: Path) -> list[Any]:
    stored = MatchStore.open(out / "matches.db", read_only=True)
    pairs = (stored.get(*pair) for pair in read_pairs(out / "pairs.txt"))
    return [(pair.name0, pair.name1, pair.digests, pair.matches.tolist()) for pair in pairs if pair is not None]


@pytest.fixture(scope="module")
def grown(strips: Path) -> tuple[Path, MatchResult]:
    return strips / "grown", grow_map(strips, strips / "grown")


def test_turned_images_are_connected_with_the_others(strips, grown, tmp_path):
    grow_map(strips, tmp_path / "plain", turned=False)
    assert parts_of(tmp_path / "plain") == 3  # each way up is a part of its own
    assert parts_of(grown[0]) == 1
    features = FeatureStore.open(grown[0] / "features", read_only=True)
    back = [features.get(f"{i:02}.png").rotation for i in range(len(TURNED))]
    assert back == [-turn % 4 * 90 for turn in TURNED]


def test_keypoints_of_turned_images_are_in_px_of_their_files(strips, grown):
    features = FeatureStore.open(grown[0] / "features", read_only=True)
    across = 0
    for pair in MatchStore.open(grown[0] / "matches.db", read_only=True).read():
        numbers, names = [int(name[:2]) for name in (pair.name0, pair.name1)], (pair.name0, pair.name1)
        if TURNED[numbers[0]] == TURNED[numbers[1]] or len(pair.matches) < 25:
            continue
        points = [features.get(name).keypoints[rows] for name, rows in zip(names, pair.matches.T, strict=True)]
        away = np.linalg.norm(np.subtract(*map(place, numbers, points)), axis=1)
        assert np.median(away) < 1.0
        across += 1
    assert across >= 4


def test_keypoints_of_turned_images_are_refined_as_those_of_others(strips, grown, tmp_path):
    features = FeatureStore.open(grown[0] / "features", read_only=True)
    matches = MatchStore.open(grown[0] / "matches.db", read_only=True)
    refine_keypoints(strips / "photographs", features, matches, tmp_path)
    before, after = [], []
    for pair in matches.read():
        numbers, names = [int(name[:2]) for name in (pair.name0, pair.name1)], (pair.name0, pair.name1)
        if TURNED[numbers[0]] == TURNED[numbers[1]] or len(pair.matches) < 25:
            continue
        plain = [features.get(name).keypoints for name in names]
        refined = [read_refined(tmp_path, name).keypoints for name in names]
        for keypoints, found in ((plain, before), (refined, after)):
            points = [each[rows] for each, rows in zip(keypoints, pair.matches.T, strict=True)]
            found.append(np.median(np.linalg.norm(np.subtract(*map(place, numbers, points)), axis=1)))
    assert len(before) >= 4
    assert np.mean(after) < 0.25 * np.mean(before)


def test_what_a_turned_image_shows_is_what_its_file_turned_shows(strips, grown, tmp_path):
    """The same features as of an image file that somebody turned, but for their frame."""
    own = FeatureStore.open(grown[0] / "features", read_only=True).get("05.png")
    assert own.rotation == 180
    image = cv2.imread(str(strips / "photographs" / "05.png"))
    cv2.imwrite(str(tmp_path / "05.png"), np.rot90(image, 2))
    extract(tmp_path, tmp_path / "features", EXTRACT, names=["05.png"])
    wanted = FeatureStore.open(tmp_path / "features", read_only=True).get("05.png").torch()
    found = own.torch(as_extracted=True)
    for name in ("keypoints", "descriptors", "keypoint_scores", "image_size"):
        assert torch.allclose(found[name], wanted[name], atol=1e-3), name
    assert np.allclose(own.keypoints, np.array([WIDTH, HEIGHT]) - 1 - wanted["keypoints"][0].numpy(), atol=1e-3)


def test_a_second_run_has_nothing_to_do(strips, grown, monkeypatch):
    out, first = grown
    before, pairs = content(out), read_pairs(out / "pairs.txt")
    assert first.kept == 0
    assert first.pairs == len(pairs) == len(before) <= first.matched

    def computed(self: TurnWork) -> Any:
        raise AssertionError("an image was turned again")

    monkeypatch.setattr(TurnWork, "worker", computed)
    kept = extract(strips / "photographs", out / "features", EXTRACT)
    assert (kept.extracted, kept.kept) == (0, len(TURNED))
    again = grow_map(strips, out)
    assert (again.matched, again.kept) == (0, first.pairs)
    assert read_pairs(out / "pairs.txt") == pairs
    assert content(out) == before


def test_a_run_that_is_killed_while_images_are_turned_ends_with_the_same_matches(strips, grown, tmp_path, monkeypatch):
    usual, done = FeatureStore.put, 0

    def kill(self: FeatureStore, *args: Any, **how: Any) -> Any:
        nonlocal done
        if done == 3:
            raise KeyboardInterrupt
        done += 1
        return usual(self, *args, **how)

    out = tmp_path / "map"
    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "put", kill)
        with pytest.raises(KeyboardInterrupt):
            grow_map(strips, out)
    grow_map(strips, out)
    assert read_pairs(out / "pairs.txt") == read_pairs(grown[0] / "pairs.txt")
    assert content(out) == content(grown[0])


def test_images_that_are_gone_are_left_as_they_are(strips, tmp_path):
    (tmp_path / "photographs").mkdir()
    shutil.copytree(strips / "features", tmp_path / "map" / "features")
    grow_map(tmp_path, tmp_path / "map")
    assert parts_of(tmp_path / "map") == 3


def test_features_that_hold_for_every_roll_are_not_turned(strips, tmp_path):
    for name, can in (("aliked", True), ("disk", True), ("sift", False), ("aliked-n16rot", False)):
        options = ExtractOptions(Models(name, 300, "cpu", False))
        store = tmp_path / name
        FeatureStore.open(store, options.settings())
        assert Turner(store, tmp_path / "rotated.json", strips, options, LocalEngine()).can == can


def test_the_turn_of_an_image_is_kept_in_the_store_and_part_of_the_digest(tmp_path):
    points = np.array([[0, 0], [10, 5]], np.float32)
    plain = ImageFeatures(points, np.eye(2, dtype=np.float16), np.ones(2, np.float32), (20, 10), "aliked")
    turned = replace(plain, rotation=90)
    assert plain.digest != turned.digest
    store = FeatureStore.open(tmp_path, {"features": "aliked"})
    for mapped in (False, True):
        store.put("a.jpg", turned, Source(1, 1, "0"))
        found = store.get("a.jpg", mapped=mapped)
        assert (found.rotation, found.digest) == (90, turned.digest)
    as_it_is, as_seen = found.torch(), found.torch(as_extracted=True)
    assert as_it_is["keypoints"][0].tolist() == points.tolist()
    assert as_it_is["image_size"].tolist() == [[20, 10]]
    assert as_seen["keypoints"][0].tolist() == [[9, 0], [4, 10]]  # clockwise: the left edge becomes the top
    assert as_seen["image_size"].tolist() == [[10, 20]]
