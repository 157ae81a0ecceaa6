"""From images to the features of their views, in this process or others."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import ImageError, InputError, StoreError
from lightglue.images import ImageFile, numpy_image_to_torch
from lightglue.models.choice import Models
from lightglue.options import nearest_name
from lightglue.sfm.options import on_one_device
from lightglue.sfm.skipped import reason_of
from lightglue.stores import ImageFeatures, Source
from lightglue.support.devices import find_device
from lightglue.support.memory import is_out_of_memory
from lightglue.training.data_options import DataOptions, FeatureOptions
from lightglue.training.draws import Draws
from lightglue.training.sources.depth import depths_at
from lightglue.training.sources.record import SourceImage
from lightglue.training.toml import canonical
from lightglue.training.views.homography import reduced, warp_view
from lightglue.training.views.look import look_of
from lightglue.training.views.options import HomographyOptions, PhotometricOptions
from lightglue.training.views.photometric import augment
from lightglue.workers.work import Budget
from lightglue_runtime.images.value_range import eight_bits

__all__ = ["ImageJob", "Made", "MadeView", "ViewWork", "load_extractor", "make_view", "settings_of", "view_name"]

REVISION = 1  # raised when the same settings give other features
READERS = 2  # threads that decode ahead
PIXELS_AHEAD = 50_000_000  # decoded and waiting, unless one image alone has more
OUTSIDE = 0.1  # share of the keypoints of the user's own extractor that may lie outside of the image

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ImageJob:
    """An image, and which of its views are wanted."""

    image: SourceImage
    numbers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class MadeView:
    """A view and its features."""

    number: int
    features: ImageFeatures
    homography: Floats | None = None  # (3, 3) from px of the image; None: the image itself, in another size
    depth: NDArray[np.float32] | None = None  # (N,) of the keypoints, NaN where it is not known


@dataclass(frozen=True, eq=False)
class Made:
    """What became of an image."""

    job: ImageJob
    source: Source | None = None  # the file, where it could be read
    image_size: tuple[int, int] = (0, 0)  # width, height, px
    look: str = ""  # of `look_of`
    views: tuple[MadeView, ...] = ()
    fault: str | None = None
    edge: int | None = None  # the shorter one, px, of an image that is too small


def view_name(image: SourceImage, number: int) -> str:
    """The name of a view: of its source, its image and its number."""
    return f"{image.source}/{image.name}#{number}"


def settings_of(data: DataOptions, features: FeatureOptions) -> dict[str, Any]:
    """All that decides the features of a view, for the store."""
    settings: dict[str, Any] = {"revision": REVISION, "features": features.type, "max_keypoints": features.keypoints}
    settings |= {"extractor": dict(features.extractor), "descriptor_dtype": features.descriptor_dtype}
    if not features.is_own:
        models = on_one_device(_models(features))
        settings |= {"mp": models.mp, "device": models.device.partition(":")[0]}
    settings["views"] = {
        "seed": data.seed,
        "size": list(data.view_size),
        "posed_size": data.posed_size,
        "homography": canonical(data.homography),
        "photometric": canonical(data.photometric),
    }
    return settings


def make_view(
    pixels: Pixels, key: tuple[int | str, ...], size: tuple[int, int], how: HomographyOptions, light: PhotometricOptions
) -> tuple[Pixels, Floats]:
    """A view of an image (H, W, 3) and its homography (3, 3): a pure function of the image and the key.

    key: such as (seed, source, image, number).
    """
    draws = Draws("view", *key)
    view, H = warp_view(pixels, draws, size, how)
    return augment(view, draws, light), H


def _models(features: FeatureOptions) -> Models:
    return Models(features.type, features.keypoints, features.device, extractor=features.extractor, matcher="nearest")


def load_extractor(features: FeatureOptions) -> Any:
    """An extractor, on its device. Raises InputError where the user's own cannot be had; what making it raises passes.

    The user's own is `my_module:name`: an extractor, or a class or function that makes one of the options.
    """
    if not features.is_own:
        return _models(features).load_extractor()
    found = find_own(features.type)
    if isinstance(found, type) or not hasattr(found, "extract"):
        if not callable(found):
            raise InputError(f"{features.type} is a {type(found).__name__}; name a class, a function or an extractor.")
        found = found(**features.extractor)
    if not callable(getattr(found, "extract", None)):
        raise InputError(f"{features.type} gives a {type(found).__name__} without a method extract(image, **options).")
    for name, arguments in (("eval", ()), ("to", (find_device(features.device),))):
        if isinstance(found, torch.nn.Module):
            getattr(found, name)(*arguments)
    return found


def find_own(name: str) -> Any:
    """What `my_module:name` names; modules in the working directory are found. Raises InputError."""
    module, _, path = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # worker processes have our path
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] and error.name != module:
            raise
        raise InputError(
            f"There is no module {module!r} for features {name!r}; run this where it can be imported."
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            nearest = nearest_name(part, [each for each in vars(found) if not each.startswith("_")])
            hint = f"did you mean {nearest!r}?" if nearest else "look at the module."
            raise InputError(f"{module} has no {path!r}; {hint}")
        found = getattr(found, part)
    return found


@dataclass(frozen=True)
class ViewWork:
    """Make the views of images, and extract their features."""

    data: DataOptions
    features: FeatureOptions
    together: int = 4  # images

    @property
    def seconds(self) -> float:
        """See `Work`."""
        return (
            0.3 * self.data.views
            if self.features.is_own
            else self.data.views * _models(self.features).seconds_an_image()
        )

    @property
    def on_cpu(self) -> bool:
        """See `Work`."""
        return find_device(self.features.device).type == "cpu"

    def worker(self) -> ViewWorker:
        """See `Work`."""
        return ViewWorker(self)

    def failed(self, job: ImageJob, reason: str) -> Made:
        """See `Work`."""
        return Made(job, fault=reason)


class ViewWorker:
    """An extractor; each file is read once."""

    threads = READERS

    def __init__(self, work: ViewWork) -> None:
        self.data, self.features = work.data, work.features
        self.extractor = load_extractor(work.features)
        self.device = find_device(work.features.device)
        self.ahead = Budget(PIXELS_AHEAD)

    def read(self, job: ImageJob) -> tuple[Pixels, Source] | Made:
        """The pixels of an image, or why there are none."""
        path = job.image.path
        source = None
        try:
            mtime_ns = os.stat(path).st_mtime_ns  # before it is read: if it changes meanwhile, the next run notices
            file = ImageFile.read(path)
            source = Source(len(file.data), mtime_ns, sha256(file.data).hexdigest())
            width, height = file.size
            if min(width, height) < self.data.smallest:
                return Made(job, source, fault=f"an edge is below {self.data.smallest} px", edge=min(width, height))
            self.ahead.take(width * height)
            try:
                return eight_bits(file.decode(), rounded=False), source
            except BaseException:
                self.ahead.give_back(width * height)
                raise
        except FileNotFoundError:
            return Made(job, fault=f"there is no image at {path}; check the path")
        except (ImageError, InputError, OSError) as error:
            with suppress(OSError):
                source = source or Source.of(path)
            return Made(job, source, fault=reason_of(error, path))
        except (MemoryError, RuntimeError) as error:
            return Made(job, fault=_short_of_memory(error))

    def compute(self, job: ImageJob, read: tuple[Pixels, Source] | Made) -> Made:
        """The views of an image and their features."""
        if isinstance(read, Made):
            return read
        pixels, source = read
        size = pixels.shape[1], pixels.shape[0]
        try:
            views = tuple(self._view(job.image, number, pixels) for number in job.numbers)
            return Made(job, source, size, look_of(pixels), views)
        except (ImageError, StoreError) as error:  # StoreError: of its depths
            return Made(job, source, size, fault=reason_of(error, job.image.path))
        except (MemoryError, RuntimeError) as error:
            return Made(job, source, size, fault=_short_of_memory(error))
        finally:
            self.ahead.give_back(size[0] * size[1])

    def _view(self, image: SourceImage, number: int, pixels: Pixels) -> MadeView:
        data = self.data
        if image.posed is None:
            key = (data.seed, image.source, image.name, number)
            view, H = make_view(pixels, key, data.view_size, data.homography, data.photometric)
            return MadeView(number, self._features(view, image), H)
        view = reduced(pixels, data.posed_size)
        features = self._features(view, image)
        if image.posed.depth is None:
            return MadeView(number, features)
        return MadeView(number, features, depth=depths_at(image.posed.depth, features.keypoints, features.image_size))

    @torch.inference_mode()
    def _features(self, view: Pixels, image: SourceImage) -> ImageFeatures:
        options = self.features
        tensor = numpy_image_to_torch(view).to(self.device)
        if options.is_own:
            found = self._own_features(tensor, image)
        else:
            found = self.extractor.extract(tensor, resize=None)
        return _best(ImageFeatures.from_torch(found, options.type, np.dtype(options.descriptor_dtype)), options)

    def _own_features(self, tensor: torch.Tensor, image: SourceImage) -> Mapping[str, Any]:
        """Of the user's own extractor; raises InputError, which names the image, for whatever it raises itself."""
        options, size = self.features, (tensor.shape[2], tensor.shape[1])
        try:
            return as_features(self.extractor.extract(tensor, resize=None), options, size)
        except InputError as error:
            raise InputError(f"{image.path}: {error}") from error
        except Exception as error:
            if is_out_of_memory(error):
                raise
            place = extract_tb(error.__traceback__)[-1]
            where = "" if place.filename == __file__ else f" ({Path(place.filename).name}, line {place.lineno})"
            raise InputError(
                f"{image.path}: {options.type} raised {type(error).__name__}{where}: {error}; mend it, and the same "
                "command goes on."
            ) from error

    def close(self) -> None:
        """See `Worker`."""
        self.ahead.close()


