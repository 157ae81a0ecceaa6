"""Tests that need a GPU."""

from __future__ import annotations

import pytest
import torch

from support import NEEDS_GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason=NEEDS_GPU)
