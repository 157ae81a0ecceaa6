"""Matching and extracting in a runtime, NumPy in and out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from lightglue_runtime import runtimes
from lightglue_runtime.errors import InputError, ModelError
from lightglue_runtime.extractor import Extractor
from lightglue_runtime.matcher import Matcher
from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.onnx_runtime import provider_names
from lightglue_runtime.session import SessionOptions, usable_threads
from lightglue_runtime.with_openvino import import_openvino
from support.tiny_models import LAYERS, features, write_extractor, write_matcher

RUNTIMES = ["onnx", "openvino"]
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_matcher(folder / "matcher.onnx")
    write_matcher(folder / "overlap.onnx", overlap='{"constant": 0.5, "amount": 1.0, "share": 0.5}')
    write_extractor(folder / "extractor.onnx", preprocess='{"resize": 24}')
    return folder


@pytest.fixture(scope="session", params=RUNTIMES)
def matcher(request: pytest.FixtureRequest, folder: Path) -> Matcher:
    return Matcher.open(folder / "matcher.onnx", request.param, threads=2, cache=False)


def nearest(image0: dict[str, Any], image1: dict[str, Any], threshold: float = 0.1) -> np.ndarray:
    """(K, 2) mutual nearest neighbours whose product exceeds the threshold."""
    similarity = image0["descriptors"] @ image1["descriptors"].T
    partner0, partner1 = similarity.argmax(1), similarity.argmax(0)
    rows = np.flatnonzero(partner1[partner0] == np.arange(len(partner0)))
    rows = rows[similarity[rows, partner0[rows]] > threshold]
    return np.stack((rows, partner0[rows]), 1)


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_the_published_entries(matcher):
    image0, image1 = features(30, 1), features(20, 2)
    found = matcher.match(image0, image1)
    assert np.array_equal(found["matches"], nearest(image0, image1))
    assert len(found["matches"]) > 3
    i, j = found["matches"].T
    assert np.array_equal(found["matches0"][i], j)
    assert np.array_equal(found["matches1"][j], i)
    assert ((found["matches0"] >= 0).sum(), (found["matches1"] >= 0).sum()) == (len(i), len(i))
    assert np.array_equal(found["scores"], found["matching_scores0"][i])
    assert np.array_equal(found["scores"], found["matching_scores1"][j])
    assert found["stop"] == LAYERS
    assert (found["prune0"] == LAYERS).all()
    assert (len(found["prune0"]), len(found["prune1"])) == (30, 20)
    assert "overlap" not in found  # which was not fitted for this file


def test_the_overlap_is_that_of_the_files_coefficients(folder):
    found = Matcher.open(folder / "overlap.onnx", cache=False).match(features(30, 1), features(20, 2))
    good = (found["matching_scores0"].astype(float) ** 4).sum()
    odds = 0.5 + np.log1p(good) + 0.5 * np.log((good + 0.5) / 20)
    assert found["overlap"] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-6)


def test_a_batch_dimension_of_one_changes_nothing(matcher):
    image0, image1 = features(9, 1), features(8, 2)
    batched = [{key: value[None] for key, value in image.items()} for image in (image0, image1)]
    assert equal(matcher.match(*batched), matcher.match(image0, image1))


def test_ragged_pairs_at_once_are_as_one_by_one_and_in_order(matcher):
    sizes = [(3, 5), (0, 4), (40, 1), (7, 0), (200, 300), (1, 1), (0, 0), (64, 64)]
    pairs = [(features(m, m), features(n, 100 + n)) for m, n in sizes]
    alone = [matcher.match(*pair) for pair in pairs]
    for requests in (None, 1, 2, 5):
        found = matcher.match_many(pairs, requests)
        assert [(len(each["matches0"]), len(each["matches1"])) for each in found] == sizes
        assert all(equal(a, b) for a, b in zip(found, alone, strict=True))
    assert matcher.match_many([]) == []


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_keypoints_has_no_matches(matcher, counts):
    found = matcher.match(*(features(count) for count in counts))
    assert [len(found[key]) for key in ("matches0", "matches1")] == list(counts)
    assert found["matches"].shape == (0, 2)
    assert found["stop"] == 1
    assert [(found[key] == 1).all() for key in ("prune0", "prune1")] == [True, True]


def test_threads_may_share_a_matcher(matcher):
    from concurrent.futures import ThreadPoolExecutor

    pairs = [(features(20 + i, i), features(30, 50 + i)) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: matcher.match(*pair), pairs))
    assert all(equal(each, matcher.match(*pair)) for each, pair in zip(found, pairs, strict=True))


def with_entry(key: str, value: Any) -> dict[str, Any]:
    return {**features(5), key: value}


BAD = {
    "no dictionary": (None, "must be a dictionary of features"),
    "no descriptors": ({"keypoints": np.zeros((2, 2), np.float32)}, "lacks 'descriptors'"),
    "lists": (with_entry("keypoints", [[0, 0]]), "must be a NumPy array, not list"),
    "text": (with_entry("descriptors", np.full((5, 4), "a")), "must hold real numbers"),
    "3d points": (with_entry("keypoints", np.zeros((5, 3), np.float32)), "must have shape (N, 2)"),
    "other count": (with_entry("keypoints", np.zeros((6, 2), np.float32)), "6 keypoints and descriptors of shape"),
    "transposed": ({**features(5), "descriptors": np.zeros((4, 5), np.float32)}, "they are transposed"),
    "other features": (features(5, length=8), "made for aliked, whose have 4"),
    "batch": (with_entry("keypoints", np.zeros((3, 5, 2), np.float32)), "of 3 images"),
    "nan": (with_entry("keypoints", np.full((5, 2), np.nan, np.float32)), "NaN or infinity for 5 keypoints"),
    "infinity": (with_entry("descriptors", np.full((5, 4), np.inf, np.float32)), "descriptors hold NaN or infinity"),
    "no size": (with_entry("image_size", np.zeros(2, np.float32)), "image_size must be positive"),
    "size of three": (with_entry("image_size", np.ones(3, np.float32)), "image_size must have shape (2,)"),
    "size in words": (with_entry("image_size", "large"), "image_size must be numbers"),
}


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", BAD)
def test_features_that_make_no_sense_are_refused_and_named(name, side, folder):
    matcher = Matcher.open(folder / "matcher.onnx", cache=False)
    bad, words = BAD[name]
    pair = [bad, features(5)] if side == 0 else [features(5), bad]
    with pytest.raises(InputError) as caught:
        matcher.match(*pair)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"features{side}")
    with pytest.raises(InputError) as caught:
        matcher.match_many([(features(5), features(5)), tuple(pair)])
    assert str(caught.value).startswith(f"pairs[1][{side}]")


def test_no_pairs_are_refused(folder):
    with pytest.raises(InputError, match=r"item 0 is dict"):
        Matcher.open(folder / "matcher.onnx", cache=False).match_many([features(5)])  # type: ignore[list-item]


def test_descriptors_whose_products_overflow_are_refused(matcher):
    huge = {**features(5), "descriptors": np.full((5, 4), 3e38, np.float32)}
    with pytest.raises(InputError, match="products overflow"):
        matcher.match(huge, huge)


# -- extractors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_keypoints_are_in_pixels_of_the_image_as_given(runtime, folder):
    extractor = Extractor.open(folder / "extractor.onnx", runtime, threads=1, cache=False)
    image = np.zeros((36, 48, 3), np.uint8)
    image[21, 31] = 255
    found = extractor.extract(image, 1, resize=None)
    assert found["keypoints"].tolist() == [[31, 21]]
    assert found["image_size"].tolist() == [48, 36]
    halved = extractor.extract(image, 1)  # to 24 px, as the file says: its pixels are 2 x 2 of the image's
    assert halved["keypoints"].tolist() == [[30.5, 20.5]]
    assert extractor.extract(image, 5)["descriptors"].shape == (5, 3)


def test_8_bits_16_bits_and_fractions_of_one_are_the_same_image(folder):
    extractor = Extractor.open(folder / "extractor.onnx", "onnx", threads=1)
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    found = [extractor.extract(each, 4) for each in (image, image.astype(np.uint16) * 257, image / 255)]
    assert all(np.allclose(each["keypoints"], found[0]["keypoints"]) for each in found)
    grey = extractor.extract(image[..., 0], 4)
    assert np.ptp(grey["descriptors"], axis=1).max() < 1e-6


@pytest.mark.parametrize(
    "image",
    [
        None,
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.full((4, 4), np.nan),
        np.full((4, 4), 200.0),
    ],
)
def test_what_is_no_image_is_refused(image, folder):
    extractor = Extractor.open(folder / "extractor.onnx", "onnx", threads=1)
    with pytest.raises(InputError, match=r"[Ii]mage"):
        extractor.extract(image)


# -- runtimes --------------------------------------------------------------------------------------------------------


def test_a_runtime_that_is_not_installed_says_how_to_install_it(folder):
    with mock.patch.object(runtimes, "installed", return_value=["openvino"]):
        with pytest.raises(ModelError, match="onnxruntime is not installed; run `pip install onnxruntime`.*openvino"):
            Matcher.open(folder / "matcher.onnx", "onnx")
        assert Matcher.open(folder / "matcher.onnx").runtime == "openvino"
    with (
        mock.patch.object(runtimes, "installed", return_value=[]),
        pytest.raises(ModelError, match="No runtime is installed"),
    ):
        Matcher.open(folder / "matcher.onnx")


@pytest.mark.parametrize(("runtime", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_runtime_that_cannot_be_imported(runtime, module, folder):
    with mock.patch.dict(sys.modules, {module: None}), pytest.raises(ModelError, match=f"{module} is not installed"):
        Matcher.open(folder / "matcher.onnx", runtime).session()


def test_another_runtime_is_refused(folder):
    with pytest.raises(InputError, match="choose one of onnx, openvino"):
        Matcher.open(folder / "matcher.onnx", "tensorflow")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "coreml", "directml", "CUDAExecutionProvider"])
def test_a_provider_that_is_not_there_is_an_error_that_lists_those_that_are(provider, folder):
    with pytest.raises(ModelError, match=r"ExecutionProvider is not in this onnxruntime .*CPUExecutionProvider"):
        Matcher.open(folder / "matcher.onnx", "onnx", providers=provider).session()


def test_providers_by_short_and_full_names():
    assert provider_names(()) == ["CPUExecutionProvider"]
    assert provider_names(("cpu", "CPUExecutionProvider")) == ["CPUExecutionProvider"]
    with pytest.raises(InputError, match="no provider 'gpu'"):
        provider_names(("gpu",))
    with mock.patch("onnxruntime.get_available_providers", return_value=["CUDAExecutionProvider", "X"]):
        assert provider_names(("cuda",)) == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_openvino_has_no_providers(folder):
    with pytest.raises(InputError, match="which only ONNX Runtime has"):
        Matcher.open(folder / "matcher.onnx", "openvino", providers="cuda").session()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_precision_that_the_cpu_does_not_have_is_refused(runtime, folder):
    able = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    matcher = Matcher.open(folder / "matcher.onnx", runtime, precision="bf16", cache=False)
    if runtime == "openvino" and "BF16" in able:
        assert matcher.session().precision == "bfloat16"
    else:
        with pytest.raises(InputError, match="precision is 'bf16'"):
            matcher.session()


@pytest.mark.parametrize("bad", [{"threads": 0}, {"threads": True}, {"threads": 100_000}, {"precision": "f64"}])
def test_options_that_make_no_sense_are_refused(bad, folder):
    with pytest.raises(InputError):
        Matcher.open(folder / "matcher.onnx", **bad)


def test_threads_are_divided_among_the_calls_at_once():
    assert [SessionOptions(8, requests).threads_each for requests in (1, 3, 8, 20)] == [8, 2, 1, 1]


def test_threads_are_as_the_environment_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert usable_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert usable_threads() >= 1


SCRIPT = """
import os, sys, time
from lightglue_runtime.matcher import Matcher
from lightglue_runtime.{module} import import_{library}
sys.path.insert(0, {tests!r})
from support.tiny_models import features
import_{library}()
before = len(os.listdir("/proc/self/task"))
matcher = Matcher.open({path!r}, {runtime!r}, threads={threads}, cache=False)
pairs = [(features(2000, 1, 4), features(2000, 2, 4))] * 3
matcher.match(*pairs[0])
matcher.match_many(pairs)
for _ in range(500):  # the system lists threads that were joined for a moment longer
    stay = len(os.listdir("/proc/self/task")) - before
    if stay <= {most}:
        break
    time.sleep(0.01)
