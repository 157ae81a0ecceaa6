"""The options of every stage of a map: the one place that states them. Importing it loads neither torch nor numpy.

Each field carries its help text and, where the command line has it, its flag: the parameters of `lightglue sfm`, of the
stages under `lightglue map` and of `lightglue localize` are built from these records, so that an option is added here
and nowhere else. All of them raise InputError for values that make no sense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from lightglue.errors import InputError
from lightglue.extractors.options import STRETCH_HELP
from lightglue.geometry.camera_text import CAMERA_HELP, parse_known_camera
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.geometry.options import RefineOptions
from lightglue.models.choice import Models
from lightglue.models.registry import WITH_OVERLAP, default_mp
from lightglue.options import OptionInfo, option
from lightglue.pairs.hard.options import MAX_SECONDS, check_max_seconds, max_seconds_option, parse_max_seconds
from lightglue.runtime.backends import MANY, choose, this_machine
from lightglue.support.checks import (
    check_between,
    check_bool,
    check_choice,
    check_int,
    check_integers,
    check_real,
    is_real,
)
from lightglue.support.parsers import integer, known, share
from lightglue.workers.count import check_workers, parse_workers

__all__ = [
    "SOURCES",
    "STAGES",
    "CameraMode",
    "CameraOptions",
    "EngineOptions",
    "ExtractOptions",
    "FrameOptions",
    "LocalizeOptions",
    "Mapper",
    "MatchOptions",
    "PairOptions",
    "PoseOptions",
    "QueryRefineOptions",
    "ReconstructOptions",
    "RetrievalOptions",
    "SfmOptions",
    "Source",
    "Stage",
    "TrackOptions",
    "VerifyOptions",
    "on_one_device",
]

Stage = Literal["extract", "pairs", "match", "refine", "verify", "reconstruct", "report"]
Source = Literal["auto", "exhaustive", "growing", "sequential", "retrieval", "gps", "poses", "covisibility", "file"]
CameraMode = Literal["auto", "single", "per_folder", "per_image"]
DatasetMode = Literal["auto", "always", "never"]
Mapper = Literal["incremental", "global", "hierarchical"]
EngineName = Literal["local", "ray"]
Descriptor = Literal["vlad", "megaloc"]
Search = Literal["exact", "faiss"]

STAGES: tuple[str, ...] = get_args(Stage)
SOURCES: tuple[str, ...] = get_args(Source)

EXTRACT_REVISION = 1  # raised when the same settings give other features
MATCH_REVISION = 1  # raised when the same settings give other matches
_MOST = 2**31 - 1  # COLMAP's integers have 32 bits


_parse_seed = integer(f"an integer from 0 to {_MOST}", 0, _MOST)


def _default(factory: Callable[[], Any], help: str) -> Any:
    """A field as `option` makes one, whose default is newly made for each record."""
    return field(default_factory=factory, metadata={"option": OptionInfo(help)})


# --- features and matches ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _WithModels:
    """The options of a stage that computes with models."""

    models: Models | None = None  # None: those of the `SfmOptions` that this is part of

    @property
    def chosen(self) -> Models:
        """The models. Raises InputError where none are given."""
        if self.models is None:
            raise InputError(f"{type(self).__name__} has no models; give them, such as Models('aliked', 2048).")
        return self.models


@dataclass(frozen=True)
class ExtractOptions(_WithModels):
    """What is extracted, and how."""

    extract: Mapping[str, Any] = _default(dict, "Options of `Extractor.extract`, such as resize.")
    descriptor_dtype: str = option(
        "float16", "How descriptors are stored; see docs/decisions/017-stores.md.", choices=("float16", "float32")
    )
    masks: str | None = option(
        None,
        "A folder of masks, sub/a.jpg.png or sub/a.png for sub/a.jpg: no keypoints where they are black.",
        group="Features",
        metavar="DIR",
    )
    max_pixels: int | None = option(500_000_000, "Larger images are left out; None: none is.")  # as lightglue.images
    stretch: bool = option(False, STRETCH_HELP, group="Features")

    def __post_init__(self) -> None:
        check_choice("descriptor_dtype", self.descriptor_dtype, ("float16", "float32"))
        check_bool("stretch", self.stretch)

    def settings(self) -> dict[str, Any]:
        """All that decides the features, for the store."""
        models = on_one_device(self.chosen)
        return {
            "revision": EXTRACT_REVISION,
            "features": models.features,
            "max_keypoints": models.max_keypoints,
            "extractor": dict(models.extractor),
            "extract": dict(self.extract),
            "mp": models.mp,
            "device": models.device.partition(":")[0],
            "descriptor_dtype": self.descriptor_dtype,
            # Which mask an image had is kept with its features, as its file is; where they lay decides nothing.
            **({} if self.masks is None else {"masks": True}),  # stores of earlier versions do not say
            **({"stretch": True} if self.stretch else {}),  # nor this
        }


@dataclass(frozen=True)
class MatchOptions(_WithModels):
    """What is matched with, and what is kept."""

    min_overlap: float | None = option(
        None,
        "Drop the matches of pairs that overlap with a lower probability.",
        group="Matching",
        metavar="X",
        parse=share,
    )
    memory: int = option(512_000_000, "Bytes of features that are kept for further pairs.")
    max_seconds: float | None = max_seconds_option()

    def __post_init__(self) -> None:
        check_max_seconds(self.max_seconds, None if self.models is None else self.models.effort)
        check_int("memory", self.memory, 0, "a number of bytes, at least 0")
        limit = self.min_overlap
        if limit is not None:
            check_real("min_overlap", limit, "a probability from 0 to 1, or None to keep all matches", 0, 1)
        if (models := self.models) is None:
            return
        if limit is not None and not models.gives_overlap:
            raise InputError(
                f"min_overlap is {limit!r}, but {models.features} with {models.matcher} gives no probability that "
                f"images overlap; leave it out, or use LightGlue with one of {', '.join(WITH_OVERLAP)}, or weights "
                "that say one."
            )

    def settings(self) -> dict[str, Any]:
        """All that decides the matches of given features, for the store."""
        models = on_one_device(self.chosen.settled())
        return {
            "revision": MATCH_REVISION,
            "features": models.features,
            "matcher": models.matcher,
            "thresholds": dict(models.thresholds),
            "mp": models.mp,
            "device": models.device.partition(":")[0],
            "min_overlap": self.min_overlap,
            # Of what is usual earlier versions do not say anything.
            **({} if models.backend == "torch" else {"backend": models.backend}),
            **({} if models.effort == "normal" else {"effort": models.effort}),
            **({} if models.own is None else {"weights": models.own.sha256}),
            **({"max_seconds": self.max_seconds} if models.effort == "hard" else {}),
        }


def on_one_device(models: Models) -> Models:
    """`models` with what "auto" stands for here, so that other machines compute the same.

    A device that is named need not be in this machine: others may be the ones that compute.
    """
    import torch

    device = models.found_device() if models.device == "auto" else torch.device(models.device)
    mp = default_mp(device, models.features) if models.mp is None else models.mp
    own = None if models.weights is None or models.own is None else models.own.name
    models = replace(models, device=str(device), mp=mp, weights=own)
    if models.backend != "auto":
        return models
    if models.matcher != "lightglue":
        return replace(models, backend="torch")
    return replace(models, backend=choose(this_machine(device.type, mp), MANY, models.max_keypoints).backend)


# --- videos ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameOptions:
    """Which frames of a video become images: of each window of time the sharpest."""

    fps: float = option(2.0, "Of a video: frames that are taken a second.", group="Features", metavar="X")
    max_frames: int = option(
        500,
        "Of a video: frames that are taken at the most; of a longer one fewer a second.",
        group="Features",
        metavar="N",
        parse=integer("a number of frames from 2 to 1000000", 2),
    )

    def __post_init__(self) -> None:
        check_between(self, fps=1e6)
        check_integers(self, max_frames=2)

    def interval(self, seconds: float) -> float:
        """Seconds from one frame to the next, of a video of so many seconds; 0: it is not known."""
        return max(1 / self.fps, seconds / self.max_frames)


# --- pairs -------------------------------------------------------------------------------------------------------


def _parse_sources(text: str) -> tuple[str, ...]:
    return tuple(known(part, SOURCES) for part in text.split(","))


@dataclass(frozen=True)
class PairOptions:
    """Which images are matched with which, and how many."""

    sources: tuple[str, ...] = option(
        ("auto",),
        "Which images to match; several with commas. auto: all up to 60 images, else similar ones; fewer by GPS, and "
        "with --effort fast.",
        group="Pairs",
        flag="--pairs",
        choices=SOURCES,
        parse=_parse_sources,
    )
    auto_exhaustive: int = option(60, 'Images up to which "auto" means every pair.')
    max_exhaustive: int = option(2000, "Images up to which every pair may be asked for.")
    grown: int = option(6, "growing: images that each is to be connected with; matching goes on until it is.")
    overlap: int = option(10, "sequential: images that follow in the sequence.")
    quadratic: bool = option(False, "sequential: also 1, 2, 4, ... images on, as many again.")
    loop_every: int = option(10, "sequential: look for loop closures at every so many images; 0: never.")
    loop_closures: int = option(10, "sequential: images outside the overlap that are tried then.")
    retrieved: int = option(
        20,
        "With --pairs retrieval: match each image with its K most similar ones.",
        group="Pairs",
        metavar="K",
        parse=integer("a number of images from 1 to 1000000"),
    )
    gps_neighbors: int = option(20, "gps: nearest images to each.")
    gps_radius: float = option(100.0, "gps: largest distance, metres.")
    pose_neighbors: int = option(20, "poses: nearest images to each.")
    pose_radius: float | None = option(None, "poses: largest distance, in the unit of the poses; None: any.")
    pose_angle: float = option(60.0, "poses: largest angle between the optical axes, degrees.")
    covisible: int = option(20, "covisibility: images that share most points with each.")
    file: str | None = option(
        None, "With --pairs file: the pairs, two names a line.", group="Pairs", flag="--pairs-file", metavar="FILE"
    )

    def __post_init__(self) -> None:
        sources = tuple(dict.fromkeys(self.sources))  # JSON has lists
        if self.file is not None and "file" not in sources:
            sources = ("file",) if sources == ("auto",) else (*sources, "file")
        object.__setattr__(self, "sources", sources)
        unknown = [source for source in self.sources if source not in SOURCES]
        if unknown or not self.sources:
            raise InputError(f"There is no source of pairs {unknown or ''}; choose of {', '.join(SOURCES)}.")
        check_integers(self, auto_exhaustive=0, max_exhaustive=1, grown=1, overlap=1, loop_every=0, loop_closures=1)
        check_integers(self, retrieved=1, gps_neighbors=1, pose_neighbors=1, covisible=1)
        check_between(self, gps_radius=math.inf, pose_radius=math.inf, pose_angle=math.inf)
        if self.pose_angle > 180:
            raise InputError(f"pose_angle is {self.pose_angle!r}; give a number above 0 up to 180.")
        if "file" in self.sources and self.file is None:
            raise InputError("The source `file` needs a file of pairs; give its path as `file`.")


@dataclass(frozen=True)
class RetrievalOptions:
    """How images are described, so that similar ones are found."""

    descriptor: Descriptor = option(
        "vlad",
        "vlad: of the local features; megaloc: a network from torch.hub that sees the images and is downloaded.",
    )
    words: int = option(64, "Words of the vocabulary.")
    dimensions: int = option(64, "Principal components of the local descriptors that are kept.")
    sample: int = option(100_000, "Local descriptors that the vocabulary is trained on.")
    seed: int = option(0, "Seed of the sample and of k-means.")
    search: Search = option("exact", "faiss: nearly exact, for more than 100,000 images.")

    def __post_init__(self) -> None:
        check_integers(self, words=1, dimensions=1, sample=1, seed=0)
        check_choice("descriptor", self.descriptor, get_args(Descriptor))
        check_choice("search", self.search, get_args(Search))


# --- geometry ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrackOptions:
    """How keypoints are refined. Lengths are px of the images as they are aligned."""

    max_edge: int = option(1600, "px: larger images are reduced before they are aligned.")
    max_shift: float = option(6.0, "A keypoint that would move farther stays.")
    prior: float = option(2.0, "Standard deviation of the detector's position of a keypoint.")
    floor: float = option(0.05, "That a measurement is uncertain by at least.")
    outlier: float = option(0.5, "A measurement that is so far off keeps a quarter of its weight.")
    min_support: float = option(0.9, "Sum of weights of a keypoint's measurements, each at most 1; with less it stays.")
    # Positions that contradict their neighbours are for the solution to judge, which sees more: docs/decisions/016.
    align: RefineOptions = option(RefineOptions(max_residual=2.0), "How windows are aligned.")

    def __post_init__(self) -> None:
        names = ("max_edge", "max_shift", "prior", "floor", "outlier", "min_support")
        check_between(self, **dict.fromkeys(names, math.inf))
        if self.max_edge < self.align.window:
            raise InputError(f"max_edge is {self.max_edge} px, less than a window of {self.align.window} px.")


@dataclass(frozen=True)
class VerifyOptions:
    """When two views agree. The same options on the same pair give the same result."""

    min_matches: int = option(15, "Pairs with fewer are not tried.")
    min_inliers: int = option(15, "A geometry of fewer is none.")
    max_error: float = option(4.0, "px; distance from the epipolar line up to which a match is an inlier.")
    min_inlier_ratio: float = option(0.25, "That RANSAC expects when it decides how long to try.")
    confidence: float = option(0.999, "With which RANSAC stops.")
    max_iterations: int = option(10_000, "Iterations of RANSAC at the most.")
    seed: int = option(0, "Seed of all that is random.", group="Machine", parse=_parse_seed)
    drop_look_alikes: bool = option(
        True,
        "Drop pairs of places that only look alike: those that contradict the others.",
        group="Geometry",
        flag="--filter-pairs/--all-pairs",
    )

    def __post_init__(self) -> None:
        check_integers(self, min_matches=1, min_inliers=1, max_iterations=1, seed=0)
        check_bool("drop_look_alikes", self.drop_look_alikes)
        check_between(self, max_error=1e6, min_inlier_ratio=1.0, confidence=1.0)

    def colmap(self) -> dict[str, float]:
        """As COLMAP's TwoViewGeometryOptions name them."""
        return {
            "min_num_inliers": self.min_inliers,
            "ransac.max_error": float(self.max_error),
            "ransac.min_inlier_ratio": float(self.min_inlier_ratio),
            "ransac.confidence": float(self.confidence),
            "ransac.max_num_trials": self.max_iterations,
            "ransac.min_num_trials": min(100, self.max_iterations),
        }


