"""How a file computes the linear products of the layers, nearly all of its time and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.parameters import Linear
from lightglue.support.checks import check_choice

__all__ = ["STRATEGIES", "Float32", "Precision", "precision"]


class Precision(Protocol):
    """Writes the nodes of a linear product."""

    name: str  # one of `contract.PRECISIONS`

    def linear(self, graph: GraphBuilder, x: Value, linear: Linear, name: str) -> Value:
        """(..., in) float32 -> (..., out) float32.

        name: of the product in the file, such as "layer_3/own/project": the same for both images, which share weights,
        so constants are to be named by it. The graph may be a branch of an `If`; `graph.constant` goes to the file.
        """


class Float32:
    """As trained."""

    name = "f32"

    def linear(self, graph: GraphBuilder, x: Value, linear: Linear, name: str) -> Value:
        """See `Precision.linear`."""
        product = graph("MatMul", x, graph.constant(linear.weight, f"{name}/weight"))
        return graph("Add", product, graph.constant(linear.bias, f"{name}/bias"))


# Name -> what makes the strategy.
STRATEGIES: Mapping[str, Callable[[], Precision]] = MappingProxyType({"f32": Float32})


def precision(name: str) -> Precision:
    """The strategy of that name. Raises InputError."""
    check_choice("precision", name, STRATEGIES)
    return STRATEGIES[name]()
