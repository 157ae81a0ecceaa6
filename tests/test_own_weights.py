"""Weights of the package: found without a network, taken for published ones that cannot be had, said aloud."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
import threading
import warnings
from pathlib import Path
from types import MappingProxyType

import pytest

from lightglue.errors import WeightsError
from lightglue.export.adaptive import Thresholds
from lightglue.export.provenance import describe
from lightglue.matching import checkpoint
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.network import LightGlueNetwork
from lightglue.matching.overlap import Coefficients
from lightglue.models.choice import Models
from lightglue.pairs import PairOptions, match_files
from lightglue.pairs.words import rows_of
from lightglue.sfm.options import MatchOptions
from lightglue.training.initialise import initialise
from lightglue.training.options import NetworkOptions
from lightglue.web.models_there import described_features
from lightglue.weights import OwnFile, OwnWeightsNotice, fetch, locate, resolve, resolve_or_own, stand_in, table
from support import A, B
from support.command import lightglue
from support.matching import random_features

FITTED = checkpoint.Fitted(Coefficients(0.1, 0.2, 0.3))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnFile:
    """A tiny SIFT matcher of this package, and no published one to be had."""
    config = LightGlueConfig(input_dim=128, descriptor_dim=32, num_heads=2, n_layers=2, add_scale_ori=True)
    path = tmp_path / "own" / "sift_lightglue_own.safetensors"
    path.parent.mkdir()
    record = {"images": {"licences": ["CC0-1.0"]}, "commit": "abc"}
    checkpoint.save(path, LightGlueNetwork(config), config, "sift", "CC-BY-4.0", fitted=FITTED, record=record)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = OwnFile(
        "sift_lightglue_own", path.name, digest, path.stat().st_size, "CC-BY-4.0", True, "sift_lightglue",
        "trained on 3 images, AUC 5 of 100",
    )  # fmt: skip
    monkeypatch.setattr(locate, "OWN_FOLDER", path.parent)
    monkeypatch.setattr(table, "OWN", MappingProxyType({file.name: file}))
    for module in ("weights", "export.provenance", "cli.weights", "models.own_weights"):
        monkeypatch.setattr(f"lightglue.{module}.OWN", table.OWN)
    monkeypatch.setattr(stand_in, "_noticed", set())
    monkeypatch.setattr(stand_in, "_absences", {})
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", "1")
    monkeypatch.delenv("LIGHTGLUE_PUBLISHED_ONLY", raising=False)
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path / "empty"))
    return file


def test_it_stands_in_for_the_published_file_and_says_what_and_why(own):
    with pytest.warns(OwnWeightsNotice) as said:
        matcher = LightGlue("sift")
    (text,) = [str(each.message) for each in said]
    for part in ("sift_lightglue_own is used", "published sift_lightglue", "AUC 5 of 100", "LIGHTGLUE_OFFLINE is set"):
        assert part in text
    assert (matcher.conf.weights, matcher.licence, matcher.overlap) == (own.name, "CC-BY-4.0", FITTED.overlap)
    assert (matcher.conf.n_layers, matcher.conf.descriptor_dim) == (2, 32)
    pair = {f"image{k}": random_features(9, k, 128) for k in (0, 1)}
    for features in pair.values():
        features["scales"] = features["oris"] = features["keypoints"][..., 0]
    assert matcher(pair)["stop"] <= 2


def test_who_wants_published_weights_alone_gets_an_error_instead(own, monkeypatch):
    monkeypatch.setenv("LIGHTGLUE_PUBLISHED_ONLY", "1")
    with pytest.raises(WeightsError, match="sift_lightglue is not in the cache folder"):
        LightGlue("sift")
    (sift,) = [each for each in described_features() if each["name"] == "sift"]
    assert sift["weights"] == "missing"


def test_it_is_said_once_a_process(own):
    with pytest.warns(OwnWeightsNotice):
        LightGlue("sift")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LightGlue("sift")


def test_asked_for_by_its_name_it_is_taken_without_a_word(own):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LightGlue("sift", weights=own.name).conf.weights == own.name
    with pytest.raises(WeightsError, match="trained for features='sift', not 'aliked'"):
        LightGlue("aliked", weights=own.name)


def test_published_weights_that_can_be_had_go_first(own, monkeypatch):
    asked = []
    monkeypatch.setattr(locate, "_resolve_published", lambda file, *_: asked.append(file.name) or Path("here"))
    assert resolve_or_own("sift_lightglue") == "sift_lightglue"
    assert asked == ["sift_lightglue"]


@pytest.fixture
def no_answer(own, monkeypatch) -> list[str]:
    """A network in which nothing answers, and what was asked of it."""
    asked: list[str] = []
    over = threading.Event()

    def silent(request, **_):
        asked.append(request.full_url)
        over.wait(20)
        raise OSError("closed")

    monkeypatch.delenv("LIGHTGLUE_OFFLINE")
    monkeypatch.setattr(fetch.urllib.request, "urlopen", silent)
    monkeypatch.setattr(stand_in, "PATIENCE_S", 0.05)
    yield asked
    over.set()


def test_a_network_without_an_answer_is_asked_once_an_hour_by_all_processes(no_answer, own, monkeypatch):
    with pytest.warns(OwnWeightsNotice, match=r"no answer within 0.05 s.*`lightglue weights pull sift_lightglue` asks"):
        assert resolve_or_own("sift_lightglue") == own.name
    assert len(no_answer) == 2  # the release and its mirror
    monkeypatch.setattr(stand_in, "_absences", {})  # as another process has them
    monkeypatch.setattr(stand_in, "_noticed", set())
    with pytest.warns(OwnWeightsNotice, match="no server answered before. `lightglue weights pull"):
        assert resolve_or_own("sift_lightglue") == own.name
    assert len(no_answer) == 2
    now = stand_in.time.time()
    monkeypatch.setattr(stand_in.time, "time", lambda: now + 3601)
    assert resolve_or_own("sift_lightglue") == own.name
    assert len(no_answer) == 4


def test_in_a_folder_that_cannot_be_written_to_a_process_still_asks_once(no_answer, own, monkeypatch):
    monkeypatch.setattr(stand_in, "write_whole", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
    with pytest.warns(OwnWeightsNotice):
        assert [resolve_or_own("sift_lightglue") for _ in range(3)] == [own.name] * 3
    assert len(no_answer) == 2


def test_where_the_published_file_has_come_since_the_first_use_of_it_says_that_results_are_others(own, monkeypatch):
    with pytest.warns(OwnWeightsNotice):
        resolve_or_own("sift_lightglue")
    monkeypatch.setattr(stand_in, "_absences", {})
    monkeypatch.setattr(stand_in, "_is_cached", lambda name: True)
    with pytest.warns(OwnWeightsNotice, match="published sift_lightglue is there now.*sift_lightglue_own was in its"):
        assert resolve_or_own("sift_lightglue") == "sift_lightglue"
    assert resolve_or_own("sift_lightglue") == "sift_lightglue"  # without a word: warnings are errors here


def test_other_processes_take_the_same_weights_whatever_comes_meanwhile(own, monkeypatch):
    assert pickle.loads(pickle.dumps(Models("sift"))).weights is None  # nothing was matched: nothing is asked for
    with pytest.warns(OwnWeightsNotice):
        assert Models("sift").own is not None
    sent = pickle.dumps(Models("sift"))
    monkeypatch.setattr(stand_in, "_is_cached", lambda name: True)
    assert pickle.loads(sent).weights == own.name
    assert Models("sift").weights is None


def test_records_name_it_so_that_results_of_others_are_not_taken_for_its(own):
    with pytest.warns(OwnWeightsNotice):
        found = Models("sift", device="cpu").decisive()
    assert found == Models("sift", device="cpu", weights=own.name).decisive()
    assert found["weights"] == own.sha256
    settings = MatchOptions(models=Models("sift", device="cpu")).settings()
    assert settings["weights"] == own.sha256
    assert "weights" not in Models("aliked", device="cpu").decisive()


def test_a_match_says_which_weights_it_is_of(own):
    models = Models("sift", max_keypoints=100, device="cpu")
    with pytest.warns(OwnWeightsNotice):
        found = match_files(A, B, PairOptions(min_overlap=0.01), models=models)
    assert (found.summary()["weights"], rows_of(found.summary())["weights"]) == (own.name, own.name)


def test_what_may_be_asked_of_it_is_told_without_a_network(no_answer, own):
    assert Models("sift").gives_overlap
    assert no_answer == []


def test_the_command_says_it_in_a_line_though_warnings_are_errors(own):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = lightglue("match", A, B, "--features", "sift", "--max-keypoints", "50", "--device", "cpu", "--json")
    (line,) = [each for each in run.err.splitlines() if "warning" in each]
    assert line.startswith("warning: sift_lightglue_own is used, which comes with this package")
    assert json.loads(run.out)["weights"] == own.name


def test_the_service_says_what_stands_in(own):
    (sift,) = [each for each in described_features() if each["name"] == "sift"]
    assert sift["weights"] == "present"
    assert (sift["files"][0]["stand_in"], sift["files"][0]["about"]) == (own.name, own.about)


def test_the_name_of_a_published_file_never_gives_other_bytes(own):
    with pytest.raises(WeightsError, match="LIGHTGLUE_OFFLINE"):
        resolve("sift_lightglue")


def test_without_a_file_that_replaces_it_a_published_one_that_is_missing_is_an_error(own):
    with pytest.raises(WeightsError, match="disk_lightglue is not in the cache folder"):
        LightGlue("disk")


def test_a_training_may_start_from_it_by_its_name(own):
    config = LightGlueConfig(input_dim=128, descriptor_dim=32, num_heads=2, n_layers=2, add_scale_ori=True)
    options = NetworkOptions(init_from=own.name, layers=2, width=32, heads=2)
    _, fates = initialise(options, config, "sift", 0)
    assert {fate.what for fate in fates} == {"copied"}  # its input projection too: it is for these features


def test_an_altered_file_is_refused(own):
    path = locate.OWN_FOLDER / own.filename
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError, match="is altered"):
        LightGlue("sift")
    path.unlink()
    with pytest.raises(WeightsError, match="install it again"):
        LightGlue("sift")


def test_exports_name_it(own):
    described = describe(LightGlue("sift", weights=own.name), "adaptive", "f32", Thresholds(0.9, 0.9, 0.1, 128))
    assert (described.weights, described.weights_sha256) == (own.filename, own.sha256)


def test_the_list_of_weights_shows_it(own):
    assert "sift_lightglue_own" in lightglue("weights", "list").out
    *_, last = json.loads(lightglue("weights", "list", "--json").out)
    assert (last["name"], last["replaces"], last["about"]) == (own.name, "sift_lightglue", own.about)
    assert lightglue("weights", "path", own.name).out.strip() == last["cached"] == str(resolve(own.name))


def test_every_file_of_the_package_has_a_row_that_is_right_a_licence_and_a_record():
    folder = Path(locate.__file__).with_name("own")
    files = {path.name: path for path in folder.glob("*.safetensors")}
    assert {file.filename for file in table.OWN.values()} == files.keys()
    for file in table.OWN.values():
        assert file.size == files[file.filename].stat().st_size <= table.OWN_LIMIT
        assert resolve(file.name) == files[file.filename]
        description = checkpoint.read_description(files[file.filename])
        assert description is not None
        assert description.licence == file.licence
        assert description.record
        assert file.replaces in table.FILES


def test_the_folder_is_package_data():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '"weights/own/*"' in text
    assert importlib.util.find_spec("lightglue.weights") is not None
