"""Reports without their charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

REPORTS = ("lightglue.sfm.report.charts", "lightglue.evaluation.plots", "lightglue.training.report")


@contextmanager
def undrawn() -> Iterator[None]:
    """The charts of reports are set up with their data but not drawn, which takes longer than a small map."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    def chart(draw: Callable[[Axes], None]) -> str:
        draw(Figure().subplots())
        return '<svg xmlns="http://www.w3.org/2000/svg"></svg>'

    with ExitStack() as stack:
        for module in REPORTS:
            stack.enter_context(mock.patch(f"{module}.svg_chart", chart))
        yield
