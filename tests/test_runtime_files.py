"""Files that a user may take for a model: each is refused before a runtime sees it, with what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lightglue_runtime.errors import LightGlueError, ModelError
from lightglue_runtime.matcher import Matcher
from lightglue_runtime.model_file import ModelFile
from support.tiny_models import write_extractor, write_matcher


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_matcher(tmp_path_factory.mktemp("models") / "aliked.onnx")


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Matcher.open(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_file_says_what_it_is(model):
    file = ModelFile.read(model)
    assert (file.description.kind, file.description.features) == ("matcher", "aliked")
    assert file.inputs["desc1"] == (1, "N", 4)
    assert list(file.outputs) == ["matches0", "mscores0", "stop", "prune0", "prune1"]
    assert file.outputs["stop"] == ()
    assert len(file.sha256()) == 64


def test_what_is_read_is_what_the_library_of_the_format_reads(model):
    import onnx

    loaded, file = onnx.load(model), ModelFile.read(model)
    assert list(file.inputs) == [each.name for each in loaded.graph.input]
    assert file.description.to_properties() == {each.key: each.value for each in loaded.metadata_props}


def test_a_file_that_is_not_there(tmp_path):
    assert "`lightglue export` writes one" in refused(tmp_path / "a.onnx")


def test_a_folder(tmp_path):
    assert "name the .onnx file in it" in refused(tmp_path)


CONTENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "image": (lambda: b"\xff\xd8\xff\xe0" + bytes(100), "JPEG image"),
    "png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG image"),
    "checkpoint": (lambda: b"PK\x03\x04" + bytes(1000), "checkpoints"),
    "pickle": (lambda: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "checkpoints"),
    "git-lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "fetch the file itself"),
    "openvino": (lambda: b"<?xml version='1.0'?><net/>", ".onnx file"),
    "onnxruntime": (lambda: b"\x18\x00\x00\x00ORTM" + bytes(50), "the ONNX file that it was made of"),
    "text": (lambda: b"There is no such thing here, said the server.\n" * 20, "no ONNX file"),
    "safetensors": (lambda: b"\x40\x00\x00\x00\x00\x00\x00\x00{" + b" " * 100, "no ONNX file"),
    "zeros": (lambda: bytes(1000), "no ONNX file"),
    "one byte": (lambda: b"\x08", "no ONNX file"),
    "a version alone": (lambda: b"\x08\x0a", "is cut off"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_another_file_is_named_for_what_it_is(name, tmp_path):
    content, words = CONTENTS[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(content())
    assert words in refused(path)


def test_a_file_cut_off_anywhere_is_refused(model, tmp_path):
    content = model.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            ModelFile.read(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_cut_off_file_is_called_so(share, model, tmp_path):
    content = model.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(share * len(content))])
    assert "is cut off" in refused(path) or share == 0.8  # there the metadata begins


def test_a_model_of_somebody_else_is_refused(model, tmp_path):
    import onnx

    loaded = onnx.load(model)
    del loaded.metadata_props[:]
    path = tmp_path / "foreign.onnx"
    onnx.save(loaded, path)
    assert "was not written by `lightglue export`" in refused(path)


def test_a_file_of_another_version_says_which(tmp_path):
    path = write_matcher(tmp_path / "later.onnx", format_version="7")
    message = refused(path)
    assert "version 7" in message
    assert "reads 1" in message


@pytest.mark.parametrize("field", ["thresholds", "overlap"])
@pytest.mark.parametrize("text", ["{broken", "7", ""])
def test_metadata_that_cannot_be_read_is_damaged(field, text, tmp_path):
    path = write_matcher(tmp_path / "damaged.onnx", **{field: text})
    assert f"damaged metadata (lightglue.{field})" in refused(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "is a device or a pipe" in refused(tmp_path / "pipe.onnx")


def test_openvino_does_without_a_cache_that_cannot_be_written(model, tmp_path):
    (tmp_path / "file").touch()
    session = Matcher.open(model, "openvino", threads=1, cache=tmp_path / "file").session()
    assert session.runtime.startswith("OpenVINO")


def test_an_extractor_is_no_matcher(tmp_path):
    path = write_extractor(tmp_path / "extractor.onnx")
    assert "is the extractor of aliked, not a matcher" in refused(path)


def test_a_format_for_other_programs_is_refused(tmp_path, model):
    import onnx

    loaded = onnx.load(model)
    for each in loaded.graph.input:
        each.name = each.name.replace("kpts", "points")
    path = tmp_path / "other.onnx"
    onnx.save(loaded, path)
    assert "lacks the input kpts0" in refused(path)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_graph_that_a_runtime_cannot_read_is_refused(runtime, tmp_path, model, capfd):
    """Whole as a file, but an operator is not there."""
    import onnx

    loaded = onnx.load(model)
    loaded.graph.node[3].op_type = "MatMal"
    path = tmp_path / "broken.onnx"
    onnx.save(loaded, path)
    with pytest.raises(ModelError, match="cannot be opened by O.*; export it again"):
        Matcher.open(path, runtime, cache=False).session()
    assert capfd.readouterr() == ("", "")


def test_every_refusal_can_be_caught_as_one_error(tmp_path):
    with pytest.raises(LightGlueError):
        ModelFile.read(tmp_path)


def test_a_name_that_no_file_can_have():
    with pytest.raises(ModelError, match="cannot be read"):
        ModelFile.read("a\0b")
