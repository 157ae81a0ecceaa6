"""ONNX graphs written node by node: names that say where a tensor comes from, the same bytes for the same input.

A `ModelBuilder` holds the constants of a file, a `GraphBuilder` the nodes of its graph or of a branch of an `If`, which
sees the tensors of the graphs around it. Names count up in the order of the calls: nothing depends on hashes or time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

from lightglue.export.onnx_library import onnx

__all__ = ["OPSET", "GraphBuilder", "ModelBuilder", "TensorType", "Value"]

OPSET = 20  # the first with Gelu; LayerNormalization since 17
IR_VERSION = 10  # what ONNX Runtime 1.18 and OpenCV 5 read

Value = NewType("Value", str)  # name of a tensor in a graph

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorType:
    """Type and shape of an input or an output; a word stands for a size that is not fixed."""

    dtype: str  # of NumPy
    shape: tuple[int | str, ...]


class ModelBuilder:
    """One file: its main graph, and the constants of all graphs in it."""

    def __init__(self) -> None:
        self._constants: dict[str, Any] = {}
        self._arrays: dict[str, Array] = {}
        self.graph = GraphBuilder(self, "")
        self._inputs: list[Any] = []

    def input(self, name: str, kind: TensorType) -> Value:
        """Declare an input of the file."""
        self._inputs.append(_value_info(name, kind))
        return Value(name)

    def order_inputs(self, names: Sequence[str]) -> None:
        """Put the inputs in this order; names that there are not do no harm."""
        self._inputs.sort(key=lambda each: names.index(each.name))

    def constant(self, name: str, array: Any) -> Value:
        """A constant by its name; the same one where it was given before. Raises ValueError where they differ."""
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        known = self._arrays.get(name)
        if known is None:
            self._arrays[name] = array
            self._constants[name] = onnx().numpy_helper.from_array(array, name)
        elif known.dtype != array.dtype or not np.array_equal(known, array):
            raise ValueError(f"two constants are called {name}")
        return Value(name)

    def model(self, outputs: Mapping[str, TensorType], name: str, properties: Mapping[str, str]) -> Any:
        """The ModelProto. outputs: tensors of the main graph by name, in order."""
        helper = onnx().helper
        infos = [_value_info(each, kind) for each, kind in outputs.items()]
        graph = helper.make_graph(
            self.graph.nodes, name, self._inputs, infos, initializer=list(self._constants.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in self.graph.domains().items()],
            ir_version=IR_VERSION,
            producer_name="lightglue",
        )
        helper.set_model_props(model, dict(properties))
        return model


class GraphBuilder:
    """The nodes of one graph, appended by calls."""

    def __init__(self, model: ModelBuilder, prefix: str) -> None:
        self.model = model
        self.nodes: list[Any] = []
        self._prefix = prefix
        self._scope: tuple[str, ...] = ()
        self._counts: dict[str, int] = {}
        self._domains: dict[str, int] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names of what is added in here begin with `name/`."""
        outer = self._scope
        self._scope = (*outer, name)
        try:
            yield
        finally:
            self._scope = outer

    def __call__(self, op: str, *inputs: Value, out: str | None = None, domain: str = "", **attributes: Any) -> Value:
        """Add a node with one output. out: the output's name, where it is one of the graph's."""
        return self.several(op, 1, *inputs, names=None if out is None else [out], domain=domain, **attributes)[0]

    def several(
        self,
        op: str,
        count: int,
        *inputs: Value,
        names: Sequence[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """Add a node with several outputs."""
        name = self._name(op)
        if names is None:
            names = [name] if count == 1 else [f"{name}.{i}" for i in range(count)]
        if domain:
            self._domains[domain] = 1
        self.nodes.append(onnx().helper.make_node(op, list(inputs), names, name=name, domain=domain, **attributes))
        return [Value(each) for each in names]

    def constant(self, array: Any, name: str | None = None) -> Value:
        """A constant, by a name of the whole file or, of a number or two, without."""
        if name is None:
            array = np.asarray(array)
            text = "_".join(str(each) for each in array.flatten().tolist())
            name = f"const/{array.dtype}{'x'.join(map(str, array.shape))}/{text}"
        return self.model.constant(name, array)

    def integers(self, *values: int) -> Value:
        """(n,) int64."""
        return self.constant(np.array(values, np.int64))

    def floats(self, value: float) -> Value:
        """() float32."""
        return self.constant(np.array(value, np.float32))

    def split(self, x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
        """Cut a tensor into pieces of these sizes."""
        return self.several("Split", len(sizes), x, self.integers(*sizes), axis=axis)

    def cast(self, x: Value, dtype: str) -> Value:
        """To a type of NumPy's name."""
        return self("Cast", x, to=onnx().helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def when(
        self,
        condition: Value,
        outputs: Sequence[TensorType],
        then: tuple[str, Callable[[GraphBuilder], Sequence[Value]]],
        otherwise: tuple[str, Callable[[GraphBuilder], Sequence[Value]]],
    ) -> list[Value]:
        """`If`: each branch has a name, unique in the file, and is written by a function that returns its outputs."""
        name = self._name("If")
        branches = {
            "then_branch": self._branch(then[0], outputs, then[1]),
            "else_branch": self._branch(otherwise[0], outputs, otherwise[1]),
        }
        names = [f"{name}.{i}" for i in range(len(outputs))]
        self.nodes.append(onnx().helper.make_node("If", [condition], names, name=name, **branches))
        return [Value(each) for each in names]

    def domains(self) -> dict[str, int]:
        """Operator sets that the nodes need, with their versions."""
        return {"": OPSET, **dict(sorted(self._domains.items()))}

    def _branch(
        self, name: str, outputs: Sequence[TensorType], write: Callable[[GraphBuilder], Sequence[Value]]
    ) -> Any:
        branch = GraphBuilder(self.model, f"{name}/")
        values = write(branch)
        # A branch must make its outputs itself, each one once.
        results = [branch("Identity", value, out=f"{name}/out.{i}") for i, value in enumerate(values)]
        self._domains |= branch._domains
        infos = [_value_info(value, kind) for value, kind in zip(results, outputs, strict=True)]
        return onnx().helper.make_graph(branch.nodes, name, [], infos)

    def _name(self, op: str) -> str:
        name = f"{self._prefix}{'/'.join((*self._scope, op))}"
        self._counts[name] = count = self._counts.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"


def _value_info(name: str, kind: TensorType) -> Any:
    helper = onnx().helper
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype)), kind.shape)
