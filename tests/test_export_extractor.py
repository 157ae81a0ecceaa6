"""An exported extractor finds what the package finds, in images of any size; and what cannot be exported is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from lightglue import ALIKED, DISK, SIFT, RaCo, SuperPoint, XFeat, load_image
from lightglue.errors import InputError, ModelError
from lightglue.export import ExtractorSource, write_extractor
from lightglue.extractors.raco_network import RacoNetwork
from lightglue.extractors.superpoint_network import SuperPointNetwork
from lightglue.weights import FILES
from lightglue_runtime.contract import EXTRACTOR_OUTPUTS
from support import ASSETS
from support.command import lightglue, plain
from support.exported import Exported, session
from support.raco_oracle import seeded_state
from test_superpoint import SMALL, seeded

PUBLISHED = {
    "aliked-t16": ("aliked", "aliked-t16"),
    "aliked-n16": ("aliked", None),
    "aliked-n16rot": ("aliked-n16rot", None),
    "aliked-n32": ("aliked-n32", None),
    "disk": ("disk", None),
    "xfeat": ("xfeat", None),
}
SIZES = [(150, 220), (233, 97)]  # landscape, portrait
ODD_SIZES = [(1, 1), (5, 7), (8, 70), (31, 33), (32, 64)]


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    return load_image(ASSETS / "montmartre_close.jpg", resize=256)


def cut(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(1, 3, H, W) of a photograph."""
    return torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True).clamp(0, 1)


def run(model: Any, image: torch.Tensor, count: int = 300, least: float = 0.0) -> dict[str, np.ndarray]:
    """What a file says of an image."""
    inputs = {"image": image.numpy(), "max_keypoints": np.array(count), "min_score": np.array(least, np.float32)}
    return dict(zip((each.name for each in model.get_outputs()), model.run(None, inputs), strict=True))


def torch_finds(extractor: Any, image: torch.Tensor, count: int | None = 300, least: float = 0.0) -> dict[str, Any]:
    """What the package says, best first. ALIKED takes -1 for no threshold and no limit."""
    extractor.conf.max_num_keypoints, extractor.conf.detection_threshold = count, least
    if isinstance(extractor, ALIKED):
        extractor.conf.max_num_keypoints, extractor.conf.detection_threshold = count or 100_000, least or -1
    with torch.no_grad():
        found = extractor({"image": image})
    if isinstance(extractor, (DISK, SuperPoint)):  # the others do so already, before positions are refined
        order = found["keypoint_scores"][0].argsort(descending=True, stable=True)
        found = {name: value[:, order] for name, value in found.items()}
    return {name: value[0].numpy() for name, value in found.items()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, Any]) -> None:
    """Keypoints within 0.01 px for 99.5 %, scores and descriptors within 1e-3."""
    assert found["keypoints"].shape == (1, *expected["keypoints"].shape)
    assert found["descriptors"].shape == (1, *expected["descriptors"].shape)
    scores = found["keypoint_scores"][0]
    assert found["keypoints"].dtype == found["descriptors"].dtype == scores.dtype == np.float32
    if not len(scores):
        return
    distances = np.abs(found["keypoints"][0][:, None] - expected["keypoints"]).max(-1)
    nearest, same = distances.argmin(1), distances.min(1) < 0.01
    assert same.mean() >= 0.995
    tolerance = 1e-3 * max(1.0, float(expected["keypoint_scores"].max()))  # of DISK they are not bounded
    np.testing.assert_allclose(scores[same], expected["keypoint_scores"][nearest[same]], atol=tolerance, rtol=0)
    differences = found["descriptors"][0][same] - expected["descriptors"][nearest[same]]
    assert np.abs(differences).max() < 1e-3


# -- as in torch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_file_finds_what_the_package_finds(exported: Exported, photograph, name):
    features, model = PUBLISHED[name]
    file = session(exported.extractor_file(features, model=model))
    for image in (cut(photograph, size) for size in SIZES):
        expected = torch_finds(exported.extractor(features, model), image)
        assert len(expected["keypoints"]) > 100
        assert_same(run(file, image), expected)


def small_superpoint(**conf: Any) -> SuperPoint:
    state = seeded(SuperPointNetwork(SMALL["channels"], 20)).state_dict()
    return SuperPoint(weights=state, **SMALL, **conf).eval()


def open_superpoint(**conf: Any) -> SuperPoint:
    """Of the other layout, which normalises after its activations."""
    extractor = small_superpoint(**conf)
    extractor.network = seeded(SuperPointNetwork(SMALL["channels"], 20, batch_norm=True))
    return extractor.eval()


def seeded_raco(**conf: Any) -> RaCo:
    state = seeded_state((key, tuple(value.shape)) for key, value in RacoNetwork().state_dict().items())
    return RaCo(weights=state, **conf).eval()


