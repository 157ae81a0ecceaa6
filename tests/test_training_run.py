"""A run in a folder: killed anywhere and resumed it ends as if nothing had been; what it leaves can be used at once."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from lightglue import LightGlue
from lightglue.errors import InputError, LightGlueError, StoreError, WeightsError
from lightglue.matching import checkpoint
from lightglue.support.files import read_json, write_json
from lightglue.training import Judgement, Trainer, checkpoints, read_log, train
from lightglue.training.batches import read_batch
from lightglue.training.checkpoints import Checkpoints
from lightglue.training.distributed import joined
from lightglue.training.initialise import initialise, network_config
from lightglue.training.options import as_toml
from support.child import Child
from support.training import GeneratedSamples, batch_of, equal, tiny_options

pytestmark = pytest.mark.usefixtures("charts_undrawn")
SAMPLES = GeneratedSamples()


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


class KilledSamples(GeneratedSamples):
    """Dies when a sample is asked for."""

    def __init__(self, at: int) -> None:
        super().__init__()
        object.__setattr__(self, "at", at)

    def sample(self, k):
        if k == self.at:
            raise Killed
        return super().sample(k)


def tensors_of(run: Path, step: int = 12):
    folder = Checkpoints(run / "checkpoints").path(step)
    return {**load_file(folder / "state.safetensors"), **load_file(folder / "weights.safetensors")}


@pytest.fixture(scope="module")
def undisturbed(charts_undrawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(tiny_options(), folder, samples=SAMPLES)
    return folder


# -- what a run leaves -----------------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_weights_are_a_matcher(undisturbed):
    steps = [line for line in read_log(undisturbed / "log.jsonl") if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [2, 4, 6, 8, 10, 12]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert len(steps[0]["nll"]) == 2
    assert {"lr", "norm", "pairs_per_second", "waiting", "precision", "recall", "cpu_seconds"} <= steps[0].keys()
    matcher = LightGlue.load(undisturbed / "best" / "weights.safetensors")
    assert (matcher.conf.descriptor_dim, matcher.conf.n_layers, matcher.conf.add_scale_ori) == (16, 2, True)
    assert equal(dict(matcher.network.state_dict()), load_file(undisturbed / "best" / "weights.safetensors"))


def test_only_the_last_checkpoints_are_kept(undisturbed):
    assert Checkpoints(undisturbed / "checkpoints").steps() == [8, 10, 12]


def test_the_configuration_is_written_whole(undisturbed):
    from lightglue.training import read_options

    assert read_options(undisturbed / "config.toml") == tiny_options()


def test_every_parameter_of_the_start_is_accounted_for(undisturbed):
    start = read_log(undisturbed / "log.jsonl")[0]
    assert {row["what"] for row in start["parameters"]} == {"fresh"}
    network = LightGlue.load(undisturbed / "best" / "weights.safetensors").network
    assert {row["name"] for row in start["parameters"]} == {name for name, _ in network.named_parameters()}


def test_a_run_in_bfloat16_learns_and_keeps_its_weights_in_float32(tmp_path):
    result = train(tiny_options(run={"precision": "bfloat16"}), tmp_path, samples=SAMPLES)
    losses = [line["loss"] for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "step"]
    assert losses[-1] < losses[0]
    assert {tensor.dtype for tensor in load_file(result.weights).values()} == {torch.float32}


def test_what_a_step_learns_depends_on_the_batch_and_not_on_how_much_of_it_is_in_memory_at_once(tmp_path):
    found = []
    for at_once in (4, 1):
        options = tiny_options(run={"steps": 3, "at_once": at_once}, optimiser={"clip": 0.5})
        result = train(options, tmp_path / str(at_once), samples=GeneratedSamples(ragged=True))
        found.append(load_file(result.weights))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_what_is_written_is_the_average_of_the_weights_over_the_steps(tmp_path):
    """After n steps the decay is n / (n + 10), at most the one asked for."""
    train(tiny_options(run={"steps": 2, "checkpoint_every": 1}, optimiser={"ema": 0.1}), tmp_path, samples=SAMPLES)
    folders = [Checkpoints(tmp_path / "checkpoints").path(step) for step in (1, 2)]
    first, second = (load_file(folder / "state.safetensors") for folder in folders)
    written = load_file(tmp_path / "best" / "weights.safetensors")
    for name in (key.removeprefix("average/") for key in second if key.startswith("average/")):
        expected = 0.1 * first[f"average/{name}"] + 0.9 * second[f"network/{name}"]
        torch.testing.assert_close(written[name], expected, msg=name)


def test_what_is_frozen_stays_as_it_was(tmp_path):
    options = tiny_options(run={"steps": 2}, network={"freeze": ["transformers.0", "posenc"]}, optimiser={"ema": 0})
    found = load_file(train(options, tmp_path, samples=SAMPLES).weights)
    config = network_config(options.network, SAMPLES.descriptor_dim, SAMPLES.has_scale_ori)
    start = dict(initialise(options.network, config, "sift", options.run.seed)[0].named_parameters())
    stayed = {name for name, value in start.items() if torch.equal(value, found[name])}
    assert stayed == {name for name in start if name.startswith(("transformers.0.", "posenc."))}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")  # of torch, as it compiles
def test_a_compiled_run_builds_one_graph_for_all_numbers_of_keypoints_and_learns_the_same(monkeypatch, tmp_path):
    graphs, original = [], torch.nn.Module.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: original(self, backend=backend))
    samples = GeneratedSamples(ragged=True)

    def run(name, **options):
        train(tiny_options(run={"steps": 3, "log_every": 1, **options}), tmp_path / name, samples=samples)
        return [line["loss"] for line in read_log(tmp_path / name / "log.jsonl") if line["kind"] == "step"]

    compiled = run("compiled", compile=True)
    assert len(graphs) == 1
    assert compiled == pytest.approx(run("plain"), rel=1e-4)


# -- exact resume ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 3, 7, 8, 14, 22, 25, 31, 40, 47])
def test_a_run_that_was_killed_ends_as_the_undisturbed_one(undisturbed, tmp_path, at):
    with pytest.raises(Killed):
        train(tiny_options(), tmp_path, samples=KilledSamples(at))
    train(tiny_options(), tmp_path, samples=SAMPLES, resume=True)
    assert equal(tensors_of(tmp_path), tensors_of(undisturbed))


def test_a_run_that_was_killed_over_and_over(undisturbed, tmp_path):
    for at in (9, 10, 19, 27, 27, 46):
        with pytest.raises(Killed):
            train(tiny_options(), tmp_path, samples=KilledSamples(at), resume=True)
    train(tiny_options(), tmp_path, samples=SAMPLES, resume=True)
    assert equal(tensors_of(tmp_path), tensors_of(undisturbed))
    steps = [line["step"] for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "step"]
    assert steps == [2, 4, 6, 8, 10, 12]  # each once


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
from lightglue.training import train
from support.training import GeneratedSamples, tiny_options
train(tiny_options(), Path(sys.argv[1]), samples=GeneratedSamples(), resume=True)
"""


