"""LightGlue under the interface of kornia: `from lightglue.kornia import LightGlueMatcher`.

The classes have the signatures and the conventions of `kornia.feature.LightGlue` and `kornia.feature.LightGlueMatcher`
(kornia 0.9, kornia/feature/lightglue.py and integrated.py), and run this package's matcher. kornia is neither needed
nor imported: its local affine frames are tensors.

A frame (LAF) is [A | c], (2, 3): c is the keypoint, x y in px with pixel centres at integers, as in this package. Its
scale is sqrt(|det A|), its orientation atan2(A[0, 1], A[0, 0]).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightglue.errors import InputError
from lightglue.matching.config import PRESETS
from lightglue.matching.inputs import pair_list
from lightglue.matching.lightglue import LightGlue as _LightGlue
from lightglue.options import nearest_name
from lightglue.types import Features, Matches

__all__ = ["LightGlue", "LightGlueMatcher"]

# What kornia sets for HardNet on DoG keypoints: its frames are six times as large as the scales of the training.
_DOG_HARDNET = {"depth_confidence": -1, "width_confidence": -1, "scale_coef": 1 / 6}
FIXED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"doghardnet": _DOG_HARDNET, "dog_affnet_hardnet": _DOG_HARDNET, "xfeat": PRESETS["xfeat"].defaults()}
)
TOLERANCE = 1.0  # px that a keypoint may lie outside; those of this package reach half a pixel
SAME_WEIGHTS: Mapping[str, Any] = {"dog_affnet_hardnet": "doghardnet"}  # kornia's name -> ours
NAMES = (*PRESETS, *SAME_WEIGHTS)
UNTRAINED_HERE = ("dedodeb", "dedodeg", "keynet_affnet_hardnet")  # names of kornia's without weights


class LightGlue(_LightGlue):
    """`kornia.feature.LightGlue`: as `lightglue.LightGlue`, but for what kornia does otherwise.

    `doghardnet` and `dog_affnet_hardnet` take `scales` of kornia's frames, which are divided by 6, and are neither
    stopped early nor pruned. Keypoints more than a pixel outside the square about the image are refused, where its size
    is given: most often its sides were exchanged. `stop` is always an int, for several pairs the largest. There is no
    `log_assignment` among the results.

    Args:
        features: one of kornia's names with weights in this package; None: the architecture is taken from `conf`.
        conf: options as in kornia, and those of `lightglue.LightGlue`. What `features` sets wins, as in kornia.

    Raises:
        InputError: an option or a features dictionary is not valid.
        WeightsError: the weights are missing, altered or do not fit.
    """

    default_conf: ClassVar[dict[str, Any]] = {**_LightGlue.default_conf, "add_laf": False, "scale_coef": 1.0}

    def __init__(self, features: str | None = "superpoint", **conf: Any) -> None:
        name = None if features is None else _checked_name(features)
        if conf.get("add_laf", False):
            raise InputError("LightGlue: add_laf=True needs the weights of keynet_affnet_hardnet, which are not here")
        options = {**conf, **FIXED.get(name or "", {})}
        super().__init__(SAME_WEIGHTS.get(name or "", name), **options)

    def forward(self, data: Mapping[str, Any]) -> Matches:
        """Match `data["image0"]` with `data["image1"]`; see `lightglue.LightGlue.forward`. Raises InputError."""
        if isinstance(data, Mapping):
            data = {key: self._as_trained(value, key) for key, value in data.items()}
        found = super().forward(data)
        found["stop"] = int(torch.as_tensor(found["stop"]).max())
        return found

    def match(self, pairs: Iterable[tuple[Features, Features]], *, layers: int | None = None) -> list[Matches]:
        """Match any number of pairs at once; see `lightglue.LightGlue.match`. Raises InputError."""
        read = (
            tuple(self._as_trained(features, f"pairs[{i}][{side}]") for side, features in enumerate(pair))
            for i, pair in enumerate(pair_list(pairs))
        )
        return super().match(list(read) if isinstance(pairs, Sequence) else read, layers=layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the matcher to a file; see `lightglue.LightGlue.save`. InputError where the file could not say all."""
        if self.feature_type is None and self.conf.scale_coef != 1:
            raise InputError(f"a saved file holds no scale_coef, which is {self.conf.scale_coef} here; save with 1")
        super().save(path)

    def _as_trained(self, features: Any, name: str) -> Any:
        """A features dictionary with the scales that the weights were trained with; what is no such thing as it is."""
        if not isinstance(features, Mapping):
            return features
        _check_inside(features, name)
        scales = features.get("scales")
        if self.conf.scale_coef == 1 or not isinstance(scales, Tensor):
            return features
        return {**features, "scales": scales * self.conf.scale_coef}


