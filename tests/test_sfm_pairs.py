"""Which images are matched with which: each source of pairs, their union, and files of pairs."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightglue.errors import InputError, StoreError
from lightglue.sfm.stages.exif import Location, read_location
from lightglue.sfm.stages.pairing.files import pairs_among
from lightglue.sfm.stages.pairing.order import exhaustive
from lightglue.sfm.stages.pairing.positions import earth_centred
from lightglue.sfm.stages.pairs import (
    Inputs,
    PairOptions,
    named_pairs,
    read_pairs,
    select_pairs,
    settled,
    write_pairs,
)
from lightglue.support.natural import natural_key

AWKWARD = [
    "a b.jpg",
    "tab\there.jpg",
    'a"q.jpg',
    '"quoted".jpg',
    "line\nend.jpg",
    "#1.jpg",
    "é/日本.jpg",
    "\udcff.jpg",
    " ",
]


class OnALine:
    """Retrieval by the distance of images on a line, named by their places."""

    def __init__(self, places: dict[str, float]) -> None:
        self.places = places
        self.names = sorted(places)

    def nearest(self, names: Sequence[str], k: int) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        for name in names:
            others = sorted((abs(self.places[name] - place), n) for n, place in self.places.items() if n != name)
            yield name, [(other, 1 / (1 + distance)) for distance, other in others[:k]]


def frames(count: int, folder: str = "") -> list[str]:
    return [f"{folder}img{i}.jpg" for i in range(1, count + 1)]


def number(name: str) -> int:
    return int(name.rpartition("img")[2].removesuffix(".jpg"))


def poses_on_a_circle(count: int) -> dict[str, np.ndarray]:
    """Cameras at (cos, 0, sin) that look outwards."""
    poses = {}
    for i in range(count):
        angle = 2 * np.pi * i / count
        z = np.array([np.cos(angle), 0, np.sin(angle)])
        R = np.stack([np.cross([0, 1, 0], z), [0, 1, 0], z])
        poses[f"{i:02}.jpg"] = np.vstack([np.column_stack([R, -R @ z]), [0, 0, 0, 1]])
    return poses


# ---------------------------------------------------------------------------------------------------- all and auto


def test_exhaustive_pairs_are_all_of_them_canonical_and_sorted() -> None:
    found = select_pairs(["c", "a", "b", "a"], PairOptions(("exhaustive",)))
    assert found.pairs == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found.counts == {"exhaustive": 3}


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_pairs(count: int) -> None:
    for source in ("exhaustive", "sequential"):
        assert select_pairs(frames(count), PairOptions((source,))).pairs == []


def test_too_many_images_for_every_pair_are_refused_before_any_is_made() -> None:
    with pytest.raises(InputError, match=r"1,000,000 images make 499,999,500,000 pairs.*retrieval"):
        exhaustive(1_000_000, PairOptions().max_exhaustive)
    with pytest.raises(InputError, match="2,001 images"):
        select_pairs(frames(2001), PairOptions(("exhaustive",)))


def test_auto_is_every_pair_of_a_small_collection_and_retrieval_beyond() -> None:
    assert settled(PairOptions(), 60).options.sources == ("exhaustive",)
    assert settled(PairOptions(), 61).options.sources == ("retrieval",)
    assert settled(PairOptions(("auto", "exhaustive")), 10).options.sources == ("exhaustive",)
    assert settled(PairOptions(("exhaustive",)), 10).why is None


def survey(strips: int = 6, along: int = 9) -> dict[str, np.ndarray]:
    """A flight to and fro, 20 m from image to image and 40 m from strip to strip, and a receiver off by metres."""
    rng, places = np.random.default_rng(0), []
    for strip in range(strips):
        walk = [(20.0 * k, 40.0 * strip, 0.0) for k in range(along)]
        places += walk[::-1] if strip % 2 else walk
    noisy = np.array(places) + rng.normal(0, 3, (len(places), 3)) * (1, 1, 0)
    return {f"{i:03}.jpg": place for i, place in enumerate(noisy + np.array([6e6, 1e6, 1e6]))}


def test_auto_takes_the_nearest_by_gps_and_the_most_similar_where_most_images_say_where() -> None:
    places = survey()
    names = sorted(places)
    retrieval = OnALine({name: number(name) for name in names})
    choice = settled(PairOptions(), len(names), places)
    assert choice.options.sources == ("gps", "retrieval")
    assert choice.why == "the nearest by GPS, which 54 of 54 images have, and the most similar"
    found = select_pairs(names, PairOptions(retrieved=5), Inputs(retrieval, positions=places))
    chosen, every = set(found.pairs), list(itertools.combinations(names, 2))
    assert len(chosen) < 0.6 * len(every)
    apart = {pair: np.abs(places[pair[0]] - places[pair[1]])[:2] for pair in every}
    shared = {pair: np.prod(np.clip(1 - shift / (100, 75), 0, 1)) for pair, shift in apart.items()}  # of 100 m by 75 m
    half = [pair for pair in every if shared[pair] > 0.3]
    assert len(half) > 200
    assert not set(half) - chosen


@pytest.mark.parametrize(
    ("places", "count"),
    [
        ({}, 54),  # no file says where
        (dict(list(survey().items())[:40]), 54),  # too few do
        ({name: place / 1e3 for name, place in survey().items()}, 54),  # within a metre: a receiver does not know
        (survey(3, 9), 27),  # few images: every pair is cheap
    ],
)
def test_auto_does_not_trust_places_that_tell_too_little(places: dict[str, np.ndarray], count: int) -> None:
    assert settled(PairOptions(), count, places).options.sources == ("exhaustive",)
    assert settled(PairOptions(), count, places).why == f"every pair of {count} images"


def test_gps_pairs_of_auto_reach_as_far_as_the_images_are_apart() -> None:
    wide = {name: place * 50 for name, place in survey().items()}  # a kilometre from image to image
    assert settled(PairOptions(), 54, wide).options.gps_radius > 2000
    assert select_pairs(sorted(wide), PairOptions(("gps",)), Inputs(positions=wide)).counts == {"gps": 0}


def test_sources_are_united_and_each_pair_is_there_once() -> None:
    names = frames(30)
    retrieval = OnALine({name: number(name) for name in names})
    found = select_pairs(
        names, PairOptions(("sequential", "retrieval"), overlap=2, loop_every=0, retrieved=4), Inputs(retrieval)
    )
    assert len(set(found.pairs)) == len(found.pairs) == found.counts["retrieval"]
    assert found.counts["sequential"] == 29 + 28
    assert found.pairs == sorted(found.pairs)
    assert all(a < b for a, b in found.pairs)


# ------------------------------------------------------------------------------------------------------ sequential


def test_names_are_in_natural_order() -> None:
    names = ["img10", "img2", "img1", "img02", "a9" + "9" * 5000, "a10", "x1y10", "x1y9"]
    assert sorted(names, key=natural_key) == ["a10", names[4], "img1", "img02", "img2", "img10", "x1y9", "x1y10"]


def test_a_sequence_pairs_each_image_with_those_that_follow() -> None:
    found = select_pairs(frames(12), PairOptions(("sequential",), overlap=3)).pairs
    assert {abs(number(a) - number(b)) for a, b in found} == {1, 2, 3}
    assert len(found) == 11 + 10 + 9


def test_quadratic_overlap_reaches_further_in_powers_of_two() -> None:
    found = select_pairs(frames(40), PairOptions(("sequential",), overlap=5, quadratic=True)).pairs
    assert {abs(number(a) - number(b)) for a, b in found} == {1, 2, 3, 4, 5, 8, 16}


def test_each_folder_is_a_sequence_of_its_own() -> None:
    found = select_pairs(frames(3, "monday/") + frames(5, "tour/day/"), PairOptions(("sequential",))).pairs
    assert len(found) == 3 + 10
    assert all(a.rpartition("/")[0] == b.rpartition("/")[0] for a, b in found)


def across(names: list[str], **options: Any) -> list[tuple[str, str]]:
    """The pairs of a sequence that are of two folders."""
    found = select_pairs(names, PairOptions(("sequential",), **options)).pairs
    return [(a, b) for a, b in found if a.rpartition("/")[0] != b.rpartition("/")[0]]


def test_cameras_in_step_are_paired_within_each_folder_and_across_at_the_same_index() -> None:
    left = [f"left/IMG_{i}.jpg" for i in (8, 9, 10, 11)]
    right = [f"right/P{i}.png" for i in (99, 100, 101, 102)]  # ranks, in natural order, are what they have in common
    assert across(left + right) == sorted(zip(left, right, strict=True))
    found = select_pairs(left + right, PairOptions(("sequential",), overlap=1)).pairs
    assert len(found) == 3 + 3 + 4


def test_every_two_of_several_cameras_in_step_are_paired() -> None:
    names = [f"mav0/cam{camera}/data/{i}.png" for camera in range(3) for i in range(5)]
    found = across([*names, "map.png"])
    assert len(found) == 3 * 5
    assert {a.rpartition("/")[2] == b.rpartition("/")[2] for a, b in found} == {True}


@pytest.mark.parametrize("prefix", ["", "{}_"])
def test_cameras_that_lost_frames_are_paired_by_the_names_or_numbers_that_they_share(prefix: str) -> None:
    def name(side: str, i: int) -> str:
        return f"{side}/{prefix.format(side)}{i:04d}.jpg"

    left = [name("left", i) for i in range(20) if i != 3]
    right = [name("right", i) for i in range(20) if i not in (7, 12)]
    assert across(left + right) == [(name("left", i), name("right", i)) for i in range(20) if i not in (3, 7, 12)]


def test_folders_of_unequal_length_without_common_names_are_not_in_step() -> None:
    assert across([f"kitchen/{i}.jpg" for i in range(5)] + [f"hall/{i}.jpg" for i in range(100, 107)]) == []
    assert across([f"{i}.jpg" for i in range(5)] + [f"left/{i}.jpg" for i in range(5)]) == []  # one is in the other


def test_a_collection_of_many_scenes_is_not_taken_for_cameras() -> None:
    assert across([f"scene{n}/{i}.ppm" for n in range(30) for i in range(1, 7)]) == []


def test_loops_are_looked_for_beyond_the_partners_in_step() -> None:
    names = frames(60, "left/") + frames(60, "right/")
    walk = {name: number(name.rpartition("/")[2]) + 0.1 * name.startswith("right") for name in names}
    options = PairOptions(("sequential",), overlap=3, loop_every=10, loop_closures=2)
    with_loops = select_pairs(names, options, Inputs(OnALine(walk))).pairs
    without = select_pairs(names, options).pairs
    looked = len(range(0, 60, 10)) * 2
    assert len(set(with_loops) - set(without)) >= 2 * looked * 0.75  # a loop found from both ends is one


def test_loops_are_closed_by_what_is_alike_outside_the_overlap() -> None:
    names = frames(100)
    circle = {name: float(number(name) % 50) for name in names}  # image 51 is where image 1 was
    options = PairOptions(("sequential",), overlap=3, loop_every=5, loop_closures=2)
    far = {
        p for p in select_pairs(names, options, Inputs(OnALine(circle))).pairs if abs(number(p[0]) - number(p[1])) > 3
    }
    assert 20 <= len(far) <= 40
    assert sum(abs(number(a) - number(b)) == 50 for a, b in far) >= 10
    without = select_pairs(names, options).pairs
    assert all(abs(number(a) - number(b)) <= 3 for a, b in without)


# ------------------------------------------------------------------------------------------------------- retrieval


def test_retrieval_pairs_each_image_with_the_most_alike() -> None:
    names = frames(20)
    found = select_pairs(
        names, PairOptions(("retrieval",), retrieved=2), Inputs(OnALine({n: number(n) for n in names}))
    )
    assert all(abs(number(a) - number(b)) <= 2 for a, b in found.pairs)
    assert {name for pair in found.pairs for name in pair} == set(names)


def test_images_without_a_descriptor_are_told_of_and_the_others_paired() -> None:
    names = frames(5)
    found = select_pairs(
        [*names, "blank.jpg"], PairOptions(("retrieval",)), Inputs(OnALine({n: number(n) for n in names}))
    )
    assert [skipped.name for skipped in found.skipped] == ["blank.jpg"]
    assert len(found.pairs) == 10


@pytest.mark.parametrize("source", ["retrieval", "gps", "poses", "covisibility"])
def test_a_source_without_what_it_looks_at_says_what_it_needs(source: str) -> None:
    with pytest.raises(InputError, match="need"):
        select_pairs(frames(3), PairOptions((source,)))


# ---------------------------------------------------------------------------------------------------- GPS and poses


def photograph(path: Path, gps: dict[int, object] | None) -> None:
    exif, read = Image.Exif(), Image.Exif()
    if gps is not None:
        exif[0x8825] = gps
    read.load(exif.tobytes())  # as TIFF wants it
    Image.new("RGB", (8, 6)).save(path, exif=read if path.suffix == ".tiff" else exif.tobytes())


def gps(north: float, east: float) -> dict[int, object]:
    def parts(value: float) -> tuple[float, float, float]:
        minutes = abs(value) % 1 * 60
        return float(int(abs(value))), float(int(minutes)), round(minutes % 1 * 60, 4)

    return {
        1: "N" if north >= 0 else "S",
        2: parts(north),
        3: "E" if east >= 0 else "W",
        4: parts(east),
        5: b"\1",
        6: 12.5,
    }


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_the_place_is_read_from_the_file(tmp_path: Path, suffix: str) -> None:
    photograph(tmp_path / f"a.{suffix}", gps(-33.8568, 151.2153))
    found = read_location(tmp_path / f"a.{suffix}")
    assert found is not None
    assert (found.latitude, found.longitude) == pytest.approx((-33.8568, 151.2153), abs=1e-6)
    assert found.altitude == -12.5  # below the sea


def test_no_place_is_made_up(tmp_path: Path) -> None:
    photograph(tmp_path / "none.jpg", None)
    photograph(tmp_path / "nowhere.jpg", gps(0, 0))
    photograph(tmp_path / "off.jpg", gps(95, 10))
    photograph(tmp_path / "half.jpg", {1: "N", 2: (1.0, 2.0, 3.0)})
    (tmp_path / "text.jpg").write_text("no image")
    photograph(tmp_path / "whole.jpg", gps(48, 2))
    content = (tmp_path / "whole.jpg").read_bytes()
    for cut in (3, 30, 60, 100, 150):
        (tmp_path / f"cut{cut}.jpg").write_bytes(content[:cut])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [read_location(path) for path in sorted(tmp_path.glob("[chnot]*.jpg"))] == [None] * 10
        assert read_location(tmp_path / "absent.jpg") is None
        assert read_location(tmp_path / "whole.jpg") == Location(48, 2, -12.5)


def test_gps_pairs_are_those_within_the_radius(tmp_path: Path) -> None:
    for i in range(6):  # 1e-4 degrees of latitude are 11.1 m
        photograph(tmp_path / f"{i}.jpg", gps(48 + i * 1e-4, 2))
    photograph(tmp_path / "far.jpg", gps(-48, 2))
    photograph(tmp_path / "no.jpg", None)
    names = [path.name for path in tmp_path.iterdir()]
    found = select_pairs(names, PairOptions(("gps",), gps_radius=25), Inputs(images=tmp_path))
    assert found.pairs == [(f"{a}.jpg", f"{b}.jpg") for a in range(6) for b in range(a + 1, min(6, a + 3))]
    assert [skipped.name for skipped in found.skipped] == ["no.jpg"]
    assert (
        select_pairs(names, PairOptions(("gps",), gps_neighbors=1, gps_radius=25), Inputs(images=tmp_path)).counts[
            "gps"
        ]
        < 6
    )


def test_metres_are_metres_anywhere_on_the_earth() -> None:
    for latitude in (-80.0, 0.0, 60.0):
        near = earth_centred(np.array([latitude, latitude]), np.array([179.9999, -179.9999]), np.zeros(2))
        assert np.linalg.norm(near[0] - near[1]) == pytest.approx(22.26 * np.cos(np.radians(latitude)), rel=0.01)


def test_many_images_in_one_place_have_no_more_than_k_each() -> None:
    poses = {f"{i:03}": np.eye(4) for i in range(200)}
    found = select_pairs(poses, PairOptions(("poses",), pose_neighbors=5), Inputs(poses=poses))
    assert 0 < len(found.pairs) <= 200 * 5


def test_poses_pair_neighbours_that_look_the_same_way() -> None:
    poses = poses_on_a_circle(36)  # ten degrees apart
    found = select_pairs(poses, PairOptions(("poses",), pose_neighbors=36, pose_angle=20), Inputs(poses=poses)).pairs
    apart = [min((int(b[:2]) - int(a[:2])) % 36, (int(a[:2]) - int(b[:2])) % 36) for a, b in found]
    assert set(apart) == {1, 2}
    assert len(found) == 72


def test_neighbours_from_poses_are_those_of_an_exhaustive_search() -> None:
    rng = np.random.default_rng(0)
    poses = {}
    for i in range(150):
        R, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        poses[f"{i:03}"] = np.column_stack([R * np.linalg.det(R), rng.normal(size=3)])
    found = select_pairs(poses, PairOptions(("poses",), pose_neighbors=4, pose_angle=50), Inputs(poses=poses)).pairs
    P = np.array(list(poses.values()))
    centres, axes = -np.einsum("nji,nj->ni", P[:, :, :3], P[:, :, 3]), P[:, 2, :3]
    distance = np.linalg.norm(centres[:, None] - centres, axis=2)
    distance[(axes @ axes.T < np.cos(np.radians(50))) | np.eye(150, dtype=bool)] = np.inf
    wanted = {
        tuple(sorted((i, int(j))))
        for i, j in itertools.product(range(150), range(4))
        for j in [np.argsort(distance[i])[j]]
        if distance[i, j] < np.inf
    }
    assert found == [(f"{a:03}", f"{b:03}") for a, b in sorted(wanted)]


@pytest.mark.parametrize("pose", [np.zeros((4, 4)), np.eye(3), "here", np.full((4, 4), np.nan), np.diag([1, 1, -1, 1])])
def test_what_is_no_pose_is_refused_by_the_images_name(pose: object) -> None:
    with pytest.raises(InputError, match=r"'a\.jpg' is no rigid motion"):
        select_pairs(["a.jpg", "b.jpg"], PairOptions(("poses",)), Inputs(poses={"a.jpg": pose, "b.jpg": np.eye(4)}))


# ---------------------------------------------------------------------------------------------------- covisibility


def test_covisible_are_those_that_share_the_most_points() -> None:
    tracks = [["a", "b"]] * 5 + [["a", "c"]] * 3 + [["b", "c", "d"]] * 2 + [["a", "gone", "a"]]
    found = select_pairs("abcde", PairOptions(("covisibility",), covisible=1), Inputs(tracks=tracks))
    assert found.pairs == [("a", "b"), ("a", "c"), ("b", "d")]
    assert [skipped.name for skipped in found.skipped] == ["e"]


# ------------------------------------------------------------------------------------------------------------ files


def test_any_names_are_read_as_they_were_written(tmp_path: Path) -> None:
    pairs = sorted((min(p), max(p)) for p in itertools.combinations(AWKWARD, 2))
    write_pairs(tmp_path / "pairs.txt", pairs)
    assert read_pairs(tmp_path / "pairs.txt") == pairs
    found = select_pairs(AWKWARD, PairOptions(("file",), file=str(tmp_path / "pairs.txt")))
    assert (found.pairs, found.skipped) == (pairs, ())


def test_plain_names_stand_in_the_file_as_they_are(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.txt", [("a b.jpg", "c/d.jpg")])
    assert (tmp_path / "pairs.txt").read_bytes() == b"a b.jpg\tc/d.jpg\n"


def test_hloc_s_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_bytes(
        b"\xef\xbb\xbf# query and map\r\nq.jpg a.jpg\r\n\r\na.jpg q.jpg\r\nb.jpg c.jpg"
    )
    assert read_pairs(tmp_path / "pairs.txt") == [("a.jpg", "q.jpg"), ("b.jpg", "c.jpg")]


def test_names_with_spaces_are_told_apart_by_the_images_there_are(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("my photo.jpg other.jpg\n")
    with pytest.raises(InputError, match="line 1"):
        read_pairs(tmp_path / "pairs.txt")
    pairs, skipped = pairs_among(tmp_path / "pairs.txt", ["my photo.jpg", "other.jpg"])
    assert (pairs, skipped) == ([("my photo.jpg", "other.jpg")], [])


def test_lines_that_name_absent_images_or_are_no_pairs_are_told_of_and_the_rest_done(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("a b\na\tgone\na a\nonly\nb\tc\n")
    found = select_pairs("abc", PairOptions(("file",), file=str(path)))
    assert found.pairs == [("a", "b"), ("b", "c")]
    assert [skipped.name for skipped in found.skipped] == ["a, gone", f"{path}, line 3", f"{path}, line 4"]
    assert "'gone'" in found.skipped[0].reason


def test_no_file_of_pairs_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.txt"):
        read_pairs(tmp_path / "none.txt")


# ---------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "options",
    [
        {"sources": ("nearest",)},
        {"sources": ()},
        {"sources": ("file",)},
        {"overlap": 0},
        {"retrieved": 2.5},
        {"gps_radius": -1.0},
        {"gps_radius": float("nan")},
        {"pose_angle": 181.0},
        {"pose_radius": 0},
        {"loop_every": -1},
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        PairOptions(**options)


def test_pairs_that_somebody_named_are_known_from_the_settings_of_a_map(tmp_path):
    write_pairs(tmp_path / "pairs.txt", [("a", "b")])
    settings = {"sources": ["sequential", "file"], "file": str(tmp_path / "pairs.txt")}
    assert named_pairs(settings) == [("a", "b")]
    assert named_pairs({**settings, "sources": ["file"]}) == []  # all were named, none more than others
    assert named_pairs({**settings, "file": str(tmp_path / "gone.txt")}) == []
    assert named_pairs({}) == []
