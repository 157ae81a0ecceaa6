"""Extract an image's features tile by tile and size by size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.masks import on_mask, read_mask, read_masks
from lightglue.extractors.options import check_pyramid, check_tile
from lightglue.extractors.request import Part, Request
from lightglue.extractors.views import Tile, best_of, merge_views, tiles_of
from lightglue.images import numpy_image_to_torch, read_image, resize_image
from lightglue.timing import span
from lightglue.types import Features
from lightglue_runtime.resize import target_size

__all__ = ["extract_views"]

NEARLY_ONE = 0.9  # ratio of the sizes below which an array is averaged as it shrinks


class Viewer(Protocol):
    """What is asked of an extractor here."""

    @property
    def conf(self) -> Any: ...
    @property
    def same_point(self) -> float: ...

    def check_image(self, image: Any) -> Tensor: ...
    def resize_options(self, preprocess: Mapping[str, Any]) -> dict[str, Any]: ...
    def resample(self, image: Tensor, resize: Any, **options: Any) -> tuple[Tensor, Tensor]: ...
    def size_for_tiles(self, height: int, width: int) -> tuple[int, int]: ...
    def prepare_tiles(self, read: Callable[[slice, slice], Tensor], size: tuple[int, int]) -> Any: ...
    def run(self, image: Tensor, request: Request) -> Features: ...
    def to_original(self, features: Features, ratio: Tensor) -> None: ...


def extract_views(
    extractor: Viewer,
    image: Any,
    mask: Any,
    tile: int | None,
    pyramid: Sequence[float] | None,
    preprocess: Mapping[str, Any],
) -> list[Features]:
    """`Extractor.extract` with `tile` or `pyramid`: the features of each image of a batch, without batch dimension."""
    factors = (1.0,) if pyramid is None else check_pyramid(pyramid)
    if tile is not None:
        check_tile(tile)
        preprocess = {"resize": None, **preprocess}
        if isinstance(image, (str, PathLike)):
            image = read_image(image)
    options = extractor.resize_options(preprocess)
    if tile is not None and isinstance(image, np.ndarray):
        _check_array(image)
        own = None if mask is None else read_mask(mask, *image.shape[:2])
        return [_extract_one(extractor, image, own, tile, factors, options)]
    images = extractor.check_image(image)
    masks = read_masks(mask, images)
    return [
        _extract_one(extractor, one[None], own, tile, factors, options) for one, own in zip(images, masks, strict=True)
    ]


def _extract_one(
    extractor: Viewer,
    image: Tensor | NDArray[Any],
    mask: Tensor | None,
    tile: int | None,
    factors: Sequence[float],
    options: dict[str, Any],
) -> Features:
    limit = getattr(extractor.conf, "max_num_keypoints", None)
    limit = limit if limit is not None and limit > 0 else None
    views: list[Features] = []
    for factor in factors:
        sized, ratio = _resized(extractor, image, factor, options, tile)
        windows = WindowReader(extractor, sized)
        tiles = tiles_of(*windows.size, tile)
        prepared = extractor.prepare_tiles(windows.read, windows.size) if len(tiles) > 1 else None
        will_merge = len(tiles) * len(factors) > 1
        for one in tiles:
            part = one.part_of(*windows.size, prepared) if len(tiles) > 1 else None
            features = _extract_tile(extractor, windows, one, ratio, mask, part, will_merge)
            if "scales" in features:
                features["scales"] /= factor  # px of the image at factor 1
            views.append(features)
            if limit is not None:  # a point lies in at most four tiles of each size: those left over are not needed
                views = best_of(views, 4 * len(factors) * limit)
    # The radius is px of the image at factor 1, keypoints are in px of the original.
    radius = extractor.same_point * factors[-1] / float(ratio.min())
    merged = views[0] if len(views) == 1 else merge_views(views, limit, radius)
    h, w = _size_of(image)
    merged["image_size"] = merged["keypoints"].new_tensor([w, h])
    return merged


class WindowReader:
    """An image of which windows become tensors."""

    def __init__(self, extractor: Viewer, image: Tensor | NDArray[Any]) -> None:
        self._extractor, self._image, self.size = extractor, image, _size_of(image)

    def read(self, rows: slice, columns: slice) -> Tensor:
        """A window as (1, C, h, w), what the extractor's `forward` gets."""
        if isinstance(self._image, Tensor):
            return self._image[..., rows, columns]
        return self._extractor.check_image(numpy_image_to_torch(self._image[rows, columns]))


def _extract_tile(
    extractor: Viewer,
    image: WindowReader,
    tile: Tile,
    ratio: Tensor,  # (2,) of the whole image's size to the original's
    mask: Tensor | None,  # of the original
    part: Part | None,
    will_merge: bool,
) -> Features:
    """Features of a tile without batch dimension, keypoints in px of the original image."""
    window = image.read(slice(tile.y.start, tile.y.stop), slice(tile.x.start, tile.x.stop))
    ratio = ratio.to(window.device)
    corner = torch.tensor([tile.x.start, tile.y.start], device=window.device)

    def to_original(keypoints: Tensor) -> Tensor:
        return (keypoints + corner + 0.5) / ratio - 0.5

    def allowed(keypoints: Tensor) -> Tensor:
        owned = tile.owns(keypoints)
        return owned if mask is None else owned & on_mask(mask, to_original(keypoints))

    limited = part is not None or mask is not None
    with span("extract", width=window.shape[-1], height=window.shape[-2]):
        features = extractor.run(window, Request([allowed if limited else None], part, will_merge))
    features["keypoints"] = features["keypoints"] + corner
    extractor.to_original(features, ratio)
    return {key: value[0] for key, value in features.items()}  # type: ignore[return-value, index]


def _resized(
    extractor: Viewer, image: Tensor | NDArray[Any], factor: float, options: dict[str, Any], tile: int | None
) -> tuple[Any, Tensor]:
    """`image` at a factor of the size that `options` say, and the ratio (2,) of the sizes. Arrays keep their dtype."""
    h, w = _size_of(image)
    size = (h, w) if options["resize"] is None else target_size(h, w, options["resize"], options["side"])
    size = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    if tile is not None and max(size) > tile:
        size = extractor.size_for_tiles(*size)
    if isinstance(image, Tensor):
        return extractor.resample(image, **{**options, "resize": size})
    ratio = torch.tensor([size[1] / w, size[0] / h])
    interpolation = "area" if float(ratio.min()) < NEARLY_ONE else "linear"
    return (image if size == (h, w) else resize_image(image, size, interp=interpolation)[0]), ratio


def _size_of(image: Tensor | NDArray[Any]) -> tuple[int, int]:
    """Height and width, px."""
    h, w = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    return int(h), int(w)


def _check_array(image: NDArray[Any]) -> None:
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"The array has dtype {image.dtype}; with tile= give uint8 or uint16, or a tensor.")
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise InputError(f"Not an image: shape {image.shape}; give (H, W), (H, W, 1) or (H, W, 3), not empty.")