def child(run: Path) -> Child:
    return Child(CHILD, run, torch.get_num_threads())


def test_a_process_that_is_killed_in_earnest(undisturbed, tmp_path):
    """SIGKILL as soon as there is a checkpoint, wherever the process is by then."""
    with child(tmp_path) as process:
        while not Checkpoints(tmp_path / "checkpoints").steps() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    train(tiny_options(), tmp_path, samples=SAMPLES, resume=True)
    assert equal(tensors_of(tmp_path), tensors_of(undisturbed))


class InterruptedSamples(GeneratedSamples):
    """Somebody presses Ctrl-C while the sample is read."""

    def sample(self, k):
        if k == 22:
            signal.raise_signal(signal.SIGINT)
        return super().sample(k)


def test_ctrl_c_saves_what_was_done(undisturbed, tmp_path):
    said = []
    with pytest.raises(KeyboardInterrupt):
        train(tiny_options(run={"checkpoint_every": 100}), tmp_path, samples=InterruptedSamples(), say=said.append)
    assert "saved at step 5" in said[-1]
    assert Checkpoints(tmp_path / "checkpoints").steps() == [5]
    train(tiny_options(), tmp_path, samples=SAMPLES, resume=True)
    assert equal(tensors_of(tmp_path), tensors_of(undisturbed))


def test_a_second_ctrl_c_while_it_is_saved_waits_too(undisturbed, tmp_path, monkeypatch):
    """Pressed twice in a row, or sent by the terminal and by a launcher."""
    flush = checkpoints._flush

    def press(path):
        signal.raise_signal(signal.SIGINT)
        flush(path)

    monkeypatch.setattr(checkpoints, "_flush", press)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_options(run={"checkpoint_every": 100}), tmp_path, samples=InterruptedSamples())
    assert Checkpoints(tmp_path / "checkpoints").newest().step == 5


