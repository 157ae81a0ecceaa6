"""How a file computes the linear products of the layers, nearly all of its time and size.

What decides (matchability, confidence, positions), attention, and the tokens between the products are float32 in every
precision. Of the heads' projections float16 alone rounds the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.parameters import Linear
from lightglue.support.checks import check_choice

__all__ = ["LARGEST", "STRATEGIES", "DynamicInt8", "Float16", "Float32", "Precision", "precision", "quantised"]

# Of a quantised weight: x86 without VNNI adds two products of a weight and an activation of up to 255 in 16 bits, which
# 127 overflows (a wrong result, not an error), so that a file would match differently from machine to machine.
LARGEST = 64


class Precision(Protocol):
    """Writes the nodes of a linear product."""

    name: str  # one of `contract.PRECISIONS`

    def linear(self, graph: GraphBuilder, x: Value, linear: Linear, name: str) -> Value:
        """(..., in) float32 -> (..., out) float32.

        name: of the product in the file, such as "layer_3/own/project": the same for both images, which share weights,
        so constants are to be named by it. The graph may be a branch of an `If`; `graph.constant` goes to the file.
        """

    def weight(self, graph: GraphBuilder, weight: NDArray[np.float32], name: str) -> Value:
        """A matrix of the heads as float32; name: of its constant."""


class Float32:
    """As trained."""

    name = "f32"

    def linear(self, graph: GraphBuilder, x: Value, linear: Linear, name: str) -> Value:
        """See `Precision.linear`."""
        product = graph("MatMul", x, self.weight(graph, linear.weight, f"{name}/weight"))
        return graph("Add", product, graph.constant(linear.bias, f"{name}/bias"))

    def weight(self, graph: GraphBuilder, weight: NDArray[np.float32], name: str) -> Value:
        """See `Precision.weight`."""
        return graph.constant(weight, name)


class Float16(Float32):
    """Weights rounded to float16, for files of half the size; the products are float32's.

    A runtime without float16 products, as on CPUs, makes the weights float32 once, when it loads the file. One that has
    them may choose them: TensorRT's `--fp16`, OpenVINO's hint of the inference precision.
    """

    name = "f16"

    def weight(self, graph: GraphBuilder, weight: NDArray[np.float32], name: str) -> Value:
        """See `Precision.weight`."""
        return graph.cast(graph.constant(weight.astype(np.float16), name), "float32")


class DynamicInt8(Float32):
    """Products of 8-bit integers: weights with one scale an output, activations with one a tensor, found as it runs.

    The nodes stand as ONNX Runtime fuses them into its `DynamicQuantizeMatMul`.
    """

    name = "int8"

    def linear(self, graph: GraphBuilder, x: Value, linear: Linear, name: str) -> Value:
        """See `Precision.linear`."""
        steps, scales = quantised(linear.weight)
        rounded, scale, zero = graph.several("DynamicQuantizeLinear", 3, x)
        weight = graph.constant(steps, f"{name}/weight")
        product = graph("MatMulInteger", rounded, weight, zero, graph.constant(np.array(0, np.int8)))
        scale = graph("Mul", scale, graph.constant(scales, f"{name}/scale"))
        product = graph("Mul", graph.cast(product, "float32"), scale)
        return graph("Add", product, graph.constant(linear.bias, f"{name}/bias"))


def quantised(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(in, out) -> integers of the same shape and (out,) scales; `integers * scales` is within half a step.

    The scale is symmetric, so that 0 stays 0; a column of zeros has the scale 1.
    """
    largest = np.abs(weight).max(axis=0)
    scales = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    steps = np.clip(np.rint(weight / scales), -LARGEST, LARGEST).astype(np.int8)
    return steps, scales


# Name -> what makes the strategy.
STRATEGIES: Mapping[str, Callable[[], Precision]] = MappingProxyType(
    {"f32": Float32, "f16": Float16, "int8": DynamicInt8}
)


def precision(name: str) -> Precision:
    """The strategy of that name. Raises InputError."""
    check_choice("precision", name, STRATEGIES)
    return STRATEGIES[name]()
