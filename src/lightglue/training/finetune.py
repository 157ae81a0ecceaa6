"""A matcher made better for one's own images, if that is possible: trained within a time, and kept only if better.

RUN is the folder of a training run, with

    held_out.json, held_out/ the pairs that both are judged by, of images that were not trained on
    before.safetensors       the matcher that there was
    judge/before, judge/after
    weights.safetensors      the better one: the trained one, or the one that there was
    finetune.json            the verdict, with every figure
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from lightglue.errors import InputError
from lightglue.evaluation.compare import Comparison, compare, to_json, to_text
from lightglue.evaluation.records import Run
from lightglue.matching import checkpoint
from lightglue.matching.lightglue import LightGlue
from lightglue.models.choice import Models
from lightglue.models.registry import feature_type
from lightglue.support.files import write_whole, writing
from lightglue.training.estimate import check_time
from lightglue.training.finetune_options import FinetuneOptions
from lightglue.training.folder import refuse_others
from lightglue.training.held_out import MANIFEST, PICTURES, write_held_out
from lightglue.training.judge_options import JudgeOptions
from lightglue.training.judging import BenchmarkJudge, make_judge
from lightglue.training.options import TrainingOptions, from_tables
from lightglue.training.run import WRITTEN as OF_A_RUN
from lightglue.training.run import train
from lightglue.training.samples import PoolSamples, open_samples
from lightglue.training.sources.model import model_folders
from lightglue.training.watching import TrainingProgress, silent
from lightglue.weights import resolve_or_own

__all__ = ["FinetuneOptions", "FinetuneResult", "finetune"]

Verdict = Literal["better", "no difference", "worse"]
LEAST_SCENES = 6  # of which the bootstrap draws whole ones
JUDGED_KEYPOINTS = 1024  # of each image held out, at least
LEAST_PAIRS = 6  # that must have changed before a sign test can tell a difference at 95 %
AFTERWARDS = 1.5  # times that judging the old weights took, which judging the new ones is given
FITTING = 0.1  # share of the time that fitting may take
FIT_PAIRS = (20, 500)  # pairs that are fitted to: at least, at most
LEAST_MINUTES = 0.05  # of training, however little time is left
WRITTEN = (*OF_A_RUN, MANIFEST, PICTURES, "plan.json", "weights.safetensors", "finetune.json")


@dataclass(frozen=True)
class FinetuneResult:
    """What came of it."""

    verdict: Verdict
    weights: Path  # the better ones
    comparisons: dict[str, Comparison]  # held_out, and each manifest
    figures: dict[str, tuple[float, float]]  # the deciding AUC of each, before and after, in percent
    step: int

    def text(self) -> str:
        """For people."""
        return "\n".join(to_text(each) for each in self.comparisons.values())


def finetune(
    source: Path,
    folder: Path,
    options: FinetuneOptions,
    *,
    progress: TrainingProgress = silent,
    say: Callable[[str], None] = lambda text: None,
) -> FinetuneResult:
    """Fine-tune a matcher on a folder of images, a COLMAP model or a map.

    Images or scenes are held out, and the matcher is judged on them before and after, pair by pair, by the paired
    bootstrap over images (by pair where there are few). Better is what is better beyond chance there, and not worse on
    any manifest of `also`. Otherwise the weights that there were are kept.

    Called again with the same folder it goes on where it was interrupted.

    Raises InputError for options, images and folders that do not fit, and where by an estimate the time would be up
    before there is any training.
    """
    began = time.monotonic()
    folder = Path(folder)
    kind = _kind_of(Path(source))
    refuse_others(folder, WRITTEN, is_ours=(folder / "before.safetensors").is_file())
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    is_begun = any((folder / "checkpoints").glob("[0-9]*"))
    old = _before(folder, options, is_begun)
    training = _training_options(Path(source), kind, old, options)
    if not (folder / "plan.json").is_file():
        check_time(training, folder, old, options, JUDGED_KEYPOINTS, say)
    samples = cast(
        PoolSamples,
        open_samples(
            training.data,
            training.features,
            folder / "pool",
            options.seed,
            progress=lambda stage, done, total: progress(stage, done, total, ""),
        ),
    )
    manifest = folder / MANIFEST
    if not (is_begun and manifest.is_file()):  # what an earlier call left may be of other images
        manifest = write_held_out(samples, folder, max(options.keypoints, JUDGED_KEYPOINTS), options.pairs)
    judge = _judge(training, (manifest, *options.also), folder, options)
    pairs = _enough_pairs(judge, manifest)
    say("judging the weights that there are")
    start = time.monotonic()
    before = judge.runs(old, "before")
    judging = time.monotonic() - start
    plan = _plan(folder, options, is_begun, time.monotonic() - began, judging, pairs)
    minutes = plan["minutes"]
    if (asked := plan.get("asked", options.minutes)) != options.minutes:
        say(
            f"warning: this run was begun with {asked:g} minutes and ends with them; for more, start another with "
            f"--init-from {folder / 'weights.safetensors'}"
        )
    training = replace(
        training,
        run=replace(training.run, minutes=minutes, steps=None),
        judge=replace(training.judge, fit_pairs=int(plan["fit_pairs"])),
    )
    say(f"training for {minutes:.1f} min; Ctrl-C saves, and the same command goes on")
    result = train(training, folder, resume=is_begun, samples=samples, progress=progress, say=say)
    new = result.weights
    if not new.is_file():
        say("warning: there was no time for a single step; give more minutes")
        new = old
    after = judge.runs(new, "after")
    return _conclude(folder, old, new, result.step, judge, before, after)


def _kind_of(source: Path) -> str:
    """What kind of source a folder is. Raises InputError for none."""
    if not source.is_dir():
        raise InputError(f"{source} {'is a file' if source.exists() else 'does not exist'}; name a folder of images.")
    try:
        model_folders(source)
        return "model"
    except InputError:
        return "images"


def _training_options(source: Path, kind: str, old: Path, options: FinetuneOptions) -> TrainingOptions:
    """Those of preset "finetune" with what is asked for, and the network that there was."""
    description = checkpoint.read_description(old)
    assert description is not None
    shape = description.config
    over: dict[str, Any] = {
        "preset": "finetune",
        "data": {
            "sources": [{"kind": kind, "path": str(source.absolute())}],
            "validation": options.held_out,
            "views": options.views,
            "seed": options.seed,
        },
        "features": {"type": options.features, "keypoints": options.keypoints, "device": options.device},
        "network": {
            "init_from": options.init_from or _usual(_matcher(options)),
            "layers": shape["n_layers"],
            "width": shape["descriptor_dim"],
            "heads": shape["num_heads"],
            "add_scale_ori": shape["add_scale_ori"],
        },
        "run": {"batch": options.batch, "seed": options.seed, "device": options.device},
    }
    if options.lr is not None:
        over["optimiser"] = {"lr": options.lr}
    return from_tables(over)


def _matcher(options: FinetuneOptions) -> str:
    """The matcher's feature type. Raises InputError where there is none."""
    found = feature_type(options.features).matcher
    if found is None:
        raise InputError(f"LightGlue has no weights for features {options.features!r}; use `lightglue train`.")
    return found


