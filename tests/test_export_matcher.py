"""An exported matcher gives what torch gives: the same matches, stop and pruning, from any numbers of keypoints."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import onnx
import pytest
import torch

from lightglue.errors import InputError, ModelError
from lightglue.export import MatcherFile, MatcherSource, load_matcher, write_matcher
from lightglue.matching.lightglue import LightGlue
from lightglue_runtime.contract import MATCHER_INPUTS, MATCHER_OUTPUTS, Description
from lightglue_runtime.steps import MANIFEST, Manifest, match_steps
from support import ROOT
from support.command import lightglue, plain
from support.exported import NAMES, Exported, feed, run, session
from support.matching import load_features, random_features, small_matcher, small_state, varied

EXTRACTORS = {"aliked": "aliked-n16", "disk": "disk"}
FULL = {"depth_confidence": -1, "width_confidence": -1}
ONE_FILE = ("adaptive", "fixed", "colmap", "opencv", "tensorrt")
# Thresholds at which the small random networks stop and prune: docs of `small_state`.
DECIDED = {"depth_confidence": 0.6, "width_confidence": 0.6}


def assert_equal(found: dict[str, np.ndarray], expected: Any, atol: float = 1e-4) -> None:
    """Of one pair: matches, stop and pruning equal, scores within 1e-4."""
    np.testing.assert_array_equal(found["matches0"].ravel(), expected["matches0"][0].numpy())
    np.testing.assert_allclose(found["mscores0"].ravel(), expected["matching_scores0"][0].numpy(), atol=atol, rtol=0)
    if "stop" in found:
        assert int(found["stop"]) == expected["stop"]
    for name in ("prune0", "prune1"):
        if name in found:
            np.testing.assert_array_equal(found[name], expected[name][0].numpy())


def pair_of(counts: tuple[int, int], **extra: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random features for the small networks."""
    first, second = (random_features(count, seed=side, **extra) for side, count in enumerate(counts))
    return first, second


def sift_pair(counts: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """With scales and orientations."""
    images = pair_of(counts)
    for count, image in zip(counts, images, strict=True):
        image |= {"scales": 1 + torch.rand(1, count), "oris": torch.rand(1, count)}
    return images


def matched(matcher: LightGlue, pair: tuple[dict[str, Any], dict[str, Any]]) -> Any:
    return matcher({"image0": pair[0], "image1": pair[1]})


def written(matcher: LightGlue, folder: Path, format: str = "adaptive", **options: Any) -> Path:
    path = folder / (format if format == "steps" else f"{format}.onnx")
    write_matcher(matcher, path, format=format, **options)
    return path


def runner(folder: Path) -> Any:
    """Runs the pieces of format `steps` in ONNX Runtime."""
    sessions: dict[str, Any] = {}

    def call(name: str, inputs: Any) -> dict[str, np.ndarray]:
        opened = sessions.setdefault(name, session(folder / name))
        return dict(zip([each.name for each in opened.get_outputs()], opened.run(None, dict(inputs)), strict=True))

    return call


@pytest.fixture(scope="module")
def images(reference):
    """Features of a photograph, as many as asked for."""

    def get(features: str, side: int, count: int) -> dict[str, torch.Tensor]:
        return varied(load_features(reference, f"{EXTRACTORS[features]}_montmartre_{side}"), count, seed=side)

    return get


# -- the published matchers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", EXTRACTORS)
@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0), (1, 1), (37, 300)])
def test_adaptive_is_what_torch_decides(exported: Exported, images, features, counts):
    pair = tuple(images(features, side, count) for side, count in enumerate(counts))
    expected = matched(exported.matcher(features), pair)
    assert_equal(run(exported.session(features), *pair), expected)


def test_adaptive_is_what_torch_decides_of_many_keypoints(exported: Exported, images):
    pair = images("aliked", 0, 2048), images("aliked", 1, 1)
    expected = matched(exported.matcher("aliked"), pair)
    assert_equal(run(exported.session("aliked"), *pair), expected)


