"""From an extractor to the nodes of its network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightglue.errors import InputError, ModelError
from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.extractors.aliked import write_aliked
from lightglue.export.extractors.disk import write_disk
from lightglue.export.extractors.keypoints import Found, Request
from lightglue.export.extractors.raco import write_raco
from lightglue.export.extractors.superpoint import write_superpoint
from lightglue.export.extractors.xfeat import write_xfeat
from lightglue.extractors import aliked_folding, disk_network, xfeat_fast
from lightglue.extractors.aliked import ALIKED
from lightglue.extractors.base import Extractor
from lightglue.extractors.disk import DISK
from lightglue.extractors.raco import RaCo
from lightglue.extractors.superpoint import SuperPoint
from lightglue.extractors.xfeat import XFeat
from lightglue.support.derived import is_plain

__all__ = ["write_graph"]


def write_graph(g: GraphBuilder, extractor: Extractor, image: Value, request: Request) -> Found:
    """The keypoints of an image (1, 3, H, W). Raises InputError and ModelError as `write_extractor` does."""
    for kind, write in _WRITERS.items():
        if isinstance(extractor, kind):
            return write(g, extractor, image, request)
    raise InputError(
        f"{type(extractor).__name__} cannot be written as a model: it finds keypoints without a network. Extract them "
        "with OpenCV or pycolmap, and write the matcher alone."
    )


def _aliked(g: GraphBuilder, extractor: Any, image: Value, request: Request) -> Found:
    _check(extractor, not extractor._is_rebuilt() and aliked_folding.is_foldable(extractor.network))
    return write_aliked(g, extractor.network, extractor.options().nms_radius, image, request)


def _disk(g: GraphBuilder, extractor: Any, image: Value, request: Request) -> Found:
    _check(extractor, is_plain(extractor.model, disk_network.PLAIN_MODULES))
    return write_disk(g, extractor.model, extractor.options().nms_window_size, image, request)


def _xfeat(g: GraphBuilder, extractor: Any, image: Value, request: Request) -> Found:
    _check(extractor, xfeat_fast.is_foldable(extractor.network))
    return write_xfeat(g, extractor.network, extractor.options().nms_radius, image, request)


def _superpoint(g: GraphBuilder, extractor: Any, image: Value, request: Request) -> Found:
    options = extractor.options()
    return write_superpoint(g, extractor.network, options.nms_radius, options.remove_borders or 0, image, request)


def _raco(g: GraphBuilder, extractor: Any, image: Value, request: Request) -> Found:
    options = extractor.options()
    if extractor.aliked is None:
        raise InputError("this RaCo has no descriptors, descriptor=None; name an ALIKED there to write a model.")
    if options.sort_by_ranker:
        raise InputError("sort_by_ranker is True, and keypoints of a model come best score first; set it to False.")
    _check(extractor.aliked, aliked_folding.is_foldable(extractor.aliked.network))
    return write_raco(g, extractor.network, extractor.aliked.network, options, image, request)


_WRITERS: Mapping[type[Extractor], Callable[[GraphBuilder, Any, Value, Request], Found]] = {
    ALIKED: _aliked,
    DISK: _disk,
    XFeat: _xfeat,
    SuperPoint: _superpoint,
    RaCo: _raco,
}


def _check(extractor: Extractor, is_plain: bool) -> None:
    if not is_plain:
        raise ModelError(
            f"this {type(extractor).__name__} has a module that was replaced, a hook, is in training or in half "
            "precision, which a file cannot hold; export one without, after `.eval().float()`."
        )
