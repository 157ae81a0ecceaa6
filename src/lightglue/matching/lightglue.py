"""LightGlue as its users meet it: feature dictionaries in, match dictionaries out."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from lightglue import weights as weight_files
from lightglue.errors import InputError, WeightsError
from lightglue.matching import adaptive, checkpoint
from lightglue.matching.assignment import collate
from lightglue.matching.calibration import Calibration
from lightglue.matching.compiled import CompiledLayer, CompiledSteps, compile_layer
from lightglue.matching.config import PRESETS, PRUNING_THRESHOLDS, LightGlueConfig
from lightglue.matching.engine import EngineOptions, PairResult, match_packed
from lightglue.matching.folding import PLAIN_MODULES, fold_layers
from lightglue.matching.inputs import ImageKeypoints, pair_list, read_features, read_pairs, with_batch
from lightglue.matching.network import LearnableFourierPositionalEncoding, LightGlueNetwork
from lightglue.matching.overlap import COEFFICIENTS, Coefficients, overlap_probability
from lightglue.matching.steps import FoldedSteps, ImageTokens, ModuleSteps, Steps
from lightglue.options import build_config, nearest_name, warn_unknown
from lightglue.support.checks import check_int
from lightglue.support.derived import Derived, is_plain, wants_gradients
from lightglue.support.precision import product_dtype
from lightglue.timing import span
from lightglue.types import Features, Matches
from lightglue.weights.state_dicts import ToBeLoaded, check_tensors, load_strictly

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.matching.keywords import FeatureName, LightGlueKeywords

__all__ = ["LightGlue"]

# Rows of packed tokens that are matched at once: bounds the memory of a long list of pairs.
# A pair's result does not depend on its batch-mates, so neither does it on where a list is cut.
PACKED_ROWS = 65_536
PACKED_ROWS_CPU = 4_096  # so that a layer's rows stay in the cache

_SHAPE = ("input_dim", "descriptor_dim", "add_scale_ori", "n_layers", "num_heads")  # options that weights decide
_MODULES = ("input_proj", "posenc", "transformers", "log_assignment", "token_confidence")  # of `LightGlueNetwork`


class LightGlue(nn.Module):
    """Match the local features of two images.

    Drop-in for the published `lightglue.LightGlue` (cvg/LightGlue): same options, parameter names and dictionaries.

    >>> matcher = LightGlue(features="aliked").eval()
    >>> matches = matcher({"image0": features0, "image1": features1})  # doctest: +SKIP

    Args:
        features: feature type, one of `LightGlue.features`; its published weights are fetched and verified. None: the
            architecture is taken from the other options.
        weights: instead of the published file: a name in `lightglue weights list`, a path, or a state dict. Where there
            is no file at the path the published ones are taken, with a warning.
        commercial_only: refuse weights whose licence forbids commercial use.
        pruning: above how many keypoints an image is pruned: "published", that is `pruning_keypoint_thresholds` of
            the class, or "tuned", as measured to be fastest.
        conf: the fields of `LightGlueConfig`; an unknown one gives a warning.

    `.conf` holds the options; changing a threshold there takes effect at the next call.

    Gradients are recorded, where autograd is on, after `train()` or where keypoints or descriptors ask for them; a new
    matcher is in `eval` mode. Then, and where one of its modules has a hook or was replaced, its modules run as they
    stand, pair by pair: slower, with the same decisions, so that only the layers and the heads that a pair went
    through get a gradient. To train every layer take `network`.

    Raises:
        InputError: an option or a features dictionary is not valid.
        WeightsError: the weights are missing, altered or do not fit. There is no fallback to random weights.
    """

    default_conf: ClassVar[dict[str, Any]] = {"name": "lightglue", **dataclasses.asdict(LightGlueConfig())}
    features: ClassVar[dict[str, dict[str, Any]]] = {name: preset.as_options() for name, preset in PRESETS.items()}
    required_data_keys: ClassVar[list[str]] = ["image0", "image1"]
    version: ClassVar[str] = "v0.1_arxiv"
    url: ClassVar[str] = "https://github.com/cvg/LightGlue/releases/download/{}/{}_lightglue.pth"
    # Pruning costs a gather, so an image of this many keypoints or fewer is not pruned. Published values, which
    # users tune here for their hardware; what is set on an instance counts for that one alone.
    pruning_keypoint_thresholds: MutableMapping[str, int] = dict(PRUNING_THRESHOLDS["published"])  # noqa: RUF012

    # The modules of `network`, under its names.
    input_proj: nn.Module
    posenc: LearnableFourierPositionalEncoding
    transformers: nn.ModuleList
    log_assignment: nn.ModuleList
    token_confidence: nn.ModuleList
    confidence_thresholds: Tensor  # (n_layers,)
    overlap: Coefficients | None  # of the probability in `matches["overlap"]`
    calibration: Calibration | None  # from scores to probabilities

    def __init__(
        self,
        features: FeatureName | None = "superpoint",
        *,
        commercial_only: bool = False,
        pruning: str = "published",
        **conf: Unpack[LightGlueKeywords],
    ) -> None:
        options = self._options(features, dict(conf), commercial_only)
        subclass = type(self).default_conf.keys() - LightGlue.default_conf.keys()  # whose own options stand in `conf`
        known = {name: value for name, value in options.items() if name not in subclass}
        keywords = ("features", "commercial_only", "pruning")
        config = build_config("LightGlue", LightGlueConfig(), known, also_valid=keywords)
        thresholds = _pruning_thresholds(pruning)
        source = config.weights
        state, licence, fitted = _read_weights(source, features, commercial_only)

        super().__init__()
        with nullcontext() if state is None else ToBeLoaded():
            network = LightGlueNetwork(config)
        for name in _MODULES:
            self.add_module(name, getattr(network, name))
        self.register_buffer("confidence_thresholds", network.confidence_thresholds)
        if self._like.is_meta:
            raise InputError("LightGlue: build it outside of torch.device('meta'), which leaves it without weights")
        if state is None:
            warnings.warn(
                "LightGlue(features=None) without weights is untrained; load a state dict before matching",
                stacklevel=2,
            )
        else:
            state = checkpoint.adapt(state, config.n_layers)
            made_with = checkpoint.infer_architecture(state)
            hint = f"They were made with {made_with}." if made_with else ""
            complete = {**state, "confidence_thresholds": network.confidence_thresholds}
            load_strictly(network, complete, "this LightGlue", "" if isinstance(source, Mapping) else str(source), hint)
        self.feature_type = features
        self.licence = licence
        # What was fitted to the weights: what the file says, or what was fitted with the feature type's published ones.
        usual = checkpoint.Fitted(COEFFICIENTS.get(features or "")) if fitted is None else fitted
        self.overlap, self.calibration = usual.overlap, usual.calibration
        self._built = _without_weights(config)
        # Callers' own keywords stay readable, as in the published `conf`.
        named = {"weights": None if isinstance(source, Mapping) else source}
        self.conf = SimpleNamespace(**{**options, **dataclasses.asdict(self._built), **named})
        self.pruning_keypoint_thresholds = ChainMap(thresholds, type(self).pruning_keypoint_thresholds)
        self._compiled: CompiledLayer | None = None
        self._folded = Derived(fold_layers)
        self.eval()  # gradients are recorded from `train` on

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}  # for copies and torch.save

    @classmethod
    def _options(cls, features: Any, conf: dict[str, Any], commercial_only: bool) -> dict[str, Any]:
        """All options: what `conf` says over the defaults of the features, and what the features fix over all."""
        fixed = cls._preset(features)
        default = PRESETS[features].defaults() if features in PRESETS else {}
        if cls.default_conf.keys() <= conf.keys():  # callers who hand all defaults back mean none of them
            conf = {k: v for k, v in conf.items() if k not in cls.default_conf or v != cls.default_conf[k]}
        source = conf.get("weights")
        if _absent(source) and "weights" in fixed:
            warnings.warn(
                f"LightGlue: there is no file {source}; it takes the published weights for {features}", stacklevel=3
            )
            source = None
        if source is None and "weights" in fixed:
            source = weight_files.resolve_or_own(fixed["weights"], commercial_only=commercial_only)
        described = _described_shape(source)
        fixed = {k: v for k, v in fixed.items() if k not in described}
        return {**cls.default_conf, **default, **described, **conf, **fixed, "weights": source}

    @classmethod
    def _preset(cls, features: Any) -> dict[str, Any]:
        """The options that a feature type sets; none for None."""
        if features is None:
            return {}
        if not isinstance(features, str) or features not in cls.features:
            nearest = nearest_name(str(features), cls.features)
            hint = f"did you mean {nearest!r}? " if nearest else ""
            raise InputError(f"LightGlue: unknown features {features!r}; {hint}valid names: {', '.join(cls.features)}")
        return dict(cls.features[features])

    @property
    def network(self) -> LightGlueNetwork:
        """The differentiable network, tensors in and tensors out, of this matcher's own modules: trained, both are."""
        network = LightGlueNetwork.__new__(LightGlueNetwork)
        nn.Module.__init__(network)
        network._modules = {name: self._modules[name] for name in _MODULES}  # not what users add beside them
        network._buffers, network.training = self._buffers, self.training
        return network

    def reference(self, positions0: Tensor, positions1: Tensor, descriptors0: Tensor, descriptors1: Tensor) -> Tensor:
        """See `LightGlueNetwork.reference`."""
        return self.network.reference(positions0, positions1, descriptors0, descriptors1)

    @property
    def _like(self) -> Tensor:
        """A parameter, for the device and the dtype of all."""
        return self.posenc.Wr.weight

    # -- matching ------------------------------------------------------------------------------------------------

    def forward(self, data: Mapping[str, Any]) -> Matches:
        """Match `data["image0"]` with `data["image1"]`.

        Each is a dictionary of B images with `keypoints` (B, N, 2) in px, `descriptors` (B, N, D), `image_size`
        (B, 2) = (w, h) or `image` (B, C, H, W), and for SIFT-like features `scales` and `oris` (B, N). Without a
        size, the keypoints' extent stands for it.

        Returns the published dictionary, see `lightglue.types.Matches`. Each of B pairs is matched as if it were
        alone; `stop` is an int for one pair and a (B,) tensor for several. Where it was fitted it also holds
        `overlap`, (B,) float32: the probability that the two images see the same thing. Coefficients are the weight
        file's own, in `.overlap`; for files without any, those of the published weights of aliked, disk and xfeat.

        Raises InputError.
        """
        config = self.checked_conf()
        with span("match"):
            return self._collate(self._match(read_pairs(data, "LightGlue", config, self._like), config))

    def match(self, pairs: Iterable[tuple[Features, Features]], *, layers: int | None = None) -> list[Matches]:
        """Match any number of pairs at once, each with its own numbers of keypoints.

        Each pair is two feature dictionaries, with a batch dimension of 1 (as `extract` returns) or none. Where
        the same arrays are in several pairs of a list, they are read and projected once.

        layers: stop after so many at the latest, with the matches that the head of that layer finds; None: all.

        Returns one published dictionary a pair, batch size 1, equal to what `forward` gives for that pair alone.

        Raises InputError.
        """
        config = self.checked_conf()
        if layers is not None:
            check_int("LightGlue: layers", layers, 1, "None or a positive integer")
        listed = isinstance(pairs, Sequence)  # anything else may write one pair over the last
        known: dict[tuple[int, ...], tuple[Any, ImageKeypoints]] = {}
        images = []
        for i, pair in enumerate(pair_list(pairs)):
            for side, features in enumerate(pair):
                name = f"pairs[{i}][{side}]"
                if not listed:
                    image = self._single(features, name, config)
                    images.append(dataclasses.replace(image, descriptors=image.descriptors.clone()))
                    continue
                arrays = _arrays(features)
                key = tuple(id(array) for array in arrays)
                if key not in known:  # the arrays are held, so that their ids stay theirs
                    known[key] = arrays, self._single(features, name, config)
                images.append(known[key][1])
        chosen = list(zip(images[::2], images[1::2], strict=True))
        return [self._collate([result]) for result in self._match(chosen, config, layers)]

    def _single(self, features: Any, name: str, config: LightGlueConfig) -> ImageKeypoints:
        """The one image of a features dictionary with or without a batch dimension."""
        images = read_features(with_batch(features), name, config, self._like)
        if len(images) != 1:
            raise InputError(f"{name} holds a batch of {len(images)} images; match() takes one image at a time")
        return images[0]

    def _match(
        self, pairs: list[tuple[ImageKeypoints, ImageKeypoints]], config: LightGlueConfig, depth: int | None = None
    ) -> list[PairResult]:
        device, own = self._like.device, self._like.dtype
        if own not in (torch.float32, torch.float64):
            raise InputError(f"LightGlue's parameters are {own}; keep them float32 and use mp=True")
        least = self.pruning_min_kpts(device)
        options = EngineOptions(config.depth_confidence, config.width_confidence, config.filter_threshold, least, depth)
        reduced = product_dtype(device, config.mp)
        inputs = [t for pair in pairs for image in pair for t in (image.positions, image.descriptors)]
        # `_like` too, as the copies that nn.DataParallel makes have no parameters.
        wanted = wants_gradients(inputs, (*self.parameters(), self._like) if self.training else ())
        # `mp` alone decides the precision, whatever autocast the caller is in.
        with torch.set_grad_enabled(wanted), torch.autocast(device.type, enabled=False):
            network, plain = self.network, ModuleSteps(self.network, reduced)
            parameters = list(network.transformers.parameters())  # none in the copies that nn.DataParallel makes
            if wanted or not parameters or not is_plain(network, PLAIN_MODULES):
                return self._match_all(pairs, plain, None, options)
            half = config.flash and device.type == "cuda"  # FlashAttention takes no float32
            layers = self._folded.of(network, parameters, reduced or own)
            folded = FoldedSteps(network, layers, torch.float16 if half else reduced or own)
            compiled = CompiledSteps(network, reduced, self._compiled) if self._compiled else None
            return self._match_all(pairs, folded, compiled, options)

    def _match_all(
        self,
        pairs: list[tuple[ImageKeypoints, ImageKeypoints]],
        steps: Steps,
        compiled: CompiledSteps | None,
        options: EngineOptions,
    ) -> list[PairResult]:
        """Chunk by chunk, in order; in each, the pairs that fit a compiled length one by one, all others packed."""
        known: dict[int, ImageTokens] = {}
        results = []
        for chunk in _chunks(pairs, self._like.device):
            # An image that is in several pairs is embedded once, and kept while it goes on being used.
            images = {id(image): image for pair in chunk for image in pair}
            with span("embed", images=len(images)):
                known = {key: known.get(key) or steps.embed(image) for key, image in images.items()}
            embedded = [(known[id(image0)], known[id(image1)]) for image0, image1 in chunk]
            results += _match_chunk(embedded, steps, compiled, options)
        return results

    def _collate(self, results: Sequence[PairResult]) -> Matches:
        """The published dictionary of one or several pairs with equal numbers of keypoints, and the overlap."""
        stops = [result.stop for result in results]
        published = {
            **collate([result.assignment for result in results]),
            "stop": stops[0] if len(stops) == 1 else torch.tensor(stops, device=results[0].prune0.device),
            "prune0": torch.stack([result.prune0 for result in results]),
            "prune1": torch.stack([result.prune1 for result in results]),
        }
        matches = cast(Matches, published)
        if self.overlap is not None:
            found = [result.assignment for result in results]
            overlaps = [overlap_probability(f.scores0, len(f.scores0), len(f.scores1), self.overlap) for f in found]
            matches["overlap"] = torch.stack(overlaps)
        return matches

    # -- options -------------------------------------------------------------------------------------------------

    def checked_conf(self) -> LightGlueConfig:
        """The options as they stand in `.conf` now, checked; the architecture is as it was built."""
        names = [f.name for f in dataclasses.fields(LightGlueConfig)]
        config = LightGlueConfig(**{name: getattr(self.conf, name) for name in names})
        for name in _SHAPE:
            if (asked := getattr(config, name)) != (built := getattr(self._built, name)):
                raise InputError(
                    f"LightGlue: conf.{name} is {asked!r}, but the network was built with {built!r}; "
                    f"build another with LightGlue(..., {name}={asked!r})"
                )
        return config

    def pruning_min_kpts(self, device: torch.device) -> int:
        """The number of keypoints up to which an image is not pruned on `device`."""
        thresholds = self.pruning_keypoint_thresholds
        if device.type == "cuda" and self.conf.flash:
            return thresholds["flash"]
        return thresholds[device.type if device.type in thresholds else "cuda"]

    # -- under their published names: what code asks for that runs the layers itself ------------------------------

    def confidence_threshold(self, layer_index: int) -> float:
        """The confidence from which on a token counts as sure after this layer (0-based)."""
        return adaptive.confidence_threshold(layer_index, self._built.n_layers)

    def check_if_stop(self, confidences0: Tensor, confidences1: Tensor, layer_index: int, num_points: int) -> Tensor:
        """() bool: whether a pair is done after this layer, with confidences (B, M) and (B, N) of num_points tokens."""
        confidences = torch.cat((confidences0, confidences1), -1)
        unsure = (confidences < self.confidence_thresholds[layer_index]).float().sum()
        stops: Tensor = 1.0 - unsure / num_points > self.conf.depth_confidence
        return stops

    def get_pruning_mask(self, confidences: Tensor | None, scores: Tensor, layer_index: int) -> Tensor:
        """(B, N) bool: which tokens stay, by their confidences and matchabilities (B, N) after this layer."""
        threshold = self.confidence_thresholds[layer_index]
        return adaptive.keep_mask(scores, confidences, threshold, self.conf.width_confidence)

    def compile(
        self, mode: str = "reduce-overhead", static_lengths: Sequence[int] = (256, 512, 768, 1024, 1280, 1536)
    ) -> None:
        """Run the layers through torch.compile, for pairs whose images both fit the longest of `static_lengths`.

        On CUDA the images of a pair are padded to the next of these lengths, elsewhere the shorter to the longer one.
        As in the published code, such pairs are stopped early but not pruned; others take the ordinary path.

        mode: "default", "reduce-overhead" (CUDA graphs), "max-autotune" or "max-autotune-no-cudagraphs".

        Code is built when it is first needed, in some 10 s, for two cases: pairs with and without padding. On a CPU it
        saves no time and loses what pruning saves. Copies of the matcher are not compiled.

        Raises InputError; LightGlueError, here or at a match, where torch cannot compile.
        """
        lengths = list(static_lengths)
        if not lengths or not all(isinstance(n, int) and n > 0 for n in lengths):
            raise InputError(f"compile: static_lengths must be positive integers, not {static_lengths!r}")
        self._compiled = compile_layer(mode, lengths)

    @property
    def static_lengths(self) -> list[int] | None:
        """The lengths that `compile` was called with; None before."""
        return None if self._compiled is None else list(self._compiled.static_lengths)

    # -- files ---------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with the weights, the options, the feature type and the licence.

        `LightGlue.load(path)` builds the same matcher from it. Raises WeightsError; an existing file is replaced
        only once the new one is whole.
        """
        path = _as_path(path)
        if path.suffix != ".safetensors":
            raise WeightsError(f"{path}: the file's name must end in .safetensors")
        config, fitted = _without_weights(self.checked_conf()), checkpoint.Fitted(self.overlap, self.calibration)
        checkpoint.save(path, self, config, self.feature_type, self.licence, fitted=fitted)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **conf: Unpack[LightGlueKeywords]) -> LightGlue:
        """The matcher that `save` wrote to `path`, with the options in `conf` changed. Raises WeightsError."""
        path = _as_path(path)
        if fixed := {"features", "weights"} & conf.keys():
            raise InputError(f"LightGlue.load: {' and '.join(sorted(fixed))} cannot be given; the file says what it is")
        description = checkpoint.read_description(path)
        if description is None:
            raise WeightsError(
                f"{path} is not a file that LightGlue.save() wrote; for a bare state dict use LightGlue(weights=...)"
            )
        valid = {f.name for f in dataclasses.fields(LightGlueConfig)}
        options = {k: v for k, v in description.config.items() if k in valid}
        warn_unknown(str(path), description.config.keys() - valid, valid)
        return cls(features=cast("FeatureName | None", description.features), **{**options, **conf, "weights": path})


def _read_weights(
    source: Any, features: str | None, commercial_only: bool
) -> tuple[dict[str, Tensor] | None, str | None, checkpoint.Fitted | None]:
    """The state dict that `weights` names (None for none), its licence and what was fitted to it, as far as known."""
    if source is None:
        return None, None, None
    if isinstance(source, Mapping):
        return check_tensors(source, "the given state dict"), None, None
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"LightGlue: weights must be a name, a path or a state dict, not {type(source).__name__}")
    state = weight_files.load_state_dict(source, commercial_only=commercial_only)
    file = weight_files.FILES.get(str(source))
    if file is not None:
        return state, file.licence, None
    description = checkpoint.read_description(_path_of(source))
    if description is None:
        return state, None, None
    if features is not None and description.features not in (None, features):
        raise WeightsError(
            f"{source} was trained for features={description.features!r}, not {features!r}; use LightGlue.load() or "
            f"LightGlue(features={description.features!r}, weights=...)"
        )
    return state, description.licence, description.fitted


def _described_shape(weights: Any) -> dict[str, Any]:
    """The shape of the network in a self-describing file; nothing for other weights."""
    if not isinstance(weights, (str, os.PathLike)) or str(weights) in weight_files.FILES:
        return {}
    description = checkpoint.read_description(_path_of(weights))
    return {} if description is None else {k: v for k, v in description.config.items() if k in _SHAPE}


def _path_of(weights: str | os.PathLike[str]) -> Path:
    """Where a file is that is no published one: of this package, by its name, or the user's."""
    return weight_files.resolve(weights) if str(weights) in weight_files.OWN else Path(weights).expanduser()


