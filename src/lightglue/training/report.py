"""The report of a training run, RUN/report.html: one page, made of what lies in the run's folder and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    to_html,
)
from lightglue.drawing.facts import counted, facts
from lightglue.drawing.page import COLOURS
from lightglue.drawing.svg import svg_chart
from lightglue.errors import StoreError
from lightglue.support.files import write_whole
from lightglue.training.watching import read_log

__all__ = ["write_report"]

Lines = Sequence[Mapping[str, Any]]
Curve = tuple[str, list[float], list[float]]  # name, x, y


def write_report(run: Path) -> Path:
    """Write the report of a run, finished or not. Raises StoreError for a folder that holds none."""
    run = Path(run)
    lines = read_log(run / "log.jsonl")
    try:
        document = _document(run, lines)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise StoreError(f"{run / 'log.jsonl'} is not the log of a training run ({error!r:.200}).") from error
    path = run / "report.html"
    write_whole(path, to_html(document).encode("utf-8", "replace"))
    return path


def _document(run: Path, lines: Lines) -> Document:
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(str(line.get("kind")), []).append(line)
    fitting = _fitting(run, by_kind)
    sections = [
        Section("result", "Result", tuple(_result(by_kind, fitting))),
        Section("loss", "Loss", tuple(_loss(by_kind))),
        Section("matches", "Precision and recall", tuple(_matches(by_kind))),
        Section("judgements", "Judgements", tuple(_judgements(by_kind))),
        Section("confidence", "Confidence by layer", tuple(_heads(fitting))),
        Section("scores", "Calibration of scores", tuple(_calibration(fitting))),
        Section("overlap", "Overlap", tuple(_overlap(fitting))),
        Section("worst", "Worst pairs", tuple(_worst(run, fitting))),
        Section("speed", "Learning rate, throughput, cost", tuple(_speed(by_kind))),
        Section("start", "Start", tuple(_start(by_kind))),
        Section("options", "Options", tuple(_options(run))),
    ]
    shown = tuple(section for section in sections if section.blocks)
    state = "finished" if "end" in by_kind else "not finished"
    return Document(f"Training run {run.absolute().name}", state, shown)


def _fitting(run: Path, by_kind: Mapping[str, Lines]) -> Mapping[str, Any]:
    """What was fitted at the end: beside the best weights, or in the log."""
    try:
        found = json.loads((run / "best" / "fitting.json").read_text("utf-8"))
    except (OSError, ValueError):
        found = dict(by_kind["fitting"][-1]) if by_kind.get("fitting") else {}
    return found if isinstance(found, dict) else {}


# -- sections --------------------------------------------------------------------------------------------------------


def _result(by_kind: Mapping[str, Lines], fitting: Mapping[str, Any]) -> list[Block]:
    steps, end = by_kind.get("step", ()), by_kind.get("end", ())
    blocks: list[Block] = []
    if not end:
        blocks.append(Text("This run has not finished: the figures are of its steps so far.", "warning"))
    last = (*steps, *end)[-1:] or [{"step": 0}]
    cards = [("steps", f"{last[-1]['step']:,}", _minutes(last[-1].get("seconds")))]
    best = [each for each in by_kind.get("judgement", ()) if each.get("best")]
    if best:
        cards.append((str(best[-1]["metric"]), _number(best[-1]["value"]), f"best, of step {best[-1]['step']:,}"))
    for each in by_kind.get("validation", ())[-1:]:
        cards += [("validation loss", _number(each["loss"]), counted(int(each["pairs"]), "pair"))]
        cards += [(name, _percent(each[name]), "of validation matches") for name in ("precision", "recall")]
    if fitting:
        cards.append(("calibration error", _percent(fitting.get("error_after")), "of scores, fitted"))
    bad = sum(len(each.get("samples", ())) for each in by_kind.get("non_finite", ()))
    if bad:
        blocks.append(Text(f"{counted(bad, 'sample')} gave a loss that is not finite; see bad_batches.", "warning"))
    return [*blocks, Cards(tuple(cards))]


def _loss(by_kind: Mapping[str, Lines]) -> list[Block]:
    steps, checks = by_kind.get("step", ()), by_kind.get("validation", ())
    blocks: list[Block] = []
    curves = [("training", *_columns(steps, "loss")), ("validation", *_columns(checks, "loss"))]
    blocks += _chart("Loss", "step", "loss", curves, "Mean over pairs of all layers, with the confidence.")
    if steps:
        layers = range(len(steps[-1].get("nll") or ()))
        chosen = sorted({round(i * (len(layers) - 1) / 4) for i in range(5)}) if layers else []
        curves = [(f"layer {i + 1}", *_columns(steps, "nll", i)) for i in chosen]
        blocks += _chart("Assignment loss by layer", "step", "negative log likelihood", curves, "In training.")
        rows = []
        for i in layers:
            first, last = (each["nll"][i] for each in (steps[0], steps[-1]))
            checked = _number(checks[-1]["nll"][i]) if checks and checks[-1].get("nll") else "–"
            rows.append((f"{i + 1}", _number(first), _number(last), checked))
        blocks.append(Fold("Every layer", (Table(("layer", "at first", "at last", "validation"), tuple(rows)),)))
    return blocks


def _matches(by_kind: Mapping[str, Lines]) -> list[Block]:
    steps, checks = by_kind.get("step", ()), by_kind.get("validation", ())
    blocks: list[Block] = []
    for name in ("precision", "recall"):
        curves = [("training", *_columns(steps, name)), ("validation", *_columns(checks, name))]
        blocks += _chart(name.capitalize(), "step", f"{name} of matches", curves, "At the matcher's usual threshold.")
    return blocks


def _judgements(by_kind: Mapping[str, Lines]) -> list[Block]:
    judged = by_kind.get("judgement", ())
    if not judged:
        return [Text("Nobody judged: the last weights are the best ones. Name manifests in [judge].", "note")]
    blocks = _chart("Judgements", "step", str(judged[-1]["metric"]), [("", *_columns(judged, "value"))], "")
    names = list(judged[-1].get("figures") or ())
    best = max((each["step"] for each in judged if each.get("best")), default=None)
    rows: list[tuple[str | Cell, ...]] = []
    for each in judged:
        step = f"{each['step']:,}"
        figures = [_number((each.get("figures") or {}).get(name)) for name in names]
        rows.append((Cell(step, tone="good" if each["step"] == best else ""), _number(each["value"]), *figures))
    return [*blocks, Table(("step", str(judged[-1]["metric"]), *names), tuple(rows))]


def _heads(fitting: Mapping[str, Any]) -> list[Block]:
    heads = fitting.get("heads") or ()
    if not heads:
        return []
    head = (
        "layer", "as the last layer", "entropy before", "fitted", "sure before", "fitted", "of these right", "fitted",
        "taken",
    )  # fmt: skip
    rows = tuple(
        (
            f"{each['layer']}", _percent(each["agree"]), _number(each["before"]), _number(each["after"]),
            _percent(each["sure_before"]), _percent(each["sure_after"]), _percent(each["right_before"]),
            _percent(each["right_after"]), "fitted" if each["replaced"] else "before",
        )
        for each in heads
    )  # fmt: skip
    text = (
        "After each layer, the share of keypoints whose match is what the last layer says, and how well the head "
        "knows, on pairs that it was not fitted to."
    )
    return [Text(text), Table(head, rows)]


def _calibration(fitting: Mapping[str, Any]) -> list[Block]:
    before, after = fitting.get("bins_before") or (), fitting.get("bins_after") or ()
    if not before:
        return []
    curves = [
        (name, [each["predicted"] for each in bins], [each["found"] for each in bins])
        for name, bins in (("scores as they are", before), ("calibrated", after))
    ]
    gaps = " and ".join(_percent(fitting.get(key)) for key in ("error_before", "error_after"))
    caption = f"{fitting['matches']:,} matches whose truth is known; the mean gap is {gaps}. On the diagonal is right."
    chart = _chart("Share that is right", "score, or probability", "share", curves, caption, diagonal=True)
    line = fitting.get("calibration")
    said = "No line was fitted: the scores do not rise with the share." if line is None else (
        f"probability = sigmoid({line['offset']:.3f} + {line['slope']:.3f} log odds of the score)"
    )  # fmt: skip
    return [*chart, Text(said, "note")]


def _overlap(fitting: Mapping[str, Any]) -> list[Block]:
    found = fitting.get("overlap")
    if not found:
        return []
    pairs = f"{found['positives']:,} pairs that overlap and {found['negatives']:,} of different images"
    if found["coefficients"] is None:
        return [Text(f"Nothing was fitted: {pairs} are too few.", "note")]
    terms = tuple((name, f"{value:g}") for name, value in found["coefficients"].items())
    return [Text(f"Fitted to {pairs}: area under the ROC curve {_number(found['auc'])}."), Facts(terms)]


def _worst(run: Path, fitting: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for each in fitting.get("worst") or ():
        image, why = None, each.get("why") or ""
        if each.get("picture"):
            path = run / "best" / "worst" / Path(str(each["picture"])).name
            try:
                image = path.read_bytes()
            except OSError as error:
                why = f"{path.name} cannot be read: {error.strerror}"
        matches = counted(each["matches"], "match", "matches")
        caption = f"{each['correct']:,} of {matches} right, {each['positives']:,} true ones."
        caption += f" No picture: {why}" if why else ""
        blocks.append(Picture(" – ".join(each["views"]), image, caption))
    return [Text("Validation pairs with the lowest F score."), *blocks] if blocks else []


def _speed(by_kind: Mapping[str, Lines]) -> list[Block]:
    steps = by_kind.get("step", ())
    if not steps:
        return []
    blocks = _chart("Learning rate", "step", "learning rate", [("", *_columns(steps, "lr"))], "")
    blocks += _chart("Gradient", "step", "norm", [("", *_columns(steps, "norm"))], "Before it is clipped.")
    blocks += _chart("Throughput", "step", "pairs a second", [("", *_columns(steps, "pairs_per_second"))], "")
    last = (*steps, *by_kind.get("end", ()))[-1]
    rates = sorted(each["pairs_per_second"] for each in steps if each.get("pairs_per_second") is not None)
    waiting = [each["waiting"] for each in steps if each.get("waiting") is not None]
    known = {
        "time": _minutes(last.get("seconds")),
        "CPU time": _minutes(last.get("cpu_seconds")),
        "pairs a second, median": _number(rates[len(rates) // 2]) if rates else "–",
        "time that steps waited for samples": _percent(sum(waiting) / len(waiting)) if waiting else "–",
    }
    return [*blocks, Facts(tuple(known.items()))]


def _start(by_kind: Mapping[str, Lines]) -> list[Block]:
    blocks: list[Block] = []
    for each in by_kind.get("start", ())[-1:]:
        machine = {key: value for key, value in each.items() if key not in ("kind", "step", "parameters")}
        blocks.append(Facts(tuple(facts(machine))))
        fates = each.get("parameters") or ()
        if fates:
            names = list(fates[0])
            rows = tuple(tuple(str(fate.get(name)) for name in names) for fate in fates)
            blocks.append(Fold("Where each parameter came from", (Table(tuple(names), rows, words=len(names)),)))
    resumed = by_kind.get("resume", ())
    if resumed:
        blocks.append(Text(f"Went on from step {', '.join(str(each['step']) for each in resumed)}."))
    return blocks


def _options(run: Path) -> list[Block]:
    try:
        lines = (run / "config.toml").read_text("utf-8").splitlines()
    except (OSError, UnicodeError):
        return []
    rows, section = [], ""
    for line in lines:
        if line.startswith("["):
            section = line.strip("[] ")
        elif " = " in line:
            name, _, value = line.partition(" = ")
            rows.append((section, name.strip(), value.strip()))
    return [Fold("All options", (Table(("section", "option", "value"), tuple(rows), words=3),))]


# -- parts -----------------------------------------------------------------------------------------------------------


def _columns(lines: Lines, name: str, index: int | None = None) -> tuple[list[float], list[float]]:
    """Steps and values, those that are not null."""
    found = []
    for each in lines:
        value = each.get(name)
        value = value[index] if index is not None and value and index < len(value) else value
        if isinstance(value, (int, float)):
            found.append((float(each["step"]), float(value)))
    return [x for x, _ in found], [y for _, y in found]


def _chart(
    title: str, across: str, up: str, curves: Sequence[Curve], caption: str, diagonal: bool = False
) -> list[Block]:
    """A chart of the curves that have points; nothing where none has."""
    shown = [(name, x, y) for name, x, y in curves if x]
    if not shown:
        return []
    legend = tuple((i, name) for i, (name, _, _) in enumerate(shown) if name)
    return [Chart(title, svg_chart(_drawer(shown, across, up, diagonal)), caption, legend)]


def _drawer(curves: Sequence[Curve], across: str, up: str, diagonal: bool) -> Callable[[Any], None]:
    def draw(ax: Any) -> None:
        for i, (_, x, y) in enumerate(curves):
            marker = "o" if len(x) < 25 else None
            ax.plot(x, y, color=COLOURS[i % len(COLOURS)][0], linewidth=1.6, marker=marker, markersize=3.5)
        if diagonal:
            ax.plot([0, 1], [0, 1], color="#555556", linewidth=0.8, linestyle=(0, (1, 2)))
        ax.set(xlabel=across, ylabel=up)

    return draw


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}"


def _percent(value: Any) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _minutes(seconds: Any) -> str:
    if seconds is None:
        return "–"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7_200
        else f"{seconds / 3_600:.1f} h"
    )
