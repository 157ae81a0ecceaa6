"""From images to a trained matcher: samples with ground truth, losses, exact resume, checkpoints, judging.

Layout: arXiv 2306.13643, section 4 and appendix, and cvg/glue-factory for what the paper leaves open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

# Public name -> the module that owns it. A closed table: tests/test_public_surface.py holds it.
_OWNERS = {
    "FinetuneOptions": "lightglue.training.finetune_options",
    "FinetuneResult": "lightglue.training.finetune",
    "Judge": "lightglue.training.contract",
    "JudgeOptions": "lightglue.training.judge_options",
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
    "make_judge": "lightglue.training.judging",
    "read_log": "lightglue.training.watching",
    "read_options": "lightglue.training.options",
    "train": "lightglue.training.run",
    "write_report": "lightglue.training.report",
}

if TYPE_CHECKING:
    from lightglue.training.contract import Judge, Judgement, Sample, Samples, Truth
    from lightglue.training.finetune import FinetuneResult
    from lightglue.training.finetune_options import FinetuneOptions
    from lightglue.training.judge_options import JudgeOptions
    from lightglue.training.judging import make_judge
    from lightglue.training.options import (
        LossOptions,
        NetworkOptions,
        OptimiserOptions,
        RunOptions,
        TrainingOptions,
        read_options,
    )
    from lightglue.training.report import write_report
    from lightglue.training.run import TrainingResult, train
    from lightglue.training.trainer import Trainer
    from lightglue.training.watching import read_log

__all__ = [
    "FinetuneOptions",
    "FinetuneResult",
    "Judge",
    "JudgeOptions",
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
    "make_judge",
    "read_log",
    "read_options",
    "train",
    "write_report",
]


__getattr__ = lazy_names(__name__, _OWNERS)
