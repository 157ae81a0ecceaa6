"""Manifests: what they say is what is judged, a bad pair is its own fault, a bad manifest is an error with a remedy."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lightglue.errors import InputError, LightGlueError
from lightglue.evaluation.datasets.colmap import convert_colmap, overlaps
from lightglue.evaluation.datasets.image_files import camera_fault
from lightglue.evaluation.datasets.manifest import load_manifest, write_manifest
from lightglue.evaluation.pair import Benchmark, Correspondences, Homography, Pair, RelativePose
from lightglue.geometry.options import EstimatorOptions
from lightglue.images import read_image
from support import NEEDS_SHARED, SHARED

EYE = [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]
K = [[500.0, 0, 319.5], [0, 510, 239.5], [0, 0, 1]]
T = [[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
OPENCV = {"model": "OPENCV", "width": 640, "height": 480, "params": [500, 510, 320, 240, -0.2, 0.05, 1e-3, -1e-3]}
IMAGES = {"image0": "a.png", "image1": "b.png"}
POSE = {**IMAGES, "K0": K, "K1": K, "T_0to1": T}


def manifest(folder: Path, *pairs: Any, kind: str = "pose", **fields: Any) -> Path:
    path = folder / "set.json"
    path.write_text(json.dumps({"kind": kind, "pairs": pairs, **fields}))
    return path


def only(benchmark: Benchmark) -> Pair:
    (pair,) = benchmark.pairs
    return pair


def test_a_pose_is_read_and_its_paths_are_relative_to_the_manifest(tmp_path: Path) -> None:
    said = manifest(tmp_path, {**POSE, "scene": "hall", "image0": "in/a.png"}, source="me", licence="CC0", name="Mine")
    benchmark = load_manifest(said)
    assert (benchmark.name, benchmark.kind, benchmark.source, benchmark.licence) == ("Mine", "pose", "me", "CC0")
    pair = only(benchmark)
    assert (pair.name, pair.scene, pair.fault) == ("in/a.png|b.png", "hall", None)
    assert (pair.image0, pair.image1) == (tmp_path / "in" / "a.png", tmp_path / "b.png")
    assert isinstance(pair.truth, RelativePose)
    np.testing.assert_array_equal(pair.truth.T_0to1, T)
    np.testing.assert_array_equal(pair.truth.camera0.K, K)


def test_homographies_and_points_are_read(tmp_path: Path) -> None:
    H = [[2.0, 0, 5], [0, 2, 6], [0, 0, 1]]
    truth = only(load_manifest(manifest(tmp_path, {**IMAGES, "H": H}, kind="homography"))).truth
    assert isinstance(truth, Homography)
    np.testing.assert_array_equal(truth.H, H)
    said = {**IMAGES, "points0": [[1, 2], [3, 4]], "points1": [[5, 6], [7, 8]]}
    truth = only(load_manifest(manifest(tmp_path, said, kind="points"))).truth
    assert isinstance(truth, Correspondences)
    np.testing.assert_array_equal(truth.points1, [[5, 6], [7, 8]])


@pytest.mark.parametrize(
    ("kind", "estimators", "thresholds"),
    [
        ("homography", ["opencv@0.5", "poselib@2", "dlt"], [1, 3, 5, 10]),
        ("pose", ["poselib@1", "opencv@0.5"], [5, 10, 20]),
        ("points", ["opencv@0.5"], list(range(1, 21))),
    ],
)
def test_what_it_does_not_say_has_a_default(
    tmp_path: Path, kind: str, estimators: list[str], thresholds: list[float]
) -> None:
    protocol = load_manifest(manifest(tmp_path, IMAGES, kind=kind)).protocol
    assert [each.label for each in protocol.estimators] == estimators
    assert all(each.max_iterations == 10_000 for each in protocol.estimators)
    assert list(protocol.thresholds) == thresholds
    assert (protocol.max_keypoints, protocol.resize, protocol.side) == (2048, None, "long")


def test_what_it_says_of_the_protocol_holds(tmp_path: Path) -> None:
    said = manifest(tmp_path, POSE, max_keypoints=77, resize=320, side="short", thresholds=[20, 1.5])
    protocol = load_manifest(said).protocol
    assert (protocol.max_keypoints, protocol.resize, protocol.side) == (77, 320, "short")
    assert protocol.thresholds == (1.5, 20.0)
    assert protocol.estimators[0] == EstimatorOptions("poselib", 1.0)


def test_a_folder_with_one_manifest_stands_for_it(tmp_path: Path) -> None:
    manifest(tmp_path, POSE)
    (tmp_path / "other.json").write_text('{"figures": 1}')
    (tmp_path / "broken.json").write_text("{")
    assert load_manifest(tmp_path).name == "set"
    (tmp_path / "second.json").write_text((tmp_path / "set.json").read_text())
    with pytest.raises(InputError, match="exactly one manifest .*, not second.json, set.json; name one"):
        load_manifest(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not none; name one"):
        load_manifest(tmp_path / "empty")


def test_every_pair_has_a_name_of_its_own(tmp_path: Path) -> None:
    sneaky = {**POSE, "image1": "b.png#2"}
    benchmark = load_manifest(manifest(tmp_path, POSE, sneaky, POSE, POSE))
    assert [pair.name for pair in benchmark.pairs] == [
        "a.png|b.png",
        "a.png|b.png#2",
        "a.png|b.png#3",
        "a.png|b.png#4",
    ]


def test_the_scene_is_the_first_folder_where_none_is_named(tmp_path: Path) -> None:
    pairs = load_manifest(manifest(tmp_path, {**POSE, "image0": "hall/in/a.png"}, POSE)).pairs
    assert [pair.scene for pair in pairs] == ["hall", ""]


def test_a_distorted_camera_is_colmaps(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    said = manifest(tmp_path, {**IMAGES, "camera0": OPENCV, "K1": K, "T_0to1": T})
    truth = only(load_manifest(said)).truth
    assert isinstance(truth, RelativePose)
    assert truth.camera1.colmap is None
    np.testing.assert_array_equal(truth.camera0.K, K)  # half a px less than COLMAP's, once
    points = np.array([[0.0, 0], [319.5, 239.5], [600, 10]])
    theirs = pycolmap.Camera(**OPENCV).cam_from_img(points + 0.5)
    np.testing.assert_allclose(truth.camera0.normalize(points), theirs, atol=1e-12)
    assert np.abs(theirs - (points - (319.5, 239.5)) / (500, 510)).max() > 0.01  # it does distort


def test_a_manifest_that_is_written_reads_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    pairs = [POSE, {**IMAGES, "image1": "c d/ü.png", "camera0": OPENCV, "camera1": OPENCV, "T_0to1": T}, IMAGES]
    before = load_manifest(manifest(tmp_path, *pairs, resize=100, side="short", thresholds=[2], max_keypoints=5))
    write_manifest(before, tmp_path / "new" / "deep" / "copy.json")
    after = load_manifest(tmp_path / "new" / "deep" / "copy.json")
    assert (after.name, after.kind, after.protocol) == (before.name, before.kind, before.protocol)
    for one, other in zip(before.pairs, after.pairs, strict=True):
        assert one.image1.resolve() == other.image1.resolve()
        assert (one.truth is None) == (other.truth is None) == (one.fault is not None)
    first, last = (each.pairs[1].truth for each in (before, after))
    assert isinstance(first, RelativePose)
    assert isinstance(last, RelativePose)
    np.testing.assert_array_equal(first.camera1.colmap.params, last.camera1.colmap.params)
    np.testing.assert_array_equal(first.T_0to1, last.T_0to1)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in POSE.items() if key != name}


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (17, "Pair 1 is 17; give an object"),
        (None, "Pair 1 is None"),
        (without("image0"), "image0 None; give a path"),
        ({**POSE, "image1": 3}, "image1 3; give a path"),
        ({**POSE, "image1": ""}, "image1 ''; give a path"),
        ({**POSE, "image1": "a\0b"}, "cannot be the path of an image"),
        ({**POSE, "image1": "a\ud800b"}, "cannot be the path of an image"),
        (without("T_0to1"), "no T_0to1; give it"),
        (without("K0"), "neither K0 nor camera0"),
        ({**POSE, "K1": [[math.nan, 0, 0], [0, 1, 0], [0, 0, 1]]}, "K is .*nan.*finite"),
        ({**POSE, "K1": EYE[:2]}, r"give a calibration matrix \(3, 3\)"),
        ({**POSE, "K1": "wide"}, "K is 'wide'"),
        ({**POSE, "T_0to1": EYE}, r"T_0to1 has the shape \(3, 3\)"),
        ({**POSE, "T_0to1": [[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]}, "which is no rotation"),
        ({**POSE, "T_0to1": [[1e300] * 4, [-1e300] * 4, [1e300] * 4, [0, 0, 0, 1]]}, "which is no rotation"),
        ({**POSE, "T_0to1": [[10**400] * 4] * 4}, "T_0to1 is .*; give numbers"),
        ({**POSE, "T_0to1": [[1, 2], [3]]}, "T_0to1 is .*; give numbers"),
        ({**POSE, "camera0": OPENCV}, "has K0 and camera0; give one"),
        ({**without("K0"), "camera0": 3}, "camera0 is 3; give an object with model, width"),
        ({**without("K0"), "camera0": {**OPENCV, "width": -1}}, "give an object with model, width"),
        ({**without("K0"), "camera0": {**OPENCV, "model": "INVALID"}}, "model 'INVALID'; pycolmap knows .*OPENCV"),
        ({**without("K0"), "camera0": {**OPENCV, "params": [1, 2]}}, r"params \[1, 2\], which do not fit .* OPENCV"),
        ({**without("K0"), "camera0": {**OPENCV, "params": ["f"] * 8}}, "which do not fit"),
        ({**without("K0"), "camera0": {**OPENCV, "params": [math.nan] * 8}}, "nan.*give finite ones"),
        ({**without("K0"), "camera0": {**OPENCV, "model": "EQUIRECTANGULAR", "params": [640, 480]}}, "no focal length"),
    ],
)
def test_a_pair_whose_truth_is_unusable_has_a_fault_and_the_others_are_read(
    tmp_path: Path, pair: Any, said: str
) -> None:
    pytest.importorskip("pycolmap")
    bad, good = load_manifest(manifest(tmp_path, pair, POSE)).pairs
    assert bad.truth is None
    with pytest.raises(InputError, match=said):
        raise InputError(bad.fault)
    assert (good.fault, good.name) == (None, "a.png|b.png" if bad.name != "a.png|b.png" else "a.png|b.png#2")
    bad.name.encode()  # it can be written


def test_a_singular_homography_and_points_without_partners_are_faults(tmp_path: Path) -> None:
    bad = only(load_manifest(manifest(tmp_path, {**IMAGES, "H": [[1, 2, 3]] * 3}, kind="homography")))
    assert bad.fault is not None
    assert "singular" in bad.fault
    extreme = [[500.0, 0, 319.5], [-1e308, 510, 239.5], [0, 1, 1]]  # whose determinant overflows
    assert only(load_manifest(manifest(tmp_path, {**IMAGES, "H": extreme}, kind="homography"))).fault
    said = {**IMAGES, "points0": [[1, 2]], "points1": [[1, 2], [3, 4]]}
    bad = only(load_manifest(manifest(tmp_path, said, kind="points")))
    assert bad.fault is not None
    assert "1 points0 and 2 points1" in bad.fault


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff\xfe\x00", "save it as UTF-8"),
        (b"[" * 100_000, "is no JSON"),
        (b"[1]", "holds a JSON list; give an object"),
        (b"{}", "has the kind None; give one of homography, pose, points"),
        (b'{"kind": ["pose"], "pairs": [1]}', r"has the kind \['pose'\]"),
        (b'{"kind": "localization"}', "has the kind 'localization', which needs a map"),
        (b'{"kind": "pose"}', "has no pairs"),
        (b'{"kind": "pose", "pairs": []}', "has no pairs"),
        (b'{"kind": "pose", "pairs": {"a": 1}}', "has pairs {'a': 1}; give a list"),
        (b'{"kind": "pose", "pairs": [{}], "max_keypoints": 0}', "max_keypoints 0; give an integer from 1"),
        (b'{"kind": "pose", "pairs": [{}], "max_keypoints": "many"}', "max_keypoints 'many'"),
        (b'{"kind": "pose", "pairs": [{}], "resize": 0.5}', "resize 0.5; give px"),
        (b'{"kind": "pose", "pairs": [{}], "side": "width"}', "side 'width'; give 'long' or 'short'"),
        (b'{"kind": "pose", "pairs": [{}], "side": []}', r"side \[\]"),
        (b'{"kind": "pose", "pairs": [{}], "thresholds": []}', r"thresholds \[\]"),
        (b'{"kind": "pose", "pairs": [{}], "thresholds": [5, NaN]}', r"thresholds \[5, nan\]; give a list of numbers"),
        (b'{"kind": "pose", "pairs": [{}], "thresholds": 5}', "thresholds 5"),
        (b'{"kind": "pose", "pairs": [{}], "name": 5}', "name 5; give a text"),
    ],
)
def test_an_unusable_manifest_names_itself_and_the_remedy(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"(?s)bad.json.*{said}"):
        load_manifest(path)


def test_a_manifest_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest at .*none.json; name a JSON file"):
        load_manifest(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be a path|is no JSON"):
        load_manifest("a\0b")


def test_a_manifest_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    benchmark = load_manifest(manifest(tmp_path, POSE))
    with pytest.raises(InputError, match="cannot be written"):
        write_manifest(benchmark, tmp_path / "set.json" / "copy.json")


def test_without_pycolmap_distorted_cameras_are_one_sentence_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(LightGlueError, match=r"need pycolmap, which is not installed: `pip install pycolmap`"):
        load_manifest(manifest(tmp_path, {**IMAGES, "camera0": OPENCV, "K1": K, "T_0to1": T}))
    assert only(load_manifest(manifest(tmp_path, POSE))).fault is None


def test_reading_manifests_and_benchmarks_imports_nothing_heavy() -> None:
    code = (
        "import sys, lightglue.evaluation.datasets, lightglue.evaluation.datasets.manifest as m\n"
        "import lightglue.evaluation.datasets.colmap, lightglue.evaluation.datasets.fetch\n"
        "print([name for name in ('torch', 'cv2', 'pycolmap', 'matplotlib', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("planar15", "homography", 15),
        ("synth16", "homography", 16),
        ("tum18", "pose", 18),
        ("strecha_dev", "pose", 20),
        ("strecha_wide_dev", "pose", 12),
        ("temple18", "pose", 18),
        ("kusvod2", "points", 23),
    ],
)
def test_the_sets_beside_the_checkout_are_read_without_a_fault(name: str, kind: str, count: int) -> None:
    path = SHARED / "data" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{NEEDS_SHARED}: {path.name} is missing")
    benchmark = load_manifest(path)
    assert (benchmark.kind, len(benchmark.pairs), len({pair.name for pair in benchmark.pairs})) == (kind, count, count)
    assert all(pair.fault is None and pair.image0.is_file() and pair.image1.is_file() for pair in benchmark.pairs)


# --- from COLMAP

BLACK = cv2.imencode(".png", np.zeros((480, 640), np.uint8))[1].tobytes()


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A reconstruction of 6 images by 2 cameras, the second of which distorts; written, and its images black."""
    pycolmap = pytest.importorskip("pycolmap")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 1, 3
    options.num_points3D = 60
    reconstruction = pycolmap.synthesize_dataset(options)
    plain, lens = (reconstruction.cameras[key] for key in sorted(reconstruction.cameras))
    plain.model, plain.params = pycolmap.CameraModelId.PINHOLE, [500, 510, 321, 241]
    lens.model, lens.params = pycolmap.CameraModelId.OPENCV, OPENCV["params"]
    for camera in (plain, lens):
        camera.width, camera.height = 640, 480
    (tmp_path / "model").mkdir()
    reconstruction.write(str(tmp_path / "model"))
    for image in reconstruction.images.values():
        path = tmp_path / "images" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BLACK)
    return reconstruction


