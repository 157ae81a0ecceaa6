"""Numbers too small for full precision are 0 while a runtime computes, and nowhere else."""

from __future__ import annotations

import platform
import sys
import threading

import numpy as np
import pytest

from lightglue_runtime.denormals import flushed_denormals
from lightglue_runtime.matcher import Matcher
from support.tiny_models import features, write_matcher

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the register is set on Linux on x86-64 only"
)


def tiny() -> float:
    """A result that float32 holds only with fewer bits."""
    return float((np.full(1, 1e-38, np.float32) * np.float32(1e-3))[0])


def test_they_are_zero_within_the_block_and_come_back_after_it():
    assert tiny() > 0
    with flushed_denormals():
        assert tiny() == 0
    assert tiny() > 0


def test_they_come_back_after_an_error_and_after_blocks_in_blocks():
    with pytest.raises(ValueError, match="inside"), flushed_denormals(), flushed_denormals():
        raise ValueError("inside")
    assert tiny() > 0


def test_other_threads_keep_them():
    begin, found = threading.Event(), []

    def look() -> None:
        begin.wait()
        found.append(tiny())

    thread = threading.Thread(target=look)  # made before: a new one begins as the thread that makes it
    thread.start()
    with flushed_denormals():
        begin.set()
        thread.join()
    assert found[0] > 0


def test_a_session_of_onnx_runtime_leaves_the_callers_thread_as_it_was(tmp_path):
    write_matcher(tmp_path / "matcher.onnx")
    Matcher.open(tmp_path / "matcher.onnx", "onnx", threads=1).match(features(30, 1), features(20, 2))
    assert tiny() > 0
