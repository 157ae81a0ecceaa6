"""What all extractors share: checking images and masks, resizing, and the way back to the image's own pixels.

An extractor is a module whose `forward` takes `{"image": (B, C, H, W)}` and returns `Features` in the pixels of that
tensor; `extract` does the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from os import PathLike
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, overload

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightglue import weights
from lightglue.errors import InputError
from lightglue.extractors.masks import Allowed, Mask, mask_of, read_masks
from lightglue.extractors.request import EVERYTHING, Request
from lightglue.extractors.view_extraction import extract_views
from lightglue.images import ImagePreprocessor, resize_tensor
from lightglue.options import nearest_name, warn_unknown
from lightglue.timing import span
from lightglue.types import ExtractKeywords, Features
from lightglue.weights.state_dicts import add_counters, check_tensors, load_strictly, publish_keys

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Extractor",
    "Weights",
    "full_precision",
    "read_weights",
    "stack_features",
]

AnyImage = NDArray[Any] | str | PathLike[str]
Weights = str | PathLike[str] | Mapping[str, Tensor]
_Method = TypeVar("_Method", bound=Callable[..., Any])

# How far outside [0, 1] values may lie (a resampled image overshoots a little). 8-bit values lie far outside.
_TOLERANCE = 0.5


def full_precision(method: _Method) -> _Method:
    """An extractor's `method` in the dtype of its weights, also under `torch.autocast`.

    Autocast would compute scores with the 8 bits of bfloat16: few keypoints stay where they are.
    """

    @functools.wraps(method)
    def run(self: Extractor, *args: Any, **kwargs: Any) -> Any:
        # Some steps run on the CPU whatever the device is.
        with torch.autocast("cpu", enabled=False), torch.autocast(self.reference.device.type, enabled=False):
            return method(self, *args, **kwargs)

    return cast(_Method, run)


class Extractor(nn.Module):
    """Base of the extractors.

    A subclass sets `default_conf` and `preprocess_conf`, and `config_type`, the frozen dataclass that checks the
    options; it implements `forward`. `conf` may be changed at any time; it is checked again at each call.
    """

    config_type: ClassVar[type[Any] | None] = None
    default_conf: ClassVar[dict[str, Any]] = {}
    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": None}
    same_point: ClassVar[float] = 2.0  # px; keypoints of two tiles or sizes this close are one
    required_data_keys: ClassVar[list[str]] = ["image"]
    # A weight by its name, since `parameters` is empty in the copies that `nn.DataParallel` makes.
    reference_name: ClassVar[str] = ""
    # What the weights were read from: a published name or a file; None where they were given as tensors.
    weights_source: str | PathLike[str] | None = None

    def __init__(self, **conf: Any) -> None:
        super().__init__()
        name = type(self).__name__
        warn_unknown(name, [key for key in conf if key not in self.default_conf], self.default_conf, stacklevel=4)
        self.conf = SimpleNamespace(**{**self.default_conf, **conf})
        self.options()

    def __getattr__(self, name: str) -> Any:
        """The layers of `network` under their published names, too: `extractor.conv1a`."""
        network = self.__dict__.get("_modules", {}).get("network")
        if network is None or name in self._modules or name not in network._modules:
            return super().__getattr__(name)
        return network._modules[name]

    def read_weights(self, source: Weights, *, commercial_only: bool = False) -> dict[str, Tensor]:
        """The state dict that `source` is or names; `weights_source` remembers where it came from."""
        self.weights_source = source if isinstance(source, (str, PathLike)) else None
        return read_weights(source, commercial_only=commercial_only)

    def adopt(self, state: Mapping[str, Tensor], name: str) -> None:
        """Load `network` strictly with `state`, save and load it under published keys, and go to evaluation mode.

        Batch statistics in place of the learned ones would silently spoil the result.
        """
        network = cast(nn.Module, self.network)
        load_strictly(network, add_counters(network, state), name)
        publish_keys(self)
        self.eval()

    @property
    def reference(self) -> Tensor:
        """A tensor of the device and dtype that images get: a weight, or float32 on the CPU where there is none."""
        if self.reference_name:
            return cast(Tensor, attrgetter(self.reference_name)(self))
        return next(self.parameters(), torch.empty(0))

    def options(self) -> Any:
        """`conf` as a checked, frozen `config_type`. Raises InputError for a value that makes no sense."""
        if self.config_type is None:
            return self.conf
        names = {field.name for field in dataclasses.fields(self.config_type)}
        return self.config_type(**{key: value for key, value in vars(self.conf).items() if key in names})

    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        """Features of a batch of images, in the pixels of the tensor; see `extract` for whole images.

        Args:
            data: "image" (B, C, H, W) in [0, 1], C = 1 or 3. Where the images are padded at the right and bottom,
                "image_size" (B, 2), the width and height in px without: no keypoint then lies in the padding.
            request: what `extract` asks for; a subclass that leaves it out works without masks and tiles.

        Returns:
            keypoints (B, N, 2), keypoint_scores (B, N), descriptors (B, N, D), all float32.

        Raises:
            InputError: also where the images yield unequal numbers of keypoints.
        """
        raise NotImplementedError

    @overload
    def extract(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self, img: Tensor | AnyImage, *, mask: Mask | None = None, **options: Unpack[ExtractKeywords]
    ) -> Features: ...

    @overload
    def extract(
        self,
        img: Sequence[Tensor | AnyImage],
        *,
        mask: Sequence[Mask | None] | None = None,
        **options: Unpack[ExtractKeywords],
    ) -> list[Features]: ...

    @torch.no_grad()
    def extract(
        self,
        img: Any,
        *,
        mask: Any = None,
        tile: int | None = None,
        pyramid: Sequence[float] | None = None,
        **preprocess: Any,
    ) -> Features | list[Features]:
        """Features of one image, of a batch of equally large images, or of a list of images.

        Args:
            img: (C, H, W) or (B, C, H, W) with C = 1 or 3, values in [0, 1]; or a list or tuple of such tensors, of any
                sizes. Moved to the model's device and cast to its dtype. With `tile`, also the path of an image file or
                an array (H, W, 3) or (H, W), uint8 or uint16, which is then converted tile by tile.
            mask: where keypoints may lie: (H, W) bool, or an image file that is black elsewhere; for a batch also
                (B, H, W); for a list of images a list, with None where there is none. It is applied before the best
                keypoints are chosen.
            tile: px; look at the image in tiles of this side that overlap, so that an image of any size fits into
                memory. `resize` is None then unless it is given; `max_num_keypoints` is the whole image's.
            pyramid: look at the image in several sizes, factors such as (1, 0.5) of the one of `resize`.
            preprocess: `resize` (px of the edge that `side` names, a pair (height, width), or None), `side` ("long",
                "short", "vert", "horz"), `interpolation`, `align_corners`, `antialias`; by default `preprocess_conf`.

        Computed in the dtype of the weights, also under `torch.autocast`. Keypoints are in the extractor's own order;
        those of several tiles or sizes together come best first, and a point that several see comes once.

        Returns:
            A dictionary (for a list, a list of dictionaries, B = 1 where an image has three dimensions) with

            - keypoints (B, N, 2) float32, x y in pixels of the original image, (0, 0) being the centre of its first;
            - keypoint_scores (B, N) float32;
            - descriptors (B, N, D) float32, L2-normalised;
            - image_size (B, 2) float32, width height of the original image, px.

        Raises:
            InputError: for an image or an option that this cannot work with, and for a batch whose images yield
                unequal numbers of keypoints; give these as a list.
        """
        if "scales" in preprocess:
            message = "extract(scales=) is deprecated, use extract(pyramid=) with the same factors."
            warnings.warn(message, DeprecationWarning, stacklevel=_callers_level() - 1)
            pyramid = preprocess.pop("scales")
        views = {"tile": tile, "pyramid": pyramid}
        extractor: Any = self
        if not isinstance(extractor, Extractor):  # the published function is called with other objects, too
            preprocess = {**getattr(extractor, "preprocess_conf", {}), **preprocess}
            extractor = _Borrowed(extractor)
        return cast(Features, extractor._extract(img, mask, **views, **preprocess))

    @full_precision
    def _extract(self, img: Any, mask: Any, tile: Any, pyramid: Any, **preprocess: Any) -> Any:
        if isinstance(img, (list, tuple)):
            masks = [None] * len(img) if mask is None else mask
            if not isinstance(masks, (list, tuple)) or len(masks) != len(img):
                given = type(mask).__name__
                raise InputError(f"mask is of a {given}; give a list of {len(img)}, one an image, or None.")
            each = zip(img, masks, strict=True)
            return [self._extract(image, own, tile, pyramid, **preprocess) for image, own in each]
        if tile is not None or pyramid is not None:
            return stack_features(extract_views(self, img, mask, tile, pyramid, preprocess))
        with span("resize"):
            image = self.check_image(img)
            masks = read_masks(mask, image)
            resized, ratio = self.resize(image, preprocess)
        allowed = [mask_of(own, lambda keypoints: (keypoints + 0.5) / ratio - 0.5) for own in masks]
        with span("extract", width=resized.shape[-1], height=resized.shape[-2]):
            features = self.run(resized, Request(allowed))
        self.to_original(features, ratio)
        h, w = image.shape[-2:]
        features["image_size"] = ratio.new_tensor([[w, h]]).repeat(len(image), 1)
        return features

    def try_options(self, options: Mapping[str, Any]) -> None:
        """Try options of `extract` on a blank image. Raises InputError for one that it does not take."""
        valid = {*ExtractKeywords.__annotations__, "grayscale", "mask"}
        for name in options:
            if name not in valid:
                nearest = nearest_name(name, valid)
                hint = f"did you mean {nearest!r}?" if nearest else f"valid names: {', '.join(sorted(valid))}."
                raise InputError(f"{type(self).__name__}.extract has no option {name!r}; {hint}")
        self.extract(torch.zeros(3, 64, 64), **options)

    def run(self, image: Tensor, request: Request) -> Features:
        """`forward` with a request. Raises InputError where it must be heeded and `forward` knows of none."""
        if "request" in inspect.signature(self.forward).parameters:
            return self.forward({"image": image}, request)
        data = {"image": image, "request": request}
        features = self.forward(data)
        limits = request.part is not None or any(allowed is not None for allowed in request.allowed)
        if limits and "request" in data:  # nobody asked `allowed_in`
            raise InputError(
                f"{type(self).__name__}.forward takes no `request`, which masks and tiles need; extract without these, "
                "or let it take `request` and pass it on to the `forward` of a base class."
            )
        return features

    def allowed_in(self, data: Any, count: int) -> Sequence[Allowed | None]:
        """Former way to what is now `request.allowed_in(count)`, for a `forward` that takes no `request`."""
        message = "Extractor.allowed_in is deprecated; take `request` in forward and use request.allowed_in(count)."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        request: Request = data.pop("request", EVERYTHING)
        return request.allowed_in(count)

    @torch.no_grad()
    @full_precision
    def describe(self, keypoints: Tensor, img: Tensor, **preprocess: Any) -> Tensor:
        """Descriptors at keypoints that another detector found.

        Args:
            keypoints: (B, N, 2), or (N, 2) for one image, x y in px of `img`.
            img: (C, H, W) or (B, C, H, W) as for `extract`.
            preprocess: as for `extract`.

        Returns:
            (B, N, D) float32, L2-normalised. At keypoints that `extract` found these are the descriptors it gave them.

        Raises:
            InputError: for an image or an option as in `extract`, and for a keypoint that does not lie in its image.
        """
        return self.describe_at(*self.resize_with_keypoints(keypoints, img, preprocess)).float()

    def describe_at(self, image: Tensor, keypoints: Tensor) -> Tensor:
        """Descriptors (B, N, D), L2-normalised, at `keypoints` (B, N, 2), px of `image` (B, C, H, W)."""
        raise InputError(f"{type(self).__name__} cannot describe keypoints that it did not find itself.")

    def size_for_tiles(self, height: int, width: int) -> tuple[int, int]:
        """To what height and width an image of this size is resized before it is cut into tiles."""
        return height, width

    def prepare_tiles(self, read: Callable[[slice, slice], Tensor], size: tuple[int, int]) -> Any:
        """What every tile of an image must know of the whole, such as statistics; None where there is nothing.

        Called once before the tiles; `forward` finds the result as `request.part.prepared`.

        Args:
            read: the window (1, C, h, w) of given rows and columns, as `forward` would get it. The whole image may be
                too large for memory.
            size: height and width of the image, px.
        """
        return None

    def resize_with_keypoints(self, keypoints: Any, img: Any, preprocess: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The image (B, C, H, W) that `extract` would look at, and `keypoints` (B, N, 2) in px of it, checked."""
        image = self.check_image(img)
        keypoints = _check_keypoints(keypoints, image)
        resized, ratio = self.resize(image, preprocess)
        return resized, (keypoints.to(image) + 0.5) * ratio - 0.5

    def to_original(self, features: Features, ratio: Tensor) -> None:
        """From px of the resized image to px of the original, in place. ratio: (2,), new size over old."""
        features["keypoints"] = (features["keypoints"] + 0.5) / ratio - 0.5

    def resize(self, image: Tensor, preprocess: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """`image` (B, C, H, W) resized with `preprocess` over `preprocess_conf`, and the ratio (2,) of the sizes."""
        return self.resample(image, **self.resize_options(preprocess))

    def resize_options(self, preprocess: Mapping[str, Any]) -> dict[str, Any]:
        """Every option of `resize_tensor`, from `preprocess` over `preprocess_conf`; a warning about unknown names."""
        valid = ImagePreprocessor.default_conf
        options = {**self.preprocess_conf, **preprocess}
        if not options.get("grayscale"):
            options.pop("grayscale", None)  # in the published `preprocess_conf`, where nothing reads it
        unknown = [key for key in options if key not in valid]
        warn_unknown(f"{type(self).__name__}.extract", unknown, valid, stacklevel=_callers_level())
        return {key: options.get(key, default) for key, default in valid.items()}

    def resample(self, image: Tensor, resize: int | tuple[int, int] | None, **options: Any) -> tuple[Tensor, Tensor]:
        """`image` (B, C, H, W) resized with every option of `resize_tensor`, and the ratio (2,) of the sizes."""
        return resize_tensor(image, resize, **options)

    def check_image(self, image: Any) -> Tensor:
        """`image` as (B, C, H, W) on the model's device and of its dtype; InputError where it is no such thing."""
        if not isinstance(image, Tensor):
            remedy = "load_image reads a file, numpy_image_to_torch converts an array"
            raise InputError(f"The image is a {type(image).__name__}, not a torch.Tensor: {remedy}.")
        shape = tuple(image.shape)
        if image.ndim not in (3, 4) or image.numel() == 0:
            raise InputError(f"The image has shape {shape}; give (C, H, W) or (B, C, H, W), not empty.")
        if image.shape[-3] not in (1, 3):
            hint = "; permute (H, W, C) to (C, H, W)" if image.shape[-1] in (1, 3, 4) else ""
            raise InputError(f"The image has shape {shape}, {image.shape[-3]} channels; give 1 or 3{hint}.")
        if not (image.is_floating_point() or image.dtype == torch.bool):
            raise InputError(f"The image has dtype {image.dtype}; give floating point in [0, 1]: image.float() / 255.")
        image = image.to(self.reference)
        lowest, highest = (value.item() for value in torch.aminmax(image))
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise InputError("The image holds NaN or infinite values; give finite ones in [0, 1].")
        if lowest < -_TOLERANCE or highest > 1 + _TOLERANCE:
            remedy = "divide 8-bit values by 255, as load_image does"
            message = f"The image's values lie from {lowest:.4g} to {highest:.4g}, not in [0, 1]: {remedy}."
            warnings.warn(message, stacklevel=_callers_level() - 1)
        return cast(Tensor, image if image.ndim == 4 else image[None])

    def images_in(self, data: Any) -> tuple[Tensor, Tensor | None]:
        """What `forward` works on: `data["image"]` as (B, 3, H, W), and `data["image_size"]` (B, 2) or None."""
        if not isinstance(data, Mapping) or "image" not in data:
            name = type(self).__name__
            raise InputError(f'{name} takes {{"image": tensor}}; for features of an image use {name}.extract(image).')
        if not isinstance(data["image"], Tensor) or data["image"].ndim != 4:
            shape = getattr(data["image"], "shape", type(data["image"]).__name__)
            raise InputError(f'data["image"] is {shape}; give a tensor (B, C, H, W): image[None] for one image.')
        image = self.check_image(data["image"])
        size = data.get("image_size")
        if size is not None:
            fits = isinstance(size, Tensor) and size.shape == (len(image), 2)
            if not fits or not ((size >= 1) & size.isfinite()).all():
                raise InputError(f'data["image_size"] is {size!r}; give {len(image)} rows of width height, px.')
        return image.expand(-1, 3, -1, -1), size


class _Borrowed(Extractor):
    """An object that is no `Extractor` but has its `forward`."""

    def __init__(self, owner: Any) -> None:
        super().__init__()
        self.owner = owner

    def forward(self, data: Mapping[str, Any]) -> Features:  # type: ignore[override]
        """The object's own."""
        return cast(Features, self.owner.forward(data))

    def check_image(self, image: Any) -> Tensor:
        """As of any extractor; where the object has no parameters, the image stays on its device."""
        checked = super().check_image(image)
        return checked if next(self.parameters(), None) is not None else checked.to(image.device)


def _check_keypoints(keypoints: Any, image: Tensor) -> Tensor:
    """`keypoints` as (B, N, 2), all inside of `image` (B, C, H, W)."""
    if not isinstance(keypoints, Tensor) or keypoints.ndim not in (2, 3) or keypoints.shape[-1] != 2:
        shape = getattr(keypoints, "shape", type(keypoints).__name__)
        raise InputError(f"keypoints is {shape}; give a tensor (B, N, 2) of x y in px.")
    keypoints = keypoints if keypoints.ndim == 3 else keypoints[None]
    if len(keypoints) != len(image):
        raise InputError(f"There are keypoints for {len(keypoints)} images but {len(image)} images; give as many.")
    h, w = image.shape[-2:]
    limits = torch.tensor([w, h], device=keypoints.device) - 0.5
    outside = ~((keypoints >= -0.5) & (keypoints <= limits)).all(dim=-1)
    if outside.any():
        first = keypoints[outside][0].tolist()
        raise InputError(f"Keypoint {first} does not lie in the image of {w} x {h} px; give x y in its pixels.")
    return cast(Tensor, keypoints)


def _callers_level() -> int:
    """The `stacklevel` for `warn_unknown`, called beside this, that points at the line outside of the package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("lightglue", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def stack_features(features: Sequence[Features]) -> Features:
    """One dictionary with a batch dimension of the features of several images, all of N keypoints."""
    counts = [len(f["keypoints"]) for f in features]
    if len(set(counts)) > 1:
        shown = ", ".join(map(str, counts[:8])) + (", ..." if len(counts) > 8 else "")
        raise InputError(
            f"The images of this batch yield unequal numbers of keypoints ({shown}), which one tensor cannot hold: "
            "give a list of images, extract([image, ...]), and get a list of features."
        )
    return cast(Features, {key: torch.stack([f[key] for f in features]).float() for key in features[0]})  # type: ignore[literal-required]


def read_weights(source: Weights, *, commercial_only: bool = False) -> dict[str, Tensor]:
    """The state dict that `source` is, or that lies in the file or under the published name that it says."""
    if isinstance(source, (str, PathLike)):
        return weights.load_state_dict(source, commercial_only=commercial_only)
    return check_tensors(source.get("extractor", source), "weights")  # DISK's files hold it under this name
