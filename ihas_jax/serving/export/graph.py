"""A graph of ONNX in the making: its nodes, its constants, and the values between them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 23
"""The version of ONNX's operators: the newest that the runtimes of the last year read."""
NUMBERS = (np.float32, np.float64, np.int32, np.int64)
"""The types of numbers that every operator of onnxruntime has."""


def wider(dtype: Any) -> type:
    """The type of `NUMBERS` that holds numbers of another type."""
    return np.float32 if jnp.issubdtype(dtype, np.floating) else np.int64


@dataclass(frozen=True, eq=False)
class Value:
    """A value of a traced function: known when the graph is made, or calculated by it.

    Attributes:
      shape: its shape; the number of rows is a symbol of JAX.
      dtype: its type in JAX.
      array: what is known, None for what a node calculates.
      name: the name of what a node calculates.
      full: whether array or node have this shape; otherwise they broadcast to it, as in NumPy.
    """

    shape: tuple[Any, ...]
    dtype: np.dtype[Any]
    array: np.ndarray | None = None
    name: str = ""
    full: bool = True


@dataclass
class Graph:
    """Nodes and constants of a graph, in the order of their calculation.

    Attributes:
      symbol: JAX's symbol of the number of rows.
      rows: name of the number of rows, `[1]` int64.
    """

    symbol: Any
    rows: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _names: dict[Any, str] = field(default_factory=dict)
    _count: int = 0

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Adds a node; returns the name of its first output, the others end in _1, _2, ..."""
        name = f"{operator.lower()}_{self._count}"
        self._count += 1
        names = [name, *(f"{name}_{n}" for n in range(1, outputs))]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return name

    def constant(self, array: Any, dtype: Any = None) -> str:
        """The name of a constant; equal ones are stored once."""
        array = np.ascontiguousarray(array, dtype).reshape(np.shape(array))
        content = hashlib.blake2b(array.reshape(-1).view(np.uint8)).digest()
        key = array.dtype.str, array.shape, content
        if key not in self._names:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = numpy_helper.from_array(array, name)
            self._names[key] = name
        return self._names[key]

    def integers(self, *numbers: int) -> str:
        """The name of a constant `[n]` int64."""
        return self.constant(numbers, np.int64)

    def name(self, value: Value) -> str:
        """The name of a value, which broadcasts to the value's shape."""
        return value.name if value.array is None else self.constant(value.array)

    def whole(self, value: Value) -> Value:
        """The value in its full shape."""
        if value.full:
            return value
        if value.array is not None and not self._open(value.shape):
            return replace(value, array=np.broadcast_to(value.array, value.shape), full=True)
        name = self.node("Expand", self.name(value), self.shape(value.shape))
        return Value(value.shape, value.dtype, name=name)

    def full(self, value: Value) -> str:
        """The name of a value in its full shape."""
        return self.name(self.whole(value))

    def shape(self, dims: Sequence[Any]) -> str:
        """The name of a shape `[n]` int64, of numbers and multiples of the number of rows."""
        if not self._open(dims):
            return self.integers(*dims)
        return self.node("Concat", *map(self._dim, dims), axis=0)

    def _open(self, dims: Sequence[Any]) -> bool:
        return any(not isinstance(dim, int) for dim in dims)

    def _dim(self, dim: Any) -> str:
        if isinstance(dim, int):
            return self.integers(dim)
        times = dim // self.symbol
        if not isinstance(times, int) or times * self.symbol != dim:
            raise NotImplementedError(f"an array with an axis of {dim} entries")
        return self.rows if times == 1 else self.node("Mul", self.rows, self.integers(times))

    def reshaped(self, value: Value, shape: Sequence[Any]) -> Value:
        """The value in another shape."""
        shape = tuple(shape)
        if value.shape == shape:
            return value
        value = self.whole(value)
        if value.array is not None:
            return replace(value, array=value.array.reshape(shape), shape=shape)
        # a 0 keeps the axis of that place, which needs no node to calculate the shape
        dims = [
            0
            if not isinstance(dim, int) and n < len(value.shape) and dim == value.shape[n]
            else dim
            for n, dim in enumerate(shape)
        ]
        if self._open(dims):  # a number of rows of 0 is none that keeps an axis
            name = self.node("Reshape", value.name, self.shape(shape), allowzero=1)
        else:
            name = self.node("Reshape", value.name, self.shape(dims))
        return Value(shape, value.dtype, name=name)

    def transposed(self, value: Value, axes: Sequence[int]) -> Value:
        """The value with its axes in another order."""
        if list(axes) == sorted(axes):
            return value
        value, shape = self.whole(value), tuple(value.shape[axis] for axis in axes)
        if value.array is not None:
            return replace(value, array=value.array.transpose(axes), shape=shape)
        return Value(shape, value.dtype, name=self.node("Transpose", value.name, perm=list(axes)))

    def cast(self, name: str, dtype: Any) -> str:
        """The name of an array in another type."""
        return self.node("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def calculated(
        self,
        operator: str,
        dtype: Any,
        *numbers: str,
        beside: Sequence[str] = (),
        **attributes: Any,
    ) -> str:
        """The name of what an operator calculates with numbers of a type.

        Types that onnxruntime may lack pass through wider ones: whole numbers and truth values
        through int64, and come back with the bits that overflow cut off.

        Args:
          operator: the operator.
          dtype: the type of the numbers and of the result.
          numbers: names of inputs of that type.
          beside: names of further inputs, of types of their own.
          attributes: those of the operator.
        """
        if dtype in NUMBERS:
            return self.node(operator, *numbers, *beside, **attributes)
        names = [self.cast(one, wider(dtype)) for one in numbers]
        return self.cast(self.node(operator, *names, *beside, **attributes), dtype)

    @contextmanager
    def branch(self) -> Iterator[list[onnx.NodeProto]]:
        """Yields the nodes that are added while the block runs, which are left out here."""
        before, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = before

    def trim(self, outputs: Sequence[str]) -> None:
        """Leaves out nodes and constants that no output needs."""
        self.nodes, needed = used(self.nodes, outputs)
        self.constants = {n: tensor for n, tensor in self.constants.items() if n in needed}


def used(
    nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that outputs need, in their order, and the names of all that they read."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            for attribute in node.attribute:
                needed |= {name for inner in attribute.g.node for name in inner.input}
            kept.append(node)
    return kept[::-1], needed


class Call(NamedTuple):
    """A primitive of JAX that is to be translated.

    Attributes:
      graph: where nodes are added.
      values: the inputs.
      outputs: shapes and types of the outputs.
      params: what else the primitive was given, by name.
    """

    graph: Graph
    values: list[Value]
    outputs: list[Any]
    params: dict[str, Any]

    def made(self, *names: str, full: bool = True) -> list[Value]:
        """The outputs, which nodes of these names calculate."""
        return [
            Value(output.shape, output.dtype, name=name, full=full)
            for output, name in zip(self.outputs, names, strict=True)
        ]


Rule = Callable[[Call], list[Value]]
"""The outputs of a primitive. A rule raises `NotImplementedError` with the words for what it
lacks."""
