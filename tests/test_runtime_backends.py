"""LightGlue in ONNX Runtime and OpenVINO where the package takes a matcher: equal to torch, and said in the records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

from lightglue import LightGlue, match_pair, match_pairs
from lightglue.errors import InputError, ModelError, StoreError
from lightglue.images import load_image
from lightglue.matching.overlap import Coefficients
from lightglue.models.choice import Models
from lightglue.pairs.files import match_files
from lightglue.runtime import OnnxExtractor, OnnxMatcher, OpenVinoMatcher, files
from lightglue.runtime.backends import MANY, TIMES, Machine, choose, this_machine
from lightglue.runtime.files import digest_of, matcher_file
from lightglue.runtime.matcher import RuntimeMatcher
from lightglue.sfm.folder import MapRecord
from lightglue.sfm.options import MatchOptions, on_one_device
from lightglue.support import products
from lightglue_runtime import runtimes
from support import ASSETS
from support.tiny_models import write_extractor, write_matcher

# Of scores of XFeat's matcher. Those of torch itself in float32 lie up to 1.2e-4 from its own in float64.
ROUNDING = 2e-4
MATCHERS = [OnnxMatcher, OpenVinoMatcher]
A, B = ASSETS / "montmartre_close.jpg", ASSETS / "montmartre_far.jpg"
XFEAT = Models("xfeat", 200, "cpu", False, thresholds={"n_layers": 3})  # whose matcher is the smallest


@pytest.fixture(scope="session", autouse=True)
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of models: the weights' is the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with (
        mock.patch.object(files, "cache_folder", return_value=folder),
        mock.patch.object(runtimes, "cache_folder", return_value=folder),
    ):
        yield folder


@pytest.fixture(scope="session")
def torchs() -> LightGlue:
    return LightGlue("xfeat", pruning="tuned", depth_confidence=0.95, n_layers=4)


@pytest.fixture(scope="session", params=MATCHERS)
def matcher(request: pytest.FixtureRequest, torchs: LightGlue, kept: Path) -> RuntimeMatcher:
    made: RuntimeMatcher = request.param.of(deepcopy(torchs), threads=1)
    return made


@cache
def extracted() -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the two photographs."""
    with torch.inference_mode(False):
        extractor = replace(XFEAT, max_keypoints=400).load_extractor()
        first, second = (extractor.extract(load_image(path), resize=320) for path in (A, B))
    return first, second


def image(count: int, side: int, skip: int = 0) -> dict[str, Any]:
    """So many keypoints of a photograph, from the `skip`-th best on."""
    whole = extracted()[side]
    kept = {key: whole[key][:, skip : skip + count] for key in ("keypoints", "descriptors")}
    return {**kept, "image_size": whole["image_size"]}


def pair(m: int, n: int, skip: int = 0) -> dict[str, Any]:
    return {"image0": image(m, 0, skip), "image1": image(n, 1, skip)}


def batch(count: int, side: int) -> dict[str, Any]:
    """Three images."""
    images = [image(count, side, skip) for skip in (0, 40, 80)]
    return {key: torch.cat([each[key] for each in images]) for key in images[0]}


