"""The report of a map: one HTML page for people, whatever of the map is there, and a picture beside it."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    to_html,
)
from lightglue.drawing.facts import counted, facts
from lightglue.geometry.intrinsics import Intrinsics, params_to_colmap
from lightglue.sfm.colmap.model import Model, RegisteredImage
from lightglue.sfm.report import charts
from lightglue.sfm.report.charts import Node
from lightglue.sfm.report.data import ImageRow, PairRow, ReportData, report_data
from lightglue.sfm.report.picture import plot_model
from lightglue.sfm.report.scene import scene_of
from lightglue.sfm.skipped import names_of
from lightglue.support.files import write_whole, writing

__all__ = ["WrittenReport", "report_html", "write_report"]

_ROWS = 1000  # of a table
_REASONS = 60  # for which inputs were left out, in sight
_MARKS = {
    "dropped": "dropped: they only look alike",
    "doubtful": "doubtful: nothing likelier joins their images with the others",
    "contradicting": "contradicts the model",
}
_NODES = 400  # of the graph of views; more images are drawn in groups
_GROUPS = 150
_DPI = 120


@dataclass(frozen=True)
class WrittenReport:
    """The files of a report."""

    html: Path
    picture: Path | None  # PNG; None without a model
    problems: tuple[str, ...] = ()  # parts of the map that are missing or damaged, in sentences


def write_report(folder: str | os.PathLike[str], data: ReportData | None = None) -> WrittenReport:
    """Write FOLDER/report.html and, where there is a model, FOLDER/report.png; each whole or not at all.

    Args:
        folder: of a map.
        data: what to report; None gathers it from the folder.

    Raises:
        InputError: the folder holds nothing of a map.
        StoreError: a file cannot be written.
    """
    folder = Path(folder)
    data = report_data(folder) if data is None else data
    html, picture = folder / "report.html", folder / "report.png"
    drawn = _drawn(data)
    if drawn is None:
        with writing(picture):
            picture.unlink(missing_ok=True)  # of a model that is there no longer
    else:
        write_whole(picture, drawn)
    write_whole(html, report_html(data, drawn).encode("utf-8", "replace"))
    return WrittenReport(html, None if drawn is None else picture, data.problems)


def report_html(data: ReportData, drawn: bytes | None = None) -> str:
    """The page, self-contained; the same data give the same bytes with the same Matplotlib.

    drawn: the picture of the model, where there is one already.
    """
    sections = [
        Section("result", "Result", tuple(_result(data))),
        Section("map", "Map", tuple(_map(data, drawn))),
        Section("matches", "Matches", tuple(_matches(data))),
        Section("points", "Points", tuple(_points(data))),
        Section("images", "Images", tuple(_images(data))),
        Section("cameras", "Cameras", tuple(_cameras(data))),
        Section("skipped", "Left out", tuple(_skipped(data))),
        Section("noted", "Used with a fault", tuple(_noted(data))),
        Section("time", "Time", tuple(_time(data))),
        Section("settings", "Settings", tuple(_settings(data))),
    ]
    subtitle = f"Images in {data.image_folder}" if data.image_folder else "From images to a map"
    return to_html(Document(f"Map of {data.title}", subtitle, tuple(each for each in sections if each.blocks)))


# --- the result ---------------------------------------------------------------------------------------------------


def _result(data: ReportData) -> list[Block]:
    blocks: list[Block] = [Text(problem, "warning") for problem in data.problems]
    model, cards = data.model, []
    if model is None:
        blocks.append(Text(f"There is no model. {_why_none(data)}", "warning"))
        cards += [("images", f"{len(data.images):,}", "")] if data.images else []
    else:
        if data.doubt is not None:
            blocks.append(Text(f"The model may be wrong: {data.doubt}.", "warning"))
        cards += _model_cards(data, model)
    verified = [row for row in data.pairs if row.verified]
    if data.pairs:
        known = any(row.verified is not None for row in data.pairs)
        value = f"{len(verified):,}" if known else f"{len(data.pairs):,}"
        cards.append(
            ("verified pairs" if known else "matched pairs", value, f"of {len(data.pairs):,}" if known else "")
        )
    left_out = sum(not each.is_used for stage in data.stages.values() for each in stage.skipped)
    cards += [("left out", f"{left_out:,}", "see below")] if left_out else []
    cards += [("time", _duration(_seconds(data)), "all stages")] if data.stages else []
    return [*blocks, Cards(tuple(cards))] if cards else blocks


def _model_cards(data: ReportData, model: Model) -> list[tuple[str, str, str]]:
    count, of = len(model.images), max(len(data.images), len(model.images))
    others = data.num_models - 1
    small = f"of {of:,}" + (f"; {counted(others, 'smaller model')} beside it" if others > 0 else "")
    cards = [("registered images", f"{count:,}", small), ("points", f"{len(model.points):,}", "")]
    if math.isfinite(model.mean_error):
        cards.append(("reprojection error", f"{model.mean_error:.2f} px", "mean over points"))
    checked = data.stages["reconstruct"].counts if "reconstruct" in data.stages else {}
    if "consistency" in checked:
        cards.append(("consistency", f"{checked['consistency']:.2f}", "share of what was verified"))
    if len(model.points):
        cards.append(("track length", f"{model.mean_track_length:.1f}", f"{model.num_observations:,} observations"))
    return cards


def _why_none(data: ReportData) -> str:
    """As far as it can be read from what is there."""
    if not data.images:
        return "No image has features: see what was left out." if data.stages else "No stage has run yet."
    if len(data.images) == 1:
        return "There is one image; a map takes two or more that show the same thing."
    if not data.pairs:
        return "No pair of images has been matched."
    if all(row.verified is None for row in data.pairs):
        most = max(row.matches or 0 for row in data.pairs)
        return f"No matches have been verified; the best of {counted(len(data.pairs), 'pair')} has {most:,} matches."
    most = max(row.verified or 0 for row in data.pairs)
    best = f"the best pair has {counted(most, 'verified match', 'verified matches')}"
    if "reconstruct" not in data.stages:
        return f"The stage reconstruct has not ended yet; {best}."
    reasons = "; ".join(dict.fromkeys(each.reason for each in data.stages["reconstruct"].skipped if not each.is_used))
    return f"{reasons[:500].rstrip('.')}; {best}." if reasons else f"No two images gave it a start; {best}."


# --- the map ------------------------------------------------------------------------------------------------------


def _map(data: ReportData, drawn: bytes | None) -> list[Block]:
    light, dark = drawn or _drawn(data), _drawn(data, dark=True)
    if light is None:
        return []
    caption = "Each pyramid is an image, from where it was taken to what it shows. Stray points are left out."
    picture = Picture("Cameras and points", light, caption, dark)
    return [picture, Text(f"The folder dataset: {data.dataset}.")] if data.dataset else [picture]


def _drawn(data: ReportData, dark: bool = False) -> bytes | None:
    """The model as a PNG; None where there is nothing of it."""
    model = data.model
    if model is None or not (model.images or len(model.points)):
        return None
    return _png(model, data.title, _DPI, dark)


def _png(model: Model, title: str, dpi: float, dark: bool) -> bytes:
    buffer = io.BytesIO()
    plot_model(model, title=title, dark=dark, dpi=dpi).savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


# --- matches ------------------------------------------------------------------------------------------------------


def _matches(data: ReportData) -> list[Block]:
    if not data.pairs:
        return []
    blocks: list[Block] = []
    verified = [row.verified for row in data.pairs if row.verified is not None]
    raw = [row.matches for row in data.pairs if row.matches is not None]
    names = [image.name for image in data.images]
    rows = {name: i for i, name in enumerate(names)}
    pairs = {_key(rows, row): row for row in data.pairs if row.name0 in rows and row.name1 in rows}
    blocks.append(_graph(data, pairs, rows))
    if 1 < len(names) <= charts.MATRIX_IMAGES:
        cells = {key: (row.matches, row.verified or row.inliers) for key, row in pairs.items()}
        marks = {key: row.judged for key, row in pairs.items() if row.judged is not None}
        svg = charts.match_matrix(names, cells, marks)
        caption = (
            "The stronger the colour, the more; empty: none, or not matched. Images are in the order of their names."
        )
        told = [(charts.MARKS[mark], said) for mark, said in _MARKS.items() if mark in marks.values()]
        legend = ((0, "above the diagonal: verified matches"), *told, (5, "below: all matches"))
        blocks.append(Chart("Who was matched with whom", svg, caption, legend, wide=True))
    blocks += _dropped(data)
    for counts, title in ((verified, "Verified matches of a pair"), (raw, "Matches of a pair")):
        if counts:
            svg = charts.histogram(np.array(counts, np.float64), title.split(" of ")[0].lower(), "pairs")
            none = sum(count == 0 for count in counts)
            blocks.append(Chart(title, svg, f"{none:,} of {counted(len(counts), 'pair')} have none." if none else ""))
    return [*blocks, *_pair_table(data.pairs)]


def _dropped(data: ReportData) -> list[Block]:
    """The pairs that were dropped, each with a picture that is shown when asked for."""
    count = sum(row.reason is not None for row in data.pairs)
    if not count:
        return []
    text = f"{counted(count, 'verified pair was', 'verified pairs were')} dropped: of places that only look alike."
    if count > len(data.dropped):
        text += f" The {len(data.dropped)} strongest:"
    folds = [
        Fold(f"{' – '.join(each.names)}: {each.reason}", (Picture(" – ".join(each.names), each.image, each.caption),))
        for each in data.dropped
    ]
    return [Text(text), *folds]


def _key(rows: Mapping[str, int], row: PairRow) -> tuple[int, int]:
    i, j = sorted((rows[row.name0], rows[row.name1]))
    return i, j


def _graph(data: ReportData, pairs: Mapping[tuple[int, int], PairRow], rows: Mapping[str, int]) -> Chart:
    known = any(row.verified is not None for row in pairs.values())
    edges = {key: (row.verified if known else row.matches) or 0 for key, row in pairs.items()}
    nodes = [Node(image.name, None) for image in data.images]
    caption = "A line for each pair; the stronger, the more matches were verified."
    if not known:
        caption = "A line for each pair; the stronger, the more matches. None is verified yet."
    if data.model is not None and data.model.images:
        flat = scene_of(data.model).rotated(data.model.centres)[:, :2]
        for image, position in zip(data.model.images, flat, strict=True):
            if image.name in rows:
                nodes[rows[image.name]] = Node(image.name, (float(position[0]), float(position[1])))
        caption += " Images stand where they were taken, seen from above"
        caption += "; grey below are those without a pose." if any(n.position is None for n in nodes) else "."
    if len(nodes) > _NODES:
        nodes, edges = _grouped(nodes, edges)
        caption += f" {len(data.images):,} images are drawn as {len(nodes):,} groups of neighbours."
    return Chart("View graph", charts.view_graph(nodes, edges), caption, wide=True)


def _grouped(
    nodes: Sequence[Node], edges: Mapping[tuple[int, int], int]
) -> tuple[list[Node], dict[tuple[int, int], int]]:
    """Neighbours as one node: by position in squares of equal size, and those without a position by name in runs."""
    positions = np.array([node.position or (np.nan, np.nan) for node in nodes], np.float64)
    known = np.isfinite(positions[:, 0])
    label = np.zeros(len(nodes), np.int64)
    if known.any():
        some = positions[known]
        low = np.percentile(some, 1, axis=0)
        cell = max(float(np.sqrt(np.prod(np.percentile(some, 99, axis=0) - low) / _GROUPS)), 1e-9)
        squares = np.clip((some - low) // cell, -_GROUPS, _GROUPS).astype(np.int64)
        label[known] = np.unique(squares, axis=0, return_inverse=True)[1].reshape(-1)
    others = np.flatnonzero(~known)
    run = -(-len(others) // (_GROUPS if len(others) == len(nodes) else 40)) or 1
    label[others] = label.max() + 1 + np.arange(len(others)) // run
    _, label = np.unique(label, return_inverse=True)
    groups = []
    for i in range(int(label.max()) + 1):
        members = np.flatnonzero(label == i)
        position = positions[members].mean(axis=0) if known[members[0]] else None
        name = f"{counted(len(members), 'image')} from {nodes[members[0]].name}"
        groups.append(Node(name, None if position is None else (float(position[0]), float(position[1])), len(members)))
    between: dict[tuple[int, int], int] = {}
    for (i, j), count in edges.items():
        a, b = sorted((int(label[i]), int(label[j])))
        if a != b:
            between[a, b] = between.get((a, b), 0) + count
    return groups, between


def _pair_table(pairs: Sequence[PairRow]) -> list[Block]:
    rows = sorted(pairs, key=lambda row: (-(row.verified or 0), -(row.matches or 0), row.name0, row.name1))
    shown = rows[:_ROWS]
    overlap, noted = (any(getattr(row, name) is not None for row in shown) for name in ("overlap", "note"))
    head = ["image", "with", *(["note"] if noted else []), "matches", "verified", "share"]
    lines = []
    for row in shown:
        share = row.verified / row.matches if row.verified is not None and row.matches else None
        cells: list[str | Cell] = [row.name0, row.name1, *([row.note or ""] if noted else [])]
        cells += [_number(row.matches), _number(row.verified)]
        cells.append("–" if share is None else Cell(f"{100 * share:.0f} %", share))
        cells += [("–" if row.overlap is None else f"{row.overlap:.2f}")] if overlap else []
        lines.append(tuple(cells))
    table = Table((*head, *(["overlap"] if overlap else [])), tuple(lines), words=3 if noted else 2)
    title = f"All {len(rows):,} pairs" if len(rows) <= _ROWS else f"The {_ROWS:,} best of {len(rows):,} pairs"
    return [Fold(title, (table,))]


# --- points, images, cameras --------------------------------------------------------------------------------------


def _points(data: ReportData) -> list[Block]:
    model = data.model
    if model is None or not len(model.points):
        return []
    errors = model.errors[np.isfinite(model.errors)]
    blocks: list[Block] = []
    if len(errors):
        caption = f"Median {np.median(errors):.2f} px, mean {errors.mean():.2f} px."
        blocks.append(
            Chart("Reprojection error of a point", charts.histogram(errors, "error, px", "points"), _beyond(caption))
        )
    lengths: NDArray[np.int64] = model.track_lengths
    caption = f"Mean {model.mean_track_length:.2f}; {100 * float((lengths == 2).mean()):.0f} % are seen by two only."
    svg = charts.length_histogram(lengths, "images that see the point", "points")
    return [*blocks, Chart("Track length", svg, caption + (" The last bar: 30 or more." if lengths.max() > 30 else ""))]


def _beyond(caption: str) -> str:
    return f"{caption} The last bar holds all that are beyond."


def _images(data: ReportData) -> list[Block]:
    if not data.images:
        return []
    poses = {image.name: image for image in data.model.images} if data.model else {}
    order = sorted(data.images, key=lambda row: (len(poses[row.name].points) if row.name in poses else -1, row.name))
    shown = {row.name for row in order[:_ROWS]}
    most = max((len(pose.points) for pose in poses.values()), default=0)
    rows = tuple(_image_row(row, poses.get(row.name), most) for row in data.images if row.name in shown)
    table = Table(("image", "pose", "camera", "keypoints", "observations", "mean error, px"), rows, words=3)
    if len(data.images) > _ROWS:
        text = f"The {_ROWS:,} of {len(data.images):,} images that see the fewest points."
        return [Text(text), Fold("These images", (table,))]
    missing = len(data.images) - len(poses)
    text = f"{counted(missing, 'image has', 'images have')} no pose." if missing and data.model else ""
    blocks: list[Block] = [Text(text)] if text else []
    return [*blocks, table if len(rows) <= 60 else Fold(f"All {len(rows):,} images", (table,))]


def _image_row(row: ImageRow, pose: RegisteredImage | None, most: int) -> tuple[str | Cell, ...]:
    if pose is None:
        return row.name, Cell("none", tone="bad"), "–", _number(row.num_keypoints), "–", "–"
    count = row.num_keypoints if row.num_keypoints is not None else pose.num_keypoints
    observed = Cell(f"{len(pose.points):,}", len(pose.points) / most if most else None)
    error = f"{pose.mean_error:.2f}" if math.isfinite(pose.mean_error) else "–"
    return row.name, Cell("found", tone="good"), str(pose.camera_id), f"{count:,}", observed, error


def _cameras(data: ReportData) -> list[Block]:
    if data.model is None or not data.model.cameras:
        return []
    used: dict[int, int] = {}
    for image in data.model.images:
        used[image.camera_id] = used.get(image.camera_id, 0) + 1
    cameras = data.model.cameras
    shown = [number for number in cameras if number in used] or list(cameras)
    rows = tuple(_camera_row(number, cameras[number], used.get(number, 0)) for number in shown[:_ROWS])
    head = ("camera", "model", "size, px", "parameters", "images", "field of view")
    table = Table(head, rows, words=4)
    note = Text("Parameters are COLMAP's: px, with (0, 0) at the corner of the top-left pixel.", "note")
    return [table if len(rows) <= 20 else Fold(f"{counted(len(shown), 'camera')}", (table,)), note]


def _camera_row(number: int, camera: Intrinsics, images: int) -> tuple[str | Cell, ...]:
    values = params_to_colmap(camera.model, camera.params)
    params = ", ".join(f"{name} {value:.6g}" for name, value in zip(camera.named, values, strict=True))
    across, down = camera.field_of_view
    size = f"{camera.width:,} × {camera.height:,}"
    return str(number), camera.model, size, params, f"{images:,}", f"{across:.0f}° × {down:.0f}°"


# --- the run ------------------------------------------------------------------------------------------------------


def _skipped(data: ReportData) -> list[Block]:
    rows = _told(data, is_used=False)
    if not rows:
        return []
    text = f"{len(rows):,} inputs were left out; all else was done."
    if len(rows) == 1:
        text = "One input was left out; all else was done."
    if len(rows) > _ROWS:
        text += f" The first {_ROWS:,} are shown."
    return [Text(text), *_listed(rows)]


def _noted(data: ReportData) -> list[Block]:
    rows = _told(data, is_used=True)
    return [*_listed(rows)] if rows else []


def _told(data: ReportData, is_used: bool) -> list[tuple[str, str, str]]:
    return [
        (each.name, stage, each.reason)
        for stage, record in data.stages.items()
        for each in record.skipped
        if each.is_used == is_used
    ]


def _listed(rows: list[tuple[str, str, str]]) -> tuple[Block, ...]:
    """What was told of inputs: each reason once, then all of them."""
    head = ("what", "stage", "why")
    table = Table(head, tuple(rows[:_ROWS]), words=3)
    named: dict[tuple[str, str], list[str]] = {}
    for name, stage, reason in rows:
        named.setdefault((stage, reason), []).append(name)
    if len(named) == len(rows) <= _REASONS:
        return (table,)
    reasons = [(names_of(names), stage, reason) for (stage, reason), names in named.items()]
    return Table(head, tuple(reasons[:_REASONS]), words=3), Fold(f"All {min(len(rows), _ROWS):,}", (table,))


def _time(data: ReportData) -> list[Block]:
    rows = []
    for name, stage in data.stages.items():
        counts = "; ".join(f"{term}: {said}" for term, said in facts(stage.counts))
        rows.append((name, counts, Cell(_duration(stage.seconds), stage.seconds / (_seconds(data) or 1))))
    return [Table(("stage", "what it did", "time"), tuple(rows), words=2)] if rows else []


def _settings(data: ReportData) -> list[Block]:
    found: list[tuple[str, str]] = facts(data.settings)
    return [Facts(tuple(found))] if found else []


def _seconds(data: ReportData) -> float:
    return sum(stage.seconds for stage in data.stages.values())


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:,}"
