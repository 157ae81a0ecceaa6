"""`lightglue eval`: benchmarks, the user's own pairs, comparisons of runs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lightglue.cli.from_options import Only, command
from lightglue.cli.printing import AsJson, echo, memory_named, print_rows, say_backend
from lightglue.evaluation.options import EvaluationOptions, prepare
from lightglue.models.choice import Models, Thresholds
from lightglue.options import option
from lightglue.support.parsers import integer, share
from lightglue.support.progress import progress_display

if TYPE_CHECKING:
    from lightglue.evaluation.pair import Benchmark
    from lightglue.evaluation.records import Run

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Evaluate matches against ground truth: benchmarks, or pairs of your own.")

# Name -> help. Which benchmarks there are stands in lightglue.evaluation.datasets, which takes longer to import.
TITLES = {
    "hpatches": "HPatches: homographies of planes.",
    "megadepth1500": "MegaDepth-1500: relative poses outdoors.",
    "scannet1500": "ScanNet-1500: relative poses indoors.",
    "eth3d": "ETH3D: relative poses of high resolution.",
    "wxbs": "WxBS: wide multiple baselines, points marked by hand.",
    "evd": "EVD: homographies of extreme views.",
}
Evaluated = Annotated[
    Models, Only(("features", "matcher", "device", "mp", "commercial_only", "backend", "effort", "weights"))
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default=False,
        rich_help_panel="Data",
        help="The folder of the data; fetched if it is not given.",
    ),
]


def _register(name: str, title: str) -> None:
    """Make the command of a benchmark."""

    @command(app, name, example=f"lightglue eval {name} --features aliked", help=title, rich_help_panel="Benchmarks")
    def run(
        models: Evaluated,
        thresholds: Thresholds,
        options: EvaluationOptions,
        data: Data = None,
        as_json: AsJson = False,
    ) -> None:
        from lightglue.evaluation.datasets import BENCHMARKS
        from lightglue.evaluation.datasets.fetch import fetch

        dataset = BENCHMARKS[name]
        if data is not None and not data.is_dir():
            raise typer.BadParameter(f"there is no folder {data}; check the path.", param_hint="--data")
        benchmark = dataset.load(fetch(dataset) if data is None else data)
        _evaluate(benchmark, models, thresholds, options, as_json)


for _name, _title in TITLES.items():
    _register(_name, _title)


@command(app, example="lightglue eval pairs my-pairs.json --matcher nearest", rich_help_panel="Pairs of your own")
def pairs(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", show_default=False, help="A JSON file, or the folder that holds it.")
    ],
    models: Evaluated,
    thresholds: Thresholds,
    options: EvaluationOptions,
    as_json: AsJson = False,
) -> None:
    """Evaluate on pairs of your own, with homographies, poses or marked points.

    docs/datasets.md has the format.
    """
    from lightglue.evaluation.datasets.manifest import load_manifest

    _evaluate(load_manifest(manifest), models, thresholds, options, as_json)


@dataclass(frozen=True)
class ConvertOptions:
    """Which pairs a manifest gets."""

    min_overlap: float = option(0.1, "Least share of common points.", parse=share, group="Pairs")
    max_overlap: float = option(0.7, "Largest share.", parse=share, group="Pairs")
    max_pairs: int = option(
        1500, "At most so many pairs.", parse=integer("a number of pairs from 1 to 1000000"), group="Pairs"
    )
    seed: int = option(
        0, "Seed of the choice among more.", parse=integer("an integer from 0", 0, 2**31 - 1), group="Pairs"
    )


@command(app, example="lightglue eval convert sparse/0 images -o pairs.json", rich_help_panel="Pairs of your own")
def convert(
    model: Annotated[Path, typer.Argument(metavar="MODEL", show_default=False, help="A COLMAP model's folder.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", show_default=False, help="The folder of its images.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            rich_help_panel="Output",
            help="The manifest to write.",
        ),
    ],
    options: ConvertOptions,
) -> None:
    """Make a manifest of image pairs and their relative poses from a COLMAP model."""
    from lightglue.evaluation.datasets.colmap import convert_colmap

    echo(f"{convert_colmap(model, images, output, **asdict(options))} pairs -> {output}")


@dataclass(frozen=True)
class CompareOptions:
    """How runs are compared."""

    by: Literal["pair", "scene"] = option("pair", "What is resampled.", group="Output")


@command(
    app,
    example="lightglue eval compare eval/hpatches/sift-nearest eval/hpatches/aliked-lightglue",
    rich_help_panel="Runs",
)
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="A run to compare with.")],
    second: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The run that is judged.")],
    options: CompareOptions,
    as_json: AsJson = False,
) -> None:
    """Compare run B with run A: in which figures they differ, and where that is no more than noise.

    Paired bootstrap over the pairs, with 95 % intervals.
    """
    from lightglue.evaluation.compare import compare as compared
    from lightglue.evaluation.compare import to_json, to_text
    from lightglue.evaluation.records import read_run

    found = compared(read_run(first), read_run(second), by=options.by)
    echo(to_json(found).decode() if as_json else to_text(found))


@command(app, example="lightglue eval report eval/hpatches/aliked-lightglue", rich_help_panel="Runs")
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="The folder of a run.")],
    beside: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", rich_help_panel="Output", help="Another run of the benchmark to show. Repeatable."),
    ] = None,
) -> None:
    """Write the report of a run again, perhaps with others beside it."""
    from lightglue.evaluation.records import read_run
    from lightglue.evaluation.report import write_report

    for path in write_report(read_run(run), others=[read_run(other) for other in beside or []]):
        echo(path)


def _evaluate(
    benchmark: Benchmark, models: Models, thresholds: Thresholds, options: EvaluationOptions, as_json: bool
) -> None:
    """Run a benchmark as the command line says, write the report, print the figures."""
    say_backend(models, len(benchmark.pairs))
    benchmark, job = prepare(benchmark, replace(models, thresholds=thresholds.given()), options)
    from lightglue.benchmark.machine import describe_machine
    from lightglue.evaluation.report import write_report
    from lightglue.evaluation.run import evaluate

    kind = "-".join([models.features, models.matcher, *([models.effort] if models.effort != "normal" else [])])
    if models.own is not None:
        kind += f"-{models.own.sha256[:8]}"
    folder = options.output or Path("eval") / _as_folder(benchmark.name) / kind
    with memory_named(has_tiles=False), progress_display() as show:
        run = evaluate(
            benchmark,
            job,
            folder,
            workers=options.workers,
            progress=lambda done, total: show("pairs", done, total),
            about={"machine": describe_machine()},
        )
    _print(run, write_report(run), as_json)


def _as_folder(name: str) -> str:
    """The name of a benchmark, which is any text, as that of one folder."""
    return re.sub(r"[^\w .-]", "_", name)[:60].strip(" .") or "pairs"


def _print(run: Run, reports: Sequence[Path], as_json: bool) -> None:
    from lightglue.evaluation.summary import summarize

    summary = summarize(run)
    if as_json:
        figures = {each.name: each.value for each in summary.figures}
        printed = {
            "benchmark": run.benchmark,
            "pairs": summary.pairs,
            "failures": {record.pair: record.failure for record in run.failures},
            "figures": {name: value if math.isfinite(value) else None for name, value in figures.items()},
            "seconds": dict(summary.seconds),
            "reports": [str(path) for path in reports],
        }
        echo(json.dumps(printed, ensure_ascii=False))
        return
    rows = {
        "pairs": f"{summary.pairs}, {summary.failures} of them failed",
        **{each.name: _number(each.value, each.standard_error) for each in summary.figures},
        **{f"seconds, {name}": f"{value:.3f}" for name, value in summary.seconds.items()},
        "report": "\n".join(str(path) for path in reports),
    }
    print_rows(rows)


def _number(value: float, error: float | None) -> str:
    return f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")
