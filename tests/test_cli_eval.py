"""`lightglue eval`: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lightglue.cli.evaluate import TITLES
from lightglue.evaluation.datasets import BENCHMARKS
from lightglue.evaluation.records import read_run
from support import A, B
from support.command import lightglue

H = np.array([[0.9, 0.05, 12.0], [-0.04, 0.95, 8.0], [1e-5, 2e-5, 1.0]])
FAST = ("--features", "sift", "--matcher", "nearest", "--device", "cpu")
run = partial(lightglue, "eval")
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three pairs, one of them without a file."""
    image = cv2.resize(cv2.imread(str(A)), (320, 220), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "b.png"), cv2.warpPerspective(image, H, (320, 220)))
    pairs = [
        {"scene": "dome", "image0": "a.png", "image1": name, "H": H.tolist()} for name in ("b.png", "gone.png", "b.png")
    ]
    path = tmp_path / "three.json"
    path.write_text(json.dumps({"kind": "homography", "max_keypoints": 200, "source": "here", "pairs": pairs}))
    return path


def evaluated(manifest: Path, output: Path, *arguments: Any) -> dict[str, Any]:
    """What `lightglue eval pairs --json` prints."""
    done = run("pairs", manifest, *FAST, "--output", output, "--json", *arguments)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_pairs_of_ones_own(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("lightglue.support.progress._Lines.EVERY", 0.0)
    done = run("pairs", manifest, *FAST, "--output", tmp_path / "run")
    assert done.code == 0
    assert "3, 1 of them failed" in done.out
    assert "corner_error/opencv@0.5 auc@1" in done.out
    assert "pairs: 3 of 3" in done.err  # progress, where stderr is a file
    found = read_run(tmp_path / "run")
    assert [record.failure is None for record in found.records] == [True, False, True]
    assert "gone.png" in (tmp_path / "run" / "report.html").read_text()
    assert found.settings["models"]["max_keypoints"] == 200
    assert found.about["machine"]["cores"] > 0


def test_json_has_every_figure_and_every_failure(manifest, tmp_path):
    told = evaluated(manifest, tmp_path / "run")
    assert told["pairs"] == 3
    assert list(told["failures"]) == ["a.png|gone.png"]
    assert 0 < told["figures"]["corner_error/opencv@0.5 auc@10"] < 66.7
    assert set(told["seconds"]) == {"extract", "match", "refine", "estimate"}
    assert [Path(path).name for path in told["reports"]] == ["report.md", "report.html"]


def test_options_reach_extractor_matcher_protocol_and_estimator(manifest, tmp_path):
    evaluated(
        manifest,
        tmp_path / "run",
        *("--conf", "extractor.nms_radius=none"),
        *("--conf", "matcher.ratio_threshold=0.7"),
        *("--conf", "protocol.resize=200"),
        *("--conf", "estimator.seed=5"),
        *("--max-keypoints", "100", "--refine"),
    )
    settings = read_run(tmp_path / "run").settings
    assert settings["models"]["extractor"] == {"nms_radius": None}
    assert settings["models"]["thresholds"] == {"ratio_threshold": 0.7}
    assert settings["models"]["max_keypoints"] == settings["protocol"]["max_keypoints"] == 100
    assert settings["protocol"]["resize"] == 200
    assert {each["seed"] for each in settings["protocol"]["estimators"]} == {5}
    assert settings["refine"]["window"] > 0


def test_compare_and_report(manifest, tmp_path):
    for name, ratio in (("a", 0.8), ("b", 0.6)):
        evaluated(manifest, tmp_path / name, "--conf", f"matcher.ratio_threshold={ratio}")
    done = run("compare", tmp_path / "a", tmp_path / "b")
    assert done.code == 0
    assert "AUC@1 px" in done.out
    assert "0.6" in done.out
    assert json.loads(run("compare", tmp_path / "a", tmp_path / "b", "--json").out)
    done = run("report", tmp_path / "a", "--beside", tmp_path / "b")
    assert done.code == 0
    assert "Compared" in (tmp_path / "a" / "report.html").read_text()


def test_a_second_run_with_other_options_is_refused(manifest, tmp_path):
    evaluated(manifest, tmp_path / "run")
    done = run("pairs", manifest, *FAST, "--max-keypoints", "50", "--output", tmp_path / "run")
    assert done.code == 1
    assert "another run" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "folder"),
    [("../../x", "_.._x"), ("/x/y", "_x_y"), ("a\0b", "a_b"), ("", "pairs"), ("..", "pairs"), ("é" * 300, "é" * 60)],
)
def test_the_name_of_a_manifest_leads_out_of_no_folder(name, folder, manifest, tmp_path, monkeypatch):
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "name": name}))
    inside = tmp_path / "here" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    done = run("pairs", manifest, *FAST, "--json")
    assert done.code == 0, done.err
    assert (inside / "eval" / folder / "sift-nearest" / "report.html").is_file()
    assert [each.name for each in inside.parent.iterdir()] == ["inside"]


