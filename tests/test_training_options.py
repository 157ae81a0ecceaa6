"""A configuration is complete, says what is wrong with it, and comes back as it was."""

import json
from dataclasses import asdict

import pytest

from lightglue.errors import InputError
from lightglue.training import read_options
from lightglue.training.data_options import DataOptions
from lightglue.training.options import PRESETS, Overrides, TrainingOptions, as_toml, from_tables
from lightglue.training.toml import canonical, differences, parse
from lightglue.training.views.options import PhotometricOptions


def test_everything_has_a_default():
    assert from_tables({}) == TrainingOptions()


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_what_is_written_is_read_back(preset):
    tables = {"data": {"sources": [{"path": "a", "weight": 2.0}, {"path": 'b"\\ü', "kind": "model"}]},
              "optimiser": {"lr_of": {"posenc": 1e-3}}, "network": {"freeze": ["input_proj"], "add_scale_ori": False},
              **({"preset": preset} if preset else {})}  # fmt: skip
    options = from_tables(tables)
    assert from_tables(parse(as_toml(options))) == options
    assert as_toml(from_tables(parse(as_toml(options)))) == as_toml(options)


def test_presets_are_the_published_ones_and_give_way():
    published = from_tables({"preset": "homography"})
    assert (published.run.batch, published.run.steps * published.run.batch) == (128, 40 * 150_000)
    assert (published.optimiser.lr, published.optimiser.schedule, published.features.keypoints) == (
        1e-4,
        "published",
        512,
    )
    second = from_tables({"preset": "megadepth"})
    assert (second.run.batch, second.run.steps * second.run.batch) == (32, 50 * 152 * 300)
    assert second.features.keypoints == 2048
    own = from_tables({"preset": "cpu", "optimiser": {"lr": 3e-4}})
    assert own.optimiser.lr == 3e-4
    assert own.optimiser.lr_of == {"input_proj": 1e-3, "posenc": 1e-3}


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"optimiser": {"learning_rat": 1}}, r"\[optimiser\] 'learning_rat' is unknown. Valid: lr,"),
        ({"optimiser": {"warm_up": 1}}, r"\[optimiser\] 'warm_up' is unknown. Did you mean 'warmup'"),
        ({"optimizer": {"lr": 1}}, "'optimizer' is unknown. Did you mean 'optimiser'"),
        ({"data": {"sources": [{"pth": "x"}]}}, r"\[data.sources\[0\]\] 'pth' is unknown. Did you mean 'path'"),
        ({"optimiser": {"lr": "fast"}}, "optimiser.lr is 'fast'; give a number"),
        ({"optimiser": {"lr": -1.0}}, r"\[optimiser\] lr is -1.0; give a number above 0"),
        ({"optimiser": {"schedule": "cosin"}}, "optimiser.schedule is 'cosin'. Did you mean 'cosine'"),
        ({"run": {"steps": 1.5}}, "run.steps is 1.5; give a whole number"),
        ({"run": {"compile": 1}}, "run.compile is 1; give true or false"),
        ({"run": {"steps": "none"}}, r"\[run\] give steps or minutes"),
        ({"network": {"width": 250}}, r"\[network\] width is 250"),
        ({"network": []}, r"\[network\] is \[\]; give a table"),
        ({"preset": "gpu"}, "preset is 'gpu'.* Valid: homography, megadepth, finetune, cpu"),
        ({"preset": ["cpu"]}, r"preset is \['cpu'\]"),
        ({"version": 2}, "version is 2, and this lightglue reads version 1"),
    ],
)
def test_what_is_wrong_is_named(tables, said):
    with pytest.raises(InputError, match=said):
        from_tables(tables)


def test_files_that_are_no_toml_are_named(tmp_path):
    path = tmp_path / "run.toml"
    with pytest.raises(InputError, match="run.toml cannot be read"):
        read_options(path)
    path.write_text("[run\nsteps = 1")
    with pytest.raises(InputError, match=r"run.toml is not valid TOML: .*line 1"):
        read_options(path)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        read_options(path)


def test_differences_have_full_names():
    found = differences(from_tables({}), from_tables({"optimiser": {"lr": 2e-4}, "data": {"sources": [{"path": "a"}]}}))
    assert "optimiser.lr: 0.0001 before, 0.0002 now" in found
    assert "data.sources.0.path: nothing before, a now" in found


def test_a_command_line_goes_over_a_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('preset = "cpu"\n[run]\nbatch = 3\n[features]\ntype = "sift"')
    options = read_options(path, Overrides(features="aliked", minutes=2.0, init_from="aliked_lightglue").tables())
    assert (options.features.type, options.run.batch, options.network.init_from) == ("aliked", 3, "aliked_lightglue")
    assert (options.run.steps, options.run.minutes) == (None, 2.0)
    assert read_options(path, Overrides().tables()) == read_options(path)


def test_a_digest_of_options_is_the_same_however_their_numbers_were_written():
    def data(blur, overlap):
        return DataOptions(photometric=PhotometricOptions(blur=blur), overlaps=(0.1, overlap))

    said = [json.dumps(canonical(data(*numbers))) for numbers in (((3, 9), 1), ((3.0, 9.0), 1.0))]
    assert said[0] == said[1] != json.dumps(canonical(data((3.0, 9.5), 1.0)))
    # Those of runs that have begun: defaults stay as the code has them.
    assert json.dumps(canonical(DataOptions())) == json.dumps(asdict(DataOptions()))


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    data = from_tables({"data": {"pool": "~/pool", "sources": [{"path": "~/a", "images": "~/b"}]}}).data
    assert (data.pool, data.sources[0].path, data.sources[0].images) == ("/home/me/pool", "/home/me/a", "/home/me/b")
