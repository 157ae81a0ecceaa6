"""Drawing images, keypoints and matches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from lightglue.errors import InputError
from lightglue.images import load_image
from lightglue.viz2d import (
    add_text,
    cm_BlRdGn,
    cm_grad2d,
    cm_prune,
    cm_RdGn,
    plot_images,
    plot_keypoints,
    plot_matches,
    save_plot,
)

RED, YELLOW, GREEN, BLUE = (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1)


@pytest.fixture(autouse=True)
def _pyplot() -> Iterator[None]:
    with mpl.rc_context():
        plt.switch_backend("Agg")
        yield
        plt.close("all")


def rendered(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).astype(int)


def two_images() -> list[np.ndarray]:
    return [np.full((40, 60, 3), 255, np.uint8), np.full((30, 50), 255, np.uint8)]


def points(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 2)) * 28


def offsets(axis: int) -> np.ndarray:
    """What the last scatter drew onto an axes."""
    return np.asarray(plt.gcf().axes[axis].collections[-1].get_offsets())


# --- colours ------------------------------------------------------------------------------------------------------


def test_scores_go_from_red_over_yellow_to_green() -> None:
    assert np.allclose(cm_RdGn(np.array([-1, 0, 0.5, 1, 2])), [RED, RED, YELLOW, GREEN, GREEN])
    assert np.allclose(cm_RdGn(torch.tensor([[0.25]])), [[[1, 0.5, 0]]])


def test_signed_values_go_from_blue_over_red_to_green() -> None:
    expected = [(0, 0.2, 1, 1), (1, 0.1, 1, 1), (*RED, 1), (*YELLOW, 1), (*GREEN, 1)]
    assert np.allclose(cm_BlRdGn(np.array([-1, -0.5, 0, 0.5, 1])), expected)


def test_pruned_keypoints_are_coloured_by_their_last_layer() -> None:
    for layers in (torch.tensor([1, 9, 4, 9]), np.array([1.0, 9.0, 4.0, 9.0]), torch.tensor([1.0, 9, 4, 9]).bfloat16()):
        blue, early, later = cm_BlRdGn(np.array([-1, 0, 1 / 3]))
        assert np.allclose(cm_prune(layers), [early, blue, later, blue])
    assert cm_prune(torch.zeros(0)).shape == (0, 4)


def test_positions_have_the_corners_colours() -> None:
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [-3, 9]])
    assert np.allclose(cm_grad2d(corners), [YELLOW, GREEN, RED, BLUE, RED])
    assert np.allclose(cm_grad2d(torch.tensor([[0.5, 0.5]])), [[0.5, 0.5, 0.25]])


# --- images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 20, 30),
        torch.rand(1, 20, 30),
        torch.rand(20, 30),
        torch.rand(3, 20, 30, requires_grad=True),
        torch.rand(3, 20, 30).bfloat16(),
        torch.rand(3, 20, 30).half(),
        torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8),
        np.random.default_rng(0).random((20, 30, 3)),
        np.random.default_rng(0).random((3, 20, 30)),
        np.random.default_rng(0).random((1, 20, 30)),
        np.random.default_rng(0).random((20, 30, 1)),
        np.random.default_rng(0).random((20, 30, 4)),
        np.zeros((20, 30), np.uint8),
        np.full((20, 30, 3), 65535, np.uint16),
        np.ones((20, 30), bool),
    ],
    ids=lambda image: f"{type(image).__name__} {tuple(image.shape)} {image.dtype}",
)
def test_images_of_any_layout_are_shown(image: Any) -> None:
    plot_images([image])
    (ax,) = plt.gcf().axes
    assert ax.images[0].get_array().shape[:2] == (20, 30)
    rendered(plt.gcf())


def test_images_stand_side_by_side_with_titles() -> None:
    plot_images(two_images(), titles=["left", "right"], dpi=50)
    figure = plt.gcf()
    assert [ax.get_title() for ax in figure.axes] == ["left", "right"]
    assert figure.dpi == 50
    assert figure.get_size_inches() == pytest.approx([4.5 * (60 / 40 + 50 / 30), 4.5])
    assert figure.axes[0].get_position().x1 <= figure.axes[1].get_position().x0


def test_images_can_have_equal_room_and_a_colour_map_each() -> None:
    plot_images([np.eye(4), np.eye(4)], cmaps=["gray", "viridis"], adaptive=False)
    assert plt.gcf().get_size_inches() == pytest.approx([12, 4.5])
    assert [ax.images[0].get_cmap().name for ax in plt.gcf().axes] == ["gray", "viridis"]


def test_an_extreme_shape_gives_a_figure_that_fits_into_memory() -> None:
    plot_images([np.zeros((1, 20000)), np.zeros((20000, 1))])
    assert plt.gcf().get_size_inches().max() <= 50


@pytest.mark.parametrize("image", [np.zeros(4), np.zeros((2, 4, 5)), np.zeros((0, 4)), torch.zeros(1, 3, 8, 8)])
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises(InputError, match="An image has shape"):
        plot_images([image])


@pytest.mark.parametrize("options", [{"titles": ["one"]}, {"cmaps": ["gray"]}, {"cmaps": []}])
def test_each_image_needs_a_title_and_a_colour_map_or_none_does(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"There are [01] (titles|cmaps) for 2 images; give one for each"):
        plot_images(two_images(), **options)
    assert plt.get_fignums() == []


def test_no_image_is_refused() -> None:
    with pytest.raises(InputError, match="no image"):
        plot_images([])


# --- keypoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "colours",
    ["red", "#ff0000", (1, 0, 0), (1, 0, 0, 0.5), np.tile([1.0, 0, 0], (3, 1)), torch.eye(3), ["r", "g", "b"]],
    ids=str,
)
def test_keypoints_take_colours_in_every_form(colours: Any) -> None:
    plot_images(two_images())
    plot_keypoints([points(3), torch.tensor(points(3), requires_grad=True)], colors=[colours, colours], ps=9, a=0.5)
    assert np.allclose(offsets(0), points(3))
    assert np.allclose(offsets(1), points(3))
    assert plt.gcf().axes[0].collections[0].get_alpha() == 0.5
    rendered(plt.gcf())


def test_one_colour_serves_all_images() -> None:
    plot_images(two_images())
    plot_keypoints([points(4), points(2)], colors=(0, 0, 1))
    for ax in plt.gcf().axes:
        assert np.allclose(ax.collections[0].get_facecolor(), [[0, 0, 1, 1]])


def test_numbers_go_through_a_colour_map() -> None:
    plot_images(two_images())
    plot_keypoints([points(5), points(5)], colors=[np.arange(5.0), torch.arange(5)])
    assert plt.gcf().axes[0].collections[0].get_array().tolist() == [0, 1, 2, 3, 4]


def test_no_keypoints_draw_nothing() -> None:
    plot_images(two_images())
    plot_keypoints([np.zeros((0, 2)), torch.zeros(0, 2)], colors=[cm_prune(torch.zeros(0)), "lime"])
    assert offsets(0).shape == offsets(1).shape == (0, 2)


def test_keypoints_go_onto_the_axes_named() -> None:
    plot_images(two_images())
    second = plt.gcf().axes[1]
    plt.figure()
    plot_keypoints([points(3)], axes=[second])
    assert len(second.collections) == 1


@pytest.mark.parametrize(
    ("keypoints", "options", "message"),
    [
        ([np.zeros((1, 4, 2))], {}, r"shape \(1, 4, 2\)"),
        ([points(3)] * 3, {}, "2 axes where 3"),
        ([points(3)] * 2, {"colors": ["red"]}, "2 images' keypoints, 1 colours"),
        ([points(3)], {"colors": [np.zeros((2, 3))]}, "2 colours for 3 keypoints"),
        ([points(3)], {"colors": "no colour"}, "not colours"),
    ],
)
def test_keypoints_that_do_not_fit_are_refused(keypoints: Any, options: dict[str, Any], message: str) -> None:
    plot_images(two_images())
    with pytest.raises(InputError, match=message):
        plot_keypoints(keypoints, **options)


# --- matches ------------------------------------------------------------------------------------------------------


def test_one_artist_draws_the_same_picture_as_one_for_each_line() -> None:
    pictures = []
    for labels in (None, ["line"] * 20):
        plot_images(two_images())
        plot_matches(points(20), points(20, 1), lw=2, a=0.7, labels=labels)
        figure = plt.gcf()
        rendered(figure)
        figure.set_size_inches(7, 5)  # layout that changes after drawing
        figure.tight_layout(pad=3)
        figure.axes[1].set_xlim(5, 45)  # and a zoom that hides some ends
        pictures.append(rendered(figure))
    assert (pictures[0] != 255).any()
    # Matplotlib snaps the pixels of single lines differently; no line is missing, none is moved.
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.5
    assert np.abs(pictures[0] - pictures[1]).max(axis=-1).mean() < 1


def test_lines_follow_into_every_file_format(tmp_path: Path) -> None:
    plot_images(two_images())
    plot_matches(points(20), points(20, 1), color="lime")
    for name in ("plot.png", "plot.pdf", "plot.svg"):
        save_plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 500
    assert (tmp_path / "plot.svg").read_text().count("#00ff00") >= 20


def test_labelled_lines_are_artists_of_their_own() -> None:
    plot_images(two_images())
    plot_matches(points(3), points(3, 1), labels=["a", "b", "c"])
    lines = [artist for artist in plt.gcf().artists if isinstance(artist, ConnectionPatch)]
    assert [line.get_label() for line in lines] == ["a", "b", "c"]
    assert all(line.get_picker() == 5 for line in lines)


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
@pytest.mark.parametrize(
    "colour",
    [None, "lime", (0, 1, 0), [0, 1, 0], ["r", "g", "b"], [(0, 1, 0)] * 3, np.ones((3, 4)), torch.ones(3, 3)],
    ids=str,
)
def test_matches_take_colours_in_every_form(colour: Any, labels: list[str] | None) -> None:
    plot_images(two_images())
    plot_matches(torch.tensor(points(3), requires_grad=True), points(3, 1), colour, labels=labels)
    rendered(plt.gcf())
    assert np.allclose(offsets(0), points(3))
    assert np.allclose(offsets(1), points(3, 1))


def test_the_default_colours_are_a_gradient_over_the_first_image() -> None:
    plot_images(two_images())
    corners = np.array([[2, 3], [20, 3], [2, 9], [20, 9]])
    plot_matches(corners, corners)
    drawn = plt.gcf().axes[0].collections[-1].get_facecolor()[:, :3]
    assert np.allclose(drawn, [YELLOW, GREEN, RED, BLUE])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_matches_need_no_special_care(count: int) -> None:
    plot_images(two_images())
    same_place = np.full((count, 2), 7.0)
    plot_matches(same_place, same_place)
    plot_matches(torch.zeros(count, 2), torch.zeros(count, 2), labels=["x"] * count, color="r")
    rendered(plt.gcf())
    assert len(offsets(0)) == count


def test_lines_and_end_points_can_be_left_out() -> None:
    plot_images(two_images())
    plot_matches(points(3), points(3), lw=0, ps=0)
    assert not plt.gcf().artists
    assert not plt.gcf().axes[0].collections


def test_drawing_matches_does_not_move_the_pictures() -> None:
    plot_images(two_images())
    before = [(ax.get_xlim(), ax.get_ylim()) for ax in plt.gcf().axes]
    plot_matches(points(3) + 500, points(3) - 500)
    assert [(ax.get_xlim(), ax.get_ylim()) for ax in plt.gcf().axes] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((points(3), points(4)), "3 and 4 keypoints"),
        ((points(3)[None], points(3)[None]), r"shape \(1, 3, 2\)"),
        ((points(3), points(3), np.zeros((2, 3))), "2 colours for 3"),
        ((points(3), points(3), "r", 1, 1, [0.5, 0.5]), "2 opacities for 3"),
        ((points(3), points(3), "r", 1, 1, 1, ["a"]), "1 labels for 3 matches"),
    ],
)
def test_matches_that_do_not_fit_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    plot_images(two_images())
    with pytest.raises(InputError, match=message):
        plot_matches(*arguments)


def test_matches_need_two_images() -> None:
    plot_images(two_images()[:1])
    with pytest.raises(InputError, match="1 axes where 2 are needed; call plot_images first"):
        plot_matches(points(3), points(3))


# --- text and files -----------------------------------------------------------------------------------------------


def test_text_is_written_onto_an_image_with_an_outline_or_without() -> None:
    plot_images(two_images())
    add_text(0, "stop after 6 layers", fs=20)
    add_text(1, "plain", lcolor=None, pos=(0.5, 0.5), ha="center")
    first, second = (ax.texts[0] for ax in plt.gcf().axes)
    assert (first.get_text(), first.get_fontsize(), len(first.get_path_effects())) == ("stop after 6 layers", 20, 2)
    assert (second.get_text(), second.get_position(), second.get_path_effects()) == ("plain", (0.5, 0.5), [])


def test_text_for_an_image_that_is_not_there_is_refused() -> None:
    plot_images(two_images())
    with pytest.raises(InputError, match="no image 2 in a figure of 2"):
        add_text(2, "?")


def test_plots_are_saved_without_margins_unless_asked_for(tmp_path: Path) -> None:
    plot_images([np.zeros((40, 60, 3))])
    save_plot(tmp_path / "tight.png")
    save_plot(tmp_path / "wide.png", pad_inches=1, dpi=100)
    tight, wide = (load_image(tmp_path / name) for name in ("tight.png", "wide.png"))
    assert tight.max() == 0
    assert wide.shape[2] == tight.shape[2] + 200


def test_importing_selects_no_backend_and_opens_no_figure() -> None:
    code = (
        "import lightglue.viz2d, matplotlib as mpl, matplotlib.rcsetup as setup\n"
        "assert dict.__getitem__(mpl.rcParams, 'backend') is setup._auto_backend_sentinel\n"
        "assert not mpl.pyplot.get_fignums()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": ""}, timeout=120)
