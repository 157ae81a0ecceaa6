"""Look-alike places: false pairs leave COLMAP's geometries and may come back; a model says what it explains."""

from __future__ import annotations

import html
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

pytest.importorskip("pycolmap")
import pycolmap

from lightglue.cli.app import app
from lightglue.errors import LightGlueError
from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.models.choice import Models
from lightglue.sfm.change import accept_model
from lightglue.sfm.colmap.cameras import CameraOptions
from lightglue.sfm.colmap.database import create_database
from lightglue.sfm.colmap.judged import Judgement, drop, read_judgements, restore, verified_pairs
from lightglue.sfm.colmap.mappers import run_mapper
from lightglue.sfm.colmap.models import cam_from_world, open_model, registered
from lightglue.sfm.colmap.motion import motion_of
from lightglue.sfm.colmap.pair_ids import pair_id, pair_of
from lightglue.sfm.colmap.state import read_state
from lightglue.sfm.folder import MapFolder, MapRecord
from lightglue.sfm.look_alikes.consistency import PlacedImage, VerifiedPair, agreement, check_model
from lightglue.sfm.look_alikes.decide import CONTRADICTS, OUT_OF_ORDER, WEAK, Decision, decide
from lightglue.sfm.look_alikes.evidence import gather_evidence
from lightglue.sfm.look_alikes.focal import focal_factor
from lightglue.sfm.look_alikes.knowledge import Knowledge, shift
from lightglue.sfm.look_alikes.rotations import average_rotations, exp_so3, log_so3, residuals, triangle_support
from lightglue.sfm.look_alikes.view_graph import ViewGraph, read_view_graph
from lightglue.sfm.report.data import report_data
from lightglue.sfm.report.document import report_html
from lightglue.sfm.stages import consistency
from lightglue.sfm.stages.exif import time_of
from lightglue.sfm.stages.judge import judge_pairs
from lightglue.sfm.stages.reconstruct import ReconstructOptions, known_summary, reconstruct
from lightglue.sfm.stages.verify import VerifyOptions, verify
from lightglue.stores import MatchStore
from lightglue_runtime.images.exif import Exif
from support.twin_scene import TwinScene, make_twins

Array = NDArray[np.float64]
KNOWN = CameraOptions("PINHOLE", (600, 600, 319.5, 239.5))


# --- rotations ---------------------------------------------------------------------------------------------------


def test_a_rotation_vector_is_the_logarithm_of_its_rotation() -> None:
    axis = np.array([[1.0, 0, 0], [0.6, -0.8, 0], [0, 0, 1]])
    vectors = np.concatenate((axis * 0.3, axis * 1e-9, axis * 3.0, axis * (np.pi - 1e-9)))
    np.testing.assert_allclose(np.abs(log_so3(exp_so3(vectors))), np.abs(vectors), atol=1e-6)


def relative_of(rotations: Array, edges: NDArray[np.int64]) -> Array:
    return rotations[edges[:, 1]] @ rotations[edges[:, 0]].transpose(0, 2, 1)


def test_rotations_are_found_though_many_pairs_are_false_and_the_strongest_is() -> None:
    rng = np.random.default_rng(1)
    true = exp_so3(rng.normal(size=(30, 3)))
    edges = np.array([(a, b) for a in range(30) for b in range(a + 1, 30) if rng.uniform() < 0.4])
    relative = exp_so3(rng.normal(scale=0.01, size=(len(edges), 3))) @ relative_of(true, edges)
    false = rng.uniform(size=len(edges)) < 0.3
    false[0] = True
    relative[false] = exp_so3(rng.normal(size=(int(false.sum()), 3)) * 2)
    weights = np.ones(len(edges))
    weights[0] = 10
    agree, contradict = triangle_support(edges, relative, weights, 30)
    weights *= (agree + 1) / (agree + contradict + 2)
    found = average_rotations(edges, relative, weights, 30, 12, 0)
    off = residuals(edges, relative_of(true, edges), found)
    assert off.max() < 3  # of all pairs, the false ones' images too