def test_a_model_becomes_a_manifest_with_its_cameras_and_poses(model: Any, tmp_path: Path) -> None:
    output = tmp_path / "out" / "scene.json"
    count = convert_colmap(tmp_path / "model", tmp_path / "images", output, max_overlap=1.0)
    assert count == 15  # all see all points
    benchmark = load_manifest(output)
    assert (len(benchmark.pairs), benchmark.kind) == (15, "pose")
    by_name = {image.name: image for image in model.images.values()}
    distorted = 0
    for pair in benchmark.pairs:
        assert isinstance(pair.truth, RelativePose)
        images = [
            by_name[path.resolve().relative_to(tmp_path / "images").as_posix()] for path in (pair.image0, pair.image1)
        ]
        theirs = images[1].cam_from_world() * images[0].cam_from_world().inverse()
        np.testing.assert_allclose(pair.truth.T_0to1[:3], theirs.matrix(), atol=1e-12)
        for camera, image in zip((pair.truth.camera0, pair.truth.camera1), images, strict=True):
            said = model.cameras[image.camera_id]
            np.testing.assert_array_equal(camera.K, said.calibration_matrix() - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
            assert (camera.colmap is None) == (said.model.name == "PINHOLE")
            if camera.colmap is not None:
                distorted += 1
                np.testing.assert_array_equal(camera.colmap.params, said.params)
    assert distorted == 15


def test_the_points_of_a_pair_agree_with_its_pose(model: Any, tmp_path: Path) -> None:
    convert_colmap(tmp_path / "model", tmp_path / "images", tmp_path / "scene.json", max_overlap=1.0)
    by_name = {image.name: image for image in model.images.values()}
    for pair in load_manifest(tmp_path / "scene.json").pairs:
        assert isinstance(pair.truth, RelativePose)
        first, second = (
            by_name[path.relative_to(tmp_path / "images").as_posix()] for path in (pair.image0, pair.image1)
        )
        point = next(iter(model.points3D.values())).xyz
        in0 = first.cam_from_world() * point
        in1 = pair.truth.T_0to1 @ [*in0, 1]
        expected = second.project_point(point) - 0.5
        np.testing.assert_allclose(pair.truth.camera1.project((in1[:2] / in1[2])[None])[0], expected, atol=1e-9)


def test_overlap_bounds_the_pairs_and_the_draw_is_reproducible(model: Any, tmp_path: Path) -> None:
    ids = sorted(model.images)
    seen = model.images[ids[0]].get_observation_point2D_idxs()
    assert len(seen) == 60
    for point2d in seen[20:]:  # the first image keeps 20 of its 60 points
        model.delete_observation(ids[0], point2d)
    model.write(str(tmp_path / "model"))

    def names(**options: Any) -> list[str]:
        convert_colmap(tmp_path / "model", tmp_path / "images", tmp_path / "scene.json", **options)
        return [pair.name for pair in load_manifest(tmp_path / "scene.json").pairs]

    first = model.images[ids[0]].name
    few = names(min_overlap=0.3, max_overlap=0.4)
    assert len(few) == 5
    assert all(first in name for name in few)
    assert len(names(min_overlap=0.9, max_overlap=1.0)) == 10
    everything = names(max_overlap=1.0, max_pairs=None)
    drawn = names(max_overlap=1.0, max_pairs=7, seed=3)
    assert drawn == names(max_overlap=1.0, max_pairs=7, seed=3)
    assert drawn == [name for name in everything if name in drawn]
    assert len(drawn) == 7
    assert drawn != names(max_overlap=1.0, max_pairs=7, seed=4)


def test_overlaps_are_those_of_plain_counting() -> None:
    generator = np.random.default_rng(0)
    seen = [np.unique(generator.integers(0, 60, size)) for size in (30, 0, 50, 5, 80, 1)]
    found = {(i, j): overlap for i, j, overlap in zip(*overlaps(seen), strict=True)}
    expected = {}
    for i, j in combinations(range(len(seen)), 2):
        if shared := len({*seen[i]} & {*seen[j]}):
            expected[i, j] = min(shared / len(seen[i]), shared / len(seen[j]))
    assert found == pytest.approx(expected)
    assert [len(column) for column in overlaps([])] == [0, 0, 0]


def test_a_text_model_gives_the_same_manifest(model: Any, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    model.write_text(str(tmp_path / "text"))
    for name in ("model", "text"):
        convert_colmap(tmp_path / name, tmp_path / "images", tmp_path / name / "scene.json", max_overlap=1.0)
    one, other = (load_manifest(tmp_path / name / "scene.json").pairs for name in ("model", "text"))
    assert [pair.name for pair in one] == [pair.name for pair in other]
    for a, b in zip(one, other, strict=True):
        assert isinstance(a.truth, RelativePose)
        assert isinstance(b.truth, RelativePose)
        np.testing.assert_allclose(a.truth.T_0to1, b.truth.T_0to1, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_overlap": 0.0}, "give 0 < min_overlap <= max_overlap <= 1"),
        ({"min_overlap": 0.8, "max_overlap": 0.7}, "The overlaps are 0.8 to 0.7"),
        ({"min_overlap": math.nan}, "The overlaps are nan"),
        ({"max_pairs": 0}, "max_pairs is 0"),
        ({"seed": -1}, "The seed is -1"),
        ({"max_overlap": 0.5}, "No pair of the 6 images .* there is 1.000 to 1.000. Give other bounds"),
    ],
)
def test_a_conversion_that_cannot_be_done_says_why(
    model: Any, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        convert_colmap(tmp_path / "model", tmp_path / "images", tmp_path / "scene.json", **options)
    assert not (tmp_path / "scene.json").exists()


def test_a_model_or_images_that_are_not_there_are_said(model: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no COLMAP model in .*images"):
        convert_colmap(tmp_path / "images", tmp_path / "images", tmp_path / "scene.json")
    with pytest.raises(InputError, match="6 of the 6 images are missing, such as .*model.*, not .*model"):
        convert_colmap(tmp_path / "model", tmp_path / "model", tmp_path / "scene.json", max_overlap=1.0)
    (tmp_path / "broken").mkdir()
    for name in ("cameras.txt", "images.txt", "points3D.txt"):
        (tmp_path / "broken" / name).write_text("1 SIDEWAYS 3\n\n")
    with pytest.raises(InputError, match="is no readable COLMAP model"):
        convert_colmap(tmp_path / "broken", tmp_path / "images", tmp_path / "scene.json")


def test_images_that_are_not_what_the_cameras_saw_are_refused(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "images" / next(iter(model.images.values())).name
    path.write_bytes(cv2.imencode(".png", np.zeros((48, 64), np.uint8))[1].tobytes())
    with pytest.raises(
        InputError, match=r"1 of the 6 images do not fit .*: it has 64 x 48 px and its camera 640 x 480"
    ):
        convert_colmap(tmp_path / "model", tmp_path / "images", tmp_path / "scene.json", max_overlap=1.0)
    path.write_bytes(tagged(6, 640, 480))
    with pytest.raises(InputError, match=r"its EXIF tag rotates it. Give the images .*exiftool"):
        convert_colmap(tmp_path / "model", tmp_path / "images", tmp_path / "scene.json", max_overlap=1.0)
    path.write_bytes(tagged(1, 640, 480))
    assert convert_colmap(tmp_path / "model", tmp_path / "images", tmp_path / "scene.json", max_overlap=1.0) == 15


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_what_is_called_turned_is_what_our_loader_turns(tmp_path: Path, orientation: int, order: str) -> None:
    plain, image = tmp_path / "plain.jpg", tmp_path / "image.jpg"
    content = tagged(orientation, 24, 16, order)
    image.write_bytes(content)
    plain.write_bytes(content.replace(b"Exif\0\0", b"none\0\0"))
    is_turned = not np.array_equal(read_image(image), read_image(plain))
    assert (camera_fault(image, 24, 16) is not None) == is_turned == (2 <= orientation <= 8)


def tagged(orientation: int, width: int, height: int, order: str = "<") -> bytes:
    """A JPEG with an EXIF orientation."""
    image = np.zeros((height, width), np.uint8)
    image[: height // 2, : width // 4] = 255
    plain = cv2.imencode(".jpg", image)[1].tobytes()
    entries = struct.pack(order + "HHHII", 2, 0x0100, 4, 1, width)
    entries += struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8) + entries + bytes(4)
    exif = b"Exif\0\0" + tiff
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
