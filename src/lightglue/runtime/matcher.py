"""LightGlue in another runtime, behind the protocols of the package: dictionaries of torch tensors in and out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from threading import Lock
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightglue.errors import InputError
from lightglue.export.options import check_suits
from lightglue.matching.adaptive import confidence_threshold
from lightglue.matching.calibration import Calibration
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.inputs import both_images, pair_list, read_features, read_sizes, with_batch
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.overlap import Coefficients
from lightglue.runtime.files import digest_of, matcher_file
from lightglue.timing import span
from lightglue.types import Features, Matches
from lightglue_runtime.matcher import Matcher
from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.runtimes import find_runtime, session_options

__all__ = ["OnnxMatcher", "OpenVinoMatcher", "RuntimeMatcher"]

_OPENING = Lock()
_WORDS = {"f32": "float32", "bf16": "bfloat16 products", "int8": "int8 products"}


class RuntimeMatcher(nn.Module):
    """LightGlue in a runtime, for inference on the machine's CPU or by a provider of ONNX Runtime's.

    It takes and returns the dictionaries of `LightGlue` and goes wherever a matcher goes. The model is written when
    something is first matched, and kept in the cache folder; results go to the device that the features are on.

    Args:
        features, options: as `LightGlue` has them. `filter_threshold` may be changed in `.conf` at any time; another
            depth or width confidence has another model written.
        threads: to compute with; as many as torch uses for None. Pairs of a list are matched side by side.
        providers: of ONNX Runtime: cpu, cuda, tensorrt, coreml, directml or its own names, the best first.
        precision: of the model, "f32" or "int8".
        cache: whether OpenVINO keeps what it compiled.

    Raises InputError and WeightsError as `LightGlue`; ModelError where a runtime or provider is not installed.
    """

    runtime: ClassVar[str]
    features: ClassVar[dict[str, dict[str, Any]]] = LightGlue.features
    default_conf: ClassVar[dict[str, Any]] = LightGlue.default_conf
    required_data_keys: ClassVar[list[str]] = ["image0", "image1"]

    conf: SimpleNamespace
    feature_type: str | None
    licence: str | None
    overlap: Coefficients | None  # of the probability in `matches["overlap"]`
    calibration: Calibration | None  # from scores to probabilities
    pruning_keypoint_thresholds: MutableMapping[str, int]

    def __init__(
        self,
        features: str | None = "superpoint",
        *,
        threads: int | None = None,
        providers: Sequence[str] | str = (),
        precision: str = "f32",
        cache: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        find_runtime(self.runtime)  # before weights are fetched
        self._set_up(threads, providers, precision, cache)
        self._take(LightGlue(cast(Any, features), **options))

    @classmethod
    def of(cls, matcher: LightGlue, **settings: Any) -> RuntimeMatcher:
        """The same matcher, such as one of your own training, with its weights as they are now; settings: threads,
        providers, precision, cache."""
        made = cls._bare(**settings)
        made._take(matcher)
        return made

    @classmethod
    def open(cls, path: str | os.PathLike[str], **settings: Any) -> RuntimeMatcher:
        """The matcher of a file that `lightglue export` wrote; settings: threads, providers, cache. Raises ModelError.

        Its depth and width confidence are the file's; its filter threshold may be raised.
        """
        made = cls._bare(**settings)
        file = ModelFile.read(path)
        matcher = Matcher(file, made.runtime, made._options("f32"))
        numbers = {key: value for key, value in matcher.numbers.items() if key in LightGlueConfig.__annotations__}
        made.conf = SimpleNamespace(**dataclasses.asdict(LightGlueConfig(**numbers)))
        made.feature_type, made.licence = file.description.features, file.description.licence
        made.overlap, made.calibration = matcher.fitted, matcher.calibration
        made.pruning_keypoint_thresholds = {"cpu": int(matcher.numbers.get("pruning_min_keypoints", -1))}
        made.precision_of_file = file.description.precision
        made._opened, made._built = matcher, made._checked()
        return made

    @classmethod
    def _bare(
        cls,
        threads: int | None = None,
        providers: Sequence[str] | str = (),
        precision: str = "f32",
        cache: bool = True,
    ) -> RuntimeMatcher:
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        find_runtime(cls.runtime)
        made._set_up(threads, providers, precision, cache)
        return made

    def _set_up(self, threads: int | None, providers: Sequence[str] | str, precision: str, cache: bool) -> None:
        self.threads, self.providers, self.precision_of_file, self.cache = threads, providers, precision, cache
        self._opened: Matcher | None = None  # of a file
        self._source: list[LightGlue] = []  # at most one, in a list so that it is no module of this one
        self._made: dict[tuple[Any, ...], Matcher] = {}
        self._options("f32")  # checks them
        self.eval()

    def _take(self, matcher: LightGlue) -> None:
        check_suits(self.precision_of_file, matcher.feature_type)
        self._source = [matcher]
        self._digest = digest_of(matcher)
        self.conf, self.feature_type, self.licence = matcher.conf, matcher.feature_type, matcher.licence
        self.overlap, self.calibration = matcher.overlap, matcher.calibration
        self.pruning_keypoint_thresholds = matcher.pruning_keypoint_thresholds
        self._built = self._checked()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}  # for copies; a session cannot be copied

    # -- matching ------------------------------------------------------------------------------------------------

    def forward(self, data: Mapping[str, Any]) -> Matches:
        """Match `data["image0"]` with `data["image1"]`, as `LightGlue` does. Raises InputError."""
        config = self._checked()
        both = [
            self._images(features, name, config)
            for features, name in zip(both_images(data, type(self).__name__), ("image0", "image1"), strict=True)
        ]
        if len(both[0]) != len(both[1]) or not both[0]:
            raise InputError(
                f"image0 has a batch of {len(both[0])} and image1 of {len(both[1])}: they must be equal and at least 1"
            )
        found = self._match(list(zip(*both, strict=True)), config)
        return self._published(found, config, data["image0"]["keypoints"].device)

    def match(self, pairs: Iterable[tuple[Features, Features]]) -> list[Matches]:
        """Match any number of pairs, each with its own numbers of keypoints; see `LightGlue.match`.

        As many are matched at once as there are threads. Each result equals that of `forward` for that pair alone.

        Raises InputError.
        """
        config = self._checked()
        listed, devices = [], []
        for i, pair in enumerate(pair_list(pairs)):
            images = []
            for side, features in enumerate(pair):
                found = self._images(with_batch(features), f"pairs[{i}][{side}]", config)
                if len(found) != 1:
                    raise InputError(
                        f"pairs[{i}][{side}] holds a batch of {len(found)} images; match() takes one image at a time"
                    )
                images += found
            listed.append((images[0], images[1]))
            devices.append(pair[0]["keypoints"].device)
        results = self._match(listed, config)
        return [self._published([each], config, device) for each, device in zip(results, devices, strict=True)]

    def _images(self, data: Any, name: str, config: LightGlueConfig) -> list[dict[str, NDArray[Any]]]:
        """The B images of a features dictionary as NumPy arrays, checked as LightGlue does."""
        keypoints = data.get("keypoints") if isinstance(data, Mapping) else None
        device = keypoints.device if isinstance(keypoints, Tensor) else torch.device("cpu")
        with torch.no_grad():
            read_features(data, name, config, torch.zeros(0, device=device))
            keys = ("keypoints", "descriptors", *(("scales", "oris") if config.add_scale_ori else ()))
            arrays = {key: data[key].detach().float().cpu().numpy() for key in keys}
            arrays["image_size"] = read_sizes(data, name, data["keypoints"].float()).cpu().numpy()
        return [{key: value[i] for key, value in arrays.items()} for i in range(len(arrays["keypoints"]))]

    def _match(self, pairs: Sequence[tuple[Any, Any]], config: LightGlueConfig) -> list[dict[str, Any]]:
        with span("load the model"):
            matcher = self._matcher(config)
        with span(self.runtime, pairs=len(pairs)):
            if len(pairs) == 1:
                return [matcher.match(*pairs[0], filter_threshold=config.filter_threshold)]
            return matcher.match_many(pairs, filter_threshold=config.filter_threshold)

    def _published(self, found: Sequence[dict[str, Any]], config: LightGlueConfig, device: torch.device) -> Matches:
        """The published dictionary of one or several pairs with equal numbers of keypoints."""

        def stacked(key: str) -> Tensor:
            return torch.from_numpy(np.stack([each[key] for each in found])).to(device)

        names = ("matches0", "matches1", "matching_scores0", "matching_scores1")
        made: dict[str, Any] = {key: stacked(key) for key in names}
        for key in ("matches", "scores"):
            made[key] = [torch.from_numpy(each[key]).to(device) for each in found]
        stops = [int(each["stop"]) for each in found]
        made["stop"] = stops[0] if len(stops) == 1 else torch.tensor(stops, device=device)
        for key in ("prune0", "prune1"):
            layers = stacked(key)
            # As in the published package: where nothing is pruned, these are all layers, and no integers.
            made[key] = layers if config.width_confidence > 0 else torch.full_like(layers, config.n_layers).float()
        if "overlap" in found[0]:
            made["overlap"] = torch.tensor([each["overlap"] for each in found], dtype=torch.float32, device=device)
        return cast(Matches, made)

    # -- the model ---------------------------------------------------------------------------------------------------

    def _checked(self) -> LightGlueConfig:
        """The options as they stand in `.conf` now. Raises InputError, also for what needs another file."""
        if self._source:
            return self._source[0].checked_conf()
        names = [field.name for field in dataclasses.fields(LightGlueConfig)]
        config = LightGlueConfig(**{name: getattr(self.conf, name) for name in names})
        fixed = getattr(self, "_built", config)
        for name in names:
            if name not in ("filter_threshold", "mp", "flash") and getattr(config, name) != getattr(fixed, name):
                raise InputError(
                    f"conf.{name} is {getattr(config, name)!r} and the file was made with {getattr(fixed, name)!r}; "
                    "export another one with `lightglue export matcher`"
                )
        return config

    def _matcher(self, config: LightGlueConfig) -> Matcher:
        """The model for these options, opened when it is first needed."""
        if self._opened is not None:
            return self._opened
        matcher = self._source[0]
        kept = matcher.pruning_keypoint_thresholds["cpu"]
        precision = self._products(config)
        key = (config.depth_confidence, config.width_confidence, kept, precision)
        with _OPENING:  # threads that share this want one model
            if key not in self._made:
                file = matcher_file(matcher, self._digest, self.precision_of_file)
                self._made = {key: Matcher(file, self.runtime, self._options(precision))}  # the last one is kept
            return self._made[key]

    def _options(self, precision: str) -> Any:
        threads = torch.get_num_threads() if self.threads is None else self.threads
        return session_options(threads, 1, self.providers, precision, self.cache)

    def _products(self, config: LightGlueConfig) -> str:
        """The precision that the runtime is asked for, by option `mp`."""
        return "f32"

    @property
    def precision(self) -> str:
        """Of the products, in words."""
        made_for = self.precision_of_file
        return _WORDS.get(made_for, made_for) if made_for != "f32" else _WORDS[self._products(self._checked())]

    @property
    def confidence_thresholds(self) -> Tensor:
        """(n_layers,) the confidence from which on a token counts as sure after each layer."""
        layers = self.conf.n_layers
        return torch.tensor([confidence_threshold(i, layers) for i in range(layers)])

    def pruning_min_kpts(self, device: torch.device) -> int:
        """The number of keypoints up to which an image is not pruned, on any device."""
        return self.pruning_keypoint_thresholds["cpu"]


class OnnxMatcher(RuntimeMatcher):
    """LightGlue in ONNX Runtime, in float32: option `mp` changes nothing. See `RuntimeMatcher`."""

    runtime = "onnx"


class OpenVinoMatcher(RuntimeMatcher):
    """LightGlue in OpenVINO, on the CPU; with `mp` in bfloat16 where the CPU has it. See `RuntimeMatcher`."""

    runtime = "openvino"

    def _products(self, config: LightGlueConfig) -> str:
        from lightglue.support.precision import cpu_has_fast_bfloat16

        return "bf16" if config.mp and cpu_has_fast_bfloat16() and self.precision_of_file == "f32" else "f32"