@pytest.mark.parametrize(("pause", "step"), [(0.5, 1), (1.5, 0)])
def test_only_a_later_ctrl_c_cuts_a_step_which_is_said(monkeypatch, tmp_path, pause, step):
    now = [0.0]
    monkeypatch.setattr("lightglue.training.signals.time", SimpleNamespace(monotonic=lambda: now[0]))
    run_step = Trainer.run_step

    def pressed(trainer, *given):
        signal.raise_signal(signal.SIGINT)
        now[0] += pause
        signal.raise_signal(signal.SIGINT)
        return run_step(trainer, *given)

    monkeypatch.setattr(Trainer, "run_step", pressed)
    said = []
    with pytest.raises(KeyboardInterrupt):
        train(tiny_options(), tmp_path, samples=SAMPLES, say=said.append)
    assert sum("finishing the step" in text for text in said) == 1
    assert said[-1].startswith("saved at step 1" if step else "the step was cut off and nothing saved; --resume goes")
    assert Checkpoints(tmp_path / "checkpoints").steps() == ([step] if step else [])


def test_a_checkpoint_that_was_cut_off_is_passed_over(undisturbed, tmp_path):
    with pytest.raises(Killed):
        train(tiny_options(), tmp_path, samples=KilledSamples(40))
    newest = Checkpoints(tmp_path / "checkpoints").path(10) / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    said = []
    train(tiny_options(), tmp_path, samples=SAMPLES, resume=True, say=said.append)
    assert any("000010: state.safetensors was cut off or altered" in text for text in said)
    assert "going on from step 8" in said
    assert equal(tensors_of(tmp_path), tensors_of(undisturbed))


def test_where_all_checkpoints_are_damaged_nothing_is_begun(tmp_path):
    train(tiny_options(run={"steps": 2}), tmp_path, samples=SAMPLES)
    for path in (tmp_path / "checkpoints").rglob("state.json"):
        path.write_text("{")
    with pytest.raises(StoreError, match="every checkpoint is damaged"):
        train(tiny_options(run={"steps": 2}), tmp_path, samples=SAMPLES, resume=True)


def test_a_full_disk_leaves_earlier_checkpoints(monkeypatch, tmp_path):
    def full(tensors, path):
        path.write_bytes(b"the beginning")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        train(tiny_options(run={"steps": 4}), tmp_path / "run", samples=SAMPLES)
        patched.setattr(checkpoints, "save_file", full)
        with pytest.raises(StoreError, match="No space left on device"):
            train(tiny_options(run={"steps": 4}), tmp_path / "full", samples=SAMPLES)
        assert list((tmp_path / "full" / "checkpoints").iterdir()) == []


def test_a_run_is_not_written_over(undisturbed):
    with pytest.raises(InputError, match=r"holds a run of 12 steps; go on with resume \(--resume\)"):
        train(tiny_options(), undisturbed, samples=SAMPLES)