def _usual(matcher: str) -> str:
    """The name of the weights that a matcher has where none are named."""
    return resolve_or_own(str(LightGlue.features[matcher]["weights"]))


def _before(folder: Path, options: FinetuneOptions, is_begun: bool) -> Path:
    """A self-describing file of the weights that there are. Raises WeightsError where they are for other features."""
    path = folder / "before.safetensors"
    if not (is_begun and path.is_file()):  # what an earlier call left may be of others
        start = options.init_from
        given = None if start is None else Models(options.features, weights=start).own
        if given is not None and given.is_described:
            write_whole(path, given.path.read_bytes())
        else:
            LightGlue(cast(Any, _matcher(options)), weights=start).save(path)
    return path


def _judge(
    training: TrainingOptions, manifests: tuple[Path, ...], folder: Path, options: FinetuneOptions
) -> BenchmarkJudge:
    judge = make_judge(JudgeOptions(tuple(map(str, manifests))), training.features, folder, options.device)
    assert judge is not None
    return judge


def _enough_pairs(judge: BenchmarkJudge, manifest: Path) -> int:
    """How many pairs are judged by. Raises InputError where they are too few to tell any difference."""
    held_out = len(judge.benchmarks[manifest.stem].pairs)
    if held_out < LEAST_PAIRS:
        raise InputError(
            f"{held_out} pair{'s are' if held_out != 1 else ' is'} held out, and no difference can be told by fewer "
            f"than {LEAST_PAIRS}: hold out a larger share, allow more pairs, or give more images."
        )
    return sum(len(each.pairs) for each in judge.benchmarks.values())