def as_features(found: Any, options: FeatureOptions, size: tuple[int, int]) -> Mapping[str, Any]:
    """What an extractor of the user's own gave, checked. Raises InputError, which names what is wrong with it."""
    if isinstance(found, (list, tuple)) and len(found) == 1:
        found = found[0]
    if not isinstance(found, Mapping):
        raise InputError(f"{options.type} gave a {type(found).__name__}; give a dictionary of features.")
    features = {}
    for name in ("keypoints", "descriptors", "keypoint_scores", "scales", "oris"):
        if name in ("keypoints", "descriptors") and name not in found:
            raise InputError(f"{options.type} gave no {name}, but {', '.join(map(str, found)) or 'nothing'}.")
        if name in found:
            value = torch.as_tensor(found[name]).detach().cpu().float()
            wanted = 2 if name in ("keypoints", "descriptors") else 1
            if value.ndim == wanted + 1 and len(value) == 1:
                value = value[0]
            if value.ndim != wanted or (name == "keypoints" and value.shape[-1] != 2):
                raise InputError(f"{options.type} gave {name} of the shape {tuple(value.shape)}; see lightglue.types.")
            if not value.isfinite().all():
                raise InputError(f"{options.type} gave {name} with NaN or infinity.")
            features[name] = value
    counts = {name: len(value) for name, value in features.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{options.type} gave unequal numbers: {counts}.")
    _check_in_px(features["keypoints"], options, size)
    largest = float(features["descriptors"].abs().max()) if features["descriptors"].numel() else 0.0
    if options.descriptor_dtype == "float16" and largest > float(np.finfo(np.float16).max):
        raise InputError(f"{options.type} gave a descriptor of {largest:.4g}; set descriptor_dtype to float32.")
    return {**features, "image_size": torch.tensor(size)}


def _check_in_px(points: torch.Tensor, options: FeatureOptions, size: tuple[int, int]) -> None:
    """Raises InputError for keypoints (N, 2) that cannot be x and y in px of an image of this width and height."""
    is_outside = ((points < -1) | (points > torch.tensor(size) + 1)).any(1)
    is_share = len(points) > 1 and bool((points.abs() <= 1).all())
    if is_share or is_outside.sum() > OUTSIDE * len(points):
        (left, top), (right, bottom) = points.amin(0).tolist(), points.amax(0).tolist()
        raise InputError(
            f"{options.type} gave keypoints with x from {left:.4g} to {right:.4g} and y from {top:.4g} to {bottom:.4g} "
            f"in an image of {size[0]} x {size[1]} px; give x and y in px."
        )


def _best(features: ImageFeatures, options: FeatureOptions) -> ImageFeatures:
    """The keypoints of the highest scores, where there are more than wanted; in their order."""
    if len(features) <= options.keypoints:
        return features
    rows = np.sort(np.argsort(-features.scores, kind="stable")[: options.keypoints])
    some: dict[str, Any] = {name: array[rows] for name, array in features.optional.items()}
    return replace(
        features,
        keypoints=features.keypoints[rows],
        descriptors=features.descriptors[rows],
        scores=features.scores[rows],
        **some,
    )


def _short_of_memory(error: BaseException) -> str:
    """The fault that an error stands for; raises it where it is of another kind."""
    if not is_out_of_memory(error):
        raise error
    return "there is not enough memory for this image; make it smaller"
