"""`lightglue train` on the bundled photographs: the loss falls, an interrupted run goes on, errors are one line."""

import json
from pathlib import Path

import pytest

from lightglue import LightGlue
from lightglue.training import read_log
from support.command import lightglue, plain

pytestmark = pytest.mark.usefixtures("charts_undrawn")

CONFIG = """
preset = "cpu"
[data]
view_size = [240, 180]
views = 3
validation = 0.5
[[data.sources]]
path = "PHOTOS"
[features]
type = "sift"
keypoints = 64
fewest = 16
[network]
layers = 2
width = 32
heads = 2
[optimiser]
lr = 3e-3
warmup = 2
[run]
steps = 30
checkpoint_every = 10
"""
ASSETS = Path(__file__).parents[1] / "assets"


@pytest.fixture
def config(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in ASSETS.glob("montmartre_*.jpg"):
        (photos / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.replace("PHOTOS", photos.as_posix()))
    return path


def test_training_on_photographs(config, tmp_path, monkeypatch):
    done = lightglue("train", str(config), "-o", str(tmp_path / "run"))
    assert done.code == 0, done.err
    steps = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "step"]
    assert steps[-1]["loss"] < 0.95 * steps[0]["loss"]
    matcher = LightGlue.load(tmp_path / "run" / "best" / "weights.safetensors")
    assert (matcher.feature_type, matcher.conf.descriptor_dim) == ("sift", 32)
    again = lightglue("train", str(config), "-o", str(tmp_path / "run"))
    assert (again.code, "--resume" in again.err) == (1, True)
    assert lightglue("train", str(config), "-o", str(tmp_path / "run"), "--resume").code == 0
    finished = lightglue("train", "-o", str(tmp_path / "run"), "--finish", "--json")  # with its own configuration
    assert finished.code == 0, finished.err
    assert json.loads(finished.out)["steps"] == 30
    monkeypatch.setenv("RANK", "1")  # one that torchrun started beside the first
    assert lightglue("train", "-o", str(tmp_path / "run"), "--finish", "--json").out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "5"], "nothing to learn from"),
        (["--resume"], "holds no run to go on with"),
        (["--finish"], "holds no run to go on with"),
        (["--preset", "cqu"], "Did you mean 'cpu'"),
        (["--images", "x", "--features", "sifd"], "did you mean 'sift'"),
    ],
)
def test_wrong_command_lines(tmp_path, arguments, said):
    done = lightglue("train", "-o", str(tmp_path / "run"), *arguments)
    assert done.code == 2
    assert said in plain(done.err)
    assert not (tmp_path / "run").exists()
