"""`lightglue eval`: benchmarks, the user's own pairs, comparisons of runs."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli import parsing
from lightglue.cli.models import (
    CommercialOnly,
    DepthConfidence,
    Device,
    FeatureType,
    FilterThreshold,
    Matcher,
    Models,
    ReducedPrecision,
    WidthConfidence,
    asked_for,
    memory_named,
)
from lightglue.models.registry import feature_type
from lightglue.options import nearest_name
from lightglue.support.progress import progress_display

if TYPE_CHECKING:
    from lightglue.evaluation.pair import Benchmark
    from lightglue.evaluation.records import Run

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Measure matches against the truth: benchmarks, or pairs of your own.")

GROUPS = ("extractor", "matcher", "extract", "protocol", "estimator")
_PROTOCOL = ("resize", "side", "max_keypoints")
_ESTIMATOR = ("max_iterations", "confidence", "seed")
# Name -> help. Which benchmarks there are stands in lightglue.evaluation.datasets, which takes longer to import.
TITLES = {
    "hpatches": "HPatches: homographies of planes.",
    "megadepth1500": "MegaDepth-1500: relative poses outdoors.",
    "scannet1500": "ScanNet-1500: relative poses indoors.",
    "eth3d": "ETH3D: relative poses of high resolution.",
    "wxbs": "WxBS: wide multiple baselines, points marked by hand.",
    "evd": "EVD: homographies of extreme views.",
}


def _setting(value: object) -> Any:
    """`group.name=value` as (group, name, value)."""
    key, equals, text = str(value).partition("=")
    group, dot, name = key.partition(".")
    if not (equals and dot and name and group in GROUPS):
        raise typer.BadParameter(
            f"'{value}' is no setting; give GROUP.NAME=VALUE with one of the groups {', '.join(GROUPS)}, such as "
            "matcher.filter_threshold=0.2."
        )
    if text in ("none", "None"):
        return group, name, None
    try:
        return group, name, json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return group, name, text


def _workers(value: object) -> int:
    if number := parsing.integer(value, 1024):
        return number
    raise typer.BadParameter(f"'{value}' is not a number of processes from 1 to 1024.")


MaxKeypoints = Annotated[
    int | None,
    typer.Option(
        parser=parsing.count, metavar="N", show_default=False, help="The N best keypoints; by default the protocol's."
    ),
]
Refine = Annotated[bool, typer.Option("--refine", help="Move matches to a fraction of a pixel.")]
Conf = Annotated[
    list[Any] | None,
    typer.Option(
        parser=_setting,
        metavar="GROUP.NAME=VALUE",
        help=f"Any other option, of {', '.join(GROUPS)}. Repeatable.",
    ),
]
Workers = Annotated[int, typer.Option(parser=_workers, metavar="N", help="Processes that match pairs.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        show_default=False,
        help="Where records and report go: eval/BENCHMARK/FEATURES-MATCHER by default. An interrupted run goes on.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


def _benchmark(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default=False, help="The folder of the data; fetched if it is not given."),
    ] = None,
    features: FeatureType = "aliked",
    max_keypoints: MaxKeypoints = None,
    matcher: Matcher = "lightglue",
    device: Device = "auto",
    mp: ReducedPrecision = None,
    filter_threshold: FilterThreshold = 0.1,
    depth_confidence: DepthConfidence = 0.95,
    width_confidence: WidthConfidence = 0.99,
    refine: Refine = False,
    conf: Conf = None,
    workers: Workers = 1,
    output: Output = None,
    as_json: AsJson = False,
    commercial_only: CommercialOnly = False,
) -> None:
    from lightglue.evaluation.datasets import BENCHMARKS
    from lightglue.evaluation.datasets.fetch import fetch

    dataset = BENCHMARKS[str(context.info_name)]
    if data is not None and not data.is_dir():
        raise typer.BadParameter(f"there is no folder {data}; check the path.", param_hint="--data")
    _evaluate(context, dataset.load(fetch(dataset) if data is None else data))


for _name, _title in TITLES.items():
    app.command(_name, help=_title, rich_help_panel="Benchmarks")(_benchmark)


@app.command(rich_help_panel="Pairs of your own")
def pairs(
    context: typer.Context,
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", show_default=False, help="A JSON file, or the folder that holds it.")
    ],
    features: FeatureType = "aliked",
    max_keypoints: MaxKeypoints = None,
    matcher: Matcher = "lightglue",
    device: Device = "auto",
    mp: ReducedPrecision = None,
    filter_threshold: FilterThreshold = 0.1,
    depth_confidence: DepthConfidence = 0.95,
    width_confidence: WidthConfidence = 0.99,
    refine: Refine = False,
    conf: Conf = None,
    workers: Workers = 1,
    output: Output = None,
    as_json: AsJson = False,
    commercial_only: CommercialOnly = False,
) -> None:
    """Evaluate on pairs of your own, with homographies, poses or marked points.

    docs/datasets.md has the format.
    """
    from lightglue.evaluation.datasets.manifest import load_manifest

    _evaluate(context, load_manifest(manifest))


@app.command(rich_help_panel="Pairs of your own")
def convert(
    model: Annotated[Path, typer.Argument(metavar="MODEL", show_default=False, help="A COLMAP model's folder.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", show_default=False, help="The folder of its images.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", show_default=False, help="The manifest to write.")
    ],
    min_overlap: Annotated[float, typer.Option(parser=parsing.share, metavar="X", help="Least share of points.")] = 0.1,
    max_overlap: Annotated[float, typer.Option(parser=parsing.share, metavar="X", help="Largest share.")] = 0.7,
    max_pairs: Annotated[int, typer.Option(parser=parsing.count, metavar="N", help="At most so many pairs.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, metavar="N", help="Of the choice among more.")] = 0,
) -> None:
    """Make a manifest of image pairs with their poses out of a COLMAP model."""
    from lightglue.evaluation.datasets.colmap import convert_colmap

    bounds = {"min_overlap": min_overlap, "max_overlap": max_overlap}
    count = convert_colmap(model, images, output, **bounds, max_pairs=max_pairs, seed=seed)
    typer.echo(f"{count} pairs -> {output}")


@app.command(rich_help_panel="Runs")
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="A run to compare with.")],
    second: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The run that is judged.")],
    by: Annotated[
        str,
        typer.Option(
            parser=lambda value: parsing.known(value, ("pair", "scene")),
            metavar="pair|scene",
            help="What is resampled.",
        ),
    ] = "pair",
    as_json: AsJson = False,
) -> None:
    """Say in which figures run B differs from run A, and in which it only seems to.

    Paired bootstrap over the pairs, with 95 % intervals.
    """
    from lightglue.evaluation.compare import compare as compared
    from lightglue.evaluation.compare import to_json, to_text
    from lightglue.evaluation.records import read_run

    found = compared(read_run(first), read_run(second), by=by)  # type: ignore[arg-type]
    typer.echo(to_json(found).decode() if as_json else to_text(found))


@app.command(rich_help_panel="Runs")
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="The folder of a run.")],
    beside: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", help="Another run of the benchmark to show. Repeatable.")
    ] = None,
) -> None:
    """Write the report of a run anew, perhaps with others beside it."""
    from lightglue.evaluation.records import read_run
    from lightglue.evaluation.report import write_report

    for path in write_report(read_run(run), others=[read_run(other) for other in beside or []]):
        typer.echo(path)


def _evaluate(context: typer.Context, benchmark: Benchmark) -> None:
    """Run a benchmark as the command line says, write the report, print the figures."""
    chosen = context.params
    settings = _grouped(chosen["conf"] or [])
    benchmark = _with_protocol(benchmark, settings["protocol"], settings["estimator"], chosen["max_keypoints"])
    thresholds = {**asked_for(context, "filter_threshold", "depth_confidence", "width_confidence")}
    thresholds |= settings["matcher"]
    models = Models(
        chosen["features"],
        benchmark.protocol.max_keypoints,
        chosen["device"],
        chosen["mp"],
        chosen["commercial_only"],
        thresholds,
        chosen["matcher"],
        settings["extractor"],
    )
    _check_options(models)
    from lightglue.benchmark.machine import describe_machine
    from lightglue.evaluation.report import write_report
    from lightglue.evaluation.run import Job, evaluate

    folder = chosen["output"] or Path("eval") / _as_folder(benchmark.name) / f"{models.features}-{models.matcher}"
    job = Job(models, settings["extract"], chosen["refine"])
    with memory_named(has_tiles=False), progress_display() as show:
        run = evaluate(
            benchmark,
            job,
            folder,
            workers=chosen["workers"],
            progress=lambda done, total: show("pairs", done, total),
            about={"machine": describe_machine()},
        )
    reports = write_report(run)
    _print(run, reports, chosen["as_json"])


def _as_folder(name: str) -> str:
    """The name of a benchmark, which is any text, as that of one folder."""
    return re.sub(r"[^\w .-]", "_", name)[:60].strip(" .") or "pairs"


def _grouped(settings: Sequence[tuple[str, str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for group, name, value in settings:
        found[group][name] = value
    return found


def _with_protocol(
    benchmark: Benchmark, protocol: Mapping[str, Any], estimator: Mapping[str, Any], max_keypoints: int | None
) -> Benchmark:
    """`benchmark` with what the user sets differently."""
    for names, given, group in ((_PROTOCOL, protocol, "protocol"), (_ESTIMATOR, estimator, "estimator")):
        for name in given:
            if name not in names:
                raise _unknown(group, name, names)
    changed = dict(protocol)
    if max_keypoints is not None:
        changed["max_keypoints"] = max_keypoints
    checks: dict[str, Callable[[Any], Any]] = {"max_keypoints": parsing.count, "resize": parsing.edge}
    for name, check in checks.items():
        if changed.get(name) is not None:
            changed[name] = check(changed[name])
    if "side" in changed:
        parsing.known(str(changed["side"]), ("long", "short"))
    estimators = tuple(dataclasses.replace(each, **estimator) for each in benchmark.protocol.estimators)
    return dataclasses.replace(
        benchmark, protocol=dataclasses.replace(benchmark.protocol, **changed, estimators=estimators)
    )


def _check_options(models: Models) -> None:
    """Raises BadParameter for an option that the extractor or the matcher does not have: a run must be what it says."""
    extractor, matcher = feature_type(models.features).load(), models.matcher_class()
    also = {"extractor": (), "matcher": ("pruning",) if models.matcher == "lightglue" else ()}
    if "max_num_keypoints" in models.extractor:
        raise typer.BadParameter(
            "give --max-keypoints, which reports know of.", param_hint="--conf extractor.max_num_keypoints"
        )
    for group, kind, given in (("extractor", extractor, models.extractor), ("matcher", matcher, models.thresholds)):
        valid = [name for name in (*kind.default_conf, *also[group]) if name != "name"]
        for name in given:
            if name not in valid:
                raise _unknown(group, name, valid)


def _unknown(group: str, name: str, valid: Sequence[str]) -> typer.BadParameter:
    nearest = nearest_name(name, valid)
    hint = f"Did you mean {nearest!r}? " if nearest else ""
    return typer.BadParameter(f"{group}.{name} is unknown. {hint}Valid: {', '.join(valid)}.", param_hint="--conf")


def _print(run: Run, reports: Sequence[Path], as_json: bool) -> None:
    from lightglue.evaluation.summary import summarize

    summary = summarize(run)
    if as_json:
        figures = {each.name: each.value for each in summary.figures}
        told = {
            "benchmark": run.benchmark,
            "pairs": summary.pairs,
            "failures": {record.pair: record.failure for record in run.failures},
            "figures": {name: value if math.isfinite(value) else None for name, value in figures.items()},
            "seconds": dict(summary.seconds),
            "reports": [str(path) for path in reports],
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = {
        "pairs": f"{summary.pairs}, {summary.failures} of them failed",
        **{each.name: _number(each.value, each.standard_error) for each in summary.figures},
        **{f"seconds, {name}": f"{value:.3f}" for name, value in summary.seconds.items()},
        "report": "\n".join(str(path) for path in reports),
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(table)


def _number(value: float, error: float | None) -> str:
    return f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")
