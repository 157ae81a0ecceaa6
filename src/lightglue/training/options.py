"""All options of a training run: one frozen dataclass a section, TOML in and out. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightglue.errors import InputError
from lightglue.options import nearest_name, option
from lightglue.support.checks import check_bool, check_choice, check_int, check_real
from lightglue.support.parsers import device, integer, known, real
from lightglue.training import toml
from lightglue.training.data_options import DataOptions, FeatureOptions
from lightglue.training.judge_options import JudgeOptions

__all__ = [
    "PRESETS",
    "VERSION",
    "LossOptions",
    "NetworkOptions",
    "OptimiserOptions",
    "Overrides",
    "RunOptions",
    "TrainingOptions",
    "as_toml",
    "from_tables",
    "read_options",
]

VERSION = 1  # of the configuration's keys and of what they mean
_STEPS = integer("a number of steps from 1 to 1000000000", highest=1_000_000_000)
_MINUTES = real("a number of minutes from 0.01 to 100000", 0.01, 100_000)


def preset_name(text: str) -> str:
    """A user's text as the name of a preset. Raises InputError."""
    return known(text, PRESETS)


def _at_most_one(name: str, value: float) -> None:
    check_real(name, value, "a number from 0 to 1")
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}; give a number from 0 to 1.")


def _positive(name: str, value: float) -> None:
    check_real(name, value, "a number above 0")
    if value <= 0:
        raise InputError(f"{name} is {value!r}; give a number above 0.")


def _not_negative(name: str, value: float) -> None:
    check_real(name, value, "0 or a number above it")
    if value < 0:
        raise InputError(f"{name} is {value!r}; give 0 or a number above it.")


@dataclass(frozen=True)
class NetworkOptions:
    """What is trained, and from where it starts."""

    init_from: str | None = option(
        None,
        'Weights to start from: a name or a file, of any feature type; "none" is from scratch.',
        metavar="WEIGHTS",
    )
    input_projection: Literal["auto", "copy", "fresh"] = option(
        "auto", "Of init_from: take its input projection over. auto: if it is of these features."
    )
    layers: int = option(9, "Number of layers.")
    width: int = option(256, "Width of the tokens.")
    heads: int = option(4, "Heads of attention.")
    add_scale_ori: bool | None = option(None, "Encode scales and orientations; none: if there are any.")
    freeze: tuple[str, ...] = option((), "Names of parameters, or their beginnings, that stay as they are.")

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads"):
            check_int(name, getattr(self, name), 1, "a positive integer")
        if self.width % (2 * self.heads):
            raise InputError(f"width is {self.width}; give one that {self.heads} heads divide into even widths.")
        check_choice("input_projection", self.input_projection, ("auto", "copy", "fresh"))


@dataclass(frozen=True)
class LossOptions:
    """The paper's loss, section 3.3 and 3.4."""

    gamma: float = option(1.0, "Weight of a layer against the next: layer i of N counts gamma^(N - i).")
    positive: float = option(0.5, "Weight of the matches against that of unmatchable keypoints, 0 to 1.")
    confidence: float = option(1.0, "Weight of the confidence heads' loss; 0 leaves them untrained.")

    def __post_init__(self) -> None:
        _positive("gamma", self.gamma)
        _at_most_one("positive", self.positive)
        _not_negative("confidence", self.confidence)


@dataclass(frozen=True)
class OptimiserOptions:
    """AdamW and its learning rate."""

    lr: float = option(1e-4, "Learning rate.", parse=real("a number from 0 to 1", 0, 1))
    # Names of parameters, or their beginnings, and the learning rate of theirs: {"posenc": 1e-3}.
    lr_of: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = option(0.01, "Weight decay of matrices.")
    betas: tuple[float, float] = option((0.9, 0.999), "Decay of Adam's two averages.")
    schedule: Literal["cosine", "published", "constant"] = option(
        "cosine", "Learning rate over the run: cosine, published (constant, then steps) or constant."
    )
    warmup: int = option(100, "Steps in which the learning rate rises from 0.")
    final: float = option(0.01, "Share of the learning rate that is left at the end.")
    decay_from: float = option(0.5, "Published: share of the run after which the steps begin.")
    decay_steps: int = option(20, "Published: number of steps down.")
    clip: float = option(1.0, "Greatest norm of the gradient; 0: any.")
    ema: float = option(0.0, "Decay of the average of the weights, which is what is written; 0: none.")

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        for name, value in self.lr_of.items():
            _not_negative(f"lr_of.{name}", value)
        for name in ("weight_decay", "clip"):
            _not_negative(name, getattr(self, name))
        for beta in self.betas:
            _at_most_one("betas", beta)
        for name in ("final", "decay_from", "ema"):
            _at_most_one(name, getattr(self, name))
        if self.ema == 1 or 1 in self.betas:
            raise InputError("ema and betas must be below 1, or nothing is ever learnt.")
        check_choice("schedule", self.schedule, ("cosine", "published", "constant"))
        check_int("warmup", self.warmup, 0, "0 or a positive integer")
        check_int("decay_steps", self.decay_steps, 1, "a positive integer")