def _absent(weights: Any) -> bool:
    """Whether `weights` is the path of a file that is not there. A misspelt name of weights is not."""
    if not isinstance(weights, (str, os.PathLike)) or str(weights) in {**weight_files.FILES, **weight_files.OWN}:
        return False
    path = Path(weights).expanduser()
    return (not isinstance(weights, str) or bool(path.suffix) or len(path.parts) > 1) and not path.exists()


def _pruning_thresholds(name: str) -> dict[str, int]:
    """What the preset called `name` sets on an instance; the published values stay those of the class."""
    if not isinstance(name, str) or name not in PRUNING_THRESHOLDS:
        raise InputError(f"LightGlue: pruning is {name!r}; choose one of {', '.join(PRUNING_THRESHOLDS)}")
    return {} if name == "published" else dict(PRUNING_THRESHOLDS[name])


def _arrays(features: Any) -> tuple[Any, ...]:
    """What the matcher reads of a features dictionary: the very same objects where an image is in several pairs."""
    if not isinstance(features, Mapping):
        return (features,)
    names = ("keypoints", "descriptors", "image_size", "image", "scales", "oris")
    return tuple(features.get(name) for name in names)


def _as_path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"LightGlue: the path of a file must be a string or a Path, not {type(path).__name__}")
    return Path(path).expanduser()


