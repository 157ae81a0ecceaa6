"""A run's end: the judge, what is fitted to the best weights, the report, and fine-tuning with its verdict."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

from lightglue.drawing.svg import svg_chart
from lightglue.errors import InputError, StoreError, WeightsError
from lightglue.evaluation import load_manifest
from lightglue.matching import checkpoint
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.network import LightGlueNetwork
from lightglue.training import read_log, train
from lightglue.training.data_options import FeatureOptions
from lightglue.training.estimate import _judged, check_time
from lightglue.training.finetune import FinetuneResult, finetune
from lightglue.training.finetune_options import FinetuneOptions
from lightglue.training.judge_options import JudgeOptions
from lightglue.training.judging import make_judge
from lightglue.training.options import from_tables
from lightglue.training.report import write_report
from support import ASSETS
from support.command import lightglue
from support.training import GeneratedSamples, tiny_options

pytestmark = pytest.mark.usefixtures("charts_undrawn")


@pytest.fixture(scope="module")
def run(charts_undrawn, tmp_path_factory) -> Path:
    """A tiny run with its fitting."""
    folder = tmp_path_factory.mktemp("fitted") / "run"
    train(tiny_options(judge={"fit_pairs": 30}), folder, samples=GeneratedSamples(num_validation=24))
    return folder


# -- the end of a run ------------------------------------------------------------------------------------------------


def test_a_trained_matcher_has_an_overlap_a_calibration_and_heads(run):
    description = checkpoint.read_description(run / "best" / "weights.safetensors")
    assert description is not None
    assert description.fitted is not None
    assert description.record
    told = json.loads((run / "best" / "fitting.json").read_text())
    assert len(told["heads"]) == 1
    assert told["matches"] == sum(each["count"] for each in told["bins_before"])
    assert told["overlap"]["positives"] == 24
    matcher = LightGlue.load(run / "best" / "weights.safetensors")
    assert (matcher.overlap, matcher.calibration) == (description.fitted.overlap, description.fitted.calibration)


def test_what_was_fitted_is_not_fitted_again(run):
    options = tiny_options(judge={"fit_pairs": 30})
    before = (run / "best" / "weights.safetensors").read_bytes()
    train(options, run, resume=True, samples=GeneratedSamples(num_validation=24))
    assert (run / "best" / "weights.safetensors").read_bytes() == before


def test_a_fit_that_fails_costs_no_weights(tmp_path):
    said: list[str] = []
    samples = GeneratedSamples(nan_at=(0,), num_validation=0)
    options = tiny_options(judge={"fit_pairs": 1}, run={"steps": 2, "batch": 4})
    train(options, tmp_path / "run", samples=samples, say=said.append)
    assert any("were not fitted" in each for each in said)
    assert LightGlue.load(tmp_path / "run" / "best" / "weights.safetensors")


# -- the report ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(run) -> tuple[str, str]:
    """The report of the run with its charts, written twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightglue.training.report.svg_chart", svg_chart)
        return write_report(run).read_text(), write_report(run).read_text()


def test_the_report_is_one_page_with_everything(drawn):
    page = drawn[0]
    for heading in ("Result", "Loss", "Precision and recall", "Calibration of scores", "Worst pairs", "Overlap",
                    "Learning rate, throughput, cost", "Confidence by layer", "Options"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert page.count("data:image/jpeg") == 6
    assert page.count("<svg") == 7
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert "layer 2" in page


def test_the_report_of_the_same_folder_is_the_same(drawn):
    assert drawn[0] == drawn[1]


def test_a_run_that_has_not_finished_has_a_report_that_says_so(tmp_path):
    step = {"kind": "step", "step": 2, "loss": 1.5, "nll": [2.0, 1.0], "precision": None, "recall": 0.5, "lr": 1e-3}
    (tmp_path / "log.jsonl").write_text(json.dumps(step) + "\n" + '{"kind": "st')
    page = write_report(tmp_path).read_text()
    assert "has not finished" in page


def test_names_in_a_log_are_never_markup(tmp_path):
    hostile = {"kind": "judgement", "step": 1, "metric": "<script>alert(1)</script>", "value": 1.0, "best": True}
    (tmp_path / "log.jsonl").write_text(json.dumps(hostile) + "\n")
    assert "<script>" not in write_report(tmp_path).read_text()


@pytest.mark.parametrize(
    "text", ['{"kind": "judgement", "step": 1}\n', "[]\n", '{"kind": "step", "step": 1, "nll": 3}\n']
)
def test_a_folder_that_holds_no_run_is_an_error_that_names_it(tmp_path, text):
    with pytest.raises(StoreError, match=re.escape(str(tmp_path))):
        write_report(tmp_path)
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(StoreError, match=r"log\.jsonl is not the log of a training run"):
        write_report(tmp_path)


# -- judging ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Two pairs of one photograph, of which the second is turned in the plane."""
    folder = tmp_path_factory.mktemp("pairs")
    image = cv2.resize(cv2.imread(str(ASSETS / "montmartre_close.jpg")), (320, 240), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "a.png"), image)
    pairs = []
    for k, angle in enumerate((0, 8)):
        H = np.vstack((cv2.getRotationMatrix2D((160, 120), angle, 1.0), (0, 0, 1)))
        cv2.imwrite(str(folder / f"{k}.png"), cv2.warpPerspective(image, H, (320, 240)))
        pairs.append({"image0": "a.png", "image1": f"{k}.png", "H": H.tolist()})
    path = folder / "pairs.json"
    path.write_text(json.dumps({"name": "pairs", "kind": "homography", "max_keypoints": 128, "pairs": pairs}))
    return path