def test_images_of_more_pairs_than_are_voted_on_are_found_too() -> None:
    rng = np.random.default_rng(2)
    count = 90
    true = exp_so3(rng.normal(size=(count, 3)))
    edges = np.stack(np.triu_indices(count, 1), axis=1)
    relative = true[edges[:, 1]] @ true[edges[:, 0]].transpose(0, 2, 1)
    is_false = rng.random(len(edges)) < 0.4
    relative[is_false] = exp_so3(rng.normal(size=(int(is_false.sum()), 3)))
    found = average_rotations(edges, relative, np.ones(len(edges)), count, 1, 0)
    assert residuals(edges, relative, found)[~is_false].max() < 1


def test_rotations_of_two_parts_are_found_apart_and_of_no_pairs_too() -> None:
    true = exp_so3(np.random.default_rng(1).normal(size=(6, 3)))
    edges = np.array([(0, 1), (1, 2), (3, 4), (4, 5)])
    relative = relative_of(true, edges)
    assert residuals(edges, relative, average_rotations(edges, relative, np.ones(4), 6, 3, 0)).max() < 1e-4
    none = average_rotations(np.zeros((0, 2), np.int64), np.zeros((0, 3, 3)), np.zeros(0), 2, 3, 0)
    np.testing.assert_array_equal(none, np.tile(np.eye(3), (2, 1, 1)))


def test_circles_of_three_pairs_agree_with_the_true_ones() -> None:
    true = exp_so3(np.random.default_rng(2).normal(size=(4, 3)))
    edges = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
    relative = relative_of(true, edges)
    relative[0] = exp_so3(np.array([[0.0, 1.0, 0.0]]))[0] @ relative[0]
    agree, contradict = triangle_support(edges, relative, np.ones(6), 4)
    assert agree.tolist() == [0, 1, 1, 1, 1, 2]
    assert contradict.tolist() == [2, 1, 1, 1, 1, 0]


# --- the focal length --------------------------------------------------------------------------------------------


def essential(rng: np.random.Generator) -> Array:
    t = rng.normal(size=3)
    return np.cross(np.eye(3), t) @ exp_so3(rng.normal(size=(1, 3)))[0]


def test_the_focal_length_is_what_most_pairs_agree_with() -> None:
    rng = np.random.default_rng(4)
    zoom = np.diag((1 / 0.7, 1 / 0.7, 1))  # the guess is 1 / 0.7 times too long
    good = [(zoom @ essential(rng) @ zoom, 100) for _ in range(12)]
    bad = [(rng.normal(size=(3, 3)), 100) for _ in range(6)]
    assert focal_factor(good + bad) == pytest.approx(0.7, rel=0.03)


def test_a_guess_stays_where_pairs_are_few() -> None:
    assert focal_factor([(essential(np.random.default_rng(5)) @ np.diag((2, 2, 1)), 100)] * 2) is None


# --- a room with the same picture on two walls -------------------------------------------------------------------


def database_of(scene: TwinScene, folder: Path, **options: bool) -> Path:
    create_database(folder / "database.db", scene.features, scene.matches, cameras=KNOWN)
    verify(folder / "database.db", VerifyOptions(**options))
    return folder / "database.db"


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[TwinScene, Path]:
    folder = tmp_path_factory.mktemp("twins")
    scene = make_twins(folder)
    return scene, database_of(scene, folder)


@pytest.fixture(scope="module")
def graph(twins: tuple[TwinScene, Path]) -> ViewGraph:
    scene, path = twins
    return read_view_graph(path, read_state(path), list(verified_pairs(path, 15)), scene.matches)


def named(graph: ViewGraph, row: int) -> tuple[str, str]:
    return graph.names[graph.pairs[row].first], graph.names[graph.pairs[row].second]


