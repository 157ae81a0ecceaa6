"""Models that are loaded and ready."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from lightglue.models.choice import Models
from lightglue.support.caches import BoundedCache
from lightglue.support.precision import product_dtype

__all__ = ["LoadedModels", "load_models", "precision_of"]


@dataclass(frozen=True, eq=False)
class LoadedModels:
    """An extractor and a matcher, ready, and what they were chosen by. Threads may share them."""

    choice: Models
    extractor: Any
    matcher: Any

    @property
    def backend(self) -> str:
        """What the matcher computes in: "torch", "onnx" or "openvino"."""
        return str(getattr(self.matcher, "runtime", "torch"))

    @property
    def precision(self) -> str:
        """The precision of the matcher's products."""
        return precision_of(self.matcher)


def precision_of(matcher: Any) -> str:
    """The precision of a matcher's products, in words: "bfloat16 products" or "float32"."""
    if hasattr(matcher, "precision"):  # of another backend than torch
        return str(matcher.precision)
    own = next(matcher.parameters(), None)
    if own is None:  # nearest neighbours
        return "float32"
    dtype = product_dtype(own.device, matcher.conf.mp) or own.dtype
    return f"{dtype}".removeprefix("torch.") + (" products" if dtype != own.dtype else "")


_LOADED: BoundedCache[str, LoadedModels] = BoundedCache(2)
_MATCHERS: BoundedCache[str, Any] = BoundedCache(2)  # which take a second to load, and serve any number of keypoints
_LOADING = Lock()


def load_models(choice: Models) -> LoadedModels:
    """Models that are loaded once; the last two choices are kept, which share a matcher where they can."""
    with _LOADING:
        choice = choice.settled()
        weights = "" if choice.own is None else choice.own.sha256  # the file may have changed
        settled, about = replace(choice, mp=choice.with_mp()), f"{weights} on {choice.found_device()}"
        alike = replace(settled, extractor={})
        if choice.backend != "auto":  # which chooses by the number of keypoints
            alike = replace(alike, max_keypoints=1)
        return _LOADED.get(
            f"{settled} {about}",
            lambda: LoadedModels(
                choice, choice.load_extractor(), _MATCHERS.get(f"{alike} {about}", choice.load_matcher)
            ),
        )
