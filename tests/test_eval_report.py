"""The report of a run: whole, one file, honest about failures, the same bytes for the same records, safe to open."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from lightglue.drawing.document import Cell, Document, Fold, Section, Table, Text, to_html, to_markdown
from lightglue.drawing.facts import facts
from lightglue.errors import InputError, LightGlueError
from lightglue.evaluation.matches import read_matches
from lightglue.evaluation.records import Run, matches_path, read_run
from lightglue.evaluation.report import write_report
from lightglue.evaluation.words import protocol_in_words, what_ran
from lightglue.support.printable import printable
from support.runs import COUNT, ERROR, SHARE, make_run

INF = math.inf
HOSTILE = "<script>alert(\"x\")</script> --> | ` *bold* \u202e\x00 数 $x^2$ & 'quote'"
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its text, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def written(run: Run, *others: Run) -> tuple[str, str]:
    """The Markdown and the HTML of its report."""
    markdown, page = write_report(run, others=others)
    assert (markdown.name, page.name) == ("report.md", "report.html")
    assert not list(run.folder.glob("*.part"))
    return markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")


def photograph(path: Path, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return str(path)


def keep_matches(run: Run, index: int, count: int = 12, **others: np.ndarray) -> None:
    generator = np.random.default_rng(index)
    points = {name: generator.uniform(0, 59, (count, 2)).astype(np.float32) for name in ("points0", "points1")}
    scores = generator.random(count).astype(np.float32)
    path = matches_path(run.folder, index)
    np.savez(path, **{**points, "scores": scores, "inliers": np.arange(count) < 5, **others})


def ten_pairs(folder: Path) -> Run:
    """Ten pairs in two scenes, of which one failed."""
    image = photograph(folder / "photographs" / "a.png")
    errors = [0.3, 0.9, 1.4, 2.2, INF, 0.1, 3.1, 8.0, 0.6, 40.0]
    made = make_run(
        folder / "run",
        errors=errors,
        scenes=["garden"] * 5 + ["street"] * 5,
        images=[(image, image)] * 10,
        failures={4: "fewer than 4 matches"},
        about={"source": "made up", "licence": "CC0", "notes": ["Beware."], "date": "2025-03-01", "cpu": "abacus"},
    )
    for i in range(10):
        keep_matches(made, i)
    return made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return ten_pairs(tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The Markdown and the HTML of the ten pairs."""
    return written(ten_pairs(tmp_path_factory.mktemp("report")))


def test_the_page_is_whole_and_needs_nothing_else(report: tuple[str, str]) -> None:
    _, html = report
    page = Page(html)
    assert page.open == []
    assert not page.all("script") + page.all("link") + page.all("iframe") + page.all("object")
    sources = [each["src"] or "" for each in page.all("img")]
    assert len(sources) == 6
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all((each["href"] or "").startswith("#") for each in page.all("a"))
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", html)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_every_link_of_the_contents_has_its_section_and_every_name_is_the_only_one(report: tuple[str, str]) -> None:
    page = Page(report[1])
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    links = [(each["href"] or "")[1:] for each in page.all("a")]
    assert links == [each["id"] for each in page.all("section")]
    assert {"result", "figures", "curves", "scenes", "failures", "worst", "pairs", "protocol", "data", "time"} == {
        *links
    }


def test_both_files_tell_the_figures_with_their_standard_errors(report: tuple[str, str]) -> None:
    markdown, html = report
    text = Page(html).text
    for said in (markdown, text):
        assert re.search(r"AUC@2 px.{0,9}3\d\.\d %.{0,4}± 1\d\.\d", said)
        assert re.search(r"precision at 3 px[^%]*\d+\.\d %", said)
        assert "CC0" in said
        assert "Beware." in said
        assert "abacus" in said
    assert "| garden | 5 | 1 |" in markdown


def test_failures_are_named_with_their_reasons(report: tuple[str, str]) -> None:
    markdown, html = report
    assert "| pair 4 | scene |" not in markdown
    assert "| pair 4 | garden | fewer than 4 matches |" in markdown
    assert "1 pair of 10 has no result" in markdown
    assert "1 pair of 10 has no result" in Page(html).text
    assert "| 100 | ∞ |" in markdown  # in the table of all pairs