def test_a_look_alike_lacks_what_the_other_image_must_see(twins: tuple[TwinScene, Path], graph: ViewGraph) -> None:
    evidence = gather_evidence(graph)
    is_false = np.array([named(graph, row) in twins[0].false for row in range(len(graph.pairs))])
    assert is_false.sum() >= 3
    known = np.isfinite(evidence.seen)
    assert known[is_false].all()
    assert evidence.seen[is_false].max() < 0.5 < evidence.seen[~is_false & known].min()
    assert evidence.probability[is_false].max() < 0.9 < np.median(evidence.probability[~is_false])


def test_false_pairs_leave_the_geometries_and_their_matches_stay(twins: tuple[TwinScene, Path], tmp_path: Path) -> None:
    scene, _ = twins
    path = database_of(scene, tmp_path)
    before = rows_of(path, "two_view_geometries")
    result = judge_pairs(path, matches=scene.matches)
    ids = {number: name for name, number in read_state(path).ids.items()}
    dropped = {
        tuple(ids[each] for each in pair_of(number)): each.reason
        for number, each in result.judgements.items()
        if each.reason is not None
    }
    assert dropped.keys() == scene.false
    assert set(dropped.values()) <= {CONTRADICTS, OUT_OF_ORDER.format("the names"), WEAK}
    assert rows_of(path, "two_view_geometries") == before - {pair_id(*_ids(path, pair)) for pair in scene.false}
    assert rows_of(path, "matches") >= before
    assert judge_pairs(path, matches=scene.matches).was_there
    restore(path)
    assert rows_of(path, "two_view_geometries") == before
    assert read_judgements(path) == {}


def rows_of(path: Path, table: str) -> set[int]:
    with sqlite3.connect(path) as connection:
        found = {number for (number,) in connection.execute(f"SELECT pair_id FROM {table} WHERE rows > 0")}
    connection.close()
    return found


def _ids(path: Path, pair: tuple[str, str]) -> tuple[int, int]:
    ids = read_state(path).ids
    return ids[pair[0]], ids[pair[1]]


def test_verifying_again_with_nothing_new_keeps_what_was_dropped(twins: tuple[TwinScene, Path], tmp_path: Path) -> None:
    scene, _ = twins
    path = database_of(scene, tmp_path)
    judge_pairs(path, matches=scene.matches)
    content, there = path.read_bytes(), rows_of(path, "two_view_geometries")
    create_database(path, scene.features, scene.matches, cameras=KNOWN)
    result = verify(path)
    assert result.num_done == 0
    assert result.num_verified == len(there) + len(scene.false)  # verified they are
    assert judge_pairs(path, matches=scene.matches).was_there
    assert path.read_bytes() == content


def test_pairs_come_back_when_others_are_added_or_the_option_says_so(tmp_path: Path) -> None:
    """Without the images in between, the two pictures are one place for all that is known; and they are told apart
    as soon as these are there."""
    scene = make_twins(tmp_path)
    some = [name for name in scene.names if name not in scene.names[4:9]]
    path = tmp_path / "some.db"
    for names in (some, scene.names):
        create_database(path, scene.features, scene.matches, names=names, cameras=KNOWN)
        verify(path)
        judged = judge_pairs(path, matches=scene.matches)
    assert judged.counts()["dropped"] == len(scene.false)
    keep = VerifyOptions(drop_look_alikes=False)
    assert judge_pairs(path, keep, scene.matches).counts()["dropped"] == 0
    assert len(rows_of(path, "two_view_geometries")) == len(verified_pairs(path, 15))


def angle_between(model: object, scene: TwinScene) -> list[float]:
    """Degrees that the rotations of a model's images are off, relative to its first image."""
    images = {str(image.name): cam_from_world(image)[:3, :3] for image in registered(model)}
    first, *others = sorted(images)
    off = []
    for name in others:
        found = images[name] @ images[first].T
        true = scene.poses[name][:3, :3] @ scene.poses[first][:3, :3].T
        off.append(float(np.degrees(np.linalg.norm(log_so3((found @ true.T)[None])))))
    return off


