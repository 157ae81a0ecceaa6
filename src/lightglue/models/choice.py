"""Which extractor and matcher to use, by name and numbers: what commands take and evaluations record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lightglue.errors import InputError, WeightsError
from lightglue.matching.config import PRESETS
from lightglue.matching.effort import Effort, check_effort
from lightglue.models.own_weights import OwnWeights, own_weights
from lightglue.models.registry import FEATURES, WITH_OVERLAP, default_mp, feature_type
from lightglue.options import option
from lightglue.runtime.backends import BACKENDS, TIMES, Chosen, choose, this_machine
from lightglue.support.checks import check_choice
from lightglue.support.parsers import DEVICES, device, integer, share
from lightglue.weights.stand_in import resolve_or_own, stands_in, without_fetching

if TYPE_CHECKING:
    import torch

__all__ = ["MATCHERS", "PRUNING", "Models", "Thresholds"]

MATCHERS = ("lightglue", "nearest")
_PROVIDERS = {"cpu": "cpu", "cuda": "cuda"}  # type of device -> ONNX Runtime's provider
PRUNING = "tuned"  # preset of the numbers of keypoints up to which an image is not pruned


def _parse_confidence(text: str) -> float:
    try:
        return -1.0 if text in ("-1", "-1.0") else share(text)
    except InputError:
        raise InputError(f"'{text}' is neither a number from 0 to 1 nor -1 for off.") from None


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of LightGlue; None for the default of the feature type."""

    filter_threshold: float | None = option(
        None, "Drop matches that score no more than this; 0.1 by default.", group="Matching", parse=share
    )
    depth_confidence: float | None = option(
        None,
        "Lower stops after fewer layers, -1: never. 0.95 by default; never for xfeat.",
        group="Matching",
        metavar="X",
        parse=_parse_confidence,
    )
    width_confidence: float | None = option(
        None,
        "Lower prunes more keypoints, -1: none. 0.99 by default, 0.95 for xfeat.",
        group="Matching",
        metavar="X",
        parse=_parse_confidence,
    )

    n_layers: int | None = option(
        None,
        "Keep the first N layers alone: faster, less exact. 9 by default, 6 for xfeat.",
        flag="--layers",
        group="Matching",
        parse=integer("a number of layers from 1 to 1000", 1, 1_000),
    )

    def given(self) -> dict[str, float]:
        """Those that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Models:
    """What to match with. Importing this loads no torch. Raises InputError for features or a matcher unknown."""

    features: str = option("aliked", "Kind of keypoints.", group="Features", choices=tuple(FEATURES))
    max_keypoints: int = option(
        2048,
        "The N best keypoints of each image.",
        group="Features",
        parse=integer("a number of keypoints from 1 to 1000000"),
    )
    device: str = option("auto", "Where to compute.", group="Machine", choices=DEVICES, parse=device)
    mp: bool | None = option(None, "Reduced precision; by default where it is fast.", group="Machine")
    commercial_only: bool = option(False, "Only weights whose licence allows commercial use.", group="Machine")
    thresholds: Mapping[str, Any] = field(default_factory=dict)  # of the matcher; others are as the feature type has it
    matcher: str = option(
        "lightglue", "nearest: mutual nearest neighbours, no network.", group="Matching", choices=MATCHERS
    )
    extractor: Mapping[str, Any] = field(default_factory=dict)  # options of the extractor, over the registry's
    backend: str = option(
        "torch", "What LightGlue computes in; auto: what is fastest here.", group="Machine", choices=BACKENDS
    )
    effort: Effort = option(
        "normal", "fast: many times as fast on easy pairs; hard: tries on where little is found.", group="Matching"
    )
    weights: str | None = option(None, "LightGlue's, of your own training.", group="Matching", metavar="FILE")

    def __post_init__(self) -> None:
        feature_type(self.features)
        check_choice("matcher", self.matcher, MATCHERS)
        check_choice("backend", self.backend, BACKENDS)
        check_effort(self.effort)
        if self.matcher != "lightglue" and self.backend not in ("torch", "auto"):
            raise InputError(
                f"backend is {self.backend!r}, which is for LightGlue: the matcher {self.matcher} computes in torch; "
                "leave the backend out."
            )
        if self.matcher != "lightglue" and self.effort != "normal":
            raise InputError(
                f"effort is {self.effort!r}, which is for LightGlue; with the matcher {self.matcher} leave it out."
            )
        if self.matcher != "lightglue" and self.weights is not None:
            raise InputError(f"weights are for LightGlue; with the matcher {self.matcher} leave them out.")

    @property
    def own(self) -> OwnWeights | None:
        """What the file `weights` says of itself, or the one of this package that stands in for published weights which
        cannot be had; None for published ones.

        Raises WeightsError where there is no such file, or where it is for other features.
        """
        weights = self.weights if self.weights is not None else self._stand_in()
        if weights is None:
            return None
        found, row = own_weights(weights), feature_type(self.features)
        if found.trained_on is not None:
            raise WeightsError(
                f"{found.path} was trained on {found.trained_on}, and the features are {self.features}; use it in "
                "Python, by LightGlue.load()."
            )
        published = next((name for name, preset in PRESETS.items() if preset.weights == weights), None)
        if (is_for := found.features or published) not in (None, row.matcher):
            others = [name for name, each in FEATURES.items() if each.matcher == is_for]
            raise WeightsError(
                f"{found.path} is for the features {' or '.join(others) or is_for}, not {self.features}; "
                "choose these, or other weights."
            )
        return found

    def _stand_in(self) -> str | None:
        """The file of this package for published weights that cannot be had; None where they can, or are not wanted."""
        if (published := self._published()) is None:
            return None
        found = resolve_or_own(published, commercial_only=self.commercial_only)
        return None if found == published else found

    def _published(self) -> str | None:
        """The name of the published weights that are taken where no others are named; None where none are wanted."""
        trained = feature_type(self.features).matcher
        if self.matcher != "lightglue" or trained is None or "weights" in self.thresholds:
            return None
        return PRESETS[trained].weights

    def settled(self) -> Models:
        """The same, with the name of what stands in for published weights.

        Raises WeightsError as `own`.
        """
        stands_in = None if self.weights is not None else self._stand_in()
        return self if stands_in is None else replace(self, weights=stands_in)

    def __reduce__(self) -> Any:
        fields = dict(vars(self))
        if self.weights is None and (published := self._published()) is not None:
            fields["weights"] = stands_in(published)
        return _again, (type(self), fields)

    @property
    def weights_name(self) -> str | None:
        """What names LightGlue's weights: in a table of this package, or where they lie. None where there are none."""
        if (published := self._published()) is None:
            return None
        return published if (own := self.own) is None else own.name

    @property
    def gives_overlap(self) -> bool:
        """Whether matches come with an overlap, by the weights that are there. Raises WeightsError as `own`."""
        if self.matcher != "lightglue":
            return False
        with without_fetching():
            own = self.own
        return self.features in WITH_OVERLAP if own is None or own.has_overlap is None else own.has_overlap

    def load(self) -> tuple[Any, Any]:
        """The extractor and the matcher, on their device."""
        return self.load_extractor(), self.load_matcher()

    def load_extractor(self) -> Any:
        """The extractor, on its device."""
        row = feature_type(self.features)
        kind = row.load()
        common = {"commercial_only": self.commercial_only} if row.weights else {}
        if "mp" in kind.default_conf:
            common["mp"] = self.with_mp()
        conf = {"max_num_keypoints": self.max_keypoints, **common, **row.best, **self.extractor}
        return kind(**conf).eval().to(self.found_device())

    def load_matcher(self) -> Any:
        """The matcher, on its device: with effort "fast" within a `CoarseToFine`.

        Raises InputError where LightGlue was not trained on the features.
        Raises ModelError where the backend is not installed, or has nothing for the device.
        """
        matcher = self._load_matcher()
        if self.effort != "fast":  # "hard" is for those who have the images
            return matcher
        from lightglue.matching.coarse_to_fine import CoarseToFine

        return CoarseToFine(matcher).eval()

    def _load_matcher(self) -> Any:
        backend, device = self.found_backend().backend, self.found_device()
        if backend == "torch":
            return self._in_torch().eval().to(device)
        if backend == "openvino":
            if device.type != "cpu":
                raise InputError(
                    f"backend is 'openvino', which computes on the CPU, and the device is {device}; use the device cpu."
                )
            from lightglue.runtime.matcher import OpenVinoMatcher

            return OpenVinoMatcher.of(self._in_torch())
        if device.type not in _PROVIDERS:
            raise InputError(f"backend is 'onnx', which has nothing for the device {device}; use the device cpu.")
        from lightglue.runtime.matcher import OnnxMatcher

        return OnnxMatcher.of(self._in_torch(), providers=_PROVIDERS[device.type])

    def _in_torch(self) -> Any:
        """The matcher in torch, on the CPU."""
        options, own = self._matcher_options(), self.own
        if own is None:
            return self.matcher_class()(**options)
        if not own.is_described:
            return self.matcher_class()(weights=own.path, **options)
        del options["features"], options["commercial_only"]  # the file says what it is
        return self.matcher_class().load(own.path, **options)

    def extractor_class(self) -> Any:
        """The extractor's class."""
        return feature_type(self.features).load()

    def matcher_class(self) -> Any:
        """The matcher's class."""
        if self.matcher == "nearest":
            from lightglue.matching.nearest import NearestNeighbor

            return NearestNeighbor
        from lightglue.matching.lightglue import LightGlue

        return LightGlue

    def _matcher_options(self) -> dict[str, Any]:
        if self.matcher == "nearest":
            return dict(self.thresholds)
        trained = feature_type(self.features).matcher
        if trained is None:
            raise InputError(f"LightGlue has no weights for features {self.features!r}; choose matcher 'nearest'.")
        common = {"commercial_only": self.commercial_only, "mp": self.with_mp()}
        return {"features": trained, "pruning": PRUNING, **common, **self.thresholds}

    def with_mp(self) -> bool:
        """Whether reduced precision is asked for, here."""
        return default_mp(self.found_device(), self.features) if self.mp is None else self.mp

    def found_backend(self, pairs: int = 1) -> Chosen:
        """The backend, and why: for "auto" what is fastest here for so many pairs."""
        if self.backend != "auto":
            return Chosen(self.backend, "as asked for")
        if self.matcher != "lightglue":
            return Chosen("torch", f"the matcher {self.matcher} computes in nothing else")
        machine = this_machine(self.found_device().type, self.with_mp())
        return choose(machine, pairs, self.max_keypoints)

    def seconds_an_image(self) -> float:
        """About what extraction of an image of 1,024 px takes on one core, to plan with."""
        return 0.1 if self.features.startswith("sift") else 0.3

    def seconds_a_pair(self) -> float:
        """About what matching a pair takes on one core, to plan with: measured on photographs, docs/runtimes.md."""
        if self.matcher != "lightglue":
            return 0.02
        keypoints = min(self.max_keypoints, 512) if self.effort == "fast" else self.max_keypoints
        table = TIMES[False, False]  # the same plan on every machine
        times = table.get(self.backend, table["torch"])
        return times.seconds(1, keypoints) - times.start

    def decisive(self) -> dict[str, Any]:
        """All fields, for the records of results: own weights by their sha256; without a backend, effort and weights
        that are the usual ones, of which earlier versions do not say anything."""
        fields = {**asdict(self), "weights": None if self.own is None else self.own.sha256}
        for name, usual in (("backend", "torch"), ("effort", "normal"), ("weights", None)):
            if fields[name] == usual:
                del fields[name]
        return fields

    def found_device(self) -> torch.device:
        """The device that is computed on."""
        from lightglue.support.devices import find_device

        return find_device(self.device)


def _again(kind: type[Models], fields: Mapping[str, Any]) -> Models:
    """A record with all its fields, of another process."""
    return kind(**fields)
