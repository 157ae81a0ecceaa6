"""What the commands take where the user says nothing."""

from __future__ import annotations

from lightglue.extractors.options import RESIZE
from lightglue.models.choice import Models

__all__ = ["MAX_KEYPOINTS", "RESIZE"]

MAX_KEYPOINTS = Models.max_keypoints