@pytest.mark.parametrize("pair", ["montmartre", "sacre_coeur", "facade"])
@pytest.mark.parametrize("features", EXTRACTORS)
def test_adaptive_is_what_torch_decides_on_photographs(exported: Exported, reference, features, pair):
    images = tuple(load_features(reference, f"{EXTRACTORS[features]}_{pair}_{side}") for side in (0, 1))
    expected = matched(exported.matcher(features), images)
    assert_equal(run(exported.session(features), *images), expected)


@pytest.mark.parametrize("pair", ["montmartre", "sacre_coeur", "facade"])
@pytest.mark.parametrize("features", EXTRACTORS)
def test_full_depth_gives_the_published_matches(exported: Exported, reference, features, pair):
    images = [load_features(reference, f"{EXTRACTORS[features]}_{pair}_{side}") for side in (0, 1)]
    found = run(exported.session(features, "fixed"), *images)
    expected = reference(f"match_{features}_full_{pair}")
    np.testing.assert_allclose(found["mscores0"], expected["matching_scores0"], atol=1e-3, rtol=0)
    clear = np.abs(expected["matching_scores0"] - 0.1) > 1e-3
    np.testing.assert_array_equal(found["matches0"][clear], expected["matches0"][clear])


@pytest.mark.parametrize("pair", ["montmartre", "sacre_coeur", "facade"])
def test_xfeat_has_its_own_depth_and_thresholds(exported: Exported, reference, pair):
    arrays = [reference(f"xfeat_{pair}_{side}") for side in (0, 1)]
    images = [
        {
            "keypoints": torch.from_numpy(each["keypoints"])[None].float(),
            "descriptors": torch.from_numpy(each["descriptors"])[None],
            "image_size": torch.tensor([[640.0, 480.0]]),
        }
        for each in arrays
    ]
    # In float32 torch itself is 4e-4 away from float64 here, so no other order of sums can be nearer to it.
    expected = matched(exported.matcher("xfeat"), (images[0], images[1]))
    assert_equal(run(exported.session("xfeat"), *images), expected, atol=1e-3)
    assert expected["stop"] == 6


@pytest.mark.parametrize("name", ["superpoint_like", "sift_like", "96dim_1head"])
def test_random_weights_of_published_layouts_give_the_published_result(tmp_path, random_weights, name):
    arrays = random_weights(f"lightglue_{name}")
    conf = ast.literal_eval(str(arrays.pop("conf")))
    weights = tmp_path / "own.pth"
    torch.save({key[2:]: torch.from_numpy(value).float() for key, value in arrays.items() if key[:2] == "w/"}, weights)
    thresholds = {key: value for key, value in conf.items() if key.endswith(("_confidence", "_threshold"))}
    matcher = load_matcher(MatcherSource(weights=weights, pruning_min_keypoints=-1), {**thresholds})
    pair = [
        {key: torch.from_numpy(arrays[key + side]) for key in NAMES.values() if key + side in arrays} for side in "01"
    ]
    found = run(session(written(matcher, tmp_path)), *pair)
    np.testing.assert_allclose(found["mscores0"], arrays["out_matching_scores0"][0], atol=1e-3, rtol=0)
    assert int(found["stop"]) == int(arrays["out_stop"])
    np.testing.assert_array_equal(found["prune0"], arrays["out_prune0"][0])
    clear = np.abs(arrays["out_matching_scores0"][0] - conf["filter_threshold"]) > 1e-3
    np.testing.assert_array_equal(found["matches0"][clear], arrays["out_matches0"][0][clear])


# -- decisions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (1, 1), (20, 33)])
@pytest.mark.parametrize("least", [0, 25])
@pytest.mark.parametrize(
    "thresholds", [DECIDED, {**DECIDED, "depth_confidence": -1}, {**DECIDED, "width_confidence": -1}, FULL]
)
def test_each_threshold_may_be_off_and_each_number_be_the_smallest_to_prune(tmp_path, thresholds, least, counts):
    matcher = small_matcher(**thresholds)
    matcher.pruning_keypoint_thresholds["cpu"] = least
    pair = pair_of(counts)
    assert_equal(run(session(written(matcher, tmp_path)), *pair), matched(matcher, pair))


