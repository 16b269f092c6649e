"""Primitives of JAX that calculate number by number, as nodes of ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ihas_jax.serving.export.graph import NUMBERS, Call, Graph, Rule, Value, wider

Make = Callable[..., str]
"""`make(graph, dtype, *names, **params) -> name`, where the type is that of the last input. Most
params say how JAX calculates, and not what."""


def elementwise(make: Make) -> Rule:
    """The rule of a calculation whose inputs broadcast as in NumPy."""

    def rule(call: Call) -> list[Value]:
        graph, values, (output,) = call.graph, call.values, call.outputs
        name = make(graph, values[-1].dtype, *map(graph.name, values), **call.params)
        full = any(value.full and value.shape == output.shape for value in values)
        return call.made(name, full=full)

    return rule


def same(call: Call) -> list[Value]:
    """The rule of primitives that change nothing in prediction."""
    return call.values


def _as(operator: str) -> Rule:
    """The rule of an operator that calculates the same."""
    return elementwise(
        lambda graph, dtype, *names, **params: graph.calculated(operator, dtype, *names)
    )


def _compared(operator: str, *, negated: bool = False) -> Rule:
    def make(graph: Graph, dtype: Any, *names: str, **params: Any) -> str:
        if dtype not in NUMBERS:
            names = tuple(graph.cast(name, wider(dtype)) for name in names)
        made = graph.node(operator, *names)
        return graph.node("Not", made) if negated else made

    return elementwise(make)


def _logical(operator: str, bitwise: str) -> Rule:
    return elementwise(
        lambda graph, dtype, *names, **params: graph.node(
            operator if dtype in (bool,) else bitwise, *names
        )
    )


def _shifted(direction: str) -> Rule:
    def make(graph: Graph, dtype: Any, *names: str, **params: Any) -> str:
        unsigned = _unsigned(dtype)
        if dtype == unsigned:
            return graph.node("BitShift", *names, direction=direction)
        parts = [graph.cast(name, unsigned) for name in names]
        return graph.cast(graph.node("BitShift", *parts, direction=direction), dtype)

    return elementwise(make)


def _unsigned(dtype: Any) -> np.dtype[Any]:
    return np.dtype(f"uint{8 * np.dtype(dtype).itemsize}")


def _set_bits(graph: Graph, dtype: Any, x: str, **params: Any) -> str:
    """How many bits of 32 are set, by a table for 16 of them."""
    if np.dtype(dtype) != np.uint32:
        raise NotImplementedError(f"a count of the bits of {np.dtype(dtype)}")
    table = graph.constant(np.bitwise_count(np.arange(1 << 16)), np.uint8)
    low = graph.node("BitwiseAnd", x, graph.constant(0xFFFF, np.uint32))
    high = graph.node("BitShift", x, graph.constant(16, np.uint32), direction="RIGHT")
    halves = (graph.node("Gather", table, graph.cast(half, np.int32)) for half in (low, high))
    total = graph.node("Add", *(graph.cast(half, np.int32) for half in halves))
    return graph.cast(total, dtype)


def _log1p(graph: Graph, dtype: Any, x: str, **params: Any) -> str:
    """log(1 + x) to the last digits: log(u) x / (u - 1) with u = 1 + x, and x where u is 1."""
    one = graph.constant(1, dtype)
    u = graph.node("Add", x, one)
    ratio = graph.node("Div", x, graph.node("Sub", u, one))
    exact = graph.node("Mul", graph.node("Log", u), ratio)
    return graph.node("Where", graph.node("Equal", u, one), x, exact)


def _expm1(graph: Graph, dtype: Any, x: str, **params: Any) -> str:
    """exp(x) - 1 to the last digits: tanh(x / 2) (exp(x) + 1)."""
    half = graph.node("Tanh", graph.node("Mul", x, graph.constant(0.5, dtype)))
    return graph.node(
        "Mul", half, graph.node("Add", graph.node("Exp", x), graph.constant(1, dtype))
    )


def _rsqrt(graph: Graph, dtype: Any, x: str, **params: Any) -> str:
    return graph.node("Reciprocal", graph.node("Sqrt", x))


def _integer_power(graph: Graph, dtype: Any, x: str, *, y: int, **params: Any) -> str:
    if y == 2:
        return _square(graph, dtype, x)
    return graph.calculated("Pow", dtype, x, graph.constant(y, dtype))


def _square(graph: Graph, dtype: Any, x: str, **params: Any) -> str:
    return graph.calculated("Mul", dtype, x, x)


def _remainder(graph: Graph, dtype: Any, x: str, y: str, **params: Any) -> str:
    return graph.calculated("Mod", dtype, x, y, fmod=1)  # with the sign of x


def _chosen(graph: Graph, dtype: Any, which: str, *cases: str, **params: Any) -> str:
    """The second case where `which` is true, else the first."""
    if len(cases) != 2:
        raise NotImplementedError(f"a choice among {len(cases)} cases")
    which = graph.cast(which, bool)
    if dtype in NUMBERS:
        return graph.node("Where", which, cases[1], cases[0])
    first, second = (graph.cast(case, wider(dtype)) for case in cases)
    return graph.cast(graph.node("Where", which, second, first), dtype)


def _clamped(graph: Graph, dtype: Any, least: str, x: str, most: str, **params: Any) -> str:
    return graph.calculated("Min", dtype, graph.calculated("Max", dtype, least, x), most)


def _converted(call: Call) -> list[Value]:
    (value,), (output,) = call.values, call.outputs
    if value.dtype == output.dtype:
        return [value]
    return call.made(call.graph.cast(call.graph.name(value), output.dtype), full=value.full)


ARITHMETIC: dict[str, Rule] = {
    "abs": _as("Abs"),
    "add": _as("Add"),
    "add_any": _as("Add"),
    "and": _logical("And", "BitwiseAnd"),
    "ceil": _as("Ceil"),
    "clamp": elementwise(_clamped),
    "convert_element_type": _converted,
    "copy": same,
    "copy_p": same,
    "cos": _as("Cos"),
    "div": _as("Div"),
    "eq": _compared("Equal"),
    "erf": _as("Erf"),
    "exp": _as("Exp"),
    "expm1": elementwise(_expm1),
    "floor": _as("Floor"),
    "ge": _compared("GreaterOrEqual"),
    "gt": _compared("Greater"),
    "integer_pow": elementwise(_integer_power),
    "le": _compared("LessOrEqual"),
    "log": _as("Log"),
    "log1p": elementwise(_log1p),
    "logistic": _as("Sigmoid"),
    "lt": _compared("Less"),
    "max": _as("Max"),
    "min": _as("Min"),
    "mul": _as("Mul"),
    "ne": _compared("Equal", negated=True),
    "neg": _as("Neg"),
    "not": _logical("Not", "BitwiseNot"),
    "or": _logical("Or", "BitwiseOr"),
    "population_count": elementwise(_set_bits),
    "pow": _as("Pow"),
    "rem": elementwise(_remainder),
    "rsqrt": elementwise(_rsqrt),
    "select_n": elementwise(_chosen),
    "shift_left": _shifted("LEFT"),
    "shift_right_logical": _shifted("RIGHT"),
    "sign": _as("Sign"),
    "sin": _as("Sin"),
    "sqrt": _as("Sqrt"),
    "square": elementwise(_square),
    "stop_gradient": same,
    "sub": _as("Sub"),
    "tanh": _as("Tanh"),
    "xor": _logical("Xor", "BitwiseXor"),
}
"""Rules by the names of primitives."""