def _plan(
    folder: Path, options: FinetuneOptions, is_begun: bool, spent: float, judging: float, pairs: int
) -> dict[str, float]:
    """Minutes of training and pairs to fit to: as they were planned where it has begun, so that it is the same run.

    spent, judging: seconds so far, and for `pairs` pairs, of which each took at least what it takes to fit to it.
    """
    path = folder / "plan.json"
    if is_begun and path.is_file():
        return dict(json.loads(path.read_text("utf-8")))
    each = judging / pairs
    fit_pairs = min(max(int(FITTING * 60 * options.minutes / each), FIT_PAIRS[0]), FIT_PAIRS[1])
    left = options.minutes - (spent + AFTERWARDS * judging + fit_pairs * each) / 60
    plan = {"asked": options.minutes, "minutes": max(left, LEAST_MINUTES), "fit_pairs": fit_pairs}
    write_whole(path, json.dumps(plan).encode())
    return plan


def _conclude(
    folder: Path, old: Path, new: Path, step: int, judge: BenchmarkJudge, before: dict[str, Run], after: dict[str, Run]
) -> FinetuneResult:
    comparisons = {name: _compared(before[name], after[name]) for name in before}
    figures = {name: (judge.figure(before[name]), judge.figure(after[name])) for name in before}
    verdicts = [_verdict(comparisons[name], judge, after[name]) for name in before]
    verdict: Verdict = verdicts[0]
    if "worse" in verdicts[1:]:
        verdict = "worse"
    weights = folder / "weights.safetensors"
    write_whole(weights, (new if verdict == "better" else old).read_bytes())
    told = {
        "verdict": verdict,
        "kept": "trained" if verdict == "better" else "before",
        "step": step,
        "sets": {
            name: {
                "before": figures[name][0],
                "after": figures[name][1],
                "verdict": each,
                "comparison": json.loads(to_json(comparisons[name])),
            }
            for name, each in zip(before, verdicts, strict=True)
        },
    }  # fmt: skip
    write_whole(folder / "finetune.json", json.dumps(told, indent=1).encode())
    return FinetuneResult(verdict, weights, comparisons, figures, step)


def _compared(before: Run, after: Run) -> Comparison:
    """By scene, which here is an image, where there are enough: its views are no independent witnesses."""
    scenes = {record.scene for record in before.records}
    return compare(before, after, by="scene" if len(scenes) >= LEAST_SCENES else "pair")


def _verdict(comparison: Comparison, judge: BenchmarkJudge, run: Run) -> Verdict:
    """Of the figure that decides."""
    decides = judge.decisive(run)
    found = next(each for each in comparison.differences if each.statistic == decides)
    return cast(Verdict, {"better": "better", "worse": "worse"}.get(found.verdict, "no difference"))
