"""The demonstration notebook runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a kernel that is this very interpreter, whatever kernels the user has."""
    folder = tmp_path / "kernels" / "this-python"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "this", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return "this-python"


def test_the_notebook_runs_and_draws(kernel: str) -> None:
    notebook = nbformat.read(ROOT / "demo.ipynb", as_version=4)
    client = NotebookClient(notebook, kernel_name=kernel, timeout=300, resources={"metadata": {"path": str(ROOT)}})
    client.execute()  # raises at the first cell that fails

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/jpeg" in output.get("data", {})]
    assert len(pictures) == 2
    assert all(len(picture["data"]["image/jpeg"]) > 20_000 for picture in pictures)
    errors = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert errors == []  # no warnings
    printed = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    stops = [int(stop) for stop in re.findall(r"matches after (\d) layers", printed)]
    assert len(stops) == 3
    assert stops[0] < stops[1]  # the easy pair is done earlier
    assert printed.endswith("as alone: True\n")


def test_the_notebook_is_small_and_was_run_in_order() -> None:
    path = ROOT / "demo.ipynb"
    assert path.stat().st_size < 400_000
    counts = [cell.execution_count for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