def test_the_map_of_look_alikes_is_right_and_says_so(twins: tuple[TwinScene, Path], tmp_path: Path) -> None:
    scene, _ = twins
    path = database_of(scene, tmp_path)
    judge_pairs(path, matches=scene.matches)
    best = reconstruct(path, tmp_path, tmp_path, ReconstructOptions(threads=1)).models[0]
    assert best.num_images == len(scene.names)
    assert max(angle_between(open_model(tmp_path / "model"), scene)) < 1
    assert best.doubt is None
    assert best.consistency == pytest.approx(1, abs=0.05)  # false pairs, which are unlikely, hardly weigh
    again = reconstruct(path, tmp_path, tmp_path, ReconstructOptions(threads=1))
    assert again.was_there
    assert again.models[0] == best


def test_a_map_of_look_alikes_that_are_kept_is_never_silently_wrong(
    twins: tuple[TwinScene, Path], tmp_path: Path
) -> None:
    scene, _ = twins
    path = database_of(scene, tmp_path)
    judge_pairs(path, VerifyOptions(drop_look_alikes=False), scene.matches)
    best = reconstruct(path, tmp_path, tmp_path, ReconstructOptions(threads=1)).models[0]
    right = best.num_images == len(scene.names) and max(angle_between(open_model(tmp_path / "model"), scene)) < 2
    assert best.doubt is not None
    assert "contradict" in best.doubt
    assert right or best.consistency is None or best.consistency < 0.99


def test_what_a_map_may_be_wrong_in_is_said_by_its_stage_and_its_report(
    twins: tuple[TwinScene, Path], tmp_path: Path
) -> None:
    scene, _ = twins
    place = MapFolder(tmp_path)
    shutil.copytree(scene.features.folder, place.features)
    shutil.copy(scene.matches.path, place.matches)
    place.write(MapRecord(tmp_path / "images", {"models": asdict(Models("aliked"))}))
    (tmp_path / "images").mkdir()
    judge_pairs(database_of(scene, tmp_path), VerifyOptions(drop_look_alikes=False), scene.matches)
    told = CliRunner().invoke(app, ["map", "reconstruct", str(tmp_path), "--threads", "1"])
    assert told.exit_code == 0
    assert "warning: The map may be wrong: " in told.stderr
    assert "`lightglue map report` shows the pairs." in told.stderr
    strict = CliRunner().invoke(app, ["map", "reconstruct", str(tmp_path), "--threads", "1", "--strict"])
    assert strict.exit_code == 1
    data = report_data(tmp_path)
    assert data.doubt is not None
    assert f"The model may be wrong: {data.doubt}." in html.unescape(report_html(data))
    accepted = accept_model(tmp_path)
    assert accepted.doubt == data.doubt
    known = known_summary(place.models)
    assert known is not None
    assert known[1].models[0] == accepted


def test_a_map_of_which_all_pairs_were_dropped_says_so(twins: tuple[TwinScene, Path], tmp_path: Path) -> None:
    path = database_of(twins[0], tmp_path)
    drop(path, [Judgement(each, 0.1, 0.0, 20, WEAK, False) for each in verified_pairs(path, 15)], "")
    result = reconstruct(path, tmp_path, tmp_path)
    assert result.models == ()
    assert "were dropped" in str(result.reason)
    assert "--all-pairs" in str(result.reason)


