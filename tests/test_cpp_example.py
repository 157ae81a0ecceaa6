"""examples/cpp: built with CMake and run, where a compiler, CMake and the headers of ONNX Runtime are there."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightglue.matching.lightglue import LightGlue
from support import ROOT
from support.matching import random_features, small_matcher

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
export = pytest.importorskip("lightglue.export", reason="onnx is not installed")

EXAMPLE = ROOT / "examples" / "cpp"
HEADER = "onnxruntime_cxx_api.h"
PLACES = (Path("/usr/include/onnxruntime"), Path("/usr/local/include/onnxruntime"), Path("/usr/local/include"))
FORMATS = ("adaptive", "steps")


def _headers() -> Path | None:
    """The folder of the headers: of a release archive in ONNXRUNTIME_ROOT, or of the system."""
    root = os.environ.get("ONNXRUNTIME_ROOT")
    folders = (Path(root) / "include",) if root else PLACES
    return next((folder for folder in folders if (folder / HEADER).exists()), None)


def _root(headers: Path, folder: Path) -> Path:
    """A folder as the release archive has it; with the wheel's library where the headers come alone."""
    if list((headers.parent / "lib").glob("libonnxruntime*")):
        return headers.parent
    [library] = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(headers)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):  # to link with, and what the program looks for
        (folder / "lib" / name).symlink_to(library)
    return folder


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built program; warnings of the compiler are errors."""
    headers = _headers()
    tools = {"a C++ compiler": shutil.which("c++"), "CMake": shutil.which("cmake"), HEADER: headers}
    if missing := [name for name, found in tools.items() if found is None]:
        pytest.skip(f"there is no {' and no '.join(missing)}; see examples/cpp/README.md")
    assert headers is not None
    folder = tmp_path_factory.mktemp("cpp")
    root, build = _root(headers, folder / "onnxruntime"), folder / "build"
    for command in (
        ["cmake", "-S", EXAMPLE, "-B", build, f"-DONNXRUNTIME_ROOT={root}", "-DCMAKE_CXX_FLAGS=-Werror"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "lightglue_match"


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(program: Path, tmp_path: Path) -> Run:
    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)

    return call


def write_features(path: Path, features: dict[str, torch.Tensor], kind: str | None = None) -> Path:
    """As `lightglue extract` writes them."""
    named = {} if kind is None else {"features": np.array(kind)}
    np.savez(path, **named, **{name: value[0].numpy() for name, value in features.items()})  # type: ignore[arg-type]
    return path


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write_model(matcher: LightGlue, folder: Path, format: str) -> Path:
    path = folder / {"adaptive": "matcher.onnx", "steps": "matcher"}[format]
    export.write_matcher(matcher, path, format=format)
    return path


def check_same(
    run: Run, model: Path, matcher: LightGlue, pair: list[dict[str, torch.Tensor]], folder: Path
) -> dict[str, Any]:
    """The program's matches, scores and layers are the package's, which are returned."""
    files = [write_features(folder / f"{i}.npz", features) for i, features in enumerate(pair)]
    done = run(model, *files, "-o", folder / "matches.csv")
    assert (done.returncode, done.stderr) == (0, "")
    with torch.inference_mode():
        expected: dict[str, Any] = matcher({"image0": pair[0], "image1": pair[1]})
    counts = [len(features["keypoints"][0]) for features in pair]
    matches, scores = expected["matches"][0].numpy(), expected["scores"][0].numpy()
    said = f"{len(matches)} matches of {counts[0]} and {counts[1]} keypoints after {expected['stop']} layers\n"
    assert done.stdout == said
    with (folder / "matches.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["index0"]), int(row["index1"])) for row in rows] == [tuple(match) for match in matches]
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores, atol=1e-4)
    for side in "01":
        points = [[float(row[f"x{side}"]), float(row[f"y{side}"])] for row in rows]
        keypoints = pair[int(side)]["keypoints"][0].numpy()
        np.testing.assert_allclose(np.reshape(points, (-1, 2)), keypoints[matches[:, int(side)]], rtol=1e-6)
    return expected


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0), (1, 1), (5, 1), (200, 150)])
@pytest.mark.parametrize(
    ("options", "stop", "pruned"),
    [
        ({"depth_confidence": -1, "width_confidence": -1}, 3, False),
        ({"depth_confidence": 0.5, "width_confidence": -1}, 2, False),
        ({"depth_confidence": -1, "width_confidence": 0.9}, 3, True),
        ({"depth_confidence": 0.95, "width_confidence": 0.9}, 3, True),
    ],
    ids=["full", "stops", "prunes", "both"],
)
def test_matches_are_those_of_the_package(
    run: Run,
    format: str,
    options: dict[str, float],
    stop: int,
    pruned: bool,
    counts: tuple[int, int],
    tmp_path: Path,
) -> None:
    matcher = small_matcher(filter_threshold=0.0, **options)
    matcher.pruning_keypoint_thresholds = dict.fromkeys(matcher.pruning_keypoint_thresholds, 20)
    pair = [random_features(count, seed) for seed, count in enumerate(counts)]
    expected = check_same(run, write_model(matcher, tmp_path, format), matcher, pair, tmp_path)
    if min(counts) > 20:
        assert expected["stop"] == stop
        assert (expected["prune0"] < stop).any() == pruned


def test_sift_like_features_are_matched(run: Run, format: str, tmp_path: Path) -> None:
    matcher = small_matcher(filter_threshold=0.0, add_scale_ori=True)
    extra = [{"scales": torch.rand(1, n) + 1, "oris": torch.rand(1, n)} for n in (40, 30)]
    pair = [random_features(40, 0, **extra[0]), random_features(30, 1, **extra[1])]
    check_same(run, write_model(matcher, tmp_path, format), matcher, pair, tmp_path)


def test_photographs_are_matched_with_the_published_weights(
    run: Run, format: str, reference: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    matcher = LightGlue(features="aliked", pruning="tuned").eval()
    pair = [
        {name: torch.from_numpy(value) for name, value in reference(f"aliked-n16_montmartre_{i}").items()}
        for i in (0, 1)
    ]
    check_same(run, write_model(matcher, tmp_path, format), matcher, pair, tmp_path)


# -- what goes wrong is said ------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, format: str) -> list[Path]:
    """A model and two files of features that fit it."""
    model = write_model(small_matcher(), tmp_path, format)
    return [model, *(write_features(tmp_path / f"{i}.npz", random_features(9, i)) for i in (0, 1))]


def fails(done: subprocess.CompletedProcess[str], pattern: str, code: int = 1) -> None:
    assert done.returncode == code
    assert re.match(rf"error: .*{pattern}", done.stderr), done.stderr
    assert done.stdout == ""


def test_a_model_that_is_none_is_named(run: Run, files: list[Path], tmp_path: Path) -> None:
    fails(run(tmp_path / "none.onnx", *files[1:]), r"none\.onnx: there is no such file")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    fails(run(damaged, *files[1:]), r"damaged\.onnx: ")


def test_features_that_are_none_are_named(run: Run, files: list[Path], tmp_path: Path) -> None:
    model, good, bad = *files[:2], tmp_path / "bad.npz"
    for content in (b"", b"PK\5\6", good.read_bytes()[:-30], good.read_bytes()[500:], os.urandom(3000)):
        bad.write_bytes(content)
        fails(run(model, good, bad), r"bad\.npz: ")
    np.savez_compressed(bad, keypoints=np.zeros((2, 2), np.float32))
    fails(run(model, good, bad), "compressed; write it with numpy.savez")
    features = random_features(9)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"keypoints": features["keypoints"].double()}, "keypoints is <f8; store it as float32"),
        ({"keypoints": features["keypoints"] * torch.nan}, "keypoints holds NaN or infinity"),
        ({"descriptors": features["descriptors"][:, :8]}, "a row for each keypoint"),
        ({"descriptors": features["descriptors"][..., :8]}, "length 8 and the model takes 16"),
        ({"image_size": torch.ones(1, 3)}, r"image_size is not \(width, height\)"),
    ]
    for changed, pattern in cases:
        fails(run(model, good, write_features(bad, features | changed)), pattern)


def test_a_folder_of_steps_that_is_damaged_is_named(run: Run, tmp_path: Path) -> None:
    model = write_model(small_matcher(), tmp_path, "steps")
    files = [write_features(tmp_path / f"{i}.npz", random_features(9, i)) for i in (0, 1)]
    manifest = model / "manifest.json"
    written = manifest.read_text()
    for damaged in (
        "",
        written[:-30],
        written.replace('"1"', '"2"'),
        written.replace('"heads"', '"tails"'),
        "[" * 1000,
    ):
        manifest.write_text(damaged)
        fails(run(model, *files), r"manifest\.json: ")
    manifest.write_text(written)
    (model / "layer_1.onnx").unlink()
    fails(run(model, *files), r"layer_1\.onnx: there is no such file")


def test_features_of_another_kind_are_refused(run: Run, files: list[Path], tmp_path: Path) -> None:
    other = write_features(tmp_path / "other.npz", random_features(9), "disk")
    fails(run(files[0], files[1], other), "the features are disk and the model is for ")


def test_wrong_arguments_show_the_usage(run: Run, files: list[Path]) -> None:
    fails(run(), "name a model and two files of features", code=2)
    fails(run(*files, "--threads", "none"), "--threads is none; give a number of at least 1", code=2)
    fails(run(*files, "-o"), "-o needs a value", code=2)
    fails(run(*files, "-o", "missing/matches.csv"), r"missing/matches\.csv: cannot be written")
