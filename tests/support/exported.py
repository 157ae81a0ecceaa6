"""Models that `lightglue.export` wrote, once a session, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightglue.export import (
    ExtractorFile,
    ExtractorSource,
    MatcherFile,
    load_extractor,
    write_extractor,
    write_matcher,
)
from lightglue.extractors.base import Extractor
from lightglue.matching.lightglue import LightGlue

Features = Mapping[str, torch.Tensor]


class Exported:
    """Matchers, extractors and their files, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._matchers: dict[tuple[Any, ...], LightGlue] = {}
        self._sessions: dict[Path, Any] = {}
        self._files: dict[tuple[Any, ...], Path] = {}
        self._extractors: dict[tuple[str, str | None], Extractor] = {}

    def matcher(self, features: str, **conf: Any) -> LightGlue:
        """The torch matcher that a file is written of: with the tuned numbers of keypoints for pruning."""
        key = features, *sorted(conf.items())
        if key not in self._matchers:
            self._matchers[key] = LightGlue(features=features, pruning="tuned", **conf).eval()
        return self._matchers[key]

    def file(self, features: str, format: str = "adaptive", precision: str = "f32", **conf: Any) -> Path:
        """The file, or the folder, of a published matcher."""
        key = features, format, precision, *sorted(conf.items())
        if key not in self._files:
            path = self.folder / f"{features}_{format}_{precision}_{len(self._files)}"
            path = path if format == "steps" else path.with_suffix(".onnx")
            write_matcher(self.matcher(features, **conf), path, MatcherFile(format, precision))
            self._files[key] = path
        return self._files[key]

    def session(self, features: str, format: str = "adaptive", **conf: Any) -> Any:
        """A published matcher's file, opened once in ONNX Runtime."""
        path = self.file(features, format, **conf)
        if path not in self._sessions:
            self._sessions[path] = session(path)
        return self._sessions[path]

    def extractor(self, features: str, model: str | None = None) -> Extractor:
        """The torch extractor that a file is written of."""
        key = features, model
        if key not in self._extractors:
            self._extractors[key] = load_extractor(ExtractorSource(features, model))
        return self._extractors[key]

    def extractor_file(self, features: str, format: str = "ours", model: str | None = None) -> Path:
        """The file of a published extractor."""
        key = "extractor", features, format, model
        if key not in self._files:
            path = self.folder / f"extractor_{len(self._files)}.onnx"
            write_extractor(self.extractor(features, model), path, ExtractorFile(format))
            self._files[key] = path
        return self._files[key]


def session(path: Path) -> Any:
    """A session of ONNX Runtime on one thread that warns of nothing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


NAMES = {"kpts": "keypoints", "desc": "descriptors", "image_size": "image_size", "scales": "scales", "oris": "oris"}


def feed(image0: Features, image1: Features) -> dict[str, np.ndarray]:
    """The inputs of a matcher's file, from two dictionaries of features with a batch dimension."""
    return {
        f"{name}{side}": image[key].numpy().astype(np.float32)
        for side, image in enumerate((image0, image1))
        for name, key in NAMES.items()
        if key in image
    }


def run(session: Any, image0: Features, image1: Features) -> dict[str, np.ndarray]:
    """The outputs of a file by name."""
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, feed(image0, image1)), strict=True))


Runner = Callable[[Features, Features], dict[str, np.ndarray]]