@dataclass(frozen=True)
class CameraOptions:
    """Where the intrinsics of a map's cameras come from."""

    model: str | None = option(None, "One of COLMAP's camera models; None: SIMPLE_RADIAL.")
    params: tuple[float, ...] | None = option(
        None,  # in COLMAP's order, of `model`; or `Intrinsics`, which say both
        f"Known intrinsics of all images; by default from EXIF, or guessed. {CAMERA_HELP}",
        group="Geometry",
        flag="--camera",
        metavar="CAMERA",
        parse=parse_known_camera,
    )
    size: tuple[int, int] | None = option(None, "Width and height of the images that `params` are for, px.")
    mode: CameraMode = option(
        "auto",
        "Which images one camera took. auto: those of a folder with the same size and focal length.",
        group="Geometry",
        flag="--share-camera",
    )
    table: str | None = option(
        None,
        "Known intrinsics: JSON {image: K}, or a COLMAP model.",
        group="Geometry",
        flag="--cameras",
        metavar="FILE|MODEL",
    )

    def __post_init__(self) -> None:
        check_choice("The mode of the cameras", self.mode, get_args(CameraMode))
        known: Any = self.params
        if isinstance(known, Intrinsics):
            for name in ("model", "size", "params"):
                object.__setattr__(self, name, getattr(known, name))
        if self.params is not None and self.table is not None:
            raise InputError("There are params for all images and a table of cameras; give one of the two.")
        if self.params is not None:
            if self.model is None:
                raise InputError("There are params, but of which camera model? Give model too, such as PINHOLE.")
            if not all(is_real(p) for p in self.params):
                raise InputError(f"params is {self.params}; give finite numbers, as COLMAP orders them.")
            object.__setattr__(self, "params", tuple(float(p) for p in self.params))
        if self.size is not None:
            object.__setattr__(self, "size", tuple(self.size))  # JSON has lists

    @property
    def known(self) -> Intrinsics | None:
        """The intrinsics of all images; None where they are not known."""
        return None if self.params is None or self.model is None else Intrinsics(self.model, self.size, self.params)