def test_an_attempt_that_fails_leaves_the_models_of_the_others(
    twins: tuple[TwinScene, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def once(*args: Any) -> Any:
        calls.append(args)
        if len(calls) > 1:
            raise LightGlueError("out of luck")
        return run_mapper(*args)

    monkeypatch.setattr(consistency, "run_mapper", once)
    path = database_of(twins[0], tmp_path)
    judge_pairs(path, VerifyOptions(drop_look_alikes=False), twins[0].matches)
    assert reconstruct(path, tmp_path, tmp_path, ReconstructOptions(threads=1)).models
    assert len(calls) > 1


# --- decisions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def likely(graph: ViewGraph) -> Callable[..., Decision]:
    """A decision about the room's pairs, as if they were this likely by themselves."""
    evidence = gather_evidence(graph)

    def decided(probability: Array, knowledge: Knowledge | None = None) -> Decision:
        return decide(graph, replace(evidence, logit=np.log(probability / (1 - probability))), knowledge)

    return decided


@pytest.mark.parametrize("order", ["the names", "the times"])
def test_the_order_of_a_sequence_decides_where_look_alikes_seem_likelier(
    twins: tuple[TwinScene, Path], graph: ViewGraph, likely: Callable[..., Decision], order: str
) -> None:
    is_false = np.array([named(graph, row) in twins[0].false for row in range(len(graph.pairs))])
    far = np.array([abs(pair.first - pair.second) for pair in graph.pairs])
    by_names = np.arange(14) if order == "the names" else np.random.default_rng(0).permutation(14)
    knowledge = Knowledge((("the names", by_names), ("the times", np.arange(14))))
    decision = likely(np.where(is_false, 0.9999, np.where(far > 1, 0.25, 0.3)), knowledge)
    assert decision.order == order
    assert not decision.kept[is_false].any()
    assert decision.kept[~is_false].all()
    assert {decision.reasons[row] for row in np.flatnonzero(is_false)} == {OUT_OF_ORDER.format(order)}
    assert decision.probability[is_false].max() <= 0.1


def test_times_order_images_where_all_have_one() -> None:
    assert [name for name, _ in Knowledge.of("abc", [3.0, 1.0, 2.0]).orders] == ["the names", "the times"]
    assert Knowledge.of("abc", [3.0, 1.0, 2.0]).orders[1][1].tolist() == [2, 0, 1]
    for times in ([3.0, np.nan, 2.0], [3.0, 3.0, 2.0], [], None):
        assert len(Knowledge.of("abc", times).orders) == 1


def test_a_pair_of_images_that_gps_has_far_apart_is_unlikely_and_one_that_somebody_chose_is_likely() -> None:
    edges = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 6), (5, 7)])
    positions = np.zeros((8, 3))
    positions[:, 0] = [0, 20, 40, 60, 80, 100, 900, np.nan]
    knowledge = Knowledge.of("abcdefgh", positions=positions, given=[("g", "a"), ("h", "z")])
    assert shift(knowledge, edges, np.full(7, 0.95)).tolist() == [0, 0, 0, 0, 0, -3 + 1.5, 0]
    assert not shift(Knowledge.of("abcdefgh", positions=positions), edges, np.full(7, 0.5)).any()  # what is usual?


def test_the_time_of_an_image_is_read_with_its_fraction() -> None:
    first = time_of(Exif(camera={0x9003: "2026:11:29 10:00:00", 0x9291: "25"}))
    second = time_of(Exif(camera={0x9003: "2026:11:29 10:01:00"}))
    assert second - first == pytest.approx(59.75)
    for said in ("", "0000:00:00 00:00:00", "yesterday"):
        assert np.isnan(time_of(Exif(camera={0x9003: said})))


@pytest.mark.parametrize(("probability", "what"), [(0.05, "dropped"), (0.5, "doubtful"), (0.95, "believed")])
def test_what_only_unlikely_pairs_join_is_taken_apart_or_doubted(
    graph: ViewGraph, likely: Callable[..., Decision], probability: float, what: str
) -> None:
    """Images 0 to 6 and 7 to 13 hold together; how likely are the pairs between them?"""
    edges = graph.edges
    between = (edges[:, 0] < 7) != (edges[:, 1] < 7)
    agree = residuals_of(graph) < 5
    decision = likely(np.where(between, np.where(agree, probability, 0.01), 0.95))
    assert (decision.kept[between & agree]).all() == (what != "dropped")
    assert decision.doubtful[between & agree].any() == (what == "doubtful")
    assert not decision.doubtful[~between].any()
    assert decision.kept[~between & agree].all()


