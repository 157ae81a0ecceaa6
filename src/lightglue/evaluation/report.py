"""The report of a run: RUN/report.html for people, and RUN/report.md with the same words and tables.

Whatever depends on the machine stands in one section, Time, between `<!-- time -->` and `<!-- /time -->`. The rest is
the same bytes for the same records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lightglue.drawing.document import (
    Block,
    Cards,
    Cell,
    Chart,
    Document,
    Facts,
    Fold,
    Picture,
    Section,
    Table,
    Text,
    Tone,
    to_html,
    to_markdown,
)
from lightglue.drawing.facts import counted, facts
from lightglue.errors import InputError, LightGlueError
from lightglue.evaluation import plots
from lightglue.evaluation.bootstrap import cleaned, number, with_unit
from lightglue.evaluation.compare import Comparison, Verdict, compare
from lightglue.evaluation.matches import read_matches
from lightglue.evaluation.records import Metric, Record, Run, matches_path
from lightglue.evaluation.summary import Figure, Summary, headline_metric, summarize
from lightglue.evaluation.words import protocol_in_words, what_ran
from lightglue.support.files import write_files
from lightglue.support.printable import printable

__all__ = ["write_report"]

Array = NDArray[np.float64]
_Row: TypeAlias = tuple[str | Cell, ...]
_PICTURES = 6
_LINES = 8  # in a chart
_ABOUT_DATA = ("source", "licence", "notes")  # of Run.about; all else depends on the machine


@dataclass(frozen=True)
class _Reported:
    """A run with what is computed of it once."""

    run: Run
    summary: Summary
    metric: Metric | None  # the headline's
    others: tuple[tuple[str, Run, Summary], ...]  # named

    def values(self, metric: Metric) -> Array:
        """(N,) of each pair done."""
        return cleaned(metric, self.run.values(metric.name))


def write_report(run: Run, *, others: Sequence[Run] = ()) -> tuple[Path, Path]:
    """Write the report of a run into its folder.

    Args:
        run: the run; an incomplete one is reported as such.
        others: runs of the same benchmark to show beside it.

    Returns:
        The Markdown file and the HTML file, both written whole.

    Raises:
        InputError: a run of another benchmark among the others.
    """
    for other in others:
        if other.benchmark != run.benchmark:
            raise InputError(
                f"{other.folder} is a run of {other.benchmark}, not of {run.benchmark}; show runs of one benchmark."
            )
    names = [other.folder.name for other in others]
    named = [name if names.count(name) == 1 else str(other.folder) for name, other in zip(names, others, strict=True)]
    beside = tuple((name, other, summarize(other)) for name, other in zip(named, others, strict=True))
    document = _document(_Reported(run, summarize(run), headline_metric(run.metrics), beside))
    files = run.folder / "report.md", run.folder / "report.html"
    texts = to_markdown(document), to_html(document)
    write_files({path: text.encode("utf-8", "replace") for path, text in zip(files, texts, strict=True)})
    return files


def _document(it: _Reported) -> Document:
    sections = [
        Section("result", "Result", tuple(_result(it))),
        Section("figures", "All figures", tuple(_all_figures(it.summary))),
        Section("curves", "Curves", tuple(_curves(it))),
        Section("compared", "Compared", tuple(_compared(it))),
        Section("scenes", "Scenes", tuple(_scenes(it))),
        Section("failures", "Failures", tuple(_failures(it))),
        Section("worst", "Worst pairs", tuple(_worst(it))),
        Section("pairs", "All pairs", tuple(_pairs(it))),
        Section("protocol", "How it was run", tuple(_protocol(it))),
        Section("data", "Data", tuple(_data(it))),
        Section("time", "Time", tuple(_time(it)), comment="time"),
    ]
    subtitle = " · ".join(filter(None, (what_ran(it.run.settings), _KINDS.get(it.run.kind, it.run.kind))))
    return Document(f"Evaluation on {it.run.benchmark}", subtitle, tuple(each for each in sections if each.blocks))


_KINDS = {
    "homography": "homographies between images",
    "pose": "relative poses of calibrated cameras",
    "points": "points marked by hand",
}


def _result(it: _Reported) -> list[Block]:
    summary = it.summary
    blocks: list[Block] = []
    if not it.run.is_complete:
        text = f"This run is not complete: {summary.done:,} of {summary.pairs:,} pairs are done."
        blocks.append(Text(f"{text} All figures are of these, and will change.", "warning"))
    cards = [
        (each.statistic.title, _with_unit(each), _plus_minus(each, after=" standard error"))
        for each in summary.headline
    ]
    failed = _share(summary.failures, summary.done)
    cards += [("pairs", f"{summary.done:,}", f"in {counted(len(summary.scenes), 'scene')}")]
    cards += [("failures", f"{summary.failures:,}", failed)]
    blocks.append(Cards(tuple(cards)))
    if it.metric and summary.done:
        blocks.append(Text(_reading(it.metric), "note"))
    return blocks


def _reading(metric: Metric) -> str:
    """What the headline means, for who has not met it."""
    if metric.kind == "error":
        return (
            f"Headline: {metric.title}. AUC@t is the area under the curve of recall against error up to t, in percent "
            "of a method without errors. A pair that failed counts with an infinite error. Standard errors are by "
            "bootstrap over pairs."
        )
    return f"Headline: {metric.title}, mean over pairs. Standard errors are by bootstrap over pairs."


def _all_figures(summary: Summary) -> list[Block]:
    """Errors whose figures are alike share a table, and so do all others."""
    groups: dict[tuple[str, ...], dict[str, list[Figure]]] = {}
    for each in summary.figures:
        metric = each.statistic.metric
        head = tuple(f.statistic.title for f in summary.figures if f.statistic.metric == metric)
        groups.setdefault(head, {}).setdefault(metric.title, []).append(each)
    blocks: list[Block] = []
    for head, lines in groups.items():
        rows: list[_Row] = [(title, *(_figure_cell(each) for each in line)) for title, line in lines.items()]
        blocks.append(Table(("", *head), tuple(rows)))
    return blocks


def _figure_cell(each: Figure) -> Cell:
    bar = each.value / 100 if each.statistic.unit == "%" and math.isfinite(each.value) else None
    return Cell(f"{_with_unit(each)}{_plus_minus(each, ' ')}", bar)


def _curves(it: _Reported) -> list[Block]:
    if not it.run.records:
        return []
    blocks: list[Block] = []
    groups: dict[tuple[str, tuple[float, ...]], list[Metric]] = {}
    for metric in it.run.metrics:
        if metric.kind == "error" and metric.thresholds:
            groups.setdefault((metric.unit, metric.thresholds), []).append(metric)
    for (unit, thresholds), metrics in groups.items():
        blocks += _recall_charts(it, metrics, unit, thresholds)
    head = it.metric
    if head and head.kind == "error":
        svg = plots.error_histogram(it.values(head), head.thresholds, _axis("error", head.unit))
        blocks.append(Chart(f"Errors: {head.title}", svg, "Pairs by error; failures stand on the right."))
    return [*blocks, *_precision(it)]


def _recall_charts(it: _Reported, metrics: Sequence[Metric], unit: str, thresholds: Sequence[float]) -> list[Block]:
    """Every error of this run, and the headline of all runs."""
    label, dots = _axis("error", unit), "Dotted: the thresholds of the AUC."
    limit = max(thresholds)
    shown = metrics[:_LINES]
    svg = plots.recall_chart([it.values(metric) for metric in shown], limit, thresholds, label)
    title = "Recall against error" if len(shown) > 1 else f"Recall against error: {shown[0].title}"
    legend = tuple(enumerate(metric.title for metric in shown)) if len(shown) > 1 else ()
    left_out = f" {len(metrics) - _LINES} more are in the tables." if len(metrics) > _LINES else ""
    blocks: list[Block] = [Chart(title, svg, dots + left_out, legend)]
    if it.metric is not None and it.metric in metrics and it.others:
        have = [(name, run) for name, run, _ in it.others if it.metric in run.metrics and run.records][: _LINES - 1]
        curves = [it.values(it.metric), *(cleaned(it.metric, run.values(it.metric.name)) for _, run in have)]
        names = tuple(enumerate(("this run", *(name for name, _ in have))))
        svg = plots.recall_chart(curves, limit, thresholds, label)
        blocks.append(Chart(f"Beside other runs: {it.metric.title}", svg, dots, names))
    return blocks


def _precision(it: _Reported) -> list[Block]:
    """Precision against recall over the scores, where the matches say which are correct; and pair by pair."""
    blocks: list[Block] = []
    judged = _judged_matches(it.run)
    if judged is not None:
        svg = plots.precision_curve(*judged)
        caption = f"{len(judged[0]):,} matches of all pairs, as the score that a match must reach falls."
        blocks.append(Chart("Precision against recall", svg, caption))
    shares = [each for each in it.run.metrics if each.kind == "share" and each.name.startswith(("prec", "epi"))]
    if shares:
        metric = shares[len(shares) // 2]  # neither the strictest nor the mildest
        precision = it.values(metric)
        correct = precision * np.array([record.num_matches for record in it.run.records], dtype=np.float64)
        svg = plots.precision_scatter(precision, correct, _axis("precision", "%"))
        blocks.append(Chart(f"Each pair: {metric.title}", svg, "A point for each pair; poor pairs are on the left."))
    return blocks


def _judged_matches(run: Run) -> tuple[Array, NDArray[np.bool_]] | None:
    """Score and correctness of the matches of all pairs; None unless all that are kept have both."""
    judged = []
    for record in run.records:
        try:
            found = read_matches(matches_path(run.folder, record.index))
        except LightGlueError:
            continue  # the reason is given where the pair is shown
        if found.correct is None:
            return None
        judged.append((found.scores, found.correct))
    if not any(correct.any() for _, correct in judged):
        return None
    return np.concatenate([scores for scores, _ in judged]), np.concatenate([correct for _, correct in judged])


def _compared(it: _Reported) -> list[Block]:
    blocks: list[Block] = []
    for name, other, _ in it.others:
        try:
            found = compare(other, it.run)
        except InputError as error:
            reason = str(error).replace(str(it.run.folder), "this run").replace(str(other.folder), name)
            blocks.append(Text(f"Not compared with {name}: {reason}", "warning"))
            continue
        blocks += _comparison(name, found)
    return blocks


_TONES: dict[Verdict, Tone] = {"better": "good", "worse": "bad", "more": "", "fewer": ""}


def _comparison(name: str, found: Comparison) -> list[Block]:
    rows: list[_Row] = []
    for each in found.differences:
        low, high = each.interval
        verdict = Cell(each.verdict, tone=_TONES.get(each.verdict, "quiet"))
        interval = f"{_signed(low)} to {_signed(high)}"
        values = number(each.a, 2), number(each.b, 2), _signed(each.difference)
        rows.append((each.statistic.full_title, verdict, *values, interval))
    verdicts = [each.verdict for each in found.differences]
    outcomes = [f"{verdicts.count(word)} {word}" for word in get_args(Verdict) if word in verdicts]
    text = f"This run beside {name}, pair by pair. Of {counted(len(verdicts), 'figure')}: {', '.join(outcomes)}."
    noise = "Noise is an interval with 0 in it, or too few pairs that differ."
    head = ("figure", "this run is", name, "this run", "difference", f"{100 * found.level:g} % interval")
    blocks: list[Block] = [Text(text), Table(head, tuple(rows), words=2), Text(noise, "note")]
    if found.settings:
        blocks.append(Fold("Set differently", tuple(Text(change) for change in found.settings)))
    return blocks


def _scenes(it: _Reported) -> list[Block]:
    scenes = it.summary.scenes
    if len(scenes) < 2:
        return []
    names = {each.name for each in it.summary.headline}
    names |= {each.name for each in it.summary.figures if each.statistic.metric == it.metric}
    names |= {each.name for each in [f for f in it.summary.figures if f.statistic.metric.kind != "error"][:3]}
    blocks: list[Block] = [_scene_table(it.summary, names, brief=True)]
    if len(names) < len(it.summary.figures):
        every = {each.name for each in it.summary.figures}
        blocks.append(Fold("Every figure of every scene", (_scene_table(it.summary, every, brief=False),)))
    return blocks


def _scene_table(summary: Summary, names: set[str], brief: bool) -> Table:
    shown = [each.statistic for each in summary.figures if each.name in names]
    bare = {each.name for each in summary.headline} if brief else set()
    head = ("scene", "pairs", "failures", *(each.title if each.name in bare else each.full_title for each in shown))
    rows: list[_Row] = []
    for scene in summary.scenes:
        cells = [_scene_cell(each, each.name in bare) for each in scene.figures if each.name in names]
        rows.append((scene.scene, f"{scene.pairs:,}", f"{scene.failures:,}", *cells))
    return Table(head, tuple(rows))


def _scene_cell(each: Figure, bar: bool) -> Cell:
    return Cell(_with_unit(each), each.value / 100 if bar and each.statistic.unit == "%" else None)


def _failures(it: _Reported) -> list[Block]:
    failed = it.run.failures
    if not failed:
        return [Text("Every pair has a result.")] if it.run.records else []
    reasons: dict[str, int] = {}
    for record in failed:
        reasons[str(record.failure)] = reasons.get(str(record.failure), 0) + 1
    of = f"{counted(len(failed), 'pair')} of {len(it.run.records):,}"
    several = f"{of} have no result. They count with the worst values."
    one = f"{of} has no result. It counts with the worst values."
    blocks: list[Block] = [Text(several if len(failed) > 1 else one)]
    if len(reasons) < len(failed):
        often = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        blocks.append(Table(("reason", "pairs"), tuple((reason, f"{count:,}") for reason, count in often)))
    rows = tuple((record.pair, record.scene, printable(record.failure)) for record in failed)
    table = Table(("pair", "scene", "reason"), rows, words=3)
    return [*blocks, table if len(rows) <= 30 else Fold(f"All {len(rows):,} failures", (table,))]


def _worst(it: _Reported) -> list[Block]:
    if it.metric is None or not it.run.records:
        return []
    values = it.values(it.metric)
    order = np.argsort(-values if it.metric.kind == "error" else values, kind="stable")
    chosen = [(it.run.records[i], float(values[i])) for i in order[:_PICTURES]]
    text = f"The {counted(len(chosen), 'pair')} with the worst {it.metric.title}. Lines are coloured by score."
    return [Text(text), *(_worst_picture(it.run, it.metric, record, value) for record, value in chosen)]


def _worst_picture(run: Run, metric: Metric, record: Record, value: float) -> Picture:
    shown = _value(metric, value)
    keypoints = f"{record.num_keypoints[0]:,} + {record.num_keypoints[1]:,} keypoints"
    caption = f"{metric.title}: {shown}. {counted(record.num_matches, 'match', 'matches')} of {keypoints}."
    caption += f" Failed: {record.failure.rstrip('.')}." if record.failure else ""
    images = (Path(record.image0), Path(record.image1))
    try:
        matches = read_matches(matches_path(run.folder, record.index))
        inliers = () if matches.inliers is None else (counted(int(matches.inliers.sum()), "inlier"),)
        jpeg = plots.match_jpeg(images, matches, (*inliers, shown))
    except LightGlueError as error:
        reason = str(error).rstrip(".")
        for image in images:  # without the folder, which other machines do not have
            reason = reason.replace(str(image), image.name)
        return Picture(record.pair, None, f"{caption} No picture: {reason}.")
    return Picture(record.pair, jpeg, " ".join((caption, *(f"{each}." for each in inliers))))


def _pairs(it: _Reported) -> list[Block]:
    if not it.run.records:
        return []
    metrics = list(it.run.metrics)
    head = ("pair", "scene", "keypoints", "matches", *(metric.title for metric in metrics))
    columns = [it.values(metric) for metric in metrics]
    rows = []
    for i, record in enumerate(it.run.records):
        cells = [_value(metric, float(column[i])) for metric, column in zip(metrics, columns, strict=True)]
        keypoints = f"{record.num_keypoints[0]:,} + {record.num_keypoints[1]:,}"
        rows.append((record.pair, record.scene, keypoints, f"{record.num_matches:,}", *cells))
    table = Table(head, tuple(rows), words=2)
    return [Fold(f"Show {counted(len(rows), 'pair')}, in the order of the benchmark", (table,))]


def _protocol(it: _Reported) -> list[Block]:
    unit = it.metric.unit if it.metric else ""
    sentences = protocol_in_words(it.run.settings.get("protocol"), unit)
    blocks: list[Block] = [Text(" ".join(sentences))] if sentences else []
    rest = {key: value for key, value in it.run.settings.items() if key != "protocol" or not sentences}
    every = facts(rest)
    return [*blocks, Facts(tuple(every))] if every else blocks


def _data(it: _Reported) -> list[Block]:
    about = it.run.about
    stated = [("source", about.get("source")), ("licence", about.get("licence"))]
    blocks: list[Block] = [Facts(tuple((term, str(text or "not stated")) for term, text in stated))]
    notes = about.get("notes") or ()
    return [*blocks, *(Text(str(note)) for note in ([notes] if isinstance(notes, str) else notes))]


def _time(it: _Reported) -> list[Block]:
    """All that may differ between two machines that ran the same."""
    summary = it.summary
    blocks: list[Block] = []
    if summary.seconds:
        rows = [(stage, _seconds(mean)) for stage, mean in summary.seconds.items()]
        blocks.append(Table(("stage", "mean of a pair"), (*rows, ("all", _seconds(summary.total_seconds)))))
        blocks += _time_against_accuracy(it)
    rest = facts({key: value for key, value in it.run.about.items() if key not in _ABOUT_DATA})
    return [*blocks, Facts(tuple(rest))] if rest else blocks


def _time_against_accuracy(it: _Reported) -> list[Block]:
    everything = [("this run", it.summary), *((name, summary) for name, _, summary in it.others)]
    if not it.summary.headline:
        return []
    chosen = it.summary.headline[len(it.summary.headline) // 2]
    points, legend, rows = [], [], []
    for i, (name, summary) in enumerate(everything):
        figure = next((each for each in summary.figures if each.statistic == chosen.statistic), None)
        if figure is None or not (math.isfinite(figure.value) and summary.total_seconds > 0):
            continue
        points.append((summary.total_seconds, figure.value, figure.standard_error))
        legend.append((i, name))
        rows.append((name, _seconds(summary.total_seconds), _figure_cell(figure).text))
    if len(points) < 2:
        return []
    svg = plots.time_chart(points, _axis(chosen.statistic.title, chosen.statistic.unit))
    caption = "Better is up and to the left. Bars are a standard error. Times compare on one machine only."
    return [
        Chart(f"Time against accuracy: {chosen.statistic.full_title}", svg, caption, tuple(legend)),
        Table(("run", "seconds a pair", chosen.statistic.title), tuple(rows)),
    ]


def _with_unit(each: Figure) -> str:
    return with_unit(number(each.value, _digits(each)), each.statistic.unit)


def _value(metric: Metric, value: float) -> str:
    return with_unit(number(100 * value), "%") if metric.kind == "share" else with_unit(number(value), metric.unit)


def _plus_minus(each: Figure, before: str = "", after: str = "") -> str:
    return "" if each.standard_error is None else f"{before}± {number(each.standard_error, _digits(each))}{after}"


def _digits(each: Figure) -> int | None:
    return 1 if each.statistic.unit == "%" or each.statistic.metric.kind == "count" else 2 if each.value < 100 else None


def _signed(value: float) -> str:
    shown = number(abs(value), 2)
    return shown if shown == "–" else f"{'−' if value < 0 else '+'}{shown}"


def _seconds(value: float) -> str:
    return f"{1000 * value:.1f} ms" if value < 1 else f"{value:.2f} s"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % of pairs" if whole else ""


def _axis(name: str, unit: str) -> str:
    return printable(f"{name}, {unit}" if unit else name)
