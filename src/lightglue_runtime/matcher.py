"""The matcher of a model file: two images' features to matches, under the published names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.calibration import Calibration
from lightglue_runtime.checks import check_int, is_real
from lightglue_runtime.contract import MATCHER_INPUTS
from lightglue_runtime.errors import InputError, ModelError
from lightglue_runtime.features import read_features
from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.overlap import Coefficients, overlap_probability
from lightglue_runtime.runtimes import find_runtime, open_session, session_options
from lightglue_runtime.session import Session, SessionOptions

__all__ = ["Matcher"]

_OUTPUTS = {"matches0": "", "mscores0": ""}  # that every form of a matcher has, unless it is for other programs
_SIFT_LIKE = ("scales", "oris")
Fitted = TypeVar("Fitted")


def _read_as(kind: type[Fitted], file: ModelFile, field: str) -> Fitted | None:
    """What a file says was fitted; None where nothing was. Raises ModelError."""
    values = json.loads(getattr(file.description, field))
    try:
        return None if values is None else kind(**values)
    except (TypeError, InputError) as error:
        raise ModelError(f"{file.path} has damaged metadata ({field}: {error}); export or copy it again.") from error


class Matcher:
    """Matches features with a file of `lightglue export matcher`. Threads may share it.

    >>> matcher = Matcher.open("aliked.onnx")  # doctest: +SKIP
    >>> matches = matcher.match(features0, features1)  # doctest: +SKIP

    The runtime opens the file when something is first matched: once for single pairs, which get all threads, and once
    for many at a time, which share them.
    """

    def __init__(self, file: ModelFile, runtime: str, options: SessionOptions) -> None:
        file.check("matcher", MATCHER_INPUTS, _OUTPUTS)
        self.file, self.runtime, self.options = file, runtime, options
        self.features = file.description.features
        self.numbers = file.description.numbers()
        self.n_layers = int(self.numbers.get("n_layers", 9))
        shape = file.inputs["desc0"]
        self.length = shape[2] if len(shape) == 3 and isinstance(shape[2], int) and shape[2] > 0 else None
        self._also = [key for key in _SIFT_LIKE if f"{key}0" in file.inputs]
        self.fitted = _read_as(Coefficients, file, "overlap")
        self.calibration = _read_as(Calibration, file, "calibration")  # from scores to probabilities
        self._is_adaptive = "stop" in file.outputs
        self._sessions: dict[int, Session] = {}
        self._opening = Lock()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        runtime: str | None = None,
        *,
        threads: int | None = None,
        providers: Sequence[str] | str = (),
        precision: str = "f32",
        cache: str | os.PathLike[str] | bool = True,
    ) -> Matcher:
        """The matcher of a file.

        Args:
            path: the file.
            runtime: "onnx" or "openvino"; None for the first of these that is installed.
            threads: to compute with; None for `OMP_NUM_THREADS`, else for as many as there are cores.
            providers: of ONNX Runtime: cpu, cuda, tensorrt, coreml, directml or its own names, the best first.
            precision: of products, where the runtime can choose: f32, or bf16 and f16 in OpenVINO on CPUs that have it.
            cache: the folder where OpenVINO keeps what it compiled, by file and version; True for the package's,
                False for none.

        Raises ModelError for a file that does not fit or a runtime that is not there; InputError.
        """
        options = session_options(threads, 1, providers, precision, cache)
        return cls(ModelFile.read(path), find_runtime(runtime), options)

    def match(self, features0: Any, features1: Any, filter_threshold: float | None = None) -> dict[str, Any]:
        """Match two images.

        Args:
            features0, features1: NumPy arrays keypoints (N, 2) px, descriptors (N, D), image_size (2,) and, where
                they are SIFT-like, scales and oris (N,); also with a batch dimension of 1.
            filter_threshold: drop matches that score no more; by default, and at least, the file's.

        Returns:
            matches0 (M,), matches1 (N,) int64, index into the other image or -1; matching_scores0 (M,),
            matching_scores1 (N,) float32, 0 where there is no mutual partner; matches (K, 2) int64, scores (K,)
            float32; stop, the number of layers run; prune0 (M,), prune1 (N,), the layers that each keypoint went
            through; overlap, the probability that both show the same thing, where it was fitted.

        Raises InputError for features that make no sense; ModelError, MemoryError.
        """
        names = [("features0", "features1")]
        return self._match_all([(features0, features1)], names, 1, filter_threshold)[0]

    def match_many(
        self,
        pairs: Iterable[tuple[Any, Any]],
        requests: int | None = None,
        filter_threshold: float | None = None,
    ) -> list[dict[str, Any]]:
        """Match pairs of any numbers of keypoints, several at once; each result is as `match` gives it.

        requests: how many at once in ONNX Runtime, by default one a thread; they share the threads. OpenVINO takes one
            after another, each with all threads.
        """
        listed = []
        for i, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InputError(f"match_many takes pairs (features0, features1); item {i} is {type(pair).__name__}")
            listed.append((pair[0], pair[1]))
        if requests is not None:
            check_int("requests", requests, 1, "a number of at least 1")
        requests = min(requests or self.options.threads, self.options.threads)
        names = [(f"pairs[{i}][0]", f"pairs[{i}][1]") for i in range(len(listed))]
        return self._match_all(listed, names, requests, filter_threshold)

    def _match_all(
        self,
        pairs: Sequence[tuple[Any, Any]],
        names: Sequence[tuple[str, str]],
        requests: int,
        filter_threshold: float | None,
    ) -> list[dict[str, Any]]:
        threshold = self._threshold(filter_threshold)
        inputs = []
        for two, both in zip(pairs, names, strict=True):
            arrays: dict[str, NDArray[Any]] = {}
            for side in (0, 1):
                arrays |= read_features(two[side], both[side], side, self.features, self.length, self._also)
            inputs.append(arrays)
        full = [i for i, each in enumerate(inputs) if min(each["kpts0"].shape[1], each["kpts1"].shape[1])]
        outputs = self.session(requests).run_many([inputs[i] for i in full]) if full else []
        found = dict(zip(full, outputs, strict=True))
        return [self._published(found.get(i), each, threshold) for i, each in enumerate(inputs)]

    def _threshold(self, asked: float | None) -> float:
        own = float(self.numbers.get("filter_threshold", 0))
        if asked is None:
            return own
        if not is_real(asked):
            raise InputError(f"filter_threshold is {asked!r}; give a number from 0 to 1.")
        if asked < own and own > 0:  # what scores less has left no trace in the file's results
            raise InputError(
                f"filter_threshold is {asked:g} and {self.file.path} drops what scores no more than {own:g}; export it "
                "with a lower one"
            )
        return float(asked)

    def session(self, requests: int = 1) -> Session:
        """What computes so many calls at once, opened when it is first asked for. Raises ModelError."""
        requests = requests if self.runtime == "onnx" else 1  # see `with_openvino`
        with self._opening:
            if requests not in self._sessions:
                options = replace(self.options, requests=requests)
                self._sessions[requests] = open_session(self.file, self.runtime, options)
            return self._sessions[requests]

    def _published(
        self, outputs: dict[str, NDArray[Any]] | None, inputs: dict[str, NDArray[Any]], threshold: float
    ) -> dict[str, Any]:
        """The published entries of a pair; outputs: None where an image has no keypoints."""
        m, n = inputs["kpts0"].shape[1], inputs["kpts1"].shape[1]
        if outputs is None:  # as in torch: nothing is left to do in the first layer
            matches0, scores0 = np.full(m, -1, np.int64), np.zeros(m, np.float32)
            stop = 1
            layers = [np.ones(count, np.int64) for count in (m, n)]
        else:
            matches0, scores0 = outputs["matches0"].reshape(m), outputs["mscores0"].reshape(m)
            stop = int(outputs["stop"]) if self._is_adaptive else self.n_layers
            layers = [
                outputs[key] if key in outputs else np.full(count, float(self.n_layers), np.float32)
                for key, count in (("prune0", m), ("prune1", n))
            ]
        if not np.isfinite(scores0).all():
            raise InputError("the descriptors are so large that their products overflow; give L2-normalised ones")
        rows = np.flatnonzero(matches0 >= 0)
        partners = matches0[rows]
        if len(rows) and not (partners.min() >= 0 and partners.max() < n):
            raise ModelError(f"{self.file.path} gives matches with keypoints that there are not; export it again.")
        matches1, scores1 = np.full(n, -1, np.int64), np.zeros(n, np.float32)
        scores1[partners] = scores0[rows]
        kept = scores0[rows] > threshold
        rows, partners = rows[kept], partners[kept]
        matches0 = np.full(m, -1, np.int64)
        matches0[rows], matches1[partners] = partners, rows
        found: dict[str, Any] = {
            "matches0": matches0,
            "matches1": matches1,
            "matching_scores0": scores0,
            "matching_scores1": scores1,
            "matches": np.stack((rows, partners), -1),
            "scores": scores0[rows],
            "stop": stop,
            "prune0": layers[0],
            "prune1": layers[1],
        }
        if self.fitted is not None:
            found["overlap"] = overlap_probability(scores0, m, n, self.fitted)
        return found