@pytest.mark.parametrize("name", ["config.toml", "log.jsonl", "report.html", "best"])
def test_files_of_others_are_not_written_over(tmp_path, name):
    (tmp_path / name).write_text("# mine\n" + as_toml(tiny_options()))
    with pytest.raises(InputError, match=f"holds {name}, which this run would write over.*name another folder"):
        train(tiny_options(), tmp_path, samples=SAMPLES)
    assert [path.read_text()[:6] for path in tmp_path.iterdir()] == ["# mine"]


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(undisturbed, tmp_path):
    with pytest.raises(Killed):
        train(tiny_options(), tmp_path, samples=KilledSamples(5))
    train(tiny_options(), tmp_path, samples=SAMPLES)
    assert equal(tensors_of(tmp_path), tensors_of(undisturbed))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"network": {"init_from": "nowhere.safetensors"}}, "There is no weight file at 'nowhere.safetensors'"),
        ({"run": {"device": "gpu"}}, "device is 'gpu'"),
        ({"run": {"precision": "float16"}}, "float16, which needs a CUDA device"),
    ],
)
def test_what_the_machine_lacks_is_said_before_features_are_extracted(tmp_path, monkeypatch, sections, said):
    monkeypatch.setattr("lightglue.training.run.open_samples", None)
    with pytest.raises((InputError, WeightsError), match=said):
        train(tiny_options(**sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_options_that_changed_are_said_before_features_are_extracted(undisturbed, monkeypatch):
    monkeypatch.setattr("lightglue.training.run.open_samples", None)
    with pytest.raises(InputError, match=r"optimiser.lr: 0.001 before, 0.002 now"):
        train(tiny_options(optimiser={"lr": 2e-3}), undisturbed, resume=True)


def test_a_run_goes_on_elsewhere_without_the_weights_that_it_began_from(undisturbed, tmp_path):
    """Its images may lie in another folder: the fingerprint of the samples says whether they are the same."""
    start = tmp_path / "start.safetensors"
    shutil.copy(undisturbed / "best" / "weights.safetensors", start)

    def options(place):
        return tiny_options(data={"pool": place, "sources": [{"path": place}]}, network={"init_from": str(start)})

    with pytest.raises(Killed):
        train(options("here"), tmp_path / "run", samples=KilledSamples(9))
    start.unlink()
    train(options("there"), tmp_path / "run", samples=SAMPLES, resume=True)
    shutil.copy(undisturbed / "best" / "weights.safetensors", start)
    train(options("here"), tmp_path / "whole", samples=SAMPLES)
    assert equal(tensors_of(tmp_path / "run"), tensors_of(tmp_path / "whole"))


def test_a_run_of_another_version_is_said_to_be_one(tmp_path):
    train(tiny_options(run={"steps": 2}), tmp_path, samples=SAMPLES)
    state = Checkpoints(tmp_path / "checkpoints").path(2) / "state.json"
    said = read_json(state)
    write_json(state, {**said, "config": said["config"].replace("weight_decay", "decay_of_weights")})
    with pytest.raises(InputError, match=r"another version of lightglue.*'decay_of_weights' is unknown.*init_from = "):
        train(tiny_options(run={"steps": 2}), tmp_path, samples=SAMPLES, resume=True)


def test_what_was_changed_since_is_named(undisturbed):
    with pytest.raises(InputError, match=r"optimiser.lr: 0.001 before, 0.002 now; run.batch: 4 before, 5 now"):
        train(tiny_options(optimiser={"lr": 2e-3}, run={"batch": 5}), undisturbed, samples=SAMPLES, resume=True)
    with pytest.raises(InputError, match="fingerprint generated-1, before generated-0"):
        train(tiny_options(), undisturbed, samples=GeneratedSamples(seed=1), resume=True)


def test_what_changes_nothing_of_the_weights_may_be_changed(tmp_path):
    train(tiny_options(run={"steps": 2}), tmp_path, samples=SAMPLES)
    result = train(tiny_options(run={"steps": 2, "keep": 1, "log_every": 1}), tmp_path, samples=SAMPLES, resume=True)
    assert result.step == 2


# -- ending a run before its time ------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(tmp_path):
    """A run of 12 steps that was stopped after 5."""
    with pytest.raises(KeyboardInterrupt):
        train(tiny_options(), tmp_path / "run", samples=InterruptedSamples())
    return tmp_path / "run"


def test_a_run_that_was_stopped_is_finished_with_what_it_has(interrupted):
    result = train(tiny_options(judge={"fit_pairs": 6}), interrupted, samples=SAMPLES, finish=True)
    assert (result.step, result.best_step) == (5, 5)
    assert result.validation.pairs == 6
    assert [line["kind"] for line in read_log(interrupted / "log.jsonl")][-4:] == [
        "resume", "validation", "fitting", "end"
    ]  # fmt: skip
    assert (interrupted / "report.html").is_file()
    found = checkpoint.read_description(result.weights)
    assert found.record["step"] == 5
    assert found.fitted is not None


def test_a_run_that_was_finished_goes_on_as_if_it_had_not_been(interrupted, undisturbed):
    train(tiny_options(judge={"fit_pairs": 6}), interrupted, samples=SAMPLES, finish=True)
    result = train(tiny_options(judge={"fit": False}), interrupted, samples=SAMPLES, resume=True)
    assert equal(tensors_of(interrupted), tensors_of(undisturbed))
    assert equal(load_file(result.weights), load_file(undisturbed / "best" / "weights.safetensors"))


def test_the_best_weights_are_the_newest_though_a_kill_left_older_ones(interrupted, undisturbed):
    best = interrupted / "best" / "weights.safetensors"
    shutil.copy(Checkpoints(interrupted / "checkpoints").path(4) / "weights.safetensors", best)
    result = train(tiny_options(), interrupted, samples=SAMPLES, finish=True)
    assert checkpoint.read_description(result.weights).record["step"] == 5


def test_what_was_judged_while_it_was_trained_is_not_judged_again(tmp_path):
    with pytest.raises(Killed):
        train(tiny_options(), tmp_path, samples=KilledSamples(33), judge=Judge())
    judge = Judge()
    result = train(tiny_options(), tmp_path, samples=SAMPLES, judge=judge, finish=True)
    assert judge.asked == [8]
    assert (result.step, result.best_step) == (8, 6)


@pytest.mark.parametrize(("steps", "done"), [(3, 5), (7, 7)])
def test_the_number_of_steps_may_be_another_where_the_learning_rate_does_not_follow_it(tmp_path, steps, done):
    def options(steps):
        return tiny_options(optimiser={"schedule": "constant"}, run={"steps": steps})

    with pytest.raises(KeyboardInterrupt):
        train(options(12), tmp_path / "run", samples=InterruptedSamples())
    result = train(options(steps), tmp_path / "run", samples=SAMPLES, resume=True)
    assert result.step == done
    if done == steps:
        train(options(steps), tmp_path / "other", samples=SAMPLES)
        assert equal(tensors_of(tmp_path / "run", 7), tensors_of(tmp_path / "other", 7))


def test_elsewhere_another_number_of_steps_is_refused_with_the_way_to_end(interrupted):
    with pytest.raises(InputError, match=r"follows the number of steps \(run.steps: 12 before, 5 now\).*--finish"):
        train(tiny_options(run={"steps": 5}), interrupted, samples=SAMPLES, resume=True)


def test_without_a_checkpoint_there_is_nothing_to_finish(tmp_path):
    with pytest.raises(InputError, match="no checkpoint in .*run to finish; train first"):
        train(tiny_options(), tmp_path / "run", samples=SAMPLES, finish=True)
    assert not (tmp_path / "run").exists()


# -- what goes wrong on the way --------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_written_and_skipped(tmp_path):
    bad = GeneratedSamples(nan_at=(9,))
    said = []
    train(tiny_options(run={"at_once": 2}), tmp_path, samples=bad, say=said.append)
    assert sum("step 3: the loss is not finite" in text for text in said) == 1
    (line,) = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "non_finite"]
    assert line["samples"] == [8, 9]
    found = read_batch(tmp_path / line["files"][0])
    assert found.numbers == (8, 9)
    assert found.views == batch_of(bad, (8, 9)).views
    assert found.descriptors.isnan().any()
    assert torch.equal(found.matches, batch_of(bad, (8, 9)).matches)
    weights = load_file(tmp_path / "best" / "weights.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_scaler_for_float16_survives_a_loss_that_is_not_finite():
    samples = GeneratedSamples(nan_at=(1,))
    config = network_config(tiny_options().network, samples.descriptor_dim, samples.has_scale_ori)
    network, _ = initialise(tiny_options().network, config, "sift", 0)
    trainer = Trainer(network, tiny_options(), samples)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    steps = [trainer.run_step([batch_of(samples, numbers)], 0.0) for numbers in ((0, 1), (2, 3))]
    assert [step.is_good for step in steps] == [False, True]
    assert trainer.scaler.get_scale() == 8.0
    assert all(p.isfinite().all() for p in network.parameters())


def test_too_many_of_them_end_the_run(tmp_path):
    with pytest.raises(LightGlueError, match="3 steps gave a loss that is not finite; look at .*bad_batches"):
        train(tiny_options(run={"max_non_finite": 3}), tmp_path, samples=GeneratedSamples(nan_at=tuple(range(48))))


def test_features_of_another_kind_are_named(tmp_path):
    class Mixed(GeneratedSamples):
        def sample(self, k):
            return GeneratedSamples(feature_type="aliked" if k == 6 else "sift").sample(k)

    with pytest.raises(
        InputError, match=r"sample 6, view 'a0-6' has aliked features of length 8, the others sift of 8"
    ):
        train(tiny_options(), tmp_path, samples=Mixed())


def test_a_run_by_the_clock_ends_with_it_and_writes_what_it_has(tmp_path):
    options = tiny_options(run={"steps": "none", "minutes": 0.01})
    result = train(options, tmp_path, samples=SAMPLES)
    assert result.step > 0
    ends = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "end"]
    assert [line["step"] for line in ends] == [result.step]
    assert Checkpoints(tmp_path / "checkpoints").newest().step == result.step


def test_tensorboards_reader_returns_the_numbers_of_the_log_also_of_a_run_that_was_killed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = tiny_options(run={"steps": 6, "log_every": 1, "validate_every": 3, "tensorboard": True})
    with pytest.raises(Killed):
        train(options, tmp_path, samples=KilledSamples(21))  # after step 5, of which there is no checkpoint
    train(options, tmp_path, samples=SAMPLES, resume=True)
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    lines = read_log(tmp_path / "log.jsonl")
    for kind, name in (("step", "loss"), ("step", "lr"), ("step", "pairs_per_second"), ("validation", "recall")):
        expected = [(line["step"], line[name]) for line in lines if line["kind"] == kind]
        assert len(expected) >= 2
        found = [(event.step, event.value) for event in curves.Scalars(f"{kind}/{name}")]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)
    layers = [line["nll"] for line in lines if line["kind"] == "step"]
    for i in range(2):
        found = [event.value for event in curves.Scalars(f"step/nll/{i + 1}")]
        assert found == pytest.approx([each[i] for each in layers], rel=1e-6)


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'lightglue\[tensorboard\]'"):
        train(tiny_options(run={"tensorboard": True}), tmp_path, samples=SAMPLES)