def test_the_worst_pairs_come_first_and_a_picture_that_cannot_be_drawn_is_said(run: Run, tmp_path: Path) -> None:
    matches_path(run.folder, 9).write_bytes(b"PK no zip")
    matches_path(run.folder, 7).unlink()
    markdown, html = written(run)
    worst = re.findall(r"^- (pair \d): (.*)", markdown, re.MULTILINE)
    assert [name for name, _ in worst] == ["pair 4", "pair 9", "pair 7", "pair 6", "pair 3", "pair 2"]
    assert "Failed: fewer than 4 matches" in worst[0][1]
    assert "No picture: 000009.npz is damaged" in worst[1][1]
    assert "No picture: no matches were kept" in worst[2][1]
    assert "5 inliers" in worst[3][1]
    assert len(Page(html).all("img")) == 4
    (tmp_path / "photographs" / "a.png").unlink()
    markdown, html = written(run)
    assert "There is no image at a.png" in markdown
    assert str(tmp_path) not in markdown
    assert not Page(html).all("img")


def test_text_is_shown_and_never_read_as_markup(tmp_path: Path) -> None:
    image = photograph(tmp_path / "<b>&'数.png")
    run = make_run(
        tmp_path / "run",
        errors=[1.0, INF],
        names=[HOSTILE, HOSTILE + "2"],
        scenes=[HOSTILE, "b"],
        images=[(image, image), (HOSTILE.replace("\x00", ""), "b")],
        failures={1: HOSTILE},
        benchmark=HOSTILE,
        settings={HOSTILE: HOSTILE, "extractor": HOSTILE},
        about={"source": HOSTILE, "licence": HOSTILE, "notes": [HOSTILE], HOSTILE: HOSTILE},
        metrics=(ERROR, SHARE, COUNT),
        seconds=[{HOSTILE: 1.0}] * 2,
    )
    keep_matches(run, 0)
    markdown, html = written(run)
    page = Page(html)
    assert page.open == []
    assert not page.all("script") + page.all("b")
    assert page.text.count("<script>alert(\"x\")</script> --> | ` *bold* \\u202e\\u0000 数 $x^2$ & 'quote'") > 10
    assert "<script" not in markdown
    assert "\u202e" not in html + markdown
    assert re.findall(r"<!--.*?-->", html) == re.findall(r"<!--.*?-->", markdown) == ["<!-- time -->", "<!-- /time -->"]
    assert all(line.count(" | ") >= 1 for line in markdown.splitlines() if line.startswith("| "))
    assert len(page.all("img")) == 1


def test_hostile_titles_reach_the_charts_as_text(tmp_path: Path) -> None:
    from dataclasses import replace

    metric = replace(ERROR, title=HOSTILE, unit="<i>")
    run = make_run(tmp_path, errors=[1.0, 2.0], metrics=(metric, SHARE))
    html = written(run)[1]
    assert not Page(html).all("script") + Page(html).all("i><")
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ET.fromstring(svg)
        assert "<i>" not in svg


def test_lone_surrogates_of_names_that_are_no_text_do_not_stop_it() -> None:
    document = Document("a\udcff", "", (Section("x", "y", (Text("\udcfe"),)),))
    assert "a\\udcff" in to_html(document)
    assert to_markdown(document).encode()


def test_a_report_written_twice_is_the_same_bytes(run: Run) -> None:
    first = [path.read_bytes() for path in write_report(run)]
    assert [path.read_bytes() for path in write_report(read_run(run.folder))] == first


def test_two_machines_differ_in_the_section_of_times_only(tmp_path: Path) -> None:
    reports = []
    for name, factor in (("one", 1.0), ("two", 7.0)):
        image = photograph(tmp_path / name / "photographs" / "a.png")
        made = make_run(
            tmp_path / name / "run",
            errors=[0.5, 1.0, INF],
            images=[(image, image), (image, str(tmp_path / name / "gone.png")), (image, image)],
            seconds=[{"extract": factor * i} for i in (1, 2, 3)],
            about={"source": "made up", "licence": "CC0", "cpu": name, "date": name, "versions": {"torch": name}},
        )
        keep_matches(made, 0)
        keep_matches(made, 1)
        other = make_run(tmp_path / name / "other", errors=[0.4, 1.1, 3], seconds=[{"extract": factor}] * 3)
        reports.append(written(made, other))
    for one, two in zip(*reports, strict=True):
        assert one != two
        bare = [re.sub(r"<!-- time -->.*<!-- /time -->", "", text, flags=re.DOTALL) for text in (one, two)]
        assert bare[0] == bare[1]
        assert "no image at gone.png" in bare[0]
        assert 0.5 * len(one) < len(bare[0]) < len(one)


def test_settings_of_matplotlib_change_nothing(run: Run) -> None:
    import matplotlib

    first = [path.read_bytes() for path in write_report(run)]
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "lines.linewidth": 9, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        second = [path.read_bytes() for path in write_report(run)]
        assert dict(matplotlib.rcParams) == before
    assert first == second