@dataclass(frozen=True)
class RunOptions:
    """How long, how much at once, and what is kept."""

    steps: int | None = option(10_000, "Number of steps; none: as many as fit into minutes.", parse=_STEPS)
    minutes: float | None = option(
        None, "Time for training, in minutes; the schedule follows the clock.", parse=_MINUTES
    )
    batch: int = option(32, "Pairs a step, of all processes together.", parse=_STEPS)
    at_once: int = option(0, "Pairs in memory at once on each device; 0: few on a CPU, 16 elsewhere.")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = option(
        "float32", "Of products; the loss is in float32 always. auto: bfloat16 where it is fast."
    )
    compile: bool = option(False, "Compile the layers with torch.compile.")
    seed: int = option(0, "Of fresh weights and of the samples.", parse=integer("a number from 0", 0))
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", parse=device)
    workers: int = option(0, "Processes that read samples; 0: this one.")
    log_every: int = option(10, "Steps between lines of the log.")
    checkpoint_every: int = option(500, "Steps between checkpoints.")
    keep: int = option(3, "Checkpoints that are kept, beside the best weights.")
    validate_every: int = option(500, "Steps between validations; 0: none but at the end.")
    validation_pairs: int = option(500, "Pairs of a validation.")
    tensorboard: bool = option(False, "Also write curves for TensorBoard, of the extra of this name.")
    max_non_finite: int = option(10, "Steps that may fail by NaN or infinity before the run stops.")

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError("give steps or minutes; both are none.")
        if self.steps is not None:
            check_int("steps", self.steps, 1, "a positive integer")
        if self.minutes is not None:
            _positive("minutes", self.minutes)
        for name in ("batch", "log_every", "checkpoint_every", "keep", "max_non_finite"):
            check_int(name, getattr(self, name), 1, "a positive integer")
        for name in ("at_once", "seed", "workers", "validate_every", "validation_pairs"):
            check_int(name, getattr(self, name), 0, "0 or a positive integer")
        check_choice("precision", self.precision, ("float32", "bfloat16", "float16", "auto"))
        check_bool("compile", self.compile)
        check_bool("tensorboard", self.tensorboard)


@dataclass(frozen=True)
class TrainingOptions:
    """A run, whole: `config.toml` of its folder, and part of every checkpoint."""

    data: DataOptions = field(default_factory=DataOptions)
    features: FeatureOptions = field(default_factory=FeatureOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)
    run: RunOptions = field(default_factory=RunOptions)
    judge: JudgeOptions = field(default_factory=JudgeOptions)


