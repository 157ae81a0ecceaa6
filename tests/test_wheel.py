"""The package as users get it: the wheel in an environment of its own, away from the clone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from readme_renderer import markdown

from lightglue import __version__
from support import CLOSE, FAR, ROOT

SOURCE = ROOT / "src"
NOT_FOR_A_BUILD = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "out", "docs", "data")


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints that sees nothing of the clone."""
    unseen = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=unseen, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("build")
    shutil.copytree(ROOT, folder / "clone", ignore=NOT_FOR_A_BUILD)  # a build writes into the folder that it builds
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "clone", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheel; what it depends on is borrowed from that of the tests."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)  # which takes seconds to unpack
    commands = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = (sys.executable, "-m", "pip", "--python", commands / "python")
    run(*pip, "install", "--no-index", "--no-deps", "--no-compile", wheel, cwd=folder)
    (packages,) = (folder / "venv").rglob("site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))  # after the environment's own; no .pth of it
    return commands


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Metadata:
    """What an index reads, checked as an index checks it."""
    with zipfile.ZipFile(wheel) as archive:
        return Metadata.from_email(archive.read(f"lightglue-{__version__}.dist-info/METADATA"), validate=True)


def test_the_wheel_matches_two_photographs(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import lightglue; print(lightglue.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    few = ("--max-keypoints", "300", "--resize", "480", "--device", "cpu")
    printed = run(installed / "lightglue", "match", CLOSE, FAR, *few, "--output", "matches.png", "--json", cwd=tmp_path)
    assert json.loads(printed)["num_matches"] > 50
    assert (tmp_path / "matches.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_says_its_version_and_no_commit(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "lightglue", "--version", cwd=tmp_path) == f"lightglue {__version__}\n"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    sources = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    sources |= {f"{package}/py.typed" for package in ("lightglue", "lightglue_runtime")}
    sources |= {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.jpg")}
    sources |= {path.relative_to(SOURCE).as_posix() for path in (SOURCE / "lightglue/weights/own").iterdir()}
    for folder in ("drawing/viewer", "web/static", "web/stored"):
        sources |= {path.relative_to(SOURCE).as_posix() for path in (SOURCE / "lightglue" / folder).iterdir()}
    about = f"lightglue-{__version__}.dist-info"
    assert {name for name in members(wheel) if not name.startswith(f"{about}/")} == sources
    assert {f"{about}/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= members(wheel)


def test_the_sdist_holds_what_a_build_needs_and_no_tests(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "NOTICE", "src/lightglue/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "assets"))]


def test_an_index_takes_the_metadata(metadata: Metadata) -> None:
    assert str(metadata.version) == __version__
    assert metadata.license_expression == "Apache-2.0"
    assert {"sift", "sfm", "hloc", "ray", "faiss", "view"} <= set(metadata.provides_extra or ())
    needed = {
        requirement.name for requirement in metadata.requires_dist or () if "extra" not in str(requirement.marker)
    }
    assert {"torch", "numpy", "safetensors"} <= needed
    assert not needed & {"pycolmap", "ray", "faiss-cpu", "viser", "h5py", "pytest"}


def test_the_readme_is_rendered_by_an_index(metadata: Metadata) -> None:
    assert metadata.description_content_type == "text/markdown"
    page = markdown.render(metadata.description or "")
    assert page is not None
    assert re.search(r"<h1[^>]*>.*lightglue", page)
    assert "<pre" in page
    assert "<table>" in page