# -- judging ---------------------------------------------------------------------------------------------------------


class Judge:
    """Likes step 6 best."""

    every = 3

    def __init__(self):
        self.asked = []

    def __call__(self, weights, step):
        LightGlue.load(weights)
        self.asked.append(step)
        return Judgement("likes", -abs(step - 6), {"other": 1.0})


def test_the_best_weights_are_those_of_the_best_judgement(tmp_path):
    judge = Judge()
    result = train(tiny_options(), tmp_path, samples=SAMPLES, judge=judge)
    assert judge.asked == [3, 6, 9, 12]
    assert (result.best_step, result.judgement.value) == (6, 0)
    judged = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "judgement"]
    assert [line["best"] for line in judged] == [True, True, False, False]
    best = load_file(result.weights)
    assert not equal(best, load_file(tmp_path / "checkpoints" / "000012" / "weights.safetensors"))
    record = json.loads(_metadata(result.weights)["training"])
    assert (record["step"], record["pairs"], record["feature_type"]) == (6, 24, "sift")


def test_a_judgement_that_a_kill_cut_short_is_made_again(tmp_path):
    class Dying(Judge):
        def __call__(self, weights, step):
            if step == 6:
                raise Killed
            return super().__call__(weights, step)

    with pytest.raises(Killed):
        train(tiny_options(), tmp_path, samples=SAMPLES, judge=Dying())
    judge = Judge()
    result = train(tiny_options(), tmp_path, samples=SAMPLES, judge=judge, resume=True)
    assert judge.asked == [6, 9, 12]
    assert result.best_step == 6


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