class LightGlueMatcher(nn.Module):
    """`kornia.feature.LightGlueMatcher`: descriptors and frames of two images in, matches out.

    >>> matcher = LightGlueMatcher("disk", {"filter_threshold": 0.2})
    >>> scores, indices = matcher(desc1, desc2, lafs1, lafs2, hw1=(480, 640), hw2=(480, 640))  # doctest: +SKIP

    Args:
        feature_name: one of kornia's names, in capital or small letters, with weights in this package.
        params: keywords of `LightGlue`, such as `filter_threshold`.

    Raises:
        InputError: the name, an option or an argument is not valid.
        WeightsError: the weights are missing, altered or do not fit.
    """

    known_modes: ClassVar[list[str]] = sorted(NAMES)

    def __init__(self, feature_name: str = "disk", params: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.feature_name = _checked_name(feature_name.lower() if isinstance(feature_name, str) else feature_name)
        self.match_mode = self.feature_name
        self.params = dict(params or {})
        self.matcher = LightGlue(self.feature_name, **self.params)
        self.eval()

    def forward(
        self,
        desc1: Tensor,  # (N1, D)
        desc2: Tensor,  # (N2, D)
        lafs1: Tensor,  # (1, N1, 2, 3)
        lafs2: Tensor,  # (1, N2, 2, 3)
        hw1: Sequence[int] | Tensor | None = None,  # (H, W) of the image, px
        hw2: Sequence[int] | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Match two images.

        Without `hw1` the greatest x and y of its keypoints stand for the image's size, as in kornia. Descriptors may
        have a batch dimension of 1. Fewer than two keypoints in an image give no match, as in kornia.

        Returns the matching scores (K, 1), higher is better, in the dtype of `desc1`, and the rows (index in image 1,
        index in image 2) (K, 2) int64, by increasing index in image 1. Raises InputError.
        """
        floating = isinstance(desc1, Tensor) and desc1.is_floating_point()
        dtype, device = (desc1.dtype if floating else torch.float32), getattr(desc1, "device", None)
        if any(_too_few(desc) for desc in (desc1, desc2)):  # before anything else is looked at, as in kornia
            return torch.empty(0, 1, device=device, dtype=dtype), torch.empty(0, 2, device=device, dtype=torch.int64)
        features = (
            _features(desc1, lafs1, hw1, self.feature_name, "1"),
            _features(desc2, lafs2, hw2, self.feature_name, "2"),
        )
        found = self.matcher({"image0": features[0], "image1": features[1]})
        return found["scores"][0][:, None].to(dtype), found["matches"][0]


def _too_few(desc: Any) -> bool:
    """Whether an image has fewer than two descriptors, (N, D) or (1, N, D)."""
    return isinstance(desc, Tensor) and desc.ndim in (2, 3) and desc.shape[-2] < 2


def _checked_name(name: Any) -> str:
    if isinstance(name, str) and name in NAMES:
        return name
    why = "has no weights in this package" if name in UNTRAINED_HERE else "is not a name that kornia uses"
    nearest = nearest_name(str(name), NAMES) if name not in UNTRAINED_HERE else None
    hint = f"did you mean {nearest!r}? " if nearest else ""
    raise InputError(f"LightGlue: {name!r} {why}; {hint}these work: {', '.join(sorted(NAMES))}")


def _features(desc: Any, lafs: Any, hw: Any, feature_name: str, side: str) -> dict[str, Any]:
    """The features dictionary of one image. InputError where descriptors and frames do not go together."""
    if not isinstance(lafs, Tensor) or lafs.ndim != 4 or lafs.shape[2:] != (2, 3):
        raise InputError(f"lafs{side} must be a tensor (1, N, 2, 3), not {_shape(lafs)}")
    if len(lafs) != 1:
        raise InputError(f"lafs{side} holds a batch of {len(lafs)} images; LightGlueMatcher takes one pair at a time")
    descriptors = desc[None] if isinstance(desc, Tensor) and desc.ndim == 2 else desc
    if not isinstance(descriptors, Tensor) or descriptors.ndim != 3 or descriptors.shape[:2] != lafs.shape[:2]:
        raise InputError(
            f"desc{side} must be a tensor (N, D) with N = {lafs.shape[1]}, one row a frame of lafs{side}, "
            f"not {_shape(desc)}"
        )
    frames = lafs.detach() if lafs.dtype == torch.float64 else lafs.detach().float()
    scales, oris = _scales_and_orientations(frames, feature_name)
    keypoints = frames[..., 2]
    return {
        "keypoints": keypoints,
        "descriptors": descriptors,
        "scales": scales,
        "oris": oris,
        "image_size": _size(hw, keypoints, side),
    }


def _scales_and_orientations(lafs: Tensor, feature_name: str) -> tuple[Tensor, Tensor]:
    """(1, N) px and (1, N) radians of frames (1, N, 2, 3), as the weights of `feature_name` were trained with.

    SIFT's were trained on COLMAP's: the scale is sigma, a sixth of the frame's, and the angle runs the other way, in
    (-pi, pi]. All others take the frame's scale and its orientation in [0, 2 pi).
    """
    (a, b), (c, d) = ((row[..., 0], row[..., 1]) for row in lafs[..., :2].unbind(-2))
    scales = (a * d - b * c + 1e-10).abs().sqrt()
    oris = torch.atan2(b, a)
    if feature_name == "sift":
        return scales / 6, torch.where(oris >= math.pi, oris, -oris)
    return scales, torch.where(oris < 0, oris + 2 * math.pi, oris)


def _size(hw: Any, keypoints: Tensor, side: str) -> Tensor | None:
    """(1, 2) width and height of the image; None where nothing says it."""
    if hw is None:
        return keypoints.amax(1) if keypoints.shape[1] else None
    try:
        height, width = (float(value) for value in hw)
    except (TypeError, ValueError) as error:
        raise InputError(f"hw{side} must be the two numbers (H, W) of the image, not {hw!r}") from error
    return keypoints.new_tensor([[width, height]])


def _check_inside(features: Mapping[str, Any], name: str) -> None:
    """InputError where a keypoint lies outside the square about the image, as far as the image's size is given.

    kornia refuses such keypoints, too. Whatever else may be wrong with the dictionary, the matcher finds.
    """
    keypoints, size, image = (features.get(key) for key in ("keypoints", "image_size", "image"))
    if size is None and isinstance(image, Tensor) and image.ndim >= 2:
        size = torch.tensor([image.shape[-1], image.shape[-2]])
    if not (isinstance(keypoints, Tensor) and isinstance(size, Tensor)) or size.shape[-1:] != (2,):
        return
    try:
        size = size.to(keypoints.device, torch.float32)
        half = size.amax(-1)[..., None] / 2
        beyond = int(((keypoints - size[..., None, :] / 2).abs().amax(-1) > half + TOLERANCE).sum())
    except RuntimeError:  # shapes or kinds of tensors that do not go together
        return
    if beyond:
        raise InputError(
            f"{name}: {beyond} keypoints lie outside of the image, of which (width, height) is {size.tolist()}; "
            "image_size is (width, height), but hw1 and hw2 of LightGlueMatcher are (height, width)"
        )


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