def test_charts_take_the_colours_of_the_page(report: tuple[str, str]) -> None:
    html = report[1]
    charts = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(charts) == 3  # recall, histogram, precision of each pair
    for svg in charts:
        ET.fromstring(svg)
        assert "var(--s0)" in svg
        assert "var(--ink)" in svg
        assert not re.search(r"(?:fill|stroke): #(?!000000)", svg)  # black: matplotlib's default of what is not drawn
        assert re.search(r"<text [^>]*>[^<]*error, px</text>", svg) or "correct matches" in svg
        head = svg[: svg.index(">")]
        assert "viewBox" in head
        assert not re.search(r"\b(width|height)=", head)


def test_precision_against_recall_is_drawn_where_the_truth_of_each_match_is_known(
    run: Run, report: tuple[str, str]
) -> None:
    assert "kept matches that are correct" not in report[1]
    for i in range(10):
        keep_matches(run, i, correct=np.arange(12) % 3 > 0)
    html = written(run)[1]
    assert "kept matches that are correct" in html
    assert "120 matches of all pairs" in html


def test_other_runs_are_shown_beside_and_compared(run: Run, tmp_path: Path) -> None:
    names = {"names": list(run.pairs), "scenes": ["garden"] * 10}
    worse = make_run(tmp_path / "worse", errors=[INF if e > 3 else 5 * e for e in run.values(ERROR.name)], **names)  # type: ignore[arg-type]
    partial = make_run(tmp_path / "partial", errors=[1.0], pairs=10)
    markdown, html = written(run, worse, partial)
    assert re.search(r"corner error, PoseLib 1 px: AUC@4 px \| better \| \d+\.\d\d \|", markdown)
    assert "Not compared with partial: partial is incomplete: 1 of 10 pairs are done" in markdown
    time = html[html.index("<!-- time -->") :]
    assert "Time against accuracy" in time
    assert "seconds a pair" not in html[: html.index("<!-- time -->")]
    for name in ("this run", "worse", "partial"):
        assert f"</i>{name}</li>" in time
    elsewhere = make_run(tmp_path / "elsewhere", errors=[1.0], benchmark="others")
    with pytest.raises(InputError, match=r"of others, not of planes"):
        write_report(run, others=[elsewhere])


def test_runs_of_one_name_are_told_apart_by_their_folders(run: Run, tmp_path: Path) -> None:
    both = [make_run(tmp_path / name / "same", errors=[1.0] * 10) for name in ("x", "y")]
    markdown, _ = written(run, *both)
    assert "x/same" in markdown
    assert "y/same" in markdown


def test_a_run_that_is_not_complete_says_so(tmp_path: Path) -> None:
    markdown, html = written(make_run(tmp_path, errors=[1.0, 2.0], pairs=5))
    for said in (markdown, Page(html).text):
        assert "This run is not complete: 2 of 5 pairs are done." in said


def test_a_run_without_any_pair_done_still_has_a_report(tmp_path: Path) -> None:
    markdown, html = written(make_run(tmp_path, errors=[], pairs=3))
    assert "0 of 3 pairs are done" in markdown
    assert "AUC@2 px: **–**" in markdown
    assert "nan" not in Page(html).text.lower()
    assert {each["id"] for each in Page(html).all("section")} == {"result", "figures", "protocol", "data"}


def test_a_run_of_one_pair_has_no_standard_error(tmp_path: Path) -> None:
    markdown, _ = written(make_run(tmp_path, errors=[1.0], shares=[1]))
    assert "AUC@2 px: **75.0 %**\n" in markdown
    assert "±" not in markdown


def test_a_run_in_which_every_pair_failed_has_the_worst_figures(tmp_path: Path) -> None:
    run = make_run(tmp_path, errors=[INF] * 40, failures=dict.fromkeys(range(40), "no model"))
    markdown, html = written(run)
    assert "AUC@2 px: **0.0 %** ± 0.0" in markdown
    assert "40 pairs of 40 have no result. They count" in markdown
    assert "| no model | 40 |" in markdown
    assert "corner error, PoseLib 1 px: ∞. 100 matches" in Page(html).text


def test_metrics_without_errors_have_their_report_too(tmp_path: Path) -> None:
    markdown, html = written(make_run(tmp_path, errors=[1.0, 3.0], metrics=(SHARE, COUNT)))
    assert "mean: **37.5 %**" in markdown
    assert re.findall(r"^- (pair \d):", markdown, re.MULTILINE) == ["pair 1", "pair 0"]
    assert Page(html).open == []


