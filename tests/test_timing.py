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


def test_a_recording_within_another_takes_nothing_away_from_it():
    with record() as outer, span("pair"):
        with record() as inner, span("extract"):
            pass
        with span("match"):
            pass
    assert [(s.name, s.depth) for s in outer.spans] == [("pair", 0), ("extract", 1), ("match", 1)]
    assert [(s.name, s.depth) for s in inner.spans] == [("extract", 0)]
    assert inner.spans[0].seconds == outer.spans[1].seconds > 0
    assert (outer.depth, inner.depth) == (0, 0)


def test_each_thread_has_a_recording_of_its_own():
    barrier, names = threading.Barrier(2), {}

    def work(name):
        with record() as timeline, span(name):
            barrier.wait(10)
        names[name] = [s.name for s in timeline.spans]

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {"a": ["a"], "b": ["b"]}


def test_the_seconds_of_a_name_are_a_sum_and_nothing_counts_twice():
    timeline = timing.Timeline([timing.Span(*each) for each in (
        ("load", 0, {}, 8.0), ("load", 1, {}, 4.0), ("read", 2, {}, 2.0), ("match", 0, {}, 32.0),
        ("pair", 0, {}, 100.0), ("load", 1, {}, 64.0), ("match", 1, {}, 16.0),
    )])  # fmt: skip
    assert timeline.seconds("load") == 72
    assert timeline.seconds("match") == 48
    assert timeline.seconds("none") == 0


def test_what_a_list_of_spans_raises_ends_the_call():
    """How a service cancels: its own list refuses the next span."""

    class Cancelled(list):
        def append(self, item):
            raise KeyboardInterrupt

    def work():
        with record(), span("extract"):
            pytest.fail("it went on")

    with record() as timeline:
        timeline.spans = Cancelled()
        with pytest.raises(KeyboardInterrupt):
            work()


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
