"""Arithmetic with denormal numbers: as zero inside, as always outside and in other threads."""

from __future__ import annotations

import platform
import sys
from threading import Thread

import numpy as np
import pytest

from lightglue_runtime.denormals import denormals_as_zero

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"
needs_support = pytest.mark.skipif(not SUPPORTED, reason="the control register is set on x86-64 Linux alone")


def product() -> float:
    """A denormal float32, where there are any."""
    return float(np.array([1e-30], np.float32) @ np.array([1e-10], np.float32))


@needs_support
def test_they_are_zero_inside_and_numbers_outside():
    assert product() > 0
    with denormals_as_zero():
        assert product() == 0
    assert product() > 0


@needs_support
def test_an_error_inside_restores_them():
    with pytest.raises(KeyError), denormals_as_zero():
        raise KeyError
    assert product() > 0


@needs_support
def test_other_threads_are_left_alone():
    found: list[float] = []
    started = Thread(target=lambda: found.append(product()))
    with denormals_as_zero():
        nested = product()
    started.start()
    started.join()
    assert nested == 0
    assert found[0] > 0


def test_normal_numbers_are_the_same_inside():
    values = np.linspace(-3, 3, 1000, dtype=np.float32)
    with denormals_as_zero():
        found = np.exp(values)
    np.testing.assert_array_equal(found, np.exp(values))
