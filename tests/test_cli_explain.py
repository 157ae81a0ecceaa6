"""`lightglue explain`: where the time of a pair goes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from lightglue.support import precision
from support import A, B
from support.command import lightglue

SMALL = ("--max-keypoints", "150", "--resize", "320", "--device", "cpu", "--repeat", "2")
run = partial(lightglue, "explain")


def test_each_step_of_a_pair_is_told_with_its_time_and_what_it_worked_on() -> None:
    code, out, err = run(A, B, *SMALL, "--no-mp", "--depth-confidence", "-1", "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert summary["precision"] == "float32"
    assert summary["runs"] == 2
    steps = summary["steps"]
    assert [step["name"] for step in steps if step["depth"] == 0] == ["load", "resize", "extract"] * 2 + ["match"]
    within = [step for step in steps if step["depth"] == 1 and step["name"].startswith("layer")]
    assert [step["name"] for step in within] == [f"layer {i}" for i in range(1, 10)]
    keypoints = [step["keypoints"] for step in within]
    assert keypoints[0] == 300
    assert keypoints == sorted(keypoints, reverse=True), "pruning leaves fewer and fewer"
    assert keypoints[-1] < 300
    (assign,) = (step for step in steps if step["name"] == "assign")
    assert assign["keypoints"] == keypoints[-1]
    assert all(step["seconds"] > 0 for step in steps)
    assert summary["seconds"] == pytest.approx(sum(step["seconds"] for step in steps if step["depth"] == 0))


def test_the_table_ends_with_the_whole_and_its_precision() -> None:
    code, out, _ = run(A, B, *SMALL, "--features", "disk", "--no-mp")
    assert code == 0
    first, *_, last = out.splitlines()
    assert first.split() == ["step", "ms", "share", "on"]
    assert last.split()[0] == "all"
    assert last.split()[2:] == ["100%", "float32"]


def test_what_an_effort_did_is_told_step_by_step() -> None:
    large = (*SMALL, "--max-keypoints", "900", "--resize", "640", "--no-mp", "--effort", "fast", "--repeat", "1")
    code, out, err = run(A, B, *large, "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert summary["effort"] == "fast"
    top = [step["name"] for step in summary["steps"] if step["depth"] == 0]
    assert top[:7] == ["load", "resize", "extract"] * 2 + ["neighbors"]
    assert {"seeds", "guided"} <= set(top)


@pytest.mark.usefixtures("no_models")
def test_a_missing_image_is_an_error_before_anything_is_loaded(tmp_path: Path) -> None:
    code, out, err = run(A, tmp_path / "none.jpg")
    assert (code, out) == (1, "")
    assert "none.jpg" in err


def test_no_runs_are_refused_by_name() -> None:
    code, _, err = run(A, B, "--repeat", "0")
    assert code == 2
    assert "--repeat" in err


@pytest.mark.parametrize("command", ["match", "explain"])
@pytest.mark.parametrize(
    ("flags", "fast", "told"), [((), True, "bfloat16"), ((), False, "float32"), (("--no-mp",), True, "float32")]
)
def test_reduced_precision_is_used_where_it_is_fast_and_said(command, flags, fast, told, monkeypatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_fast_bfloat16", lambda: fast)
    small = SMALL if command == "explain" else SMALL[:-2]
    code, out, _ = lightglue(command, A, B, *small, *flags)
    assert code == 0
    assert told in out
    assert ("--no-mp for float32" in out) == (told == "bfloat16")
