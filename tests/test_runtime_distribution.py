"""`lightglue-runtime`: the distribution without torch, its command, and folders of models."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import lightglue_runtime
from lightglue import load_image
from lightglue.errors import InputError
from lightglue.export import write_bundle
from lightglue.export.files import check_folder
from lightglue.extractors.options import ViewOptions
from lightglue.images import numpy_image_to_torch, resize_tensor
from lightglue.models.choice import Models
from lightglue.pairs.files import match_files
from lightglue_runtime.command import main
from lightglue_runtime.errors import ModelError
from lightglue_runtime.images.sources import as_float
from lightglue_runtime.manifest import MANIFEST
from lightglue_runtime.resize import resize
from support import ROOT, A, B
from support.exported import Exported

FEW = ("--max-keypoints", "256", "--resize", "320", "--threads", "1")
DIR = object()  # stands for the folder of a test
# What an environment of `lightglue-runtime[onnx]` holds.
NEEDED = ("numpy", "numpy.libs", "cv2", "opencv_python_headless.libs", "onnxruntime", "flatbuffers", "google")
ABSENT = ("torch", "lightglue", "PIL", "matplotlib", "typer", "rich", "onnx", "openvino", "safetensors", "filelock")


@pytest.fixture(scope="module")
def models(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `lightglue export bundle` writes."""
    folder = tmp_path_factory.mktemp("bundle") / "models"
    write_bundle(exported.extractor("aliked"), exported.matcher("aliked"), folder)
    return folder


@pytest.fixture
def copied(models: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(models, tmp_path / "models"))


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("build")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT / "runtime", folder / "runtime", symlinks=True, ignore=ignored)
    shutil.copytree(ROOT / "src" / "lightglue_runtime", folder / "src" / "lightglue_runtime", ignore=ignored)
    shutil.copy(ROOT / "LICENSE", folder)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "runtime", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheel and what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    commands = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = dist.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", commands / "python")
    run(*pip, "install", "--no-index", "--no-deps", "--no-compile", wheel, cwd=folder)
    (packages,) = (folder / "venv").rglob("site-packages")
    borrowed = Path(sysconfig.get_path("purelib"))
    for name in NEEDED:
        if (borrowed / name).exists():
            (packages / name).symlink_to(borrowed / name)
    return commands


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    """What a command prints that sees nothing of the clone."""
    unseen = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=unseen, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[object]:
    """The command in this process: its exit code, stdout and stderr."""
    before = warnings.formatwarning, signal.getsignal(signal.SIGTERM)

    def called(*arguments: object) -> tuple[int, str, str]:
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    yield called
    warnings.formatwarning = before[0]
    signal.signal(signal.SIGTERM, before[1])


# --- the distribution -------------------------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_without_torch_and_its_licence(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if "dist-info" not in name}
        about = {name.partition("/")[2] for name in archive.namelist() if "dist-info" in name}
    source = ROOT / "src"
    modules = (source / "lightglue_runtime").rglob("*.py")
    assert names == {path.relative_to(source).as_posix() for path in modules} | {"lightglue_runtime/py.typed"}
    assert {"licenses/LICENSE", "METADATA", "entry_points.txt"} <= about
    assert wheel.name == f"lightglue_runtime-{lightglue_runtime.__version__}-py3-none-any.whl"