def test_an_image_may_lose_all_of_its_keypoints(tmp_path):
    matcher = small_matcher(depth_confidence=-1, width_confidence=0.99, pruning="tuned")
    matcher.pruning_keypoint_thresholds["cpu"] = 10
    matcher.log_assignment[0].matchability.bias.data.fill_(-50)
    pair = pair_of((20, 8))
    expected = matched(matcher, pair)
    assert expected["stop"] == 2
    assert_equal(run(session(written(matcher, tmp_path)), *pair), expected)
    steps = written(matcher, tmp_path, "steps")
    assert_equal(match_steps(Manifest.read(steps), runner(steps), feed(*pair)), expected)


@pytest.mark.parametrize("format", ["adaptive", "colmap"])
def test_sharp_attention_is_the_same_with_and_without_a_bound(tmp_path, format):
    matcher = small_matcher(**FULL)
    for layer in matcher.transformers:
        layer.cross_attn.to_qk.weight.data *= 30  # logits far beyond exp's range
    pair = pair_of((50, 70))
    assert_equal(run(session(written(matcher, tmp_path, format)), *pair), matched(matcher, pair))


# -- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ONE_FILE)
def test_a_file_is_valid_and_its_shapes_fit(tmp_path, format):
    model = onnx.load(written(small_matcher(), tmp_path, format))
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert {each.domain for each in model.opset_import} == {""}
    assert [each.version for each in model.opset_import] == [20]


def test_adaptive_has_the_tensors_of_the_contract(tmp_path):
    opened = session(written(small_matcher(), tmp_path))
    assert [each.name for each in opened.get_inputs()] == list(MATCHER_INPUTS)
    assert [each.name for each in opened.get_outputs()] == list(MATCHER_OUTPUTS)


def test_fixed_takes_batches_of_unequal_images(tmp_path):
    matcher = small_matcher(**FULL)
    pair = pair_of((7, 12), batch=3)
    found = run(session(written(matcher, tmp_path, "fixed")), *pair)
    expected = matched(matcher, pair)
    np.testing.assert_array_equal(found["matches0"], expected["matches0"].numpy())
    np.testing.assert_allclose(found["mscores0"], expected["matching_scores0"].numpy(), atol=1e-4)


@pytest.mark.parametrize("add_scale_ori", [False, True])
def test_colmap_finds_the_names_ranks_and_types_that_it_checks(tmp_path, add_scale_ori):
    matcher = small_matcher(add_scale_ori=add_scale_ori, **DECIDED)
    opened = session(written(matcher, tmp_path, "colmap"))
    names = ["kpts0", "kpts1", "desc0", "desc1", "image_size0", "image_size1"]
    ranks = [3, 3, 3, 3, 2, 2]
    if add_scale_ori:
        names, ranks = [*names, "scales0", "scales1", "oris0", "oris1"], [*ranks, 2, 2, 2, 2]
    assert [(each.name, len(each.shape)) for each in opened.get_inputs()] == list(zip(names, ranks, strict=True))
    assert {each.type for each in opened.get_inputs()} == {"tensor(float)"}
    outputs = [(each.name, len(each.shape), each.type) for each in opened.get_outputs()]
    assert outputs == [("matches0", 1, "tensor(int64)"), ("mscores0", 1, "tensor(float)")]
    pair = sift_pair((11, 17)) if add_scale_ori else pair_of((11, 17))
    assert_equal(run(opened, *pair), matched(matcher, pair))


def test_opencv_gives_the_same_matches(tmp_path):
    matcher = small_matcher(**FULL, filter_threshold=0.0)
    pair = pair_of((40, 60))
    opened = cv2.LightGlueMatcher.create(str(written(matcher, tmp_path, "opencv")), 0.0)
    opened.setPairInfo(*(_normalised(image) for image in pair))
    found = opened.match(*(image["descriptors"][0].numpy() for image in pair))
    expected = matched(matcher, pair)["matches"][0].tolist()
    assert sorted([each.queryIdx, each.trainIdx] for each in found) == expected
    assert expected