# --- mapping -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReconstructOptions:
    """Which mapper, and how. With one thread the same options on the same database give the same model."""

    mapper: Mapper = option("incremental", "COLMAP's mapper.", group="Geometry")
    seed: int = option(0, "Seed of all that is random.", group="Machine", parse=_parse_seed)
    threads: int | None = option(
        None,
        "Threads of COLMAP; 1: the same model every time.",
        group="Machine",
        metavar="N",
        parse=integer("a number of threads from 1 to 1000000"),
    )
    min_model_size: int = option(3, "Images; smaller models are dropped where there is a larger one.")
    extract_colors: bool = option(True, "Give the points the colours of the images.")
    max_error: float | None = option(
        None, "px in an image of 1,024 px, more in larger ones: observations beyond are dropped. None: COLMAP's 4 px."
    )
    final_adjustment: bool = option(True, "Adjust the whole model once more in the end, robustly: docs/decisions/016.")
    final_tolerance: float = option(
        0.0, "Share of the cost, of which a step of that adjustment has to gain more; 0: until nothing changes."
    )
    colmap: Mapping[str, Any] = _default(dict, 'Options of COLMAP by its names, such as "mapper.init_min_tri_angle".')

    def __post_init__(self) -> None:
        check_choice("mapper", self.mapper, get_args(Mapper))
        check_integers(self, seed=0, min_model_size=2, threads=1)
        check_between(self, "of px ", max_error=1e6)
        check_real("final_tolerance", self.final_tolerance, "a share of the cost from 0 to 1", 0, 1)


