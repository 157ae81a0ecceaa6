"""The published benchmarks: each is read from its own layout, by its own protocol, and says what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.evaluation.datasets import BENCHMARKS
from lightglue.evaluation.datasets.hpatches import LEFT_OUT
from lightglue.evaluation.datasets.manifest import load_manifest
from lightglue.evaluation.pair import Benchmark, Correspondences, Homography, Pair, RelativePose

H = "1.5 0 10\n0\t 1.5  20 \n\n1e-5 0 1\n"
K = "500 0 320 0 510 240 0 0 1"
R_T = "0 -1 0 1 0 0 0 0 1 1 2 3"  # R row by row, then t
T = "0 -1 0 1 1 0 0 2 0 0 1 3 0 0 0 1"


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_hpatches(root: Path) -> Path:
    for scene in ("v_wall", "i_sky", "v_talent", "i_dc"):
        for n in range(1, 7):
            write(root / scene / f"{n}.ppm")
            if n > 1:
                write(root / scene / f"H_1_{n}", H)
    write(root / "README.txt")
    return root


def make_megadepth(root: Path) -> Path:
    lines = [f"0022/a{n}.jpg 0022/b.jpg {K} {K} {R_T}" for n in range(2)] + [f"0015/c.jpg 0015/d.jpg {K} {K} {T}"]
    write(root / "pairs_calibrated.txt", "\n".join(lines) + "\n\n")
    return root


def make_scannet(root: Path) -> Path:
    lines = [f"scene0707_00/color/15.jpg scene0707_00/color/585.jpg {K} {K} {T}"]
    write(root / "pairs_calibrated.txt", "\n".join(lines))
    return root


def make_wxbs(root: Path) -> Path:
    for name, end in (("WGABS/kremlin", "png"), ("WGALBS/ministry", "jpg"), ("WGABS/petrzin", "png")):
        write(root / name / f"01.{end}")
        write(root / name / f"02.{end}")
        write(root / name / "corrs.txt", "1.5 2 3 4\n5 6 7 8\n")
        write(root / name / "crossval_errors.txt", "0.1\n0.2\n")
    return root


def make_evd(root: Path) -> Path:
    for name in ("grand", "adam"):
        write(root / "1" / f"{name}.png")
        write(root / "2" / f"{name}.png")
        write(root / "h" / f"{name}.txt", "2\t0 4\n0 2 6\n0 0 2\n")
    return root


def make_eth3d(root: Path) -> Path:
    """Photographs of a scene: 0 and 1, and 1 and 2, share 500 points; 3 shares 499 with 0; 4 sees none."""
    ids = [range(600), range(100, 700), range(200, 800)]
    half = np.sqrt(0.5)
    poses = [f"1 0 0 0 {n} 0 0" if n < 2 else f"{half} 0 0 {half} 0 0 5" for n in range(3)]
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME", "# POINTS2D[] as (X, Y, POINT3D_ID)"]
    for n, (seen, pose) in enumerate(zip(ids, poses, strict=True)):
        images.append(f"{n} {pose} {7 if n else 3} dslr_images_undistorted/DSC_{n}.JPG")
        images.append(" ".join(f"1.5 2.5 {point}" for point in (-1, -1, *seen)))
    few = " ".join(f"1 2 {point}" for point in range(499))
    images += [f"3 {poses[0]} 3 dslr_images_undistorted/DSC_3.JPG", few]
    images += [f"4 {poses[0]} 3 dslr_images_undistorted/DSC_4.JPG", ""]
    cameras = (
        "# Camera list\n3 PINHOLE 6048 4032 3400 3401 3024.5 2016.5\n7 PINHOLE 6048 4032 3500 3501 3025.5 2017.5\n"
    )
    write(root / "facade" / "dslr_calibration_undistorted" / "cameras.txt", cameras)
    write(root / "facade" / "dslr_calibration_undistorted" / "images.txt", "\n".join(images) + "\n")
    return root


# Name, folder in its archive, what makes its layout, the file whose absence is named, the number of its pairs here.
LAYOUTS: dict[str, tuple[str, Callable[[Path], Path], str, int]] = {
    "hpatches": ("hpatches-sequences-release", make_hpatches, "[iv]_*/H_1_2", 10),
    "megadepth1500": ("megadepth1500", make_megadepth, "pairs_calibrated.txt", 3),
    "scannet1500": ("scannet1500", make_scannet, "pairs_calibrated.txt", 1),
    "eth3d": ("ETH3D_undistorted", make_eth3d, "*/dslr_calibration_undistorted", 2),
    "wxbs": ("WxBS_v1.1", make_wxbs, "*/*/corrs.txt", 2),
    "evd": ("EVD", make_evd, "h/*.txt", 2),
}
each_benchmark = pytest.mark.parametrize("name", LAYOUTS)


def load(name: str, folder: Path) -> Benchmark:
    return BENCHMARKS[name].load(LAYOUTS[name][1](folder))


def pose(pair: Pair) -> RelativePose:
    assert isinstance(pair.truth, RelativePose), pair.fault
    return pair.truth


def test_the_table_holds_them_all_under_their_names() -> None:
    assert list(BENCHMARKS) == list(LAYOUTS)
    for name, dataset in BENCHMARKS.items():
        assert dataset.name == name
        for download in dataset.downloads:
            assert all(re.match(r"https?://\S+\.zip$", url) for url in download.urls)
            assert download.sha256 is None or re.fullmatch("[0-9a-f]{64}", download.sha256)
            assert download.md5 is None or re.fullmatch("[0-9a-f]{32}", download.md5)
    with pytest.raises(TypeError):
        BENCHMARKS["mine"] = BENCHMARKS["evd"]  # type: ignore[index]


@each_benchmark
def test_it_is_read_from_its_folder_and_from_the_one_that_was_unpacked_in(name: str, tmp_path: Path) -> None:
    top, make, _, count = LAYOUTS[name]
    make(tmp_path / "unpacked" / top)
    for folder in (tmp_path / "unpacked" / top, tmp_path / "unpacked"):
        benchmark = BENCHMARKS[name].load(folder)
        assert (benchmark.name, benchmark.kind) == (name, BENCHMARKS[name].kind)
        assert [pair.fault for pair in benchmark.pairs] == [None] * count
        assert len({pair.name for pair in benchmark.pairs}) == count
        assert benchmark.source in BENCHMARKS[name].downloads[0].urls
        assert benchmark.licence


@each_benchmark
def test_what_is_missing_is_named_with_the_way_to_get_it(name: str, tmp_path: Path) -> None:
    url = re.escape(BENCHMARKS[name].downloads[0].urls[0])
    with pytest.raises(
        InputError, match=rf"There is no folder .*none, .* Download {url}, unpack it, and give .*--data"
    ):
        BENCHMARKS[name].load(tmp_path / "none")
    with pytest.raises(
        InputError, match=rf"There is no {re.escape(LAYOUTS[name][2])} in {tmp_path}, .* Download {url}"
    ):
        BENCHMARKS[name].load(tmp_path)


@each_benchmark
def test_a_part_of_it_is_said_to_be_one(name: str, tmp_path: Path) -> None:
    notes = load(name, tmp_path).notes
    if name == "evd":  # no record says how many there are
        assert not any(" of the " in note and note.endswith(f"{tmp_path}.") for note in notes)
    else:
        assert re.match(r"\d+ of the [\d,]+ (pairs|scenes) are in ", notes[0])


@pytest.mark.parametrize(
    ("name", "resize", "side", "keypoints", "thresholds", "headline"),
    [
        ("hpatches", 480, "short", 1024, (1, 3, 5), "opencv@0.5"),
        ("megadepth1500", 1600, "long", 2048, (5, 10, 20), "poselib@1"),
        ("scannet1500", 640, "long", 2048, (5, 10, 20), "poselib@1"),
        ("eth3d", 1600, "long", 2048, (5, 10, 20), "poselib@1"),
        ("wxbs", None, "long", 2048, tuple(range(1, 21)), "opencv@0.5"),
        ("evd", 600, "short", 2048, (1, 5, 10, 20), "opencv@0.5"),
    ],
)
def test_it_is_judged_by_the_published_protocol(
    name: str,
    resize: int | None,
    side: str,
    keypoints: int,
    thresholds: tuple[float, ...],
    headline: str,
    tmp_path: Path,
) -> None:
    protocol = load(name, tmp_path).protocol
    assert (protocol.resize, protocol.side, protocol.max_keypoints) == (resize, side, keypoints)
    assert protocol.thresholds == thresholds
    assert protocol.estimators[0].label == headline
    assert len({each.label for each in protocol.estimators}) == len(protocol.estimators)
    assert protocol.reference.startswith("https://github.com/")


def test_hpatches_leaves_out_what_is_left_out_and_pairs_the_first_image_with_the_others(tmp_path: Path) -> None:
    pairs = load("hpatches", tmp_path).pairs
    assert {pair.scene for pair in pairs} == {"i_sky", "v_wall"}
    assert len(LEFT_OUT) == 8
    assert pairs[-1].name == "v_wall/1.ppm|v_wall/6.ppm"
    assert pairs[-1].image1 == tmp_path / "v_wall" / "6.ppm"
    assert isinstance(pairs[-1].truth, Homography)
    np.testing.assert_array_equal(pairs[-1].truth.H, [[1.5, 0, 10], [0, 1.5, 20], [1e-5, 0, 1]])


def test_evds_homographies_are_normalised(tmp_path: Path) -> None:
    pair = load("evd", tmp_path).pairs[1]
    assert (pair.scene, pair.image0, pair.image1) == (
        "grand",
        tmp_path / "1" / "grand.png",
        tmp_path / "2" / "grand.png",
    )
    assert isinstance(pair.truth, Homography)
    np.testing.assert_array_equal(pair.truth.H, [[1, 0, 2], [0, 1, 3], [0, 0, 1]])


def test_megadepth_has_colmaps_pixels_and_poses_of_12_or_16_numbers(tmp_path: Path) -> None:
    pairs = load("megadepth1500", tmp_path).pairs
    assert [pair.scene for pair in pairs] == ["0022", "0022", "0015"]
    assert pairs[0].image0 == tmp_path / "images" / "0022" / "a0.jpg"
    for pair in pairs:
        np.testing.assert_array_equal(pose(pair).camera0.K, [[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])
        np.testing.assert_array_equal(pose(pair).T_0to1, [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


def test_scannet_is_read_from_superglues_list_too(tmp_path: Path) -> None:
    (pair,) = load("scannet1500", tmp_path / "ours").pairs
    assert pair.image1 == tmp_path / "ours" / "scene0707_00" / "color" / "585.jpg"
    assert pair.scene == "scene0707_00"
    np.testing.assert_array_equal(pose(pair).camera1.K, [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    upright = f"scene0806_00_frame-000510.jpg scene0806_00_frame-000630.jpg 0 0 {K} {K} {T}\n"
    turned = upright.replace(" 0 0 500", " 1 0 500", 1)
    write(tmp_path / "theirs" / "scannet_test_pairs_with_gt.txt", upright + turned)
    pairs = BENCHMARKS["scannet1500"].load(tmp_path / "theirs").pairs
    assert pairs[0].scene == "scene0806_00"
    np.testing.assert_array_equal(pose(pairs[0]).T_0to1, pose(pair).T_0to1)
    assert pairs[1].fault is not None
    assert "rotates its images" in pairs[1].fault


def test_wxbs_reads_points_and_leaves_out_the_validation_pairs(tmp_path: Path) -> None:
    pairs = load("wxbs", tmp_path).pairs
    assert [(pair.scene, pair.image0.name) for pair in pairs] == [("WGABS", "01.png"), ("WGALBS", "01.jpg")]
    truth = pairs[0].truth
    assert isinstance(truth, Correspondences)
    np.testing.assert_array_equal(truth.points0, [[1.5, 2], [5, 6]])
    np.testing.assert_array_equal(truth.points1, [[3, 4], [7, 8]])


def test_eth3d_pairs_photographs_that_share_500_points_by_their_own_cameras(tmp_path: Path) -> None:
    pairs = load("eth3d", tmp_path).pairs
    root = "facade/images/dslr_images_undistorted"
    assert [pair.name for pair in pairs] == [
        f"{root}/DSC_0.JPG|{root}/DSC_1.JPG",
        f"{root}/DSC_1.JPG|{root}/DSC_2.JPG",
    ]
    first, second = map(pose, pairs)
    np.testing.assert_array_equal(first.camera0.K, [[3400, 0, 3024], [0, 3401, 2016], [0, 0, 1]])
    np.testing.assert_array_equal(first.camera1.K, [[3500, 0, 3025], [0, 3501, 2017], [0, 0, 1]])
    np.testing.assert_allclose(first.T_0to1[:3, 3], [1, 0, 0])
    turn = [[0, -1, 0, 0], [1, 0, 0, -1], [0, 0, 1, 5], [0, 0, 0, 1]]
    np.testing.assert_allclose(second.T_0to1, turn, atol=1e-15)


def test_eth3ds_rotations_are_colmaps(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    make_eth3d(tmp_path)
    path = tmp_path / "facade" / "dslr_calibration_undistorted" / "images.txt"
    path.write_text(path.read_text().replace("2 0.7071067811865476 0 0 0.7071067811865476", "2 0.5 -0.1 0.7 0.5"))
    rotation = pycolmap.Rotation3d(np.array([-0.1, 0.7, 0.5, 0.5])).matrix()
    found = pose(BENCHMARKS["eth3d"].load(tmp_path).pairs[1]).T_0to1[:3, :3]
    np.testing.assert_allclose(found, rotation, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "file", "content", "said"),
    [
        ("hpatches", "i_sky/H_1_3", "1 0 0\n0 x 0\n0 0 1\n", "H_1_3: .*'x'"),
        ("hpatches", "i_sky/H_1_3", "1 0 0\n0 1 0\n", r"H has the shape \(2, 3\)"),
        ("hpatches", "i_sky/H_1_3", "", "H_1_3 has"),
        ("hpatches", "i_sky/H_1_3", "1 2 3\n1 2 3\n1 2 3\n", "singular"),
        ("hpatches", "i_sky/H_1_3", "nan 0 0\n0 1 0\n0 0 1\n", "NaN"),
        ("hpatches", "i_sky/H_1_3", None, "H_1_3 cannot be read .No such file"),
        ("evd", "h/adam.txt", "1 0 0\n0 1 0\n0 0 0\n", "no homography; fetch it again"),
        ("evd", "h/adam.txt", "1 0\n0 1\n", "rows of 2 numbers, not 3"),
        ("wxbs", "WGABS/kremlin/corrs.txt", "1 2 3\n", "rows of x0 y0 x1 y1"),
        ("wxbs", "WGABS/kremlin/corrs.txt", "", "rows of x0 y0 x1 y1"),
        ("wxbs", "WGABS/kremlin/corrs.txt", "1 2 3 four\n", "'four'"),
        ("megadepth1500", "pairs_calibrated.txt", f"a b {K} {K} {R_T[:-1]}?\nc d {K} {K} {T}\n", "pair 1,: .*'\\?'"),
        ("megadepth1500", "pairs_calibrated.txt", f"a b {K}\nc d {K} {K} {T}\n", "has 11 words, not 32, 36 or 38"),
        ("megadepth1500", "pairs_calibrated.txt", f"a\nc d {K} {K} {T}\n", "has 1 words"),
        ("scannet1500", "pairs_calibrated.txt", f"a b {K} {K} {T[:-1]}nan\nc d {K} {K} {T}\n", "T_0to1 holds NaN"),
    ],
)
def test_a_number_that_cannot_be_read_is_a_fault_of_its_pair(
    name: str, file: str, content: str | None, said: str, tmp_path: Path
) -> None:
    LAYOUTS[name][1](tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    pairs = BENCHMARKS[name].load(tmp_path).pairs
    (bad,) = (pair for pair in pairs if pair.fault)
    assert bad.truth is None
    assert re.search(said, str(bad.fault)), bad.fault
    assert len(pairs) >= 2


def test_eth3ds_faults_are_those_of_their_pairs_and_a_broken_model_is_an_error(tmp_path: Path) -> None:
    model = make_eth3d(tmp_path) / "facade" / "dslr_calibration_undistorted"
    cameras, images = (model / "cameras.txt").read_text(), (model / "images.txt").read_text()
    for content, said in (
        (cameras.replace("3 PINHOLE", "3 OPENCV"), "not PINHOLE"),
        (cameras.replace("3401", "f"), "'f'"),
    ):
        (model / "cameras.txt").write_text(content)
        bad, good = BENCHMARKS["eth3d"].load(tmp_path).pairs
        assert bad.fault is not None
        assert said in bad.fault
        assert good.fault is None
    (model / "cameras.txt").write_text(cameras)
    (model / "images.txt").write_text(images.replace("0 1 0 0 0 0 0 0", "0 0 0 0 0 0 0 0", 1))
    assert "has the pose [0.0," in str(BENCHMARKS["eth3d"].load(tmp_path).pairs[0].fault)
    (model / "images.txt").write_text(images.replace(" dslr_images_undistorted/DSC_1.JPG", ""))
    with pytest.raises(InputError, match="is no image of COLMAP's. Fetch it again"):
        BENCHMARKS["eth3d"].load(tmp_path)
    (model / "images.txt").unlink()
    with pytest.raises(InputError, match=r"images.txt cannot be read \(No such file"):
        BENCHMARKS["eth3d"].load(tmp_path)


# --- the page about them

PAGE = Path(__file__).parents[1] / "docs" / "datasets.md"


def table(first_cell: str) -> dict[str, list[str]]:
    """The rows of the page's tables whose header begins with `first_cell`, by their first cell."""
    parts = PAGE.read_text().split(f"\n| {first_cell} |")[1:]
    rows = [re.split(r"\s*\|\s*", row.strip("| ")) for part in parts for row in part.split("\n\n")[0].splitlines()[2:]]
    found: dict[str, list[str]] = {}
    for row in rows:
        found[row[0].strip("`")] = [*found.get(row[0].strip("`"), []), *row[1:]]
    return found