def test_a_judgement_is_the_auc_of_the_manifest_the_same_each_time(manifest, tmp_path):
    LightGlue("aliked").save(tmp_path / "w.safetensors")
    judge = make_judge(JudgeOptions((str(manifest),), every=5), FeatureOptions("aliked"), tmp_path, "cpu")
    assert judge is not None
    assert judge.every == 5
    first = judge(tmp_path / "w.safetensors", 5)
    seen = dict(judge.seen["pairs"])
    assert len(seen) == 3
    again = judge(tmp_path / "w.safetensors", 10)
    assert (first.metric, first.value, first.figures) == (again.metric, again.value, again.figures)
    assert all(judge.seen["pairs"][path] is features for path, features in seen.items())  # extracted once
    assert "AUC@" in first.metric
    assert 50 < first.value <= 100
    assert (tmp_path / "judge" / "000005" / "pairs" / "run.json").is_file()


def test_manifests_that_are_not_there_are_an_error_before_anything_is_trained(tmp_path):
    options = tiny_options(judge={"manifests": [str(tmp_path / "nowhere.json")]})
    with pytest.raises(InputError, match=r"nowhere\.json"):
        train(options, tmp_path / "run", samples=GeneratedSamples())
    assert not (tmp_path / "run").exists()


def test_without_manifests_nobody_judges(tmp_path):
    assert make_judge(JudgeOptions(), FeatureOptions("aliked"), tmp_path) is None


# -- fine-tuning -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Parts of the bundled photographs, each an image."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("montmartre_close", "montmartre_far"):
        image = cv2.imread(str(ASSETS / f"{name}.jpg"))
        h, w = image.shape[:2]
        for i in range(2):
            for j in range(2):
                part = image[i * h // 2 : (i + 1) * h // 2, j * w // 2 : (j + 1) * w // 2]
                cv2.imwrite(str(folder / f"{name}{i}{j}.png"), cv2.resize(part, (240, 180)))
    return folder


TINY = {"minutes": 0.01, "keypoints": 64, "views": 3, "pairs": 6, "held_out": 0.3, "batch": 2, "device": "cpu"}
FINETUNE = "lightglue.training.finetune"
EASY = {"view_size": [240, 180], "homography": {"difficulty": 0.3}, "photometric": {"p": 0.0}}


@pytest.fixture(scope="module")
def quick(charts_undrawn, each_image_is_looked_at_once) -> Iterator[None]:
    """Small views that are easily matched, little that is judged and fitted, and a clock on which a run of so many
    minutes has as many steps on every machine."""
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(looks) / 10, process_time=time.process_time)

    def options(tables):
        run, optimiser = {**tables["run"], "log_every": 2}, {**tables.get("optimiser", {}), "warmup": 2}
        return from_tables({**tables, "data": {**tables["data"], **EASY}, "run": run, "optimiser": optimiser})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{FINETUNE}.from_tables", options)
        patch.setattr(f"{FINETUNE}.JUDGED_KEYPOINTS", 64)
        patch.setattr(f"{FINETUNE}.FIT_PAIRS", (4, 4))
        patch.setattr(f"{FINETUNE}.check_time", lambda *_: None)
        patch.setattr(f"{FINETUNE}.time", clock)
        patch.setattr(f"{FINETUNE}.LEAST_MINUTES", 0.01)
        patch.setattr("lightglue.training.run.time", clock)
        yield