def test_many_estimators_are_limited_in_a_chart_and_all_in_the_tables(tmp_path: Path) -> None:
    from dataclasses import replace

    metrics = [replace(ERROR, name=f"corner_error/{i}", title=f"estimator {i}") for i in range(11)]
    run = make_run(tmp_path / "plain", errors=[1.0, 2.0])
    records = [replace(each, values={m.name: 1.0 + i for i, m in enumerate(metrics)}) for each in run.records]
    markdown, html = written(replace(run, metrics=tuple(metrics), records=tuple(records)))
    assert "3 more are in the tables" in Page(html).text
    assert "| estimator 10 |" in markdown
    assert len(re.findall(r"</i>estimator \d+</li>", html)) == 8


def test_damaged_matches_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "000001.npz"
    with pytest.raises(LightGlueError, match=r"no matches were kept \(000001.npz\)"):
        read_matches(path)
    for arrays in ({"points0": np.zeros((3, 2))}, {"points0": np.zeros(3), "points1": np.zeros((1, 2))}):
        np.savez(path, **arrays)
        with pytest.raises(LightGlueError, match="000001.npz is damaged"):
            read_matches(path)
    np.savez(path, points0=np.zeros((3, 2)), points1=np.full((3, 2), np.nan))
    with pytest.raises(LightGlueError, match="do not fit"):
        read_matches(path)
    np.savez(path, points0=np.zeros((3, 2)), points1=np.zeros((3, 2)))
    assert read_matches(path).scores.tolist() == [1, 1, 1]
    assert read_matches(path).correct is None


def test_a_protocol_is_told_in_words() -> None:
    protocol = {
        "max_keypoints": 2048,
        "estimators": [
            {"method": "poselib", "threshold": 1.0, "max_iterations": 10000, "confidence": 0.9999, "seed": 0},
            {"method": "dlt", "threshold": 1.0},
        ],
        "thresholds": [5, 10, 20],
        "resize": 1024,
        "side": "long",
        "reference": "SuperGlue (2020).",
    }
    assert " ".join(protocol_in_words(protocol, "degrees")) == (
        "Each image has at most 2,048 keypoints. "
        "Images are resized so that the long edge has 1,024 px, and errors are in px of these. "
        "A model is estimated from the matches by PoseLib with inliers up to 1 px (10,000 iterations at most, "
        "confidence 0.9999, seed 0); by the direct linear transform, weighted by score and not robust. "
        "The first of these gives the headline. Errors are judged up to 5, 10 and 20°. "
        "The protocol is that of SuperGlue (2020)."
    )
    assert protocol_in_words({"resize": None}) == ["Images keep their size."]
    assert protocol_in_words("text") == protocol_in_words({"estimators": 3, "thresholds": "x"}) == []


def test_settings_become_facts() -> None:
    settings = {"a_b": {"c": None, "d": [1, 2.5]}, "e": True, "f": [{"g": 1}], "h": {}, "memory_bytes": 2**31}
    assert facts(settings) == [
        ("a b · c", "none"),
        ("a b · d", "1, 2.5"),
        ("e", "yes"),
        ("f · 1 · g", "1"),
        ("h", "none"),
        ("memory", "2.0 GiB"),
    ]
    assert what_ran({"extractor": {"name": "aliked"}, "matcher": "lightglue"}) == "aliked + lightglue"
    models = {"features": "disk", "matcher": "nearest", "extractor": {}}
    assert what_ran({"models": models, "refine": {"radius": 3}}) == "disk + nearest + refinement"
    assert what_ran({"models": models, "refine": None}) == "disk + nearest"
    assert what_ran({"title": "Ours", "matcher": "x"}) == "Ours"
    assert what_ran({}) == ""


def test_what_cannot_be_seen_is_shown_as_its_code() -> None:
    assert printable("a\n b\tc") == "a b c"
    assert printable("x\u202ey\x1b[31m") == "x\\u202ey\\u001b[31m"
    assert printable("ß数é👩‍🔬") == "ß数é👩‍🔬"


def test_a_document_becomes_tables_and_folds_in_both_forms() -> None:
    table = Table(("pair", "share"), (("a|b", Cell("50 %", 0.5)), ("c", Cell("no", tone="bad"))))
    document = Document("T", "s", (Section("x", "X", (Fold("more", (table,)),)),))
    assert to_markdown(document) == (
        "# T\n\ns\n\n## X\n\n<details>\n<summary>more</summary>\n\n"
        "| pair | share |\n| --- | ---: |\n| a\\|b | 50 % |\n| c | no |\n\n</details>\n"
    )
    html = to_html(document)
    assert '<td class="n">50 %<i class="bar"><i style="width:50.0%"></i></i></td>' in html
    assert '<td class="n bad">no</td>' in html
    assert Page(html).open == []
