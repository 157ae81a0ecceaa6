"""Videos: even frames of which each is the sharpest of its window, taken once, named in order, mapped as a sequence."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest

from lightglue.errors import ImageError, InputError
from lightglue.images.video import Video, is_video, sharpness
from lightglue.matching.nearest import NearestNeighbor
from lightglue.models.choice import Models
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.options import ExtractOptions, FrameOptions, ReconstructOptions, SfmOptions
from lightglue.sfm.pipeline import build_map
from lightglue.sfm.stages.frames import take_frames
from lightglue.sfm.stages.pairs import read_pairs
from support import ASSETS
from support.child import run_python
from support.command import lightglue

PHOTOGRAPH = cv2.resize(cv2.imread(str(ASSETS / "montmartre_close.jpg")), (640, 438), interpolation=cv2.INTER_AREA)
RATE = 10
BLURRED = (5, 6, 15)  # numbers of frames
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


def frame(number: int) -> Any:
    """The camera pans to the right by 4 px a frame."""
    pixels = PHOTOGRAPH[50:290, 4 * number : 4 * number + 320]
    return cv2.GaussianBlur(pixels, (0, 0), 4) if number in BLURRED else pixels


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames, 10 a second: the bundled photograph, panned."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (320, 240))
    if not writer.isOpened():
        pytest.skip("needs an OpenCV that writes videos")
    for number in range(40):
        writer.write(np.ascontiguousarray(frame(number)))
    writer.release()
    return path


def numbers(names: tuple[str, ...]) -> list[int]:
    return [int(name.removesuffix(".jpg").rpartition("_")[2]) for name in names]


def test_frames_are_even_named_in_order_and_the_sharpest_of_their_windows(clip, tmp_path):
    done = take_frames(clip, tmp_path / "frames", FrameOptions(fps=1))
    assert done.names == tuple(sorted(os.listdir(tmp_path / "frames"))[:-1])  # and frames.json
    found = numbers(done.names)
    assert len(found) == 4
    for window, number in enumerate(found):
        assert 10 * window + 2 <= number <= 10 * window + 8  # of ten, one of the middle ones
        assert number not in BLURRED
    assert (done.frames, done.stated, done.fault) == (40, 40, None)
    for name, number in zip(done.names, found, strict=True):
        pixels = cv2.imread(str(tmp_path / "frames" / name)).astype(float)
        assert np.abs(pixels - frame(number)).mean() < 6  # that very frame, but for two compressions
        assert np.abs(pixels - frame(number + 1)).mean() > 8


def test_the_sharper_of_two_images_is_the_sharper():
    assert sharpness(frame(4)) > 10 * sharpness(cv2.GaussianBlur(frame(4), (0, 0), 4))


def test_a_long_video_gives_no_more_frames_than_asked_for_and_a_short_one_all(clip, tmp_path):
    assert len(take_frames(clip, tmp_path / "few", FrameOptions(fps=10, max_frames=5)).names) == 5
    assert numbers(take_frames(clip, tmp_path / "all", FrameOptions(fps=1000)).names) == list(range(40))


def test_a_second_run_decodes_nothing_and_other_options_take_others(clip, tmp_path):
    first = take_frames(clip, tmp_path / "frames", FrameOptions(fps=2))
    with mock.patch("cv2.VideoCapture", side_effect=AssertionError("decoded")):
        again = take_frames(clip, tmp_path / "frames", FrameOptions(fps=2))
    assert (again.names, again.was_there, first.was_there) == (first.names, True, False)
    (tmp_path / "frames/notes.txt").write_text("mine")
    other = take_frames(clip, tmp_path / "frames", FrameOptions(fps=1))
    assert sorted(os.listdir(tmp_path / "frames")) == sorted([*other.names, "frames.json", "notes.txt"])
    (tmp_path / "frames" / other.names[1]).unlink()
    assert take_frames(clip, tmp_path / "frames", FrameOptions(fps=1)).names == other.names
    assert (tmp_path / "frames" / other.names[1]).is_file()


def test_a_run_that_is_killed_is_finished_by_the_next(clip, tmp_path):
    whole = take_frames(clip, tmp_path / "whole", FrameOptions(fps=5))
    script = f"""
import os, signal
from lightglue.sfm.stages import frames
written = []
real = frames.write_whole
def write(path, content):
    real(path, content)
    written.append(path)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