def residuals_of(graph: ViewGraph) -> Array:
    decision = decide(graph, gather_evidence(graph))
    return decision.residual


# --- what a model explains ---------------------------------------------------------------------------------------


def placed(T: Array, points: Array) -> PlacedImage:
    K = np.array([[600, 0, 320], [0, 600, 240], [0, 0, 1.0]])
    seen = (points @ T[:3, :3].T + T[:3, 3]) @ K.T
    return PlacedImage(T, Camera(K), 640, seen[:, :2] / seen[:, 2:])


def looking(angle: float, x: float) -> Array:
    T = np.eye(4)
    T[:3, :3] = exp_so3(np.array([[0, angle, 0]]))[0]
    T[:3, 3] = x, 0, 5
    return T


def test_a_pair_that_the_model_turns_away_contradicts_it() -> None:
    points = np.random.default_rng(6).uniform(-1, 1, (100, 3))
    images = {name: placed(looking(0.1 * at, 0.3 * at), points) for at, name in enumerate("abc")}
    rows = np.stack([np.arange(100)] * 2, axis=1)
    pairs = [VerifiedPair(*both, rows, Judgement(1, 0.99, 0.0, 100, None, False)) for both in ("ab", "ac", "bc")]
    good = check_model(images, pairs)
    assert (good.explained, good.contradicting, good.doubtful) == (1, (), ())
    turned = {**images, "c": replace(images["c"], pose=looking(1.8, 0.6))}
    bad = check_model(turned, pairs)
    assert bad.explained == pytest.approx(1 / 3)
    assert bad.contradicting == (("a", "c", 100), ("b", "c", 100))
    unlikely = [replace(pair, judgement=Judgement(1, 0.02, 90.0, 100, CONTRADICTS, False)) for pair in pairs[1:]]
    weighed = check_model(turned, [pairs[0], *unlikely])
    assert weighed.explained == pytest.approx(1 / (1 + 2 * 0.02 / 0.99))
    assert weighed.contradicting == ()


def through_a_fisheye(T: Array, points: Array) -> PlacedImage:
    camera = as_camera(Intrinsics("OPENCV_FISHEYE", (1024, 1024), (320, 320, 511.5, 511.5, 0, 0, 0, 0)))
    seen = points @ T[:3, :3].T + T[:3, 3]
    pixels = camera.project(seen[:, :2] / seen[:, 2:])
    return PlacedImage(T, camera, 1024, pixels + np.random.default_rng(8).normal(0, 1.5, pixels.shape))


def test_a_fisheye_may_be_as_far_off_at_its_margin_as_in_its_middle() -> None:
    """And where it sees no ray, nothing follows."""
    rng = np.random.default_rng(7)
    angle, off = rng.uniform(0, 2 * np.pi, 200), np.radians(rng.uniform(65, 80, 200))  # from the axis
    ahead = np.stack((np.sin(off) * np.cos(angle), np.sin(off) * np.sin(angle), np.cos(off)), axis=1)
    points = ahead * rng.uniform(4, 8, (200, 1))
    first, second = np.eye(4), np.eye(4)
    second[:3, 3] = 0.1, 0.05, 0.2
    images = {"a": through_a_fisheye(first, points), "b": through_a_fisheye(second, points)}
    rows = np.stack([np.arange(200)] * 2, axis=1)
    assert agreement(images["a"], images["b"], rows) > 0.95
    turned = replace(images["b"], pose=looking(1.0, 0))
    assert agreement(images["a"], turned, rows) < 0.5
    blind = images["a"].keypoints.copy()
    blind[:150] = np.nan
    assert agreement(replace(images["a"], keypoints=blind), images["b"], rows) > 0.95
    assert agreement(replace(images["a"], keypoints=blind), images["b"], rows[:150]) == 1