def test_too_little_memory_names_options_that_there_are(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("lightglue.evaluation.run._Worker.__init__", lambda *_: (_ for _ in ()).throw(MemoryError))
    done = run("pairs", manifest, *FAST, "--output", tmp_path / "run")
    assert done.code == 1
    assert "--max-keypoints" in done.err
    assert "--tile" not in done.err


def test_every_benchmark_is_a_command():
    assert set(TITLES) == set(BENCHMARKS)
    for name, dataset in BENCHMARKS.items():
        assert dataset.title.split()[0].split("-")[0].lower() in TITLES[name].lower()
        done = run(name, "--help")
        assert done.code == 0
        assert "--workers" in done.out


def test_a_benchmark_from_a_folder(tmp_path):
    """HPatches as it is published: a folder a sequence."""
    sequence = tmp_path / "hpatches" / "v_dome"
    sequence.mkdir(parents=True)
    image = cv2.resize(cv2.imread(str(A)), (480, 330), interpolation=cv2.INTER_AREA)
    for i in range(1, 7):
        cv2.imwrite(str(sequence / f"{i}.ppm"), cv2.warpPerspective(image, H, (480, 330)) if i > 1 else image)
        if i > 1:
            np.savetxt(sequence / f"H_1_{i}", H)
    done = run("hpatches", "--data", tmp_path / "hpatches", *FAST, "--output", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["benchmark"], told["pairs"], told["failures"]) == ("hpatches", 5, {})
    assert max(told["figures"].values()) > 50


REFUSED = {
    "no such folder": (("hpatches", "--data", "nowhere"), "no folder nowhere"),
    "an empty folder": (("hpatches", "--data", "."), "--data"),
    "no such manifest": (("pairs", "nowhere.json"), "nowhere.json"),
    "a photograph for a manifest": (("pairs", str(A)), "montmartre_close.jpg"),
    "a setting without a group": (("pairs", "three.json", "--conf", "resize=3"), "GROUP.NAME=VALUE"),
    "an unknown group": (("pairs", "three.json", "--conf", "model.x=3"), "extractor, matcher"),
    "an unknown option": (("pairs", "three.json", *FAST, "--conf", "matcher.ratio=0.8"), "ratio_threshold"),
    "an unknown protocol": (("pairs", "three.json", *FAST, "--conf", "protocol.sides=long"), "side"),
    "a wrong value": (("pairs", "three.json", *FAST, "--conf", "matcher.ratio_threshold=8"), "at most 1"),
    "an unknown option of extract": (("pairs", "three.json", *FAST, "--conf", "extract.resise=9"), "'resize'"),
    "a wrong value of extract": (("pairs", "three.json", *FAST, "--conf", "extract.resize=all"), "positive integer"),
    "keypoints beside --max-keypoints": (
        ("pairs", "three.json", *FAST, "--conf", "extractor.max_num_keypoints=9"),
        "give --max-keypoints",
    ),
    "a wrong estimator": (("pairs", "three.json", *FAST, "--conf", "estimator.seed=-1"), "seed"),
    "no workers": (("pairs", "three.json", "--workers", "0"), "1 to 1024"),
    "a run that is none": (("compare", ".", "."), "no run"),
    "an unknown sampling": (("compare", ".", ".", "--by", "image"), "scene"),
    "a model that is none": (("convert", ".", ".", "-o", "x.json"), "COLMAP"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals_name_the_value_and_the_remedy(arguments, message, manifest, monkeypatch):
    monkeypatch.chdir(manifest.parent)
    done = run(*arguments)
    assert done.code in (1, 2)
    assert message.lower() in " ".join(done.err.replace("│", " ").split()).lower()
    assert "Traceback" not in done.err


def test_help_loads_no_torch():
    code = "import sys; from lightglue.cli.app import app; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_lightglue_and_a_photograph_pair(tmp_path):
    """The default matcher, end to end, on marked points of the bundled photographs."""
    marked0, marked1 = [[505.0, 325.0], [350.0, 430.0]], [[505.0, 325.0], [350.0, 430.0]]
    pairs = [{"scene": "dome", "image0": str(A), "image1": str(B), "points0": marked0, "points1": marked1}]
    path = tmp_path / "marked.json"
    path.write_text(json.dumps({"kind": "points", "max_keypoints": 256, "pairs": pairs}))
    done = run("pairs", path, "--device", "cpu", "--json", "--output", tmp_path / "run")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["figures"]["num_matches mean"] > 30
    assert 0 <= told["figures"]["mAA/opencv@0.5 mean"] <= 100