UNPUBLISHED = {
    "superpoint": small_superpoint,
    "superpoint, open layout": open_superpoint,
    "superpoint, other options": lambda: small_superpoint(nms_radius=2, remove_borders=None),
    "raco": seeded_raco,
    "raco, whole pixels": lambda: seeded_raco(subpixel_sampling=False, nms_radius=5),
    "aliked, wider window": lambda: ALIKED(model_name="aliked-t16", nms_radius=4).eval(),
    "disk, even window": lambda: DISK(nms_window_size=4).eval(),
    "xfeat, wider window": lambda: XFeat(nms_radius=4).eval(),
}


@pytest.mark.parametrize("name", UNPUBLISHED)
def test_own_weights_and_other_options_become_part_of_the_file(photograph, name, tmp_path):
    extractor, image = UNPUBLISHED[name](), cut(photograph, (101, 150))
    write_extractor(extractor, tmp_path / "own.onnx")
    expected = torch_finds(extractor, image)
    assert len(expected["keypoints"]) > 50
    assert_same(run(session(tmp_path / "own.onnx"), image), expected)


@pytest.mark.parametrize("name", ["aliked-t16", "disk", "xfeat", "raco", "superpoint"])
def test_images_may_have_any_size_or_no_texture(exported: Exported, photograph, name, tmp_path):
    if name in PUBLISHED:
        extractor, path = exported.extractor(*PUBLISHED[name]), tmp_path / "any.onnx"
    else:
        extractor, path = UNPUBLISHED[name](), tmp_path / "any.onnx"
    write_extractor(extractor, path)
    file = session(path)
    for image in (cut(photograph, size) for size in ODD_SIZES):
        assert_same(run(file, image, -1), torch_finds(extractor, image, None))
    for value in (0.0, 0.5):
        image = torch.full((1, 3, 40, 56), value)
        found, expected = run(file, image, -1)["keypoints"][0], torch_finds(extractor, image, None)["keypoints"]
        assert found.shape == expected.shape  # their order is one of rounding: all score alike
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=0.01)


@pytest.mark.parametrize("features", ["aliked", "disk", "xfeat"])
def test_a_score_that_no_point_has_gives_no_keypoints(exported: Exported, photograph, features):
    found = run(session(exported.extractor_file(features)), cut(photograph, (64, 96)), least=1e6)
    dim = {"xfeat": 64}.get(features, 128)
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == {"keypoints": (1, 0, 2), "descriptors": (1, 0, dim), "keypoint_scores": (1, 0)}


@pytest.mark.parametrize(("features", "least"), [("aliked", 0.1), ("disk", 5.0), ("xfeat", 0.05)])
def test_min_score_is_the_detection_threshold_of_the_package(exported: Exported, photograph, features, least):
    file, image = session(exported.extractor_file(features)), cut(photograph, SIZES[0])
    expected = torch_finds(exported.extractor(features), image, None, least)
    everything = run(file, image, 100_000)
    assert 0 < len(expected["keypoints"]) < everything["keypoints"].shape[1]
    assert_same(run(file, image, 100_000, least), expected)


def test_the_number_of_keypoints_is_a_limit_and_the_best_are_kept(exported: Exported, photograph):
    file, image = session(exported.extractor_file("xfeat")), cut(photograph, SIZES[0])
    everything = run(file, image, -1)
    np.testing.assert_array_equal(everything["keypoints"], run(file, image, 1_000_000)["keypoints"])
    assert (np.diff(everything["keypoint_scores"][0]) <= 0).all()
    for count in (0, 1, 17):
        for name, value in run(file, image, count).items():
            np.testing.assert_allclose(value, everything[name][:, :count], atol=1e-6)


@pytest.mark.parametrize("name", ["aliked-t16", "xfeat"])
def test_openvino_finds_the_same(exported: Exported, photograph, name):
    openvino = pytest.importorskip("openvino")
    features, model = PUBLISHED[name]
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(exported.extractor_file(features, model=model)), "CPU", options)
    for size in SIZES:
        image = cut(photograph, size)
        inputs = {"image": image.numpy(), "max_keypoints": np.array(300), "min_score": np.array(0, np.float32)}
        found = dict(zip(EXTRACTOR_OUTPUTS, compiled(inputs).values(), strict=True))
        assert_same(found, torch_finds(exported.extractor(features, model), image))


# -- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_file_is_valid_and_needs_standard_operators_only(exported: Exported, name):
    features, model = PUBLISHED[name]
    file = onnx.load(exported.extractor_file(features, model=model))
    onnx.checker.check_model(file, full_check=True)
    assert {node.domain for node in file.graph.node} == {""}
    assert "DeformConv" not in {node.op_type for node in file.graph.node}  # which OpenVINO does not have


