"""The finished picture of a matched pair."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from lightglue.drawing import lettering as _lettering
from lightglue.drawing.matches import plot_match_summary
from lightglue.errors import InputError
from lightglue.images import load_image
from support import ASSETS
from support.child import run_python


def rendered(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).astype(int)


def two_images() -> list[np.ndarray]:
    return [np.full((40, 60, 3), 255, np.uint8), np.full((30, 50), 255, np.uint8)]


def points(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 2)) * 28


def summary(count: int = 5, **options: Any) -> Figure:
    matches = np.stack([np.arange(count), np.arange(count)[::-1]], axis=1)
    scores = np.linspace(0.1, 1, count)
    return plot_match_summary(*two_images(), points(9), points(8, 1), matches, scores, **options)


def all_text(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts] + [text.get_text() for text in figure.texts]


def test_the_summary_tells_the_facts() -> None:
    text = all_text(summary(names=("a.jpg", "b.jpg"), texts=("6 of 9 layers", "1.2 s")))
    assert "5 matches   ·   6 of 9 layers   ·   1.2 s" in text
    assert {"a.jpg", "b.jpg", "score  0", "1"} <= set(text)


@pytest.mark.parametrize(("count", "words"), [(0, "0 matches"), (1, "1 match"), (2, "2 matches")])
def test_the_summary_counts(count: int, words: str) -> None:
    figure = summary(count)
    assert words in all_text(figure)
    rendered(figure)


def python(code: str, **environment: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    run_python(code, env={**inherited, **environment})


def test_the_summary_never_imports_pyplot() -> None:
    code = (
        "import io, sys, numpy as np\n"
        "from lightglue.drawing.matches import plot_match_summary\n"
        "image = np.zeros((20, 30), np.uint8)\n"
        "figure = plot_match_summary(image, image, [[1, 1]], [[1, 1]], [[0, 0]], [0.5])\n"
        "for kind in ('png', 'jpg', 'pdf', 'svg'):\n"
        "    figure.savefig(io.BytesIO(), format=kind)\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    python(code, MPLBACKEND="module://no_such_backend")


def test_the_command_writes_its_picture_whatever_backend_the_surroundings_name(tmp_path: Path) -> None:
    images = [str(ASSETS / f"montmartre_{which}.jpg") for which in ("close", "far")]
    options = ["--max-keypoints", "50", "--resize", "160", "--device", "cpu", "--output", str(tmp_path / "x.png")]
    command = ["lightglue", "match", *images, *options]
    python(f"import sys; from lightglue.cli import main; sys.argv = {command!r}; main()", MPLBACKEND="nonsense")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["summary.png", "summary.jpg", "summary.pdf", "summary.svg"])
def test_the_summary_is_saved_in_every_format(name: str, tmp_path: Path) -> None:
    summary().savefig(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000


def test_the_summary_shows_a_real_pair(
    reference: Callable[[str], dict[str, Any]], image_path: Callable[[str, int], Path]
) -> None:
    photos = [load_image(image_path("montmartre", i)) for i in (0, 1)]
    features = [reference(f"aliked-n16_montmartre_{i}")["keypoints"][0] for i in (0, 1)]
    match = reference("match_aliked_adaptive_montmartre")
    picture = rendered(plot_match_summary(*photos, *features, match["matches"], match["scores"], dpi=100))
    without = rendered(plot_match_summary(*photos, *features, np.zeros((0, 2)), np.zeros(0), dpi=100))
    assert picture.shape[1] == 1200
    changed = (np.abs(picture - without).max(axis=-1) > 100).mean()
    assert 0.001 < changed < 0.1  # the matches are seen, and so are the photographs


def test_convention_a_keypoint_is_drawn_on_the_centre_of_its_pixel() -> None:
    image = np.zeros((2, 3), np.uint8)
    figure = plot_match_summary(image, image, [[1, 1]], [[1, 1]], [[0, 0]], [0.5])
    ax = figure.axes[0]
    left, right, bottom, top = ax.images[0].get_extent()
    drawn = [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets())]
    x, y = drawn[0][0]
    assert (x - left) / (right - left) == pytest.approx(1.5 / 3)  # pixel 1 of 3 spans 1 to 2
    assert (y - top) / (bottom - top) == pytest.approx(1.5 / 2)


@pytest.mark.parametrize(
    "sizes", [((1, 1), (400, 300)), ((2, 900), (900, 2)), ((1, 5000), (1, 5000)), ((5000, 1), (5000, 1))]
)
def test_the_summary_takes_images_of_any_shape(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    images = [np.zeros(size, np.uint8) for size in sizes]
    figure = plot_match_summary(*images, [[0, 0]], [[0, 0]], [[0, 0]], [1.0])
    width, height = figure.get_size_inches()
    assert 7 <= width <= 12.1
    assert 1 <= height <= 10
    rendered(figure)


def test_more_matches_are_drawn_fainter() -> None:
    def opacity(count: int) -> float:
        keypoints = points(count)
        matches = np.repeat(np.arange(count)[:, None], 2, axis=1)
        figure = plot_match_summary(*two_images(), keypoints, keypoints, matches, np.ones(count))
        lines = [c for c in figure.axes[0].collections if not isinstance(c, PathCollection)]
        return float(lines[0].get_color()[0][3])

    assert opacity(10) > 2 * opacity(500) > 2 * opacity(5000) > 0


@pytest.mark.parametrize("name", ["图像.jpg", "$x^2$ $", "a\nb\t c", "x" * 500, "\\alpha_{", ""])
def test_any_file_name_can_be_written(name: str) -> None:
    figure = summary(names=(name, name), texts=(name,))
    rendered(figure)
    assert all(len(text) < 700 and "\n" not in text for text in all_text(figure))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matches": np.zeros((3, 3), int)}, r"shape \(3, 3\)"),
        ({"scores": np.ones(2)}, "2 scores"),
        ({"matches": np.array([[0, 8]])}, "keypoints are 9 and 8"),
        ({"matches": np.array([[-1, 0]])}, "Matches reach from"),
        ({"keypoints0": np.zeros((1, 9, 2))}, r"shape \(1, 9, 2\)"),
        ({"image1": np.zeros((4, 4), np.int64)}, "dtype int64"),
    ],
)
def test_a_summary_of_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {
        "image0": two_images()[0],
        "image1": two_images()[1],
        "keypoints0": points(9),
        "keypoints1": points(8),
        "matches": np.zeros((1, 2), int),
        "scores": np.ones(1),
    }
    with pytest.raises(InputError, match=message):
        plot_match_summary(**{**arguments, **changes})


def test_the_summary_takes_tensors() -> None:
    images = [torch.rand(3, 20, 30, requires_grad=True), torch.rand(1, 30, 20)]
    keypoints = torch.rand(4, 2, requires_grad=True) * 15
    figure = plot_match_summary(*images, keypoints, keypoints, torch.tensor([[0, 1]]), torch.tensor([0.7]))
    rendered(figure)
    assert "1 match" in all_text(figure)


@pytest.mark.parametrize("name", ["W" * 60, "i" * 300, "图" * 60])
def test_long_names_keep_their_ends_and_do_not_touch(name: str) -> None:
    figure = summary(names=(f"a{name}b.png", f"c{name}d.png"))
    rendered(figure)
    first, second = figure.axes[0].texts
    assert first.get_window_extent().x1 < second.get_window_extent().x0
    assert second.get_window_extent().x1 < figure.bbox.x1
    assert first.get_text().startswith("a")
    assert second.get_text().endswith("d.png")


# -- inliers -----------------------------------------------------------------------------------------------------------


def line_sets(figure: Figure) -> list[LineCollection]:
    return [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]


def test_outliers_are_drawn_grey_thin_and_below() -> None:
    outliers, inliers = line_sets(summary(inliers=np.array([True, False, True, False, True])))
    assert (len(outliers.get_segments()), len(inliers.get_segments())) == (2, 3)
    red, green, blue, opacity = outliers.get_color()[0]
    assert red == green == blue
    assert 0 < opacity < inliers.get_color()[0][3]
    assert outliers.get_linewidths()[0] < inliers.get_linewidths()[0]
    (plain,) = line_sets(summary())
    for drawn, rows in ((outliers, [1, 3]), (inliers, [0, 2, 4])):
        np.testing.assert_array_equal(drawn.get_segments(), np.array(plain.get_segments())[rows])


@pytest.mark.parametrize(
    ("inliers", "words"),
    [
        ([True] * 5, "5 inliers"),
        ([True, False, True, False, True], "3 inliers, others grey"),
        ([False] * 4 + [True], "1 inlier, others grey"),
        ([False] * 5, "0 inliers, all grey"),
    ],
)
def test_inliers_are_counted_and_the_colour_of_the_others_is_told(inliers: list[bool], words: str) -> None:
    for given in (inliers, torch.tensor(inliers)):
        assert f"5 matches   ·   {words}" in all_text(summary(inliers=given))


def test_no_matches_have_no_inliers() -> None:
    figure = summary(0, inliers=np.zeros(0, bool))
    assert "0 matches   ·   0 inliers" in all_text(figure)
    rendered(figure)


def test_many_outliers_are_seen_but_do_not_cover_the_photographs() -> None:
    image, g = np.zeros((300, 400), np.uint8), np.random.default_rng(0)
    keypoints, matches = g.random((2000, 2)) * 290, np.repeat(np.arange(2000)[:, None], 2, axis=1)
    few, all_of_them = np.arange(2000) < 100, np.ones(2000, bool)
    pictures = [
        rendered(plot_match_summary(image, image, keypoints, keypoints, matches, np.ones(2000), inliers=which))
        for which in (few, all_of_them)
    ]
    opacities = [line_sets(summary(5, inliers=np.zeros(5, bool)))[0].get_color()[0][3]]
    figure = plot_match_summary(image, image, keypoints, keypoints, matches, np.ones(2000), inliers=few)
    opacities.append(line_sets(figure)[0].get_color()[0][3])
    assert opacities[0] > 2 * opacities[1] > 0.3
    inside = [picture[60:-90, 30:-30, :3].astype(float) for picture in pictures]
    colourful = [np.ptp(picture, axis=2).mean() for picture in inside]
    gray = np.median(inside[0].max(axis=2))
    assert colourful[0] < colourful[1] / 2
    assert 20 < gray < 200


def test_there_is_one_inlier_for_each_match() -> None:
    with pytest.raises(InputError, match="4 inliers and 5 matches; give one for each match"):
        summary(inliers=np.ones(4, bool))


def test_letters_come_from_an_eastern_font_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lettering.fontManager, "get_font_names", lambda: ["DejaVu Sans"])
    assert _lettering.families() == ["DejaVu Sans"]
    assert _lettering.printable("中 a") == "□ a"
    names = ["DejaVu Sans", "SimSun", "PingFang SC", "WenQuanYi Micro Hei"]
    monkeypatch.setattr(_lettering.fontManager, "get_font_names", lambda: names)
    assert _lettering.families() == ["DejaVu Sans", "WenQuanYi Micro Hei"]