@pytest.fixture(scope="module")
def tuned(quick, photographs, tmp_path_factory) -> tuple[FinetuneResult, Path]:
    """What came of fine-tuning the published weights by next to nothing, and its folder."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    return finetune(photographs, folder, FinetuneOptions(**TINY, lr=1e-9)), folder


def test_fine_tuning_says_its_verdict_and_keeps_the_old_weights_unless_better(tuned, photographs):
    found, folder = tuned
    told = json.loads((folder / "finetune.json").read_text())
    assert found.verdict == told["verdict"] == "no difference"
    assert told["kept"] == "before"
    assert found.weights.read_bytes() == (folder / "before.safetensors").read_bytes()
    benchmark = load_manifest(folder / "held_out.json")
    trained = {line["step"] for line in read_log(folder / "log.jsonl") if line["kind"] == "end"}
    assert trained == {found.step}
    assert {pair.scene for pair in benchmark.pairs} < {path.name for path in photographs.iterdir()}
    assert LightGlue("aliked", weights=found.weights)


@pytest.fixture
def begun(tuned, tmp_path) -> Path:
    """A folder with the features, where nothing was judged or trained."""
    folder = tmp_path / "run"
    shutil.copytree(tuned[1] / "pool", folder / "pool")
    return folder


@pytest.fixture(scope="module")
def first_layers(tmp_path_factory) -> LightGlue:
    """The published matcher, cut after three layers."""
    return LightGlue("aliked", n_layers=3)


def fine_tuned(matcher: LightGlue, lr: float, photographs: Path, folder: Path):
    """By some steps: what came of it, and the figure held out before and after."""
    matcher.save(folder.parent / "start.safetensors")
    found = finetune(
        photographs, folder, FinetuneOptions(**TINY, lr=lr, init_from=str(folder.parent / "start.safetensors"))
    )
    assert json.loads((folder / "finetune.json").read_text())["verdict"] == found.verdict
    return found, *found.figures["held_out"]


def test_weights_that_training_mends_are_better_and_are_kept(begun, photographs, first_layers, monkeypatch):
    """A matcher whose scores lost their contrast finds nothing; a few steps on homographies give it back."""
    blunt = copy.deepcopy(first_layers)
    with torch.no_grad():
        for parameter in blunt.log_assignment.parameters():
            parameter *= 0.2
    monkeypatch.setattr(f"{FINETUNE}.LEAST_MINUTES", 0.14)  # 20 steps
    found, before, after = fine_tuned(blunt, 1e-3, photographs, begun)
    assert found.verdict == "better"
    assert before < 1
    assert after > 50
    assert found.weights.read_bytes() == (begun / "best" / "weights.safetensors").read_bytes()
    assert LightGlue("aliked", weights=found.weights).conf.n_layers == 3


def test_weights_that_training_ruins_are_worse_and_the_old_ones_are_kept(begun, photographs, first_layers, monkeypatch):
    monkeypatch.setattr(f"{FINETUNE}.LEAST_MINUTES", 0.03)  # 5 steps
    found, before, after = fine_tuned(first_layers, 3e-2, photographs, begun)
    assert found.verdict == "worse"
    assert before > 50
    assert after < 1
    assert found.weights.read_bytes() == (begun / "before.safetensors").read_bytes()


@pytest.fixture
def small(tmp_path) -> str:
    """A small matcher for ALIKED, with random weights."""
    config = LightGlueConfig(input_dim=128, descriptor_dim=32, num_heads=2, n_layers=2)
    checkpoint.save(tmp_path / "small.safetensors", LightGlueNetwork(config), config, "aliked", None)
    return str(tmp_path / "small.safetensors")


def test_an_interrupted_fine_tuning_goes_on(begun, photographs, small, monkeypatch):
    monkeypatch.setattr(f"{FINETUNE}.LEAST_MINUTES", 1.0)
    options = FinetuneOptions(**TINY, init_from=small)

    def interrupt(stage: str, done: int, total: int | None, note: str = "") -> None:
        if stage == "training":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(photographs, begun, options, progress=interrupt)
    plan = json.loads((begun / "plan.json").read_text())
    (begun / "plan.json").write_text(json.dumps({**plan, "minutes": 0.0001}))  # the time is up
    said: list[str] = []
    found = finetune(photographs, begun, replace(options, minutes=7), say=said.append)
    assert sum("was begun with 0.01 minutes and ends with them" in text for text in said) == 1
    kinds = [line["kind"] for line in read_log(begun / "log.jsonl")]
    assert (kinds[0], kinds.count("resume"), kinds[-1]) == ("start", 1, "end")
    assert found.step > 0
    assert found.weights.is_file()


def test_without_time_for_a_step_the_old_weights_are_kept(begun, photographs, small, monkeypatch):
    monkeypatch.setattr(f"{FINETUNE}.LEAST_MINUTES", 1e-6)
    said: list[str] = []
    found = finetune(photographs, begun, FinetuneOptions(**TINY, init_from=small), say=said.append)
    assert (found.verdict, found.step) == ("no difference", 0)
    assert any("no time for a single step" in each for each in said)
    assert LightGlue.load(found.weights).conf.descriptor_dim == 32


@pytest.fixture
def a_second_each(monkeypatch) -> None:
    """Everything that is measured takes a second: two views of an image, a pair."""
    looks = itertools.count()
    monkeypatch.setattr(f"{FINETUNE}.check_time", check_time)
    monkeypatch.setattr("lightglue.training.estimate.time", SimpleNamespace(monotonic=lambda: next(looks)))


def test_too_few_minutes_are_told_before_anything_is_spent(quick, a_second_each, photographs, small, tmp_path):
    told = (
        r"0\.01 minutes are too few, by an estimate: features of 24 views 0\.[12] min, judging 6 pairs before and "
        r"after 0\.2 min\. Give --minutes 1 or more"
    )
    with pytest.raises(InputError, match=told):
        finetune(photographs, tmp_path / "run", FinetuneOptions(**TINY, init_from=small))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["before.safetensors"]


def test_how_much_time_is_left_for_training_is_said(begun, a_second_each, photographs, small, monkeypatch):
    """Features that are there are no part of it."""
    monkeypatch.setattr(f"{FINETUNE}.open_samples", mock.Mock(side_effect=KeyboardInterrupt))
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        finetune(photographs, begun, FinetuneOptions(**{**TINY, "minutes": 5}, init_from=small), say=said.append)
    assert said == ["about 4.8 of 5 min are left for training: judging 6 pairs before and after 0.2 min"]


@pytest.mark.parametrize(
    ("images", "is_posed", "expected"),
    [(10, True, (1, 2)), (40, True, (28, 8)), (400, True, (60, 80)), (10, False, (6, 6)), (400, False, (60, 120))],
)
def test_no_more_pairs_are_expected_than_what_is_held_out_has(images, is_posed, expected):
    assert _judged(FinetuneOptions(views=3, pairs=60, held_out=0.2), images, is_posed) == expected


def test_too_few_pairs_to_tell_a_difference_are_said_before_anything_is_trained(begun, photographs, small):
    with pytest.raises(InputError, match="4 pairs are held out, and no difference can be told by fewer than 6"):
        finetune(photographs, begun, FinetuneOptions(**{**TINY, "pairs": 4}, init_from=small))
    assert not (begun / "log.jsonl").exists()


def test_what_an_earlier_call_left_that_trained_nothing_is_not_taken_for_this_ones(
    begun, photographs, small, monkeypatch
):
    """Other weights, other pairs: the same folder will do."""
    (begun / "before.safetensors").write_bytes(b"of others")
    (begun / "held_out.json").write_text("of others")
    monkeypatch.setattr(f"{FINETUNE}._judge", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        finetune(photographs, begun, FinetuneOptions(**TINY, init_from=small))
    assert (begun / "before.safetensors").read_bytes() == Path(small).read_bytes()
    assert len(load_manifest(begun / "held_out.json").pairs) == 6


@pytest.mark.parametrize("name", ["weights.safetensors", "held_out.json", "config.toml"])
def test_files_of_others_are_not_written_over(photographs, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds {name}, which this run would write over.*name another folder"):
        finetune(photographs, tmp_path, FinetuneOptions(**TINY))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.parametrize("published", [True, False])
def test_weights_for_other_features_are_refused(photographs, small, tmp_path, published):
    options = FinetuneOptions(**TINY, features="disk", init_from="aliked_lightglue" if published else small)
    with pytest.raises(WeightsError, match="is for the features aliked.*, not disk"):
        finetune(photographs, tmp_path / "run", options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "sift", "minutes": 0}, "minutes"),
        ({"held_out": 0}, "held_out"),
        ({"features": "dedode"}, "dedode"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        FinetuneOptions(**options)


def test_a_source_that_is_not_there_is_named(tmp_path):
    found = lightglue("finetune", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert found.code != 0
    assert "nowhere does not exist" in found.err
    assert not (tmp_path / "run").exists()