def test_the_same_extractor_gives_the_same_bytes(exported: Exported, tmp_path):
    for name in ("first", "second"):
        write_extractor(exported.extractor("xfeat"), tmp_path / f"{name}.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_a_file_says_what_it_is(exported: Exported, tmp_path):
    description = write_extractor(exported.extractor("aliked", "aliked-t16"), tmp_path / "t16.onnx")
    published = FILES["aliked-t16"]
    assert (description.kind, description.format, description.features) == ("extractor", "ours", "aliked-t16")
    assert (description.weights, description.weights_sha256) == ("aliked-t16", published.sha256)
    assert description.licence == published.licence
    assert json.loads(description.preprocess) == ALIKED.preprocess_conf
    file = onnx.load(tmp_path / "t16.onnx")
    assert {each.key: each.value for each in file.metadata_props} == description.to_properties()


def test_weights_that_were_tensors_are_known_by_their_contents(tmp_path):
    first = write_extractor(small_superpoint(), tmp_path / "a.onnx")
    again = write_extractor(small_superpoint(), tmp_path / "b.onnx")
    other = write_extractor(open_superpoint(), tmp_path / "c.onnx")
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert (first.weights, first.licence) == ("tensors", "unknown")


def test_colmaps_format_has_its_names_order_ranks_and_types(exported: Exported, photograph):
    file = session(exported.extractor_file("aliked", "colmap", "aliked-t16"))
    inputs = [(each.name, len(each.shape), each.type) for each in file.get_inputs()]
    assert inputs == [
        ("image", 4, "tensor(float)"),
        ("max_keypoints", 0, "tensor(int64)"),
        ("min_score", 0, "tensor(float)"),
    ]
    outputs = [(each.name, each.shape[0], each.shape[2:], each.type) for each in file.get_outputs()]
    assert outputs == [
        ("keypoints", 1, [2], "tensor(float)"),
        ("descriptors", 1, [64], "tensor(float)"),
        ("scores", 1, [], "tensor(float)"),
    ]
    image = cut(photograph, (96, 160))
    found = run(file, image)
    ours = run(session(exported.extractor_file("aliked", model="aliked-t16")), image)
    pixels = (found["keypoints"] + 1) / 2 * np.array([159, 95])  # as COLMAP takes them back, but for its half pixel
    np.testing.assert_allclose(pixels, ours["keypoints"], atol=1e-4)
    np.testing.assert_array_equal(found["descriptors"], ours["descriptors"])
    np.testing.assert_array_equal(found["scores"], ours["keypoint_scores"])


# -- what is refused -------------------------------------------------------------------------------------------------


def test_detectors_that_are_no_networks_are_refused_with_a_remedy(tmp_path):
    with pytest.raises(InputError, match=r"SIFT cannot be written.*OpenCV or pycolmap"):
        write_extractor(SIFT(), tmp_path / "sift.onnx")
    for features in ("sift", "doghardnet"):
        with pytest.raises(InputError, match=f"lightglue export matcher --features {features}"):
            ExtractorSource(features)


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    path = tmp_path / "refused.onnx"
    hooked, trained = XFeat(), XFeat()
    hooked.network.block1[0].register_forward_hook(lambda *_: None)
    trained.train()
    for extractor in (hooked, trained, XFeat().half()):
        with pytest.raises(ModelError, match=r"XFeat.*hook.*\.eval\(\)\.float\(\)"):
            write_extractor(extractor, path)
    with pytest.raises(InputError, match="format colmap is for ALIKED"):
        write_extractor(XFeat(), path, format="colmap")
    with pytest.raises(InputError, match="sort_by_ranker"):
        write_extractor(seeded_raco(sort_by_ranker=True), path)
    with pytest.raises(InputError, match="descriptor=None"):
        write_extractor(seeded_raco(descriptor=None), path)
    assert not path.exists()


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_file_and_says_what_it_is(tmp_path):
    path = tmp_path / "t16.onnx"
    done = lightglue("export", "extractor", "--model", "aliked-t16", "-o", path, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["kind"], report["features"], report["output"]) == ("extractor", "aliked-t16", str(path))
    assert report["bytes"] == path.stat().st_size


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--features", "sift"], "finds keypoints without a network"),
        (["--features", "disk", "--model", "aliked-n32"], "a network of ALIKED"),
        (["--features", "disk", "--format", "colmap"], "colmap reads ALIKED alone"),
        (["--features", "raco-aliked"], "RaCo needs weights"),
    ],
)
def test_the_command_refuses_with_a_remedy(words: list[str], said: str, tmp_path: Path):
    done = lightglue("export", "extractor", *words, "-o", tmp_path / "x.onnx")
    assert done.code in (1, 2)
    assert said in plain(done.err)
    assert not list(tmp_path.iterdir())