# -- several processes -----------------------------------------------------------------------------------------------

RANK = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from lightglue.training import train
from support.training import GeneratedSamples, tiny_options
asked = []
class Counted(GeneratedSamples):
    def sample(self, k):
        asked.append(k)
        return super().sample(k)
train(tiny_options(run={"steps": 4, "batch": 5}), Path(sys.argv[1]), samples=Counted(keypoints=16, ragged=True))
Path(sys.argv[1], f"asked{sys.argv[2]}").write_text(" ".join(map(str, asked)))
"""


def test_processes_wait_for_hours_while_the_first_extracts_features(monkeypatch):
    asked = {}
    monkeypatch.setattr("torch.distributed.init_process_group", lambda kind, **how: asked.update(how))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with joined("cpu") as world:
        assert (world.rank, world.size) == (1, 2)
    assert asked["timeout"].total_seconds() >= 86_400


def test_two_processes_learn_what_one_does(tmp_path, free_port):
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
    ranks = [
        Child(RANK, tmp_path / "two", rank, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    with ranks[0], ranks[1]:
        one = GeneratedSamples(keypoints=16, ragged=True)
        alone = train(tiny_options(run={"steps": 4, "batch": 5}), tmp_path / "one", samples=one)
        assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].stderr + ranks[1].stderr
    asked = [(tmp_path / "two" / f"asked{rank}").read_text() for rank in (0, 1)]
    assert asked == ["0 1 5 6 10 11 15 16", "2 3 4 7 8 9 12 13 14 17 18 19"]
    single, double = (load_file(tmp_path / name / "best" / "weights.safetensors") for name in ("one", "two"))
    for name, value in single.items():
        torch.testing.assert_close(double[name], value, rtol=1e-3, atol=1e-4, msg=name)
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    for a, b in zip(*logs, strict=True):
        assert (a["kind"], a["step"]) == (b["kind"], b["step"])
        if a["kind"] == "validation":
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
            assert a["pairs"] == b["pairs"] == 6
        if a["kind"] == "step":
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    assert alone.validation is not None


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
