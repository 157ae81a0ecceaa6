"""Reports without their charts and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any
from unittest import mock

import cv2
import numpy as np

REPORTS = ("lightglue.sfm.report.charts", "lightglue.evaluation.plots", "lightglue.training.report")
BLANK = cv2.imencode(".png", np.full((2, 3, 3), 255, np.uint8))[1].tobytes()


@contextmanager
def undrawn() -> Iterator[None]:
    """The charts of reports, and a map's picture, are set up with their data but not drawn: that takes longer than to
    make a small map. One picture of each model is set up; it is drawn several times, in other colours and sizes.
    """
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    def chart(draw: Callable[[Axes], None]) -> str:
        draw(Figure().subplots())
        return '<svg xmlns="http://www.w3.org/2000/svg"></svg>'

    with ExitStack() as stack:
        for module in REPORTS:
            stack.enter_context(mock.patch(f"{module}.svg_chart", chart))
        if find_spec("pycolmap") is not None:
            stack.enter_context(mock.patch("lightglue.sfm.report.document._png", _picture()))
        yield


def _picture() -> Callable[..., bytes]:
    from lightglue.sfm.report.picture import plot_model

    seen: list[Any] = [None]

    def picture(model: Any, title: str, dpi: float, dark: bool = False) -> bytes:
        if model is not seen[0]:
            plot_model(model, title=title, dpi=dpi, dark=dark)
            seen[0] = model
        return BLANK

    return picture
