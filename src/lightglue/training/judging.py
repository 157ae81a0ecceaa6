"""Weights are judged by what they are for: poses and homographies of pairs that nobody trained on.

Never by validation recall: a public study of DeDoDe's features found it up and MegaDepth-1500's poses down.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from lightglue.errors import InputError
from lightglue.evaluation.bootstrap import Statistic
from lightglue.evaluation.datasets.manifest import load_manifest
from lightglue.evaluation.pair import Benchmark
from lightglue.evaluation.records import Run
from lightglue.evaluation.run import Job, evaluate
from lightglue.evaluation.summary import Figure, summarize
from lightglue.models.choice import Models
from lightglue.training.contract import Judgement
from lightglue.training.data_options import FeatureOptions
from lightglue.training.extraction import load_extractor
from lightglue.training.judge_options import JudgeOptions

__all__ = ["BenchmarkJudge", "make_judge"]


@dataclass(frozen=True)
class _TrainedModels(Models):
    """The extractor of a training run, perhaps the user's own, and the matcher of a weights file."""

    own_features: FeatureOptions | None = None  # for the user's own extractor

    def load_extractor(self) -> Any:
        """See `Models`."""
        if self.own_features is None:
            return super().load_extractor()
        extractor = load_extractor(self.own_features)
        if not hasattr(extractor, "try_options"):
            extractor.try_options = lambda options: None
        return extractor

    def load_matcher(self) -> Any:
        """The file says its shape and thresholds itself."""
        from lightglue.matching.lightglue import LightGlue

        options = {key: value for key, value in self.thresholds.items() if key != "weights"}
        matcher = cast(Any, LightGlue).load(self.thresholds["weights"], pruning="tuned", mp=self.with_mp(), **options)
        return matcher.eval().to(self.found_device())

    def decisive(self) -> dict[str, Any]:
        """See `Models`."""
        found = super().decisive()
        return (
            found
            if self.own_features is not None
            else {key: value for key, value in found.items() if key != "own_features"}
        )


@dataclass(eq=False)
class BenchmarkJudge:
    """Runs `lightglue.evaluation` on manifests. Features of their images are extracted once and kept."""

    options: JudgeOptions
    benchmarks: Mapping[str, Benchmark]
    features: FeatureOptions
    folder: Path  # of the records: FOLDER/STEP/BENCHMARK
    device: str = "auto"
    seen: dict[str, dict[Path, Any]] = field(default_factory=dict)  # features, by benchmark

    @property
    def every(self) -> int:
        """See `Judge`."""
        return self.options.every

    def __call__(self, weights: Path, step: int) -> Judgement:
        """See `Judge`: the mean over the manifests of the AUC that decides, in percent."""
        runs = self.runs(weights, f"{step:06d}")
        figures: dict[str, float] = {}
        values, titles = [], []
        for name, run in runs.items():
            chosen = self._chosen(run)
            values.append(chosen.value)
            titles.append(chosen.statistic.full_title)
            for each in summarize(run).headline:
                figures[f"{name}: {each.statistic.full_title}"] = each.value
            figures[f"{name}: failures"] = float(len(run.failures))
        metric = titles[0] if len(set(titles)) == 1 else "AUC"
        return Judgement(metric + (f", mean of {len(values)} sets" if len(values) > 1 else ""), _mean(values), figures)

    def runs(self, weights: Path, name: str) -> dict[str, Run]:
        """The evaluation of a weights file on every manifest, by its name, in FOLDER/name."""
        found = {}
        for key, benchmark in self.benchmarks.items():
            folder = self.folder / name / key
            shutil.rmtree(folder, ignore_errors=True)  # of other weights under the same name
            folder.parent.mkdir(parents=True, exist_ok=True)
            job = Job(self._models(weights, benchmark))
            found[key] = evaluate(benchmark, job, folder, seen=self.seen.setdefault(key, {}))
        return found

    def figure(self, run: Run) -> float:
        """The figure that decides, in percent."""
        return self._chosen(run).value

    def decisive(self, run: Run) -> Statistic:
        """What that is a figure of."""
        return self._chosen(run).statistic

    def _models(self, weights: Path, benchmark: Benchmark) -> Models:
        own = self.features if self.features.is_own else None
        return _TrainedModels(
            "aliked" if own else self.features.type,  # stands for the user's own in a closed table
            self.options.keypoints or benchmark.protocol.max_keypoints,
            self.device,
            extractor=self.features.extractor,
            thresholds={"weights": str(weights)},
            own_features=own,
        )

    def _chosen(self, run: Run) -> Figure:
        """The figure that decides. Raises InputError where the benchmark has no AUC at the threshold asked for."""
        headline = summarize(run).headline
        if self.options.threshold is None:
            return headline[0]
        chosen = [each for each in headline if each.statistic.threshold == self.options.threshold]
        if not chosen:
            known = ", ".join(f"{each.statistic.threshold:g}" for each in headline)
            raise InputError(
                f"judge.threshold is {self.options.threshold:g}, and {run.benchmark} has the AUC at {known}; choose "
                "one of these."
            )
        return chosen[0]


def make_judge(
    options: JudgeOptions, features: FeatureOptions, folder: Path, device: str = "auto"
) -> BenchmarkJudge | None:
    """The judge of a run; None where the options name no manifest. folder: that of the run.

    Raises InputError for a manifest that cannot be read or has no pairs, before anything is trained.
    """
    if not options.manifests:
        return None
    benchmarks: dict[str, Benchmark] = {}
    for path in options.manifests:
        benchmark = load_manifest(Path(path).expanduser())
        if not benchmark.pairs:
            raise InputError(f"{path} has no pairs to judge weights by.")
        stem = Path(path).stem
        key = stem if stem not in benchmarks else f"{stem}-{len(benchmarks) + 1}"
        if options.keypoints is not None:
            benchmark = replace(benchmark, protocol=replace(benchmark.protocol, max_keypoints=options.keypoints))
        benchmarks[key] = benchmark
    return BenchmarkJudge(options, benchmarks, features, Path(folder) / "judge", device)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