@each_benchmark
def test_the_page_says_what_the_code_does(name: str, tmp_path: Path) -> None:
    judged, _, resized, keypoints, estimators, thresholds, _, size, checked, licence = table("name")[name]
    dataset, protocol = BENCHMARKS[name], load(name, tmp_path).protocol
    (download,) = dataset.downloads
    words = {"homography": "homography", "relative pose": "pose", "points marked by hand": "points"}
    assert words[judged] == dataset.kind
    said = "not at all" if protocol.resize is None else f"{protocol.side} side {protocol.resize:,} px"
    assert resized == said
    assert keypoints == f"{protocol.max_keypoints:,}"
    methods = {"opencv": "OpenCV", "poselib": "PoseLib", "dlt": "DLT"}
    each = [f"{methods[e.method]} {e.threshold:g} px" if e.method != "dlt" else "DLT" for e in protocol.estimators]
    assert estimators == ", ".join(each)
    numbers = [f"{value:g}" for value in protocol.thresholds]
    assert thresholds in (", ".join(numbers) + " px", ", ".join(numbers) + "°", f"{numbers[0]} to {numbers[-1]} px")
    assert (size, licence) == (download.size or "unknown", dataset.licence)
    assert checked == ("sha256" if download.sha256 else "md5" if download.md5 else "")


def test_the_pages_manifest_is_one(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    example = PAGE.read_text().split("```json\n")[1].split("```")[0]
    write(tmp_path / "office.json", example)
    (pair,) = load_manifest(tmp_path / "office.json").pairs
    assert pair.scene == "desk"
    assert pose(pair).camera1.colmap is not None
