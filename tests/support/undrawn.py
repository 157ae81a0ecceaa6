"""Reports without their charts and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np

from lightglue.images import read_image

REPORTS = ("lightglue.sfm.report.charts", "lightglue.evaluation.plots", "lightglue.training.report")
BLANK = {ending: cv2.imencode(ending, np.full((2, 3, 3), 255, np.uint8))[1].tobytes() for ending in (".png", ".jpg")}


@contextmanager
def undrawn() -> Iterator[None]:
    """The charts of reports, and a map's picture, are set up with their data but not drawn: that takes longer than to
    make a small map. Matplotlib gets the first chart of each kind, and one picture of each model, which is drawn
    twice, in other colours. Of an evaluation's worst pairs the images are read.
    """
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    known: set[Any] = set()

    def chart(draw: Callable[[Axes], None]) -> str:
        kind = draw.__code__
        draw(mock.MagicMock() if kind in known else Figure().subplots())
        known.add(kind)
        return '<svg xmlns="http://www.w3.org/2000/svg"></svg>'

    def pair(images: Sequence[Path], matches: Any, texts: Sequence[str]) -> bytes:
        for image in images:
            read_image(image)  # which says what is missing or damaged
        return BLANK[".jpg"]

    with ExitStack() as stack:
        stack.enter_context(mock.patch("lightglue.evaluation.plots.match_jpeg", pair))
        for module in REPORTS:
            stack.enter_context(mock.patch(f"{module}.svg_chart", chart))
        if find_spec("pycolmap") is not None:
            stack.enter_context(mock.patch("lightglue.sfm.report.document._png", _picture()))
        yield


def _picture() -> Callable[..., bytes]:
    from lightglue.sfm.report.picture import plot_model

    seen: list[Any] = [None]

    def picture(model: Any, title: str, dpi: float, dark: bool) -> bytes:
        if model is not seen[0]:
            plot_model(model, title=title, dpi=dpi, dark=dark)
            seen[0] = model
        return BLANK[".png"]

    return picture