@dataclass(frozen=True)
class EngineOptions:
    """Where to extract and match."""

    engine: EngineName = option(
        "local",
        "Where to extract and match: on this machine, or on a Ray cluster.",
        group="Machine",
    )
    workers: int | None = option(
        None,
        "Processes with one thread each; by default as many as fit and are worth it.",
        group="Machine",
        metavar="N",
        parse=parse_workers,
    )
    address: str | None = option(
        None, "Address of the Ray cluster; by default one is started here.", group="Machine", metavar="HOST:PORT"
    )

    def __post_init__(self) -> None:
        check_choice("engine", self.engine, get_args(EngineName))
        if self.engine == "local" and self.address is not None:
            raise InputError(f"--address {self.address} has an effect with --engine ray only.")
        check_workers(self.workers)
        if self.engine != "local" and self.workers is not None:
            raise InputError(f"--workers {self.workers} has an effect with --engine local only; Ray counts its own.")


@dataclass(frozen=True)
class SfmOptions:
    """The options of every stage. The models are stated once, here, and put into the stages that use them."""

    models: Models
    extract: ExtractOptions = ExtractOptions()
    match: MatchOptions = MatchOptions()
    pairs: PairOptions = PairOptions()
    retrieval: RetrievalOptions = RetrievalOptions()
    cameras: CameraOptions = CameraOptions()
    refine: TrackOptions | None = option(
        None,  # keypoints stay where they were found
        "Refine keypoints to a fraction of a pixel before mapping.",
        group="Geometry",
        flag="--refine/--no-refine",
    )
    verify: VerifyOptions = VerifyOptions()
    reconstruct: ReconstructOptions = ReconstructOptions()
    dataset: DatasetMode = option(
        "auto",
        "Write MAP/dataset: model and images for COLMAP's tools, gsplat, nerfstudio. auto: where EXIF turns an image.",
        group="Output",
    )
    frames: FrameOptions = FrameOptions()

    def __post_init__(self) -> None:
        check_choice("dataset", self.dataset, get_args(DatasetMode))
        for name in ("extract", "match"):
            stage = getattr(self, name)
            if stage.models not in (None, self.models):
                raise InputError(f"The stage {name} has other models, {stage.models}, than the map, {self.models}.")
            object.__setattr__(self, name, replace(stage, models=self.models))


