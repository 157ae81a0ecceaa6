"""`lightglue export check`: a right file passes, an altered one does not, and the report says what is wrong."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from lightglue.errors import InputError, ModelError
from lightglue.export import ExtractorSource, load_extractor, write_extractor, write_matcher, write_pipeline
from lightglue.matching.lightglue import LightGlue
from lightglue.parity import LIMITS, CheckOptions, check
from lightglue.parity.cases import image_cases, photographs
from lightglue.parity.compare import compare_features, compare_matches
from lightglue.parity.limits import FEW, limits_for, parse_limit
from lightglue.parity.outcome import FoundFeatures, FoundMatches
from lightglue.parity.structure import structure_faults
from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.onnx_runtime import OnnxSession
from support import ROOT
from support.command import lightglue, plain
from support.matching import SMALL, small_state

QUICK: dict[str, Any] = {"rounds": 0, "memory": False, "max_keypoints": 60, "threads": 1}
SHORT = ("--rounds", 0, "--no-memory", "--max-keypoints", 60, "--threads", 1)
FORMATS = ("adaptive", "fixed", "colmap", "opencv", "steps", "tensorrt")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network of the user's own, decided enough to match similar descriptors."""
    path = tmp_path_factory.mktemp("weights") / "own.pth"
    state = {name: value * 8 if "final_proj" in name else value for name, value in small_state().items()}
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def own_file(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The file, or of steps the folder, of a format and a precision, written once."""
    folder = tmp_path_factory.mktemp("models")
    matcher = LightGlue(features=None, weights=weights, pruning="tuned", **SMALL)

    def write(format: str, precision: str = "f32") -> Path:
        path = folder / f"{format}-{precision}{'' if format == 'steps' else '.onnx'}"
        if not path.exists():
            write_matcher(matcher, path, format=format, precision=precision)
        return path

    return write


def altered(path: Path, to: Path) -> Path:
    """A copy of a model with one number of its largest matrix changed."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda each: int(np.prod(each.dims)))
    values = numpy_helper.to_array(largest).copy()
    values.flat[7] += 20
    largest.CopyFrom(numpy_helper.from_array(values, largest.name))
    onnx.save(model, to)
    return to


@pytest.mark.parametrize("format", FORMATS)
def test_a_right_file_passes(own_file, weights, format):
    report = check(own_file(format), weights=weights, **QUICK)
    assert report.passed, report.faults
    first = report.runtimes[0].differences[0]
    assert first.reference == first.found > 3
    assert first.kept_share == 1
    none = set() if format in ("opencv", "tensorrt") else {(0, 5), (5, 0)}
    assert {each.keypoints for each in report.runtimes[0].differences} >= {(1, 1), (5, 40), *none}


def test_one_altered_weight_fails_and_the_report_says_in_what(own_file, weights, tmp_path):
    path = altered(own_file("adaptive"), tmp_path / "altered.onnx")
    report = check(path, weights=weights, **QUICK)
    assert not report.passed
    assert any("scores differ by up to" in fault for fault in report.faults)


def test_an_extractor_is_compared_keypoint_by_keypoint(tmp_path):
    path = tmp_path / "xfeat.onnx"
    write_extractor(load_extractor(ExtractorSource("xfeat")), path)
    report = check(path, **QUICK)
    assert report.passed, report.faults
    found = report.runtimes[0].differences
    assert [each.case for each in found][-3:] == ["333 x 417 px", "100 x 70 px", "a flat image"]
    assert found[0].reference == found[0].found == 60
    wrong = check(altered(path, tmp_path / "altered.onnx"), **QUICK)
    assert any("descriptors differ" in fault or "keypoints" in fault for fault in wrong.faults)


def test_a_pipeline_is_compared_with_extraction_and_matching(tmp_path):
    path = tmp_path / "pipeline.onnx"
    matcher = LightGlue(features="xfeat", pruning="tuned")
    write_pipeline(load_extractor(ExtractorSource("xfeat")), matcher, path)
    report = check(path, **{**QUICK, "max_keypoints": 200})
    assert report.passed, report.faults
    pair, unequal = report.runtimes[0].differences
    assert pair.reference > 20
    assert pair.keypoints_kept == unequal.keypoints_kept == 1
    assert unequal.case == "333 x 417 px and a larger image"


def test_every_model_of_a_folder_is_checked(own_file, weights, tmp_path):
    for name in ("a", "b"):
        shutil.copy(own_file("fixed"), tmp_path / f"{name}.onnx")
    altered(own_file("fixed"), tmp_path / "b.onnx")
    report = check(tmp_path, weights=weights, **QUICK)
    assert [(Path(part.file).name, part.passed) for part in report.parts] == [("a.onnx", True), ("b.onnx", False)]
    assert all(fault.startswith("b.onnx: ") for fault in report.faults)
    with pytest.raises(ModelError, match="holds no model"):
        check(weights.parent, **QUICK)


def test_the_command_prints_a_table_and_says_by_its_exit_code_what_it_found(own_file, weights, tmp_path):
    right = lightglue("export", "check", own_file("adaptive"), "--weights", weights, *SHORT)
    assert right.code == 0, right.err
    assert "within the limits" in right.out
    assert "0 and 5 keypoints" in right.out
    wrong = altered(own_file("adaptive"), tmp_path / "altered.onnx")
    found = lightglue("export", "check", wrong, "--weights", weights, *SHORT)
    assert found.code == 1
    assert "beyond the limits: ONNX Runtime" in found.out


def test_json_holds_every_difference_and_the_limits(own_file, weights):
    run = lightglue("export", "check", own_file("fixed"), "--weights", weights, *SHORT, "--json")
    found = json.loads(run.out)
    assert found["passed"] is True
    assert found["description"]["format"] == "fixed"
    [runtime] = found["runtimes"]
    assert runtime["limits"]["kept"] == 1
    assert runtime["differences"][0]["missing"] == 0


def test_time_and_memory_are_those_of_the_file_and_of_torch(own_file, weights):
    [found] = check(own_file("adaptive"), weights=weights, **{**QUICK, "rounds": 2, "memory": True}).runtimes
    assert found.cost is not None
    assert found.cost.rounds == 2
    assert found.cost.speedup == found.cost.torch_milliseconds / found.cost.milliseconds > 0
    assert 0 < found.cost.megabytes < found.cost.torch_megabytes  # torch itself is larger than all of it


@pytest.mark.parametrize("precision", ["f16", "int8"])
def test_reduced_precision_has_limits_of_its_own(own_file, weights, precision):
    report = check(own_file("adaptive", precision), weights=weights, tolerance=(("score_median", 0.2),), **QUICK)
    assert report.runtimes[0].precision == precision
    assert report.runtimes[0].limits == replace(LIMITS[precision], score_median=0.2)
    assert report.runtimes[0].differences[0].score_max > 1e-5  # it is not float32


def test_another_runtime_is_checked_too(own_file, weights):
    names = [each.runtime for each in check(own_file("fixed"), weights=weights, runtime="all", **QUICK).runtimes]
    assert [name.split()[0] for name in names] == ["ONNX", "OpenVINO"]


def test_a_published_file_needs_no_weights_given(own_file):
    with pytest.raises(InputError, match=r"own\.pth .* is no published file; give it by --weights"):
        check(own_file("adaptive"), **QUICK)


def test_other_weights_are_refused(own_file, tmp_path):
    torch.save(small_state(seed=1), tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth has the sha256 [0-9a-f]{64}, and .* was made of own\.pth"):
        check(own_file("adaptive"), weights=tmp_path / "other.pth", **QUICK)


@pytest.mark.parametrize("kind", ["foreign", "cut off", "another version", "no file"])
def test_what_is_no_model_of_ours_is_refused(own_file, tmp_path, kind):
    import onnx

    path = tmp_path / "model.onnx"
    model = onnx.load(own_file("fixed"))
    if kind == "foreign":
        del model.metadata_props[:]
    elif kind == "another version":
        next(each for each in model.metadata_props if each.key == "lightglue.format_version").value = "99"
    content = model.SerializeToString()
    if kind != "no file":
        path.write_bytes(content[: len(content) // 2] if kind == "cut off" else content)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        check(path, **QUICK)
    assert lightglue("export", "check", path).code == 1


def test_images_are_given_in_pairs(own_file, weights):
    with pytest.raises(InputError, match="images holds 1 files; give two for each pair"):
        CheckOptions(images=(Path("a.jpg"),))
    run = lightglue("export", "check", own_file("adaptive"), "--images", "a.jpg", "b.jpg", "c.jpg")
    assert run.code == 2
    assert "images holds 3 files" in plain(run.err)


def test_the_package_has_photographs_with_it():
    assert [tuple(each.image.shape) for each in photographs(())] == [(3, 438, 640), (3, 448, 640)]


def test_xfeats_float32_scores_may_differ_by_what_torchs_do_from_float64():
    limits = [limits_for(kind, "xfeat", "f32", {}).score_max for kind in ("matcher", "extractor")]
    assert limits == [1e-3, LIMITS["f32"].score_max]
    assert limits_for("matcher", "aliked", "f32", {}) == LIMITS["f32"]
    assert limits_for("matcher", "xfeat", "f32", {"score_max": 1e-5}).score_max == 1e-5


def test_the_limits_are_those_of_the_documentation():
    rows = [line.strip("| \n").split(" | ") for line in (ROOT / "docs" / "parity.md").read_text().splitlines()]
    table = {row[0].strip("`"): row[1:5] for row in rows if len(row) == 6 and row[0].startswith("`")}
    for column, precision in enumerate(("f32", "f16", "bf16", "int8")):
        shown = {name: float(cells[column]) for name, cells in table.items()}
        assert shown == asdict(LIMITS[precision])


def test_a_limit_is_named():
    assert parse_limit("kept=0.9") == ("kept", 0.9)
    with pytest.raises(InputError, match="'kep=1' is no limit; give NAME=VALUE. Did you mean 'kept'"):
        parse_limit("kep=1")
    with pytest.raises(InputError, match="limit kept is -1"):
        parse_limit("kept=-1")


def found_matches(matches: list[int], scores: list[float], **more: Any) -> FoundMatches:
    return FoundMatches(np.array(matches, np.int64), np.array(scores, np.float32), **more)


@pytest.mark.parametrize(("count", "faults"), [(FEW - 1, 0), (FEW, 1)])
def test_a_median_counts_from_twenty_matches_on(count, faults):
    ours, theirs = (found_matches(list(range(count)), [score] * count) for score in (0.9, 0.8))
    found = compare_matches("pair", ours, theirs, threshold=0.1, tolerance=1e-4)
    assert len(list(found.faults(LIMITS["int8"]))) == faults


def test_a_match_at_the_threshold_is_neither_missing_nor_new():
    ours = found_matches([0, 1, 2, -1], [0.9, 0.10004, 0.5, 0])
    theirs = found_matches([0, -1, -1, 3], [0.9, 0.09998, 0.5, 0.7])
    found = compare_matches("pair", ours, theirs, threshold=0.1, tolerance=1e-4)
    assert (found.missing, found.new, found.score_max) == (1, 1, 0)
    assert list(found.faults(LIMITS["f32"])) == [
        "keeps 2 of 3 matches (at least 100.0%)",
        "1 of 2 matches are not the reference's (at most 0.0%)",
    ]


def test_a_score_that_is_no_number_is_beyond_every_limit():
    ours, theirs = found_matches([0], [0.9]), found_matches([0], [np.nan])
    found = compare_matches("pair", ours, theirs, 0.1, 1e-4)
    assert any("not all numbers" in fault for fault in found.faults(LIMITS["int8"]))


def test_what_is_no_number_is_null_in_json(own_file, weights):
    report = check(own_file("adaptive"), weights=weights, **QUICK)
    [runtime] = report.runtimes
    broken = replace(runtime, differences=(replace(runtime.differences[0], score_max=math.nan),))
    found = json.loads(json.dumps(replace(report, runtimes=(broken,)).to_json(), allow_nan=False))
    assert found["runtimes"][0]["differences"][0]["score_max"] is None
    assert found["passed"] is False


def test_a_case_that_cannot_be_run_is_said(own_file, weights):
    def refuse(self: Any, inputs: Any) -> Any:
        if inputs["kpts0"].shape[1] == 1:
            raise ModelError("it cannot be run")
        return run(self, inputs)

    run = OnnxSession.run
    with mock.patch.object(OnnxSession, "run", refuse):
        report = check(own_file("adaptive"), weights=weights, **QUICK)
    assert report.faults == (f"{report.runtimes[0].runtime}: 1 and 1 keypoints: it cannot be run",)


def test_matches_of_a_pipeline_are_compared_by_where_they_are():
    places = np.array([[10, 10], [20, 20], [30, 30]], np.float32)
    ours = found_matches([1, -1, 2], [0.9, 0, 0.8], keypoints0=places, keypoints1=places)
    order = [2, 0, 1]  # the same keypoints otherwise arranged
    theirs = found_matches([2, 0, -1], [0.8, 0.9, 0], keypoints0=places[order], keypoints1=places[[1, 0, 2]] + 0.01)
    found = compare_matches("pair", ours, theirs, 0.1, 1e-4)
    assert (found.missing, found.new, found.keypoints_kept) == (0, 0, 1)
    far = replace(theirs, keypoints1=theirs.keypoints1 + 5)
    assert compare_matches("pair", ours, far, 0.1, 1e-4).missing == 2


def test_features_are_the_same_where_they_lie_close():
    g = np.random.default_rng(0)
    ours = FoundFeatures(
        g.uniform(0, 100, (50, 2)).astype(np.float32), np.ones(50, np.float32), np.eye(50, 8, dtype=np.float32)
    )
    order = g.permutation(50)[:40]
    theirs = FoundFeatures(ours.keypoints[order] + 0.01, ours.scores[order], ours.descriptors[order])
    found = compare_features("image", ours, theirs)
    assert found.kept == 0.8
    assert found.position_max == pytest.approx(0.01, abs=1e-4)
    assert found.descriptor_max == 0
    assert list(found.faults(LIMITS["f32"])) == ["has 80.0% of the reference's keypoints (at least 99.0%)"]


def test_which_keypoints_a_flat_image_has_does_not_count_but_what_they_are_does():
    [flat] = [case for case in image_cases((), 640) if case.flat]
    assert (flat.image == flat.image[0, 0, 0]).all()
    ours = FoundFeatures(np.eye(20, 2, dtype=np.float32) * 50, np.ones(20, np.float32), np.eye(20, 8, dtype=np.float32))
    theirs = FoundFeatures(ours.keypoints[:2], ours.scores[:2], ours.descriptors[:2])
    assert list(compare_features("flat", ours, theirs, flat=True).faults(LIMITS["f32"])) == []
    wrong = replace(theirs, descriptors=-theirs.descriptors)
    assert len(list(compare_features("flat", ours, wrong, flat=True).faults(LIMITS["f32"]))) == 1


def test_structure_is_what_colmap_and_opencv_ask_for(own_file):
    file = ModelFile.read(own_file("colmap"))
    assert list(structure_faults(file)) == []
    turned = replace(file, outputs=dict(reversed(list(file.outputs.items()))))
    assert "readers want matches0, mscores0" in " ".join(structure_faults(turned))
    lacking = replace(file, inputs={name: shape for name, shape in file.inputs.items() if name != "desc1"})
    assert "lacks the input desc1" in " ".join(structure_faults(lacking))
    fixed = replace(file, inputs={**file.inputs, "kpts0": (1, 512, 2)})
    assert "its M does not vary" in " ".join(structure_faults(fixed))
    half = replace(file, types={**file.types, "matches0": "float16"})
    assert list(structure_faults(half)) == ["output matches0 is float16, not int64"]
