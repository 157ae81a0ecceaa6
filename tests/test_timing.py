"""Where the time of a call goes, and that nothing is noted while nobody asks."""

from __future__ import annotations

import doctest
import threading

import pytest

from lightglue import timing
from lightglue.timing import record, span


def test_spans_nest_and_keep_their_details():
    with record() as timeline:
        with span("match"), span("layer 1", keypoints=20):
            pass
        with span("assign"):
            pass
    assert [(s.name, s.depth, s.details) for s in timeline.spans] == [
        ("match", 0, {}),
        ("layer 1", 1, {"keypoints": 20}),
        ("assign", 0, {}),
    ]
    outer, inner, _ = timeline.spans
    assert outer.seconds >= inner.seconds > 0


def test_nothing_is_recorded_outside_or_in_other_threads():
    with span("before"):
        pass
    with record() as timeline:
        thread = threading.Thread(target=lambda: span("elsewhere").__enter__())
        thread.start()
        thread.join()
    with span("after"):
        pass
    assert timeline.spans == []


def test_an_error_ends_a_span_and_a_recording():
    with pytest.raises(ValueError, match="broken"), record() as timeline, span("extract"):
        raise ValueError("broken")
    assert timeline.depth == 0
    assert timeline.spans[0].seconds > 0
    with span("later"):
        pass
    assert len(timeline.spans) == 1


def test_the_documented_example_is_true():
    assert doctest.testmod(timing).failed == 0
