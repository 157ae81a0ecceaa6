"""A run in a folder: options in, weights out; checkpoints on the way, from which it goes on exactly.

RUN/config.toml             all options
    log.jsonl               a line for each thing that happened
    checkpoints/000500/     see `checkpoints`
    best/weights.safetensors   with what was fitted at the end: best/fitting.json, best/worst/
    report.html
    bad_batches/            what gave a loss that is not finite
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import InputError, LightGlueError
from lightglue.matching import checkpoint as weight_files
from lightglue.support.files import write_whole, writing
from lightglue.training import toml
from lightglue.training.batches import write_batch
from lightglue.training.checkpoints import Checkpoint, Checkpoints
from lightglue.training.contract import Judge, Judgement, Samples
from lightglue.training.distributed import World, joined
from lightglue.training.fitting.finish import finish
from lightglue.training.folder import refuse_others
from lightglue.training.initialise import describe, initialise, matcher_name, network_config
from lightglue.training.judging import make_judge
from lightglue.training.options import TrainingOptions, as_toml, from_tables
from lightglue.training.report import write_report
from lightglue.training.samples import open_samples
from lightglue.training.signals import Held
from lightglue.training.trainer import Figures, Step, Trainer, check_machine
from lightglue.training.watching import Curves, Log, TrainingProgress, note_of, share, silent
from lightglue.weights import resolve
from lightglue_runtime import __version__

__all__ = ["TrainingResult", "train"]

# Options that change nothing of what is learnt, so that a run may go on with others: whether a folder that was moved
# holds the same images, the samples' fingerprint tells.
MAY_DIFFER = re.compile(
    r"run\.(log_every|checkpoint_every|keep|validate_every|validation_pairs|workers|device|tensorboard"
    r"|max_non_finite|minutes)|judge\.|data\.(pool|memory|sources\.\d+\.(path|images))|features\.device"
)
WRITTEN = ("config.toml", "log.jsonl", "report.html", "best", "bad_batches")  # in the folder of a run


@dataclass(frozen=True)
class TrainingResult:
    """What a run left."""

    folder: Path
    weights: Path  # the best ones, for LightGlue.load
    step: int
    best_step: int
    judgement: Judgement | None  # of the best ones
    validation: Figures | None  # at the end
    seconds: float  # of all parts of the run


def train(
    options: TrainingOptions,
    folder: Path,
    *,
    resume: bool = False,
    finish: bool = False,
    samples: Samples | None = None,
    judge: Judge | None = None,
    progress: TrainingProgress = silent,
    say: Callable[[str], None] = lambda text: None,
) -> TrainingResult:
    """Train, from the start or, with `resume`, from the newest checkpoint in `folder`.

    finish: not a step more; the newest checkpoint is validated, judged, fitted and reported as at the end of a run.
    `resume` may go on afterwards: with other `run.minutes`, and other `run.steps` where the schedule is constant.

    samples: by default those that the options describe. judge: decides which weights are the best, by default as
    `options.judge` says; without manifests there the last are. At the end confidence heads, calibration and overlap are
    fitted to them. progress, say: where to show how far it is, and messages. Under torchrun every process calls this.

    On SIGINT and SIGTERM the step is finished and a checkpoint written before they take effect.

    Raises InputError for options that do not fit, StoreError for what cannot be read or written, LightGlueError where
    too many steps failed. Checkpoints that were written stay.
    """
    with joined(options.run.device) as world:
        if judge is None:
            judge = make_judge(options.judge, options.features, Path(folder), options.run.device)
        run = _Run(options, Path(folder), world, judge, progress, say if world.is_first else lambda text: None)
        run.open(resume, finish)
        try:
            run.start(samples if samples is not None else run.open_samples())
            return run.finish() if finish else run.go()
        finally:
            if run.log.curves is not None:
                run.log.curves.close()


def _is_written_by_a_run(config: Path) -> bool:
    """Whether a configuration is as runs write it, whole and without a comment: then nothing is lost with it."""
    try:
        text = config.read_text("utf-8")
        return as_toml(from_tables(toml.parse(text))) == text
    except (OSError, UnicodeError, InputError):
        return False


@dataclass
class _Window:
    """Steps since the last line of the log."""

    rows: list[NDArray[np.float64]] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0  # for samples
    last: Step | None = None


class _Run:
    """One call of `train`."""

    trainer: Trainer
    samples: Samples

    def __init__(
        self,
        options: TrainingOptions,
        folder: Path,
        world: World,
        judge: Judge | None,
        progress: TrainingProgress,
        say: Callable[[str], None],
    ) -> None:
        self.options, self.folder, self.world, self.judge = options, folder, world, judge
        self.progress, self.say = progress, say
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.found: Checkpoint | None = None  # to go on from
        self.log = Log(folder / "log.jsonl", world.is_first)
        self.window = _Window()
        self.seconds = self.cpu_seconds = 0.0  # of earlier parts of the run
        self.begin, self.cpu_begin = time.monotonic(), time.process_time()
        self.best: dict[str, Any] | None = None  # step, metric, value, figures
        self.saved = 0  # step of the newest checkpoint
        self.validation: Figures | None = None

    # -- opening -------------------------------------------------------------------------------------------------

    def open(self, resume: bool, finish: bool = False) -> None:
        """Look at the folder before anything expensive is done. Raises InputError."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file; name a folder for the run.")
        steps = self.checkpoints.steps()
        if finish and not steps:
            raise InputError(f"there is no checkpoint in {self.folder} to finish; train first.")
        if not (resume or finish) and steps:
            raise InputError(
                f"{self.folder} holds a run of {steps[-1]:,} steps; go on with resume (--resume), or name another."
            )
        if not steps:
            refuse_others(self.folder, WRITTEN, is_ours=_is_written_by_a_run(self.folder / "config.toml"))
        check_machine(self.options.run, self.world)
        self.found = self.checkpoints.newest() if resume or finish else None
        if self.found is not None:
            self._check_same_options(self.found)
        elif self.options.network.init_from is not None:
            resolve(self.options.network.init_from)
        if resume and self.found is None:
            self.say(f"there is no checkpoint in {self.folder}; the run begins from the start")
        if self.world.is_first:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            if self.options.run.tensorboard:
                self.log.curves = Curves(self.folder / "tensorboard")
        self.world.wait()

    def open_samples(self) -> Samples:
        """Those that the options describe; the first process extracts features, the others wait for it."""
        samples: Samples | None = None
        for is_turn in (self.world.is_first, not self.world.is_first):
            if is_turn:
                samples = open_samples(
                    self.options.data,
                    self.options.features,
                    self.folder / "pool",
                    self.options.run.seed,
                    progress=lambda stage, done, total: self.progress(stage, done, total, ""),
                )
            self.world.wait()
        assert samples is not None
        return samples

    def start(self, samples: Samples) -> None:
        """The network, fresh or as it was. Raises InputError or StoreError."""
        self.samples, found, self.found = samples, self.found, None
        options = self.options.network
        if found is not None:
            self._check_same_samples(found)
            options = replace(options, init_from=None)  # it may be gone, and nothing of it would stay
        config = network_config(options, samples.descriptor_dim, samples.has_scale_ori)
        network, fates = initialise(options, config, samples.feature_type, self.options.run.seed)
        self.config = config
        self.trainer = Trainer(network, self.options, samples, self.world)
        if self.log.curves is not None:
            self.log.curves.begin(0 if found is None else found.step)
        if self.world.is_first:
            write_whole(self.folder / "config.toml", as_toml(self.options).encode())
        if found is None:
            self.log.cut(0)
            for line in describe(fates):
                self.say(line)
            self.log.write("start", 0, parameters=[asdict(fate) for fate in fates], **self._machine())
        else:
            self._restore(found)

    def _check_same_options(self, found: Checkpoint) -> None:
        """Raises InputError where those of the run were others."""
        try:
            before = from_tables(toml.parse(str(found.state["config"])))
        except InputError as error:
            raise InputError(
                f"{self.folder} was trained by another version of lightglue, whose options this one does not know "
                f"({error}); go on with that one, or start another run with network.init_from = {str(found.weights)!r}."
            ) from error
        now = from_tables(toml.parse(as_toml(self.options)))  # as it is read, too: 3 and 3.0 are the same
        changed = [line for line in toml.differences(before, now) if not MAY_DIFFER.match(line)]
        if now.optimiser.schedule == "constant":
            changed = [line for line in changed if not line.startswith("run.steps")]
        if changed and all(line.startswith("run.steps") for line in changed):
            raise InputError(
                f"the learning rate of {self.folder} follows the number of steps ({'; '.join(changed)}); set it back, "
                "end the run with the weights that it has by finish (--finish), or start another with "
                f"network.init_from = {str(found.weights)!r}."
            )
        if changed:
            raise InputError(
                f"{self.folder} was trained with other options ({'; '.join(changed)}); set them back, or start another "
                f"run with network.init_from = {str(found.weights)!r}."
            )

    def _check_same_samples(self, found: Checkpoint) -> None:
        """Raises InputError where those of the run were others."""
        if found.state["fingerprint"] != self.samples.fingerprint:
            raise InputError(
                f"the samples are not those that {self.folder} was trained on (fingerprint {self.samples.fingerprint}, "
                f"before {found.state['fingerprint']}); bring the images back as they were, or start another run."
            )

    def _restore(self, found: Checkpoint) -> None:
        state = found.state
        self.trainer.load(found.tensors, state["trainer"])
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]
        self.best, self.saved = state["best"] if self.judge else None, found.step
        self.log.cut(state["log_bytes"])
        for reason in found.damaged:
            self.say(f"a damaged checkpoint is passed over: {reason}")
        if (threads := torch.get_num_threads()) != state["threads"]:
            self.say(f"{threads} threads, {state['threads']} before: sums round differently from here on")
        self.log.write("resume", found.step, damaged=list(found.damaged), **self._machine())
        self.say(f"going on from step {found.step:,}")
        judged = found.folder / "judged.json"
        if self.judge is None:
            self._keep_newest(found)
        elif judged.exists():
            self._compare(found.step, Judgement(**json.loads(judged.read_text())), found.weights)
        elif self._judge_due():
            self._judge()

    def _machine(self) -> dict[str, Any]:
        device = self.trainer.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return {"device": name, "threads": torch.get_num_threads(), "processes": self.world.size,
                "torch": torch.__version__, "lightglue": __version__}  # fmt: skip

    # -- the loop ------------------------------------------------------------------------------------------------

    def go(self) -> TrainingResult:
        """Step after step until the end."""
        trainer = self.trainer
        with Held(lambda: self.say("finishing the step and saving; Ctrl-C again ends at once, without")) as held:
            try:
                batches = trainer.batches()
                while (done := self._done()) < 1:
                    begin = time.monotonic()
                    drawn = next(batches)
                    waited = time.monotonic() - begin
                    with held:
                        step = trainer.run_step(drawn, done)
                    self._note(step, time.monotonic() - begin, waited)
                    self._after_step(held)
            except (KeyboardInterrupt, SystemExit, LightGlueError):
                # Between steps the state is whole; in one it cannot be interrupted.
                if held.is_broken:
                    newest = max(self.checkpoints.steps(), default=0)
                    self.say(f"the step was cut off and nothing saved; --resume goes on from step {newest:,}")
                elif trainer.step > self.saved:
                    with held:
                        self._save()
                        self.say(f"saved at step {trainer.step:,}; --resume goes on from there, --finish ends with it")
                raise
        return self.finish()

    def elapsed(self) -> float:
        """Seconds of the run, earlier parts included."""
        return self.seconds + time.monotonic() - self.begin

    def _done(self) -> float:
        """Share of the run that is done, the same in all processes."""
        run, shares = self.options.run, []
        if run.steps is not None:
            shares.append(self.trainer.step / run.steps)
        if run.minutes is not None:
            shares.append(self.world.agreed(self.elapsed() / (60 * run.minutes), self.trainer.device))
        return max(shares)

    def _note(self, step: Step, seconds: float, waited: float) -> None:
        window, trainer = self.window, self.trainer
        if step.is_good:
            window.rows.append(step.rows)
        else:
            self._keep_bad(step)
        window.seconds, window.waited, window.last = window.seconds + seconds, window.waited + waited, step
        if trainer.step % self.options.run.log_every and trainer.step != self.options.run.steps:
            return
        figures = self._gather(window)
        rate = self.options.run.batch * len(window.rows) / max(window.seconds, 1e-9)
        if figures is not None:
            self.log.write("step", trainer.step, **asdict(figures), lr=step.lr, norm=step.norm, pairs_per_second=rate,
                           waiting=window.waited / max(window.seconds, 1e-9), seconds=self.elapsed(),
                           cpu_seconds=self._cpu())  # fmt: skip
            self._show(note_of(figures.loss, figures.precision, figures.recall, rate))
        self.window = _Window()

    def _show(self, note: str) -> None:
        run = self.options.run
        if not self.world.is_first:
            return
        if run.minutes is None:
            self.progress("training", self.trainer.step, run.steps, note)
        else:
            self.progress("training", min(int(1000 * self._done()), 1000), 1000, f"step {self.trainer.step:,} {note}")

    def _gather(self, window: _Window) -> Figures | None:
        """Figures of a window over all processes; None where every step failed."""
        width = 5 + len(self.trainer.network.transformers)
        own = np.concatenate(window.rows) if window.rows else np.zeros((0, width))
        if self.world.size > 1:
            # Sums suffice, as all figures are means or ratios of sums.
            sums = torch.tensor([*own.sum(0), len(own)], dtype=torch.float32, device=self.trainer.device)
            self.world.sum_([sums])
            total = sums.cpu().double().numpy()
            count = int(total[-1])
            own = np.repeat(total[None, :-1] / max(count, 1), count, 0)
        return Figures.of(own) if len(own) else None

    def _keep_bad(self, step: Step) -> None:
        """Write what gave no finite loss, say so, and give up after too many."""
        trainer, run = self.trainer, self.options.run
        paths = []
        for i, batch in enumerate(step.batches):
            path = self.folder / "bad_batches" / f"{trainer.step:06d}-{self.world.rank}-{i}.npz"
            write_batch(path, batch, step=trainer.step, norm=step.norm)
            paths.append(str(path.relative_to(self.folder)))
        numbers = [k for batch in step.batches for k in batch.numbers]
        self.log.write("non_finite", trainer.step, samples=numbers, files=paths, norm=step.norm)
        self.say(
            f"warning: step {trainer.step:,}: the loss is not finite and the step is skipped; its batch is in "
            f"{', '.join(paths) or 'bad_batches'}"
        )
        if trainer.bad >= run.max_non_finite:
            raise LightGlueError(
                f"{trainer.bad} steps gave a loss that is not finite; look at {self.folder / 'bad_batches'}. A lower "
                'optimiser.lr, optimiser.clip above 0, or run.precision = "float32" may help.'
            )

    def _cpu(self) -> float:
        return self.cpu_seconds + time.process_time() - self.cpu_begin

    # -- after a step --------------------------------------------------------------------------------------------

    def _after_step(self, held: Held) -> None:
        step, run = self.trainer.step, self.options.run
        if run.validate_every and step % run.validate_every == 0:
            self._validate()
        if step % run.checkpoint_every == 0 or self._judge_due():
            with held:
                self._save()
        if self._judge_due():
            self._judge()

    def _judge_due(self) -> bool:
        every = self.judge.every if self.judge else 0
        return bool(every) and self.trainer.step > 0 and self.trainer.step % every == 0

    def _validate(self) -> Figures:
        count = min(self.samples.num_validation, self.options.run.validation_pairs)
        every = self.samples.num_validation / max(count, 1)  # spread over all of them
        self.validation = figures = self.trainer.validate([int(i * every) for i in range(count)])
        self.log.write("validation", self.trainer.step, **asdict(figures), seconds=self.elapsed())
        if count:
            self.say(
                f"step {self.trainer.step:,}, {count} validation pairs: loss {figures.loss:.3f}, "
                f"precision {share(figures.precision)}, recall {share(figures.recall)}"
            )
        return figures

    def _save(self) -> None:
        """Write a checkpoint, and where nobody judges, the best weights."""
        step = self.trainer.step
        self.saved = step
        if not self.world.is_first:
            return
        state = {
            "config": as_toml(self.options),
            "fingerprint": self.samples.fingerprint,
            "trainer": self.trainer.state(),
            "seconds": self.elapsed(),
            "cpu_seconds": self._cpu(),
            "log_bytes": self.log.size,
            "best": self.best,
            "threads": torch.get_num_threads(),
        }
        folder = self.checkpoints.write(step, self._save_weights, self.trainer.tensors(), state)
        if self.judge is None:
            self._keep_best(folder / "weights.safetensors")
        self.checkpoints.prune(self.options.run.keep)

    def _save_weights(self, path: Path) -> None:
        """A file for LightGlue.load, with the record of its training."""
        kind = self.samples.feature_type
        record = {
            "step": self.trainer.step,
            "pairs": self.trainer.step * self.options.run.batch,
            "feature_type": kind,
            "seconds": round(self.elapsed(), 1),
            "cpu_seconds": round(self._cpu(), 1),
            "samples": self.samples.fingerprint,
            "config": as_toml(self.options),
            **self._machine(),
        }
        weight_files.save(
            path, self.trainer.best_network, replace(self.config, flash=True), matcher_name(kind), None, record=record
        )

    def _judge(self) -> None:
        """Judge the newest checkpoint, and keep its weights if they are the best."""
        assert self.judge is not None
        if self.world.is_first:
            folder = self.checkpoints.path(self.trainer.step)
            judgement = self.judge(folder / "weights.safetensors", self.trainer.step)
            write_whole(folder / "judged.json", json.dumps(asdict(judgement)).encode())
            self._compare(self.trainer.step, judgement, folder / "weights.safetensors")
        self.world.wait()

    def _compare(self, step: int, judgement: Judgement, weights: Path) -> None:
        is_best = self.best is None or not judgement.value <= self.best["value"] or step == self.best["step"]
        self.log.write("judgement", step, metric=judgement.metric, value=judgement.value,
                       figures=dict(judgement.figures), best=is_best)  # fmt: skip
        self.say(f"step {step:,}: {judgement.metric} {judgement.value:.4g}{', the best so far' if is_best else ''}")
        if is_best and not math.isnan(judgement.value):
            self.best = {"step": step, **asdict(judgement)}
            self._keep_best(weights)

    def _keep_newest(self, found: Checkpoint) -> None:
        """Without a judge the last weights are the best: a kill, or an earlier end, may have left older ones."""
        best = self.folder / "best" / "weights.safetensors"
        description = weight_files.read_description(best) if best.exists() else None
        kept = None if description is None else (description.record or {}).get("step")
        if self.world.is_first and kept != found.step:
            self._keep_best(found.weights)

    def _keep_best(self, weights: Path) -> None:
        write_whole(self.folder / "best" / "weights.safetensors", weights.read_bytes())

    def _fit(self) -> None:
        """Fit to the best weights what is fitted at the end, unless it was, and write the report."""
        judge, weights = self.options.judge, self.folder / "best" / "weights.safetensors"
        if self.world.is_first and judge.fit:
            show = self.progress
            try:
                found = weight_files.read_description(weights)
                if found is not None and found.fitted is None:
                    fitted = finish(weights, self.samples, judge, device=self.trainer.device,
                                    progress=lambda stage, done, total: show(stage, done, total, ""))  # fmt: skip
                    self.log.write("fitting", self.trainer.step, **asdict(fitted), seconds=self.elapsed())
            except LightGlueError as error:  # the weights are good without
                self.say(f"warning: confidence, calibration and overlap were not fitted: {error}")
        self.world.wait()

    def finish(self) -> TrainingResult:
        """The last checkpoint, validation and judgement."""
        trainer = self.trainer
        if trainer.step > self.saved:
            self._save()
        if self.validation is None or trainer.step % max(self.options.run.validate_every, 1):
            self._validate()
        if self.judge is not None and (self.best is None or not self._judge_due()):
            self._judge()
        self._fit()
        best_step = self.best["step"] if self.best else trainer.step
        judgement = None
        if self.best:
            judgement = Judgement(self.best["metric"], self.best["value"], self.best["figures"])
        self.log.write("end", trainer.step, best_step=best_step, seconds=self.elapsed(), cpu_seconds=self._cpu())
        if self.world.is_first:
            write_report(self.folder)
        return TrainingResult(
            self.folder, self.folder / "best" / "weights.safetensors", trainer.step, best_step, judgement,
            self.validation, self.elapsed(),
        )  # fmt: skip
