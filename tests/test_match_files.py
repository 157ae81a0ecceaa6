"""match_files: all that `lightglue match` does, from paths, bytes and arrays, from several threads."""

from __future__ import annotations

import io
import json
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lightglue
from lightglue import XFeat
from lightglue.cli import main
from lightglue.errors import ImageError, ImageNotFoundError, InputError
from lightglue.extractors.options import ViewOptions
from lightglue.images import load_image, read_image
from lightglue.models.choice import Models
from lightglue.models.loaded import load_models
from lightglue.pairs.files import MatchedFiles, match_files
from lightglue.pairs.options import PairOptions
from lightglue.timing import record
from support import CLOSE as A
from support import FAR as B
from support.child import run_python

MODELS = Models("xfeat", 300, device="cpu")
VIEWS = ViewOptions(resize=320)


@pytest.fixture(scope="module")
def from_paths() -> MatchedFiles:
    return match_files(A, str(B), models=MODELS, views=VIEWS, output=[".json", ".NPZ"])


def same(found: MatchedFiles, expected: MatchedFiles) -> None:
    for name, array in expected.pair.arrays().items():
        np.testing.assert_array_equal(found.pair.arrays()[name], array)


def test_it_is_public() -> None:
    assert lightglue.match_files is match_files


def test_the_record_says_what_the_command_prints(from_paths: MatchedFiles) -> None:
    script = "import sys; from lightglue.cli import main; sys.argv[0] = 'lightglue'; main()"
    options = ["--features=xfeat", "--max-keypoints=300", "--resize=320", "--device=cpu", "--json"]
    done = run_python(script, "match", A, B, *options)
    printed, summary = json.loads(done.stdout), from_paths.summary()
    for name, array in from_paths.pair.arrays().items():
        assert printed[name] == array.tolist()
    assert {**summary, "seconds": None, "precision": None} == {
        **{name: printed[name] for name in summary},
        "seconds": None,
        "precision": None,
    }
    assert len(from_paths.pair.matches) > 30
    assert str(from_paths) == str(from_paths.pair)


def test_an_ending_alone_gives_the_content_of_a_file(from_paths: MatchedFiles) -> None:
    assert set(from_paths.encoded) == {".json", ".NPZ"}
    assert from_paths.written == ()
    with np.load(io.BytesIO(from_paths.encoded[".NPZ"]), allow_pickle=False) as arrays:
        for name, values in json.loads(from_paths.encoded[".json"]).items():
            np.testing.assert_array_equal(arrays[name], values)


@pytest.mark.parametrize(
    "form",
    [
        lambda path: path.read_bytes(),
        lambda path: io.BytesIO(path.read_bytes()),
        load_image,
        read_image,
        Image.open,
    ],
    ids=["bytes", "file", "tensor", "array", "pillow"],
)
def test_every_form_of_an_image_gives_the_same(form: Any, from_paths: MatchedFiles) -> None:
    found = match_files(form(A), form(B), models=MODELS, views=VIEWS)
    if form is Image.open:  # Pillow decodes JPEG a little differently
        assert abs(len(found.pair.matches) - len(from_paths.pair.matches)) < 20
    else:
        same(found, from_paths)
    assert found.names == ("A", "B")


def test_files_are_written_and_inputs_kept(tmp_path: Path) -> None:
    outputs = [tmp_path / "r.csv", tmp_path / "r.png"]
    options = PairOptions(geometry="homography")
    found = match_files(A, A, options, models=MODELS, views=VIEWS, output=outputs, warp=tmp_path / "w.png")
    paths = [*outputs, tmp_path / "w.png", tmp_path / "w-overlay.png"]
    assert list(found.written) == [str(path) for path in paths]
    assert all(path.stat().st_size > 100 for path in paths)
    before = sorted(tmp_path.iterdir())
    for output, message in ((A, "never overwritten"), ("r.gif", "known endings"), (tmp_path, "known endings")):
        with pytest.raises(InputError, match=message):
            match_files(A, B, models=MODELS, output=output)
    assert sorted(tmp_path.iterdir()) == before


def test_an_alignment_can_be_had_as_bytes_and_is_missing_without_a_model() -> None:
    options = PairOptions(geometry="homography")
    found = match_files(A, A, options, models=MODELS, views=VIEWS, warp=".png")
    assert set(found.encoded) == {"warp.png", "warp-overlay.png"}
    assert read_image(found.encoded["warp.png"]).shape == read_image(A).shape
    blank = np.full((90, 120, 3), 128, np.uint8)
    found = match_files(blank, A, options, models=MODELS, views=VIEWS, warp=".png")
    assert (found.encoded, found.not_written) == ({}, ("warp.png", "warp-overlay.png"))
    with pytest.raises(InputError, match="warp: it needs the geometry homography"):
        match_files(A, B, models=MODELS, warp=".png")