# --- localization ------------------------------------------------------------------------------------------------

FEWEST_POINTS = 4  # of a pose: three for P3P, and one to choose between its solutions


@dataclass(frozen=True)
class PoseOptions:
    """How a pose is estimated, and when it is believed."""

    pixels: float = option(6.0, "px of an image whose long side has 1,024: largest error of an inlier.")
    min_inliers: int = option(30, "With fewer the pose is a failure.")
    min_inlier_ratio: float = option(
        0.1, "Smallest share of inliers among the matched points; with less it is a failure."
    )
    max_iterations: int = option(10_000, "Iterations of RANSAC at the most.")
    confidence: float = option(0.99999, "With which RANSAC stops.")
    seed: int = option(0, "Seed of RANSAC.")

    def __post_init__(self) -> None:
        check_integers(self, min_inliers=FEWEST_POINTS, max_iterations=1, seed=0)
        check_between(self, pixels=math.inf, min_inlier_ratio=1.0, confidence=1.0)


@dataclass(frozen=True)
class QueryRefineOptions(TrackOptions):
    """How points of a query are refined; lengths are px of the images as they are aligned."""

    images: int = option(4, "Images of the map to align with: those that show most of the points.")
    pixels: float = option(2.0, "px of an image whose long side has 1,024: largest error of an inlier then.")
    loss: float = option(0.5, "px of such an image: scale of Cauchy's loss, with which the pose is refined.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integers(self, images=1)
        check_between(self, pixels=math.inf, loss=math.inf)


@dataclass(frozen=True)
class LocalizeOptions:
    """How a query is matched with the map, and when its pose is believed."""

    candidates: int = option(
        10,
        "Images of the map to match with, at the most.",
        group="Matching",
        metavar="N",
        parse=integer("a number of images from 1 to 1000000"),
    )
    first: int = option(2, "Candidates that are matched before it is decided whether these are enough.")
    enough: int = option(300, "Inliers with which no more images are matched.")
    map_camera: bool = option(
        True, "Try the map's only camera for queries of its size and EXIF whose camera is not known."
    )
    pose: PoseOptions = PoseOptions()
    memory: int = option(512_000_000, "Bytes of the map's features that are kept.")
    refine: QueryRefineOptions | None = option(
        None,  # points stay where they were found
        "Refine the query's points to a fraction of a pixel by the map's images, then the pose.",
        group="Matching",
        flag="--refine/--no-refine",
    )
    max_seconds: float | None = option(
        MAX_SECONDS,
        "With --effort hard: time of a search in an image of the map; none: no limit.",
        group="Matching",
        metavar="S",
        parse=parse_max_seconds,
    )

    def __post_init__(self) -> None:
        check_max_seconds(self.max_seconds)
        check_integers(self, candidates=1, first=1, enough=1)
        check_int("memory", self.memory, 0, "a number of bytes, at least 0")
        check_bool("map_camera", self.map_camera)
