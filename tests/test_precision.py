"""Reduced precision is used where the device is fast at it."""

from __future__ import annotations

import pytest
import torch

from lightglue.support import precision


@pytest.mark.parametrize(
    ("device", "mp", "fast", "expected"),
    [
        ("cpu", False, True, None),
        ("cpu", True, True, torch.bfloat16),
        ("cpu", True, False, None),
        ("cuda", True, False, torch.float16),
        ("cuda", False, True, None),
        ("mps", True, False, torch.float16),
    ],
)
def test_reduced_precision_is_chosen_by_what_the_device_can_do(device, mp, fast, expected, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_fast_bfloat16", lambda: fast)
    assert precision.product_dtype(torch.device(device), mp) == expected
