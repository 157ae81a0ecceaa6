"""Two images to matches in one file: what the package finds and matches, with one set of the extractor's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from lightglue import LightGlue, load_image
from lightglue.errors import InputError
from lightglue.export import write_pipeline
from lightglue_runtime.contract import PIPELINE_INPUTS, PIPELINE_OUTPUTS, Description
from support import ASSETS
from support.command import lightglue
from support.exported import Exported, session
from test_export_extractor import cut, torch_finds

SIZES = ((200, 256), (256, 160))  # unequal, landscape and portrait
COUNT = 256


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    names = ("montmartre_close.jpg", "montmartre_far.jpg")
    return [cut(load_image(ASSETS / name, resize=256), size) for name, size in zip(names, SIZES, strict=True)]


@pytest.fixture(scope="module")
def pipeline(exported: Exported, tmp_path_factory: pytest.TempPathFactory):
    """`pipeline("aliked")`: the file of an extractor and its matcher."""
    folder, files = tmp_path_factory.mktemp("pipelines"), dict[str, Path]()

    def get(features: str) -> Path:
        if features not in files:
            files[features] = folder / f"{features}.onnx"
            write_pipeline(exported.extractor(features), exported.matcher(features), files[features])
        return files[features]

    return get


def run(path: Path, image0: torch.Tensor, image1: torch.Tensor, count: int = COUNT, least: float = 0) -> dict[str, Any]:
    inputs = {"max_keypoints": np.array(count), "min_score": np.array(least, np.float32)}
    inputs |= {"image0": image0.numpy(), "image1": image1.numpy()}
    model = session(path)
    return dict(zip((each.name for each in model.get_outputs()), model.run(None, inputs), strict=True))


@pytest.mark.parametrize("features", ["aliked", "disk", "xfeat"])
def test_matches_and_stop_are_those_of_the_package(exported: Exported, pipeline, images, features):
    found = run(pipeline(features), *images)
    expected: Any = {}
    for side, image in enumerate(images):
        own = torch_finds(exported.extractor(features), image, COUNT)
        # In the file's order: that of equal scores may differ.
        distances = np.abs(found[f"kpts{side}"][0][:, None] - own["keypoints"]).max(-1)
        assert (distances.min(1) < 0.01).all()
        order = distances.argmin(1)
        assert len(np.unique(order)) == len(order) == len(own["keypoints"])
        size = torch.tensor([[image.shape[-1], image.shape[-2]]], dtype=torch.float32)
        tensors = {name: torch.from_numpy(own[name][order])[None] for name in ("keypoints", "descriptors")}
        expected[f"image{side}"] = {**tensors, "image_size": size}
        np.testing.assert_allclose(found[f"keypoint_scores{side}"][0], own["keypoint_scores"], atol=1e-2)
    matched = exported.matcher(features)(expected)
    assert (matched["matches0"] >= 0).sum() >= 20
    np.testing.assert_array_equal(found["matches0"], matched["matches0"][0].numpy())
    np.testing.assert_allclose(found["mscores0"], matched["matching_scores0"][0].numpy(), atol=1e-3)
    assert int(found["stop"]) == matched["stop"]


def test_images_without_keypoints_give_no_matches(pipeline, images):
    found = run(pipeline("xfeat"), *images, least=1.1)
    assert {name: value.shape for name, value in found.items()} == {
        "kpts0": (1, 0, 2), "kpts1": (1, 0, 2), "matches0": (0,), "mscores0": (0,), "stop": (),
        "keypoint_scores0": (1, 0), "keypoint_scores1": (1, 0),
    }  # fmt: skip
    black = torch.zeros(1, 3, 64, 96)
    found = run(pipeline("disk"), images[0], black)
    assert found["kpts0"].shape == (1, COUNT, 2)
    assert found["kpts1"].shape == (1, 0, 2)
    assert (found["matches0"] == -1).all()


def test_the_extractors_weights_are_in_the_file_once(exported: Exported, pipeline):
    """The file is hardly larger than its two parts; what is stored once is used by both images."""
    parts = [exported.extractor_file("disk"), exported.file("disk")]
    assert pipeline("disk").stat().st_size < sum(part.stat().st_size for part in parts) * 1.01
    graph = onnx.load(pipeline("disk")).graph
    users = [node.name for node in graph.node if "unet/path_down1/weight" in node.input]
    assert [name.partition("/")[0] for name in users] == ["image0", "image1"]


def test_a_file_is_valid_and_says_what_it_is(pipeline):
    model = onnx.load(pipeline("xfeat"))
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.input] == list(PIPELINE_INPUTS)
    assert [each.name for each in model.graph.output] == list(PIPELINE_OUTPUTS)
    properties = {each.key: each.value for each in model.metadata_props}
    description = Description.from_properties(properties, "xfeat.onnx")
    assert (description.kind, description.format, description.features) == ("pipeline", "adaptive", "xfeat")
    assert description.weights == "xfeat, xfeat-lighterglue"
    assert description.licence == "Apache-2.0"
    assert json.loads(description.preprocess) == {"resize": 1024}
    assert description.numbers()["filter_threshold"] == 0.1


def test_the_same_models_give_the_same_bytes(exported: Exported, pipeline, tmp_path):
    write_pipeline(exported.extractor("xfeat"), exported.matcher("xfeat"), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == pipeline("xfeat").read_bytes()


def test_an_extractor_and_a_matcher_that_do_not_belong_together_are_refused(exported: Exported, tmp_path):
    path = tmp_path / "refused.onnx"
    with pytest.raises(InputError, match=r"finds disk .* the matcher is for aliked .* belong together"):
        write_pipeline(exported.extractor("disk"), exported.matcher("aliked"), path)
    with pytest.raises(InputError, match=r"aliked-t16 with descriptors of 64 numbers"):
        write_pipeline(exported.extractor("aliked", "aliked-t16"), exported.matcher("aliked"), path)
    with pytest.warns(UserWarning, match="untrained"):
        oriented = LightGlue(None, input_dim=128, add_scale_ori=True, n_layers=1)
    with pytest.raises(InputError, match="needs scales and orientations"):
        write_pipeline(exported.extractor("disk"), oriented, path)
    assert not path.exists()


def test_the_command_writes_the_file(pipeline, tmp_path):
    path = tmp_path / "xfeat.onnx"
    done = lightglue("export", "pipeline", "--features", "xfeat", "-o", path, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["kind"] == "pipeline"
    assert path.read_bytes() == pipeline("xfeat").read_bytes()
    refused = lightglue("export", "pipeline", "--features", "sift", "-o", path)
    assert refused.code == 2
    assert "finds keypoints without a network" in " ".join(refused.err.split())