def _normalised(image: dict[str, torch.Tensor]) -> np.ndarray:
    centre = image["image_size"] / 2
    return ((image["keypoints"][0] - centre) / centre.max()).numpy()


def test_tensorrt_finds_no_shapes_that_depend_on_data(tmp_path):
    matcher = small_matcher(**DECIDED)
    path = written(matcher, tmp_path, "tensorrt")
    nodes = list(_nodes(onnx.load(path).graph))
    assert not {"NonZero", "ScatterElements", "Unique", "Compress"} & {node.op_type for node in nodes}
    pair = pair_of((20, 33))
    unpruned = small_matcher(depth_confidence=0.6, width_confidence=-1)
    expected = matched(unpruned, pair)
    assert_equal(run(session(path), *pair), expected)


def _nodes(graph: Any) -> Any:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


@pytest.mark.parametrize("counts", [(0, 3), (1, 1), (20, 33)])
def test_a_loop_over_the_pieces_is_what_torch_decides(tmp_path, counts):
    matcher = small_matcher(add_scale_ori=True, **DECIDED)
    matcher.pruning_keypoint_thresholds["cpu"] = 5
    pair = sift_pair(counts)
    folder = written(matcher, tmp_path, "steps")
    assert_equal(match_steps(Manifest.read(folder), runner(folder), feed(*pair)), matched(matcher, pair))


def test_a_damaged_manifest_is_refused(tmp_path):
    folder = written(small_matcher(), tmp_path, "steps")
    manifest = folder / MANIFEST
    manifest.write_text(manifest.read_text()[:50])
    with pytest.raises(ModelError, match=r"no manifest .*lightglue export matcher --format steps"):
        Manifest.read(folder)


# -- what a file says ------------------------------------------------------------------------------------------------


def test_the_description_is_in_the_file(exported: Exported):
    model = onnx.load(exported.file("aliked"))
    found = Description.from_properties({each.key: each.value for each in model.metadata_props}, "aliked.onnx")
    assert (found.kind, found.format, found.features, found.precision) == ("matcher", "adaptive", "aliked", "f32")
    assert (found.weights, found.licence) == ("aliked_lightglue", "Apache-2.0")
    assert found.weights_sha256 == "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503"
    assert found.numbers()["pruning_min_keypoints"] == 128
    assert json.loads(found.overlap)["constant"] == -2.4716


def test_own_weights_are_known_by_their_digest_and_their_licence_is_unknown(tmp_path):
    path = tmp_path / "own.pth"
    torch.save(small_state(), path)
    found = write_matcher(load_matcher(MatcherSource(weights=path)), tmp_path / "own.onnx")
    assert (found.features, found.weights, found.licence) == ("unknown", "own.pth", "unknown")
    assert found.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.numbers()["n_layers"] == 3


def test_a_file_of_save_says_itself_what_it_is(tmp_path):
    path = tmp_path / "own.safetensors"
    matcher = small_matcher(**DECIDED)
    matcher.licence = "MIT"
    matcher.save(path)
    loaded = load_matcher(MatcherSource(weights=path), {"filter_threshold": 0.3})
    found = write_matcher(loaded, tmp_path / "own.onnx")
    assert (found.licence, found.numbers()["depth_confidence"]) == ("MIT", 0.6)
    assert found.numbers()["filter_threshold"] == 0.3


def test_weights_that_were_changed_are_not_said_to_be_the_files(tmp_path):
    path = tmp_path / "own.pth"
    torch.save(small_state(), path)
    matcher = load_matcher(MatcherSource(weights=path))
    matcher.posenc.Wr.weight.data += 1
    found = write_matcher(matcher, tmp_path / "own.onnx")
    assert (found.weights, found.weights_sha256) == ("own.pth, changed since", "unknown")