def test_a_mask_can_be_bytes_too() -> None:
    white = np.zeros(read_image(A).shape[:2], np.uint8)
    white[:, 150:350] = 255
    buffer = io.BytesIO()
    Image.fromarray(white).save(buffer, "PNG")
    found = match_files(A, B, PairOptions(mask0=buffer.getvalue()), models=MODELS, views=VIEWS)
    x = found.pair.keypoints0[:, 0]
    assert 149.5 <= x.min() < x.max() <= 349.5
    same(found, match_files(A, B, PairOptions(mask0=white > 0), models=MODELS, views=VIEWS))


def test_images_that_probably_do_not_overlap_have_no_matches() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    loose = Models("xfeat", 300, device="cpu", thresholds={"filter_threshold": 0})
    options = PairOptions(geometry="homography", min_overlap=0.9)
    found = match_files(A, noise, options, models=loose, views=VIEWS)
    assert found.num_dropped is not None
    assert found.num_dropped > 0
    assert len(found.pair.matches) == len(found.pair.scores) == len(found.pair.points0) == 0
    assert (found.pair.matches01["matches0"] == -1).all()
    assert found.summary()["failure"] == "the images probably do not overlap"
    assert "probably no overlap" in found.texts()


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (Path("nothing.jpg"), ImageNotFoundError, "There is no image at nothing.jpg"),
        (b"<svg/>", ImageError, "The image given as bytes is not an image"),
        (np.zeros((4, 5, 2), np.uint8), InputError, "Not an image"),
        (None, InputError, "The image is a NoneType; give a file, an array, or a tensor"),
        ([A, B], InputError, "The image is a list of 2; give one image"),
    ],
)
def test_what_is_no_image_is_refused_before_any_model_is_loaded(
    image: Any, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Models, "load", lambda self: pytest.fail("models were loaded"))
    with pytest.raises(error, match=message):
        match_files(image, B, models=Models("disk", 77, device="cpu"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"output": None}, "output is None; give a path, an ending"),
        ({"output": [5]}, "output is \\[5\\]; give a path"),
        ({"output": io.BytesIO()}, "output is <_io.BytesIO.*; give a path"),
        ({"warp": ".pdf"}, "warp: .pdf has none of the known endings: .png, .jpg, .jpeg"),
        ({"options": {"refine": True}}, "options is {'refine': True}; give a PairOptions"),
        ({"models": Models("sift", device="gpu", matcher="nearest")}, "device is 'gpu'; give one that torch knows"),
        ({"models": "sift"}, "models is 'sift'; give a Models or LoadedModels"),
        ({"views": {"resize": 3}}, "views is {'resize': 3}; give a ViewOptions"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        match_files(A, B, **{"options": PairOptions(geometry="homography"), **wrong})


def test_models_are_loaded_once() -> None:
    assert load_models(MODELS) is load_models(Models("xfeat", 300, device="cpu"))
    fewer = load_models(Models("xfeat", 299, device="cpu"))
    assert load_models(MODELS) is not fewer
    assert load_models(MODELS).extractor is not fewer.extractor
    assert load_models(MODELS).matcher is fewer.matcher
    mine = load_models(MODELS)
    assert match_files(A, A, models=mine, views=VIEWS).models is mine


def test_threads_with_other_options_get_what_each_gets_alone() -> None:
    options = [
        (PairOptions(), ViewOptions(resize=320)),
        (PairOptions(auto_rotate=True), ViewOptions(resize=240)),
        (PairOptions(geometry="fundamental", refine=True), ViewOptions(resize=280)),
    ]
    alone = [match_files(A, B, asked, models=MODELS, views=views) for asked, views in options]
    together: dict[int, MatchedFiles] = {}

    def work(i: int) -> None:
        asked, views = options[i]
        together[i] = match_files(A.read_bytes(), B.read_bytes(), asked, models=MODELS, views=views)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(options))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, expected in enumerate(alone):
        same(together[i], expected)
        assert set(together[i].seconds) == {"load", "extraction", "matching"}


def test_a_recording_around_it_sees_its_steps() -> None:
    with record() as timeline:
        found = match_files(A, B, models=MODELS, views=VIEWS)
    names = [span.name for span in timeline.spans if span.depth == 0]
    assert names == ["load", "load", "load", "extraction", "extraction", "matching"]
    assert timeline.seconds("extraction") == found.seconds["extraction"] > 0


def test_the_rotation_is_looked_for_with_few_keypoints_in_the_command_as_in_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The extractor itself is asked for few keypoints of a small image, instead of most being thrown away."""
    counts: list[int] = []
    forward = XFeat.forward

    def count(self: XFeat, data: Any) -> Any:
        counts.append(self.conf.max_num_keypoints)
        return forward(self, data)

    monkeypatch.setattr(XFeat, "forward", count)
    models = Models("xfeat", 1234, device="cpu").load()
    lightglue.match_pair(*models, load_image(A), load_image(B), auto_rotate=True, resize=320)
    in_python = list(counts)
    counts.clear()
    options = ["--features=xfeat", "--max-keypoints=1234", "--resize=320", "--device=cpu", "--auto-rotate"]
    monkeypatch.setattr(sys, "argv", ["lightglue", "match", str(A), str(B), *options])
    with redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert counts == in_python
    assert counts[:2] == [256, 256]
    assert counts[-2:] == [1234, 1234]