def test_the_sdist_holds_files_and_no_links(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        found = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert not [name for name, member in found.items() if member.issym() or member.islnk()]
    assert {"LICENSE", "README.md", "pyproject.toml", "src/lightglue_runtime/images/files.py"} <= set(found)


def test_without_torch_two_photographs_are_matched_as_the_package_does(
    installed: Path, models: Path, tmp_path: Path
) -> None:
    for name in ("torch", "lightglue", "PIL"):
        assert f"No module named '{name}'" in run(installed / "python", "-c", f"import {name}", cwd=tmp_path, code=1)
    shutil.copy(A, tmp_path / "a.jpg")
    options = ("--models", models, *FEW, "--json", "-o", "found.npz", "-o", "found.csv", "-o", "found.json")
    printed = json.loads(run(installed / "lightglue-runtime", "match", "a.jpg", B, *options, cwd=tmp_path))

    expected = of_the_package()
    with np.load(tmp_path / "found.npz") as found:
        assert sorted(found) == sorted(expected)
        assert {name: found[name].dtype.kind for name in found} == {name: expected[name].dtype.kind for name in found}
        for side in "01":
            assert distances(found[f"keypoints{side}"], expected[f"keypoints{side}"]).max() < 0.01
        assert as_points(found) == as_points(expected)
        assert found["stop"] == expected["stop"]
        assert abs(found["overlap"] - expected["overlap"]) < 1e-4
        assert printed["matches"] == found["matches"].tolist()
        assert json.loads((tmp_path / "found.json").read_text())["scores"] == found["scores"].tolist()
        lines = (tmp_path / "found.csv").read_text().splitlines()
        assert lines[0] == "x0,y0,x1,y1,score"
        assert len(lines) == len(found["matches"]) + 1 > 50


def of_the_package() -> dict[str, np.ndarray]:
    """The arrays of the pair as torch computes them in float32."""
    models = Models(max_keypoints=256, mp=False)
    return match_files(A, B, models=models, views=ViewOptions(resize=320)).pair.arrays()


def distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each point to the nearest other one, px; both sets have as many."""
    assert len(points) == len(others)
    return np.abs(points[:, None] - others[None]).max(-1).min(1)


def as_points(arrays: object) -> set[tuple[float, ...]]:
    """Matches by what they join: the order of keypoints that score the same but for rounding is free."""
    joined = np.concatenate([arrays["points0"], arrays["points1"]], 1)  # type: ignore[index]
    return {tuple(row) for row in joined.round(1).tolist()}


def test_nothing_else_is_loaded(models: Path, tmp_path: Path) -> None:
    """Also in an environment that has it all."""
    code = (
        "import sys; from lightglue_runtime.command import main\n"
        f"main(['match', {str(A)!r}, {str(B)!r}, '--models', {str(models)!r}, '--runtime', 'onnx', *{FEW}])\n"
        f"print(sorted(set({ABSENT}) & set(sys.modules)))"
    )
    source = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=source, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


def test_help_and_errors_need_neither_numpy_nor_a_runtime(tmp_path: Path) -> None:
    code = "import sys, lightglue_runtime.command; print(sorted({'numpy', 'cv2', 'onnxruntime'} & set(sys.modules)))"
    source = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    assert subprocess.check_output([sys.executable, "-c", code], env=source, cwd=tmp_path, text=True) == "[]\n"


# --- images -----------------------------------------------------------------------------------------------------------


def write_images(folder: Path) -> list[Path]:
    """One of each kind: colour and gray, 8 and 16 bits, with and without orientation, with transparency."""
    colours = cv2.cvtColor(cv2.resize(cv2.imread(str(A)), (48, 30)), cv2.COLOR_BGR2RGB)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours).save(folder / "plain.jpg")
    Image.fromarray(colours).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(colours).save(folder / "turned.webp", exif=exif, lossless=True)
    Image.fromarray(colours).save(folder / "turned.png", exif=exif)
    Image.fromarray(colours).convert("L").save(folder / "gray.png")
    Image.fromarray(np.dstack([colours, colours[..., :1]])).save(folder / "transparent.png")
    cv2.imwrite(str(folder / "deep.png"), colours.astype(np.uint16) * 257 - 3)
    cv2.imwrite(str(folder / "deep_gray.tif"), colours[..., 0].astype(np.uint16) * 257)
    return sorted(folder.iterdir())


def test_images_of_all_kinds_are_read_to_the_same_values(tmp_path: Path) -> None:
    paths = write_images(tmp_path)
    assert len(paths) == 8
    for path in paths:
        for source in (path, path.read_bytes()):
            assert torch.equal(torch.from_numpy(as_float(source)).permute(2, 0, 1), load_image(source)), path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30), (20, 30, 1)])
def test_arrays_become_the_same_values(dtype: type, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 65_536 if dtype is np.uint16 else 256, shape).astype(dtype)
    assert torch.equal(torch.from_numpy(as_float(image)).permute(2, 0, 1), numpy_image_to_torch(image))


@pytest.mark.parametrize(
    ("size", "side"), [(64, "long"), (50, "short"), (70, "vert"), ((40, 90), "long"), (900, "long")]
)
def test_images_are_resized_to_the_same_values(size: int | tuple[int, int], side: str) -> None:
    image = np.random.default_rng(1).random((123, 211, 3), np.float32)
    found, scales = resize(image, size, side)
    expected, expected_scales = resize_tensor(torch.from_numpy(image).permute(2, 0, 1), size, side=side)
    assert np.abs(found - expected.permute(1, 2, 0).numpy()).max() < 1e-6
    assert scales == pytest.approx(expected_scales.tolist())


# --- a folder of models -----------------------------------------------------------------------------------------------


def test_a_folder_says_what_it_holds(models: Path, command) -> None:
    assert sorted(path.name for path in models.iterdir()) == [
        "LICENCES.txt", "bundle.json", "extractor.onnx", "matcher.onnx",
    ]  # fmt: skip
    code, printed, _ = command("info", models, "--json")
    found = json.loads(printed)
    assert code == 0
    assert found["features"] == "aliked"
    assert found["resize"] == 1024
    assert found["licences"] == {"aliked-n16": "BSD-3-Clause", "aliked_lightglue": "Apache-2.0"}
    assert "https://github.com/Shiaoming/ALIKED" in (models / "LICENCES.txt").read_text()


def test_an_array_is_matched_as_the_file_is(models: Path) -> None:
    loaded = lightglue_runtime.load(models, "onnx", threads=1)
    with_files = loaded.match(A, B.read_bytes(), 64, resize=160)
    pixels = cv2.imread(str(A))[..., ::-1]
    with_arrays = loaded.match(pixels, cv2.imread(str(B))[..., ::-1], 64, resize=160)
    assert np.array_equal(with_files.matches, with_arrays.matches)
    assert np.array_equal(with_files.keypoints0, with_arrays.keypoints0)
    assert repr(with_files).startswith(f"{len(with_files.matches)} matches of 64 and 64 keypoints, overlap ")


def test_an_image_without_keypoints_has_no_matches_and_a_warning(models: Path, tmp_path: Path, command) -> None:
    path = tmp_path / "dot.png"
    cv2.imwrite(str(path), np.full((1, 1, 3), 128, np.uint8))
    code, printed, said = command("match", path, A, "--models", models, *FEW[:2], "--resize", "none", "--json")
    found = json.loads(printed)
    assert (code, found["num_matches"], found["num_keypoints"][0]) == (0, 0, 0)
    assert said == f"warning: {path} has no keypoints: nothing in it is clear enough to be found again.\n"


def test_models_that_do_not_fit_are_no_bundle(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the extractor is for aliked and the matcher for xfeat"):
        write_bundle(exported.extractor("aliked"), exported.matcher("xfeat"), tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_with_other_things_in_it_is_not_written_to(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(InputError, match="holds other files"):
        write_bundle(exported.extractor("aliked"), exported.matcher("aliked"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_a_killed_export_left_is_written_to(tmp_path: Path) -> None:
    (tmp_path / ".0123456789abcdef.onnx").touch()
    assert check_folder(tmp_path) == tmp_path


def test_an_output_that_is_a_pipe_is_refused(command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    code, printed, said = command("match", A, A, "--models", tmp_path, "-o", tmp_path / "pipe.json")
    assert (code, printed) == (2, "")
    assert "is a device or a pipe" in said
    assert (tmp_path / "pipe.json").is_fifo()


DAMAGE = {
    "no list": (lambda folder: (folder / MANIFEST).unlink(), r"holds no bundle.json; `lightglue export bundle DIR`"),
    "half a list": (lambda folder: (folder / MANIFEST).write_text('{"a'), "bundle.json is damaged"),
    "another list": (lambda folder: (folder / MANIFEST).write_text("[1]"), "no list of models, or damaged"),
    "another version": (lambda folder: change(folder, format_version=9), "version 9 of the format and this"),
    "a path that leads elsewhere": (lambda folder: change(folder, name="../x.onnx"), "no list of models, or damaged"),
    "no matcher": (lambda folder: (folder / "matcher.onnx").unlink(), r"matcher.onnx is missing \(No such file"),
    "half a matcher": (lambda folder: os.truncate(folder / "matcher.onnx", 1000), "has 1,000 bytes and"),
}  # fmt: skip


def change(folder: Path, **values: object) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    if "name" in values:
        content["files"]["matcher"]["name"] = values["name"]
    else:
        content |= values
    (folder / MANIFEST).write_text(json.dumps(content))


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_is_an_error_in_one_line(case: str, copied: Path, command) -> None:
    damage, message = DAMAGE[case]
    damage(copied)
    with pytest.raises(ModelError, match=message):
        lightglue_runtime.load(copied)
    code, printed, said = command("match", A, B, "--models", copied)
    assert (code, printed, said.count("\n")) == (1, "", 1)
    assert said.startswith("error: ")


@pytest.mark.parametrize("arguments", [("info", DIR), ("match", A, B, "--models", DIR)])
def test_a_changed_file_is_found(arguments: tuple[object, ...], copied: Path, command) -> None:
    content = bytearray((copied / "matcher.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "matcher.onnx").write_bytes(content)
    code, _, said = command(*(copied if each is DIR else each for each in arguments))
    assert code == 1
    assert "matcher.onnx is not the file that bundle.json names (its SHA-256 differs); copy it again." in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("match", A), "the following arguments are required: IMAGE, --models"),
        (("match", A, B, "--models", "m", "--max-keypoints", "0"), "'0' is not a number from 1 to 1000000."),
        (("match", A, B, "--models", "m", "--resize", "big"), "neither a number of px from 1 to 65536 nor 'none'"),
        (("match", A, B, "--models", "m", "--runtime", "tflite"), "invalid choice: 'tflite'"),
        (("match", A, B, "--models", "m", "-o", "x.bmp"), "none of the known endings: .npz, .json, .csv"),
        (("match", A, B, "--models", "m", "-o", "/nowhere/x.npz"), "there is no folder /nowhere"),
        (("look",), "invalid choice: 'look'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(arguments: tuple[object, ...], message: str, command) -> None:
    code, printed, said = command(*arguments)
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert message in said


def test_a_missing_image_is_named(models: Path, tmp_path: Path, command) -> None:
    code, _, said = command("match", tmp_path / "no.jpg", B, "--models", models)
    assert (code, said) == (1, f"error: There is no image at {tmp_path / 'no.jpg'}; check the path.\n")


def test_an_input_image_is_never_overwritten(models: Path, tmp_path: Path, command) -> None:
    image = tmp_path / "a.csv"
    shutil.copy(A, image)
    code, _, said = command("match", image, B, "--models", models, "-o", image)
    assert (code, "never overwritten" in said) == (2, True)
    assert image.read_bytes() == A.read_bytes()
