"""What the scores of matches say: `lightglue_runtime.calibration`, which exported models carry, too."""

from __future__ import annotations

from lightglue_runtime.calibration import Calibration, log_odds

__all__ = ["Calibration", "log_odds"]