frames.write_whole = write
frames.take_frames({str(clip)!r}, {str(tmp_path / "cut")!r}, frames.FrameOptions(fps=5))
"""
    killed = run_python(script, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "cut").glob("*.jpg"))) == 3
    assert take_frames(clip, tmp_path / "cut", FrameOptions(fps=5)).names == whole.names
    for name in whole.names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_frames_of_another_video_or_of_unknown_origin_are_not_mixed(clip, tmp_path):
    take_frames(clip, tmp_path / "frames", FrameOptions(fps=1))
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"holds frames of clip.mp4, another file; name another folder"):
        take_frames(other, tmp_path / "frames")
    (tmp_path / "frames/frames.json").unlink()
    with pytest.raises(InputError, match=r"named like frames of clip.mp4 and no frames.json"):
        take_frames(clip, tmp_path / "frames")


def test_a_video_that_is_turned_is_taken_upright(clip, tmp_path):
    """Phones store how they were held: a matrix in the track's header."""
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # of version 0
    one = (1 << 16).to_bytes(4, "big")
    assert data[at : at + 4] == one
    less = (2**32 - (1 << 16)).to_bytes(4, "big")
    data[at : at + 20] = bytes(4) + one + bytes(4) + less + bytes(4)  # 90 degrees clockwise
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data)
    name = take_frames(turned, tmp_path / "frames", FrameOptions(fps=0.25)).names[0]
    pixels = cv2.imread(str(tmp_path / "frames" / name)).astype(float)
    expected = cv2.rotate(frame(numbers((name,))[0]), cv2.ROTATE_90_CLOCKWISE)
    assert pixels.shape == expected.shape == (320, 240, 3)
    assert np.abs(pixels - expected).mean() < 6


def test_what_is_no_video_or_a_damaged_one_is_one_error_and_a_cut_one_is_told(clip, tmp_path, capfd):
    assert is_video(clip)
    assert not is_video(ASSETS / "montmartre_close.jpg")
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(clip.read_bytes()[:2000])
    with pytest.raises(ImageError, match="damaged.mp4 cannot be read as a video.*convert it"):
        Video.open(damaged)
    assert capfd.readouterr().err == ""  # what FFmpeg says stands in the error
    run = lightglue("sfm", damaged, "-o", tmp_path / "map", "--features", "sift")
    assert run.code == 1
    assert run.err.splitlines()[-1].startswith(f"error: {damaged} cannot be read as a video")
    done = take_frames(clip, tmp_path / "frames", FrameOptions(fps=1))
    assert "it has 100 frames and 40 could be read" in str(replace(done, stated=100).fault)


def test_a_map_of_a_video_is_one_of_a_sequence_and_a_second_run_changes_nothing(clip, tmp_path):
    models = Models("sift", 300, "cpu", False)
    options = SfmOptions(
        models,
        ExtractOptions(models, {"resize": None}),
        frames=FrameOptions(fps=2),
        reconstruct=ReconstructOptions(threads=1),
    )
    with mock.patch.object(Models, "load_matcher", return_value=NearestNeighbor(ratio_threshold=0.8)):
        result = build_map(clip, tmp_path / "map", options)
        with mock.patch("cv2.VideoCapture", side_effect=AssertionError("decoded")):
            build_map(clip, tmp_path / "map", options)
    paths = MapFolder(tmp_path / "map")
    names = sorted(path.name for path in paths.frames.glob("*.jpg"))
    assert len(names) == 8
    assert set(pairwise(names)) <= set(read_pairs(paths.pairs))
    record = paths.read()
    assert record.settings["pairs"]["sources"] == ["sequential"]
    assert record.stages["frames"].counts == {"frames": 40, "taken": 8}
    assert record.stages["frames"].seconds > 0
    assert next(iter(result.seconds)) == "frames"
    assert record.images == paths.frames
    (tmp_path / "map").rename(tmp_path / "moved")
    assert MapFolder(tmp_path / "moved").read().images == tmp_path / "moved/frames"


def test_the_command_writes_frames_and_other_commands_say_what_to_do_with_a_video(clip, tmp_path):
    run = lightglue("map", "frames", clip, "-o", tmp_path / "frames", "--fps", "1", "--json")
    assert (run.code, len(json.loads(run.out)["taken"])) == (0, 4)
    again = lightglue("map", "frames", clip, "-o", tmp_path / "frames", "--fps", "1")
    assert again.out == f"4 of 40 frames, one each 1 s: {tmp_path / 'frames'}\n"
    for words in (("extract", clip, "-o", tmp_path / "out"), ("match", clip, clip)):
        told = lightglue(*words, "--features", "sift", "--no-mp")
        assert told.code == 1
        assert "is a video, not an image" in told.err
        assert "`lightglue map frames FILE -o DIR` writes its frames" in told.err
