"""Extract an image's features tile by tile and size by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.masks import on_mask, read_mask, read_masks
from lightglue.extractors.options import check_pyramid, check_tile
from lightglue.extractors.views import Part, Tile, best_of, merge_views, tiles_of
from lightglue.images import numpy_image_to_torch, read_image, resize_image
from lightglue.images.resampling import target_size
from lightglue.timing import span
from lightglue.types import Features

if TYPE_CHECKING:
    from lightglue.extractors.base import Extractor

__all__ = ["extract_views"]

NEARLY_ONE = 0.9  # scale below which an array is averaged as it shrinks


def extract_views(
    extractor: Extractor,
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
    extractor: Extractor,
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
        sized, scales = _resized(extractor, image, factor, options, tile)
        whole = Whole(extractor, sized)
        tiles = tiles_of(*whole.size, tile)
        prepared = extractor.prepare_tiles(whole.read, whole.size) if len(tiles) > 1 else None
        will_merge = len(tiles) * len(factors) > 1
        for one in tiles:
            part = one.part_of(*whole.size, prepared) if len(tiles) > 1 else None
            features = _extract_tile(extractor, whole, one, scales, mask, part, will_merge)
            if "scales" in features:
                features["scales"] /= factor  # px of the image at scale 1
            views.append(features)
            if limit is not None:  # a point lies in at most four tiles of each size: those left over are not needed
                views = best_of(views, 4 * len(factors) * limit)
    # The radius is px of the image at scale 1, keypoints are in px of the original.
    radius = extractor.same_point * factors[-1] / float(scales.min())
    merged = views[0] if len(views) == 1 else merge_views(views, limit, radius)
    h, w = _size_of(image)
    merged["image_size"] = merged["keypoints"].new_tensor([w, h])
    return merged


class Whole:
    """An image of which windows become tensors."""

    def __init__(self, extractor: Extractor, image: Tensor | NDArray[Any]) -> None:
        self._extractor, self._image, self.size = extractor, image, _size_of(image)

    def read(self, rows: slice, columns: slice) -> Tensor:
        """A window as (1, C, h, w), what the extractor's `forward` gets."""
        if isinstance(self._image, Tensor):
            return self._image[..., rows, columns]
        return self._extractor.check_image(numpy_image_to_torch(self._image[rows, columns]))


def _extract_tile(
    extractor: Extractor,
    whole: Whole,
    tile: Tile,
    scales: Tensor,  # (2,) of the whole, from px of the original
    mask: Tensor | None,  # of the original
    part: Part | None,
    will_merge: bool,
) -> Features:
    """Features of a tile without batch dimension, keypoints in px of the original image."""
    window = whole.read(slice(tile.y.start, tile.y.stop), slice(tile.x.start, tile.x.stop))
    scales = scales.to(window.device)
    corner = torch.tensor([tile.x.start, tile.y.start], device=window.device)

    def to_original(keypoints: Tensor) -> Tensor:
        return (keypoints + corner + 0.5) / scales - 0.5

    def allowed(keypoints: Tensor) -> Tensor:
        owned = tile.owns(keypoints)
        return owned if mask is None else owned & on_mask(mask, to_original(keypoints))

    limited = part is not None or mask is not None
    with span("extract", width=window.shape[-1], height=window.shape[-2]):
        data = {"image": window, "allowed": [allowed if limited else None], "part": part, "will_merge": will_merge}
        features = extractor.forward(data)
    features["keypoints"] = features["keypoints"] + corner
    extractor.to_original(features, scales)
    return {key: value[0] for key, value in features.items()}  # type: ignore[return-value, index]


def _resized(
    extractor: Extractor, image: Tensor | NDArray[Any], factor: float, options: dict[str, Any], tile: int | None
) -> tuple[Any, Tensor]:
    """`image` at a factor of the size that `options` say, and its scales (2,). Arrays keep their dtype, by OpenCV."""
    h, w = _size_of(image)
    size = (h, w) if options["resize"] is None else target_size(h, w, options["resize"], options["side"])
    size = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    if tile is not None and max(size) > tile:
        size = extractor.size_for_tiles(*size)
    if isinstance(image, Tensor):
        return extractor.resample(image, **{**options, "resize": size})
    scales = torch.tensor([size[1] / w, size[0] / h])
    interpolation = "area" if float(scales.min()) < NEARLY_ONE else "linear"
    return (image if size == (h, w) else resize_image(image, size, interp=interpolation)[0]), scales


def _size_of(image: Tensor | NDArray[Any]) -> tuple[int, int]:
    """Height and width, px."""
    h, w = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    return int(h), int(w)


def _check_array(image: NDArray[Any]) -> None:
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"The array has dtype {image.dtype}; with tile= give uint8 or uint16, or a tensor.")
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise InputError(f"Not an image: shape {image.shape}; give (H, W), (H, W, 1) or (H, W, 3), not empty.")
