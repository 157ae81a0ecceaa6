"""The options of an evaluation beside those of the models. Importing this loads neither torch nor numpy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightglue.errors import InputError
from lightglue.models.choice import Models
from lightglue.options import nearest_name, option
from lightglue.pairs.hard.options import check_max_seconds, max_seconds_option
from lightglue.support.checks import check_choice, check_int
from lightglue.support.parsers import integer
from lightglue.workers.count import parse_workers

if TYPE_CHECKING:
    from lightglue.evaluation.pair import Benchmark
    from lightglue.evaluation.run import Job

__all__ = ["SETTING_GROUPS", "EvaluationOptions", "Setting", "prepare"]

SETTING_GROUPS = ("extractor", "matcher", "extract", "protocol", "estimator")
_PROTOCOL = ("resize", "side", "max_keypoints")
_ESTIMATOR = ("max_iterations", "confidence", "seed")


class Setting(NamedTuple):
    """One option of what is evaluated: of the extractor, of the matcher, of `extract`, ..."""

    group: str  # one of SETTING_GROUPS
    name: str
    value: Any


def parse_setting(text: str) -> Setting:
    """`group.name=value`, the value as JSON has it, or a text."""
    key, equals, value = text.partition("=")
    group, dot, name = key.partition(".")
    if not (equals and dot and name and group in SETTING_GROUPS):
        raise InputError(
            f"'{text}' is no setting; give GROUP.NAME=VALUE with one of the groups {', '.join(SETTING_GROUPS)}, such "
            "as matcher.filter_threshold=0.2."
        )
    if value in ("none", "None"):
        return Setting(group, name, None)
    try:
        return Setting(group, name, json.loads(value.lower() if value in ("True", "False") else value))
    except ValueError:
        return Setting(group, name, value)


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated beside the models' options, by how many, and where it goes."""

    max_keypoints: int | None = option(
        None,  # the protocol's
        "The N best keypoints of each image; by default the protocol's.",
        parse=integer("a number of keypoints from 1 to 1000000"),
        group="Features",
    )
    refine: bool = option(False, "Refine matches to a fraction of a pixel.", group="Matching")
    max_seconds: float | None = max_seconds_option()
    conf: tuple[Setting, ...] = option(
        (),
        f"Any other option, of {', '.join(SETTING_GROUPS)}. Repeatable.",
        metavar="GROUP.NAME=VALUE",
        parse=parse_setting,
        repeated=True,
        group="Matching",
    )
    output: Path | None = option(
        None,
        "Folder of records and report; by default eval/BENCHMARK/FEATURES-MATCHER. An interrupted run goes on.",
        flag="--output -o",
        metavar="DIR",
        group="Output",
    )
    workers: int | None = option(
        None,
        "Processes with one thread each; by default as many as fit and are worth it.",
        metavar="N",
        parse=parse_workers,
        group="Machine",
    )

    def __post_init__(self) -> None:
        check_max_seconds(self.max_seconds)


def prepare(benchmark: Benchmark, models: Models, options: EvaluationOptions) -> tuple[Benchmark, Job]:
    """The benchmark and the job with what `options` set differently. Raises InputError.

    An option that the extractor or the matcher does not have is an error: a run must be what it says.
    """
    from lightglue.evaluation.run import Job

    settings: dict[str, dict[str, Any]] = {group: {} for group in SETTING_GROUPS}
    for group, name, value in options.conf:
        settings[group][name] = value
    if options.max_keypoints is not None:
        settings["protocol"]["max_keypoints"] = options.max_keypoints
    benchmark = _with_protocol(benchmark, settings["protocol"], settings["estimator"])
    models = replace(
        models,
        max_keypoints=benchmark.protocol.max_keypoints,
        thresholds={**models.thresholds, **settings["matcher"]},
        extractor=settings["extractor"],
    )
    _check_models(models)
    models = replace(models, backend=models.found_backend(len(benchmark.pairs)).backend)
    return benchmark, Job(models, settings["extract"], options.refine, options.max_seconds)


def _with_protocol(benchmark: Benchmark, protocol: Mapping[str, Any], estimator: Mapping[str, Any]) -> Benchmark:
    _check_names("protocol", protocol, _PROTOCOL)
    _check_names("estimator", estimator, _ESTIMATOR)
    for name in ("max_keypoints", "resize"):
        if protocol.get(name) is not None:
            check_int(f"protocol.{name}", protocol[name], 1, "a number from 1 to 1000000", 1_000_000)
    if "side" in protocol:
        check_choice("protocol.side", protocol["side"], ("long", "short"))
    estimators = tuple(replace(each, **estimator) for each in benchmark.protocol.estimators)
    return replace(benchmark, protocol=replace(benchmark.protocol, **protocol, estimators=estimators))


def _check_models(models: Models) -> None:
    if "max_num_keypoints" in models.extractor:
        raise InputError("Give --max-keypoints, which reports know of, instead of extractor.max_num_keypoints.")
    extractor, matcher = models.extractor_class(), models.matcher_class()
    also = ("pruning",) if models.matcher == "lightglue" else ()
    _check_names("extractor", models.extractor, extractor.default_conf)
    _check_names("matcher", models.thresholds, (*matcher.default_conf, *also))


def _check_names(group: str, given: Iterable[str], valid: Iterable[str]) -> None:
    valid = [name for name in valid if name != "name"]
    for name in given:
        if name not in valid:
            nearest = nearest_name(name, valid)
            hint = f"Did you mean {nearest!r}? " if nearest else ""
            raise InputError(f"{group}.{name} is unknown. {hint}Valid: {', '.join(valid)}.")
