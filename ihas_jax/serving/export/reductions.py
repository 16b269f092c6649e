"""Primitives of JAX that sum, compare or multiply along axes, as nodes of ONNX."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ihas_jax.serving.export.graph import Call, Graph, Rule, Value


def _reduced(operator: str) -> Rule:
    def rule(call: Call) -> list[Value]:
        (value,), axes = call.values, call.graph.integers(*call.params["axes"])
        name = call.graph.full(value)
        made = call.graph.calculated(operator, value.dtype, name, beside=[axes], keepdims=0)
        return call.made(made)

    return rule


def _place_of(operator: str) -> Rule:
    """The place of the largest or smallest number, the first of equal ones."""

    def rule(call: Call) -> list[Value]:
        (value,), (axis,), graph = call.values, call.params["axes"], call.graph
        name = graph.full(value)
        if value.dtype not in (np.float32, np.int32):
            name = graph.cast(name, np.int32 if value.dtype == bool else np.float64)
        made = graph.node(operator, name, axis=axis, keepdims=0)
        return call.made(graph.cast(made, call.outputs[0].dtype))

    return rule


def _top(call: Call) -> list[Value]:
    """The largest numbers and their places, the first of equal ones first."""
    (value,), graph = call.values, call.graph
    axis = call.params.get("axis", -1)
    if axis not in (-1, len(value.shape) - 1):
        raise NotImplementedError("a choice of the largest along another axis than the last")
    name = graph.node("TopK", graph.full(value), graph.integers(call.params["k"]), outputs=2)
    return call.made(name, graph.cast(f"{name}_1", call.outputs[1].dtype))


def _running_sum(call: Call) -> list[Value]:
    (value,), params, graph = call.values, call.params, call.graph
    axis, reverse = graph.constant(params["axis"], np.int64), int(params["reverse"])
    name = graph.full(value)
    made = graph.calculated("CumSum", value.dtype, name, beside=[axis], reverse=reverse)
    return call.made(made)


def _running(operator: str) -> Rule:
    """The largest or smallest number so far: of the last 2 entries, then of 4, of 8, ..."""

    def rule(call: Call) -> list[Value]:
        (value,), params, graph = call.values, call.params, call.graph
        axis, size, name = params["axis"], value.shape[params["axis"]], graph.full(value)
        step, along = 1, graph.integers(axis)

        def part(start: int, end: int) -> str:
            return graph.node("Slice", name, graph.integers(start), graph.integers(end), along)

        while step < size:
            moved, kept = (part(0, size - step), part(step, size))
            rest = part(size - step, size) if params["reverse"] else part(0, step)
            found = graph.calculated(operator, value.dtype, moved, kept)
            parts = [found, rest] if params["reverse"] else [rest, found]
            name = graph.node("Concat", *parts, axis=axis)
            step *= 2
        return call.made(name)

    return rule


def _product(call: Call) -> list[Value]:
    """Products of matrices, after other axes are joined; bfloat16 adds up in float32.

    Einsum would do the same in a node, but that of onnxruntime ends the process where a batch has
    no rows.
    """
    graph, (output,) = call.graph, call.outputs
    (left_sum, right_sum), (left_each, right_each) = call.params["dimension_numbers"]
    left, right = (_widened(graph, value, output.dtype) for value in call.values)
    left_free, right_free = (
        [n for n in range(len(value.shape)) if n not in (*summed, *each)]
        for value, summed, each in ((left, left_sum, left_each), (right, right_sum, right_each))
    )
    each, columns = [left.shape[n] for n in left_each], [right.shape[n] for n in right_free]
    left_rows = [left.shape[n] for n in left_free]
    length = math.prod(left.shape[n] for n in left_sum)
    left = graph.transposed(left, [*left_each, *left_free, *left_sum])
    right = graph.transposed(right, [*right_each, *right_sum, *right_free])
    rows = [math.prod(left_rows)] if each else left_rows  # without `each`, axes may stay apart
    left = graph.reshaped(left, [*each, *rows, length])
    right = graph.reshaped(right, [*each, length, math.prod(columns)])
    made = graph.node("MatMul", graph.full(left), graph.full(right))
    shape = (*each, *rows, math.prod(columns))
    return [graph.reshaped(Value(shape, output.dtype, name=made), output.shape)]


def _widened(graph: Graph, value: Value, dtype: Any) -> Value:
    if value.dtype == dtype:
        return value
    if value.array is not None:
        return replace(value, array=value.array.astype(dtype), dtype=dtype)
    return replace(value, name=graph.cast(value.name, dtype), dtype=dtype)


REDUCTIONS: dict[str, Rule] = {
    "argmax": _place_of("ArgMax"),
    "argmin": _place_of("ArgMin"),
    "cummax": _running("Max"),
    "cummin": _running("Min"),
    "cumsum": _running_sum,
    "dot_general": _product,
    "reduce_and": _reduced("ReduceMin"),
    "reduce_max": _reduced("ReduceMax"),
    "reduce_min": _reduced("ReduceMin"),
    "reduce_or": _reduced("ReduceMax"),
    "reduce_prod": _reduced("ReduceProd"),
    "reduce_sum": _reduced("ReduceSum"),
    "top_k": _top,
}
"""Rules by the names of primitives."""
