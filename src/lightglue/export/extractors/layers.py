"""Layers of convolutional networks as nodes: weights by name, batch norms multiplied into the convolutions before them.

Maps are (1, C, H, W) of any height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightglue.export.builder import GraphBuilder, Value

__all__ = [
    "Kernel",
    "array",
    "conv",
    "height_width",
    "kernel",
    "lengths",
    "merged",
    "normalised",
    "padded_below",
    "pool",
    "resized",
]

Floats = NDArray[np.float32]
SHORTEST = 1e-12  # length that a vector is divided by (torch's default for `normalize`)


@dataclass(frozen=True)
class Kernel:
    """Of a convolution."""

    weight: Floats  # (O, C, k, k)
    bias: Floats | None  # (O,)

    def of_inputs(self, channels: slice) -> Kernel:
        """The part of the weight that reads these channels, without the bias."""
        return Kernel(np.ascontiguousarray(self.weight[:, channels]), None)


def array(tensor: Any) -> Floats:
    """A tensor as NumPy has it, float32."""
    found: Floats = np.ascontiguousarray(tensor.detach().cpu().float().numpy())
    return found


def kernel(layer: Any) -> Kernel:
    """Of an `nn.Conv2d` as it is."""
    return Kernel(array(layer.weight), None if layer.bias is None else array(layer.bias))


def merged(layer: Any, norm: Any) -> Kernel:
    """Of an `nn.Conv2d` without bias and the batch norm after it, multiplied in float64."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert layer.bias is None
    mean, variance = (t.double() for t in _statistics(norm))
    gain = (variance + norm.eps).rsqrt()
    shift = torch.zeros_like(gain)
    if norm.affine:
        gain, shift = gain * norm.weight.detach().double(), norm.bias.detach().double()
    return Kernel(array(layer.weight.detach().double() * gain[:, None, None, None]), array(shift - mean * gain))


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def conv(g: GraphBuilder, name: str, x: Value, given: Kernel, stride: int = 1, padded: bool = True) -> Value:
    """Convolution with zeros around the map, so that only the stride makes it smaller. name: of the weights."""
    tensors = [g.constant(given.weight, f"{name}/weight")]
    if given.bias is not None:
        tensors.append(g.constant(given.bias, f"{name}/bias"))
    side = given.weight.shape[-1]
    pads = [side // 2 if padded else 0] * 4
    return g("Conv", x, *tensors, kernel_shape=[side, side], pads=pads, strides=[stride, stride])


def pool(g: GraphBuilder, x: Value, side: int) -> Value:
    """Mean of squares of pixels."""
    return g("AveragePool", x, kernel_shape=[side, side], strides=[side, side])


def height_width(g: GraphBuilder, x: Value) -> Value:
    """(2,) int64 of a map."""
    return g("Shape", x, start=2, end=4)


def padded_below(g: GraphBuilder, x: Value, multiple: int) -> Value:
    """With zeros at the right and the bottom, so that the sides are multiples."""
    missing = g("Mod", g("Neg", height_width(g, x)), g.integers(multiple))
    return g("Pad", x, g("Concat", g.integers(0, 0, 0, 0, 0, 0), missing, axis=0))


def resized(g: GraphBuilder, x: Value, channels: int, size: Value, align_corners: bool) -> Value:
    """Bilinear, to the height and width `size` (2,) int64."""
    sizes = g("Concat", g.integers(1, channels), size, axis=0)
    mode = "align_corners" if align_corners else "half_pixel"
    return g("Resize", x, Value(""), Value(""), sizes, mode="linear", coordinate_transformation_mode=mode)


def normalised(g: GraphBuilder, x: Value, axis: int) -> Value:
    """Vectors along an axis, divided by their lengths."""
    return g("Div", x, lengths(g, x, axis))


def lengths(g: GraphBuilder, x: Value, axis: int) -> Value:
    """Of the vectors along an axis, which stays as one of length 1; none is 0."""
    return g("Max", g("ReduceL2", x, g.integers(axis), keepdims=1), g.floats(SHORTEST))