def check_equal(found: Any, expected: Any) -> None:
    """Matches and layers equal, scores but for rounding, types and shapes the same."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        for a, b in zip(found[key], value, strict=True) if isinstance(value, list) else [(found[key], value)]:
            assert type(a) is type(b), key
            if isinstance(b, int):
                assert a == b, key
                continue
            assert (a.dtype, a.shape) == (b.dtype, b.shape), key
            if b.is_floating_point():
                torch.testing.assert_close(a, b, atol=ROUNDING, rtol=0, msg=key)
            else:
                assert torch.equal(a, b), key


# -- equal to torch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(300, 200), (200, 300), (1, 1), (1, 5), (5, 0), (0, 5), (0, 0)])
def test_a_pair_has_the_matches_of_torch(counts, matcher, torchs):
    data = pair(*counts)
    expected = torchs(data)
    check_equal(matcher(data), expected)
    assert len(expected["matches"][0]) > 20 or min(counts) < 200


def test_a_batch_is_matched_as_by_torch(matcher, torchs):
    data = {"image0": batch(150, 0), "image1": batch(140, 1)}
    check_equal(matcher(data), torchs(data))


def test_pairs_of_a_list_are_each_as_if_alone(matcher, torchs):
    pairs = [pair(m, n, m // 2) for m, n in [(180, 90), (0, 3), (40, 40), (5, 60), (129, 140)]]
    listed = [(each["image0"], each["image1"]) for each in pairs]
    found = matcher.match(listed)
    for each, alone, expected in zip(found, (matcher(p) for p in pairs), torchs.match(listed), strict=True):
        check_equal(each, expected)
        assert all(torch.equal(a, b) for a, b in zip(each["scores"], alone["scores"], strict=True))
    assert matcher.match([]) == []


def test_several_at_once_are_as_one_after_another(torchs, kept):
    several, one = (OnnxMatcher.of(deepcopy(torchs), threads=threads) for threads in (3, 1))
    listed = [(p["image0"], p["image1"]) for p in (pair(150 + i, 200 - i, i) for i in range(7))]
    for a, b in zip(several.match(listed), one.match(listed), strict=True):
        check_equal(a, b)


@pytest.mark.parametrize(
    "options", [{"filter_threshold": 0.6}, {"width_confidence": -1.0}, {"depth_confidence": -1.0}], ids=str
)
def test_other_thresholds_take_effect_at_the_next_call(options, torchs, kept):
    expected, found = deepcopy(torchs), OnnxMatcher.of(deepcopy(torchs), threads=1)
    data = pair(260, 200)
    found(data)
    for name, value in options.items():
        setattr(expected.conf, name, value)
        setattr(found.conf, name, value)
    check_equal(found(data), expected(data))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"descriptors": torch.zeros(1, 5, 128)}, "this matcher was made for descriptors of length 64"),
        ({"keypoints": torch.full((1, 5, 2), torch.nan)}, "NaN or infinity for 5 keypoints"),
        ({"keypoints": [[0, 0]]}, "must be a torch tensor"),
        ({"image_size": torch.tensor([0, 5])}, "image_size must be positive"),
    ],
)
def test_bad_features_are_refused_in_the_words_of_torch(change, words, matcher, torchs):
    bad = {"image0": image(5, 0), "image1": {**image(5, 1), **change}}
    for each in (matcher, torchs):
        with pytest.raises(InputError) as caught:
            each(bad)
        assert words in str(caught.value)
        assert str(caught.value).startswith("image1")
    with pytest.raises(InputError, match=r"pairs\[1\]\[1\]"):
        matcher.match([(image(5, 0), image(5, 1)), (bad["image0"], bad["image1"])])


def test_unequal_batches_are_refused(matcher):
    with pytest.raises(InputError, match="image0 has a batch of 1 and image1 of 3"):
        matcher({"image0": image(5, 0), "image1": batch(5, 1)})


# -- files that are made on demand -------------------------------------------------------------------------------------


def test_a_file_is_written_once_for_the_same_weights_and_thresholds(torchs, kept):
    digest = digest_of(torchs)
    first = matcher_file(torchs, digest)
    written = first.path.stat().st_mtime_ns
    with mock.patch("lightglue.export.matcher.write_matcher", side_effect=AssertionError("written again")):
        assert matcher_file(torchs, digest).path == first.path
        other = deepcopy(torchs)
        other.conf.filter_threshold = 0.5  # which is applied to what the file gives
        assert matcher_file(other, digest).path == first.path
    assert first.path.stat().st_mtime_ns == written
    assert first.description.numbers()["filter_threshold"] == 0
    other.conf.depth_confidence = 0.9
    assert matcher_file(other, digest).path != first.path


def test_other_weights_are_another_file(torchs):
    changed = deepcopy(torchs)
    with torch.no_grad():
        next(changed.parameters())[0, 0] += 1
    assert digest_of(changed) != digest_of(torchs)


def test_a_damaged_file_is_written_again(torchs, kept):
    changed = deepcopy(torchs)
    changed.conf.depth_confidence = 0.5
    path = matcher_file(changed, digest_of(changed)).path
    content = path.read_bytes()
    altered = bytearray(content)
    altered[len(content) // 2] ^= 1  # a bit of a weight
    for damaged in (content[: len(content) // 2], altered):
        path.write_bytes(damaged)
        assert matcher_file(changed, digest_of(changed)).path.read_bytes() == content


def test_a_cache_that_cannot_be_made_is_named(torchs, tmp_path):
    (tmp_path / "exported").write_bytes(b"no folder")
    with (
        mock.patch.object(files, "cache_folder", return_value=tmp_path),
        pytest.raises(StoreError, match="exported"),
    ):
        matcher_file(torchs, digest_of(torchs))


def test_threads_that_need_a_file_at_once_get_one(torchs, kept):
    changed = deepcopy(torchs)
    changed.conf.depth_confidence = 0.55
    digest = digest_of(changed)
    with ThreadPoolExecutor(3) as pool:
        paths = {found.path for found in pool.map(lambda _: matcher_file(changed, digest), range(3))}
    assert len(paths) == 1
    assert not [path for path in (kept / "exported").iterdir() if path.suffix == ".part"]


def test_an_exported_file_is_a_matcher_with_its_own_thresholds(tmp_path):
    path = write_matcher(
        tmp_path / "model.onnx",
        length=64,
        features="xfeat",
        overlap=json.dumps({"constant": 0.5, "amount": 1.0, "share": 0.5}),
        thresholds=json.dumps(
            {
                "n_layers": 3,
                "input_dim": 64,
                "filter_threshold": 0.1,
                "depth_confidence": 0.95,
                "width_confidence": 0.99,
            }
        ),
    )
    matcher = OnnxMatcher.open(path, threads=1)
    assert (matcher.feature_type, matcher.conf.n_layers, matcher.precision) == ("xfeat", 3, "float32")
    assert matcher.overlap == Coefficients(0.5, 1.0, 0.5)
    data = pair(20, 30)
    all_of_it = matcher(data)["scores"][0]
    matcher.conf.filter_threshold = 0.9
    assert torch.equal(matcher(data)["scores"][0], all_of_it[all_of_it > 0.9])
    matcher.conf.filter_threshold = 0.01
    with pytest.raises(InputError, match=r"filter_threshold is 0.01 and .*export it with a lower one"):
        matcher(data)
    matcher.conf.filter_threshold, matcher.conf.depth_confidence = 0.1, 0.5
    with pytest.raises(InputError, match=r"depth_confidence is 0.5 and the file was made with 0.95; export another"):
        matcher(data)


def test_a_copy_matches_too(torchs, kept):
    matcher = OnnxMatcher.of(deepcopy(torchs), threads=1)
    data = pair(30, 30)
    expected = matcher(data)
    check_equal(deepcopy(matcher)(data), expected)


# -- protocols ---------------------------------------------------------------------------------------------------------


def test_it_goes_where_matchers_go(torchs, kept):
    extractor = XFEAT.load_extractor()
    matcher = OnnxMatcher.of(deepcopy(torchs), threads=1).eval().to("cpu")
    one = match_pair(extractor, matcher, str(A), str(B), resize=320)
    expected = match_pair(extractor, torchs, str(A), str(B), resize=320)
    assert torch.equal(one.matches, expected.matches)
    assert one.stop == expected.stop
    (listed,) = match_pairs(extractor, matcher, [(str(A), str(B))], resize=320)
    assert torch.equal(listed.matches, expected.matches)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_match_files_says_what_it_computed_in(backend, kept):
    from lightglue.extractors.options import ViewOptions

    views = ViewOptions(resize=320)
    found = match_files(A, B, models=replace(XFEAT, backend=backend), views=views)
    expected = match_files(A, B, models=XFEAT, views=views)
    assert torch.equal(found.pair.matches, expected.pair.matches)
    assert (found.summary()["backend"], found.summary()["precision"]) == (backend, "float32")
    assert expected.summary()["backend"] == "torch"
    assert found.summary()["layers"] == expected.summary()["layers"]


def test_an_extractor_of_a_file_extracts_at_any_size(tmp_path):
    extractor = OnnxExtractor(write_extractor(tmp_path / "extractor.onnx", preprocess='{"resize": 24}'))
    picture = torch.zeros(3, 36, 48)
    picture[:, 21, 31] = 1
    extractor.conf.max_num_keypoints = 1
    found = extractor.extract(picture)
    assert found["keypoints"].tolist() == [[[30.5, 20.5]]]
    assert extractor.extract(picture, resize=None)["keypoints"].tolist() == [[[31.0, 21.0]]]
    assert found["image_size"].tolist() == [[48.0, 36.0]]
    both = extractor.extract([picture, picture[:, :20]], resize=None)
    assert [each["keypoints"].shape for each in both] == [(1, 1, 2), (1, 1, 2)]
    with pytest.raises(InputError, match="no masks and no tiles"):
        extractor.extract(picture, mask=np.ones((36, 48), bool), resize=None)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    picture = cv2.imread(str(A))
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), picture[20 * i : 20 * i + 200, 30 * i : 30 * i + 260])
    return folder


def test_maps_are_matched_in_it_and_backends_do_not_mix(photographs, tmp_path, kept):
    from lightglue.sfm.stages.extract import ExtractOptions, extract
    from lightglue.sfm.stages.match import match
    from lightglue.stores import MatchStore

    extract(photographs, tmp_path / "features", ExtractOptions(XFEAT, {"resize": None}))
    pairs = [("0.png", "1.png"), ("0.png", "2.png"), ("1.png", "2.png")]
    matched = {}
    for backend in ("torch", "onnx"):
        options = MatchOptions(replace(XFEAT, backend=backend))
        match(tmp_path / "features", pairs, tmp_path / f"{backend}.db", options)
        matched[backend] = [each.matches.tolist() for each in MatchStore.open(tmp_path / f"{backend}.db").read()]
    assert matched["onnx"] == matched["torch"]
    assert len(matched["torch"][0]) > 20
    with pytest.raises(InputError, match="backend"):
        match(tmp_path / "features", pairs, tmp_path / "torch.db", MatchOptions(replace(XFEAT, backend="onnx")))


def test_an_evaluation_runs_in_it_and_its_records_say_so(photographs, tmp_path, kept):
    from lightglue.evaluation.datasets.manifest import load_manifest
    from lightglue.evaluation.run import Job, evaluate

    shift = [[1, 0, -30], [0, 1, -20], [0, 0, 1]]
    content = {"name": "test", "kind": "homography", "max_keypoints": 200}
    path = photographs / "test.json"
    path.write_text(
        json.dumps({**content, "pairs": [{"scene": "a", "image0": "0.png", "image1": "1.png", "H": shift}]})
    )
    runs = {
        backend: evaluate(load_manifest(path), Job(replace(XFEAT, backend=backend)), tmp_path / backend)
        for backend in ("torch", "onnx")
    }
    counts = [run.records[0].num_matches for run in runs.values()]
    assert counts[0] == counts[1] > 20
    assert runs["onnx"].settings["models"]["backend"] == "onnx"
    assert "backend" not in runs["torch"].settings["models"]  # as earlier versions wrote it
    with pytest.raises(InputError, match="backend"):
        evaluate(load_manifest(path), Job(replace(XFEAT, backend="onnx")), tmp_path / "torch")


def test_the_guide_runs_as_written(tmp_path, monkeypatch, kept):
    (tmp_path / "assets").symlink_to(ASSETS)
    monkeypatch.chdir(tmp_path)
    guide = (Path(__file__).parents[1] / "docs" / "runtimes.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL):
        exec(compile(block, "runtimes.md", "exec"), names)
    assert names["matches"]["matches"].tolist() == names["matches01"]["matches"].tolist()
    assert len(names["both"][1]["matches"]) > 50


# -- which backend -----------------------------------------------------------------------------------------------------


def test_a_backend_that_is_not_installed_is_an_error(kept):
    with (
        mock.patch.object(runtimes, "installed", return_value=[]),
        pytest.raises(ModelError, match="openvino is not installed; run `pip install openvino`"),
    ):
        replace(XFEAT, backend="openvino").load_matcher()


@pytest.mark.parametrize(
    ("backend", "device", "words"),
    [
        ("openvino", "cuda", "computes on the CPU, and the device is cuda"),
        ("onnx", "mps", "has nothing for the device mps"),
        ("onnx", "cuda", "CUDAExecutionProvider is not in this onnxruntime"),
    ],
)
def test_a_device_that_a_backend_does_not_have_is_an_error(backend, device, words, kept):
    models = replace(XFEAT, backend=backend, device=device)
    found = mock.patch.object(Models, "found_device", return_value=torch.device(device))
    with found, pytest.raises((InputError, ModelError), match=words):
        models.load_matcher()(pair(9, 9))


def test_nearest_neighbours_take_no_backend():
    with pytest.raises(InputError, match="backend is 'onnx', which is for LightGlue"):
        Models(matcher="nearest", backend="onnx")
    assert Models(matcher="nearest", backend="auto").found_backend().backend == "torch"


def test_localize_takes_the_backend_of_the_map_unless_another_is_given():
    from lightglue.cli.from_options import Given
    from lightglue.cli.localize import _chosen

    of_map = replace(XFEAT, backend="onnx")
    assert _chosen(of_map, Models(), Given()) == of_map
    assert _chosen(of_map, Models(backend="openvino"), Given({"backend"})) == replace(of_map, backend="openvino")
    assert _chosen(of_map, Models(backend="auto"), Given({"backend"})).backend != "auto"


def test_maps_of_earlier_versions_are_of_torch():
    settings = {"features": "aliked", "max_keypoints": 9, "device": "cpu", "mp": False}
    assert MapRecord(Path(), {"models": settings}).models.backend == "torch"


def test_another_name_is_refused():
    with pytest.raises(InputError, match="choose one of torch, onnx, openvino, auto"):
        Models(backend="tensorflow")


def test_torch_is_the_default_and_leaves_settings_as_they_were():
    assert Models().backend == "torch"
    assert "backend" not in MatchOptions(XFEAT).settings()
    assert MatchOptions(replace(XFEAT, backend="onnx")).settings()["backend"] == "onnx"


CPU = Machine("cpu", bfloat16=False, installed=("onnx", "openvino"))


@pytest.mark.parametrize("keypoints", [1, 512, 1024, 2048, 100_000])
@pytest.mark.parametrize("pairs", [1, 100, MANY])
@pytest.mark.parametrize("machine", [CPU, replace(CPU, bfloat16=True), replace(CPU, installed=("onnx",))])
@pytest.mark.parametrize("onednn", [False, True])
def test_auto_takes_what_the_table_says_takes_least_time(machine, pairs, keypoints, onednn):
    machine = replace(machine, onednn=onednn)
    chosen = choose(machine, pairs, keypoints)
    table = {
        name: times.seconds(pairs, keypoints)
        for name, times in TIMES[machine.bfloat16, onednn].items()
        if name in ("torch", *machine.installed)
    }
    assert chosen.backend in table
    assert table[chosen.backend] <= table["torch"]
    if chosen.backend == "torch":  # unless a tenth is saved
        assert min(table.values()) >= 0.9 * table["torch"]
    else:
        assert "times as fast as torch" in chosen.why


def test_auto_never_pays_the_start_for_one_pair():
    assert choose(replace(CPU, bfloat16=True), 1, 1024).backend == "torch"


def test_auto_takes_nothing_that_is_not_installed_or_was_not_measured():
    assert choose(replace(CPU, bfloat16=True, installed=()), MANY, 1024).backend == "torch"
    on_gpu = choose(replace(CPU, device="cuda"), MANY, 1024)
    assert (on_gpu.backend, on_gpu.why) == ("torch", "others were not measured on cuda")


def test_auto_never_changes_the_precision():
    """bfloat16 is what `mp` asks for, on a CPU that has it; 8 bits are in no row."""
    assert set(TIMES) == {(reduced, onednn) for reduced in (True, False) for onednn in (True, False)}
    assert all({"torch"} < set(rows) <= {"torch", "onnx", "openvino"} for rows in TIMES.values())
    assert not any("onnx" in TIMES[True, onednn] for onednn in (True, False))  # which has no bfloat16 on CPUs


def test_auto_knows_what_the_products_are_here(monkeypatch):
    for onednn in (False, True):
        monkeypatch.setattr(products, "onednn_is_faster", lambda onednn=onednn: onednn)
        assert this_machine("cpu", mp=False).onednn is onednn


def test_a_map_has_what_auto_stood_for_when_it_was_made():
    assert on_one_device(replace(XFEAT, backend="auto")).backend in ("torch", "onnx", "openvino")


def test_the_command_says_what_auto_chose(kept):
    from support.command import lightglue

    arguments = ["--features=xfeat", "--max-keypoints=100", "--resize=200", "--device=cpu", "--json"]
    result = lightglue("match", A, B, *arguments, "--backend", "auto")
    assert result.code == 0
    assert "backend: torch (" in result.err
    assert json.loads(result.out)["backend"] == "torch"
