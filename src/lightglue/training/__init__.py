"""From images to a trained matcher: samples with ground truth, losses, exact resume, checkpoints, judging.

Layout: arXiv 2306.13643, section 4 and appendix, and cvg/glue-factory for what the paper leaves open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

# Public name -> the module that owns it. A closed table: tests/test_public_surface.py holds it.
_OWNERS = {
    "Judge": "lightglue.training.contract",
    "Judgement": "lightglue.training.contract",
    "LossOptions": "lightglue.training.options",
    "NetworkOptions": "lightglue.training.options",
    "OptimiserOptions": "lightglue.training.options",
    "RunOptions": "lightglue.training.options",
    "Sample": "lightglue.training.contract",
    "Samples": "lightglue.training.contract",
    "Trainer": "lightglue.training.trainer",
    "TrainingOptions": "lightglue.training.options",
    "TrainingResult": "lightglue.training.run",
    "Truth": "lightglue.training.contract",
    "read_log": "lightglue.training.watching",
    "read_options": "lightglue.training.options",
    "train": "lightglue.training.run",
}

if TYPE_CHECKING:
    from lightglue.training.contract import Judge, Judgement, Sample, Samples, Truth
    from lightglue.training.options import (
        LossOptions,
        NetworkOptions,
        OptimiserOptions,
        RunOptions,
        TrainingOptions,
        read_options,
    )
    from lightglue.training.run import TrainingResult, train
    from lightglue.training.trainer import Trainer
    from lightglue.training.watching import read_log

__all__ = [
    "Judge",
    "Judgement",
    "LossOptions",
    "NetworkOptions",
    "OptimiserOptions",
    "RunOptions",
    "Sample",
    "Samples",
    "Trainer",
    "TrainingOptions",
    "TrainingResult",
    "Truth",
    "read_log",
    "read_options",
    "train",
]


__getattr__ = lazy_names(__name__, _OWNERS)
