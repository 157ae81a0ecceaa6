"""`lightglue explain`: where the time of matching two image files goes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli.from_options import Only
from lightglue.cli.printing import AsJson, echo, memory_named, precision_text
from lightglue.errors import ImageNotFoundError
from lightglue.extractors.options import ViewOptions
from lightglue.models.choice import Models, Thresholds
from lightglue.options import option
from lightglue.support.parsers import integer

if TYPE_CHECKING:
    from lightglue.matching.effort import EffortRecord

__all__ = ["explain"]


@dataclass(frozen=True)
class RunOptions:
    """How often it is measured."""

    repeat: int = option(
        3,
        "Runs, after one that is not counted.",
        parse=integer("a number of runs from 1 to 1000", 1, 1000),
        group="Output",
    )


def explain(
    image0: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="The first image file.")],
    image1: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The second image file.")],
    models: Annotated[
        Models, Only(("features", "max_keypoints", "device", "mp", "commercial_only", "effort", "weights"))
    ],
    views: Annotated[ViewOptions, Only(("resize",))],
    thresholds: Annotated[Thresholds, Only(("depth_confidence", "width_confidence"))],
    options: RunOptions,
    as_json: AsJson = False,
) -> None:
    """Show where the time goes when two images are matched.

    The times are medians over the runs, each step's with all that is
    indented below it.
    """
    for path in (image0, image1):
        if not path.exists():  # before torch is loaded, which takes seconds
            raise ImageNotFoundError(f"There is no image at {path}; check the path.")
    with memory_named(has_tiles=False):
        from lightglue.models.loaded import precision_of

        loaded = replace(models, thresholds=thresholds.given()).load()
        precision = precision_text(precision_of(loaded[1]))
        run = partial(_run, (image0, image1), *loaded, views.keywords(), models.effort)
        runs = [run() for _ in range(1 + options.repeat)][1:]
    steps = _medians(runs)
    total = sum(step["seconds"] for step in steps if step["depth"] == 0)
    summary = {"precision": precision, "runs": options.repeat, "seconds": total, "steps": steps}
    if (record := runs[0].effort) is not None:
        summary |= {name: value for name, value in record.numbers().items() if name != "stages"}
    if as_json:
        echo(json.dumps(summary))
    else:
        _print_table(summary)


@dataclass(frozen=True)
class _Run:
    """What one run took."""

    steps: list[dict[str, Any]]
    effort: EffortRecord | None  # what was done, with an effort that is not the usual one

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return float(sum(step["seconds"] for step in self.steps if step["depth"] == 0))


def _run(paths: tuple[Path, Path], extractor: Any, matcher: Any, views: Mapping[str, Any], effort: str) -> _Run:
    from lightglue.images import load_image
    from lightglue.timing import record

    with record() as timeline:
        if effort == "hard":
            from lightglue.pairs.match import match_pair

            found = match_pair(extractor, matcher, *paths, effort="hard", **views).effort
        else:
            features = [extractor.extract(load_image(path), **views) for path in paths]
            found = matcher({"image0": features[0], "image1": features[1]}).get("effort")
    if effort == "hard" and found is not None:  # hundreds of views; its stages say where they led
        steps = [{"name": s.name, "depth": 0, "seconds": s.seconds, "matches": s.matches} for s in found.stages]
        return _Run(steps, found)
    spans = timeline.spans
    return _Run([{"name": s.name, "depth": s.depth, "seconds": s.seconds, **s.details} for s in spans], found)


def _medians(runs: list[_Run]) -> list[dict[str, Any]]:
    """A record a step. Runs take the same steps, as nothing is random, unless a search ends at its limit of seconds:
    then those of the run in the middle."""
    if len({tuple(step["name"] for step in run.steps) for run in runs}) > 1:
        return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2].steps
    return [
        {**steps[0], "seconds": median(step["seconds"] for step in steps)}
        for steps in zip(*(run.steps for run in runs), strict=True)
    ]


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "ms", "share", "on", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:3]:
        column.justify = "right"
    for step in summary["steps"]:
        details = {k: v for k, v in step.items() if k not in ("name", "depth", "seconds")}
        share = step["seconds"] / summary["seconds"]
        on = ", ".join(f"{value} {name}" for name, value in details.items())
        table.add_row("  " * step["depth"] + step["name"], f"{1000 * step['seconds']:.1f}", f"{share:.0%}", on)
    table.add_row("all", f"{1000 * summary['seconds']:.1f}", "100%", summary["precision"])
    Console().print(table)
    for name in ("escalated", "rejected", "found_by"):
        if name in summary:
            echo(f"{name.replace('_', ' ')}: {summary[name]}")
