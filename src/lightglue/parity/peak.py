"""The most memory of a process that opens a model and runs it once: `python -m lightglue.parity.peak REQUEST.json`.

A process of its own, since what one library holds another cannot be blamed for. For a file it imports neither torch nor
anything of this package beside this module.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["peak_of_file", "peak_of_torch"]

PATIENCE_S = 600


def peak_of_file(path: Path, runtime: str, threads: int, feeds: Mapping[str, NDArray[Any]]) -> float | None:
    """MB of a process that runs the file once; None where the system does not say, or it failed."""
    return _peak({"file": str(path), "runtime": runtime, "threads": threads}, feeds)


def peak_of_torch(options: Mapping[str, Any], threads: int, arrays: Mapping[str, NDArray[Any]]) -> float | None:
    """MB of a process that builds the matcher or the extractor that `options` name, or both, and runs it once."""
    return _peak({"torch": dict(options), "threads": threads}, arrays)


def _peak(request: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> float | None:
    with tempfile.TemporaryDirectory() as folder:
        inputs, asked = Path(folder) / "inputs.npz", Path(folder) / "request.json"
        np.savez(inputs, **arrays)  # type: ignore[arg-type]
        asked.write_text(json.dumps({**request, "inputs": str(inputs), "path": sys.path}))
        command = [sys.executable, "-c", _PROGRAM, str(asked)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        lines = done.stdout.splitlines()
        return float(lines[-1]) / 1e6 if done.returncode == 0 and lines else None


_PROGRAM = """
import json, sys
request = json.load(open(sys.argv[1]))
sys.path[:] = request["path"]
from lightglue.parity.peak import answer
print(answer(request))
"""


def answer(request: Mapping[str, Any]) -> int:
    """Bytes, of this process, once it has done what a request says."""
    with np.load(request["inputs"]) as file:
        arrays = dict(file)
    if "file" in request:
        from lightglue.parity.opened import open_model
        from lightglue_runtime.session import SessionOptions

        options = SessionOptions(request["threads"])
        open_model(Path(request["file"]), request["runtime"], options).session.run(arrays)
    else:
        _run_torch(request["torch"], request["threads"], arrays)
    return _peak_bytes()


def _run_torch(options: dict[str, Any], threads: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An extractor on an image or two, or a matcher on features, or both one after the other."""
    import torch

    torch.set_num_threads(threads)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if "extractor" in options:
        from lightglue.export.extractors.options import ExtractorSource
        from lightglue.parity.extractors import reference_extractor
        from lightglue.parity.pipelines import as_features

        extractor = reference_extractor(ExtractorSource(**options["extractor"]), options["max_keypoints"])
        found: dict[str, Any] = {name: as_features(extractor(image), image) for name, image in tensors.items()}
    else:
        found = {f"image{k}": {n[:-1]: t for n, t in tensors.items() if n[-1] == k} for k in "01"}
    if request := options.get("matcher"):
        from lightglue.matching.lightglue import LightGlue

        least = request.pop("pruning_min_keypoints")
        matcher = LightGlue(**request)
        matcher.pruning_keypoint_thresholds["cpu"] = least
        with torch.inference_mode():
            matcher(found)


def _peak_bytes() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