# As published: cvg/glue-factory, configs superpoint+lightglue_homography.yaml and _megadepth.yaml.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "homography": {
        "features": {"keypoints": 512},
        "optimiser": {
            "lr": 1e-4, "weight_decay": 0.0, "schedule": "published", "warmup": 0, "decay_from": 0.5, "final": 0.01,
            "decay_steps": 20, "clip": 0.0,
        },
        "run": {"batch": 128, "steps": 46_875, "precision": "auto"},  # 40 epochs of 150,000 pairs
    },
    "megadepth": {
        "features": {"keypoints": 2048},
        "optimiser": {
            "lr": 1e-4, "weight_decay": 0.0, "schedule": "published", "warmup": 0, "decay_from": 0.6, "final": 0.01,
            "decay_steps": 20, "clip": 0.0,
        },
        "run": {"batch": 32, "steps": 71_250, "precision": "auto"},  # 50 epochs of 152 scenes x 300 pairs
    },
    "finetune": {
        "optimiser": {"lr": 5e-5, "warmup": 50, "ema": 0.99},
        "run": {"batch": 8, "steps": 2_000, "checkpoint_every": 100, "validate_every": 200},
    },
    "cpu": {
        "data": {"view_size": [480, 360]},
        "features": {"keypoints": 256},
        "optimiser": {"lr": 1e-4, "lr_of": {"input_proj": 1e-3, "posenc": 1e-3}, "warmup": 50, "ema": 0.99},
        "run": {"batch": 4, "steps": 10_000, "checkpoint_every": 200, "validate_every": 500, "validation_pairs": 100},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Overrides:
    """What a command line may set over a configuration. None: as it says."""

    preset: str | None = option(
        None, "Options to begin with.", choices=tuple(PRESETS), parse=preset_name, group="Training"
    )
    images: tuple[Path, ...] = option(
        (), "Folder of images to learn from. Repeatable.", metavar="DIR", group="Training"
    )
    features: str | None = option(None, "A feature type, or my_module:Extractor.", group="Training")
    keypoints: int | None = option(
        None,
        "The N best keypoints of each view.",
        parse=integer("a number of keypoints from 1 to 1000000"),
        group="Training",
    )
    init_from: str | None = option(
        None, 'Weights to start from, of any feature type; "none": from scratch.', metavar="WEIGHTS", group="Training"
    )
    steps: int | None = option(None, "Number of steps.", parse=_STEPS, group="Training")
    minutes: float | None = option(None, "Time for training.", parse=_MINUTES, group="Training")
    batch: int | None = option(None, "Pairs a step.", parse=_STEPS, group="Training")
    lr: float | None = option(None, "Learning rate.", parse=real("a number from 0 to 1", 0, 1), group="Training")
    seed: int | None = option(
        None, "Of fresh weights and of the order.", parse=integer("a number from 0", 0), group="Training"
    )
    precision: str | None = option(
        None, "Of products.", choices=("float32", "bfloat16", "float16", "auto"), group="Machine"
    )
    device: str | None = option(None, "auto, cpu, cuda, cuda:N or mps.", parse=device, group="Machine")

    def tables(self) -> dict[str, Any]:
        """As a configuration has them."""
        own: dict[str, dict[str, Any]] = {
            "data": {"sources": [{"path": str(path)} for path in self.images] or None},
            "features": {"type": self.features, "keypoints": self.keypoints, "device": self.device},
            "network": {"init_from": self.init_from},
            "optimiser": {"lr": self.lr},
            "run": {
                "steps": toml.NONE if self.minutes is not None and self.steps is None else self.steps,
                **{name: getattr(self, name) for name in ("minutes", "batch", "seed", "precision", "device")},
            },
        }
        given = {name: {k: v for k, v in table.items() if v is not None} for name, table in own.items()}
        found: dict[str, Any] = {name: table for name, table in given.items() if table}
        return found if self.preset is None else {"preset": self.preset, **found}


def read_options(path: Path | None, over: Mapping[str, Any] | None = None) -> TrainingOptions:
    """The options in a TOML file; None: the defaults. Raises InputError.

    over: tables that go over the file's, as of a command line.
    """
    tables = {} if path is None else toml.read(path)
    try:
        return from_tables(_merged(tables, over or {}))
    except InputError as error:
        raise InputError(f"{path}: {error}" if path else str(error)) from error


def from_tables(tables: Mapping[str, Any]) -> TrainingOptions:
    """The options that tables of TOML say: over those of their preset, over the defaults. Raises InputError."""
    own = dict(tables)
    version, preset = own.pop("version", VERSION), own.pop("preset", None)
    if version != VERSION:
        raise InputError(
            f"version is {version!r}, and this lightglue reads version {VERSION}; "
            "see the changelog for what its keys are called now."
        )
    if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
        nearest = nearest_name(str(preset), PRESETS)
        hint = f"Did you mean {nearest!r}? " if nearest else ""
        raise InputError(f"preset is {preset!r}. {hint}Valid: {', '.join(PRESETS)}.")
    return toml.build(TrainingOptions, _merged(PRESETS[preset] if preset else {}, own))


def as_toml(options: TrainingOptions) -> str:
    """All options, defaults included, in one form; `from_tables(toml.parse(...))` gives the same ones."""
    head = {"version": VERSION}
    as_read = toml.build(TrainingOptions, toml.parse(toml.write(options, {})))  # 3.0 for a 3 in the place of a float
    return toml.write(as_read, head)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of which those above win, key by key."""
    found = dict(below)
    for key, value in above.items():
        inner = found.get(key)
        found[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return found