def test_guessed_fisheyes_stay_fisheyes(tmp_path: Path) -> None:
    scene = make_twins(tmp_path)
    path = tmp_path / "fisheye.db"
    create_database(path, scene.features, scene.matches, cameras=CameraOptions("OPENCV_FISHEYE"))
    verify(path)
    graph = read_view_graph(path, read_state(path), list(verified_pairs(path, 15)), scene.matches)
    assert graph.cameras[0].colmap.model.name == "OPENCV_FISHEYE"


@pytest.mark.skipif(not hasattr(pycolmap.CameraModelId, "EQUIRECTANGULAR"), reason="this pycolmap has no panoramas")
def test_pairs_of_panoramas_are_not_judged(twins: tuple[TwinScene, Path], tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    create_database(path, twins[0].features, twins[0].matches, cameras=CameraOptions("EQUIRECTANGULAR", (640, 480)))
    assert verify(path).num_verified > 0
    assert judge_pairs(path, matches=twins[0].matches).judgements == {}
    assert motion_of(path, read_state(path)).turned == 0


def test_keypoints_at_which_a_lens_sees_no_ray_cost_nothing_else(
    twins: tuple[TwinScene, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def normalize(camera: Camera, points: Array) -> Array:
        rays = whole(camera, points)
        rays[points[:, 0] < 60] = np.nan
        return rays

    whole = Camera.normalize
    monkeypatch.setattr(Camera, "normalize", normalize)
    path = database_of(twins[0], tmp_path)
    judged = judge_pairs(path, matches=twins[0].matches)
    assert judged.counts()["dropped"] == len(twins[0].false)
    assert len(judged.judgements) == len(verified_pairs(path, 15))


def test_a_single_pair_has_nothing_to_be_compared_with(likely: Callable[..., Decision], graph: ViewGraph) -> None:
    alone = replace(graph, pairs=(replace(graph.pairs[0], score=np.nan),))
    decision = decide(alone, gather_evidence(alone))
    assert (decision.reasons, decision.doubtful.tolist()) == ((None,), [False])
    none = replace(graph, pairs=())
    assert decide(none, gather_evidence(none)).reasons == ()


def test_names_order_images_by_their_numbers() -> None:
    assert Knowledge.of(["img1", "img10", "img2"]).orders[0][1].tolist() == [0, 2, 1]


def test_one_strong_pair_of_very_many_is_no_doubt() -> None:
    points = np.random.default_rng(6).uniform(-1, 1, (100, 3))
    images = {name: placed(looking(0.1 * at, 0.3 * at), points) for at, name in enumerate("abc")}
    images["c"] = replace(images["c"], pose=looking(1.8, 0.6))
    rows = np.stack([np.arange(100)] * 2, axis=1)
    good, bad = (VerifiedPair(*both, rows, Judgement(1, 0.99, 0.0, 100, None, False)) for both in ("ab", "ac"))
    assert check_model(images, [good] * 99 + [bad]).contradicting == (("a", "c", 100),)
    assert check_model(images, [good] * 999 + [bad]).contradicting == ()


def test_pairs_of_images_that_are_not_in_the_model_say_nothing() -> None:
    points = np.random.default_rng(6).uniform(-1, 1, (50, 3))
    pair = VerifiedPair("a", "z", np.stack([np.arange(50)] * 2, axis=1), None)
    assert check_model({"a": placed(looking(0, 0), points)}, [pair]).explained == 1


def test_the_scores_of_a_matcher_that_gives_no_probabilities_are_not_looked_at(
    twins: tuple[TwinScene, Path], tmp_path: Path
) -> None:
    scene, path = twins
    nearest = MatchStore.open(tmp_path / "matches.db", {"matcher": "nearest"})
    nearest.put(scene.matches.read())
    graph = read_view_graph(path, read_state(path), list(verified_pairs(path, 15)), nearest)
    assert np.isnan([pair.score for pair in graph.pairs]).all()
    decision = decide(graph, gather_evidence(graph))
    assert {named(graph, row) for row in np.flatnonzero(~decision.kept)} == scene.false