print(stay)
assert "torch" not in sys.modules and "lightglue" not in sys.modules
"""
# Module, library, and threads that a runtime starts beside those asked for: two of OpenVINO's wait for requests.
MODULES = {"onnx": ("onnx_runtime", "onnxruntime", 0), "openvino": ("with_openvino", "openvino", 2)}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_process_of_its_own_is_quiet_free_of_torch_and_keeps_to_its_threads(runtime, threads, folder):
    module, library, more = MODULES[runtime]
    path, tests = str(folder / "matcher.onnx"), str(Path(__file__).parent)
    script = SCRIPT.format(
        tests=tests, path=path, runtime=runtime, threads=threads, module=module, library=library, most=threads + more
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # of NumPy
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) <= threads + more


def test_openvino_keeps_what_it_compiled_by_file_and_version(folder, tmp_path):
    Matcher.open(folder / "matcher.onnx", "openvino", cache=tmp_path).session()
    version = import_openvino().get_version().partition("-")[0]
    kept = tmp_path / "openvino" / version / ModelFile.read(folder / "matcher.onnx").sha256()
    blobs = {path: path.stat().st_mtime_ns for path in kept.glob("*.blob")}
    assert len(blobs) == 1
    again = Matcher.open(folder / "matcher.onnx", "openvino", cache=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in kept.glob("*.blob")} == blobs
    assert len(again.match(features(9, 1), features(9, 2))["matches"]) > 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_telemetry_is_started(runtime, folder):
    """openvino tells a server that it was imported, unless its telemetry cannot be."""
    script = f"""
import importlib.util, sys
from lightglue_runtime.matcher import Matcher
Matcher.open({str(folder / "matcher.onnx")!r}, {runtime!r}, cache=False).session()
print(sorted(name for name in sys.modules if name.startswith("openvino_telemetry")))
if importlib.util.find_spec("openvino_telemetry"):
    import openvino_telemetry  # whoever wants it has it
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