def test_the_same_input_gives_the_same_bytes_in_every_process(tmp_path):
    path = tmp_path / "own.pth"
    torch.save(small_state(), path)
    code = (
        "import sys; from lightglue.export import *; "
        "write_matcher(load_matcher(MatcherSource(weights=sys.argv[1])), sys.argv[2])"
    )
    other = tmp_path / "other.onnx"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code, str(path), str(other)], check=True, env=environment)
    write_matcher(load_matcher(MatcherSource(weights=path)), tmp_path / "here.onnx")
    assert (tmp_path / "here.onnx").read_bytes() == other.read_bytes()


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("a.pt", "adaptive", r"must end in \.onnx"),
        ("", "adaptive", "is a folder"),
        ("none/a.onnx", "fixed", "there is no folder"),
        ("a.onnx", "steps", "must be a folder"),
        ("", "steps", "must be a folder, new"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused_before_any_work(tmp_path, name, format, message):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match=message):
        write_matcher(small_matcher(), tmp_path / name, format=format)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("format", ["adaptive", "steps"])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_device_or_a_pipe_is_never_replaced(tmp_path, format, is_link):
    pipe = tmp_path / ("pipe" if is_link or format == "steps" else "pipe.onnx")
    os.mkfifo(pipe)
    path = pipe
    if is_link:
        path = tmp_path / ("link" if format == "steps" else "link.onnx")
        path.symlink_to(pipe)
    with pytest.raises(InputError, match="is a device or a pipe"):
        write_matcher(small_matcher(), path, format=format)
    assert pipe.is_fifo()


def test_the_features_are_aliked_where_nothing_says_it():
    assert load_matcher(MatcherSource()).feature_type == "aliked"


def test_opencv_has_no_scales(tmp_path):
    with pytest.raises(InputError, match="gives no scales and orientations"):
        write_matcher(small_matcher(add_scale_ori=True), tmp_path / "a.onnx", format="opencv")


def test_a_hook_cannot_be_written(tmp_path):
    matcher = small_matcher()
    matcher.transformers[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ModelError, match="a hook"):
        write_matcher(matcher, tmp_path / "a.onnx")


def test_without_onnx_the_error_says_how_to_get_it(tmp_path):
    with (
        mock.patch.dict(sys.modules, {"onnx": None}),
        pytest.raises(ModelError, match=r"pip install 'lightglue\[export\]'"),
    ):
        write_matcher(small_matcher(), tmp_path / "a.onnx")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"format": "onnx"}, "format is 'onnx'"), ({"precision": "fp16"}, "precision is 'fp16'")],
)
def test_unknown_formats_and_precisions_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        MatcherFile(**options)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_what_the_function_writes(tmp_path):
    weights, output = tmp_path / "own.pth", tmp_path / "own.onnx"
    torch.save(small_state(), weights)
    found = lightglue("export", "matcher", "--weights", weights, "-o", output, "--depth-confidence", "-1", "--json")
    assert found.code == 0
    printed = json.loads(found.out)
    assert printed["bytes"] == output.stat().st_size
    assert json.loads(printed["thresholds"])["depth_confidence"] == -1


def test_for_tensorrt_the_command_prints_how_an_engine_is_built(tmp_path):
    weights, output = tmp_path / "own.pth", tmp_path / "own.onnx"
    torch.save(small_state(), weights)
    found = lightglue("export", "matcher", "--weights", weights, "-o", output, "--format", "tensorrt")
    assert found.code == 0
    assert f"trtexec --onnx={output} --saveEngine={output.with_suffix('.engine')}" in found.out
    assert "--minShapes=kpts0:1x1x2,kpts1:1x1x2,desc0:1x1x16,desc1:1x1x16" in found.out
    assert "untested" in found.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--features", "orb"), "orb"),
        (("--features", "aliked", "--format", "onnx"), "onnx"),
    ],
)
def test_a_wrong_command_line_is_said_so_before_a_model_is_loaded(tmp_path, no_models, words, message):
    found = lightglue("export", "matcher", *words, "-o", tmp_path / "a.onnx")
    assert found.code == 2
    assert message in plain(found.err)


def test_weights_that_are_not_there_are_not_replaced(tmp_path):
    found = lightglue("export", "matcher", "--features", "aliked", "--weights", "none.pth", "-o", tmp_path / "a.onnx")
    assert found.code == 1
    assert "none.pth" in found.err