def _without_weights(config: LightGlueConfig) -> LightGlueConfig:
    return dataclasses.replace(config, weights=None)


def _chunks(
    pairs: Sequence[tuple[ImageKeypoints, ImageKeypoints]], device: torch.device
) -> list[list[tuple[ImageKeypoints, ImageKeypoints]]]:
    """Cut a list of pairs into runs of a bounded number of keypoints (a longer pair stands alone)."""
    limit = PACKED_ROWS_CPU if device.type == "cpu" else PACKED_ROWS
    chunks: list[list[tuple[ImageKeypoints, ImageKeypoints]]] = []
    rows = limit
    for pair in pairs:
        size = sum(len(image.positions) for image in pair)
        if not chunks or rows + size > limit:
            chunks.append([])
            rows = 0
        chunks[-1].append(pair)
        rows += size
    return chunks


def _match_chunk(
    pairs: list[tuple[ImageTokens, ImageTokens]], steps: Steps, compiled: CompiledSteps | None, options: EngineOptions
) -> list[PairResult]:
    """Those that fit a compiled length one by one and, as in the published code, without pruning; others packed."""
    padded = [compiled is not None and compiled.fits(pair) for pair in pairs]
    rest = [pair for pair, is_padded in zip(pairs, padded, strict=True) if not is_padded]
    packed = iter(match_packed(steps, rest, options) if rest else [])
    unpruned = dataclasses.replace(options, width_confidence=-1)
    return [
        match_packed(compiled, [pair], unpruned)[0] if compiled and is_padded else next(packed)
        for pair, is_padded in zip(pairs, padded, strict=True)
    ]
