"""DISK keypoints and descriptors: the public extractor over the network of `disk_network`.

Options and their defaults are those of the published package (github.com/cvg/LightGlue), which detects with kornia 0.9
(kornia.feature.DISK): strict maxima of the heatmap, in raster order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.base import Extractor, Weights, full_precision, stack_features
from lightglue.extractors.detection import clear_border, strict_maxima, strongest, xy_of
from lightglue.extractors.disk_fast import Affine, Norms, describe, encode, heatmap
from lightglue.extractors.disk_network import PLAIN_MODULES, STRIDE, DiskNetwork
from lightglue.extractors.masks import Allowed
from lightglue.extractors.request import EVERYTHING, Request
from lightglue.extractors.views import sample_of
from lightglue.support.checks import check_bool, check_int, check_real
from lightglue.support.derived import is_plain
from lightglue.support.precision import product_dtype
from lightglue.types import Features
from lightglue.weights.state_dicts import load_strictly

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.extractors.keywords import DiskKeywords

__all__ = ["DISK", "DiskConfig"]

# Of an image in tiles, the px that the normalisations are measured on, and the side of the crops they come in.
SAMPLE, CROP = 4 * 1024**2, 128


@dataclass(frozen=True)
class DiskConfig:
    """Options of DISK."""

    weights: Weights = "depth"  # "depth", "epipolar", a file, or a state dict
    max_num_keypoints: int | None = None  # None: no limit
    desc_dim: int = 128  # other than 128 only with weights of your own
    nms_window_size: int = 5  # px, side of the window that a keypoint must be the maximum of
    detection_threshold: float = 0.0  # keypoints score above it
    pad_if_not_divisible: bool = True  # add zeros at the right and bottom where a side is no multiple of 16
    mp: bool = False  # convolve in reduced precision where the device is fast at it

    def __post_init__(self) -> None:
        if not isinstance(self.weights, (str, PathLike, Mapping)):
            raise InputError(f'weights is {self.weights!r}; give "depth", "epipolar", a path or a state dict.')
        if self.max_num_keypoints is not None:
            check_int("max_num_keypoints", self.max_num_keypoints, 0, "an integer of at least 0, None for no limit")
        check_int("desc_dim", self.desc_dim, 1, "a positive integer")
        check_int("nms_window_size", self.nms_window_size, 1, "a window's side in px, a positive integer")
        check_real("detection_threshold", self.detection_threshold, "a number")
        check_bool("pad_if_not_divisible", self.pad_if_not_divisible)
        check_bool("mp", self.mp)


class DISK(Extractor):
    """DISK (arXiv:2006.13566): `DISK(max_num_keypoints=2048).eval()`.

    Args:
        commercial_only: refuse weights whose licence forbids commercial use.
        conf: the options of `DiskConfig`.

    Raises:
        InputError: for an option's value.
        WeightsError: where the weights cannot be had or do not fit.
    """

    config_type = DiskConfig
    reference_name = "model.unet.first.conv.weight"
    default_conf: ClassVar[dict[str, Any]] = asdict(DiskConfig())
    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": 1024, "grayscale": False}

    def __init__(self, *, commercial_only: bool = False, **conf: Unpack[DiskKeywords]) -> None:
        super().__init__(**conf)
        options = self.options()
        source = f"disk-{options.weights}" if options.weights in ("depth", "epipolar") else options.weights
        self.model = DiskNetwork(options.desc_dim)
        load_strictly(self.model, self.read_weights(source, commercial_only=commercial_only), "DISK")
        self.eval()

    @full_precision
    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        """See `Extractor.forward`.

        Returns:
            keypoints (B, N, 2), keypoint_scores (B, N), not bounded, and descriptors (B, N, D), all float32.
        """
        options = self.options()
        image, image_size = self.images_in(data)
        h, w = image.shape[-2:]
        if not options.pad_if_not_divisible and (h % STRIDE or w % STRIDE):
            remedy = "resize it or leave pad_if_not_divisible=True"
            raise InputError(f"The image of {w} x {h} px has a side that is no multiple of {STRIDE}; {remedy}.")
        image = F.pad(image, (0, -w % STRIDE, 0, -h % STRIDE))
        sizes = [None] * len(image) if image_size is None else [size[None] for size in image_size]
        each = zip(image, sizes, request.allowed_in(len(image)), strict=True)
        norms = None if request.part is None else request.part.prepared
        return stack_features([self._features(*args, h, w, options, norms) for args in each])

    def _features(
        self,
        image: Tensor,
        image_size: Tensor | None,
        allowed: Allowed | None,
        h: int,
        w: int,
        options: DiskConfig,
        norms: Sequence[Affine] | None,
    ) -> Features:
        """Features of an image (3, H, W) that was padded to multiples of 16 from `h` and `w`."""
        heat, describe_at = self._read(_float(image), options, norms)
        heat = heat[:h, :w].float()
        pixels = xy_of(_detect(heat.detach(), image_size, options, allowed), w)
        descriptors = F.normalize(describe_at(pixels), dim=-1)
        scores = heat[pixels[:, 1], pixels[:, 0]]
        return {"keypoints": pixels.to(scores), "keypoint_scores": scores, "descriptors": descriptors}

    def describe_at(self, image: Tensor, keypoints: Tensor) -> Tensor:
        """Descriptors (B, N, D), L2-normalised, at `keypoints` (B, N, 2), px of `image` (B, C, H, W).

        Between pixels, those of the four around are interpolated.
        """
        options = self.options()
        h, w = image.shape[-2:]
        padded = F.pad(image.expand(-1, 3, -1, -1), (0, -w % STRIDE, 0, -h % STRIDE))
        found = []
        for one, xy in zip(padded, keypoints, strict=True):
            _, at_pixels = self._read(_float(one), options)
            xy = xy.clamp(min=0).minimum(xy.new_tensor([w - 1, h - 1]))
            low = xy.floor()
            (right, down), steps = (xy - low).unbind(-1), xy.new_tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
            weights = torch.stack(((1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down))
            corners = (low + steps[:, None]).minimum(xy.new_tensor([w - 1, h - 1])).long()
            four = at_pixels(corners.flatten(0, 1))
            found.append((four.view(4, len(xy), four.shape[1]) * weights[..., None]).sum(0))
        return F.normalize(torch.stack(found), dim=-1)

    def prepare_tiles(self, read: Callable[[slice, slice], Tensor], size: tuple[int, int]) -> list[Affine] | None:
        """The instance normalisations: a tile's own would raise its scores by how dull it is beside the others."""
        if not is_plain(self.model, PLAIN_MODULES):
            return None
        image = sample_of(read, size, SAMPLE, CROP)[0].expand(3, -1, -1)
        image = F.pad(image, (0, -image.shape[2] % STRIDE, 0, -image.shape[1] % STRIDE))
        norms = Norms()
        encode(self.model, _float(image), product_dtype(image.device, self.options().mp), norms)
        return norms.taken

    def _read(
        self, image: Tensor, options: DiskConfig, norms: Sequence[Affine] | None = None
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The heatmap (H, W) of an image (3, H, W), and what gives the descriptors (N, D) at pixels (N, 2).

        `norms` are those to normalise with instead of the image's own; a network with hooks does not heed them.
        """
        if is_plain(self.model, PLAIN_MODULES):
            encoded = encode(self.model, image, product_dtype(image.device, options.mp), Norms(norms))
            return heatmap(self.model, encoded), partial(describe, self.model, encoded)
        heat, dense = self.model(image[None].to(self.reference))  # with the user's hooks and modules
        return heat[0, 0], lambda pixels: dense[0, :, pixels[:, 1], pixels[:, 0]].T


def _float(image: Tensor) -> Tensor:
    """`image` in the dtype for all but the convolutions, which are in the model's."""
    return image.float() if image.dtype in (torch.float16, torch.bfloat16) else image


def _detect(heat: Tensor, image_size: Tensor | None, options: DiskConfig, allowed: Allowed | None) -> Tensor:
    """The flat indices (N,) of the keypoints of a heatmap (H, W), in raster order.

    Where there are more than the limit, the best; of those that tie at the cut, the first.
    """
    window = min(options.nms_window_size, max(heat.shape) + 1)  # one that does not fit gives nothing
    maxima = strict_maxima(heat[None, None], window) & (heat > float(options.detection_threshold))
    if image_size is not None:
        maxima = clear_border(maxima, (window - 1) // 2, window // 2, image_size)
    indices = maxima.flatten().nonzero()[:, 0]
    if allowed is not None:
        indices = indices[allowed(xy_of(indices, heat.shape[-1]).to(heat))]
    if options.max_num_keypoints is not None and len(indices) > options.max_num_keypoints:
        indices = indices[strongest(heat.flatten()[indices], options.max_num_keypoints)].sort().values
    return indices
